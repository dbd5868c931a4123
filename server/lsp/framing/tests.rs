//! Tests of framing: streams that are right, wrong, and cut anywhere.

use super::*;

/// The messages of `stream`, cut into pieces of `size` bytes: methods, and errors as `!code`.
fn run(stream: &[u8], size: usize) -> Vec<String> {
    let mut framer = MessageFramer::default();
    let mut out = Vec::new();
    for piece in stream.chunks(size) {
        framer.feed_bytes(piece, &mut |message| out.push(name(&message)));
    }
    out
}

fn name(message: &IncomingMessage) -> String {
    match message {
        IncomingMessage::Request(request) => request.method().to_owned(),
        IncomingMessage::Response(_) => "response".to_owned(),
        IncomingMessage::Changed(_) => "changed".to_owned(),
        IncomingMessage::Malformed(response) => format!("!{}", response.error().unwrap().code.code()),
    }
}

#[track_caller]
fn check(stream: &str, expected: &[&str]) {
    for size in [1, 2, 3, 7, 64, 100_000] {
        assert_eq!(run(stream.as_bytes(), size), expected, "in pieces of {size}: {stream:?}");
    }
}

fn body(method: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"t":"Content-Length: 5\r\n\r\n \\\"}}{{"}}}}"#
    )
}

fn message(method: &str) -> String {
    framed(&body(method))
}

