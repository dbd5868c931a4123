//! The families of models: one row of rules each, which all decoders execute.
//!
//! A row states what a family's code does with the numbers and tensors of a file. What a *file* may have or lack (biases,
//! a separate output head, fused matrices) is found in the file. The rules follow llama.cpp's loaders
//! (`src/models/*.cpp` of <https://github.com/ggml-org/llama.cpp>), for which the files are written, and the authors'
//! code in `transformers`.

use super::config::RopeStyle;

/// The rules of one family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FamilyRules {
    /// The name in `general.architecture`.
    pub name: &'static str,
    /// The norms before attention, before the feed-forward layer, and before the output head.
    pub norm: NormKind,
    /// Whether the results of attention and of the feed-forward layer are normed before they are added to the stream.
    pub post_norms: bool,
    /// Whether the feed-forward layer reads the same normed values as attention, instead of its result.
    pub parallel_residual: bool,
    /// The feed-forward layer.
    pub activation: Activation,
    /// Which values of a head are rotated together.
    pub rope_style: RopeStyle,
    /// Every n-th layer has no positions: the last of each n. 0: all have.
    pub unrotated_every: usize,
    /// Whether queries and keys are RMS-normed per head before the rotation.
    pub qk_norm: bool,
    /// Which layers see only the last positions.
    pub windows: WindowRule,
    /// Whether the embedding is multiplied by the root of its width.
    pub scaled_embedding: bool,
    /// Whether the file has scales for attention, the residual stream, the embedding and the logits.
    pub has_scale_keys: bool,
    /// Whether the feed-forward layer consists of experts.
    pub has_experts: bool,
    /// The biases without which the file is damaged.
    pub required_biases: RequiredBiases,
}

/// How values are normed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// By their root mean square (<https://arxiv.org/abs/1910.07467>).
    Rms,
    /// By their mean and standard deviation, with a bias (<https://arxiv.org/abs/1607.06450>).
    Layer,
}

/// The inner function of the feed-forward layer (<https://arxiv.org/abs/2002.05202>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `down(silu(gate x) * up x)`.
    SwiGlu,
    /// `down(gelu(gate x) * up x)`, with the tanh approximation of GELU.
    GeGlu,
    /// `down(gelu(up x))`, with the tanh approximation of GELU.
    Gelu,
}

impl Activation {
    /// Whether the layer has a gate matrix.
    pub fn has_gate(self) -> bool {
        self != Self::Gelu
    }
}

/// Which layers see only the positions of a window, if the file has one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WindowRule {
    /// All: then the window limits the context, inside which it has no effect.
    LimitsContext,
    /// All but the last of every `period` layers, unless the file has a pattern of its own.
    Layers {
        /// Layers of a period.
        period: usize,
        /// The base of the window layers' rotation; `None`: the same as that of the others.
        rope_base: Option<f32>,
        /// Whether the position scaling applies to the layers without a window only.
        scales_full_layers_only: bool,
    },
}

/// The biases without which a file is damaged. Others are used where the file has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredBiases {
    /// No bias is required.
    None,
    /// Those of queries, keys and values.
    Qkv,
    /// Those of all matrices of a block.
    All,
}

/// A Llama-like block; the rows below list what differs.
const BASE: FamilyRules = FamilyRules {
    name: "llama",
    norm: NormKind::Rms,
    post_norms: false,
    parallel_residual: false,
    activation: Activation::SwiGlu,
    rope_style: RopeStyle::Halves,
    unrotated_every: 0,
    qk_norm: false,
    windows: WindowRule::LimitsContext,
    scaled_embedding: false,
    has_scale_keys: false,
    has_experts: false,
    required_biases: RequiredBiases::None,
};

/// Alternating layers with and without a window, all with the same rotation.
const fn alternating_windows(period: usize) -> WindowRule {
    WindowRule::Layers { period, rope_base: None, scales_full_layers_only: false }
}

