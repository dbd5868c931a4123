//! The file with this user's statistics, and the thread that adds to it, so that no other thread waits for the disk.
//!
//! `statistics.json` in taper's data folder is shared by all servers. It is only ever replaced as a whole, by a file
//! that was written beside it, under the lock `statistics.lock`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{Local, NaiveDate};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use futures::channel::oneshot;
use serde::Deserialize as _;
use serde_json::{Value, json};
use taper_engine::fetch;
use tempfile::NamedTempFile;
use thiserror::Error;
use tracing::{debug, warn};

use crate::usage::stats::{UsageEvent, UsageHistory, UsageRecord, UsageStats};

/// The version of the file's format.
const VERSION: u64 = 1;
/// Written into the file, for people who find it.
const ABOUT: &str = "counts of taper's suggestions and their outcomes; never sent; shown by `taper stats`";
/// How long another server may hold the lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the lock is tried in that time.
const LOCK_RETRY: Duration = Duration::from_millis(5);
/// Minimum time between two saves of the worker.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// How long the last save may delay the end of the process.
const EXIT_TIMEOUT: Duration = Duration::from_millis(1500);

/// A problem with the file.
#[derive(Debug, Error)]
pub enum StatsFileError {
    /// The home folder is unknown for it.
    #[error("no home folder for statistics; set TAPER_HOME to a folder")]
    NoHome,
    /// It cannot be read.
    #[error("cannot read the statistics in {}: {}", .0.display(), .1)]
    Read(PathBuf, io::Error),
    /// It cannot be written.
    #[error("cannot write statistics to {}: {}; free disk space, make it writable, or set `statistics = false`", .0.display(), .1)]
    Write(PathBuf, io::Error),
    /// Another server held the lock for too long.
    #[error("the statistics in {} are locked by another process", .0.display())]
    Locked(PathBuf),
    /// A later version of taper wrote it.
    #[error("{} was written by a newer version of taper; update taper, or move the file away", .0.display())]
    Newer(PathBuf),
    /// Its content is something else.
    #[error("{} is not a taper statistics file; the next server renames it", .0.display())]
    Damaged(PathBuf),
}

/// The file with this user's statistics.
#[derive(Debug, Clone)]
pub struct StatsFile {
    path: PathBuf,
}

impl StatsFile {
    /// The file in taper's data folder.
    ///
    /// # Errors
    /// The home folder is unknown.
    pub fn open() -> Result<Self, StatsFileError> {
        fetch::data_folder().map(|folder| Self::in_folder(&folder)).map_err(|_| StatsFileError::NoHome)
    }

    fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("statistics.json") }
    }

    /// Its path. It may not exist yet.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the counts. Without a file there are none.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn read(&self) -> Result<UsageHistory, StatsFileError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(UsageHistory::default());
            }
            Err(cause) => return Err(StatsFileError::Read(self.path.clone(), cause)),
        };
        let damaged = |_| StatsFileError::Damaged(self.path.clone());
        let content: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        match content["version"].as_u64() {
            Some(version) if version > VERSION => Err(StatsFileError::Newer(self.path.clone())),
            Some(_) => UsageHistory::deserialize(&content["counts"]).map_err(damaged),
            None => Err(StatsFileError::Damaged(self.path.clone())),
        }
    }

    /// Adds counts. A damaged file is renamed first; its new path is returned.
    ///
    /// # Errors
    /// The file cannot be read or written, or is locked. It is unchanged then.
    fn add(&self, unsaved: &UsageHistory, today: NaiveDate) -> Result<Option<PathBuf>, StatsFileError> {
        let problem = |cause| StatsFileError::Write(self.path.clone(), cause);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(problem)?;
        let _lock = self.lock()?;
        let (mut counts, aside) = match self.read() {
            Ok(counts) => (counts, None),
            Err(StatsFileError::Damaged(_)) => {
                (UsageHistory::default(), Some(self.set_aside().map_err(problem)?))
            }
            Err(other) => return Err(other),
        };
        counts.merge(unsaved);
        counts.compact(today);
        let content = json!({ "version": VERSION, "about": ABOUT, "counts": counts });
        // Deleted on drop unless it is renamed.
        let mut file = NamedTempFile::new_in(folder).map_err(problem)?;
        file.write_all(content.to_string().as_bytes())
            .and_then(|()| file.as_file().sync_data())
            .map_err(problem)?;
        file.persist(&self.path).map_err(|failure| problem(failure.error))?;
        Ok(aside)
    }

    fn lock(&self) -> Result<File, StatsFileError> {
        let path = self.path.with_extension("lock");
        let problem = |cause| StatsFileError::Write(path.clone(), cause);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(problem)?;
        let end = Instant::now() + LOCK_TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                // Without locks, two servers that write at the same moment may lose a minute's counts.
                Err(TryLockError::Error(cause)) if cause.kind() == ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(cause)) => return Err(problem(cause)),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    return Err(StatsFileError::Locked(self.path.clone()));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY),
            }
        }
    }

    /// Renames the file to a name that is free.
    fn set_aside(&self) -> io::Result<PathBuf> {
        let names = (1..1000).map(|number| self.path.with_extension(format!("damaged-{number}.json")));
        let path = names.into_iter().find(|path| !path.exists()).ok_or(ErrorKind::AlreadyExists)?;
        fs::rename(&self.path, &path)?;
        Ok(path)
    }
}

