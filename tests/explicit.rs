//! Explicit requests, which have their own budget, end to end.

use serde_json::{Value, json};

use crate::client::{Client, inline_params, insertion};
use crate::script::Script;

const URI: &str = "file:///w/src/a.py";
const WHOLE: &str = "one + two + three + four + five + six + seven";

/// One token takes 20 ms, and each letter is a token.
fn slow() -> Script {
    Script::new().when("total = ", WHOLE).token_ms(20)
}

fn ready(script: &Script, options: Value) -> Client {
    Client::ready(&["--stdio", "--engine", &script.written()], options)
}

fn invoked(uri: &str, line: u32, character: u32) -> Value {
    let mut params = inline_params(uri, line, character);
    params["context"]["triggerKind"] = json!(1);
    params
}

fn first(answer: &Value) -> String {
    answer["result"]["items"][0]["insertText"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn explicit_request_gets_full_text_automatic_gets_part() {
    let script = slow();
    let mut client = ready(&script, json!({ "latency-budget-ms": 100, "idle-work": "off" }));
    client.open(URI, "python", "total = \n");
    let part = client.inline(URI, 0, 8);
    assert!(part.len() < WHOLE.len() && WHOLE.starts_with(&part), "{part:?}");
    assert_eq!(first(&client.ask("textDocument/inlineCompletion", invoked(URI, 0, 8))), WHOLE);
    client.quit();
}

#[test]
fn explicit_budget_expiry_returns_best_complete_part() {
    let script = slow();
    let options = json!({ "latency-budget-ms": 10, "explicit-budget-ms": 500, "idle-work": "off" });
    let mut client = ready(&script, options);
    client.open(URI, "python", "total = \n");
    let part = first(&client.ask("textDocument/inlineCompletion", invoked(URI, 0, 8)));
    assert!(part.len() < WHOLE.len() && WHOLE.starts_with(&part), "{part:?}");
    client.quit();
}

#[test]
fn explicit_budget_is_at_least_the_latency_budget() {
    let script = slow();
    let options = json!({ "latency-budget-ms": 20_000, "explicit-budget-ms": 10 });
    let mut client = ready(&script, options);
    client.open(URI, "python", "total = \n");
    assert_eq!(first(&client.ask("textDocument/inlineCompletion", invoked(URI, 0, 8))), WHOLE);
    client.quit();
}

#[test]
fn explicit_popup_uses_explicit_budget() {
    let script = slow();
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    let options = json!({ "latency-budget-ms": 100, "idle-work": "off" });
    client.initialize(json!({ "capabilities": {}, "initializationOptions": options }));
    client.wait_ready();
    client.open(URI, "python", "total =\n");
    client.notify("textDocument/didChange", insertion(URI, 2, 0, 7, " "));
    // Marked as explicit, but caused by the key.
    let params = invoked(URI, 0, 8);
    let key = client.ask("textDocument/completion", params.clone());
    let written = |answer: &Value| {
        answer["result"]["items"][0]["textEdit"]["newText"].as_str().unwrap_or_default().to_owned()
    };
    assert!(written(&key).len() < WHOLE.len(), "{key}");
    assert_eq!(written(&client.ask("textDocument/completion", params)), WHOLE);
    client.quit();
}

#[test]
fn refreshing_client_gets_early_part_of_explicit_request() {
    let script = slow();
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    client.initialize(json!({
        "processId": null,
        "capabilities": {
            "textDocument": { "inlineCompletion": {} },
            "experimental": { "taper": { "refresh": true } },
        },
        "initializationOptions": { "latency-budget-ms": 10, "early-answer-ms": 0 },
    }));
    client.wait_ready();
    client.open(URI, "python", "total = \n");
    let part = first(&client.ask("textDocument/inlineCompletion", invoked(URI, 0, 8)));
    assert!(!part.is_empty() && part.len() < WHOLE.len() && WHOLE.starts_with(&part), "{part:?}");
    client.notice("taper/refresh", "");
    assert_eq!(first(&client.ask("textDocument/inlineCompletion", invoked(URI, 0, 8))), WHOLE);
    client.quit();
}

#[test]
fn explicit_request_is_not_debounced() {
    let script = Script::new().when("total = ", "1");
    let mut client = ready(&script, json!({ "debounce-ms": 10_000 }));
    client.open(URI, "python", "total = \n");
    let typed = client.request("textDocument/inlineCompletion", inline_params(URI, 0, 8));
    let answer = client.ask("textDocument/inlineCompletion", invoked(URI, 0, 8));
    assert_eq!(first(&answer), "1");
    assert_eq!(client.answer(typed)["error"]["code"], -32800);
    client.quit();
}
