//! The tensors that a decoder of a family uses: their names and shapes, whether fused or not.

use std::ops::Range;

use super::{CHOOSE_ANOTHER_MODEL, ExpertConfig, ModelConfig};
use crate::EngineError;
use crate::gguf::{Gguf, PULL_AGAIN_REMEDY, TensorView};
use crate::local::families::{FamilyRules, NormKind, RequiredBiases};

/// A matrix of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) enum MatrixName {
    Query,
    Key,
    Value,
    AttentionOutput,
    Gate,
    Up,
    Down,
    /// `[experts, embedding]`: the scores of the experts.
    Router,
    ExpertGate(usize),
    ExpertUp(usize),
    ExpertDown(usize),
}

/// A matrix in the file, maybe a part of a larger tensor.
pub(in crate::local) struct FoundMatrix<'a> {
    /// The tensor's name, for errors.
    pub(in crate::local) name: String,
    /// `[rows, columns]`
    pub(in crate::local) weight: TensorView<'a>,
    /// The bias and its name, `[rows]`, if the file has one.
    pub(in crate::local) bias: Option<(String, TensorView<'a>)>,
}

/// Finds a matrix of a block.
///
/// # Errors
/// It is missing, or has another shape than the configuration requires; or a required bias is missing.
pub(in crate::local) fn find_matrix<'a>(
    gguf: &'a Gguf,
    config: &ModelConfig,
    block: usize,
    name: MatrixName,
) -> Result<FoundMatrix<'a>, EngineError> {
    let ModelConfig { embedding, feed_forward, .. } = *config;
    let (queries, keys) = (config.query_width(), config.kv_width());
    let ExpertConfig { count, feed_forward: inner, .. } =
        config.experts.unwrap_or(ExpertConfig { count: 1, used: 1, feed_forward });
    let in_block = |part: &str| format!("blk.{block}.{part}");
    let has = |part: &str| gguf.tensor(&in_block(&format!("{part}.weight"))).is_some();
    // A tensor of twice the size has the gate in its first half.
    let has_fused_gate = config.family.activation.has_gate()
        && !has("ffn_gate")
        && gguf
            .tensor(&in_block("ffn_up.weight"))
            .is_some_and(|view| view.shape == [2 * feed_forward, embedding]);
    // The shape of the whole tensor, and the rows of the matrix in it.
    let (part, shape, rows): (_, Vec<usize>, Range<usize>) = match name {
        MatrixName::Query | MatrixName::Key | MatrixName::Value => {
            let (own, rows) = match name {
                MatrixName::Query => ("attn_q", 0..queries),
                MatrixName::Key => ("attn_k", queries..queries + keys),
                _ => ("attn_v", queries + keys..queries + 2 * keys),
            };
            if has("attn_qkv") && !has(own) {
                ("attn_qkv", vec![queries + 2 * keys, embedding], rows)
            } else {
                (own, vec![rows.len(), embedding], 0..rows.len())
            }
        }
        MatrixName::AttentionOutput => ("attn_output", vec![embedding, queries], 0..embedding),
        MatrixName::Gate if has_fused_gate => ("ffn_up", vec![2 * feed_forward, embedding], 0..feed_forward),
        MatrixName::Up if has_fused_gate => {
            ("ffn_up", vec![2 * feed_forward, embedding], feed_forward..2 * feed_forward)
        }
        MatrixName::Gate => ("ffn_gate", vec![feed_forward, embedding], 0..feed_forward),
        MatrixName::Up => ("ffn_up", vec![feed_forward, embedding], 0..feed_forward),
        MatrixName::Down => ("ffn_down", vec![embedding, feed_forward], 0..embedding),
        MatrixName::Router => ("ffn_gate_inp", vec![count, embedding], 0..count),
        MatrixName::ExpertGate(expert) => {
            ("ffn_gate_exps", vec![count, inner, embedding], expert * inner..(expert + 1) * inner)
        }
        MatrixName::ExpertUp(expert) => {
            ("ffn_up_exps", vec![count, inner, embedding], expert * inner..(expert + 1) * inner)
        }
        MatrixName::ExpertDown(expert) => {
            ("ffn_down_exps", vec![count, embedding, inner], expert * embedding..(expert + 1) * embedding)
        }
    };
    let weight_name = in_block(&format!("{part}.weight"));
    let outer_rows: usize = shape[..shape.len() - 1].iter().product();
    let damaged = |name: &str, problem: &str| gguf.field_error(name, problem, PULL_AGAIN_REMEDY);
    let weight = gguf.require_tensor(&weight_name, &shape)?.matrix_rows(rows.clone());
    let weight = weight.ok_or_else(|| damaged(&weight_name, "has too few rows"))?;
    let bias_name = in_block(&format!("{part}.bias"));
    let is_required = match config.family.required_biases {
        RequiredBiases::None => false,
        RequiredBiases::Qkv => matches!(name, MatrixName::Query | MatrixName::Key | MatrixName::Value),
        RequiredBiases::All => true,
    };
    let bias = if is_required || gguf.tensor(&bias_name).is_some() {
        let whole = gguf.require_tensor(&bias_name, &[outer_rows])?;
        // As a matrix of one column, whose rows can be taken.
        let column = TensorView { shape: vec![outer_rows, 1], ..whole };
        let view = column.matrix_rows(rows).ok_or_else(|| damaged(&bias_name, "has too few values"))?;
        Some((bias_name, TensorView { shape: vec![view.shape[0]], ..view }))
    } else {
        None
    };
    Ok(FoundMatrix { name: weight_name, weight, bias })
}

