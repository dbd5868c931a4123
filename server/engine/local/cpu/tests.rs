//! The CPU decoder against candle, against itself in other pieces, and all kernels against each other.
//! It knows nothing of the engine around it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use candle_core::Device;
use candle_core::quantized::GgmlDType;

use super::*;
use crate::Tokens;
use crate::gguf::testing::{Dims, Writer, random_llama, random_qwen2};
use crate::local::testing::{argmax, difference};
use crate::local::{CandleDecoder, real_model};

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

fn kernels() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.is_available())
}

fn open(writer: &Writer) -> (tempfile::TempDir, Gguf, Config) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let config = Config::from_gguf(&gguf).unwrap();
    (folder, gguf, config)
}

fn random_tokens(random: &mut fastrand::Rng, config: &Config, len: usize) -> Vec<TokenId> {
    (0..len).map(|_| random.u32(..config.vocabulary as u32)).collect()
}

#[test]
fn tiny_models_agree_with_candle_and_all_kernels_bit_for_bit() {
    let mut random = fastrand::Rng::with_seed(5);
    for dtype in DTYPES {
        for tied in [false, true] {
            let output = (!tied).then_some(GgmlDType::Q8_0);
            let dims = Dims { output, ..Dims::stored_as(dtype) };
            for (family, writer) in [("qwen2", random_qwen2(9, &dims)), ("llama", random_llama(9, &dims))] {
                let (_folder, gguf, config) = open(&writer.unwrap());
                let tokens = random_tokens(&mut random, &config, 70);
                let mut candle = CandleDecoder::load(&gguf, &config, 128, &Device::Cpu).unwrap();
                let theirs = candle.forward(&tokens, 20).unwrap();
                let mut first: Option<Vec<f32>> = None;
                for kernel in kernels() {
                    let mut decoder = CpuDecoder::new(&gguf, &config, 128, kernel, 2).unwrap();
                    let ours = decoder.forward(&tokens, 20).unwrap().to_vec();
                    let difference = difference(&ours, theirs);
                    // Both round activations to 8 bits, candle's K-quants in blocks of 256.
                    assert!(difference < 5e-2, "{family} {dtype:?} {kernel:?}: {difference}");
                    let first = first.get_or_insert_with(|| ours.clone());
                    assert!(*first == ours, "{family} {dtype:?}: {kernel:?} is not {:?}", Kernel::Portable);
                }
            }
        }
    }
}

#[test]
fn heads_of_an_odd_width_and_odd_groups_agree_with_candle() {
    let mut random = fastrand::Rng::with_seed(8);
    // Heads of 24 and 8 values, three and one query heads for each key head.
    for (hidden, heads, kv_heads) in [(288, 12, 4), (96, 12, 12), (160, 5, 1)] {
        let dims = Dims { hidden, heads, kv_heads, ..Dims::stored_as(GgmlDType::Q8_0) };
        for writer in [random_qwen2(4, &dims), random_llama(4, &dims)] {
            let (_folder, gguf, config) = open(&writer.unwrap());
            // More than one tile of keys.
            let tokens = random_tokens(&mut random, &config, 150);
            let mut candle = CandleDecoder::load(&gguf, &config, 200, &Device::Cpu).unwrap();
            let theirs = candle.forward(&tokens, 90).unwrap();
            let mut first: Option<Vec<f32>> = None;
            for kernel in kernels() {
                let mut decoder = CpuDecoder::new(&gguf, &config, 200, kernel, 2).unwrap();
                let ours = decoder.forward(&tokens, 90).unwrap().to_vec();
                let difference = difference(&ours, theirs);
                assert!(difference < 3e-2, "{hidden} {kernel:?}: {difference}");
                assert!(*first.get_or_insert_with(|| ours.clone()) == ours, "{hidden} {kernel:?}");
            }
        }
    }
}

