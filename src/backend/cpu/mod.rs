//! Our own kernels for CPUs.
#![allow(unsafe_code)]

pub(crate) mod act;
pub mod gemm;
pub(crate) mod pack;
pub mod pool;
pub mod quant;
mod read;

pub use self::pack::Packed;
