//! The cost of finding secrets, in milliseconds per 100 KB: in files, and in text that has a near-secret on every line.
//!
//! `cargo bench --bench redaction -- [FILE...]`; without files, this package's own sources.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use taper::retrieval::redact::{BareWords, redact};

const SIZE: usize = 100_000;
const ROUNDS: usize = 31;

/// The median of some rounds.
fn measure(name: &str, text: &str, bare: BareWords) {
    let mut took: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(redact(black_box(text), bare));
            start.elapsed().as_secs_f64() * 1e3 * SIZE as f64 / text.len() as f64
        })
        .collect();
    took.sort_by(f64::total_cmp);
    println!("{name:<44} {:>8.2}", took[ROUNDS / 2]);
}

fn lines(line: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    let mut n = 0;
    while text.len() < SIZE {
        let _ = writeln!(text, "{}", line(n));
        n += 1;
    }
    text
}

fn own_sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|it| it == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/server")), &mut out);
    out
}

fn main() {
    let named: Vec<PathBuf> =
        std::env::args().skip(1).filter(|it| !it.starts_with("--")).map(PathBuf::from).collect();
    let files = if named.is_empty() { own_sources() } else { named };
    let all: String = files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    println!("{:<44} {:>8}", "median of 31", "ms/100 KB");
    measure("files", &all, BareWords::Names);
    measure("files, words without quotes as values", &all, BareWords::Values);
    measure("assignments", &lines(|n| format!("password_{n} = \"hunter{n}x\"")), BareWords::Names);
    measure(
        "calls",
        &lines(|n| format!("    client.login(user, token={n}, key=keys[{n}])")),
        BareWords::Names,
    );
    measure("environment", &lines(|n| format!("export API_KEY_{n}=abcDEF{n}ghi")), BareWords::Values);
    measure("keys of a service", &lines(|n| format!("\"AKIA{:016}\",", n * 7919)), BareWords::Names);
    measure("words", &lines(|n| format!("the token {n} of the secret key is a password")), BareWords::Names);
    measure(
        "json",
        &lines(|n| format!("  {{\"token\": \"{n}\", \"auth\": {{\"key\": null}}}},")),
        BareWords::Names,
    );
}
