//! Questions about a place in the tree: in a string, a comment, an empty block; how broken is it.
//! It knows nothing of suggestions.
//!
//! Code is broken while it is typed. So every question that a broken tree cannot answer falls back on the
//! text of the line, and [`Place`] also answers without any tree. Offsets are bytes, clamped into the text.

use std::ops::Range;

use taper_grammars::{Blocks, Language};
use tree_sitter::{Node, Tree, TreeCursor};

use super::Syntax;
use crate::text::{Rope, lines};

/// How far back and ahead the text is looked at, in bytes.
const REACH: usize = 8 << 10;
/// How much of a line is looked at, in bytes: minified files have lines of a megabyte.
const LINE: usize = 2 << 10;
/// Elements of HTML that have no end tag.
const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

/// How many places of a tree are broken: nodes that tree-sitter could not fit in, and tokens that it had to
/// invent. Costs as much as the broken parts are large.
#[must_use]
pub fn faults(tree: &Tree) -> usize {
    faults_in(tree, 0..usize::MAX)
}

/// [`faults`] that touch a range of bytes; its ends count as touched.
#[must_use]
pub fn faults_in(tree: &Tree, range: Range<usize>) -> usize {
    fn below(cursor: &mut TreeCursor, range: &Range<usize>) -> usize {
        let node = cursor.node();
        let mut count = usize::from(node.is_error() || node.is_missing());
        if node.child_count() > 0 && cursor.goto_first_child() {
            loop {
                let child = cursor.node();
                if child.start_byte() > range.end {
                    break;
                }
                if child.has_error() && child.end_byte() >= range.start {
                    count += below(cursor, range);
                }
                if !cursor.goto_next_sibling() {
                    break;
                }
            }
            cursor.goto_parent();
        }
        count
    }
    if tree.root_node().has_error() { below(&mut tree.walk(), &range) } else { 0 }
}

/// One place of a document, to be asked about.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The text.
    pub text: &'a Rope,
    /// Its language.
    pub language: &'static Language,
    /// Its tree, if there is one.
    pub syntax: Option<&'a Syntax>,
    /// The byte offset asked about.
    pub offset: usize,
}

impl<'a> Place<'a> {
    /// A place; `offset` is clamped into the text.
    #[must_use]
    pub fn new(
        text: &'a Rope,
        language: &'static Language,
        syntax: Option<&'a Syntax>,
        offset: usize,
    ) -> Self {
        Self { text, language, syntax, offset: lines::floor(text, offset) }
    }

    /// Whether text typed here would become part of a string. Code within a string, `${…}`, is not.
    #[must_use]
    pub fn in_string(&self) -> bool {
        for node in self.around(self.offset) {
            let inside = node.start_byte() < self.offset && self.offset < node.end_byte();
            if is(node, self.language.kinds.interpolations) && inside {
                return false;
            }
            if is(node, self.language.kinds.comments) && inside {
                return false;
            }
            if is(node, self.language.kinds.strings)
                && (inside
                    || node.start_byte() < self.offset && self.offset == node.end_byte() && is_open(node))
            {
                return true;
            }
        }
        self.is_broken_here() && self.line_state() == LineState::String
    }

    /// Whether text typed here would become part of a comment.
    #[must_use]
    pub fn in_comment(&self) -> bool {
        for node in self.around(self.offset) {
            if is(node, self.language.kinds.comments) {
                return self.inside_comment(node);
            }
        }
        self.is_broken_here() && self.line_state() == LineState::Comment
    }

    /// Whether the place lies behind the opening of a block that has no body yet, be it on the same line or
    /// on a line below: a block is wanted here, not a line. Comments, and a Python docstring, are no body.
    ///
    /// Also true if the block is not closed yet; then a body is what follows indented deeper.
    #[must_use]
    pub fn in_empty_block(&self) -> bool {
        let here = self.line_before(self.offset);
        let rest = self.rest_of_line();
        let Some((end, body)) = self.significant_before() else { return false };
        let same_line = lines::line_start(self.text, end) == lines::line_start(self.text, self.offset);
        if !same_line && !here.trim().is_empty() {
            return false;
        }
        let opener = match self.language.blocks {
            Blocks::Indentation => rest.trim().is_empty() && self.colon_opens(end),
            Blocks::Braces => self.brace_opens(end),
            Blocks::Keywords => {
                (body == Some('{') || rest.trim().is_empty()) && self.words_open(end, same_line)
            }
            Blocks::Tags => self.tag_opens(end),
            Blocks::None => false,
        };
        opener && self.nothing_follows(end)
    }

