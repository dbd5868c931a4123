//! Tests of the walk: what is found, and that nothing which lies under the name of a file or of rules does harm.
//! They know nothing of what becomes of the files.

use super::*;

fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn paths(folder: &Path, near: &[&str], limits: Limits) -> Vec<String> {
    let near: Vec<String> = near.iter().map(|&it| it.to_owned()).collect();
    files(folder, &near, limits, &mut || false).into_iter().map(|it| it.path).collect()
}

#[test]
fn what_git_ignores_and_what_nobody_wrote_is_left_out() {
    let folder = workspace(&[
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
    let limits = Limits { file_bytes: 100, ..Limits::USUAL };
    assert_eq!(paths(folder.path(), &[], limits), ["top.ts", "src/a.py", "src/b.rs"]);
}

#[test]
fn of_too_much_the_nearest_is_taken() {
    let folder = workspace(&[("a/x/1.py", "xx"), ("a/y/2.py", "xx"), ("b/3.py", "xx"), ("4.py", "xx")]);
    let limits = Limits { files: 2, ..Limits::USUAL };
    assert_eq!(paths(folder.path(), &["a/y/open.py"], limits), ["a/y/2.py", "a/x/1.py"]);
    let limits = Limits { bytes: 5, ..Limits::USUAL };
    assert_eq!(paths(folder.path(), &["b/open.py"], limits), ["b/3.py", "4.py"]);
    assert_eq!(files(folder.path(), &[], Limits::USUAL, &mut || true), []);
    assert_eq!(files(Path::new("/"), &[], Limits::USUAL, &mut || false), []);
    assert_eq!(files(&folder.path().join("none"), &[], Limits::USUAL, &mut || false), []);
}

#[test]
fn a_file_belongs_to_the_repository_around_it() {
    let folder = workspace(&[("a/.git/HEAD", "x"), ("a/b/c.py", "x")]);
    assert_eq!(root_of(&folder.path().join("a/b/c.py")), Some(folder.path().join("a")));
    assert_eq!(shared_folders("a/b/c.py", "a/b/c/d.py"), 2);
    assert_eq!(shared_folders("a.py", "a.py"), 0);
}

/// The paths found under rules, which are files too.
fn found_with(rules: &[(&str, &str)], files: &[&str]) -> Vec<String> {
    let files: Vec<(&str, &str)> = files.iter().map(|&it| (it, "x")).chain(rules.iter().copied()).collect();
    let folder = workspace(&files);
    let mut found = paths(folder.path(), &[], Limits::USUAL);
    found.sort();
    found
}

#[test]
fn rules_nearer_to_a_file_count_before_those_above() {
    let found = found_with(
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
fn what_other_tools_ignore_counts_before_what_git_does_and_that_before_its_exclude() {
    let found = found_with(
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
fn a_repository_in_another_has_rules_of_its_own() {
    let found = found_with(
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
fn what_is_ignored_above_the_root_is_ignored_in_it_up_to_the_repository() {
    let folder = workspace(&[
        (".gitignore", "*.py\n"),
        ("a/.git/HEAD", "ref"),
        ("a/.gitignore", "gen.py\n"),
        ("a/b/c/gen.py", "x"),
        ("a/b/c/d.py", "x"),
    ]);
    assert_eq!(paths(&folder.path().join("a/b/c"), &[], Limits::USUAL), ["d.py"]);
}

#[test]
fn hidden_files_are_found_where_a_rule_says_so_and_those_of_version_control_never() {
    let found = found_with(&[(".gitignore", "!.*\n")], &[".tool/a.py", ".b.py", ".git/c.py", ".hg/d.py"]);
    assert_eq!(found, [".b.py", ".tool/a.py"]);
    assert_eq!(found_with(&[], &[".tool/a.py", ".b.py", "c.py"]), ["c.py"]);
}

#[test]
fn a_folder_whose_rules_cannot_be_known_is_passed_over() {
    let long = format!("{}\n", "a".repeat(1000));
    let many = "a?c\n".repeat(5000);
    let large = "# nothing\n".repeat(7000);
    let dear = format!("{}\n", "*a".repeat(50));
    let sets = format!("{}\n", "{a,b}".repeat(40));
    for rules in [&long, &many, &large, &dear, &sets] {
        let found =
            found_with(&[("bad/.gitignore", rules)], &["a.py", "bad/b.py", "bad/deep/c.py", "good/d.py"]);
        assert_eq!(found, ["a.py", "good/d.py"], "{}", &rules[..20]);
    }
    let fine = format!("# {}\n\n  \n[\n{{a\n\\\nb.py\r\n", "-".repeat(2000));
    assert_eq!(found_with(&[(".gitignore", &fine)], &["a.py", "b.py"]), ["a.py"]);
    assert_eq!(found_with(&[(".git", "garbage")], &["a.py"]), Vec::<String>::new());
    assert_eq!(found_with(&[("sub/.git", "gitdir: nowhere")], &["a.py", "sub/b.py"]), ["a.py", "sub/b.py"]);
}

#[test]
fn of_costly_rules_only_so_many_are_compiled_in_one_walk() {
    let costly: String = (0..1500).map(|n| format!("a{n}?b\n")).collect();
    let names = ["1/.gitignore", "2/.gitignore", "3/.gitignore"];
    let rules: Vec<(&str, &str)> = names.iter().map(|&name| (name, costly.as_str())).collect();
    let found = found_with(&rules, &["1/a.py", "2/a.py", "3/a.py"]);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_walk_ends_when_it_is_told_to_and_at_its_limits() {
    let many: Vec<String> = (0..40).map(|n| format!("{}/{n}.py", n % 4)).collect();
    let files_of = |path: &String| (path.clone(), "x".to_owned());
    let all: Vec<(String, String)> = many.iter().map(files_of).collect();
    let all: Vec<(&str, &str)> = all.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let folder = workspace(&all);
    let mut asked = 0;
    let mut stop = || {
        asked += 1;
        asked > 20
    };
    let found = files(folder.path(), &[], Limits::USUAL, &mut stop);
    assert!(!found.is_empty() && found.len() < 20, "{}", found.len());
    assert_eq!(paths(folder.path(), &[], Limits { entries: 14, ..Limits::USUAL }).len(), 10);
    assert_eq!(paths(folder.path(), &[], Limits { folder_entries: 3, ..Limits::USUAL }).len(), 9);
    assert_eq!(paths(folder.path(), &[], Limits { depth: 1, ..Limits::USUAL }).len(), 0);
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn fifo(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn rules_that_are_devices_fifos_sockets_or_folders_are_not_read() {
        type Trap = (&'static str, fn(&Path));
        let traps: &[Trap] = &[
            ("zero", |path| symlink("/dev/zero", path).unwrap()),
            ("stdin", |path| symlink("/dev/stdin", path).unwrap()),
            ("terminal", |path| symlink("/dev/tty", path).unwrap()),
            ("fifo", fifo),
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
                let folder = workspace(&[("a.py", "x"), ("bad/b.py", "x")]);
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
                let found = paths(folder.path(), &[], Limits::USUAL);
                let is_read = *trap == "endless" && found.len() == 2;
                assert!(found == ["a.py"] || is_read, "{trap} as {rules}: {found:?}");
            }
        }
        let folder = workspace(&[("rules", "b.py\n"), ("a.py", "x"), ("b.py", "x")]);
        symlink("rules", folder.path().join(".gitignore")).unwrap();
        assert_eq!(paths(folder.path(), &[], Limits::USUAL), ["a.py"], "a link to plain rules is one");
    }

    #[test]
    fn links_are_not_followed_and_strange_names_are_passed_over() {
        let other = workspace(&[("x.py", "x")]);
        let folder =
            workspace(&[("a.py", "x"), ("b/c.py", "x"), ("new\nline.py", "x"), ("new\nline/d.py", "x")]);
        let root = folder.path();
        symlink("..", root.join("b/up")).unwrap();
        symlink(other.path(), root.join("other")).unwrap();
        symlink(other.path().join("x.py"), root.join("linked.py")).unwrap();
        symlink("/dev/zero", root.join("zero.py")).unwrap();
        fifo(&root.join("fifo.py"));
        fs::create_dir(root.join("folder.py")).unwrap();
        fs::write(root.join(OsStr::from_bytes(b"\xff.py")), "x").unwrap();
        fs::create_dir(root.join(OsStr::from_bytes(b"\xff"))).unwrap();
        fs::write(root.join(OsStr::from_bytes(b"\xff/e.py")), "x").unwrap();
        assert_eq!(paths(root, &[], Limits::USUAL), ["a.py", "b/c.py"]);
        let link = other.path().join("link");
        symlink(root, &link).unwrap();
        assert_eq!(paths(&link, &[], Limits::USUAL), ["a.py", "b/c.py"], "a root that is a link");
    }

    #[test]
    fn what_a_file_became_since_it_was_found_is_not_read() {
        let folder = workspace(&[("a.py", "def f(): pass\n")]);
        let root = folder.path();
        let found = files(root, &[], Limits::USUAL, &mut || false).remove(0);
        let text = |root: &Path| cut(root, &found, &mut || false).map(|it| it.text().len());
        assert_eq!(text(root), Some(14));
        let path = root.join("a.py");
        fs::write(&path, "x = 1\n".repeat(100_000)).unwrap();
        assert_eq!(text(root), None, "it grew");
        fs::remove_file(&path).unwrap();
        assert_eq!(text(root), None, "it went");
        fifo(&path);
        assert_eq!(text(root), None, "a FIFO");
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        assert_eq!(text(root), None, "a device");
        assert!(cut_without_outlines(root, &found).is_none());
    }
}
