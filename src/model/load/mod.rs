//! Loading: file formats in, tensors and metadata out. Nothing is believed that was not checked.

pub mod gguf;
