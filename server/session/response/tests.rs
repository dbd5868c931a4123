//! Tests of a request and its response.

use std::time::Duration;

use super::*;
use crate::completion::Options;

/// A request at the end of the line `before`, for the tests of other modules.
pub(in crate::session) fn request_after(
    before: &str,
    deadline: Instant,
) -> (Arc<CompletionRequest>, ResponseReceiver) {
    let snapshot = Snapshot::new(Rope::from(format!("{before}\n")), before.len(), Options::default());
    let (responder, receiver) = Responder::new();
    let request =
        CompletionRequest::new("a".to_owned(), snapshot, Encoding::Utf8, deadline.into(), responder);
    (Arc::new(request), receiver)
}

fn request(fixture: &str) -> (CompletionRequest, ResponseReceiver) {
    let (before, after) = fixture.split_once('▮').unwrap();
    let text = Rope::from(format!("{before}{after}"));
    let snapshot = Snapshot::new(text, before.len(), Options::default());
    let (responder, receiver) = Responder::new();
    (
        CompletionRequest::new("a".to_owned(), snapshot, Encoding::Utf16, Instant::now().into(), responder),
        receiver,
    )
}

fn suggestion(range: Range<usize>, text: &str) -> Option<Suggestion> {
    Some(Suggestion { range, text: text.to_owned() })
}

#[test]
fn only_first_response_is_sent() {
    let (request, mut receiver) = request("▮");
    request.supersede();
    assert!(!request.respond(suggestion(0..0, "x")));
    assert!(!request.respond_with_draft());
    assert_eq!(receiver.try_recv().unwrap(), Some(CompletionResponse::Superseded));
    assert!(!request.is_unwanted(Instant::now()), "a response does not end the work");
}

#[test]
fn dropped_responder_sends_empty_response() {
    let (request, mut receiver) = request("▮");
    drop(request);
    assert_eq!(receiver.try_recv().unwrap(), Some(CompletionResponse::Empty));
}

#[test]
fn dropped_receiver_ends_work_at_deadline() {
    let (request, receiver) = request("▮");
    let (deadline, second) = (request.deadline(), Duration::from_secs(1));
    assert!(request.is_open() && !request.is_unwanted(deadline + second));
    drop(receiver);
    assert!(!request.is_open() && request.is_cancelled());
    assert!(request.is_unwanted(deadline) && !request.is_unwanted(deadline - second));
    request.drop_work();
    assert!(request.is_unwanted(deadline - second));
}

#[test]
fn request_may_serve_text_that_agrees_with_draft() {
    let (request, _receiver) = request("a▮\n");
    let may_serve = |text: &str| request.may_serve(&Rope::from(text));
    assert!(may_serve("a\n") && may_serve("axyz\n") && !may_serve("\n") && !may_serve("bx\n"));
    request.set_draft(suggestion(1..1, "xy"));
    assert!(may_serve("axyz\n") && may_serve("ax\n") && !may_serve("ay\n"));
}

#[test]
fn best_complete_part_is_sent_at_deadline() {
    let (request, mut receiver) = request("é😀 ab▮ c\n");
    request.set_draft(suggestion(9..9, "x"));
    request.set_draft(suggestion(9..9, "xy"));
    request.set_draft(None);
    assert!(request.respond_with_draft());
    let Some(CompletionResponse::Shown(shown)) = receiver.try_recv().unwrap() else {
        panic!("nothing is shown")
    };
    let at = |character| Position { line: 0, character };
    assert_eq!(shown.text, "xy");
    assert_eq!(shown.range, at(6)..at(6));
    assert_eq!((shown.word.as_str(), shown.word_start), ("ab", at(4)));
}

#[test]
fn known_suggestion_stays_first_before_alternatives() {
    let (request, mut receiver) = request("x = ▮\n");
    let alternatives = ["ab", "cd", "e"].map(|text| suggestion(4..4, text).unwrap());
    let request = request.with_known(alternatives[0].clone());
    request.set_draft(suggestion(4..4, "c"));
    request.set_alternatives(&alternatives);
    assert!(request.respond_with_draft());
    let Some(CompletionResponse::Shown(shown)) = receiver.try_recv().unwrap() else {
        panic!("nothing is shown")
    };
    assert_eq!(
        (shown.text.as_str(), &shown.alternatives[..]),
        ("ab", &["cd".to_owned(), "e".to_owned()][..])
    );
}

#[test]
fn suggestion_outside_of_text_is_not_shown() {
    for range in [5..9, 9..9] {
        let (request, mut receiver) = request("abcde▮");
        request.respond(suggestion(range, "x"));
        assert_eq!(receiver.try_recv().unwrap(), Some(CompletionResponse::Empty));
    }
}

#[test]
fn explicit_request_has_longer_deadline_until_complete() {
    let (arrived, second) = (Instant::now(), Duration::from_secs(1));
    let deadlines =
        Deadlines { arrived, early: None, usual: arrived + second, latest: arrived + second * 10 };
    let (request, _) = request("▮");
    let (responder, _receiver) = Responder::new();
    request.reopen(deadlines, responder);
    let time = |at: u32| request.time_to_read(arrived + second * at, Duration::ZERO);
    assert_eq!([0, 2].map(time), [second * 5, second * 4]);
    assert_eq!(request.time_to_read(arrived, second), second * 9 / 2);
    request.stop_waiting_for_alternatives();
    assert_eq!(request.deadline(), arrived + second);
    assert_eq!(time(0), second);
    let (responder, _receiver) = Responder::new();
    request.reopen(Deadlines { early: Some(arrived), ..deadlines }, responder);
    assert_eq!(time(0), second, "a part is shown as soon as it is complete");
    let typed = |at: u32| deadlines.after_typing(arrived + second * at).latest - arrived;
    assert_eq!([0, 3, 9, 20].map(typed), [1, 4, 10, 10].map(|it| second * it));
}

#[test]
fn repeated_request_takes_over_the_response() {
    let (request, mut first) = request("▮");
    assert!(request.is_same_request("a", &request.snapshot.clone()));
    request.supersede();
    let (responder, mut second) = Responder::new();
    request.reopen(Instant::now().into(), responder);
    assert!(request.respond(suggestion(0..0, "x")));
    assert_eq!(first.try_recv().unwrap(), Some(CompletionResponse::Superseded));
    assert!(matches!(second.try_recv().unwrap(), Some(CompletionResponse::Shown(_))));
}
