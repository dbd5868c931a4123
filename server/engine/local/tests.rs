//! Tests of the engine with random models, and with a real one if available: cached, interrupted, forked, speculating.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::StopReason;
use crate::gguf::testing::{GgufWriter, ModelDims, random_llama, random_qwen2};

pub(super) fn write_and_open(writer: &GgufWriter, context: usize) -> Local {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    open_scripted(&path, 1, &Options { context, ..Options::default() }).unwrap()
}

/// An engine whose polls, chunks and drafts are determined by a seed instead of the machine's speed.
pub(super) fn open_scripted(path: &Path, seed: u64, options: &Options) -> Result<Local, EngineError> {
    let options = Options {
        device: DeviceChoice::Cpu,
        kernel: KernelChoice::Own(Kernel::best_exact()),
        threads: NonZeroUsize::new(2),
        ..options.clone()
    };
    Local::open_with_machine(path, &options, HostMachine::scripted(seed))
}

pub(super) fn open_engine(path: &Path, context: usize) -> Result<Local, EngineError> {
    Local::open(path, &Options { device: DeviceChoice::Cpu, context, ..Options::default() })
}

pub(super) fn tiny_engine(seed: u64) -> Local {
    write_and_open(&random_qwen2(seed, &ModelDims::default()).unwrap(), 512)
}

pub(super) fn ordinary_tokens(engine: &Local, random: &mut fastrand::Rng, len: usize) -> Vec<TokenId> {
    let mut tokens = Vec::new();
    while tokens.len() < len {
        let token = random.u32(..engine.tokens.len() as TokenId);
        if !engine.tokens.is_special(token) {
            tokens.push(token);
        }
    }
    tokens
}

