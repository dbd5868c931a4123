//! Invalid input from an editor, a network or a user while the server runs: none of it ends the service.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, frame, inline_params};
use crate::process;
use crate::script::Script;

const URI: &str = "file:///w/src/a.py";

fn script() -> Script {
    Script::new().when("x", "y").when("q", "r")
}

fn ready(script: &Script) -> Client {
    Client::ready(&["--stdio", "--engine", &script.written()], Value::Null)
}

/// Asserts that the server still completes.
#[track_caller]
fn check_alive(client: &mut Client) {
    let uri = "file:///w/alive.py";
    client.open(uri, "python", "x\n");
    assert_eq!(client.inline(uri, 0, 1), "y");
}

#[test]
fn malformed_messages_are_answered_and_later_ones_served() {
    let script = script();
    let mut client = ready(&script);
    for (bad, code) in [
        (&b"Content-Length: 9\r\n\r\n{\"jsonrpc"[..], -32700),
        (b"Content-Length: 4\r\n\r\nnull", -32600),
        (b"Content-Length: 3\r\n\r\n[1]", -32600),
        (b"Content-Length: 5\r\n\r\n\"\xff\xfe\xfd\"", -32700),
        (b"Content-Length: -1\r\n\r\n{}", -32700),
        (b"Content-Length: nonsense\r\n\r\n{}", -32700),
        (b"Content-Length: 18446744073709551615\r\n\r\n{}", -32700),
        (b"Content-Length: 1000000\r\n\r\n{\"jsonrpc\":\"2.0\"", -32700),
        (b"Content-Type: text/plain\r\n\r\n{}", -32700),
        (b"GET / HTTP/1.1\r\n\r\n", -32700),
        (b"\0\0\0\0\r\n\r\n", -32700),
    ] {
        client.raw(bad);
        check_alive(&mut client);
        assert_eq!(client.nameless_error(), code, "{}", String::from_utf8_lossy(bad));
    }
    // An error goes to the request's id if that can be read.
    let (id, _) = client.prepare("x", Value::Null);
    client.raw(&frame(&json!({ "id": id, "method": "initialize" })));
    assert_eq!(client.answer(id)["error"]["code"], -32600);
    // Deeply nested, as the whole message and in an ignored field.
    client.raw(format!("Content-Length: 200000\r\n\r\n{}", "[".repeat(200_000)).as_bytes());
    assert_eq!(client.nameless_error(), -32700);
    check_alive(&mut client);
    client.quit();
}

#[test]
fn unsolicited_responses_are_ignored() {
    let script = script();
    let mut client = ready(&script);
    client.raw(&frame(&json!({ "jsonrpc": "2.0", "id": 77, "result": {} })));
    client.raw(&frame(
        &json!({ "jsonrpc": "2.0", "id": 78, "error": { "code": 1, "message": "x", "more": 1 } }),
    ));
    client.raw(&frame(&json!({ "jsonrpc": "2.0", "id": null, "result": null })));
    check_alive(&mut client);
    client.quit();
}

#[test]
fn unknown_methods_and_malformed_params_get_errors() {
    let script = script();
    let mut client = ready(&script);
    assert_eq!(client.ask("textDocument/hover", inline_params(URI, 0, 0))["error"]["code"], -32601);
    assert_eq!(client.ask("no/such", json!([1, 2]))["error"]["code"], -32601);
    client.notify("no/such", json!({}));
    client.notify("$/setTrace", json!({ "value": "off" }));
    for params in [json!(null), json!([]), json!({}), json!({ "textDocument": 5, "position": 5 }), json!("x")]
    {
        let answer = client.ask("textDocument/inlineCompletion", params.clone());
        assert_eq!(answer["error"]["code"], -32602, "{params}");
        for method in ["didOpen", "didChange", "didSave", "didClose"] {
            client.notify(&format!("textDocument/{method}"), params.clone());
        }
        client.notify("workspace/didChangeConfiguration", params);
    }
    // A notification's name on a request, a request's name on a notification.
    assert!(client.ask("textDocument/didSave", json!({}))["error"].is_object());
    client.notify("textDocument/inlineCompletion", inline_params(URI, 0, 0));
    client.notify("initialize", json!({}));
    check_alive(&mut client);
    client.quit();
}

