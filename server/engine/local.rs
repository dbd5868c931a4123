//! The engine that runs a model file in this process.
//! It knows nothing of prompts' meaning: tokens in, tokens out.

use crate::{EngineError, TokenId};

mod cache;
pub mod config;
pub mod cpu;
pub mod decoder;
pub mod device;
pub mod kernels;
mod linear;
pub mod pool;
mod sample;
mod weights;

pub use config::Config;

/// One resident sequence of a decoder-only transformer: weights, and a preallocated KV cache that can be cut.
///
/// Two implementations: candle tensors (GPUs, and the reference on CPUs) and our own kernels (CPUs).
pub trait Decoder: Send {
    /// Appends `tokens` at the current length and returns the logits of the last `rows` of them,
    /// `[rows, vocabulary]` row-major; none if `rows` is 0.
    ///
    /// # Errors
    /// The tokens do not fit into [`Decoder::capacity`], or the device failed; the cache then keeps
    /// only what was there before the call.
    fn forward(&mut self, tokens: &[TokenId], rows: usize) -> Result<&[f32], EngineError>;

    /// Tokens in the cache.
    fn len(&self) -> usize;

    /// Whether the cache is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` tokens of the cache.
    fn truncate(&mut self, len: usize);

    /// Tokens that the cache can hold.
    fn capacity(&self) -> usize;
}
