//! Detects output that repeats the rest of the cursor's line: the other half of a pair, or words. Strings and
//! comments are handled elsewhere.

use taper_grammars::BlockStyle;

use super::cursor::CursorContext;
use super::enclosing_literal::LexicalContext;
use super::lexer::{self, CodeToken, CodeTokenKind};
use crate::text::lines::is_word_char;

/// Languages with `<` and `>` around types.
const GENERIC_LANGUAGES: &[&str] = &[
    "rust",
    "typescript",
    "typescriptreact",
    "javascriptreact",
    "java",
    "kotlin",
    "swift",
    "dart",
    "cpp",
    "csharp",
    "d",
    "groovy",
    "v",
];
/// Languages whose code contains tags.
const TAG_LANGUAGES: &[&str] = &["javascript", "javascriptreact", "typescriptreact", "php", "markdown"];
/// Delimiters of code in a page, and of pages in code.
const TEMPLATE_DELIMITERS: &[(&str, &str)] =
    &[("{%", "%}"), ("{{", "}}"), ("<%", "%>"), ("<?", "?>"), ("{#", "#}"), ("[%", "%]"), ("[[", "]]")];
/// Words that close what a word opened.
const CLOSING_WORDS: &[&str] = &["end", "fi", "done", "esac"];
/// Words that open what `end` closes, anywhere on a line.
const OPENING_WORDS: &[&str] =
    &["if", "unless", "case", "do", "def", "function", "begin", "while", "until", "for", "fn"];
/// Words after which a `do` opens no further block.
const LOOP_WORDS: &[&str] = &["while", "until", "for"];
/// Maximum tokens of the rest of the line that the output's end may repeat.
const MAX_REPEATED_TOKENS: usize = 16;

/// Bytes of the output before the other half of a pair that is opened before the cursor and closed after it, on the
/// cursor's line; `None` if the output does not contain that half. `finished`: the output is complete.
pub(super) fn len_before_closing_half(
    place: &CursorContext<'_>,
    text: &str,
    finished: bool,
) -> Option<usize> {
    let rest = place.line_after.trim_start();
    if rest.is_empty() || place.literal.lexical_context() != LexicalContext::Code {
        return None;
    }
    let line = text.split('\n').next().unwrap_or(text);
    let halves = [
        closing_bar(place, line, rest),
        closing_angle(place, line, rest),
        closing_template(place, line, rest),
    ];
    let word = closing_word(place, line, rest, finished || line.len() < text.len());
    halves.into_iter().flatten().chain(word).chain(closing_tag(place, text, rest)).min()
}

/// `|x▮|`: the parameters of a closure or a block.
fn closing_bar(place: &CursorContext<'_>, line: &str, rest: &str) -> Option<usize> {
    let language = place.language.map_or("", |it| it.name);
    if !matches!(language, "rust" | "ruby" | "crystal") || !rest.starts_with('|') || rest.starts_with("||") {
        return None;
    }
    let before = place.line_before.replace("||", "  ");
    let open = before.rfind('|').filter(|_| before.matches('|').count() % 2 == 1)?;
    let head = before[..open].trim_end();
    let opens = head.is_empty()
        || head.ends_with(['(', ',', '=', '{', '['])
        || ["move", "do", "async", "static", "return", "=>"].iter().any(|word| head.ends_with(word));
    line.find('|').filter(|_| opens)
}

/// `Vec<▮>`, `<div ▮>`.
fn closing_angle(place: &CursorContext<'_>, line: &str, rest: &str) -> Option<usize> {
    let language = place.language?;
    let is_tag = language.blocks == BlockStyle::Tags || TAG_LANGUAGES.contains(&language.name);
    if !(rest.starts_with('>') || rest.starts_with("/>"))
        || !(is_tag || GENERIC_LANGUAGES.contains(&language.name))
    {
        return None;
    }
    let open = unmatched_angles(place.line_before, is_tag).1;
    // The output must close those that are open but not closed after the cursor.
    let own = open.saturating_sub(rest.len() - rest.trim_start_matches('>').len());
    if rest.starts_with("/>") {
        return (is_tag && open > 0).then(|| line.find("/>"))?;
    }
    (open > 0).then(|| unmatched_angles(line, is_tag).0.get(own).copied())?
}

/// The positions of each `>` that closes no `<` of the text, and the number of `<` open at its end. After a blank,
/// `>` is an operator, unless it may end a tag.
fn unmatched_angles(text: &str, is_tag: bool) -> (Vec<usize>, usize) {
    let (mut open, mut unopened) = (0, Vec::new());
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        let after = bytes.get(at + 1).copied();
        match byte {
            b'<' if after.is_some_and(|it| matches!(it, b' ' | b'=' | b'<')) || before == Some(b'<') => {}
            b'<' => open += 1,
            b'>' if matches!(before, Some(b'-' | b'=')) || before == Some(b' ') && !is_tag => {}
            b'>' if open > 0 => open -= 1,
            b'>' => unopened.push(at),
            _ => {}
        }
    }
    (unopened, open)
}

/// `{{ x▮ }}`, `<% x▮ %>`.
fn closing_template(place: &CursorContext<'_>, line: &str, rest: &str) -> Option<usize> {
    TEMPLATE_DELIMITERS.iter().find_map(|(open, close)| {
        let stripped = rest.trim_start_matches(['-', '~', '+']);
        let opened = place.line_before.rfind(open)?;
        let closed = place.line_before.rfind(close).is_some_and(|closed| closed > opened);
        if closed || !stripped.starts_with(close) {
            return None;
        }
        let at = line.find(close)?;
        Some(line[..at].trim_end_matches(['-', '~', '+']).len())
    })
}

