//! Work while idle: prefetching the likely next requests.

use super::*;

#[test]
fn edit_elsewhere_cancels_prefetch() {
    let mut test = TestSession::new(IdleSetting::Modest);
    let first = test.request();
    test.expect_start("x = ");
    test.emit("foo", true);
    test.insert(0, "y = ");
    test.emit("(", false);
    assert_eq!(response(first), CompletionResponse::Superseded);
}

#[test]
fn diverging_edit_cancels_prefetch() {
    for (edit, continues) in [("y", false), ("f", true)] {
        let mut test = TestSession::showing_foo(IdleSetting::Modest);
        test.expect_start("x = foo");
        test.insert(4, edit);
        test.emit("(1)", continues);
    }
}

#[test]
fn closing_document_cancels_prefetch() {
    let test = TestSession::showing_foo(IdleSetting::Modest);
    test.expect_start("x = foo");
    test.session.send(Event::Closed { uri: URI.to_owned() });
    test.settle();
    test.emit("(1)", false);
}

#[test]
fn accepted_suggestion_is_answered_from_prefetch() {
    let mut test = TestSession::showing_foo(IdleSetting::Modest);
    test.expect_start("x = foo");
    test.emit("(1", true);
    let accepted = test.type_text("foo");
    test.emit(")", true);
    test.finish();
    assert_shown(accepted, "(1)");
    // The same when the response came from the cache.
    test.expect_start("x = foo(1)");
    test.emit(" + 2", true);
    test.finish();
    // Once the engine works for another document, the session has handled the result.
    let other = test.request_at(OTHER, 4);
    test.expect_start("x = ");
    test.finish();
    assert_eq!(response(other), CompletionResponse::Empty);
    let accepted = test.type_text("(1)");
    assert_shown(accepted, " + 2");
    test.expect_start("x = foo(1) + 2");
}

#[test]
fn resting_cursor_prefetches_completion() {
    let mut test = TestSession::new(IdleSetting::Modest);
    test.rest_cursor();
    test.expect_start("x = ");
    test.emit("foo", true);
    // The first letter requests the suggestion that is being prefetched.
    let first = test.type_text("f");
    test.emit("(1)", true);
    test.finish();
    assert_shown(first, "oo(1)");
}

#[test]
fn next_line_is_prefetched_before_enter() {
    let mut test = TestSession::after_call();
    test.expect_start("x = f()\n");
    test.emit("y = 2", true);
    let second = test.type_enter();
    test.emit(" + 3", true);
    test.finish();
    assert_shown(second, "y = 2 + 3");
}

#[test]
fn next_line_is_prefetched_after_acceptance() {
    let mut test = TestSession::new(IdleSetting::Modest);
    let first = test.request();
    test.expect_start("x = ");
    test.emit("f()", true);
    test.finish();
    assert_shown(first, "f()");
    // Nothing follows it.
    test.expect_start("x = f()");
    test.finish();
    // Once the engine works for another document, the session has handled the result.
    let other = test.request_at(OTHER, 4);
    test.expect_start("x = ");
    test.finish();
    assert_eq!(response(other), CompletionResponse::Empty);
    let accepted = test.type_text("f()");
    assert_eq!(response(accepted), CompletionResponse::Empty);
    test.expect_start("x = f()\n");
    test.emit("y", true);
}

#[test]
fn continued_line_cancels_prefetch_of_next_line() {
    let mut test = TestSession::after_call();
    test.expect_start("x = f()\n");
    let second = test.type_text(" +");
    test.emit("y = 2", false);
    test.expect_start("x = f() +");
    test.emit(" 3", true);
    test.finish();
    assert_shown(second, " 3");
}

#[test]
fn typing_through_suggestion_keeps_prefetch() {
    let mut test = TestSession::showing_foo(IdleSetting::Modest);
    test.expect_start("x = foo");
    let second = test.type_text("f");
    assert_shown(second, "oo");
    test.emit("(1", true);
    let third = test.type_text("o");
    assert_shown(third, "o");
    test.emit(")", true);
    // The last letter requests the suggestion that is being prefetched.
    let fourth = test.type_text("o");
    test.emit(" + 2", true);
    test.finish();
    assert_shown(fourth, "(1) + 2");
}

#[test]
fn no_prefetch_without_idle_work() {
    let mut test = TestSession::showing_foo(IdleSetting::Off);
    let second = test.type_text("f");
    assert_shown(second, "oo");
    let third = test.type_text("b");
    test.expect_start("x = fb");
    test.finish();
    assert_eq!(response(third), CompletionResponse::Empty);
}

#[test]
fn cache_survives_partial_acceptance_undo_and_closed_brackets() {
    let mut test = TestSession::new(IdleSetting::Off);
    let first = test.request();
    test.expect_start("x = ");
    test.emit("foo(a, b)", true);
    test.finish();
    assert_shown(first, "foo(a, b)");
    // A word is accepted and undone: the whole suggestion is shown again.
    let rest = test.type_text("foo");
    assert_shown(rest, "(a, b)");
    test.delete(3);
    assert_shown(test.request(), "foo(a, b)");
    // The editor closes a bracket that is typed.
    let rest = test.type_text("foo");
    assert_shown(rest, "(a, b)");
    test.insert(test.cursor, "()");
    test.cursor += 1;
    assert_shown(test.request(), "a, b");
    let rest = test.type_text("a,");
    assert_shown(rest, " b");
    // Another character runs the model again.
    let other = test.type_text("c");
    test.expect_start("x = foo(a,c");
    test.finish();
    assert_eq!(response(other), CompletionResponse::Empty);
}
