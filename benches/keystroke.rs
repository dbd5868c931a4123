//! The path of a keystroke without the model: edit, parse, snapshot, prompt, in large files. It does on one thread what
//! the session does, and times each step.
//!
//! `cargo bench --bench keystroke [-- --model PATH] [--whole] [--workspace FOLDER]`: with a model file, prompts are
//! built with its vocabulary; without one, with the byte-level vocabulary of the scripted engine. `--whole` keeps the
//! tree of the whole file for comparison, however long it is. The other files are those of the folder, by default of
//! this project.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints what it measured, and ends on what it cannot use"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taper::completion::{self, Options, Snapshot};
use taper::prompt::{self, template::Profile};
use taper::retrieval::crawl::{self, CrawlLimits};
use taper::retrieval::{Index, Query, Snippet};
use taper::syntax::{RegionSize, Syntax};
use taper::text::{Edit, Encoding, Rope, position};
use taper_engine::gguf::Gguf;
use taper_engine::{EngineInfo, Tokenizer};
use taper_grammars::Language;

/// Keys typed per file.
const KEYS: usize = 400;
/// Keys typed per file with `--whole`, where one may take a tenth of a second.
const KEYS_WHOLE: usize = 60;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let whole = arguments.iter().any(|it| it == "--whole");
    let model = arguments.iter().skip_while(|it| *it != "--model").nth(1);
    let (name, tokens) = match &model {
        Some(path) => {
            let gguf = Gguf::open(Path::new(path)).expect("the model opens");
            (
                gguf.get_str("general.name").unwrap_or("").to_owned(),
                Tokenizer::from_gguf(&gguf).expect("a vocabulary"),
            )
        }
        None => ("byte-level".to_owned(), Tokenizer::bytes_only()),
    };
    let about = EngineInfo { model: name, context: 4096, ..EngineInfo::default() };
    let profile = Profile::for_model(&about, &tokens);
    println!("vocabulary: {} ({} tokens); {}", about.model, tokens.len(), profile.describe());
    let workspace = arguments.iter().skip_while(|it| *it != "--workspace").nth(1);
    let index = index(Path::new(workspace.map_or(".", String::as_str)));
    let snippets: Arc<[Snippet]> = retrieve_at_many_positions(&index).into();
    println!(
        "tree: {}; times in ms, steps at p95",
        if whole { "of the whole file" } else { "around the cursor" }
    );
    println!(
        "{:<22} {:>8} {:>7} {:>7} {:>7} {:>7}  {:>6} {:>7} {:>8} {:>7}  {:>7} {:>7} {:>7} {:>7}  {:>8}",
        "file",
        "lines",
        "p50",
        "p95",
        "p99",
        "max",
        "edit",
        "parse",
        "snapshot",
        "prompt",
        "first",
        "synced",
        "pasted",
        "undone",
        "tree MiB"
    );
    for lines in [1_000, 10_000, 100_000] {
        for (name, source, typed) in [
            ("python", python as fn(usize) -> String, PYTHON),
            ("rust", rust, RUST),
            ("typescript", typescript, TYPESCRIPT),
            ("java", java, JAVA),
            ("json", json, JSON),
        ] {
            let language = taper_grammars::by_id(name).expect("a row");
            typing(name, language, &source(lines), typed, whole, &profile, &tokens, &snippets);
        }
    }
    let numbers = |lines: usize| format!("[\n{}0\n]\n", "  12345,\n".repeat(lines));
    let language = taper_grammars::by_id("json").expect("a row");
    typing("json, numbers", language, &numbers(10_000), "12345,\n  ", whole, &profile, &tokens, &snippets);
    typing("json, numbers", language, &numbers(100_000), "12345,\n  ", whole, &profile, &tokens, &snippets);
    let language = taper_grammars::by_id("javascript").expect("a row");
    typing(
        "javascript, one line",
        language,
        &minified(),
        "if(a){return b(c)}",
        whole,
        &profile,
        &tokens,
        &snippets,
    );
}