enum StatsCommand {
    RecordSinceStart(UsageEvent),
    Record(UsageRecord),
    Report(oneshot::Sender<Value>),
    Save,
}

/// Sends to the [`StatsWorker`]. Nothing here waits for the disk.
#[derive(Debug, Clone)]
pub struct StatsHandle(Sender<StatsCommand>);

impl StatsHandle {
    fn send(&self, command: StatsCommand) {
        // An error means that the worker has ended.
        let _ = self.0.send(command);
    }

    /// Counts an event since the server's start; it is not stored.
    pub fn record_since_start(&self, event: UsageEvent) {
        self.send(StatsCommand::RecordSinceStart(event));
    }

    /// Counts an event that is stored.
    pub fn record(&self, record: UsageRecord) {
        self.send(StatsCommand::Record(record));
    }

    /// All counts as JSON: since the server's start, and those of [`format_history`].
    pub async fn report(&self) -> Value {
        let (sender, receiver) = oneshot::channel();
        self.send(StatsCommand::Report(sender));
        receiver.await.unwrap_or_default()
    }

    /// Has the unsaved counts written now.
    pub fn save(&self) {
        self.send(StatsCommand::Save);
    }
}

/// Signals the end of the [`StatsWorker`].
#[derive(Debug)]
pub struct StatsFinished(Receiver<()>);

impl StatsFinished {
    /// Waits, for a limited time, until the last counts are saved. All handles must have been dropped.
    pub fn wait(&self) {
        if self.0.recv_timeout(EXIT_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            debug!("the last statistics were not saved in time");
        }
    }
}

/// Counts for one server, on a thread of its own.
#[derive(Debug)]
pub struct StatsWorker {
    commands: Receiver<StatsCommand>,
    /// Disconnected on drop.
    _running: Sender<()>,
    file: Option<StatsFile>,
    started: Instant,
    since_start: UsageStats,
    unsaved: UsageHistory,
    last_save: Instant,
    warned: bool,
}

impl StatsWorker {
    /// A worker to [run](Self::run). Without a file nothing is stored.
    pub fn new(file: Result<StatsFile, StatsFileError>) -> (Self, StatsHandle, StatsFinished) {
        let (sender, commands) = unbounded();
        let (running, finished) = bounded(0);
        let now = Instant::now();
        let mut worker = Self {
            commands,
            _running: running,
            file: None,
            started: now,
            since_start: UsageStats::default(),
            unsaved: UsageHistory::default(),
            last_save: now,
            warned: false,
        };
        match file {
            Ok(file) => worker.file = Some(file),
            Err(problem) => worker.warn(&problem),
        }
        (worker, StatsHandle(sender), StatsFinished(finished))
    }

