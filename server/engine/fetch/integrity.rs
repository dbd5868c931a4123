//! Checks a model file's size and sha256.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{
    FetchError, FileDamage, ModelStore, ProgressCallback, PullPhase, PullProgress, is_sha256, read_small_text,
};
use crate::catalog::CatalogModel;

/// The state of a model's file on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileIntegrity {
    /// The file is missing, or only an unfinished download.
    Absent,
    /// The file has the expected sha256: the catalog's, or the one that the hub announced.
    Verified(PathBuf),
    /// The file has about the right size; its expected sha256 is unknown.
    Unpinned(PathBuf),
    /// The file has the wrong size or sha256.
    Damaged(PathBuf, FileDamage),
}

impl ModelStore {
    /// Checks the whole file of the model. That takes a while for a large file; `watch` receives the progress.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn check_integrity(
        &self,
        model: &CatalogModel,
        watch: ProgressCallback<'_>,
    ) -> Result<FileIntegrity, FetchError> {
        let Some(path) = self.find_file(model) else {
            let own = self.file_path(model);
            return Ok(match fs::metadata(&own) {
                Ok(found) if found.is_file() => {
                    let (expected, exact) = (model.bytes, model.exact);
                    FileIntegrity::Damaged(own, FileDamage::Size { expected, exact, found: found.len() })
                }
                _ => FileIntegrity::Absent,
            });
        };
        let Some(expected) = self.expected_sha256(model, &path) else {
            return Ok(FileIntegrity::Unpinned(path));
        };
        let found = self.compute_sha256(&path, watch)?;
        if found == expected {
            return Ok(FileIntegrity::Verified(path));
        }
        Ok(FileIntegrity::Damaged(path, FileDamage::Hash { expected, found }))
    }

    /// The file's expected sha256, if it is known: from the catalog, from the record written when the file was pulled,
    /// or from the file's name in the Hugging Face cache.
    fn expected_sha256(&self, model: &CatalogModel, path: &Path) -> Option<String> {
        if let Some(pinned) = model.sha256 {
            return Some(pinned.to_owned());
        }
        let name = if *path == self.file_path(model) {
            read_small_text(&self.hash_path(model), 1000)?.split_whitespace().next()?.to_ascii_lowercase()
        } else {
            fs::canonicalize(path).ok()?.file_name()?.to_str()?.to_ascii_lowercase()
        };
        Some(name).filter(|name| is_sha256(name))
    }

    /// The path of the recorded hash that the hub announced for a model without a hash in the catalog.
    pub(super) fn hash_path(&self, model: &CatalogModel) -> PathBuf {
        self.folder.join(format!("{}.sha256", model.file))
    }

    /// Flushes a file to disk.
    pub(super) fn sync_to_disk(&self, path: &Path) -> Result<(), FetchError> {
        // Some systems refuse to sync a file that is open read-only.
        let file = OpenOptions::new().read(true).write(true).open(path);
        file.and_then(|file| file.sync_all()).map_err(|source| self.write_error(path, 0, source))
    }

    /// The sha256 of a file.
    pub(super) fn compute_sha256(
        &self,
        path: &Path,
        watch: ProgressCallback<'_>,
    ) -> Result<String, FetchError> {
        let unreadable = |source| self.io_error("read", path, source);
        let mut file = File::open(path).map_err(unreadable)?;
        let total = file.metadata().map_err(unreadable)?.len();
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            watch(PullProgress { phase: PullPhase::Verify, done, total });
            // A file that grows meanwhile is not read endlessly.
            let want = usize::try_from(total - done).unwrap_or(usize::MAX).min(buffer.len());
            let read = match file.read(&mut buffer[..want]) {
                Ok(0) => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            hash.update(&buffer[..read]);
            done += read as u64;
        }
    }
}