    /// The smallest block around the place: the bytes of its node, braces included where it has them. In
    /// broken code, from an opening brace without a partner up to the end of the broken part.
    #[must_use]
    pub fn enclosing_block(&self) -> Option<Range<usize>> {
        if self.language.blocks == Blocks::Indentation {
            return self.enclosing_indented();
        }
        let braces = |node: Node| node.child(0).is_some_and(|first| !first.is_named());
        for node in self.around(self.offset) {
            let range = node.byte_range();
            // The outer side of a brace is outside; a block without delimiters ends where its last line does.
            let inside = if braces(node) {
                range.start < self.offset && (self.offset < range.end || is_open(node))
            } else {
                range.start <= self.offset && self.offset <= range.end
            };
            if inside && is(node, self.language.kinds.blocks) {
                return Some(range);
            }
            if node.is_error()
                && self.language.blocks == Blocks::Braces
                && let Some(start) = self.unclosed_brace(node)
            {
                return Some(start..range.end);
            }
        }
        None
    }

    /// The smallest function, class or other definition around the place: the bytes of its node.
    #[must_use]
    pub fn enclosing_definition(&self) -> Option<Range<usize>> {
        let offset = match self.language.blocks {
            Blocks::Indentation => self.enclosing_indented()?.start,
            _ => self.offset,
        };
        self.around(offset)
            .find(|&node| {
                is(node, self.language.kinds.definitions)
                    && node.start_byte() < offset
                    && (offset < node.end_byte() || node.has_error())
            })
            .map(|node| node.byte_range())
    }

    /// The nodes around the byte before `offset`, from the smallest to the root.
    fn around(&self, offset: usize) -> impl Iterator<Item = Node<'a>> + use<'a> {
        let leaf = self.syntax.and_then(|syntax| {
            syntax.tree.root_node().descendant_for_byte_range(offset.saturating_sub(1), offset.max(1) - 1)
        });
        let leaf = leaf.or_else(|| self.syntax.map(|syntax| syntax.tree.root_node()));
        std::iter::successors(leaf, |node| node.parent())
    }

    /// Whether the tree has nothing certain to say here: there is none, or it is broken on this line.
    fn is_broken_here(&self) -> bool {
        self.syntax.is_none_or(|syntax| {
            let line = lines::line_start(self.text, self.offset)..lines::line_end(self.text, self.offset);
            syntax.is_stale() || faults_in(&syntax.tree, line) > 0
        })
    }

    fn inside_comment(&self, node: Node) -> bool {
        let (start, end) = (node.start_byte(), node.end_byte());
        if self.offset <= start || self.offset > end {
            return false;
        }
        // Some grammars give the line break to the comment.
        if self.offset < end {
            return true;
        }
        let text = lines::before(self.text, end, 8);
        let closed = self.language.block_comment.is_some_and(|(open, close)| {
            text.ends_with(close) && lines::after(self.text, start, open.len()) == open
        });
        !closed && !text.ends_with(['\n', '\r'])
    }

    /// What the text of the line up to the place says, for broken code. Knows no strings over several lines.
    fn line_state(&self) -> LineState {
        let line = self.line_before(self.offset);
        let comment = self.language.line_comment;
        let (mut open, mut at) = (None, 0);
        while let Some(c) = line[at..].chars().next() {
            match open {
                Some(_) if c == '\\' => at += line[at + 1..].chars().next().map_or(0, char::len_utf8),
                Some(quote) if c == quote => open = None,
                Some(_) => {}
                None if !comment.is_empty()
                    && line[at..].starts_with(comment)
                    && begins_comment(comment, &line[..at]) =>
                {
                    return LineState::Comment;
                }
                None if self.language.quotes.contains(&c) => open = Some(c),
                None => {}
            }
            at += c.len_utf8();
        }
        if open.is_some() { LineState::String } else { LineState::Code }
    }

    /// The line of `offset` up to it, or its last bytes if it is long.
    fn line_before(&self, offset: usize) -> String {
        let start = lines::line_start(self.text, offset);
        lines::slice(self.text, start.max(offset.saturating_sub(LINE))..offset)
    }

