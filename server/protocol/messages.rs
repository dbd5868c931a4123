//! The messages that taper reads and writes, leniently read: what an editor sends slightly wrong still counts.
//! It knows nothing of how they arrive or of what is done with them.
//!
//! Own types where tower-lsp's are stricter than editors are: its URIs refuse paths with brackets, its positions
//! refuse negative numbers, and a notification that it refuses is lost without a word, which for a change of a
//! document means wrong text from then on.

use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Value, json};
use tower_lsp::ls_types::notification::Notification;

use crate::protocol::commands;
use crate::session::{Grown, Shown};
use crate::suggest::Trigger;
use crate::text::{Encoding, Position};

/// The notification that the cursor rests somewhere without a key.
pub(crate) const CURSOR: &str = "taper/cursor";

/// The notification that a place is to be asked about again. The params: `textDocument.uri`, `position`, `version`.
pub(crate) enum Refresh {}

impl Notification for Refresh {
    type Params = Value;
    const METHOD: &'static str = "taper/refresh";
}

/// The params of [`Refresh`].
pub(crate) fn grown(grown: &Grown) -> Value {
    let Grown { uri, position, version } = grown;
    json!({ "textDocument": { "uri": uri }, "position": written_position(*position), "version": version })
}

/// What the client says of itself in `initialize`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Greeting {
    /// How it will count columns: what is answered as `positionEncoding`.
    pub(crate) encoding: Encoding,
    /// Its process, if it says so: without that one there is nobody to serve.
    pub(crate) process: Option<i64>,
    /// Whether it asks for inline completions.
    pub(crate) inline: bool,
    /// Whether it shows progress that the server begins.
    pub(crate) progress: bool,
    /// Whether it can be asked what is set.
    pub(crate) configuration: bool,
    /// Whether it shows the state of the server.
    pub(crate) status: bool,
    /// Whether it asks again when more is known than was answered.
    pub(crate) refresh: bool,
    /// Whether it runs a suggestion's command when that is taken, and wants to have it counted.
    pub(crate) accepted: bool,
    /// Folders of the workspace, as decoded paths, the longest first.
    pub(crate) roots: Vec<String>,
    /// Options.
    pub(crate) options: Value,
}

impl Greeting {
    /// Reads the params of `initialize`. Whatever is missing has the protocol's default.
    pub(crate) fn read(params: &Value) -> Self {
        let offered = params.pointer("/capabilities/general/positionEncodings").and_then(Value::as_array);
        let encoding = offered.into_iter().flatten().filter_map(|name| match name.as_str()? {
            "utf-8" => Some(Encoding::Utf8),
            "utf-16" => Some(Encoding::Utf16),
            "utf-32" => Some(Encoding::Utf32),
            _ => None,
        });
        let folders = params.get("workspaceFolders").and_then(Value::as_array);
        let folders = folders.into_iter().flatten().filter_map(|folder| folder.get("uri")?.as_str());
        let mut roots: Vec<String> = folders.map(path_of).collect();
        if roots.is_empty() {
            let uri = params.get("rootUri").and_then(Value::as_str).map(path_of);
            let path = params.get("rootPath").and_then(Value::as_str).map(|path| path.replace('\\', "/"));
            roots.extend(uri.or(path));
        }
        for root in &mut roots {
            root.truncate(root.trim_end_matches('/').len());
        }
        roots.sort_by_key(|root| std::cmp::Reverse(root.len()));
        let inline = params.pointer("/capabilities/textDocument/inlineCompletion");
        let flag = |path: &str| {
            params.pointer(&format!("/capabilities/{path}")).and_then(Value::as_bool).unwrap_or(false)
        };
        Self {
            encoding: encoding.max().unwrap_or(Encoding::Utf16),
            process: params.get("processId").and_then(Value::as_i64),
            inline: inline.is_some_and(|inline| !inline.is_null() && inline != &json!(false)),
            progress: flag("window/workDoneProgress"),
            configuration: flag("workspace/configuration"),
            status: flag("experimental/taper/status"),
            refresh: flag("experimental/taper/refresh"),
            accepted: flag("experimental/taper/accepted"),
            roots,
            options: params.get("initializationOptions").cloned().unwrap_or(Value::Null),
        }
    }

