//! The engine with random models, and with a real one where there is one: cached, interrupted, forked, speculating.
//! It knows nothing of prompts that mean something.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::gguf::testing::{Dims, Writer, random_llama, random_qwen2};

pub(super) fn local(writer: &Writer, context: usize) -> Local {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    scripted(&path, 1, &Options { context, ..Options::default() }).unwrap()
}

/// An engine whose looks, chunks and drafts are drawn from a seed, whatever the machine's speed.
pub(super) fn scripted(path: &Path, seed: u64, options: &Options) -> Result<Local, EngineError> {
    let options = Options {
        device: DeviceChoice::Cpu,
        kernel: KernelChoice::Own(Kernel::exact()),
        threads: NonZeroUsize::new(2),
        ..options.clone()
    };
    Local::open_on(path, &options, Machine::scripted(seed))
}

pub(super) fn open(path: &Path, context: usize) -> Result<Local, EngineError> {
    Local::open(path, &Options { device: DeviceChoice::Cpu, context, ..Options::default() })
}

pub(super) fn tiny(seed: u64) -> Local {
    local(&random_qwen2(seed, &Dims::default()).unwrap(), 512)
}

pub(super) fn ordinary(engine: &Local, random: &mut fastrand::Rng, len: usize) -> Vec<TokenId> {
    let mut tokens = Vec::new();
    while tokens.len() < len {
        let token = random.u32(..engine.tokens.len() as TokenId);
        if !engine.tokens.is_special(token) {
            tokens.push(token);
        }
    }
    tokens
}

