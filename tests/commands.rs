//! The command line: output, error messages, exit codes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use taper_engine::gguf::testing::{ModelDims, random_qwen2};

use crate::script::Script;

fn taper(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taper"))
        .args(arguments)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("TAPER_HOME", "/dev/null/taper")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The message of a command that failed as expected: exit code 1, nothing on stdout, no panic, one line.
#[track_caller]
fn failure_message(arguments: &[&str]) -> String {
    let output = taper(arguments);
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(out(&output), "");
    assert!(message.starts_with("taper: ") && !message.contains("panicked"), "{message}");
    assert_no_repetition(&message);
    message
}

/// Asserts that a message repeats nothing, as it would if it included a cause that its own text already contains.
#[track_caller]
fn assert_no_repetition(message: &str) {
    let mut parts: Vec<&str> =
        message.split([':', ';', '\n']).map(str::trim).filter(|it| it.len() > 10).collect();
    let all = parts.len();
    parts.sort_unstable();
    parts.dedup();
    assert_eq!(parts.len(), all, "{message}");
}

/// The message of a command with invalid usage: exit code 2.
#[track_caller]
fn usage_error(arguments: &[&str]) -> String {
    let output = taper(arguments);
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(out(&output), "");
    message
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn complete_prints_suggestion_at_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.py", "# ä\ndef add(a, b):\n    \n".as_bytes());
    let script = Script::new().when("def add(a, b):\n    ", "return a + b");
    let output = taper(&["complete", &format!("{path}:3:5"), "--engine", &script.written()]);
    assert!(output.status.success());
    let shown = out(&output);
    assert!(shown.contains("    3 │     ⟦return a + b⟧\n"), "{shown}");
    assert!(shown.lines().last().unwrap().contains("answered in "), "{shown}");
    let output = taper(&["complete", "--plain", &format!("{path}:3:5"), "--engine", &script.written()]);
    assert_eq!(out(&output), "return a + b");
}

#[test]
fn complete_prints_requested_number_of_alternatives() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.py", b"total = \n");
    let script = Script::new().when("total = ", "1").or("2").or("three()");
    let (place, engine) = (format!("{path}:1:9"), script.written());
    let complete = |arguments: &[&str]| {
        taper(&[&["complete", place.as_str(), "--engine", engine.as_str()], arguments].concat())
    };
    assert_eq!(out(&complete(&["--plain"])), "1");
    assert_eq!(out(&complete(&["--plain", "--candidates", "2"])), "1\x002");
    let shown = out(&complete(&["--candidates", "3"]));
    let [first, second, third] = shown.split("── candidate ").collect::<Vec<_>>()[..] else {
        panic!("{shown}")
    };
    assert!(first.contains("    1 │ total = ⟦1⟧\n"), "{shown}");
    assert!(second.starts_with("2 ──\n    1 │ total = ⟦2⟧\n"), "{shown}");
    assert!(third.contains("⟦three()⟧") && third.contains("all candidates in "), "{shown}");
    for wrong in ["0", "4", "x"] {
        assert!(!complete(&["--candidates", wrong]).status.success());
    }
}

#[test]
fn complete_rejects_invalid_position() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.py", b"x = 1\n");
    let latin = file(folder.path(), "latin.py", b"# gr\xfc\xdfe\n");
    let script = Script::new().when("x", "y");
    let engine = script.written();
    let refused = |place: &str| failure_message(&["complete", place, "--engine", &engine]);
    assert!(refused(&path).contains("PATH:LINE:COLUMN"));
    assert!(refused(&format!("{path}:0:1")).contains("from 1"));
    assert!(refused(&format!("{path}:9:1")).contains("position 9:1 is outside"));
    assert!(refused(&format!("{path}:1:99")).contains("position 1:99 is outside"));
    assert!(refused(&format!("{latin}:1:1")).contains("not UTF-8"));
    assert!(refused("nowhere.py:1:1").contains("cannot read nowhere.py"));
    assert!(refused(&format!("{}:1:1", folder.path().display())).contains("cannot read"));
}

