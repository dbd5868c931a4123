//! The protocol, end to end: capabilities, responses, order, cancellation, deadlines, loading, shutdown.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, inline_params, insertion, notification};
use crate::script::Script;

const URI: &str = "file:///w/src/a.py";

/// A server with a loaded script; the script is deleted with it.
fn ready(script: &Script, options: Value) -> Client {
    Client::ready(&["--stdio", "--engine", &script.written()], options)
}

fn recorded(text: &str) -> (Value, Client, Script) {
    let script = Script::new().when("def ad", "d(a, b):\n    return a + b");
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    let params = serde_json::from_str::<Value>(text).unwrap()["params"].clone();
    let result = client.initialize(params);
    client.wait_ready();
    (result["capabilities"].clone(), client, script)
}

#[test]
fn neovim_gets_inline_completion_in_utf8_and_no_popup() {
    let (capabilities, client, _script) = recorded(include_str!("fixtures/initialize-nvim.json"));
    assert_eq!(capabilities["inlineCompletionProvider"], true);
    assert_eq!(capabilities["completionProvider"], Value::Null);
    assert_eq!(capabilities["positionEncoding"], "utf-8");
    assert_eq!(capabilities["textDocumentSync"]["change"], 2);
    client.quit();
}

#[test]
fn vscode_gets_inline_completion_in_utf16_and_no_popup() {
    let (capabilities, client, _script) = recorded(include_str!("fixtures/initialize-vscode.json"));
    assert_eq!(capabilities["inlineCompletionProvider"], true);
    assert_eq!(capabilities["completionProvider"], Value::Null);
    assert_eq!(capabilities["positionEncoding"], "utf-16");
    client.quit();
}

#[test]
fn helix_filters_and_inserts_popup_item_correctly() {
    let (capabilities, mut client, _script) = recorded(include_str!("fixtures/initialize-hx.json"));
    assert_eq!(capabilities["inlineCompletionProvider"], true);
    assert!(
        capabilities["completionProvider"]["triggerCharacters"].as_array().unwrap().contains(&json!("."))
    );
    client.open(URI, "python", "é = 1\ndef ad\n");
    let params = json!({
        "textDocument": { "uri": URI },
        "position": { "line": 1, "character": 6 },
        "context": { "triggerKind": 1 },
    });
    let result = client.ask("textDocument/completion", params)["result"].clone();
    assert_eq!(result["isIncomplete"], true);
    let item = &result["items"][0];
    assert_eq!(item["label"], "add(a, b): …");
    assert_eq!(item["filterText"], "add(a, b):");
    assert_eq!((&item["kind"], &item["insertTextFormat"]), (&json!(1), &json!(1)));
    let range = json!({ "start": { "line": 1, "character": 4 }, "end": { "line": 1, "character": 6 } });
    assert_eq!(item["textEdit"], json!({ "range": range, "newText": "add(a, b):\n    return a + b" }));
    client.quit();
}

#[test]
fn item_has_text_and_empty_range_at_cursor() {
    let script = Script::new().when("def ad", "d(a, b):");
    // `'😀é'; def ad`: the same cursor in each of the encodings.
    for (encodings, chosen, character) in [
        (json!(["utf-16"]), "utf-16", 13),
        (json!(["utf-16", "utf-32"]), "utf-32", 12),
        (json!(["utf-16", "utf-8", "utf-32"]), "utf-8", 16),
        (json!(["klingon"]), "utf-16", 13),
    ] {
        let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
        let general = json!({ "positionEncodings": encodings });
        let result = client.initialize(json!({ "capabilities": { "general": general } }));
        assert_eq!(result["capabilities"]["positionEncoding"], chosen);
        client.wait_ready();
        client.open(URI, "python", "x = '😀😀'\r\n'😀é'; def ad  # tail\r\n");
        let answer = client.ask("textDocument/inlineCompletion", inline_params(URI, 1, character));
        let at = json!({ "line": 1, "character": character });
        let item = json!({ "insertText": "d(a, b):", "range": { "start": at, "end": at } });
        assert_eq!(answer["result"], json!({ "items": [item] }), "{encodings}");
        client.quit();
    }
}

