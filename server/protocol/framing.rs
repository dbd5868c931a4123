//! Messages out of a stream of bytes: framed, bounded in size, and in step again after anything malformed.
//! It knows nothing of what the messages mean.
//!
//! tower-lsp's own codec stops reading for good at the first malformed message, and buffers whatever length a
//! header claims. So only messages that its codec will accept go on to it, under a header written here; in
//! place of a malformed one goes a request with the method [`MALFORMED`], which the front answers with an error.

use serde::Deserialize;
use serde_json::{Value, json};
use tower_lsp::jsonrpc::{Request, Response};

/// The method of the request that stands in for a malformed message. Its `params` are the error.
pub(crate) const MALFORMED: &str = "$/taper/malformed";

/// Bytes of a message at most; a longer one is answered with an error and skipped. A document of 50 MB has its
/// place in it, however much of it has to be escaped.
const MESSAGE: usize = 384 << 20;
/// Bytes of a header at most.
const HEADER: usize = 4096;
/// What a header must have in it, compared without regard to case.
const LENGTH: &[u8] = b"content-length:";

/// Takes bytes in, gives whole and valid messages out.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    buffer: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A header is next.
    #[default]
    Header,
    /// So many bytes are next. No header line ends in the first `seen` of them, and the line that is not at its
    /// end there began at `line`.
    Body { length: usize, line: usize, seen: usize },
    /// Out of step: everything up to the next header line goes. The error has been reported.
    Lost,
}

impl Framer {
    /// Takes the next bytes of the stream and calls `emit` with each message that is complete now.
    pub(crate) fn feed(&mut self, bytes: &[u8], emit: &mut dyn FnMut(Vec<u8>)) {
        self.buffer.extend_from_slice(bytes);
        let mut consumed = 0;
        while let Some(used) = self.step(consumed, emit) {
            consumed += used;
        }
        self.buffer.drain(..consumed);
        if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
            // A large document went through: do not keep its size for good.
            self.buffer = Vec::new();
        }
    }

    /// One step at `from`: the bytes that it used up, or `None` if it needs more. A step that uses none changes
    /// the state.
    fn step(&mut self, from: usize, emit: &mut dyn FnMut(Vec<u8>)) -> Option<usize> {
        let rest = &self.buffer[from..];
        match self.state {
            State::Header => {
                // Blank lines between messages do no harm.
                let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                if blank > 0 {
                    return Some(blank);
                }
                match header(rest) {
                    Header::Partial => None,
                    Header::Wrong(problem) => {
                        emit(malformed(None, -32700, problem));
                        self.state = State::Lost;
                        // A header that stands behind the end of a message that was too long is the next one.
                        // One at the very start is what was wrong here, and must not be found again.
                        let next = header_line(rest, 0, 0).filter(|at| *at > 0);
                        let line = || rest.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                        Some(next.unwrap_or_else(line))
                    }
                    Header::Whole { bytes, length } if length > MESSAGE => {
                        emit(malformed(None, -32700, "the message is too long"));
                        self.state = State::Lost;
                        Some(bytes)
                    }
                    Header::Whole { bytes, length } => {
                        self.state = State::Body { length, line: 0, seen: 0 };
                        Some(bytes)
                    }
                }
            }
            State::Body { length, line, seen } => {
                // A raw line break behind `Content-Length: 12` cannot be part of JSON: if there is one, the
                // length that was claimed is wrong, and waiting for it would swallow valid messages.
                let window = &rest[..length.min(rest.len())];
                let (used, done) = match header_line(window, line, seen) {
                    Some(at) => (at, true),
                    None => (length, rest.len() >= length),
                };
                if !done {
                    let line = line.max(seen + line_start(&window[seen..]));
                    self.state = State::Body { length, line, seen: window.len() };
                    return None;
                }
                if let Some(message) = valid(&window[..used]) {
                    emit(message);
                }
                self.state = State::Header;
                Some(used)
            }
            State::Lost => {
                if let Some(at) = header_line(rest, 0, 0) {
                    self.state = State::Header;
                    return Some(at);
                }
                // Keep the last line: a header may have begun in it.
                let line = line_start(rest).max(rest.len().saturating_sub(HEADER));
                (line > 0).then_some(line)
            }
        }
    }
}

