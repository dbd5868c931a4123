//! Random documents and edits through an engine with resident sequences and moved suffixes, beside a fresh one.
//! It knows nothing of languages: its documents are random tokens.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ops::ControlFlow;

use crate::gguf::Value;
use crate::gguf::testing::{Dims, Writer, random_llama, random_qwen2, random_qwen3};
use crate::local::Local;
use crate::local::tests::{ordinary, pair, repetitive};
use crate::{Engine, Generation, Limits, Prompt, Stop, TokenId};

/// Models to try moved suffixes with: both ways to rotate, part of a head rotated, queries and keys normed.
fn rotating() -> Vec<Writer> {
    let dims = Dims::default();
    let half = Value::Unsigned((dims.hidden / dims.heads / 2) as u64);
    let qwen2 = random_qwen2(3, &dims).unwrap();
    let llama = random_llama(3, &dims).unwrap();
    vec![
        qwen2.clone().metadata("qwen2.rope.dimension_count", half.clone()),
        llama.clone().metadata("llama.rope.dimension_count", half),
        qwen2,
        llama,
        random_qwen3(3, &dims).unwrap(),
    ]
}

/// A file of tokens with a cursor, as a prompt of the form prefix, suffix, middle, tail.
#[derive(Clone)]
struct Document {
    prefix: Vec<TokenId>,
    suffix: Vec<TokenId>,
    /// Behind the middle token.
    tail: Vec<TokenId>,
}

impl Document {
    fn random(engine: &Local, random: &mut fastrand::Rng) -> Self {
        let lens = [random.usize(1..150), random.usize(0..90), random.usize(0..20)];
        let [prefix, suffix, tail] = lens.map(|len| ordinary(engine, random, len));
        Self { prefix, suffix, tail }
    }

    fn prompt(&self, engine: &Local) -> Prompt {
        let fim = engine.tokens.fim();
        let mut tokens: Vec<TokenId> = fim.prefix.into_iter().chain(self.prefix.iter().copied()).collect();
        tokens.extend(fim.suffix);
        let start = tokens.len();
        tokens.extend_from_slice(&self.suffix);
        let suffix = start..tokens.len();
        tokens.extend(fim.middle);
        tokens.extend_from_slice(&self.tail);
        Prompt { tokens, forced: Vec::new(), suffix }
    }

    fn edit(&mut self, engine: &Local, random: &mut fastrand::Rng) {
        let some = random.usize(1..8);
        let new = ordinary(engine, random, some);
        let text = if random.u8(..5) == 0 { &mut self.tail } else { &mut self.prefix };
        match random.u8(..10) {
            0..5 => text.extend(new),
            5..7 => text.truncate(text.len().saturating_sub(some)),
            7 => {
                let at = random.usize(..=text.len());
                text.splice(at..at, new);
            }
            8 => {
                // As an editor closes brackets.
                self.suffix.splice(0..0, new);
            }
            _ => {
                // The anchor moves.
                let at = some.min(self.tail.len());
                self.prefix.extend(self.tail.drain(..at));
            }
        }
        self.prefix.truncate(220);
        self.suffix.truncate(120);
        self.tail.truncate(40);
    }
}