#[test]
fn prompt_without_suggestion_gets_empty_response() {
    let script = Script::new().when("x", "y");
    let mut client = ready(&script, Value::Null);
    client.open(URI, "python", "nothing fits here");
    assert_eq!(client.inline(URI, 0, 5), "");
    client.quit();
}

#[test]
fn changes_and_requests_are_handled_in_arrival_order() {
    let script = Script::new().when("abcdefgh", "ijk").when("abcd", "wrong");
    let mut client = ready(&script, Value::Null);
    client.open(URI, "python", "");
    let (mut burst, mut requests) = (Vec::new(), Vec::new());
    for (at, letter) in "abcdefgh".chars().enumerate() {
        let at = u32::try_from(at).unwrap();
        burst.extend(notification(
            "textDocument/didChange",
            insertion(URI, i64::from(at) + 2, 0, at, &letter.to_string()),
        ));
        let (id, message) = client.prepare("textDocument/inlineCompletion", inline_params(URI, 0, at + 1));
        burst.extend(message);
        requests.push(id);
    }
    client.raw(&burst);
    let last = requests.pop().unwrap();
    assert_eq!(client.answer(last)["result"]["items"][0]["insertText"], "ijk");
    for id in requests {
        // Superseded, or answered before the next change arrived; never from a text that did not exist yet.
        let answer = client.answer(id);
        assert!(answer["error"]["code"] == -32800 || answer["result"]["items"].is_array(), "{answer}");
        assert_ne!(answer["result"]["items"][0]["insertText"], "ijk");
    }
    client.quit();
}

#[test]
fn newer_request_supersedes_older_one() {
    let script = Script::new().when("slow", "a very long answer").when("quick", "b").token_ms(20);
    let mut client = ready(&script, json!({ "latency-budget-ms": 20_000 }));
    client.open(URI, "python", "slow\nquick\n");
    let first = client.request("textDocument/inlineCompletion", inline_params(URI, 0, 4));
    let second = client.request("textDocument/inlineCompletion", inline_params(URI, 1, 5));
    assert_eq!(client.answer(first)["error"]["code"], -32800);
    assert_eq!(client.answer(second)["result"]["items"][0]["insertText"], "b");
    client.quit();
}

#[test]
fn superseded_popup_is_empty_not_an_error() {
    let script = Script::new().when("slow", "a very long answer").token_ms(20);
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    client.initialize(json!({ "capabilities": {}, "processId": null, "initializationOptions": {} }));
    client.wait_ready();
    client.open(URI, "python", "slow\n");
    let place = |column: u32| json!({ "textDocument": { "uri": URI }, "position": { "line": 0, "character": column } });
    let first = client.request("textDocument/completion", place(4));
    let second = client.request("textDocument/completion", place(0));
    assert_eq!(client.answer(first)["result"]["items"], json!([]));
    assert_eq!(client.answer(second)["result"]["items"], json!([]));
    client.quit();
}

#[test]
fn text_change_supersedes_request_but_keeps_its_generation() {
    let script = Script::new().when("return ", "call(a, b)").token_ms(20);
    let mut client = ready(&script, json!({ "latency-budget-ms": 20_000 }));
    client.open(URI, "python", "return \n");
    let first = client.request("textDocument/inlineCompletion", inline_params(URI, 0, 7));
    client.notify("textDocument/didChange", insertion(URI, 2, 0, 7, "ca"));
    assert_eq!(client.answer(first)["error"]["code"], -32800);
    client.wait_trace("completed", &json!({}));
    // The script has no rule for this position: the response is the rest of the in-flight generation.
    assert_eq!(client.inline(URI, 0, 9), "ll(a, b)");
    client.quit();
}

#[test]
fn cancelled_request_gets_error_and_frees_engine() {
    let script = Script::new().when("slow", &"very ".repeat(90)).when("quick", "b").token_ms(500);
    let mut client = ready(&script, json!({ "latency-budget-ms": 60_000 }));
    client.open(URI, "python", "slow\nquick\n");
    let id = client.request("textDocument/inlineCompletion", inline_params(URI, 0, 4));
    client.notify("$/cancelRequest", json!({ "id": id }));
    assert_eq!(client.answer(id)["error"]["code"], -32800);
    // If the engine were still busy with it, this would take its 45 seconds.
    let start = Instant::now();
    assert_eq!(client.inline(URI, 1, 5), "b");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    client.notify("$/cancelRequest", json!({ "id": 999 }));
    client.quit();
}

