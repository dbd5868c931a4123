//! LSP commands for an editor's menu and status line: status, pauses, statistics, explanations, options.

use serde_json::{Value, json};

use crate::client::{Client, inline_params};
use crate::script::Script;

const URI: &str = "file:///w/src/a.py";

/// Starts a server with these client capabilities; returns its `initialize` result too.
fn started(script: &Script, experimental: Value, workspace: Value) -> (Client, Value) {
    let mut client = Client::start(&["--stdio", "--engine", &script.argument()]);
    let result = client.initialize(json!({
        "rootUri": "file:///w",
        "capabilities": {
            "experimental": { "taper": experimental },
            "workspace": workspace,
            "textDocument": { "inlineCompletion": {} },
        },
        "initializationOptions": {},
    }));
    (client, result)
}

fn with_status(script: &Script) -> Client {
    started(script, json!({ "status": true, "accepted": true }), Value::Null).0
}

#[track_caller]
fn state(client: &mut Client, state: &str) -> Value {
    client.notice("taper/status", &format!("\"state\":\"{state}\""))["params"].clone()
}

#[track_caller]
fn run(client: &mut Client, command: &str, argument: Value) -> Value {
    let arguments = if argument.is_null() { Value::Null } else { json!([argument]) };
    let answer =
        client.ask("workspace/executeCommand", json!({ "command": command, "arguments": arguments }));
    assert_eq!(answer["error"], Value::Null, "{command}");
    answer["result"].clone()
}

#[test]
fn status_is_sent_when_it_changes() {
    // Slow enough to be reported as busy.
    let script = Script::new().when("x", "yyyyyyyy").token_ms(100);
    script.write();
    let mut client = with_status(&script);
    state(&mut client, "loading");
    let ready = state(&mut client, "ready");
    assert!(!ready["model"].as_str().unwrap().is_empty(), "{ready}");
    assert_eq!(ready["paused"], json!({ "everywhere": false, "languages": [], "documents": [] }));
    client.open(URI, "python", "x\n");
    let request = client.request("textDocument/inlineCompletion", inline_params(URI, 0, 1));
    state(&mut client, "thinking");
    state(&mut client, "ready");
    client.answer(request);
    client.quit();
}

#[test]
fn status_is_not_sent_without_client_capability() {
    let script = Script::new().when("x", "y");
    script.write();
    let (mut client, _) = started(&script, Value::Null, Value::Null);
    client.wait_ready();
    client.open(URI, "python", "x\n");
    let answer = client.ask("textDocument/inlineCompletion", inline_params(URI, 0, 1));
    assert_eq!(answer["result"]["items"][0].get("command"), None);
    assert!(client.notices.iter().all(|notice| notice["method"] != "taper/status"), "{:?}", client.notices);
    client.quit();
}

#[test]
fn missing_model_error_lasts_until_model_exists() {
    let script = Script::new().when("x", "y");
    let mut client = with_status(&script);
    let error = state(&mut client, "error");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&*script.path().to_string_lossy()), "{message}");
    client.notice("window/showMessage", "cannot suggest yet");
    script.write();
    client.open(URI, "python", "x\n");
    // A request looks for the model again, at most every few seconds.
    let mut requests = 0;
    while client.inline(URI, 0, 1) != "y" {
        requests += 1;
        assert!(requests < 1_000_000, "the model is not found");
        std::thread::yield_now();
    }
    state(&mut client, "ready");
    client.quit();
}

#[test]
fn pauses_apply_to_their_scope_until_resumed() {
    let script = Script::new().when("x", "y");
    script.write();
    let mut client = with_status(&script);
    state(&mut client, "ready");
    let (python, other, rust) = (URI, "file:///w/src/b.py", "file:///w/src/a.rs");
    client.open(python, "python", "x\n");
    client.open(other, "python", "x\n");
    client.open(rust, "rust", "x\n");
    let shown = |client: &mut Client| [python, other, rust].map(|uri| client.inline(uri, 0, 1) == "y");
    assert_eq!(shown(&mut client), [true; 3]);
    run(&mut client, "taper.pause", json!({ "scope": "document", "uri": python }));
    assert_eq!(shown(&mut client), [false, true, true]);
    run(&mut client, "taper.pause", json!({ "scope": "language", "language": "Python" }));
    run(&mut client, "taper.resume", json!({ "scope": "document", "uri": python }));
    assert_eq!(shown(&mut client), [false, false, true]);
    run(&mut client, "taper.pause", Value::Null);
    assert_eq!(shown(&mut client), [false; 3]);
    let paused = state(&mut client, "paused");
    assert_eq!(paused["paused"], json!({ "everywhere": true, "languages": ["python"], "documents": [] }));
    run(&mut client, "taper.resume", Value::Null);
    assert_eq!(shown(&mut client), [true; 3]);
    state(&mut client, "ready");
    client.quit();
}

