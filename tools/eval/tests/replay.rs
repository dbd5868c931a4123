//! `taper-eval replay` with a scripted engine: what it counts. It waits for every response, so that all are in time.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::run_tool;
use crate::script::Script;

fn replay(arguments: &[&str]) -> Output {
    run_tool("replay", arguments)
}

fn tasks(folder: &Path) -> String {
    let task = |id: &str, prefix: &str, expected: &str| {
        json!({ "id": id, "language": "python", "path": "w/a b.py", "prefix": prefix, "suffix": "\n",
                "expected": expected, "kind": "line", "meta": {} })
    };
    let lines = [
        // Accepted after `re`: 11 characters.
        task("one", "def add(a, b):\n    ", "return a + bc"),
        // Suggested, but only two characters remain; then nothing.
        task("two", "ä = 1\n", "y=ab\n    z"),
    ];
    let path = folder.join("tasks.jsonl");
    fs::write(&path, lines.map(|it| it.to_string()).join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn keys_are_counted_and_fitting_suggestions_accepted() {
    let script = Script::new().when("    re", "turn a + bc").when("y=", "ab");
    let csv = script.folder().join("keys.csv");
    let tasks = tasks(script.folder());
    let output = replay(&[
        &tasks,
        "--patient",
        "--pause-ms",
        "0",
        "--budget-ms",
        "60000",
        "--csv",
        csv.to_str().unwrap(),
        "--engine",
        &script.written(),
    ]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap();
    // Enter, `r`, `e`, the rest; Enter, `y`, `=`, `a`, `b`, a line break with its indentation, `z`. Line breaks are not counted.
    assert!(line("tasks").contains("2, of 18 characters; 10 keys typed, 1 suggestions accepted"), "{shown}");
    assert!(line("requests").ends_with(" 11"), "{shown}");
    // After `e`, after `=`, and after `a`, where the suggestion still fits.
    assert!(line("in time").contains(" 3 (27.3 %)"), "{shown}");
    assert!(line("the others").contains(" 0 with text later, 8 empty, 0 cancelled"), "{shown}");
    assert!(line("the others").contains(" 0 failed, 0 never answered"), "{shown}");
    assert!(line("characters saved").contains(" 11 of 18 (61.1 %)"), "{shown}");
    let csv = fs::read_to_string(csv).unwrap();
    let saved: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').nth(7).unwrap()).collect();
    assert_eq!(saved, ["0", "0", "0", "11", "0", "0", "0", "0", "0", "0", "0"]);
    if cfg!(target_os = "linux") {
        assert!(line("peak memory").ends_with(" MB"), "{shown}");
    }
}

#[test]
fn minutes_option_reports_memory_and_types_all_tasks() {
    let script = Script::new().when("    re", "turn a + bc");
    let tasks = tasks(script.folder());
    let engine = script.written();
    let more =
        ["--patient", "--pause-ms", "0", "--budget-ms", "60000", "--minutes", "0", "--engine", &engine];
    let arguments: Vec<&str> = [tasks.as_str()].into_iter().chain(more).collect();
    let shown = String::from_utf8(replay(&arguments).stdout).unwrap();
    assert!(shown.contains("2, of 18 characters"), "{shown}");
    let memory: Vec<&str> = shown
        .lines()
        .filter(|line| line.contains("at the start: ") || line.contains("at the end: "))
        .collect();
    assert_eq!(memory.len(), 2, "{shown}");
    if cfg!(target_os = "linux") {
        assert!(memory.iter().all(|line| line.ends_with(" MB")), "{shown}");
    }
}

#[test]
fn trace_is_written_for_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let path = path.to_str().unwrap();
    let dump = || {
        let output = replay(&[&tasks(folder.path()), "--dump-trace", path, "--seed", "7"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(path).unwrap()
    };
    let text = dump();
    assert_eq!(text, dump());
    let traces: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<&str> =
        traces[1]["keys"].as_array().unwrap().iter().map(|it| it["text"].as_str().unwrap()).collect();
    assert_eq!(traces[1]["prefix"], "ä = 1");
    assert_eq!(keys, ["\n", "y", "=", "a", "b", "\n    ", "z"]);
    assert!(traces[0]["keys"][0]["pause_ms"].as_f64().unwrap() > 50.0);
}

#[test]
fn invalid_task_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.jsonl");
    fs::write(&path, "\n{\"path\": \"a.py\"}\n").unwrap();
    let output = replay(&[path.to_str().unwrap()]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("tasks.jsonl:2: no task") && message.contains("prefix"), "{message}");
}