#[test]
fn generation_continues_after_deadline_for_next_keystroke() {
    let whole = "one + two + three + four + five + six + seven";
    let script = Script::new().when("total = ", whole).token_ms(12);
    let mut client = ready(&script, json!({ "latency-budget-ms": 150 }));
    client.open(URI, "python", "total = \n");
    let sent = Instant::now();
    let id = client.request("textDocument/inlineCompletion", inline_params(URI, 0, 8));
    let (answer, at) = client.timed_answer(id);
    let took = at - sent;
    assert!(took < Duration::from_millis(450), "the answer took {took:?}");
    let part = answer["result"]["items"][0]["insertText"].as_str().unwrap_or_default();
    assert!(part.len() < whole.len() && whole.starts_with(part), "{part:?}");
    client.wait_trace("completed", &json!({}));
    let sent = Instant::now();
    let id = client.request("textDocument/inlineCompletion", inline_params(URI, 0, 8));
    let (answer, at) = client.timed_answer(id);
    assert_eq!(answer["result"]["items"][0]["insertText"], whole);
    let took = at - sent;
    assert!(took < Duration::from_millis(450), "the answer took {took:?}");
    client.quit();
}

#[test]
fn refreshing_editor_gets_early_part_then_the_rest() {
    let whole = "one + two + three + four + five + six + seven";
    let script = Script::new().when("total = ", whole).token_ms(12);
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    let result = client.initialize(json!({
        "processId": null,
        "capabilities": {
            "textDocument": { "inlineCompletion": {} },
            "experimental": { "taper": { "refresh": true } },
        },
        "initializationOptions": { "latency-budget-ms": 60_000, "early-answer-ms": 0 },
    }));
    assert_eq!(result["capabilities"]["experimental"]["taper"], json!({ "refresh": true, "cursor": true }));
    client.wait_ready();
    client.open(URI, "python", "total = \n");
    let part = client.inline(URI, 0, 8);
    assert!(!part.is_empty() && part.len() < whole.len() && whole.starts_with(&part), "{part:?}");
    let refresh = client.notice("taper/refresh", "");
    assert_eq!(
        refresh["params"],
        json!({ "textDocument": { "uri": URI }, "position": { "line": 0, "character": 8 }, "version": 1 })
    );
    assert_eq!(client.inline(URI, 0, 8), whole);
    client.wait_trace("completed", &json!({}));
    assert_eq!(client.traced("completed").len(), 1);
    client.quit();
}

#[test]
fn idle_cursor_prefills_prompt_before_request() {
    let script = Script::new().when("last = ", "1").prompt_token_ms(1.0);
    for (idle, read) in [("modest", true), ("off", false)] {
        let mut client = ready(&script, json!({ "idle-work": idle, "latency-budget-ms": 20_000 }));
        let lines: String = (0..50).map(|n| format!("v{n:03} = {n}\n")).collect();
        client.open(URI, "python", &format!("{lines}last =\n"));
        client.notify("taper/cursor", json!({ "textDocument": { "uri": "file:///unknown" } }));
        let position = json!({ "line": 50, "character": 6 });
        client.notify("taper/cursor", json!({ "textDocument": { "uri": URI }, "position": position }));
        if read {
            client.wait_trace("windowPrefilled", &json!({}));
        }
        client.notify("textDocument/didChange", insertion(URI, 2, 50, 6, " "));
        assert_eq!(client.inline(URI, 50, 7), "1");
        client.wait_trace("completed", &json!({}));
        let evaluated = client.traced("completed")[0]["evaluated"].as_u64().unwrap();
        assert_eq!(evaluated < 20, read, "{evaluated}");
        client.quit();
    }
}

#[test]
fn repeated_request_continues_the_same_generation() {
    let whole = "one + two + three + four + five + six + seven";
    let script = Script::new().when("total = ", whole).token_ms(20);
    // Consecutive requests, none of which the engine can finish within its budget.
    let mut client = ready(&script, json!({ "latency-budget-ms": 150 }));
    client.open(URI, "python", "total = \n");
    let start = Instant::now();
    while client.inline(URI, 0, 8) != whole {
        assert!(start.elapsed() < PATIENCE);
    }
    client.wait_trace("completed", &json!({}));
    assert_eq!(client.traced("completed").len(), 1);
    client.quit();
}

