//! Tests that apply random edits to documents of random tokens, in an engine with cached sequences and shifted suffixes
//! and in a fresh one.

use std::ops::ControlFlow;

use crate::gguf::MetadataValue;
use crate::gguf::testing::{GgufWriter, ModelDims, random_llama, random_qwen2, random_qwen3};
use crate::local::Local;
use crate::local::tests::{ordinary_tokens, plain_and_speculating, repetitive_tokens};
use crate::{Engine, Generation, GenerationLimits, Prompt, StopReason, TokenId};

/// Models for testing shifted suffixes: both rotation styles, partly rotated heads, normed queries and keys.
fn rope_variants() -> Vec<GgufWriter> {
    let dims = ModelDims::default();
    let half = MetadataValue::Unsigned((dims.hidden / dims.heads / 2) as u64);
    let qwen2 = random_qwen2(3, &dims).unwrap();
    let llama = random_llama(3, &dims).unwrap();
    vec![
        qwen2.clone().with_metadata("qwen2.rope.dimension_count", half.clone()),
        llama.clone().with_metadata("llama.rope.dimension_count", half),
        qwen2,
        llama,
        random_qwen3(3, &dims).unwrap(),
    ]
}

/// A file of tokens with a cursor, as a prompt of the form prefix, suffix, middle, tail.
#[derive(Clone)]
struct TokenDocument {
    prefix: Vec<TokenId>,
    suffix: Vec<TokenId>,
    /// The tokens after the middle token.
    tail: Vec<TokenId>,
}

impl TokenDocument {
    fn random_document(engine: &Local, random: &mut fastrand::Rng) -> Self {
        let lens = [random.usize(1..150), random.usize(0..90), random.usize(0..20)];
        let [prefix, suffix, tail] = lens.map(|len| ordinary_tokens(engine, random, len));
        Self { prefix, suffix, tail }
    }

    fn to_prompt(&self, engine: &Local) -> Prompt {
        let fim = engine.tokens.fim_tokens();
        let mut tokens: Vec<TokenId> = fim.prefix.into_iter().chain(self.prefix.iter().copied()).collect();
        tokens.extend(fim.suffix);
        let start = tokens.len();
        tokens.extend_from_slice(&self.suffix);
        let suffix = start..tokens.len();
        tokens.extend(fim.middle);
        tokens.extend_from_slice(&self.tail);
        Prompt { tokens, healing_bytes: Vec::new(), suffix }
    }

