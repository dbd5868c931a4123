//! `taper pull` and `taper models` as processes: interrupted, killed, two at once, against a hub of our own.
//! It knows nothing of how they fetch; the engine's own tests cover the sources one by one.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::fake_hub::{Behaviour, Hub};

/// A row without a pinned hash, so that a small file can stand for it.
const MODEL: &str = "qwen2.5-coder-7b";
const FILE: &str = "qwen2.5-coder-7b-instruct-q4_k_m.gguf";
/// The sha256 of [`content`], as `sha256sum` says.
const HASH: &str = "dfc23fa55a13f425cab9239ada27c59c6d8ffa1be528b1726b139124dde43027";

/// Stands for a model: a million bytes that do not repeat.
fn content() -> Vec<u8> {
    (0..250_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

struct Scene {
    home: tempfile::TempDir,
    hub: Hub,
}

impl Scene {
    fn new() -> Scene {
        let hub = Hub::start(Behaviour {
            files: [(FILE.into(), content())].into(),
            hashes: [(FILE.into(), HASH.into())].into(),
            ..Behaviour::default()
        });
        Scene { home: tempfile::tempdir().unwrap(), hub }
    }

    fn taper(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
        command.args(arguments).stdin(Stdio::null());
        command.env("TAPER_HOME", self.home.path()).env("HF_HOME", self.home.path().join("hugging"));
        command.env("HF_ENDPOINT", &self.hub.endpoint);
        for variable in [
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "HF_TOKEN",
            "http_proxy",
            "HTTP_PROXY",
        ] {
            command.env_remove(variable);
        }
        command
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("models").join(FILE)
    }

    fn part(&self) -> PathBuf {
        self.home.path().join("models").join(format!("{FILE}.part"))
    }

    /// Waits until `bytes` of the file are on the disk.
    fn wait_for_part(&self, bytes: u64) {
        while fs::metadata(self.part()).map_or(0, |found| found.len()) < bytes {
            std::thread::yield_now();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_done(scene: &Scene, output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).trim_end(), scene.file().display().to_string());
    assert!(fs::read(scene.file()).unwrap() == content());
    assert!(!scene.part().exists());
}

#[test]
fn a_killed_pull_leaves_no_file_and_the_next_one_goes_on() {
    let scene = Scene::new();
    scene.hub.change(|b| b.hold_after = Some(400_000));
    let mut first = scene.taper(&["pull", MODEL]).stderr(Stdio::null()).spawn().unwrap();
    scene.hub.wait_until_held();
    scene.wait_for_part(300_000);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!scene.file().exists());
    let kept = fs::metadata(scene.part()).unwrap().len();

    scene.hub.release();
    let models = scene.taper(&["models"]).output().unwrap();
    let listed = text(&models.stdout);
    assert!(
        listed.lines().any(|line| line.starts_with(&format!("{MODEL} ")) && line.contains("begun")),
        "{listed}"
    );
    let second = scene.taper(&["pull", MODEL]).output().unwrap();
    assert_done(&scene, &second);
    assert!(text(&second.stderr).contains("of it here already"), "{}", text(&second.stderr));
    let requests = scene.hub.requests.lock().unwrap().clone();
    assert_eq!(requests, [format!("{FILE} 0"), format!("{FILE} {kept}")]);

    let models = scene.taper(&["models", "--here"]).output().unwrap();
    assert!(text(&models.stdout).contains(FILE), "{}", text(&models.stdout));
    let third = scene.taper(&["pull", MODEL, "--offline"]).output().unwrap();
    assert_done(&scene, &third);
    assert_eq!(text(&third.stderr), "");
}

#[test]
fn two_pulls_at_once_do_not_clash() {
    let scene = Scene::new();
    scene.hub.change(|b| b.hold_after = Some(100_000));
    let first = scene.taper(&["pull", MODEL]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    scene.hub.wait_until_held();
    let mut second =
        scene.taper(&["pull", MODEL]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut says = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("another process is fetching it") {
        line.clear();
        assert_ne!(says.read_line(&mut line).unwrap(), 0, "the second pull did not wait");
    }
    scene.hub.release();
    assert_done(&scene, &first.wait_with_output().unwrap());
    says.read_to_string(&mut line).unwrap();
    assert_done(&scene, &second.wait_with_output().unwrap());
    assert_eq!(scene.hub.requests.lock().unwrap().len(), 1);
}

#[test]
fn a_wrong_file_is_refused_with_a_reason() {
    let scene = Scene::new();
    scene.hub.change(|b| b.files.get_mut(FILE).unwrap()[77] ^= 1);
    let output = scene.taper(&["pull", MODEL]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(MODEL) && said.contains(HASH) && said.contains("thrown away"), "{said}");
    assert!(!scene.file().exists() && !scene.part().exists());
}

#[test]
fn the_hubs_variables_are_honoured() {
    let scene = Scene::new();
    let off = scene.taper(&["pull", MODEL]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(
        !off.status.success() && text(&off.stderr).contains("HF_HUB_OFFLINE is set"),
        "{}",
        text(&off.stderr)
    );
    assert_eq!(scene.hub.requests.lock().unwrap().len(), 0);

    scene.hub.change(|b| b.token = Some("secret".into()));
    let refused = scene.taper(&["pull", MODEL]).output().unwrap();
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("HF_TOKEN"),
        "{}",
        text(&refused.stderr)
    );
    let trusted = scene.taper(&["pull", MODEL]).env("HF_TOKEN", "secret").output().unwrap();
    assert_done(&scene, &trusted);
    assert!(!text(&trusted.stderr).contains("secret"));

    // A file in the Hugging Face cache is used where it lies.
    let home = tempfile::tempdir().unwrap();
    let snapshot = home.path().join("hub/models--Qwen--Qwen2.5-Coder-7B-Instruct-GGUF/snapshots/c0");
    fs::create_dir_all(&snapshot).unwrap();
    fs::rename(scene.file(), snapshot.join(FILE)).unwrap();
    let found = scene.taper(&["pull", MODEL, "--offline"]).env("HF_HOME", home.path()).output().unwrap();
    assert_eq!(text(&found.stdout).trim_end(), snapshot.join(FILE).display().to_string());
}

#[test]
fn mistakes_are_answered_with_a_remedy() {
    let scene = Scene::new();
    let said = |arguments: &[&str]| {
        let output = scene.taper(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        text(&output.stderr)
    };
    let typo = said(&["pull", "qwen2.5-coder-7B-bse"]);
    assert!(typo.contains("did you mean `qwen2.5-coder-7b-base`"), "{typo}");
    let offline = said(&["pull", MODEL, "--offline"]);
    assert!(offline.contains("offline") && offline.contains("taper pull"), "{offline}");
    let unreadable = said(&["pull", "gemma3-270m"]);
    assert!(unreadable.contains("gemma3"), "{unreadable}");
    // A folder that cannot be made.
    fs::write(scene.home.path().join("models"), "a file in the way").unwrap();
    let blocked = said(&["pull", MODEL]);
    assert!(blocked.contains("cannot create the folder"), "{blocked}");
    assert_eq!(scene.hub.requests.lock().unwrap().len(), 0);
}

#[test]
fn help_has_an_example() {
    for command in ["pull", "models"] {
        let output = Command::new(env!("CARGO_BIN_EXE_taper")).args([command, "--help"]).output().unwrap();
        let help = text(&output.stdout);
        assert!(output.status.success() && help.contains(&format!("taper {command}")), "{help}");
        assert!(help.contains("Example"), "{help}");
    }
}
