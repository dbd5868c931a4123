//! Detects an empty block: one that was opened before the position and has no body yet.

use taper_grammars::BlockStyle;
use tree_sitter::Node;

use super::{MAX_LINE_BYTES, MAX_SCAN_BYTES, Scope, ends_with_word, is_kind, starts_with_word};
use crate::text::lines;

/// Elements of HTML that have no end tag.
const VOID_ELEMENTS: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

impl<'a> Scope<'a> {
    /// Whether the position is after the opening of a block that has no body yet, on the same line or on a line below:
    /// here a block should be suggested, not a line. Comments, and a Python docstring, do not count as a body.
    ///
    /// Also true if the block is not closed yet; then its body is what follows with deeper indentation.
    #[must_use]
    pub fn is_in_empty_block(&self) -> bool {
        let here = self.line_before(self.offset);
        let rest = self.rest_of_line();
        let Some((end, body)) = self.last_code_before() else { return false };
        let same_line = lines::line_start(self.text, end) == lines::line_start(self.text, self.offset);
        if !same_line && !here.trim().is_empty() {
            return false;
        }
        let opener = match self.language.blocks {
            BlockStyle::Indentation => rest.trim().is_empty() && self.colon_opens_block(end),
            BlockStyle::Braces => self.brace_opens_block(end),
            BlockStyle::Keywords => {
                (body == Some('{') || rest.trim().is_empty()) && self.keyword_opens_block(end, same_line)
            }
            BlockStyle::Tags => self.tag_opens_block(end),
            BlockStyle::None => false,
        };
        opener && self.is_body_missing(end)
    }

    /// Whether nothing deeper follows the opening that ends at `end`: the block has no body after the position.
    fn is_body_missing(&self, end: usize) -> bool {
        let rest = self.rest_of_line();
        let closes = |text: &str| {
            let text = text.trim_start();
            match self.language.blocks {
                BlockStyle::Braces => text.starts_with('}'),
                BlockStyle::Tags => text.starts_with("</"),
                BlockStyle::Keywords => {
                    text.starts_with('}')
                        || [
                            "end", "fi", "done", "esac", "else", "elsif", "elseif", "elif", "when", "rescue",
                            "ensure", "until", "in", "after",
                        ]
                        .iter()
                        .any(|word| starts_with_word(text, word))
                }
                BlockStyle::Indentation | BlockStyle::None => false,
            }
        };
        if !rest.trim().is_empty() {
            // `{ } else {`, `<p></p>`: the rest may only close the block, or the blocks around it.
            return closes(&rest) || rest.trim().chars().all(|c| ")]};,".contains(c));
        }
        let (depth, _) = self.line_indentation(end);
        let mut at = lines::next_line_start(self.text, self.offset);
        let most = self.text.len_bytes().min(self.offset + MAX_SCAN_BYTES);
        while at < most {
            let (width, blank) = self.line_indentation(at);
            if !blank {
                let line = lines::text_after(self.text, at, MAX_LINE_BYTES);
                return closes(&line) || width <= depth;
            }
            let next = lines::next_line_start(self.text, at);
            if next <= at {
                break;
            }
            at = next;
        }
        true
    }

