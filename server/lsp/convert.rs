//! The messages that taper reads and writes, parsed leniently: slightly wrong messages of an editor are still accepted.
//!
//! Own types are used where tower-lsp's are stricter than editors are: its URIs refuse paths with brackets, its
//! positions refuse negative numbers, and it drops a refused notification silently; a lost document change makes
//! the text wrong from then on.

use std::ops::Range;

use serde_json::{Value, json};
use tower_lsp::ls_types::notification::Notification;

use crate::completion::Trigger;
use crate::lsp::commands;
use crate::lsp::text_change::{parse_position, parse_range, position_json, range_json};
use crate::lsp::uri::{WorkspaceFolders, uri_path};
use crate::session::{CompletionItem, Improvement};
use crate::text::{Encoding, Position};

/// The notification that the cursor rests somewhere without a keystroke.
pub(crate) const CURSOR_METHOD: &str = "taper/cursor";

/// The notification that a request should be repeated. The params: `textDocument.uri`, `position`, `version`.
pub(crate) enum TaperRefresh {}

impl Notification for TaperRefresh {
    type Params = Value;
    const METHOD: &'static str = "taper/refresh";
}

/// The params of [`TaperRefresh`].
pub(crate) fn refresh_params(improvement: &Improvement) -> Value {
    let Improvement { uri, position, version } = improvement;
    json!({ "textDocument": { "uri": uri }, "position": position_json(*position), "version": version })
}

/// The client's features, as sent in `initialize`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClientFeatures {
    /// How it counts columns: the `positionEncoding` of the result.
    pub(crate) encoding: Encoding,
    /// Its process id, if it sends one: the server ends with that process.
    pub(crate) process: Option<i64>,
    /// Whether it requests inline completions.
    pub(crate) inline: bool,
    /// Whether it shows progress that the server begins.
    pub(crate) progress: bool,
    /// Whether it can be asked for its settings.
    pub(crate) configuration: bool,
    /// Whether it shows the state of the server.
    pub(crate) status: bool,
    /// Whether it repeats a request when there is an improvement.
    pub(crate) refresh: bool,
    /// Whether it follows the steps of the work.
    pub(crate) trace: bool,
    /// Whether it runs a suggestion's command when the suggestion is accepted, so that it is counted.
    pub(crate) accepted: bool,
    /// Whether it synchronizes notebooks.
    pub(crate) notebooks: bool,
    /// Folders of the workspace.
    pub(crate) folders: WorkspaceFolders,
    /// Options.
    pub(crate) options: Value,
}

impl ClientFeatures {
    /// Reads the params of `initialize`. Missing parts have the protocol's default.
    pub(crate) fn parse_initialize(params: &Value) -> Self {
        let offered = params.pointer("/capabilities/general/positionEncodings").and_then(Value::as_array);
        let encoding = offered.into_iter().flatten().filter_map(|name| match name.as_str()? {
            "utf-8" => Some(Encoding::Utf8),
            "utf-16" => Some(Encoding::Utf16),
            "utf-32" => Some(Encoding::Utf32),
            _ => None,
        });
        let folders = params.get("workspaceFolders").and_then(Value::as_array);
        let folders = folders.into_iter().flatten().filter_map(|folder| folder.get("uri")?.as_str());
        let mut roots: Vec<String> = folders.map(uri_path).collect();
        if roots.is_empty() {
            let uri = params.get("rootUri").and_then(Value::as_str).map(uri_path);
            let path = params.get("rootPath").and_then(Value::as_str).map(|path| path.replace('\\', "/"));
            roots.extend(uri.or(path));
        }
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
            trace: flag("experimental/taper/trace"),
            accepted: flag("experimental/taper/accepted"),
            notebooks: params.pointer("/capabilities/notebookDocument").is_some_and(Value::is_object),
            folders: WorkspaceFolders::new(roots),
            options: params.get("initializationOptions").cloned().unwrap_or(Value::Null),
        }
    }
}

