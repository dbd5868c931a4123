//! Tests of the crawl: which files are found, and that nothing named like a file or a rule file does harm.

use super::*;

fn make_workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn found_paths(folder: &Path, near: &[&str], limits: CrawlLimits) -> Vec<String> {
    let near: Vec<String> = near.iter().map(|&it| it.to_owned()).collect();
    find_files(folder, &near, limits, &mut || false).into_iter().map(|it| it.path).collect()
}

#[test]
fn crawl_skips_ignored_generated_and_hidden_files() {
    let folder = make_workspace(&[
        ("src/a.py", "x"),
        ("src/b.rs", "x"),
        ("top.ts", "x"),
        ("notes.md", "x"),
        ("data.bin", "x"),
        ("generated/c.py", "x"),
        (".gitignore", "generated/\n*.tmp.py\n"),
        ("src/d.tmp.py", "x"),
        (".hidden/e.py", "x"),
        ("node_modules/f/f.js", "x"),
        ("g.min.js", "x"),
        ("h.py", &"y = 1\n".repeat(100)),
    ]);
    let limits = CrawlLimits { file_bytes: 100, ..CrawlLimits::DEFAULT };
    assert_eq!(found_paths(folder.path(), &[], limits), ["top.ts", "src/a.py", "src/b.rs"]);
}

#[test]
fn crawl_limits_keep_the_nearest_files() {
    let folder = make_workspace(&[("a/x/1.py", "xx"), ("a/y/2.py", "xx"), ("b/3.py", "xx"), ("4.py", "xx")]);
    let limits = CrawlLimits { files: 2, ..CrawlLimits::DEFAULT };
    assert_eq!(found_paths(folder.path(), &["a/y/open.py"], limits), ["a/y/2.py", "a/x/1.py"]);
    let limits = CrawlLimits { bytes: 5, ..CrawlLimits::DEFAULT };
    assert_eq!(found_paths(folder.path(), &["b/open.py"], limits), ["b/3.py", "4.py"]);
    assert_eq!(find_files(folder.path(), &[], CrawlLimits::DEFAULT, &mut || true), []);
    assert_eq!(find_files(Path::new("/"), &[], CrawlLimits::DEFAULT, &mut || false), []);
    assert_eq!(find_files(&folder.path().join("none"), &[], CrawlLimits::DEFAULT, &mut || false), []);
}

#[test]
fn repository_root_is_found_above_file() {
    let folder = make_workspace(&[("a/.git/HEAD", "x"), ("a/b/c.py", "x")]);
    assert_eq!(repository_root(&folder.path().join("a/b/c.py")), Some(folder.path().join("a")));
    assert_eq!(shared_folder_count("a/b/c.py", "a/b/c/d.py"), 2);
    assert_eq!(shared_folder_count("a.py", "a.py"), 0);
}

/// The paths found with rule files, which are themselves files of the workspace.
fn find_with_rules(rules: &[(&str, &str)], files: &[&str]) -> Vec<String> {
    let files: Vec<(&str, &str)> = files.iter().map(|&it| (it, "x")).chain(rules.iter().copied()).collect();
    let folder = make_workspace(&files);
    let mut found = found_paths(folder.path(), &[], CrawlLimits::DEFAULT);
    found.sort();
    found
}

#[test]
fn nearer_ignore_rules_win() {
    let found = find_with_rules(
        &[(".gitignore", "gen/*\n*.tmp.py\n/only.py\n"), ("a/.gitignore", "!keep.tmp.py\nonly_a.py\n")],
        &[
            "gen/x.py",
            "a/keep.tmp.py",
            "a/lost.tmp.py",
            "keep.tmp.py",
            "only.py",
            "a/only.py",
            "a/only_a.py",
            "only_a.py",
        ],
    );
    assert_eq!(found, ["a/keep.tmp.py", "a/only.py", "only_a.py"]);
}

#[test]
fn ignore_file_precedes_gitignore_precedes_exclude() {
    let found = find_with_rules(
        &[
            (".git/HEAD", "ref"),
            (".git/info/exclude", "c.py\nd.py\ne.py\n"),
            (".gitignore", "a.py\nb.py\n!d.py\n"),
            (".ignore", "!a.py\nf.py\n"),
        ],
        &["a.py", "b.py", "c.py", "d.py", "e.py", "f.py"],
    );
    assert_eq!(found, ["a.py", "d.py"]);
}

