//! Explicit requests, which have more time than automatic ones.

use super::*;

#[test]
fn explicit_request_may_exceed_latency_budget() {
    let mut test = TestSession::with_budget(Duration::ZERO, IdleSetting::Off, false);
    assert_eq!(response(test.request()), CompletionResponse::Empty);
    let explicit = test.request_as(URI, 4, Trigger::Invoked, false);
    test.expect_start("x = ");
    test.emit("fo", true);
    // A key ends that at once.
    test.insert(4, "b");
    assert_eq!(response(explicit), CompletionResponse::Superseded);
    test.emit("o", true);
    test.finish();
    let explicit = test.request_as(OTHER, 4, Trigger::Invoked, false);
    test.expect_start("x = ");
    test.emit("foo", true);
    test.emit("(a)", true);
    test.finish();
    assert_shown(explicit, "foo(a)");
}

#[test]
fn explicit_request_of_refreshing_client_is_answered_early() {
    let test = TestSession::with_budget(Duration::ZERO, IdleSetting::Off, true);
    let explicit = test.request_as(URI, 4, Trigger::Invoked, false);
    test.expect_start("x = ");
    test.emit("fo", true);
    test.emit("o(a, ", true);
    assert_shown(explicit, "foo(a,");
    test.emit("b)", true);
    test.finish();
    assert!(matches!(test.notices.recv_timeout(PATIENCE), Ok(Notice::Refresh(_))));
    assert_shown(test.request(), "foo(a, b)");
}