/// Indexes a folder and prints the cost.
fn index(folder: &Path) -> Index {
    let before = resident();
    let start = Instant::now();
    let found = crawl::find_files(folder, &[], CrawlLimits::DEFAULT, &mut || false);
    let walked = start.elapsed();
    let cut: Vec<_> =
        found.iter().filter_map(|it| crawl::chunk_file(folder, it, &mut || false)).map(Arc::new).collect();
    let cut_in = start.elapsed() - walked;
    let bytes: usize = cut.iter().map(|it| it.text().len()).sum();
    let start = Instant::now();
    let index = Index::new(cut);
    println!(
        "other files: {} of {:.1} MB, found in {:.0} ms, cut in {:.0} ms; the index made in {:.0} ms, {:.0} MiB in all",
        index.files().len(),
        bytes as f64 / 1e6,
        walked.as_secs_f64() * 1e3,
        cut_in.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3,
        resident().saturating_sub(before) as f64 / f64::from(1 << 20),
    );
    index
}

/// Retrieves at many positions of the largest file and prints the time; returns the snippets of the last position.
fn retrieve_at_many_positions(index: &Index) -> Vec<Snippet> {
    let Some(file) = index.files().iter().max_by_key(|it| it.text().len()) else { return Vec::new() };
    let language = taper_grammars::by_path(Path::new(&file.path)).expect("it was cut");
    let text = Rope::from_str(file.text());
    let (mut times, mut found) = (Vec::new(), Vec::new());
    for at in 1..=200 {
        let cursor = text.line_to_byte(text.len_lines() * at / 201);
        let start = Instant::now();
        found = index.find_snippets(Query { text: &text, cursor, path: &file.path, language }, 8 << 10);
        times.push(start.elapsed());
    }
    times.sort();
    let ms = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("retrieval at 200 positions: p50 {:.2} ms, p95 {:.2} ms, max {:.2} ms", ms(50), ms(95), ms(100));
    found
}

const PYTHON: &str = "def total(values):\n    \"\"\"The sum.\"\"\"\n    result = 0\n    for value in values:\n        result += value\n    return result\n\n\n";
const RUST: &str = "pub fn total(values: &[i64]) -> i64 {\n    let mut sum = 0;\n    for value in values {\n        sum += value;\n    }\n    sum\n}\n\n";
const TYPESCRIPT: &str = "export function total(values: number[]): number {\n  let sum = 0;\n  for (const value of values) {\n    sum += value;\n  }\n  return sum;\n}\n\n";
const JAVA: &str = "    long total(long[] values) {\n        long sum = 0;\n        for (long value : values) {\n            sum += value;\n        }\n        return sum;\n    }\n\n";
const JSON: &str =
    "    {\n      \"id\": 17,\n      \"name\": \"a name\",\n      \"tags\": [\"a\", \"b\"]\n    },\n";

/// A file of `lines` lines, of numbered chunks.
fn pieces(lines: usize, piece: impl Fn(&mut String, usize)) -> String {
    let (mut text, mut n, mut counted) = (String::new(), 0, 0);
    let mut seen = 0;
    while counted < lines {
        piece(&mut text, n);
        n += 1;
        counted += text[seen..].matches('\n').count();
        seen = text.len();
    }
    text
}

fn rust(lines: usize) -> String {
    pieces(lines, |text, n| {
        let _ = write!(
            text,
            "/// Adds {n} to each value, and says how many there were.\npub fn shift_{n}(values: &mut [i64]) -> usize {{\n    let mut count = 0;\n    for value in values.iter_mut() {{\n        *value += {n};\n        count += 1;\n    }}\n    count\n}}\n\n"
        );
    })
}

