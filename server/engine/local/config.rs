//! The shape of a decoder from the model file's metadata, with every number checked before use.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, section "LLM". The additions of each family
//! follow llama.cpp's loader (`llama-model.cpp`), which wrote the files.

use super::families::{self, FamilyRules, NormKind, WindowRule};
use crate::EngineError;
use crate::gguf::{Gguf, PULL_AGAIN_REMEDY, Remedy};

mod rope;
pub(in crate::local) mod tensors;

/// A decoder's shape: all that is needed to allocate it and to check its tensors.
///
/// Every number is at least 1 and small enough that the products of any two of them fit `usize`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family, which determines the rules of a block.
    pub family: &'static FamilyRules,
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
    /// What differs between layers, `[blocks]`.
    pub layers: Vec<LayerKind>,
    /// Rotary position embeddings: at most two.
    pub ropes: Vec<RopeConfig>,
    /// Epsilon of every norm.
    pub norm_epsilon: f32,
    /// Positions that the model was trained for; at most those of its sliding window, if all layers have one.
    pub context: usize,
    /// Tokens: rows of the embedding and of the output head.
    pub vocabulary: usize,
    /// Whether the output head is the embedding table (`output.weight` is absent).
    pub tied_output: bool,
    /// The factor of the products of queries and keys; usually `1 / sqrt(head_dim)`.
    pub attention_scale: f32,
    /// The limit `c` of these products, which become `c * tanh(x / c)` (Gemma 2).
    pub attention_softcap: Option<f32>,
    /// The factor of the embedding.
    pub embedding_scale: f32,
    /// The factor of what attention and the feed-forward layer add to the stream.
    pub residual_scale: f32,
    /// The factor of the logits.
    pub logit_scale: f32,
    /// The limit `c` of the logits, which become `c * tanh(x / c)`.
    pub logit_softcap: Option<f32>,
    /// The experts of the feed-forward layers.
    pub experts: Option<ExpertConfig>,
}

/// What one layer does differently from others of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKind {
    /// Index of its rotation in [`ModelConfig::ropes`]; `None`: it has no positions.
    pub rope: Option<usize>,
    /// Number of last positions that it sees, its own included; `None`: all.
    pub window: Option<usize>,
}

/// Feed-forward layers with experts, of which each token uses a few (<https://arxiv.org/abs/2101.03961>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertConfig {
    /// Experts of a layer (`expert_count`).
    pub count: usize,
    /// Experts that a token uses (`expert_used_count`); their weights are scaled to a sum of 1.
    pub used: usize,
    /// Width inside an expert (`expert_feed_forward_length`).
    pub feed_forward: usize,
}

/// Rotary position embedding (<https://arxiv.org/abs/2104.09864>).
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Which two values of a head make a pair.
    pub style: RopeStyle,
    /// Values of each head that are rotated, from its start; even, at most the head's width.
    pub dim: usize,
    /// Radians per position for each pair, `[dim / 2]`: `base^(-2i / dim)`, changed by the file's position scaling.
    pub frequencies: Vec<f32>,
    /// The factor of the rotated values, of queries and keys alike (YaRN and LongRoPE); usually 1.
    pub amplitude: f32,
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
const MAX_EXPERTS: usize = 1 << 10;
const MAX_VOCABULARY: usize = 1 << 24;
const MAX_CONTEXT: usize = 1 << 28;

const CHOOSE_ANOTHER_MODEL: &str = "`taper models` lists models that work";

