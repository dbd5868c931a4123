//! Explicit requests, which have their own budget, end to end.

use serde_json::Value;

use crate::client::explicit_params;
use crate::scenario::{Scenario, scenario};
use crate::script::Script;

const WHOLE: &str = "one + two + three + four + five + six + seven";

/// An engine that stops in the middle of [`WHOLE`] until its gate is opened.
fn held_after_three_words() -> Scenario {
    scenario("total = ▮\n")
        .model("one + two + three⏸ + four + five + six + seven")
        .script(Script::gated)
        .option("idle-work", "off")
}

#[test]
fn explicit_request_gets_full_text_automatic_gets_part() {
    let mut user = held_after_three_words().option("latency-budget-ms", 100);
    let automatic = user.request();
    user.expect_less_than(automatic, WHOLE);
    let explicit = user.request_explicitly();
    user.open_gate().expect_response(explicit, WHOLE);
}

#[test]
fn explicit_budget_expiry_returns_best_complete_part() {
    let mut user = held_after_three_words().option("latency-budget-ms", 10).option("explicit-budget-ms", 100);
    let explicit = user.request_explicitly();
    user.expect_less_than(explicit, WHOLE);
}

#[test]
fn explicit_budget_is_at_least_the_latency_budget() {
    let slow = |script: Script| script.when("total = ", WHOLE).token_ms(20);
    let mut user = scenario("total = ▮\n").script(slow).option("explicit-budget-ms", 10);
    user.expect_explicit(&[WHOLE]);
}

#[test]
fn explicit_popup_uses_explicit_budget() {
    let mut user = held_after_three_words().option("latency-budget-ms", 100).with_popups();
    // Marked as explicit, but caused by the key.
    user.edit("total =▮\n").type_text(" ");
    let params = explicit_params(&user.uri(), 0, 8);
    let written = |answer: &Value| {
        answer["result"]["items"][0]["textEdit"]["newText"].as_str().unwrap_or_default().to_owned()
    };
    let key = user.client().ask("textDocument/completion", params.clone());
    assert!(written(&key).len() < WHOLE.len(), "{key}");
    let explicit = user.client().request("textDocument/completion", params);
    user.open_gate();
    assert_eq!(written(&user.client().answer(explicit)), WHOLE);
}

#[test]
fn refreshing_client_gets_early_part_of_explicit_request() {
    let mut user = held_after_three_words()
        .option("latency-budget-ms", 10)
        .option("early-answer-ms", 0)
        .announcing("refresh");
    let explicit = user.request_explicitly();
    user.expect_part_of(explicit, WHOLE).open_gate().client().notice("taper/refresh", "");
    user.expect_explicit(&[WHOLE]);
}

#[test]
fn explicit_request_is_not_debounced() {
    let mut user = scenario("total = ▮\n").model("1").option("debounce-ms", 10_000);
    let typed = user.request();
    user.expect_explicit(&["1"]).expect_superseded(typed);
}
