//! Hostile projects: whatever they contain, the server answers, stays small, and ends when asked to.
#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::client::{Client, inline_params};
use crate::process;
use crate::script::Script;

const CODE: &str = "class Parcel:\n    def weigh(self, scale):\n        return scale.weigh(self)\n\n    def send(self, to):\n        to.take(self)\n";

/// Memory limit of the server in megabytes, ten times what an empty project takes.
const MEMORY_LIMIT_MB: u64 = 200;

fn script() -> Script {
    Script::new().when("x", "y")
}

/// Opens a document in the project and waits until this number of files is indexed.
#[track_caller]
fn open_and_wait_indexed(client: &mut Client, root: &Path, files: usize) {
    client.open(&format!("file://{}/open.py", root.display()), "python", "x\n");
    client.wait_indexed(files);
}

#[track_caller]
fn check_alive(client: &mut Client, root: &Path) {
    assert_eq!(client.inline(&format!("file://{}/open.py", root.display()), 0, 1), "y");
    let resident = process::resident(client.pid()).unwrap();
    assert!(resident < MEMORY_LIMIT_MB, "{resident} MB");
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Creates a path that must not be read.
type HostilePath = (&'static str, fn(&Path));

const HOSTILE_PATHS: &[HostilePath] = &[
    ("zero", |path| symlink("/dev/zero", path).unwrap()),
    ("random", |path| symlink("/dev/urandom", path).unwrap()),
    ("input", |path| symlink("/dev/stdin", path).unwrap()),
    ("own_input", |path| symlink("/proc/self/fd/0", path).unwrap()),
    ("terminal", |path| symlink("/dev/tty", path).unwrap()),
    ("fifo", fifo),
    ("socket", |path| drop(UnixListener::bind(path).unwrap())),
    ("folder", |path| fs::create_dir(path).unwrap()),
    ("loop", |path| symlink(path, path).unwrap()),
    ("patterns", |path| fs::write(path, "a*b?c\n".repeat((8 << 20) / 6)).unwrap()),
    ("one_line", |path| fs::write(path, "*a".repeat(4 << 20)).unwrap()),
    ("sets", |path| fs::write(path, format!("{}\n", "{a,b}".repeat(13_000))).unwrap()),
    ("nested_sets", |path| fs::write(path, format!("{}\n", "{a,".repeat(20_000))).unwrap()),
    ("dear", |path| fs::write(path, format!("{}b\n", "*a".repeat(100)).repeat(300)).unwrap()),
    ("classes", |path| fs::write(path, "[!a-z]*[0-9]?\n".repeat(4600)).unwrap()),
];

#[test]
fn hostile_ignore_file_excludes_only_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("good.py"), CODE).unwrap();
    for (name, set) in HOSTILE_PATHS {
        for rules in [".gitignore", ".ignore", ".git/info/exclude"] {
            if *name == "folder" && rules != ".gitignore" {
                continue;
            }
            let project = root.join(format!("{name}_{}", rules.replace(['.', '/'], "")));
            let path = project.join(rules);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            set(&path);
            fs::write(project.join("private.py"), CODE).unwrap();
        }
    }
    let script = script();
    let mut client = script.serve_in(&root);
    open_and_wait_indexed(&mut client, &root, 2);
    check_alive(&mut client, &root);
    client.quit();
}

#[test]
fn hostile_root_ignore_file_leaves_project_unindexed() {
    for (name, set) in HOSTILE_PATHS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::write(root.join("private.py"), CODE).unwrap();
        set(&root.join(".gitignore"));
        let script = script();
        let mut client = script.serve_in(&root);
        // Only the open document.
        open_and_wait_indexed(&mut client, &root, 1);
        check_alive(&mut client, &root);
        assert!(client.traced("workspaceIndexed").iter().all(|it| it["files"] != 2), "{name}");
        client.quit();
    }
}

