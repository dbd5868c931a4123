//! Tests that compare the CPU decoder with candle, with itself in other batches, and all kernels with each other.

use candle_core::Device;
use candle_core::quantized::GgmlDType;

use super::*;
use crate::gguf::testing::{GgufWriter, ModelDims, random_llama, random_qwen2};
use crate::gguf::{TensorFormat, half_float_offsets};
use crate::local::testing::{argmax, relative_difference};
use crate::local::{CandleDecoder, DeviceChoice, Local, Options, SuffixShift, real_model};
use crate::{Engine as _, Tokenizer};

const DTYPES: [GgmlDType; 11] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// Requests for a few rows.
const ALL_LOGITS: [LogitsRequest; 3] = [const { LogitsRequest::All }; 3];

fn available_kernels() -> impl Iterator<Item = Kernel> {
    Kernel::available_kernels()
}

/// The kernels whose bits do not depend on the number of rows.
fn exact_kernels() -> impl Iterator<Item = Kernel> {
    available_kernels().filter(|&kernel| kernel != Kernel::Amx)
}

fn open_model(writer: &GgufWriter) -> (tempfile::TempDir, Gguf, ModelConfig) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    (folder, gguf, config)
}

fn random_tokens(random: &mut fastrand::Rng, config: &ModelConfig, len: usize) -> Vec<TokenId> {
    (0..len).map(|_| random.u32(..config.vocabulary as u32)).collect()
}

