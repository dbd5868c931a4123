//! Outcomes of suggestions are counted on this machine: from typing over the file to `taper stats`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::{Client, insertion};
use crate::script::Script;

const URI: &str = "file:///w/secret_folder/secret_name.py";

/// A server that keeps its statistics in this folder.
fn start_server(home: &Path, script: &Script, options: Value) -> Client {
    let arguments = ["--stdio", "--engine", &script.written()];
    let mut client = Client::start_with(&arguments, &[("TAPER_HOME", home.to_str().unwrap())]);
    client.hello(options);
    client.wait_ready();
    client
}

fn stats(home: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
    let command = command.arg("stats").args(arguments).env("TAPER_HOME", home).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn stored_counts(home: &Path) -> Value {
    serde_json::from_str(&stats(home, &["--json"])).unwrap()
}

/// Expects asked, shown, empty, accepted, partly, typed, dismissed, characters.
#[track_caller]
fn assert_counts(counts: &Value, expected: [u64; 8]) {
    let outcomes = ["accepted", "partlyAccepted", "typedAlong", "dismissed"];
    let names: Vec<&str> =
        ["asked", "shown", "empty"].into_iter().chain(outcomes).chain(["acceptedCharacters"]).collect();
    let found: Vec<u64> = names.iter().map(|&name| counts[name].as_u64().unwrap()).collect();
    assert_eq!(found, expected, "{names:?}");
}

/// A user who types in one document. After `x = `, the suggestion is `secret(a)`.
struct Typist {
    client: Client,
    version: i64,
    column: u32,
}

impl Typist {
    fn insert(&mut self, text: &str) {
        self.version += 1;
        let change = insertion(URI, self.version, 0, self.column, text);
        self.client.notify("textDocument/didChange", change);
        self.column += u32::try_from(text.len()).unwrap();
    }

    fn ask(&mut self) -> String {
        self.client.inline(URI, 0, self.column)
    }

    /// Opens the document again, as it was at first.
    fn reopen(&mut self) {
        self.client.open(URI, "python", "x = \n");
        (self.version, self.column) = (1, 4);
        assert_eq!(self.ask(), "secret(a)");
    }
}

#[test]
fn statistics_count_outcomes_of_suggestions() {
    let home = tempfile::tempdir().unwrap();
    let script = Script::new().when("x = ", "secret(a)").when("x = raise", " secret");
    let printed = stats(home.path(), &[]);
    assert!(printed.contains("Nothing was counted yet") && printed.contains("statistics.json"), "{printed}");

    let mut typist = Typist { client: start_server(home.path(), &script, json!({})), version: 0, column: 0 };
    // Typed through, shown again after each key, and accepted.
    typist.reopen();
    for (key, rest) in [("s", "ecret(a)"), ("e", "cret(a)"), ("c", "ret(a)")] {
        typist.insert(key);
        assert_eq!(typist.ask(), rest);
    }
    typist.insert("ret(a)");
    // A word is accepted, and the document closed.
    typist.reopen();
    typist.insert("secret");
    assert_eq!(typist.ask(), "(a)");
    typist.client.notify("textDocument/didClose", json!({ "textDocument": { "uri": URI } }));
    // Typed through to its end.
    typist.reopen();
    "secret(a)".chars().for_each(|key| typist.insert(&key.to_string()));
    // Something else.
    typist.reopen();
    typist.insert("y");
    assert_eq!(typist.ask(), "");
    // Shown when the server ends.
    typist.reopen();
    let live = typist.client.ask("workspace/executeCommand", json!({ "command": "taper.statistics" }));
    assert_counts(&live["result"]["today"], [10, 5, 1, 1, 1, 1, 1, 12]);
    assert_eq!(live["result"]["asked"], 10);
    typist.client.quit();

    let counted = stored_counts(home.path());
    for part in [&counted["today"], &counted["allTime"]] {
        let expected = [10, 5, 1, 1, 1, 1, 2, 12];
        assert_counts(part, expected);
        assert_counts(&part["languages"]["python"], expected);
        assert_counts(&part["models"]["scripted"], expected);
        assert!(part["p50Ms"].is_number() && part["p99Ms"].is_number(), "{part}");
    }
    for entry in fs::read_dir(home.path()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("secret"), "no code, no names: {text}");
    }
    let printed = stats(home.path(), &[]);
    for text in ["all time", "python", "scripted", "response time", "accepted, the last 14 days"] {
        assert!(printed.contains(text), "{text}: {printed}");
    }

    // The next server adds to it.
    let mut typist = Typist { client: start_server(home.path(), &script, json!({})), version: 0, column: 0 };
    typist.reopen();
    typist.insert("secret(a)");
    typist.client.quit();
    assert_counts(&stored_counts(home.path())["allTime"], [11, 6, 1, 2, 1, 1, 2, 21]);
}

#[test]
fn disabled_statistics_are_not_stored() {
    let home = tempfile::tempdir().unwrap();
    let script = Script::new().when("x = ", "secret(a)");
    let client = start_server(home.path(), &script, json!({ "statistics": false }));
    let mut typist = Typist { client, version: 0, column: 0 };
    typist.reopen();
    typist.insert("secret(a)");
    let live = typist.client.ask("workspace/executeCommand", json!({ "command": "taper.statistics" }));
    assert_eq!((&live["result"]["asked"], &live["result"]["today"]["asked"]), (&json!(1), &json!(0)));
    typist.client.quit();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is written");
}

#[test]
fn unwritable_statistics_are_reported_once_and_suggestions_continue() {
    let home = tempfile::tempdir().unwrap();
    // Below a file there can be no folder, for root neither.
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let script = Script::new().when("x = ", "secret(a)");
    let mut typist = Typist { client: start_server(&file, &script, json!({})), version: 0, column: 0 };
    typist.reopen();
    typist.insert("secret(a)");
    typist.client.ask("shutdown", Value::Null);
    typist.client.notify("exit", Value::Null);
    assert!(typist.client.ended().0.success());
    let log = typist.client.log();
    assert_eq!(log.matches(" WARN ").count(), 1, "warned once:\n{log}");
    assert!(stats(&file, &[]).contains("Nothing was counted yet"));
}
