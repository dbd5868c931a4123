//! Tests of a model's configuration.

use candle_core::quantized::GgmlDType;

use super::*;
use crate::gguf::MetadataValue;
use crate::gguf::testing::{GgufWriter, ModelDims, random_llama, random_qwen2};

fn read_config(writer: &GgufWriter) -> Result<ModelConfig, EngineError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    ModelConfig::from_gguf(&Gguf::open(&path)?)
}

fn qwen2_writer() -> GgufWriter {
    random_qwen2(1, &ModelDims::default()).unwrap()
}

fn llama_writer() -> GgufWriter {
    random_llama(1, &ModelDims::default()).unwrap()
}

/// The error names the field and a remedy.
fn assert_refused(writer: &GgufWriter, field: &str, problem: &str) {
    let error = read_config(writer).unwrap_err();
    assert!(matches!(&error, EngineError::Model { field: named, .. } if named == field), "{error}");
    let error = error.to_string();
    assert!(
        error.contains(problem) && (error.contains("taper ") || error.contains("get it again")),
        "{error}"
    );
}

fn n(n: u64) -> MetadataValue {
    MetadataValue::Unsigned(n)
}

fn text_value(text: &str) -> MetadataValue {
    MetadataValue::String(text.to_owned())
}

#[test]
fn model_shapes_are_read_from_metadata() {
    let dims = ModelDims { output: Some(GgmlDType::F32), ..ModelDims::default() };
    let config = read_config(&random_qwen2(1, &dims).unwrap()).unwrap();
    assert_eq!((config.family.name, config.blocks, config.embedding), ("qwen2", 2, 64));
    assert_eq!((config.heads, config.kv_heads, config.head_dim, config.feed_forward), (4, 2, 16, 128));
    assert_eq!((config.query_width(), config.kv_width()), (64, 32));
    assert_eq!((config.ropes[0].style, config.ropes[0].dim), (RopeStyle::Halves, 16));
    assert!(!config.tied_output);
    assert_eq!(config.layers, [LayerKind { rope: Some(0), window: None }; 2]);
    let config = read_config(&llama_writer()).unwrap();
    assert_eq!((config.family.name, config.ropes[0].style), ("llama", RopeStyle::Interleaved));
    assert!(config.tied_output);
    assert_eq!(config.context_capacity(100), 100);
    assert_eq!(config.context_capacity(100_000), 512);
    assert_eq!(config.context_capacity(0), 1);
}

#[test]
fn unknown_family_error_lists_known_families() {
    let recurrent = qwen2_writer().with_metadata("general.architecture", text_value("mamba"));
    assert_refused(&recurrent, "general.architecture", "\"mamba\": it is a recurrent model");
    let other = qwen2_writer().with_metadata("general.architecture", text_value("bloom"));
    assert_refused(&other, "general.architecture", "\"bloom\"");
    assert_refused(&other, "general.architecture", "llama, qwen2, qwen3");
    assert_refused(
        &qwen2_writer().without_metadata("general.architecture"),
        "general.architecture",
        "missing",
    );
}

#[test]
fn missing_and_impossible_numbers_are_refused() {
    for key in
        ["block_count", "embedding_length", "feed_forward_length", "attention.head_count", "context_length"]
    {
        let key = format!("qwen2.{key}");
        assert_refused(&qwen2_writer().without_metadata(&key), &key, "missing");
        for bad in [n(0), n(u64::from(u32::MAX)), n(u64::MAX)] {
            assert_refused(&qwen2_writer().with_metadata(&key, bad), &key, "not between");
        }
        assert_refused(&qwen2_writer().with_metadata(&key, MetadataValue::Signed(-1)), &key, "whole number");
        assert_refused(&qwen2_writer().with_metadata(&key, text_value("12")), &key, "whole number");
    }
    let epsilon = "qwen2.attention.layer_norm_rms_epsilon";
    assert_refused(&qwen2_writer().without_metadata(epsilon), epsilon, "missing");
    for bad in [-1e-6, 1.0, 1e30] {
        assert_refused(
            &qwen2_writer().with_metadata(epsilon, MetadataValue::Float(bad)),
            epsilon,
            "between 0 and 1",
        );
    }
    assert_refused(&qwen2_writer().with_metadata(epsilon, MetadataValue::Float(f64::NAN)), epsilon, "finite");
    let base = "qwen2.rope.freq_base";
    for bad in [0.0, -10_000.0, 1e30] {
        assert_refused(&qwen2_writer().with_metadata(base, MetadataValue::Float(bad)), base, "between");
    }
}

