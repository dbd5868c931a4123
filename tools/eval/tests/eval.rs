//! `taper-eval run`, end to end: tables, files, resuming a killed run, regressions, a llama.cpp server as a baseline.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;

use serde_json::json;

use crate::run_tool;
use crate::script::Script;

fn eval(arguments: &[&str]) -> Output {
    run_tool("run", arguments)
}

#[track_caller]
fn table(arguments: &[&str]) -> String {
    let output = eval(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn failure_message(arguments: &[&str]) -> String {
    let output = eval(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

/// Sixteen tasks, each with its own function name for the script to match.
fn tasks(folder: &Path) -> String {
    tasks_above(folder, "\n")
}

/// [`tasks`] with this text as the suffix.
fn tasks_above(folder: &Path, suffix: &str) -> String {
    let task = |at: usize| {
        json!({
            "id": format!("task {at}"), "set": "real_python_line", "language": "python", "kind": "line",
            "path": "a.py", "prefix": format!("def f{at:02}(a, b):\n    "), "suffix": suffix,
            "expected": "return a + b", "tests": null, "meta": {}, "context": [],
        })
    };
    let lines: String = (0..16).map(|at| format!("{}\n", task(at))).collect();
    let path = folder.join("tasks.jsonl");
    fs::write(&path, lines).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A script that is right for the first `right` tasks.
fn script(right: usize) -> Script {
    (0..16).fold(Script::new(), |script, at| {
        let answer = if at < right { "return a + b" } else { "return a - b" };
        script.when(&format!("f{at:02}(a, b):\n    "), answer)
    })
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn killed_run_resumes_with_its_answers() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let kept = folder.path().join("out");
    let out = kept.to_str().unwrap();
    let good = script(16);
    let all = table(&[&tasks, "--engine", &good.written(), "--out", out, "--curve"]);
    let row = all.lines().find(|line| line.starts_with("real_line")).unwrap();
    assert!(row.contains(" 16 ") && row.contains("100.0 (81-100)"), "{all}");
    for name in ["scores.csv", "tasks.csv", "reliability.csv", "coverage.csv", "curve.svg", "eagerness.csv"] {
        assert!(fs::metadata(kept.join(name)).unwrap().len() > 50, "{name}");
    }
    assert_eq!(lines(&kept.join("tasks.csv")).len(), 17);

    // Killed in the middle of the sixth line. The engine answers differently now; five answers are kept.
    let answers = kept.join("answers.jsonl");
    let text = fs::read_to_string(&answers).unwrap();
    let sixth = text.match_indices('\n').nth(4).unwrap().0;
    fs::write(&answers, &text[..sixth + 30]).unwrap();
    let all = table(&[&tasks, "--engine", &script(0).written(), "--out", out]);
    let row = all.lines().find(|line| line.starts_with("real_line")).unwrap();
    assert!(row.contains(" 31.2 ("), "five of sixteen: {row}");
    assert_eq!(lines(&answers).len(), 16);

    // With another configuration, all are asked again.
    let all = table(&[&tasks, "--engine", &good.written(), "--out", out, "--max-lines", "3"]);
    assert!(all.contains("100.0 (81-100)"), "{all}");
    assert_eq!(lines(&answers).len(), 32);
}

#[test]
fn score_regression_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let kept = folder.path().join("out");
    table(&[&tasks, "--engine", &script(12).written(), "--out", kept.to_str().unwrap()]);
    let scores = kept.join("scores.csv");
    let check = |right: usize, tasks: &str, more: &[&str]| {
        let engine = script(right);
        let engine = engine.written();
        let arguments = [&[tasks, "--engine", &engine, "--check", scores.to_str().unwrap()], more].concat();
        let output = eval(&arguments);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert!(check(12, &tasks, &[]).0);
    assert!(check(16, &tasks, &[]).0, "an improvement passes");
    let (passed, output) = check(6, &tasks, &[]);
    assert!(!passed && output.contains("exact of real_line line all: 0.3750, was 0.7500"), "{output}");
    assert!(!output.contains("parses"), "{output}");
    let (passed, output) = check(12, &tasks, &["--sample", "3"]);
    assert!(!passed && output.contains("3 tasks and had 16"), "{output}");
}

#[test]
fn explain_prints_prompt_cuts_and_scores() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let script = Script::new().when("f03(a, b):\n    ", "return a + b\n    print(1)\n");
    let output = table(&[&tasks, "--engine", &script.written(), "--explain", "task 3", "--suggest", "line"]);
    for part in ["<|fim_suffix|>", "def f03", "\nend of the line: \"return a + b\"", "exact true"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    let refused = failure_message(&[&tasks, "--engine", &script.written(), "--explain", "task 99"]);
    assert!(refused.contains("no task has the id `task 99`; the first is `task 0`"), "{refused}");
}

#[test]
fn tune_proposes_a_form_row() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let output = table(&[&tasks, "--sample", "4", "--engine", &script(16).written(), "--tune", "scripted"]);
    assert!(output.contains("FormRow {") && output.contains("words: &[\"scripted\"]"), "{output}");
    assert!(
        output.contains("anchored 20") && output.contains("no header") && output.contains("suffix 64"),
        "{output}"
    );
}

#[test]
fn option_without_effect_is_rejected() {
    for (options, expected) in [
        (["--by", "likelihood"].as_slice(), "--tune <NAME|PATH>"),
        (&["--by", "likelihood", "--model", "x"], "cannot be used with '--model"),
        (&["--by", "likelihood", "--check", "x"], "cannot be used with '--check"),
        (&["--baseline", "infill"], "--against-llama <URL>"),
        (&["--baseline", "infill", "--check", "x"], "cannot be used with '--check"),
        (&["--baseline", "infill", "--tune", "x"], "cannot be used with '--tune"),
        (&["--baseline", "infill", "--explain", "x"], "cannot be used with '--explain"),
    ] {
        let output = eval(&[&["tasks.jsonl"], options].concat());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && message.contains(expected), "{options:?}: {message}");
    }
}

#[test]
fn unusable_arguments_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let engine = script(1);
    let engine = engine.written();
    let refused = |more: &[&str]| failure_message(&[&[tasks.as_str(), "--engine", &engine], more].concat());
    assert!(refused(&["--against-llama", "localhost"]).contains("http://127.0.0.1:8080"));
    // No server listens on a port that was just released.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let silent = refused(&["--against-llama", &format!("http://127.0.0.1:{port}")]);
    assert!(silent.contains("llama-server"), "{silent}");
    assert!(refused(&["--tune", "scripted", "--by", "likelihood"]).contains("reports no probabilities"));
    assert!(refused(&["--check", "nowhere.csv"]).contains("nowhere.csv"));
    assert!(refused(&["--check", &tasks]).contains("not a scores.csv"));
    let empty = folder.path().join("empty.jsonl");
    fs::write(&empty, "\n").unwrap();
    assert!(failure_message(&[empty.to_str().unwrap(), "--engine", &engine]).contains("no tasks"));
    fs::write(&empty, "{\"id\": 1}\n").unwrap();
    assert!(failure_message(&[empty.to_str().unwrap(), "--engine", &engine]).contains("empty.jsonl:1"));
    assert_eq!(eval(&["--engine", &engine]).status.code(), Some(2));
}

/// A llama.cpp server that always returns the same; its address, and a file that records the requests.
fn llama(folder: &Path) -> (String, PathBuf) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let record = folder.join("requests");
    let mut asked = fs::File::create(&record).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            let mut first = String::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if first.is_empty() {
                    first.clone_from(&line);
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            writeln!(asked, "{} {}", first.trim(), String::from_utf8(body).unwrap()).unwrap();
            let answer =
                json!({ "content": "return a + b\nx = 1", "tokens_evaluated": 9, "stop_type": "eos" })
                    .to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            write!(stream, "{head}content-length: {}\r\n\r\n{answer}", answer.len()).unwrap();
        }
    });
    (address, record)
}

