//! The protocol, end to end: capabilities, responses, order, cancellation, deadlines, loading, shutdown.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, inline_params, insertion, notification};
use crate::scenario::{Scenario, scenario};
use crate::script::Script;

const URI: &str = "file:///w/src/a.py";
const WHOLE: &str = "one + two + three + four + five + six + seven";

/// An engine that stops in the middle of [`WHOLE`] until its gate is opened.
fn held_after_three_words() -> Scenario {
    scenario("total = ▮\n").model("one + two + three⏸ + four + five + six + seven").script(Script::gated)
}

fn numbered_lines(count: usize) -> String {
    (0..count).map(|n| format!("v{n:03} = {n}\n")).collect()
}

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
    scenario("nothing fits here▮").when("x", "y").expect("");
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
    let mut user = scenario("slow▮\nquick\n").when("slow", "a⏸").when("quick", "b").script(Script::gated);
    let first = user.request();
    let second = user.move_to("quick▮").request();
    user.expect_superseded(first).expect_response(second, "b");
}

#[test]
fn superseded_popup_is_empty_not_an_error() {
    let mut user = scenario("slow▮\n").model("a⏸").script(Script::gated).with_popups();
    let place = |column: u32| json!({ "textDocument": { "uri": URI }, "position": { "line": 0, "character": column } });
    let client = user.client();
    let first = client.request("textDocument/completion", place(4));
    let second = client.request("textDocument/completion", place(0));
    assert_eq!(client.answer(first)["result"]["items"], json!([]));
    assert_eq!(client.answer(second)["result"]["items"], json!([]));
}

#[test]
fn text_change_supersedes_request_but_keeps_its_generation() {
    let mut user = scenario("return ▮\n").when("return ", "c⏸all(a, b)").script(Script::gated);
    let first = user.request();
    user.type_text("ca").expect_superseded(first).open_gate().wait_traced("completed", 1);
    // The script has no rule for this position: the response is the rest of the in-flight generation.
    user.expect("ll(a, b)");
}

#[test]
fn cancelled_request_gets_error_and_frees_engine() {
    let mut user = scenario("slow▮\nquick\n").when("slow", "⏸a").when("quick", "b").script(Script::gated);
    let id = user.request();
    user.client().notify("$/cancelRequest", json!({ "id": id }));
    // The gate stays closed: the engine is free only if it leaves the first request.
    user.expect_superseded(id).move_to("quick▮").expect("b");
    user.client().notify("$/cancelRequest", json!({ "id": 999 }));
}

#[test]
fn generation_continues_after_deadline_for_next_keystroke() {
    let mut user = held_after_three_words().option("latency-budget-ms", 150);
    let request = user.request();
    user.expect_less_than(request, WHOLE).open_gate().wait_traced("completed", 1).expect(WHOLE);
    user.expect_traced("completed", 1);
}

#[test]
fn refreshing_editor_gets_early_part_then_the_rest() {
    let mut user = held_after_three_words().option("early-answer-ms", 0).announcing("refresh");
    let request = user.request();
    let announced = &user.client().capabilities["experimental"]["taper"];
    assert_eq!(*announced, json!({ "refresh": true, "cursor": true }));
    user.expect_part_of(request, WHOLE).open_gate();
    let refresh = user.client().notice("taper/refresh", "");
    assert_eq!(
        refresh["params"],
        json!({ "textDocument": { "uri": URI }, "position": { "line": 0, "character": 8 }, "version": 1 })
    );
    user.expect(WHOLE).expect_traced("completed", 1);
}

#[test]
fn idle_cursor_prefills_prompt_before_request() {
    let text = format!("{}last =▮\n", numbered_lines(50));
    for (idle, read) in [("modest", true), ("off", false)] {
        let mut user = scenario(&text).when("last = ", "1").option("idle-work", idle);
        let unknown = json!({ "textDocument": { "uri": "file:///unknown" } });
        user.client().notify("taper/cursor", unknown);
        user.rest().wait_traced("windowPrefilled", usize::from(read));
        let completed = user.type_text(" ").expect("1").expect_traced("completed", 1);
        let evaluated = completed[0]["evaluated"].as_u64().unwrap();
        assert_eq!(evaluated < 20, read, "{evaluated}");
    }
}

#[test]
fn repeated_request_continues_the_same_generation() {
    let mut user = held_after_three_words().option("latency-budget-ms", 50);
    for _ in 0..3 {
        let request = user.request();
        user.expect_less_than(request, WHOLE);
    }
    user.open_gate().wait_traced("completed", 1).expect(WHOLE).expect_traced("completed", 1);
}

#[test]
fn completion_after_accepted_suggestion_is_prefetched() {
    for (idle, known) in [("modest", true), ("off", false)] {
        let mut user = scenario("total = ▮\n").when("total = one", " + two").when("total = ", "one");
        user = user.option("idle-work", idle);
        user.expect("one").wait_traced("prefetched", usize::from(known)).accept().expect(" + two");
        user.expect_traced("completed", if known { 1 } else { 2 });
    }
}

#[test]
fn full_idle_work_prefetches_line_after_suggestion() {
    let mut user = scenario("a = ▮\n").when("a = 1\n", "b = 2").when("a = ", "1").option("idle-work", "full");
    user.expect("1").wait_traced("prefetched", 2).type_text("1\n").expect("b = 2");
    user.expect_traced("completed", 1);
}

