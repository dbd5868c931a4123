//! Incremental parsing from rope chunks, within a budget of time.
//! It knows nothing of what the tree is asked, and reads no clock: the caller says when time is up.
//!
//! Questions to the tree are asked in bytes only. Its edits carry rows and columns all the same: tree-sitter
//! prices an error by the rows that it spans, and some scanners (the shell's) ask for their column, so that
//! edits with empty points lead to other trees than a fresh parse, or to worse ones, while code is broken.

use std::cell::RefCell;
use std::ops::ControlFlow;

use taper_grammars::Language;
use tree_sitter::{InputEdit, ParseOptions, ParseState, Parser, Point, Tree};

use crate::text::{Edit, Rope, lines};

thread_local! {
    /// One parser a thread: it keeps its buffers from parse to parse. Nothing else is remembered in it; the
    /// language is set, and an abandoned parse forgotten, on every call.
    static PARSER: RefCell<Parser> = RefCell::new(Parser::new());
}

/// The tree of one document. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Syntax {
    /// The language the tree is in.
    pub language: &'static Language,
    /// The tree; ask it in bytes.
    pub tree: Tree,
    stale: bool,
}

impl Syntax {
    /// Parses a text from its chunks, without copying it. `time_is_up` is called every few microseconds.
    ///
    /// `None` if the language has no grammar or time was up before the end: the document works without a
    /// tree, and may be parsed again later.
    #[must_use]
    pub fn parse(
        text: &Rope,
        language: &'static Language,
        time_is_up: &mut dyn FnMut() -> bool,
    ) -> Option<Self> {
        let tree = parse(text, language, None, time_is_up)?;
        Some(Self { language, tree, stale: false })
    }

    /// Tells the tree of an edit, so that its bytes fit the text after it. `before` is the text before the
    /// edit: call this just before [`Edit::apply`]. An edit that does not fit `before`, which `apply` will
    /// refuse, changes nothing.
    ///
    /// The tree is stale until [`Syntax::reparse`] succeeds. Several edits may be told before one reparse.
    pub fn edited(&mut self, before: &Rope, edit: &Edit) {
        // Trees count in 32 bits.
        let narrow = |n: usize| u32::try_from(n).is_ok();
        if edit.check(before).is_err() || !narrow(edit.new_end()) || !narrow(before.len_bytes()) {
            return;
        }
        let start = point(before, edit.range.start);
        let breaks = edit.text.bytes().filter(|&byte| byte == b'\n').count();
        let column = match edit.text.rfind('\n') {
            Some(at) => edit.text.len() - at - 1,
            None => start.column + edit.text.len(),
        };
        self.tree.edit(&InputEdit {
            start_byte: edit.range.start,
            old_end_byte: edit.range.end,
            new_end_byte: edit.new_end(),
            start_position: start,
            old_end_position: point(before, edit.range.end),
            new_end_position: Point { row: start.row + breaks, column },
        });
        self.stale = true;
    }

    /// Brings the tree up to `text`, the text after all edits told, by parsing what they touched.
    ///
    /// False if time was up first: the old tree stays, moved by the edits but [stale](Self::is_stale), and
    /// the next call parses from there.
    pub fn reparse(&mut self, text: &Rope, time_is_up: &mut dyn FnMut() -> bool) -> bool {
        if !self.stale {
            return true;
        }
        match parse(text, self.language, Some(&self.tree), time_is_up) {
            Some(tree) => {
                self.tree = tree;
                self.stale = false;
                true
            }
            None => false,
        }
    }

    /// What the tree would be after one more edit; the tree itself stays. `None` if time was up.
    #[must_use]
    pub fn with_edit(
        &self,
        before: &Rope,
        edit: &Edit,
        after: &Rope,
        time_is_up: &mut dyn FnMut() -> bool,
    ) -> Option<Self> {
        let mut next = self.clone();
        next.edited(before, edit);
        next.reparse(after, time_is_up).then_some(next)
    }

    /// Whether edits were told that no parse has seen yet: places fit the text, kinds of nodes may not.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }
}

/// Row and byte column as tree-sitter counts them. It counts rows at `\n` only, the rope at a lone `\r` too:
/// in a file with those the rows are too high, which at worst chooses another recovery in broken code.
fn point(text: &Rope, offset: usize) -> Point {
    Point { row: text.byte_to_line(offset), column: offset - lines::line_start(text, offset) }
}

