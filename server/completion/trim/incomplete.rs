//! Removes incomplete ends: of an escape, of an entity, of a character, of an operator.

use taper_grammars::BlockStyle;

use super::super::cursor::CursorContext;
use super::super::enclosing_literal::LexicalContext;
use crate::text::lines::is_word_char;

/// Characters of operators.
pub(super) fn is_operator(c: char) -> bool {
    matches!(
        c,
        '=' | '<'
            | '>'
            | '!'
            | '&'
            | '|'
            | '+'
            | '-'
            | '*'
            | '/'
            | '%'
            | '^'
            | '~'
            | '?'
            | ':'
            | '.'
            | '@'
            | '#'
            | '$'
            | '\\'
    )
}

/// `text` without an incomplete end. `whole`: the output is complete.
pub(in crate::completion) fn without_incomplete_end<'t>(
    place: &CursorContext<'_>,
    text: &'t str,
    whole: bool,
) -> &'t str {
    // A joiner connects the following character to the preceding one.
    let text = text.trim_end_matches('\u{200d}');
    let in_text = place.literal.context_after(text) == LexicalContext::Text;
    let text = if in_text { without_half_escape(text) } else { text };
    let markup =
        place.block_style() == BlockStyle::Tags || place.language.is_some_and(|it| it.name == "markdown");
    if whole {
        return text;
    }
    let text = if markup { without_half_entity(text) } else { text };
    let in_prose = place.literal.context_after(text) != LexicalContext::Code;
    // `you'` of `you're`.
    match text.strip_suffix(['\'', '’']).filter(|word| in_prose && word.ends_with(is_word_char)) {
        Some(word) => word.trim_end_matches(is_word_char).trim_end(),
        None => text,
    }
}

/// Removes an incomplete escape: a backslash, `\x4`, `\u{1f`, the first half of a surrogate pair.
fn without_half_escape(text: &str) -> &str {
    let Some(at) = last_escape(text) else { return text };
    let escape = &text[at + 1..];
    let digits = |text: &str| text.chars().take_while(char::is_ascii_hexdigit).count();
    let half = match escape.chars().next() {
        None => true,
        Some('x') => digits(&escape[1..]) + 1 == escape.len() && escape.len() < 3,
        Some('u') if escape[1..].starts_with('{') => !escape.contains('}'),
        Some('u') => {
            let count = digits(&escape[1..]);
            let first = escape.get(1..5).and_then(|it| u32::from_str_radix(it, 16).ok());
            count + 1 == escape.len()
                && (count < 4 || count == 4 && first.is_some_and(|it| (0xd800..0xdc00).contains(&it)))
        }
        Some('U') => digits(&escape[1..]) + 1 == escape.len() && escape.len() < 9,
        Some('N') => escape[1..].starts_with('{') && !escape.contains('}'),
        Some(_) => false,
    };
    if half { &text[..at] } else { text }
}

/// The position of the last backslash that is not escaped itself.
fn last_escape(text: &str) -> Option<usize> {
    let at = text.rfind('\\')?;
    let run = text[..=at].len() - text[..=at].trim_end_matches('\\').len();
    match run % 2 {
        1 => Some(at),
        _ => None,
    }
}

/// Removes `&am`, `&#12`.
fn without_half_entity(text: &str) -> &str {
    let head = text.trim_end_matches(is_word_char);
    let head = head.strip_suffix('#').unwrap_or(head);
    head.strip_suffix('&').unwrap_or(text)
}