/// `if x; then y▮; fi`: a closing word.
fn closing_word(place: &CursorContext<'_>, line: &str, rest: &str, finished: bool) -> Option<usize> {
    if place.block_style() != BlockStyle::Keywords {
        return None;
    }
    let rest = rest.trim_start_matches([';', ' ']);
    let closing = CLOSING_WORDS
        .iter()
        .find(|word| rest.strip_prefix(**word).is_some_and(|after| !after.starts_with(is_word_char)))?;
    let opens: &[&str] = match *closing {
        "fi" => &["if"],
        "done" => &["do"],
        "esac" => &["case"],
        _ => OPENING_WORDS,
    };
    let (mut depth, mut in_head) = (0_usize, false);
    for token in lexer::lex_line(place, line, 0) {
        let complete = finished || token.end_offset() < line.len();
        if token.text == *closing && complete {
            if depth == 0 {
                return Some(line[..token.start].trim_end_matches([';', ' ']).len());
            }
            depth -= 1;
        } else if token.kind == CodeTokenKind::Word && opens.contains(&token.text) {
            depth += usize::from(!(in_head && token.text == "do"));
            in_head = LOOP_WORDS.contains(&token.text);
        }
    }
    None
}

/// Whether `rest` begins with a word that closes a block: those are counted.
pub(super) fn is_closing_word(place: &CursorContext<'_>, rest: &str) -> bool {
    let word = rest.split(|c| !is_word_char(c)).next().unwrap_or("");
    place.block_style() == BlockStyle::Keywords && CLOSING_WORDS.contains(&word)
}

/// `<p>▮</p>`: a closing tag.
fn closing_tag(place: &CursorContext<'_>, text: &str, rest: &str) -> Option<usize> {
    let language = place.language?;
    if !(language.blocks == BlockStyle::Tags || TAG_LANGUAGES.contains(&language.name))
        || !rest.starts_with("</")
    {
        return None;
    }
    let mut open: Vec<&str> = Vec::new();
    for (at, _) in text.match_indices('<') {
        let tag = &text[at + 1..];
        let (closes, name) = match tag.strip_prefix('/') {
            Some(name) => (true, name),
            None => (false, tag),
        };
        let name =
            name.split(|c: char| !(is_word_char(c) || matches!(c, '-' | '.' | ':'))).next().unwrap_or("");
        let Some(end) = tag.find('>') else { break };
        if closes {
            match open.iter().rposition(|it| *it == name) {
                Some(depth) => open.truncate(depth),
                None => return Some(at),
            }
        } else if !name.is_empty() && !tag[..end].ends_with('/') {
            open.push(name);
        }
    }
    None
}

/// `text` without the tokens at its end that the rest of the line begins with. Closing brackets alone do not qualify:
/// they are counted elsewhere.
pub(super) fn without_repeated_suffix<'t>(place: &CursorContext<'_>, text: &'t str) -> &'t str {
    let rest = place.line_after.trim();
    if rest.is_empty() {
        return text;
    }
    let line_start = text.rfind('\n').map_or(0, |at| at + 1);
    let tokens = lexer::lex_line(place, &text[line_start..], line_start);
    let there = lexer::lex_line(place, rest, 0);
    let most = tokens.len().min(there.len()).min(MAX_REPEATED_TOKENS);
    let same = |len: &usize| tokens[tokens.len() - len..].iter().zip(&there).all(|(a, b)| a.is_same(b));
    let Some(len) = (1..=most).rev().find(same) else { return text };
    let repeated = &tokens[tokens.len() - len..];
    if !is_real_repetition(place, text, repeated) {
        return text;
    }
    text[..repeated[0].start].trim_end_matches([' ', '\t'])
}

fn is_real_repetition(place: &CursorContext<'_>, text: &str, repeated: &[CodeToken<'_>]) -> bool {
    let bracket =
        |token: &CodeToken<'_>| token.kind == CodeTokenKind::Symbol && matches!(token.text, ")" | "]" | "}");
    let closer =
        |token: &CodeToken<'_>| bracket(token) || token.kind == CodeTokenKind::Symbol && token.text == ">";
    let opener = |token: &CodeToken<'_>| {
        token.kind == CodeTokenKind::Symbol && matches!(token.text, "(" | "[" | "{" | "<")
    };
    // The output's own bracket needs its closer.
    let own = repeated.iter().any(bracket) && place.bracket_balance(text).unopened.is_empty();
    // Closing words are counted, too.
    let word = place.block_style() == BlockStyle::Keywords
        && repeated.iter().any(|it| CLOSING_WORDS.contains(&it.text));
    let quote =
        |token: &CodeToken<'_>| token.kind == CodeTokenKind::Symbol && matches!(token.text, "\"" | "'" | "`");
    // Half of an operator is not a repetition: `==` before `= x`.
    let sign = |c: char| c.is_ascii_punctuation() && !matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '_');
    let first = &repeated[0];
    let half = first.kind == CodeTokenKind::Symbol && text[..first.start].ends_with(sign);
    !own && !word
        && !half
        && !repeated.iter().all(closer)
        && !repeated.iter().any(|it| opener(it) || quote(it))
}
