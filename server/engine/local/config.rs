//! The shape of a decoder as the model file states it, every number checked before anything is built on it.
//! It knows nothing of devices, of tensors' contents, or of how a layer is computed.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, section "LLM". What a family adds to them
//! follows llama.cpp's loader (`llama-model.cpp`), which wrote the files.

use candle_core::quantized::GgmlDType;

use crate::EngineError;
use crate::gguf::{FETCH_AGAIN, Gguf};

/// A decoder's shape: all that is needed to allocate it and to check its tensors.
///
/// Every number is at least 1 and small enough that the products of any two of them fit `usize`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which rules the block follows.
    pub family: Family,
    /// Layers (`block_count`).
    pub blocks: usize,
    /// Width of the residual stream (`embedding_length`).
    pub embedding: usize,
    /// Width inside the feed-forward layer (`feed_forward_length`).
    pub feed_forward: usize,
    /// Query heads (`attention.head_count`).
    pub heads: usize,
    /// Key and value heads (`attention.head_count_kv`); divides [`Config::heads`].
    pub kv_heads: usize,
    /// Width of one head (`attention.key_length`); even.
    pub head_dim: usize,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Epsilon of every RMS norm.
    pub norm_epsilon: f32,
    /// Positions that the model was trained for, at most those of its sliding window.
    pub context: usize,
    /// Tokens: rows of the embedding and of the output head.
    pub vocabulary: usize,
    /// Whether the output head is the embedding table (`output.weight` is absent).
    pub tied_output: bool,
    /// Whether the query, key and value projections have biases (`attn_q.bias` …).
    pub qkv_bias: bool,
    /// Whether queries and keys are RMS-normed per head before the rotation (`attn_q_norm.weight` …).
    pub qk_norm: bool,
}

/// A family of decoders. All are pre-norm transformers with RMS norm, rotary positions, grouped-query
/// attention and a SwiGLU feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `llama`: Llama, `SmolLM`, Mistral, DeepSeek-Coder 1, CodeLlama and the many that share the form.
    Llama,
    /// `qwen2`: Qwen 2 and 2.5.
    Qwen2,
    /// `qwen3`: Qwen 3, dense.
    Qwen3,
}

/// Rotary position embedding (<https://arxiv.org/abs/2104.09864>).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which two values of a head make a pair.
    pub style: RopeStyle,
    /// Values of each head that are rotated, from its start; even, at most the head's width.
    pub dim: usize,
    /// Radians per position for each pair, `[dim / 2]`: `base^(-2i / dim)`, divided by the linear scaling factor
    /// and by the file's own factors (Llama 3), where it has them.
    pub frequencies: Vec<f32>,
}

/// Which two values of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours, `2i` and `2i + 1` (ggml's "norm"): `llama` files are stored permuted for this.
    Interleaved,
    /// `i` and `i + dim / 2` (ggml's "neox").
    Halves,
}

// Upper bounds far above any model that fits a machine; they keep every product below inside `usize`.
const MAX_BLOCKS: usize = 1 << 10;
const MAX_WIDTH: usize = 1 << 18;
const MAX_HEADS: usize = 1 << 12;
const MAX_HEAD_DIM: usize = 1 << 12;
const MAX_VOCABULARY: usize = 1 << 24;
const MAX_CONTEXT: usize = 1 << 28;

const OTHER_MODEL: &str = "`taper models` lists models that work";

impl Family {
    /// The family's name in `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    fn all() -> [Self; 3] {
        [Self::Llama, Self::Qwen2, Self::Qwen3]
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|family| family.name() == name)
    }

    fn rope_style(self) -> RopeStyle {
        match self {
            Self::Llama => RopeStyle::Interleaved,
            Self::Qwen2 | Self::Qwen3 => RopeStyle::Halves,
        }
    }
}

impl Config {
    /// Reads and checks the shape.
    ///
    /// # Errors
    /// The family is unknown, a number is missing, impossible or does not fit the others, or the file has
    /// tensors that this decoder would have to leave out.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        let family = family(gguf)?;
        let arch = family.name();
        let key = |name: &str| format!("{arch}.{name}");

