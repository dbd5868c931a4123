//! Notebook cells, end to end: earlier cells of the same language precede a cell in its prompt, wherever they move.

use serde_json::{Value, json};

use crate::client::{Client, inline_params};
use crate::script::Script;

const NOTEBOOK: &str = "file:///w/a.ipynb";

fn uri(cell: &str) -> String {
    format!("vscode-notebook-cell:/w/a.ipynb#{cell}")
}

fn cell(name: &str) -> Value {
    json!({ "kind": 2, "document": uri(name) })
}

fn document(name: &str, language: &str, text: &str) -> Value {
    json!({ "uri": uri(name), "languageId": language, "version": 1, "text": text })
}

/// An editor that supports notebooks.
fn ready(script: &Script) -> Client {
    let mut client = Client::start(&["--stdio", "--engine", &script.written()]);
    let result = client.initialize(json!({
        "processId": null,
        "rootUri": "file:///w",
        "capabilities": {
            "textDocument": { "inlineCompletion": {} },
            "notebookDocument": { "synchronization": {} },
        },
        "initializationOptions": { "idle-work": "off" },
    }));
    assert_eq!(
        result["capabilities"]["notebookDocumentSync"]["notebookSelector"],
        json!([{ "notebook": "*" }])
    );
    client.wait_ready();
    client
}

fn open(client: &mut Client, cells: &[(&str, &str, &str)]) {
    let kind = |language: &str| if language == "markdown" { 1 } else { 2 };
    let listed: Vec<Value> = cells
        .iter()
        .map(|(name, language, _)| json!({ "kind": kind(language), "document": uri(name) }))
        .collect();
    let texts: Vec<Value> =
        cells.iter().map(|(name, language, text)| document(name, language, text)).collect();
    client.notify(
        "notebookDocument/didOpen",
        json!({
            "notebookDocument": {
                "uri": NOTEBOOK, "notebookType": "jupyter-notebook", "version": 1, "cells": listed,
            },
            "cellTextDocuments": texts,
        }),
    );
}

fn change(client: &mut Client, cells: Value) {
    client.notify(
        "notebookDocument/didChange",
        json!({ "notebookDocument": { "uri": NOTEBOOK, "version": 2 }, "change": { "cells": cells } }),
    );
}

fn splice(start: usize, deleted: usize, cells: &[&str]) -> Value {
    let cells: Vec<Value> = cells.iter().map(|name| cell(name)).collect();
    json!({ "start": start, "deleteCount": deleted, "cells": cells })
}

