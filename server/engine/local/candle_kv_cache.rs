//! The KV cache of the candle decoder: allocated once, appended to, truncated.

use candle_core::{DType, Device, Result, Tensor};

use super::SequenceTokens;
use crate::TokenId;

/// Keys and values of every layer, `[kv_heads, capacity, head_dim]` each; the positions of `tokens` are valid.
#[derive(Debug)]
pub(super) struct CandleKvCache {
    layers: Vec<(Tensor, Tensor)>,
    tokens: SequenceTokens,
    capacity: usize,
}

impl CandleKvCache {
    /// Allocates the cache. On a CPU, pages are not touched before positions are written.
    ///
    /// # Errors
    /// There is not enough memory.
    pub(super) fn new(
        layers: usize,
        kv_heads: usize,
        capacity: usize,
        head_dim: usize,
        device: &Device,
    ) -> Result<Self> {
        let too_much = || candle_core::Error::msg(format!("no memory for a KV cache of {capacity} tokens"));
        let values =
            [2, layers, kv_heads, capacity, head_dim].iter().try_fold(1_usize, |n, &m| n.checked_mul(m));
        let values = values.ok_or_else(too_much)?;
        if device.is_cpu() {
            // A failed allocation inside candle ends the process; this one returns an error.
            Vec::<f32>::new().try_reserve_exact(values).map_err(|_| too_much())?;
        }
        let zeros = || Tensor::zeros((kv_heads, capacity, head_dim), DType::F32, device);
        let layers = (0..layers).map(|_| Ok((zeros()?, zeros()?))).collect::<Result<_>>()?;
        Ok(Self { layers, tokens: SequenceTokens::default(), capacity })
    }

    /// Number of valid positions.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens at the valid positions.
    pub(super) fn tokens(&self) -> &SequenceTokens {
        &self.tokens
    }

    /// Maximum number of positions.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes keys and values, `[kv_heads, n, head_dim]`, after the valid positions of `layer`. They become valid by
    /// [`CandleKvCache::commit_tokens`], once all layers have theirs; a call that fails in between leaves no trace.
    pub(super) fn write_layer(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        let (k, v) = self.layer_tensors(layer)?;
        k.slice_set(keys, 1, self.len())?;
        v.slice_set(values, 1, self.len())
    }

    /// The first `len` keys and values of `layer`, including written positions after the valid ones:
    /// `[kv_heads, len, head_dim]`, a view.
    pub(super) fn layer_view(&self, layer: usize, len: usize) -> Result<(Tensor, Tensor)> {
        let (k, v) = self.layer_tensors(layer)?;
        Ok((k.narrow(1, 0, len)?, v.narrow(1, 0, len)?))
    }

    /// Makes the next written positions valid, with these tokens.
    pub(super) fn commit_tokens(&mut self, tokens: &[TokenId]) {
        self.tokens.append_tokens(tokens);
    }

    /// Keeps the first `len` positions.
    pub(super) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    fn layer_tensors(&self, layer: usize) -> Result<&(Tensor, Tensor)> {
        self.layers
            .get(layer)
            .ok_or_else(|| candle_core::Error::msg(format!("the KV cache has no layer {layer}")))
    }
}