    /// Counts until the last handle is dropped.
    pub fn run(mut self) {
        loop {
            let command = if self.unsaved.is_empty() {
                self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.commands.recv_deadline(self.last_save + SAVE_INTERVAL)
            };
            match command {
                Ok(StatsCommand::RecordSinceStart(event)) => self.since_start.record(event),
                Ok(StatsCommand::Record(record)) => self.unsaved.record(local_date(), &record),
                // An error means that the request was cancelled.
                Ok(StatsCommand::Report(reply)) => drop(reply.send(self.report())),
                Ok(StatsCommand::Save) | Err(RecvTimeoutError::Timeout) => self.save(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.save();
    }

    fn save(&mut self) {
        self.last_save = Instant::now();
        let Some(file) = self.file.as_ref().filter(|_| !self.unsaved.is_empty()) else { return };
        match file.add(&self.unsaved, local_date()) {
            Ok(aside) => {
                if let Some(aside) = aside {
                    warn!(aside = %aside.display(), "damaged statistics file renamed");
                }
                self.unsaved = UsageHistory::default();
            }
            // The counts stay for the next time.
            Err(problem) => self.warn(&problem),
        }
    }

    fn warn(&mut self, problem: &StatsFileError) {
        if std::mem::replace(&mut self.warned, true) {
            debug!(%problem, "statistics are not saved");
        } else {
            warn!(%problem, "statistics are not saved; suggestions continue");
        }
    }

    fn report(&self) -> Value {
        let mut history = self.file.as_ref().and_then(|file| file.read().ok()).unwrap_or_default();
        history.merge(&self.unsaved);
        let mut report = history_json(&history, local_date());
        let UsageStats { asked, shown, empty, superseded, cancelled, accepted, latency, .. } =
            &self.since_start;
        for (name, value) in [
            ("seconds", json!(self.started.elapsed().as_secs())),
            ("asked", json!(asked)),
            ("shown", json!(shown)),
            ("empty", json!(empty)),
            ("superseded", json!(superseded)),
            ("cancelled", json!(cancelled)),
            ("accepted", json!(accepted)),
            ("p50Ms", json!(latency.percentile(50).map(round_milliseconds))),
            ("p95Ms", json!(latency.percentile(95).map(round_milliseconds))),
        ] {
            report[name] = value;
        }
        report
    }
}

/// Today, in the user's time zone.
pub fn local_date() -> NaiveDate {
    Local::now().date_naive()
}

/// Counts as JSON text: `today` and `allTime`, each with its `languages` and `models`.
pub fn format_history(history: &UsageHistory, today: NaiveDate) -> String {
    format!("{:#}\n", history_json(history, today))
}

fn history_json(history: &UsageHistory, today: NaiveDate) -> Value {
    let part = |day| {
        let mut part = stats_json(&history.total(day));
        for (name, sums) in [("languages", history.by_language(day)), ("models", history.by_model(day))] {
            part[name] = sums.iter().map(|(&name, stats)| (name.to_owned(), stats_json(stats))).collect();
        }
        part
    };
    let mut json = json!({ "today": part(Some(today)), "allTime": part(None) });
    json["allTime"]["since"] = json!(history.since());
    json["today"]["date"] = json!(today.to_string());
    json
}

fn stats_json(stats: &UsageStats) -> Value {
    let percentile = |percent| stats.latency.percentile(percent).map(round_milliseconds);
    json!({
        "asked": stats.asked,
        "shown": stats.shown,
        "empty": stats.empty,
        "accepted": stats.accepted,
        "partlyAccepted": stats.partially_accepted,
        "typedAlong": stats.typed_through,
        "dismissed": stats.dismissed,
        "acceptedCharacters": stats.characters,
        "p50Ms": percentile(50),
        "p95Ms": percentile(95),
        "p99Ms": percentile(99),
    })
}

fn round_milliseconds(time: f64) -> f64 {
    (time * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> NaiveDate {
        "2026-02-03".parse().unwrap()
    }

    fn one_shown() -> UsageHistory {
        let mut history = UsageHistory::default();
        let event = UsageEvent::Shown;
        history.record(today(), &UsageRecord { language: "python".into(), model: "m".into(), event });
        history
    }

    #[test]
    fn concurrent_additions_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = StatsFile::in_folder(&folder.path().join("not/there/yet"));
        assert!(file.read().unwrap().is_empty());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        // On a busy machine the lock may take too long; the worker tries again later, too.
                        while let Err(problem) = file.add(&one_shown(), today()) {
                            assert!(matches!(problem, StatsFileError::Locked(_)), "{problem}");
                        }
                    }
                });
            }
        });
        assert_eq!(file.read().unwrap().total(None).shown, 20);
        let names = fs::read_dir(file.path().parent().unwrap()).unwrap().count();
        assert_eq!(names, 2, "the file and its lock");
    }

    #[test]
    fn damaged_file_is_set_aside_and_newer_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = StatsFile::in_folder(folder.path());
        for (number, damaged) in ["", "{}", "{\"version\":1,\"counts\":5}", "\u{0}\u{1}"].iter().enumerate() {
            fs::write(file.path(), damaged).unwrap();
            assert!(matches!(file.read(), Err(StatsFileError::Damaged(_))), "{damaged:?}");
            let aside = file.add(&one_shown(), today()).unwrap().unwrap();
            assert!(aside.ends_with(format!("statistics.damaged-{}.json", number + 1)), "{aside:?}");
            assert_eq!(fs::read_to_string(aside).unwrap(), *damaged);
            assert_eq!(file.read().unwrap(), one_shown());
        }
        let newer = "{\"version\":2,\"days\":[]}";
        fs::write(file.path(), newer).unwrap();
        assert!(matches!(file.add(&one_shown(), today()), Err(StatsFileError::Newer(_))));
        assert_eq!(fs::read_to_string(file.path()).unwrap(), newer);
    }

    #[test]
    fn stored_format_is_stable() {
        let stored = json!({ "since": "2026-02-03", "days": { "2026-02-03": { "python": { "m": {
            "asked": 1, "shown": 2, "empty": 3, "accepted": 4, "partly": 5, "typed": 6, "dismissed": 7, "characters": 8,
            "latency": { "18432": 9 },
        } } } } });
        assert_eq!(json!(UsageHistory::deserialize(&stored).unwrap()), stored);
    }
}