#[test]
fn bad_model_error_names_field_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), "a.py", b"x = 1\n");
    let place = format!("{source}:1:1");
    let whole = random_qwen2(1, &ModelDims::default()).unwrap().to_bytes();
    let refused = |model: &str| failure_message(&["complete", &place, "--model", model]);

    let text = refused(&file(folder.path(), "text.gguf", b"this is a text and no model at all"));
    assert!(text.contains("text.gguf") && text.contains("magic") && text.contains("taper models"), "{text}");
    let empty = refused(&file(folder.path(), "empty.gguf", b""));
    assert!(empty.contains("0 bytes"), "{empty}");
    let half = refused(&file(folder.path(), "half.gguf", &whole[..whole.len() / 2]));
    assert!(half.contains("half.gguf") && half.contains("get it again from where you have it"), "{half}");
    // A tensor count that exceeds any memory.
    let mut huge = whole;
    huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let huge = refused(&file(folder.path(), "huge.gguf", &huge));
    assert!(huge.contains("tensor_count"), "{huge}");
    let folder_as_model = refused(folder.path().to_str().unwrap());
    assert!(folder_as_model.contains("folder"), "{folder_as_model}");
    let wheel = refused(&file(folder.path(), "model.whl", b"PK\x03\x04 and so on"));
    assert!(wheel.contains("zip archive") && wheel.contains("model.whl"), "{wheel}");
    let page = refused(&file(folder.path(), "page.gguf", b"<!DOCTYPE html>"));
    assert!(page.contains("web page"), "{page}");
    #[cfg(unix)]
    assert!(refused("/dev/zero").contains("device"));
    let address = refused("https://huggingface.co/owner/name/x.gguf");
    assert!(address.contains("https addresses are not read"), "{address}");
    let missing = refused("no/such/model.gguf");
    assert!(missing.contains("no/such/model.gguf"), "{missing}");
    let name = refused("qwen2.5-codr-0.5b");
    assert!(name.contains("did you mean `qwen2.5-coder-0.5b`?"), "{name}");
    let offline = failure_message(&["complete", &place, "--model", "qwen2.5-coder-0.5b", "--offline"]);
    assert!(offline.contains("taper pull qwen2.5-coder-0.5b"), "{offline}");
}

#[test]
fn invalid_choice_error_lists_valid_ones() {
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), "a.py", b"x = 1\n");
    let model = file(folder.path(), "m.gguf", &random_qwen2(1, &ModelDims::default()).unwrap().to_bytes());
    let place = format!("{source}:1:1");
    let with = |flag: &'static str, value: &'static str| ["complete", &place, "--model", &model, flag, value];
    assert!(usage_error(&with("--device", "tpu")).contains("auto, cpu, cuda or metal"));
    assert!(usage_error(&with("--kernel", "fast")).contains("portable"));
    for (flag, wrong) in [
        ("--threads", "100000"),
        ("--threads", "1025"),
        ("--threads", "many"),
        ("--context", "1048577"),
        ("--max-lines", "0"),
        ("--max-lines", "1001"),
        ("--candidates", "4"),
    ] {
        let message = usage_error(&with(flag, wrong));
        assert!(message.contains(flag) && message.contains(wrong), "{message}");
    }
    if !cfg!(any(feature = "cuda", feature = "metal")) {
        assert!(failure_message(&with("--device", "cuda")).to_lowercase().contains("cuda"));
    }
    usage_error(&["complete", "--no-such-flag"]);
}

