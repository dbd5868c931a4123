//! Lines and characters around a byte offset of a rope. No function here panics: offsets are clamped and snapped to
//! character boundaries.
//!
//! A line ends at `\n`, `\r\n` or `\r` only, as in LSP.

use std::ops::Range;

use ropey::Rope;

/// How many bytes [`dominant_line_break`] examines.
const SAMPLE_BYTES: usize = 64 << 10;

/// Whether a character is part of a name.
#[must_use]
pub fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The start of the character that `offset` lies in; the end of the text if it lies beyond.
#[must_use]
pub fn floor_char_boundary(text: &Rope, offset: usize) -> usize {
    let offset = offset.min(text.len_bytes());
    text.char_to_byte(text.byte_to_char(offset))
}

/// Where the line of `offset` starts.
#[must_use]
pub fn line_start(text: &Rope, offset: usize) -> usize {
    text.line_to_byte(text.byte_to_line(offset.min(text.len_bytes())))
}

/// Where the line of `offset` ends: before its line break. An offset between `\r` and `\n` belongs to the
/// line that they end, so the result may be smaller than `offset`.
#[must_use]
pub fn line_end(text: &Rope, offset: usize) -> usize {
    nth_line_end(text, text.byte_to_line(offset.min(text.len_bytes())))
}

/// Where the next line starts, after the line break; the end of the text if there is none.
#[must_use]
pub fn next_line_start(text: &Rope, offset: usize) -> usize {
    let line = text.byte_to_line(offset.min(text.len_bytes()));
    if line + 1 < text.len_lines() { text.line_to_byte(line + 1) } else { text.len_bytes() }
}

/// Where line number `line` ends, before its line break. Lines beyond the last end where the text ends.
pub(super) fn nth_line_end(text: &Rope, line: usize) -> usize {
    let len = text.len_bytes();
    if line.saturating_add(1) >= text.len_lines() {
        return len;
    }
    let next = text.line_to_byte(line + 1);
    let byte = |at: usize| text.get_byte(at);
    match next.checked_sub(1).and_then(byte) {
        Some(b'\n') if next.checked_sub(2).and_then(byte) == Some(b'\r') => next - 2,
        Some(_) => next - 1,
        None => next,
    }
}

/// The character that ends at `offset`.
#[must_use]
pub fn char_before(text: &Rope, offset: usize) -> Option<char> {
    let at = text.byte_to_char(offset.min(text.len_bytes()));
    text.get_char(at.checked_sub(1)?)
}

/// The text of a range, both ends clamped and snapped to the start of a character. Copies: keep it small.
#[must_use]
pub fn slice(text: &Rope, range: Range<usize>) -> String {
    let (start, end) = (floor_char_boundary(text, range.start), floor_char_boundary(text, range.end));
    if start >= end { String::new() } else { text.byte_slice(start..end).to_string() }
}

/// At most `max_bytes` of text before `offset`, whole characters.
#[must_use]
pub fn text_before(text: &Rope, offset: usize, max_bytes: usize) -> String {
    let end = floor_char_boundary(text, offset);
    let wanted = end.saturating_sub(max_bytes);
    let mut start = floor_char_boundary(text, wanted);
    if start < wanted {
        start = text.char_to_byte(text.byte_to_char(wanted) + 1);
    }
    slice(text, start..end)
}

/// At most `max_bytes` of text after `offset`, whole characters.
#[must_use]
pub fn text_after(text: &Rope, offset: usize, max_bytes: usize) -> String {
    let start = floor_char_boundary(text, offset);
    slice(text, start..start.saturating_add(max_bytes))
}

/// The line break that most of the file's first lines end with; `"\n"` when undecided.
#[must_use]
pub fn dominant_line_break(text: &Rope) -> &'static str {
    let (mut crlf, mut lf, mut seen, mut last) = (0usize, 0usize, 0usize, 0u8);
    for chunk in text.chunks() {
        for &byte in chunk.as_bytes() {
            if byte == b'\n' {
                *(if last == b'\r' { &mut crlf } else { &mut lf }) += 1;
            }
            last = byte;
        }
        seen += chunk.len();
        if seen >= SAMPLE_BYTES {
            break;
        }
    }
    if crlf > lf { "\r\n" } else { "\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_before_each_kind_of_break() {
        let text = Rope::from_str("ab\r\ncä\rd\n\u{2028}e");
        let of =
            |offset| (line_start(&text, offset), line_end(&text, offset), next_line_start(&text, offset));
        assert_eq!(of(0), (0, 2, 4));
        assert_eq!(of(3), (0, 2, 4)); // between \r and \n
        assert_eq!(of(4), (4, 7, 8));
        assert_eq!(of(7), (4, 7, 8));
        assert_eq!(of(8), (8, 9, 10));
        assert_eq!(of(10), (10, 14, 14)); // U+2028 does not end a line
        assert_eq!(of(usize::MAX), (10, 14, 14));
        let empty = Rope::new();
        assert_eq!((line_start(&empty, 9), line_end(&empty, 9), next_line_start(&empty, 9)), (0, 0, 0));
    }

    #[test]
    fn slices_are_bounded_and_keep_characters_whole() {
        let text = Rope::from_str("aä😀b");
        assert_eq!(slice(&text, 0..2), "a");
        assert_eq!(slice(&text, 2..usize::MAX), "ä😀b");
        #[expect(clippy::reversed_empty_ranges, reason = "a broken range is the point")]
        let reversed = slice(&text, 5..1);
        assert_eq!(reversed, "");
        assert_eq!(text_before(&text, 7, 4), "😀");
        assert_eq!(text_before(&text, 7, 5), "😀");
        assert_eq!(text_before(&text, 7, 6), "ä😀");
        assert_eq!(text_before(&text, usize::MAX, usize::MAX), "aä😀b");
        assert_eq!(text_before(&text, 8, 0), "");
        assert_eq!(text_after(&text, 1, 5), "ä");
        assert_eq!(text_after(&text, 1, 6), "ä😀");
        assert_eq!(text_after(&text, 99, 6), "");
        assert_eq!((char_before(&text, 3), char_before(&text, 0)), (Some('ä'), None));
    }

    #[test]
    fn the_dominant_line_break_is_found() {
        let of = |text: &str| dominant_line_break(&Rope::from_str(text));
        assert_eq!(of(""), "\n");
        assert_eq!(of("a\r\nb\r\nc\n"), "\r\n");
        assert_eq!(of("a\r\nb\nc\n"), "\n");
        assert_eq!(of("a\rb\r"), "\n");
        assert_eq!(of(&"x\r\n".repeat(100_000)), "\r\n");
    }
}
