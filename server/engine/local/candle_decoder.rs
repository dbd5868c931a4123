//! The decoder on candle tensors: any device that candle supports, and the reference for our own kernels.
//!
//! A pre-norm transformer with grouped-query attention. For each block `n = norm(x)`,
//! `x += post_norm(W_o · attention(rope(qk_norm(W_q n)), rope(qk_norm(W_k n)), W_v n))`, `m = norm(x)`, and
//! `x += post_norm(W_down · (act(W_gate m) ∘ W_up m))`; logits are `W_out · norm(x)`. Which of the steps a family has, and
//! which norm and activation, is in [its row](super::families).
//!
//! The work of an interrupted call is lost: its result for a row may depend on the neighbouring rows, so it cannot
//! continue with other tokens than it began with.

use std::ops::ControlFlow;

use candle_core::{D, Device, Result as CandleResult, Tensor};
use candle_nn::ops::{layer_norm, rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::{rope, rope_i};

use super::block_weights::{FeedForward, MlpWeights, choose_experts};
use super::candle_kv_cache::CandleKvCache;
use super::candle_weights::{CandleBlock, CandleNorm, CandleWeights, LinearProjection};
use super::config::{RopeConfig, RopeStyle};
use super::families::Activation;
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
    /// Cosines and sines of each position's angles for each rotation, `[capacity, dim / 2]`.
    rotations: Vec<(Tensor, Tensor)>,
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
        let rotations = config.ropes.iter().map(|rope| rope_tables(rope, capacity, device));
        let rotations = rotations.collect::<CandleResult<_>>().map_err(failed)?;
        let (config, device) = (config.clone(), device.clone());
        Ok(Self { config, device, weights, cache, rotations, logits: Vec::new() })
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
        x = scaled(x, self.config.embedding_scale)?;
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
        let x = self.normalize(&x, &self.weights.output_norm)?;
        let mut logits = scaled(self.weights.output.forward(&x)?, self.config.logit_scale)?;
        if let Some(limit) = self.config.logit_softcap {
            logits = soft_cap(&logits, limit)?;
        }
        Ok(ControlFlow::Continue(logits.flatten_all()?.to_vec1()?))
    }

    /// Runs one block on `x`, `[n, embedding]`; the result has the last `keep` rows.
    fn forward_block(
        &self,
        index: usize,
        block: &CandleBlock,
        x: &Tensor,
        keep: usize,
    ) -> CandleResult<Tensor> {
        let config = &self.config;
        let n = x.dim(0)?;
        let normed = self.normalize(x, &block.attention_norm)?;
        let (query_norm, key_norm) = (block.query_norm.as_ref(), block.key_norm.as_ref());

        let keys = self.project_heads(&block.key, &normed, config.kv_heads, key_norm)?;
        let keys = self.apply_rope(index, &keys, self.cache.len())?;
        let values = self.project_heads(&block.value, &normed, config.kv_heads, None)?;
        self.cache.write_layer(index, &keys, &values)?;
        let x = x.narrow(0, n - keep, keep)?;
        if keep == 0 {
            return Ok(x);
        }

        let first = self.cache.len() + n - keep;
        let normed = normed.narrow(0, n - keep, keep)?;
        let queries = self.project_heads(&block.query, &normed, config.heads, query_norm)?;
        let queries = self.apply_rope(index, &queries, first)?;
        let attended = block.attention_output.forward(&self.attend_in_chunks(index, &queries, first)?)?;
        let x = self.add_residual(&x, &attended, block.attention_post_norm.as_ref())?;
        let normed = match &block.feed_forward_norm {
            Some(norm) => self.normalize(&x, norm)?,
            None => normed,
        };
        let result = match &block.feed_forward {
            FeedForward::Dense(mlp) => self.run_mlp(mlp, &normed)?,
            FeedForward::Experts { router, experts } => self.run_experts(router, experts, &normed)?,
        };
        self.add_residual(&x, &result, block.feed_forward_post_norm.as_ref())
    }

    fn normalize(&self, x: &Tensor, norm: &CandleNorm) -> CandleResult<Tensor> {
        let x = x.contiguous()?;
        match &norm.bias {
            Some(bias) => layer_norm(&x, &norm.weight, bias, self.config.norm_epsilon),
            None => rms_norm(&x, &norm.weight, self.config.norm_epsilon),
        }
    }

    fn add_residual(&self, x: &Tensor, result: &Tensor, norm: Option<&CandleNorm>) -> CandleResult<Tensor> {
        let result = match norm {
            Some(norm) => self.normalize(result, norm)?,
            None => result.clone(),
        };
        x + scaled(result, self.config.residual_scale)?
    }

    fn run_mlp(&self, mlp: &MlpWeights<LinearProjection>, x: &Tensor) -> CandleResult<Tensor> {
        let up = mlp.up.forward(x)?;
        let inner = match (&mlp.gate, self.config.family.activation) {
            (Some(gate), Activation::GeGlu) => (gate.forward(x)?.gelu()? * up)?,
            (Some(gate), _) => (silu(&gate.forward(x)?)? * up)?,
            (None, _) => up.gelu()?,
        };
        mlp.down.forward(&inner)
    }

    /// The weighted sum of the experts with the greatest scores, for each row of `x`.
    fn run_experts(
        &self,
        router: &LinearProjection,
        experts: &[MlpWeights<LinearProjection>],
        x: &Tensor,
    ) -> CandleResult<Tensor> {
        let used = self.config.experts.map_or(1, |experts| experts.used);
        let scores = router.forward(x)?.to_vec2::<f32>()?;
        let rows = scores.iter().enumerate().map(|(row, scores)| {
            let x = x.narrow(0, row, 1)?;
            let mut sum = x.zeros_like()?;
            for (expert, weight) in choose_experts(scores, used) {
                sum = (sum + (self.run_mlp(&experts[expert], &x)? * f64::from(weight))?)?;
            }
            Ok(sum)
        });
        Tensor::cat(&rows.collect::<CandleResult<Vec<_>>>()?, 0)
    }

    /// Projects `x`, `[n, embedding]`, and splits it into heads: `[heads, n, head_dim]`, contiguous.
    fn project_heads(
        &self,
        projection: &LinearProjection,
        x: &Tensor,
        heads: usize,
        norm: Option<&CandleNorm>,
    ) -> CandleResult<Tensor> {
        let n = x.dim(0)?;
        let mut y = projection.forward(x)?.reshape((n, heads, self.config.head_dim))?;
        if let Some(norm) = norm {
            y = self.normalize(&y, norm)?;
        }
        y.transpose(0, 1)?.contiguous()
    }

    /// Rotates `x`, `[heads, n, head_dim]`, by the angles of the positions from `first` on, as layer `index` does.
    fn apply_rope(&self, index: usize, x: &Tensor, first: usize) -> CandleResult<Tensor> {
        let Some(rope_index) = self.config.layers[index].rope else { return Ok(x.clone()) };
        let (config, (cos, sin)) = (&self.config.ropes[rope_index], &self.rotations[rope_index]);
        let (_, n, head_dim) = x.dims3()?;
        let (cos, sin) = (cos.narrow(0, first, n)?, sin.narrow(0, first, n)?);
        let turn = |x: &Tensor| match config.style {
            RopeStyle::Interleaved => rope_i(x, &cos, &sin),
            RopeStyle::Halves => rope(x, &cos, &sin),
        };
        let x = x.unsqueeze(0)?;
        let dim = config.dim;
        let x = if dim == head_dim {
            turn(&x)?
        } else {
            let rest = x.narrow(D::Minus1, dim, head_dim - dim)?;
            let turned = turn(&x.narrow(D::Minus1, 0, dim)?.contiguous()?)?;
            Tensor::cat(&[&turned, &rest], D::Minus1)?.contiguous()?
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
        let mut scores = (queries.matmul(&keys.t()?)? * f64::from(self.config.attention_scale))?;
        if let Some(limit) = self.config.attention_softcap {
            scores = soft_cap(&scores, limit)?;
        }
        let window = self.config.layers[index].window;
        if n > 1 || window.is_some_and(|window| window < seen) {
            let mask = attention_mask(n, first, window, &self.device)?;
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

/// Cosines and sines of every position's angles, `[capacity, dim / 2]`. In `f32` throughout, as in training: a rounding
/// that a model was trained with is part of it.
fn rope_tables(rope: &RopeConfig, capacity: usize, device: &Device) -> CandleResult<(Tensor, Tensor)> {
    let frequencies = &rope.frequencies;
    let table = |f: fn(f32) -> f32| {
        let angles = (0..capacity).flat_map(|position| frequencies.iter().map(move |&w| position as f32 * w));
        let values = angles.map(|angle| rope.amplitude * f(angle)).collect::<Vec<f32>>();
        Tensor::from_vec(values, (capacity, frequencies.len()), device)
    };
    Ok((table(f32::cos)?, table(f32::sin)?))
}

/// The mask to add to the scores of `n` rows at the positions from `first` on: zero for a position that the row sees,
/// minus infinity for a later one and for one before the window. `[n, first + n]`.
fn attention_mask(n: usize, first: usize, window: Option<usize>, device: &Device) -> CandleResult<Tensor> {
    let seen = first + n;
    let values = (0..n).flat_map(|row| {
        let end = first + row + 1;
        let start = window.map_or(0, |window| end.saturating_sub(window));
        (0..seen).map(move |column| if (start..end).contains(&column) { 0.0 } else { f32::NEG_INFINITY })
    });
    Tensor::from_vec(values.collect::<Vec<f32>>(), (n, seen), device)
}

/// `x * factor`, at no cost for most families, whose factor is 1.
fn scaled(x: Tensor, factor: f32) -> CandleResult<Tensor> {
    if factor == 1.0 { Ok(x) } else { x * f64::from(factor) }
}

/// `limit * tanh(x / limit)`.
fn soft_cap(x: &Tensor, limit: f32) -> CandleResult<Tensor> {
    (x / f64::from(limit))?.tanh()? * f64::from(limit)
}

fn device_error(device: &Device, source: candle_core::Error) -> EngineError {
    EngineError::Device { device: format!("{:?}", device.location()), source: source.into() }
}

#[cfg(test)]
mod tests;
