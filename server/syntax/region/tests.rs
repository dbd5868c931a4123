//! Compares the results of queries on a region with those on the whole text.
#![expect(clippy::print_stderr, reason = "a test may")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::parse::tests::trees_match;
use super::super::{Scope, Syntax};
use super::*;

/// A limit so small that files of usual length are long.
const SMALL_REGION: RegionSize = RegionSize { whole_limit: 12 << 10 };

/// Fragments of syntax, as they are typed.
const TYPED_FRAGMENTS: &[&str] = &[
    "a",
    " ",
    "\n",
    "\n    ",
    "(",
    ")",
    "{",
    "}",
    "\"",
    "'",
    ":",
    ",",
    "#",
    "/*",
    "*/",
    "é",
    "x = 1\n",
    "def f():\n",
];

/// Long texts of each kind: this crate's own sources, and repeated fixtures, as they are and indented inside a block
/// that surrounds them all.
fn long_texts() -> Vec<(&'static str, &'static Language, Rope)> {
    let mut paths = Vec::new();
    collect_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("server"), &mut paths);
    paths.sort();
    let rust = taper_grammars::by_id("rust").unwrap();
    let mut texts: Vec<_> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|it| it == "rs"))
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter(|text| text.len() > SMALL_REGION.whole_limit)
        .map(|text| ("rust", rust, Rope::from(text)))
        .collect();
    assert!(texts.len() > 10, "the sources were not found");
    let around = |source: &str, head: &str, foot: &str| {
        let lines: String = source
            .repeat(40)
            .lines()
            .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") })
            .collect();
        format!("{head}\n{lines}{foot}\n")
    };
    for (name, source, wrapped) in [
        ("python", include_str!("../../../tests/fixtures/syntax/sample.py"), Some(("class A:", ""))),
        ("javascript", include_str!("../../../tests/fixtures/syntax/sample.js"), None),
        ("typescriptreact", include_str!("../../../tests/fixtures/syntax/sample.tsx"), None),
        ("go", include_str!("../../../tests/fixtures/syntax/sample.go"), None),
        ("java", include_str!("../../../tests/fixtures/syntax/sample.java"), Some(("class Outer {", "}"))),
        ("c", include_str!("../../../tests/fixtures/syntax/sample.c"), None),
        ("ruby", include_str!("../../../tests/fixtures/syntax/sample.rb"), Some(("module A", "end"))),
    ] {
        let language = taper_grammars::by_id(name).unwrap();
        texts.push((name, language, Rope::from(source.repeat(40))));
        if let Some((head, foot)) = wrapped {
            texts.push((name, language, Rope::from(around(source, head, foot))));
        }
    }
    let records: String = (0..2_000)
        .map(|n| format!("    {{\n      \"id\": {n},\n      \"name\": \"a {n}\"\n    }},\n"))
        .collect();
    let json = format!("{{\n  \"records\": [\n{records}    {{}}\n  ]\n}}\n");
    texts.push(("json", taper_grammars::by_id("json").unwrap(), Rope::from(json)));
    texts
}

/// The number of compared results, and the differing positions by query.
#[derive(Default)]
struct RegionComparison {
    asked: usize,
    none: usize,
    wrong: BTreeMap<&'static str, Vec<String>>,
}

impl RegionComparison {
    /// Queries random positions of a text, in its region and in the whole.
    fn compare_places(
        &mut self,
        name: &str,
        language: &'static Language,
        text: &Rope,
        reach: RegionSize,
        places: usize,
    ) {
        if text.len_bytes() <= reach.whole_limit {
            return;
        }
        let whole = Syntax::parse(text, language, &mut || false).unwrap();
        let mut random = fastrand::Rng::with_seed(text.len_bytes() as u64);
        for _ in 0..places {
            let offset = lines::floor_char_boundary(text, random.usize(..=text.len_bytes()));
            let offset = if random.bool() { lines::line_end(text, offset) } else { offset };
            self.asked += 1;
            let Some(part) = Syntax::parse_around(text, language, offset, reach, &mut || false) else {
                self.none += 1;
                continue;
            };
            assert!(part.covers(text, offset, reach));
            let of = |syntax| Scope::new(text, language, Some(syntax), offset);
            let (whole, part) = (of(&whole), of(&part));
            let mut compare = |question, same: bool| {
                if !same {
                    let line = text.byte_to_line(offset) + 1;
                    self.wrong.entry(question).or_default().push(format!("{name}:{line}"));
                }
            };
            compare("string", whole.is_in_string() == part.is_in_string());
            compare("comment", whole.is_in_comment() == part.is_in_comment());
            compare("empty block", whole.is_in_empty_block() == part.is_in_empty_block());
        }
    }

