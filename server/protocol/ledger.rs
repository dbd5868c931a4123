//! The file that keeps the counts: one for all servers of a user, which add to it in turn.
//! It knows nothing of what is counted.
//!
//! `statistics.json` in taper's data folder is only ever replaced as a whole, by a file that was written beside it,
//! and only by who holds the lock on `statistics.lock`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use taper_engine::fetch;
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::protocol::counts::Book;

/// The version of the file's format.
const VERSION: u64 = 1;
/// Said in the file, to who finds it.
const ABOUT: &str =
    "what taper suggested and what became of it, in numbers; never sent; `taper stats` shows it";
/// How long another server may hold the lock.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the lock is tried meanwhile.
const PAUSE: Duration = Duration::from_millis(5);

/// What goes wrong with the file.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// There is no folder for it.
    #[error("there is no home folder to keep statistics in; set TAPER_HOME to a folder")]
    NoHome,
    /// It cannot be read.
    #[error("cannot read the statistics in {}: {cause}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It cannot be written.
    #[error("cannot keep statistics in {}: {cause}; make room or make it writable, or set `statistics = false`", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another server holds the lock all the time.
    #[error("the statistics in {} are locked by another process", .path.display())]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// A later version of taper wrote it.
    #[error("the statistics in {} are of a later version of taper; update it, or move them away", .path.display())]
    Later {
        /// Which file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} does not hold statistics of taper ({cause}); the next server sets it aside", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: serde_json::Error,
    },
}

/// The file as written.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u64,
    #[serde(default)]
    about: String,
    counts: Book,
}

/// Only its version, whatever else a later one may hold.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// Where the counts are kept.
#[derive(Debug, Clone)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// This user's.
    ///
    /// # Errors
    /// There is no home folder.
    pub fn open() -> Result<Self, LedgerError> {
        fetch::data_folder().map(|folder| Self::at(&folder)).map_err(|_| LedgerError::NoHome)
    }

    /// The one in another folder.
    pub fn at(folder: &Path) -> Self {
        Self { path: folder.join("statistics.json") }
    }

    /// The file, there or not.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was counted; nothing, if there is no file.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read(&self) -> Result<Book, LedgerError> {
        let path = || self.path.clone();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            // Below a file there is no file either.
            Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Book::default());
            }
            Err(cause) => return Err(LedgerError::Read { path: path(), cause }),
        };
        let damaged = |cause| LedgerError::Damaged { path: path(), cause };
        let Versioned { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version > VERSION {
            return Err(LedgerError::Later { path: path() });
        }
        serde_json::from_slice(&bytes).map(|Written { counts, .. }| counts).map_err(damaged)
    }

    /// Adds counts to the file; where a file that is none of ours was put, if there was one.
    ///
    /// # Errors
    /// It cannot be read or written, or is locked; it is then as it was.
    pub(crate) fn add(&self, more: &Book, today: NaiveDate) -> Result<Option<PathBuf>, LedgerError> {
        let problem = |cause| LedgerError::Write { path: self.path.clone(), cause };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(problem)?;
        // Held until it is dropped.
        let _lock = self.lock()?;
        let (mut book, aside) = match self.read() {
            Ok(book) => (book, None),
            Err(LedgerError::Damaged { .. }) => (Book::default(), Some(self.set_aside().map_err(problem)?)),
            Err(other) => return Err(other),
        };
        book.merge(more);
        book.compact(today);
        let written = Written { version: VERSION, about: ABOUT.to_owned(), counts: book };
        let bytes = serde_json::to_vec(&written).map_err(|cause| problem(cause.into()))?;
        // Dropped before it has the name, it is deleted.
        let mut file = NamedTempFile::new_in(folder).map_err(problem)?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_data()).map_err(problem)?;
        file.persist(&self.path).map_err(|failure| problem(failure.error))?;
        Ok(aside)
    }

    fn lock(&self) -> Result<File, LedgerError> {
        let path = self.path.with_extension("lock");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|cause| LedgerError::Write { path: path.clone(), cause })?;
        let end = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                // A file system without locks: two servers that write in the same moment may lose a minute's counts.
                Err(TryLockError::Error(cause)) if cause.kind() == ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(cause)) => return Err(LedgerError::Write { path, cause }),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    return Err(LedgerError::Locked { path: self.path.clone() });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            }
        }
    }

    /// Gives the file a name that no other one has.
    fn set_aside(&self) -> io::Result<PathBuf> {
        let free = (1..).map(|number| self.path.with_extension(format!("damaged-{number}.json")));
        let path = free.take(1000).find(|path| !path.exists()).ok_or(ErrorKind::AlreadyExists)?;
        fs::rename(&self.path, &path)?;
        Ok(path)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::session::{Counted, Happening};

    fn today() -> NaiveDate {
        "2026-02-03".parse().unwrap()
    }

    fn one() -> Book {
        let mut book = Book::default();
        for what in [Happening::Shown, Happening::Answered { after: PAUSE, empty: false }] {
            book.note(today(), &Counted { language: "python".into(), model: "m".into(), what });
        }
        book
    }

    #[test]
    fn many_add_at_once_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(&folder.path().join("not/there/yet"));
        assert!(ledger.read().unwrap().is_empty());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        // Locked for too long on a busy machine is no loss: it is tried again later.
                        while let Err(problem) = ledger.add(&one(), today()) {
                            assert!(matches!(problem, LedgerError::Locked { .. }), "{problem}");
                        }
                    }
                });
            }
        });
        assert_eq!(ledger.read().unwrap().total(None).shown, 20);
        let names = fs::read_dir(ledger.path().parent().unwrap()).unwrap().count();
        assert_eq!(names, 2, "the file and its lock");
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_a_later_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path());
        for (number, damaged) in ["", "{}", "{\"version\":1,\"counts\":5}", "\u{0}\u{1}"].iter().enumerate() {
            fs::write(ledger.path(), damaged).unwrap();
            assert!(matches!(ledger.read(), Err(LedgerError::Damaged { .. })), "{damaged:?}");
            let aside = ledger.add(&one(), today()).unwrap().unwrap();
            assert!(aside.ends_with(format!("statistics.damaged-{}.json", number + 1)), "{aside:?}");
            assert_eq!(fs::read_to_string(aside).unwrap(), *damaged);
            assert_eq!(ledger.read().unwrap(), one());
        }
        let later = "{\"version\":2,\"days\":[]}";
        fs::write(ledger.path(), later).unwrap();
        assert!(matches!(ledger.add(&one(), today()), Err(LedgerError::Later { .. })));
        assert_eq!(fs::read_to_string(ledger.path()).unwrap(), later);
    }
}
