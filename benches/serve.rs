//! A real server over real pipes, typed at: start to first suggestion, request to answer, resident memory.
//! It knows nothing of the insides.
//!
//! `cargo bench --bench serve [-- --model PATH] [--pause MS]`
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints what it measured, and ends on what it cannot use"
)]

#[path = "../tests/client.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod client;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taper::text::{Edit, Encoding, Rope, position};

use client::{Client, inline_params, insertion};

const STARTS: usize = 5;

/// What is typed at the cursors of the fixtures, line breaks and indentation included.
const TYPED: &[(&str, &str, &str)] = &[
    ("ledger.py", "python", "if booking.amount:\n                    total += booking.amount"),
    ("stack.rs", "rust", "self.items.push(item);\n        debug_assert!(self.items.len() <= self.limit);"),
    ("cart.js", "javascript", "const cost = item.price * item.quantity;\n      sum += cost;"),
];

fn main() {
    let mut model = None;
    let mut pause = Duration::from_millis(130);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--model" => model = arguments.next(),
            "--pause" => {
                pause = Duration::from_millis(
                    arguments.next().and_then(|it| it.parse().ok()).expect("milliseconds"),
                );
            }
            _ => {}
        }
    }
    let model = model.or_else(|| Some(taper_engine::testing::real_model()?.to_str()?.to_owned()));
    let Some(model) = model else { return };

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let (fixture, language, _) = TYPED[0];
        let began = Instant::now();
        let (mut client, text, cursor, uri) = open(&model, fixture, language);
        while ask(&mut client, &uri, &text, cursor).0.is_empty() {}
        starts.push(began.elapsed());
        client.quit();
    }
    println!("process start to first suggestion, {STARTS} starts: {}", spread(&mut starts));

    let mut answers = Vec::new();
    let mut shown = 0;
    let mut memory = Vec::new();
    for (fixture, language, typed) in TYPED {
        let (mut client, mut text, mut cursor, uri) = open(&model, fixture, language);
        while ask(&mut client, &uri, &text, cursor).0.is_empty() {}
        for (version, key) in typed.chars().enumerate() {
            let at = position::position(&text, cursor, Encoding::Utf16);
            let change = insertion(&uri, version as i64 + 2, at.line, at.character, &key.to_string());
            client.notify("textDocument/didChange", change);
            Edit::insert(cursor, key.to_string()).apply(&mut text).expect("the key fits");
            cursor += key.len_utf8();
            let (suggestion, took) = ask(&mut client, &uri, &text, cursor);
            answers.push(took);
            shown += usize::from(!suggestion.is_empty());
            // A person's pause between two keys, the answer's time included.
            sleep(pause.saturating_sub(took));
        }
        memory.push(resident(client.pid()));
        client.quit();
    }
    println!(
        "typing, a key every {} ms, {} keys: {}",
        pause.as_millis(),
        answers.len(),
        spread(&mut answers)
    );
    println!(
        "keys answered with text: {shown} of {} ({:.0} %)",
        answers.len(),
        100.0 * shown as f64 / answers.len() as f64
    );
    let size = fs::metadata(&model).map_or(0, |it| it.len()) / 1_000_000;
    println!("resident memory after typing: {} (the model's file: {size} MB)", memory.join(", "));
}

fn open(model: &str, fixture: &str, language: &str) -> (Client, Rope, usize, String) {
    let marked = fs::read_to_string(format!("tests/fixtures/real/{fixture}")).expect("the fixture");
    let (before, after) = marked.split_once('▮').expect("a cursor");
    let text = Rope::from_str(&format!("{before}{after}"));
    let uri = format!("file:///w/{fixture}");
    let mut client = Client::start(&["--stdio", "--model", model]);
    client.hello(json!({ "latency-budget-ms": 300 }));
    client.open(&uri, language, &text.to_string());
    (client, text, before.len(), uri)
}

fn ask(client: &mut Client, uri: &str, text: &Rope, cursor: usize) -> (String, Duration) {
    let at = position::position(text, cursor, Encoding::Utf16);
    let asked = Instant::now();
    let id = client.request("textDocument/inlineCompletion", inline_params(uri, at.line, at.character));
    let (answer, came) = client.timed_answer(id);
    let item: Option<&Value> = answer["result"]["items"].as_array().and_then(|items| items.first());
    (item.and_then(|it| it["insertText"].as_str()).unwrap_or("").to_owned(), came - asked)
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    format!("p50 {:.0} ms, p95 {:.0} ms, max {:.0} ms", at(0.5), at(0.95), at(1.0))
}

fn resident(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: Option<u64> = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    kilobytes.map_or("unknown".to_owned(), |kilobytes| format!("{} MB", kilobytes * 1024 / 1_000_000))
}
