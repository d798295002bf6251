//! The steps from what a hub has to what is wanted of it: which files, what they will take, and here they come.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::api::{self, Listed, Repository};
use super::cache::Cache;
use super::choice::{Choice, choose};
use super::client::{Client, retried};
use super::download::{Download, mega};
use super::folder::{self, Parts};
use super::head::Head;
use super::name::HubName;
use super::small::read_small;
use crate::cli::output::{one_line, say};
use crate::cli::progress::Progress;
use crate::cli::pull::lock::lock;
use crate::cli::pull::{Interrupt, PullError, Terms};
use crate::model::load::folder_files::{CONFIG, INDEX, OPTIONAL, max_bytes};
use crate::model::load::read_text;
use crate::model::{NoPreview, Preview, Remote, preview};
use crate::text::Text;

const UNKNOWN: &str = "memory: not known before it is here";

/// A model on its way.
pub(super) struct Taking<'a> {
    pub(super) client: &'a Client,
    pub(super) name: &'a HubName,
    pub(super) cache: &'a Cache,
    pub(super) repository: &'a Repository,
    pub(super) terms: Option<&'a Terms>,
    pub(super) interrupt: &'a Interrupt,
}

/// A file that is not in the cache.
struct Missing {
    file: String,
    remote: api::Remote,
}

