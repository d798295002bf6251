//! `POST /v1/completions` and its two legacy forms.

pub mod types;
pub mod validate;