fn parse(
    text: &Rope,
    language: &'static Language,
    old: Option<&Tree>,
    time_is_up: &mut dyn FnMut() -> bool,
) -> Option<Tree> {
    let grammar = language.grammar?();
    if u32::try_from(text.len_bytes()).is_err() || time_is_up() {
        return None;
    }
    PARSER.with(|parser| {
        // In use only if `time_is_up` parses, which then gets no tree.
        let mut parser = parser.try_borrow_mut().ok()?;
        parser.set_language(&grammar).ok()?;
        let mut read = |offset: usize, _: Point| -> &[u8] {
            match text.get_chunk_at_byte(offset) {
                Some((chunk, start, _, _)) => chunk.as_bytes().get(offset - start..).unwrap_or_default(),
                None => &[],
            }
        };
        let mut progress = |_: &ParseState| match time_is_up() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let options = ParseOptions::new().progress_callback(&mut progress);
        let tree = parser.parse_with_options(&mut read, old, Some(options));
        // Else the next parse would go on with this text.
        parser.reset();
        tree
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]

    use tree_sitter::{Node, TreeCursor};

    use super::*;

    /// Real enough code of each language; edits break it and put it right again.
    const SOURCES: &[(&str, &str)] = &[
        ("python", include_str!("../../tests/fixtures/syntax/sample.py")),
        ("rust", include_str!("../../tests/fixtures/syntax/sample.rs")),
        ("javascript", include_str!("../../tests/fixtures/syntax/sample.js")),
        ("typescriptreact", include_str!("../../tests/fixtures/syntax/sample.tsx")),
        ("go", include_str!("../../tests/fixtures/syntax/sample.go")),
        ("java", include_str!("../../tests/fixtures/syntax/sample.java")),
        ("c", include_str!("../../tests/fixtures/syntax/sample.c")),
        ("ruby", include_str!("../../tests/fixtures/syntax/sample.rb")),
        ("shellscript", include_str!("../../tests/fixtures/syntax/sample.sh")),
        ("html", include_str!("../../tests/fixtures/syntax/sample.html")),
        ("json", include_str!("../../tests/fixtures/syntax/sample.json")),
    ];

    /// What is typed: bits of syntax, breaks, wide characters.
    const PIECES: &[&str] = &[
        "a",
        "x1",
        " ",
        "    ",
        "\t",
        "\n",
        "\n    ",
        "\r\n",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "`",
        ":",
        ";",
        ",",
        ".",
        "=",
        "<",
        ">",
        "</",
        "//",
        "/*",
        "*/",
        "#",
        "é",
        "😀",
        "e\u{301}",
        "0",
        "if ",
        "return ",
        "end\n",
        "def f():\n",
        "fn f() {",
        "<<EOF\n",
        "EOF\n",
        "${",
        "\\",
    ];

    fn language(name: &str) -> &'static Language {
        taper_grammars::by_id(name).unwrap()
    }

    fn fresh(text: &Rope, name: &str) -> Syntax {
        Syntax::parse(text, language(name), &mut || false).unwrap()
    }

    fn same_node(a: Node, b: Node) -> bool {
        a.kind_id() == b.kind_id()
            && a.byte_range() == b.byte_range()
            && a.is_missing() == b.is_missing()
            && a.is_extra() == b.is_extra()
            && a.child_count() == b.child_count()
    }

    /// Whether two trees have the same nodes at the same bytes.
    fn same(a: &Tree, b: &Tree) -> bool {
        fn below(a: &mut TreeCursor, b: &mut TreeCursor) -> bool {
            if !same_node(a.node(), b.node()) || a.field_id() != b.field_id() {
                return false;
            }
            if a.goto_first_child() {
                b.goto_first_child();
                loop {
                    if !below(a, b) {
                        return false;
                    }
                    if !a.goto_next_sibling() {
                        break;
                    }
                    b.goto_next_sibling();
                }
                a.goto_parent();
                b.goto_parent();
            }
            true
        }
        below(&mut a.walk(), &mut b.walk())
    }

    fn random_edit(random: &mut fastrand::Rng, text: &Rope, most: usize) -> Edit {
        let len = text.len_bytes();
        let start = lines::floor(text, random.usize(..=len));
        let end = match random.u8(..4) {
            0 => lines::floor(text, start + random.usize(..12)),
            _ => start,
        };
        let pieces = if len > most { 0 } else { random.usize(..3) };
        Edit {
            range: start..end.max(start),
            text: (0..pieces).map(|_| PIECES[random.usize(..PIECES.len())]).collect(),
        }
    }

    /// Edits a text at random, then takes every edit back. After each step the incremental tree is compared
    /// with a fresh one. Returns steps, and how many trees of broken code differed.
    fn edit_and_compare(name: &str, source: &str, seed: u64, edits: usize) -> (usize, usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = Rope::from_str(source);
        let mut syntax = fresh(&text, name);
        let (mut steps, mut differ, mut undo) = (0, 0, Vec::new());
        let mut step = |text: &mut Rope, edit: &Edit| {
            syntax.edited(text, edit);
            edit.apply(text).unwrap();
            assert!(syntax.reparse(text, &mut || false));
            let fresh = fresh(text, name);
            steps += 1;
            if !same(&syntax.tree, &fresh.tree) {
                // tree-sitter's recovery depends on what it could reuse, so trees of broken code may
                // differ. Those of sound code never do.
                let at = format!("{name}, seed {seed}, step {steps}");
                assert!(fresh.tree.root_node().has_error(), "{at}: the fresh tree is sound\n{text}");
                assert!(syntax.tree.root_node().has_error(), "{at}: the old tree is sound\n{text}");
                differ += 1;
            }
            assert_eq!(syntax.tree.root_node().end_byte(), fresh.tree.root_node().end_byte());
        };
        for _ in 0..edits {
            let edit = random_edit(&mut random, &text, source.len() + 400);
            let gone = lines::slice(&text, edit.range.clone());
            undo.push(Edit { range: edit.range.start..edit.new_end(), text: gone });
            step(&mut text, &edit);
        }
        while let Some(edit) = undo.pop() {
            step(&mut text, &edit);
        }
        assert_eq!(text, source);
        assert!(same(&syntax.tree, &fresh(&text, name).tree), "{name}, seed {seed}: undone, yet different");
        (steps, differ)
    }

    #[test]
    fn random_edits_agree_with_a_fresh_parse() {
        for (name, source) in SOURCES {
            let start = std::time::Instant::now();
            let (mut steps, mut differ) = (0, 0);
            for seed in 0..20 {
                for _ in 0..1 {
                    let (n, d) = edit_and_compare(name, source, seed, 40);
                    (steps, differ) = (steps + n, differ + d);
                }
            }
            eprintln!("{name}: {differ} of {steps} trees differ, all of broken code; {:?}", start.elapsed());
        }
    }
}
