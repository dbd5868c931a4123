//! Tests of the scripted engine.
//! They know nothing of what uses it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use std::fs;

use super::*;

const MANY: Limits = Limits { max_tokens: 1000, stale: 0, background: false };

fn prompt(engine: &Scripted, text: &str, forced: &[u8]) -> Prompt {
    let mut tokens = engine.tokens.encode(text);
    tokens.push(engine.tokens.id("<|fim_middle|>").unwrap());
    Prompt { tokens, forced: forced.to_vec(), ..Prompt::default() }
}

fn run(engine: &mut Scripted, prompt: &Prompt, limits: &Limits) -> Generation {
    engine.generate(prompt, limits, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn the_first_rule_that_fits_answers() {
    let mut engine = Scripted::new()
        .when("add<|fim_middle|>", "(a, b)")
        .when("def", "ault")
        .answering(|prompt| prompt.len().to_string());
    for (text, answer) in [("def add", "(a, b)"), ("def x", "ault"), ("x", "15")] {
        let prompt = prompt(&engine, text, b"");
        let out = run(&mut engine, &prompt, &MANY);
        assert_eq!((out.text.as_str(), out.stop), (answer, Stop::EndOfText));
        assert_eq!(out.pieces.last().unwrap().end, answer.len());
    }
}

#[test]
fn forced_bytes_are_spelled_and_left_out() {
    let mut engine = Scripted::new().when("", "return é");
    for (forced, text) in
        [("ret", "urn é"), ("return é", ""), ("xy", "return é"), ("数", "return é"), ("", "return é")]
    {
        let prompt = prompt(&engine, "a", forced.as_bytes());
        assert_eq!(run(&mut engine, &prompt, &MANY).text, text);
    }
}

#[test]
fn limits_and_watch_end_it() {
    let mut engine = Scripted::new().when("", "abcdefgh");
    let prompt = prompt(&engine, "x", b"");
    let out = run(&mut engine, &prompt, &Limits { max_tokens: 3, ..Limits::default() });
    assert_eq!((out.text.as_str(), out.stop, out.pieces.len()), ("abc", Stop::Limit, 3));
    let out = run(&mut engine, &prompt, &Limits { max_tokens: 0, ..Limits::default() });
    assert_eq!((out.text.as_str(), out.stop), ("", Stop::Limit));
    let mut seen = Vec::new();
    let out = engine
        .generate(&prompt, &MANY, &mut |Said { text, .. }| {
            seen.push(text.to_owned());
            if text == "ab" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((out.text.as_str(), out.stop), ("ab", Stop::Watch));
    assert_eq!(seen, ["", "a", "ab"]);
    let mut small = Scripted::new().when("", "abcdefgh").context(4);
    assert_eq!(run(&mut small, &prompt, &MANY).text, "ab");
    let long = Prompt { tokens: vec![0; 5], forced: Vec::new(), ..Prompt::default() };
    assert!(small.generate(&long, &MANY, &mut |_| ControlFlow::Continue(())).is_err());
}

#[test]
fn the_cache_survives_what_watch_broke_off() {
    let mut engine = Scripted::new().when("", "xyz");
    let prompt = prompt(&engine, &"q".repeat(3 * CHUNK), b"");
    let mut chunks = 0;
    let out = engine
        .generate(&prompt, &MANY, &mut |_| {
            chunks += 1;
            if chunks == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((out.stop, out.reused, out.evaluated), (Stop::Watch, 0, 2 * CHUNK));
    let out = run(&mut engine, &prompt, &MANY);
    assert_eq!((out.reused, out.evaluated), (2 * CHUNK, CHUNK + 1));
    let out = run(&mut engine, &prompt, &MANY);
    assert_eq!((out.reused, out.evaluated), (3 * CHUNK, 1));
    engine.clear();
    assert_eq!(run(&mut engine, &prompt, &MANY).reused, 0);
}

#[test]
fn sequences_are_held_side_by_side() {
    let mut engine = Scripted::new().when("", "x");
    let of = |engine: &Scripted, letter: &str, letters: usize| {
        prompt(engine, &format!("{}{}", "q".repeat(100), letter.repeat(letters)), b"")
    };
    let prompts = ["a", "b", "c", "d", "e"].map(|letter| of(&engine, letter, 100));
    for (at, prompt) in prompts.iter().enumerate() {
        assert_eq!(run(&mut engine, prompt, &MANY).reused, if at == 0 { 0 } else { 100 });
    }
    let unread = |engine: &Scripted, prompt: &Prompt| engine.unread(prompt, &Limits::default());
    assert_eq!(prompts.each_ref().map(|prompt| unread(&engine, prompt)), [101, 0, 0, 0, 0]);
    // Typed on, a sequence is gone on with: no other one goes for it.
    let longer = of(&engine, "b", 120);
    assert_eq!(run(&mut engine, &longer, &MANY).reused, 200);
    assert_eq!(prompts.each_ref().map(|prompt| unread(&engine, prompt)), [101, 1, 0, 0, 0]);
}

#[test]
fn a_suffix_is_moved_until_it_has_missed_too_much() {
    let mut engine = Scripted::new().when("", "x");
    let of = |engine: &Scripted, before: usize| {
        let tokens = |text: &str| engine.tokens.encode(text);
        let [suffix, middle] = ["<|fim_suffix|>", "<|fim_middle|>"].map(|it| engine.tokens.id(it).unwrap());
        let mut all = tokens(&"q".repeat(before));
        all.push(suffix);
        let from = all.len();
        all.extend(tokens(&"s".repeat(50)));
        let suffix = from..all.len();
        all.push(middle);
        Prompt { tokens: all, forced: Vec::new(), suffix }
    };
    let stale = |stale| Limits { max_tokens: 10, stale, background: false };
    let first = of(&engine, 100);
    assert_eq!(run(&mut engine, &first, &stale(8)).evaluated, 152);
    for (typed, evaluated) in [(4, 6), (8, 6), (9, 53), (17, 10), (18, 53)] {
        let prompt = of(&engine, 100 + typed);
        assert_eq!(engine.unread(&prompt, &stale(8)), evaluated, "{typed}");
        assert_eq!(run(&mut engine, &prompt, &stale(8)).evaluated, evaluated, "{typed}");
    }
    // Exactly as from an empty cache: what missed something is read again.
    let prompt = of(&engine, 120);
    run(&mut engine, &prompt, &stale(8));
    assert_eq!(engine.unread(&prompt, &stale(0)), 51);
    assert_eq!(run(&mut engine, &prompt, &stale(0)).evaluated, 51);
    assert_eq!(engine.unread(&prompt, &stale(0)), 0);
}

#[test]
fn a_delay_asks_watch_all_the_while() {
    // A minute for each token: only `watch` can end it.
    let minute = Duration::from_secs(60);
    for engine in [Scripted::new().prefill_delay(minute), Scripted::new().when("", "x").decode_delay(minute)]
    {
        let mut engine = engine;
        let prompt = prompt(&engine, "x", b"");
        let mut calls = 0;
        let out = engine
            .generate(&prompt, &MANY, &mut |_| {
                calls += 1;
                if calls == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!((out.stop, out.text.as_str()), (Stop::Watch, ""));
    }
}

#[test]
fn it_fails_and_panics_when_told_and_goes_on() {
    let mut engine = Scripted::new();
    engine.rules.push(Rule::new("broken", Action::Fail("no device".to_owned())));
    engine.rules.push(Rule::new("dropped", Action::Panic));
    let mut engine = engine.when("", "ok");
    let broken = prompt(&engine, "broken", b"");
    let error = engine.generate(&broken, &MANY, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("no device"));
    let dropped = prompt(&engine, "dropped", b"");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = engine.generate(&dropped, &MANY, &mut |_| ControlFlow::Continue(()));
    }));
    assert!(caught.is_err());
    engine.clear();
    let fine = prompt(&engine, "fine", b"");
    assert_eq!(run(&mut engine, &fine, &MANY).text, "ok");
}

#[test]
fn a_script_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    let script = "# a comment\n\nprefill-ms 0\ndecode-ms 0.001\ncontext 100\nwhen def\\n\nanswer \\tpass\\\\\\n\\s\n  when x\nfail gone\nprobability 0.5\nwhen y\nanswer ab\nor ac\nor-with 0.25 ad\notherwise\nanswer\n";
    fs::write(&path, script).unwrap();
    let mut engine = Scripted::from_file(&path).unwrap();
    assert_eq!(engine.about().context, 100);
    assert_eq!(engine.decode_delay, Duration::from_micros(1));
    let def = prompt(&engine, "def\n", b"");
    assert_eq!(run(&mut engine, &def, &MANY).text, "\tpass\\\n ");
    let other = prompt(&engine, "other", b"");
    assert_eq!(run(&mut engine, &other, &MANY).text, "");
    let y = prompt(&engine, "y", b"");
    assert_eq!(run(&mut engine, &y, &MANY).pieces[0].probability, 0.5);
    let mut branches = Vec::new();
    engine
        .branch(&Branching { most: 9, within: 9, max_tokens: 9 }, &mut |branch| {
            if branch.ended {
                let likely: Vec<f32> = branch.generation.pieces.iter().map(|it| it.probability).collect();
                branches.push((branch.generation.text.clone(), likely));
            }
            Growth::On
        })
        .unwrap();
    assert_eq!(branches, [("ac".to_owned(), vec![0.5, 0.1]), ("ad".to_owned(), vec![0.5, 0.25])]);
    let x = prompt(&engine, "x", b"");
    assert!(engine.generate(&x, &MANY, &mut |_| ControlFlow::Continue(())).is_err());

    for (script, line) in [
        ("answer x", "line 1"),
        ("when a\nwhen b\nanswer x", "line 2"),
        ("otherwise", "last line"),
        ("\nsay x", "line 2"),
        ("decode-ms soon", "line 1"),
        ("decode-ms -1", "line 1"),
        ("probability 2", "line 1"),
        ("when a\nanswer b\nor-with c", "line 3"),
        ("or-with 0.5 b", "line 1"),
    ] {
        fs::write(&path, script).unwrap();
        let message = Scripted::from_file(&path).unwrap_err().to_string();
        assert!(message.contains(line) && message.contains("answer TEXT"), "{message}");
    }
    assert!(Scripted::from_file(&folder.path().join("none")).is_err());
}