impl Taking<'_> {
    /// Brings what is not there. Returns the path of the model.
    pub(super) fn take(&self) -> Result<PathBuf, PullError> {
        // Nothing is in some that need not be there.
        let is_of_use = |f: &&Listed| f.bytes != Some(0) || !OPTIONAL.contains(&f.path.as_str());
        let files = self.repository.files.iter().filter(is_of_use);
        let files: Vec<String> = files.map(|f| f.path.clone()).collect();
        let choice = choose(&files, &self.name.wanted).map_err(|reason| self.refused(&reason))?;
        let (path, came) = match choice {
            Choice::Gguf(parts) => self.gguf(&parts)?,
            Choice::Folder => self.folder(&files)?,
        };
        let noted = self.cache.note(&self.name.revision, self.commit());
        // A cache that this user may only read has the model all the same.
        if came {
            noted?;
        }
        Ok(path)
    }

    /// The second value is whether anything had to come.
    fn gguf(&self, parts: &[String]) -> Result<(PathBuf, bool), PullError> {
        let missing = self.missing(parts.iter())?;
        let first = parts.first().map_or("", String::as_str);
        if !missing.is_empty() {
            self.tell(first, (parts.len(), parts.len() - missing.len()), &missing);
            self.tell_memory(Path::new(first), Remote::File, &missing)?;
            self.bring(&missing, || Ok(()))?;
        }
        Ok((self.cache.snapshot(self.commit()).join(first), !missing.is_empty()))
    }

    fn folder(&self, files: &[String]) -> Result<(PathBuf, bool), PullError> {
        let has_index = files.iter().any(|file| file == INDEX);
        let comes_first = has_index && self.cache.find(self.commit(), INDEX).is_none();
        let index = has_index.then(|| self.small(INDEX)).transpose()?;
        let parts = folder::parts(files, index.as_deref());
        let Parts { small, shards } = parts.map_err(|reason| self.refused(&reason))?;
        let weights: Vec<String> = shards.keys().cloned().collect();
        let missing = self.missing(small.iter().chain(&weights))?;
        if !missing.is_empty() {
            let first = weights.first().map_or("", String::as_str);
            let all = small.len() + weights.len();
            let here = all - missing.len() - usize::from(comes_first);
            self.tell(first, (all, here), &missing);
            let config = self.small(CONFIG)?;
            let path = self.name.repository();
            let model = Remote::Folder { config: &config, shards };
            let vocab = self.tell_memory(Path::new(&path), model, &missing)?;
            // The small files come first.
            self.bring(&missing, || vocab.map_or(Ok(()), |vocab| self.check_text(vocab)))?;
        }
        Ok((self.cache.snapshot(self.commit()), !missing.is_empty()))
    }

    fn commit(&self) -> &str {
        &self.repository.commit
    }

    fn refused(&self, reason: &str) -> PullError {
        PullError::new(format!("{} {reason}", self.name.repository()))
    }

    /// Those that are not there, with what the hub says of them.
    fn missing<'a>(
        &self,
        files: impl Iterator<Item = &'a String>,
    ) -> Result<Vec<Missing>, PullError> {
        let is_missing = |file: &&String| self.cache.find(self.commit(), file).is_none();
        let described = files.filter(is_missing).map(|file| {
            let remote = self.describe(file)?;
            Ok(Missing { file: file.clone(), remote })
        });
        described.collect()
    }

    fn describe(&self, file: &str) -> Result<api::Remote, PullError> {
        let listed: Option<&Listed> = self.repository.files.iter().find(|f| f.path == file);
        let Some(listed) = listed else {
            return Err(self.refused(&format!("was listed with {file}, and is not")));
        };
        let ask = || api::describe(self.client, self.name, self.commit(), listed);
        let remote = retried(self.interrupt, ask)?;
        let most = max_bytes(file);
        if folder::is_small(file) && remote.bytes > most {
            let bytes = remote.bytes;
            return Err(self.refused(&format!("has a {file} of {bytes} bytes, above {most}")));
        }
        Ok(remote)
    }

    /// The text of a file that says what else is needed. It comes without a word.
    fn small(&self, file: &str) -> Result<String, PullError> {
        let path = if let Some(path) = self.cache.find(self.commit(), file) {
            path
        } else {
            let missing = Missing { file: file.to_owned(), remote: self.describe(file)? };
            self.bring_one(&missing, &mut Progress::silent())?
        };
        let text = read_small(&path, usize::try_from(max_bytes(file)).unwrap_or(usize::MAX));
        text.map_err(|e| PullError::io("cannot read", &path, &e))
    }

    /// The text side of a folder, whose files are here, for a model of so many tokens.
    fn check_text(&self, vocab: usize) -> Result<(), PullError> {
        let refused = |reason: &dyn Display| PullError::new(format!("{}: {reason}", self.name));
        let files = read_text(&self.cache.snapshot(self.commit())).map_err(|e| refused(&e))?;
        // Which tokens end an answer, other files say.
        Text::from_folder(&files, &[], vocab).map(drop).map_err(|e| refused(&e))
    }

    /// All of them; `check` is asked before the first one with weights.
    fn bring(
        &self,
        missing: &[Missing],
        check: impl FnOnce() -> Result<(), PullError>,
    ) -> Result<(), PullError> {
        let all = missing.iter().map(|missing| missing.remote.bytes).fold(0, u64::saturating_add);
        let mut progress = Progress::new("downloading", all);
        let mut check = Some(check);
        for missing in missing {
            if !folder::is_small(&missing.file)
                && let Some(check) = check.take()
            {
                check()?;
            }
            self.bring_one(missing, &mut progress)?;
            progress.next(missing.remote.bytes);
        }
        Ok(())
    }

    fn bring_one(&self, missing: &Missing, progress: &mut Progress) -> Result<PathBuf, PullError> {
        let Missing { file, remote } = missing;
        let lock_path = self.cache.lock(&remote.etag)?;
        let _lock = lock(&self.name.to_string(), &lock_path, self.interrupt)?;
        let (client, name, interrupt) = (self.client, self.name, self.interrupt);
        Download { client, name, remote, interrupt }.bring(&self.cache.blobs()?, progress)?;
        self.cache.link(self.commit(), file, &remote.etag)
    }

    /// What is taken: `first` and other files, so many with it, of which some are here already.
    fn tell(&self, first: &str, (all, here): (usize, usize), missing: &[Missing]) {
        let bytes = missing.iter().map(|missing| missing.remote.bytes).fold(0, u64::saturating_add);
        let licence = self.repository.licence.as_ref();
        let licence =
            licence.map_or_else(|| "no licence named".to_owned(), |l| format!("licence {l}"));
        let others = match all {
            0 | 1 => String::new(),
            2 => " and 1 more file".to_owned(),
            n => format!(" and {} more files", n - 1),
        };
        let here = match here {
            0 => String::new(),
            n => format!(", {n} of them here already"),
        };
        let (name, first, size) = (self.name, one_line(first), mega(bytes));
        say(&format!("{name}: {first}{others} ({size} MB{here}, {licence})"));
    }

    /// What serving it takes. Refuses what cannot be served, before it is taken. Gives the size of its vocabulary.
    fn tell_memory(
        &self,
        path: &Path,
        model: Remote<'_>,
        missing: &[Missing],
    ) -> Result<Option<usize>, PullError> {
        let name = self.name;
        let open = |path: &Path| self.open(path, missing);
        let Some(terms) = self.terms else {
            say(&format!("{name}: {UNKNOWN}"));
            return Ok(None);
        };
        let is_file = matches!(model, Remote::File);
        let previewed = preview(path, model, &terms.backend, &terms.engine, &open);
        self.interrupt.check()?;
        let refused = |reason: String| PullError::new(format!("{name}: {reason}"));
        let Preview { needs, metadata, vocab } = match previewed {
            Ok(preview) => preview,
            Err(NoPreview::Refused(e)) => return Err(refused(e.to_string())),
            Err(NoPreview::Unknown) => {
                say(&format!("{name}: {UNKNOWN}"));
                return Ok(None);
            }
        };
        if is_file && let Err(e) = Text::from_gguf(&metadata) {
            return Err(refused(format!("{}: {e}", path.display())));
        }
        say(&format!("{name}: serving it takes {}", needs.told()));
        match needs.check(terms.backend.memory_bytes) {
            Err(reason) if terms.must_fit => Err(refused(reason)),
            Err(reason) => {
                say(&format!("{name}: it will not fit into this machine: {reason}"));
                Ok(Some(vocab))
            }
            Ok(()) => Ok(Some(vocab)),
        }
    }

    /// A file of the model, wherever it is, from its beginning.
    fn open<'a>(
        &'a self,
        path: &Path,
        missing: &'a [Missing],
    ) -> Result<(Box<dyn Read + 'a>, u64), String> {
        // A folder's files are called by its name, too.
        let name = path.strip_prefix(self.name.repository()).unwrap_or(path);
        let is_it = |file: &str| Path::new(file) == name;
        if let Some(missing) = missing.iter().find(|missing| is_it(&missing.file)) {
            let head = Head::new(self.client, &missing.remote, self.interrupt);
            return Ok((Box::new(head), missing.remote.bytes));
        }
        let here = self.cache.snapshot(self.commit()).join(name);
        let file = File::open(here).map_err(|e| format!("cannot be read: {e}"))?;
        let bytes = file.metadata().map_err(|e| format!("cannot be read: {e}"))?.len();
        Ok((Box::new(file), bytes))
    }
}
