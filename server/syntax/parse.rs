//! Incremental parsing from rope chunks, within a time budget. It reads no clock: the caller decides when time is up.
//!
//! Everything is in bytes. The points that tree-sitter takes with an edit are zero: it does not reuse nodes that an
//! edit changed, so the points reach no later tree. Random edits in shell, Python, C and Java confirm this: true points
//! gave a tree other than a fresh parse exactly as often as zeros did.
//!
//! A reparse costs far less than a parse, but still in proportion to the number of siblings of the edited node, at
//! every level up to the top of the file. tree-sitter keeps a list as a binary tree of hidden nodes. The grammar is
//! ambiguous there (the list may continue in two ways), so these nodes are marked as fragile and never reused: every
//! sibling is shifted again, and the hidden nodes are made and freed again. Hence only a region of a long text is
//! parsed; and hence the budget.

use std::cell::RefCell;
use std::ops::{ControlFlow, Range};

use taper_grammars::Language;
use tree_sitter::{InputEdit, ParseOptions, ParseState, Parser, Point, Tree};

use super::region::{ParsedRegion, RegionSize};
use crate::text::{Edit, Rope};

thread_local! {
    /// One parser per thread: it keeps its buffers from parse to parse. It holds no other state; every call sets the
    /// language and drops an abandoned parse.
    static PARSER: RefCell<Parser> = RefCell::new(Parser::new());
}

/// The tree of a document, or of a region of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Syntax {
    /// The language the tree is in.
    pub language: &'static Language,
    /// The tree; its offsets are bytes of the whole document.
    pub tree: Tree,
    stale: bool,
    /// The region that the tree covers; `None`: everything.
    region: Option<ParsedRegion>,
    /// Whether no reparse can fix the tree: an edit crossed the border of its region.
    is_region_broken: bool,
    effort: usize,
}

impl Syntax {
    /// Parses a text from its chunks, without copying it. `time_is_up` is polled every few microseconds.
    ///
    /// `None` if the language has no grammar or time was up before the end. The document then works without a tree, and
    /// may be parsed again later.
    #[must_use]
    pub fn parse(
        text: &Rope,
        language: &'static Language,
        time_is_up: &mut dyn FnMut() -> bool,
    ) -> Option<Self> {
        let (tree, effort) = parse_ranges(text, language, &[], None, time_is_up)?;
        Some(Self { language, tree, stale: false, region: None, is_region_broken: false, effort })
    }

    /// Parses the region of a text around a position, of size `reach`, or all of a short text. The tree's offsets are
    /// those of the whole text.
    ///
    /// Also `None` if the position is on a line longer than `reach`, as in minified files.
    #[must_use]
    pub fn parse_around(
        text: &Rope,
        language: &'static Language,
        offset: usize,
        reach: RegionSize,
        time_is_up: &mut dyn FnMut() -> bool,
    ) -> Option<Self> {
        if text.len_bytes() <= reach.whole_limit {
            return Self::parse(text, language, time_is_up);
        }
        language.grammar?;
        let part = ParsedRegion::around_offset(text, language, offset, reach)?;
        let range = |range: &Range<usize>| {
            let point = |byte| Point::new(text.byte_to_line(byte), 0);
            tree_sitter::Range {
                start_byte: range.start,
                end_byte: range.end,
                start_point: point(range.start),
                end_point: point(range.end),
            }
        };
        let ranges: Vec<_> = part.ranges.iter().map(range).collect();
        let (tree, effort) = parse_ranges(text, language, &ranges, None, time_is_up)?;
        Some(Self { language, tree, stale: false, region: Some(part), is_region_broken: false, effort })
    }

    /// Whether the tree can be brought up to date for a position in `text`: it covers the position and enough around
    /// it, and is not far larger than `reach`.
    #[must_use]
    pub fn covers(&self, text: &Rope, offset: usize, reach: RegionSize) -> bool {
        let fits = match &self.region {
            Some(part) => part.covers(offset),
            // A text that grows beyond the limit line by line is not reduced to a region at once.
            None => text.len_bytes() <= reach.whole_limit + reach.whole_limit / 4,
        };
        fits && !self.is_region_broken
    }

    /// The cost of the last parse, in hundreds of the parser's steps, each well below a microsecond.
    #[must_use]
    pub fn parse_effort(&self) -> usize {
        self.effort
    }

    /// Applies an edit of the text to the tree, so that its bytes fit the text again.
    ///
    /// The tree is stale until [`Syntax::reparse`] succeeds. Several edits may be applied before one reparse.
    pub fn apply_edit(&mut self, edit: &Edit) {
        // `Edit::apply` refuses a reversed range; tree-sitter would not.
        let old_end_byte = edit.range.end.max(edit.range.start);
        self.tree.edit(&InputEdit {
            start_byte: edit.range.start,
            old_end_byte,
            new_end_byte: edit.new_end(),
            start_position: Point::new(0, 0),
            old_end_position: Point::new(0, 0),
            new_end_position: Point::new(0, 0),
        });
        self.stale = true;
        self.is_region_broken |= self.region.as_mut().is_some_and(|part| !part.apply_edit(edit));
    }

