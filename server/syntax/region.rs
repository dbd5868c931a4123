//! The region of a long text that is parsed: lines around a position, with the lines that open and close what is around
//! them.
//!
//! A region's core is whole lines between two lines with the least indentation nearby. Before the core come the lines
//! under which it is indented, however far away (`class A {`), and after it the lines that close them, so that the
//! region parses as if the rest of the text did not exist. The outline is guessed from indentation alone, and a core
//! that begins within a string is guessed wrong; hence it begins far from the position.

use std::ops::Range;

use taper_grammars::{BlockStyle, Language};

use crate::text::{Edit, Rope, lines};

/// Maximum distance in bytes, each way, within which opening and closing lines are searched.
const MAX_SEARCH_BYTES: usize = 8 << 20;
/// Bytes searched for them at a time.
const SEARCH_STEP_BYTES: usize = 64 << 10;
/// Maximum number of lines in the head of a block: `fn f<T>()` / `where` / `{`.
const MAX_HEAD_LINES: usize = 8;
/// Bytes of a line that are examined.
const MAX_LINE_BYTES: usize = 256;
/// Maximum number of opening and closing lines of a region.
const MAX_OUTLINE_LINES: usize = 64;
/// Words that continue a block rather than begin one.
const CONTINUATION_WORDS: &[&str] = &[
    "else", "elif", "elsif", "elseif", "except", "finally", "catch", "rescue", "ensure", "when", "in",
    "case", "default", "where", "#else", "#elif", "#endif",
];
/// Words that close a block in languages of [`BlockStyle::Keywords`].
const CLOSING_WORDS: &[&str] = &["end", "fi", "done", "esac"];

/// How much of a text is parsed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSize {
    /// A text up to this long is parsed whole. Longer ones are parsed from about a third of this before the position
    /// (plus or minus half of that) to a ninth after it. Code being typed usually leaves everything up to the end of
    /// the region broken, and reparsing it is a keystroke's cost.
    pub whole_limit: usize,
}

impl RegionSize {
    /// The usual size: a parse takes a few milliseconds, a reparse far less.
    pub const DEFAULT: Self = Self { whole_limit: 24 << 10 };

    /// Half of it; `None` if that is too small to be useful.
    #[must_use]
    pub fn halved(self) -> Option<Self> {
        (self.whole_limit >= 12 << 10).then_some(Self { whole_limit: self.whole_limit / 2 })
    }

    fn bytes_before(self) -> usize {
        self.whole_limit / 3
    }

    fn bytes_after(self) -> usize {
        self.whole_limit / 9
    }
}

/// The bytes of a text that its tree covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedRegion {
    /// The parsed ranges, in order, as if nothing was between them.
    pub(super) ranges: Vec<Range<usize>>,
    /// The range around the position.
    core: Range<usize>,
    /// The positions that it serves.
    covered: Range<usize>,
    /// The length of the core when it was chosen.
    initial_len: usize,
}

impl ParsedRegion {
    /// The region around a position. `None` if the position is on a line far longer than lines of code are.
    pub(super) fn around_offset(
        text: &Rope,
        language: &Language,
        offset: usize,
        reach: RegionSize,
    ) -> Option<Self> {
        let len = text.len_bytes();
        let offset = offset.min(len);
        let view = RegionFinder { text, language };

        let here = lines::line_start(text, offset);
        let before = reach.bytes_before();
        let start = match offset.checked_sub(before + before / 2) {
            None | Some(0) => LineHead { start: 0, width: 0, first: 0 },
            Some(lowest) => {
                let (lowest, ideal) = (lines::next_line_start(text, lowest), offset - before);
                let distant = view.best_border(lowest..offset - before / 2, ideal);
                distant.or_else(|| view.best_border(lowest..here + 1, ideal))?
            }
        };
        let bytes_after = reach.bytes_after();
        let (end, after) = match offset + bytes_after + bytes_after / 2 {
            highest if highest >= len => (len, None),
            highest => {
                let (next, ideal) = (lines::next_line_start(text, offset), offset + bytes_after);
                let distant =
                    view.best_border(lines::next_line_start(text, offset + bytes_after / 2)..highest, ideal);
                let end = distant.or_else(|| view.best_border(next..highest, ideal))?;
                (end.start, Some(end))
            }
        };
        let core = start.start..end;
        let mut ranges = view.opening_lines(start);
        ranges.push(core.clone());
        ranges.extend(after.map(|after| view.closing_lines(after)).unwrap_or_default());
        ranges.dedup_by(|next, last| {
            let joined = next.start <= last.end;
            if joined {
                last.end = last.end.max(next.end);
            }
            joined
        });
        // The position may move this far towards a border.
        let keep_start = match core.start {
            0 => 0,
            start => start + (before / 4).min((offset - start) / 2),
        };
        let keep_end = match core.end {
            end if end == len => usize::MAX,
            end => end - (bytes_after / 4).min((end - offset) / 2),
        };
        Some(Self { ranges, initial_len: core.len(), core, covered: keep_start..keep_end })
    }

