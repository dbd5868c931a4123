//! One file under several URIs, and a project at a symbolic link, end to end.

use std::fs;

use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, explicit_params, first_text};
use crate::scenario::scenario;
use crate::script::Script;

fn ready(script: &Script) -> Client {
    Client::ready(&["--stdio", "--engine", &script.written()], json!({ "idle-work": "off" }))
}

#[test]
fn equivalent_uris_name_the_same_document() {
    let script = Script::new().when("x = ab", "c").when("x = ", "1");
    for spellings in [
        &["file:///w/a%20b.py", "file:///w/a b.py", "file://localhost/w/a%20b.py", "file:/w/a%20b.py"][..],
        &["file:///c%3A/w/a.py", "file:///C:/w/a.py", "file:///c:/w/a.py", "file:///c%3a/w/a.py"],
        &[
            "file:///w/%5Bid%5D/%40.py",
            "file:///w/[id]/@.py",
            "file:///w/%5bid%5d/@.py",
            "file:///w/./[id]//@.py",
        ],
        &["file:///w/%C3%A4.py", "file:///w/ä.py", "FILE:///w/%c3%a4.py", "file:///w/x/../ä.py"],
    ] {
        let mut client = ready(&script);
        for (at, opened) in spellings.iter().enumerate() {
            let [other, third] = [1, 2].map(|step| spellings[(at + step) % spellings.len()]);
            client.open(opened, "python", "x = \n");
            assert_eq!(client.inline(other, 0, 4), "1", "{opened} {other}");
            client.insert(third, 2, 0, 4, "ab");
            for requested in spellings {
                assert_eq!(client.inline(requested, 0, 6), "c", "{opened} {requested}");
            }
            client.close(other);
            for requested in spellings {
                assert_eq!(client.inline(requested, 0, 4), "", "{opened} {requested} is closed");
            }
        }
        client.quit();
    }
}

#[test]
fn simultaneously_open_equivalent_uris_stay_separate() {
    let script = Script::new().when("x = ab", "c").when("y = ", "2").when("x = ", "1");
    let mut client = ready(&script);
    let (one, two) = ("file:///w/a%20b.py", "file:///w/a b.py");
    client.open(one, "python", "x = \n");
    client.open(two, "python", "y = \n");
    client.insert(one, 2, 0, 4, "ab");
    assert_eq!((client.inline(one, 0, 6), client.inline(two, 0, 4)), ("c".to_owned(), "2".to_owned()));
    client.close(one);
    // The remaining one is meant.
    assert_eq!(client.inline(one, 0, 4), "2");
    client.quit();
}

#[test]
fn different_scheme_is_a_different_document() {
    let script = Script::new().when("x = ", "1");
    let mut client = ready(&script);
    client.open("file:///w/a.py", "python", "x = \n");
    for other in [
        "untitled:/w/a.py",
        "vscode-remote://ssh/w/a.py",
        "vscode-vfs://github/w/a.py",
        "git:/w/a.py",
        "output:/w/a.py",
        "file://server/w/a.py",
    ] {
        assert_eq!(client.inline(other, 0, 4), "", "{other}");
    }
    assert_eq!(client.inline("file:///w/a.py", 0, 4), "1");
    client.quit();
}

#[test]
fn later_notifications_use_the_uri_of_the_request() {
    let mut user = scenario("total = ▮\n").model("one + two⏸ + three").script(Script::gated);
    user = user.file("a%20b.py").option("early-answer-ms", 0).announcing("refresh").announcing("status");
    let requested = "file:/w/a b.py";
    let client = user.client();
    assert_ne!(client.inline(requested, 0, 8), "");
    user.open_gate();
    let client = user.client();
    assert_eq!(client.notice("taper/refresh", "")["params"]["textDocument"]["uri"], requested);
    let scope = json!({ "scope": "document", "uri": "file://localhost/w/a b.py" });
    client.ask("workspace/executeCommand", json!({ "command": "taper.pause", "arguments": [scope] }));
    client.notice("taper/status", "file://localhost/w/a b.py");
    assert_eq!(client.inline(requested, 0, 8), "");
}

