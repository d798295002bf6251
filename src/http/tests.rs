//! A real server on a real socket, spoken to in raw bytes.

mod browsers;
mod drains;
mod guard;
mod keys_reload;
mod observability;
mod support;
mod timeouts;