#[test]
fn completion_after_accepted_suggestion_is_prefetched() {
    let script = Script::new().when("total = one", " + two").when("total = ", "one");
    for (idle, known) in [("modest", true), ("off", false)] {
        let mut client = ready(&script, json!({ "idle-work": idle, "latency-budget-ms": 20_000 }));
        client.open(URI, "python", "total = \n");
        assert_eq!(client.inline(URI, 0, 8), "one");
        if known {
            client.wait_trace("prefetched", &json!({}));
        }
        client.notify("textDocument/didChange", insertion(URI, 2, 0, 8, "one"));
        assert_eq!(client.inline(URI, 0, 11), " + two");
        let requests = if known { 1 } else { 2 };
        client.wait_traces("completed", &json!({}), requests);
        assert_eq!(client.traced("completed").len(), requests, "{idle}");
        client.quit();
    }
}

#[test]
fn full_idle_work_prefetches_line_after_suggestion() {
    let script = Script::new().when("a = 1\n", "b = 2").when("a = ", "1");
    let mut client = ready(&script, json!({ "idle-work": "full" }));
    client.open(URI, "python", "a = \n");
    assert_eq!(client.inline(URI, 0, 4), "1");
    client.wait_traces("prefetched", &json!({}), 2);
    client.notify("textDocument/didChange", insertion(URI, 2, 0, 4, "1\n"));
    assert_eq!(client.inline(URI, 1, 0), "b = 2");
    assert_eq!(client.traced("completed").len(), 1);
    client.quit();
}

#[test]
fn next_line_is_prefetched_before_enter() {
    let script = Script::new().when("x = 1\n    ", "return x");
    for (idle, known) in [("modest", true), ("off", false)] {
        let mut client = ready(&script, json!({ "idle-work": idle, "latency-budget-ms": 20_000 }));
        client.open(URI, "python", "def f():\n    x = 1\n");
        let position = json!({ "line": 1, "character": 9 });
        client.notify("taper/cursor", json!({ "textDocument": { "uri": URI }, "position": position }));
        if known {
            // Also what may come after the line.
            client.wait_traces("prefetched", &json!({}), 2);
        }
        client.notify("textDocument/didChange", insertion(URI, 2, 1, 9, "\n    "));
        assert_eq!(client.inline(URI, 2, 4), "return x");
        if !known {
            client.wait_trace("completed", &json!({}));
        }
        assert_eq!(client.traced("completed").is_empty(), known);
        client.quit();
    }
}

#[test]
fn slow_window_prefetches_from_part_then_from_whole() {
    let script = Script::new().when("last = 1\n", "x = 2").prompt_token_ms(1.5);
    let mut client = ready(&script, json!({ "prefix-tokens": 1600, "suffix-tokens": 20 }));
    let lines: String = (0..300).map(|n| format!("v{n:03} = {n}\n")).collect();
    client.open(URI, "python", &format!("{lines}last = 1\n"));
    let position = json!({ "line": 300, "character": 8 });
    client.notify("taper/cursor", json!({ "textDocument": { "uri": URI }, "position": position }));
    client.wait_trace("windowPrefilled", &json!({}));
    // On the next line and after this one, from a part of the file and from all of it.
    client.wait_traces("prefetched", &json!({}), 4);
    let order: Vec<Value> = client.traced_of(&["prefetched", "windowPrefilled"]);
    let part = order.iter().take_while(|it| it["event"] == "prefetched").count();
    assert_eq!((part, order.len()), (2, 5), "{order:?}");
    client.quit();
}

#[test]
fn prefetch_never_delays_a_request() {
    // Prefetch: 20 seconds of work after the first suggestion.
    let script = Script::new()
        .when("slow = 1", &" + 1".repeat(50))
        .when("slow = ", "1")
        .when("quick = ", "2")
        .token_ms(100)
        .prompt_token_ms(0.1);
    let mut client = ready(&script, json!({ "latency-budget-ms": 1000 }));
    client.open(URI, "python", "slow = \nquick = \n");
    assert_eq!(client.inline(URI, 0, 7), "1");
    client.wait_trace("prefetchStarted", &json!({}));
    let sent = Instant::now();
    let id = client.request("textDocument/inlineCompletion", inline_params(URI, 1, 8));
    let (answer, at) = client.timed_answer(id);
    assert_eq!(answer["result"]["items"][0]["insertText"], "2");
    let took = at - sent;
    assert!(took < Duration::from_millis(1150), "the answer took {took:?}");
    assert!(client.traced("prefetched").is_empty());
    client.quit();
}

