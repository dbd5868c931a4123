//! The decoder on candle tensors: any device that candle supports, and the reference for our own kernels.
//!
//! A pre-norm transformer with grouped-query attention: for each block
//! `x += W_o · attention(rope(W_q n), rope(W_k n), W_v n)` with `n = rms_norm(x)`, then
//! `x += W_down · (silu(W_gate m) ∘ W_up m)` with `m = rms_norm(x)`; logits are `W_out · rms_norm(x)`.
//! Sources: Llama (<https://arxiv.org/abs/2302.13971>), Qwen2.5 (<https://arxiv.org/abs/2412.15115>: biases on the
//! query, key and value), Qwen3 (<https://arxiv.org/abs/2505.09388>: norms on queries and keys).
//!
//! The work of an interrupted call is lost: its result for a row may depend on the neighbouring rows, so it cannot
//! continue with other tokens than it began with.

use std::ops::ControlFlow;

use candle_core::{D, Device, Module, Result as CandleResult, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::{rope, rope_i};

use super::candle_kv_cache::CandleKvCache;
use super::candle_weights::{CandleBlock, CandleWeights, LinearProjection};
use super::config::RopeStyle;
use super::{Batch, Decoder, ModelConfig, SequenceTokens};
use crate::gguf::Gguf;
use crate::{EngineError, TokenId, threads};

/// Maximum values of the attention matrix computed at once, `[heads, rows, positions]`: 64 MiB. More rows are split.
const MAX_ATTENTION_VALUES: usize = 1 << 24;

/// The decoder: quantized weights, KV cache, and the tables of the rotation.
#[derive(Debug)]
pub struct CandleDecoder {
    config: ModelConfig,
    device: Device,
    weights: CandleWeights,
    cache: CandleKvCache,
    /// Of each position's angles, `[capacity, rope.dim / 2]`.
    cos: Tensor,
    sin: Tensor,
    /// The last call's result; kept because the caller reads it in place.
    logits: Vec<f32>,
}

impl CandleDecoder {
    /// Loads the tensors onto `device` and allocates a KV cache of `capacity` tokens.
    ///
    /// # Errors
    /// A tensor is missing or misshapen, or the device does not have enough memory.
    pub fn load(
        gguf: &Gguf,
        config: &ModelConfig,
        capacity: usize,
        device: &Device,
    ) -> Result<Self, EngineError> {
        threads::start_candle_threads()?;
        let weights = CandleWeights::load(gguf, config, device)?;
        let failed = |source| device_error(device, source);
        let cache = CandleKvCache::new(config.blocks, config.kv_heads, capacity, config.head_dim, device)
            .map_err(failed)?;
        let (cos, sin) = rope_tables(config, capacity, device).map_err(failed)?;
        let (config, device) = (config.clone(), device.clone());
        Ok(Self { config, device, weights, cache, cos, sin, logits: Vec::new() })
    }

    /// Evaluates `tokens` after the valid positions and returns the logits of the last `rows`. `look` can interrupt it
    /// between blocks.
    fn evaluate_tokens(
        &self,
        tokens: &[TokenId],
        rows: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> CandleResult<ControlFlow<(), Vec<f32>>> {
        let ids = Tensor::new(tokens, &Device::Cpu)?;
        let mut x = self.weights.embedding.embedding(&ids)?.to_device(&self.device)?;
        let last = self.weights.blocks.len() - 1;
        for (index, block) in self.weights.blocks.iter().enumerate() {
            // After the last block's keys and values, only the rows with requested logits matter.
            let keep = if index == last { rows } else { tokens.len() };
            x = self.forward_block(index, block, &x, keep)?;
            if look().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if rows == 0 {
            return Ok(ControlFlow::Continue(Vec::new()));
        }
        let x = rms_norm(&x, &self.weights.output_norm, self.config.norm_epsilon)?;
        let logits = self.weights.output.forward(&x)?.flatten_all()?.to_vec1()?;
        Ok(ControlFlow::Continue(logits))
    }

    /// Runs one block on `x`, `[n, embedding]`; the result has the last `keep` rows.
    fn forward_block(
        &self,
        index: usize,
        block: &CandleBlock,
        x: &Tensor,
        keep: usize,
    ) -> CandleResult<Tensor> {
        let (config, epsilon) = (&self.config, self.config.norm_epsilon);
        let n = x.dim(0)?;
        let normed = rms_norm(x, &block.attn_norm, epsilon)?;
        let (query_norm, key_norm) = block.qk_norm.as_ref().map(|(q, k)| (q, k)).unzip();

        let keys = self.project_heads(&block.key, &normed, config.kv_heads, key_norm)?;
        let keys = self.apply_rope(&keys, self.cache.len())?;
        let values = self.project_heads(&block.value, &normed, config.kv_heads, None)?;
        self.cache.write_layer(index, &keys, &values)?;
        let x = x.narrow(0, n - keep, keep)?;
        if keep == 0 {
            return Ok(x);
        }

        let first = self.cache.len() + n - keep;
        let queries =
            self.project_heads(&block.query, &normed.narrow(0, n - keep, keep)?, config.heads, query_norm)?;
        let queries = self.apply_rope(&queries, first)?;
        let attended = self.attend_in_chunks(index, &queries, first)?;
        let x = (x + block.attn_output.forward(&attended)?)?;

        let normed = rms_norm(&x, &block.ffn_norm, epsilon)?;
        let gated = (silu(&block.gate.forward(&normed)?)? * block.up.forward(&normed)?)?;
        x + block.down.forward(&gated)?
    }

    /// Projects `x`, `[n, embedding]`, and splits it into heads: `[heads, n, head_dim]`, contiguous.
    fn project_heads(
        &self,
        projection: &LinearProjection,
        x: &Tensor,
        heads: usize,
        norm: Option<&Tensor>,
    ) -> CandleResult<Tensor> {
        let n = x.dim(0)?;
        let mut y = projection.weight.forward(x)?;
        if let Some(bias) = &projection.bias {
            y = y.broadcast_add(bias)?;
        }
        let mut y = y.reshape((n, heads, self.config.head_dim))?;
        if let Some(norm) = norm {
            y = rms_norm(&y, norm, self.config.norm_epsilon)?;
        }
        y.transpose(0, 1)?.contiguous()
    }

    /// Rotates `x`, `[heads, n, head_dim]`, by the angles of the positions from `first` on.
    fn apply_rope(&self, x: &Tensor, first: usize) -> CandleResult<Tensor> {
        let config = &self.config;
        let (_, n, head_dim) = x.dims3()?;
        let (cos, sin) = (self.cos.narrow(0, first, n)?, self.sin.narrow(0, first, n)?);
        let turn = |x: &Tensor| match config.rope.style {
            RopeStyle::Interleaved => rope_i(x, &cos, &sin),
            RopeStyle::Halves => rope(x, &cos, &sin),
        };
        let x = x.unsqueeze(0)?;
        let dim = config.rope.dim;
        let x = if dim == head_dim {
            turn(&x)?
        } else {
            let rest = x.narrow(D::Minus1, dim, head_dim - dim)?;
            Tensor::cat(&[&turn(&x.narrow(D::Minus1, 0, dim)?.contiguous()?)?, &rest], D::Minus1)?
        };
        x.squeeze(0)
    }

    /// Causal attention of `queries`, `[heads, n, head_dim]`, at the positions from `first` on, over the cache of
    /// layer `index`: `[n, heads * head_dim]`.
    fn attend_in_chunks(&self, index: usize, queries: &Tensor, first: usize) -> CandleResult<Tensor> {
        let (heads, n, _) = queries.dims3()?;
        let step = (MAX_ATTENTION_VALUES / (heads * (first + n))).clamp(1, n);
        if step == n {
            return self.attend_rows(index, queries, first);
        }
        let parts = (0..n).step_by(step).map(|row| {
            let rows = queries.narrow(1, row, step.min(n - row))?.contiguous()?;
            self.attend_rows(index, &rows, first + row)
        });
        Tensor::cat(&parts.collect::<CandleResult<Vec<_>>>()?, 0)
    }

    fn attend_rows(&self, index: usize, queries: &Tensor, first: usize) -> CandleResult<Tensor> {
        let (heads, n, head_dim) = queries.dims3()?;
        let kv_heads = self.config.kv_heads;
        let seen = first + n;
        let (keys, values) = self.cache.layer_view(index, seen)?;
        // Query heads that share a key head are adjacent, so they are additional rows of one product: keys
        // and values are never repeated.
        let rows = heads / kv_heads * n;
        let queries = queries.reshape((kv_heads, rows, head_dim))?;
        let mut scores = (queries.matmul(&keys.t()?)? / (head_dim as f64).sqrt())?;
        if n > 1 {
            let mask = causal_mask(n, first, &self.device)?;
            scores =
                scores.reshape((heads, n, seen))?.broadcast_add(&mask)?.reshape((kv_heads, rows, seen))?;
        }
        let attended = softmax_last_dim(&scores)?.matmul(&values)?;
        attended.reshape((heads, n, head_dim))?.transpose(0, 1)?.reshape((n, heads * head_dim))
    }
}

impl Decoder for CandleDecoder {
    fn forward_batch(
        &mut self,
        batch: &Batch<'_>,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError> {
        let tokens = batch.tokens;
        self.logits.clear();
        if batch.suffix_shift.is_some() {
            return Err(device_error(
                &self.device,
                candle_core::Error::msg("this decoder cannot shift suffixes"),
            ));
        }
        if tokens.is_empty() {
            return Ok(ControlFlow::Continue(&[]));
        }
        let context = self.cache.capacity();
        if tokens.len() > context - self.cache.len() {
            return Err(EngineError::PromptTooLong { tokens: self.cache.len() + tokens.len(), context });
        }
        let rows = batch.logits.len().min(tokens.len());
        let result =
            self.evaluate_tokens(tokens, rows, look).map_err(|source| device_error(&self.device, source))?;
        let ControlFlow::Continue(logits) = result else { return Ok(ControlFlow::Break(())) };
        self.logits = logits;
        self.cache.commit_tokens(tokens);
        Ok(ControlFlow::Continue(&self.logits))
    }

    fn sequence_tokens(&self, _sequence: usize) -> &SequenceTokens {
        self.cache.tokens()
    }

    fn truncate_sequence(&mut self, _sequence: usize, len: usize) {
        self.cache.truncate(len);
    }

    fn capacity(&self) -> usize {
        self.cache.capacity()
    }
}

/// Cosines and sines of every position's angles, `[capacity, rope.dim / 2]`. In `f32` throughout, as in training: a
/// rounding that a model was trained with is part of it.
fn rope_tables(config: &ModelConfig, capacity: usize, device: &Device) -> CandleResult<(Tensor, Tensor)> {
    let frequencies = &config.rope.frequencies;
    let table = |f: fn(f32) -> f32| {
        let angles = (0..capacity).flat_map(|position| frequencies.iter().map(move |&w| position as f32 * w));
        Tensor::from_vec(angles.map(f).collect::<Vec<f32>>(), (capacity, frequencies.len()), device)
    };
    Ok((table(f32::cos)?, table(f32::sin)?))
}

/// The mask to add to the scores of `n` rows at the positions from `first` on: zero for a position up to the row's
/// own, minus infinity for a later one. `[n, first + n]`.
fn causal_mask(n: usize, first: usize, device: &Device) -> CandleResult<Tensor> {
    let seen = first + n;
    let rows = (0..n).flat_map(|row| (0..seen).map(move |column| (row, column)));
    let values = rows.map(|(row, column)| if column > first + row { f32::NEG_INFINITY } else { 0.0 });
    Tensor::from_vec(values.collect::<Vec<f32>>(), (n, seen), device)
}

fn device_error(device: &Device, source: candle_core::Error) -> EngineError {
    EngineError::Device { device: format!("{:?}", device.location()), source: source.into() }
}

#[cfg(test)]
mod tests;