#[test]
fn llama_cpp_gets_infill_and_bare_requests() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let (address, record) = llama(folder.path());
    let output = table(&[&tasks, "--engine", &script(8).written(), "--against-llama", &address]);
    for system in ["taper", "llama /infill", "llama bare"] {
        assert!(
            output.lines().any(|line| line.starts_with("real_line") && line.contains(system)),
            "{output}"
        );
    }
    assert!(output.contains("exact 0.50 ("), "{output}");
    let asked = lines(&record);
    assert_eq!(asked.len(), 32);
    assert!(asked[0].starts_with("POST /infill") && asked[0].contains("\"prompt\":\"    \""), "{}", asked[0]);
    assert!(asked[0].contains("\"temperature\":0.0"), "{}", asked[0]);
    let bare = "<|fim_prefix|>def f";
    assert!(asked[31].starts_with("POST /completion") && asked[31].contains(bare), "{}", asked[31]);
    assert!(asked[31].contains("<|fim_suffix|>\\n<|fim_middle|>"), "{}", asked[31]);
}

#[test]
fn baseline_option_selects_the_llama_cpp_request() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let (address, record) = llama(folder.path());
    let script = script(8);
    let written = script.written();
    let asked = [tasks.as_str(), "--engine", &written, "--against-llama", &address];
    let output = table(&[&asked[..], &["--baseline", "infill"]].concat());
    assert!(output.contains("llama /infill") && !output.contains("llama bare"), "{output}");
    let requests = lines(&record);
    assert!(requests.len() == 16 && requests.iter().all(|it| it.starts_with("POST /infill")));
    // Greedy decoding is our own and not a baseline.
    let both = table(&[&asked[..], &["--baseline", "infill", "--greedy"]].concat());
    let over = |others: &str| {
        let from = both.find(&format!("taper over {others} (")).unwrap_or_else(|| panic!("{others}: {both}"));
        both[from..].split("\n\n").next().unwrap_or("").to_owned()
    };
    let (greedy, llama) = (over("greedy decoding"), over("the better of the others"));
    assert!(greedy.contains("exact 1.00 (") && !greedy.contains("infill"), "{both}");
    assert!(llama.contains("exact 0.50 (") && !llama.contains("greedy"), "{both}");
    let unknown = eval(&[&asked[..], &["--baseline", "none"]].concat());
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(eval(&[&asked[..3], &["--baseline", "infill"]].concat()).status.code(), Some(2));
}

