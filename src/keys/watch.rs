//! Reloads the key file when it changes, and on SIGHUP.

use std::sync::Arc;

use super::KeyStore;
use crate::watch::{self, Mark};

/// Watches for as long as it is polled.
pub async fn watch(store: Arc<KeyStore>) {
    let mut seen = store.opened;
    watch::changes(move |asked| {
        // Before the file is read: a write that falls between the two shows at the next look.
        let now = store.file().map(Mark::of);
        if asked || now != seen {
            store.reload();
        }
        store.watch_expiry();
        seen = now;
    })
    .await;
}