        if gguf.usize(&key("expert_count"))?.unwrap_or(0) > 0 {
            let problem = "it is a mixture of experts, which taper does not compute";
            return Err(gguf.bad(&key("expert_count"), problem, OTHER_MODEL));
        }
        let blocks = need(gguf, &key("block_count"), MAX_BLOCKS)?;
        let embedding = need(gguf, &key("embedding_length"), MAX_WIDTH)?;
        let feed_forward = need(gguf, &key("feed_forward_length"), MAX_WIDTH)?;
        let heads = need(gguf, &key("attention.head_count"), MAX_HEADS)?;
        let kv_heads = optional(gguf, &key("attention.head_count_kv"), MAX_HEADS)?.unwrap_or(heads);
        if heads % kv_heads != 0 {
            let problem = format!("{kv_heads} key heads cannot be shared evenly by {heads} query heads");
            return Err(gguf.bad(&key("attention.head_count_kv"), problem, FETCH_AGAIN));
        }
        let head_dim = match optional(gguf, &key("attention.key_length"), MAX_HEAD_DIM)? {
            Some(dim) => dim,
            None if embedding % heads == 0 && embedding / heads <= MAX_HEAD_DIM => embedding / heads,
            None => {
                let problem = format!("{heads} heads do not divide the embedding of {embedding}");
                return Err(gguf.bad(&key("attention.head_count"), problem, FETCH_AGAIN));
            }
        };
        if head_dim % 2 != 0 {
            let problem = format!("a head of {head_dim} values has no pairs to rotate");
            return Err(gguf.bad(&key("attention.key_length"), problem, FETCH_AGAIN));
        }
        let value_length = optional(gguf, &key("attention.value_length"), MAX_HEAD_DIM)?.unwrap_or(head_dim);
        if value_length != head_dim {
            let problem =
                format!("is {value_length}, but a key has {head_dim} values; taper needs them equal");
            return Err(gguf.bad(&key("attention.value_length"), problem, OTHER_MODEL));
        }
        let epsilon_key = key("attention.layer_norm_rms_epsilon");
        let norm_epsilon = gguf.float(&epsilon_key)?;
        let norm_epsilon = norm_epsilon.ok_or_else(|| gguf.bad(&epsilon_key, "is missing", FETCH_AGAIN))?;
        if !(0.0..1.0).contains(&norm_epsilon) {
            return Err(gguf.bad(
                &epsilon_key,
                format!("is {norm_epsilon}, not between 0 and 1"),
                FETCH_AGAIN,
            ));
        }
        let context = need(gguf, &key("context_length"), MAX_CONTEXT)?;
        // Within the window a sliding-window model is an ordinary one.
        let window = gguf.usize(&key("attention.sliding_window"))?.filter(|&window| window > 0);
        let context = window.map_or(context, |window| context.min(window));

        check_tensor_names(gguf, blocks)?;
        let has = |name: &str| gguf.tensor(name).is_some();
        Ok(Self {
            family,
            blocks,
            embedding,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            rope: rope(gguf, family, head_dim)?,
            norm_epsilon: norm_epsilon as f32,
            context,
            vocabulary: vocabulary(gguf)?,
            tied_output: !has("output.weight"),
            qkv_bias: family == Family::Qwen2 || has("blk.0.attn_q.bias"),
            qk_norm: family == Family::Qwen3,
        })
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, or of all value heads, together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Positions for which the KV cache is allocated: the `asked` ones, at most those that the model was trained for.
    pub fn capacity(&self, asked: usize) -> usize {
        self.context.min(asked).max(1)
    }
}

fn family(gguf: &Gguf) -> Result<Family, EngineError> {
    let field = "general.architecture";
    let Some(name) = gguf.str(field) else {
        return Err(gguf.bad(field, "is missing", FETCH_AGAIN));
    };
    Family::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Family::all().into_iter().map(Family::name).collect();
        let problem = format!("the family {name:?} is unknown, taper reads {}", known.join(", "));
        gguf.bad(field, problem, OTHER_MODEL)
    })
}

fn optional(gguf: &Gguf, key: &str, max: usize) -> Result<Option<usize>, EngineError> {
    match gguf.usize(key)? {
        None => Ok(None),
        Some(n) if (1..=max).contains(&n) => Ok(Some(n)),
        Some(n) => Err(gguf.bad(key, format!("is {n}, not between 1 and {max}"), FETCH_AGAIN)),
    }
}

fn need(gguf: &Gguf, key: &str, max: usize) -> Result<usize, EngineError> {
    optional(gguf, key, max)?.ok_or_else(|| gguf.bad(key, "is missing", FETCH_AGAIN))
}

