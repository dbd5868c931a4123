//! Memory that a server takes and releases, over real pipes: many files edited in turn, many documents opened and
//! closed.
#![cfg(target_os = "linux")]

use std::fmt::Write;
use std::fs;

use serde_json::{Value, json};

use crate::client::Client;
use crate::process;
use crate::script::Script;

/// Files of the project and bytes of each: the most that is read of a project.
const FILES: usize = 64;
const BYTES: usize = 124 << 10;

/// Realistic code: names that other files use, and its own.
fn code(seed: usize, bytes: usize) -> String {
    let mut text = String::new();
    let mut n = 0;
    while text.len() < bytes {
        n += 1;
        let (a, b) = (seed * 7 + n, (seed + n * 31) % 997);
        let _ = write!(
            text,
            "class Parcel{a}(Base{b}):\n    \"\"\"Weighs parcel_{a} before it is sent to depot_{b}.\"\"\"\n\n    def \
             __init__(self, width, height, depth):\n        self.width_{b} = width\n        self.volume = width * height \
             * depth\n\n    def weigh_{b}(self, scale, tare=0):\n        if scale.limit < self.volume:\n            raise \
             TooHeavy(self, scale)\n        return scale.weigh(self.volume) - tare * {a}\n\n\n"
        );
    }
    text
}

/// The memory of the idle server, in megabytes.
#[track_caller]
fn idle_memory(client: &mut Client, limit: u64) -> u64 {
    let mut resident = 0;
    for _ in 0..5 {
        let before = client.traced("memoryReleased").len();
        let uri = "file:///elsewhere/a.py";
        client.open(uri, "python", "x = 1\n");
        client.close(uri);
        client.wait_traces("memoryReleased", &json!({}), before + 1);
        resident = process::resident(client.pid()).unwrap();
        if resident <= limit {
            break;
        }
    }
    resident
}

#[test]
fn editing_sixty_files_stays_within_200_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for n in 0..FILES {
        fs::create_dir_all(root.join(format!("{}", n % 8))).unwrap();
        fs::write(root.join(format!("{}/m{n}.py", n % 8)), code(n, BYTES)).unwrap();
    }
    let script = Script::new().when("x", "y");
    let mut client = script.serve_in(&root);
    let uri = |n: usize| format!("file://{}/{}/m{n}.py", root.display(), n % 8);
    for n in 0..60 {
        client.open(&uri(n), "python", &code(n, BYTES));
        if n == 0 {
            // No time limit as long as it progresses.
            let mut indexes = 0;
            let is_whole = |it: &Value| it["files"] == FILES && it["waiting"] == 0;
            while !client.traced("workspaceIndexed").iter().any(is_whole) {
                indexes += 1;
                client.wait_traces("workspaceIndexed", &json!({}), indexes);
            }
        }
        let indexes = client.traced("workspaceIndexed").len();
        client.insert(&uri(n), 2, 0, 0, "x\n");
        assert_eq!(client.inline(&uri(n), 0, 1), "y");
        // After a request, the previous document is indexed for others.
        if n > 0 {
            client.wait_traces("workspaceIndexed", &json!({}), indexes + 1);
        }
    }
    let most = process::peak(client.pid()).unwrap();
    let rests = idle_memory(&mut client, 200);
    assert!(most <= 200 && rests <= 200, "{most} MB at most, {rests} MB in the end");
    client.quit();
}

#[test]
fn thousand_opened_and_closed_documents_release_memory() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let script = Script::new().when("x", "y");
    let mut client = script.serve_in(&root);
    let uri = |n: usize| format!("file://{}/m{n}.py", root.display());
    // The longest that is parsed as a whole.
    let text = code(1, 23 << 10);
    for n in 0..1000 {
        client.open(&uri(n), "python", &format!("x\n# {n}\n{text}"));
        assert_eq!(client.inline(&uri(n), 0, 1), "y");
    }
    let open = process::resident(client.pid()).unwrap();
    for n in 0..1000 {
        client.close(&uri(n));
    }
    let closed = idle_memory(&mut client, 150);
    assert!(closed <= 150, "{closed} MB after, {open} MB with all of them open");
    client.quit();
}
