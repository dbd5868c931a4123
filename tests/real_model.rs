//! The real default model behind a real server, over real pipes: it answers in time, and what it says fits.
//! It knows nothing of which words the model will choose.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taper::syntax::{Syntax, scope};
use taper::text::{Edit, Encoding, Rope, position};

use crate::client::{Client, inline_params, insertion};

/// The default latency budget, and what a busy machine may add between two processes.
const BUDGET: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_millis(100);
/// Where the machine itself stops for a while (it may be one of many on a host), one answer in so many may be
/// later, but never so late.
const LATE_ONE_IN: usize = 20;
const NEVER: Duration = Duration::from_secs(3);

static ALONE: Mutex<()> = Mutex::new(());

/// The text of the answer, with an empty range at the cursor, and how long it took.
fn ask(client: &mut Client, uri: &str, text: &Rope, cursor: usize) -> (String, Duration) {
    let at = position::position_at(text, cursor, Encoding::Utf16);
    let asked = Instant::now();
    let id = client.request("textDocument/inlineCompletion", inline_params(uri, at.line, at.character));
    let (answer, came) = client.timed_answer(id);
    let Some(item) = answer["result"]["items"].as_array().and_then(|items| items.first()).cloned() else {
        assert_eq!(answer["error"], Value::Null, "{answer}");
        return (String::new(), came - asked);
    };
    let here = json!({ "line": at.line, "character": at.character });
    assert_eq!(item["range"], json!({ "start": here, "end": here }));
    (item["insertText"].as_str().unwrap().to_owned(), came - asked)
}

/// Types at the fixture's cursor; every answer must be in time, one at least must come, and all must fit.
fn types_and_is_answered(fixture: &str, language: &str, typed: &str) {
    let Some(model) = taper_engine::testing::real_model() else { return };
    // A user has one server: two at once would take each other's cores.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let marked = fs::read_to_string(format!("tests/fixtures/real/{fixture}")).unwrap();
    let (before, after) = marked.split_once('▮').unwrap();
    let mut cursor = before.len();
    let mut text = Rope::from_str(&format!("{before}{after}"));
    let uri = format!("file:///w/{fixture}");
    let options = json!({ "latency-budget-ms": BUDGET.as_millis() as u64 });
    let mut client = Client::ready(&["--stdio", "--model", model.to_str().unwrap()], options);
    client.open(&uri, language, &text.to_string());

    // Cold: the prompt is read beyond the deadline, each answer leaves in time all the same, and sooner or later
    // the work of the earlier questions is the answer.
    let mut times = Vec::new();
    let warm_up = Instant::now();
    loop {
        let (suggestion, took) = ask(&mut client, &uri, &text, cursor);
        times.push(took);
        if !suggestion.is_empty() {
            fits(fixture, &text, cursor, &suggestion);
            break;
        }
        assert!(warm_up.elapsed() < Duration::from_secs(120), "nothing in two minutes");
    }

    // Warm: every key is answered in time, and at most of them something is shown.
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
            fits(fixture, &text, cursor, &suggestion);
            shown += 1;
        }
    }
    let late = times.iter().filter(|&&took| took > BUDGET + SLACK).count();
    assert!(late * LATE_ONE_IN <= times.len() && times.iter().all(|&took| took < NEVER), "late: {times:?}");
    assert!(shown * 2 >= typed.len(), "shown at {shown} of {} keys", typed.len());
    assert_no_socket(client.pid());
    client.quit();
}

/// Nothing leaves the machine: a server that works has no socket open, not even a local one.
fn assert_no_socket(pid: u32) {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return };
    let links = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets: Vec<_> = links.filter(|link| link.to_string_lossy().starts_with("socket:")).collect();
    assert!(sockets.is_empty(), "{sockets:?}");
}

/// The promise about what is shown: the file parses no worse, nothing trails, nothing stands there twice.
fn fits(path: &str, text: &Rope, cursor: usize, suggestion: &str) {
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
    assert_ne!(suggestion.trim(), below, "what stands below is said again");
}

#[test]
fn python() {
    types_and_is_answered("ledger.py", "python", "total += booking.amo");
}

#[test]
fn rust() {
    types_and_is_answered("stack.rs", "rust", "self.items.pu");
}

#[test]
fn javascript() {
    types_and_is_answered("cart.js", "javascript", "sum += item.pri");
}

#[test]
fn a_model_file_deleted_while_serving_is_not_missed() {
    let Some(model) = taper_engine::testing::real_model() else { return };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("model.gguf");
    if fs::hard_link(&model, &copy).is_err() {
        fs::copy(&model, &copy).unwrap();
    }
    // No deadline: what counts here is that the answer comes.
    let options = json!({ "latency-budget-ms": 60_000 });
    let mut client = Client::ready(&["--stdio", "--model", copy.to_str().unwrap()], options);
    fs::remove_file(&copy).unwrap();
    let text = Rope::from_str("def add(a, b):\n    return a + \n");
    client.open("file:///w/a.py", "python", &text.to_string());
    let (suggestion, _) = ask(&mut client, "file:///w/a.py", &text, text.len_bytes() - 1);
    assert_eq!(suggestion, "b");
    client.quit();
}

/// What only another file says, on the disk or as it is in the editor, is suggested.
#[test]
fn the_other_files_of_the_workspace_are_known() {
    let Some(model) = taper_engine::testing::real_model() else { return };
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
        // No deadline: what counts here is what comes.
        "initializationOptions": { "latency-budget-ms": 60_000, "eagerness": "high", "snippet-tokens": 512 },
    }));
    client.wait_ready();
    let uri = |name: &str| format!("file://{root}/{name}");
    // What is suggested behind `shapes.weigh_` in a document where the cursor has rested for a while.
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
    client.open(&uri("shapes.py"), "python", &shapes.replace("parcel", "luggage"));
    client.wait_traces("workspaceIndexed", &json!({ "files": 3, "waiting": 0 }), 2);
    let suggestion = suggested(&mut client, "second.py");
    assert!(suggestion.starts_with("luggage("), "{suggestion:?}");
    client.quit();
}