#[test]
fn the_split_into_calls_does_not_matter() {
    let mut random = fastrand::Rng::with_seed(6);
    for dtype in [GgmlDType::Q5_0, GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::F16] {
        let dims = Dims { output: Some(GgmlDType::Q8_0), context: 600, ..Dims::stored_as(dtype) };
        let (_folder, gguf, config) = open(&random_qwen2(3, &dims).unwrap());
        let tokens = random_tokens(&mut random, &config, 500);
        for kernel in kernels() {
            let mut decoder = CpuDecoder::new(&gguf, &config, 600, kernel, 2).unwrap();
            let whole = decoder.forward(&tokens, tokens.len()).unwrap().to_vec();
            let rounds = if kernel == Kernel::Portable { 1 } else { 6 };
            for _ in 0..rounds {
                // Junk behind the cut must not be seen.
                let mut at = random.usize(..tokens.len());
                decoder.truncate(at);
                while at < tokens.len() {
                    let end = (at + random.usize(1..50)).min(tokens.len());
                    let rows = random.usize(..=end - at);
                    let logits = decoder.forward(&tokens[at..end], rows).unwrap();
                    let expected = &whole[(end - rows) * config.vocabulary..end * config.vocabulary];
                    assert!(logits == expected, "{kernel:?} {dtype:?}: {rows} rows up to {end}");
                    at = end;
                    assert_eq!(decoder.len(), at);
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_lost() {
    let (_folder, gguf, config) = open(&random_qwen2(1, &Dims::default()).unwrap());
    let mut decoder = CpuDecoder::new(&gguf, &config, 10, Kernel::best(), 2).unwrap();
    let expected = decoder.forward(&[1, 2, 3], 1).unwrap().to_vec();
    let too_long = decoder.forward(&[1; 8], 1).unwrap_err();
    assert!(matches!(too_long, EngineError::PromptTooLong { tokens: 11, context: 10 }));
    decoder.forward(&[1, config.vocabulary as u32], 1).unwrap_err();
    assert_eq!(decoder.len(), 3);
    decoder.truncate(2);
    assert_eq!(decoder.forward(&[3], 1).unwrap(), expected);
    assert!(decoder.forward(&[], 1).unwrap().is_empty());
    assert!(decoder.forward(&[4, 5], 0).unwrap().is_empty());
    assert_eq!(decoder.forward(&[6], 5).unwrap().len(), config.vocabulary);
}

#[test]
fn formats_without_kernels_are_named() {
    let (_folder, gguf, config) = open(&random_qwen2(1, &Dims::stored_as(GgmlDType::Q3K)).unwrap());
    let error = CpuDecoder::new(&gguf, &config, 10, Kernel::best(), 1).unwrap_err().to_string();
    assert!(error.contains("Q3K") && error.contains("choose another file"), "{error}");
}

#[test]
fn the_real_model_agrees_with_candle() {
    let Some(path) = real_model::path() else { return };
    let gguf = Gguf::open(&path).unwrap();
    let config = Config::from_gguf(&gguf).unwrap();
    let mut tokens = Tokens::from_gguf(&gguf).unwrap().encode(real_model::CODE);
    tokens.truncate(200);
    let rows = tokens.len();
    let mut candle = CandleDecoder::load(&gguf, &config, 512, &Device::Cpu).unwrap();
    let theirs = candle.forward(&tokens, rows).unwrap().to_vec();
    drop(candle);
    let mut decoder = CpuDecoder::new(&gguf, &config, 512, Kernel::best(), 2).unwrap();
    let ours = decoder.forward(&tokens, rows).unwrap().to_vec();
    let pairs = ours.chunks(config.vocabulary).zip(theirs.chunks(config.vocabulary));
    let differences: Vec<f32> = pairs.clone().map(|(ours, theirs)| difference(ours, theirs)).collect();
    let same = pairs.filter(|(ours, theirs)| argmax(ours) == argmax(theirs)).count();
    let mean = differences.iter().sum::<f32>() / rows as f32;
    let worst = differences.iter().copied().fold(0.0, f32::max);
    #[expect(clippy::print_stderr, reason = "a measurement that the test's output keeps")]
    {
        eprintln!("against candle: mean {mean:.4}, worst {worst:.4}, same choice {same} of {rows}");
    }
    assert!(mean < 2e-2 && worst < 0.1, "mean {mean}, worst {worst}");
    assert!(same * 100 >= rows * 97, "{same} of {rows}");

    decoder.truncate(120);
    let again = decoder.forward(&tokens[120..], 1).unwrap();
    assert!(again == &ours[(rows - 1) * config.vocabulary..]);
}
