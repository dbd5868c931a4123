//! `taper pull` and `taper models` as processes: interrupted, killed, two at once, against a hub of our own.
//! It knows nothing of how they fetch; the engine's own tests cover the sources one by one.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![expect(clippy::print_stderr, reason = "a process of the tests says on stderr what it does")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use taper_engine::catalog::{CatalogModel, FALLBACK_MODEL, MODELS, ModelSource, find_model};
use taper_engine::fetch::{ModelStore, PullOptions, PullPhase};

use crate::fake_hub::{Behaviour, Hub};

/// The sha256 of [`content`], as `sha256sum` says.
const HASH: &str = "dfc23fa55a13f425cab9239ada27c59c6d8ffa1be528b1726b139124dde43027";
const FILE: &str = "small.gguf";

/// A model that is small enough to be sent about in tests. It stands in no table, so that `taper pull` does not know it:
/// processes that pull it are this test program once more, see [`a_process_that_pulls`].
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

/// Stands for a model: a million bytes that do not repeat.
fn content() -> Vec<u8> {
    (0..250_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// Set in processes that pull.
const PULLING: &str = "TAPER_TEST_PULLS";

/// Does nothing, but in a process that [`Scene::pulls`] starts: there it pulls the small model, and says on stderr what
/// goes on.
#[test]
fn a_process_that_pulls() {
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

    /// `taper` with these arguments, at home here.
    fn taper(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
        command.args(arguments);
        self.settle(command)
    }

    /// A process that pulls the small model.
    fn pulls(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "pull::a_process_that_pulls", "--nocapture"]).env(PULLING, "1");
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

    /// A file of the model's size in taper's folder, all zeros; the disk gives it no room.
    fn zeros(&self, model: &CatalogModel) -> PathBuf {
        let folder = self.home.path().join("models");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(model.file);
        fs::File::create(&path).unwrap().set_len(model.bytes).unwrap();
        path
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

#[track_caller]
fn assert_done(scene: &Scene, output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = format!("path: {}", scene.file().display());
    assert!(text(&output.stderr).lines().any(|line| line == path), "{}", text(&output.stderr));
    assert!(fs::read(scene.file()).unwrap() == content());
    assert!(!scene.part().exists());
}

#[test]
fn a_killed_pull_leaves_no_file_and_the_next_one_goes_on() {
    let scene = Scene::new();
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
fn two_pulls_at_once_do_not_clash() {
    let scene = Scene::new();
    scene.hub.change(|b| b.hold_after = Some(100_000));
    let first = scene.pulls().spawn().unwrap();
    scene.hub.wait_until_held();
    let mut second = scene.pulls().spawn().unwrap();
    let mut says = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("phase: Wait") {
        line.clear();
        assert_ne!(says.read_line(&mut line).unwrap(), 0, "the second pull did not wait");
    }
    scene.hub.release();
    assert_done(&scene, &first.wait_with_output().unwrap());
    says.read_to_string(&mut line).unwrap();
    assert!(second.wait().unwrap().success(), "{line}");
    assert_eq!(scene.hub.requests.lock().unwrap().len(), 1);
}

#[test]
fn a_begun_model_is_listed_and_its_size_is_told() {
    let scene = Scene::new();
    let model = find_model(FALLBACK_MODEL).unwrap();
    let folder = scene.home.path().join("models");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{}.part", model.file)), [7; 1000]).unwrap();
    let listed = text(&scene.taper(&["models"]).output().unwrap().stdout);
    let begun = |line: &str| line.starts_with(&format!("{} ", model.name)) && line.contains("incomplete");
    assert!(listed.lines().any(begun), "{listed}");
    // The hub has not got it, and there is no client.
    let output = scene.taper(&["pull", model.name]).env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("1.0 kB of it here already") && said.contains("no pip client"), "{said}");
    assert_eq!(fs::read(folder.join(format!("{}.part", model.file))).unwrap(), [7; 1000]);
}

#[test]
fn a_file_that_is_not_the_pinned_one_is_refused_with_a_reason() {
    let scene = Scene::new();
    let model = find_model("qwen2.5-coder-7b").unwrap();
    scene.hub.change(|b| {
        b.files.insert(model.file.into(), content());
        b.hashes.insert(model.file.into(), HASH.into());
    });
    let said = || {
        let output = scene.taper(&["pull", model.name]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(!scene.home.path().join("models").join(model.file).exists());
        text(&output.stderr)
    };
    // 375 kB were accepted as these 4.68 GB once.
    assert!(said().contains("1.0 MB (1000000 bytes) where 4.68 GB are expected"), "{}", said());
    scene.hub.change(|b| b.sizes = [(model.file.into(), model.bytes)].into());
    assert!(said().contains(HASH) && said().contains(model.sha256.unwrap()), "{}", said());
    assert_eq!(scene.hub.requests.lock().unwrap().len(), 0);
    // Nor where no hash is pinned.
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
fn the_hubs_variables_are_honoured() {
    let scene = Scene::new();
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

    // A file in the Hugging Face cache is used where it lies.
    let home = tempfile::tempdir().unwrap();
    let snapshot = home.path().join("hub/models--owner--name/snapshots/c0");
    fs::create_dir_all(&snapshot).unwrap();
    fs::rename(scene.file(), snapshot.join(FILE)).unwrap();
    let found = scene.pulls().env("HF_HOME", home.path()).output().unwrap();
    let said = text(&found.stderr);
    assert!(said.contains(&snapshot.join(FILE).display().to_string()), "{said}");
}

#[test]
fn the_token_of_the_environment_is_for_the_hub_alone() {
    let scene = Scene::new();
    let other = Hub::start(Behaviour { files: [(FILE.into(), content())].into(), ..Behaviour::default() });
    scene.hub.change(|b| b.sends_to = Some(format!("{}/blob/", other.endpoint)));
    let tokens =
        |hub: &Hub| -> Vec<_> { hub.seen.lock().unwrap().iter().map(|it| it.token.clone()).collect() };
    let hugging = scene.home.path().join("hugging");
    fs::create_dir_all(&hugging).unwrap();
    // From the variable, and from the file that the hub's own tools keep; past a proxy that would see it.
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
    // An address that anybody on the way can read does not get as far as a connection.
    let far =
        scene.pulls().env("HF_TOKEN", "secret").env("HF_ENDPOINT", "http://hub.example").output().unwrap();
    assert!(text(&far.stderr).contains("plain http address"), "{}", text(&far.stderr));
}

#[test]
fn a_damaged_model_is_noticed_and_what_it_is_replaced_with_too() {
    let scene = Scene::new();
    let model = find_model("smollm2-135m").unwrap();
    let path = scene.zeros(model);
    for command in [&["doctor", "--model", model.name, "--offline"][..], &["pull", model.name, "--offline"]] {
        let output = scene.taper(command).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("is damaged: its sha256 is ")
                && said.contains("`taper pull smollm2-135m` fetches it again"),
            "{said}"
        );
        assert!(said.contains(path.to_str().unwrap()) && said.contains(model.sha256.unwrap()), "{said}");
    }
    // With a network it is fetched again; the hub has not got it, and what is here stays.
    let output = scene.taper(&["pull", model.name]).env("PATH", "/nonexistent").output().unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("is damaged: ") && said.contains("fetching it again"), "{said}");
    assert_eq!(fs::metadata(&path).unwrap().len(), model.bytes);
    fs::File::create(&path).unwrap().set_len(model.bytes - 1).unwrap();
    let output = scene.taper(&["doctor", "--model", model.name, "--offline"]).output().unwrap();
    assert!(text(&output.stderr).contains("98362431 bytes instead of 98362432"), "{}", text(&output.stderr));
    let listed = text(&scene.taper(&["models"]).output().unwrap().stdout);
    assert!(listed.contains("damaged: wrong size"), "{listed}");
}

#[test]
fn a_model_without_a_pinned_hash_is_said_to_be_so() {
    let scene = Scene::new();
    let model = MODELS.iter().filter(|model| model.sha256.is_none()).min_by_key(|model| model.bytes).unwrap();
    let path = scene.zeros(model);
    let output = scene.taper(&["pull", model.name, "--offline"]).output().unwrap();
    assert_eq!(text(&output.stdout).trim_end(), path.to_str().unwrap());
    assert!(text(&output.stderr).contains("taper has no hash for it"), "{}", text(&output.stderr));
    let listed = text(&scene.taper(&["models", "--here"]).output().unwrap().stdout);
    assert!(listed.contains(model.file) && listed.contains("unpinned"), "{listed}");
    // It is no model, but that is for its reader to say.
    let doctor = scene.taper(&["doctor", "--model", model.name, "--offline"]).output().unwrap();
    assert!(text(&doctor.stdout).contains("unpinned: its size is about right"), "{}", text(&doctor.stdout));
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
    let path = said(&["pull", "~/models/x.gguf"]);
    assert!(path.contains("is a path"), "{path}");
    let offline = said(&["pull", FALLBACK_MODEL, "--offline"]);
    assert!(offline.contains("offline") && offline.contains("taper pull"), "{offline}");
    // A folder that cannot be made.
    fs::write(scene.home.path().join("models"), "a file in the way").unwrap();
    let blocked = said(&["pull", FALLBACK_MODEL]);
    assert!(blocked.contains("cannot create the folder"), "{blocked}");
    assert_eq!(scene.hub.seen.lock().unwrap().len(), 0);
}

/// A package client that says who it is, starts a child, and then does nothing for long.
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
fn a_package_client_dies_with_the_process_that_started_it_and_sees_no_token() {
    use std::os::unix::fs::PermissionsExt as _;

    let scene = Scene::new();
    let bin = scene.home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("pip"), HANGING_CLIENT).unwrap();
    fs::set_permissions(bin.join("pip"), fs::Permissions::from_mode(0o755)).unwrap();
    // The hub has not got the model, so the client is asked.
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
