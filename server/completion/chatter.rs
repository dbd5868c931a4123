//! Model output that is not meant to be inserted: fences, sentences about the code, chat tokens, an echo of the line.

use taper_grammars::BlockStyle;

use super::cursor::CursorContext;
use super::enclosing_literal::LexicalContext;
use super::stop::StopPoint;
use crate::text::lines::is_word_char;

/// Languages in which a fence may be part of the file.
const FENCE_LANGUAGES: &[&str] = &["markdown", "restructuredtext", "julia"];
/// How a sentence about code begins.
const CHAT_SENTENCE_STARTS: &[&str] = &[
    "here is ",
    "here's ",
    "here are ",
    "sure,",
    "sure!",
    "sure.",
    "certainly",
    "of course",
    "absolutely!",
    "the following code",
    "the code above",
    "the above code",
    "the completed ",
    "this code ",
    "this function ",
    "this implementation ",
    "in this example",
    "in this code",
    "to complete the ",
    "to solve this",
    "to implement this",
    "you can use the following",
    "explanation:",
    "note that ",
    "let me ",
    "i have ",
    "i've ",
    "i'll ",
    "i will ",
    "i'm sorry",
    "as an ai",
    "please note",
    "please provide",
];
/// Words that mark a sentence as being about code even in files that contain prose.
const CODE_NOUNS: &[&str] =
    &["code", "snippet", "function", "implementation", "completion", "html", "markup"];
/// Tokens by which models separate turns and parts, those without `<|` and `|>`.
const CONTROL_TOKENS: &[&str] = &[
    "<fim_prefix>",
    "<fim_suffix>",
    "<fim_middle>",
    "<fim_pad>",
    "<fim-prefix>",
    "<fim-suffix>",
    "<fim-middle>",
    "<file_sep>",
    "<filename>",
    "<repo_name>",
    "<reponame>",
    "<gh_stars>",
    "<issue_start>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
    "<PRE>",
    "<SUF>",
    "<MID>",
    "<EOT>",
    "▁<EOT>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<eos>",
    "<bos>",
    "<think>",
    "</think>",
];
/// Maximum bytes of such a token.
const MAX_CONTROL_TOKEN_BYTES: usize = 40;
/// Minimum letters and digits that the output must share with the text before the cursor to count as an echo.
const MIN_ECHO_CHARS: usize = 6;

/// Bytes at the start of the output that are not meant to be inserted, though the rest is: the first line of a fence,
/// or a repeated comment sign or line start.
pub(super) fn lead_len(place: &CursorContext<'_>, text: &str) -> usize {
    let start = text.len() - text.trim_start().len();
    let body = &text[start..];
    if is_fence(body) && !may_be_fenced(place, place.literal.lexical_context()) {
        return text
            .find('\n')
            .filter(|&end| end > start)
            .map_or_else(|| body.find('\n').map_or(text.len(), |end| start + end + 1), |end| end + 1);
    }
    if text[..start].contains('\n') {
        return 0;
    }
    let before = place.line_before.trim();
    let blank = place.line_before.ends_with([' ', '\t']);
    // A blank follows the sign, unless there is one before the cursor.
    let len_after = |sign: &str| {
        let rest = body.strip_prefix(sign)?;
        let blanks = rest.len() - rest.trim_start_matches(' ').len();
        let end = rest.is_empty() || blanks > 0 || rest.starts_with('\n');
        end.then(|| text.len() - rest.len() + if blank { blanks } else { 0 })
    };
    if is_line_marker(place, before)
        && let Some(lead) = len_after(before)
    {
        return lead;
    }
    let distinctive = before.chars().filter(|c| is_word_char(*c)).count() >= MIN_ECHO_CHARS;
    match body.strip_prefix(before) {
        Some(rest) if distinctive && !rest.starts_with(is_word_char) => {
            text.len() - if blank { rest.trim_start_matches(' ').len() } else { rest.len() }
        }
        _ => 0,
    }
}

