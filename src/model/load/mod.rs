//! Loading: file formats in, tensors and metadata out. Nothing is believed that was not checked.

mod digest;
mod end_tokens;
pub mod gguf;

pub use digest::digest;
pub(crate) use digest::hex;
pub use end_tokens::end_tokens;
