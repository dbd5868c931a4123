//! Splits a byte stream into messages, limits their size, and resynchronises after malformed input.
//!
//! A body ends where its JSON ends, whatever length its header claims; the next header follows. If the JSON does
//! not end in time, a line that looks like a header ends it, because a raw line break cannot be part of a string.
//! So a wrong length costs at most its own message. A malformed message is reported once, and everything up to the
//! next header is skipped.

use memchr::{memchr, memchr2, memrchr};
use tower_lsp::jsonrpc::{ErrorCode, Id};

use crate::lsp::incoming::{self, IncomingMessage, JsonComplexity};

/// Maximum bytes of a message; a longer one is answered with an error and skipped. A document of 50 MB fits,
/// however much of it has to be escaped.
const MAX_MESSAGE_BYTES: usize = 384 << 20;
/// Maximum bytes of a header.
const MAX_HEADER_BYTES: usize = 4096;
/// The field that a header must contain, compared without regard to case.
const LENGTH_FIELD: &[u8] = b"content-length:";
/// The other field that a header may begin with.
const TYPE_FIELD: &[u8] = b"content-type:";

/// Takes bytes in, gives messages out.
#[derive(Debug, Default)]
pub struct MessageFramer {
    buffer: Vec<u8>,
    state: FramerState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum FramerState {
    /// A header is next.
    #[default]
    Header,
    /// A body of this many bytes is next.
    Body(usize, BodyProgress),
    /// The body's JSON ended `left` bytes before its claimed length: blanks or the next header follow. `reported`:
    /// an error was already reported.
    Tail { left: usize, reported: bool },
    /// Out of sync: everything up to the next header line is skipped. The error has been reported.
    Lost,
}

/// How far a body has been scanned.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct BodyProgress {
    json: JsonScanner,
    /// No header line ends in the first `seen` bytes.
    seen: usize,
    /// Start of the line that is incomplete at `seen`.
    line: usize,
}

/// State of the scan after the first `at` bytes of a JSON text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct JsonScanner {
    at: usize,
    depth: usize,
    in_string: bool,
    complexity: JsonComplexity,
    /// The text does not begin with a brace or a bracket, so its end cannot be determined.
    is_scalar: bool,
}

