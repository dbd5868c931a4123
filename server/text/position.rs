//! Converts line and column to byte offset and back, in UTF-8, UTF-16 and UTF-32.
//!
//! The rules are those of LSP 3.18, "Position": a line beyond the last is the end of the text, a column
//! beyond the end of its line is the end of that line, before its line break. A column within a character
//! (the second half of a surrogate pair, a continuation byte) is the character's start. Every function
//! costs O(log n), whatever the length of the line, and copies nothing.

use std::ops::Range;

use ropey::Rope;

use super::lines;

/// The unit in which a column is counted, ordered by preference: negotiation is `max()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// 16-bit code units, the protocol's default.
    Utf16,
    /// Unicode scalar values.
    Utf32,
    /// Bytes.
    Utf8,
}

/// A position as an editor sends it: both numbers from 0, the column in the negotiated [`Encoding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, ended by `\n`, `\r\n` or `\r`.
    pub line: u32,
    /// Column in code units.
    pub character: u32,
}

/// The byte offset of a position, clamped into the text and always at the start of a character.
#[must_use]
pub fn byte_offset(text: &Rope, position: Position, encoding: Encoding) -> usize {
    let line = position.line as usize;
    if line >= text.len_lines() {
        return text.len_bytes();
    }
    let column = position.character as usize;
    let (start, end) = (text.line_to_byte(line), lines::nth_line_end(text, line));
    match encoding {
        Encoding::Utf8 => lines::floor_char_boundary(text, start.saturating_add(column).min(end)),
        Encoding::Utf32 => {
            let (first, last) = (text.byte_to_char(start), text.byte_to_char(end));
            text.char_to_byte(first.saturating_add(column).min(last))
        }
        Encoding::Utf16 => {
            let unit = |byte: usize| text.char_to_utf16_cu(text.byte_to_char(byte));
            let wanted = unit(start).saturating_add(column).min(unit(end));
            text.char_to_byte(text.utf16_cu_to_char(wanted))
        }
    }
}

/// The position of a byte offset. An offset beyond the text is its end; one within a character is the
/// character's start; one between `\r` and `\n` is the end of the line.
#[must_use]
pub fn position_at(text: &Rope, offset: usize, encoding: Encoding) -> Position {
    let at = offset.min(text.len_bytes());
    let line = text.byte_to_line(at);
    let start = text.line_to_byte(line);
    let at = lines::floor_char_boundary(text, at).min(lines::nth_line_end(text, line));
    let column = match encoding {
        Encoding::Utf8 => at - start,
        Encoding::Utf32 => text.byte_to_char(at) - text.byte_to_char(start),
        Encoding::Utf16 => {
            let unit = |byte: usize| text.char_to_utf16_cu(text.byte_to_char(byte));
            unit(at) - unit(start)
        }
    };
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: narrow(line), character: narrow(column) }
}