fn python(lines: usize) -> String {
    pieces(lines, |text, n| {
        let _ = write!(
            text,
            "def shift_{n}(values):\n    \"\"\"Adds {n} to each value, and says how many there were.\"\"\"\n    count = 0\n    for at, value in enumerate(values):\n        values[at] = value + {n}\n        count += 1\n    return count\n\n\n"
        );
    })
}

fn typescript(lines: usize) -> String {
    pieces(lines, |text, n| {
        let _ = write!(
            text,
            "/** Adds {n} to each value, and says how many there were. */\nexport function shift{n}(values: number[]): number {{\n  let count = 0;\n  values.forEach((value, at) => {{\n    values[at] = value + {n};\n    count += 1;\n  }});\n  return count;\n}}\n\n"
        );
    })
}

/// One class around everything.
fn java(lines: usize) -> String {
    let methods = pieces(lines, |text, n| {
        let _ = write!(
            text,
            "    /** Adds {n} to each value, and says how many there were. */\n    int shift{n}(long[] values) {{\n        int count = 0;\n        for (int at = 0; at < values.length; at++) {{\n            values[at] += {n};\n            count += 1;\n        }}\n        return count;\n    }}\n\n"
        );
    });
    format!("class Shifts {{\n{methods}}}\n")
}

fn json(lines: usize) -> String {
    let records = pieces(lines, |text, n| {
        let _ = write!(
            text,
            "    {{\n      \"id\": {n},\n      \"name\": \"record {n}\",\n      \"tags\": [\"a\", \"b\"]\n    }},\n"
        );
    });
    format!("{{\n  \"records\": [\n{records}    {{}}\n  ]\n}}\n")
}

/// A megabyte of minified JavaScript in one line.
fn minified() -> String {
    let mut text = String::from("!function(e,t){");
    let mut n = 0;
    while text.len() < 1 << 20 {
        let _ = write!(
            text,
            "function f{n}(e,t){{var n=[],r=\"a{n}\";for(var i=0;i<e.length;i++)n.push(e[i]+t*{n});return n.map(function(e){{return r+e}})}}"
        );
        n += 1;
    }
    text + "}(this,document);\n"
}

fn tree(
    text: &Rope,
    language: &'static Language,
    cursor: usize,
    reach: Option<RegionSize>,
) -> Option<Syntax> {
    match reach {
        Some(reach) => Syntax::parse_around(text, language, cursor, reach, &mut || false),
        None => Syntax::parse(text, language, &mut || false),
    }
}

/// Updates the tree after a change as a document does, or parses from scratch.
fn update_tree(
    syntax: &mut Option<Syntax>,
    text: &Rope,
    language: &'static Language,
    cursor: usize,
    reach: &mut Option<RegionSize>,
) {
    match (&mut *syntax, &mut *reach) {
        (Some(syntax), None) => assert!(syntax.reparse(text, &mut || false)),
        (Some(syntax), Some(reach)) if syntax.covers(text, cursor, *reach) => {
            assert!(syntax.reparse(text, &mut || false));
            if syntax.parse_effort() > 30 {
                *reach = reach.halved().unwrap_or(*reach);
            }
        }
        _ => *syntax = tree(text, language, cursor, *reach),
    }
}