impl JsonScanner {
    /// Continues to the end of `text`, or to the end of the value.
    fn scan_value(&mut self, text: &[u8]) -> Option<usize> {
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
                    // The escaped character has not arrived yet.
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

impl MessageFramer {
    /// Takes the next bytes of the stream and calls `emit` with each message that is complete now.
    pub fn feed_bytes(&mut self, bytes: &[u8], emit: &mut dyn FnMut(IncomingMessage)) {
        self.buffer.extend_from_slice(bytes);
        let mut consumed = 0;
        while let Some(used) = self.parse_step(consumed, emit) {
            consumed += used;
        }
        self.buffer.drain(..consumed);
        if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
            // A large document went through: do not keep its capacity.
            self.buffer = Vec::new();
        }
    }

    /// Bytes that wait for more input.
    pub fn buffered_len(&self) -> usize {
        self.buffer.len()
    }

    /// Performs one step at `from`. Returns the bytes that it used up, or `None` if it needs more. A step that uses
    /// none changes the state.
    fn parse_step(&mut self, from: usize, emit: &mut dyn FnMut(IncomingMessage)) -> Option<usize> {
        match self.state {
            FramerState::Header => self.read_header(from, emit),
            FramerState::Body(length, progress) => self.read_body(from, length, progress, emit),
            FramerState::Tail { left, reported } => self.read_tail(from, left, reported, emit),
            FramerState::Lost => self.skip_to_header(from),
        }
    }

    fn read_header(&mut self, from: usize, emit: &mut dyn FnMut(IncomingMessage)) -> Option<usize> {
        let rest = &self.buffer[from..];
        // Blank lines between messages are harmless.
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 {
            return Some(blank);
        }
        match parse_header(rest) {
            HeaderParse::Partial => None,
            HeaderParse::Wrong(problem) => {
                emit(framing_error(problem));
                self.state = FramerState::Lost;
                // After a message that was too long, a header that follows is the next one. A header at the
                // very start is the faulty one and must not be found again.
                let next = find_length_field(rest, 0, 0).filter(|at| *at > 0);
                let line = || memchr(b'\n', rest).map_or(0, |at| at + 1);
                Some(next.unwrap_or_else(line))
            }
            HeaderParse::Whole { bytes, length } if length > MAX_MESSAGE_BYTES => {
                emit(framing_error("the message is too long"));
                self.state = FramerState::Lost;
                Some(bytes)
            }
            HeaderParse::Whole { bytes, length } => {
                self.state = FramerState::Body(length, BodyProgress::default());
                Some(bytes)
            }
        }
    }

    fn read_body(
        &mut self,
        from: usize,
        length: usize,
        mut progress: BodyProgress,
        emit: &mut dyn FnMut(IncomingMessage),
    ) -> Option<usize> {
        let rest = &self.buffer[from..];
        let window = &rest[..length.min(rest.len())];
        let end = progress.json.scan_value(window);
        let cut = find_length_field(&window[..end.unwrap_or(window.len())], progress.line, progress.seen);
        if let (Some(end), None) = (end, cut) {
            let message = incoming::parse_message(&window[..end], progress.json.complexity);
            let reported = matches!(message, Some(IncomingMessage::Malformed(_)));
            if let Some(message) = message {
                emit(message);
            }
            self.state = FramerState::Tail { left: length - end, reported };
            return Some(end);
        }
        if cut.is_none() && rest.len() < length {
            if let start @ 1.. = line_start(&window[progress.seen..]) {
                progress.line = progress.seen + start;
            }
            progress.seen = window.len();
            self.state = FramerState::Body(length, progress);
            return None;
        }
        let window = &window[..cut.unwrap_or(length)];
        // The body has no end, or is a scalar: malformed in either case.
        if let Some(message) = incoming::parse_message(window, progress.json.complexity) {
            emit(message);
        }
        self.state = FramerState::Lost;
        Some(cut.unwrap_or(length - partial_header_len(window)))
    }

    fn read_tail(
        &mut self,
        from: usize,
        left: usize,
        reported: bool,
        emit: &mut dyn FnMut(IncomingMessage),
    ) -> Option<usize> {
        let rest = &self.buffer[from..];
        let window = &rest[..left.min(rest.len())];
        let blank = window.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if blank == left {
            self.state = FramerState::Header;
            return Some(blank);
        }
        if blank > 0 {
            self.state = FramerState::Tail { left: left - blank, reported };
            return Some(blank);
        }
        // The next header may extend beyond the claimed length.
        if begins_header(rest)? {
            self.state = FramerState::Header;
            return Some(0);
        }
        if !reported {
            emit(framing_error("the message continues after its end"));
        }
        self.state = FramerState::Lost;
        Some(0)
    }

    fn skip_to_header(&mut self, from: usize) -> Option<usize> {
        let rest = &self.buffer[from..];
        if let Some(at) = find_length_field(rest, 0, 0) {
            self.state = FramerState::Header;
            return Some(at);
        }
        // Keep the last line: it may contain the beginning of a header.
        let line = line_start(rest).max(rest.len().saturating_sub(MAX_HEADER_BYTES));
        (line > 0).then_some(line)
    }
}

/// The error that replaces a message that cannot be framed.
fn framing_error(problem: &'static str) -> IncomingMessage {
    incoming::invalid_request(Id::Null, ErrorCode::ParseError, problem)
}

/// Whether a header begins with these bytes; `None` if more are needed to decide.
fn begins_header(bytes: &[u8]) -> Option<bool> {
    let mut is_short = false;
    for name in [LENGTH_FIELD, TYPE_FIELD] {
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

/// Number of bytes at the end of an unterminated body that may be the beginning of the next `Content-Length: 12`.
fn partial_header_len(body: &[u8]) -> usize {
    let digits = body.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b'\r').count();
    let named = body[..body.len() - digits].trim_ascii_end();
    if named.len() >= LENGTH_FIELD.len()
        && named[named.len() - LENGTH_FIELD.len()..].eq_ignore_ascii_case(LENGTH_FIELD)
    {
        return body.len() - (named.len() - LENGTH_FIELD.len());
    }
    let begun = |count: &usize| {
        *count <= body.len() && body[body.len() - count..].eq_ignore_ascii_case(&LENGTH_FIELD[..*count])
    };
    (1..LENGTH_FIELD.len()).rev().find(begun).unwrap_or(0)
}

/// Start of the last line of `bytes`.
fn line_start(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

/// Start of the first `Content-Length: 12` that ends a line. Searches line ends from `seen` on; the line that
/// contains `seen` began at `line`.
fn find_length_field(bytes: &[u8], line: usize, seen: usize) -> Option<usize> {
    let (mut start, mut from) = (line, seen);
    while let Some(end) = memchr(b'\n', &bytes[from..]).map(|at| from + at) {
        let line = &bytes[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Only the end of the line can be the header: digits, blanks, the name.
        let line = line.trim_ascii_end();
        let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let name = line[..line.len() - digits].trim_ascii_end();
        if digits > 0
            && let Some(at) = name.len().checked_sub(LENGTH_FIELD.len())
            && name[at..].eq_ignore_ascii_case(LENGTH_FIELD)
        {
            return Some(start + at);
        }
        (start, from) = (end + 1, end + 1);
    }
    None
}

enum HeaderParse {
    Partial,
    Wrong(&'static str),
    Whole { bytes: usize, length: usize },
}

/// Reads a header: lines up to an empty one. Line ends may be `\n` alone; other fields are ignored.
fn parse_header(bytes: &[u8]) -> HeaderParse {
    let mut length = None;
    let mut start = 0;
    while let Some(end) = memchr(b'\n', &bytes[start..]).map(|at| start + at) {
        if end > MAX_HEADER_BYTES {
            break;
        }
        let line = bytes[start..end].trim_ascii();
        start = end + 1;
        if line.is_empty() {
            return match length {
                Some(length) => HeaderParse::Whole { bytes: start, length },
                None => HeaderParse::Wrong("the header has no Content-Length"),
            };
        }
        if line.len() >= LENGTH_FIELD.len() && line[..LENGTH_FIELD.len()].eq_ignore_ascii_case(LENGTH_FIELD) {
            match parse_length(line[LENGTH_FIELD.len()..].trim_ascii()) {
                Some(number) => length = Some(number),
                None => return HeaderParse::Wrong("the Content-Length is not a number"),
            }
        } else if !is_header_field(line) {
            return HeaderParse::Wrong("the header is not `name: value`");
        }
    }
    if bytes.len() > MAX_HEADER_BYTES {
        HeaderParse::Wrong("the header is too long")
    } else {
        HeaderParse::Partial
    }
}

/// Parses digits only; a number that is too large for the machine becomes the largest.
fn parse_length(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(digits).ok()?.parse().unwrap_or(usize::MAX))
}

/// Whether a line is `Name: value`.
fn is_header_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    name > 0 && line.get(name) == Some(&b':')
}

#[cfg(test)]
mod tests;