    fn edit_randomly(&mut self, engine: &Local, random: &mut fastrand::Rng) {
        let some = random.usize(1..8);
        let new = ordinary_tokens(engine, random, some);
        let text = if random.u8(..5) == 0 { &mut self.tail } else { &mut self.prefix };
        match random.u8(..10) {
            0..5 => text.extend(new),
            5..7 => text.truncate(text.len().saturating_sub(some)),
            7 => {
                let at = random.usize(..=text.len());
                text.splice(at..at, new);
            }
            8 => {
                // Like an editor that closes brackets.
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

fn generate_and_break(
    engine: &mut Local,
    prompt: &Prompt,
    limits: GenerationLimits,
    looks: usize,
) -> Generation {
    let mut left = looks;
    let mut generation = engine
        .generate(prompt, &limits, &mut |_| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    (generation.prefill, generation.decode) = Default::default();
    generation
}

fn generate_at(engine: &mut Local, document: &TokenDocument, limits: GenerationLimits) -> Generation {
    let prompt = document.to_prompt(engine);
    generate_and_break(engine, &prompt, limits, usize::MAX)
}

#[test]
fn exact_generation_is_independent_of_earlier_prompts() {
    let mut random = fastrand::Rng::with_seed(12);
    for (seed, writer) in rope_variants().iter().enumerate() {
        let (mut fresh, others) = plain_and_speculating(writer, 512);
        for mut engine in [plain_and_speculating(writer, 512).0].into_iter().chain(others) {
            // Little memory in some runs: sequences are evicted.
            if seed % 2 == 0 {
                engine.sequences.set_byte_limit(engine.decoder.kv_bytes_for(900));
            }
            let mut documents: Vec<TokenDocument> =
                (0..4).map(|_| TokenDocument::random_document(&engine, &mut random)).collect();
            let (mut moved, mut evaluated, mut total) = (0, 0, 0);
            for _ in 0..60 {
                let at = random.usize(..documents.len());
                let document = &mut documents[at];
                for _ in 0..random.usize(..3) {
                    document.edit_randomly(&engine, &mut random);
                }
                if random.u8(..20) == 0 {
                    *document = TokenDocument::random_document(&engine, &mut random);
                }
                let mut prompt = document.to_prompt(&engine);
                if random.u8(..10) == 0 {
                    // A separate window, or the beginning of the whole one.
                    let cut = random.usize(..prompt.tokens.len());
                    prompt.tokens.truncate(cut.max(1));
                    prompt.suffix = 0..0;
                }
                let stale = [0, 0, 8, 40][random.usize(..4)];
                let limits = GenerationLimits {
                    max_tokens: random.usize(..6),
                    max_stale_tokens: stale,
                    ..GenerationLimits::default()
                };
                let looks = if random.u8(..4) == 0 { random.usize(1..12) } else { usize::MAX };
                let unread = engine.uncached_token_count(&prompt, &limits);
                // Resumable tokens of interrupted requests cost no work, but their last layer is still to come.
                let starts = engine.sequences.prompt_starts(engine.decoder.as_ref(), &prompt, &limits, false);
                let begun = starts.map(|start| start.resumable).max().unwrap();
                let ours = generate_and_break(&mut engine, &prompt, limits, looks);
                if looks == usize::MAX {
                    assert_eq!(ours.reused + ours.evaluated, prompt.tokens.len());
                    assert!(ours.evaluated - unread <= 1 + begun, "{unread} announced: {ours:?}");
                    let exact = engine.uncached_token_count(&prompt, &GenerationLimits::default());
                    moved += usize::from(exact > 0 && stale > 0);
                    evaluated += ours.evaluated;
                    total += prompt.tokens.len();
                }
                // Sometimes the same again, exactly: as an empty cache gives it, bit for bit.
                if stale == 0 && looks < usize::MAX || stale > 0 && random.bool() {
                    continue;
                }
                let limits =
                    GenerationLimits { max_tokens: 5, max_stale_tokens: 0, ..GenerationLimits::default() };
                let ours = generate_and_break(&mut engine, &prompt, limits, usize::MAX);
                fresh.clear();
                let theirs = generate_and_break(&mut fresh, &prompt, limits, usize::MAX);
                assert_eq!((ours.text, ours.stop, ours.tokens), (theirs.text, theirs.stop, theirs.tokens));
            }
            assert!(moved > 0 && evaluated * 4 < total * 3, "{moved} moved; {evaluated} of {total}");
        }
    }
}

#[test]
fn mutually_interrupting_prompts_keep_shared_prefix_work() {
    let mut random = fastrand::Rng::with_seed(18);
    let dims = ModelDims { layers: 8, ..ModelDims::default() };
    for writer in [random_qwen2(4, &dims).unwrap(), random_llama(4, &dims).unwrap()] {
        let (mut fresh, others) = plain_and_speculating(&writer, 512);
        for mut engine in others {
            for round in 0..6 {
                let mut document = TokenDocument::random_document(&engine, &mut random);
                document.prefix = ordinary_tokens(&engine, &mut random, 200);
                let elsewhere = TokenDocument::random_document(&engine, &mut random);
                let limits =
                    GenerationLimits { max_tokens: random.usize(1..6), ..GenerationLimits::default() };
                let read = GenerationLimits { background: true, ..GenerationLimits::default() };
                let mut before = usize::MAX;
                // Each request is interrupted inside the first layer or after a few by the next one, which has more
                // text.
                let looks = random.usize(2..60);
                for _ in 0..400 {
                    if round % 2 == 0 {
                        let prompt = elsewhere.to_prompt(&engine);
                        generate_and_break(&mut engine, &prompt, read, 2);
                    }
                    let mut beginning = document.to_prompt(&engine);
                    beginning.tokens.truncate(200);
                    beginning.suffix = 0..0;
                    let left = engine.uncached_token_count(&beginning, &read);
                    assert!(left <= before, "{left} of the text are left, it was {before}");
                    before = left;
                    let prompt = document.to_prompt(&engine);
                    if generate_and_break(&mut engine, &prompt, limits, looks).stop != StopReason::Interrupted
                    {
                        break;
                    }
                    document.prefix.extend(ordinary_tokens(&engine, &mut random, 1));
                    document.prefix.truncate(220);
                }
                assert!(before < 100, "{before}");
                let prompt = document.to_prompt(&engine);
                let ours = generate_and_break(&mut engine, &prompt, limits, usize::MAX);
                fresh.clear();
                let theirs = generate_and_break(&mut fresh, &prompt, limits, usize::MAX);
                assert_eq!((ours.text, ours.stop, ours.tokens), (theirs.text, theirs.stop, theirs.tokens));
                let prompt = elsewhere.to_prompt(&engine);
                let ours = generate_and_break(&mut engine, &prompt, limits, usize::MAX);
                fresh.clear();
                let theirs = generate_and_break(&mut fresh, &prompt, limits, usize::MAX);
                assert_eq!((ours.text, ours.stop, ours.tokens), (theirs.text, theirs.stop, theirs.tokens));
            }
        }
    }
}

#[test]
fn shifted_suffix_does_not_accumulate_rounding() {
    let mut random = fastrand::Rng::with_seed(13);
    for writer in rope_variants() {
        let (mut engine, _) = plain_and_speculating(&writer, 512);
        let mut document = TokenDocument::random_document(&engine, &mut random);
        document.suffix = ordinary_tokens(&engine, &mut random, 50);
        let limits = GenerationLimits { max_tokens: 1, max_stale_tokens: 100, ..GenerationLimits::default() };
        generate_at(&mut engine, &document, limits);
        let begun = document.prefix.len();
        for _ in 0..60 {
            let some = random.usize(1..3);
            document.prefix.extend(ordinary_tokens(&engine, &mut random, some));
            let prompt = document.to_prompt(&engine);
            let typed = document.prefix.len() - begun;
            let unread = engine.uncached_token_count(&prompt, &limits);
            let generation = generate_and_break(&mut engine, &prompt, limits, usize::MAX);
            assert_eq!(unread, generation.evaluated);
            if typed > 100 {
                assert!(generation.evaluated > 50, "{typed}: {generation:?}");
                break;
            }
            // The typed tokens, the suffix token, the middle token and the tail.
            assert_eq!(generation.evaluated, some + 2 + document.tail.len(), "{typed}");
            // One shift or many give the same bits: nothing accumulates.
            let tokens = engine.cached_tokens().to_vec();
            let again = generate_and_break(&mut engine, &prompt, limits, usize::MAX);
            assert_eq!(tokens, engine.cached_tokens());
            let (mut other, _) = plain_and_speculating(&writer, 512);
            let mut first = document.clone();
            first.prefix.truncate(begun);
            generate_at(&mut other, &first, limits);
            let once = generate_and_break(&mut other, &prompt, limits, usize::MAX);
            assert_eq!(once.tokens, generation.tokens);
            assert_eq!(again.tokens, generation.tokens);
        }
        // And evaluated again if no staleness is allowed.
        let prompt = document.to_prompt(&engine);
        let exact = GenerationLimits { max_tokens: 1, max_stale_tokens: 0, ..GenerationLimits::default() };
        let ours = generate_and_break(&mut engine, &prompt, exact, usize::MAX);
        engine.clear();
        assert_eq!(ours.tokens, generate_and_break(&mut engine, &prompt, exact, usize::MAX).tokens);
    }
}

#[test]
fn shifted_suffix_is_close_to_fresh_prefill() {
    // The first layer's keys and values depend only on the token and its position: with one layer, a shifted suffix
    // differs from a fresh one only by rounding.
    let mut random = fastrand::Rng::with_seed(14);
    let dims = ModelDims { layers: 1, ..ModelDims::default() };
    for writer in [random_qwen2(5, &dims).unwrap(), random_llama(5, &dims).unwrap()] {
        let (mut engine, _) = plain_and_speculating(&writer, 512);
        for back in [false, true] {
            engine.clear();
            let mut document = TokenDocument::random_document(&engine, &mut random);
            document.prefix = ordinary_tokens(&engine, &mut random, 90);
            document.suffix = ordinary_tokens(&engine, &mut random, 70);
            let other = TokenDocument {
                prefix: [&document.prefix[..], &document.tail, &document.suffix[..30]].concat(),
                ..document.clone()
            };
            let (first, second) = if back { (other, document) } else { (document, other) };
            let limits =
                GenerationLimits { max_tokens: 1, max_stale_tokens: 200, ..GenerationLimits::default() };
            generate_at(&mut engine, &first, limits);
            let prompt = second.to_prompt(&engine);
            let moved = generate_and_break(&mut engine, &prompt, limits, usize::MAX);
            assert!(moved.reused > 70, "{moved:?}");
            engine.clear();
            let read = generate_and_break(&mut engine, &prompt, limits, usize::MAX);
            assert_eq!(moved.text, read.text);
            for (a, b) in moved.tokens.iter().zip(&read.tokens) {
                assert!((a.probability - b.probability).abs() < 0.02 * b.probability, "{a:?} {b:?}");
            }
        }
    }
}

#[test]
fn speculation_after_shifted_suffix_matches_plain_decoding() {
    let mut random = fastrand::Rng::with_seed(15);
    let text = "return self.values[0].name";
    for writer in rope_variants() {
        let (mut plain, mut others) = plain_and_speculating(&writer, 512);
        for _ in 0..8 {
            let document = TokenDocument {
                prefix: repetitive_tokens(&plain, &mut random, 80),
                suffix: repetitive_tokens(&plain, &mut random, 40),
                tail: Vec::new(),
            };
            // The text is typed two characters at a time, and the model should generate the rest of it.
            for at in (0..text.len() - 8).step_by(2) {
                let mut typed = document.clone();
                typed.prefix.extend(plain.tokens.encode(&text[..at]));
                let mut prompt = typed.to_prompt(&plain);
                prompt.healing_bytes = text.as_bytes()[at..].to_vec();
                let limits =
                    GenerationLimits { max_tokens: 24, max_stale_tokens: 60, ..GenerationLimits::default() };
                let expected = generate_and_break(&mut plain, &prompt, limits, usize::MAX);
                assert!(at == 0 || expected.reused > 120, "{expected:?}");
                for other in &mut others {
                    assert_eq!(generate_and_break(other, &prompt, limits, usize::MAX), expected);
                    assert_eq!(other.cached_tokens(), plain.cached_tokens());
                }
            }
        }
        let done = others[0].speculation_stats();
        assert!(done.tokens > 500 && done.accepted > 50, "{done:?}");
    }
}

#[test]
fn distant_places_get_their_own_sequences() {
    let mut random = fastrand::Rng::with_seed(16);
    let (mut engine, _) = plain_and_speculating(&random_qwen2(1, &ModelDims::default()).unwrap(), 512);
    let read = GenerationLimits { max_tokens: 1, max_stale_tokens: 0, ..GenerationLimits::default() };
    let documents: Vec<TokenDocument> = (0..5)
        .map(|_| TokenDocument {
            prefix: ordinary_tokens(&engine, &mut random, 150),
            suffix: ordinary_tokens(&engine, &mut random, 40),
            tail: Vec::new(),
        })
        .collect();
    for document in &documents {
        generate_at(&mut engine, document, read);
    }
    // Another place in the last one, above; a prefetched completion.
    let mut above = documents[4].clone();
    above.suffix = [above.prefix.split_off(100), above.suffix].concat();
    let first = generate_at(&mut engine, &above, read);
    assert_eq!(first.reused, 101, "the beginning is shared");
    let mut ahead = documents[4].clone();
    ahead.prefix.extend(ordinary_tokens(&engine, &mut random, 30));
    generate_at(&mut engine, &ahead, read);
    for document in documents.iter().chain([&above, &ahead]) {
        assert_eq!(engine.uncached_token_count(&document.to_prompt(&engine), &read), 0, "all are resident");
    }
    // Typing stays in place and evicts nothing.
    let mut typed = documents[4].clone();
    for _ in 0..60 {
        typed.prefix.extend(ordinary_tokens(&engine, &mut random, 2));
        generate_at(&mut engine, &typed, read);
    }
    for document in documents[..4].iter().chain([&above, &ahead]) {
        assert_eq!(engine.uncached_token_count(&document.to_prompt(&engine), &read), 0);
    }
    // Jumps in one document do not evict other documents either.
    for _ in 0..20 {
        let mut jump = documents[4].clone();
        jump.prefix.truncate(random.usize(70..130));
        jump.prefix.extend(ordinary_tokens(&engine, &mut random, 20));
        generate_at(&mut engine, &jump, read);
    }
    for document in &documents[..4] {
        assert_eq!(engine.uncached_token_count(&document.to_prompt(&engine), &read), 0);
    }
}

#[test]
fn kv_memory_stays_bounded_and_is_freed() {
    let mut random = fastrand::Rng::with_seed(17);
    let (mut engine, _) = plain_and_speculating(&random_llama(1, &ModelDims::default()).unwrap(), 512);
    let page = engine.decoder.kv_bytes_for(1);
    engine.sequences.set_byte_limit(20 * page);
    assert_eq!(engine.decoder.kv_bytes(), 0, "nothing is held before it is used");
    let mut most = 0;
    for _ in 0..200 {
        let document = TokenDocument::random_document(&engine, &mut random);
        let limits = GenerationLimits {
            max_tokens: random.usize(..4),
            max_stale_tokens: 30,
            ..GenerationLimits::default()
        };
        let mut document = document;
        for _ in 0..random.usize(1..4) {
            generate_at(&mut engine, &document, limits);
            document.edit_randomly(&engine, &mut random);
        }
        most = most.max(engine.decoder.kv_bytes());
    }
    assert!((15 * page..=24 * page).contains(&most), "{most} bytes in pages of {page}");
    engine.clear();
    assert_eq!(engine.decoder.kv_bytes(), 0);
}