impl ModelConfig {
    /// Reads and checks the shape.
    ///
    /// # Errors
    /// The family is unsupported, a number is missing, impossible or inconsistent with the others, or the file has
    /// tensors that this decoder would ignore.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        Self::with_family(gguf, find_family(gguf)?)
    }

    /// The same by the rules of a given family.
    pub(super) fn with_family(gguf: &Gguf, family: &'static FamilyRules) -> Result<Self, EngineError> {
        let reader = ConfigReader { gguf, family };
        let blocks = reader.require("block_count", MAX_BLOCKS)?;
        let embedding = reader.require("embedding_length", MAX_WIDTH)?;
        let experts = reader.read_experts()?;
        let feed_forward = match (reader.optional("feed_forward_length", MAX_WIDTH)?, experts) {
            (Some(width), _) => width,
            // All layers consist of experts.
            (None, Some(experts)) => experts.feed_forward,
            (None, None) => return Err(reader.error("feed_forward_length", "is missing", PULL_AGAIN_REMEDY)),
        };
        let HeadShape { heads, kv_heads, head_dim } = reader.read_heads(embedding)?;
        let context = reader.require("context_length", MAX_CONTEXT)?;
        let windows = reader.read_windows(blocks)?;
        let context = windows.context_limit.map_or(context, |window| context.min(window));
        let ropes = rope::read_ropes(&reader, head_dim, context)?;
        let context = rope::context_limit(&reader)?.map_or(context, |limit| context.min(limit));
        let layers = (0..blocks).map(|index| {
            let window = windows.layers[index];
            let is_unrotated = ropes.is_empty()
                || family.unrotated_every > 0 && (index + 1).is_multiple_of(family.unrotated_every);
            let rope = if window.is_some() { ropes.len().saturating_sub(1) } else { 0 };
            LayerKind { rope: (!is_unrotated).then_some(rope), window }
        });
        let scales = reader.read_scales(embedding, head_dim, heads, blocks)?;
        tensors::check_names(gguf, family, blocks)?;
        Ok(Self {
            family,
            blocks,
            embedding,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            layers: layers.collect(),
            ropes,
            norm_epsilon: reader.read_epsilon()?,
            context,
            vocabulary: read_vocabulary_size(gguf)?,
            tied_output: gguf.tensor("output.weight").is_none(),
            attention_scale: scales.attention,
            attention_softcap: reader.positive_float("attn_logit_softcapping")?,
            embedding_scale: scales.embedding,
            residual_scale: scales.residual,
            logit_scale: scales.logit,
            logit_softcap: reader.positive_float("final_logit_softcapping")?,
            experts,
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

/// The family that the file names.
fn find_family(gguf: &Gguf) -> Result<&'static FamilyRules, EngineError> {
    let field = "general.architecture";
    let Some(name) = gguf.get_str(field) else {
        return Err(gguf.field_error(field, "is missing", PULL_AGAIN_REMEDY));
    };
    if let Some(family) = FamilyRules::by_name(name) {
        return Ok(family);
    }
    let problem = match families::UNREADABLE_FAMILIES.iter().find(|(family, _)| *family == name) {
        Some((_, what)) => format!("unsupported model family {name:?}: it {what}"),
        None => {
            let known: Vec<_> = families::FAMILIES.iter().map(|family| family.name).collect();
            format!("unsupported model family {name:?} (supported: {})", known.join(", "))
        }
    };
    Err(gguf.field_error(field, problem, CHOOSE_ANOTHER_MODEL))
}

/// Reads the keys of a file's family.
pub(super) struct ConfigReader<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) family: &'static FamilyRules,
}

struct HeadShape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

struct Windows {
    /// The window of each layer.
    layers: Vec<Option<usize>>,
    /// The window that limits the context instead.
    context_limit: Option<usize>,
}

struct Scales {
    attention: f32,
    embedding: f32,
    residual: f32,
    logit: f32,
}

