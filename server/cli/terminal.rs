//! Escapes output for terminals: no text of a file, a model or a network can control the terminal.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

/// The text with characters that control a terminal escaped: `\u{1b}` instead of an escape. Tabs and line ends stay.
/// Besides the control characters, those that change the direction of text are escaped.
pub fn escape_controls(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        // A carriage return alone overwrites the line; before a line feed it is a line end.
        let line_end = character == '\r' && characters.peek() == Some(&'\n');
        if is_control(character) && !line_end {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// The same for a value in a message.
pub fn escape_message(thing: impl fmt::Display) -> String {
    escape_controls(&thing.to_string()).into_owned()
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Writes lines through [`escape_controls`]; taper's own escape sequences must bypass it.
pub struct EscapedWriter<'a> {
    out: &'a mut dyn Write,
    /// The beginning of an incomplete character.
    held: Vec<u8>,
}

impl<'a> EscapedWriter<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, held: Vec::new() }
    }
}

impl Write for EscapedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.held) {
            Ok(_) => self.held.len(),
            // Invalid UTF-8 is replaced below; an incomplete character waits for the rest.
            Err(error) if error.error_len().is_some() => self.held.len(),
            Err(error) => error.valid_up_to(),
        };
        // A carriage return also waits: a line feed may follow.
        let whole = whole - usize::from(self.held[..whole].ends_with(b"\r"));
        let text: Vec<u8> = self.held.drain(..whole).collect();
        self.out.write_all(escape_controls(&String::from_utf8_lossy(&text)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_characters_are_escaped() {
        assert_eq!(escape_controls("a\tb\nä 漢 🦀"), "a\tb\nä 漢 🦀");
        assert_eq!(escape_controls("\x1b[31mred"), "\\u{1b}[31mred");
        assert_eq!(escape_controls("\x1b]0;title\x07"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(escape_controls("\u{9b}31m\u{7f}\u{8}\0"), "\\u{9b}31m\\u{7f}\\u{8}\\u{0}");
        assert_eq!(escape_controls("over\rwritten\x1b\r\n\r"), "over\\u{d}written\\u{1b}\r\n\\u{d}");
        assert_eq!(escape_controls("a\u{202e}b\u{2066}"), "a\\u{202e}b\\u{2066}");
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = c.to_string();
            let kept = escape_controls(&text);
            assert!(!kept.contains(|c: char| c.is_control() && c != '\t' && c != '\n'), "{c:?}");
        }
    }

    #[test]
    fn a_writer_sees_characters_whole() {
        let mut out = Vec::new();
        let mut plain = EscapedWriter::new(&mut out);
        for byte in "ä\x1b[0m\u{9b}漢\r\na\rb\n".as_bytes() {
            plain.write_all(&[*byte]).unwrap();
        }
        plain.write_all(b"\xff!\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ä\\u{1b}[0m\\u{9b}漢\r\na\\u{d}b\n\u{fffd}!\n");
    }
}
