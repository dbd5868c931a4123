//! All that the command line says, as transcripts in `snapshots/*.txt`: help, tables and errors. Where a text has
//! changed on purpose, `UPDATE_EXPECT=1 cargo test snapshots` writes it there.
#![cfg(target_os = "linux")]

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::expect_file;
use regex::Regex;
use taper_engine::EngineError;
use taper_engine::catalog::find_model;
use taper_engine::fetch::{FetchError, FileDamage, SourceError, SourceFailure};
use taper_engine::gguf::testing::{ModelDims, random_qwen2};
use tempfile::TempDir;

/// Commands run one after the other in a folder, and what they print.
struct Transcript {
    folder: TempDir,
    text: String,
}

impl Transcript {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), text: String::new() }
    }

    fn heading(&mut self, heading: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text += &format!("{gap}## {heading}\n\n");
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Runs `taper` with these arguments, separated by blanks, in an environment of its own.
    fn run(&mut self, arguments: &str) {
        self.run_as(arguments, |_| ());
    }

    /// [`run`](Self::run), with a change of the command that the arguments do not show.
    fn run_as(&mut self, arguments: &str, change: impl FnOnce(&mut Command)) {
        let folder = self.folder.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
        command.args(arguments.split_whitespace()).current_dir(folder).stdin(Stdio::null());
        command.env_clear().env("HF_HUB_OFFLINE", "1");
        for (name, below) in
            [("HOME", "."), ("XDG_CONFIG_HOME", "config"), ("TAPER_HOME", "home"), ("HF_HOME", "hf")]
        {
            command.env(name, folder.join(below));
        }
        change(&mut command);
        let output = command.output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(!stderr.contains("panicked"), "{stderr}");
        if output.status.code() == Some(1) {
            assert_no_repetition(&stderr);
        }
        self.text += &format!("$ taper {arguments}\n");
        for printed in [stdout, stderr] {
            self.text += &mask(&printed, folder);
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
        }
        match output.status.code() {
            Some(0) => {}
            code => self.text += &format!("[exit code {}]\n", code.unwrap()),
        }
    }
}

