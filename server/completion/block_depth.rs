//! Detects output that is indented one block too deep: the editor kept the indentation, but the next line belongs to
//! an outer block. Only the lines above are read, no syntax tree.
//!
//! Such output is not shown. Replacing the blanks before the cursor would work in VS Code alone: Neovim hides the
//! text that a range covers, popups filter by it, and a suggestion that begins before the cursor can neither be typed
//! through nor accepted word by word. Once the user moves the cursor back, the same line is suggested there.

use taper_grammars::BlockStyle;

use super::cursor::{CursorContext, indentation_width, opening_bracket};
use super::enclosing_literal::LexicalContext;
use crate::text::lines::is_word_char;

/// Statements after which a block has no more statements.
const JUMP_STATEMENTS: &[&str] = &["return", "break", "continue", "raise", "throw", "goto"];
/// Statements that rarely end a loop body without a condition, unless the loop also has a `continue` or a `yield`.
const LOOP_END_STATEMENTS: &[&str] = &["return", "break", "continue"];
/// Words that continue a statement after its block has ended, and how that statement may begin.
const CONTINUATIONS_OF: &[(&str, &[&str])] = &[
    (
        "else",
        &[
            "if", "elif", "elsif", "elseif", "else", "for", "while", "try", "except", "rescue", "unless",
            "case", "when", "in", "with",
        ],
    ),
    ("elif", &["if", "elif"]),
    ("elsif", &["if", "elsif", "unless"]),
    ("elseif", &["if", "elseif"]),
    ("except", &["try", "except"]),
    ("rescue", &["begin", "rescue", "def", "do"]),
    ("ensure", &["begin", "rescue", "def", "do", "else"]),
    ("finally", &["try", "except", "else"]),
];
/// Words that close a block where brackets do not.
const CLOSING_WORDS: &[&str] = &["end", "fi", "done", "esac"];
/// First words of lines that may follow a jump statement.
const AFTER_JUMP_WORDS: &[&str] = &[
    "case", "default", "else", "elif", "elsif", "elseif", "except", "catch", "finally", "rescue", "ensure",
    "when", "in", "function", "class", "def", "fn", "func", "async", "endif", "end", "fi", "done", "esac",
    "until", "public", "private",
];

/// Whether the first line of `text` is indented too deep for the cursor's context.
pub(super) fn is_too_deep(place: &CursorContext<'_>, text: &str) -> bool {
    let depth = indentation_width(place.line_before);
    if depth == 0
        || !place.is_in_indentation()
        || place.literal.lexical_context() != LexicalContext::Code
        || !place.line_after.trim().is_empty()
    {
        return false;
    }
    let line = text.split('\n').next().unwrap_or("").trim();
    let Some(first) = line.chars().next() else { return false };
    if place.without_comment(line).trim().is_empty() || is_markup(place) {
        return false;
    }
    let word = first_word(line);
    if matches!(first, '}' | ')' | ']') {
        return closes_outer_bracket(place, first, depth);
    }
    let above = LinesAbove::new(place);
    let by_words = matches!(place.block_style(), BlockStyle::Keywords);
    if by_words && CLOSING_WORDS.contains(&word) {
        return !above.opens_block_at(place, depth);
    }
    let by_lines = matches!(place.block_style(), BlockStyle::Indentation | BlockStyle::Keywords);
    if by_lines && let Some((_, before)) = CONTINUATIONS_OF.iter().find(|(it, _)| *it == word) {
        let statement = above.line_at_depth(depth);
        return statement.is_none_or(|line| !line.split(|c| !is_word_char(c)).any(|it| before.contains(&it)));
    }
    let is_label = matches!(word, "case" | "default")
        && (line.ends_with(':') || line.contains(": ") || line.contains("->"));
    if is_label && place.block_style() == BlockStyle::Braces {
        return above.is_under_head(depth, &["case", "default"]);
    }
    if above.leaves_block_at(place, depth)
        && is_word_char(first)
        && !AFTER_JUMP_WORDS.contains(&word)
        && !line.ends_with(':')
    {
        return true;
    }
    place.block_style() == BlockStyle::Indentation
        && LOOP_END_STATEMENTS.contains(&word)
        && above.is_loop_body_end(place, depth)
}

