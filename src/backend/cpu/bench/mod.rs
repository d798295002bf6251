//! What the micro-benchmarks in `benches/kernels` drive: kernels to repeat, and the limits of the processor that they are held to.
//!
//! No part of the library's interface. Nothing else uses it, so that no binary contains it.

mod limits;
mod product;

pub use limits::{Peak, Reader};
pub use product::Product;
