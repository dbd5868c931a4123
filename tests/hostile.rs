//! Texts that ended a parser, typed key by key into a running server: it still answers.
//! It knows nothing of grammars.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::Client;
use crate::script::Script;

/// The language of a text, by the first word of its name; the others are tried in each of these.
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

/// Repetitions as `tests/fixtures/hostile/README.md` says.
fn expanded(text: &str) -> String {
    let Some((before, rest)) = text.split_once('⟦') else { return text.to_owned() };
    let (inside, after) = rest.split_once('⟧').unwrap();
    let at = inside.find(['×', '^']).unwrap();
    let (count, mut piece) = (inside[..at].parse::<usize>().unwrap(), inside[at..].chars());
    let indented = piece.next() == Some('^');
    let line = |n| format!("{}{}", " ".repeat(if indented { n } else { 0 }), piece.as_str());
    format!("{before}{}{}", (0..count).map(line).collect::<String>(), expanded(after))
}

/// Opens a text without its last keys and types those, then deletes them.
fn type_keys(client: &mut Client, uri: &str, language: &str, text: &str) {
    let keys: Vec<char> = text.chars().collect();
    let at = keys.len().saturating_sub(120);
    let mut now: String = keys[..at].iter().collect();
    client.open(uri, language, &now);
    let end = |text: &str| {
        // Line ends as LSP counts them; columns in UTF-16.
        let normal = text.replace("\r\n", "\n").replace('\r', "\n");
        let line = normal.matches('\n').count();
        let column = normal.rsplit('\n').next().unwrap_or_default().encode_utf16().count();
        json!({ "line": line, "character": column })
    };
    let mut version = 2;
    let mut change = |client: &mut Client, start: &str, stop: &str, text: &str| {
        let change = json!({ "range": { "start": end(start), "end": end(stop) }, "text": text });
        client.notify(
            "textDocument/didChange",
            json!({ "textDocument": { "uri": uri, "version": version }, "contentChanges": [change] }),
        );
        version += 1;
    };
    for key in &keys[at..] {
        let key = key.to_string();
        change(client, &now, &now, &key);
        now.push_str(&key);
    }
    while let Some(key) = now.pop() {
        let longer = format!("{now}{key}");
        change(client, &now, &longer, "");
        if now.chars().count() <= at {
            break;
        }
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
