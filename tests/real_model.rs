//! A real server with the default model, over real pipes: it answers in time, and its suggestions fit.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taper::syntax::{Syntax, scope};
use taper::text::{Edit, Encoding, Rope, position};
use taper_engine::testing::{print_skipped, real_model};

use crate::client::{Client, inline_params, insertion};

/// The default latency budget, and the overhead of two processes on a busy machine.
const BUDGET: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_millis(100);
/// Shared hosts pause at times: one answer in `LATE_ONE_IN` may be later, but never later than `NEVER`.
const LATE_ONE_IN: usize = 20;
const NEVER: Duration = Duration::from_secs(3);

static ALONE: Mutex<()> = Mutex::new(());

/// The text of the response, with an empty range at the cursor, and its latency.
fn ask(client: &mut Client, uri: &str, text: &Rope, cursor: usize) -> (String, Duration) {
    let at = position::position_at(text, cursor, Encoding::Utf16);
    let sent = Instant::now();
    let id = client.request("textDocument/inlineCompletion", inline_params(uri, at.line, at.character));
    let (answer, came) = client.timed_answer(id);
    let Some(item) = answer["result"]["items"].as_array().and_then(|items| items.first()).cloned() else {
        assert_eq!(answer["error"], Value::Null, "{answer}");
        return (String::new(), came - sent);
    };
    let here = json!({ "line": at.line, "character": at.character });
    assert_eq!(item["range"], json!({ "start": here, "end": here }));
    (item["insertText"].as_str().unwrap().to_owned(), came - sent)
}

/// Types at the fixture's cursor: every response must be in time, at least one must have a suggestion, and all must
/// fit.
fn check_typing(fixture: &str, language: &str, typed: &str) {
    let Some(model) = real_model() else { return };
    // Users run one server; two at once would compete for cores.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let marked = fs::read_to_string(format!("tests/fixtures/real/{fixture}")).unwrap();
    let (before, after) = marked.split_once('▮').unwrap();
    let mut cursor = before.len();
    let mut text = Rope::from_str(&format!("{before}{after}"));
    let uri = format!("file:///w/{fixture}");
    let options = json!({ "latency-budget-ms": BUDGET.as_millis() as u64 });
    let mut client = Client::ready(&["--stdio", "--model", model.to_str().unwrap()], options);
    client.open(&uri, language, &text.to_string());

    // Cold: prefill exceeds the deadline, every response is in time all the same, and eventually the work of earlier
    // requests gives a suggestion.
    let mut times = Vec::new();
    let warm_up = Instant::now();
    loop {
        let (suggestion, took) = ask(&mut client, &uri, &text, cursor);
        times.push(took);
        if !suggestion.is_empty() {
            assert_fits(fixture, &text, cursor, &suggestion);
            break;
        }
        assert!(warm_up.elapsed() < Duration::from_secs(120), "nothing in two minutes");
    }

    // Warm: every key is answered in time, and most keys show a suggestion.
    let mut shown = 0;
    for (version, key) in typed.chars().enumerate() {
        let at = position::position_at(&text, cursor, Encoding::Utf16);
        let change = insertion(&uri, version as i64 + 2, at.line, at.character, &key.to_string());
        client.notify("textDocument/didChange", change);
        Edit::insert(cursor, key.to_string()).apply(&mut text).unwrap();
        cursor += key.len_utf8();
        let (suggestion, took) = ask(&mut client, &uri, &text, cursor);
        times.push(took);
        if !suggestion.is_empty() {
            assert_fits(fixture, &text, cursor, &suggestion);
            shown += 1;
        }
    }
    let late = times.iter().filter(|&&took| took > BUDGET + SLACK).count();
    assert!(late * LATE_ONE_IN <= times.len() && times.iter().all(|&took| took < NEVER), "late: {times:?}");
    assert!(shown * 2 >= typed.len(), "shown at {shown} of {} keys", typed.len());
    assert_no_socket(client.pid());
    client.quit();
}

/// No data leaves the machine: a running server has no socket open, not even a local one.
fn assert_no_socket(pid: u32) {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return print_skipped("this system does not show the files that a process has open");
    };
    let links = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets: Vec<_> = links.filter(|link| link.to_string_lossy().starts_with("socket:")).collect();
    assert!(sockets.is_empty(), "{sockets:?}");
}

