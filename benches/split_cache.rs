//! How often a suffix that has not seen the last tokens typed gives the same completion as a fresh one.
//!
//! `cargo bench --bench split_cache -- --model PATH [--limit N] [--minutes N] [--window PREFIX SUFFIX] [--out FILE.jsonl]
//! TASKS.jsonl …`
//!
//! For each task and each `k`, the engine prefills the prompt as it was `k` tokens earlier, then answers the present
//! prompt with the suffix shifted. In the anchored form the `k` tokens came after the middle token before, as if the
//! anchor had moved over them. The comparison is of the first line of the raw answer, at most 32 tokens. With `--out`
//! each task's comparison is kept as it arrives, and kept ones are not asked again, so that a run of many tasks may be
//! interrupted.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints what it measured, and ends on what it cannot use"
)]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taper::prompt::template::{Profile, PromptLayout};
use taper::prompt::{self, Budget, PromptFile};
use taper::text::Rope;
use taper_engine::local::{self, Local};
use taper_engine::{Engine, GenerationLimits, PartialOutput, Prompt};
use taper_eval::answers::Answers;

/// Tokens typed since the suffix was prefilled.
const TYPED: [usize; 4] = [64, 32, 16, 8];
/// Tokens of an answer.
const ANSWER: usize = 32;

/// The result of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Compared {
    /// Model, form and window.
    asked: String,
    task: String,
    /// Whether the fresh answer is the expected one.
    exact: bool,
    /// Whether the answers with a suffix that missed [`TYPED`] tokens equal the fresh one, and whether they equal the
    /// expected one.
    stale: [(bool, bool); TYPED.len()],
}

fn main() {
    let (mut model, mut path) = (None, None);
    let (mut limit, mut minutes, mut window) = (usize::MAX, u64::MAX / 60, (256, 64));
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().and_then(|it| it.parse::<usize>().ok()).expect("the option takes a number");
        match argument.as_str() {
            "--model" => model = arguments.next(),
            "--out" => path = arguments.next(),
            "--limit" => limit = number(),
            "--minutes" => minutes = number() as u64,
            "--window" => window = (number(), number()),
            _ => files.push(argument),
        }
    }
    let Some(model) = model else {
        println!("skipped: no --model PATH was given");
        return;
    };
    let mut engine = Local::open(Path::new(&model), &local::Options::default()).expect("the model loads");
    let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
    let asked = format!(
        "{}: {}; {} tokens before the cursor, {} behind it",
        engine.engine_info().model,
        profile.describe(),
        window.0,
        window.1
    );
    println!("{asked}; {}", engine.engine_info().kernel);
    let (mut out, mut kept) = (None, Vec::new());
    if let Some(path) = path {
        let (file, comparisons) =
            Answers::<Compared>::open(Path::new(&path)).expect("the file of --out can be used");
        (out, kept) = (Some(file), comparisons);
    }
    kept.retain(|it| it.asked == asked);
    let started = Instant::now();
    let mut all: Vec<Compared> = Vec::new();
    for task in &spread(&files) {
        if all.len() == limit || started.elapsed() > Duration::from_secs(60 * minutes) {
            break;
        }
        let id = task["id"].as_str().unwrap_or("");
        if let Some(it) = kept.iter().find(|it| it.task == id) {
            all.push(it.clone());
            continue;
        }
        let Some((fresh, stale)) = run(task, &profile, &mut engine, window) else { continue };
        let right = |text: &str| text == line(task["expected"].as_str().unwrap_or(""));
        let stale = stale.map(|text| (text == fresh, right(&text)));
        let it = Compared { asked: asked.clone(), task: id.to_owned(), exact: right(&fresh), stale };
        if let Some(out) = &mut out {
            out.append(&it).expect("the file of --out can be written");
        }
        all.push(it);
        if all.len().is_multiple_of(20) {
            print(&all);
        }
    }
    print(&all);
}

/// The tasks of all files in turn, so that the first few are of all kinds; in each file in steps of a fixed size.
fn spread(files: &[String]) -> Vec<Value> {
    let mut tasks: Vec<(usize, Value)> = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("the task file can be read");
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            // 37 has no common factor with the sets' sizes; otherwise the order does not matter.
            tasks.push((i * 37 % lines.len(), serde_json::from_str(line).expect("a task a line")));
        }
    }
    tasks.sort_by_key(|(place, _)| *place);
    tasks.into_iter().map(|(_, task)| task).collect()
}