pub(super) fn generate_text(
    engine: &mut Local,
    tokens: &[TokenId],
    forced: &[u8],
    max_tokens: usize,
) -> Generation {
    let prompt = Prompt { tokens: tokens.to_vec(), healing_bytes: forced.to_vec(), ..Prompt::default() };
    engine
        .generate(&prompt, &GenerationLimits { max_tokens, ..GenerationLimits::default() }, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap()
}

fn text_stop_and_ends(generation: &Generation) -> (&str, StopReason, Vec<usize>) {
    (&generation.text, generation.stop, generation.tokens.iter().map(|piece| piece.end).collect())
}

#[test]
fn cached_generation_matches_fresh_generation() {
    let mut random = fastrand::Rng::with_seed(1);
    let llama = random_llama(4, &ModelDims::default()).unwrap();
    for mut cached in [tiny_engine(1), tiny_engine(2), write_and_open(&llama, 512)] {
        let mut tokens: Vec<TokenId> = Vec::new();
        let (mut reused, mut decoded) = (0, 0);
        for _ in 0..120 {
            tokens.truncate(random.usize(0..=tokens.len()));
            let more = random.usize(1..60).min(400 - tokens.len().min(399));
            tokens.extend(ordinary_tokens(&cached, &mut random, more));
            let forced = ["", "re", "x", "    se"][random.usize(..4)].as_bytes();
            let max = random.usize(..12);
            let ours = generate_text(&mut cached, &tokens, forced, max);
            assert_eq!(ours.reused + ours.evaluated, tokens.len());
            reused += ours.reused;
            decoded += ours.tokens.len();
            // The same engine with an empty cache.
            cached.clear();
            let theirs = generate_text(&mut cached, &tokens, forced, max);
            assert_eq!((theirs.reused, theirs.evaluated), (0, tokens.len()));
            assert_eq!(text_stop_and_ends(&ours), text_stop_and_ends(&theirs));
            for (a, b) in ours.tokens.iter().zip(&theirs.tokens) {
                assert!((a.probability - b.probability).abs() < 1e-3, "{a:?} {b:?}");
            }
        }
        assert!(reused > 1000 && decoded > 200, "{reused} {decoded}");
    }
}

#[test]
fn cache_stays_valid_after_break_at_any_call() {
    let mut engine = tiny_engine(3);
    let tokens = ordinary_tokens(&engine, &mut fastrand::Rng::with_seed(2), 90);
    let prompt = Prompt { tokens: tokens.clone(), healing_bytes: b"ret".to_vec(), ..Prompt::default() };
    let limits = GenerationLimits { max_tokens: 12, ..GenerationLimits::default() };
    let mut texts = Vec::new();
    let fresh = engine
        .generate(&prompt, &limits, &mut |PartialOutput { text, .. }| {
            texts.push(text.to_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(fresh.tokens.len() > 3, "{fresh:?}");
    for pair in texts.windows(2) {
        assert!(pair[1].starts_with(&pair[0]));
    }
    assert_eq!(texts.last(), Some(&fresh.text));
    let mut inside = 0;
    for at in 1..=texts.len() {
        engine.clear();
        // Earlier measurements determine the chunks, so the calls are counted again each time.
        let mut calls = 0;
        let broken = engine
            .generate(&prompt, &limits, &mut |_| {
                calls += 1;
                if calls == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        if calls < at {
            continue;
        }
        assert_eq!(broken.stop, StopReason::Interrupted);
        assert!(fresh.text.starts_with(&broken.text));
        inside += usize::from(broken.evaluated % 8 == 0 && broken.evaluated < tokens.len());
        let evaluated = broken.evaluated;
        let after = generate_text(&mut engine, &tokens, b"ret", 12);
        assert_eq!(text_stop_and_ends(&after), text_stop_and_ends(&fresh));
        assert_eq!(after.reused, evaluated.min(tokens.len() - 1));
    }
    assert!(inside > 1, "{inside}");
}

#[test]
fn healed_output_starts_with_forced_bytes() {
    let mut random = fastrand::Rng::with_seed(3);
    for seed in 0..6 {
        let mut engine = tiny_engine(seed);
        for forced in ["r", "retu", "    self.", "é", "数字", "x = \"", "\n\n  "] {
            // Cut anywhere, also inside a character.
            let forced = &forced.as_bytes()[..random.usize(1..=forced.len())];
            let tokens = ordinary_tokens(&engine, &mut random, 20);
            let generation = generate_text(&mut engine, &tokens, forced, 24);
            // The last token is chosen but not evaluated; it still counts as decoded.
            let mut spelt: Vec<u8> = Vec::new();
            for &token in &engine.cached_tokens()[tokens.len()..] {
                spelt.extend_from_slice(engine.tokens.token_bytes(token));
            }
            let compared = spelt.len().min(forced.len());
            assert_eq!(&spelt[..compared], &forced[..compared]);
            assert!(spelt.len() >= forced.len(), "{forced:x?} {generation:?}");
            assert!(generation.tokens.iter().all(|piece| (0.0..=1.0).contains(&piece.probability)));
        }
    }
}

#[test]
fn prefill_only_fills_and_keeps_the_cache() {
    let mut engine = tiny_engine(5);
    let tokens = ordinary_tokens(&engine, &mut fastrand::Rng::with_seed(4), 50);
    let expected = generate_text(&mut engine, &tokens, b"", 6);
    engine.clear();
    let read = generate_text(&mut engine, &tokens, b"", 0);
    assert_eq!((read.reused, read.evaluated, read.text.as_str(), read.stop), (0, 50, "", StopReason::Limit));
    let again = generate_text(&mut engine, &tokens[..20], b"", 0);
    assert_eq!((again.reused, again.evaluated), (20, 0));
    assert_eq!(engine.cached_tokens(), tokens, "a prompt that lies in the cache cuts nothing off");
    let after = generate_text(&mut engine, &tokens, b"", 6);
    assert_eq!((after.reused, after.evaluated), (49, 1));
    assert_eq!(text_stop_and_ends(&after), text_stop_and_ends(&expected));
    let nothing = generate_text(&mut engine, &[], b"x", 5);
    assert_eq!((nothing.text.as_str(), nothing.tokens.len()), ("", 0));
}

#[test]
fn full_context_stops_and_longer_prompt_fails() {
    let mut engine = write_and_open(&random_qwen2(6, &ModelDims::default()).unwrap(), 32);
    assert_eq!(engine.engine_info().context, 32);
    let tokens = ordinary_tokens(&engine, &mut fastrand::Rng::with_seed(5), 33);
    let full = generate_text(&mut engine, &tokens[..32], b"aaaaaaaa", 5);
    assert_eq!((full.stop, full.tokens.len()), (StopReason::Limit, 1));
    let near = generate_text(&mut engine, &tokens[..30], b"aaaaaaaa", 9);
    assert_eq!((near.stop, near.tokens.len()), (StopReason::Limit, 3));
    let prompt = Prompt { tokens: tokens.clone(), healing_bytes: Vec::new(), ..Prompt::default() };
    let error = engine.generate(
        &prompt,
        &GenerationLimits { max_tokens: 1, ..GenerationLimits::default() },
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(matches!(error, Err(EngineError::PromptTooLong { tokens: 33, context: 32 })));
    assert!(engine.cached_tokens().is_empty());
    assert_eq!(
        text_stop_and_ends(&generate_text(&mut engine, &tokens[..30], b"aaaaaaaa", 9)),
        text_stop_and_ends(&near)
    );
    let prompt = Prompt { tokens: vec![1, TokenId::MAX], healing_bytes: Vec::new(), ..Prompt::default() };
    let error = engine.generate(
        &prompt,
        &GenerationLimits { max_tokens: 1, ..GenerationLimits::default() },
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(matches!(error, Err(EngineError::Device { .. })));
    assert_eq!(
        text_stop_and_ends(&generate_text(&mut engine, &tokens[..30], b"aaaaaaaa", 9)),
        text_stop_and_ends(&near)
    );
}

#[test]
fn engine_is_usable_after_panic_and_clear() {
    let mut engine = tiny_engine(7);
    let tokens = ordinary_tokens(&engine, &mut fastrand::Rng::with_seed(6), 40);
    let expected = generate_text(&mut engine, &tokens, b"self.", 8);
    assert!(expected.tokens.len() > 2, "{expected:?}");
    let prompt = Prompt { tokens: tokens.clone(), healing_bytes: b"self.".to_vec(), ..Prompt::default() };
    for at in 1..8 {
        let mut calls = 0;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            engine.generate(
                &prompt,
                &GenerationLimits { max_tokens: 8, ..GenerationLimits::default() },
                &mut |_| {
                    calls += 1;
                    assert!(calls < at, "a panic on purpose");
                    ControlFlow::Continue(())
                },
            )
        }));
        if at <= expected.tokens.len() {
            assert!(caught.is_err());
        }
        engine.clear();
        assert_eq!(
            text_stop_and_ends(&generate_text(&mut engine, &tokens, b"self.", 8)),
            text_stop_and_ends(&expected)
        );
    }
}

#[test]
fn weights_producing_nan_logits_are_an_error() {
    let dims = ModelDims::default();
    let writer = random_qwen2(1, &dims).unwrap();
    // Each is finite, but far too great.
    let great = (0..dims.hidden).flat_map(|_| 3e38_f32.to_le_bytes()).collect();
    let broken = writer.with_tensor(
        "output_norm.weight",
        candle_core::quantized::GgmlDType::F32,
        &[dims.hidden],
        great,
    );
    let mut engine = write_and_open(&broken, 64);
    let prompt = Prompt { tokens: vec![1, 2], healing_bytes: Vec::new(), ..Prompt::default() };
    let error = engine.generate(
        &prompt,
        &GenerationLimits { max_tokens: 1, ..GenerationLimits::default() },
        &mut |_| ControlFlow::Continue(()),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("model.gguf") && error.contains("not a number"), "{error}");
    assert!(error.contains("the file is damaged") && !error.contains("CPU"), "{error}");
}

#[test]
fn about_and_rates_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    random_qwen2(8, &ModelDims::default()).unwrap().write(&path).unwrap();
    let mut engine = open_engine(&path, 512).unwrap();
    let about = engine.engine_info().clone();
    assert_eq!((about.model.as_str(), about.family.as_str()), ("random qwen2", "qwen2"));
    assert_eq!(about.device, "CPU: selected by name");
    // AMX reports the result of its benchmark.
    let own = ["the best that this processor has; ", " here; "].iter().any(|why| about.kernel.contains(why));
    assert!(own || about.kernel.starts_with("candle: "), "{}", about.kernel);
    assert!(about.weight_bytes > 10_000);
    assert_eq!(engine.throughput(), ThroughputEstimate::default());
    let tokens = ordinary_tokens(&engine, &mut fastrand::Rng::with_seed(7), 40);
    let generation = generate_text(&mut engine, &tokens, b"some", 6);
    assert!(generation.tokens.len() > 1);
    assert!(engine.throughput().prefill > 0.0 && engine.throughput().decode > 0.0);
    assert_eq!("candle".parse::<KernelChoice>().unwrap(), KernelChoice::Candle);
    assert!("fast".parse::<KernelChoice>().unwrap_err().to_string().contains("\"fast\""));
}

#[test]
fn every_truncation_of_small_file_is_an_error() {
    let bytes = random_qwen2(1, &ModelDims::default()).unwrap().to_bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for len in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(open_engine(&path, 64).is_err(), "{len} bytes");
    }
}

#[test]
fn truncated_real_file_fails_before_loading() {
    let Some(model) = real_model::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut head = Vec::new();
    File::open(&model).unwrap().take(10 << 20).read_to_end(&mut head).unwrap();
    for (bytes, len) in [(1 << 20, 1 << 20), (10 << 20, 10 << 20), (10 << 20, 100 << 20)] {
        let mut file = File::create(&path).unwrap();
        file.write_all(&head[..bytes]).unwrap();
        file.set_len(len).unwrap();
        // In the header: before anything is loaded.
        let error = Gguf::open(&path).unwrap_err().to_string();
        assert!(error.contains("get it again"), "{error}");
        assert_eq!(open_engine(&path, 512).unwrap_err().to_string(), error);
    }
}

#[test]
fn real_model_cached_run_matches_fresh_run() {
    let Some(model) = real_model::path() else { return };
    // A kernel for which a cached run equals a fresh one bit for bit.
    let kernel = KernelChoice::Own(Kernel::best_exact());
    let options = Options { device: DeviceChoice::Cpu, kernel, context: 512, ..Options::default() };
    let mut engine = Local::open(&model, &options).unwrap();
    let code = real_model::SAMPLE_CODE;
    let cut = |marker: &str| engine.tokens.encode(&code[..code.find(marker).unwrap()]);
    let (first, second) = (cut("        if path.exists"), cut("        self.bookings = json"));
    let expected = generate_text(&mut engine, &second, b"self", 8);
    assert!(!expected.text.is_empty());
    let before = generate_text(&mut engine, &first, b"", 4);
    assert!(before.reused > first.len() / 2);
    let after = generate_text(&mut engine, &second, b"self", 8);
    assert!(after.reused > first.len() / 2);
    assert_eq!(text_stop_and_ends(&after), text_stop_and_ends(&expected));
}

/// The same file several times: plain, and with each kind of speculation: drafts of a fixed length, and of the length
/// that pays off.
pub(super) fn plain_and_speculating(writer: &GgufWriter, context: usize) -> (Local, Vec<Local>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    let seeds = std::cell::Cell::new(0);
    let open = |speculate, always| {
        let options = Options { context, speculate, ..Options::default() };
        seeds.set(seeds.get() + 1);
        let mut engine = open_scripted(&path, seeds.get(), &options).unwrap();
        assert_eq!(engine.prompt_lookup.is_some(), speculate);
        if let Some(lookup) = &mut engine.prompt_lookup {
            lookup.fixed_draft_len = always;
        }
        engine
    };
    (
        open(false, None),
        [Some(prompt_lookup::MAX_DRAFT_TOKENS), Some(3), None].map(|always| open(true, always)).into(),
    )
}

/// Evaluates the prompt, then generates and breaks at the text with this number; returns everything seen.
fn generate_and_break(
    engine: &mut Local,
    prompt: &Prompt,
    max_tokens: usize,
    at: usize,
) -> (Generation, Vec<String>) {
    generate_text(engine, &prompt.tokens, b"", 0);
    let mut texts = Vec::new();
    let mut generation = engine
        .generate(
            prompt,
            &GenerationLimits { max_tokens, ..GenerationLimits::default() },
            &mut |PartialOutput { text, .. }| {
                // A repeated text may be a poll inside a batch, and their number varies.
                let new = texts.last().is_none_or(|last: &String| last != text);
                if new {
                    texts.push(text.to_owned());
                }
                if new && texts.len() == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )
        .unwrap();
    generation.prefill = Default::default();
    generation.decode = Default::default();
    (generation, texts)
}

fn assert_same_output(
    plain: &mut Local,
    others: &mut [Local],
    prompt: &Prompt,
    max: usize,
    at: usize,
) -> Generation {
    let expected = generate_and_break(plain, prompt, max, at);
    for other in others {
        let ours = generate_and_break(other, prompt, max, at);
        assert_eq!(ours, expected, "break at {at} of {prompt:?}");
        assert_eq!(other.cached_tokens(), plain.cached_tokens());
    }
    expected.0
}

/// Code-like tokens with much repetition.
pub(super) fn repetitive_tokens(engine: &Local, random: &mut fastrand::Rng, len: usize) -> Vec<TokenId> {
    let motifs: Vec<Vec<TokenId>> = (0..3)
        .map(|_| {
            let len = random.usize(1..7);
            ordinary_tokens(engine, random, len)
        })
        .collect();
    let mut tokens = Vec::new();
    while tokens.len() < len {
        tokens.extend_from_slice(&motifs[random.usize(..motifs.len())]);
        if random.u8(..) < 40 {
            tokens.extend(ordinary_tokens(engine, random, 1));
        }
    }
    tokens.truncate(len);
    tokens
}

#[test]
fn speculative_decoding_matches_plain_decoding() {
    use candle_core::quantized::GgmlDType::{F16, F32, Q4_0, Q4K, Q5_0, Q6K, Q8_0};
    let mut random = fastrand::Rng::with_seed(9);
    for (i, dtype) in [F32, F16, Q4_0, Q5_0, Q8_0, Q4K, Q6K].into_iter().enumerate() {
        let dims = ModelDims { output: (i % 2 == 0).then_some(Q8_0), ..ModelDims::stored_as(dtype) };
        let seed = i as u64;
        for writer in [random_qwen2(seed, &dims).unwrap(), random_llama(seed, &dims).unwrap()] {
            let (mut plain, mut others) = plain_and_speculating(&writer, 128);
            let mut tokens: Vec<TokenId> = Vec::new();
            let mut last = Vec::new();
            for _ in 0..150 {
                // Another place, or the same with some of the output, or without its end.
                match random.u8(..10) {
                    _ if tokens.len() > 110 || tokens.is_empty() => tokens.clear(),
                    0..3 => tokens.clear(),
                    3..8 => tokens.extend_from_slice(&last[..random.usize(..=last.len().min(8))]),
                    _ => tokens.truncate(random.usize(1..=tokens.len())),
                }
                if tokens.is_empty() {
                    let len = random.usize(1..90);
                    tokens = repetitive_tokens(&plain, &mut random, len);
                }
                let forced = match random.u8(..4) {
                    0 => ["r", "ret", "x", "    se"][random.usize(..4)].as_bytes().to_vec(),
                    1 => {
                        // The output, typed on.
                        let bytes: Vec<u8> =
                            last.iter().flat_map(|&token| plain.tokens.token_bytes(token)).copied().collect();
                        bytes[..random.usize(..=bytes.len().min(5))].to_vec()
                    }
                    _ => Vec::new(),
                };
                let prompt = Prompt { tokens: tokens.clone(), healing_bytes: forced, ..Prompt::default() };
                let max = random.usize(1..28);
                let at = if random.bool() { usize::MAX } else { random.usize(1..28) };
                assert_same_output(&mut plain, &mut others, &prompt, max, at);
                // Less than the prompt if it broke inside the first batch.
                last = plain.cached_tokens().get(tokens.len()..).unwrap_or_default().to_vec();
            }
            for other in &others[..2] {
                let done = other.speculation_stats();
                assert!(done.accepted > 50 && done.drafted > done.accepted, "{dtype:?}: {done:?}");
            }
            assert_eq!(plain.speculation_stats(), SpeculationStats::default());
        }
    }
}

#[test]
fn break_inside_speculative_batch_matches_plain_decoding() {
    let mut random = fastrand::Rng::with_seed(10);
    for seed in 0..4 {
        let (mut plain, mut others) =
            plain_and_speculating(&random_qwen2(seed, &ModelDims::default()).unwrap(), 160);
        for forced in ["", "ret", "    s"] {
            let tokens = repetitive_tokens(&plain, &mut random, 60);
            let prompt = Prompt { tokens, healing_bytes: forced.as_bytes().to_vec(), ..Prompt::default() };
            let whole = assert_same_output(&mut plain, &mut others, &prompt, 40, usize::MAX);
            for at in 1.. {
                // Completed output is remembered, so all of it is one batch or two.
                let broken = assert_same_output(&mut plain, &mut others, &prompt, 40, at);
                if broken.stop != StopReason::Interrupted {
                    assert!(at > 2 && broken == whole);
                    break;
                }
                assert!(whole.text.starts_with(&broken.text));
                assert_eq!(
                    text_stop_and_ends(&assert_same_output(&mut plain, &mut others, &prompt, 40, usize::MAX)),
                    text_stop_and_ends(&whole)
                );
            }
            for max in 1..whole.tokens.len() {
                assert_eq!(
                    assert_same_output(&mut plain, &mut others, &prompt, max, usize::MAX).tokens[..],
                    whole.tokens[..max]
                );
            }
        }
        let done = others[0].speculation_stats();
        assert!(done.tokens > 5 * done.steps, "{done:?}");
    }
}

#[test]
fn speculation_stops_at_context_end() {
    let (mut plain, mut others) = plain_and_speculating(&random_qwen2(6, &ModelDims::default()).unwrap(), 48);
    let mut random = fastrand::Rng::with_seed(11);
    for len in 1..=48 {
        let prompt = Prompt {
            tokens: repetitive_tokens(&plain, &mut random, len),
            healing_bytes: Vec::new(),
            ..Prompt::default()
        };
        for _ in 0..2 {
            assert_same_output(&mut plain, &mut others, &prompt, 60, usize::MAX);
        }
    }
    assert!(others[0].speculation_stats().accepted > 100);
}

#[test]
fn candle_decoder_never_speculates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    random_qwen2(1, &ModelDims::default()).unwrap().write(&path).unwrap();
    let options = Options {
        device: DeviceChoice::Cpu,
        kernel: KernelChoice::Candle,
        context: 64,
        ..Options::default()
    };
    let mut engine = Local::open(&path, &options).unwrap();
    assert!(generate_text(&mut engine, &[1, 2, 1, 2, 1, 2], b"", 8).tokens.len() > 1);
    assert_eq!(engine.speculation_stats(), SpeculationStats::default());
}

#[test]
fn real_model_speculation_matches_plain_decoding() {
    let Some(model) = real_model::path() else { return };
    // The default kernel may evaluate prompts in tiles: then both start with an empty cache.
    for (kernel, fresh) in
        [(Kernel::best_exact(), false), (Kernel::best_available(), Kernel::best_available() == Kernel::Amx)]
    {
        let open = |speculate| {
            let (device, kernel) = (DeviceChoice::Cpu, KernelChoice::Own(kernel));
            let options = Options { device, kernel, context: 1024, speculate, ..Options::default() };
            Local::open(&model, &options).unwrap()
        };
        let (mut plain, mut ours) = (open(false), open(true));
        if ours.prompt_lookup.is_none() {
            return crate::testing::print_skipped(&format!("no prompt lookup with {}", kernel.name()));
        }
        let code = real_model::SAMPLE_CODE;
        for marker in ["self.bookings.append", "    def save", "parser.add_argument(\"--", "print(f\""] {
            let at = code.find(marker).unwrap();
            // As if typed on: the completions are the same, and mostly known from the previous keystroke.
            for typed in [0, 3, 5, 9] {
                let (before, forced) = code[..at + typed].split_at(at);
                let prompt = Prompt {
                    tokens: plain.tokens.encode(before),
                    healing_bytes: forced.as_bytes().to_vec(),
                    ..Prompt::default()
                };
                if fresh {
                    plain.clear();
                    ours.clear();
                }
                assert_same_output(&mut plain, std::slice::from_mut(&mut ours), &prompt, 20, usize::MAX);
            }
        }
        let done = ours.speculation_stats();
        assert!(done.accepted * if fresh { 10 } else { 4 } > done.tokens, "{kernel:?} {done:?}");
    }
}
