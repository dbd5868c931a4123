//! Alternatives for explicit requests, end to end: which ones, their order, deadlines and caching.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taper::syntax::{Syntax, scope};
use taper::text::{Edit, Encoding, Rope, position};

use crate::client::{Client, inline_params, insertion};
use crate::script::Script;

const URI: &str = "file:///w/src/a.py";

fn ready(script: &Script, options: Value) -> Client {
    Client::ready(&["--stdio", "--engine", &script.written()], options)
}

/// Params of an explicit request.
fn invoked(line: u32, character: u32) -> Value {
    let mut params = inline_params(URI, line, character);
    params["context"]["triggerKind"] = json!(1);
    params
}

fn texts(answer: &Value) -> Vec<String> {
    let items = answer["result"]["items"].as_array().unwrap_or_else(|| panic!("no items: {answer}"));
    items.iter().map(|item| item["insertText"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn invoke(client: &mut Client, line: u32, character: u32) -> Vec<String> {
    texts(&client.ask("textDocument/inlineCompletion", invoked(line, character)))
}

#[test]
fn explicit_request_gets_three_suggestions_automatic_gets_one() {
    let script = Script::new().when("x = ", "f(a)\n").or("f(b)\n").or("  f(a)\n");
    let mut client = ready(&script, json!({ "idle-work": "off" }));
    client.open(URI, "python", "y = 1\nx = \n");
    assert_eq!(client.inline(URI, 1, 4), "f(a)");
    // After trimming, the third equals the first.
    assert_eq!(invoke(&mut client, 1, 4), ["f(a)", "f(b)"]);
    let answer = client.ask("textDocument/inlineCompletion", invoked(1, 4));
    let at = json!({ "line": 1, "character": 4 });
    for item in answer["result"]["items"].as_array().unwrap() {
        assert_eq!(item["range"], json!({ "start": at, "end": at }));
    }
    assert_eq!(client.inline(URI, 1, 4), "f(a)");
    client.quit();

    let script = Script::new().when("x = ", "a").or("b").or("c").or("d");
    let mut client = ready(&script, Value::Null);
    client.open(URI, "python", "x = \n");
    assert_eq!(invoke(&mut client, 0, 4), ["a", "b", "c"]);
    let answer = client.ask("workspace/executeCommand", json!({ "command": "taper.statistics" }));
    assert_eq!((&answer["result"]["asked"], &answer["result"]["shown"]), (&json!(1), &json!(1)));
    client.quit();
}

#[test]
fn alternatives_are_cached_and_typed_through() {
    let script = Script::new().when("x = ", "fold(a)").or("fob(b)").or("bar");
    let mut client = ready(&script, json!({ "idle-work": "off" }));
    client.open(URI, "python", "x = \n");
    for _ in 0..3 {
        assert_eq!(invoke(&mut client, 0, 4), ["fold(a)", "fob(b)", "bar"]);
    }
    client.wait_trace("alternativesFinished", &json!({}));
    client.notify("textDocument/didChange", insertion(URI, 2, 0, 4, "fo"));
    assert_eq!(invoke(&mut client, 0, 6), ["ld(a)", "b(b)"]);
    assert_eq!(client.inline(URI, 0, 6), "ld(a)");
    assert_eq!(client.traced("completed").len(), 1);
    client.quit();
}

#[test]
fn popup_lists_alternatives_in_order() {
    let script = Script::new().when("def ad", "d(a, b):").or("just(a):").or("vance():");
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    client.initialize(json!({ "capabilities": {}, "initializationOptions": {} }));
    client.wait_ready();
    client.open(URI, "python", "def a\n");
    client.notify("textDocument/didChange", insertion(URI, 2, 0, 5, "d"));
    let mut params = json!({
        "textDocument": { "uri": URI },
        "position": { "line": 0, "character": 6 },
        "context": { "triggerKind": 1 },
    });
    // Editors send the same params for a popup that typing opens: it gets one suggestion. A second request at the same
    // position counts as explicit.
    let result = client.ask("textDocument/completion", params.clone())["result"].clone();
    assert_eq!((&result["isIncomplete"], result["items"].as_array().unwrap().len()), (&json!(true), 1));
    let result = client.ask("textDocument/completion", params.clone())["result"].clone();
    let items: Vec<_> = result["items"].as_array().unwrap().iter().collect();
    let labels: Vec<_> = items.iter().map(|item| (item["sortText"].clone(), item["label"].clone())).collect();
    let expected = [("0000", "add(a, b):"), ("0001", "adjust(a):"), ("0002", "advance():")];
    assert_eq!(labels, expected.map(|(rank, label)| (json!(rank), json!(label))));
    // An automatic request gets one.
    params["context"]["triggerKind"] = json!(3);
    let result = client.ask("textDocument/completion", params)["result"].clone();
    assert_eq!(result["items"].as_array().unwrap().len(), 1);
    client.quit();
}

#[test]
fn alternatives_incomplete_at_deadline_are_cached_for_later() {
    let long = "c + d + e + f + g + h + i + j + k + l + m + n";
    // The first and the second take less than 100 ms each, the third a second.
    let script = Script::new().when("x = ", "aa\n").or("bb\n").or(long).token_ms(25);
    let mut client = ready(&script, json!({ "latency-budget-ms": 500 }));
    client.open(URI, "python", "x = \n");
    let sent = Instant::now();
    let id = client.request("textDocument/inlineCompletion", invoked(0, 4));
    let (answer, at) = client.timed_answer(id);
    let took = at - sent;
    assert!(took < Duration::from_millis(800), "the answer took {took:?}");
    let shown = texts(&answer);
    // On a machine that pauses, the second may be incomplete, never the first.
    assert!(shown[0] == "aa" && shown.len() <= 2 && shown.iter().all(|it| it != long), "{shown:?}");
    client.wait_trace("alternativesFinished", &json!({}));
    let sent = Instant::now();
    assert_eq!(invoke(&mut client, 0, 4), ["aa", "bb", long]);
    assert!(sent.elapsed() < Duration::from_millis(400), "{:?}", sent.elapsed());
    client.quit();
}

#[test]
fn keystroke_stops_alternatives_and_reuses_first_suggestion() {
    // The branches would take ten seconds.
    let script = Script::new().when("x = ", "ab").or(&"b + ".repeat(20)).token_ms(100);
    let mut client = ready(&script, json!({ "latency-budget-ms": 60_000 }));
    client.open(URI, "python", "x = \n");
    let first = client.request("textDocument/inlineCompletion", invoked(0, 4));
    // The first is cached before the alternatives are decoded.
    client.wait_trace("alternativesStarted", &json!({}));
    client.notify("textDocument/didChange", insertion(URI, 2, 0, 4, "a"));
    let sent = Instant::now();
    assert_eq!(client.inline(URI, 0, 5), "b");
    assert!(sent.elapsed() < Duration::from_secs(4), "{:?}", sent.elapsed());
    assert_eq!(client.answer(first)["error"]["code"], -32800);
    client.quit();
}

#[test]
fn real_model_alternatives_differ_and_fit() {
    let Some(model) = taper_engine::testing::real_model() else { return };
    let marked = fs::read_to_string("tests/fixtures/real/stack.rs").unwrap();
    let whole = marked.replace('▮', "self.items.push(item);");
    let options = json!({ "latency-budget-ms": 60_000, "idle-work": "off" });
    let mut client = Client::ready(&["--stdio", "--model", model.to_str().unwrap()], options);
    let language = taper_grammars::by_path("stack.rs".as_ref()).unwrap();
    let faults =
        |text: &Rope| scope::fault_count(&Syntax::parse(text, language, &mut || false).unwrap().tree);
    let mut several = 0;
    // Each line as if it were incomplete here.
    for beginning in
        ["limit: us", "Self { items: ", "fn push(&mut self, ", ">= self.", "self.items.pu", "Option<T> {"]
    {
        let cursor = whole.find(beginning).unwrap() + beginning.len();
        let rest = whole[cursor..].find('\n').unwrap();
        let text = Rope::from_str(&format!("{}{}", &whole[..cursor], &whole[cursor + rest..]));
        let at = position::position_at(&text, cursor, Encoding::Utf16);
        client.open(URI, "rust", &text.to_string());
        let automatic = client.inline(URI, at.line, at.character);
        // After reopening, nothing is cached.
        client.open(URI, "rust", &text.to_string());
        let all = invoke(&mut client, at.line, at.character);
        assert_eq!(all.first().map_or("", String::as_str), automatic);
        let different: HashSet<&str> = all.iter().map(|it| it.trim()).collect();
        assert!(different.len() == all.len() && all.len() <= 3, "{all:?}");
        for candidate in &all {
            let mut with = text.clone();
            Edit::insert(cursor, candidate.clone()).apply(&mut with).unwrap();
            assert!(faults(&with) <= faults(&text), "{candidate:?}");
        }
        several += usize::from(all.len() > 1);
    }
    assert!(several > 0, "{several} places with more than one candidate");
    client.quit();
}