/// The suggestion breaks no syntax, leaves no trailing blanks and repeats no existing text.
fn assert_fits(path: &str, text: &Rope, cursor: usize, suggestion: &str) {
    let language = taper_grammars::by_path(path.as_ref()).unwrap();
    let before = Syntax::parse(text, language, &mut || false).unwrap();
    let edit = Edit::insert(cursor, suggestion);
    let mut after = text.clone();
    edit.apply(&mut after).unwrap();
    let parsed = before.with_edit(&edit, &after, &mut || false).unwrap();
    let (faults, now) = (scope::fault_count(&before.tree), scope::fault_count(&parsed.tree));
    assert!(now <= faults, "{path}: {faults} faults before, {now} with {suggestion:?}:\n{after}");
    assert!(!suggestion.ends_with([' ', '\t', '\n']), "{suggestion:?} trails");
    let below = text.byte_slice(cursor..).to_string();
    let below = below.lines().find(|line| line.trim().len() > 3).unwrap_or("").trim();
    assert_ne!(suggestion.trim(), below, "the suggestion repeats the line below");
}

#[test]
fn python_typing_is_answered_in_time() {
    check_typing("ledger.py", "python", "total += booking.amo");
}

#[test]
fn rust_typing_is_answered_in_time() {
    check_typing("stack.rs", "rust", "self.items.pu");
}

#[test]
fn javascript_typing_is_answered_in_time() {
    check_typing("cart.js", "javascript", "sum += item.pri");
}

#[test]
fn deleted_model_file_does_not_stop_serving() {
    let Some(model) = real_model() else { return };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("model.gguf");
    if fs::hard_link(&model, &copy).is_err() {
        fs::copy(&model, &copy).unwrap();
    }
    // No deadline: only the response counts.
    let options = json!({ "latency-budget-ms": 60_000 });
    let mut client = Client::ready(&["--stdio", "--model", copy.to_str().unwrap()], options);
    fs::remove_file(&copy).unwrap();
    let text = Rope::from_str("def add(a, b):\n    return a + \n");
    client.open("file:///w/a.py", "python", &text.to_string());
    let (suggestion, _) = ask(&mut client, "file:///w/a.py", &text, text.len_bytes() - 1);
    assert_eq!(suggestion, "b");
    client.quit();
}

/// Text that only another file contains, on disk or unsaved in the editor, is suggested.
#[test]
fn other_workspace_files_are_used() {
    let Some(model) = real_model() else { return };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let shapes = "def weigh_parcel(width, height, depth):\n    return width * height * depth / 7\n";
    fs::write(folder.path().join("shapes.py"), shapes).unwrap();
    let mut client = Client::start(&["--stdio", "--model", model.to_str().unwrap()]);
    client.initialize(json!({
        "processId": null,
        "rootUri": format!("file://{root}"),
        "capabilities": { "textDocument": { "inlineCompletion": {} }, "window": { "workDoneProgress": true } },
        // No deadline: only the suggestion counts.
        "initializationOptions": { "latency-budget-ms": 60_000, "eagerness": "high", "snippet-tokens": 512 },
    }));
    client.wait_ready();
    let uri = |name: &str| format!("file://{root}/{name}");
    // The suggestion after `shapes.weigh_` in a document in which the cursor was idle for a while.
    let mut rested = 0;
    let mut suggested = |client: &mut Client, document: &str| {
        let text = Rope::from_str("import shapes\n\nbox = (2, 3, 4)\nweight = shapes.weigh_\n");
        client.open(&uri(document), "python", &text.to_string());
        client.notify("taper/cursor", inline_params(&uri(document), 3, 22));
        rested += 1;
        client.wait_traces("windowPrefilled", &json!({}), rested);
        ask(client, &uri(document), &text, text.len_bytes() - 1).0
    };
    client.open(&uri("empty.py"), "python", "");
    client.wait_indexed(2);
    let suggestion = suggested(&mut client, "main.py");
    assert!(suggestion.starts_with("parcel("), "{suggestion:?}");

    // Renamed in the editor, and not saved.
    // Each change gets an index of its own only if the one before it is out.
    client.wait_indexed(3);
    client.open(&uri("shapes.py"), "python", &shapes.replace("parcel", "luggage"));
    client.wait_traces("workspaceIndexed", &json!({ "files": 3, "waiting": 0 }), 2);
    let suggestion = suggested(&mut client, "second.py");
    assert!(suggestion.starts_with("luggage("), "{suggestion:?}");
    client.quit();
}
