//! An edit replaces a range of bytes by a text. It is the only way to change a document.

use std::ops::Range;

use ropey::Rope;
use thiserror::Error;

use super::lines;

/// Replaces the bytes of `range` by `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Byte offsets into the text before the edit.
    pub range: Range<usize>,
    /// The text that replaces them.
    pub text: String,
}

/// The error of an edit that does not fit its document, which is left unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    /// The range ends before it starts.
    #[error("the edit's range {start}..{end} ends before it starts; send the whole document again")]
    Reversed {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
    },
    /// The range reaches beyond the document.
    #[error(
        "the edit's range {start}..{end} reaches beyond the {len} bytes of the document, which has lost sync; send the whole document again"
    )]
    OutOfRange {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
        /// Bytes in the document.
        len: usize,
    },
    /// An end of the range lies within a character.
    #[error(
        "byte {offset}, an end of the edit, lies within a character of the document, which has lost sync; send the whole document again"
    )]
    InsideCharacter {
        /// The offending byte offset.
        offset: usize,
    },
}

impl Edit {
    /// An edit that replaces everything by `text`.
    #[must_use]
    pub fn replace_all(before: &Rope, text: String) -> Self {
        Self { range: 0..before.len_bytes(), text }
    }

    /// An edit that only inserts.
    #[must_use]
    pub fn insert(offset: usize, text: impl Into<String>) -> Self {
        Self { range: offset..offset, text: text.into() }
    }

    /// The smallest edit that turns a text into `after`: their common start and end stay. For editors that send the
    /// whole text with every change.
    #[must_use]
    pub fn diff(before: &Rope, after: &str) -> Self {
        let common = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let mut start = 0;
        for chunk in before.chunks() {
            let (old, new) = (chunk.as_bytes(), &after.as_bytes()[start..]);
            if new.starts_with(old) {
                start += old.len();
                continue;
            }
            start += common(old, new);
            break;
        }
        while !after.is_char_boundary(start) {
            start -= 1;
        }
        // The rest of both, compared from the end.
        let most = (before.len_bytes() - start).min(after.len() - start);
        let mut kept = 0;
        let mut chunks = before.chunks_at_byte(before.len_bytes()).0;
        while let Some(chunk) = chunks.prev()
            && kept < most
        {
            let (old, new) = (chunk.as_bytes(), &after.as_bytes()[..after.len() - kept]);
            if new.ends_with(old) {
                kept += old.len();
                continue;
            }
            kept += old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
            break;
        }
        let mut end = after.len() - kept.min(most);
        while !after.is_char_boundary(end) {
            end += 1;
        }
        Self { range: start..before.len_bytes() - (after.len() - end), text: after[start..end].to_owned() }
    }

    /// The byte offset after the new text, in the document after the edit.
    #[must_use]
    pub fn new_end(&self) -> usize {
        self.range.start + self.text.len()
    }

    /// Whether the edit fits `text`.
    ///
    /// # Errors
    /// The range is reversed, reaches beyond the text, or has an end within a character.
    pub fn check(&self, text: &Rope) -> Result<(), TextError> {
        let Range { start, end } = self.range;
        let len = text.len_bytes();
        if start > end {
            return Err(TextError::Reversed { start, end });
        }
        if end > len {
            return Err(TextError::OutOfRange { start, end, len });
        }
        for offset in [start, end] {
            if lines::floor_char_boundary(text, offset) != offset {
                return Err(TextError::InsideCharacter { offset });
            }
        }
        Ok(())
    }

    /// Changes `text`. Costs O(log n + bytes removed and inserted).
    ///
    /// # Errors
    /// As [`Edit::check`]; `text` is then unchanged.
    pub fn apply(&self, text: &mut Rope) -> Result<(), TextError> {
        self.check(text)?;
        let (start, end) = (text.byte_to_char(self.range.start), text.byte_to_char(self.range.end));
        if start < end {
            text.remove(start..end);
        }
        if !self.text.is_empty() {
            text.insert(start, &self.text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn diff_is_the_smallest_edit() {
        let pieces = ["a", "b", "é", "è", "😀", "😁", "\r", "\n", "aaaa", "éé"];
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut some = |most: usize| -> String {
                (0..random.usize(..=most)).map(|_| pieces[random.usize(..pieces.len())]).collect()
            };
            let (head, tail) = (some(2_000), some(2_000));
            let (gone, new) = (some(3), some(3));
            let before = Rope::from_str(&format!("{head}{gone}{tail}"));
            let after = format!("{head}{new}{tail}");
            let edit = Edit::diff(&before, &after);
            assert!(edit.text.len() <= new.len() && edit.range.len() <= gone.len(), "seed {seed}: {edit:?}");
            let mut text = before.clone();
            edit.apply(&mut text).unwrap();
            assert_eq!(text, after, "seed {seed}");
        }
        let same = Edit::diff(&Rope::from_str("aé"), "aé");
        assert_eq!((same.range.len(), same.text.as_str()), (0, ""));
    }

    #[test]
    fn an_edit_replaces_its_bytes() {
        let mut text = Rope::from_str("let äx = 1;");
        assert_eq!(Edit { range: 4..7, text: "😀".into() }.apply(&mut text), Ok(()));
        assert_eq!(text, "let 😀 = 1;");
        assert_eq!(Edit::insert(text.len_bytes(), "\n").apply(&mut text), Ok(()));
        assert_eq!(Edit { range: 0..4, text: String::new() }.apply(&mut text), Ok(()));
        assert_eq!(text, "😀 = 1;\n");
        assert_eq!(Edit::replace_all(&text, "a".into()).apply(&mut text), Ok(()));
        assert_eq!(text, "a");
    }

    #[test]
    fn invalid_edit_changes_nothing_and_returns_error() {
        let mut text = Rope::from_str("aä");
        let far = usize::MAX;
        #[expect(clippy::reversed_empty_ranges, reason = "a broken range is the point")]
        let cases = [
            (2..1, TextError::Reversed { start: 2, end: 1 }),
            (0..4, TextError::OutOfRange { start: 0, end: 4, len: 3 }),
            (far..far, TextError::OutOfRange { start: far, end: far, len: 3 }),
            (2..3, TextError::InsideCharacter { offset: 2 }),
            (0..2, TextError::InsideCharacter { offset: 2 }),
        ];
        for (range, error) in cases {
            assert_eq!(Edit { range, text: "x".into() }.apply(&mut text), Err(error.clone()));
            assert!(error.to_string().contains("send the whole document again"), "{error}");
        }
        assert_eq!(text, "aä");
    }
}
