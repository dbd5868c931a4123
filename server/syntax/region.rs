//! Which part of a long text is parsed: around a place, with the lines that open and close what is around it.
//! It knows nothing of trees or of what they are asked.
//!
//! A part is whole lines, its core, between two lines that are indented the least nearby. Before the core stand
//! the lines that it is indented under, as far away as they may be (`class A {`), behind it those that close
//! them, so that it parses as if everything else around it were not there. That is a guess, from indentation alone,
//! and a core that begins within a string is guessed wrong: hence it begins far from the place.

use std::ops::Range;

use taper_grammars::{BlockStyle, Language};

use crate::text::{Edit, Rope, lines};

/// How far the lines that open and close what is around the core are looked for, in bytes each way.
const MAX_SEARCH_BYTES: usize = 8 << 20;
/// Bytes that are looked through at a time for them.
const SEARCH_STEP_BYTES: usize = 64 << 10;
/// How many lines the head of a block may have: `fn f<T>()` / `where` / `{`.
const MAX_HEAD_LINES: usize = 8;
/// How much of a line is looked at.
const MAX_LINE_BYTES: usize = 256;
/// How many lines of opening and closing a part takes along at most.
const MAX_OUTLINE_LINES: usize = 64;
/// Words that go on with a block rather than begin one.
const CONTINUATION_WORDS: &[&str] = &[
    "else", "elif", "elsif", "elseif", "except", "finally", "catch", "rescue", "ensure", "when", "in",
    "case", "default", "where", "#else", "#elif", "#endif",
];
/// Words that close a block in languages of [`Blocks::Keywords`].
const CLOSING_WORDS: &[&str] = &["end", "fi", "done", "esac"];

/// How much of a text is parsed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSize {
    /// A text up to this long is parsed whole. Of a longer one, about a third as much before the place, give or take
    /// half of that, and again a third of that behind it: while code is typed it is broken up to the end of what
    /// is parsed, and that is what a keystroke costs.
    pub whole_limit: usize,
}

impl RegionSize {
    /// The usual reach: a parse takes a few milliseconds, bringing it up to date far less.
    pub const DEFAULT: Self = Self { whole_limit: 24 << 10 };

    /// Half of it, but for the least that is of use.
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
    /// What is parsed as if nothing stood between, in order.
    pub(super) ranges: Vec<Range<usize>>,
    /// The range that surrounds the place.
    core: Range<usize>,
    /// The places that it serves.
    covered: Range<usize>,
    /// The core when it was chosen.
    initial_len: usize,
}

impl ParsedRegion {
    /// The part around a place. `None` if the place stands on a line far longer than code has.
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
        let behind = reach.bytes_after();
        let (end, after) = match offset + behind + behind / 2 {
            highest if highest >= len => (len, None),
            highest => {
                let (next, ideal) = (lines::next_line_start(text, offset), offset + behind);
                let distant =
                    view.best_border(lines::next_line_start(text, offset + behind / 2)..highest, ideal);
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
        // The place may move this far towards a border.
        let keep_start = match core.start {
            0 => 0,
            start => start + (before / 4).min((offset - start) / 2),
        };
        let keep_end = match core.end {
            end if end == len => usize::MAX,
            end => end - (behind / 4).min((end - offset) / 2),
        };
        Some(Self { ranges, initial_len: core.len(), core, covered: keep_start..keep_end })
    }

    /// Moves along with an edit. False if the part is no longer one: its border was touched.
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
        // What is typed at the very start or end of the text is part of it.
        let first = self.starts_text();
        let from_start = |place: usize| if first && place == self.core.start { 0 } else { moved(place) };
        self.covered = from_start(self.covered.start)..moved(self.covered.end);
        self.core = from_start(self.core.start)..moved(self.core.end);
        // Pasted into, it is too long; cut down, there is more to see.
        self.core.len() < self.initial_len * 2 && self.core.len() > self.initial_len / 4
    }

    /// Whether nothing stands before the part.
    pub(super) fn starts_text(&self) -> bool {
        self.core.start == 0
    }

    /// Whether the part serves a place.
    pub(super) fn covers(&self, offset: usize) -> bool {
        self.covered.start <= offset && offset <= self.covered.end
    }
}

/// The beginning of a line.
#[derive(Debug, Clone, Copy)]
struct LineHead {
    /// Its first byte.
    start: usize,
    /// How far it is indented.
    width: usize,
    /// The first byte that is not blank; 0 on a blank line.
    first: u8,
}

struct RegionFinder<'a> {
    text: &'a Rope,
    language: &'a Language,
}

impl RegionFinder<'_> {
    /// The lines that start within a range, which starts where one does.
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

    /// The line in a range that is the best border: indented the least, behind a blank line, near `ideal`.
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

    /// What stands before `start` that a core beginning there needs: the lines it is indented under, outermost
    /// first.
    fn opening_lines(&self, start: LineHead) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let (mut level, mut goes_on, mut before) = (start.width, false, start.start);
        let least = before.saturating_sub(MAX_SEARCH_BYTES);
        'blocks: while before > least && (level > 0 || goes_on) {
            let from = lines::line_start(self.text, before.saturating_sub(SEARCH_STEP_BYTES));
            for line in self.scan_lines(from..before).into_iter().rev() {
                let around = line.width < level || goes_on && line.width == level;
                if line.first == 0 || !around || self.has_unreliable_indent(line) {
                    continue;
                }
                level = line.width;
                goes_on = self.is_continuation(line);
                // Of many `case`s the nearest do; what begins them all is needed.
                if found.len() < MAX_OUTLINE_LINES || !goes_on {
                    let limit = found.last().map_or(start.start, |last| last.start);
                    found.push(line.start..self.head_end(line, limit));
                }
                if level == 0 && !goes_on {
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

    /// What stands behind `end` that closes what is open before it, innermost first.
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

    /// The first word or sign of a line.
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

    /// Whether a line goes on with what began on a line above of the same depth.
    fn is_continuation(&self, line: LineHead) -> bool {
        self.is_closing_line(line) || line.first == b'{' || self.starts_with_any(line, CONTINUATION_WORDS)
    }

    /// Whether a line's depth says nothing: comments, what is for the preprocessor, labels.
    fn has_unreliable_indent(&self, line: LineHead) -> bool {
        let comment = self.language.line_comment;
        let text = lines::text_after(self.text, line.start, line.width + MAX_LINE_BYTES);
        let text = text.trim_start();
        !comment.is_empty() && text.starts_with(comment)
            || line.first == b'#' && self.language.line_comment == "//"
            || self.language.block_comment.is_some_and(|(open, _)| text.starts_with(open))
    }

    /// Whether a line of code leaves something open.
    fn ends_with_opener(&self, code: &str) -> bool {
        code.ends_with(['{', '(', '[', ':', '>', '|'])
    }

    /// Where the head of a block ends that begins on a line: behind the line that opens it, before `limit`.
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
            // Up to the next line of the outline: `class A` / `extends B` / `{`.
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
