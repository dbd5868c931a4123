//! Messages out of a stream of bytes: framed, bounded in size, and in step again after anything malformed.
//! It knows nothing of what the messages mean.
//!
//! A body ends where its JSON ends, whatever length its header claims: what follows is the next header. Where the JSON does
//! not end in time, a line like a header's ends it, for a raw line break cannot be part of a string. So a wrong length
//! costs its own message at most. A malformed message is reported once, and everything up to the next header goes.

use memchr::{memchr, memchr2, memrchr};
use tower_lsp::jsonrpc::{ErrorCode, Id};

use crate::protocol::incoming::{self, Complexity, Incoming};

/// Bytes of a message at most; a longer one is answered with an error and skipped. A document of 50 MB has its
/// place in it, however much of it has to be escaped.
const MESSAGE: usize = 384 << 20;
/// Bytes of a header at most.
const HEADER: usize = 4096;
/// What a header must have in it, compared without regard to case.
const LENGTH: &[u8] = b"content-length:";
/// The other field that a header may begin with.
const TYPE: &[u8] = b"content-type:";

/// Takes bytes in, gives messages out.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A header is next.
    #[default]
    Header,
    /// A body of so many bytes is next.
    Body(usize, Body),
    /// The body's JSON has ended, so many bytes before its claimed length: blanks, or the next header already. Whether an
    /// error was reported.
    Tail { left: usize, reported: bool },
    /// Out of step: everything up to the next header line goes. The error has been reported.
    Lost,
}

/// How far a body has been looked through.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Body {
    json: Json,
    /// No header line ends in the first `seen` bytes.
    seen: usize,
    /// Where the line began that is not at its end there.
    line: usize,
}

/// Where in a JSON text the first `at` bytes end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Json {
    at: usize,
    depth: usize,
    in_string: bool,
    complexity: Complexity,
    /// The text begins with something else than a brace or a bracket: its end cannot be told.
    is_scalar: bool,
}

impl Json {
    /// Goes on to the end of `text`, or to where the value ends.
    fn advance(&mut self, text: &[u8]) -> Option<usize> {
        while let Some(&byte) = text.get(self.at) {
            if self.in_string {
                let Some(found) = memchr2(b'"', b'\\', &text[self.at..]) else {
                    self.at = text.len();
                    return None;
                };
                self.at += found;
                if text[self.at] == b'"' {
                    self.in_string = false;
                } else if self.at + 1 == text.len() {
                    // What is escaped is still to come.
                    return None;
                } else {
                    self.at += 1;
                }
                self.at += 1;
                continue;
            }
            match byte {
                _ if self.is_scalar => {
                    self.at = text.len();
                    return None;
                }
                b'"' if self.depth > 0 => self.in_string = true,
                b'{' => {
                    self.depth += 1;
                    self.complexity.objects += 1;
                }
                b'[' => {
                    self.depth += 1;
                    self.complexity.values += 1;
                }
                b',' | b':' => self.complexity.values += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.at += 1;
                        return Some(self.at);
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => self.is_scalar = self.depth == 0,
            }
            self.at += 1;
        }
        None
    }
}

