//! The one thread: receive, schedule, forward, sample, emit.

use super::Settings;
use super::handle::EngineHandle;
use crate::model::Model;

pub(super) fn spawn(_model: Box<dyn Model>, _settings: Settings) -> std::io::Result<EngineHandle> {
    Err(std::io::Error::other("the engine is not built in"))
}
