//! The shape of a decoder from the model file's metadata, with every number checked before use.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, section "LLM". The additions of each family
//! follow llama.cpp's loader (`llama-model.cpp`), which wrote the files.

use candle_core::quantized::GgmlDType;

use crate::EngineError;
use crate::gguf::{Gguf, PULL_AGAIN_REMEDY};

/// A decoder's shape: all that is needed to allocate it and to check its tensors.
///
/// Every number is at least 1 and small enough that the products of any two of them fit `usize`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family, which determines the rules of a block.
    pub family: ModelFamily,
    /// Layers (`block_count`).
    pub blocks: usize,
    /// Width of the residual stream (`embedding_length`).
    pub embedding: usize,
    /// Width inside the feed-forward layer (`feed_forward_length`).
    pub feed_forward: usize,
    /// Query heads (`attention.head_count`).
    pub heads: usize,
    /// Key and value heads (`attention.head_count_kv`); divides [`ModelConfig::heads`].
    pub kv_heads: usize,
    /// Width of one head (`attention.key_length`); even.
    pub head_dim: usize,
    /// Rotary position embedding.
    pub rope: RopeConfig,
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
pub enum ModelFamily {
    /// `llama`: Llama, `SmolLM`, Mistral, DeepSeek-Coder 1, CodeLlama and the many that share the architecture.
    Llama,
    /// `qwen2`: Qwen 2 and 2.5.
    Qwen2,
    /// `qwen3`: Qwen 3, dense.
    Qwen3,
}

/// Rotary position embedding (<https://arxiv.org/abs/2104.09864>).
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Which two values of a head make a pair.
    pub style: RopeStyle,
    /// Values of each head that are rotated, from its start; even, at most the head's width.
    pub dim: usize,
    /// Radians per position for each pair, `[dim / 2]`: `base^(-2i / dim)`, divided by the linear scaling factor
    /// and by the file's own factors (Llama 3), if it has them.
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

const CHOOSE_ANOTHER_MODEL: &str = "`taper models` lists models that work";

impl ModelFamily {
    /// The family's name in `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    fn all_families() -> [Self; 3] {
        [Self::Llama, Self::Qwen2, Self::Qwen3]
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::all_families().into_iter().find(|family| family.name() == name)
    }

    fn rope_style(self) -> RopeStyle {
        match self {
            Self::Llama => RopeStyle::Interleaved,
            Self::Qwen2 | Self::Qwen3 => RopeStyle::Halves,
        }
    }
}

impl ModelConfig {
    /// Reads and checks the shape.
    ///
    /// # Errors
    /// The family is unsupported, a number is missing, impossible or inconsistent with the others, or the file has
    /// tensors that this decoder would ignore.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        let family = read_family(gguf)?;
        let arch = family.name();
        let key = |name: &str| format!("{arch}.{name}");

        if gguf.get_usize(&key("expert_count"))?.unwrap_or(0) > 0 {
            let problem = "mixture-of-experts models are not supported";
            return Err(gguf.field_error(&key("expert_count"), problem, CHOOSE_ANOTHER_MODEL));
        }
        let blocks = read_required(gguf, &key("block_count"), MAX_BLOCKS)?;
        let embedding = read_required(gguf, &key("embedding_length"), MAX_WIDTH)?;
        let feed_forward = read_required(gguf, &key("feed_forward_length"), MAX_WIDTH)?;
        let heads = read_required(gguf, &key("attention.head_count"), MAX_HEADS)?;
        let kv_heads = read_optional(gguf, &key("attention.head_count_kv"), MAX_HEADS)?.unwrap_or(heads);
        if heads % kv_heads != 0 {
            let problem = format!("{kv_heads} key heads cannot be shared evenly by {heads} query heads");
            return Err(gguf.field_error(&key("attention.head_count_kv"), problem, PULL_AGAIN_REMEDY));
        }
        let head_dim = read_head_dim(gguf, arch, embedding, heads)?;
        let norm_epsilon = read_norm_epsilon(gguf, arch)?;
        let context = read_required(gguf, &key("context_length"), MAX_CONTEXT)?;
        // Within the window, a sliding-window model is an ordinary one.
        let window = gguf.get_usize(&key("attention.sliding_window"))?.filter(|&window| window > 0);
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
            rope: read_rope(gguf, family, head_dim)?,
            norm_epsilon,
            context,
            vocabulary: read_vocabulary_size(gguf)?,
            tied_output: !has("output.weight"),
            qkv_bias: family == ModelFamily::Qwen2 || has("blk.0.attn_q.bias"),
            qk_norm: family == ModelFamily::Qwen3,
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

