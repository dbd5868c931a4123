//! Runs the machine's package client: it sees no secrets, it dies with taper, and what it says is cut and cleaned.
//! It knows nothing of packages and wheels.
//!
//! The client runs below a small shell program in a process group of its own. A second process of that group holds the
//! other end of a pipe to taper: when taper lets go of it (the work is done, was given up, or taper was killed), the
//! whole group is killed, children of the client included. That needs no signal handler here and works on every Unix.
//! On Windows the client alone is ended, and only while taper lives.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Runs `"$@"`, and kills the whole group as soon as the pipe on stdin closes.
#[cfg(unix)]
const GUARD: &str = r#"
exec 3<&0
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
"$@" </dev/null 3<&- &
client=$!
exec 3<&- </dev/null
wait "$client"
"#;

/// Bytes of one line that are kept.
const LINE: usize = 2000;
/// How long the end of what a client says is waited for once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a client said on stderr.
#[derive(Debug, Default, Clone)]
pub(super) struct Said {
    /// The last line that begins with `ERROR`.
    error: Option<String>,
    /// The last line that is not empty.
    last: String,
    /// Whether a disk was full.
    pub(super) full: bool,
    /// Whether it tried something again, as it does without a network.
    pub(super) retried: bool,
}

impl Said {
    /// The line that says most, without control characters.
    pub(super) fn reason(&self) -> &str {
        let line = self.error.as_deref().unwrap_or(&self.last);
        if line.is_empty() { "it gives no reason" } else { line }
    }

    fn hear(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        let clean = clean.trim();
        self.full |= text.contains("No space left on device");
        self.retried |= text.contains("Retrying");
        if clean.starts_with("ERROR") {
            self.error = Some(clean.to_owned());
        }
        if !clean.is_empty() {
            clean.clone_into(&mut self.last);
        }
    }
}

/// A running client; dropping it ends it, and all that it started.
pub(super) struct Running {
    child: Child,
    said: Receiver<Said>,
}

impl Running {
    /// Starts `command` in `folder`, which is absolute, with its temporary files in `temporary`.
    pub(super) fn start(command: &[OsString], folder: &Path, temporary: &Path) -> io::Result<Running> {
        let mut call = guarded(command)?;
        call.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_needed(name)));
        call.envs(["TMPDIR", "TEMP", "TMP"].map(|variable| (variable, temporary)));
        call.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = call.spawn()?;
        let (send, said) = mpsc::channel();
        if let Some(errors) = child.stderr.take() {
            std::thread::Builder::new().name("taper-client".into()).spawn(move || {
                // Who started the client may have given up.
                let _ = send.send(listen(errors));
            })?;
        }
        Ok(Running { child, said })
    }

    /// Whether it has ended, and how.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it, if it has not ended, and returns what it said.
    pub(super) fn finish(mut self) -> Said {
        self.end();
        self.said.recv_timeout(LAST_WORDS).unwrap_or_default()
    }

    fn end(&mut self) {
        // The guard sees that and kills the group.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(unix)]
fn guarded(command: &[OsString]) -> io::Result<Command> {
    use std::os::unix::process::CommandExt as _;
    let mut call = Command::new("/bin/sh");
    call.arg("-c").arg(GUARD).arg("taper").args(command);
    call.stdin(Stdio::piped()).process_group(0);
    Ok(call)
}

#[cfg(not(unix))]
fn guarded(command: &[OsString]) -> io::Result<Command> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut call = Command::new(program);
    call.args(arguments).stdin(Stdio::null());
    Ok(call)
}

/// Whether the guard's exit code means that there is no such program, or that it may not be run.
pub(super) fn could_not_run(status: ExitStatus) -> bool {
    cfg!(unix) && matches!(status.code(), Some(126 | 127))
}

/// Reads to the end, a line at a time, however long that is; keeps a few lines.
fn listen(from: impl Read) -> Said {
    let mut said = Said::default();
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => &[],
        };
        if buffer.is_empty() {
            said.hear(&line);
            return said;
        }
        let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let part = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&part[..part.len().min(LINE.saturating_sub(line.len()))]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            said.hear(&line);
            line.clear();
        }
    }
}

