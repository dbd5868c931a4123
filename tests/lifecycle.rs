//! The server as a process: how it ends without an editor, by signals, after a panic and without threads; and its log.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, frame};
use crate::script::Script;
use crate::statistics::stored_counts;

const URI: &str = "file:///w/a.py";

/// A server whose pipes the test owns.
struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
    command
        .args(["serve", "--stdio"])
        .args(arguments)
        .env("TAPER_LOG", "warn,taper=info")
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("TAPER_HOME", "/dev/null/taper")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Self { child, stdin, stdout }
    }

    fn send(&mut self, message: &Value) {
        self.stdin.as_mut().unwrap().write_all(&frame(message)).unwrap();
    }

    /// The next message, or `None` once the server has ended.
    fn next(&mut self) -> Option<Value> {
        let stdout = self.stdout.as_mut().unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => length = line.strip_prefix("Content-Length: ").unwrap().parse().unwrap(),
            }
        }
        let mut body = vec![0; length];
        stdout.read_exact(&mut body).unwrap();
        Some(serde_json::from_slice(&body).unwrap())
    }

    /// Sends `initialize` with this process id; returns the response.
    fn hello(&mut self, process: &Value) -> Value {
        let params =
            json!({ "processId": process, "capabilities": { "textDocument": { "inlineCompletion": {} } } });
        self.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }));
        loop {
            let message = self.next().unwrap();
            if message["id"] == 1 {
                return message;
            }
        }
    }

    /// Waits for the end; returns the exit status and the log. The pipes stay as they are until then.
    #[track_caller]
    fn ended(mut self) -> (ExitStatus, String) {
        let (stderr, id) = (self.child.stderr.take().unwrap(), self.child.id());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut log = String::new();
            let _ = BufReader::new(stderr).read_to_string(&mut log);
            let _ = sender.send((self.child.wait().unwrap(), log));
            drop((self.stdin, self.stdout));
        });
        let ended = receiver.recv_timeout(PATIENCE);
        let Ok((status, log)) = ended else {
            kill("KILL", id);
            panic!("the server does not end");
        };
        (status, log)
    }
}

fn kill(signal: &str, process: u32) {
    let signal = format!("-{signal}");
    assert!(Command::new("kill").args([&signal, &process.to_string()]).status().unwrap().success());
}

/// A process in the role of the editor.
fn editor() -> Child {
    Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn server_exits_with_editor_though_pipes_stay_open() {
    let script = Script::new();
    for shut_down in [false, true] {
        let mut editor = editor();
        let mut server = Server::start(&mut command(&["--engine", &script.written()]));
        server.hello(&json!(editor.id()));
        if shut_down {
            server.send(&json!({ "jsonrpc": "2.0", "id": 2, "method": "shutdown" }));
            while server.next().unwrap()["id"] != 2 {}
        }
        // Without `wait` it stays a zombie, which counts as dead.
        editor.kill().unwrap();
        let (status, log) = server.ended();
        assert_eq!(status.code(), Some(if shut_down { 0 } else { 1 }), "{log}");
        assert!(log.contains("its process has ended"), "{log}");
        editor.wait().unwrap();
    }
}

#[test]
fn unknown_process_id_ends_server_null_does_not() {
    let script = Script::new();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let mut server = Server::start(&mut command(&["--engine", &script.written()]));
    // The request is answered first.
    assert!(server.hello(&json!(gone.id()))["result"]["capabilities"].is_object());
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("processId"), "{log}");
    for none in
        [json!(null), json!(0), json!(-1), json!("1"), json!(1.5), json!(99_999_999_999_i64), json!({})]
    {
        let mut server = Server::start(&mut command(&["--engine", &script.written()]));
        server.hello(&none);
        server.send(&json!({ "jsonrpc": "2.0", "id": 2, "method": "shutdown" }));
        while server.next().unwrap()["id"] != 2 {}
        server.send(&json!({ "jsonrpc": "2.0", "method": "exit" }));
        let (status, log) = server.ended();
        assert!(status.success() && !log.contains("editor"), "{none}: {log}");
    }
}