/// The fresh answer, and those with a suffix that missed [`TYPED`] tokens; `None` if there is too little text.
fn run(
    task: &Value,
    profile: &Profile,
    engine: &mut Local,
    window: (usize, usize),
) -> Option<(String, [String; TYPED.len()])> {
    let field = |name: &str| task[name].as_str().unwrap_or("");
    let (prefix, path) = (field("prefix"), field("path"));
    let language =
        taper_grammars::by_path(Path::new(path)).or_else(|| taper_grammars::by_id(field("language")));
    let text = Rope::from_str(&format!("{prefix}{}", field("suffix")));
    let file = PromptFile { text: &text, cursor: prefix.len(), path, language, snippets: &[] };
    let budget = Budget { prefix: window.0, suffix: window.1, snippets: 0, output: ANSWER };
    let (prompt, _) = prompt::build_prompt(profile, engine.tokenizer(), file, budget);
    // The suffix token ends the part before the suffix; some text stays before the typed tokens.
    let front = prompt.suffix.start.checked_sub(1)?;
    if prompt.suffix.len() < 8 || front < TYPED[0] + 16 {
        return None;
    }
    let stale = TYPED.map(|typed| {
        let earlier =
            earlier(&prompt, front, typed, matches!(profile.form.layout, PromptLayout::Anchored { .. }));
        let read = GenerationLimits { max_tokens: 0, max_stale_tokens: 0, ..GenerationLimits::default() };
        engine.generate(&earlier, &read, &mut |_| ControlFlow::Continue(())).expect("the engine reads");
        let limits =
            GenerationLimits { max_tokens: ANSWER, max_stale_tokens: typed, ..GenerationLimits::default() };
        let unread = engine.uncached_token_count(&prompt, &limits);
        let after = prompt.tokens.len() - prompt.suffix.end;
        assert!(unread <= typed + 1 + after, "the suffix is moved: {unread}");
        answer(engine, &prompt, limits)
    });
    // Exact, so equal to the result of an empty cache.
    let fresh = answer(
        engine,
        &prompt,
        GenerationLimits { max_tokens: ANSWER, max_stale_tokens: 0, ..GenerationLimits::default() },
    );
    Some((fresh, stale))
}

/// The prompt `typed` tokens ago.
fn earlier(prompt: &Prompt, front: usize, typed: usize, anchored: bool) -> Prompt {
    let (text, rest) = prompt.tokens.split_at(front);
    let (text, missing) = text.split_at(front - typed);
    let mut tokens = [text, rest].concat();
    if anchored {
        let middle = prompt.suffix.end - typed + 1;
        tokens.splice(middle..middle, missing.iter().copied());
    }
    let suffix = prompt.suffix.start - typed..prompt.suffix.end - typed;
    Prompt { tokens, healing_bytes: Vec::new(), suffix }
}

/// The first line of the model's output.
fn answer(engine: &mut Local, prompt: &Prompt, mut limits: GenerationLimits) -> String {
    limits.max_tokens += prompt.healing_bytes.len();
    let generation = engine.generate(prompt, &limits, &mut |PartialOutput { text, .. }| {
        if text.trim_start().contains('\n') { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    line(&generation.expect("the engine answers").text).to_owned()
}

fn line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or("").trim()
}

fn print(all: &[Compared]) {
    let percentage = |n: usize| format!("{n} ({:.1} %)", 100.0 * n as f64 / all.len().max(1) as f64);
    let fresh = all.iter().filter(|it| it.exact).count();
    println!("\n{} tasks; exact match of a fresh run: {}", all.len(), percentage(fresh));
    println!("| tokens typed since | identical to fresh | exact match |\n|---|---|---|");
    for (at, typed) in TYPED.iter().enumerate().rev() {
        let identical = all.iter().filter(|it| it.stale[at].0).count();
        let exact = all.iter().filter(|it| it.stale[at].1).count();
        println!("| {typed} | {} | {} |", percentage(identical), percentage(exact));
    }
}