#[test]
fn tiny_models_match_candle_and_kernels_match_bitwise() {
    let mut random = fastrand::Rng::with_seed(5);
    for dtype in DTYPES {
        for tied in [false, true] {
            let output = (!tied).then_some(GgmlDType::Q8_0);
            let dims = ModelDims { output, ..ModelDims::stored_as(dtype) };
            for (family, writer) in [("qwen2", random_qwen2(9, &dims)), ("llama", random_llama(9, &dims))] {
                let (_folder, gguf, config) = open_model(&writer.unwrap());
                let tokens = random_tokens(&mut random, &config, 70);
                let mut candle = CandleDecoder::load(&gguf, &config, 128, &Device::Cpu).unwrap();
                let theirs = candle.forward(&tokens, 20).unwrap();
                let mut first: Option<Vec<f32>> = None;
                for kernel in available_kernels() {
                    let mut decoder = CpuDecoder::new(&gguf, &config, 128, kernel, 2).unwrap();
                    let ours = decoder.forward(&tokens, 20).unwrap().to_vec();
                    let difference = relative_difference(&ours, theirs);
                    // Both round activations to 8 bits; candle's K-quants do so in blocks of 256.
                    assert!(difference < 5e-2, "{family} {dtype:?} {kernel:?}: {difference}");
                    if kernel != Kernel::Amx {
                        let first = first.get_or_insert_with(|| ours.clone());
                        assert!(
                            *first == ours,
                            "{family} {dtype:?}: {kernel:?} is not {:?}",
                            Kernel::Portable
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn odd_head_widths_and_groups_match_candle() {
    let mut random = fastrand::Rng::with_seed(8);
    // Heads of 24 and 8 values, three and one query heads for each key head.
    for (hidden, heads, kv_heads) in [(288, 12, 4), (96, 12, 12), (160, 5, 1)] {
        let dims = ModelDims { hidden, heads, kv_heads, ..ModelDims::stored_as(GgmlDType::Q8_0) };
        for writer in [random_qwen2(4, &dims), random_llama(4, &dims)] {
            let (_folder, gguf, config) = open_model(&writer.unwrap());
            // More than one tile of keys.
            let tokens = random_tokens(&mut random, &config, 150);
            let mut candle = CandleDecoder::load(&gguf, &config, 200, &Device::Cpu).unwrap();
            let theirs = candle.forward(&tokens, 90).unwrap();
            let mut first: Option<Vec<f32>> = None;
            for kernel in available_kernels() {
                let mut decoder = CpuDecoder::new(&gguf, &config, 200, kernel, 2).unwrap();
                let ours = decoder.forward(&tokens, 90).unwrap().to_vec();
                let difference = relative_difference(&ours, theirs);
                assert!(difference < 3e-2, "{hidden} {kernel:?}: {difference}");
                let first = first.get_or_insert_with(|| ours.clone());
                assert!(kernel == Kernel::Amx || *first == ours, "{hidden} {kernel:?}");
            }
        }
    }
}

#[test]
fn logits_do_not_depend_on_batch_splits() {
    let mut random = fastrand::Rng::with_seed(6);
    for dtype in [GgmlDType::Q5_0, GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::F16] {
        let dims = ModelDims { output: Some(GgmlDType::Q8_0), context: 600, ..ModelDims::stored_as(dtype) };
        let (_folder, gguf, config) = open_model(&random_qwen2(3, &dims).unwrap());
        let tokens = random_tokens(&mut random, &config, 500);
        for kernel in exact_kernels() {
            let mut decoder = CpuDecoder::new(&gguf, &config, 600, kernel, 2).unwrap();
            let whole = decoder.forward(&tokens, tokens.len()).unwrap().to_vec();
            let rounds = if kernel == Kernel::Portable { 1 } else { 6 };
            for _ in 0..rounds {
                // Junk after the cut must not be visible.
                let mut at = random.usize(..tokens.len());
                decoder.truncate_sequence(0, at);
                while at < tokens.len() {
                    let end = (at + random.usize(1..50)).min(tokens.len());
                    let rows = random.usize(..=end - at);
                    let logits = decoder.forward(&tokens[at..end], rows).unwrap();
                    let expected = &whole[(end - rows) * config.vocabulary..end * config.vocabulary];
                    assert!(logits == expected, "{kernel:?} {dtype:?}: {rows} rows up to {end}");
                    at = end;
                    assert_eq!(decoder.sequence_len(0), at);
                }
            }
        }
    }
}

/// Appends a batch and breaks at the poll with this number; returns the logits and the number of polls.
fn forward_and_break(decoder: &mut CpuDecoder, batch: &Batch<'_>, at: usize) -> (Option<Vec<f32>>, usize) {
    let mut looks = 0;
    let held = decoder.sequence_len(batch.sequence);
    let flow = decoder.forward_batch(batch, &mut || {
        looks += 1;
        if looks == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let logits = match flow.unwrap() {
        ControlFlow::Continue(logits) => Some(logits.to_vec()),
        ControlFlow::Break(()) => None,
    };
    let moved = batch.suffix_shift.as_ref().map_or(0, |moved| moved.rows.len());
    let new = if logits.is_some() { batch.tokens.len() + moved } else { 0 };
    assert_eq!(decoder.sequence_len(batch.sequence), held + new);
    (logits, looks)
}

#[test]
fn interrupted_batch_resumes_with_identical_logits() {
    const SEQUENCES: usize = 4;
    let mut random = fastrand::Rng::with_seed(7);
    for dtype in [GgmlDType::F32, GgmlDType::Q5_0, GgmlDType::Q6K] {
        let dims = ModelDims { layers: 5, context: 1024, ..ModelDims::stored_as(dtype) };
        for (writer, kernel) in [random_qwen2(2, &dims), random_llama(2, &dims)]
            .into_iter()
            .flat_map(|writer| exact_kernels().map(move |kernel| (writer.as_ref().unwrap().clone(), kernel)))
        {
            let (_folder, gguf, config) = open_model(&writer);
            // A seed determines where it breaks, for one to four threads of any speed.
            let pool = ThreadPool::scripted(1 + random.usize(..4), random.u64(..));
            let mut decoder = CpuDecoder::with_pool(&gguf, &config, 800, kernel, pool).unwrap();
            let mut fresh = CpuDecoder::new(&gguf, &config, 800, kernel, 2).unwrap();
            assert_eq!(decoder.resize_sequences(SEQUENCES), SEQUENCES);
            let mut fresh_held: Vec<TokenId> = Vec::new();
            let mut held = vec![Vec::new(); SEQUENCES];
            let mut last: Vec<Vec<TokenId>> = vec![Vec::new(); SEQUENCES];
            // More tokens than pass through the layers together.
            let (longest, rounds) = if kernel == Kernel::best_exact() { (300, 100) } else { (30, 40) };
            let (mut broken, mut begun, mut compared) = (0, 0, 0);
            for _ in 0..rounds {
                let at = random.usize(..SEQUENCES);
                match random.u8(..12) {
                    0 => {
                        let len = random.usize(..=held[at].len());
                        decoder.truncate_sequence(at, len);
                        held[at].truncate(len);
                    }
                    1 => {
                        let to = random.usize(..SEQUENCES);
                        let len = random.usize(..=held[at].len());
                        decoder.fork_sequence(at, to, 0..len);
                        held[to] = held[at][..len].to_vec();
                    }
                    _ => {}
                }
                // The same again, or with another end, or different tokens.
                let mut tokens = last[at].clone();
                if random.u8(..3) > 0 {
                    tokens.truncate(random.usize(..=tokens.len()));
                    let some = random.usize(..longest / 2 + 1 + usize::from(tokens.is_empty()) * longest / 2);
                    tokens.extend(random_tokens(&mut random, &config, some));
                }
                tokens.truncate(longest);
                if held[at].len() + tokens.len() > 800 {
                    decoder.truncate_sequence(at, 0);
                    held[at].clear();
                }
                let rows = random.usize(..=tokens.len().min(3));
                let was = decoder.resumable_work(at, &tokens);
                assert!(was.work <= was.tokens as f32 && was.tokens <= tokens.len());
                begun += was.tokens;
                // At least one poll follows each of the five layers, whichever thread does the work; more happen inside
                // them.
                let stop = [random.usize(1..=5), random.usize(1..40), usize::MAX][random.usize(..3)];
                let logits = &ALL_LOGITS[..rows];
                let batch = Batch { sequence: at, tokens: &tokens, logits, exact: true, ..Batch::default() };
                match forward_and_break(&mut decoder, &batch, stop).0 {
                    None => {
                        let now = decoder.resumable_work(at, &tokens);
                        // Finished rows pass the last layer again.
                        let least = was.work - rows as f32;
                        assert!(now.tokens > 0 && now.work > 0.0 && now.work >= least, "{was:?} {now:?}");
                        broken += 1;
                        last[at] = tokens;
                    }
                    Some(logits) => {
                        // An empty batch is no reason to discard progress.
                        let left = if tokens.is_empty() { was } else { ResumableWork::default() };
                        assert_eq!(decoder.resumable_work(at, &tokens), left);
                        held[at].extend(tokens);
                        // Never interrupted, and with one sequence.
                        let same = fresh_held.iter().zip(&held[at]).take_while(|(a, b)| a == b).count();
                        let same = same.min(held[at].len() - rows);
                        fresh.truncate_sequence(0, same);
                        let expected = fresh.forward(&held[at][same..], rows).unwrap();
                        fresh_held.clone_from(&held[at]);
                        assert!(logits == expected, "{kernel:?} {dtype:?}: {rows} rows");
                        compared += rows;
                    }
                }
            }
            assert!(broken > 5 && begun > 20 && compared > 1, "{broken} {begun} {compared}");
        }
    }
}

#[test]
fn empty_batch_keeps_resumable_work() {
    let (_folder, gguf, config) = open_model(&random_qwen2(2, &ModelDims::default()).unwrap());
    let mut decoder = CpuDecoder::new(&gguf, &config, 400, Kernel::best_exact(), 1).unwrap();
    let tokens = random_tokens(&mut fastrand::Rng::with_seed(1), &config, 60);
    let batch = |tokens| Batch { tokens, logits: &ALL_LOGITS[..1], ..Batch::default() };
    assert_eq!(forward_and_break(&mut decoder, &batch(&tokens), 1), (None, 1));
    let was = decoder.resumable_work(0, &tokens);
    assert_eq!(was.tokens, 60);
    assert_eq!(forward_and_break(&mut decoder, &batch(&[]), usize::MAX), (Some(Vec::new()), 0));
    assert_eq!(decoder.resumable_work(0, &tokens), was);
    assert_eq!(
        decoder.resumable_work(0, &[]),
        ResumableWork { discarded: was.work, ..ResumableWork::default() }
    );
}

#[test]
fn repeated_interruption_runs_each_layer_once() {
    let dims = ModelDims { layers: 6, ..ModelDims::default() };
    let (_folder, gguf, config) = open_model(&random_qwen2(2, &dims).unwrap());
    let tokens = random_tokens(&mut fastrand::Rng::with_seed(1), &config, 300);
    // On one thread a poll follows every piece, so their number is constant.
    let open = || CpuDecoder::new(&gguf, &config, 400, Kernel::best_exact(), 1).unwrap();
    let batch = Batch { tokens: &tokens, ..Batch::default() };
    let uninterrupted = forward_and_break(&mut open(), &batch, usize::MAX).1;
    // 256 tokens, then 44: the minimum number of polls in a layer of the first.
    let layer = uninterrupted.div_ceil(6);
    for looks in (1..8).chain([layer - 1, layer, layer + 1, 3 * layer]) {
        let mut decoder = open();
        let (mut all, mut work, mut tries) = (0, 0.0, 0);
        let mut held_up = false;
        loop {
            let (done, here) = forward_and_break(&mut decoder, &batch, looks);
            (all, tries) = (all + here, tries + 1);
            if done.is_some() {
                break;
            }
            let now = decoder.resumable_work(0, &tokens).work;
            assert!(now > work || (now == work && !held_up), "{now} after {work}");
            held_up = now == work;
            work = now;
        }
        // The remainder of a layer is repeated at each try; where it ran without polls, there are fewer.
        assert!(all < uninterrupted + tries * layer, "{looks}: {all} of {uninterrupted}, {tries} tries");
        // Two more tokens, and logits: they catch up except for the last layer, which both share.
        decoder.truncate_sequence(0, 290);
        let batch = |tokens| Batch { tokens, logits: &ALL_LOGITS[..1], ..Batch::default() };
        assert_eq!(forward_and_break(&mut decoder, &batch(&tokens[290..296]), 4), (None, 4));
        let (logits, looks) = forward_and_break(&mut decoder, &batch(&tokens[290..298]), usize::MAX);
        assert_eq!(looks, 4 + 2 + 1);
        let mut fresh = CpuDecoder::new(&gguf, &config, 400, Kernel::best_exact(), 2).unwrap();
        assert_eq!(logits.unwrap(), fresh.forward(&tokens[..298], 1).unwrap());
    }
}

#[test]
fn interrupted_layer_restarts_from_its_input() {
    let dims = ModelDims { layers: 3, ..ModelDims::default() };
    let (_folder, gguf, config) = open_model(&random_qwen2(2, &dims).unwrap());
    let tokens = random_tokens(&mut fastrand::Rng::with_seed(1), &config, 60);
    let logits = &ALL_LOGITS[..2];
    let batch = Batch { tokens: &tokens, logits, exact: true, ..Batch::default() };
    let mut threaded = CpuDecoder::new(&gguf, &config, 400, Kernel::best_exact(), 2).unwrap();
    let expected = forward_and_break(&mut threaded, &batch, usize::MAX).0;
    for seed in 0..8 {
        for background in [false, true] {
            let open = || {
                let pool = ThreadPool::scripted(1 + seed as usize % 4, seed);
                CpuDecoder::with_pool(&gguf, &config, 400, Kernel::best_exact(), pool).unwrap()
            };
            let batch = Batch { priority: Priority::from_background(background), ..batch.clone() };
            let (whole, looks) = forward_and_break(&mut open(), &batch, usize::MAX);
            assert_eq!(whole, expected);
            for at in 1..=looks {
                let mut decoder = open();
                assert_eq!(forward_and_break(&mut decoder, &batch, at), (None, at));
                let begun = decoder.resumable_work(0, &tokens);
                assert!(
                    decoder.sequence_len(0) == 0 && begun.tokens == 60 && begun.work >= 20.0,
                    "at {at}: {begun:?}"
                );
                assert_eq!(forward_and_break(&mut decoder, &batch, usize::MAX).0, expected, "at {at}");
            }
        }
    }
}

#[test]
fn tokens_before_a_shifted_suffix_are_resumable() {
    let mut random = fastrand::Rng::with_seed(4);
    let dims = ModelDims { layers: 4, ..ModelDims::default() };
    for writer in [random_qwen2(6, &dims).unwrap(), random_llama(6, &dims).unwrap()] {
        let (_folder, gguf, config) = open_model(&writer);
        let pool = ThreadPool::scripted(2, random.u64(..));
        let mut ours = CpuDecoder::with_pool(&gguf, &config, 400, Kernel::best_exact(), pool).unwrap();
        let mut theirs = CpuDecoder::new(&gguf, &config, 400, Kernel::best_exact(), 2).unwrap();
        let beginning = random_tokens(&mut random, &config, 150);
        for decoder in [&mut ours, &mut theirs] {
            decoder.resize_sequences(2);
            decoder.forward(&beginning, 0).unwrap();
            decoder.fork_sequence(0, 1, 110..150);
            decoder.truncate_sequence(0, 90);
        }
        let (mut tokens, mut begun) = (random_tokens(&mut random, &config, 40), 0);
        for round in 0..60 {
            // The text before grows, other tokens follow; sometimes nothing is shifted.
            let insert_after = random.usize(..=tokens.len());
            let moved =
                SuffixShift { insert_after, source: 1, rows: 110..random.usize(111..=150), changed: 0 };
            let moved = Some(moved).filter(|_| random.u8(..4) > 0);
            let logits = &ALL_LOGITS[..1];
            let batch = Batch { tokens: &tokens, logits, suffix_shift: moved, ..Batch::default() };
            let stop = if round % 3 == 2 { usize::MAX } else { random.usize(1..6) };
            begun += ours.resumable_work(0, &tokens[..insert_after]).tokens;
            if let Some(logits) = forward_and_break(&mut ours, &batch, stop).0 {
                assert_eq!(Some(logits), forward_and_break(&mut theirs, &batch, usize::MAX).0);
                ours.truncate_sequence(0, 90);
                theirs.truncate_sequence(0, 90);
            } else if batch.suffix_shift.is_some() {
                assert!(ours.resumable_work(0, &tokens).tokens <= insert_after);
            }
            let keep = random.usize(10..=tokens.len().min(30));
            tokens.truncate(keep);
            tokens.extend(random_tokens(&mut random, &config, 40 - keep));
        }
        assert!(begun > 100, "{begun}");
    }
}

#[test]
fn pages_of_discarded_batches_are_freed() {
    let (_folder, gguf, config) = open_model(&random_qwen2(2, &ModelDims::default()).unwrap());
    let mut decoder = CpuDecoder::new(&gguf, &config, 400, Kernel::best_available(), 2).unwrap();
    let tokens = random_tokens(&mut fastrand::Rng::with_seed(1), &config, 300);
    decoder.resize_sequences(8);
    for sequence in 0..8 {
        let batch = Batch { sequence, tokens: &tokens, ..Batch::default() };
        assert_eq!(forward_and_break(&mut decoder, &batch, 1), (None, 1));
    }
    // Two batches are kept, of 256 tokens each.
    assert_eq!(decoder.kv_bytes(), 2 * decoder.kv_bytes_for(256));
    let batch = Batch { sequence: 7, tokens: &tokens[..10], ..Batch::default() };
    assert!(forward_and_break(&mut decoder, &batch, usize::MAX).0.is_some());
    assert_eq!(decoder.kv_bytes(), decoder.kv_bytes_for(256) + decoder.kv_bytes_for(10));
    for sequence in 0..8 {
        decoder.fork_sequence(sequence, sequence, 0..0);
    }
    assert_eq!((decoder.kv_bytes(), decoder.resumable_work(6, &tokens)), (0, ResumableWork::default()));
}

#[test]
fn oversized_batch_is_refused_and_state_kept() {
    let (_folder, gguf, config) = open_model(&random_qwen2(1, &ModelDims::default()).unwrap());
    let mut decoder = CpuDecoder::new(&gguf, &config, 10, Kernel::best_available(), 2).unwrap();
    let expected = decoder.forward(&[1, 2, 3], 1).unwrap().to_vec();
    let too_long = decoder.forward(&[1; 8], 1).unwrap_err();
    assert!(matches!(too_long, EngineError::PromptTooLong { tokens: 11, context: 10 }));
    decoder.forward(&[1, config.vocabulary as u32], 1).unwrap_err();
    assert_eq!(decoder.sequence_len(0), 3);
    decoder.truncate_sequence(0, 2);
    assert_eq!(decoder.forward(&[3], 1).unwrap(), expected);
    assert!(decoder.forward(&[], 1).unwrap().is_empty());
    assert!(decoder.forward(&[4, 5], 0).unwrap().is_empty());
    assert_eq!(decoder.forward(&[6], 5).unwrap().len(), config.vocabulary);
}

/// A model whose feed-forward matrices are stored in `format`, with random codes.
fn random_model_in(format: TensorFormat) -> GgufWriter {
    let dims = ModelDims { layers: 2, ..ModelDims::stored_as(GgmlDType::Q4K) };
    // Scales with which the values are at most about 0.1.
    let (block, bytes, halves, greatest): (_, _, &[usize], _) = match format {
        TensorFormat::Iq4Nl => (32, 18, &[0], 1e-3),
        TensorFormat::Mxfp4 => (32, 17, &[], 0.0),
        TensorFormat::Iq4Xs => (256, 136, &[0], 3e-5),
        TensorFormat::Ggml(dtype) => (256, dtype.type_size(), half_float_offsets(dtype), 2e-3),
    };
    let mut random = fastrand::Rng::with_seed(9);
    let mut writer = random_qwen2(1, &dims).unwrap();
    for layer in 0..dims.layers {
        for part in ["gate", "up"] {
            let mut data: Vec<u8> =
                (0..dims.intermediate * dims.hidden / block * bytes).map(|_| random.u8(..)).collect();
            for block in data.chunks_exact_mut(bytes) {
                for &at in halves {
                    let scale = half::f16::from_f32(random.f32() * greatest);
                    block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                }
                if format == TensorFormat::Mxfp4 {
                    block[0] = random.u8(118..121);
                }
            }
            let name = format!("blk.{layer}.ffn_{part}.weight");
            writer = writer.with_tensor(&name, format, &[dims.intermediate, dims.hidden], data);
        }
    }
    writer
}

/// candle computes with `Q2_K` and `Q3_K` themselves, and with what the others are converted to.
#[test]
fn formats_without_kernels_are_converted() {
    let tokens: Vec<u32> = (0..20).collect();
    for (format, shown) in [
        (TensorFormat::Iq4Nl, "IQ4_NL, converted to Q8_0 at load"),
        (TensorFormat::Iq4Xs, "IQ4_XS, converted to Q8_0 at load"),
        (TensorFormat::Mxfp4, "MXFP4, converted to Q8_0 at load"),
        (TensorFormat::Ggml(GgmlDType::Q2K), "Q2_K, converted to Q6_K at load"),
        (TensorFormat::Ggml(GgmlDType::Q3K), "Q3_K, converted to Q6_K at load"),
    ] {
        let (_folder, gguf, config) = open_model(&random_model_in(format));
        let mut candle = CandleDecoder::load(&gguf, &config, 64, &Device::Cpu).unwrap();
        let theirs = candle.forward(&tokens, tokens.len()).unwrap().to_vec();
        for kernel in [Kernel::Portable, Kernel::best_exact()] {
            let mut decoder = CpuDecoder::new(&gguf, &config, 64, kernel, 2).unwrap();
            let ours = decoder.forward(&tokens, tokens.len()).unwrap();
            let difference = relative_difference(ours, &theirs);
            // Both round activations to 8 bits, in different blocks.
            assert!(difference < 5e-2, "{format:?} {kernel:?}: {difference}");
        }
        let options = Options { device: DeviceChoice::Cpu, context: 64, ..Options::default() };
        let engine = Local::open(gguf.path(), &options).unwrap();
        let weights = &engine.engine_info().weights;
        assert!(weights.split("; ").any(|part| part == shown) && weights.contains("Q4_K; "), "{weights}");
    }
}

#[test]
fn real_model_matches_candle_decoder() {
    let Some(path) = real_model::path() else { return };
    let gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let mut tokens = Tokenizer::from_gguf(&gguf).unwrap().encode(real_model::SAMPLE_CODE);
    tokens.truncate(200);
    let rows = tokens.len();
    let mut candle = CandleDecoder::load(&gguf, &config, 512, &Device::Cpu).unwrap();
    let theirs = candle.forward(&tokens, rows).unwrap().to_vec();
    drop(candle);
    let mut decoder = CpuDecoder::new(&gguf, &config, 512, Kernel::best_exact(), 2).unwrap();
    let ours = decoder.forward(&tokens, rows).unwrap().to_vec();
    let pairs = ours.chunks(config.vocabulary).zip(theirs.chunks(config.vocabulary));
    let differences: Vec<f32> =
        pairs.clone().map(|(ours, theirs)| relative_difference(ours, theirs)).collect();
    let same = pairs.filter(|(ours, theirs)| argmax(ours) == argmax(theirs)).count();
    let mean = differences.iter().sum::<f32>() / rows as f32;
    let worst = differences.iter().copied().fold(0.0, f32::max);
    #[expect(clippy::print_stderr, reason = "a measurement that the test's output keeps")]
    {
        eprintln!("against candle: mean {mean:.4}, worst {worst:.4}, same choice {same} of {rows}");
    }
    assert!(mean < 2e-2 && worst < 0.1, "mean {mean}, worst {worst}");
    assert!(same * 100 >= rows * 97, "{same} of {rows}");

    decoder.truncate_sequence(0, 120);
    let again = decoder.forward(&tokens[120..], 1).unwrap();
    assert!(again == &ours[(rows - 1) * config.vocabulary..]);

    // Interrupted every few layers, each time with more of the text. New tokens pass all 24 layers, with a poll after
    // each, regardless of thread speed.
    decoder.truncate_sequence(0, 120);
    for end in [130, 131, 150, 199, 200] {
        let batch = Batch { tokens: &tokens[120..end], logits: &ALL_LOGITS[..1], ..Batch::default() };
        assert_eq!(forward_and_break(&mut decoder, &batch, 12), (None, 12));
    }
    let batch = Batch { tokens: &tokens[120..], logits: &ALL_LOGITS[..1], ..Batch::default() };
    let (again, _) = forward_and_break(&mut decoder, &batch, usize::MAX);
    assert!(again.unwrap() == ours[(rows - 1) * config.vocabulary..]);
}

/// Tests what bfloat16 tiles change in a prompt, and that they change nothing in tokens decoded after it.
#[test]
fn real_model_amx_prefill_is_close_verification_exact() {
    if Kernel::best_available() != Kernel::Amx {
        return crate::testing::print_skipped(
            "this processor has no AMX, or TAPER_TEST_KERNEL leaves it out",
        );
    }
    let Some(path) = real_model::path() else { return };
    let gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let mut tokens = Tokenizer::from_gguf(&gguf).unwrap().encode(real_model::SAMPLE_CODE);
    tokens.truncate(200);
    let mut exact = CpuDecoder::new(&gguf, &config, 512, Kernel::best_exact(), 2).unwrap();
    let mut tiles = CpuDecoder::new(&gguf, &config, 512, Kernel::Amx, 2).unwrap();
    let (mut differences, mut same) = (Vec::new(), 0);
    for end in (40..=200).step_by(4) {
        exact.truncate_sequence(0, 0);
        tiles.truncate_sequence(0, 0);
        let theirs = exact.forward(&tokens[..end], 1).unwrap().to_vec();
        let ours = tiles.forward(&tokens[..end], 1).unwrap().to_vec();
        differences.push(relative_difference(&ours, &theirs));
        same += usize::from(argmax(&ours) == argmax(&theirs));
    }
    let mean = differences.iter().sum::<f32>() / differences.len() as f32;
    assert!(mean < 2e-2 && same + 1 >= differences.len(), "{mean}, {same} of {}", differences.len());

    // After the same prompt, many rows at once give the same result as one at a time.
    tiles.truncate_sequence(0, 100);
    let many = tiles.forward(&tokens[100..140], 40).unwrap().to_vec();
    tiles.truncate_sequence(0, 100);
    for (index, many) in many.chunks(config.vocabulary).enumerate() {
        assert!(tiles.forward(&tokens[100 + index..=100 + index], 1).unwrap() == many, "{index}");
    }
}