/// The result of `initialize`.
pub(crate) fn initialize_result(client: &ClientFeatures) -> Value {
    let encoding = match client.encoding {
        Encoding::Utf8 => "utf-8",
        Encoding::Utf16 => "utf-16",
        Encoding::Utf32 => "utf-32",
    };
    let mut capabilities = json!({
        "positionEncoding": encoding,
        "textDocumentSync": { "openClose": true, "change": 2, "save": { "includeText": false } },
        "inlineCompletionProvider": true,
        "executeCommandProvider": { "commands": commands::COMMAND_NAMES },
        "workspace": { "workspaceFolders": { "supported": true, "changeNotifications": true } },
        "experimental": { "taper": { "refresh": true, "cursor": true } },
    });
    if client.notebooks {
        // All notebooks and all cells: the language of a cell may change.
        capabilities["notebookDocumentSync"] =
            json!({ "notebookSelector": [{ "notebook": "*" }], "save": false });
    }
    // With both, the popup would cover the inline text: one or the other.
    if !client.inline {
        capabilities["completionProvider"] =
            json!({ "triggerCharacters": [".", " ", "(", ":", "=", ",", "\n"], "resolveProvider": false });
    }
    json!({
        "capabilities": capabilities,
        "serverInfo": { "name": "taper", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// `params.textDocument.uri`.
pub(crate) fn document_uri(params: &Value) -> Option<String> {
    params.pointer("/textDocument/uri")?.as_str().map(str::to_owned)
}

/// A `TextDocumentItem`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TextDocumentItem {
    pub(crate) uri: String,
    pub(crate) language_id: String,
    pub(crate) version: Option<i64>,
    pub(crate) text: String,
}

impl TextDocumentItem {
    /// Reads an item and moves its text out, which may be long.
    pub(crate) fn take_from(item: &mut Value) -> Option<Self> {
        let uri = item.get("uri")?.as_str()?.to_owned();
        let version = item.get("version").and_then(Value::as_i64);
        let mut text = |name: &str| match item.get_mut(name)?.take() {
            Value::String(text) => Some(text),
            _ => None,
        };
        Some(Self { uri, version, language_id: text("languageId").unwrap_or_default(), text: text("text")? })
    }
}

/// The paths of the added and of the removed workspace folders.
pub(crate) fn changed_folders(params: &Value) -> (Vec<String>, Vec<String>) {
    let paths = |name: &str| {
        let folders = params.pointer(&format!("/event/{name}")).and_then(Value::as_array);
        let uris = folders.into_iter().flatten().filter_map(|folder| folder.get("uri")?.as_str());
        uris.map(uri_path).collect()
    };
    (paths("added"), paths("removed"))
}

/// The params of a completion request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompletionParams {
    pub(crate) uri: String,
    pub(crate) position: Position,
    pub(crate) selected: Option<(Range<Position>, String)>,
    pub(crate) trigger: Trigger,
}

impl CompletionParams {
    /// Reads the params of `textDocument/inlineCompletion` or `textDocument/completion`.
    pub(crate) fn read(params: &Value) -> Option<Self> {
        let selected = params.pointer("/context/selectedCompletionInfo").and_then(|info| {
            Some((parse_range(info.get("range")?)?, info.get("text")?.as_str()?.to_owned()))
        });
        // In an inline request, 1 is an explicit request. In a popup request, editors also send 1 while a word is
        // typed; 2 and 3 are typing.
        let trigger = match params.pointer("/context/triggerKind").and_then(Value::as_i64) {
            Some(1) => Trigger::Invoked,
            _ => Trigger::Automatic,
        };
        let (uri, position) = document_position(params)?;
        Some(Self { uri, position, selected, trigger })
    }
}

/// The document and the position of a notification.
pub(crate) fn document_position(params: &Value) -> Option<(String, Position)> {
    Some((document_uri(params)?, parse_position(params.get("position")?)?))
}

/// The result of `textDocument/inlineCompletion`. With `reports_acceptance`, the editor runs a command when an item is
/// accepted.
pub(crate) fn inline_result(shown: Option<&CompletionItem>, reports_acceptance: bool) -> Value {
    let mut items: Vec<Value> = shown.into_iter().flat_map(inline_items).collect();
    if reports_acceptance {
        for item in &mut items {
            item["command"] =
                json!({ "title": "taper: count as taken", "command": commands::ACCEPTED_COMMAND });
        }
    }
    json!({ "items": items })
}

/// The shown text and its alternatives.
fn item_texts(shown: &CompletionItem) -> impl Iterator<Item = &String> {
    [&shown.text].into_iter().chain(&shown.alternatives)
}

/// Items, each with the new text only and an explicit range, usually empty at the cursor: the one form that editors
/// agree on. Line ends are `\n` whatever the file's are: VS Code and Neovim convert them to the document's, and
/// Neovim would show and insert the `\r` of a `\r\n`.
fn inline_items(shown: &CompletionItem) -> impl Iterator<Item = Value> {
    item_texts(shown).map(|text| {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        json!({ "insertText": text, "range": range_json(shown.range.start, shown.range.end) })
    })
}

/// The result of `textDocument/completion`. Incomplete, so that the editor sends a request at each key.
pub(crate) fn popup_result(shown: Option<&CompletionItem>) -> Value {
    let items: Vec<Value> = shown.into_iter().flat_map(popup_items).collect();
    json!({ "isIncomplete": true, "items": items })
}

/// Popup items: the first line as the label, the whole text as the edit, and a filter that contains the typed word.
/// Kind `Text`: as `Snippet` it would be expanded.
fn popup_items(shown: &CompletionItem) -> impl Iterator<Item = Value> {
    item_texts(shown).enumerate().map(|(rank, text)| popup_item(shown, rank, text))
}

/// One popup item. The editor sorts by the rank and selects the first.
fn popup_item(shown: &CompletionItem, rank: usize, text: &str) -> Value {
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
        "textEdit": { "range": range_json(shown.word_start, shown.range.end), "newText": whole },
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn at(line: u32, character: u32) -> Position {
        Position { line, character }
    }

    #[test]
    fn recorded_initialize_params_are_parsed() {
        let read =
            |text| ClientFeatures::parse_initialize(&serde_json::from_str::<Value>(text).unwrap()["params"]);
        let neovim = read(include_str!("../../tests/fixtures/initialize-nvim.json"));
        assert_eq!((neovim.encoding, neovim.inline, neovim.progress), (Encoding::Utf8, true, true));
        let helix = read(include_str!("../../tests/fixtures/initialize-hx.json"));
        assert_eq!((helix.encoding, helix.inline, helix.progress), (Encoding::Utf8, false, true));
        assert_eq!(helix.folders, WorkspaceFolders::new(["/home/user/project".to_owned()]));
        let vscode = read(include_str!("../../tests/fixtures/initialize-vscode.json"));
        assert_eq!((vscode.encoding, vscode.inline, vscode.progress), (Encoding::Utf16, true, true));
    }

    #[test]
    fn an_inline_item_has_plain_line_ends_and_a_popup_item_the_files_own() {
        let shown = CompletionItem {
            range: at(1, 6)..at(1, 6),
            text: "d(a, b):\r\n    return a".to_owned(),
            alternatives: vec!["d(x):\r\n    pass".to_owned()],
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
        let shown = CompletionItem {
            range: at(1, 6)..at(1, 6),
            text: "d(a, b):\n    return '```'".to_owned(),
            alternatives: vec!["here".to_owned(), "just".to_owned()],
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