/// Whether a package client needs a variable: where things are, how the network is reached, what it is told to do. All
/// others, and what looks like a secret among these, it does not see. `PYTHONPATH` is not among them: a project may set
/// it, and a project's code is not to be run.
fn is_needed(name: &OsStr) -> bool {
    /// Names, in capitals.
    const NAMES: &[&str] = &[
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TERM",
        "NO_COLOR",
        "NETRC",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "FTP_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NIX_SSL_CERT_FILE",
        "PYTHONHOME",
        "PYTHONUSERBASE",
        "PYTHONNOUSERSITE",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "DBUS_SESSION_BUS_ADDRESS",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "APPDATA",
        "LOCALAPPDATA",
        "PROGRAMDATA",
        "USERPROFILE",
        "HOMEDRIVE",
        "HOMEPATH",
    ];
    /// Beginnings of names, in capitals.
    const FAMILIES: [&str; 8] = ["LC_", "XDG_", "PIP_", "PYENV_", "CONDA_", "ASDF_", "MISE_", "PROGRAMFILES"];
    /// What no name holds that is passed on for its family.
    const SECRETS: [&str; 7] = ["TOKEN", "SECRET", "PASSW", "CREDENTIAL", "_KEY_", "APIKEY", "AUTH"];
    let Some(name) = name.to_str().map(str::to_ascii_uppercase) else { return false };
    let secret = SECRETS.iter().any(|secret| name.contains(secret))
        || name.ends_with("_KEY")
        || name.ends_with("_PAT");
    NAMES.contains(&name.as_str()) || !secret && FAMILIES.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn a_client_sees_how_to_reach_the_network_and_no_secret() {
        for needed in [
            "PATH",
            "HOME",
            "https_proxy",
            "HTTP_PROXY",
            "no_proxy",
            "PIP_INDEX_URL",
            "PIP_CERT",
            "PIP_CLIENT_CERT",
            "PIP_CONFIG_FILE",
            "PIP_KEYRING_PROVIDER",
            "LC_ALL",
            "XDG_CONFIG_HOME",
            "SystemRoot",
            "PYENV_ROOT",
            "REQUESTS_CA_BUNDLE",
            "VIRTUAL_ENV",
        ] {
            assert!(is_needed(OsStr::new(needed)), "{needed}");
        }
        for hidden in [
            "HF_TOKEN",
            "GITHUB_TOKEN",
            "OPENAI_API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "PGPASSWORD",
            "DATABASE_URL",
            "HF_HOME",
            "GITHUB_PAT",
            "SSH_AUTH_SOCK",
            "TWINE_PASSWORD",
            "PIP_TOKEN",
            "PIP_PASSWORD",
            "CONDA_TOKEN",
            "XDG_SECRET",
            "CONDA_API_KEY",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "LD_PRELOAD",
            "BASH_ENV",
            "ENV",
            "MY_VAR",
            "",
        ] {
            assert!(!is_needed(OsStr::new(hidden)), "{hidden}");
        }
    }

    #[test]
    fn what_a_client_says_is_cut_and_cleaned() {
        let said = listen(&b"Retrying\x1b[31m\nERROR: \x1b]0;title\x07 bad\r\x9b\n\n"[..]);
        assert_eq!(said.reason(), "ERROR:  ]0;title  bad");
        assert!(said.retried && !said.full);
        let mut endless = vec![b'x'; 10 << 20];
        endless.extend(b"\nERROR: No space left on device");
        let said = listen(&endless[..]);
        assert!(said.full && said.reason().starts_with("ERROR"));
        assert_eq!(listen(&vec![b'y'; 10 << 20][..]).reason().len(), 300);
        assert_eq!(listen(&b""[..]).reason(), "it gives no reason");
    }

    #[cfg(unix)]
    mod on_unix {
        use super::*;
        use std::fs;

        fn start(script: &str, folder: &Path) -> Running {
            let command = ["sh", "-c", script].map(OsString::from);
            Running::start(&command, folder, folder).unwrap()
        }

        fn wait(running: &mut Running) -> ExitStatus {
            loop {
                if let Some(status) = running.ended().unwrap() {
                    return status;
                }
                std::thread::yield_now();
            }
        }

        /// The number that a script has written, once it has.
        fn number(path: &Path) -> u32 {
            loop {
                let text = fs::read_to_string(path).unwrap_or_default();
                if text.ends_with('\n') {
                    return text.trim().parse().unwrap();
                }
                std::thread::yield_now();
            }
        }

        /// Waits until no process with this number is left but as a zombie, which whoever inherits it takes away.
        fn wait_until_gone(process: u32) {
            let alive = || {
                let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
            };
            while alive() {
                std::thread::yield_now();
            }
        }

        #[test]
        fn exit_codes_and_last_words_come_through() {
            let folder = tempfile::tempdir().unwrap();
            for code in [0, 1, 7] {
                let mut running = start(&format!("echo ERROR: {code} >&2; exit {code}"), folder.path());
                let status = wait(&mut running);
                assert_eq!((status.code(), could_not_run(status)), (Some(code), false));
                assert_eq!(running.finish().reason(), format!("ERROR: {code}"));
            }
            let command = ["no-such-program-here".into()];
            let mut running = Running::start(&command, folder.path(), folder.path()).unwrap();
            assert!(could_not_run(wait(&mut running)));
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn a_client_that_is_given_up_dies_with_its_children() {
            let folder = tempfile::tempdir().unwrap();
            let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
            let script = "sleep 1000 & echo $! > one; echo $$ > two; trap '' TERM INT HUP; wait";
            let running = start(script, folder.path());
            let (one, two) = (number(&one), number(&two));
            drop(running);
            wait_until_gone(one);
            wait_until_gone(two);
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn children_that_outlive_a_client_are_ended_with_it() {
            let folder = tempfile::tempdir().unwrap();
            let mut running = start("sleep 1000 & echo $! > one", folder.path());
            let child = number(&folder.path().join("one"));
            assert!(wait(&mut running).success());
            // Its last words are not waited for until the child would end.
            let _ = running.finish();
            wait_until_gone(child);
        }

        #[test]
        fn a_client_reads_nothing_and_works_where_it_should() {
            let folder = tempfile::tempdir().unwrap();
            let script = r#"cat > input; pwd > where; echo "$TMPDIR" > temporary; env > environment"#;
            let mut running = start(script, folder.path());
            assert!(wait(&mut running).success());
            let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(read("input"), "");
            assert_eq!(
                fs::canonicalize(read("where").trim()).unwrap(),
                fs::canonicalize(folder.path()).unwrap()
            );
            assert_eq!(read("temporary").trim(), folder.path().to_str().unwrap());
            assert!(!read("environment").contains("CARGO_"), "{}", read("environment"));
        }
    }
}
