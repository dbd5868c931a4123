//! Explicit requests, which have more time than automatic ones.

use super::*;

#[test]
fn explicit_request_may_exceed_latency_budget() {
    let mut stage = Stage::within(Duration::ZERO, IdleSetting::Off, false);
    assert_eq!(answer(stage.ask()), CompletionResponse::Empty);
    let person = stage.ask_as(URI, 4, Trigger::Invoked, false);
    stage.begins("x = ");
    stage.says("fo", true);
    // A key ends that at once.
    stage.change(4, "b");
    assert_eq!(answer(person), CompletionResponse::Superseded);
    stage.says("o", true);
    stage.ends();
    let person = stage.ask_as(OTHER, 4, Trigger::Invoked, false);
    stage.begins("x = ");
    stage.says("foo", true);
    stage.says("(a)", true);
    stage.ends();
    shows(person, "foo(a)");
}

#[test]
fn explicit_request_of_refreshing_client_is_answered_early() {
    let stage = Stage::within(Duration::ZERO, IdleSetting::Off, true);
    let person = stage.ask_as(URI, 4, Trigger::Invoked, false);
    stage.begins("x = ");
    stage.says("fo", true);
    stage.says("o(a, ", true);
    shows(person, "foo(a,");
    stage.says("b)", true);
    stage.ends();
    assert!(matches!(stage.notices.recv_timeout(PATIENCE), Ok(Notice::Refresh(_))));
    shows(stage.ask(), "foo(a, b)");
}