    fn rest_of_line(&self) -> String {
        let end = lines::line_end(self.text, self.offset);
        lines::slice(self.text, self.offset..end.min(self.offset + LINE))
    }

    /// The indentation of the line of `offset`, and whether there is anything else on it.
    fn indentation(&self, offset: usize) -> (usize, bool) {
        let start = lines::line_start(self.text, offset);
        let line = lines::slice(self.text, start..lines::line_end(self.text, offset).min(start + LINE));
        let blank = |c: &char| *c == ' ' || *c == '\t';
        let width = line.chars().take_while(blank).map(|c| if c == '\t' { 8 } else { 1 }).sum();
        (width, line.trim().is_empty())
    }

    /// Where the code before the place ends, with its last character: white space, comments and a docstring
    /// are passed over, within [`REACH`].
    fn significant_before(&self) -> Option<(usize, Option<char>)> {
        let mut end = self.offset;
        let least = end.saturating_sub(REACH);
        let mut docstring = self.language.blocks == Blocks::Indentation;
        loop {
            let text = lines::before(self.text, end, REACH);
            end -= text.len() - text.trim_end().len();
            if end <= least && least > 0 || end == 0 {
                return None;
            }
            let mut next = self.around(end).find_map(|node| {
                let comment = is(node, self.language.kinds.comments);
                (comment && node.end_byte() >= end).then(|| node.start_byte())
            });
            if next.is_none() && docstring {
                next = self.around(end).find_map(|node| {
                    let string = is(node, self.language.kinds.strings) && node.end_byte() == end;
                    (string && self.line_before(node.start_byte()).trim().is_empty())
                        .then(|| node.start_byte())
                });
                docstring = next.is_none();
            }
            if next.is_none() && self.syntax.is_none() && !self.language.line_comment.is_empty() {
                let line = self.line_before(end);
                let is_comment = line.trim_start().starts_with(self.language.line_comment);
                next = is_comment.then(|| end - line.trim_start().len());
            }
            match next {
                Some(start) if start < end => end = start,
                _ => return Some((end, lines::char_before(self.text, end))),
            }
        }
    }

    /// Nothing deeper follows the opening that ends at `end`: the block has no body behind the place.
    fn nothing_follows(&self, end: usize) -> bool {
        let rest = self.rest_of_line();
        let closes = |text: &str| {
            let text = text.trim_start();
            match self.language.blocks {
                Blocks::Braces => text.starts_with('}'),
                Blocks::Tags => text.starts_with("</"),
                Blocks::Keywords => {
                    text.starts_with('}')
                        || [
                            "end", "fi", "done", "esac", "else", "elsif", "elseif", "elif", "when", "rescue",
                            "ensure", "until", "in", "after",
                        ]
                        .iter()
                        .any(|word| starts_with_word(text, word))
                }
                Blocks::Indentation | Blocks::None => false,
            }
        };
        if !rest.trim().is_empty() {
            // `{ } else {`, `<p></p>`: only what closes the block, or only closers of what is around it.
            return closes(&rest) || rest.trim().chars().all(|c| ")]};,".contains(c));
        }
        let (depth, _) = self.indentation(end);
        let mut at = lines::next_line(self.text, self.offset);
        let most = self.text.len_bytes().min(self.offset + REACH);
        while at < most {
            let (width, blank) = self.indentation(at);
            if !blank {
                let line = lines::after(self.text, at, LINE);
                return closes(&line) || width <= depth;
            }
            let next = lines::next_line(self.text, at);
            if next <= at {
                break;
            }
            at = next;
        }
        true
    }