#[test]
fn positions_outside_of_the_document_are_clamped() {
    let script = script();
    let mut client = ready(&script);
    client.open(URI, "python", "x\nfirst\nq");
    let mut ask = |line: Value, character: Value| {
        let mut params = inline_params(URI, 0, 0);
        params["position"] = json!({ "line": line, "character": character });
        client.ask("textDocument/inlineCompletion", params)["result"]["items"][0]["insertText"].clone()
    };
    let huge = [json!(u32::MAX), json!(u64::MAX), json!(1e300), json!(99)];
    for number in &huge {
        assert_eq!(ask(number.clone(), json!(0)), "r", "after the last line: the end");
        assert_eq!(ask(json!(0), number.clone()), "y", "after the end of a line: its end");
    }
    for number in [json!(-1), json!(i64::MIN), json!(-1e300)] {
        assert_eq!(ask(number.clone(), json!(1)), "y");
        assert_eq!(ask(json!(2), number), Value::Null, "before the line is its start");
    }
    client.quit();
}

#[test]
fn edits_out_of_range_are_clamped_and_backward_ones_repaired() {
    let script = script();
    let mut client = ready(&script);
    client.open(URI, "python", "one\ntwo");
    let change = |version: i64, start: Value, end: Value, text: &str| {
        let changes = json!([{ "range": { "start": start, "end": end }, "text": text }]);
        json!({ "textDocument": { "uri": URI, "version": version }, "contentChanges": changes })
    };
    let at = |line: i64, character: i64| json!({ "line": line, "character": character });
    client.notify("textDocument/didChange", change(2, at(99, 99), at(i64::MAX, i64::MAX), "\nx"));
    assert_eq!(client.inline(URI, 2, 1), "y");
    client.notify("textDocument/didChange", change(3, at(2, 1), at(-5, -5), "q"));
    assert_eq!(client.inline(URI, 0, 1), "r");
    client.quit();
}

#[test]
fn decreasing_version_disables_document_until_full_text_arrives() {
    let script = script();
    let mut client = ready(&script);
    client.open(URI, "python", "");
    client.insert(URI, 9, 0, 0, "x");
    assert_eq!(client.inline(URI, 0, 1), "y");
    client.insert(URI, 8, 0, 0, "q");
    assert_eq!(client.inline(URI, 0, 1), "");
    client.insert(URI, 10, 0, 0, "q");
    assert_eq!(client.inline(URI, 0, 1), "");
    client.wait_trace("documentLost", &json!({ "uri": URI, "reason": "a version went backwards" }));
    let whole = json!({ "textDocument": { "uri": URI, "version": 11 }, "contentChanges": [{ "text": "q" }] });
    client.notify("textDocument/didChange", whole);
    assert_eq!(client.inline(URI, 0, 1), "r");
    client.quit();
}

#[test]
fn malformed_change_disables_document_until_reopened() {
    let script = script();
    let mut client = ready(&script);
    client.open(URI, "python", "x");
    let odd = json!({ "textDocument": { "uri": URI, "version": 2 }, "contentChanges": [{ "range": 1, "text": "" }] });
    client.notify("textDocument/didChange", odd);
    assert_eq!(client.inline(URI, 0, 1), "");
    client.open(URI, "python", "x");
    assert_eq!(client.inline(URI, 0, 1), "y");
    client.quit();
}

#[test]
fn unopened_document_gets_empty_response_and_trace() {
    let script = script();
    let mut client = ready(&script);
    assert_eq!(client.inline("file:///w/never.py", 0, 0), "");
    client.wait_trace("unknownDocument", &json!({ "uri": "file:///w/never.py" }));
    client.insert("file:///w/never.py", 2, 0, 0, "x");
    assert_eq!(client.inline("file:///w/never.py", 0, 1), "");
    assert_eq!(client.inline("not a uri at all %%% []", 0, 0), "");
    client.quit();
}

#[test]
fn invalid_uris_are_accepted_as_document_names() {
    let script = script();
    let mut client = ready(&script);
    for uri in
        ["file:///w/app/[id]/page.tsx", "untitled:Untitled-1", "file:///w/a b.py", "", "file:///w/%FF%ZZ.py"]
    {
        client.open(uri, "python", "x");
        assert_eq!(client.inline(uri, 0, 1), "y", "{uri}");
    }
    client.quit();
}