    /// Brings the tree up to date with `text`, the text after all applied edits, by parsing what they touched.
    ///
    /// False if time was up first: the old tree stays, moved by the edits but [stale](Self::is_stale), and the next
    /// call continues from it.
    pub fn reparse(&mut self, text: &Rope, time_is_up: &mut dyn FnMut() -> bool) -> bool {
        if !self.stale {
            return true;
        }
        // The tree's ranges have moved with the edits.
        let mut ranges = self.region.as_ref().map(|_| self.tree.included_ranges()).unwrap_or_default();
        if let Some(first) = ranges.first_mut()
            && self.region.as_ref().is_some_and(ParsedRegion::starts_text)
        {
            // An insertion at the very start would be left out.
            first.start_byte = 0;
        }
        match parse_ranges(text, self.language, &ranges, Some(&self.tree), time_is_up) {
            Some((tree, effort)) => {
                self.tree = tree;
                self.effort = effort;
                self.stale = false;
                true
            }
            None => false,
        }
    }

    /// The tree after one more edit that makes the text `after`; `self` is unchanged. `None` if time was up.
    #[must_use]
    pub fn with_edit(&self, edit: &Edit, after: &Rope, time_is_up: &mut dyn FnMut() -> bool) -> Option<Self> {
        let mut next = self.clone();
        next.apply_edit(edit);
        next.reparse(after, time_is_up).then_some(next)
    }

    /// Whether edits were applied that no parse has seen yet: offsets fit the text, node kinds may not.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }
}