/// A project in `real` with a link to it, `link`: `src/a.py`, `src/b.py`, and an ignored file.
#[cfg(unix)]
fn linked_project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("real/src")).unwrap();
    fs::write(folder.path().join("real/.gitignore"), "ignored.py\n").unwrap();
    fs::write(folder.path().join("real/src/a.py"), "def on_the_disk(first_name):\n    pass\n").unwrap();
    fs::write(folder.path().join("real/src/b.py"), "def helper(first_name, last_name):\n    pass\n").unwrap();
    fs::write(folder.path().join("real/src/ignored.py"), "def hidden(first_name):\n    pass\n").unwrap();
    std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
    folder
}

#[test]
#[cfg(unix)]
fn linked_project_is_indexed_without_the_current_file() {
    let script = Script::new()
        .shown("on_the_disk", "itself")
        .shown("hidden", "ignored")
        .shown("def helper(first_name, last_name)", "other")
        .when("first_name = ", "none");
    for (root, opened) in [("link", "real"), ("real", "link"), ("link", "link")] {
        let folder = linked_project();
        let at = |path: &str| format!("file://{}/{path}", folder.path().display());
        let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
        client.initialize(json!({
            "processId": null,
            "workspaceFolders": [{ "uri": at(root), "name": root }],
            "capabilities": { "textDocument": { "inlineCompletion": {} } },
            "initializationOptions": { "snippet-tokens": 400, "prefix-tokens": 1000 },
        }));
        client.wait_ready();
        let uri = at(&format!("{opened}/src/a.py"));
        client.open(&uri, "python", "first_name = \nlast_name = 1\n");
        client.wait_trace("workspaceIndexed", &json!({}));
        let answer = client.ask("textDocument/inlineCompletion", explicit_params(&uri, 0, 13));
        assert_eq!(first_text(&answer), "other", "{root} {opened}: {answer}");
        client.quit();
    }
}

#[test]
#[cfg(unix)]
fn added_workspace_folder_is_indexed() {
    let script =
        Script::new().shown("def helper(first_name, last_name)", "other").when("first_name = ", "none");
    let folder = linked_project();
    let at = |path: &str| format!("file://{}/{path}", folder.path().display());
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    client.initialize(json!({
        "processId": null,
        "workspaceFolders": [{ "uri": "file:///w", "name": "w" }],
        "capabilities": { "textDocument": { "inlineCompletion": {} } },
        "initializationOptions": { "snippet-tokens": 400, "prefix-tokens": 1000 },
    }));
    client.wait_ready();
    let (uri, text) = (at("real/src/a.py"), "first_name = \nlast_name = 1\n");
    client.open(&uri, "python", text);
    assert_eq!(client.inline(&uri, 0, 13), "none");
    let folders = |list: &[&str]| -> Vec<Value> {
        list.iter().map(|path| json!({ "uri": at(path), "name": path })).collect()
    };
    client.notify(
        "workspace/didChangeWorkspaceFolders",
        json!({ "event": { "added": folders(&["link"]), "removed": folders(&["never"]) } }),
    );
    // The document is open already and belongs to the folder from now on.
    client.wait_trace("workspaceWalked", &json!({}));
    client.wait_trace("workspaceIndexed", &json!({ "waiting": 0 }));
    let start = std::time::Instant::now();
    let mut version = 1;
    // The index is usable once the session has received it; the text changes each time so that the cache has no entry.
    while client.inline(&uri, 0, 13) != "other" {
        assert!(start.elapsed() < PATIENCE, "{}", client.log());
        version += 1;
        client.insert(&uri, version, 1, 0, "x");
    }
    client.quit();
}
