//! Alternatives for explicit requests, end to end: which ones, their order, deadlines and caching.

use std::collections::HashSet;
use std::fs;

use serde_json::json;
use taper::syntax::{Syntax, scope};
use taper::text::{Edit, Encoding, Rope, position};

use crate::client::{Client, explicit_params, item_texts};
use crate::scenario::scenario;
use crate::script::Script;

const URI: &str = "file:///w/src/a.py";

#[test]
fn explicit_request_gets_three_suggestions_automatic_gets_one() {
    let mut user = scenario("y = 1\nx = ▮\n").model("f(a)\n").or("f(b)\n").or("  f(a)\n");
    user = user.option("idle-work", "off");
    // After trimming, the third equals the first.
    user.expect("f(a)").expect_explicit(&["f(a)", "f(b)"]);
    let request = user.request_explicitly();
    let at = json!({ "line": 1, "character": 4 });
    for item in user.client().answer(request)["result"]["items"].as_array().unwrap() {
        assert_eq!(item["range"], json!({ "start": at, "end": at }));
    }
    user.expect("f(a)");

    let mut user = scenario("x = ▮\n").model("a").or("b").or("c").or("d");
    user.expect_explicit(&["a", "b", "c"]);
    let answer = user.client().ask("workspace/executeCommand", json!({ "command": "taper.statistics" }));
    assert_eq!((&answer["result"]["asked"], &answer["result"]["shown"]), (&json!(1), &json!(1)));
}

#[test]
fn alternatives_are_cached_and_typed_through() {
    let all = ["fold(a)", "fob(b)", "bar"];
    let mut user = scenario("x = ▮\n").model(all[0]).or(all[1]).or(all[2]).option("idle-work", "off");
    user.expect_explicit(&all).expect_explicit(&all).expect_explicit(&all);
    user.wait_traced("alternativesFinished", 1);
    user.type_text("fo").expect_explicit(&["ld(a)", "b(b)"]).expect("ld(a)").expect_traced("completed", 1);
}

#[test]
fn popup_lists_alternatives_in_order() {
    let mut user =
        scenario("def a▮\n").when("def ad", "d(a, b):").or("just(a):").or("vance():").with_popups();
    let client = user.type_text("d").client();
    let mut params = json!({
        "textDocument": { "uri": URI },
        "position": { "line": 0, "character": 6 },
        "context": { "triggerKind": 1 },
    });
    // Editors send the same params for a popup that typing opens: it gets one suggestion. A second request at the same
    // position counts as explicit.
    let result = client.ask("textDocument/completion", params.clone())["result"].clone();
    assert_eq!((&result["isIncomplete"], result["items"].as_array().unwrap().len()), (&json!(true), 1));
    let result = client.ask("textDocument/completion", params.clone())["result"].clone();
    let items: Vec<_> = result["items"].as_array().unwrap().iter().collect();
    let labels: Vec<_> = items.iter().map(|item| (item["sortText"].clone(), item["label"].clone())).collect();
    let expected = [("0000", "add(a, b):"), ("0001", "adjust(a):"), ("0002", "advance():")];
    assert_eq!(labels, expected.map(|(rank, label)| (json!(rank), json!(label))));
    // An automatic request gets one.
    params["context"]["triggerKind"] = json!(3);
    let result = client.ask("textDocument/completion", params)["result"].clone();
    assert_eq!(result["items"].as_array().unwrap().len(), 1);
}

#[test]
fn alternatives_incomplete_at_deadline_are_cached_for_later() {
    let mut user = scenario("x = ▮\n").model("aa\n").or("bb\n").or("c + d⏸ + e").script(Script::gated);
    user = user.option("latency-budget-ms", 500);
    let explicit = user.request_explicitly();
    let shown = item_texts(&user.client().answer(explicit));
    // On a machine that pauses, the second may be incomplete, never the first.
    assert!(shown == ["aa"] || shown == ["aa", "bb"], "{shown:?}");
    user.open_gate().wait_traced("alternativesFinished", 1).expect_explicit(&["aa", "bb", "c + d + e"]);
    user.expect_traced("completed", 1);
}

#[test]
fn keystroke_stops_alternatives_and_reuses_first_suggestion() {
    let mut user = scenario("x = ▮\n").when("x = ", "ab").or("b⏸").script(Script::gated);
    let first = user.request_explicitly();
    // The first is cached before the alternatives are decoded, which the closed gate never lets end.
    user.wait_traced("alternativesStarted", 1).type_text("a").expect("b").expect_superseded(first);
}

#[test]
fn real_model_alternatives_differ_and_fit() {
    let Some(model) = taper_engine::testing::real_model() else { return };
    let marked = fs::read_to_string("tests/fixtures/real/stack.rs").unwrap();
    let whole = marked.replace('▮', "self.items.push(item);");
    let options = json!({ "latency-budget-ms": 60_000, "idle-work": "off" });
    let mut client = Client::ready(&["--stdio", "--model", model.to_str().unwrap()], options);
    let language = taper_grammars::by_path("stack.rs".as_ref()).unwrap();
    let faults =
        |text: &Rope| scope::fault_count(&Syntax::parse(text, language, &mut || false).unwrap().tree);
    let mut several = 0;
    // Each line as if it were incomplete here.
    for beginning in
        ["limit: us", "Self { items: ", "fn push(&mut self, ", ">= self.", "self.items.pu", "Option<T> {"]
    {
        let cursor = whole.find(beginning).unwrap() + beginning.len();
        let rest = whole[cursor..].find('\n').unwrap();
        let text = Rope::from_str(&format!("{}{}", &whole[..cursor], &whole[cursor + rest..]));
        let at = position::position_at(&text, cursor, Encoding::Utf16);
        client.open(URI, "rust", &text.to_string());
        let automatic = client.inline(URI, at.line, at.character);
        // After reopening, nothing is cached.
        client.open(URI, "rust", &text.to_string());
        let params = explicit_params(URI, at.line, at.character);
        let all = item_texts(&client.ask("textDocument/inlineCompletion", params));
        assert_eq!(all.first().map_or("", String::as_str), automatic);
        let different: HashSet<&str> = all.iter().map(|it| it.trim()).collect();
        assert!(different.len() == all.len() && all.len() <= 3, "{all:?}");
        for candidate in &all {
            let mut with = text.clone();
            Edit::insert(cursor, candidate.clone()).apply(&mut with).unwrap();
            assert!(faults(&with) <= faults(&text), "{candidate:?}");
        }
        several += usize::from(all.len() > 1);
    }
    assert!(several > 0, "{several} places with more than one candidate");
    client.quit();
}