#[test]
fn server_rejects_invalid_log_levels_and_numbers() {
    for level in ["loud", "warn,loud", "taper=loud", "taper"] {
        let message = usage_error(&["serve", "--log", level]);
        assert!(message.contains("off, error, warn, info, debug or trace"), "{message}");
        for arguments in [&["serve"][..], &["--stdio"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
            let output =
                command.args(arguments).env("TAPER_LOG", level).stdin(Stdio::null()).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{level}");
            assert_eq!(out(&output), "");
        }
    }
    assert!(usage_error(&["serve", "--threads", "100000"]).contains("a whole number from 0 to 1024"));
    assert!(usage_error(&["serve", "--context", "x"]).contains("a whole number from"));
    for level in ["", "warn", "DEBUG", "warn,taper::session=debug"] {
        let served = taper(&["serve", "--log", level]);
        assert_ne!(served.status.code(), Some(2), "{level}");
    }
}

/// Every option that names a model accepts every spelling of a path.
#[cfg(unix)]
#[test]
fn every_path_spelling_names_a_model() {
    let home = tempfile::tempdir().unwrap();
    let source = file(home.path(), "a.py", b"x = 1\n");
    file(home.path(), "m \u{e4}.gguf", b"this is a text and no model at all");
    let config = home.path().join(".config/taper");
    fs::create_dir_all(&config).unwrap();
    let whole = home.path().join("m \u{e4}.gguf").to_str().unwrap().to_owned();
    let file_address = format!("file://{}/m%20%C3%A4.gguf", home.path().display());
    for model in [
        "~/m \u{e4}.gguf",
        "$HOME/m \u{e4}.gguf",
        "${HOME}/m \u{e4}.gguf",
        "%USERPROFILE%/m \u{e4}.gguf",
        &file_address,
    ] {
        for command in
            [&["complete", &format!("{source}:1:1"), "--model", model][..], &["doctor", "--model", model]]
        {
            let output = Command::new(env!("CARGO_BIN_EXE_taper"))
                .args(command)
                .env("HOME", home.path())
                .env_remove("USERPROFILE")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let message = String::from_utf8(output.stderr).unwrap();
            assert!(message.contains(&whole) && message.contains("magic"), "{command:?}: {message}");
        }
    }
    // The server's own two options: the configuration file and the editor's settings.
    let served = |written: Option<&str>, options: serde_json::Value| {
        let path = config.join("config.toml");
        fs::write(&path, written.map_or(String::new(), |model| format!("model = {model:?}"))).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_taper"))
            .args(["serve", "--config", path.to_str().unwrap()])
            .env("HOME", home.path())
            .env("TAPER_HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let params = serde_json::json!({
            "capabilities": {}, "processId": null, "rootUri": null, "initializationOptions": options,
        });
        let mut stdin = child.stdin.take().unwrap();
        for message in [
            serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }),
            serde_json::json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} }),
        ] {
            stdin.write_all(&crate::client::frame(&message)).unwrap();
        }
        let mut messages = Vec::new();
        let mut stdout = child.stdout.take().unwrap();
        let mut buffer = [0; 4096];
        // Until the model is reported as unusable.
        while !String::from_utf8_lossy(&messages).contains("magic") {
            let read = std::io::Read::read(&mut stdout, &mut buffer).unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&messages));
            messages.extend_from_slice(&buffer[..read]);
        }
        drop(stdin);
        child.wait().unwrap();
        String::from_utf8_lossy(&messages).into_owned()
    };
    for model in ["~/m \u{e4}.gguf", "$HOME/m \u{e4}.gguf", &file_address, "../../m \u{e4}.gguf"] {
        let messages = served(Some(model), serde_json::json!({}));
        assert!(messages.contains("m \u{e4}.gguf is not a usable model"), "{model}: {messages}");
    }
    for model in ["~/m \u{e4}.gguf", "${HOME}/m \u{e4}.gguf", &file_address] {
        let messages = served(None, serde_json::json!({ "model": model }));
        assert!(messages.contains(&format!("{whole} is not a usable model")), "{model}: {messages}");
    }
}

#[test]
fn printed_text_has_no_terminal_escapes() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.py", "# \x1b]0;file\x07\u{9b}31m\ndef f():\n    \n".as_bytes());
    let script = Script::new().when("def f():\n    ", "y = '\x1b[31mred\u{202e}'");
    let engine = script.written();
    let steering =
        |text: &str| text.contains(|c: char| c.is_control() && c != '\n' && c != '\t' || c == '\u{202e}');
    for arguments in [&["--explain"][..], &[], &["--candidates", "2"]] {
        let place = format!("{path}:3:5");
        let all = [&["complete", &place, "--engine", &engine], arguments].concat();
        let shown = out(&taper(&all));
        assert!(shown.contains("\\u{1b}]0;file\\u{7}"), "{shown}");
        assert!(!steering(&shown), "{shown:?}");
    }
    for arguments in [
        &["complete", "\x1b]0;place\x07:1:1", "--engine", &engine][..],
        &["complete", &format!("{path}:1:1"), "--model", "\x1b[2Jname"],
        &["complete", &format!("{path}:1:1"), "--model", "./\x1b[2Jname.gguf"],
        &["pull", "\x1b[2Jname"],
    ] {
        let message = String::from_utf8(taper(arguments).stderr).unwrap();
        assert!(message.contains("\\u{1b}") && !steering(&message), "{message:?}");
    }
}