fn ask(engine: &mut Local, prompt: &Prompt, limits: Limits, looks: usize) -> Generation {
    let mut left = looks;
    let mut generation = engine
        .generate(prompt, &limits, &mut |_| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(engine.sequences.tokens().len(), engine.decoder.len());
    (generation.prefill, generation.decode) = Default::default();
    generation
}

fn visit(engine: &mut Local, document: &Document, limits: Limits) -> Generation {
    let prompt = document.prompt(engine);
    ask(engine, &prompt, limits, usize::MAX)
}

#[test]
fn whatever_was_asked_before_an_exact_answer_is_a_fresh_one() {
    let mut random = fastrand::Rng::with_seed(12);
    for (seed, writer) in rotating().iter().enumerate() {
        let (mut fresh, others) = pair(writer, 512);
        for mut engine in [pair(writer, 512).0].into_iter().chain(others) {
            // Little memory at times: sequences are given up.
            if seed % 2 == 0 {
                engine.sequences.hold_at_most(engine.decoder.bytes_of(900));
            }
            let mut documents: Vec<Document> =
                (0..4).map(|_| Document::random(&engine, &mut random)).collect();
            let (mut moved, mut evaluated, mut total) = (0, 0, 0);
            for _ in 0..60 {
                let at = random.usize(..documents.len());
                let document = &mut documents[at];
                for _ in 0..random.usize(..3) {
                    document.edit(&engine, &mut random);
                }
                if random.u8(..20) == 0 {
                    *document = Document::random(&engine, &mut random);
                }
                let mut prompt = document.prompt(&engine);
                if random.u8(..10) == 0 {
                    // A window of its own, or the beginning of the whole one.
                    let cut = random.usize(..prompt.tokens.len());
                    prompt.tokens.truncate(cut.max(1));
                    prompt.suffix = 0..0;
                }
                let stale = [0, 0, 8, 40][random.usize(..4)];
                let limits = Limits { max_tokens: random.usize(..6), stale, ..Limits::default() };
                let looks = if random.u8(..4) == 0 { random.usize(1..12) } else { usize::MAX };
                let unread = engine.unread(&prompt, &limits);
                // What interrupted questions have left is no work any more, but its end is still to come.
                let starts = engine.sequences.starts(engine.decoder.as_ref(), &prompt, &limits, false);
                let begun = starts.map(|start| start.begun).max().unwrap();
                let ours = ask(&mut engine, &prompt, limits, looks);
                if looks == usize::MAX {
                    assert_eq!(ours.reused + ours.evaluated, prompt.tokens.len());
                    assert!(ours.evaluated - unread <= 1 + begun, "{unread} announced: {ours:?}");
                    let exact = engine.unread(&prompt, &Limits::default());
                    moved += usize::from(exact > 0 && stale > 0);
                    evaluated += ours.evaluated;
                    total += prompt.tokens.len();
                }
                // The same again and exactly, now and then: as an empty cache says it, to the last bit.
                if stale == 0 && looks < usize::MAX || stale > 0 && random.bool() {
                    continue;
                }
                let limits = Limits { max_tokens: 5, stale: 0, ..Limits::default() };
                let ours = ask(&mut engine, &prompt, limits, usize::MAX);
                fresh.clear();
                let theirs = ask(&mut fresh, &prompt, limits, usize::MAX);
                assert_eq!((ours.text, ours.stop, ours.pieces), (theirs.text, theirs.stop, theirs.pieces));
            }
            assert!(moved > 0 && evaluated * 4 < total * 3, "{moved} moved; {evaluated} of {total}");
        }
    }
}

#[test]
fn questions_that_interrupt_each_other_lose_nothing_that_they_share() {
    let mut random = fastrand::Rng::with_seed(18);
    let dims = Dims { layers: 8, ..Dims::default() };
    for writer in [random_qwen2(4, &dims).unwrap(), random_llama(4, &dims).unwrap()] {
        let (mut fresh, others) = pair(&writer, 512);
        for mut engine in others {
            for round in 0..6 {
                let mut document = Document::random(&engine, &mut random);
                document.prefix = ordinary(&engine, &mut random, 200);
                let elsewhere = Document::random(&engine, &mut random);
                let limits = Limits { max_tokens: random.usize(1..6), ..Limits::default() };
                let read = Limits { background: true, ..Limits::default() };
                let mut before = usize::MAX;
                // Each question is broken off inside the first layer or after a few by the next, which has more text.
                let looks = random.usize(2..60);
                for _ in 0..400 {
                    if round % 2 == 0 {
                        let prompt = elsewhere.prompt(&engine);
                        ask(&mut engine, &prompt, read, 2);
                    }
                    let mut beginning = document.prompt(&engine);
                    beginning.tokens.truncate(200);
                    beginning.suffix = 0..0;
                    let left = engine.unread(&beginning, &read);
                    assert!(left <= before, "{left} of the text are left, it was {before}");
                    before = left;
                    let prompt = document.prompt(&engine);
                    if ask(&mut engine, &prompt, limits, looks).stop != Stop::Watch {
                        break;
                    }
                    document.prefix.extend(ordinary(&engine, &mut random, 1));
                    document.prefix.truncate(220);
                }
                assert!(before < 100, "{before}");
                let prompt = document.prompt(&engine);
                let ours = ask(&mut engine, &prompt, limits, usize::MAX);
                fresh.clear();
                let theirs = ask(&mut fresh, &prompt, limits, usize::MAX);
                assert_eq!((ours.text, ours.stop, ours.pieces), (theirs.text, theirs.stop, theirs.pieces));
                let prompt = elsewhere.prompt(&engine);
                let ours = ask(&mut engine, &prompt, limits, usize::MAX);
                fresh.clear();
                let theirs = ask(&mut fresh, &prompt, limits, usize::MAX);
                assert_eq!((ours.text, ours.stop, ours.pieces), (theirs.text, theirs.stop, theirs.pieces));
            }
        }
    }
}

#[test]
fn a_moved_suffix_is_the_one_that_was_evaluated_at_its_new_place() {
    let mut random = fastrand::Rng::with_seed(13);
    for writer in rotating() {
        let (mut engine, _) = pair(&writer, 512);
        let mut document = Document::random(&engine, &mut random);
        document.suffix = ordinary(&engine, &mut random, 50);
        let limits = Limits { max_tokens: 1, stale: 100, ..Limits::default() };
        visit(&mut engine, &document, limits);
        let begun = document.prefix.len();
        for _ in 0..60 {
            let some = random.usize(1..3);
            document.prefix.extend(ordinary(&engine, &mut random, some));
            let prompt = document.prompt(&engine);
            let typed = document.prefix.len() - begun;
            let unread = engine.unread(&prompt, &limits);
            let generation = ask(&mut engine, &prompt, limits, usize::MAX);
            assert_eq!(unread, generation.evaluated);
            if typed > 100 {
                assert!(generation.evaluated > 50, "{typed}: {generation:?}");
                break;
            }
            // What was typed, the suffix token, the middle token and what is behind it.
            assert_eq!(generation.evaluated, some + 2 + document.tail.len(), "{typed}");
            // Moved once or in many steps is the same to the bit: nothing adds up.
            let tokens = engine.sequences.tokens().to_vec();
            let held = engine.decoder.len();
            let again = ask(&mut engine, &prompt, limits, usize::MAX);
            assert_eq!((tokens.len(), held), (engine.sequences.tokens().len(), engine.decoder.len()));
            let (mut other, _) = pair(&writer, 512);
            let mut first = document.clone();
            first.prefix.truncate(begun);
            visit(&mut other, &first, limits);
            let once = ask(&mut other, &prompt, limits, usize::MAX);
            assert_eq!(once.pieces, generation.pieces);
            assert_eq!(again.pieces, generation.pieces);
        }
        // And read again where nothing stale is allowed.
        let prompt = document.prompt(&engine);
        let exact = Limits { max_tokens: 1, stale: 0, ..Limits::default() };
        let ours = ask(&mut engine, &prompt, exact, usize::MAX);
        engine.clear();
        assert_eq!(ours.pieces, ask(&mut engine, &prompt, exact, usize::MAX).pieces);
    }
}

#[test]
fn moving_says_nearly_what_reading_says() {
    // The first layer's keys and values depend on the token and its position alone: with one layer, a moved suffix
    // differs from a fresh one by rounding only.
    let mut random = fastrand::Rng::with_seed(14);
    let dims = Dims { layers: 1, ..Dims::default() };
    for writer in [random_qwen2(5, &dims).unwrap(), random_llama(5, &dims).unwrap()] {
        let (mut engine, _) = pair(&writer, 512);
        for back in [false, true] {
            engine.clear();
            let mut document = Document::random(&engine, &mut random);
            document.prefix = ordinary(&engine, &mut random, 90);
            document.suffix = ordinary(&engine, &mut random, 70);
            let other = Document {
                prefix: [&document.prefix[..], &document.tail, &document.suffix[..30]].concat(),
                ..document.clone()
            };
            let (first, second) = if back { (other, document) } else { (document, other) };
            let limits = Limits { max_tokens: 1, stale: 200, ..Limits::default() };
            visit(&mut engine, &first, limits);
            let prompt = second.prompt(&engine);
            let moved = ask(&mut engine, &prompt, limits, usize::MAX);
            assert!(moved.reused > 70, "{moved:?}");
            engine.clear();
            let read = ask(&mut engine, &prompt, limits, usize::MAX);
            assert_eq!(moved.text, read.text);
            for (a, b) in moved.pieces.iter().zip(&read.pieces) {
                assert!((a.probability - b.probability).abs() < 0.02 * b.probability, "{a:?} {b:?}");
            }
        }
    }
}

#[test]
fn speculation_behind_a_moved_suffix_says_what_one_by_one_says() {
    let mut random = fastrand::Rng::with_seed(15);
    let text = "return self.values[0].name";
    for writer in rotating() {
        let (mut plain, mut others) = pair(&writer, 512);
        for _ in 0..8 {
            let document = Document {
                prefix: repetitive(&plain, &mut random, 80),
                suffix: repetitive(&plain, &mut random, 40),
                tail: Vec::new(),
            };
            // The text is typed, two characters at a time, and the rest of it is what is to be said.
            for at in (0..text.len() - 8).step_by(2) {
                let mut typed = document.clone();
                typed.prefix.extend(plain.tokens.encode(&text[..at]));
                let mut prompt = typed.prompt(&plain);
                prompt.forced = text.as_bytes()[at..].to_vec();
                let limits = Limits { max_tokens: 24, stale: 60, ..Limits::default() };
                let expected = ask(&mut plain, &prompt, limits, usize::MAX);
                assert!(at == 0 || expected.reused > 120, "{expected:?}");
                for other in &mut others {
                    assert_eq!(ask(other, &prompt, limits, usize::MAX), expected);
                    assert_eq!(other.sequences.tokens(), plain.sequences.tokens());
                }
            }
        }
        let done = others[0].speculation();
        assert!(done.tokens > 500 && done.accepted > 50, "{done:?}");
    }
}

#[test]
fn other_places_have_sequences_of_their_own() {
    let mut random = fastrand::Rng::with_seed(16);
    let (mut engine, _) = pair(&random_qwen2(1, &Dims::default()).unwrap(), 512);
    let read = Limits { max_tokens: 1, stale: 0, ..Limits::default() };
    let documents: Vec<Document> = (0..5)
        .map(|_| Document {
            prefix: ordinary(&engine, &mut random, 150),
            suffix: ordinary(&engine, &mut random, 40),
            tail: Vec::new(),
        })
        .collect();
    for document in &documents {
        visit(&mut engine, document, read);
    }
    // Another place in the last one, above; an answer that was computed ahead.
    let mut above = documents[4].clone();
    above.suffix = [above.prefix.split_off(100), above.suffix].concat();
    let first = visit(&mut engine, &above, read);
    assert_eq!(first.reused, 101, "the beginning is shared");
    let mut ahead = documents[4].clone();
    ahead.prefix.extend(ordinary(&engine, &mut random, 30));
    visit(&mut engine, &ahead, read);
    for document in documents.iter().chain([&above, &ahead]) {
        assert_eq!(engine.unread(&document.prompt(&engine), &read), 0, "all are resident");
    }
    // Typing stays where it is: nothing is crowded out by it.
    let mut typed = documents[4].clone();
    for _ in 0..60 {
        typed.prefix.extend(ordinary(&engine, &mut random, 2));
        visit(&mut engine, &typed, read);
    }
    for document in documents[..4].iter().chain([&above, &ahead]) {
        assert_eq!(engine.unread(&document.prompt(&engine), &read), 0);
    }
    // Nor are other documents by jumps in one document.
    for _ in 0..20 {
        let mut jump = documents[4].clone();
        jump.prefix.truncate(random.usize(70..130));
        jump.prefix.extend(ordinary(&engine, &mut random, 20));
        visit(&mut engine, &jump, read);
    }
    for document in &documents[..4] {
        assert_eq!(engine.unread(&document.prompt(&engine), &read), 0);
    }
}

#[test]
fn memory_stays_within_its_bounds_and_is_given_back() {
    let mut random = fastrand::Rng::with_seed(17);
    let (mut engine, _) = pair(&random_llama(1, &Dims::default()).unwrap(), 512);
    let page = engine.decoder.bytes_of(1);
    engine.sequences.hold_at_most(20 * page);
    assert_eq!(engine.decoder.held_bytes(), 0, "nothing is held before it is used");
    let mut most = 0;
    for _ in 0..200 {
        let document = Document::random(&engine, &mut random);
        let limits = Limits { max_tokens: random.usize(..4), stale: 30, ..Limits::default() };
        let mut document = document;
        for _ in 0..random.usize(1..4) {
            visit(&mut engine, &document, limits);
            document.edit(&engine, &mut random);
        }
        most = most.max(engine.decoder.held_bytes());
    }
    assert!((15 * page..=24 * page).contains(&most), "{most} bytes in pages of {page}");
    engine.clear();
    assert_eq!(engine.decoder.held_bytes(), 0);
}