    /// Positions to allocate in the KV cache: `requested`, at most those that the model was trained for.
    pub fn context_capacity(&self, requested: usize) -> usize {
        self.context.min(requested).max(1)
    }
}

fn read_family(gguf: &Gguf) -> Result<ModelFamily, EngineError> {
    let field = "general.architecture";
    let Some(name) = gguf.get_str(field) else {
        return Err(gguf.field_error(field, "is missing", PULL_AGAIN_REMEDY));
    };
    ModelFamily::from_name(name).ok_or_else(|| {
        let known: Vec<_> = ModelFamily::all_families().into_iter().map(ModelFamily::name).collect();
        let problem = format!("unsupported model family {name:?} (supported: {})", known.join(", "));
        gguf.field_error(field, problem, CHOOSE_ANOTHER_MODEL)
    })
}

fn read_optional(gguf: &Gguf, key: &str, max: usize) -> Result<Option<usize>, EngineError> {
    match gguf.get_usize(key)? {
        None => Ok(None),
        Some(n) if (1..=max).contains(&n) => Ok(Some(n)),
        Some(n) => Err(gguf.field_error(key, format!("is {n}, not between 1 and {max}"), PULL_AGAIN_REMEDY)),
    }
}

/// The width of a head's keys, which must be that of its values.
fn read_head_dim(gguf: &Gguf, arch: &str, embedding: usize, heads: usize) -> Result<usize, EngineError> {
    let key = |name: &str| format!("{arch}.attention.{name}");
    let head_dim = match read_optional(gguf, &key("key_length"), MAX_HEAD_DIM)? {
        Some(dim) => dim,
        None if embedding.is_multiple_of(heads) && embedding / heads <= MAX_HEAD_DIM => embedding / heads,
        None => {
            let problem = format!("{heads} heads do not divide the embedding of {embedding}");
            return Err(gguf.field_error(&key("head_count"), problem, PULL_AGAIN_REMEDY));
        }
    };
    if head_dim % 2 != 0 {
        let problem = format!("a head of {head_dim} values has no pairs to rotate");
        return Err(gguf.field_error(&key("key_length"), problem, PULL_AGAIN_REMEDY));
    }
    let value_length = read_optional(gguf, &key("value_length"), MAX_HEAD_DIM)?.unwrap_or(head_dim);
    if value_length != head_dim {
        let problem = format!("is {value_length}, but a key has {head_dim} values; they must be equal");
        return Err(gguf.field_error(&key("value_length"), problem, CHOOSE_ANOTHER_MODEL));
    }
    Ok(head_dim)
}

fn read_norm_epsilon(gguf: &Gguf, arch: &str) -> Result<f32, EngineError> {
    let key = format!("{arch}.attention.layer_norm_rms_epsilon");
    let problem = match gguf.get_float(&key)? {
        Some(epsilon) if (0.0..1.0).contains(&epsilon) => return Ok(epsilon as f32),
        Some(epsilon) => format!("is {epsilon}, not between 0 and 1"),
        None => "is missing".to_owned(),
    };
    Err(gguf.field_error(&key, problem, PULL_AGAIN_REMEDY))
}

fn read_required(gguf: &Gguf, key: &str, max: usize) -> Result<usize, EngineError> {
    read_optional(gguf, key, max)?.ok_or_else(|| gguf.field_error(key, "is missing", PULL_AGAIN_REMEDY))
}

fn read_vocabulary_size(gguf: &Gguf) -> Result<usize, EngineError> {
    let field = "tokenizer.ggml.tokens";
    let tokens = gguf
        .get_strings(field)?
        .ok_or_else(|| gguf.field_error(field, "is missing", PULL_AGAIN_REMEDY))?
        .len();
    if !(1..=MAX_VOCABULARY).contains(&tokens) {
        let problem = format!("has {tokens} entries, not between 1 and {MAX_VOCABULARY}");
        return Err(gguf.field_error(field, problem, PULL_AGAIN_REMEDY));
    }
    let table = "token_embd.weight";
    let view = gguf
        .tensor(table)
        .ok_or_else(|| gguf.field_error(table, "the tensor is missing", PULL_AGAIN_REMEDY))?;
    match view.shape[..] {
        [rows, _] if rows == tokens => Ok(tokens),
        _ => {
            let problem = format!("has the shape {:?}, but the vocabulary has {tokens} tokens", view.shape);
            Err(gguf.field_error(table, problem, PULL_AGAIN_REMEDY))
        }
    }
}

