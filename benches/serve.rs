//! A real server over real pipes, with typing: start to first suggestion, request to response, resident memory.
//!
//! `cargo bench --bench serve [-- --model PATH] [--pause MS]`
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints what it measured, and ends on what it cannot use"
)]

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taper::text::{Edit, Encoding, Rope, position};
use taper_eval::lsp_client::{LspClient, inline_params, insertion};

const STARTS: usize = 5;
/// Timeout of a response, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The text typed at the cursors of the fixtures, line breaks and indentation included.
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
        quit(client);
    }
    println!("process start to first suggestion, {STARTS} starts: {}", spread(&mut starts));

    let mut answers = Vec::new();
    let mut shown = 0;
    let mut memory = Vec::new();
    for (fixture, language, typed) in TYPED {
        let (mut client, mut text, mut cursor, uri) = open(&model, fixture, language);
        while ask(&mut client, &uri, &text, cursor).0.is_empty() {}
        for (version, key) in typed.chars().enumerate() {
            let at = position::position_at(&text, cursor, Encoding::Utf16);
            let change = insertion(&uri, version as i64 + 2, at.line, at.character, &key.to_string());
            client.notify("textDocument/didChange", change).expect(RUNS);
            Edit::insert(cursor, key.to_string()).apply(&mut text).expect("the key fits");
            cursor += key.len_utf8();
            let (suggestion, took) = ask(&mut client, &uri, &text, cursor);
            answers.push(took);
            shown += usize::from(!suggestion.is_empty());
            // A person's pause between two keys, including the response time.
            sleep(pause.saturating_sub(took));
        }
        memory.push(resident(client.pid()));
        quit(client);
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

/// Assumed throughout.
const RUNS: &str = "the server runs";

fn open(model: &str, fixture: &str, language: &str) -> (LspClient, Rope, usize, String) {
    let marked = fs::read_to_string(format!("tests/fixtures/real/{fixture}")).expect("the fixture");
    let (before, after) = marked.split_once('▮').expect("a cursor");
    let text = Rope::from_str(&format!("{before}{after}"));
    let uri = format!("file:///w/{fixture}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
    command.args(["serve", "--stdio", "--model", model]).env("XDG_CONFIG_HOME", "/nonexistent");
    let mut client = LspClient::start(command.env("TAPER_HOME", "/dev/null/taper").stderr(Stdio::null()))
        .expect("the server starts");
    let hello = json!({
        "processId": null,
        "rootUri": "file:///w",
        "capabilities": { "textDocument": { "inlineCompletion": {} } },
        "initializationOptions": { "latency-budget-ms": 300 },
    });
    let id = client.request("initialize", hello).expect(RUNS);
    response(&mut client, id);
    client.notify("initialized", json!({})).expect(RUNS);
    client.open(&uri, language, &text.to_string()).expect(RUNS);
    (client, text, before.len(), uri)
}

/// Waits for the response to a request; returns it with its time of arrival. The server's own requests succeed.
fn response(client: &mut LspClient, id: i64) -> (Value, Instant) {
    let end = Instant::now() + PATIENCE;
    loop {
        let incoming = client.receive(end).expect(RUNS).expect("a response in time");
        match (incoming.message.get("method"), incoming.message.get("id")) {
            (Some(_), Some(its)) => client.respond(its, &Value::Null).expect(RUNS),
            (None, Some(its)) if *its == id => return (incoming.message, incoming.at),
            _ => {}
        }
    }
}

/// Sends `shutdown` and `exit`, and waits for the end of the process.
fn quit(mut client: LspClient) {
    let id = client.request("shutdown", Value::Null).expect(RUNS);
    response(&mut client, id);
    client.notify("exit", Value::Null).expect(RUNS);
    assert!(client.wait().expect("an exit status").success(), "the server ends well");
}

fn ask(client: &mut LspClient, uri: &str, text: &Rope, cursor: usize) -> (String, Duration) {
    let at = position::position_at(text, cursor, Encoding::Utf16);
    let sent = Instant::now();
    let params = inline_params(uri, at.line, at.character);
    let id = client.request("textDocument/inlineCompletion", params).expect(RUNS);
    let (answer, came) = response(client, id);
    let item: Option<&Value> = answer["result"]["items"].as_array().and_then(|items| items.first());
    (item.and_then(|it| it["insertText"].as_str()).unwrap_or("").to_owned(), came - sent)
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
