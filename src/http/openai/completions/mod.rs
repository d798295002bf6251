//! `POST /v1/completions` and its two legacy forms.

mod answer;
mod assemble;
mod convert;
pub mod types;
pub mod validate;