/// What differs from machine to machine and from run to run becomes `…`.
fn mask(text: &str, folder: &Path) -> String {
    let text = text.replace(folder.to_str().unwrap(), "FOLDER");
    let masks = [
        (r"\d+(\.\d+)?( s|/s| ms| tokens/s)\b", "…$2"),
        (r"(?m)^(taper      |machine    |device     ).*$", "$1…"),
        (r"(?m)^\S+ \S+ of memory are free$", "… of memory are free"),
        (r"(fits|does not fit): needs", "…: needs"),
        (r#"("date": ")[\d-]+"#, "$1…"),
    ];
    masks.iter().fold(text, |text, (pattern, masked)| {
        Regex::new(pattern).unwrap().replace_all(&text, *masked).into_owned()
    })
}

/// Asserts that a message repeats nothing, as it would if it included a cause that its own text already contains.
#[track_caller]
fn assert_no_repetition(message: &str) {
    let mut parts: Vec<&str> =
        message.split([':', ';', '\n']).map(str::trim).filter(|part| part.len() > 10).collect();
    let all = parts.len();
    parts.sort_unstable();
    parts.dedup();
    assert_eq!(parts.len(), all, "{message}");
}

fn small_model() -> Vec<u8> {
    random_qwen2(1, &ModelDims::default()).unwrap().to_bytes()
}

#[test]
fn help() {
    let mut shell = Transcript::new();
    for command in ["", "serve ", "complete ", "pull ", "models ", "doctor ", "stats ", "completions "] {
        shell.heading(&format!("taper {}", command.trim()));
        shell.run(&format!("{command}--help"));
    }
    assert_eq!(shell.text.matches("Example").count(), 8, "an example each");
    expect_file!["snapshots/help.txt"].assert_eq(&shell.text);
}

#[test]
fn tables() {
    let mut shell = Transcript::new();
    shell.heading("models");
    shell.run("models --here");
    let model = find_model("smollm2-135m").unwrap();
    shell.write(&format!("home/models/{}", model.file), "");
    // Only the size is checked; the file is sparse.
    let path = shell.folder.path().join("home/models").join(model.file);
    fs::File::create(path).unwrap().set_len(model.bytes).unwrap();
    shell.write(&format!("home/models/{}.part", find_model("qwen2.5-coder-0.5b").unwrap().file), "begun");
    shell.write(&format!("home/models/{}", find_model("qwen2.5-coder-3b").unwrap().file), "short");
    shell.run("models");
    shell.run("models --here");

    shell.heading("statistics");
    shell.run("stats");
    shell.run("stats --json");

    shell.heading("this machine");
    shell.write("m.gguf", small_model());
    shell.run("doctor --model m.gguf --kernel portable --threads 1");

    shell.heading("a completion");
    shell.write("a.py", "def add(a, b):\n    \n\nprint(add(1, 2))\n");
    shell.write("script", "when def add\nanswer return a + b\nor return sum([a, b])\n");
    for option in ["", " --plain", " --candidates 2", " --explain"] {
        shell.run(&format!("complete a.py:2:5 --engine scripted:script{option}"));
    }
    expect_file!["snapshots/tables.txt"].assert_eq(&shell.text);
}

#[test]
fn errors() {
    let mut shell = Transcript::new();
    shell.heading("commands and flags");
    for wrong in [
        "frobnicate",
        "complete",
        "complete a.py:1:1 --no-such-flag",
        "complete a.py:1:1 --max-lines 0",
        "complete a.py:1:1 --max-lines 1001",
        "complete a.py:1:1 --candidates 4",
        "complete a.py:1:1 --threads 1025",
        "complete a.py:1:1 --threads many",
        "complete a.py:1:1 --context 1048577",
        "complete a.py:1:1 --device tpu",
        "complete a.py:1:1 --engine x",
        "pull --offline --force",
        "serve --log loud",
        "serve --log taper=loud",
        "completions csh",
        "eval --help",
        "bench",
        "bench replay tasks.jsonl --limit 3",
    ] {
        shell.run(wrong);
    }

    shell.heading("positions and files");
    shell.write("a.py", "x = 1\n");
    shell.write("latin.py", b"# gr\xfc\xdfe\n");
    shell.write("script", "otherwise\nanswer y\n");
    shell.run("complete a.py:1:1 --engine scripted:nowhere");
    for place in ["a.py", "a.py:0:1", "a.py:9:1", "a.py:1:99", "latin.py:1:1", "nowhere.py:1:1", ".:1:1"] {
        shell.run(&format!("complete {place} --engine scripted:script"));
    }

    shell.heading("models");
    let whole = small_model();
    // A tensor count that exceeds any memory.
    let mut huge = whole.clone();
    huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    shell.write("text.gguf", "this is a text and no model at all");
    shell.write("empty.gguf", "");
    shell.write("half.gguf", &whole[..whole.len() / 2]);
    shell.write("huge.gguf", huge);
    shell.write("page.gguf", "<!DOCTYPE html>");
    shell.write("model.whl", b"PK\x03\x04 and so on");
    for model in [
        "text.gguf",
        "empty.gguf",
        "half.gguf",
        "huge.gguf",
        "page.gguf",
        "model.whl",
        "no/such/model.gguf",
        "home",
        "/dev/zero",
        "https://huggingface.co/owner/name/x.gguf",
        "qwen2.5-codr-0.5b",
        "nonsense",
        "qwen2.5-coder-0.5b --offline",
    ] {
        fs::create_dir_all(shell.folder.path().join("home")).unwrap();
        shell.run(&format!("complete a.py:1:1 --model {model}"));
    }
    for arguments in ["pull nonsense", "pull a.py", "pull qwen2.5-coder-0.5b --offline"] {
        shell.run(arguments);
    }
    let model = find_model("smollm2-135m").unwrap();
    shell.write(&format!("home/models/{}", model.file), "short");
    shell.run("doctor --model smollm2-135m --offline");

    shell.heading("the configuration");
    for content in [
        &b"enable = = true\n"[..],
        b"enable = true\nmax-lines = 3 4\n",
        b"enable = \"\xff\"\n",
        b"max-lines = \"many\"\nlatency-budget = 5\nnonsense = 1\ndevice = \"tpu\"\n",
    ] {
        shell.text += &format!("config.toml:\n{}", String::from_utf8_lossy(content));
        shell.write("config/taper/config.toml", content);
        shell.run("complete a.py:1:2 --plain --engine scripted:script");
    }
    shell.write("config/taper/config.toml", "model = \"beside.gguf\"\n");
    shell.text += "config.toml:\nmodel = \"beside.gguf\"\n";
    shell.run("complete a.py:1:1");
    shell.run("pull");
    fs::remove_file(shell.folder.path().join("config/taper/config.toml")).unwrap();

    shell.heading("this machine");
    shell.text += "(a full disk)\n";
    for arguments in ["models", "stats"] {
        shell.run_as(arguments, |command| {
            command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        });
    }
    shell.write("home/statistics.json", "not taper's");
    shell.run("stats");
    shell.text += "(a file where the folder of the models should be)\n";
    fs::remove_dir_all(shell.folder.path().join("home")).unwrap();
    shell.write("home", "");
    shell.run("pull qwen2.5-coder-0.5b");

    shell.heading("what a test cannot bring about");
    for message in rare_messages() {
        assert_no_repetition(&message);
        shell.text += &format!("{message}\n");
    }
    expect_file!["snapshots/errors.txt"].assert_eq(&shell.text);
}

/// Messages about disks, networks, memory and devices.
fn rare_messages() -> Vec<String> {
    let (name, file, folder) = ("qwen2.5-coder-0.5b", "x.gguf", Path::new("FOLDER"));
    let (expected, found) = ("0123".to_owned(), "4567".to_owned());
    let failures = [
        SourceError::Unreachable("no route to host".to_owned()),
        SourceError::Hash { expected: expected.clone(), found: found.clone() },
    ];
    let failures = failures.map(|cause| SourceFailure { source: "a source".to_owned(), cause }).into();
    let damaged = |damage| FetchError::Damaged { name, path: folder.join(file), damage }.to_string();
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    vec![
        FetchError::NoSpace { folder: folder.into(), needed: 491_400_064, free: 12_345_678 }.to_string(),
        FetchError::NoHome.to_string(),
        FetchError::NoSource { name, file, folder: folder.into(), failures }.to_string(),
        damaged(FileDamage::Size { expected: 5_000_000, exact: true, found: 3 }),
        damaged(FileDamage::Size { expected: 5_000_000, exact: false, found: 3 }),
        damaged(FileDamage::Hash { expected, found }),
        FetchError::Io { what: "write", path: folder.join(file), source: denied() }.to_string(),
        EngineError::Read { path: folder.join(file), source: denied() }.to_string(),
        EngineError::PromptTooLong { tokens: 9000, context: 8192 }.to_string(),
        EngineError::Device { device: "GPU 0".to_owned(), source: "out of memory".into() }.to_string(),
    ]
}
