//! Sanitizes words from a model file for display: short, and without terminal control sequences.

use std::path::Path;

use super::Remedy;
use crate::EngineError;

/// Maximum characters shown of a word from a file, and of a sentence about it.
const MAX_WORD_CHARS: usize = 120;
const MAX_SENTENCE_CHARS: usize = 480;

/// `text` made safe to display: at most one line, without control characters and without characters that reorder or
/// hide their neighbours.
pub(crate) fn sanitize_word(text: &str) -> String {
    sanitize_text(text, MAX_WORD_CHARS).trim().to_owned()
}

fn sanitize_text(text: &str, longest: usize) -> String {
    let mut chars = text.chars().filter_map(|c| match c {
        '\t' | '\n' | '\r' => Some(' '),
        // Soft hyphens, direction marks, joiners, line and paragraph separators, the byte order mark, tags.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}' => None,
        c => Some(c).filter(|c| !c.is_control()),
    });
    let mut plain: String = chars.by_ref().take(longest).collect();
    if chars.next().is_some() {
        plain.push('…');
    }
    plain
}

/// An error about a model file; `field` and `problem` may contain text from the file and are sanitized.
pub(crate) fn model_error<'a>(
    path: &Path,
    field: &str,
    problem: impl AsRef<str>,
    remedy: impl Into<Remedy<'a>>,
) -> EngineError {
    EngineError::Model {
        path: path.to_owned(),
        field: sanitize_word(field),
        problem: sanitize_text(problem.as_ref(), MAX_SENTENCE_CHARS),
        remedy: remedy.into().describe(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_text_is_one_short_plain_line() {
        for (text, plain) in [
            ("Qwen2.5 Coder 0.5B", "Qwen2.5 Coder 0.5B"),
            ("\x1b[31mred\x1b]0;title\x07", "[31mred]0;title"),
            ("one\ntwo\r\nthree\t", "one two  three"),
            ("\u{9b}2J\u{85}x\0y\x7f", "2Jxy"),
            ("safe\u{202e}fdp.exe\u{2066}\u{200b}", "safefdp.exe"),
            ("Größe 大きさ 🕯", "Größe 大きさ 🕯"),
            ("\u{1b}", ""),
        ] {
            assert_eq!(sanitize_word(text), plain);
        }
        let long = sanitize_word(&"é".repeat(100_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_WORD_CHARS + 1, true));
        let error = model_error(Path::new("m"), "a\x1b[2J", "b\x1b\n".repeat(10_000), "c").to_string();
        assert!(error.len() < 1000 && error.chars().all(|c| !c.is_control()), "{error}");
    }
}