#[test]
fn server_exits_when_its_output_is_closed() {
    let script = Script::new();
    let mut server = Server::start(&mut command(&["--engine", &script.written()]));
    server.hello(&Value::Null);
    server.stdout = None;
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the standard output is closed"), "{log}");

    // A socket, as Node gives its child processes.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = command(&["--engine", &script.written()]);
    let mut server = Server::start(command.stdout(std::os::fd::OwnedFd::from(theirs)));
    drop(command);
    server.send(&json!({ "jsonrpc": "2.0", "method": "$/nothing" }));
    drop(ours);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(1), "{log}");
}

/// A server that has shown one suggestion and keeps its statistics in this folder.
fn start_with_shown_suggestion(script: &Script, home: &Path) -> Client {
    let arguments = ["--stdio", "--engine", &script.written()];
    let mut client = Client::start_with(&arguments, &[("TAPER_HOME", home.to_str().unwrap())]);
    client.hello(json!({}));
    client.wait_ready();
    client.open(URI, "python", "x");
    assert_eq!(client.inline(URI, 0, 1), "y");
    client
}

#[test]
fn signals_and_end_of_input_save_statistics() {
    let script = Script::new().when("x", "y");
    for (signal, code) in [(Some("TERM"), 143), (Some("INT"), 130), (Some("HUP"), 129), (None, 0)] {
        let home = tempfile::tempdir().unwrap();
        let mut client = start_with_shown_suggestion(&script, home.path());
        match signal {
            Some(signal) => kill(signal, client.pid()),
            None => client.hang_up(),
        }
        let status = client.ended();
        assert_eq!((status.code(), status.signal()), (Some(code), None), "{signal:?}");
        let counted = &stored_counts(home.path())["today"];
        assert_eq!((&counted["asked"], &counted["shown"]), (&json!(1), &json!(1)), "{signal:?}");
    }
}

#[test]
fn thread_panic_is_reported_and_statistics_are_saved() {
    let script = Script::new().when("x", "y").panics_at_the_end();
    let home = tempfile::tempdir().unwrap();
    let mut client = start_with_shown_suggestion(&script, home.path());
    // Reloading the engine drops the old one, which panics.
    client.notify("workspace/didChangeConfiguration", json!({ "settings": { "taper": { "threads": 1 } } }));
    let notice = client.notice("window/showMessage", "in the inference thread");
    assert_eq!(notice["params"]["type"], 1, "an error");
    let status = client.ended();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stored_counts(home.path())["today"]["shown"], 1);
    let log = client.log();
    assert!(log.contains("scripted.rs:") && log.contains("inference"), "{log}");
}

