//! A deterministic model with fault injection, for tests.

use super::{Logits, Model, ModelSpec, StepError};
use crate::backend::Batch;

/// See the module.
#[derive(Debug)]
pub struct FakeModel {
    spec: ModelSpec,
}

/// Opens `fake:key=value,…`; an unknown key is refused by name.
pub fn open(_spec: &str) -> Result<FakeModel, String> {
    Err("the fake model is not built in".to_owned())
}

impl Model for FakeModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&mut self, _batch: &Batch<'_>) -> Result<Logits<'_>, StepError> {
        Err(StepError("the fake model is not built in".to_owned()))
    }

    fn recover(&mut self) {}

    fn device(&self) -> String {
        "fake".to_owned()
    }

    fn kv_block_bytes(&self) -> usize {
        0
    }
}