/// Where the last line of `bytes` begins.
fn line_start(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// Where the first `Content-Length: 12` begins that ends a line. Looks for line ends from `seen` on; the line that
/// `seen` is in began at `line`.
fn header_line(bytes: &[u8], line: usize, seen: usize) -> Option<usize> {
    let (mut start, mut from) = (line, seen);
    while let Some(end) = bytes[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at) {
        let line = &bytes[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Only the end of the line can be the header: digits, blanks, the name.
        let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let name = line[..line.len() - digits].trim_ascii_end();
        if digits > 0
            && let Some(at) = name.len().checked_sub(LENGTH.len())
            && name[at..].eq_ignore_ascii_case(LENGTH)
        {
            return Some(start + at);
        }
        (start, from) = (end + 1, end + 1);
    }
    None
}

enum Header {
    Partial,
    Wrong(&'static str),
    Whole { bytes: usize, length: usize },
}

/// Reads a header: lines up to an empty one. Line ends may be `\n` alone; other fields are ignored.
fn header(bytes: &[u8]) -> Header {
    let mut length = None;
    let mut start = 0;
    while let Some(end) = bytes[start..].iter().position(|byte| *byte == b'\n').map(|at| start + at) {
        let line = bytes[start..end].trim_ascii();
        start = end + 1;
        if line.is_empty() {
            return match length {
                Some(length) => Header::Whole { bytes: start, length },
                None => Header::Wrong("the header has no Content-Length"),
            };
        }
        if line.len() >= LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH) {
            let number = std::str::from_utf8(&line[LENGTH.len()..]).ok().map(str::trim);
            match number.and_then(|number| number.parse().ok()) {
                Some(number) => length = Some(number),
                None => return Header::Wrong("the Content-Length is not a number"),
            }
        } else if !is_field(line) {
            return Header::Wrong("the header is not `name: value`");
        }
    }
    if bytes.len() > HEADER { Header::Wrong("the header is too long") } else { Header::Partial }
}

/// Whether a line is `Name: value`.
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    name > 0 && line.get(name) == Some(&b':')
}

/// A message as the codec parses it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Response(#[expect(dead_code, reason = "only whether it parses")] Response),
    Request(Request),
}

/// The message framed anew if the codec will accept it; else what goes in its place, if anything.
fn valid(body: &[u8]) -> Option<Vec<u8>> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Some(malformed(None, -32700, "the message is not UTF-8"));
    };
    match serde_json::from_str::<Message>(text) {
        Ok(Message::Response(_)) => return Some(frame(body)),
        // Without a method the codec would take it for a request all the same.
        Ok(Message::Request(request)) if !request.method().is_empty() => return Some(frame(body)),
        _ => {}
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return Some(malformed(None, -32700, "the message is not JSON"));
    };
    if value.get("method").is_none() && (value.get("result").is_some() || value.get("error").is_some()) {
        // A malformed answer: there is nobody to tell.
        tracing::warn!("a malformed answer from the editor is ignored");
        return None;
    }
    let id = value.get("id").filter(|id| id.is_i64() || id.is_string()).cloned();
    Some(malformed(id, -32600, "the message is not a request"))
}

