//! Work while idle: prefetching the likely next requests.

use super::*;

#[test]
fn edit_elsewhere_cancels_prefetch() {
    let mut stage = Stage::new(IdleSetting::Modest);
    let first = stage.ask();
    stage.begins("x = ");
    stage.says("foo", true);
    stage.change(0, "y = ");
    stage.says("(", false);
    assert_eq!(answer(first), CompletionResponse::Superseded);
}

#[test]
fn diverging_edit_cancels_prefetch() {
    for (edit, goes_on) in [("y", false), ("f", true)] {
        let mut stage = Stage::showing_foo(IdleSetting::Modest);
        stage.begins("x = foo");
        stage.change(4, edit);
        stage.says("(1)", goes_on);
    }
}

#[test]
fn closing_a_document_ends_the_work_ahead() {
    let stage = Stage::showing_foo(IdleSetting::Modest);
    stage.begins("x = foo");
    stage.session.send(Event::Closed { uri: URI.to_owned() });
    stage.settle();
    stage.says("(1)", false);
}

#[test]
fn accepted_suggestion_is_answered_from_prefetch() {
    let mut stage = Stage::showing_foo(IdleSetting::Modest);
    stage.begins("x = foo");
    stage.says("(1", true);
    let accepted = stage.press("foo");
    stage.says(")", true);
    stage.ends();
    shows(accepted, "(1)");
    // The same when the response came from the cache.
    stage.begins("x = foo(1)");
    stage.says(" + 2", true);
    stage.ends();
    // Once the engine works for another document, the session has handled the result.
    let other = stage.ask_at(OTHER, 4);
    stage.begins("x = ");
    stage.ends();
    assert_eq!(answer(other), CompletionResponse::Empty);
    let accepted = stage.press("(1)");
    shows(accepted, " + 2");
    stage.begins("x = foo(1) + 2");
}

#[test]
fn resting_cursor_prefetches_completion() {
    let mut stage = Stage::new(IdleSetting::Modest);
    stage.look();
    stage.begins("x = ");
    stage.says("foo", true);
    // The first letter requests the suggestion that is being prefetched.
    let first = stage.press("f");
    stage.says("(1)", true);
    stage.ends();
    shows(first, "oo(1)");
}

#[test]
fn next_line_is_prefetched_before_enter() {
    let mut stage = Stage::behind_a_call();
    stage.begins("x = f()\n");
    stage.says("y = 2", true);
    let second = stage.press_enter();
    stage.says(" + 3", true);
    stage.ends();
    shows(second, "y = 2 + 3");
}

#[test]
fn next_line_is_prefetched_after_acceptance() {
    let mut stage = Stage::new(IdleSetting::Modest);
    let first = stage.ask();
    stage.begins("x = ");
    stage.says("f()", true);
    stage.ends();
    shows(first, "f()");
    // Nothing follows it.
    stage.begins("x = f()");
    stage.ends();
    // Once the engine works for another document, the session has handled the result.
    let other = stage.ask_at(OTHER, 4);
    stage.begins("x = ");
    stage.ends();
    assert_eq!(answer(other), CompletionResponse::Empty);
    let accepted = stage.press("f()");
    assert_eq!(answer(accepted), CompletionResponse::Empty);
    stage.begins("x = f()\n");
    stage.says("y", true);
}

#[test]
fn continued_line_cancels_prefetch_of_next_line() {
    let mut stage = Stage::behind_a_call();
    stage.begins("x = f()\n");
    let second = stage.press(" +");
    stage.says("y = 2", false);
    stage.begins("x = f() +");
    stage.says(" 3", true);
    stage.ends();
    shows(second, " 3");
}

#[test]
fn typing_through_suggestion_keeps_prefetch() {
    let mut stage = Stage::showing_foo(IdleSetting::Modest);
    stage.begins("x = foo");
    let second = stage.press("f");
    shows(second, "oo");
    stage.says("(1", true);
    let third = stage.press("o");
    shows(third, "o");
    stage.says(")", true);
    // The last letter requests the suggestion that is being prefetched.
    let fourth = stage.press("o");
    stage.says(" + 2", true);
    stage.ends();
    shows(fourth, "(1) + 2");
}

#[test]
fn no_prefetch_without_idle_work() {
    let mut stage = Stage::showing_foo(IdleSetting::Off);
    let second = stage.press("f");
    shows(second, "oo");
    let third = stage.press("b");
    stage.begins("x = fb");
    stage.ends();
    assert_eq!(answer(third), CompletionResponse::Empty);
}

#[test]
fn cache_survives_partial_acceptance_undo_and_closed_brackets() {
    let mut stage = Stage::new(IdleSetting::Off);
    let first = stage.ask();
    stage.begins("x = ");
    stage.says("foo(a, b)", true);
    stage.ends();
    shows(first, "foo(a, b)");
    // A word is accepted and undone: the whole suggestion is shown again.
    let rest = stage.press("foo");
    shows(rest, "(a, b)");
    stage.remove(3);
    shows(stage.ask(), "foo(a, b)");
    // The editor closes a bracket that is typed.
    let rest = stage.press("foo");
    shows(rest, "(a, b)");
    stage.change(stage.cursor, "()");
    stage.cursor += 1;
    shows(stage.ask(), "a, b");
    let rest = stage.press("a,");
    shows(rest, " b");
    // Another character runs the model again.
    let other = stage.press("c");
    stage.begins("x = foo(a,c");
    stage.ends();
    assert_eq!(answer(other), CompletionResponse::Empty);
}