#[test]
fn commands_are_advertised_and_invalid_ones_rejected() {
    let script = Script::new();
    script.write();
    let (mut client, result) = started(&script, Value::Null, Value::Null);
    let commands = result["capabilities"]["executeCommandProvider"]["commands"].as_array().unwrap();
    assert!(commands.contains(&json!("taper.pause")), "{commands:?}");
    for wrong in [
        json!({ "command": "taper.nonsense", "arguments": [] }),
        json!({ "command": "taper.pause", "arguments": [{ "scope": "moon" }] }),
        json!({}),
    ] {
        let answer = client.ask("workspace/executeCommand", wrong.clone());
        assert_eq!(answer["error"]["code"], -32602, "{wrong}");
    }
    client.quit();
}

#[test]
fn statistics_command_counts_outcomes() {
    let script = Script::new().when("x", "y");
    script.write();
    let mut client = with_status(&script);
    state(&mut client, "ready");
    client.open(URI, "python", "x # nothing\n");
    let answer = client.ask("textDocument/inlineCompletion", inline_params(URI, 0, 1));
    assert_eq!(answer["result"]["items"][0]["command"]["command"], "taper.accepted");
    assert_eq!(client.inline(URI, 0, 5), "");
    run(&mut client, "taper.accepted", Value::Null);
    let counts = run(&mut client, "taper.statistics", Value::Null);
    for (name, expected) in
        [("asked", 2), ("shown", 1), ("empty", 1), ("superseded", 0), ("cancelled", 0), ("accepted", 1)]
    {
        assert_eq!(counts[name], expected, "{name} in {counts}");
    }
    assert!(counts["p50Ms"].is_number() && counts["p95Ms"].is_number(), "{counts}");
    client.quit();
}

#[test]
fn explain_command_describes_last_response() {
    let script = Script::new().when("x", "y");
    script.write();
    let mut client = with_status(&script);
    state(&mut client, "ready");
    let nothing = json!({ "suggestion": null, "silence": null });
    assert_eq!(run(&mut client, "taper.explainLast", Value::Null), nothing);
    client.open(URI, "python", "x # nothing\n");
    assert_eq!(client.inline(URI, 0, 1), "y");
    let explained = run(&mut client, "taper.explainLast", Value::Null)["suggestion"].clone();
    assert_eq!((&explained["path"], &explained["text"]), (&json!("src/a.py"), &json!("y")));
    assert_eq!(explained["language"], "python");
    assert!(explained["work"]["promptTokens"].as_u64().unwrap() > 0, "{explained}");
    assert_eq!(client.inline(URI, 0, 1), "y");
    let explained = run(&mut client, "taper.explainLast", Value::Null)["suggestion"].clone();
    assert_eq!((&explained["text"], &explained["work"]), (&json!("y"), &Value::Null), "it was there already");
    assert_eq!(client.inline(URI, 0, 5), "");
    let explained = run(&mut client, "taper.explainLast", Value::Null);
    assert_eq!((&explained["suggestion"]["text"], &explained["silence"]["text"]), (&json!("y"), &json!("")));
    client.quit();
}

#[test]
fn models_command_lists_models() {
    let script = Script::new();
    script.write();
    let mut client = with_status(&script);
    let models = run(&mut client, "taper.models", Value::Null);
    let first = &models[0];
    assert_eq!(first["name"], "qwen2.5-coder-0.5b");
    assert_eq!(first["here"], false);
    assert!(first["bytes"].as_u64().unwrap() > 100_000_000);
    client.quit();
}

#[test]
fn configuration_is_requested_from_capable_client() {
    let script = Script::new().when("x", "y");
    script.write();
    let (mut client, _) = started(&script, json!({ "status": true }), json!({ "configuration": true }));
    client.configuration = json!([{ "enable": false }]);
    client.notice("workspace/configuration", "taper");
    assert_eq!(state(&mut client, "paused")["message"], "the option `enable` is false");
    client.open(URI, "python", "x\n");
    assert_eq!(client.inline(URI, 0, 1), "");
    client.configuration = json!([{ "enable": true, "maxLines": "many" }]);
    client.notify("workspace/didChangeConfiguration", json!({ "settings": null }));
    client.notice("workspace/configuration", "taper");
    client.notice("window/showMessage", "maxLines");
    state(&mut client, "ready");
    assert_eq!(client.inline(URI, 0, 1), "y");
    // An empty result changes nothing.
    client.configuration = json!([null]);
    client.notify("workspace/didChangeConfiguration", json!({ "settings": null }));
    client.notice("workspace/configuration", "taper");
    assert_eq!(client.inline(URI, 0, 1), "y");
    client.quit();
}