/// All families that can be read.
#[rustfmt::skip]
pub static FAMILIES: &[FamilyRules] = &[
    // Llama, SmolLM, Mistral 7B, Codestral, DeepSeek-Coder 1, CodeLlama, Seed-Coder, Mellum 4B, and, with biases,
    // Granite Code.
    FamilyRules { name: "llama", rope_style: RopeStyle::Interleaved, ..BASE },
    // Qwen 2 and 2.5.
    FamilyRules { name: "qwen2", required_biases: RequiredBiases::Qkv, ..BASE },
    // Qwen 3, dense.
    FamilyRules { name: "qwen3", qk_norm: true, ..BASE },
    // Qwen3-Coder-30B-A3B.
    FamilyRules { name: "qwen3moe", qk_norm: true, has_experts: true, ..BASE },
    FamilyRules {
        name: "phi2", norm: NormKind::Layer, parallel_residual: true, activation: Activation::Gelu,
        required_biases: RequiredBiases::All, ..BASE
    },
    // Phi-3, 3.5, 4 and 4-mini; the fused matrices and the two lists of rope factors are found in the file.
    FamilyRules { name: "phi3", ..BASE },
    // Gemma 1 and CodeGemma.
    FamilyRules { name: "gemma", activation: Activation::GeGlu, scaled_embedding: true, ..BASE },
    FamilyRules {
        name: "gemma2", activation: Activation::GeGlu, scaled_embedding: true, post_norms: true,
        windows: alternating_windows(2), ..BASE
    },
    FamilyRules {
        name: "gemma3", activation: Activation::GeGlu, scaled_embedding: true, post_norms: true, qk_norm: true,
        windows: WindowRule::Layers { period: 6, rope_base: Some(10_000.0), scales_full_layers_only: true },
        ..BASE
    },
    FamilyRules {
        name: "starcoder2", norm: NormKind::Layer, activation: Activation::Gelu,
        required_biases: RequiredBiases::All, ..BASE
    },
    // Granite 3, dense.
    FamilyRules { name: "granite", rope_style: RopeStyle::Interleaved, has_scale_keys: true, ..BASE },
    FamilyRules { name: "smollm3", rope_style: RopeStyle::Interleaved, unrotated_every: 4, ..BASE },
    // Ministral 3 and Mistral Small 3.
    FamilyRules { name: "mistral3", rope_style: RopeStyle::Interleaved, ..BASE },
    // Mellum 2.
    FamilyRules {
        name: "mellum", qk_norm: true, has_experts: true,
        windows: WindowRule::Layers { period: 4, rope_base: None, scales_full_layers_only: true }, ..BASE
    },
];

/// Families that cannot be read yet, and what they are.
#[rustfmt::skip]
pub(super) const UNREADABLE_FAMILIES: &[(&str, &str)] = &[
    ("deepseek2", "compresses its keys and values (multi-head latent attention)"),
    ("falcon-h1", "has layers with a recurrent state"),
    ("granitehybrid", "has layers with a recurrent state"),
    ("jamba", "has layers with a recurrent state"),
    ("lfm2", "has layers with a recurrent state"),
    ("mamba", "is a recurrent model"),
    ("mamba2", "is a recurrent model"),
    ("nemotron_h", "has layers with a recurrent state"),
    ("plamo2", "has layers with a recurrent state"),
    ("qwen3next", "has layers with a recurrent state"),
    ("qwen35", "has layers with a recurrent state"),
    ("qwen35moe", "has layers with a recurrent state"),
    ("rwkv6", "is a recurrent model"),
    ("rwkv7", "is a recurrent model"),
    ("bert", "computes embeddings and writes no text"),
    ("nomic-bert", "computes embeddings and writes no text"),
    ("gemma-embedding", "computes embeddings and writes no text"),
    ("t5", "reads its prompt with an encoder"),
];

impl FamilyRules {
    /// The family with this name in `general.architecture`.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }
}

#[cfg(test)]
mod tests;