#[test]
fn earlier_cells_in_prompt_follow_edits_moves_deletion() {
    // The first matching rule decides.
    let script = Script::new()
        .when("a = 10\nb = 2\nx = ", "edited")
        .when("a = 1\nb = 2\nx = ", "both")
        .when("b = 2\na = 1\nx = ", "swapped")
        .when("b = 2\nc = 3\nx = ", "new")
        .when("b = 2\nx = ", "one")
        .when("a = 1\nx = ", "two")
        .when("x = ", "alone");
    let mut client = ready(&script);
    open(
        &mut client,
        &[
            ("a", "python", "a = 1"),
            ("m", "markdown", "# b"),
            ("b", "python", "b = 2"),
            ("x", "python", "x = "),
        ],
    );
    let x = uri("x");
    assert_eq!(client.inline(&x, 0, 4), "both");
    // The cached suggestion is not reused if other text precedes it.
    let at = |character: u32| json!({ "line": 0, "character": character });
    let text = json!([{
        "document": { "uri": uri("a"), "version": 2 },
        "changes": [{ "range": { "start": at(5), "end": at(5) }, "text": "0" }],
    }]);
    change(&mut client, json!({ "textContent": text }));
    assert_eq!(client.inline(&x, 0, 4), "edited");
    change(
        &mut client,
        json!({ "textContent": [{ "document": { "uri": uri("a"), "version": 3 }, "changes": [{ "text": "a = 1" }] }] }),
    );
    assert_eq!(client.inline(&x, 0, 4), "both");
    // The first cell moves after the third.
    change(&mut client, json!({ "structure": { "array": splice(0, 1, &[]) } }));
    assert_eq!(client.inline(&x, 0, 4), "one");
    change(&mut client, json!({ "structure": { "array": splice(2, 0, &["a"]) } }));
    assert_eq!(client.inline(&x, 0, 4), "swapped");
    // The cell itself moves to the top, and back.
    change(&mut client, json!({ "structure": { "array": splice(3, 1, &[]) } }));
    change(&mut client, json!({ "structure": { "array": splice(0, 0, &["x"]) } }));
    assert_eq!(client.inline(&x, 0, 4), "alone");
    change(&mut client, json!({ "structure": { "array": splice(0, 1, &[]) } }));
    change(&mut client, json!({ "structure": { "array": splice(3, 0, &["x"]) } }));
    assert_eq!(client.inline(&x, 0, 4), "swapped");
    // One is deleted, another one inserted.
    let structure = json!({
        "array": splice(2, 1, &["c"]),
        "didClose": [{ "uri": uri("a") }],
        "didOpen": [document("c", "python", "c = 3\n")],
    });
    change(&mut client, json!({ "structure": structure }));
    assert_eq!(client.inline(&x, 0, 4), "new");
    // Its language changes, and its kind.
    let structure = json!({
        "array": splice(2, 1, &["c"]),
        "didClose": [{ "uri": uri("c") }],
        "didOpen": [document("c", "r", "c = 3\n")],
    });
    change(&mut client, json!({ "structure": structure }));
    assert_eq!(client.inline(&x, 0, 4), "one");
    change(&mut client, json!({ "data": [{ "kind": 1, "document": uri("b") }] }));
    assert_eq!(client.inline(&x, 0, 4), "alone");
    client.notify("notebookDocument/didSave", json!({ "notebookDocument": { "uri": NOTEBOOK } }));
    client.notify(
        "notebookDocument/didClose",
        json!({ "notebookDocument": { "uri": NOTEBOOK }, "cellTextDocuments": [{ "uri": &x }, { "uri": uri("b") }] }),
    );
    assert_eq!(client.inline(&x, 0, 4), "");
    client.quit();
}

#[test]
fn suggestion_range_is_relative_to_its_cell() {
    let script = Script::new().when("def ad", "d(a, b):\n    return a + b").when("add(", "1, 2)");
    let mut client = ready(&script);
    open(
        &mut client,
        &[("a", "python", "x = '😀'\n\n"), ("b", "python", "'é'; def ad\n"), ("c", "python", "%time add(")],
    );
    let answer = client.ask("textDocument/inlineCompletion", inline_params(&uri("b"), 0, 11));
    let at = json!({ "line": 0, "character": 11 });
    assert_eq!(answer["result"]["items"][0]["range"], json!({ "start": at, "end": at }));
    // IPython syntax does not prevent suggestions.
    assert_eq!(client.inline(&uri("c"), 0, 10), "1, 2)");
    client.quit();
}

#[test]
fn empty_cell_is_completed_from_earlier_cells() {
    let script = Script::new().when("import numpy as np\n", "x = np.array([1, 2])\n");
    let mut client = ready(&script);
    open(&mut client, &[("a", "python", "import numpy as np"), ("b", "python", "")]);
    assert_eq!(client.inline(&uri("b"), 0, 0), "x = np.array([1, 2])");
    client.quit();
}

