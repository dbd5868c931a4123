//! Runs the machine's package client: it sees no secrets, dies with taper, and its output is truncated and sanitized.
//!
//! The client runs under a small shell program in its own process group. A second process of that group holds the
//! other end of a pipe to taper. When taper closes the pipe (the work is done or abandoned, or taper was killed), the
//! whole group is killed, including children of the client. That needs no signal handler here and works on every Unix.
//! On Windows only the client itself is killed, and only while taper is running.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Runs `"$@"`, and kills the whole group as soon as the pipe on stdin closes.
#[cfg(unix)]
const GUARD_SCRIPT: &str = r#"
exec 3<&0
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
"$@" </dev/null 3<&- &
client=$!
exec 3<&- </dev/null
wait "$client"
"#;

/// Maximum bytes kept of one line.
const MAX_LINE_BYTES: usize = 2000;
/// How long to wait for the rest of a client's stderr after it has ended.
const STDERR_TIMEOUT: Duration = Duration::from_secs(2);

/// The relevant parts of a client's stderr.
#[derive(Debug, Default, Clone)]
pub(super) struct ClientStderr {
    /// The last line that begins with `ERROR`.
    last_error: Option<String>,
    /// The last line that is not empty.
    last_line: String,
    /// Whether a disk was full.
    pub(super) disk_full: bool,
    /// Whether the client retried something, as it does without a network.
    pub(super) retried: bool,
}

impl ClientStderr {
    /// The most informative line, without control characters.
    pub(super) fn failure_reason(&self) -> &str {
        let line = self.last_error.as_deref().unwrap_or(&self.last_line);
        if line.is_empty() { "it gives no reason" } else { line }
    }

    fn push_line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        let clean = clean.trim();
        self.disk_full |= text.contains("No space left on device");
        self.retried |= text.contains("Retrying");
        if clean.starts_with("ERROR") {
            self.last_error = Some(clean.to_owned());
        }
        if !clean.is_empty() {
            clean.clone_into(&mut self.last_line);
        }
    }
}

/// A running client; dropping it kills the client and all its children.
pub(super) struct PackageClient {
    child: Child,
    stderr_receiver: Receiver<ClientStderr>,
}

impl PackageClient {
    /// Starts `command` in `folder`, an absolute path, with its temporary files in `temporary`.
    pub(super) fn start(command: &[OsString], folder: &Path, temporary: &Path) -> io::Result<PackageClient> {
        let mut call = guarded_command(command)?;
        call.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_allowed_variable(name)));
        call.envs(["TMPDIR", "TEMP", "TMP"].map(|variable| (variable, temporary)));
        call.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = call.spawn()?;
        let (send, receive) = mpsc::channel();
        if let Some(errors) = child.stderr.take() {
            std::thread::Builder::new().name("taper-client".into()).spawn(move || {
                // The receiver may be gone.
                let _ = send.send(read_stderr(errors));
            })?;
        }
        Ok(PackageClient { child, stderr_receiver: receive })
    }

    /// The exit status, if the client has ended.
    pub(super) fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills the client if it is still running, and returns its stderr.
    pub(super) fn finish(mut self) -> ClientStderr {
        self.kill_group();
        self.stderr_receiver.recv_timeout(STDERR_TIMEOUT).unwrap_or_default()
    }

    fn kill_group(&mut self) {
        // The guard notices the closed pipe and kills the group.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for PackageClient {
    fn drop(&mut self) {
        self.kill_group();
    }
}

#[cfg(unix)]
fn guarded_command(command: &[OsString]) -> io::Result<Command> {
    use std::os::unix::process::CommandExt as _;
    let mut call = Command::new("/bin/sh");
    call.arg("-c").arg(GUARD_SCRIPT).arg("taper").args(command);
    call.stdin(Stdio::piped()).process_group(0);
    Ok(call)
}

#[cfg(not(unix))]
fn guarded_command(command: &[OsString]) -> io::Result<Command> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut call = Command::new(program);
    call.args(arguments).stdin(Stdio::null());
    Ok(call)
}

/// Whether the guard's exit code means that the program does not exist or is not executable.
pub(super) fn could_not_run(status: ExitStatus) -> bool {
    cfg!(unix) && matches!(status.code(), Some(126 | 127))
}

/// Reads to the end, line by line, lines of any length; keeps a few lines.
fn read_stderr(from: impl Read) -> ClientStderr {
    let mut stderr = ClientStderr::default();
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => &[],
        };
        if buffer.is_empty() {
            stderr.push_line(&line);
            return stderr;
        }
        let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let part = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&part[..part.len().min(MAX_LINE_BYTES.saturating_sub(line.len()))]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            stderr.push_line(&line);
            line.clear();
        }
    }
}

