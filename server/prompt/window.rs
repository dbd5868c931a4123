//! The text around the cursor that the prompt contains, cut at positions that are stable while the user types.

use crate::text::Rope;
use crate::text::lines::floor_char_boundary;

/// The text around a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptWindow {
    /// Text before the cursor, from the start of a line unless the line is too long.
    pub prefix: String,
    /// Text after the cursor, to the end of a line unless the line is too long.
    pub suffix: String,
    /// Line number of the prefix's first line. With it, positions inside the prefix can be chosen so that they are
    /// stable while the user types.
    pub first_line: usize,
}

/// The start moves in steps of this many lines, so that it and the KV cache stay valid over many keystrokes.
const START_STEP_LINES: usize = 32;

/// Takes at most `before` bytes before and `after` bytes after the byte offset `cursor`.
pub fn window_at(text: &Rope, cursor: usize, before: usize, after: usize) -> PromptWindow {
    window_anchored_at(cursor, text, cursor, before, after)
}

/// [`window_at`], with the start computed for `earlier`, a cursor at or before this one.
pub fn window_anchored_at(
    earlier: usize,
    text: &Rope,
    cursor: usize,
    before: usize,
    after: usize,
) -> PromptWindow {
    let cursor = floor_char_boundary(text, cursor);
    let start = window_start(text, floor_char_boundary(text, earlier.min(cursor)), before);
    let end = window_end(text, cursor, after);
    PromptWindow {
        prefix: text.byte_slice(start..cursor).to_string(),
        suffix: text.byte_slice(cursor..end).to_string(),
        first_line: text.byte_to_line(start),
    }
}

fn window_start(text: &Rope, cursor: usize, before: usize) -> usize {
    let Some(lowest) = cursor.checked_sub(before).filter(|&lowest| lowest > 0) else { return 0 };
    let cursor_line = text.byte_to_line(cursor);
    // The first line that is whole.
    let line = text.byte_to_line(lowest - 1) + 1;
    let mut step = START_STEP_LINES;
    while step > 0 {
        let start_line = line.next_multiple_of(step);
        if start_line <= cursor_line {
            let start = text.line_to_byte(start_line);
            // A big step must not cost more than half of the window.
            if (cursor - start) * 2 >= before || step == 1 {
                return start;
            }
        }
        step /= 2;
    }
    // The cursor's own line is longer than the window.
    ceil_char_boundary(text, lowest)
}

fn window_end(text: &Rope, cursor: usize, after: usize) -> usize {
    let highest = floor_char_boundary(text, cursor.saturating_add(after));
    if highest >= text.len_bytes() {
        return text.len_bytes();
    }
    let line = text.line_to_byte(text.byte_to_line(highest));
    if line > cursor { line } else { highest }
}

fn ceil_char_boundary(text: &Rope, offset: usize) -> usize {
    let floor = floor_char_boundary(text, offset);
    if floor == offset { offset } else { text.char_to_byte(text.byte_to_char(floor) + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered_lines(lines: usize) -> String {
        (0..lines).map(|n| format!("line {n:05}\n")).collect()
    }

    #[test]
    fn window_contains_small_files_whole() {
        let text = Rope::from_str("ab\ncd\n");
        let window = window_at(&text, 4, 100, 100);
        assert_eq!((window.prefix.as_str(), window.suffix.as_str(), window.first_line), ("ab\nc", "d\n", 0));
        assert_eq!(window_at(&Rope::new(), 9, 10, 10).prefix, "");
    }

    #[test]
    fn window_start_is_stable_over_many_lines() {
        let text = Rope::from_str(&numbered_lines(1000));
        let mut starts = Vec::new();
        for line in 500..600 {
            let window = window_at(&text, line * 11, 1100, 220);
            assert!(window.prefix.len() <= 1100 && window.prefix.len() >= 550, "{}", window.prefix.len());
            assert!(window.prefix.starts_with("line "));
            assert!(window.suffix.ends_with('\n') && window.suffix.len() <= 220);
            starts.push(window.first_line);
        }
        starts.dedup();
        assert!(starts.len() <= 5, "{starts:?}");
    }

    #[test]
    fn window_is_cut_at_character_boundaries() {
        let text = Rope::from_str(&"ä€😀".repeat(2000));
        for cursor in 9000..9020 {
            for bytes in 50..60 {
                let window = window_at(&text, cursor, bytes, bytes);
                assert!(window.prefix.len() <= bytes && window.prefix.len() + 4 > bytes - 4);
                assert!(window.suffix.len() <= bytes && !window.suffix.is_empty());
            }
        }
    }
}
