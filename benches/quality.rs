//! Completion tasks through the whole suggestion path: how many answers are the text that stood there.
//! It knows nothing of servers: it calls `suggest` directly.
//!
//! `cargo bench --bench quality -- --model PATH [--limit N] [--explain] [FORM …] TASKS.jsonl …`
//!
//! FORM tries another form than the model's row: `--plain`, `--anchored LINES`, `--heal`, `--no-heal`,
//! `--header`, `--no-header`.
//!
//! A task is a JSON object a line: `language`, `path`, `prefix`, `suffix`, `expected`, `kind`. Scored as the
//! field does: exact match on stripped text, of the first line for one-line kinds.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints what it measured, and ends on what it cannot use"
)]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use taper::prompt::template::{Form, Layout, Profile};
use taper::suggest::{self, Options, Snapshot, Trigger};
use taper::syntax::{Reach, Syntax};
use taper::text::Rope;
use taper_engine::Engine;
use taper_engine::local::{self, Local};

#[derive(Default)]
struct Score {
    tasks: usize,
    exact: usize,
    raw_exact: usize,
    shown: usize,
    seconds: f64,
}

fn main() {
    let mut model = None;
    let mut limit = usize::MAX;
    let mut explain = false;
    let mut forms: Vec<fn(&mut Form)> = Vec::new();
    let mut anchored = None;
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--model" => model = arguments.next(),
            "--limit" => {
                limit = arguments.next().and_then(|it| it.parse().ok()).expect("--limit takes a number");
            }
            "--explain" => explain = true,
            "--plain" => forms.push(|form| form.layout = Layout::Plain),
            "--anchored" => anchored = arguments.next().and_then(|it| it.parse().ok()),
            "--heal" => forms.push(|form| form.heal = true),
            "--no-heal" => forms.push(|form| form.heal = false),
            "--header" => forms.push(|form| form.header = true),
            "--no-header" => forms.push(|form| form.header = false),
            _ => files.push(argument),
        }
    }
    let Some(model) = model else {
        println!("skipped: no --model PATH was given");
        return;
    };
    let mut engine = Local::open(Path::new(&model), &local::Options::default()).expect("the model loads");
    let mut profile = Profile::of(engine.about(), engine.tokens());
    forms.iter().for_each(|change| change(&mut profile.form));
    if let Some(lines) = anchored {
        profile.form.layout = Layout::Anchored { lines };
    }
    println!("{}: {}; {}", engine.about().model, profile.describe(), engine.about().kernel);
    println!("{:28} {:>5} {:>7} {:>9} {:>7} {:>8}", "set", "tasks", "exact", "raw exact", "shown", "seconds");
    let mut all = Score::default();
    for file in &files {
        let text = fs::read_to_string(file).expect("the task file can be read");
        let tasks: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a task a line")).collect();
        // Spread over the whole file, the same every time.
        let step = tasks.len().div_ceil(limit).max(1);
        let mut score = Score::default();
        for task in tasks.iter().step_by(step) {
            run(task, &profile, &mut engine, &mut score, explain);
        }
        print(Path::new(file).file_stem().map_or("", |it| it.to_str().unwrap_or("")), &score);
        all.tasks += score.tasks;
        all.exact += score.exact;
        all.raw_exact += score.raw_exact;
        all.shown += score.shown;
        all.seconds += score.seconds;
    }
    print("all", &all);
}

fn print(name: &str, score: &Score) {
    let share = |n: usize| 100.0 * n as f64 / score.tasks.max(1) as f64;
    println!(
        "{name:28} {:>5} {:>6.1}% {:>8.1}% {:>6.1}% {:>8.3}",
        score.tasks,
        share(score.exact),
        share(score.raw_exact),
        share(score.shown),
        score.seconds / score.tasks.max(1) as f64,
    );
}

fn run(task: &Value, profile: &Profile, engine: &mut Local, score: &mut Score, explain: bool) {
    let field = |name: &str| task[name].as_str().unwrap_or("").to_owned();
    let (prefix, suffix, expected) = (field("prefix"), field("suffix"), field("expected"));
    let one_line = matches!(field("kind").as_str(), "single-line" | "line" | "rest-of-line" | "xfile-rest");
    let path = field("path");
    let language =
        taper_grammars::by_path(Path::new(&path)).or_else(|| taper_grammars::by_id(&field("language")));
    let text = Rope::from_str(&format!("{prefix}{suffix}"));
    let snapshot = Snapshot {
        syntax: language.and_then(|it| Syntax::around(&text, it, prefix.len(), Reach::USUAL, &mut || false)),
        text,
        language,
        path,
        cursor: prefix.len(),
        selected: None,
        trigger: Trigger::Automatic,
        options: Options::default(),
    };
    let started = Instant::now();
    let (suggestion, work) = suggest::suggest(&snapshot, profile, engine, &mut |_| ControlFlow::Continue(()))
        .expect("the engine answers");
    score.seconds += started.elapsed().as_secs_f64();
    let strip = |text: &str| {
        let text = text.trim();
        if one_line { text.lines().next().unwrap_or("").trim().to_owned() } else { text.to_owned() }
    };
    let shown = suggestion.map(|it| it.text);
    let right = shown.as_deref().is_some_and(|it| strip(it) == strip(&expected));
    score.tasks += 1;
    score.exact += usize::from(right);
    score.raw_exact += usize::from(strip(&work.raw) == strip(&expected));
    score.shown += usize::from(shown.is_some());
    if explain {
        let last = prefix.lines().next_back().unwrap_or("");
        println!(
            "{} {}\n  at       {last:?} ▮ {:?}\n  expected {expected:?}\n  raw      {:?}\n  shown    {shown:?} ({}; {} of {} tokens read, {} written)",
            if right { "right" } else { "wrong" },
            field("id"),
            suffix.lines().next().unwrap_or(""),
            work.raw,
            work.reason,
            work.evaluated,
            work.prompt_tokens,
            work.decoded,
        );
    }
}