fn is_markup(place: &CursorContext<'_>) -> bool {
    matches!(place.block_style(), BlockStyle::Tags | BlockStyle::None)
}

fn first_word(line: &str) -> &str {
    let end = line.find(|c| !is_word_char(c)).unwrap_or(line.len());
    &line[..end]
}

/// Whether the bracket that `closer` closes was opened on a line with less indentation than the cursor.
fn closes_outer_bracket(place: &CursorContext<'_>, closer: char, depth: usize) -> bool {
    let open = place.bracket_balance(place.before).open;
    let Some(&(at, bracket)) = open.last() else { return false };
    let start = place.before[..at].rfind('\n').map_or(0, |at| at + 1);
    bracket == opening_bracket(closer) && indentation_width(&place.before[start..]) < depth
}

/// The lines above the cursor's that contain code, the last first.
struct LinesAbove<'a>(Vec<&'a str>);

impl<'a> LinesAbove<'a> {
    fn new(place: &CursorContext<'a>) -> Self {
        let above = &place.before[..place.before.len() - place.line_before.len()];
        let code = |line: &&str| !place.without_comment(line).trim().is_empty();
        Self(above.lines().rev().filter(code).collect())
    }

    /// The last line at this depth, unless a shallower line follows it.
    fn line_at_depth(&self, depth: usize) -> Option<&'a str> {
        self.0
            .iter()
            .copied()
            .take_while(|line| indentation_width(line) >= depth)
            .find(|line| indentation_width(line) == depth)
    }

    /// Whether a block was opened at this depth and is still open.
    fn opens_block_at(&self, place: &CursorContext<'_>, depth: usize) -> bool {
        let mut lines = self.0.iter().take_while(|line| indentation_width(line) >= depth);
        let Some(line) = lines.find(|line| indentation_width(line) == depth) else { return false };
        let word = first_word(line.trim());
        let continues =
            CONTINUATIONS_OF.iter().any(|(it, _)| *it == word) || matches!(word, "when" | "in" | "then");
        let inner = line.split(|c| !is_word_char(c)).any(|it| matches!(it, "do" | "case" | "if" | "begin"));
        place.opens_block(line) || continues || inner
    }

    /// Whether the last line is at this depth and leaves its block unconditionally.
    fn leaves_block_at(&self, place: &CursorContext<'_>, depth: usize) -> bool {
        let Some(line) = self.0.first().filter(|line| indentation_width(line) == depth) else { return false };
        let code = place.without_comment(line).trim();
        let word = first_word(code);
        let conditional = [" if ", " unless ", " when "].iter().any(|word| code.contains(word));
        let python = place.block_style() == BlockStyle::Indentation;
        let continues = code.ends_with(|c: char| {
            !is_word_char(c) && !matches!(c, ';' | ')' | ']' | '}' | '"' | '\'' | '`' | '?' | '!')
        });
        JUMP_STATEMENTS.contains(&word)
            && (python || !conditional)
            && !continues
            && place.bracket_balance(code).open.is_empty()
            && place.bracket_balance(code).unopened.is_empty()
    }

    /// Whether the block at this depth is the non-empty body of a loop without an early exit.
    fn is_loop_body_end(&self, place: &CursorContext<'_>, depth: usize) -> bool {
        let body: Vec<&str> =
            self.0.iter().copied().take_while(|line| indentation_width(line) >= depth).collect();
        let Some(head) = self.0.get(body.len()) else { return false };
        let head = head.trim().trim_start_matches("async ");
        let early = ["continue", "yield"]
            .iter()
            .any(|word| body.iter().any(|line| line.split(|c| !is_word_char(c)).any(|it| it == *word)));
        matches!(first_word(head), "for" | "while") && place.opens_block(head) && !body.is_empty() && !early
    }

    /// Whether the first shallower line begins with one of these words.
    fn is_under_head(&self, depth: usize, words: &[&str]) -> bool {
        let head = self.0.iter().find(|line| indentation_width(line) < depth);
        head.is_some_and(|line| words.contains(&first_word(line.trim())))
    }
}