    /// The smallest node whose last byte is the one before `end`, if it is a token of its own.
    fn token_before(&self, end: usize) -> Option<Node<'a>> {
        let node = self.around(end).next()?;
        (node.end_byte() == end && node.child_count() == 0).then_some(node)
    }

    /// Whether the byte before `end` is in a string or comment.
    fn is_quoted(&self, end: usize) -> bool {
        let place = Self { offset: end, ..*self };
        place.in_string() || place.in_comment()
    }

    fn colon_opens(&self, end: usize) -> bool {
        if lines::char_before(self.text, end) != Some(':') || self.is_quoted(end) {
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

    fn brace_opens(&self, end: usize) -> bool {
        if lines::char_before(self.text, end) != Some('{') || self.is_quoted(end) {
            return false;
        }
        let kinds = &self.language.kinds;
        if self.language.grammar.is_some() && kinds.blocks.is_empty() {
            return false;
        }
        let fresh = self.syntax.is_some_and(|syntax| !syntax.is_stale());
        if let Some(parent) = self.token_before(end).and_then(|brace| brace.parent()).filter(|_| fresh) {
            if is(parent, kinds.blocks)
                || is(
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
        let value = before.ends_with(['=', '(', '[', ',', ':', '?', '&', '|', '$', '#', '+'])
            || ["return", "yield", "import", "export", "default"]
                .iter()
                .any(|word| ends_with_word(before, word));
        !value
    }

    fn words_open(&self, end: usize, same_line: bool) -> bool {
        if self.is_quoted(end) {
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
        // On the line itself the head may still be in the making: `def na▮`. One with an argument list is done.
        let whole = !same_line || line.ends_with(')');
        let closed = ends_with_word(line, "end") || line.contains(") = ") || line.contains(" = ");
        first && whole && !closed
    }

    fn tag_opens(&self, end: usize) -> bool {
        if lines::char_before(self.text, end) != Some('>') {
            return false;
        }
        let text = lines::before(self.text, end, LINE);
        let Some(tag) = text.rfind('<').map(|at| &text[at + 1..]) else { return false };
        let name = tag.split(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap_or_default();
        !name.is_empty() && !tag.ends_with("/>") && !VOID.iter().any(|void| void.eq_ignore_ascii_case(name))
    }

    /// Indented blocks: the one that a line at this depth belongs to.
    fn enclosing_indented(&self) -> Option<Range<usize>> {
        let line = self.line_before(self.offset);
        let blank = line.trim().is_empty();
        // On a blank line, the cursor's column decides to which of the blocks above it belongs.
        let (anchor, column) = if blank {
            let width = line.chars().map(|c| if c == '\t' { 8 } else { 1 }).sum();
            (self.significant_before()?.0, width)
        } else {
            (self.offset, usize::MAX)
        };
        self.around(anchor)
            .filter(|&node| is(node, self.language.kinds.blocks) && node.start_byte() <= anchor)
            .find(|node| self.indentation(node.start_byte()).0 <= column)
            .map(|node| node.byte_range())
    }

    /// The last `{` among the children of a broken node before the place that no `}` closes.
    fn unclosed_brace(&self, node: Node) -> Option<usize> {
        let mut cursor = node.walk();
        let mut open = Vec::new();
        for child in node.children(&mut cursor) {
            if child.start_byte() >= self.offset {
                break;
            }
            match child.kind() {
                "{" => open.push(child.start_byte()),
                "}" => drop(open.pop()),
                _ => {}
            }
        }
        open.pop()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineState {
    Code,
    String,
    Comment,
}

fn is(node: Node, kinds: &[&str]) -> bool {
    node.is_named() && kinds.contains(&node.kind())
}

/// Whether tree-sitter had to invent the end of a node.
fn is_open(node: Node) -> bool {
    let last = node.child_count().checked_sub(1).and_then(|last| node.child(last));
    last.is_some_and(|last| last.is_missing())
}

/// A shell's `#` begins a comment at the start of a word only.
fn begins_comment(comment: &str, before: &str) -> bool {
    comment != "#" || before.is_empty() || before.ends_with(char::is_whitespace)
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

fn ends_with_word(text: &str, word: &str) -> bool {
    let wordlike = word.starts_with(char::is_alphabetic);
    text.strip_suffix(word).is_some_and(|head| {
        !wordlike || !head.ends_with(|c: char| c.is_alphanumeric() || "_.@$:".contains(c))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]

    use super::*;

    struct Fixture {
        text: Rope,
        language: &'static Language,
        syntax: Option<Syntax>,
        offset: usize,
    }

    /// A text with its cursor at `▮`.
    fn fixture(name: &str, marked: &str) -> Fixture {
        let offset = marked.find('▮').unwrap();
        let text = Rope::from_str(&marked.replace('▮', ""));
        let language = taper_grammars::by_id(name).unwrap();
        let syntax = Syntax::parse(&text, language, &mut || false);
        Fixture { text, language, syntax, offset }
    }

    impl Fixture {
        fn place(&self) -> Place<'_> {
            Place::new(&self.text, self.language, self.syntax.as_ref(), self.offset)
        }
        fn without_tree(&self) -> Place<'_> {
            Place { syntax: None, ..self.place() }
        }
        fn cut(&self, range: Option<Range<usize>>) -> Option<String> {
            range.map(|range| lines::slice(&self.text, range))
        }
    }

    fn check(question: impl Fn(&Place) -> bool, cases: &[(&str, bool, &str)]) {
        let wrong =
            cases.iter().filter(|(name, yes, marked)| question(&fixture(name, marked).place()) != *yes);
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn strings_are_known_whole_and_while_typed() {
        check(
            |place| place.in_string(),
            &[
                ("python", true, "x = \"a▮b\"\n"),
                ("python", true, "x = \"▮\"\n"),
                ("python", false, "x = \"\"▮\n"),
                ("python", false, "x = ▮\"\"\n"),
                ("python", true, "x = \"abc▮\ny = 1\n"),
                ("python", true, "print('abc▮"),
                ("python", true, "\"\"\"Doc.\n\nmore▮\n\"\"\"\n"),
                ("python", false, "x = f\"{y▮}\"\n"),
                ("python", true, "x = f\"{y} ▮\"\n"),
                ("python", false, "x = 1  # don't▮\n"),
                ("rust", true, "fn f() { g(\"a▮\"); }\n"),
                ("rust", true, "fn f() { g(r#\"a\"▮\"#); }\n"),
                ("rust", false, "fn f<'a>(x: &'a ▮str) {}\n"),
                ("rust", true, "fn f() {\n    let x = \"abc▮\n}\n"),
                ("javascript", true, "f('a▮');\n"),
                ("javascript", false, "f(`a${b▮}`);\n"),
                ("javascript", true, "f(`a${b}▮`);\n"),
                ("javascript", true, "f('a▮\ng();\n"),
                ("typescript", true, "import a from \"▮\";\n"),
                ("go", true, "package a\nvar x = `a\n▮`\n"),
                ("go", true, "package a\nfunc f() {\n\tg(\"a▮\n}\n"),
                ("java", true, "class A { String s = \"▮\"; }\n"),
                ("java", false, "class A { String s = \"\" + ▮; }\n"),
                ("c", true, "int main() { puts(\"a▮\"); }\n"),
                ("c", true, "#include \"a▮\"\n"),
                ("c", false, "int main() { puts(\"a\"▮); }\n"),
                ("ruby", true, "puts \"a▮\"\n"),
                ("ruby", false, "puts \"#{a▮}\"\n"),
                ("html", true, "<a href=\"▮\"></a>\n"),
                ("html", false, "<p>a \" ▮</p>\n"),
                ("kotlin", true, "val x = \"a▮\"\n"),
                ("kotlin", false, "val x = \"a\\\"\" + ▮\n"),
            ],
        );
    }

    #[test]
    fn comments_are_known_whole_and_while_typed() {
        check(
            |place| place.in_comment(),
            &[
                ("python", true, "x = 1  # why▮\n"),
                ("python", true, "# ▮"),
                ("python", false, "# a\n▮"),
                ("python", false, "x = '#▮'\n"),
                ("rust", true, "// ▮\n"),
                ("rust", true, "/// Doc▮\nfn f() {}\n"),
                ("rust", false, "/// Doc\n▮fn f() {}\n"),
                ("rust", true, "/* a ▮ */\n"),
                ("rust", false, "/* a */▮\n"),
                ("javascript", true, "f(); // a▮\n"),
                ("javascript", false, "f('http://▮');\n"),
                ("typescriptreact", true, "const a = <p>{/* ▮ */}</p>;\n"),
                ("go", true, "package a\n\n// F ▮\nfunc F() {}\n"),
                ("java", true, "/** a▮ */\nclass A {}\n"),
                ("c", true, "int x; // a▮\n"),
                ("ruby", true, "x = 1 # a▮\n"),
                ("html", true, "<!-- ▮ -->\n"),
                ("html", false, "<!-- --> ▮\n"),
                ("lua", true, "x = 1 -- a▮\n"),
                ("sql", true, "select 1 -- a▮\n"),
            ],
        );
    }

    #[test]
    fn an_empty_block_asks_for_a_body() {
        let cases = [
            ("python", true, "def f(x):▮\n"),
            ("python", true, "def f(x):\n    ▮\n"),
            ("python", true, "def f(x):\n    ▮\n\ndef g():\n    pass\n"),
            ("python", true, "class A:\n    def f(self):\n        ▮\n\n    def g(self):\n        pass\n"),
            ("python", true, "def f(x):\n    \"\"\"Doc.\"\"\"\n    ▮\n"),
            ("python", true, "def f(x):\n    # why\n    ▮\n"),
            ("python", true, "def f(\n    x: int,\n) -> int:\n    ▮\n"),
            ("python", true, "if x:\n    a()\nelse:\n    ▮\n"),
            ("python", true, "for x in y:▮"),
            ("python", true, "def f():\r\n    ▮\r\n"),
            ("python", false, "def f(x):\n    ▮\n    return 1\n"),
            ("python", false, "def f(x):\n    a()\n    ▮\n"),
            ("python", false, "x = {1:▮}\n"),
            ("python", false, "x = y[1:▮]\n"),
            ("python", false, "def f(x▮):\n    pass\n"),
            ("python", false, "x: ▮\n"),
            ("python", false, "f = lambda x:▮\n"),
            ("python", false, "print('if x:▮')\n"),
            ("rust", true, "fn f() {▮}\n"),
            ("rust", true, "fn f() {\n    ▮\n}\n"),
            ("rust", true, "fn f() {▮\n"),
            ("rust", true, "fn f() {\n    if x {\n        ▮\n\nfn g() {}\n"),
            ("rust", true, "impl A {\n    fn f(&self) -> u8 {\n        ▮\n    }\n\n    fn g() {}\n}\n"),
            ("rust", true, "fn f() { match x {▮} }\n"),
            ("rust", true, "struct A {\n    ▮\n}\n"),
            ("rust", true, "fn f() {\n    // why\n    ▮\n}\n"),
            ("rust", false, "fn f() {\n    ▮\n    g();\n}\n"),
            ("rust", false, "fn f() {\n    g();\n    ▮\n}\n"),
            ("rust", false, "fn f() { let a = A {▮}; }\n"),
            ("rust", false, "use a::{▮};\n"),
            ("rust", false, "fn f() { println!(\"{▮}\"); }\n"),
            ("javascript", true, "function f(a) {\n  ▮\n}\n"),
            ("javascript", true, "const f = (a) => {▮};\n"),
            ("javascript", true, "a.map((b) => {▮})\n"),
            ("javascript", true, "if (a) {\n  ▮"),
            ("javascript", true, "try {\n  a();\n} catch (e) {\n  ▮\n}\n"),
            ("javascript", false, "const a = {▮};\n"),
            ("javascript", false, "f({▮});\n"),
            ("javascript", false, "import {▮} from 'a';\n"),
            ("javascript", false, "f(`${▮}`);\n"),
            ("typescript", true, "interface A {\n  ▮\n}\n"),
            ("typescript", true, "class A {\n  f(): void {\n    ▮\n  }\n}\n"),
            ("typescript", true, "export function f(a: string): number {▮\n"),
            ("typescript", false, "const a: A = {▮}\n"),
            ("go", true, "package a\n\nfunc f() {\n\t▮\n}\n"),
            ("go", true, "package a\n\nfunc f() {\n\tif err != nil {▮\n}\n"),
            ("go", true, "package a\n\nfunc f() {\n\tfor _, x := range y {\n\t\t▮\n\t}\n}\n"),
            ("go", true, "package a\n\ntype A struct {\n\t▮\n}\n"),
            ("go", false, "package a\n\nvar x = []int{▮}\n"),
            ("java", true, "class A {\n    void f() {\n        ▮\n    }\n}\n"),
            ("java", true, "class A {\n    void f() {\n        for (int i = 0; i < 3; i++) {▮\n    }\n}\n"),
            ("java", true, "class A {▮}\n"),
            ("java", false, "class A { int[] a = {▮}; }\n"),
            ("java", false, "class A {\n    int x;\n    ▮\n}\n"),
            ("c", true, "int main(void)\n{\n    ▮\n}\n"),
            ("c", true, "int main(void) {\n    while (1) {\n        ▮\n"),
            ("c", true, "struct a {\n    ▮\n};\n"),
            ("c", false, "int a[] = {▮};\n"),
            ("cpp", true, "namespace a {\nclass B {\npublic:\n  void f() {▮}\n};\n}\n"),
            ("csharp", true, "class A\n{\n    void F()\n    {\n        ▮\n    }\n}\n"),
            ("php", true, "<?php\nfunction f($a) {\n    ▮\n}\n"),
            ("ruby", true, "def f(x)\n  ▮\nend\n"),
            ("ruby", true, "def f(x)▮\nend\n"),
            ("ruby", true, "class A\n  def f\n    ▮\n  end\nend\n"),
            ("ruby", true, "x.each do |y|\n  ▮\nend\n"),
            ("ruby", true, "x.each do |y|▮\n"),
            ("ruby", true, "if x\n  a\nelse\n  ▮\nend\n"),
            ("ruby", false, "def f▮\n"),
            ("ruby", false, "def f = 1\n▮\n"),
            ("ruby", false, "def f\n  a\n  ▮\nend\n"),
            ("ruby", false, "def f\n  ▮\n  a\nend\n"),
            ("ruby", false, "return x if y\n▮\n"),
            ("lua", true, "local function f(x)\n  ▮\nend\n"),
            ("lua", true, "for i = 1, 3 do\n  ▮\nend\n"),
            ("lua", true, "if x then▮\n"),
            ("shellscript", true, "if [ -n \"$x\" ]; then\n  ▮\nfi\n"),
            ("shellscript", true, "f() {\n  ▮\n}\n"),
            ("shellscript", true, "for x in a b; do▮\n"),
            ("shellscript", false, "echo a; ▮\n"),
            ("html", true, "<ul>▮</ul>\n"),
            ("html", true, "<ul>\n  ▮\n</ul>\n"),
            ("html", false, "<ul>\n  <li>a</li>\n  ▮\n</ul>\n"),
            ("html", false, "<ul>\n  ▮\n  <li>a</li>\n</ul>\n"),
            ("html", false, "<p><br>▮</p>\n"),
            ("css", true, "a {▮}\n"),
            ("css", true, "a {\n  ▮\n}\n"),
            ("css", false, "a {\n  b: c;\n  ▮\n}\n"),
            ("json", false, "{▮}\n"),
            ("toml", false, "a = {▮}\n"),
            ("kotlin", true, "fun f(): Int {\n    ▮\n}\n"),
            ("kotlin", false, "fun f(): Int {\n    return 1▮\n}\n"),
        ];
        check(|place| place.in_empty_block(), &cases);
        // Without a tree the text alone mostly knows as well.
        let missed = cases.iter().filter(|(name, expected, marked)| {
            fixture(name, marked).without_tree().in_empty_block() != *expected
        });
        let missed: Vec<_> = missed.map(|(name, _, marked)| (name, marked)).collect();
        assert!(missed.len() <= 6, "{missed:#?}");
    }

    #[test]
    fn the_block_around_a_place_is_found() {
        for (name, marked, expected) in [
            ("python", "def f():\n    a\n    b▮\n", Some("a\n    b")),
            ("python", "def f():\n    a\n    ▮\n", Some("a")),
            ("python", "def f():\n    if x:\n        a\n    ▮\n", Some("if x:\n        a")),
            ("python", "def f():\n    a\n▮\n", None),
            ("python", "a▮\n", None),
            ("rust", "fn f() { if x { a▮ } }\n", Some("{ a }")),
            ("rust", "fn f() { if x { a }▮ }\n", Some("{ if x { a } }")),
            ("rust", "fn f() {}▮\n", None),
            ("rust", "impl A { ▮ }\n", Some("{  }")),
            ("javascript", "function f() { a.b(() => { c▮; }); }\n", Some("{ c; }")),
            ("javascript", "const a = { b: ▮1 };\n", None),
            ("typescript", "interface A { b▮: c }\n", Some("{ b: c }")),
            ("go", "package a\nfunc f() { b▮ }\n", Some("{ b }")),
            ("java", "class A { void f() { b();▮ } }\n", Some("{ b(); }")),
            ("c", "int f(void) { b();▮ }\n", Some("{ b(); }")),
            ("ruby", "def f\n  a▮\nend\n", Some("a")),
            ("html", "<p>a▮</p>\n", Some("<p>a</p>")),
        ] {
            let fixture = fixture(name, marked);
            let found = fixture.cut(fixture.place().enclosing_block());
            assert_eq!(found.as_deref(), expected, "{name}: {marked}");
        }
        let broken = fixture("rust", "fn f() {\n    let a = (b▮\n");
        assert_eq!(broken.place().enclosing_block().map(|range| range.start), Some(7));
    }

    #[test]
    fn the_definition_around_a_place_is_found() {
        for (name, marked, expected) in [
            ("python", "class A:\n    def f(self):\n        a▮\n", Some("def f(self):\n        a")),
            (
                "python",
                "class A:\n    def f(self):\n        a\n    ▮\n",
                Some("class A:\n    def f(self):\n        a"),
            ),
            ("rust", "impl A { fn f() { a▮ } }\n", Some("fn f() { a }")),
            ("rust", "impl A { fn f() { a } ▮}\n", Some("impl A { fn f() { a } }")),
            ("javascript", "function f() { a▮ }\n", Some("function f() { a }")),
            ("typescript", "class A { f() {▮} }\n", Some("f() {}")),
            ("go", "package a\nfunc f() { a▮ }\n", Some("func f() { a }")),
            ("java", "class A { int a▮; }\n", Some("class A { int a; }")),
            ("c", "int f(void) { a▮; }\n", Some("int f(void) { a; }")),
            ("ruby", "class A\n  def f\n    a▮\n  end\nend\n", Some("def f\n    a\n  end")),
            ("c", "int a▮;\n", None),
        ] {
            let fixture = fixture(name, marked);
            let found = fixture.cut(fixture.place().enclosing_definition());
            assert_eq!(found.as_deref(), expected, "{name}: {marked}");
        }
    }

    #[test]
    fn faults_are_counted_where_they_are() {
        let of = |text: &str| fixture("rust", &format!("▮{text}")).syntax.unwrap().tree;
        assert_eq!(faults(&of("fn f() { a(); }\n")), 0);
        assert_eq!(faults(&of("fn f() { a() b }\n")), 1);
        assert!(faults(&of("fn f() { a( }\n")) >= 1);
        let tree = of("fn f() { a() b; }\nfn g() {}\nfn h() { c() d; }\n");
        assert_eq!(faults(&tree), 2);
        assert_eq!(faults_in(&tree, 0..18), 1);
        assert_eq!(faults_in(&tree, 18..28), 0);
        assert_eq!(faults_in(&tree, 28..1_000), 1);
        // A token that is missing counts as well.
        let tree = of("fn f() { let a = 1 }\n");
        assert!(faults(&tree) >= 1, "{}", tree.root_node().to_sexp());
    }

    /// No place of any text may panic, whatever the tree.
    #[test]
    fn every_place_can_be_asked() {
        let pieces = [
            "def f():\n",
            "fn f() {",
            "}",
            "\"",
            "'",
            "`${",
            "{",
            "do |x|",
            "|",
            "<p>",
            "</p>",
            "<",
            "#",
            "//",
            "/*",
            "*/",
            ":",
            "\n",
            "\r\n",
            "\r",
            "  ",
            "\t",
            "é",
            "😀",
            "\\",
            "function(",
            ")",
            "end\n",
            "class A",
            "x = ",
        ];
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let plain: String =
                (0..random.usize(..25)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            let text = Rope::from_str(&plain);
            for name in [
                "python",
                "rust",
                "typescriptreact",
                "go",
                "c",
                "ruby",
                "lua",
                "shellscript",
                "html",
                "css",
                "vue",
            ] {
                let language = taper_grammars::by_id(name).unwrap();
                let syntax = Syntax::parse(&text, language, &mut || false);
                for offset in 0..=plain.len() + 1 {
                    for syntax in [syntax.as_ref(), None] {
                        let place = Place::new(&text, language, syntax, offset);
                        let len = plain.len();
                        let _ = (place.in_string(), place.in_comment(), place.in_empty_block());
                        for range in
                            [place.enclosing_block(), place.enclosing_definition()].into_iter().flatten()
                        {
                            assert!(
                                range.start <= range.end && range.end <= len,
                                "seed {seed} {name} {offset}"
                            );
                        }
                    }
                }
            }
        }
    }
}
