//! Tests that compare the candle decoder with candle's own models, with itself in other batches, and on a real file.

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, gguf_file};
use candle_transformers::models::{quantized_llama, quantized_qwen2};

use super::*;
use crate::Tokenizer;
use crate::gguf::MetadataValue;
use crate::gguf::testing::{GgufWriter, ModelDims, random_llama, random_qwen2};
use crate::local::real_model;
use crate::local::testing::{argmax, relative_difference};

const DTYPES: [GgmlDType; 13] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// A model file and its temporary folder.
struct WrittenModel {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn write_model(writer: &GgufWriter) -> WrittenModel {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    WrittenModel { path, _folder: folder }
}

fn open_decoder(path: &Path, capacity: usize) -> Result<CandleDecoder, EngineError> {
    let gguf = Gguf::open(path)?;
    let config = ModelConfig::from_gguf(&gguf)?;
    CandleDecoder::load(&gguf, &config, config.context_capacity(capacity), &Device::Cpu)
}

fn load_decoder(writer: &GgufWriter) -> CandleDecoder {
    open_decoder(&write_model(writer).path, usize::MAX).unwrap()
}

fn vocabulary_size(decoder: &CandleDecoder) -> usize {
    decoder.config.vocabulary
}

fn random_tokens(random: &mut fastrand::Rng, vocabulary: usize, len: usize) -> Vec<TokenId> {
    (0..len).map(|_| random.u32(..vocabulary as u32)).collect()
}

/// The last token's logits by candle's own model.
fn reference_logits(path: &Path, tokens: &[TokenId]) -> Vec<f32> {
    let mut file = File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let family = content.metadata["general.architecture"].to_string().unwrap().clone();
    let ids = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let logits = match family.as_str() {
        "qwen2" => quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
            .unwrap()
            .forward(&ids, 0),
        _ => quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
            .unwrap()
            .forward(&ids, 0),
    };
    logits.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Two layers with a separate head, every matrix in `dtype`.
fn quantized_dims(dtype: GgmlDType) -> ModelDims {
    ModelDims { output: Some(GgmlDType::Q8_0), ..ModelDims::stored_as(dtype) }
}

#[test]
fn tiny_models_match_candle_transformers() {
    let mut random = fastrand::Rng::with_seed(1);
    for dtype in DTYPES {
        for (family, writer) in [
            ("qwen2", random_qwen2(7, &quantized_dims(dtype))),
            ("llama", random_llama(7, &quantized_dims(dtype))),
        ] {
            let model = write_model(&writer.unwrap());
            let mut decoder = open_decoder(&model.path, 128).unwrap();
            let tokens = random_tokens(&mut random, vocabulary_size(&decoder), 50);
            let ours = decoder.forward(&tokens, 1).unwrap().to_vec();
            let difference = relative_difference(&ours, &reference_logits(&model.path, &tokens));
            assert!(difference < 1e-2, "{family} {dtype:?}: {difference}");
        }
    }
}

#[test]
fn tied_head_matches_candle_transformers() {
    let dims = ModelDims { output: None, ..ModelDims::stored_as(GgmlDType::Q8_0) };
    let model = write_model(&random_qwen2(3, &dims).unwrap());
    let mut decoder = open_decoder(&model.path, 128).unwrap();
    assert!(decoder.config.tied_output);
    let tokens: Vec<TokenId> = (0..40).collect();
    let ours = decoder.forward(&tokens, 1).unwrap().to_vec();
    assert!(relative_difference(&ours, &reference_logits(&model.path, &tokens)) < 1e-2);
}

#[test]
fn chunked_prefill_matches_one_call() {
    let mut random = fastrand::Rng::with_seed(2);
    // Stored as floats, so that only the order of sums differs; with 8-bit activations, a last bit would become a
    // hundredth.
    for dtype in [GgmlDType::F32, GgmlDType::F16] {
        let dims = ModelDims { output: Some(dtype), ..ModelDims::stored_as(dtype) };
        let mut decoder = load_decoder(&random_qwen2(11, &dims).unwrap());
        let vocabulary = vocabulary_size(&decoder);
        let tokens = random_tokens(&mut random, vocabulary, 200);
        let whole = decoder.forward(&tokens, tokens.len()).unwrap().to_vec();
        for _ in 0..10 {
            decoder.truncate_sequence(0, 0);
            let mut at = 0;
            while at < tokens.len() {
                let end = (at + random.usize(1..60)).min(tokens.len());
                let rows = random.usize(0..=end - at);
                let logits = decoder.forward(&tokens[at..end], rows).unwrap();
                assert_eq!(logits.len(), rows * vocabulary);
                for (row, logits) in logits.chunks(vocabulary).enumerate() {
                    let position = end - rows + row;
                    let expected = &whole[position * vocabulary..][..vocabulary];
                    let difference = relative_difference(logits, expected);
                    assert!(difference < 1e-4, "{dtype:?}, position {position}: {difference}");
                }
                at = end;
                assert_eq!(decoder.sequence_len(0), at);
            }
        }
    }
}

#[test]
fn truncated_and_extended_cache_matches_fresh_cache() {
    let mut random = fastrand::Rng::with_seed(3);
    let float = ModelDims { output: Some(GgmlDType::F32), ..ModelDims::default() };
    let writers = [random_qwen2(5, &float), random_llama(5, &float)];
    for writer in writers {
        let model = write_model(&writer.unwrap());
        let mut cached = open_decoder(&model.path, 256).unwrap();
        let mut fresh = open_decoder(&model.path, 256).unwrap();
        let vocabulary = vocabulary_size(&cached);
        let mut held: Vec<TokenId> = Vec::new();
        for _ in 0..150 {
            let keep = random.usize(0..=held.len());
            cached.truncate_sequence(0, keep);
            held.truncate(keep);
            let more = random.usize(1..=(256 - keep).min(80));
            let tokens = random_tokens(&mut random, vocabulary, more);
            held.extend(&tokens);
            let ours = cached.forward(&tokens, 1).unwrap();
            fresh.truncate_sequence(0, 0);
            let theirs = fresh.forward(&held, 1).unwrap();
            assert!(relative_difference(ours, theirs) < 1e-4);
            assert_eq!(argmax(ours), argmax(theirs));
            if held.len() > 200 {
                held.clear();
                cached.truncate_sequence(0, 0);
            }
        }
    }
}

#[test]
fn split_attention_matches_whole_attention() {
    let mut decoder = load_decoder(&random_qwen2(13, &ModelDims::default()).unwrap());
    decoder.forward(&[1, 2, 3, 4, 5], 0).unwrap();
    let heads = decoder.config.heads;
    let values: Vec<f32> = (0..heads * 9 * decoder.config.head_dim).map(|i| (i % 17) as f32 / 17.0).collect();
    let queries = Tensor::from_vec(values, (heads, 9, decoder.config.head_dim), &Device::Cpu).unwrap();
    let flat = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    decoder.cache.commit_tokens(&[0; 9]);
    let whole = flat(decoder.attend_rows(0, &queries, 5).unwrap());
    let rows = |at: usize, n: usize| queries.narrow(1, at, n).unwrap().contiguous().unwrap();
    let mut parts = flat(decoder.attend_rows(0, &rows(0, 4), 5).unwrap());
    parts.extend(flat(decoder.attend_rows(0, &rows(4, 5), 9).unwrap()));
    assert!(relative_difference(&parts, &whole) < 1e-5);
}

#[test]
fn oversized_batch_is_refused_and_state_kept() {
    let mut decoder =
        open_decoder(&write_model(&random_qwen2(1, &ModelDims::default()).unwrap()).path, 8).unwrap();
    let expected = decoder.forward(&[1, 2, 3, 4, 5, 6], 1).unwrap().to_vec();
    decoder.truncate_sequence(0, 5);
    assert!(matches!(
        decoder.forward(&[1, 2, 3, 4], 1),
        Err(EngineError::PromptTooLong { tokens: 9, context: 8 })
    ));
    assert_eq!(decoder.sequence_len(0), 5);
    let out_of_range = vocabulary_size(&decoder) as TokenId;
    assert!(matches!(decoder.forward(&[out_of_range], 1), Err(EngineError::Device { .. })));
    assert_eq!(decoder.sequence_len(0), 5);
    assert!(relative_difference(decoder.forward(&[6], 1).unwrap(), &expected) < 1e-4);
    assert!(decoder.forward(&[7, 8], 0).unwrap().is_empty());
    assert_eq!(decoder.sequence_len(0), decoder.capacity());
    assert!(decoder.forward(&[], 3).unwrap().is_empty());
    decoder.truncate_sequence(0, 100);
    assert_eq!(decoder.sequence_len(0), 8);
}

#[test]
fn partial_rope_keeps_unrotated_dimensions() {
    let writer = random_llama(2, &ModelDims::default()).unwrap();
    let half = writer.with_metadata("llama.rope.dimension_count", MetadataValue::Unsigned(8));
    let decoder = load_decoder(&half);
    let (heads, head_dim) = (decoder.config.heads, decoder.config.head_dim);
    assert_eq!(head_dim, 16);
    let values: Vec<f32> = (0..heads * 2 * head_dim).map(|i| i as f32).collect();
    let x = Tensor::from_vec(values.clone(), (heads, 2, head_dim), &Device::Cpu).unwrap();
    let y: Vec<f32> = decoder.apply_rope(0, &x, 3).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    for (i, (before, after)) in values.iter().zip(&y).enumerate() {
        let inside = i % head_dim < 8;
        assert_eq!(before != after, inside, "value {i}: {before} {after}");
    }
}

#[test]
fn rope_follows_its_formula() {
    for (style, pair) in [(RopeStyle::Interleaved, [2, 3]), (RopeStyle::Halves, [1, 9])] {
        let mut decoder = load_decoder(&random_llama(2, &ModelDims::default()).unwrap());
        decoder.config.ropes[0].style = style;
        let mut values = vec![0.0_f32; 16];
        values[pair[0]] = 1.0;
        let x = Tensor::from_vec(values, (1, 1, 16), &Device::Cpu).unwrap();
        let y: Vec<f32> = decoder.apply_rope(0, &x, 5).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let angle = 5.0 * 10_000_f32.powf(-2.0 / 16.0);
        assert!((y[pair[0]] - angle.cos()).abs() < 1e-5, "{style:?} {y:?}");
        assert!((y[pair[1]] - angle.sin()).abs() < 1e-5, "{style:?} {y:?}");
    }
}

#[test]
fn misshapen_and_missing_tensors_are_errors() {
    let names = [
        "token_embd.weight",
        "output_norm.weight",
        "output.weight",
        "blk.0.attn_norm.weight",
        "blk.0.attn_q.weight",
        "blk.1.attn_k.bias",
        "blk.0.attn_v.weight",
        "blk.1.attn_output.weight",
        "blk.0.ffn_norm.weight",
        "blk.1.ffn_gate.weight",
        "blk.0.ffn_up.weight",
        "blk.1.ffn_down.weight",
    ];
    let dims = ModelDims { output: Some(GgmlDType::F32), ..ModelDims::default() };
    let writer = random_qwen2(1, &dims).unwrap();
    open_decoder(&write_model(&writer).path, 64).unwrap();
    for name in names {
        // Without its own head, a file has a tied one.
        if name != "output.weight" {
            let error = open_decoder(&write_model(&writer.clone().without_tensor(name)).path, 64)
                .unwrap_err()
                .to_string();
            assert!(error.contains(name) && error.contains("missing"), "{error}");
        }
        for shape in [vec![3], vec![3, 32], vec![2, 3, 4]] {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            let wrong = writer.clone().with_tensor(name, GgmlDType::F32, &shape, bytes);
            let error = open_decoder(&write_model(&wrong).path, 64).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("shape"), "{error}");
        }
    }
}

#[test]
fn kv_cache_larger_than_memory_is_an_error() {
    let context = MetadataValue::Unsigned(1 << 28);
    let writer = random_qwen2(1, &ModelDims { hidden: 1 << 12, ..ModelDims::default() }).unwrap();
    let model = write_model(&writer.with_metadata("qwen2.context_length", context));
    let error = CandleKvCache::new(usize::MAX, 2, 4, 8, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("KV cache of 4 tokens"), "{error}");
    let error = CandleKvCache::new(1 << 20, 1 << 10, 1 << 28, 1 << 8, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("KV cache of 268435456 tokens"), "{error}");
    // With a smaller context, the same file loads.
    assert_eq!(open_decoder(&model.path, 16).unwrap().capacity(), 16);
}

#[test]
fn qwen3_block_norms_each_head() {
    // The qwen2 weights with other names; queries and keys have norms instead of biases.
    let dims = ModelDims::default();
    let mut writer = random_qwen2(9, &dims).unwrap();
    for key in [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
    ] {
        let n = match key {
            "block_count" => dims.layers,
            "context_length" => dims.context,
            "embedding_length" => dims.hidden,
            "feed_forward_length" => dims.intermediate,
            "attention.head_count" => dims.heads,
            _ => dims.kv_heads,
        };
        writer = writer.with_metadata(&format!("qwen3.{key}"), MetadataValue::Unsigned(n as u64));
    }
    writer = writer
        .with_metadata("general.architecture", MetadataValue::String("qwen3".into()))
        .with_metadata("qwen3.attention.layer_norm_rms_epsilon", MetadataValue::Float(1e-6));
    let head_dim = dims.hidden / dims.heads;
    let ones: Vec<u8> = (0..head_dim).flat_map(|_| 1_f32.to_le_bytes()).collect();
    for layer in 0..dims.layers {
        for part in ["attn_q", "attn_k", "attn_v"] {
            writer = writer.without_tensor(&format!("blk.{layer}.{part}.bias"));
        }
        for part in ["attn_q_norm", "attn_k_norm"] {
            let name = format!("blk.{layer}.{part}.weight");
            writer = writer.with_tensor(&name, GgmlDType::F32, &[head_dim], ones.clone());
        }
    }
    let decoder = load_decoder(&writer);
    assert!(decoder.config.family.qk_norm);
    let x = Tensor::randn(0.0_f32, 1.0, (3, dims.hidden), &Device::Cpu).unwrap();
    let block = &decoder.weights.blocks[0];
    let norm = block.query_norm.as_ref();
    let y = decoder.project_heads(&block.query, &x, dims.heads, norm).unwrap();
    for head in y.reshape((dims.heads * 3, head_dim)).unwrap().to_vec2::<f32>().unwrap() {
        let square = head.iter().map(|x| x * x).sum::<f32>() / head_dim as f32;
        assert!((square - 1.0).abs() < 1e-3, "{square}");
    }
}

#[test]
fn real_model_matches_candle_transformers() {
    let Some(path) = real_model::path() else { return };
    let gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let mut decoder = CandleDecoder::load(&gguf, &config, 512, &Device::Cpu).unwrap();
    let mut tokens = Tokenizer::from_gguf(&gguf).unwrap().encode(real_model::SAMPLE_CODE);
    tokens.truncate(200);
    assert_eq!(tokens.len(), 200);
    let ours = decoder.forward(&tokens, 1).unwrap().to_vec();
    let theirs = reference_logits(&path, &tokens);
    let relative = relative_difference(&ours, &theirs);
    assert!(relative < 1e-2, "{relative}");
    assert_eq!(argmax(&ours), argmax(&theirs));

    // In pieces, truncated in the middle and extended again. The matrices see activations rounded to 8 bits: one that
    // rounds differently because of the order of a sum is as far from this result as candle's own model is from itself.
    decoder.truncate_sequence(0, 150);
    decoder.forward(&tokens[150..163], 0).unwrap();
    let again = relative_difference(decoder.forward(&tokens[163..], 1).unwrap(), &ours);
    assert!(again < 5e-2, "{again}");
    assert_eq!(argmax(&decoder.logits), argmax(&ours));
}