    fn wrong_share(&self, question: &str) -> f64 {
        self.wrong.get(question).map_or(0, Vec::len) as f64 / self.asked.max(1) as f64
    }

    fn describe(&self) -> String {
        let mut out = format!("{} places, {} without a tree", self.asked, self.none);
        for (question, places) in &self.wrong {
            let some: Vec<_> = places.iter().step_by(places.len().div_ceil(6)).collect();
            out += &format!("; {question} {:.2} % ({some:?})", self.wrong_share(question) * 100.0);
        }
        out
    }
}

fn collect_files(folder: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect_files(&path, out);
        } else if path.metadata().is_ok_and(|it| it.len() < 2_000_000) {
            out.push(path);
        }
    }
}

#[test]
fn region_answers_like_the_whole_text() {
    let mut tally = RegionComparison::default();
    for (name, language, text) in long_texts() {
        tally.compare_places(name, language, &text, SMALL_REGION, 40);
    }
    eprintln!("{}", tally.describe());
    assert!(tally.asked > 1_000 && tally.none == 0, "{}", tally.describe());
    for question in ["string", "comment", "empty block"] {
        assert!(tally.wrong_share(question) <= 0.005, "{}", tally.describe());
    }
}

/// Random edits, most of them near the position: a region brought up to date equals a fresh parse of the same bytes, as
/// long as the code is valid.
#[test]
fn region_follows_edits() {
    let (mut steps, mut differ, mut torn) = (0, 0, 0);
    for (seed, (name, language, text)) in long_texts().into_iter().enumerate() {
        let mut random = fastrand::Rng::with_seed(seed as u64);
        let mut text = text;
        let mut place = lines::floor_char_boundary(&text, text.len_bytes() / 2);
        let mut syntax = Syntax::parse_around(&text, language, place, SMALL_REGION, &mut || false).unwrap();
        let mut undo: Vec<Edit> = Vec::new();
        for step in 0..60 {
            let at = format!("{name}, seed {seed}, step {step}");
            let edit = if step % 2 == 1 {
                undo.pop().unwrap()
            } else {
                let near = random.u8(..4) != 0;
                let start = if near { place + random.usize(..200) } else { random.usize(..text.len_bytes()) };
                let start = lines::floor_char_boundary(&text, start);
                let end = lines::floor_char_boundary(
                    &text,
                    start + if random.bool() { random.usize(..40) } else { 0 },
                );
                let new = (0..random.usize(..3))
                    .map(|_| TYPED_FRAGMENTS[random.usize(..TYPED_FRAGMENTS.len())])
                    .collect();
                let edit = Edit { range: start..end.max(start), text: new };
                let gone = lines::slice(&text, edit.range.clone());
                undo.push(Edit { range: start..edit.new_end(), text: gone });
                edit
            };
            edit.apply(&mut text).unwrap();
            syntax.apply_edit(&edit);
            if place >= edit.range.start {
                place = edit.new_end() + place.saturating_sub(edit.range.end);
            }
            place = lines::floor_char_boundary(&text, place);
            if !syntax.covers(&text, place, SMALL_REGION) {
                torn += 1;
                syntax = Syntax::parse_around(&text, language, place, SMALL_REGION, &mut || false).unwrap();
                continue;
            }
            assert!(syntax.reparse(&text, &mut || false), "{at}");
            let mut fresh = syntax.clone();
            let ranges = syntax.tree.included_ranges();
            fresh.tree = super::super::parse::tests::parse_fresh_ranges(&text, language, &ranges);
            steps += 1;
            if !trees_match(&syntax.tree, &fresh.tree) {
                assert!(fresh.tree.root_node().has_error(), "{at}: the fresh tree is sound");
                assert!(syntax.tree.root_node().has_error(), "{at}: the old tree is sound");
                differ += 1;
            }
        }
    }
    assert!(steps > 500 && differ * 20 < steps && torn * 5 < steps, "{steps} {differ} {torn}");
}

