//! A log file: private, bounded, and shared by all servers that log to it.
//!
//! Each line is one append, so that lines of several processes never mix. A process that finds the file too long
//! renames it under a lock and starts a new one; the others notice at their next write to the old one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Maximum bytes of the file, apart from the last line.
const MAX_LOG_BYTES: u64 = 10 << 20;

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    limit: u64,
}

impl LogFile {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// The path is not a plain file, the file cannot be made private, or the system reports an error.
    pub(super) fn open_log_file(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, limit: MAX_LOG_BYTES })
    }

    /// Renames a file that is too long, unless another process just did.
    fn rotate_if_full(&mut self) -> io::Result<()> {
        match self.file.try_lock() {
            // Another process is rotating it: until it is done, continue with the old file.
            Err(TryLockError::WouldBlock) => return Ok(()),
            // Without locks, two servers that rotate at the same moment may lose an older file.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let is_current = fs::symlink_metadata(&self.path).is_ok_and(|it| it.len() > self.limit);
        if is_current && fs::rename(&self.path, rotated_path(&self.path)).is_err() {
            // It must not grow without limit: what cannot be kept is dropped.
            self.file.set_len(0)?;
        }
        // Dropping the old file releases its lock.
        self.file = open(&self.path)?;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.file.metadata().is_ok_and(|it| it.len() > self.limit) {
            // If this fails, the old file is used further.
            let _ = self.rotate_if_full();
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The path of the older part of a log.
fn rotated_path(path: &Path) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(".old");
    older.into()
}

fn open(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) => check_plain_file(&found)?,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {}
        Err(problem) => return Err(problem),
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A link or a pipe that appeared since the check is neither followed nor waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    let file = options.open(path)?;
    let found = file.metadata()?;
    check_plain_file(&found)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = found.permissions().mode();
        if mode & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o700)).map_err(|problem| {
                io::Error::other(format!("others can read it, and its mode cannot be changed ({problem})"))
            })?;
        }
    }
    Ok(file)
}

/// Refuses everything but a plain file.
fn check_plain_file(found: &fs::Metadata) -> io::Result<()> {
    let what = match found.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_symlink() => "a link",
        _ => "a pipe or a device",
    };
    Err(io::Error::other(format!("it is {what}; name a plain file or a new one")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(path: &Path) -> LogFile {
        LogFile { limit: 1000, ..LogFile::open_log_file(path).unwrap() }
    }

    #[test]
    fn a_file_that_is_too_long_is_kept_aside_and_the_one_before_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = small(&path);
        for number in 0..1000 {
            writeln!(log, "{number:09}").unwrap();
        }
        let (new, old) =
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(rotated_path(&path)).unwrap());
        assert!(new.len() <= 1010 && (1000..=1010).contains(&old.len()), "{} {}", new.len(), old.len());
        assert!(new.ends_with("000000999\n"), "the newest line is present: {new}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn several_writers_lose_and_mix_no_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        // Opened separately, as by each process.
        let mut logs: Vec<LogFile> =
            (0..4).map(|_| LogFile { limit: 40_000, ..LogFile::open_log_file(&path).unwrap() }).collect();
        std::thread::scope(|scope| {
            for (writer, log) in logs.iter_mut().enumerate() {
                scope.spawn(move || {
                    for number in 0..1000 {
                        log.write_all(format!("{writer} {number:016}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        // 76 KB in two files of at least 40 KB.
        let all = [rotated_path(&path), path].map(|path| fs::read_to_string(path).unwrap()).concat();
        let mut lines: Vec<&str> = all.lines().collect();
        lines.sort_unstable();
        let mut expected: Vec<String> =
            (0..4).flat_map(|writer| (0..1000).map(move |number| format!("{writer} {number:016}"))).collect();
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }

    #[test]
    fn log_that_cannot_be_renamed_is_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::create_dir_all(rotated_path(&path).join("full")).unwrap();
        let mut log = small(&path);
        for number in 0..1000 {
            writeln!(log, "{number:09}").unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= 1010);
    }

    #[cfg(unix)]
    #[test]
    fn it_is_private_from_the_beginning_and_becomes_so() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (new, open) = (folder.path().join("new"), folder.path().join("open"));
        fs::write(&open, "before\n").unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for path in [&new, &open] {
            LogFile::open_log_file(path).unwrap().write_all(b"line\n").unwrap();
            assert_eq!(mode(path), 0o600, "{}", path.display());
        }
        assert_eq!(fs::read_to_string(&open).unwrap(), "before\nline\n");
        let mut log = LogFile { limit: 1, ..LogFile::open_log_file(&new).unwrap() };
        log.write_all(b"line\n").unwrap();
        assert_eq!(mode(&new), 0o600, "a new one as well");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn log_file_must_be_a_plain_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nothing"), at("dangling")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for (path, expected) in [
            (folder.path().to_owned(), "a folder"),
            (at("link"), "a link"),
            (at("dangling"), "a link"),
            (at("pipe"), "a pipe"),
            (PathBuf::from("/dev/null"), "a device"),
            (at("file").join("below"), ""),
            (at("no/such/folder"), ""),
            (PathBuf::new(), ""),
        ] {
            let problem = LogFile::open_log_file(&path).unwrap_err().to_string();
            assert!(problem.contains(expected), "{}: {problem}", path.display());
        }
    }
}
