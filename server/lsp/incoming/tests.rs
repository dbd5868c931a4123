//! Tests of parsing: ordinary and hostile bodies.

use serde_json::json;

use super::*;
use crate::text::Position;

/// Parses a body whose complexity is given as zero.
fn read_simple(body: &str) -> Option<IncomingMessage> {
    parse_message(body.as_bytes(), JsonComplexity::default())
}

/// The code and the id of an error.
#[track_caller]
fn error(body: &str) -> (i64, Id) {
    match read_simple(body) {
        Some(IncomingMessage::Malformed(response)) => {
            (response.error().unwrap().code.code(), response.id().clone())
        }
        other => panic!("{body}: {other:?}"),
    }
}

#[track_caller]
fn request(body: &str) -> Request {
    match read_simple(body) {
        Some(IncomingMessage::Request(request)) => request,
        other => panic!("{body}: {other:?}"),
    }
}

#[track_caller]
fn change(params: &str) -> Option<DocumentChange> {
    let body = format!(r#"{{"params":{params},"method":"textDocument/didChange","jsonrpc":"2.0"}}"#);
    match read_simple(&body) {
        Some(IncomingMessage::Changed(changed)) => Some(changed),
        None => None,
        other => panic!("{params}: {other:?}"),
    }
}

#[test]
fn requests_and_notifications_are_read_in_any_order_of_members() {
    let it = request(r#" {"params":[1,"x"],"id":7,"more":{},"method":"m","jsonrpc":"2.0"} "#);
    assert_eq!((it.method(), it.id(), it.params()), ("m", Some(&Id::Number(7)), Some(&json!([1, "x"]))));
    let it = request(r#"{"jsonrpc":"2.0","method":"a\u0062","id":"seven"}"#);
    assert_eq!((it.method(), it.id(), it.params()), ("ab", Some(&Id::String("seven".into())), None));
    let it = request(r#"{"jsonrpc":"2.0","method":"m","params":null}"#);
    assert_eq!((it.id(), it.params()), (None, Some(&Value::Null)));
    assert_eq!(request(r#"{"jsonrpc":"2.0","method":"m","id":null}"#).id(), Some(&Id::Null));
}

#[test]
fn invalid_request_gets_error_with_its_id() {
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":3,"method":"m","params":{}{}}}"#,
        "[".repeat(9000),
        "]".repeat(9000)
    );
    for (body, code, id) in [
        ("", -32700, Id::Null),
        ("{", -32700, Id::Null),
        ("nonsense", -32700, Id::Null),
        (r#"{"jsonrpc":"2.0","id":3,"method":"m",}"#, -32700, Id::Null),
        ("null", -32600, Id::Null),
        ("[]", -32600, Id::Null),
        (r#"["2.0","exit"]"#, -32600, Id::Null),
        (r#"[{"jsonrpc":"2.0","id":3,"method":"m"}]"#, -32600, Id::Null),
        ("{}", -32600, Id::Null),
        (r#"{"id":3}"#, -32600, Id::Number(3)),
        (r#"{"id":3,"method":"m"}"#, -32600, Id::Number(3)),
        (r#"{"jsonrpc":"1.0","id":3,"method":"m"}"#, -32600, Id::Number(3)),
        (r#"{"jsonrpc":2.0,"id":3,"method":"m"}"#, -32600, Id::Number(3)),
        (r#"{"jsonrpc":"2.0","id":"three","method":null}"#, -32600, Id::String("three".into())),
        (r#"{"jsonrpc":"2.0","id":3,"method":["m"]}"#, -32600, Id::Number(3)),
        (r#"{"jsonrpc":"2.0","id":3,"method":""}"#, -32600, Id::Number(3)),
        (r#"{"jsonrpc":"2.0","id":3.5,"method":"m"}"#, -32600, Id::Null),
        (r#"{"jsonrpc":"2.0","id":99999999999999999999,"method":"m"}"#, -32600, Id::Null),
        (r#"{"jsonrpc":"2.0","id":{"a":[1]},"method":"m"}"#, -32600, Id::Null),
        (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, -32600, Id::Null),
        (r#"{"jsonrpc":"2.0","id":3,"id":4,"method":"m"}"#, -32600, Id::Null),
        (r#"{"jsonrpc":"2.0","id":3,"method":"m","params":{"n":1e999}}"#, -32700, Id::Number(3)),
        (&deep, -32700, Id::Number(3)),
    ] {
        assert_eq!(error(body), (code, id), "{body:.200}");
    }
    assert!(matches!(
        parse_message(b"{\"a\":\"\xff\"}", JsonComplexity::default()),
        Some(IncomingMessage::Malformed(_))
    ));
}

#[test]
fn a_message_that_is_too_complex_is_refused_and_a_notification_dropped() {
    let much = JsonComplexity { objects: 1_000_000, values: 1_000_000 };
    let read = |body: &str| parse_message(body.as_bytes(), much);
    let refused = read(r#"{"jsonrpc":"2.0","id":3,"method":"m","params":{}}"#);
    let Some(IncomingMessage::Malformed(response)) = refused else { panic!("{refused:?}") };
    assert_eq!((response.id(), response.error().unwrap().code.code()), (&Id::Number(3), -32600));
    assert!(read(r#"{"jsonrpc":"2.0","method":"m","params":{}}"#).is_none());
    let answered = read(r#"{"jsonrpc":"2.0","id":3,"result":{}}"#);
    assert!(matches!(answered, Some(IncomingMessage::Response(response)) if response.is_error()));
    // The changes of a document are not parsed into a tree.
    let body = r#"{"jsonrpc":"2.0","method":"textDocument/didChange","params":{"textDocument":{"uri":"a"},"contentChanges":[]}}"#;
    assert!(matches!(read(body), Some(IncomingMessage::Changed(DocumentChange { changes: Some(_), .. }))));
}

#[test]
fn responses_are_read_and_unreadable_ones_are_errors() {
    let read = |body: &str| match read_simple(body) {
        Some(IncomingMessage::Response(response)) => Some(response.into_parts()),
        None => None,
        other => panic!("{body}: {other:?}"),
    };
    assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"result":[null]}"#), Some((Id::Number(1), Ok(json!([null])))));
    assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"result":null}"#), Some((Id::Number(1), Ok(Value::Null))));
    let (_, body) = read(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#).unwrap();
    assert_eq!(body.unwrap_err().message, "no");
    assert!(read(r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#).unwrap().1.is_err());
    for ignored in [
        r#"{"jsonrpc":"2.0","id":null,"result":1}"#,
        r#"{"jsonrpc":"2.0","result":1}"#,
        r#"{"id":1,"result":1}"#,
        r#"{"jsonrpc":"2.0","id":[],"error":{}}"#,
    ] {
        assert_eq!(read(ignored), None, "{ignored}");
    }
}

#[test]
fn surrogates_that_stand_alone_are_replaced_and_pairs_are_kept() {
    for (written, text) in [
        (r"\ud83d\ude00", "\u{1f600}"),
        (r"a\ud83db", "a\u{fffd}b"),
        (r"\ude00", "\u{fffd}"),
        (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (r"\ud83d\u0041", "\u{fffd}A"),
        (r"\\ud83d\uD83D", "\\ud83d\u{fffd}"),
        (r"é\ud800é", "é\u{fffd}é"),
    ] {
        let it = request(&format!(r#"{{"jsonrpc":"2.0","method":"m","params":["{written}"]}}"#));
        assert_eq!(it.params(), Some(&json!([text])), "{written}");
        let params = format!(r#"{{"textDocument":{{"uri":"u"}},"contentChanges":[{{"text":"{written}"}}]}}"#);
        assert_eq!(change(&params).unwrap().changes.unwrap()[0].text, text, "{written}");
    }
}

#[test]
fn changes_are_all_read_or_none_and_numbers_are_clamped() {
    let at = |line, character| Position { line, character };
    let changed = change(
        r#"{"contentChanges":[
            {"range":{"start":{"line":0,"character":-1},"end":{"line":9e99,"character":2.7}},"rangeLength":"x","text":"a"},
            {"range":null,"text":"b"},{"text":"c"}],
            "textDocument":{"uri":"u","version":7}}"#,
    )
    .unwrap();
    assert_eq!((changed.uri.as_str(), changed.version), ("u", Some(7)));
    let changes = changed.changes.unwrap();
    assert_eq!(changes[0], TextChange { range: Some(at(0, 0)..at(u32::MAX, 2)), text: "a".to_owned() });
    assert_eq!(changes[1], TextChange { range: None, text: "b".to_owned() });
    assert_eq!(changes.len(), 3);
    for version in ["null", "1.5", "\"2\"", "[]", "99999999999999999999"] {
        let params = format!(r#"{{"contentChanges":[],"textDocument":{{"uri":"u","version":{version}}}}}"#);
        assert_eq!(change(&params).unwrap().version, None, "{version}");
    }
    for wrong in [
        r#""contentChanges":1"#,
        r#""contentChanges":null"#,
        r#""contentChanges":[{}]"#,
        r#""contentChanges":[{"text":null}]"#,
        r#""contentChanges":[{"range":1,"text":""}]"#,
        r#""contentChanges":[{"range":{"start":{"line":"1","character":1},"end":{"line":1,"character":1}},"text":""}]"#,
        r#""contentChanges":[{"range":{"start":{"line":1e999,"character":1},"end":{"line":1,"character":1}},"text":""}]"#,
        r#""other":1"#,
    ] {
        let changed = change(&format!(r#"{{"textDocument":{{"uri":"u","version":7}},{wrong}}}"#)).unwrap();
        assert_eq!((changed.uri.as_str(), changed.changes), ("u", None), "{wrong}");
    }
    for nameless in
        ["null", "[]", "{}", r#"{"textDocument":5}"#, r#"{"textDocument":{"uri":1},"contentChanges":[]}"#]
    {
        assert!(change(nameless).is_none(), "{nameless}");
    }
}

#[test]
fn recorded_messages_are_within_complexity_limit() {
    for text in [
        include_str!("../../../tests/fixtures/initialize-nvim.json"),
        include_str!("../../../tests/fixtures/initialize-hx.json"),
        include_str!("../../../tests/fixtures/initialize-vscode.json"),
    ] {
        let count = |marks: &[char]| text.matches(marks).count();
        let complexity = JsonComplexity { objects: count(&['{']), values: count(&['[', ',', ':']) };
        assert!(matches!(parse_message(text.as_bytes(), complexity), Some(IncomingMessage::Request(_))));
        assert!(
            complexity.objects * OBJECT_BYTES + complexity.values * VALUE_BYTES < MAX_TREE_BYTES / 100,
            "{complexity:?}"
        );
    }
}