#[test]
fn region_includes_enclosing_opening_and_closing_lines() {
    let body = |indent: &str| format!("{indent}void f() {{\n{indent}    g();\n{indent}}}\n\n").repeat(600);
    let text = format!(
        "import a;\n\nclass A\n    extends B\n{{\n    int x;\n\n{}}}\n\nclass C {{}}\n",
        body("    ")
    );
    let rope = Rope::from_str(&text);
    let language = taper_grammars::by_id("java").unwrap();
    let syntax = Syntax::parse_around(&rope, language, text.len() / 2, SMALL_REGION, &mut || false).unwrap();
    assert!(!syntax.tree.root_node().has_error(), "{}", syntax.tree.root_node().to_sexp());
    let ranges = syntax.tree.included_ranges();
    let cut: Vec<_> = ranges.iter().map(|it| &text[it.start_byte..it.end_byte]).collect();
    assert_eq!((cut.len(), cut[0], cut[2]), (3, "class A\n    extends B\n{\n", "}\n"));
    assert!(cut[1].starts_with("    void f() {\n") && cut[1].len() < SMALL_REGION.whole_limit * 2);
    let class = syntax.tree.root_node().child(0).unwrap();
    assert_eq!(class.kind(), "class_declaration");
    assert_eq!(class.byte_range(), text.find("class A").unwrap()..text.find("}\n\nclass C").unwrap() + 1);
    let php = format!("<?php\n\n{}", "function f() {\n    return 1;\n}\n\n".repeat(600));
    let rope = Rope::from_str(&php);
    let language = taper_grammars::by_id("php").unwrap();
    let syntax = Syntax::parse_around(&rope, language, php.len() / 2, SMALL_REGION, &mut || false).unwrap();
    assert!(!syntax.tree.root_node().has_error() && syntax.tree.included_ranges().len() == 2);
}

#[test]
fn megabyte_line_has_no_tree_but_neighbours_do() {
    let long = "f(1);".repeat(200_000);
    let short = "function f() {\n  return 1;\n}\n\n".repeat(1_000);
    let text = Rope::from_str(&format!("{short}{long}\n{short}"));
    let language = taper_grammars::by_id("javascript").unwrap();
    let around = |offset| Syntax::parse_around(&text, language, offset, SMALL_REGION, &mut || false);
    assert!(around(short.len() + 500_000).is_none());
    for offset in [0, short.len() - 40, short.len() + long.len() + 40, text.len_bytes()] {
        let syntax = around(offset).unwrap();
        assert!(!syntax.tree.root_node().has_error(), "{offset}");
        assert!(syntax.tree.included_ranges().iter().all(|range| range.end_byte - range.start_byte < 40_000));
    }
}

/// For folders of your own code: `TAPER_TEST_CODE=a:b cargo test … --nocapture`.
#[test]
fn external_code_regions_answer_like_whole_text() {
    let Some(folders) = std::env::var_os("TAPER_TEST_CODE") else {
        return taper_engine::testing::print_skipped("TAPER_TEST_CODE names no folders of code");
    };
    let reach = match std::env::var_os("TAPER_TEST_REACH").is_some() {
        true => RegionSize::DEFAULT,
        false => SMALL_REGION,
    };
    let mut paths = Vec::new();
    std::env::split_paths(&folders).for_each(|folder| collect_files(&folder, &mut paths));
    fastrand::Rng::with_seed(1).shuffle(&mut paths);
    let mut tallies: BTreeMap<&str, (usize, RegionComparison)> = BTreeMap::new();
    for path in paths {
        let Some(language) = taper_grammars::by_path(&path).filter(|it| it.grammar.is_some()) else {
            continue;
        };
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let (files, tally) = tallies.entry(language.name).or_default();
        if text.len() <= reach.whole_limit || *files >= 40 {
            continue;
        }
        *files += 1;
        tally.compare_places(&path.to_string_lossy(), language, &Rope::from_str(&text), reach, 12);
    }
    for (name, (files, tally)) in tallies.iter().filter(|(_, (files, _))| *files > 0) {
        eprintln!("{name}: {files} files, {}", tally.describe());
    }
}