pub(super) fn go(engine: &mut Local, tokens: &[TokenId], forced: &[u8], max_tokens: usize) -> Generation {
    let prompt = Prompt { tokens: tokens.to_vec(), forced: forced.to_vec(), ..Prompt::default() };
    let generation = engine
        .generate(&prompt, &Limits { max_tokens, ..Limits::default() }, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(engine.sequences.tokens().len(), engine.decoder.len());
    generation
}

fn said(generation: &Generation) -> (&str, Stop, Vec<usize>) {
    (&generation.text, generation.stop, generation.pieces.iter().map(|piece| piece.end).collect())
}

#[test]
fn cached_says_what_fresh_says() {
    let mut random = fastrand::Rng::with_seed(1);
    let llama = random_llama(4, &Dims::default()).unwrap();
    for mut cached in [tiny(1), tiny(2), local(&llama, 512)] {
        let mut tokens: Vec<TokenId> = Vec::new();
        let (mut reused, mut decoded) = (0, 0);
        for _ in 0..120 {
            tokens.truncate(random.usize(0..=tokens.len()));
            let more = random.usize(1..60).min(400 - tokens.len().min(399));
            tokens.extend(ordinary(&cached, &mut random, more));
            let forced = ["", "re", "x", "    se"][random.usize(..4)].as_bytes();
            let max = random.usize(..12);
            let ours = go(&mut cached, &tokens, forced, max);
            assert_eq!(ours.reused + ours.evaluated, tokens.len());
            reused += ours.reused;
            decoded += ours.pieces.len();
            // The same engine with nothing in the cache.
            cached.clear();
            let theirs = go(&mut cached, &tokens, forced, max);
            assert_eq!((theirs.reused, theirs.evaluated), (0, tokens.len()));
            assert_eq!(said(&ours), said(&theirs));
            for (a, b) in ours.pieces.iter().zip(&theirs.pieces) {
                assert!((a.probability - b.probability).abs() < 1e-3, "{a:?} {b:?}");
            }
        }
        assert!(reused > 1000 && decoded > 200, "{reused} {decoded}");
    }
}

#[test]
fn a_break_anywhere_leaves_a_cache_that_goes_on_right() {
    let mut engine = tiny(3);
    let tokens = ordinary(&engine, &mut fastrand::Rng::with_seed(2), 90);
    let prompt = Prompt { tokens: tokens.clone(), forced: b"ret".to_vec(), ..Prompt::default() };
    let limits = Limits { max_tokens: 12, ..Limits::default() };
    let mut texts = Vec::new();
    let fresh = engine
        .generate(&prompt, &limits, &mut |Said { text, .. }| {
            texts.push(text.to_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(fresh.pieces.len() > 3, "{fresh:?}");
    for pair in texts.windows(2) {
        assert!(pair[1].starts_with(&pair[0]));
    }
    assert_eq!(texts.last(), Some(&fresh.text));
    let mut inside = 0;
    for at in 1..=texts.len() {
        engine.clear();
        // What was measured before decides on the chunks, so the calls are counted anew each time.
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
        assert_eq!(broken.stop, Stop::Watch);
        assert!(fresh.text.starts_with(&broken.text));
        inside += usize::from(broken.evaluated % 8 == 0 && broken.evaluated < tokens.len());
        assert_eq!(engine.sequences.tokens().len(), engine.decoder.len());
        let evaluated = broken.evaluated;
        let after = go(&mut engine, &tokens, b"ret", 12);
        assert_eq!(said(&after), said(&fresh));
        assert_eq!(after.reused, evaluated.min(tokens.len() - 1));
    }
    assert!(inside > 1, "{inside}");
}

#[test]
fn healed_output_begins_with_the_forced_bytes() {
    let mut random = fastrand::Rng::with_seed(3);
    for seed in 0..6 {
        let mut engine = tiny(seed);
        for forced in ["r", "retu", "    self.", "é", "数字", "x = \"", "\n\n  "] {
            // Cut anywhere, also inside a character.
            let forced = &forced.as_bytes()[..random.usize(1..=forced.len())];
            let tokens = ordinary(&engine, &mut random, 20);
            let generation = go(&mut engine, &tokens, forced, 24);
            // The last token is chosen but not evaluated; it is among the decoded all the same.
            let mut spelt: Vec<u8> = Vec::new();
            for &token in &engine.sequences.tokens()[tokens.len()..] {
                spelt.extend_from_slice(engine.tokens.bytes(token));
            }
            let compared = spelt.len().min(forced.len());
            assert_eq!(&spelt[..compared], &forced[..compared]);
            assert!(spelt.len() >= forced.len(), "{forced:x?} {generation:?}");
            assert!(generation.pieces.iter().all(|piece| (0.0..=1.0).contains(&piece.probability)));
        }
    }
}

#[test]
fn reading_alone_fills_the_cache_and_keeps_what_is_there() {
    let mut engine = tiny(5);
    let tokens = ordinary(&engine, &mut fastrand::Rng::with_seed(4), 50);
    let expected = go(&mut engine, &tokens, b"", 6);
    engine.clear();
    let read = go(&mut engine, &tokens, b"", 0);
    assert_eq!((read.reused, read.evaluated, read.text.as_str(), read.stop), (0, 50, "", Stop::Limit));
    let again = go(&mut engine, &tokens[..20], b"", 0);
    assert_eq!((again.reused, again.evaluated), (20, 0));
    assert_eq!(engine.sequences.tokens(), tokens, "a prompt that lies in the cache cuts nothing off");
    let after = go(&mut engine, &tokens, b"", 6);
    assert_eq!((after.reused, after.evaluated), (49, 1));
    assert_eq!(said(&after), said(&expected));
    let nothing = go(&mut engine, &[], b"x", 5);
    assert_eq!((nothing.text.as_str(), nothing.pieces.len()), ("", 0));
}

#[test]
fn the_contexts_end_is_a_limit_and_a_longer_prompt_an_error() {
    let mut engine = local(&random_qwen2(6, &Dims::default()).unwrap(), 32);
    assert_eq!(engine.about().context, 32);
    let tokens = ordinary(&engine, &mut fastrand::Rng::with_seed(5), 33);
    let full = go(&mut engine, &tokens[..32], b"aaaaaaaa", 5);
    assert_eq!((full.stop, full.pieces.len()), (Stop::Limit, 1));
    let near = go(&mut engine, &tokens[..30], b"aaaaaaaa", 9);
    assert_eq!((near.stop, near.pieces.len()), (Stop::Limit, 3));
    let prompt = Prompt { tokens: tokens.clone(), forced: Vec::new(), ..Prompt::default() };
    let error = engine.generate(&prompt, &Limits { max_tokens: 1, ..Limits::default() }, &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(matches!(error, Err(EngineError::PromptTooLong { tokens: 33, context: 32 })));
    assert!(engine.sequences.tokens().is_empty() && engine.decoder.is_empty());
    assert_eq!(said(&go(&mut engine, &tokens[..30], b"aaaaaaaa", 9)), said(&near));
    let prompt = Prompt { tokens: vec![1, TokenId::MAX], forced: Vec::new(), ..Prompt::default() };
    let error = engine.generate(&prompt, &Limits { max_tokens: 1, ..Limits::default() }, &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(matches!(error, Err(EngineError::Device { .. })));
    assert_eq!(said(&go(&mut engine, &tokens[..30], b"aaaaaaaa", 9)), said(&near));
}

#[test]
fn after_a_panic_and_clear_all_is_as_new() {
    let mut engine = tiny(7);
    let tokens = ordinary(&engine, &mut fastrand::Rng::with_seed(6), 40);
    let expected = go(&mut engine, &tokens, b"self.", 8);
    assert!(expected.pieces.len() > 2, "{expected:?}");
    let prompt = Prompt { tokens: tokens.clone(), forced: b"self.".to_vec(), ..Prompt::default() };
    for at in 1..8 {
        let mut calls = 0;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            engine.generate(&prompt, &Limits { max_tokens: 8, ..Limits::default() }, &mut |_| {
                calls += 1;
                assert!(calls < at, "a panic on purpose");
                ControlFlow::Continue(())
            })
        }));
        if at <= expected.pieces.len() {
            assert!(caught.is_err());
        }
        // Also without `clear` the two never disagree.
        assert_eq!(engine.sequences.tokens().len(), engine.decoder.len());
        engine.clear();
        assert_eq!(said(&go(&mut engine, &tokens, b"self.", 8)), said(&expected));
    }
}

#[test]
fn weights_that_give_no_number_are_an_error() {
    let dims = Dims::default();
    let writer = random_qwen2(1, &dims).unwrap();
    // Numbers, each of them, but far too great.
    let great = (0..dims.hidden).flat_map(|_| 3e38_f32.to_le_bytes()).collect();
    let broken =
        writer.tensor("output_norm.weight", candle_core::quantized::GgmlDType::F32, &[dims.hidden], great);
    let mut engine = local(&broken, 64);
    let prompt = Prompt { tokens: vec![1, 2], forced: Vec::new(), ..Prompt::default() };
    let error = engine.generate(&prompt, &Limits { max_tokens: 1, ..Limits::default() }, &mut |_| {
        ControlFlow::Continue(())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("model.gguf") && error.contains("not a number"), "{error}");
    assert!(error.contains("the file is damaged") && !error.contains("CPU"), "{error}");
}

#[test]
fn it_says_what_it_is_and_how_fast() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    random_qwen2(8, &Dims::default()).unwrap().write(&path).unwrap();
    let mut engine = open(&path, 512).unwrap();
    let about = engine.about().clone();
    assert_eq!((about.model.as_str(), about.family.as_str()), ("random qwen2", "qwen2"));
    assert_eq!(about.device, "CPU: asked for");
    // AMX says how its race ended.
    let own = ["the best that this processor has; ", " here; "].iter().any(|why| about.kernel.contains(why));
    assert!(own || about.kernel.starts_with("candle: "), "{}", about.kernel);
    assert!(about.weight_bytes > 10_000);
    assert_eq!(engine.rates(), Rates::default());
    let tokens = ordinary(&engine, &mut fastrand::Rng::with_seed(7), 40);
    let generation = go(&mut engine, &tokens, b"some", 6);
    assert!(generation.pieces.len() > 1);
    assert!(engine.rates().prefill > 0.0 && engine.rates().decode > 0.0);
    assert_eq!("candle".parse::<KernelChoice>().unwrap(), KernelChoice::Candle);
    assert!("fast".parse::<KernelChoice>().unwrap_err().to_string().contains("\"fast\""));
}

#[test]
fn every_cut_of_a_small_file_is_an_error() {
    let bytes = random_qwen2(1, &Dims::default()).unwrap().bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for len in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(open(&path, 64).is_err(), "{len} bytes");
    }
}

#[test]
fn a_cut_real_file_is_an_error_at_once() {
    let Some(model) = real_model::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut head = Vec::new();
    File::open(&model).unwrap().take(10 << 20).read_to_end(&mut head).unwrap();
    for (bytes, len) in [(1 << 20, 1 << 20), (10 << 20, 10 << 20), (10 << 20, 100 << 20)] {
        let mut file = File::create(&path).unwrap();
        file.write_all(&head[..bytes]).unwrap();
        file.set_len(len).unwrap();
        // In the head: before anything is loaded.
        let error = Gguf::open(&path).unwrap_err().to_string();
        assert!(error.contains("taper pull"), "{error}");
        assert_eq!(open(&path, 512).unwrap_err().to_string(), error);
    }
}

#[test]
fn the_real_model_goes_on_from_its_cache_as_from_nothing() {
    let Some(model) = real_model::path() else { return };
    // Where a cached run is the same as a fresh one to the bit.
    let kernel = KernelChoice::Own(Kernel::exact());
    let options = Options { device: DeviceChoice::Cpu, kernel, context: 512, ..Options::default() };
    let mut engine = Local::open(&model, &options).unwrap();
    let code = real_model::CODE;
    let cut = |marker: &str| engine.tokens.encode(&code[..code.find(marker).unwrap()]);
    let (first, second) = (cut("        if path.exists"), cut("        self.bookings = json"));
    let expected = go(&mut engine, &second, b"self", 8);
    assert!(!expected.text.is_empty());
    let before = go(&mut engine, &first, b"", 4);
    assert!(before.reused > first.len() / 2);
    let after = go(&mut engine, &second, b"self", 8);
    assert!(after.reused > first.len() / 2);
    assert_eq!(said(&after), said(&expected));
}

/// The same file twice or more: plain, and with each way to speculate: drafts of up to so many tokens always,
/// and as many as pay.
pub(super) fn pair(writer: &Writer, context: usize) -> (Local, Vec<Local>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    let seeds = std::cell::Cell::new(0);
    let open = |speculate, always| {
        let options = Options { context, speculate, ..Options::default() };
        seeds.set(seeds.get() + 1);
        let mut engine = scripted(&path, seeds.get(), &options).unwrap();
        assert_eq!(engine.lookup.is_some(), speculate);
        if let Some(lookup) = &mut engine.lookup {
            lookup.always = always;
        }
        engine
    };
    (open(false, None), [Some(lookup::DRAFT), Some(3), None].map(|always| open(true, always)).into())
}

/// Reads the prompt, then generates and breaks at the text with this number: all that was seen.
fn watched(engine: &mut Local, prompt: &Prompt, max_tokens: usize, at: usize) -> (Generation, Vec<String>) {
    go(engine, &prompt.tokens, b"", 0);
    let mut texts = Vec::new();
    let mut generation = engine
        .generate(prompt, &Limits { max_tokens, ..Limits::default() }, &mut |Said { text, .. }| {
            // The same text again may be a look inside a batch, of which there are more or fewer.
            let new = texts.last().is_none_or(|last: &String| last != text);
            if new {
                texts.push(text.to_owned());
            }
            if new && texts.len() == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(engine.sequences.tokens().len(), engine.decoder.len());
    generation.prefill = Default::default();
    generation.decode = Default::default();
    (generation, texts)
}

fn agree(plain: &mut Local, others: &mut [Local], prompt: &Prompt, max: usize, at: usize) -> Generation {
    let expected = watched(plain, prompt, max, at);
    for other in others {
        let ours = watched(other, prompt, max, at);
        assert_eq!(ours, expected, "break at {at} of {prompt:?}");
        assert_eq!(other.sequences.tokens(), plain.sequences.tokens());
    }
    expected.0
}

/// Code-like tokens in which much comes again.
pub(super) fn repetitive(engine: &Local, random: &mut fastrand::Rng, len: usize) -> Vec<TokenId> {
    let motifs: Vec<Vec<TokenId>> = (0..3)
        .map(|_| {
            let len = random.usize(1..7);
            ordinary(engine, random, len)
        })
        .collect();
    let mut tokens = Vec::new();
    while tokens.len() < len {
        tokens.extend_from_slice(&motifs[random.usize(..motifs.len())]);
        if random.u8(..) < 40 {
            tokens.extend(ordinary(engine, random, 1));
        }
    }
    tokens.truncate(len);
    tokens
}

#[test]
fn speculation_says_what_one_by_one_says() {
    use candle_core::quantized::GgmlDType::{F16, F32, Q4_0, Q4K, Q5_0, Q6K, Q8_0};
    let mut random = fastrand::Rng::with_seed(9);
    for (i, dtype) in [F32, F16, Q4_0, Q5_0, Q8_0, Q4K, Q6K].into_iter().enumerate() {
        let dims = Dims { output: (i % 2 == 0).then_some(Q8_0), ..Dims::stored_as(dtype) };
        let seed = i as u64;
        for writer in [random_qwen2(seed, &dims).unwrap(), random_llama(seed, &dims).unwrap()] {
            let (mut plain, mut others) = pair(&writer, 128);
            let mut tokens: Vec<TokenId> = Vec::new();
            let mut last = Vec::new();
            for _ in 0..150 {
                // Another place, or the same with some of what was said, or without its end.
                match random.u8(..10) {
                    _ if tokens.len() > 110 || tokens.is_empty() => tokens.clear(),
                    0..3 => tokens.clear(),
                    3..8 => tokens.extend_from_slice(&last[..random.usize(..=last.len().min(8))]),
                    _ => tokens.truncate(random.usize(1..=tokens.len())),
                }
                if tokens.is_empty() {
                    let len = random.usize(1..90);
                    tokens = repetitive(&plain, &mut random, len);
                }
                let forced = match random.u8(..4) {
                    0 => ["r", "ret", "x", "    se"][random.usize(..4)].as_bytes().to_vec(),
                    1 => {
                        // What was said, typed on.
                        let bytes: Vec<u8> =
                            last.iter().flat_map(|&token| plain.tokens.bytes(token)).copied().collect();
                        bytes[..random.usize(..=bytes.len().min(5))].to_vec()
                    }
                    _ => Vec::new(),
                };
                let prompt = Prompt { tokens: tokens.clone(), forced, ..Prompt::default() };
                let max = random.usize(1..28);
                let at = if random.bool() { usize::MAX } else { random.usize(1..28) };
                agree(&mut plain, &mut others, &prompt, max, at);
                // Less than the prompt if it broke off inside the first batch.
                last = plain.sequences.tokens().get(tokens.len()..).unwrap_or_default().to_vec();
            }
            for other in &others[..2] {
                let done = other.speculation();
                assert!(done.accepted > 50 && done.drafted > done.accepted, "{dtype:?}: {done:?}");
            }
            assert_eq!(plain.speculation(), Speculation::default());
        }
    }
}

#[test]
fn a_break_at_every_token_of_a_batch_is_as_if_there_was_none() {
    let mut random = fastrand::Rng::with_seed(10);
    for seed in 0..4 {
        let (mut plain, mut others) = pair(&random_qwen2(seed, &Dims::default()).unwrap(), 160);
        for forced in ["", "ret", "    s"] {
            let tokens = repetitive(&plain, &mut random, 60);
            let prompt = Prompt { tokens, forced: forced.as_bytes().to_vec(), ..Prompt::default() };
            let whole = agree(&mut plain, &mut others, &prompt, 40, usize::MAX);
            for at in 1.. {
                // What was said whole is remembered, so all of it is one batch or two.
                let broken = agree(&mut plain, &mut others, &prompt, 40, at);
                if broken.stop != Stop::Watch {
                    assert!(at > 2 && broken == whole);
                    break;
                }
                assert!(whole.text.starts_with(&broken.text));
                assert_eq!(said(&agree(&mut plain, &mut others, &prompt, 40, usize::MAX)), said(&whole));
            }
            for max in 1..whole.pieces.len() {
                assert_eq!(
                    agree(&mut plain, &mut others, &prompt, max, usize::MAX).pieces[..],
                    whole.pieces[..max]
                );
            }
        }
        let done = others[0].speculation();
        assert!(done.tokens > 5 * done.steps, "{done:?}");
    }
}

#[test]
fn speculation_ends_where_the_context_ends() {
    let (mut plain, mut others) = pair(&random_qwen2(6, &Dims::default()).unwrap(), 48);
    let mut random = fastrand::Rng::with_seed(11);
    for len in 1..=48 {
        let prompt =
            Prompt { tokens: repetitive(&plain, &mut random, len), forced: Vec::new(), ..Prompt::default() };
        for _ in 0..2 {
            agree(&mut plain, &mut others, &prompt, 60, usize::MAX);
        }
    }
    assert!(others[0].speculation().accepted > 100);
}

#[test]
fn candle_is_asked_token_by_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    random_qwen2(1, &Dims::default()).unwrap().write(&path).unwrap();
    let options = Options {
        device: DeviceChoice::Cpu,
        kernel: KernelChoice::Candle,
        context: 64,
        ..Options::default()
    };
    let mut engine = Local::open(&path, &options).unwrap();
    assert!(go(&mut engine, &[1, 2, 1, 2, 1, 2], b"", 8).pieces.len() > 1);
    assert_eq!(engine.speculation(), Speculation::default());
}

#[test]
fn the_real_model_says_the_same_with_speculation() {
    let Some(model) = real_model::path() else { return };
    // The kernel that is chosen here reads prompts in tiles, perhaps: then both begin with nothing.
    for (kernel, fresh) in [(Kernel::exact(), false), (Kernel::best(), Kernel::best() == Kernel::Amx)] {
        let open = |speculate| {
            let (device, kernel) = (DeviceChoice::Cpu, KernelChoice::Own(kernel));
            let options = Options { device, kernel, context: 1024, speculate, ..Options::default() };
            Local::open(&model, &options).unwrap()
        };
        let (mut plain, mut ours) = (open(false), open(true));
        if ours.lookup.is_none() {
            return;
        }
        let code = real_model::CODE;
        for marker in ["self.bookings.append", "    def save", "parser.add_argument(\"--", "print(f\""] {
            let at = code.find(marker).unwrap();
            // As if typed on: the answers are the same, and mostly known from the keystroke before.
            for typed in [0, 3, 5, 9] {
                let (before, forced) = code[..at + typed].split_at(at);
                let prompt = Prompt {
                    tokens: plain.tokens.encode(before),
                    forced: forced.as_bytes().to_vec(),
                    ..Prompt::default()
                };
                if fresh {
                    plain.clear();
                    ours.clear();
                }
                agree(&mut plain, std::slice::from_mut(&mut ours), &prompt, 20, usize::MAX);
            }
        }
        let done = ours.speculation();
        assert!(done.accepted * if fresh { 10 } else { 4 } > done.tokens, "{kernel:?} {done:?}");
    }
}