impl ConfigReader<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family.name)
    }

    pub(super) fn error<'r>(
        &self,
        name: &str,
        problem: impl AsRef<str>,
        remedy: impl Into<Remedy<'r>>,
    ) -> EngineError {
        self.gguf.field_error(&self.key(name), problem, remedy)
    }

    /// A number from 1 to `max`, if the file has it.
    pub(super) fn optional(&self, name: &str, max: usize) -> Result<Option<usize>, EngineError> {
        match self.gguf.get_usize(&self.key(name))? {
            Some(n) if !(1..=max).contains(&n) => {
                Err(self.error(name, format!("is {n}, not between 1 and {max}"), PULL_AGAIN_REMEDY))
            }
            number => Ok(number),
        }
    }

    fn require(&self, name: &str, max: usize) -> Result<usize, EngineError> {
        self.optional(name, max)?.ok_or_else(|| self.error(name, "is missing", PULL_AGAIN_REMEDY))
    }

    /// A number above 0, if the file has it; 0 counts as absent.
    pub(super) fn positive_float(&self, name: &str) -> Result<Option<f32>, EngineError> {
        match self.gguf.get_float(&self.key(name))? {
            None | Some(0.0) => Ok(None),
            Some(number) if (1e-6..1e6).contains(&number) => Ok(Some(number as f32)),
            Some(number) => {
                let problem = format!("is {number}, not between 0.000001 and 1000000");
                Err(self.error(name, problem, PULL_AGAIN_REMEDY))
            }
        }
    }

    fn read_heads(&self, embedding: usize) -> Result<HeadShape, EngineError> {
        let heads = self.require("attention.head_count", MAX_HEADS)?;
        let kv_heads = self.optional("attention.head_count_kv", MAX_HEADS)?.unwrap_or(heads);
        if heads % kv_heads != 0 {
            let problem = format!("{kv_heads} key heads cannot be shared evenly by {heads} query heads");
            return Err(self.error("attention.head_count_kv", problem, PULL_AGAIN_REMEDY));
        }
        let head_dim = match self.optional("attention.key_length", MAX_HEAD_DIM)? {
            Some(dim) => dim,
            None if embedding.is_multiple_of(heads) && embedding / heads <= MAX_HEAD_DIM => embedding / heads,
            None => {
                let problem = format!("{heads} heads do not divide the embedding of {embedding}");
                return Err(self.error("attention.head_count", problem, PULL_AGAIN_REMEDY));
            }
        };
        if head_dim % 2 != 0 {
            let problem = format!("a head of {head_dim} values has no pairs to rotate");
            return Err(self.error("attention.key_length", problem, PULL_AGAIN_REMEDY));
        }
        let value_length = self.optional("attention.value_length", MAX_HEAD_DIM)?.unwrap_or(head_dim);
        if value_length != head_dim {
            let problem = format!("is {value_length}, but a key has {head_dim} values; they must be equal");
            return Err(self.error("attention.value_length", problem, CHOOSE_ANOTHER_MODEL));
        }
        Ok(HeadShape { heads, kv_heads, head_dim })
    }

    fn read_epsilon(&self) -> Result<f32, EngineError> {
        let name = match self.family.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let epsilon = self.gguf.get_float(&self.key(name))?;
        let epsilon = epsilon.ok_or_else(|| self.error(name, "is missing", PULL_AGAIN_REMEDY))?;
        if !(0.0..1.0).contains(&epsilon) {
            return Err(self.error(name, format!("is {epsilon}, not between 0 and 1"), PULL_AGAIN_REMEDY));
        }
        Ok(epsilon as f32)
    }

    fn read_windows(&self, blocks: usize) -> Result<Windows, EngineError> {
        let window = self.gguf.get_usize(&self.key("attention.sliding_window"))?.filter(|&window| window > 0);
        let WindowRule::Layers { period, .. } = self.family.windows else {
            return Ok(Windows { layers: vec![None; blocks], context_limit: window });
        };
        let pattern = "attention.sliding_window_pattern";
        let own = self.gguf.get_bools(&self.key(pattern))?;
        let layers = match own {
            Some(windowed) if windowed.len() < blocks => {
                let problem = format!("has {} entries for {blocks} layers", windowed.len());
                return Err(self.error(pattern, problem, PULL_AGAIN_REMEDY));
            }
            Some(windowed) => windowed.into_iter().take(blocks).collect(),
            None => {
                let period = self.optional(pattern, MAX_BLOCKS)?.unwrap_or(period);
                (0..blocks).map(|index| (index + 1) % period != 0).collect::<Vec<bool>>()
            }
        };
        let layers = layers.into_iter().map(|has_window| window.filter(|_| has_window)).collect();
        Ok(Windows { layers, context_limit: None })
    }

    fn read_scales(
        &self,
        embedding: usize,
        head_dim: usize,
        heads: usize,
        blocks: usize,
    ) -> Result<Scales, EngineError> {
        let mut scales = Scales {
            attention: 1.0 / (head_dim as f32).sqrt(),
            embedding: if self.family.scaled_embedding { (embedding as f32).sqrt() } else { 1.0 },
            residual: 1.0,
            logit: 1.0,
        };
        // The 27B models of Gemma 2 and 3 divide by another width than that of their heads, which no key states.
        if matches!((self.family.name, blocks), ("gemma2", 46) | ("gemma3", 62)) {
            scales.attention = 1.0 / ((embedding / heads) as f32).sqrt();
        }
        if self.family.has_scale_keys {
            let read = |name, default| Ok::<_, EngineError>(self.positive_float(name)?.unwrap_or(default));
            scales.attention = read("attention.scale", scales.attention)?;
            scales.embedding = read("embedding_scale", 1.0)?;
            scales.residual = read("residual_scale", 1.0)?;
            scales.logit = 1.0 / read("logit_scale", 1.0)?;
        }
        Ok(scales)
    }

    fn read_experts(&self) -> Result<Option<ExpertConfig>, EngineError> {
        let count = self.gguf.get_usize(&self.key("expert_count"))?.unwrap_or(0);
        if !self.family.has_experts {
            return match count {
                0 => Ok(None),
                _ => {
                    let problem =
                        format!("experts are not supported in models of the family {}", self.family.name);
                    Err(self.error("expert_count", problem, CHOOSE_ANOTHER_MODEL))
                }
            };
        }
        let count = self.require("expert_count", MAX_EXPERTS)?;
        let used = self.require("expert_used_count", count)?;
        // One number, or one for each layer.
        let widths = "expert_feed_forward_length";
        let feed_forward = match self.gguf.get_numbers(&self.key(widths)) {
            Ok(Some(all)) if all.windows(2).all(|pair| pair[0] == pair[1]) && !all.is_empty() => {
                all[0] as usize
            }
            Ok(Some(_)) => {
                let problem = "differs between layers, which is not supported";
                return Err(self.error(widths, problem, CHOOSE_ANOTHER_MODEL));
            }
            _ => match self.optional(widths, MAX_WIDTH)? {
                Some(width) => width,
                None => self.require("feed_forward_length", MAX_WIDTH)? / used,
            },
        };
        if !(1..=MAX_WIDTH).contains(&feed_forward) {
            let problem = format!("is {feed_forward}, not between 1 and {MAX_WIDTH}");
            return Err(self.error(widths, problem, PULL_AGAIN_REMEDY));
        }
        Ok(Some(ExpertConfig { count, used, feed_forward }))
    }
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

#[cfg(test)]
mod tests;
