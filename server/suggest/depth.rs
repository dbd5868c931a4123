//! Whether an answer would stand one block too deep: the editor kept the indentation, and what comes has to go back.
//! It knows nothing of grammars: it reads the lines above.
//!
//! Such an answer is not shown. Replacing the blanks before the cursor would be right in VS Code alone: Neovim hides what a
//! range covers, popups filter by it, and a suggestion that begins before the cursor can neither be typed through nor be
//! taken by words. Once the cursor is moved back, the same line is suggested in its place.

use taper_grammars::Blocks;

use super::enclosure::Inside;
use super::place::{Place, indentation, opener};
use crate::text::lines::is_word;

/// Statements behind which nothing comes in a block.
const LEAVES: &[&str] = &["return", "break", "continue", "raise", "throw", "goto"];
/// Statements that are hardly ever the last of a loop's body without a condition. In 1,319 loops of Python's library and of
/// pip that a `return` follows or ends, it stands in the loop 24 times, and 22 of these loops have a `continue` or a `yield`.
const ENDS_LOOP: &[&str] = &["return", "break", "continue"];
/// Words that go on with a statement whose block has ended, and how that statement may begin.
const GOES_ON: &[(&str, &[&str])] = &[
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
/// How a line begins that may stand behind a statement that leaves its block.
const AFTER_LEAVING: &[&str] = &[
    "case", "default", "else", "elif", "elsif", "elseif", "except", "catch", "finally", "rescue", "ensure",
    "when", "in", "function", "class", "def", "fn", "func", "async", "endif", "end", "fi", "done", "esac",
    "until", "public", "private",
];

/// Whether the first line of `text` stands too deep at a place.
pub(super) fn is_too_deep(place: &Place<'_>, text: &str) -> bool {
    let depth = indentation(place.line_before);
    if depth == 0
        || !place.on_blank_line_start()
        || place.literal.inside() != Inside::Code
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
        return closes_elsewhere(place, first, depth);
    }
    let above = Above::new(place);
    let by_words = matches!(place.blocks(), Blocks::Keywords);
    if by_words && CLOSING_WORDS.contains(&word) {
        return !above.opens_at(place, depth);
    }
    let by_lines = matches!(place.blocks(), Blocks::Indentation | Blocks::Keywords);
    if by_lines && let Some((_, before)) = GOES_ON.iter().find(|(it, _)| *it == word) {
        let goes_on_with = above.beside(depth);
        return goes_on_with.is_none_or(|line| !line.split(|c| !is_word(c)).any(|it| before.contains(&it)));
    }
    let is_label = matches!(word, "case" | "default")
        && (line.ends_with(':') || line.contains(": ") || line.contains("->"));
    if is_label && place.blocks() == Blocks::Braces {
        return above.is_inside_of(depth, &["case", "default"]);
    }
    if above.leaves_at(place, depth)
        && is_word(first)
        && !AFTER_LEAVING.contains(&word)
        && !line.ends_with(':')
    {
        return true;
    }
    place.blocks() == Blocks::Indentation && ENDS_LOOP.contains(&word) && above.is_end_of_loop(place, depth)
}

fn is_markup(place: &Place<'_>) -> bool {
    matches!(place.blocks(), Blocks::Tags | Blocks::None)
}

fn first_word(line: &str) -> &str {
    let end = line.find(|c| !is_word(c)).unwrap_or(line.len());
    &line[..end]
}

/// Whether the bracket that `closer` closes was opened on a line that stands less deep than the cursor.
fn closes_elsewhere(place: &Place<'_>, closer: char, depth: usize) -> bool {
    let open = place.brackets(place.before).open;
    let Some(&(at, bracket)) = open.last() else { return false };
    let start = place.before[..at].rfind('\n').map_or(0, |at| at + 1);
    bracket == opener(closer) && indentation(&place.before[start..]) < depth
}

/// The lines above the cursor's that have code, the last first.
struct Above<'a>(Vec<&'a str>);

impl<'a> Above<'a> {
    fn new(place: &Place<'a>) -> Self {
        let above = &place.before[..place.before.len() - place.line_before.len()];
        let code = |line: &&str| !place.without_comment(line).trim().is_empty();
        Self(above.lines().rev().filter(code).collect())
    }

    /// The last line that is so deep, if none that is less deep comes behind it.
    fn beside(&self, depth: usize) -> Option<&'a str> {
        self.0
            .iter()
            .copied()
            .take_while(|line| indentation(line) >= depth)
            .find(|line| indentation(line) == depth)
    }

    /// Whether a block was opened at this depth and is still open.
    fn opens_at(&self, place: &Place<'_>, depth: usize) -> bool {
        let mut lines = self.0.iter().take_while(|line| indentation(line) >= depth);
        let Some(line) = lines.find(|line| indentation(line) == depth) else { return false };
        let word = first_word(line.trim());
        let goes_on = GOES_ON.iter().any(|(it, _)| *it == word) || matches!(word, "when" | "in" | "then");
        let inner = line.split(|c| !is_word(c)).any(|it| matches!(it, "do" | "case" | "if" | "begin"));
        place.opens_block(line) || goes_on || inner
    }

    /// Whether the last line stands at this depth and leaves its block, whatever may come.
    fn leaves_at(&self, place: &Place<'_>, depth: usize) -> bool {
        let Some(line) = self.0.first().filter(|line| indentation(line) == depth) else { return false };
        let code = place.without_comment(line).trim();
        let word = first_word(code);
        let conditional = [" if ", " unless ", " when "].iter().any(|word| code.contains(word));
        let python = place.blocks() == Blocks::Indentation;
        let goes_on = code.ends_with(|c: char| {
            !is_word(c) && !matches!(c, ';' | ')' | ']' | '}' | '"' | '\'' | '`' | '?' | '!')
        });
        LEAVES.contains(&word)
            && (python || !conditional)
            && !goes_on
            && place.brackets(code).open.is_empty()
            && place.brackets(code).unopened.is_empty()
    }

    /// Whether the block at this depth has a statement and is the body of a loop that nothing leaves early.
    fn is_end_of_loop(&self, place: &Place<'_>, depth: usize) -> bool {
        let body: Vec<&str> = self.0.iter().copied().take_while(|line| indentation(line) >= depth).collect();
        let Some(head) = self.0.get(body.len()) else { return false };
        let head = head.trim().trim_start_matches("async ");
        let early = ["continue", "yield"]
            .iter()
            .any(|word| body.iter().any(|line| line.split(|c| !is_word(c)).any(|it| it == *word)));
        matches!(first_word(head), "for" | "while") && place.opens_block(head) && !body.is_empty() && !early
    }

    /// Whether the first line that is less deep begins with one of these words.
    fn is_inside_of(&self, depth: usize, words: &[&str]) -> bool {
        let head = self.0.iter().find(|line| indentation(line) < depth);
        head.is_some_and(|line| words.contains(&first_word(line.trim())))
    }
}
