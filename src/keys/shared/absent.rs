//! The store of a build without the feature `redis`: there is none.

use std::sync::Arc;

use super::Word;
use crate::config::StoreUrl;

/// Never made.
#[derive(Debug)]
pub enum LimitStore {}

impl LimitStore {
    pub fn check(_: &StoreUrl) -> Result<(), &'static str> {
        Err("this build shares no limits: take the setting out, or build with `--features redis`")
    }

    #[expect(clippy::unused_async, reason = "as the other one")]
    pub async fn reach(url: &StoreUrl) -> Result<(), String> {
        Ok(Self::check(url)?)
    }

    pub fn open(url: &StoreUrl) -> Result<Arc<Self>, &'static str> {
        Self::check(url)?;
        Err("this build shares no limits")
    }

    #[expect(clippy::unused_async, reason = "as the other one")]
    pub(in crate::keys) async fn take(&self, _: &str, _: u32, _: u64) -> Option<Word> {
        match *self {}
    }

    pub(in crate::keys) fn give_back(self: &Arc<Self>, _: &Arc<str>, _: u32, _: u64) {
        match **self {}
    }

    pub(super) fn new_member(&self) -> String {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "as the other one")]
    pub(super) async fn hold(&self, _: &str, _: usize, _: &str) -> Option<bool> {
        match *self {}
    }

    pub(super) fn keep(&self, _: &str, _: &Arc<str>) {
        match *self {}
    }

    pub(super) fn free(self: &Arc<Self>, _: &str, _: &Arc<str>) {
        match **self {}
    }
}
