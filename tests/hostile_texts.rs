//! Texts that crashed a parser, typed key by key into a running server: it still answers.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::Client;
use crate::repetition::expanded;
use crate::script::Script;

/// The language of a text, by the first word of its name; texts without one are tried in each of these.
const LANGUAGES: &[(&str, &str)] = &[
    ("bash", "shellscript"),
    ("ruby", "ruby"),
    ("python", "python"),
    ("cpp", "cpp"),
    ("csharp", "csharp"),
    ("rust", "rust"),
    ("lua", "lua"),
    ("php", "php"),
    ("js", "javascript"),
];

/// The end of a text: the line as LSP counts it, the column in UTF-16.
fn end(text: &str) -> (usize, usize) {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let line = text.rsplit('\n').next().unwrap_or_default();
    (text.matches('\n').count(), line.encode_utf16().count())
}

/// Opens a text without its last keys, types those, then deletes them.
fn type_keys(client: &mut Client, uri: &str, language: &str, text: &str) {
    let first = text.char_indices().rev().nth(59).map_or(0, |(at, _)| at);
    client.open(uri, language, &text[..first]);
    // Only the last lines are recounted.
    let cut = text[..first].rfind('\n').map_or(0, |at| at + 1);
    let (lines_before, _) = end(&text[..cut]);
    let position = |at: usize| {
        let (line, column) = end(&text[cut..at]);
        json!({ "line": lines_before + line, "character": column })
    };
    let mut version = 2;
    let mut change = |start: usize, stop: usize, typed: &str| {
        let change = json!({ "range": { "start": position(start), "end": position(stop) }, "text": typed });
        client.notify(
            "textDocument/didChange",
            json!({ "textDocument": { "uri": uri, "version": version }, "contentChanges": [change] }),
        );
        version += 1;
    };
    for (at, key) in text[first..].char_indices() {
        change(first + at, first + at, key.encode_utf8(&mut [0; 4]));
    }
    for (at, key) in text[first..].char_indices().rev() {
        change(first + at, first + at + key.len_utf8(), "");
    }
}

#[test]
fn hostile_texts_typed_into_a_server_leave_it_answering() {
    let script = Script::new().when("x", "y");
    let mut client = Client::ready(&["--stdio", "--engine", &script.written()], Value::Null);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "txt"));
    paths.sort();
    assert!(paths.len() >= 10);
    for (number, path) in paths.iter().enumerate() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = expanded(&fs::read_to_string(path).unwrap());
        let own = LANGUAGES.iter().find(|(prefix, _)| name.split('_').next() == Some(prefix));
        let languages: Vec<&str> = match own {
            Some((_, language)) => vec![language],
            None => ["java", "csharp", "c"].to_vec(),
        };
        for language in languages {
            let uri = format!("file:///w/{language}/{name}");
            type_keys(&mut client, &uri, language, &text);
            let alive = format!("file:///w/alive{number}{language}.py");
            client.open(&alive, "python", "x\n");
            assert_eq!(client.inline(&alive, 0, 1), "y", "after {name} in {language}");
        }
    }
    client.quit();
}