/// Whether a package client may see a variable: locations, network access, the client's own configuration. It sees no
/// others, and none that look like secrets. `PYTHONPATH` is excluded: a project may set it, and a project's code must
/// not run.
fn is_allowed_variable(name: &OsStr) -> bool {
    /// Names, in upper case.
    const ALLOWED_VARIABLES: &[&str] = &[
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
    /// Prefixes of names, in upper case.
    const ALLOWED_PREFIXES: [&str; 8] =
        ["LC_", "XDG_", "PIP_", "PYENV_", "CONDA_", "ASDF_", "MISE_", "PROGRAMFILES"];
    /// Markers that exclude a name that an allowed prefix would pass on.
    const SECRET_MARKERS: [&str; 7] = ["TOKEN", "SECRET", "PASSW", "CREDENTIAL", "_KEY_", "APIKEY", "AUTH"];
    let Some(name) = name.to_str().map(str::to_ascii_uppercase) else { return false };
    let secret = SECRET_MARKERS.iter().any(|secret| name.contains(secret))
        || name.ends_with("_KEY")
        || name.ends_with("_PAT");
    ALLOWED_VARIABLES.contains(&name.as_str())
        || !secret && ALLOWED_PREFIXES.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn package_client_sees_proxies_but_no_secrets() {
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
            assert!(is_allowed_variable(OsStr::new(needed)), "{needed}");
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
            assert!(!is_allowed_variable(OsStr::new(hidden)), "{hidden}");
        }
    }

    #[test]
    fn client_stderr_is_truncated_and_sanitized() {
        let stderr = read_stderr(&b"Retrying\x1b[31m\nERROR: \x1b]0;title\x07 bad\r\x9b\n\n"[..]);
        assert_eq!(stderr.failure_reason(), "ERROR:  ]0;title  bad");
        assert!(stderr.retried && !stderr.disk_full);
        let mut endless = vec![b'x'; 10 << 20];
        endless.extend(b"\nERROR: No space left on device");
        let stderr = read_stderr(&endless[..]);
        assert!(stderr.disk_full && stderr.failure_reason().starts_with("ERROR"));
        assert_eq!(read_stderr(&vec![b'y'; 10 << 20][..]).failure_reason().len(), 300);
        assert_eq!(read_stderr(&b""[..]).failure_reason(), "it gives no reason");
    }

    #[cfg(unix)]
    mod on_unix {
        use super::*;
        use std::fs;

        fn start_script(script: &str, folder: &Path) -> PackageClient {
            let command = ["sh", "-c", script].map(OsString::from);
            PackageClient::start(&command, folder, folder).unwrap()
        }

        fn wait_for_exit(running: &mut PackageClient) -> ExitStatus {
            loop {
                if let Some(status) = running.exit_status().unwrap() {
                    return status;
                }
                std::thread::yield_now();
            }
        }

        /// Waits for the process id that a script writes.
        fn read_pid(path: &Path) -> u32 {
            loop {
                let text = fs::read_to_string(path).unwrap_or_default();
                if text.ends_with('\n') {
                    return text.trim().parse().unwrap();
                }
                std::thread::yield_now();
            }
        }

        /// Waits until the process has ended; a zombie counts as ended, because its new parent reaps it.
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
        fn exit_code_and_last_error_are_reported() {
            let folder = tempfile::tempdir().unwrap();
            for code in [0, 1, 7] {
                let mut running =
                    start_script(&format!("echo ERROR: {code} >&2; exit {code}"), folder.path());
                let status = wait_for_exit(&mut running);
                assert_eq!((status.code(), could_not_run(status)), (Some(code), false));
                assert_eq!(running.finish().failure_reason(), format!("ERROR: {code}"));
            }
            let command = ["no-such-program-here".into()];
            let mut running = PackageClient::start(&command, folder.path(), folder.path()).unwrap();
            assert!(could_not_run(wait_for_exit(&mut running)));
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn dropped_client_is_killed_with_its_children() {
            let folder = tempfile::tempdir().unwrap();
            let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
            let script = "sleep 1000 & echo $! > one; echo $$ > two; trap '' TERM INT HUP; wait";
            let running = start_script(script, folder.path());
            let (one, two) = (read_pid(&one), read_pid(&two));
            drop(running);
            wait_until_gone(one);
            wait_until_gone(two);
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn surviving_children_are_killed_on_finish() {
            let folder = tempfile::tempdir().unwrap();
            let mut running = start_script("sleep 1000 & echo $! > one", folder.path());
            let child = read_pid(&folder.path().join("one"));
            assert!(wait_for_exit(&mut running).success());
            // `finish` does not wait for stderr until the child would end.
            let _ = running.finish();
            wait_until_gone(child);
        }

        #[test]
        fn client_has_empty_stdin_and_own_folder() {
            let folder = tempfile::tempdir().unwrap();
            let script = r#"cat > input; pwd > where; echo "$TMPDIR" > temporary; env > environment"#;
            let mut running = start_script(script, folder.path());
            assert!(wait_for_exit(&mut running).success());
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