#[test]
fn alternatives_count_for_exact_any() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let out = folder.path().join("out");
    let script = (0..16).fold(Script::new(), |script, at| {
        let script = script.when(&format!("f{at:02}(a, b):\n    "), "return a - b");
        if at < 8 { script.or("return a + b") } else { script }
    });
    let written = script.written();
    let asked = [tasks.as_str(), "--engine", &written, "--out", out.to_str().unwrap()];
    let all = table(&[&asked[..], &["--candidates", "3"]].concat());
    let row = all.lines().find(|line| line.starts_with("real_line")).unwrap();
    assert!(row.contains(" 0.0 (0-19)") && row.contains(" 50.0 (28-72)") && row.contains(" 1.5 "), "{all}");
    // A run without alternatives has neither the columns nor these answers.
    assert!(!table(&asked).contains("any %"));
    assert_eq!(eval(&[&asked[..], &["--candidates", "4"]].concat()).status.code(), Some(2));
}

#[test]
fn gain_of_alternatives_over_greedy_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    // The greedy answer repeats the line below, so nothing of it can be shown.
    let tasks = tasks_above(folder.path(), "\n    raise ValueError\n");
    let out = folder.path().join("out");
    let script = (0..16).fold(Script::new().probability(0.9), |script, at| {
        let script = script.when(&format!("f{at:02}(a, b):\n    "), "raise ValueError\n");
        if at < 8 { script.or_with("return a + b\n", 0.97) } else { script }
    });
    let written = script.written();
    let asked = [tasks.as_str(), "--engine", &written, "--eagerness", "high", "--out", out.to_str().unwrap()];
    for run in 0..2 {
        let all = table(&[&asked[..], &["--greedy"]].concat());
        let row = |system: &str| {
            let row = all.lines().find(|it| it.starts_with("real_line") && it.contains(system));
            row.unwrap_or_else(|| panic!("no {system} in {all}")).to_owned()
        };
        assert!(row(" taper ").contains(" 50.0 (28-72)"), "{run}: {all}");
        assert!(row(" greedy ").contains(" 0.0 (0-19)"), "{run}: {all}");
    }
    // The same answers serve both.
    assert_eq!(lines(&out.join("answers.jsonl")).len(), 16);
    assert!(!table(&asked).contains("greedy"));
    // These would count the answers twice, or mix them with alternatives to another first suggestion.
    for more in [&["--curve"][..], &["--candidates", "3"]] {
        assert_eq!(eval(&[&asked[..], &["--greedy"], more].concat()).status.code(), Some(2));
    }
}
