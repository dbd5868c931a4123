//! The path of a keystroke without the model: edit, parse, snapshot, prompt, in large files.
//! It knows nothing of servers: it does what the session does, on one thread, and times each step.
//!
//! `cargo bench --bench keystroke [-- --model PATH]`: with a model file, prompts are built with its
//! vocabulary; without one, with the byte-level vocabulary of the scripted engine.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints what it measured, and ends on what it cannot use"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use taper::prompt::{self, template::Profile};
use taper::suggest::{self, Options, Snapshot, Trigger};
use taper::syntax::Syntax;
use taper::text::{Edit, Rope};
use taper_engine::gguf::Gguf;
use taper_engine::{About, Tokens};

/// Keys typed per file.
const KEYS: usize = 400;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.find(|it| it == "--model").and_then(|_| arguments.next());
    let (name, tokens) = match &model {
        Some(path) => {
            let gguf = Gguf::open(Path::new(path)).expect("the model opens");
            (
                gguf.str("general.name").unwrap_or("").to_owned(),
                Tokens::from_gguf(&gguf).expect("a vocabulary"),
            )
        }
        None => ("byte-level".to_owned(), Tokens::bytes_only()),
    };
    let about = About { model: name, context: 4096, ..About::default() };
    let profile = Profile::of(&about, &tokens);
    println!("vocabulary: {} ({} tokens); {}", about.model, tokens.len(), profile.describe());
    println!(
        "{:>8} {:>8} {:>8}   {:>8} {:>8} {:>8} {:>8}",
        "lines", "p50 ms", "p95 ms", "edit", "parse", "snapshot", "prompt"
    );
    for lines in [1_000, 10_000, 100_000] {
        typing(lines, &profile, &tokens);
    }
}

/// A long file of plausible Rust.
fn source(lines: usize) -> String {
    let mut text = String::new();
    let mut written = 0;
    let mut n = 0;
    while written < lines {
        let _ = write!(
            text,
            "/// Adds {n} to each value, and says how many there were.\npub fn shift_{n}(values: &mut [i64]) -> usize {{\n    let mut count = 0;\n    for value in values.iter_mut() {{\n        *value += {n};\n        count += 1;\n    }}\n    count\n}}\n\n"
        );
        written += 10;
        n += 1;
    }
    text
}

fn typing(lines: usize, profile: &Profile, tokens: &Tokens) {
    let language = taper_grammars::by_id("rust").expect("a row");
    let mut text = Rope::from_str(&source(lines));
    let mut syntax = Syntax::parse(&text, language, &mut || false).expect("a tree");
    // In the middle of the file, behind a complete function.
    let mut cursor = text.line_to_byte(text.len_lines() / 20 * 10);
    let typed = "pub fn total(values: &[i64]) -> i64 {\n    let mut sum = 0;\n    for value in values {\n        sum += value;\n    }\n    sum\n}\n";
    let mut times: Vec<[Duration; 4]> = Vec::new();
    for key in typed.chars().cycle().take(KEYS) {
        let edit = Edit::insert(cursor, key.to_string());
        let start = Instant::now();
        edit.apply(&mut text).expect("the edit fits");
        syntax.edited(&edit);
        cursor += key.len_utf8();
        let edited = Instant::now();
        assert!(syntax.reparse(&text, &mut || false));
        let parsed = Instant::now();
        let snapshot = Snapshot {
            text: text.clone(),
            syntax: Some(syntax.clone()),
            language: Some(language),
            path: "src/lib.rs".to_owned(),
            cursor,
            selected: None,
            trigger: Trigger::Automatic,
            options: Options::default(),
        };
        let taken = Instant::now();
        let file =
            prompt::File { text: &snapshot.text, cursor, path: &snapshot.path, language: snapshot.language };
        let (prompt, _) = prompt::build(profile, tokens, file, suggest::budget(&snapshot.options));
        let built = Instant::now();
        assert!(!prompt.tokens.is_empty());
        times.push([edited - start, parsed - edited, taken - parsed, built - taken]);
    }
    let mut totals: Vec<Duration> = times.iter().map(|steps| steps.iter().sum()).collect();
    totals.sort();
    let at = |sorted: &[Duration], share: f64| {
        sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
    };
    let step = |n: usize| {
        let mut one: Vec<Duration> = times.iter().map(|steps| steps[n]).collect();
        one.sort();
        at(&one, 0.95)
    };
    println!(
        "{:>8} {:>8.3} {:>8.3}   {:>8.3} {:>8.3} {:>8.3} {:>8.3}   (steps: p95 ms)",
        text.len_lines(),
        at(&totals, 0.5),
        at(&totals, 0.95),
        step(0),
        step(1),
        step(2),
        step(3),
    );
}
