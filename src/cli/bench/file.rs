//! The file of `--json`: opened before the run, so that none is lost for want of a place, and there as a whole or not
//! at all.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::cli::Failure;

pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// What becomes `path` at the end; a pipe or a device is written as it is.
    partial: Option<PathBuf>,
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let is_special = fs::metadata(path).is_ok_and(|data| !data.is_file());
        let partial = (!is_special).then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(".partial");
            PathBuf::from(name)
        });
        let file = File::create(partial.as_deref().unwrap_or(path)).map_err(|e| fault(path, &e))?;
        Ok(Self { path: path.to_owned(), file, partial })
    }

    pub(super) fn save(mut self, text: &str) -> Result<(), Failure> {
        let fault = |e| fault(&self.path, &e);
        self.file.write_all(text.as_bytes()).map_err(fault)?;
        if let Some(partial) = &self.partial {
            fs::rename(partial, &self.path).map_err(fault)?;
            self.partial = None;
        }
        Ok(())
    }
}

fn fault(path: &Path, e: &std::io::Error) -> Failure {
    Failure::runtime(format!("--json: cannot write {}: {e}", path.display()))
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            let _ = fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Output;

    #[test]
    fn a_file_is_there_as_a_whole_or_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "old").unwrap();
        drop(Output::create(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        Output::create(&path).unwrap().save("new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let fault = Output::create(&folder.path().join("no/a.json")).err().unwrap();
        assert!(fault.to_string().contains("a.json"), "{fault}");
        assert!(Output::create(folder.path()).is_err());
    }
}