#[expect(clippy::too_many_arguments, reason = "a bench's table has many columns")]
fn typing(
    name: &str,
    language: &'static Language,
    source: &str,
    typed: &str,
    whole: bool,
    profile: &Profile,
    tokens: &Tokenizer,
    snippets: &Arc<[Snippet]>,
) {
    let mut text = Rope::from_str(source);
    let mut reach = (!whole).then_some(RegionSize::DEFAULT);
    // In the middle of the file, at the beginning of a chunk.
    let middle = source.len() / 2;
    let first_word = typed.trim_start().split_inclusive([' ', '(']).next().unwrap_or(typed);
    let indent = &typed[..typed.len() - typed.trim_start().len()];
    let start = format!("\n{indent}{first_word}");
    let mut cursor = source[middle..].find(&start).map_or(middle, |at| middle + at + 1);
    if !source[..cursor].contains('\n') {
        cursor = source[middle..].find("function f").map_or(middle, |at| middle + at);
    }
    let resident = resident();
    let begun = Instant::now();
    let mut syntax = tree(&text, language, cursor, reach);
    let first = begun.elapsed();
    let tree_bytes = self::resident().saturating_sub(resident);
    let mut times: Vec<[Duration; 4]> = Vec::new();
    for key in typed.chars().cycle().take(if whole { KEYS_WHOLE } else { KEYS }) {
        let at = position::position_at(&text, cursor, Encoding::Utf16);
        let start = Instant::now();
        let edit =
            Edit { range: position::byte_range(&text, at, at, Encoding::Utf16), text: key.to_string() };
        edit.apply(&mut text).expect("the edit fits");
        if let Some(syntax) = &mut syntax {
            syntax.apply_edit(&edit);
        }
        cursor += key.len_utf8();
        let edited = Instant::now();
        update_tree(&mut syntax, &text, language, cursor, &mut reach);
        let parsed = Instant::now();
        let snapshot = Snapshot {
            syntax: syntax.clone(),
            language: Some(language),
            path: "src/lib.rs".to_owned(),
            snippets: Arc::clone(snippets),
            ..Snapshot::new(text.clone(), cursor, Options::default())
        };
        let taken = Instant::now();
        let budget = completion::prompt_budget(&snapshot.options, profile);
        let (prompt, _) =
            prompt::build_prompt(profile, tokens, snapshot.joined_document().prompt_file(), budget);
        let built = Instant::now();
        assert!(!prompt.tokens.is_empty());
        times.push([edited - start, parsed - edited, taken - parsed, built - taken]);
    }

    // The whole text sent again with one more character; ten thousand lines pasted; and removed.
    let mut sent = text.to_string();
    sent.insert(cursor, ' ');
    let mut change = |make: &dyn Fn(&Rope) -> Edit| {
        let start = Instant::now();
        let edit = make(&text);
        edit.apply(&mut text).expect("the edit fits");
        if let Some(syntax) = &mut syntax {
            syntax.apply_edit(&edit);
        }
        update_tree(&mut syntax, &text, language, edit.new_end(), &mut reach);
        start.elapsed()
    };
    let synced = change(&|text| Edit::diff(text, &sent));
    let paste = typed.repeat(10_000 / typed.matches('\n').count().max(1));
    let pasted = change(&|_| Edit::insert(cursor, paste.clone()));
    let undone = change(&|_| Edit { range: cursor..cursor + paste.len(), text: String::new() });

    let mut totals: Vec<Duration> = times.iter().map(|steps| steps.iter().sum()).collect();
    totals.sort();
    let ms = |it: Duration| it.as_secs_f64() * 1e3;
    let at = |sorted: &[Duration], share: f64| ms(sorted[((sorted.len() - 1) as f64 * share) as usize]);
    let step = |n: usize| {
        let mut one: Vec<Duration> = times.iter().map(|steps| steps[n]).collect();
        one.sort();
        at(&one, 0.95)
    };
    println!(
        "{:<22} {:>8} {:>7.2} {:>7.2} {:>7.2} {:>7.2}  {:>6.3} {:>7.2} {:>8.3} {:>7.2}  {:>7.1} {:>7.1} {:>7.1} {:>7.1}  {:>8.1}",
        name,
        source.lines().count(),
        at(&totals, 0.5),
        at(&totals, 0.95),
        at(&totals, 0.99),
        at(&totals, 1.0),
        step(0),
        step(1),
        step(2),
        step(3),
        ms(first),
        ms(synced),
        ms(pasted),
        ms(undone),
        tree_bytes as f64 / f64::from(1 << 20),
    );
}

/// Resident memory of this process in bytes; 0 where the system does not report it.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|it| it.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