#[test]
fn long_file_is_answered_then_fully_prefilled() {
    // Prefilling the whole window would exceed the budget.
    let script = Script::new().when("last = ", "1").prompt_token_ms(3.0).token_ms(1);
    let options = json!({ "latency-budget-ms": 900, "prefix-tokens": 500, "suffix-tokens": 20 });
    let mut client = ready(&script, options);
    let lines: String = (0..100).map(|n| format!("v{n:03} = {n}\n")).collect();
    client.open(URI, "python", &format!("{lines}last = \n"));
    assert_eq!(client.inline(URI, 100, 7), "1");
    client.wait_trace("windowPrefilled", &json!({}));
    assert_eq!(client.traced("completed")[0]["short"], true);
    client.quit();
}

#[test]
fn empty_position_is_retried_only_by_explicit_request() {
    let script = Script::new().when("x = ", "");
    let mut client = ready(&script, Value::Null);
    client.open(URI, "python", "x = \n");
    for _ in 0..3 {
        assert_eq!(client.inline(URI, 0, 4), "");
    }
    let mut invoked = inline_params(URI, 0, 4);
    invoked["context"]["triggerKind"] = json!(1);
    let id = client.request("textDocument/inlineCompletion", invoked);
    client.answer(id);
    client.wait_traces("completed", &json!({}), 2);
    assert_eq!(client.traced("completed").len(), 2);
    client.quit();
}

#[test]
fn engine_panic_loses_only_one_response() {
    let script = Script::new().panics_at("boom").when("fine", "ly");
    let mut client = ready(&script, Value::Null);
    client.open(URI, "python", "boom\nfine\n");
    assert_eq!(client.inline(URI, 0, 4), "");
    assert_eq!(client.inline(URI, 1, 4), "ly");
    client.notice("window/showMessage", "failed internally");
    assert_eq!(client.inline(URI, 0, 4), "");
    assert_eq!(client.inline(URI, 1, 4), "ly");
    client.quit();
}

#[test]
fn engine_error_is_reported_once() {
    let script = Script::new().fails_at("fail").when("fine", "ly");
    let mut client = ready(&script, Value::Null);
    client.open(URI, "python", "fail\nfine\n");
    for _ in 0..3 {
        assert_eq!(client.inline(URI, 0, 4), "");
    }
    assert_eq!(client.inline(URI, 1, 4), "ly");
    client.notice("window/showMessage", "taper cannot suggest");
    assert!(
        client.notices.iter().all(|notice| notice["method"] != "window/showMessage"),
        "{:?}",
        client.notices
    );
    client.quit();
}

#[test]
#[cfg(unix)]
fn requests_during_model_load_get_empty_responses_immediately() {
    let script = Script::new().when("x", "y");
    // A pipe without a writer: the engine blocks in its read for as long as the test needs.
    assert!(std::process::Command::new("mkfifo").arg(script.path()).status().unwrap().success());
    let mut client = Client::start(&["--stdio", "--engine", &script.argument()]);
    client.hello(json!({ "latency-budget-ms": 60_000 }));
    client.open(URI, "python", "x\n");
    assert_eq!(client.inline(URI, 0, 1), "");
    let pipe = fs::OpenOptions::new().write(true).open(script.path()).unwrap();
    script.write_to(pipe);
    client.wait_ready();
    assert_eq!(client.inline(URI, 0, 1), "y");
    client.quit();
}