    /// Moves the region with an edit. False if it became invalid because the edit touched its border.
    pub(super) fn apply_edit(&mut self, edit: &Edit) -> bool {
        let Range { start, end } = edit.range;
        let touches = |border: usize| start <= border && border <= end;
        let last = self.covered.end == usize::MAX;
        if self.core.start > 0 && touches(self.core.start) || !last && touches(self.core.end) {
            return false;
        }
        let moved = |place: usize| match place {
            usize::MAX => usize::MAX,
            _ if place >= end => place - (end - start) + edit.text.len(),
            _ if place > start => edit.new_end(),
            _ => place,
        };
        // Text typed at the very start or end of the document is part of the region.
        let first = self.starts_text();
        let from_start = |place: usize| if first && place == self.core.start { 0 } else { moved(place) };
        self.covered = from_start(self.covered.start)..moved(self.covered.end);
        self.core = from_start(self.core.start)..moved(self.core.end);
        // After a paste it may be too long; after a deletion it may cover too little.
        self.core.len() < self.initial_len * 2 && self.core.len() > self.initial_len / 4
    }

    /// Whether nothing is before the region.
    pub(super) fn starts_text(&self) -> bool {
        self.core.start == 0
    }

    /// Whether the region serves a position.
    pub(super) fn covers(&self, offset: usize) -> bool {
        self.covered.start <= offset && offset <= self.covered.end
    }
}

/// The beginning of a line.
#[derive(Debug, Clone, Copy)]
struct LineHead {
    /// Its first byte.
    start: usize,
    /// The width of its indentation.
    width: usize,
    /// The first byte that is not blank; 0 on a blank line.
    first: u8,
}

struct RegionFinder<'a> {
    text: &'a Rope,
    language: &'a Language,
}