fn read_rope(gguf: &Gguf, family: ModelFamily, head_dim: usize) -> Result<RopeConfig, EngineError> {
    let arch = family.name();
    let dim_key = format!("{arch}.rope.dimension_count");
    let dim = read_optional(gguf, &dim_key, head_dim)?.unwrap_or(head_dim);
    if dim % 2 != 0 {
        return Err(gguf.field_error(
            &dim_key,
            format!("is {dim}, but an odd number has no pairs to rotate"),
            PULL_AGAIN_REMEDY,
        ));
    }
    let base_key = format!("{arch}.rope.freq_base");
    // The specification's default.
    let base = gguf.get_float(&base_key)?.unwrap_or(10_000.0);
    if !(1.0..1e15).contains(&base) {
        return Err(gguf.field_error(
            &base_key,
            format!("is {base}, not between 1 and 10^15"),
            PULL_AGAIN_REMEDY,
        ));
    }
    let scale = read_linear_scale(gguf, arch)?;
    let factors = read_rope_factors(gguf, dim / 2)?;
    let frequencies = (0..dim / 2).map(|i| {
        let factor = factors.as_ref().map_or(1.0, |factors| factors[i]);
        1.0 / (base as f32).powf((2 * i) as f32 / dim as f32) / scale as f32 / factor
    });
    Ok(RopeConfig { style: family.rope_style(), dim, frequencies: frequencies.collect() })
}

/// The factor by which positions are scaled down (1: not at all).
fn read_linear_scale(gguf: &Gguf, arch: &str) -> Result<f64, EngineError> {
    let type_key = format!("{arch}.rope.scaling.type");
    let factor_key = format!("{arch}.rope.scaling.factor");
    // Converters wrote this key before the specification had `rope.scaling.*`.
    let old_key = format!("{arch}.rope.scale_linear");
    let (key, factor) = match gguf.get_str(&type_key) {
        Some("none") => return Ok(1.0),
        None | Some("linear") => match gguf.get_float(&factor_key)? {
            Some(factor) => (&factor_key, factor),
            None => (&old_key, gguf.get_float(&old_key)?.unwrap_or(1.0)),
        },
        Some(other) => {
            let problem = format!("unsupported position scaling {other:?} (supported: none, linear)");
            return Err(gguf.field_error(&type_key, problem, CHOOSE_ANOTHER_MODEL));
        }
    };
    // Old converters write 0 for "none".
    match factor {
        0.0 => Ok(1.0),
        _ if (1e-3..1e6).contains(&factor) => Ok(factor),
        _ => Err(gguf.field_error(
            key,
            format!("is {factor}, not between 0.001 and 1000000"),
            PULL_AGAIN_REMEDY,
        )),
    }
}

/// `rope_freqs.weight` of Llama 3: the divisor of each frequency.
fn read_rope_factors(gguf: &Gguf, pairs: usize) -> Result<Option<Vec<f32>>, EngineError> {
    let name = "rope_freqs.weight";
    if gguf.tensor(name).is_none() {
        return Ok(None);
    }
    let view = gguf.require_tensor(name, &[pairs])?;
    if view.dtype != GgmlDType::F32 {
        return Err(gguf.field_error(
            name,
            format!("is stored as {:?}, not as F32", view.dtype),
            PULL_AGAIN_REMEDY,
        ));
    }
    let bytes = view.data.read_all().map_err(|error| gguf.tensor_read_error(name, error))?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if values.iter().any(|factor| !(1e-6..1e6).contains(factor)) {
        return Err(gguf.field_error(
            name,
            "has a factor that is not between 0.000001 and 1000000",
            PULL_AGAIN_REMEDY,
        ));
    }
    Ok(Some(values))
}

/// Refuses files with tensors that this decoder would ignore: its output would be silently wrong.
fn check_tensor_names(gguf: &Gguf, blocks: usize) -> Result<(), EngineError> {
    const GLOBAL_TENSORS: [&str; 4] =
        ["token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"];
    const BLOCK_TENSORS: [&str; 15] = [
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
                block.parse().is_ok_and(|block: usize| block < blocks) && BLOCK_TENSORS.contains(&rest)
            }
            None => GLOBAL_TENSORS.contains(&name),
        };
        if !known {
            return Err(gguf.field_error(
                name,
                "the tensor is not supported by this decoder",
                CHOOSE_ANOTHER_MODEL,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
