//! Outcomes of suggestions are counted on this machine: from typing over the file to `taper stats`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::scenario::{Scenario, scenario};

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

/// A user whose server keeps its statistics in this folder. After `x = `, the suggestion is `secret(a)`.
fn typist(home: &Path) -> Scenario {
    scenario("x = ▮\n")
        .file("secret_folder/secret_name.py")
        .environment("TAPER_HOME", home.to_str().unwrap())
        .model("secret(a)")
}

fn live_counts(user: &mut Scenario) -> Value {
    let answer = user.client().ask("workspace/executeCommand", json!({ "command": "taper.statistics" }));
    answer["result"].clone()
}

#[test]
fn statistics_count_outcomes_of_suggestions() {
    let home = tempfile::tempdir().unwrap();
    let printed = stats(home.path(), &[]);
    assert!(printed.contains("Nothing was counted yet") && printed.contains("statistics.json"), "{printed}");

    let mut user = typist(home.path());
    // Typed through, shown again after each key, and accepted.
    user.expect("secret(a)").type_text("s").expect("ecret(a)").type_text("e").expect("cret(a)");
    user.type_text("c").expect("ret(a)").accept();
    // A word is accepted, and the document closed.
    user.reopen("x = ▮\n").expect("secret(a)").type_text("secret").expect("(a)").close();
    // Typed through to its end.
    user.reopen("x = ▮\n").expect("secret(a)");
    for key in "secret(a)".chars() {
        user.type_text(&key.to_string());
    }
    // Something else.
    user.reopen("x = ▮\n").expect("secret(a)").type_text("y").expect("");
    // Shown when the server ends.
    user.reopen("x = ▮\n").expect("secret(a)");
    let live = live_counts(&mut user);
    assert_counts(&live["today"], [10, 5, 1, 1, 1, 1, 1, 12]);
    assert_eq!(live["asked"], 10);
    user.quit();

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
    typist(home.path()).expect("secret(a)").accept();
    assert_counts(&stored_counts(home.path())["allTime"], [11, 6, 1, 2, 1, 1, 2, 21]);
}

#[test]
fn disabled_statistics_are_not_stored() {
    let home = tempfile::tempdir().unwrap();
    let mut user = typist(home.path()).option("statistics", false);
    let live = live_counts(user.expect("secret(a)").accept());
    assert_eq!((&live["asked"], &live["today"]["asked"]), (&json!(1), &json!(0)));
    user.quit();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is written");
}

#[test]
fn unwritable_statistics_are_reported_once_and_suggestions_continue() {
    let home = tempfile::tempdir().unwrap();
    // Below a file there can be no folder, for root neither.
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let mut user = typist(&file);
    user.expect("secret(a)").accept();
    let log = user.quit();
    assert_eq!(log.matches(" WARN ").count(), 1, "warned once:\n{log}");
    assert!(stats(&file, &[]).contains("Nothing was counted yet"));
}