    /// The smallest node whose last byte is the one before `end`, if it is a token of its own.
    fn token_before(&self, end: usize) -> Option<Node<'a>> {
        let node = self.nodes_around(end).next()?;
        (node.end_byte() == end && node.child_count() == 0).then_some(node)
    }

    /// Whether the byte before `end` is in a string or comment.
    fn is_in_literal(&self, end: usize) -> bool {
        let place = Self { offset: end, ..*self };
        place.is_in_string() || place.is_in_comment()
    }

    fn colon_opens_block(&self, end: usize) -> bool {
        if lines::char_before(self.text, end) != Some(':') || self.is_in_literal(end) {
            return false;
        }
        let sound =
            self.token_before(end).and_then(|colon| colon.parent()).filter(|parent| !parent.is_error());
        if let Some(parent) = sound
            && self.syntax.is_some_and(|syntax| !syntax.is_stale())
            && !parent.is_missing()
        {
            let kind = parent.kind();
            return kind.ends_with("_statement")
                || kind.ends_with("_clause")
                || kind.ends_with("_definition");
        }
        let line = self.line_before(end);
        let line = line.trim();
        let word = line.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let balance = line.chars().fold(0i32, |n, c| match c {
            '(' | '[' | '{' => n + 1,
            ')' | ']' | '}' => n - 1,
            _ => n,
        });
        // `def f(x):` and the last line of a head over several: `) -> int:`.
        self.language.opening_words.contains(&word) && balance == 0 || line.starts_with(')') && balance < 0
    }

    fn brace_opens_block(&self, end: usize) -> bool {
        if lines::char_before(self.text, end) != Some('{') || self.is_in_literal(end) {
            return false;
        }
        let kinds = &self.language.kinds;
        if self.language.grammar.is_some() && kinds.blocks.is_empty() {
            return false;
        }
        let fresh = self.syntax.is_some_and(|syntax| !syntax.is_stale());
        if let Some(parent) = self.token_before(end).and_then(|brace| brace.parent()).filter(|_| fresh) {
            if is_kind(parent, kinds.blocks)
                || is_kind(
                    parent,
                    &[
                        "interface_type",
                        "switch_statement",
                        "expression_switch_statement",
                        "type_switch_statement",
                        "select_statement",
                    ],
                )
            {
                return true;
            }
            if !parent.is_error() && !parent.has_error() {
                return false;
            }
        }
        // `a = {`, `f({`, `[{`, `return {`, `key: {` open values.
        let before = self.line_before(end - 1);
        let before = before.trim_end();
        // `case 1: {` has the only kind of colon that precedes a block.
        let head = before.trim_start();
        if before.ends_with(':') && ["case", "default"].iter().any(|word| starts_with_word(head, word))
            || head == "default:"
        {
            return true;
        }
        let value = before.ends_with(['=', '(', '[', ',', ':', '?', '&', '|', '$', '#', '+'])
            || ["return", "yield", "import", "export", "default"]
                .iter()
                .any(|word| ends_with_word(before, word));
        !value
    }

    fn keyword_opens_block(&self, end: usize, same_line: bool) -> bool {
        if self.is_in_literal(end) {
            return false;
        }
        let line = self.line_before(end);
        let line = line.trim();
        if self.language.opening_ends.iter().any(|word| ends_with_word(line, word)) {
            return true;
        }
        // `each do |x, y|`
        if let Some(head) =
            line.strip_suffix('|').and_then(|line| line.rsplit_once('|')).map(|(head, _)| head.trim_end())
            && self.language.opening_ends.iter().any(|word| ends_with_word(head, word))
        {
            return true;
        }
        // `local function f(x)`, `x = function()`
        let function = self.language.opening_words.contains(&"function")
            && line.ends_with(')')
            && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "function");
        if function {
            return true;
        }
        let first = self.language.opening_words.iter().any(|word| starts_with_word(line, word));
        // On the line itself the head may be incomplete: `def na▮`. One with an argument list is complete.
        let whole = !same_line || line.ends_with(')');
        let closed = ends_with_word(line, "end") || line.contains(") = ") || line.contains(" = ");
        first && whole && !closed
    }

    fn tag_opens_block(&self, end: usize) -> bool {
        if lines::char_before(self.text, end) != Some('>') {
            return false;
        }
        let text = lines::text_before(self.text, end, MAX_LINE_BYTES);
        let Some(tag) = text.rfind('<').map(|at| &text[at + 1..]) else { return false };
        let name = tag.split(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap_or_default();
        !name.is_empty()
            && !tag.ends_with("/>")
            && !VOID_ELEMENTS.iter().any(|void| void.eq_ignore_ascii_case(name))
    }
}
