//! What becomes of suggestions is counted on this machine: from typing over the file to `taper stats`.
//! It knows nothing of any model: the engine is scripted.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::{Client, insertion};
use crate::script::Script;

const URI: &str = "file:///w/secret_folder/secret_name.py";

/// A server that keeps what it counts in a folder.
fn started(home: &Path, script: &Script, options: Value) -> Client {
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

pub(crate) fn counts(home: &Path) -> Value {
    serde_json::from_str(&stats(home, &["--json"])).unwrap()
}

/// Counts that are expected, the others being 0: asked, shown, empty, accepted, partly, typed, dismissed, characters.
#[track_caller]
fn assert_counts(counts: &Value, expected: [u64; 8]) {
    let names = [
        "asked",
        "shown",
        "empty",
        "accepted",
        "partlyAccepted",
        "typedAlong",
        "dismissed",
        "acceptedCharacters",
    ];
    assert_eq!(names.map(|name| counts[name].as_u64().unwrap()), expected, "{names:?}");
}

/// Types and takes in a document of its own; what is suggested behind `x = ` is `secret(a)`.
struct Hand {
    client: Client,
    version: i64,
    column: u32,
}

impl Hand {
    fn insert(&mut self, text: &str) {
        self.version += 1;
        let change = insertion(URI, self.version, 0, self.column, text);
        self.client.notify("textDocument/didChange", change);
        self.column += u32::try_from(text.len()).unwrap();
    }

    fn ask(&mut self) -> String {
        self.client.inline(URI, 0, self.column)
    }

    /// The document as it was in the beginning, opened anew.
    fn anew(&mut self) {
        self.client.open(URI, "python", "x = \n");
        (self.version, self.column) = (1, 4);
        assert_eq!(self.ask(), "secret(a)");
    }
}

#[test]
fn statistics_say_what_became_of_suggestions() {
    let home = tempfile::tempdir().unwrap();
    let script = Script::new().when("x = ", "secret(a)").when("x = raise", " secret");
    let said = stats(home.path(), &[]);
    assert!(said.contains("Nothing was counted yet") && said.contains("statistics.json"), "{said}");

    let mut hand = Hand { client: started(home.path(), &script, json!({})), version: 0, column: 0 };
    // Typed along, shown again at each key, and taken.
    hand.anew();
    for (key, rest) in [("s", "ecret(a)"), ("e", "cret(a)"), ("c", "ret(a)")] {
        hand.insert(key);
        assert_eq!(hand.ask(), rest);
    }
    hand.insert("ret(a)");
    // A word, and the document is closed.
    hand.anew();
    hand.insert("secret");
    assert_eq!(hand.ask(), "(a)");
    hand.client.notify("textDocument/didClose", json!({ "textDocument": { "uri": URI } }));
    // By keys.
    hand.anew();
    "secret(a)".chars().for_each(|key| hand.insert(&key.to_string()));
    // Something else.
    hand.anew();
    hand.insert("y");
    assert_eq!(hand.ask(), "");
    // Shown when the server ends.
    hand.anew();
    let live = hand.client.ask("workspace/executeCommand", json!({ "command": "taper.statistics" }));
    assert_counts(&live["result"]["today"], [10, 5, 1, 1, 1, 1, 1, 12]);
    assert_eq!(live["result"]["asked"], 10);
    hand.client.quit();

    let counted = counts(home.path());
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
    let said = stats(home.path(), &[]);
    for text in ["all time", "python", "scripted", "question to answer", "accepted, the last 14 days"] {
        assert!(said.contains(text), "{text}: {said}");
    }

    // The next server adds to it.
    let mut hand = Hand { client: started(home.path(), &script, json!({})), version: 0, column: 0 };
    hand.anew();
    hand.insert("secret(a)");
    hand.client.quit();
    assert_counts(&counts(home.path())["allTime"], [11, 6, 1, 2, 1, 1, 2, 21]);
}

#[test]
fn statistics_are_not_counted_where_they_are_switched_off() {
    let home = tempfile::tempdir().unwrap();
    let script = Script::new().when("x = ", "secret(a)");
    let client = started(home.path(), &script, json!({ "statistics": false }));
    let mut hand = Hand { client, version: 0, column: 0 };
    hand.anew();
    hand.insert("secret(a)");
    hand.client.quit();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is written");
}

#[test]
fn statistics_that_cannot_be_kept_disturb_nothing() {
    let home = tempfile::tempdir().unwrap();
    // Below a file there can be no folder, for root neither.
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let script = Script::new().when("x = ", "secret(a)");
    let mut hand = Hand { client: started(&file, &script, json!({})), version: 0, column: 0 };
    hand.anew();
    hand.insert("secret(a)");
    hand.client.ask("shutdown", Value::Null);
    hand.client.notify("exit", Value::Null);
    assert!(hand.client.ended().0.success());
    let log = hand.client.log();
    assert_eq!(log.matches(" WARN ").count(), 1, "warned once:\n{log}");
    assert!(stats(&file, &[]).contains("Nothing was counted yet"));
}

#[test]
fn statistics_that_are_damaged_are_set_aside() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("statistics.json"), "{\"version\":1,").unwrap();
    let script = Script::new().when("x = ", "secret(a)");
    let mut hand = Hand { client: started(home.path(), &script, json!({})), version: 0, column: 0 };
    hand.anew();
    hand.client.quit();
    assert_counts(&counts(home.path())["allTime"], [1, 1, 0, 0, 0, 0, 1, 0]);
    assert!(home.path().join("statistics.damaged-1.json").exists());
}