impl RegionFinder<'_> {
    /// The lines that start within a range, which starts at a line start.
    fn scan_lines(&self, range: Range<usize>) -> Vec<LineHead> {
        let mut found = Vec::new();
        let Some((mut chunks, mut at, ..)) = self.text.get_chunks_at_byte(range.start) else { return found };
        let mut line = LineHead { start: range.start, width: 0, first: 0 };
        for chunk in &mut chunks {
            let bytes = chunk.as_bytes();
            let mut i = range.start.saturating_sub(at);
            while i < bytes.len() {
                match bytes[i] {
                    b'\n' => {
                        found.push(line);
                        line = LineHead { start: at + i + 1, width: 0, first: 0 };
                        if line.start >= range.end {
                            return found;
                        }
                    }
                    _ if line.first != 0 => {
                        // To the end of the line, or of the chunk.
                        i += bytes[i..].iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len() - i);
                        continue;
                    }
                    b' ' => line.width += 1,
                    b'\t' => line.width += 8,
                    b'\r' => {}
                    other => line.first = other,
                }
                i += 1;
            }
            at += bytes.len();
        }
        if line.start < range.end {
            found.push(line);
        }
        found
    }

    /// The line in a range that is the best border: least indentation, after a blank line, near `ideal`.
    fn best_border(&self, range: Range<usize>, ideal: usize) -> Option<LineHead> {
        if range.start >= range.end {
            return None;
        }
        let mut blank = false;
        let mut best: Option<((bool, usize, bool, usize), LineHead)> = None;
        for line in self.scan_lines(range) {
            let after_blank = std::mem::replace(&mut blank, line.first == 0);
            if line.first == 0 || best.is_some_and(|(key, _)| !key.0 && line.width > key.1) {
                continue;
            }
            let key = (self.is_continuation(line), line.width, !after_blank, line.start.abs_diff(ideal));
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, line));
            }
        }
        best.map(|(_, line)| line)
    }

    /// The lines before `start` that a core beginning there needs: those under which it is indented, outermost first.
    fn opening_lines(&self, start: LineHead) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let (mut level, mut continues, mut before) = (start.width, false, start.start);
        let least = before.saturating_sub(MAX_SEARCH_BYTES);
        'blocks: while before > least && (level > 0 || continues) {
            let from = lines::line_start(self.text, before.saturating_sub(SEARCH_STEP_BYTES));
            for line in self.scan_lines(from..before).into_iter().rev() {
                let around = line.width < level || continues && line.width == level;
                if line.first == 0 || !around || self.has_unreliable_indent(line) {
                    continue;
                }
                level = line.width;
                continues = self.is_continuation(line);
                // Of many `case`s the nearest are enough, but their common opening line is needed.
                if found.len() < MAX_OUTLINE_LINES || !continues {
                    let limit = found.last().map_or(start.start, |last| last.start);
                    found.push(line.start..self.head_end(line, limit));
                }
                if level == 0 && !continues {
                    break 'blocks;
                }
            }
            before = from;
        }
        found.reverse();
        let tag = self.language.opening_tag;
        if !tag.is_empty()
            && start.start > 0
            && let Some(at) = lines::text_after(self.text, 0, SEARCH_STEP_BYTES).find(tag)
        {
            let end = at + tag.len();
            if found.first().map_or(start.start, |first| first.start) >= end {
                found.insert(0, at..end);
            }
        }
        found
    }

    /// The lines after `end` that close what is open before it, innermost first.
    fn closing_lines(&self, end: LineHead) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let (mut level, mut from) = (end.width, end.start);
        // A core may end before the very line that closes what is around it.
        level += usize::from(self.is_closing_line(end));
        let most = (from + MAX_SEARCH_BYTES).min(self.text.len_bytes());
        while from < most && level > 0 {
            let to = lines::next_line_start(self.text, from + SEARCH_STEP_BYTES);
            for line in self.scan_lines(from..to) {
                if line.first == 0 || line.width >= level || self.has_unreliable_indent(line) {
                    continue;
                }
                level = line.width;
                if self.is_closing_line(line) {
                    let whole = line.start..lines::next_line_start(self.text, line.start);
                    let opens = self.ends_with_opener(&self.line_code(whole.clone()));
                    if found.len() < MAX_OUTLINE_LINES {
                        found.push(whole);
                    }
                    level += usize::from(opens);
                }
                if level == 0 {
                    break;
                }
            }
            from = to;
        }
        found
    }

    /// The code of a line, or its beginning, without a comment at its end.
    fn line_code(&self, range: Range<usize>) -> String {
        let mut code = lines::slice(self.text, range.start..range.end.min(range.start + MAX_LINE_BYTES));
        let comment = self.language.line_comment;
        if let Some(at) = code.find(comment).filter(|_| !comment.is_empty()) {
            code.truncate(at);
        }
        code.truncate(code.trim_end().len());
        code
    }

    /// Whether a line starts with one of these words.
    fn starts_with_any(&self, line: LineHead, words: &[&str]) -> bool {
        let text = lines::text_after(self.text, line.start, line.width + 16);
        let text = text.trim_start();
        words
            .iter()
            .any(|word| text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(lines::is_word_char)))
    }

    /// Whether a line closes something.
    fn is_closing_line(&self, line: LineHead) -> bool {
        match line.first {
            b')' | b']' | b'}' => true,
            b'<' => lines::text_after(self.text, line.start, line.width + 2).trim_start() == "</",
            _ => self.language.blocks == BlockStyle::Keywords && self.starts_with_any(line, CLOSING_WORDS),
        }
    }

    /// Whether a line continues what began on an earlier line of the same depth.
    fn is_continuation(&self, line: LineHead) -> bool {
        self.is_closing_line(line) || line.first == b'{' || self.starts_with_any(line, CONTINUATION_WORDS)
    }

    /// Whether a line's indentation is meaningless: comments, preprocessor directives, labels.
    fn has_unreliable_indent(&self, line: LineHead) -> bool {
        let comment = self.language.line_comment;
        let text = lines::text_after(self.text, line.start, line.width + MAX_LINE_BYTES);
        let text = text.trim_start();
        !comment.is_empty() && text.starts_with(comment)
            || line.first == b'#' && self.language.line_comment == "//"
            || self.language.block_comment.is_some_and(|(open, _)| text.starts_with(open))
    }

    /// Whether a line of code ends with something that it opens.
    fn ends_with_opener(&self, code: &str) -> bool {
        code.ends_with(['{', '(', '[', ':', '>', '|'])
    }

    /// The end of a block's head that begins on a line: after the line that opens the block, before `limit`.
    fn head_end(&self, line: LineHead, limit: usize) -> usize {
        let first = lines::next_line_start(self.text, line.start).min(limit);
        if !matches!(self.language.blocks, BlockStyle::Braces | BlockStyle::Indentation) {
            return first;
        }
        let (mut start, mut end) = (line.start, first);
        for _ in 0..MAX_HEAD_LINES {
            if self.ends_with_opener(&self.line_code(start..end)) {
                return end;
            }
            // Stop at the next line of the outline: `class A` / `extends B` / `{`.
            if end >= limit {
                return limit;
            }
            (start, end) = (end, lines::next_line_start(self.text, end).min(limit));
        }
        first
    }
}

#[cfg(test)]
mod tests;
