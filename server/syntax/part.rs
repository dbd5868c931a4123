//! Which part of a long text is parsed: around a place, with the lines that open and close what is around it.
//! It knows nothing of trees or of what they are asked.
//!
//! A part is whole lines, its core, between two lines that are indented the least nearby. Before the core stand
//! the lines that it is indented under, as far away as they may be (`class A {`), behind it those that close
//! them, so that it parses as if everything else around it were not there. That is a guess, from indentation alone,
//! and a core that begins within a string is guessed wrong: hence it begins far from the place.

use std::ops::Range;

use taper_grammars::{Blocks, Language};

use crate::text::{Edit, Rope, lines};

/// How far the lines that open and close what is around the core are looked for, in bytes each way.
const FAR: usize = 8 << 20;
/// Bytes that are looked through at a time for them.
const STEP: usize = 64 << 10;
/// How many lines the head of a block may have: `fn f<T>()` / `where` / `{`.
const HEAD_LINES: usize = 8;
/// How much of a line is looked at.
const LINE: usize = 256;
/// How many lines of opening and closing a part takes along at most.
const OUTLINE: usize = 64;
/// Words that go on with a block rather than begin one.
const CONTINUING: &[&str] = &[
    "else", "elif", "elsif", "elseif", "except", "finally", "catch", "rescue", "ensure", "when", "in",
    "case", "default", "where", "#else", "#elif", "#endif",
];
/// Words that close a block in languages of [`Blocks::Keywords`].
const CLOSING: &[&str] = &["end", "fi", "done", "esac"];

/// How much of a text is parsed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// A text up to this long is parsed whole. Of a longer one, about a third as much before the place, give or take
    /// half of that, and again a third of that behind it: while code is typed it is broken up to the end of what
    /// is parsed, and that is what a keystroke costs.
    pub whole: usize,
}

impl Reach {
    /// The usual reach: a parse takes a few milliseconds, bringing it up to date far less.
    pub const USUAL: Self = Self { whole: 24 << 10 };

    /// Half of it, but for the least that is of use.
    #[must_use]
    pub fn halved(self) -> Option<Self> {
        (self.whole >= 12 << 10).then_some(Self { whole: self.whole / 2 })
    }

    fn before(self) -> usize {
        self.whole / 3
    }

    fn behind(self) -> usize {
        self.whole / 9
    }
}

/// The bytes of a text that its tree covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// What is parsed as if nothing stood between, in order.
    pub(super) ranges: Vec<Range<usize>>,
    /// The range that surrounds the place.
    core: Range<usize>,
    /// The places that it serves.
    keep: Range<usize>,
    /// The core when it was chosen.
    chosen: usize,
}

impl Part {
    /// The part around a place. `None` if the place stands on a line far longer than code has.
    pub(super) fn around(text: &Rope, language: &Language, offset: usize, reach: Reach) -> Option<Self> {
        let len = text.len_bytes();
        let offset = offset.min(len);
        let view = View { text, language };

        let here = lines::line_start(text, offset);
        let before = reach.before();
        let start = match offset.checked_sub(before + before / 2) {
            None | Some(0) => Line { start: 0, width: 0, first: 0 },
            Some(lowest) => {
                let (lowest, ideal) = (lines::next_line(text, lowest), offset - before);
                let distant = view.best(lowest..offset - before / 2, ideal);
                distant.or_else(|| view.best(lowest..here + 1, ideal))?
            }
        };
        let behind = reach.behind();
        let (end, after) = match offset + behind + behind / 2 {
            highest if highest >= len => (len, None),
            highest => {
                let (next, ideal) = (lines::next_line(text, offset), offset + behind);
                let distant = view.best(lines::next_line(text, offset + behind / 2)..highest, ideal);
                let end = distant.or_else(|| view.best(next..highest, ideal))?;
                (end.start, Some(end))
            }
        };
        let core = start.start..end;
        let mut ranges = view.openers(start);
        ranges.push(core.clone());
        ranges.extend(after.map(|after| view.closers(after)).unwrap_or_default());
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
        Some(Self { ranges, chosen: core.len(), core, keep: keep_start..keep_end })
    }

    /// Moves along with an edit. False if the part is no longer one: its border was touched.
    pub(super) fn edited(&mut self, edit: &Edit) -> bool {
        let Range { start, end } = edit.range;
        let touches = |border: usize| start <= border && border <= end;
        let last = self.keep.end == usize::MAX;
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
        let first = self.begins_the_text();
        let from_start = |place: usize| if first && place == self.core.start { 0 } else { moved(place) };
        self.keep = from_start(self.keep.start)..moved(self.keep.end);
        self.core = from_start(self.core.start)..moved(self.core.end);
        // Pasted into, it is too long; cut down, there is more to see.
        self.core.len() < self.chosen * 2 && self.core.len() > self.chosen / 4
    }

    /// Whether nothing stands before the part.
    pub(super) fn begins_the_text(&self) -> bool {
        self.core.start == 0
    }

    /// Whether the part serves a place.
    pub(super) fn serves(&self, offset: usize) -> bool {
        self.keep.start <= offset && offset <= self.keep.end
    }
}

/// The beginning of a line.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Its first byte.
    start: usize,
    /// How far it is indented.
    width: usize,
    /// The first byte that is not blank; 0 on a blank line.
    first: u8,
}

struct View<'a> {
    text: &'a Rope,
    language: &'a Language,
}