#[test]
fn inconsistent_numbers_are_refused() {
    assert_refused(
        &qwen2_writer().with_metadata("qwen2.attention.head_count_kv", n(3)),
        "qwen2.attention.head_count_kv",
        "evenly",
    );
    assert_refused(
        &qwen2_writer().with_metadata("qwen2.attention.head_count", n(6)),
        "qwen2.attention.head_count",
        "divide",
    );
    assert_refused(
        &qwen2_writer().with_metadata("qwen2.attention.key_length", n(15)),
        "qwen2.attention.key_length",
        "pairs",
    );
    assert_refused(
        &qwen2_writer().with_metadata("qwen2.attention.value_length", n(8)),
        "qwen2.attention.value_length",
        "equal",
    );
    assert_refused(
        &llama_writer().with_metadata("llama.rope.dimension_count", n(18)),
        "llama.rope.dimension_count",
        "between",
    );
    assert_refused(
        &llama_writer().with_metadata("llama.rope.dimension_count", n(7)),
        "llama.rope.dimension_count",
        "odd",
    );
    let few = MetadataValue::Array(vec![text_value("a"), text_value("b")]);
    assert_refused(
        &qwen2_writer().with_metadata("tokenizer.ggml.tokens", few),
        "token_embd.weight",
        "2 tokens",
    );
    assert_refused(
        &qwen2_writer().without_metadata("tokenizer.ggml.tokens"),
        "tokenizer.ggml.tokens",
        "missing",
    );
    assert_refused(&qwen2_writer().without_tensor("token_embd.weight"), "token_embd.weight", "missing");
}

#[test]
fn unsupported_tensors_and_metadata_are_refused() {
    for name in ["blk.0.attn_norm.bias", "blk.2.attn_q.weight", "blk.x.attn_q.weight", "output_norm.bias"] {
        assert_refused(
            &qwen2_writer().with_tensor(name, GgmlDType::F32, &[1], vec![0; 4]),
            name,
            "not supported",
        );
    }
    assert_refused(
        &llama_writer().with_metadata("llama.expert_count", n(8)),
        "llama.expert_count",
        "experts are not supported",
    );
    let scaling = "llama.rope.scaling.type";
    assert_refused(&llama_writer().with_metadata(scaling, text_value("ntk")), scaling, "\"ntk\"");
}

#[test]
fn sliding_window_bounds_the_context() {
    let windowed = llama_writer().with_metadata("llama.attention.sliding_window", n(100));
    assert_eq!(read_config(&windowed).unwrap().context, 100);
    let off = llama_writer().with_metadata("llama.attention.sliding_window", n(0));
    assert_eq!(read_config(&off).unwrap().context, 512);
}

#[test]
fn rope_frequencies_follow_linear_scaling() {
    let plain = read_config(&llama_writer()).unwrap().ropes[0].frequencies.clone();
    assert_eq!(plain.len(), 8);
    for (i, w) in plain.iter().enumerate() {
        let expected = 10_000_f32.powf(-2.0 * i as f32 / 16.0);
        assert!((w - expected).abs() < 1e-6 * expected.max(0.1), "{i}: {w} {expected}");
    }
    let by = |writer: GgufWriter, factor: f32| {
        for (a, b) in read_config(&writer).unwrap().ropes[0].frequencies.iter().zip(&plain) {
            assert!((a * factor - b).abs() < 1e-6 * b, "{a} {b}");
        }
    };
    let factor = |key: &str, x: f64| llama_writer().with_metadata(key, MetadataValue::Float(x));
    by(
        factor("llama.rope.scaling.factor", 4.0)
            .with_metadata("llama.rope.scaling.type", text_value("linear")),
        4.0,
    );
    by(
        factor("llama.rope.scaling.factor", 4.0).with_metadata("llama.rope.scaling.type", text_value("none")),
        1.0,
    );
    by(factor("llama.rope.scale_linear", 2.0), 2.0);
    by(factor("llama.rope.scale_linear", 0.0), 1.0);
    assert_refused(&factor("llama.rope.scaling.factor", -1.0), "llama.rope.scaling.factor", "between");
}

#[test]
fn rope_factors_divide_the_frequencies() {
    let with = |factors: &[f32]| {
        let bytes = factors.iter().flat_map(|x| x.to_le_bytes()).collect();
        llama_writer().with_tensor("rope_freqs.weight", GgmlDType::F32, &[factors.len()], bytes)
    };
    let plain = read_config(&llama_writer()).unwrap().ropes[0].frequencies.clone();
    let factors = [1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 32.0];
    for ((w, factor), b) in
        read_config(&with(&factors)).unwrap().ropes[0].frequencies.iter().zip(factors).zip(&plain)
    {
        assert!((w * factor - b).abs() < 1e-6 * b);
    }
    assert_refused(&with(&[1.0; 7]), "rope_freqs.weight", "shape");
    assert_refused(&with(&[0.0; 8]), "rope_freqs.weight", "factor");
    assert_refused(&with(&[f32::NAN; 8]), "rope_freqs.weight", "factor");
    let half = llama_writer().with_tensor("rope_freqs.weight", GgmlDType::F16, &[8], vec![0; 16]);
    assert_refused(&half, "rope_freqs.weight", "F16");
}