#[test]
fn explanation_redacts_partial_secret_at_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.py", b"password = \"hunter2\"\nlimit = hunter2\n");
    let script = Script::new().when("hunter2", "x").when("hunter", "2");
    for (place, secret) in [("1:19", true), ("2:16", false)] {
        let place = format!("{path}:{place}");
        let shown = out(&taper(&["complete", &place, "--engine", &script.written(), "--explain"]));
        let forced = shown.split("── forced ──\n").nth(1).unwrap().lines().next().unwrap();
        assert_eq!(forced == "\"REDACTED\"", secret, "{shown}");
    }
}

#[test]
fn explanation_names_the_rules_that_changed_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.py", b"total = sum()\n");
    let script = Script::new().when("sum(", "a)\nb");
    let shown =
        out(&taper(&["complete", &format!("{path}:1:13"), "--engine", &script.written(), "--explain"]));
    let line = "\nthe closing bracket is already after the cursor; bytes left: 1\n";
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in ["serve", "complete", "pull", "models", "stats", "doctor", "completions"] {
        let help = out(&taper(&[command, "--help"]));
        assert!(help.contains("Example"), "{command}: {help}");
    }
    assert!(out(&taper(&["--help"])).contains("Example"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&taper(&["completions", shell])).contains("taper"));
    }
}

#[test]
fn moved_commands_name_their_taper_eval_replacement() {
    for (arguments, now) in [
        (["eval", "--help"].as_slice(), "-p taper-eval -- run "),
        (&["eval", "tasks.jsonl", "--run-tests"], "-p taper-eval -- run "),
        (&["bench"], "-p taper-eval -- replay "),
        (&["bench", "replay", "tasks.jsonl", "--limit", "3"], "-p taper-eval -- replay "),
    ] {
        let output = taper(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(now) && message.lines().count() == 1, "{arguments:?}: {message}");
    }
    let help = out(&taper(&["--help"]));
    assert!(!help.contains("eval") && !help.contains("bench"), "{help}");
}

#[test]
fn taper_without_arguments_on_pipe_speaks_lsp() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_taper"))
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("TAPER_HOME", "/dev/null/taper")
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let params = serde_json::json!({
        "capabilities": {}, "processId": null, "rootUri": null, "initializationOptions": { "offline": true },
    });
    let hello = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&crate::client::frame(&hello)).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("inlineCompletionProvider"));
}

#[test]
fn commands_read_the_configuration_file() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("taper/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let path = file(home.path(), "a.py", b"def f(a):\n    \n");
    let script = Script::new().when("def f(a):\n    ", "b = a\n    return b\n");
    let configured = |content: &str, arguments: &[&str]| {
        fs::write(&config, content).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_taper"))
            .args(arguments)
            .env("XDG_CONFIG_HOME", home.path())
            .env("TAPER_HOME", "/dev/null/taper")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (out(&output), String::from_utf8(output.stderr).unwrap())
    };
    let place = format!("{path}:2:5");
    let engine = script.written();
    let complete = ["complete", &place, "--engine", &engine];
    assert!(configured("", &complete).0.contains("return b"));
    let (shown, _) = configured("suggest = \"line\"\n", &complete);
    assert!(shown.contains("b = a") && !shown.contains("return b"), "{shown}");
    // A mistake is reported, and the command does its work.
    let (shown, warnings) = configured("sugest = \"line\"\n", &complete);
    assert!(shown.contains("return b") && warnings.contains("did you mean `suggest`?"), "{warnings}");
    // The model is the configured one, unless the command line names another.
    let missing = home.path().join("configured.gguf").display().to_string();
    let content = format!("model = \"{missing}\"\noffline = true\n");
    for arguments in [&["complete", &place][..], &["doctor"]] {
        let (_, message) = configured(&content, arguments);
        assert!(message.contains("configured.gguf"), "{arguments:?}: {message}");
    }
    let (_, message) = configured(&content, &["complete", &place, "--model", "/nowhere/named.gguf"]);
    assert!(message.contains("named.gguf") && !message.contains("configured.gguf"), "{message}");
}