#[test]
fn next_line_is_prefetched_before_enter() {
    for (idle, known) in [("modest", true), ("off", false)] {
        let mut user = scenario("def f():\n    x = 1▮\n").when("x = 1\n    ", "return x");
        user = user.option("idle-work", idle);
        // Also what may come after the line.
        user.rest().wait_traced("prefetched", if known { 2 } else { 0 });
        user.type_text("\n    ").expect("return x").expect_traced("completed", usize::from(!known));
    }
}

#[test]
fn slow_window_prefetches_from_part_then_from_whole() {
    let mut user = scenario(&format!("{}last = 1▮\n", numbered_lines(300)))
        .when("last = 1\n", "x = 2")
        .script(|script| script.prompt_token_ms(1.5))
        .option("prefix-tokens", 1600)
        .option("suffix-tokens", 20);
    // On the next line and after this one, from a part of the file and from all of it.
    user.rest().wait_traced("windowPrefilled", 1).wait_traced("prefetched", 4);
    let order: Vec<Value> = user.client().traced_of(&["prefetched", "windowPrefilled"]);
    let part = order.iter().take_while(|it| it["event"] == "prefetched").count();
    assert_eq!((part, order.len()), (2, 5), "{order:?}");
}

#[test]
fn prefetch_never_delays_a_request() {
    let mut user = scenario("slow = ▮\nquick = \n")
        .when("slow = 1", "⏸ + 1")
        .when("slow = ", "1")
        .when("quick = 2", "⏸ + 2")
        .when("quick = ", "2")
        .script(Script::gated);
    // The gate stays closed: the request is answered only if it interrupts the prefetch.
    user.expect("1").wait_traced("prefetchStarted", 1).move_to("quick = ▮").expect("2");
    user.expect_traced("prefetched", 0);
}

#[test]
fn long_file_is_answered_then_fully_prefilled() {
    // Prefilling the whole window would exceed the budget.
    let mut user = scenario(&format!("{}last = ▮\n", numbered_lines(100)))
        .when("last = ", "1")
        .script(|script| script.prompt_token_ms(3.0).token_ms(1))
        .option("latency-budget-ms", 900)
        .option("prefix-tokens", 500)
        .option("suffix-tokens", 20);
    user.expect("1").wait_traced("windowPrefilled", 1);
    assert_eq!(user.expect_traced("completed", 1)[0]["short"], true);
}

#[test]
fn empty_position_is_retried_only_by_explicit_request() {
    let mut user = scenario("x = ▮\n");
    user.expect("").expect("").expect("").expect_explicit(&[]).expect_traced("completed", 2);
}

#[test]
fn engine_panic_loses_only_one_response() {
    let mut user = scenario("boom▮\nfine\n").script(|script| script.panics_at("boom")).when("fine", "ly");
    user.expect("").move_to("fine▮").expect("ly").expect_message("failed internally");
    user.move_to("boom▮").expect("").move_to("fine▮").expect("ly");
}

#[test]
fn engine_error_is_reported_once() {
    let mut user = scenario("fail▮\nfine\n").script(|script| script.fails_at("fail")).when("fine", "ly");
    user.expect("").expect("").expect("").move_to("fine▮").expect("ly");
    user.expect_message("taper cannot suggest").expect_no_message();
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
    let mut user = scenario("x▮\n").model("y").option("disabledLanguages", vec!["markdown"]);
    user.expect("y").client().open("file:///w/a.md", "markdown", "x\n");
    assert_eq!(user.client().inline("file:///w/a.md", 0, 1), "");
    let change = |enable: bool| json!({ "taper": { "enable": enable } });
    user.change_settings(change(false)).expect("").change_settings(change(true)).expect("y");
    user.change_settings(Value::Null).expect("y");
}

#[test]
fn closed_document_is_forgotten_and_can_be_reopened() {
    let mut user = scenario("x▮\n").when("x", "y").when("z", "w");
    user.client().notify("textDocument/didSave", json!({ "textDocument": { "uri": URI } }));
    user.expect("y").close().expect("").reopen("z▮\n").expect("w");
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
    assert!(client.ended().success());
}

/// A server with a request that its engine never finishes.
fn held() -> (Client, Script) {
    let script = Script::new().when("slow", "⏸").gated();
    let mut client = ready(&script, json!({ "latency-budget-ms": 60_000 }));
    client.open(URI, "python", "slow\n");
    client.request("textDocument/inlineCompletion", inline_params(URI, 0, 4));
    (client, script)
}

#[test]
fn exit_without_shutdown_is_a_failure() {
    let (mut client, _script) = held();
    client.notify("exit", Value::Null);
    assert_eq!(client.ended().code(), Some(1));
    client.forget_requests();
}

#[test]
fn server_exits_at_end_of_input_during_generation() {
    let (mut client, _script) = held();
    client.hang_up();
    let status = client.ended();
    assert!(status.success(), "{status}");
    client.forget_requests();
}

#[test]
fn server_exits_when_editor_dies_mid_request() {
    let (mut client, _script) = held();
    // Half a message, then end of input.
    client.raw(b"Content-Length: 500\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":99,\"met");
    client.hang_up();
    client.ended();
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
    assert!(client.ended().success());
}