impl Framer {
    /// Takes the next bytes of the stream and calls `emit` with each message that is complete now.
    pub fn feed(&mut self, bytes: &[u8], emit: &mut dyn FnMut(Incoming)) {
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

    /// Bytes that wait for more.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// One step at `from`: the bytes that it used up, or `None` if it needs more. A step that uses none changes
    /// the state.
    fn step(&mut self, from: usize, emit: &mut dyn FnMut(Incoming)) -> Option<usize> {
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
                        emit(malformed(problem));
                        self.state = State::Lost;
                        // A header that follows a message that was too long is the next one. One at the very start is
                        // what was wrong here, and must not be found again.
                        let next = header_line(rest, 0, 0).filter(|at| *at > 0);
                        let line = || memchr(b'\n', rest).map_or(0, |at| at + 1);
                        Some(next.unwrap_or_else(line))
                    }
                    Header::Whole { bytes, length } if length > MESSAGE => {
                        emit(malformed("the message is too long"));
                        self.state = State::Lost;
                        Some(bytes)
                    }
                    Header::Whole { bytes, length } => {
                        self.state = State::Body(length, Body::default());
                        Some(bytes)
                    }
                }
            }
            State::Body(length, mut body) => {
                let window = &rest[..length.min(rest.len())];
                let end = body.json.advance(window);
                let cut = header_line(&window[..end.unwrap_or(window.len())], body.line, body.seen);
                if let (Some(end), None) = (end, cut) {
                    let message = incoming::read(&window[..end], body.json.complexity);
                    let reported = matches!(message, Some(Incoming::Malformed(_)));
                    if let Some(message) = message {
                        emit(message);
                    }
                    self.state = State::Tail { left: length - end, reported };
                    return Some(end);
                }
                if cut.is_none() && rest.len() < length {
                    if let start @ 1.. = line_start(&window[body.seen..]) {
                        body.line = body.seen + start;
                    }
                    body.seen = window.len();
                    self.state = State::Body(length, body);
                    return None;
                }
                let window = &window[..cut.unwrap_or(length)];
                // It has no end, or is a scalar: malformed in any case.
                if let Some(message) = incoming::read(window, body.json.complexity) {
                    emit(message);
                }
                self.state = State::Lost;
                Some(cut.unwrap_or(length - header_begun(window)))
            }
            State::Tail { left, reported } => {
                let window = &rest[..left.min(rest.len())];
                let blank = window.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                if blank == left {
                    self.state = State::Header;
                    return Some(blank);
                }
                if blank > 0 {
                    self.state = State::Tail { left: left - blank, reported };
                    return Some(blank);
                }
                // The next header may reach beyond what was claimed.
                if begins_header(rest)? {
                    self.state = State::Header;
                    return Some(0);
                }
                if !reported {
                    emit(malformed("the message goes on after its end"));
                }
                self.state = State::Lost;
                Some(0)
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

/// The error in place of what cannot be framed.
fn malformed(problem: &'static str) -> Incoming {
    incoming::malformed(Id::Null, ErrorCode::ParseError, problem)
}

/// Whether a header begins with these bytes; `None` if more are needed to tell.
fn begins_header(bytes: &[u8]) -> Option<bool> {
    let mut is_short = false;
    for name in [LENGTH, TYPE] {
        let length = name.len().min(bytes.len());
        if bytes[..length].eq_ignore_ascii_case(&name[..length]) {
            if length == name.len() {
                return Some(true);
            }
            is_short = true;
        }
    }
    (!is_short).then_some(false)
}

/// How many bytes at the end of a body that has no end may be the beginning of the next `Content-Length: 12`.
fn header_begun(body: &[u8]) -> usize {
    let digits = body.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b'\r').count();
    let named = body[..body.len() - digits].trim_ascii_end();
    if named.len() >= LENGTH.len() && named[named.len() - LENGTH.len()..].eq_ignore_ascii_case(LENGTH) {
        return body.len() - (named.len() - LENGTH.len());
    }
    let begun = |count: &usize| {
        *count <= body.len() && body[body.len() - count..].eq_ignore_ascii_case(&LENGTH[..*count])
    };
    (1..LENGTH.len()).rev().find(begun).unwrap_or(0)
}

/// Where the last line of `bytes` begins.
fn line_start(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

/// Where the first `Content-Length: 12` begins that ends a line. Looks for line ends from `seen` on; the line that
/// `seen` is in began at `line`.
fn header_line(bytes: &[u8], line: usize, seen: usize) -> Option<usize> {
    let (mut start, mut from) = (line, seen);
    while let Some(end) = memchr(b'\n', &bytes[from..]).map(|at| from + at) {
        let line = &bytes[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Only the end of the line can be the header: digits, blanks, the name.
        let line = line.trim_ascii_end();
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
    while let Some(end) = memchr(b'\n', &bytes[start..]).map(|at| start + at) {
        if end > HEADER {
            break;
        }
        let line = bytes[start..end].trim_ascii();
        start = end + 1;
        if line.is_empty() {
            return match length {
                Some(length) => Header::Whole { bytes: start, length },
                None => Header::Wrong("the header has no Content-Length"),
            };
        }
        if line.len() >= LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH) {
            match number(line[LENGTH.len()..].trim_ascii()) {
                Some(number) => length = Some(number),
                None => return Header::Wrong("the Content-Length is not a number"),
            }
        } else if !is_field(line) {
            return Header::Wrong("the header is not `name: value`");
        }
    }
    if bytes.len() > HEADER { Header::Wrong("the header is too long") } else { Header::Partial }
}

/// A number of digits only; one that is too large for the machine is the largest.
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(digits).ok()?.parse().unwrap_or(usize::MAX))
}

/// Whether a line is `Name: value`.
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    name > 0 && line.get(name) == Some(&b':')
}

#[cfg(test)]
mod tests;