#[test]
fn cells_opened_as_documents_are_ordered_by_name() {
    let script = Script::new()
        .when("a = 1\nb = 2\nx = ", "both")
        .when("b = 2\nx = ", "one")
        .when("other = 1\n", "other")
        .when("x = ", "alone");
    let mut client =
        Client::ready(&["--stdio", "--engine", &script.written()], json!({ "idle-work": "off" }));
    let other = "vscode-notebook-cell:/w/other.ipynb#W0sZmlsZQ%3D%3D";
    let [a, b, x] = ["W0sZmlsZQ%3D%3D", "W1sZmlsZQ%3D%3D", "X10sZmlsZQ%3D%3D"].map(uri);
    client.open(&x, "python", "x = ");
    client.open(&b, "python", "b = 2");
    client.open(other, "python", "other = 1");
    assert_eq!(client.inline(&x, 0, 4), "one");
    client.open(&a, "python", "a = ");
    client.insert(&a, 2, 0, 4, "1");
    assert_eq!(client.inline(&x, 0, 4), "both");
    client.close(&a);
    assert_eq!(client.inline(&x, 0, 4), "one");
    client.close(&b);
    assert_eq!(client.inline(&x, 0, 4), "alone");
    client.quit();
}

#[test]
fn typing_in_cell_prefills_earlier_cells_once() {
    let lines: String = (0..60).map(|n| format!("value_{n:03} = {n}\n")).collect();
    let script = Script::new().when("x = va", "lue_001 + 1").prompt_token_ms(0.1);
    let mut client = ready(&script);
    open(&mut client, &[("a", "python", &lines), ("b", "python", "y = 1"), ("x", "python", "x = \n")]);
    let x = uri("x");
    assert_eq!(client.inline(&x, 0, 4), "");
    change(
        &mut client,
        json!({ "textContent": [{ "document": { "uri": &x, "version": 2 }, "changes": [
        { "range": { "start": { "line": 0, "character": 4 }, "end": { "line": 0, "character": 4 } }, "text": "va" },
    ] }] }),
    );
    assert_eq!(client.inline(&x, 0, 6), "lue_001 + 1");
    client.wait_traces("completed", &json!({}), 2);
    let evaluated: Vec<u64> =
        client.traced("completed").iter().map(|it| it["evaluated"].as_u64().unwrap()).collect();
    assert!(evaluated[0] > 800 && evaluated[1] < 60, "{evaluated:?}");
    client.quit();
}

#[test]
fn malformed_notebook_messages_lose_only_cell_order() {
    let script = Script::new().when("a = 1\nx = ", "both").when("x = ", "alone");
    let mut client = ready(&script);
    open(&mut client, &[("a", "python", "a = 1"), ("x", "python", "x = ")]);
    let x = uri("x");
    assert_eq!(client.inline(&x, 0, 4), "both");
    change(&mut client, json!({ "structure": { "array": { "start": 0, "deleteCount": -3 } } }));
    assert_eq!(client.inline(&x, 0, 4), "alone");
    change(&mut client, json!({ "structure": { "array": splice(900, 900, &["nowhere"]) } }));
    for (method, params) in [
        ("notebookDocument/didOpen", json!({})),
        (
            "notebookDocument/didOpen",
            json!({ "notebookDocument": { "uri": NOTEBOOK, "cells": 7 }, "cellTextDocuments": 7 }),
        ),
        (
            "notebookDocument/didChange",
            json!({ "notebookDocument": { "uri": "file:///never" }, "change": {} }),
        ),
        ("notebookDocument/didChange", json!([])),
        ("notebookDocument/didClose", json!({ "notebookDocument": { "uri": "file:///never" } })),
        ("notebookDocument/nonsense", json!({})),
    ] {
        client.notify(method, params);
    }
    assert_eq!(client.inline(&x, 0, 4), "alone");
    // A cell is in two places at once, and a notebook is opened twice.
    change(&mut client, json!({ "structure": { "array": splice(0, 0, &["a", "x", "a"]) } }));
    client.inline(&x, 0, 4);
    open(&mut client, &[("a", "python", "a = 1"), ("x", "python", "x = ")]);
    assert_eq!(client.inline(&x, 0, 4), "both");
    client.quit();
}