#[test]
fn panics_are_logged_with_location_without_code() {
    let script = Script::new().panics_at("secret");
    let path = script.folder().join("log");
    fs::write(&path, "before\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut client = Client::ready(
        &["--stdio", "--engine", &script.written(), "--log-file", path.to_str().unwrap()],
        json!({}),
    );
    client.open(URI, "python", "secret");
    assert_eq!(client.inline(URI, 0, 6), "");
    client.notice("window/showMessage", "failed internally");
    client.quit();
    let log = fs::read_to_string(&path).unwrap();
    assert!(log.starts_with("before\n") && log.contains("panic") && log.contains("scripted.rs:"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn unusable_log_file_is_reported_and_server_continues() {
    let script = Script::new().when("x", "y");
    let engine = script.written();
    let link = script.folder().join("link");
    std::os::unix::fs::symlink(script.path(), &link).unwrap();
    for (path, message) in [
        (script.folder(), "it is a folder"),
        (&link, "it is a link"),
        (Path::new("/dev/null"), "a device"),
        (Path::new("/no/such/folder/log"), "/no/such/folder/log"),
    ] {
        let mut client =
            Client::ready(&["--stdio", "--engine", &engine, "--log-file", path.to_str().unwrap()], json!({}));
        client.notice("window/showMessage", message);
        client.open(URI, "python", "x");
        assert_eq!(client.inline(URI, 0, 1), "y");
        client.quit();
    }
}

/// With any thread limit, the server works, or reports the reason and exits with a failure.
#[cfg(target_os = "linux")]
#[test]
fn thread_limit_failure_is_reported() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    let script = Script::new();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("taper");
    let mut unlike = 0;
    // The limit applies to a user, but not to root.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        fs::copy(env!("CARGO_BIN_EXE_taper"), &program).unwrap();
        for (path, mode) in [(folder.path(), 0o755), (script.folder(), 0o755)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    let engine = script.written();
    for threads in 1..=if is_root { 9 } else { 1 } {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={threads}"));
        command.arg(if is_root { program.as_path() } else { Path::new(env!("CARGO_BIN_EXE_taper")) });
        command.args(["serve", "--engine", &engine]).env("TAPER_HOME", "/dev/null/taper").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if is_root {
            command.uid(54_321).gid(54_321);
        }
        let mut server = Server::start(&mut command);
        let message =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "capabilities": {} } });
        // It may have ended already.
        let _ = server.stdin.as_mut().unwrap().write_all(&frame(&message));
        let response = server.next();
        let serves = response.as_ref().is_some_and(|it| it["result"].is_object());
        if serves {
            server.stdin = None;
        } else if let Some(response) = response {
            let message = response["error"]["message"].as_str().unwrap();
            assert!(message.contains("pids.max"), "{threads}: {message}");
        }
        let (status, log) = server.ended();
        // One of the engine's libraries panics without threads; the model loader catches that.
        let panicked = log.lines().any(|line| line.contains("panic") && !line.contains("rayon-core"));
        assert!(!panicked, "{threads}: {log}");
        if !serves {
            unlike += 1;
            assert_eq!(status.code(), Some(1), "{threads}: {log}");
            assert!(log.contains("pids.max"), "{threads}: {log}");
        }
    }
    assert!(unlike > 0, "no limit was too small");
}

/// Settings of other servers raise no warning, wherever they arrive; a mistake in ours does, once.
#[test]
fn settings_of_other_servers_raise_no_warning() {
    let script = Script::new().when("x", "y");
    let engine = script.written();
    for answer in
        [json!([null]), json!([[]]), json!([]), json!(null), json!({}), json!([5]), json!([{ "python": {} }])]
    {
        let mut client = Client::start(&["--stdio", "--engine", &engine]);
        client.configuration = answer;
        client.initialize(json!({
            "capabilities": { "textDocument": { "inlineCompletion": {} }, "workspace": { "configuration": true } },
            "initializationOptions": { "provideFormatter": true, "rust-analyzer": { "x": 1 }, "suggest": {} },
        }));
        client.wait_ready();
        for settings in [
            json!({ "python": { "analysis": {} }, "editor.tabSize": 4, "models": {} }),
            json!({ "taper": {}, "zls": {} }),
            json!({ "taper": [] }),
            json!([]),
            json!(null),
        ] {
            client.notify("workspace/didChangeConfiguration", json!({ "settings": settings }));
        }
        client.open(URI, "python", "x");
        assert_eq!(client.inline(URI, 0, 1), "y");
        let shown =
            |client: &Client| client.notices.iter().filter(|it| it["method"] == "window/showMessage").count();
        assert_eq!(shown(&client), 0, "{:?}", client.notices);
        for _ in 0..3 {
            let wrong = json!({ "settings": { "python": {}, "taper": { "enable": "perhaps" } } });
            client.notify("workspace/didChangeConfiguration", wrong);
        }
        client.notice("window/showMessage", "`enable` must be true or false");
        assert_eq!(client.inline(URI, 0, 1), "y");
        assert_eq!(shown(&client), 0, "once: {:?}", client.notices);
        client.quit();
    }
}

#[test]
fn engine_error_reports_each_cause_once() {
    let script = Script::new();
    let mut client = Client::start(&["--stdio", "--engine", &script.argument()]);
    client.hello(json!({}));
    let notice = client.notice("window/showMessage", "cannot suggest yet");
    let message = notice["params"]["message"].as_str().unwrap();
    assert_eq!(message.matches("No such file").count(), 1, "{message}");
    client.quit();
}