fn vocabulary(gguf: &Gguf) -> Result<usize, EngineError> {
    let field = "tokenizer.ggml.tokens";
    let tokens = gguf.texts(field)?.ok_or_else(|| gguf.bad(field, "is missing", FETCH_AGAIN))?.len();
    if !(1..=MAX_VOCABULARY).contains(&tokens) {
        let problem = format!("has {tokens} entries, not between 1 and {MAX_VOCABULARY}");
        return Err(gguf.bad(field, problem, FETCH_AGAIN));
    }
    let table = "token_embd.weight";
    let view = gguf.tensor(table).ok_or_else(|| gguf.bad(table, "the tensor is missing", FETCH_AGAIN))?;
    match view.shape[..] {
        [rows, _] if rows == tokens => Ok(tokens),
        _ => {
            let problem = format!("has the shape {:?}, but the vocabulary has {tokens} tokens", view.shape);
            Err(gguf.bad(table, problem, FETCH_AGAIN))
        }
    }
}

fn rope(gguf: &Gguf, family: Family, head_dim: usize) -> Result<Rope, EngineError> {
    let arch = family.name();
    let dim_key = format!("{arch}.rope.dimension_count");
    let dim = optional(gguf, &dim_key, head_dim)?.unwrap_or(head_dim);
    if dim % 2 != 0 {
        return Err(gguf.bad(&dim_key, format!("is {dim}, an odd number has no pairs"), FETCH_AGAIN));
    }
    let base_key = format!("{arch}.rope.freq_base");
    // The specification's default.
    let base = gguf.float(&base_key)?.unwrap_or(10_000.0);
    if !(1.0..1e15).contains(&base) {
        return Err(gguf.bad(&base_key, format!("is {base}, not between 1 and 10^15"), FETCH_AGAIN));
    }
    let scale = linear_scale(gguf, arch)?;
    let factors = rope_factors(gguf, dim / 2)?;
    let frequencies = (0..dim / 2).map(|i| {
        let factor = factors.as_ref().map_or(1.0, |factors| factors[i]);
        1.0 / (base as f32).powf((2 * i) as f32 / dim as f32) / scale as f32 / factor
    });
    Ok(Rope { style: family.rope_style(), dim, frequencies: frequencies.collect() })
}

/// The factor by which positions are squeezed (1: not at all).
fn linear_scale(gguf: &Gguf, arch: &str) -> Result<f64, EngineError> {
    let type_key = format!("{arch}.rope.scaling.type");
    let factor_key = format!("{arch}.rope.scaling.factor");
    // What converters wrote before the specification had `rope.scaling.*`.
    let old_key = format!("{arch}.rope.scale_linear");
    let (key, factor) = match gguf.str(&type_key) {
        Some("none") => return Ok(1.0),
        None | Some("linear") => match gguf.float(&factor_key)? {
            Some(factor) => (&factor_key, factor),
            None => (&old_key, gguf.float(&old_key)?.unwrap_or(1.0)),
        },
        Some(other) => {
            let problem = format!("positions are scaled by {other:?}, taper knows \"none\" and \"linear\"");
            return Err(gguf.bad(&type_key, problem, OTHER_MODEL));
        }
    };
    // Old converters write 0 for "none".
    match factor {
        0.0 => Ok(1.0),
        _ if (1e-3..1e6).contains(&factor) => Ok(factor),
        _ => Err(gguf.bad(key, format!("is {factor}, not between 0.001 and 1000000"), FETCH_AGAIN)),
    }
}

/// `rope_freqs.weight` of Llama 3: what each frequency is divided by.
fn rope_factors(gguf: &Gguf, pairs: usize) -> Result<Option<Vec<f32>>, EngineError> {
    let name = "rope_freqs.weight";
    if gguf.tensor(name).is_none() {
        return Ok(None);
    }
    let view = gguf.need_tensor(name, &[pairs])?;
    if view.dtype != GgmlDType::F32 {
        return Err(gguf.bad(name, format!("is stored as {:?}, not as F32", view.dtype), FETCH_AGAIN));
    }
    let bytes = view.data.all().map_err(|error| gguf.unread(name, error))?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if values.iter().any(|factor| !(1e-6..1e6).contains(factor)) {
        return Err(gguf.bad(name, "has a factor that is not between 0.000001 and 1000000", FETCH_AGAIN));
    }
    Ok(Some(values))
}

