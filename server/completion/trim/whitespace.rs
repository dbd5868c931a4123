//! White space of the output's lines: removes trailing blanks and applies the file's indentation style.

use super::super::cursor::CursorContext;
use super::super::enclosing_literal::LexicalContext;

/// `text` without blanks at the ends of its lines, except on the last line, which may continue, and where blanks are
/// significant: in strings, and two of them in Markdown.
pub(in crate::completion) fn without_trailing_blanks(place: &CursorContext<'_>, text: &str) -> String {
    if ![" \n", "\t\n"].iter().any(|end| text.contains(end)) {
        return text.to_owned();
    }
    let markdown = place.language.is_some_and(|it| it.name == "markdown");
    let ends = place.literal.line_end_contexts(text);
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end_matches(['\n', ' ', '\t']);
        let means = ends.get(number) == Some(&LexicalContext::Text)
            || markdown && !bare.trim().is_empty() && line.ends_with("  \n");
        if means || !line.ends_with('\n') {
            out.push_str(line);
        } else {
            out.push_str(bare);
            out.push('\n');
        }
    }
    out
}

/// `text` with its lines indented in the file's style: tabs or spaces.
pub(in crate::completion) fn in_indent_style(place: &CursorContext<'_>, text: &str) -> String {
    let Some(style) = text.contains('\n').then(|| IndentStyle::detect_style(place)).flatten() else {
        return text.to_owned();
    };
    let other = if style == IndentStyle::Tabs { ' ' } else { '\t' };
    let blanks = |line: &str| line.len() - line.trim_start_matches(other).len();
    let lines = || text.split('\n').skip(1).filter(|line| !line.trim().is_empty());
    let least = lines().map(blanks).filter(|&width| width > 0).min();
    let Some(least) = least else { return text.to_owned() };
    // Spaces are converted by the width of their levels.
    let step = [4, 2].into_iter().find(|step| lines().all(|line| blanks(line) % step == 0));
    let step = if style == IndentStyle::Tabs { step.filter(|&step| step <= least) } else { Some(1) };
    let Some(step) = step else { return text.to_owned() };
    let step = if style == IndentStyle::Tabs { step.min(least) } else { step };
    let ends = place.literal.line_end_contexts(text);
    let mut out = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        let width = blanks(line);
        let literal = number.checked_sub(1).and_then(|above| ends.get(above)) == Some(&LexicalContext::Text);
        if number == 0 || width == 0 || literal {
            out.push(line.to_owned());
            continue;
        }
        let indentation = match style {
            IndentStyle::Tabs => "\t".repeat(width / step),
            IndentStyle::Spaces(step) => " ".repeat(width * step),
        };
        out.push(indentation + &line[width..]);
    }
    out.join("\n")
}

/// The unit of indentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IndentStyle {
    Tabs,
    /// The number of spaces per level.
    Spaces(usize),
}

impl IndentStyle {
    /// The style of the lines around the cursor; `None` if they have both, or none.
    fn detect_style(place: &CursorContext<'_>) -> Option<Self> {
        let (mut tabs, mut spaces, mut step) = (0, 0, usize::MAX);
        for line in place.before.lines().chain(place.after.lines()) {
            if line.starts_with('\t') {
                tabs += 1;
            } else {
                let width = line.len() - line.trim_start_matches(' ').len();
                if width > 1 && width < line.len() {
                    spaces += 1;
                    step = step.min(width);
                }
            }
        }
        match (tabs, spaces) {
            (0, 0) => None,
            (_, 0) => Some(Self::Tabs),
            (0, _) => Some(Self::Spaces(step.min(8))),
            _ => None,
        }
    }
}