/// Whether the cursor's line has only the sign that begins a line of a comment, of a session or of a list.
fn is_line_marker(place: &CursorContext<'_>, before: &str) -> bool {
    let Some(language) = place.language else { return false };
    let line = !language.line_comment.is_empty()
        && before
            .strip_prefix(language.line_comment)
            .is_some_and(|rest| matches!(rest, "" | "/" | "!" | "-" | ";"));
    let star = before == "*" && place.literal.lexical_context() == LexicalContext::Comment;
    let list = matches!(before, "-" | "*" | "+" | ">") && language.name == "markdown";
    line || star || list || before == ">>>"
}

/// The position at which the output starts to comment on itself.
pub(super) fn find_chatter(place: &CursorContext<'_>, text: &str) -> Option<StopPoint> {
    if !text.contains("```") && !text.contains("~~~") && !text.lines().any(is_about_code) {
        return None;
    }
    let ends = place.literal.line_end_contexts(text);
    let mut start = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let inside = match number.checked_sub(1) {
            Some(before) => ends.get(before).copied().unwrap_or(LexicalContext::Code),
            None => place.literal.lexical_context(),
        };
        // A line comment ends with its line.
        let inside = if number > 0
            && inside == LexicalContext::Comment
            && !place.literal.is_multiline_after(&text[..start])
        {
            LexicalContext::Code
        } else {
            inside
        };
        if !may_be_fenced(place, inside) {
            let fence = line.find("```").or_else(|| is_fence(line.trim_start()).then_some(0));
            if let Some(at) =
                fence.filter(|&at| place.literal.context_after(&text[..start + at]) == LexicalContext::Code)
            {
                return Some(StopPoint { keep: start + at, rule: "a code fence" });
            }
        }
        let begins = number > 0 || place.is_in_indentation();
        if inside == LexicalContext::Code && begins && is_chat_sentence(place, line) {
            return Some(StopPoint { keep: start, rule: "a sentence about the code" });
        }
        start += line.len();
    }
    None
}

fn may_be_fenced(place: &CursorContext<'_>, inside: LexicalContext) -> bool {
    inside != LexicalContext::Code || place.language.is_none_or(|it| FENCE_LANGUAGES.contains(&it.name))
}

fn is_fence(line: &str) -> bool {
    line.starts_with("```") || line.starts_with("~~~")
}

fn is_about_code(line: &str) -> bool {
    let line = line.trim_start().to_lowercase();
    CHAT_SENTENCE_STARTS.iter().any(|start| line.starts_with(start))
}

/// Whether a line of the output is a sentence about it that the file would not contain.
fn is_chat_sentence(place: &CursorContext<'_>, line: &str) -> bool {
    let Some(language) = place.language.filter(|_| is_about_code(line)) else { return false };
    let line = line.trim().to_lowercase();
    let words = line.split_whitespace().count() > 2 || line.ends_with(':');
    let signs = line.contains(['=', ';', '{', '}', '|']) || line.contains("()");
    let is_text = matches!(language.blocks, BlockStyle::Tags)
        || matches!(language.name, "markdown" | "latex" | "restructuredtext" | "yaml" | "ini");
    let of_code = CODE_NOUNS.iter().any(|word| line.split(|c| !is_word_char(c)).any(|it| it == *word));
    words && !signs && (!is_text || of_code && line.ends_with(':'))
}

/// The position of the first control token in a text, if the file has none like it.
pub(super) fn find_control_token(place: &CursorContext<'_>, text: &str) -> Option<usize> {
    let known = |token: &str| place.before.contains(token) || place.after.contains(token);
    let named = CONTROL_TOKENS.iter().filter(|token| !known(token)).filter_map(|token| text.find(*token));
    let ends = [("<|", "|>"), ("<｜", "｜>")];
    let barred = ends.iter().filter(|(open, _)| !known(open)).filter_map(|(open, close)| {
        text.match_indices(open).find_map(|(at, _)| {
            let inner = text[at + open.len()..].split(close).next()?;
            let is_name = |c: char| is_word_char(c) || matches!(c, '▁' | '-' | ' ');
            let closed = text[at + open.len() + inner.len()..].starts_with(close);
            (closed
                && !inner.is_empty()
                && inner.len() <= MAX_CONTROL_TOKEN_BYTES
                && inner.chars().all(is_name))
            .then_some(at)
        })
    });
    named.chain(barred).min()
}
