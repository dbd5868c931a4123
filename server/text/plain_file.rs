//! Reads files that may be hostile: only plain files, and never more than a limit.
//!
//! A FIFO blocks its reader, a device may never end, and opening some devices has side effects. So the path's target is
//! checked before it is opened, and again afterwards, since it may have been replaced in between. Nothing here waits
//! for a writer.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A folder, a device, a FIFO, a socket, or a link if links are refused.
    #[error("it is not a plain file")]
    NotPlain,
    /// It has more bytes than the limit.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// Not UTF-8, for a text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// The system reports an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ReadError {
    /// Whether nothing exists at this path.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(problem) if problem.kind() == io::ErrorKind::NotFound)
    }
}

/// Whether the last part of a path may be a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// A link to a plain file counts as one.
    Followed,
    /// A link does not count as a plain file.
    Refused,
}

/// The bytes of a plain file of at most `limit` bytes.
///
/// # Errors
/// It does not exist, is not plain, is larger, or cannot be read.
pub fn read(path: &Path, limit: u64, links: Links) -> Result<Vec<u8>, ReadError> {
    let about = match links {
        Links::Followed => fs::metadata(path)?,
        Links::Refused => fs::symlink_metadata(path)?,
    };
    check_plain_file(&about, limit)?;
    let file = open(path, links)?;
    let about = file.metadata()?;
    check_plain_file(&about, limit)?;
    // The reported size may be wrong (`/proc`), and the file may grow while it is read.
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or_default());
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge(limit));
    }
    Ok(bytes)
}

/// The text of a plain file of at most `limit` bytes.
///
/// # Errors
/// As [`read`], or it is not UTF-8.
pub fn read_text(path: &Path, limit: u64, links: Links) -> Result<String, ReadError> {
    String::from_utf8(read(path, limit, links)?).map_err(|_| ReadError::NotText)
}

fn check_plain_file(about: &Metadata, limit: u64) -> Result<(), ReadError> {
    match about {
        about if !about.is_file() => Err(ReadError::NotPlain),
        about if about.len() > limit => Err(ReadError::TooLarge(limit)),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn open(path: &Path, links: Links) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let links = match links {
        Links::Followed => 0,
        Links::Refused => libc::O_NOFOLLOW,
    };
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | links).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path, _links: Links) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_error(path: &Path, limit: u64, links: Links) -> String {
        read(path, limit, links).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "12345").unwrap();
        for links in [Links::Followed, Links::Refused] {
            assert_eq!(read(&path, 5, links).unwrap(), b"12345");
            assert_eq!(read_error(&path, 4, links), "it is larger than 4 bytes");
            assert_eq!(read_error(folder.path(), 9, links), "it is not a plain file");
            assert!(read(&folder.path().join("none"), 9, links).unwrap_err().is_not_found());
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(read_text(&path, 5, Links::Followed), Err(ReadError::NotText)));
    }

    #[cfg(unix)]
    #[test]
    fn special_files_are_refused_without_blocking() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        fs::write(path("plain"), "x").unwrap();
        for (name, target) in [
            ("to_fifo", "fifo"),
            ("zero", "/dev/zero"),
            ("stdin", "/dev/stdin"),
            ("tty", "/dev/tty"),
            ("loop", "loop"),
            ("to_plain", "plain"),
        ] {
            symlink(target, path(name)).unwrap();
        }
        for name in ["fifo", "socket", "to_fifo", "zero"] {
            assert_eq!(read_error(&path(name), 100, Links::Followed), "it is not a plain file", "{name}");
        }
        for name in ["fifo", "socket", "to_fifo", "zero", "stdin", "tty", "loop", "to_plain"] {
            assert_eq!(read_error(&path(name), 100, Links::Refused), "it is not a plain file", "{name}");
        }
        assert!(read(&path("loop"), 100, Links::Followed).is_err());
        assert_eq!(read(&path("to_plain"), 100, Links::Followed).unwrap(), b"x");
        // Its reported size is zero.
        if cfg!(target_os = "linux") {
            let proc_file = Path::new("/proc/self/maps");
            assert_eq!(fs::metadata(proc_file).unwrap().len(), 0);
            assert_eq!(read_error(proc_file, 10, Links::Followed), "it is larger than 10 bytes");
        }
    }
}