/// Tables that follow from the metadata, in files of old converters.
const IGNORED_TENSORS: [&str; 1] = ["attn_rot_embd.weight"];

/// The matrices of a block, each with a bias if the file has it.
fn block_matrices(family: &FamilyRules) -> Vec<&'static str> {
    let mut names = vec!["attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output"];
    if family.has_experts {
        names.extend(["ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]);
    } else {
        names.extend(["ffn_up", "ffn_down"]);
        if family.activation.has_gate() {
            names.push("ffn_gate");
        }
    }
    names
}

fn block_norms(family: &FamilyRules) -> Vec<&'static str> {
    let mut names = vec!["attn_norm"];
    if !family.parallel_residual {
        names.push("ffn_norm");
    }
    if family.post_norms {
        names.extend(["post_attention_norm", "post_ffw_norm"]);
    }
    if family.qk_norm {
        names.extend(["attn_q_norm", "attn_k_norm"]);
    }
    names
}

/// Refuses files with tensors that the decoders would ignore: their output would be silently wrong.
///
/// # Errors
/// The first such tensor.
pub(super) fn check_names(gguf: &Gguf, family: &FamilyRules, blocks: usize) -> Result<(), EngineError> {
    let (matrices, norms) = (block_matrices(family), block_norms(family));
    let has_norm_biases = family.norm == NormKind::Layer;
    let is_known_part = |part: &str| match part.rsplit_once('.') {
        Some((name, "weight")) => matrices.contains(&name) || norms.contains(&name),
        Some((name, "bias")) => matrices.contains(&name) || has_norm_biases && norms.contains(&name),
        _ => false,
    };
    let is_known = |name: &str| match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((block, part)) => {
            block.parse().is_ok_and(|block: usize| block < blocks)
                && (is_known_part(part) || IGNORED_TENSORS.contains(&part))
        }
        None => match name {
            "token_embd.weight" | "output_norm.weight" | "output.weight" | "output.bias" => true,
            "rope_freqs.weight" | "rope_factors_short.weight" | "rope_factors_long.weight" => true,
            "output_norm.bias" => has_norm_biases,
            _ => false,
        },
    };
    match gguf.tensor_names().find(|name| !is_known(name)) {
        Some(name) => {
            Err(gguf.field_error(name, "the tensor is not supported by this decoder", CHOOSE_ANOTHER_MODEL))
        }
        None => Ok(()),
    }
}