#[test]
fn nested_repository_has_its_own_ignore_rules() {
    let found = find_with_rules(
        &[
            (".git/HEAD", "ref"),
            (".gitignore", "a.py\n"),
            (".ignore", "b.py\n"),
            ("sub/.git", "gitdir: ../.git/modules/sub\n"),
            (".git/modules/sub/info/exclude", "c.py\n"),
            ("tree/.git", "gitdir: ../.git/worktrees/tree\n"),
            (".git/worktrees/tree/commondir", "../..\n"),
            (".git/info/exclude", "d.py\n"),
        ],
        &["a.py", "sub/a.py", "sub/b.py", "sub/c.py", "tree/a.py", "tree/d.py"],
    );
    assert_eq!(found, ["sub/a.py", "tree/a.py"]);
}

#[test]
fn ignore_rules_above_root_apply_up_to_repository() {
    let folder = make_workspace(&[
        (".gitignore", "*.py\n"),
        ("a/.git/HEAD", "ref"),
        ("a/.gitignore", "gen.py\n"),
        ("a/b/c/gen.py", "x"),
        ("a/b/c/d.py", "x"),
    ]);
    assert_eq!(found_paths(&folder.path().join("a/b/c"), &[], CrawlLimits::DEFAULT), ["d.py"]);
}

#[test]
fn hidden_files_are_found_only_when_whitelisted() {
    let found =
        find_with_rules(&[(".gitignore", "!.*\n")], &[".tool/a.py", ".b.py", ".git/c.py", ".hg/d.py"]);
    assert_eq!(found, [".b.py", ".tool/a.py"]);
    assert_eq!(find_with_rules(&[], &[".tool/a.py", ".b.py", "c.py"]), ["c.py"]);
}

#[test]
fn folder_with_unreadable_rules_is_skipped() {
    let long = format!("{}\n", "a".repeat(1000));
    let many = "a?c\n".repeat(5000);
    let large = "# nothing\n".repeat(7000);
    let dear = format!("{}\n", "*a".repeat(50));
    let sets = format!("{}\n", "{a,b}".repeat(40));
    for rules in [&long, &many, &large, &dear, &sets] {
        let found = find_with_rules(
            &[("bad/.gitignore", rules)],
            &["a.py", "bad/b.py", "bad/deep/c.py", "good/d.py"],
        );
        assert_eq!(found, ["a.py", "good/d.py"], "{}", &rules[..20]);
    }
    let fine = format!("# {}\n\n  \n[\n{{a\n\\\nb.py\r\n", "-".repeat(2000));
    assert_eq!(find_with_rules(&[(".gitignore", &fine)], &["a.py", "b.py"]), ["a.py"]);
    assert_eq!(find_with_rules(&[(".git", "garbage")], &["a.py"]), Vec::<String>::new());
    assert_eq!(
        find_with_rules(&[("sub/.git", "gitdir: nowhere")], &["a.py", "sub/b.py"]),
        ["a.py", "sub/b.py"]
    );
}