/// Refuses files with tensors that this decoder would leave out: its output would be wrong without a sign of it.
fn check_tensor_names(gguf: &Gguf, blocks: usize) -> Result<(), EngineError> {
    const GLOBAL: [&str; 4] =
        ["token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"];
    const IN_BLOCK: [&str; 15] = [
        "attn_norm.weight",
        "attn_q.weight",
        "attn_q.bias",
        "attn_q_norm.weight",
        "attn_k.weight",
        "attn_k.bias",
        "attn_k_norm.weight",
        "attn_v.weight",
        "attn_v.bias",
        "attn_output.weight",
        "ffn_norm.weight",
        "ffn_gate.weight",
        "ffn_up.weight",
        "ffn_down.weight",
        // A table of frequencies in files of old converters; it follows from the metadata.
        "attn_rot_embd.weight",
    ];
    for name in gguf.tensor_names() {
        let known = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((block, rest)) => {
                block.parse().is_ok_and(|block: usize| block < blocks) && IN_BLOCK.contains(&rest)
            }
            None => GLOBAL.contains(&name),
        };
        if !known {
            return Err(gguf.bad(
                name,
                "the tensor has no place in the decoder that taper computes",
                OTHER_MODEL,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::gguf::Value;
    use crate::gguf::testing::{Dims, Writer, random_llama, random_qwen2};

    fn read(writer: &Writer) -> Result<Config, EngineError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        writer.write(&path).unwrap();
        Config::from_gguf(&Gguf::open(&path)?)
    }

    fn qwen2() -> Writer {
        random_qwen2(1, &Dims::default()).unwrap()
    }

    fn llama() -> Writer {
        random_llama(1, &Dims::default()).unwrap()
    }

    /// The error names the field and a remedy.
    fn refused(writer: &Writer, field: &str, problem: &str) {
        let error = read(writer).unwrap_err();
        assert!(matches!(&error, EngineError::Model { field: named, .. } if named == field), "{error}");
        let error = error.to_string();
        assert!(error.contains(problem) && error.contains("taper "), "{error}");
    }

    fn n(n: u64) -> Value {
        Value::Unsigned(n)
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn shapes_are_read() {
        let dims = Dims { output: Some(GgmlDType::F32), ..Dims::default() };
        let config = read(&random_qwen2(1, &dims).unwrap()).unwrap();
        assert_eq!((config.family, config.blocks, config.embedding), (Family::Qwen2, 2, 64));
        assert_eq!((config.heads, config.kv_heads, config.head_dim, config.feed_forward), (4, 2, 16, 128));
        assert_eq!((config.query_width(), config.kv_width()), (64, 32));
        assert_eq!((config.rope.style, config.rope.dim), (RopeStyle::Halves, 16));
        assert!(config.qkv_bias && !config.qk_norm && !config.tied_output);
        let config = read(&llama()).unwrap();
        assert_eq!((config.family, config.rope.style), (Family::Llama, RopeStyle::Interleaved));
        assert!(!config.qkv_bias && config.tied_output);
        assert_eq!(config.capacity(100), 100);
        assert_eq!(config.capacity(100_000), 512);
        assert_eq!(config.capacity(0), 1);
    }

    #[test]
    fn an_unknown_family_is_named_beside_the_known_ones() {
        let other = qwen2().metadata("general.architecture", text("mamba"));
        refused(&other, "general.architecture", "\"mamba\"");
        refused(&other, "general.architecture", "llama, qwen2, qwen3");
        refused(&qwen2().without("general.architecture"), "general.architecture", "missing");
    }

    #[test]
    fn missing_and_impossible_numbers_are_refused() {
        for key in [
            "block_count",
            "embedding_length",
            "feed_forward_length",
            "attention.head_count",
            "context_length",
        ] {
            let key = format!("qwen2.{key}");
            refused(&qwen2().without(&key), &key, "missing");
            for bad in [n(0), n(u64::from(u32::MAX)), n(u64::MAX)] {
                refused(&qwen2().metadata(&key, bad), &key, "not between");
            }
            refused(&qwen2().metadata(&key, Value::Signed(-1)), &key, "whole number");
            refused(&qwen2().metadata(&key, text("12")), &key, "whole number");
        }
        let epsilon = "qwen2.attention.layer_norm_rms_epsilon";
        refused(&qwen2().without(epsilon), epsilon, "missing");
        for bad in [-1e-6, 1.0, 1e30] {
            refused(&qwen2().metadata(epsilon, Value::Float(bad)), epsilon, "between 0 and 1");
        }
        refused(&qwen2().metadata(epsilon, Value::Float(f64::NAN)), epsilon, "finite");
        let base = "qwen2.rope.freq_base";
        for bad in [0.0, -10_000.0, 1e30] {
            refused(&qwen2().metadata(base, Value::Float(bad)), base, "between");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_each_other_are_refused() {
        refused(
            &qwen2().metadata("qwen2.attention.head_count_kv", n(3)),
            "qwen2.attention.head_count_kv",
            "evenly",
        );
        refused(
            &qwen2().metadata("qwen2.attention.head_count", n(6)),
            "qwen2.attention.head_count",
            "divide",
        );
        refused(
            &qwen2().metadata("qwen2.attention.key_length", n(15)),
            "qwen2.attention.key_length",
            "pairs",
        );
        refused(
            &qwen2().metadata("qwen2.attention.value_length", n(8)),
            "qwen2.attention.value_length",
            "equal",
        );
        refused(
            &llama().metadata("llama.rope.dimension_count", n(18)),
            "llama.rope.dimension_count",
            "between",
        );
        refused(&llama().metadata("llama.rope.dimension_count", n(7)), "llama.rope.dimension_count", "odd");
        let few = Value::Array(vec![text("a"), text("b")]);
        refused(&qwen2().metadata("tokenizer.ggml.tokens", few), "token_embd.weight", "2 tokens");
        refused(&qwen2().without("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens", "missing");
        refused(&qwen2().without_tensor("token_embd.weight"), "token_embd.weight", "missing");
    }

    #[test]
    fn what_the_decoder_would_leave_out_is_refused() {
        for name in ["blk.0.attn_output.bias", "blk.2.attn_q.weight", "blk.x.attn_q.weight", "output.bias"] {
            refused(&qwen2().tensor(name, GgmlDType::F32, &[1], vec![0; 4]), name, "no place");
        }
        refused(&llama().metadata("llama.expert_count", n(8)), "llama.expert_count", "mixture");
        let scaling = "llama.rope.scaling.type";
        refused(&llama().metadata(scaling, text("yarn")), scaling, "\"yarn\"");
    }

    #[test]
    fn a_sliding_window_bounds_the_context() {
        let windowed = llama().metadata("llama.attention.sliding_window", n(100));
        assert_eq!(read(&windowed).unwrap().context, 100);
        let off = llama().metadata("llama.attention.sliding_window", n(0));
        assert_eq!(read(&off).unwrap().context, 512);
    }

    #[test]
    fn frequencies_follow_the_scaling() {
        let plain = read(&llama()).unwrap().rope.frequencies;
        assert_eq!(plain.len(), 8);
        for (i, w) in plain.iter().enumerate() {
            let expected = 10_000_f32.powf(-2.0 * i as f32 / 16.0);
            assert!((w - expected).abs() < 1e-6 * expected.max(0.1), "{i}: {w} {expected}");
        }
        let by = |writer: Writer, factor: f32| {
            for (a, b) in read(&writer).unwrap().rope.frequencies.iter().zip(&plain) {
                assert!((a * factor - b).abs() < 1e-6 * b, "{a} {b}");
            }
        };
        let factor = |key: &str, x: f64| llama().metadata(key, Value::Float(x));
        by(factor("llama.rope.scaling.factor", 4.0).metadata("llama.rope.scaling.type", text("linear")), 4.0);
        by(factor("llama.rope.scaling.factor", 4.0).metadata("llama.rope.scaling.type", text("none")), 1.0);
        by(factor("llama.rope.scale_linear", 2.0), 2.0);
        by(factor("llama.rope.scale_linear", 0.0), 1.0);
        refused(&factor("llama.rope.scaling.factor", -1.0), "llama.rope.scaling.factor", "between");
    }

    #[test]
    fn a_files_own_factors_divide_its_frequencies() {
        let with = |factors: &[f32]| {
            let bytes = factors.iter().flat_map(|x| x.to_le_bytes()).collect();
            llama().tensor("rope_freqs.weight", GgmlDType::F32, &[factors.len()], bytes)
        };
        let plain = read(&llama()).unwrap().rope.frequencies;
        let factors = [1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 32.0];
        for ((w, factor), b) in
            read(&with(&factors)).unwrap().rope.frequencies.iter().zip(factors).zip(&plain)
        {
            assert!((w * factor - b).abs() < 1e-6 * b);
        }
        refused(&with(&[1.0; 7]), "rope_freqs.weight", "shape");
        refused(&with(&[0.0; 8]), "rope_freqs.weight", "factor");
        refused(&with(&[f32::NAN; 8]), "rope_freqs.weight", "factor");
        let half = llama().tensor("rope_freqs.weight", GgmlDType::F16, &[8], vec![0; 16]);
        refused(&half, "rope_freqs.weight", "F16");
    }
}