#[test]
fn missing_model_is_reported_once_and_loaded_later() {
    let script = Script::new().when("x", "y");
    let mut client = Client::start(&["--stdio", "--engine", &script.argument()]);
    client.hello(Value::Null);
    client.notice("window/showMessage", "taper cannot suggest yet");
    client.open(URI, "python", "x\n");
    assert_eq!(client.inline(URI, 0, 1), "");
    script.write();
    let start = Instant::now();
    while client.inline(URI, 0, 1) != "y" {
        assert!(start.elapsed() < PATIENCE, "never picked up");
    }
    assert!(
        client.notices.iter().all(|notice| notice["method"] != "window/showMessage"),
        "{:?}",
        client.notices
    );
    client.quit();
}

#[test]
fn changed_editor_settings_apply() {
    let script = Script::new().when("x", "y");
    let mut client = ready(&script, json!({ "disabledLanguages": ["markdown"] }));
    client.open(URI, "python", "x\n");
    client.open("file:///w/a.md", "markdown", "x\n");
    assert_eq!(client.inline(URI, 0, 1), "y");
    assert_eq!(client.inline("file:///w/a.md", 0, 1), "");
    let change = |enable: bool| json!({ "settings": { "taper": { "enable": enable } } });
    client.notify("workspace/didChangeConfiguration", change(false));
    assert_eq!(client.inline(URI, 0, 1), "");
    client.notify("workspace/didChangeConfiguration", change(true));
    assert_eq!(client.inline(URI, 0, 1), "y");
    client.notify("workspace/didChangeConfiguration", json!({ "settings": null }));
    assert_eq!(client.inline(URI, 0, 1), "y");
    client.quit();
}

#[test]
fn closed_document_is_forgotten_and_can_be_reopened() {
    let script = Script::new().when("x", "y").when("z", "w");
    let mut client = ready(&script, Value::Null);
    client.open(URI, "python", "x\n");
    client.notify("textDocument/didSave", json!({ "textDocument": { "uri": URI } }));
    assert_eq!(client.inline(URI, 0, 1), "y");
    client.notify("textDocument/didClose", json!({ "textDocument": { "uri": URI } }));
    assert_eq!(client.inline(URI, 0, 1), "");
    client.open(URI, "python", "z\n");
    assert_eq!(client.inline(URI, 0, 1), "w");
    client.quit();
}

#[test]
fn requests_before_initialize_and_after_shutdown_are_rejected() {
    let script = Script::new().when("x", "y");
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    let early = client.ask("textDocument/inlineCompletion", inline_params(URI, 0, 0));
    assert_eq!(early["error"]["code"], -32002);
    client.hello(Value::Null);
    let again = client.ask("initialize", json!({ "capabilities": {} }));
    assert_eq!(again["error"]["code"], -32600);
    assert_eq!(client.ask("shutdown", Value::Null)["result"], Value::Null);
    let late = client.ask("textDocument/inlineCompletion", inline_params(URI, 0, 0));
    assert_eq!(late["error"]["code"], -32600);
    client.notify("exit", Value::Null);
    assert!(client.ended().0.success());
}

#[test]
fn exit_without_shutdown_is_a_failure() {
    let script = Script::new().when("slow", &"very ".repeat(90)).token_ms(500);
    let mut client = ready(&script, json!({ "latency-budget-ms": 60_000 }));
    client.open(URI, "python", "slow\n");
    client.request("textDocument/inlineCompletion", inline_params(URI, 0, 4));
    client.notify("exit", Value::Null);
    let (status, took) = client.ended();
    assert_eq!(status.code(), Some(1));
    assert!(took < Duration::from_secs(10), "{took:?}");
    client.forget_requests();
}

#[test]
fn server_exits_at_end_of_input_during_generation() {
    let script = Script::new().when("slow", &"very ".repeat(90)).token_ms(500);
    let mut client = ready(&script, json!({ "latency-budget-ms": 60_000 }));
    client.open(URI, "python", "slow\n");
    client.request("textDocument/inlineCompletion", inline_params(URI, 0, 4));
    client.hang_up();
    let (status, took) = client.ended();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    client.forget_requests();
}

#[test]
fn requests_before_end_of_input_are_answered() {
    let script = Script::new().when("x", "y");
    let mut client = ready(&script, Value::Null);
    client.open(URI, "python", "x\n");
    let id = client.request("textDocument/inlineCompletion", inline_params(URI, 0, 1));
    client.hang_up();
    assert_eq!(client.answer(id)["result"]["items"][0]["insertText"], "y");
    assert!(client.ended().0.success());
}