/// Parses `ranges` of a text, or all of it if there are none. Also returns how often `time_is_up` was polled.
fn parse_ranges(
    text: &Rope,
    language: &'static Language,
    ranges: &[tree_sitter::Range],
    old: Option<&Tree>,
    time_is_up: &mut dyn FnMut() -> bool,
) -> Option<(Tree, usize)> {
    let grammar = language.grammar?();
    if u32::try_from(text.len_bytes()).is_err() || time_is_up() {
        return None;
    }
    PARSER.with(|parser| {
        // Already borrowed only if `time_is_up` itself parses; that call then gets no tree.
        let mut parser = parser.try_borrow_mut().ok()?;
        parser.set_language(&grammar).ok()?;
        parser.set_included_ranges(ranges).ok()?;
        let mut read = |offset: usize, _: Point| -> &[u8] {
            match text.get_chunk_at_byte(offset) {
                Some((chunk, start, _, _)) => chunk.as_bytes().get(offset - start..).unwrap_or_default(),
                None => &[],
            }
        };
        let mut polls = 0;
        let mut progress = |_: &ParseState| {
            polls += 1;
            match time_is_up() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let options = ParseOptions::new().progress_callback(&mut progress);
        let tree = parser.parse_with_options(&mut read, old, Some(options));
        // Otherwise the next parse would continue with this text.
        parser.reset();
        Some((tree?, polls))
    })
}

#[cfg(test)]
pub(super) mod tests {

    use tree_sitter::{Node, TreeCursor};

    use super::*;
    use crate::text::lines;

    /// Realistic code of each language; edits break it and repair it.
    const SAMPLE_SOURCES: &[(&str, &str)] = &[
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

    /// Typed text: fragments of syntax, line breaks, wide characters.
    const TYPED_FRAGMENTS: &[&str] = &[
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

    fn test_language(name: &str) -> &'static Language {
        taper_grammars::by_id(name).unwrap()
    }

    fn parse_fresh(text: &Rope, name: &str) -> Syntax {
        Syntax::parse(text, test_language(name), &mut || false).unwrap()
    }

    pub(in super::super) fn parse_fresh_ranges(
        text: &Rope,
        language: &'static Language,
        ranges: &[tree_sitter::Range],
    ) -> Tree {
        parse_ranges(text, language, ranges, None, &mut || false).unwrap().0
    }

    fn nodes_match(a: Node, b: Node) -> bool {
        a.kind_id() == b.kind_id()
            && a.byte_range() == b.byte_range()
            && a.is_missing() == b.is_missing()
            && a.is_extra() == b.is_extra()
            && a.child_count() == b.child_count()
    }

    /// Whether two trees have the same nodes at the same bytes.
    pub(in super::super) fn trees_match(a: &Tree, b: &Tree) -> bool {
        fn subtrees_match(a: &mut TreeCursor, b: &mut TreeCursor) -> bool {
            if !nodes_match(a.node(), b.node()) || a.field_id() != b.field_id() {
                return false;
            }
            if a.goto_first_child() {
                b.goto_first_child();
                loop {
                    if !subtrees_match(a, b) {
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
        subtrees_match(&mut a.walk(), &mut b.walk())
    }

    fn random_edit(random: &mut fastrand::Rng, text: &Rope, most: usize) -> Edit {
        let len = text.len_bytes();
        let start = lines::floor_char_boundary(text, random.usize(..=len));
        let end = match random.u8(..4) {
            0 => lines::floor_char_boundary(text, start + random.usize(..12)),
            _ => start,
        };
        let pieces = if len > most { 0 } else { random.usize(..3) };
        Edit {
            range: start..end.max(start),
            text: (0..pieces).map(|_| TYPED_FRAGMENTS[random.usize(..TYPED_FRAGMENTS.len())]).collect(),
        }
    }

    /// Edits a text at random, then undoes every edit. After each step the incremental tree is compared with a fresh
    /// one. Returns the number of steps, and of different trees of broken code.
    fn edit_and_compare(name: &str, source: &str, seed: u64, edits: usize) -> (usize, usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = Rope::from_str(source);
        let mut syntax = parse_fresh(&text, name);
        let (mut steps, mut differ, mut undo) = (0, 0, Vec::new());
        let mut step = |text: &mut Rope, edit: &Edit| {
            edit.apply(text).unwrap();
            syntax.apply_edit(edit);
            assert!(syntax.reparse(text, &mut || false));
            let fresh = parse_fresh(text, name);
            steps += 1;
            if !trees_match(&syntax.tree, &fresh.tree) {
                // tree-sitter's recovery depends on what it could reuse, so trees of broken code may differ. Those of
                // valid code never do.
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
        assert!(
            trees_match(&syntax.tree, &parse_fresh(&text, name).tree),
            "{name}, seed {seed}: undone, yet different"
        );
        (steps, differ)
    }

    #[test]
    fn reparse_after_random_edits_matches_fresh_parse() {
        let (mut all, mut broken) = (0, 0);
        for (name, source) in SAMPLE_SOURCES {
            for seed in 0..25 {
                let (steps, differ) = edit_and_compare(name, source, seed, 40);
                (all, broken) = (all + steps, broken + differ);
            }
        }
        // The measured share is well below this; nearly all cases are in Python and the shell.
        assert!(broken * 100 < all, "{broken} of {all} trees of broken code differ from a fresh parse");
    }

    #[test]
    fn several_edits_share_one_reparse() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (name, source) = SAMPLE_SOURCES[random.usize(..3)];
            let mut text = Rope::from_str(source);
            let mut syntax = parse_fresh(&text, name);
            let mut undo = Vec::new();
            for _ in 0..10 {
                let edit = random_edit(&mut random, &text, 4_000);
                let gone = lines::slice(&text, edit.range.clone());
                undo.push(Edit { range: edit.range.start..edit.new_end(), text: gone });
                edit.apply(&mut text).unwrap();
                syntax.apply_edit(&edit);
                // A parse without any time changes nothing.
                assert!(!syntax.reparse(&text, &mut || true));
                assert!(syntax.is_stale());
            }
            while let Some(edit) = undo.pop() {
                edit.apply(&mut text).unwrap();
                syntax.apply_edit(&edit);
            }
            assert!(syntax.reparse(&text, &mut || false));
            assert!(!syntax.is_stale());
            assert!(trees_match(&syntax.tree, &parse_fresh(&text, name).tree), "seed {seed}");
        }
    }

    #[test]
    fn interrupted_parse_leaves_no_trace() {
        let text = Rope::from_str(&SAMPLE_SOURCES[1].1.repeat(50));
        let whole = parse_fresh(&text, "rust");
        let mut calls = 0u32;
        let counted = Syntax::parse(&text, test_language("rust"), &mut || {
            calls += 1;
            false
        });
        assert!(counted.is_some() && calls > 20, "{calls}");
        for share in [2, 3, 10] {
            let (mut left, limit) = (0, calls / share);
            let mut out = || {
                left += 1;
                left > limit
            };
            assert!(Syntax::parse(&text, test_language("rust"), &mut out).is_none());
            // After giving up, the parser works for other texts, and for the same one.
            let other = Rope::from_str("[1, 2]");
            assert!(!parse_fresh(&other, "json").tree.root_node().has_error());
            assert!(trees_match(&parse_fresh(&text, "rust").tree, &whole.tree));
        }
    }

    #[test]
    fn with_edit_leaves_the_tree_unchanged() {
        let mut text = Rope::from_str("fn f() {}\n");
        let syntax = parse_fresh(&text, "rust");
        let edit = Edit::insert(8, "g(");
        edit.apply(&mut text).unwrap();
        let next = syntax.with_edit(&edit, &text, &mut || false).unwrap();
        assert!(next.tree.root_node().has_error() && !next.is_stale());
        assert!(!syntax.tree.root_node().has_error() && !syntax.is_stale());
        assert!(syntax.with_edit(&edit, &text, &mut || true).is_none());
    }

    #[test]
    fn strange_texts_parse() {
        for text in ["", "\0", "\r", "\u{feff}fn", "\u{10ffff}", &"(".repeat(20_000), &"a".repeat(2_000_000)]
        {
            let text = Rope::from_str(text);
            for (name, _) in SAMPLE_SOURCES {
                // Whatever the result, it ends; deep nesting may reach the time limit.
                let mut calls = 0;
                let _ = Syntax::parse(&text, test_language(name), &mut || {
                    calls += 1;
                    calls > 2_000
                });
            }
        }
        assert!(Syntax::parse(&Rope::from_str("a = 1"), test_language("toml"), &mut || false).is_none());
    }
}