#[test]
fn compiled_ignore_patterns_are_limited_per_walk() {
    let costly: String = (0..1500).map(|n| format!("a{n}?b\n")).collect();
    let names = ["1/.gitignore", "2/.gitignore", "3/.gitignore"];
    let rules: Vec<(&str, &str)> = names.iter().map(|&name| (name, costly.as_str())).collect();
    let found = find_with_rules(&rules, &["1/a.py", "2/a.py", "3/a.py"]);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn walk_stops_on_request_and_at_limits() {
    let many: Vec<String> = (0..40).map(|n| format!("{}/{n}.py", n % 4)).collect();
    let files_of = |path: &String| (path.clone(), "x".to_owned());
    let all: Vec<(String, String)> = many.iter().map(files_of).collect();
    let all: Vec<(&str, &str)> = all.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let folder = make_workspace(&all);
    let mut polls = 0;
    let mut stop = || {
        polls += 1;
        polls > 20
    };
    let found = find_files(folder.path(), &[], CrawlLimits::DEFAULT, &mut stop);
    assert!(!found.is_empty() && found.len() < 20, "{}", found.len());
    assert_eq!(
        found_paths(folder.path(), &[], CrawlLimits { entries: 14, ..CrawlLimits::DEFAULT }).len(),
        10
    );
    assert_eq!(
        found_paths(folder.path(), &[], CrawlLimits { folder_entries: 3, ..CrawlLimits::DEFAULT }).len(),
        9
    );
    assert_eq!(found_paths(folder.path(), &[], CrawlLimits { depth: 1, ..CrawlLimits::DEFAULT }).len(), 0);
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn make_fifo(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn special_files_as_ignore_rules_are_not_read() {
        type FileTrap = (&'static str, fn(&Path));
        let traps: &[FileTrap] = &[
            ("zero", |path| symlink("/dev/zero", path).unwrap()),
            ("stdin", |path| symlink("/dev/stdin", path).unwrap()),
            ("terminal", |path| symlink("/dev/tty", path).unwrap()),
            ("fifo", make_fifo),
            ("socket", |path| drop(UnixListener::bind(path).unwrap())),
            ("folder", |path| fs::create_dir(path).unwrap()),
            ("loop", |path| symlink(path, path).unwrap()),
            ("endless", |path| symlink("/proc/self/maps", path).unwrap()),
        ];
        for (trap, set) in traps {
            for rules in [".gitignore", ".ignore", ".git/info/exclude", ".git/commondir", ".git"] {
                if ["folder", "stdin", "endless"].contains(trap) && rules != ".gitignore" {
                    continue;
                }
                let folder = make_workspace(&[("a.py", "x"), ("bad/b.py", "x")]);
                let path = folder.path().join("bad").join(rules);
                match rules {
                    ".git/commondir" => {
                        let data = folder.path().join("data");
                        fs::create_dir(&data).unwrap();
                        fs::write(folder.path().join("bad/.git"), "gitdir: ../data").unwrap();
                        set(&data.join("commondir"));
                    }
                    _ => {
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        set(&path);
                    }
                }
                let found = found_paths(folder.path(), &[], CrawlLimits::DEFAULT);
                let is_read = *trap == "endless" && found.len() == 2;
                assert!(found == ["a.py"] || is_read, "{trap} as {rules}: {found:?}");
            }
        }
        let folder = make_workspace(&[("rules", "b.py\n"), ("a.py", "x"), ("b.py", "x")]);
        symlink("rules", folder.path().join(".gitignore")).unwrap();
        assert_eq!(
            found_paths(folder.path(), &[], CrawlLimits::DEFAULT),
            ["a.py"],
            "a link to a plain rule file is followed"
        );
    }

    #[test]
    fn crawl_skips_symlinks_and_invalid_names() {
        let other = make_workspace(&[("x.py", "x")]);
        let folder =
            make_workspace(&[("a.py", "x"), ("b/c.py", "x"), ("new\nline.py", "x"), ("new\nline/d.py", "x")]);
        let root = folder.path();
        symlink("..", root.join("b/up")).unwrap();
        symlink(other.path(), root.join("other")).unwrap();
        symlink(other.path().join("x.py"), root.join("linked.py")).unwrap();
        symlink("/dev/zero", root.join("zero.py")).unwrap();
        make_fifo(&root.join("fifo.py"));
        fs::create_dir(root.join("folder.py")).unwrap();
        fs::write(root.join(OsStr::from_bytes(b"\xff.py")), "x").unwrap();
        fs::create_dir(root.join(OsStr::from_bytes(b"\xff"))).unwrap();
        fs::write(root.join(OsStr::from_bytes(b"\xff/e.py")), "x").unwrap();
        assert_eq!(found_paths(root, &[], CrawlLimits::DEFAULT), ["a.py", "b/c.py"]);
        let link = other.path().join("link");
        symlink(root, &link).unwrap();
        assert_eq!(
            found_paths(&link, &[], CrawlLimits::DEFAULT),
            ["a.py", "b/c.py"],
            "a root that is a link"
        );
    }

    #[test]
    fn file_replaced_since_crawl_is_not_read() {
        let folder = make_workspace(&[("a.py", "def f(): pass\n")]);
        let root = folder.path();
        let found = find_files(root, &[], CrawlLimits::DEFAULT, &mut || false).remove(0);
        let text = |root: &Path| chunk_file(root, &found, &mut || false).map(|it| it.text().len());
        assert_eq!(text(root), Some(14));
        let path = root.join("a.py");
        fs::write(&path, "x = 1\n".repeat(100_000)).unwrap();
        assert_eq!(text(root), None, "it grew");
        fs::remove_file(&path).unwrap();
        assert_eq!(text(root), None, "it went");
        make_fifo(&path);
        assert_eq!(text(root), None, "a FIFO");
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        assert_eq!(text(root), None, "a device");
        assert!(chunk_without_outlines(root, &found).is_none());
    }
}