#[test]
fn hostile_files_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("good.py"), CODE).unwrap();
    for (name, set) in HOSTILE_PATHS {
        set(&root.join(format!("{name}.py")));
    }
    let write = |name: &[u8], text: &str| {
        let path = root.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(b"line\nbreak.py", CODE);
    write(b"\xff\xfe.py", CODE);
    write(b"\x1b[2J.py", CODE);
    write(b"long_line.py", &"x = 1; ".repeat(30_000));
    write(b"not_text.py", &"\u{0}".repeat(100_000));
    write(b"locked.py", CODE);
    write(b"locked/inside.py", CODE);
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    // Deeper than the crawler's limit, and circular links.
    let mut deep = root.join("deep");
    for _ in 0..200 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("end.py"), CODE).unwrap();
    fs::create_dir(root.join("round")).unwrap();
    symlink("..", root.join("round/up")).unwrap();
    symlink("/", root.join("round/all")).unwrap();
    symlink(std::env::var("HOME").unwrap_or("/".to_owned()), root.join("round/home")).unwrap();
    let script = script();
    let mut client = script.serve_in(&root);
    client.open(&format!("file://{}/open.py", root.display()), "python", "x\n");
    client.wait_trace("workspaceIndexed", &json!({ "waiting": 0 }));
    check_alive(&mut client, &root);
    client.quit();
    // Root may enter any folder.
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn code_that_is_hard_to_parse_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("good.py"), CODE).unwrap();
    for (name, text) in [
        ("generics.java", "A<".repeat(12_000)),
        ("generics.cs", "A<".repeat(12_000)),
        ("icon.sh", "{\u{f02a2}\n".repeat(100)),
        ("here.rb", format!("<<\"{}", "x\n".repeat(400))),
        ("blocks.py", (0..511).map(|n| format!("{}if x:\n", " ".repeat(n))).collect::<String>() + "f\"{"),
        ("open.rs", "{(".repeat(60_000)),
        ("marks.ts", "<".repeat(200_000)),
    ] {
        // Longer lines are data and not parsed.
        let broken = text
            .chars()
            .enumerate()
            .flat_map(|(at, it)| (at % 900 == 899).then_some('\n').into_iter().chain([it]));
        fs::write(root.join(name), broken.collect::<String>()).unwrap();
    }
    let script = script();
    let mut client = script.serve_in(&root);
    client.open(&format!("file://{}/open.py", root.display()), "python", "x\n");
    client.wait_trace("workspaceIndexed", &json!({ "waiting": 0 }));
    check_alive(&mut client, &root);
    client.quit();
}

#[test]
fn vanished_changed_or_linked_project_is_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap().join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("good.py"), CODE).unwrap();
    let root = folder.path().canonicalize().unwrap().join("link");
    symlink(&real, &root).unwrap();
    let script = script();
    let mut client = script.serve_in(&root);
    open_and_wait_indexed(&mut client, &root, 2);
    fs::remove_dir_all(&real).unwrap();
    check_alive(&mut client, &root);
    client.close(&format!("file://{}/open.py", root.display()));
    client.wait_indexed(0);
    open_and_wait_indexed(&mut client, &root, 1);
    check_alive(&mut client, &root);
    client.quit();
}

#[test]
fn crawler_process_is_restarted_and_dies_with_server() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("good.py"), CODE).unwrap();
    let script = script();
    let mut client = script.serve_in(&root);
    open_and_wait_indexed(&mut client, &root, 2);
    let first = process::only_child(client.pid());
    process::kill(first);
    let uri = |name: &str| format!("file://{}/{name}.py", root.display());
    client.open(&uri("found"), "python", CODE);
    client.wait_indexed(3);
    let second = process::only_child(client.pid());
    assert_ne!(first, second);
    // The files that it hangs on are left out, later ones are not.
    process::signal(second, "STOP");
    client.open(&uri("lost"), "python", CODE);
    client.wait_trace("documentNotIndexed", &json!({ "path": "lost.py" }));
    client.open(&uri("after"), "python", CODE);
    client.wait_indexed(4);
    let third = process::only_child(client.pid());
    // The server is killed and cannot stop the crawler.
    process::kill(client.pid());
    process::wait_ended(third);
    drop(client);
}

#[test]
fn repeatedly_dying_crawler_is_bypassed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let script = script();
    let mut client = script.serve_in(&root);
    open_and_wait_indexed(&mut client, &root, 1);
    let uri = |name: usize| format!("file://{}/{name}.py", root.display());
    for n in 0..8 {
        process::kill(process::only_child(client.pid()));
        client.open(&uri(n), "python", CODE);
        client.wait_indexed(n + 2);
    }
    client.open(&uri(100), "python", CODE);
    client.wait_indexed(10);
    assert!(process::children(client.pid()).is_empty());
    assert_eq!(client.inline(&format!("file://{}/open.py", root.display()), 0, 1), "y");
    client.quit();
}

#[test]
fn server_exits_while_its_crawler_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for n in 0..300 {
        fs::write(root.join(format!("{n}.py")), CODE.repeat(300)).unwrap();
    }
    let script = script();
    let mut client = script.serve_in(&root);
    client.open(&format!("file://{}/open.py", root.display()), "python", "x\n");
    client.wait_trace("workspaceWalked", &json!({}));
    let crawler = process::only_child(client.pid());
    process::signal(crawler, "STOP");
    let answer = client.ask("textDocument/inlineCompletion", inline_params("file:///none", 0, 0));
    assert!(answer["error"].is_null());
    client.quit();
    // Once it runs again, it notices that the server is gone.
    process::signal(crawler, "CONT");
    process::wait_ended(crawler);
}
