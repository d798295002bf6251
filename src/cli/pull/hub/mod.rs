//! Models of a hub: GGUF files or folders of a repository, kept in the cache that the hub's own tools use, so
//! that each is fetched once for all of them. What is there is used without a connection.

mod api;
mod cache;
mod choice;
mod client;
mod download;
mod folder;
mod head;
mod name;
mod parallel;
mod place;
mod ranges;
mod small;
mod taking;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::{Interrupt, PullError, Terms};
use crate::cli::output::{one_line, say};
use crate::model::load::folder_files::{INDEX, max_bytes};
use cache::Cache;
use choice::{Choice, USUAL, choose};
use client::{Client, Fault, retried};
use name::{HubName, USUAL_REVISION, Wanted};
use place::Place;
use taking::Taking;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After an interruption, for noting what came.
const NOTING_TIMEOUT: Duration = Duration::from_millis(500);

/// What forbids to open a connection, by the name under which the user knows it: `--offline`, if given, or
/// the variable that the hub's own tools know.
pub(super) fn forbidden_by(offline: bool) -> Option<&'static str> {
    forbidding(offline, place::is_offline(|name| std::env::var(name).ok()))
}

fn forbidding(offline: bool, hub_offline: bool) -> Option<&'static str> {
    match (offline, hub_offline) {
        (true, _) => Some("--offline"),
        (false, true) => Some("HF_HUB_OFFLINE"),
        (false, false) => None,
    }
}

/// A model of a hub, there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubModel {
    name: HubName,
    place: Place,
}

impl HubModel {
    /// By its name, at the hub that the environment names. An error is wrong usage.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        Ok(Self { name: HubName::parse(name)?, place: Place::from_environment()? })
    }

    /// Its name as it would be written.
    pub(crate) fn name(&self) -> String {
        self.name.to_string()
    }

    /// The address of the hub.
    pub(crate) fn endpoint(&self) -> &str {
        &self.place.endpoint.url
    }

    /// The cache of the hub's tools.
    pub(crate) fn folder(&self) -> &Path {
        &self.place.cache
    }

    /// Where it stands in the cache; nothing if the hub must be asked, an error if that is forbidden.
    pub(crate) fn find(&self, offline: bool) -> Result<Option<PathBuf>, PullError> {
        let cache = self.cache();
        let forbidden_by = forbidding(offline, self.place.is_offline);
        let noted = cache.commit(&self.name.revision);
        // Nobody could note it in a cache that was copied in part, or that may only be read.
        let is_sure = noted.is_some();
        let may_guess = forbidden_by.is_some() && self.name.revision == USUAL_REVISION;
        let commit = noted.or_else(|| cache.only_commit().filter(|_| may_guess));
        let commit = commit.unwrap_or_default();
        let files = if commit.is_empty() { Vec::new() } else { cache.files(&commit) };
        // Whether a file is the only one only the hub knows; the first choice is that everywhere.
        let first = Wanted::Quantization(USUAL[0].to_owned());
        let wanted = match &self.name.wanted {
            Wanted::Usual if forbidden_by.is_none() => &first,
            wanted => wanted,
        };
        let chosen =
            choose(&files, wanted).and_then(|choice| there(&cache, &commit, &files, choice));
        match (chosen, forbidden_by) {
            (Ok(path), _) => {
                if !is_sure {
                    let name = &self.name;
                    say(&format!("{name}: taking {commit}, the only commit in the cache"));
                }
                Ok(Some(path))
            }
            (Err(_), None) => Ok(None),
            (Err(reason), Some(by)) => {
                let (name, root) = (&self.name, cache.root().display());
                let absent =
                    format!("is not there: without {by}, `millrace pull {name}` fetches it");
                let reason = if files.is_empty() { &absent } else { &reason };
                Err(PullError::new(format!(
                    "{name}: {by} forbids to ask the hub, and in {root} it {reason}"
                )))
            }
        }
    }

    /// Fetches it unless it is there. Returns its path.
    ///
    /// Safe to run at once with others, in this process and elsewhere: the later ones wait, then find it.
    pub(crate) fn fetch(
        &self,
        terms: Option<&Terms>,
        interrupt: &Interrupt,
    ) -> Result<PathBuf, PullError> {
        // In a thread of its own, since nothing else ends a connection that brings nothing.
        let (send, receive) = sync_channel(1);
        let (model, terms, inner) = (self.clone(), terms.cloned(), interrupt.clone());
        let work = move || {
            // Nobody waits for an answer after an interruption.
            let _ = send.send(model.fetch_here(terms.as_ref(), &inner));
        };
        std::thread::Builder::new()
            .name("hub".to_owned())
            .spawn(work)
            .map_err(|e| PullError::new(format!("cannot start a thread: {e}")))?;
        let outcome = loop {
            match receive.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) if !interrupt.is_set() => {}
                Err(RecvTimeoutError::Timeout) => break receive.recv_timeout(NOTING_TIMEOUT),
                outcome => break outcome,
            }
        };
        let interrupted = || {
            let kept = "is kept, and the next run goes on from there";
            Err(PullError::new(format!("interrupted; what came of {} {kept}", self.name)))
        };
        match outcome {
            Ok(Ok(path)) => Ok(path),
            // A thread that panicked was not interrupted.
            Err(RecvTimeoutError::Disconnected) => {
                Err(PullError::new(format!("fetching {} failed inside", self.name)))
            }
            Ok(Err(e)) if !interrupt.is_set() => Err(e),
            Ok(Err(_)) | Err(RecvTimeoutError::Timeout) => interrupted(),
        }
    }

    fn fetch_here(
        &self,
        terms: Option<&Terms>,
        interrupt: &Interrupt,
    ) -> Result<PathBuf, PullError> {
        let (name, cache) = (&self.name, &self.cache());
        let client = &Client::new(&self.place)?;
        match retried(interrupt, || api::repository(client, name)) {
            Ok(repository) => {
                let repository = &repository;
                Taking { client, name, cache, repository, terms, interrupt }.take()
            }
            Err(fault) => self.without_the_hub(fault),
        }
    }

    /// A hub that cannot be reached is no reason not to take what is here already.
    fn without_the_hub(&self, fault: Fault) -> Result<PathBuf, PullError> {
        let is_away = matches!(fault, Fault::Passing(..));
        let e = PullError::from(fault);
        match self.find(true) {
            Ok(Some(path)) if is_away => {
                say(&format!("{}: taking what is in the cache", one_line(&e.to_string())));
                Ok(path)
            }
            _ => Err(e),
        }
    }

    fn cache(&self) -> Cache {
        Cache::new(&self.place.cache, &self.name)
    }
}

/// The path of what was chosen among the `files` of the cache, if all of it is there. The error goes on after `it`.
fn there(cache: &Cache, commit: &str, files: &[String], choice: Choice) -> Result<PathBuf, String> {
    let folder = cache.snapshot(commit);
    match choice {
        Choice::Gguf(parts) => Ok(folder.join(parts.first().map_or("", String::as_str))),
        Choice::Folder => {
            let most = usize::try_from(max_bytes(INDEX)).unwrap_or(usize::MAX);
            let index = cache.find(commit, INDEX).map(|path| small::read_small(&path, most));
            let index =
                index.transpose().map_err(|e| format!("has an {INDEX} without use: {e}"))?;
            folder::parts(files, index.as_deref()).map(|_| folder)
        }
    }
}
