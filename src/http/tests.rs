//! A real server on a real socket, spoken to in raw bytes.

mod browsers;
mod drains;
mod errors;
mod guard;
mod keys_reload;
mod observability;
mod pages;
mod support;
mod timeouts;