/// The bytes between two positions, in either order.
#[must_use]
pub fn byte_range(text: &Rope, start: Position, end: Position, encoding: Encoding) -> Range<usize> {
    let (a, b) = (byte_offset(text, start, encoding), byte_offset(text, end, encoding));
    a.min(b)..a.max(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Edit;

    const ENCODINGS: [Encoding; 3] = [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32];

    /// Fragments of random texts: each kind of break, widths of one to four bytes, combining marks, and characters that
    /// end a line elsewhere but not here.
    const TEXT_FRAGMENTS: &[&str] = &[
        "a",
        "b",
        " ",
        "\t",
        "{",
        "}",
        "\n",
        "\r\n",
        "\r",
        "\n\r",
        "é",
        "e\u{301}",
        "ß",
        "→",
        "漢",
        "𝕏",
        "😀",
        "👩\u{200d}👩\u{200d}👧",
        "\u{feff}",
        "\u{2028}",
        "\u{85}",
        "\u{b}",
        "\u{c}",
        "\0",
        "fn main() {}",
        "0123456789abcdef",
    ];

    /// Start and end (before the break) of every line, exactly as the specification defines them.
    fn plain_lines(text: &str) -> Vec<(usize, usize)> {
        let (bytes, mut lines, mut start, mut at) = (text.as_bytes(), Vec::new(), 0, 0);
        while at < bytes.len() {
            let width = match bytes[at] {
                b'\r' if bytes.get(at + 1) == Some(&b'\n') => 2,
                b'\r' | b'\n' => 1,
                _ => 0,
            };
            if width > 0 {
                lines.push((start, at));
                start = at + width;
            }
            at += width.max(1);
        }
        lines.push((start, text.len()));
        lines
    }

    fn encoded_width(c: char, encoding: Encoding) -> usize {
        match encoding {
            Encoding::Utf8 => c.len_utf8(),
            Encoding::Utf16 => c.len_utf16(),
            Encoding::Utf32 => 1,
        }
    }

    /// [`byte_offset`] over a plain string, character by character.
    fn plain_offset(text: &str, position: Position, encoding: Encoding) -> usize {
        let Some(&(start, end)) = plain_lines(text).get(position.line as usize) else { return text.len() };
        let (mut at, mut left) = (start, position.character as usize);
        for c in text[start..end].chars() {
            if encoded_width(c, encoding) > left {
                break;
            }
            left -= encoded_width(c, encoding);
            at += c.len_utf8();
        }
        at
    }

    fn random_text(random: &mut fastrand::Rng, pieces: usize) -> String {
        (0..pieces).map(|_| TEXT_FRAGMENTS[random.usize(..TEXT_FRAGMENTS.len())]).collect()
    }

    fn random_position(random: &mut fastrand::Rng, lines: usize) -> Position {
        let line = if random.u8(..50) == 0 { random.u32(..) } else { random.u32(..lines as u32 + 1) };
        let character = match random.u8(..50) {
            0 => u32::MAX,
            1 => random.u32(..),
            2..=9 => random.u32(..200),
            _ => random.u32(..12),
        };
        Position { line, character }
    }

    /// 120,000 edits whose ends are positions in every encoding, compared with a plain `String`.
    #[test]
    fn random_edits_agree_with_a_plain_string() {
        for seed in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed);
            // Every sixth document is large enough for a rope of several levels.
            let most = if seed % 6 == 0 { 8_000 } else { 300 };
            let mut plain = {
                let n = random.usize(..most / 2);
                random_text(&mut random, n)
            };
            let mut rope = Rope::from_str(&plain);
            for step in 0..2_000 {
                let at = format!("seed {seed}, step {step}");
                let encoding = ENCODINGS[step % 3];
                let lines = rope.len_lines();
                let (a, b) = (random_position(&mut random, lines), random_position(&mut random, lines));
                // Mostly short edits, as when typing.
                let b = if random.u8(..4) == 0 {
                    b
                } else {
                    Position { character: a.character.saturating_add(random.u32(..4)), ..a }
                };
                let (a, b) = if random.bool() { (a, b) } else { (b, a) };
                let (p, q) = (plain_offset(&plain, a, encoding), plain_offset(&plain, b, encoding));
                let found = byte_range(&rope, a, b, encoding);
                assert_eq!(found, p.min(q)..p.max(q), "{a:?} {b:?} {encoding:?} {at}");
                let pieces = if plain.len() > most { 0 } else { random.usize(..4) };
                let edit = Edit { range: found.clone(), text: random_text(&mut random, pieces) };
                assert_eq!(edit.apply(&mut rope), Ok(()), "{at}");
                plain.replace_range(found, &edit.text);
                assert!(rope == plain.as_str(), "{at}");
                if plain.len() < 2_000 {
                    assert_eq!(rope.len_lines(), plain_lines(&plain).len(), "{at}");
                }
                let end = edit.new_end();
                let there = position_at(&rope, end, encoding);
                let back = byte_offset(&rope, there, encoding);
                let within_break = end > 0 && plain.as_bytes()[end - 1..].starts_with(b"\r\n");
                assert_eq!(back, if within_break { end - 1 } else { end }, "{there:?} {at}");
            }
        }
    }

    #[test]
    fn offset_to_position_round_trips() {
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let plain = random_text(&mut random, 120);
            let rope = Rope::from_str(&plain);
            for encoding in ENCODINGS {
                for byte in 0..=plain.len() + 2 {
                    let found = position_at(&rope, byte, encoding);
                    let mut expected = byte.min(plain.len());
                    while !plain.is_char_boundary(expected) {
                        expected -= 1;
                    }
                    if expected > 0 && plain.as_bytes()[expected - 1..].starts_with(b"\r\n") {
                        expected -= 1;
                    }
                    assert_eq!(
                        byte_offset(&rope, found, encoding),
                        expected,
                        "seed {seed} byte {byte} {plain:?}"
                    );
                    assert_eq!(
                        plain_offset(&plain, found, encoding),
                        expected,
                        "seed {seed} byte {byte} {plain:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn positions_are_clamped_as_the_protocol_demands() {
        let text = Rope::from_str("a😀b\r\nä\r\n\r\nx");
        let at = |line, character, encoding| byte_offset(&text, Position { line, character }, encoding);
        for encoding in ENCODINGS {
            assert_eq!(at(0, u32::MAX, encoding), 6, "before the \\r");
            assert_eq!(at(2, 1, encoding), 12, "an empty line stays empty");
            assert_eq!(at(3, u32::MAX, encoding), 15);
            assert_eq!(at(4, 0, encoding), 15);
            assert_eq!(at(u32::MAX, u32::MAX, encoding), 15);
            assert_eq!(byte_offset(&Rope::new(), Position { line: 0, character: 7 }, encoding), 0);
        }
        // Inside the emoji.
        assert_eq!([2, 3, 4, 5].map(|c| at(0, c, Encoding::Utf8)), [1, 1, 1, 5]);
        assert_eq!([1, 2, 3].map(|c| at(0, c, Encoding::Utf16)), [1, 1, 5]);
        assert_eq!([1, 2, 3].map(|c| at(0, c, Encoding::Utf32)), [1, 5, 6]);
        // Swapped ends.
        let p = |line, character| Position { line, character };
        assert_eq!(byte_range(&text, p(1, 1), p(0, 1), Encoding::Utf32), 1..10);
    }

    #[test]
    fn utf8_is_preferred() {
        assert_eq!(ENCODINGS.iter().max(), Some(&Encoding::Utf8));
        assert_eq!([Encoding::Utf16, Encoding::Utf32].iter().max(), Some(&Encoding::Utf32));
    }

    #[test]
    fn long_line_position_takes_logarithmic_time() {
        let line = "x😀é".repeat(400_000);
        let text = Rope::from_str(&line);
        for encoding in ENCODINGS {
            for step in 0..20_000 {
                let byte = step * 7 * 13;
                let there = position_at(&text, byte, encoding);
                assert_eq!(
                    byte_offset(&text, there, encoding),
                    byte / 7 * 7 + [0, 1, 1, 1, 1, 5, 5][byte % 7]
                );
            }
        }
    }
}