#[test]
fn typing_in_50_megabytes_costs_less_than_opening_them() {
    let script = script();
    let options = json!({ "latency-budget-ms": 300 });
    let mut client = Client::ready(&["--stdio", "--engine", &script.written()], options);
    let line = "value = \"0123456789 abcdefghijklmnopqrstuvwxyz\"\n";
    let mut text = line.repeat(50_000_000 / line.len());
    text.push('x');
    let last = u32::try_from(text.lines().count() - 1).unwrap();
    client.open("file:///w/large.py", "python", &text);
    client.inline("file:///w/large.py", last, 1);
    let opening = process::cpu_ticks(client.pid());
    for version in 2..6 {
        client.insert("file:///w/large.py", version, 10, 0, "#");
        client.inline("file:///w/large.py", last, 1);
    }
    if let (Some(opening), Some(all)) = (opening, process::cpu_ticks(client.pid())) {
        assert!(all - opening < opening, "{opening} ticks to open, {} to type", all - opening);
    }
    let start = Instant::now();
    while client.inline("file:///w/large.py", last, 1) != "y" {
        assert!(start.elapsed() < PATIENCE, "never a suggestion");
    }
    client.quit();
}

#[test]
fn ten_thousand_requests_get_ten_thousand_answers() {
    let script = script();
    let mut client = ready(&script);
    client.open(URI, "python", "x\nq\n");
    check_alive(&mut client);
    let before = process::resident(client.pid());
    let mut burst = Vec::new();
    let mut ids = Vec::new();
    for number in 0..10_000 {
        let method = ["textDocument/inlineCompletion", "textDocument/completion", "no/such"][number % 3];
        let (id, message) = client.prepare(method, inline_params(URI, u32::try_from(number % 2).unwrap(), 1));
        burst.extend(message);
        ids.push(id);
    }
    client.raw(&burst);
    for id in ids {
        client.answer(id);
    }
    check_alive(&mut client);
    if let (Some(before), Some(after)) = (before, process::resident(client.pid())) {
        assert!(after < before + 64, "from {before} MB to {after} MB");
    }
    client.quit();
}

#[test]
fn unreadable_configuration_is_reported_and_defaults_apply() {
    let script = script();
    let engine = script.written();
    let path = script.folder().join("config.toml");
    for (content, message) in [
        (&b"enable = = true\n"[..], "is not valid TOML"),
        (b"enable = \"\xff\"\n", "is not UTF-8"),
        (b"max-lines = \"many\"\nlatency-budget = 5\ndebounce-ms = 1\n", "max-lines"),
    ] {
        fs::write(&path, content).unwrap();
        let mut client =
            Client::ready(&["--stdio", "--engine", &engine, "--config", path.to_str().unwrap()], Value::Null);
        client.notice("window/showMessage", message);
        check_alive(&mut client);
        client.quit();
    }
    let missing = script.folder().join("missing.toml");
    let mut client =
        Client::ready(&["--stdio", "--engine", &engine, "--config", missing.to_str().unwrap()], Value::Null);
    client.notice("window/showMessage", "missing.toml");
    check_alive(&mut client);
    client.quit();
}

#[test]
fn unknown_option_is_reported_once_with_nearest_match() {
    let script = script();
    let mut client = Client::ready(
        &["--stdio", "--engine", &script.written()],
        json!({ "latencyBudget": 5, "enable": "yes" }),
    );
    client.notice("window/showMessage", "did you mean `latency-budget-ms`?");
    client.notice("window/showMessage", "`enable` must be true or false");
    let settings = json!({ "settings": { "taper": { "maxline": 5 } } });
    client.notify("workspace/didChangeConfiguration", settings.clone());
    client.notice("window/showMessage", "did you mean `max-lines`?");
    client.notify("workspace/didChangeConfiguration", settings);
    check_alive(&mut client);
    assert!(
        client.notices.iter().all(|notice| notice["method"] != "window/showMessage"),
        "{:?}",
        client.notices
    );
    client.quit();
}