    /// A document's workspace folder, if it is a file in one, and the path that the model is shown for it: relative to that
    /// folder, else its name.
    pub(crate) fn located(&self, uri: &str) -> (Option<PathBuf>, String) {
        let path = path_of(uri);
        let mut roots = self.roots.iter();
        match roots.find_map(|root| Some((root, path.strip_prefix(root.as_str())?.strip_prefix('/')?))) {
            // Not on this machine, or on no disk, there is nothing around it to be read.
            Some((root, inside)) => (uri.starts_with("file:").then(|| folder(root)), inside.to_owned()),
            None => (None, path.rsplit('/').next().unwrap_or_default().to_owned()),
        }
    }
}

/// The answer to `initialize`.
pub(crate) fn capabilities(greeting: &Greeting) -> Value {
    let encoding = match greeting.encoding {
        Encoding::Utf8 => "utf-8",
        Encoding::Utf16 => "utf-16",
        Encoding::Utf32 => "utf-32",
    };
    let mut capabilities = json!({
        "positionEncoding": encoding,
        "textDocumentSync": { "openClose": true, "change": 2, "save": { "includeText": false } },
        "inlineCompletionProvider": true,
        "executeCommandProvider": { "commands": commands::NAMES },
        "experimental": { "taper": { "refresh": true, "cursor": true } },
    });
    // With both, the popup would cover the inline text: one or the other.
    if !greeting.inline {
        capabilities["completionProvider"] =
            json!({ "triggerCharacters": [".", " ", "(", ":", "=", ",", "\n"], "resolveProvider": false });
    }
    json!({
        "capabilities": capabilities,
        "serverInfo": { "name": "taper", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// `params.textDocument.uri`.
pub(crate) fn uri(params: &Value) -> Option<String> {
    params.pointer("/textDocument/uri")?.as_str().map(str::to_owned)
}

/// `params.textDocument.version`, if the editor counts.
pub(crate) fn version(params: &Value) -> Option<i64> {
    params.pointer("/textDocument/version")?.as_i64()
}

/// The string `params.textDocument.NAME`, taken out: it may be a whole document.
pub(crate) fn take_text(params: &mut Value, name: &str) -> Option<String> {
    match params.pointer_mut("/textDocument")?.get_mut(name)?.take() {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A question as a request states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inquiry {
    pub(crate) uri: String,
    pub(crate) position: Position,
    pub(crate) selected: Option<(Range<Position>, String)>,
    pub(crate) trigger: Trigger,
}

impl Inquiry {
    /// Reads the params of `textDocument/inlineCompletion` or `textDocument/completion`.
    pub(crate) fn read(params: &Value) -> Option<Self> {
        let selected = params
            .pointer("/context/selectedCompletionInfo")
            .and_then(|info| Some((range(info.get("range")?)?, info.get("text")?.as_str()?.to_owned())));
        // Inline, 1 is a person's. Of a popup, editors say 1 for a word that is being typed as well; 2 and 3 are typing.
        let trigger = match params.pointer("/context/triggerKind").and_then(Value::as_i64) {
            Some(1) => Trigger::Invoked,
            _ => Trigger::Automatic,
        };
        let (uri, position) = place(params)?;
        Some(Self { uri, position, selected, trigger })
    }
}

/// The document and the place that a notification is about.
pub(crate) fn place(params: &Value) -> Option<(String, Position)> {
    Some((uri(params)?, position(params.get("position")?)?))
}

/// A position; numbers out of range are clamped.
fn position(value: &Value) -> Option<Position> {
    Some(Position { line: clamped(value.get("line")?)?, character: clamped(value.get("character")?)? })
}

fn range(value: &Value) -> Option<Range<Position>> {
    Some(position(value.get("start")?)?..position(value.get("end")?)?)
}

/// A number as one that a position can have: negative ones are 0, huge ones the largest.
fn clamped(value: &Value) -> Option<u32> {
    let number = value.as_number()?;
    if let Some(number) = number.as_u64() {
        return Some(u32::try_from(number).unwrap_or(u32::MAX));
    }
    // `as` saturates: what is below 0 becomes 0, what is above the largest becomes that.
    number.as_f64().map(|number| number as u32)
}

/// The result of `textDocument/inlineCompletion`. With `tells`, the editor is to tell when it is taken.
pub(crate) fn inline_result(shown: Option<&Shown>, tells: bool) -> Value {
    let mut items: Vec<Value> = shown.into_iter().flat_map(inline_items).collect();
    if tells {
        for item in &mut items {
            item["command"] = json!({ "title": "taper: count as taken", "command": commands::ACCEPTED });
        }
    }
    json!({ "items": items })
}

/// What is shown, and what could be instead.
fn texts(shown: &Shown) -> impl Iterator<Item = &String> {
    [&shown.text].into_iter().chain(&shown.others)
}

/// Items, each with the new text only and an explicit range, empty at the cursor most of the time: the one form that
/// editors agree on. Line ends are `\n` whatever the file's are: VS Code and Neovim turn them into the document's, and
/// Neovim would show and insert the `\r` of a `\r\n`.
fn inline_items(shown: &Shown) -> impl Iterator<Item = Value> {
    texts(shown).map(|text| {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        json!({ "insertText": text, "range": written_range(shown.range.start, shown.range.end) })
    })
}

/// The result of `textDocument/completion`. Incomplete, so that the editor asks again at each key.
pub(crate) fn popup_result(shown: Option<&Shown>) -> Value {
    let items: Vec<Value> = shown.into_iter().flat_map(popup_items).collect();
    json!({ "isIncomplete": true, "items": items })
}

/// Popup items: first line as the label, everything as its edit, and a filter that the typed word is part of.
/// Kind `Text`: as `Snippet` it would be expanded.
fn popup_items(shown: &Shown) -> impl Iterator<Item = Value> {
    texts(shown).enumerate().map(|(rank, text)| popup_item(shown, rank, text))
}

/// One of them. The editor sorts by the rank and selects the first.
fn popup_item(shown: &Shown, rank: usize, text: &str) -> Value {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { " …" } else { "" };
    let filter = format!("{}{first}", shown.word);
    // A fence longer than any in the text, so that the text cannot end it.
    let ticks = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(3.max(ticks + 1));
    let whole = format!("{}{text}", shown.word);
    json!({
        "label": format!("{}{more}", filter.trim()),
        "kind": 1,
        "documentation": { "kind": "markdown", "value": format!("{fence}{}\n{whole}\n{fence}", shown.language) },
        "preselect": rank == 0,
        "sortText": format!("{rank:04}"),
        "filterText": filter,
        "insertTextFormat": 1,
        "insertTextMode": 1,
        "textEdit": { "range": written_range(shown.word_start, shown.range.end), "newText": whole },
    })
}

fn written_position(position: Position) -> Value {
    json!({ "line": position.line, "character": position.character })
}

fn written_range(start: Position, end: Position) -> Value {
    json!({ "start": written_position(start), "end": written_position(end) })
}

/// The path in a URI, its escapes decoded and with `/`: `/home/user/a b.py`, `C:/a.py`, `Untitled-1`.
/// A workspace folder, whose slash at the end was taken away.
fn folder(root: &str) -> PathBuf {
    let is_drive = root.len() == 2 && root.ends_with(':');
    if root.is_empty() || is_drive { format!("{root}/").into() } else { root.into() }
}

fn path_of(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':') else { return uri.to_owned() };
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => rest,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let decoded = decode(path);
    // `file:///C:/a.py` has a slash before the drive, which may be escaped: `/c%3A/a.py`.
    let bytes = decoded.as_bytes();
    let drive = scheme == "file" && matches!(bytes, [b'/', letter, b':', ..] if letter.is_ascii_alphabetic());
    if drive { decoded[1..].to_owned() } else { decoded }
}

/// Decodes `%20`; what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let value = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use expect_test::expect;

    use super::*;

    fn at(line: u32, character: u32) -> Position {
        Position { line, character }
    }

    #[test]
    fn positions_are_clamped_and_nonsense_is_refused() {
        let read = |line: &str| {
            position(&serde_json::from_str(&format!(r#"{{"line":{line},"character":1}}"#)).unwrap())
        };
        assert_eq!(read("3"), Some(at(3, 1)));
        assert_eq!(read("-3"), Some(at(0, 1)));
        assert_eq!(read("4294967296"), Some(at(u32::MAX, 1)));
        assert_eq!(read("99999999999999999999999"), Some(at(u32::MAX, 1)));
        assert_eq!(read("-1e300"), Some(at(0, 1)));
        assert_eq!(read("\"3\""), None);
        assert_eq!(read("null"), None);
    }

    #[test]
    fn paths_of_uris() {
        for (uri, path) in [
            ("file:///home/user/a%20b.py", "/home/user/a b.py"),
            ("file:///app/[id]/page.tsx", "/app/[id]/page.tsx"),
            ("file:///c%3A/x/a.py", "c:/x/a.py"),
            ("file://server/share/a.py", "/share/a.py"),
            ("untitled:Untitled-1", "Untitled-1"),
            ("file:///a%ZZ%e4b%", "/a%ZZ%e4b%"),
            ("nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(path_of(uri), path);
        }
    }

    #[test]
    fn paths_are_relative_to_the_innermost_folder() {
        let greeting = Greeting::read(&json!({
            "workspaceFolders": [{ "uri": "file:///w" }, { "uri": "file:///w/in%20ner/" }],
            "capabilities": {},
        }));
        for (uri, root, path) in [
            ("file:///w/src/a.py", Some("/w"), "src/a.py"),
            ("file:///w/in%20ner/b/a.py", Some("/w/in ner"), "b/a.py"),
            ("file:///weird/a.py", None, "a.py"),
            ("git:/w/src/a.py?HEAD", None, "src/a.py"),
        ] {
            assert_eq!(greeting.located(uri), (root.map(PathBuf::from), path.to_owned()), "{uri}");
        }
        assert_eq!((folder(""), folder("C:"), folder("/w")), ("/".into(), "C:/".into(), "/w".into()));
        assert_eq!(greeting.encoding, Encoding::Utf16);
    }

    #[test]
    fn what_recorded_editors_say() {
        let read = |text| Greeting::read(&serde_json::from_str::<Value>(text).unwrap()["params"]);
        let neovim = read(include_str!("../../tests/fixtures/initialize-nvim.json"));
        assert_eq!((neovim.encoding, neovim.inline, neovim.progress), (Encoding::Utf8, true, true));
        let helix = read(include_str!("../../tests/fixtures/initialize-hx.json"));
        assert_eq!((helix.encoding, helix.inline, helix.progress), (Encoding::Utf8, false, true));
        assert_eq!(helix.roots, ["/home/user/project"]);
        let vscode = read(include_str!("../../tests/fixtures/initialize-vscode.json"));
        assert_eq!((vscode.encoding, vscode.inline, vscode.progress), (Encoding::Utf16, true, true));
    }

    #[test]
    fn an_inline_item_has_plain_line_ends_and_a_popup_item_the_files_own() {
        let shown = Shown {
            range: at(1, 6)..at(1, 6),
            text: "d(a, b):\r\n    return a".to_owned(),
            others: vec!["d(x):\r\n    pass".to_owned()],
            word: "ad".to_owned(),
            word_start: at(1, 4),
            language: "python",
        };
        let inline: Vec<Value> = inline_items(&shown).collect();
        assert_eq!(inline[0]["insertText"], "d(a, b):\n    return a");
        assert_eq!((&inline[1]["insertText"], inline.len()), (&json!("d(x):\n    pass"), 2));
        assert_eq!(inline[0]["range"], inline[1]["range"]);
        let popup: Vec<Value> = popup_items(&shown).collect();
        assert_eq!(popup[0]["textEdit"]["newText"], "add(a, b):\r\n    return a");
        assert_eq!(popup[1]["textEdit"]["newText"], "add(x):\r\n    pass");
    }

    #[test]
    fn a_popup_item_filters_by_the_word_and_shows_everything() {
        let shown = Shown {
            range: at(1, 6)..at(1, 6),
            text: "d(a, b):\n    return '```'".to_owned(),
            others: vec!["here".to_owned(), "just".to_owned()],
            word: "ad".to_owned(),
            word_start: at(1, 4),
            language: "python",
        };
        let items: Vec<Value> = popup_items(&shown).collect();
        let ranks: Vec<_> =
            items.iter().map(|it| (it["sortText"].as_str(), it["preselect"].as_bool())).collect();
        let rank = |rank, selected| (Some(rank), Some(selected));
        assert_eq!(ranks, [rank("0000", true), rank("0001", false), rank("0002", false)]);
        assert_eq!((&items[1]["label"], &items[2]["filterText"]), (&json!("adhere"), &json!("adjust")));
        let written = serde_json::to_string_pretty(&items[0]).unwrap();
        expect![[r#"
            {
              "documentation": {
                "kind": "markdown",
                "value": "````python\nadd(a, b):\n    return '```'\n````"
              },
              "filterText": "add(a, b):",
              "insertTextFormat": 1,
              "insertTextMode": 1,
              "kind": 1,
              "label": "add(a, b): …",
              "preselect": true,
              "sortText": "0000",
              "textEdit": {
                "newText": "add(a, b):\n    return '```'",
                "range": {
                  "end": {
                    "character": 6,
                    "line": 1
                  },
                  "start": {
                    "character": 4,
                    "line": 1
                  }
                }
              }
            }"#]]
        .assert_eq(&written);
    }
}
