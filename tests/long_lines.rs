//! Lines of megabytes and pastes of a hundred thousand lines, end to end: nothing is lost, and ordinary code is still
//! completed.

use serde_json::{Value, json};

use crate::client::Client;
use crate::script::Script;

const DATA: &str = "file:///w/data.py";
const CODE: &str = "file:///w/code.py";

fn ready() -> (Client, Script) {
    let script = Script::new().when("total = ", "one + two").when("12, ", "13, 14");
    let client = Client::ready(&["--stdio", "--engine", &script.written()], Value::Null);
    (client, script)
}

#[test]
fn line_of_megabytes_gets_no_suggestion_others_do() {
    let (mut client, _script) = ready();
    let line = format!("x = [{}", "12, ".repeat(750_000));
    let end = u32::try_from(line.len()).unwrap();
    client.open(DATA, "python", &format!("total = \n{line}\ntotal = \n"));
    client.open(CODE, "python", "total = \n");
    let mut version = 1;
    for at in [end, 2_000_000, 5] {
        for (typed, key) in ["1", "2", ",", " "].into_iter().enumerate() {
            version += 1;
            let at = at + u32::try_from(typed).unwrap();
            client.insert(DATA, version, 1, at, key);
            assert_eq!(client.inline(DATA, 1, at + 1), "");
        }
        assert_eq!(client.inline(CODE, 0, 8), "one + two");
    }
    for line in [0, 2] {
        assert_eq!(client.inline(DATA, line, 8), "one + two", "in a line beside it");
    }
    client.quit();
}

#[test]
fn huge_line_and_huge_paste_are_accepted() {
    let (mut client, _script) = ready();
    let minified = "if(a){return b(c)}".repeat(20_000_000 / 18);
    client.open("file:///w/a.min.js", "javascript", &minified);
    assert_eq!(client.inline("file:///w/a.min.js", 0, 10_000_000), "");
    client.open(CODE, "python", "total = \n");
    let lines = "def f(a):\n    return a\n\n".repeat(33_334);
    client.insert(CODE, 2, 0, 0, &lines);
    assert_eq!(client.inline(CODE, 100_002, 8), "one + two");
    let all = json!({
        "textDocument": { "uri": CODE, "version": 3 },
        "contentChanges": [{ "range": { "start": { "line": 0, "character": 0 }, "end": { "line": 100_002, "character": 0 } }, "text": "" }],
    });
    client.notify("textDocument/didChange", all);
    assert_eq!(client.inline(CODE, 0, 8), "one + two");
    client.quit();
}