impl View<'_> {
    /// The lines that start within a range, which starts where one does.
    fn lines(&self, range: Range<usize>) -> Vec<Line> {
        let mut found = Vec::new();
        let Some((mut chunks, mut at, ..)) = self.text.get_chunks_at_byte(range.start) else { return found };
        let mut line = Line { start: range.start, width: 0, first: 0 };
        for chunk in &mut chunks {
            let bytes = chunk.as_bytes();
            let mut i = range.start.saturating_sub(at);
            while i < bytes.len() {
                match bytes[i] {
                    b'\n' => {
                        found.push(line);
                        line = Line { start: at + i + 1, width: 0, first: 0 };
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
    fn best(&self, range: Range<usize>, ideal: usize) -> Option<Line> {
        if range.start >= range.end {
            return None;
        }
        let mut blank = false;
        let mut best: Option<((bool, usize, bool, usize), Line)> = None;
        for line in self.lines(range) {
            let after_blank = std::mem::replace(&mut blank, line.first == 0);
            if line.first == 0 || best.is_some_and(|(key, _)| !key.0 && line.width > key.1) {
                continue;
            }
            let key = (self.continues(line), line.width, !after_blank, line.start.abs_diff(ideal));
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, line));
            }
        }
        best.map(|(_, line)| line)
    }

    /// What stands before `start` that a core beginning there needs: the lines it is indented under, outermost
    /// first.
    fn openers(&self, start: Line) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let (mut level, mut goes_on, mut before) = (start.width, false, start.start);
        let least = before.saturating_sub(FAR);
        'blocks: while before > least && (level > 0 || goes_on) {
            let from = lines::line_start(self.text, before.saturating_sub(STEP));
            for line in self.lines(from..before).into_iter().rev() {
                let around = line.width < level || goes_on && line.width == level;
                if line.first == 0 || !around || self.is_aside(line) {
                    continue;
                }
                level = line.width;
                goes_on = self.continues(line);
                // Of many `case`s the nearest do; what begins them all is needed.
                if found.len() < OUTLINE || !goes_on {
                    let limit = found.last().map_or(start.start, |last| last.start);
                    found.push(line.start..self.end_of_head(line, limit));
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
            && let Some(at) = lines::after(self.text, 0, STEP).find(tag)
        {
            let end = at + tag.len();
            if found.first().map_or(start.start, |first| first.start) >= end {
                found.insert(0, at..end);
            }
        }
        found
    }

    /// What stands behind `end` that closes what is open before it, innermost first.
    fn closers(&self, end: Line) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let (mut level, mut from) = (end.width, end.start);
        // A core may end before the very line that closes what is around it.
        level += usize::from(self.closes(end));
        let most = (from + FAR).min(self.text.len_bytes());
        while from < most && level > 0 {
            let to = lines::next_line(self.text, from + STEP);
            for line in self.lines(from..to) {
                if line.first == 0 || line.width >= level || self.is_aside(line) {
                    continue;
                }
                level = line.width;
                if self.closes(line) {
                    let whole = line.start..lines::next_line(self.text, line.start);
                    let opens = self.opens(&self.code(whole.clone()));
                    if found.len() < OUTLINE {
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
    fn code(&self, range: Range<usize>) -> String {
        let mut code = lines::slice(self.text, range.start..range.end.min(range.start + LINE));
        let comment = self.language.line_comment;
        if let Some(at) = code.find(comment).filter(|_| !comment.is_empty()) {
            code.truncate(at);
        }
        code.truncate(code.trim_end().len());
        code
    }

    /// The first word or sign of a line.
    fn begins_with(&self, line: Line, words: &[&str]) -> bool {
        let text = lines::after(self.text, line.start, line.width + 16);
        let text = text.trim_start();
        words.iter().any(|word| text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(lines::is_word)))
    }

    /// Whether a line closes something.
    fn closes(&self, line: Line) -> bool {
        match line.first {
            b')' | b']' | b'}' => true,
            b'<' => lines::after(self.text, line.start, line.width + 2).trim_start() == "</",
            _ => self.language.blocks == Blocks::Keywords && self.begins_with(line, CLOSING),
        }
    }

    /// Whether a line goes on with what began on a line above of the same depth.
    fn continues(&self, line: Line) -> bool {
        self.closes(line) || line.first == b'{' || self.begins_with(line, CONTINUING)
    }

    /// Whether a line's depth says nothing: comments, what is for the preprocessor, labels.
    fn is_aside(&self, line: Line) -> bool {
        let comment = self.language.line_comment;
        let text = lines::after(self.text, line.start, line.width + LINE);
        let text = text.trim_start();
        !comment.is_empty() && text.starts_with(comment)
            || line.first == b'#' && self.language.line_comment == "//"
            || self.language.block_comment.is_some_and(|(open, _)| text.starts_with(open))
    }

    /// Whether a line of code leaves something open.
    fn opens(&self, code: &str) -> bool {
        code.ends_with(['{', '(', '[', ':', '>', '|'])
    }

    /// Where the head of a block ends that begins on a line: behind the line that opens it, before `limit`.
    fn end_of_head(&self, line: Line, limit: usize) -> usize {
        let first = lines::next_line(self.text, line.start).min(limit);
        if !matches!(self.language.blocks, Blocks::Braces | Blocks::Indentation) {
            return first;
        }
        let (mut start, mut end) = (line.start, first);
        for _ in 0..HEAD_LINES {
            if self.opens(&self.code(start..end)) {
                return end;
            }
            // Up to the next line of the outline: `class A` / `extends B` / `{`.
            if end >= limit {
                return limit;
            }
            (start, end) = (end, lines::next_line(self.text, end).min(limit));
        }
        first
    }
}

#[cfg(test)]
mod tests;
