//! Tests of the scripted engine.
use std::fs;

use super::*;

const MANY_TOKENS: GenerationLimits =
    GenerationLimits { max_tokens: 1000, max_stale_tokens: 0, background: false };

fn encode_prompt(engine: &ScriptedEngine, text: &str, forced: &[u8]) -> Prompt {
    let mut tokens = engine.tokenizer.encode(text);
    tokens.push(engine.tokenizer.special_id("<|fim_middle|>").unwrap());
    Prompt { tokens, healing_bytes: forced.to_vec(), ..Prompt::default() }
}

fn generate_unwatched(engine: &mut ScriptedEngine, prompt: &Prompt, limits: &GenerationLimits) -> Generation {
    engine.generate(prompt, limits, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn first_matching_rule_answers() {
    let mut engine = ScriptedEngine::new()
        .answer_when("add<|fim_middle|>", "(a, b)")
        .answer_when("def", "ault")
        .answer_with(|prompt| prompt.len().to_string());
    for (text, answer) in [("def add", "(a, b)"), ("def x", "ault"), ("x", "15")] {
        let prompt = encode_prompt(&engine, text, b"");
        let out = generate_unwatched(&mut engine, &prompt, &MANY_TOKENS);
        assert_eq!((out.text.as_str(), out.stop), (answer, StopReason::EndOfText));
        assert_eq!(out.tokens.last().unwrap().end, answer.len());
    }
}

#[test]
fn healing_bytes_are_spelled_and_left_out() {
    let mut engine = ScriptedEngine::new().answer_when("", "return é");
    for (forced, text) in
        [("ret", "urn é"), ("return é", ""), ("xy", "return é"), ("数", "return é"), ("", "return é")]
    {
        let prompt = encode_prompt(&engine, "a", forced.as_bytes());
        assert_eq!(generate_unwatched(&mut engine, &prompt, &MANY_TOKENS).text, text);
    }
}

#[test]
fn limits_and_callback_end_generation() {
    let mut engine = ScriptedEngine::new().answer_when("", "abcdefgh");
    let prompt = encode_prompt(&engine, "x", b"");
    let out = generate_unwatched(
        &mut engine,
        &prompt,
        &GenerationLimits { max_tokens: 3, ..GenerationLimits::default() },
    );
    assert_eq!((out.text.as_str(), out.stop, out.tokens.len()), ("abc", StopReason::Limit, 3));
    let out = generate_unwatched(
        &mut engine,
        &prompt,
        &GenerationLimits { max_tokens: 0, ..GenerationLimits::default() },
    );
    assert_eq!((out.text.as_str(), out.stop), ("", StopReason::Limit));
    let mut seen = Vec::new();
    let out = engine
        .generate(&prompt, &MANY_TOKENS, &mut |PartialOutput { text, .. }| {
            seen.push(text.to_owned());
            if text == "ab" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((out.text.as_str(), out.stop), ("ab", StopReason::Interrupted));
    assert_eq!(seen, ["", "a", "ab"]);
    let mut small = ScriptedEngine::new().answer_when("", "abcdefgh").with_context(4);
    assert_eq!(generate_unwatched(&mut small, &prompt, &MANY_TOKENS).text, "ab");
    let long = Prompt { tokens: vec![0; 5], healing_bytes: Vec::new(), ..Prompt::default() };
    assert!(small.generate(&long, &MANY_TOKENS, &mut |_| ControlFlow::Continue(())).is_err());
}

#[test]
fn cache_survives_interrupted_generation() {
    let mut engine = ScriptedEngine::new().answer_when("", "xyz");
    let prompt = encode_prompt(&engine, &"q".repeat(3 * PREFILL_CHUNK_TOKENS), b"");
    let mut chunks = 0;
    let out = engine
        .generate(&prompt, &MANY_TOKENS, &mut |_| {
            chunks += 1;
            if chunks == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((out.stop, out.reused, out.evaluated), (StopReason::Interrupted, 0, 2 * PREFILL_CHUNK_TOKENS));
    let out = generate_unwatched(&mut engine, &prompt, &MANY_TOKENS);
    assert_eq!((out.reused, out.evaluated), (2 * PREFILL_CHUNK_TOKENS, PREFILL_CHUNK_TOKENS + 1));
    let out = generate_unwatched(&mut engine, &prompt, &MANY_TOKENS);
    assert_eq!((out.reused, out.evaluated), (3 * PREFILL_CHUNK_TOKENS, 1));
    engine.clear();
    assert_eq!(generate_unwatched(&mut engine, &prompt, &MANY_TOKENS).reused, 0);
}

#[test]
fn several_sequences_are_cached() {
    let mut engine = ScriptedEngine::new().answer_when("", "x");
    let of = |engine: &ScriptedEngine, letter: &str, letters: usize| {
        encode_prompt(engine, &format!("{}{}", "q".repeat(100), letter.repeat(letters)), b"")
    };
    let prompts = ["a", "b", "c", "d", "e"].map(|letter| of(&engine, letter, 100));
    for (at, prompt) in prompts.iter().enumerate() {
        assert_eq!(
            generate_unwatched(&mut engine, prompt, &MANY_TOKENS).reused,
            if at == 0 { 0 } else { 100 }
        );
    }
    let unread = |engine: &ScriptedEngine, prompt: &Prompt| {
        engine.uncached_token_count(prompt, &GenerationLimits::default())
    };
    assert_eq!(prompts.each_ref().map(|prompt| unread(&engine, prompt)), [101, 0, 0, 0, 0]);
    // A longer prompt continues its sequence: no other sequence is evicted.
    let longer = of(&engine, "b", 120);
    assert_eq!(generate_unwatched(&mut engine, &longer, &MANY_TOKENS).reused, 200);
    assert_eq!(prompts.each_ref().map(|prompt| unread(&engine, prompt)), [101, 1, 0, 0, 0]);
}

#[test]
fn suffix_is_shifted_until_max_stale_tokens() {
    let mut engine = ScriptedEngine::new().answer_when("", "x");
    let of = |engine: &ScriptedEngine, before: usize| {
        let tokens = |text: &str| engine.tokenizer.encode(text);
        let [suffix, middle] =
            ["<|fim_suffix|>", "<|fim_middle|>"].map(|it| engine.tokenizer.special_id(it).unwrap());
        let mut all = tokens(&"q".repeat(before));
        all.push(suffix);
        let from = all.len();
        all.extend(tokens(&"s".repeat(50)));
        let suffix = from..all.len();
        all.push(middle);
        Prompt { tokens: all, healing_bytes: Vec::new(), suffix }
    };
    let stale = |stale| GenerationLimits { max_tokens: 10, max_stale_tokens: stale, background: false };
    let first = of(&engine, 100);
    assert_eq!(generate_unwatched(&mut engine, &first, &stale(8)).evaluated, 152);
    for (typed, evaluated) in [(4, 6), (8, 6), (9, 53), (17, 10), (18, 53)] {
        let prompt = of(&engine, 100 + typed);
        assert_eq!(engine.uncached_token_count(&prompt, &stale(8)), evaluated, "{typed}");
        assert_eq!(generate_unwatched(&mut engine, &prompt, &stale(8)).evaluated, evaluated, "{typed}");
    }
    // Exact, as with an empty cache: stale tokens are evaluated again.
    let prompt = of(&engine, 120);
    generate_unwatched(&mut engine, &prompt, &stale(8));
    assert_eq!(engine.uncached_token_count(&prompt, &stale(0)), 51);
    assert_eq!(generate_unwatched(&mut engine, &prompt, &stale(0)).evaluated, 51);
    assert_eq!(engine.uncached_token_count(&prompt, &stale(0)), 0);
}

#[test]
fn callback_is_polled_during_delays() {
    // A minute for each token: only `watch` can end it.
    let minute = Duration::from_secs(60);
    for engine in [
        ScriptedEngine::new().prefill_delay(minute),
        ScriptedEngine::new().answer_when("", "x").decode_delay(minute),
    ] {
        let mut engine = engine;
        let prompt = encode_prompt(&engine, "x", b"");
        let mut calls = 0;
        let out = engine
            .generate(&prompt, &MANY_TOKENS, &mut |_| {
                calls += 1;
                if calls == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!((out.stop, out.text.as_str()), (StopReason::Interrupted, ""));
    }
}

#[test]
fn closed_gate_holds_answer_and_alternative() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("open");
    let mut engine =
        ScriptedEngine::new().with_gate(&gate).answer_when("", "ab⏸cd").or_answer("x⏸y").or_answer("z");
    let prompt = encode_prompt(&engine, "a", b"");
    let mut polls = 0;
    let held = engine.generate(&prompt, &MANY_TOKENS, &mut |output| {
        polls += usize::from(output.text == "ab");
        if polls > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((held.unwrap().text.as_str(), polls), ("ab", 4));
    let limits = BranchLimits { max_branches: 2, within_bytes: 1, max_tokens: 9 };
    // Aborts once one branch has ended and the other is held.
    let branch = |engine: &mut ScriptedEngine| {
        let mut ended = Vec::new();
        let watch = &mut |branch: &BranchOutput<'_>| {
            let text = &branch.generation.text;
            ended.extend(branch.finished.then(|| text.clone()));
            if ended == ["z"] && text == "x" { BranchControl::Abort } else { BranchControl::Continue }
        };
        engine.branch(&limits, watch).unwrap();
        ended
    };
    assert_eq!(branch(&mut engine), ["z"]);
    fs::write(&gate, "").unwrap();
    assert_eq!(generate_unwatched(&mut engine, &prompt, &MANY_TOKENS).text, "abcd");
    assert_eq!(branch(&mut engine), ["z", "xy"]);
}

#[test]
fn scripted_failures_and_panics_leave_engine_usable() {
    let mut engine = ScriptedEngine::new();
    engine.rules.push(ScriptRule::new("broken", ScriptAction::Fail("no device".to_owned())));
    engine.rules.push(ScriptRule::new("dropped", ScriptAction::Panic));
    let mut engine = engine.answer_when("", "ok");
    let broken = encode_prompt(&engine, "broken", b"");
    let error = engine.generate(&broken, &MANY_TOKENS, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("no device"));
    let dropped = encode_prompt(&engine, "dropped", b"");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = engine.generate(&dropped, &MANY_TOKENS, &mut |_| ControlFlow::Continue(()));
    }));
    assert!(caught.is_err());
    engine.clear();
    let fine = encode_prompt(&engine, "fine", b"");
    assert_eq!(generate_unwatched(&mut engine, &fine, &MANY_TOKENS).text, "ok");
}

#[test]
fn script_file_is_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    let script = "# a comment\n\nprefill-ms 0\ndecode-ms 0.001\ncontext 100\nwhen def\\n\nanswer \\tpass\\\\\\n\\s\n  when x\nfail gone\nprobability 0.5\nwhen y\nanswer ab\nor ac\nor-with 0.25 ad\notherwise\nanswer\n";
    fs::write(&path, script).unwrap();
    let mut engine = ScriptedEngine::from_file(&path).unwrap();
    assert_eq!(engine.engine_info().context, 100);
    assert_eq!(engine.decode_delay, Duration::from_micros(1));
    let def = encode_prompt(&engine, "def\n", b"");
    assert_eq!(generate_unwatched(&mut engine, &def, &MANY_TOKENS).text, "\tpass\\\n ");
    let other = encode_prompt(&engine, "other", b"");
    assert_eq!(generate_unwatched(&mut engine, &other, &MANY_TOKENS).text, "");
    let y = encode_prompt(&engine, "y", b"");
    assert_eq!(generate_unwatched(&mut engine, &y, &MANY_TOKENS).tokens[0].probability, 0.5);
    let mut branches = Vec::new();
    engine
        .branch(&BranchLimits { max_branches: 9, within_bytes: 9, max_tokens: 9 }, &mut |branch| {
            if branch.finished {
                let likely: Vec<f32> = branch.generation.tokens.iter().map(|it| it.probability).collect();
                branches.push((branch.generation.text.clone(), likely));
            }
            BranchControl::Continue
        })
        .unwrap();
    assert_eq!(branches, [("ac".to_owned(), vec![0.5, 0.1]), ("ad".to_owned(), vec![0.5, 0.25])]);
    let x = encode_prompt(&engine, "x", b"");
    assert!(engine.generate(&x, &MANY_TOKENS, &mut |_| ControlFlow::Continue(())).is_err());

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
        let message = ScriptedEngine::from_file(&path).unwrap_err().to_string();
        assert!(message.contains(line) && message.contains("answer TEXT"), "{message}");
    }
    assert!(ScriptedEngine::from_file(&folder.path().join("none")).is_err());
}
