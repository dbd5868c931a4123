//! Hostile messages and documents: too large, too deep, too many, out of order. The server keeps running and stays
//! small.

use serde_json::{Value, json};

use crate::client::{Client, frame, inline_params, insertion, notification};
use crate::process;
use crate::script::Script;

const URI: &str = "file:///w/a.py";

fn script() -> Script {
    Script::new().when("x", "y").when("q", "r")
}

fn ready(script: &Script) -> Client {
    Client::ready(&["--stdio", "--engine", &script.written()], json!({ "other-files": false }))
}

#[track_caller]
fn check_alive(client: &mut Client) {
    let uri = "file:///w/alive.py";
    client.open(uri, "python", "x\n");
    assert_eq!(client.inline(uri, 0, 1), "y");
}

fn framed(body: &str) -> Vec<u8> {
    format!("Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn large_or_deep_message_takes_little_memory() {
    let script = script();
    let mut client = ready(&script);
    check_alive(&mut client);
    let before = process::peak(client.pid());
    let size = 5 << 20;
    let many = |item: &str| format!("[{item}{}]", format!(",{item}").repeat(size / (item.len() + 1)));
    let mut methods = vec![
        ("textDocument/didOpen", false),
        ("workspace/didChangeConfiguration", false),
        ("textDocument/didChange", false),
    ];
    for values in [
        many(r#"{"a":{}}"#),
        many("[]"),
        many("0"),
        many(r#"{"a":0}"#),
        format!("{}{}", "[".repeat(size / 2), "]".repeat(size / 2)),
        format!("{}0{}", r#"{"a":"#.repeat(size / 6), "}".repeat(size / 6)),
    ] {
        // Each is rejected where it is a request; the others are dropped in the same place.
        methods.push(("textDocument/inlineCompletion", true));
        for (method, request) in std::mem::take(&mut methods) {
            let (id, _) = client.prepare(method, Value::Null);
            if !request {
                client.forget_requests();
            }
            let id_member = if request { format!(r#""id":{id},"#) } else { String::new() };
            let body = format!(
                r#"{{"jsonrpc":"2.0",{id_member}"method":"{method}","params":{{"textDocument":{{"uri":"{URI}"}},"settings":{values}}}}}"#
            );
            client.raw(&framed(&body));
            if request {
                let code = client.answer(id)["error"]["code"].clone();
                assert!(code == -32600 || code == -32700, "{code}: {values:.60}");
            }
        }
        check_alive(&mut client);
        client.nameless.clear();
    }
    if let (Some(before), Some(after)) = (before, process::peak(client.pid())) {
        assert!(after < before + 100, "from {before} MB to {after} MB");
    }
    client.quit();
}

#[test]
fn hundred_thousand_changes_in_one_message_are_applied() {
    let script = script();
    let mut client = ready(&script);
    client.open(URI, "none", "");
    let change = |text: &str| {
        let at = json!({ "line": 0, "character": 0 });
        json!({ "range": { "start": at, "end": at, "unknown": [1] }, "rangeLength": 0, "text": text })
    };
    let mut changes = vec![change("a"); 100_000];
    changes.push(change("x"));
    let params = json!({ "textDocument": { "uri": URI, "version": 2 }, "contentChanges": changes });
    client.notify("textDocument/didChange", params);
    assert_eq!(client.inline(URI, 0, 1), "", "the word continues");
    client.insert(URI, 3, 0, 1, "\n");
    assert_eq!(client.inline(URI, 0, 1), "y");
    let peak = process::peak(client.pid());
    assert!(peak.is_none_or(|peak| peak < 250), "{peak:?} MB");
    client.quit();
}

#[test]
fn wrong_content_length_does_not_lose_next_message() {
    let script = script();
    let mut client = ready(&script);
    for off in [-20, -3, -1, 1, 2, 5, 17, 40] {
        let (first, message) = client.prepare("textDocument/inlineCompletion", inline_params(URI, 0, 0));
        let body = String::from_utf8(message).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
        let length = body.len().checked_add_signed(off).unwrap();
        let (second, next) = client.prepare("no/such", Value::Null);
        client.raw(&[format!("Content-Length: {length}\r\n\r\n{body}").into_bytes(), next].concat());
        assert_eq!(client.answer(second)["error"]["code"], -32601, "{off}");
        if off > 0 {
            assert!(client.answer(first)["result"].is_object(), "{off}");
        } else {
            assert_eq!(client.nameless_error(), -32700, "{off}");
        }
    }
    client.forget_requests();
    client.quit();
}

#[test]
fn lone_surrogates_keep_document_in_sync() {
    let script = script();
    let mut client = ready(&script);
    client.raw(&framed(&format!(
        r#"{{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{{"textDocument":{{"uri":"{URI}","languageId":"python","version":1,"text":"\ud83d\nq"}}}}}}"#
    )));
    assert_eq!(client.inline(URI, 1, 1), "r");
    client.raw(&framed(&format!(
        r#"{{"jsonrpc":"2.0","method":"textDocument/didChange","params":{{"textDocument":{{"uri":"{URI}","version":2}},"contentChanges":[{{"range":{{"start":{{"line":0,"character":1}},"end":{{"line":0,"character":1}}}},"text":"\udc00 x"}}]}}}}"#
    )));
    assert_eq!(client.inline(URI, 0, 4), "y");
    client.quit();
}

#[test]
fn hundred_thousand_requests_and_cancellations_are_all_answered() {
    let script = script();
    let mut client = ready(&script);
    client.open(URI, "python", "x\nq\n");
    let (mut burst, mut ids) = (Vec::new(), Vec::new());
    for number in 0..100_000_u32 {
        let (id, message) =
            client.prepare("textDocument/inlineCompletion", inline_params(URI, number % 2, 1));
        burst.extend(message);
        ids.push(id);
        if number % 5 == 0 {
            let cancelled = if number % 10 == 0 { json!(id) } else { json!(format!("never{number}")) };
            burst.extend(notification("$/cancelRequest", json!({ "id": cancelled })));
        }
    }
    client.raw(&burst);
    for id in ids {
        client.answer(id);
    }
    check_alive(&mut client);
    let peak = process::peak(client.pid());
    assert!(peak.is_none_or(|peak| peak < 250), "{peak:?} MB");
    client.quit();
}

#[test]
fn rapidly_opened_and_closed_documents_release_memory() {
    let script = script();
    let mut client = ready(&script);
    let text = "value = \"0123456789 abcdefghijklmnopqrstuvwxyz\"\n".repeat(200_000);
    for number in 0..20 {
        let uri = format!("file:///w/{number}.py");
        client.open(&uri, "python", &text);
        client.close(&uri);
    }
    check_alive(&mut client);
    let peak = process::peak(client.pid());
    assert!(peak.is_none_or(|peak| peak < 600), "{peak:?} MB");
    client.quit();
}

/// Random edits with hostile texts and positions, in open and unknown documents, interleaved with requests and
/// cancellations: every request gets its response, and the server works afterwards.
#[test]
fn random_hostile_editing_is_survived() {
    let script = script();
    let mut client = ready(&script);
    let mut random = fastrand::Rng::with_seed(19);
    let texts = [
        "",
        "x",
        "q",
        "\n",
        "\r",
        "\r\n",
        "\u{2028}",
        "\u{85}",
        "\0",
        "\u{feff}",
        "😀",
        "é",
        "e\u{301}",
        "\u{202e}",
        "\t",
        "\"\"\"",
        "`",
        "{{{{",
        "))))",
        "def f(a):\n    return a\n",
        "\u{fdd0}\u{10ffff}",
        "<<EOF\n",
        "/*",
        "'",
        "\\",
    ];
    let languages = ["python", "rust", "typescript", "markdown", "none", "", "c", "html"];
    let mut ids = Vec::new();
    for version in 0..3000_i64 {
        let uri = format!("file:///w/{}", random.u8(0..4));
        let document = json!({ "uri": uri, "version": version - i64::from(random.u8(0..20) / 19) * 5 });
        let text: String = (0..random.usize(0..12)).map(|_| *random.choice(&texts).unwrap()).collect();
        let number = |random: &mut fastrand::Rng| match random.u8(0..20) {
            0 => json!(-1),
            1 => json!(u64::MAX),
            2 => json!(1e30),
            _ => json!(random.u8(0..30)),
        };
        let place =
            |random: &mut fastrand::Rng| json!({ "line": number(random), "character": number(random) });
        match random.u8(0..20) {
            0..2 => client.open(&uri, random.choice(languages).unwrap(), &text),
            2 => client.notify("textDocument/didClose", json!({ "textDocument": document })),
            3 => client.notify(
                "textDocument/didChange",
                json!({ "textDocument": document, "contentChanges": [{ "text": text }] }),
            ),
            4..14 => {
                let changes: Vec<Value> = (0..random.usize(0..4))
                    .map(|_| json!({ "range": { "start": place(&mut random), "end": place(&mut random) }, "text": text }))
                    .collect();
                client.notify(
                    "textDocument/didChange",
                    json!({ "textDocument": document, "contentChanges": changes }),
                );
            }
            14 => client.notify("$/cancelRequest", json!({ "id": version / 3 })),
            15 => client
                .notify("taper/cursor", json!({ "textDocument": document, "position": place(&mut random) })),
            _ => {
                let mut params = inline_params(&uri, 0, 0);
                params["position"] = place(&mut random);
                let method =
                    random.choice(["textDocument/inlineCompletion", "textDocument/completion"]).unwrap();
                ids.push(client.request(method, params));
            }
        }
    }
    for id in ids {
        client.answer(id);
    }
    check_alive(&mut client);
    assert!(!client.log().contains("panic"), "{}", client.log());
    client.quit();
}

/// Messages with a few bytes changed: the server answers the next request, whatever it makes of them.
#[test]
fn mutated_messages_are_survived() {
    let script = script();
    let mut client = ready(&script);
    let mut random = fastrand::Rng::with_seed(7);
    let document = json!({ "uri": URI, "languageId": "python", "version": 1, "text": "x = 1\nq" });
    let parts = [
        notification("textDocument/didOpen", json!({ "textDocument": document })),
        notification("textDocument/didChange", insertion(URI, 2, 0, 1, "x")),
        notification(
            "workspace/didChangeConfiguration",
            json!({ "settings": { "taper": { "max-lines": 3 } } }),
        ),
        notification("$/cancelRequest", json!({ "id": 3 })),
        frame(
            &json!({ "jsonrpc": "2.0", "id": "a", "method": "textDocument/inlineCompletion", "params": inline_params(URI, 0, 1) }),
        ),
        frame(&json!({ "jsonrpc": "2.0", "id": "b", "result": { "x": [1, 2.5, null] } })),
    ];
    for _ in 0..1500 {
        let mut message = random.choice(&parts).unwrap().clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..message.len());
            match random.u8(0..3) {
                0 => message[at] = random.u8(..),
                1 => drop(message.remove(at)),
                _ => message.insert(at, *random.choice(b"{}[]\",:0-e\\\n\r").unwrap()),
            }
        }
        client.raw(&message);
        // `shutdown` and `exit` are too many bytes away to arise by chance.
        client.raw(b"\n\n");
    }
    let (id, message) = client.prepare("no/such", Value::Null);
    client.raw(&message);
    assert_eq!(client.answer(id)["error"]["code"], -32601);
    check_alive(&mut client);
    assert!(!client.log().contains("panic"), "{}", client.log());
    client.allow_strays();
    client.quit();
}