fn framed(body: &str) -> String {
    format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn good_messages_pass_whatever_the_pieces() {
    let body = r#"{"jsonrpc":"2.0","method":"odd","params":{}}"#;
    let odd = format!("content-LENGTH:{}\nContent-Type: x; charset=latin1\nX: y\n\n{body}\r\n", body.len());
    let padded = format!(" \r\n{body} \n\t");
    let response = framed(r#"{"jsonrpc":"2.0","id":0,"result":null}"#);
    check(
        &format!("{}{odd}{response}{}{}", message("a"), framed(&padded), message("b")),
        &["a", "odd", "response", "odd", "b"],
    );
}

#[test]
fn malformed_messages_are_reported_once_and_the_next_ones_pass() {
    let (a, b) = (message("a"), message("b"));
    let long = format!("X: {}\r\n\r\n{{}}", "x".repeat(5000));
    for (bad, errors) in [
        ("Content-Length: 5\r\n\r\n{\"a\":", &["!-32700"][..]),
        ("Content-Length: 7\r\n\r\nnothing", &["!-32700"]),
        ("Content-Length: 4\r\n\r\nnull", &["!-32600"]),
        ("Content-Length: 2\r\n\r\n[]", &["!-32600"]),
        ("Content-Length: 2\r\n\r\n{}", &["!-32600"]),
        ("Content-Length: 0\r\n\r\n", &["!-32700"]),
        ("Content-Length: 8\r\n\r\n{\"id\":3}", &["!-32600"]),
        ("Content-Length: 20\r\n\r\n{\"id\":3,\"error\":\"x\"}", &[]),
        ("Content-Length: -4\r\n\r\n{}{}", &["!-32700"]),
        ("Content-Length: +2\r\n\r\n{}", &["!-32700"]),
        ("Content-Length: 0x2\r\n\r\n{}", &["!-32700"]),
        ("Content-Length: many\r\n\r\n{}", &["!-32700"]),
        ("Content-Length:\r\n\r\n{}", &["!-32700"]),
        ("Content-Type: x\r\n\r\n{}", &["!-32700"]),
        ("what is this\r\n\r\n", &["!-32700"]),
        ("what is this ", &["!-32700"]),
        ("\u{feff}", &["!-32700"]),
        (&long, &["!-32700"]),
        ("Content-Length: 99999999999999\r\n\r\n{}", &["!-32700"]),
        ("Content-Length: 99999999999999999999999999\r\n\r\n{}", &["!-32700"]),
        ("Content-Length: 100000\r\n\r\n{\"jsonrpc\":", &["!-32700"]),
        ("Content-Length: 100000\r\n\r\n{\"jsonrpc\":\"2", &["!-32700"]),
        ("Content-Length: 3\r\n\r\n{\"jsonrpc\":\"2.0\"}", &["!-32700"]),
        ("Content-Length: 8\r\n\r\n{\"a\":x}}", &["!-32700"]),
        ("Content-Length: 9\r\n\r\n{} and so", &["!-32600"]),
    ] {
        let expected: Vec<_> = ["a"].iter().chain(errors).chain(&["b"]).copied().collect();
        check(&format!("{a}{bad}{b}"), &expected);
    }
}

#[test]
fn a_length_that_is_too_large_costs_nothing_if_the_message_is_whole() {
    for more in (0..60).chain([5000]) {
        let body = body("a");
        let stream = format!("Content-Length: {}\r\n\r\n{body}{}", body.len() + more, message("b"));
        check(&stream, &["a", "b"]);
        let typed = format!("Content-Type: x\r\n{}", message("b"));
        check(&format!("Content-Length: {}\r\n\r\n{body}{typed}", body.len() + more), &["a", "b"]);
    }
}

#[test]
fn a_length_that_is_too_large_does_not_hold_its_message_back() {
    let stream = format!("Content-Length: 500\r\n\r\n{}", body("a"));
    check(&stream, &["a"]);
}

#[test]
fn a_length_that_is_wrong_costs_one_message_at_most() {
    let (whole, broken) = (body("a"), r#"{"jsonrpc":"2.0","method":"a","params":["#);
    for less in 1..whole.len() {
        let stream = format!("Content-Length: {less}\r\n\r\n{whole}{}", message("b"));
        check(&stream, &["!-32700", "b"]);
    }
    for more in 0..60 {
        let stream = format!("Content-Length: {}\r\n\r\n{broken}{}", broken.len() + more, message("b"));
        check(&stream, &["!-32700", "b"]);
    }
}

#[test]
fn trailing_bytes_after_message_are_reported_and_skipped() {
    let body = format!("{}}}", body("a"));
    check(&format!("{}{}", framed(&body), message("b")), &["a", "!-32700", "b"]);
}

#[test]
fn bytes_that_are_not_utf8_are_reported() {
    let mut stream =
        b"Content-Length: 4\r\n\r\n\"\xff\xfe\"Content-Length: 10\r\n\r\n{\"a\":\"\xc3\x28\"}".to_vec();
    stream.extend(message("b").bytes());
    for size in [1, 5, 1000] {
        assert_eq!(run(&stream, size), ["!-32700", "!-32700", "b"]);
    }
}

#[test]
fn endless_garbage_and_huge_lengths_are_not_kept() {
    let mut framer = MessageFramer::default();
    let mut emitted = 0;
    let mut emit = |_| emitted += 1;
    framer.feed_bytes(b"Content-Length: 18446744073709551615\r\n\r\n", &mut emit);
    for _ in 0..100 {
        framer.feed_bytes(&[b'x'; 10_000], &mut emit);
    }
    assert!(framer.buffered_len() <= 2 * MAX_HEADER_BYTES, "{}", framer.buffered_len());
    let mut framer = MessageFramer::default();
    for _ in 0..100 {
        framer.feed_bytes(&[b'x'; 10_000], &mut emit);
    }
    assert!(framer.buffered_len() <= 2 * MAX_HEADER_BYTES, "{}", framer.buffered_len());
    assert_eq!(emitted, 2);
}

/// For any mutation of a stream: nothing panics, the pieces make no difference, and the intact messages after it pass.
#[test]
fn mutated_streams_yield_the_same_whatever_the_pieces_and_end_in_step() {
    let mut random = fastrand::Rng::with_seed(19);
    let parts: Vec<String> = ["a", "b", "textDocument/didChange"].map(message).into();
    let snippets = [
        "Content-Length: 7\r\n",
        "\r\n\r\n",
        "{",
        "}",
        "\"",
        "\\",
        "[",
        "]",
        "\u{e9}",
        "0",
        "content-type:",
        "\n",
    ];
    for round in 0..1000 {
        let mut stream: Vec<u8> =
            (0..random.usize(1..5)).flat_map(|_| random.choice(&parts).unwrap().bytes()).collect();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..stream.len());
            match random.u8(0..4) {
                0 => stream[at] = random.u8(..),
                1 => drop(stream.drain(at..(at + random.usize(1..20)).min(stream.len()))),
                2 => drop(stream.splice(at..at, random.choice(snippets).unwrap().bytes())),
                _ => stream.truncate(at),
            }
            stream.push(b' ');
        }
        // Only a huge claimed length may swallow this: then the next line that looks like a header ends it.
        stream.extend(b"\n\n");
        stream.extend(message("last").bytes());
        stream.extend(message("last").bytes());
        let whole = run(&stream, stream.len());
        assert_eq!(
            whole.last().map(String::as_str),
            Some("last"),
            "round {round}: {}",
            String::from_utf8_lossy(&stream)
        );
        for size in [1, 5, 23] {
            assert_eq!(run(&stream, size), whole, "round {round}: {}", String::from_utf8_lossy(&stream));
        }
    }
}