/// The request that stands in for a malformed message.
fn malformed(id: Option<Value>, code: i64, message: &str) -> Vec<u8> {
    let id = id.unwrap_or(Value::Null);
    let params = json!({ "code": code, "message": message });
    let request = json!({ "jsonrpc": "2.0", "id": id, "method": MALFORMED, "params": params });
    frame(request.to_string().as_bytes())
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut framed = format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    framed.extend_from_slice(body);
    framed
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// What comes out for `stream`, cut into pieces of `size` bytes: methods, and errors as `!code`.
    fn run(stream: &[u8], size: usize) -> Vec<String> {
        let mut framer = Framer::default();
        let mut out = Vec::new();
        for piece in stream.chunks(size) {
            framer.feed(piece, &mut |message| {
                let body = message.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
                let value: Value = serde_json::from_slice(&message[body..]).unwrap();
                out.push(match value["method"].as_str() {
                    Some(MALFORMED) => format!("!{}", value["params"]["code"]),
                    Some(method) => method.to_owned(),
                    None => "response".to_owned(),
                });
            });
        }
        out
    }

    #[track_caller]
    fn check(stream: &str, expected: &[&str]) {
        for size in [1, 2, 3, 7, 64, 100_000] {
            assert_eq!(run(stream.as_bytes(), size), expected, "in pieces of {size}");
        }
    }

    fn message(method: &str) -> String {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"t":"Content-Length: 5\r\n\r\n"}}}}"#);
        format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn good_messages_pass_whatever_the_pieces() {
        let body = r#"{"jsonrpc":"2.0","method":"odd","params":{}}"#;
        let odd = format!("content-LENGTH:{}\nContent-Type: x; charset=latin1\nX: y\n\n{body}\r\n", body.len());
        let answer = r#"{"jsonrpc":"2.0","id":0,"result":null}"#;
        let answer = format!("Content-Length: {}\r\n\r\n{answer}", answer.len());
        check(&format!("{}{odd}{answer}{}", message("a"), message("b")), &["a", "odd", "response", "b"]);
    }

    #[test]
    fn malformed_messages_are_reported_and_the_next_ones_pass() {
        let (a, b) = (message("a"), message("b"));
        for (bad, errors) in [
            ("Content-Length: 5\r\n\r\n{\"a\":", &["!-32700"][..]),
            ("Content-Length: 7\r\n\r\nnothing", &["!-32700"]),
            ("Content-Length: 2\r\n\r\n[]", &["!-32600"]),
            ("Content-Length: 2\r\n\r\n{}", &["!-32600"]),
            ("Content-Length: 0\r\n\r\n", &["!-32700"]),
            ("Content-Length: 8\r\n\r\n{\"id\":3}", &["!-32600"]),
            ("Content-Length: 20\r\n\r\n{\"id\":3,\"error\":\"x\"}", &[]),
            ("Content-Length: -4\r\n\r\n{}{}", &["!-32700"]),
            ("Content-Length: many\r\n\r\n{}", &["!-32700"]),
            ("Content-Type: x\r\n\r\n{}", &["!-32700"]),
            ("what is this\r\n\r\n", &["!-32700"]),
            ("Content-Length: 99999999999999\r\n\r\n{}", &["!-32700"]),
            ("Content-Length: 99999999999999999999999999\r\n\r\n{}", &["!-32700"]),
            ("Content-Length: 100000\r\n\r\n{\"jsonrpc\":", &["!-32700"]),
            // Too short: the tail is garbage before the next header.
            ("Content-Length: 3\r\n\r\n{\"jsonrpc\":\"2.0\"}", &["!-32700", "!-32700"]),
        ] {
            let expected: Vec<_> = ["a"].iter().chain(errors).chain(&["b"]).copied().collect();
            check(&format!("{a}{bad}{b}"), &expected);
        }
    }

    #[test]
    fn a_length_that_is_too_large_costs_nothing_if_the_message_is_whole() {
        let body = r#"{"jsonrpc":"2.0","method":"a"}"#;
        check(&format!("Content-Length: 5000\r\n\r\n{body}{}", message("b")), &["a", "b"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_reported() {
        let mut stream = b"Content-Length: 4\r\n\r\n\"\xff\xfe\"".to_vec();
        stream.extend(message("b").bytes());
        for size in [1, 5, 1000] {
            assert_eq!(run(&stream, size), ["!-32700", "b"]);
        }
    }

    #[test]
    fn endless_garbage_and_huge_lengths_are_not_kept() {
        let mut framer = Framer::default();
        let mut emitted = 0;
        let mut emit = |_| emitted += 1;
        framer.feed(b"Content-Length: 18446744073709551615\r\n\r\n", &mut emit);
        for _ in 0..100 {
            framer.feed(&[b'x'; 10_000], &mut emit);
        }
        assert!(framer.buffer.len() <= 2 * HEADER, "{}", framer.buffer.len());
        let mut framer = Framer::default();
        for _ in 0..100 {
            framer.feed(&[b'x'; 10_000], &mut emit);
        }
        assert!(framer.buffer.len() <= 2 * HEADER, "{}", framer.buffer.len());
        assert_eq!(emitted, 2);
    }

    #[test]
    fn an_id_that_can_be_read_is_answered_by() {
        let body = r#"{"id":"seven","method":"x"}"#;
        let mut out = Vec::new();
        let stream = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        Framer::default().feed(stream.as_bytes(), &mut |message| out.push(message));
        assert!(String::from_utf8(out.remove(0)).unwrap().contains(r#""id":"seven""#));
    }
}
