//! The candle decoder's tensors from a model file, with their names, shapes and devices checked.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{Device, Tensor};

use super::ModelConfig;
use crate::EngineError;
use crate::gguf::{Gguf, NOT_FINITE_PROBLEM, PULL_AGAIN_REMEDY, are_finite};

/// All tensors of a decoder. Matrices stay quantized as stored; norms and biases are `f32`.
#[derive(Debug)]
pub(super) struct CandleWeights {
    /// `[vocabulary, embedding]`, always in CPU memory: each call reads a few rows, and GPU memory is scarce.
    pub(super) embedding: Arc<QTensor>,
    pub(super) blocks: Vec<CandleBlock>,
    /// `[embedding]`
    pub(super) output_norm: Tensor,
    /// `[vocabulary, embedding]`
    pub(super) output: QMatMul,
}

/// One layer.
#[derive(Debug)]
pub(super) struct CandleBlock {
    /// `[embedding]`
    pub(super) attn_norm: Tensor,
    pub(super) query: LinearProjection,
    pub(super) key: LinearProjection,
    pub(super) value: LinearProjection,
    /// `[head_dim]` each, over every head of queries and of keys.
    pub(super) qk_norm: Option<(Tensor, Tensor)>,
    /// `[embedding, heads * head_dim]`
    pub(super) attn_output: QMatMul,
    /// `[embedding]`
    pub(super) ffn_norm: Tensor,
    /// `[feed_forward, embedding]`
    pub(super) gate: QMatMul,
    /// `[feed_forward, embedding]`
    pub(super) up: QMatMul,
    /// `[embedding, feed_forward]`
    pub(super) down: QMatMul,
}

/// A matrix, `[out, in]`, with an optional bias, `[out]`.
#[derive(Debug)]
pub(super) struct LinearProjection {
    pub(super) weight: QMatMul,
    pub(super) bias: Option<Tensor>,
}

impl CandleWeights {
    /// Copies the tensors from the file to `device`.
    ///
    /// # Errors
    /// A tensor is missing, has another shape than in `config`, or holds NaN or infinities; or the device lacks memory.
    pub(super) fn load(gguf: &Gguf, config: &ModelConfig, device: &Device) -> Result<Self, EngineError> {
        let load = TensorLoader { gguf, device };
        let table = [config.vocabulary, config.embedding];
        let embedding =
            Arc::new(TensorLoader { gguf, device: &Device::Cpu }.load_tensor("token_embd.weight", &table)?);
        let output = match (config.tied_output, device.is_cpu()) {
            (true, true) => {
                load.with_device_error("token_embd.weight", QMatMul::from_arc(Arc::clone(&embedding)))?
            }
            (true, false) => load.load_matrix("token_embd.weight", &table)?,
            (false, _) => load.load_matrix("output.weight", &table)?,
        };
        let blocks = (0..config.blocks).map(|i| load.load_block(i, config)).collect::<Result<_, _>>()?;
        let output_norm = load.load_vector("output_norm.weight", config.embedding)?;
        Ok(Self { embedding, blocks, output_norm, output })
    }
}

struct TensorLoader<'a> {
    gguf: &'a Gguf,
    device: &'a Device,
}

impl TensorLoader<'_> {
    fn load_block(&self, index: usize, config: &ModelConfig) -> Result<CandleBlock, EngineError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (embedding, feed_forward) = (config.embedding, config.feed_forward);
        let (queries, keys) = (config.query_width(), config.kv_width());
        let projection = |part: &str, out: usize| -> Result<LinearProjection, EngineError> {
            let weight = self.load_matrix(&name(&format!("{part}.weight")), &[out, embedding])?;
            let bias =
                config.qkv_bias.then(|| self.load_vector(&name(&format!("{part}.bias")), out)).transpose()?;
            Ok(LinearProjection { weight, bias })
        };
        let qk_norm = if config.qk_norm {
            let queries = self.load_vector(&name("attn_q_norm.weight"), config.head_dim)?;
            Some((queries, self.load_vector(&name("attn_k_norm.weight"), config.head_dim)?))
        } else {
            None
        };
        Ok(CandleBlock {
            attn_norm: self.load_vector(&name("attn_norm.weight"), embedding)?,
            query: projection("attn_q", queries)?,
            key: projection("attn_k", keys)?,
            value: projection("attn_v", keys)?,
            qk_norm,
            attn_output: self.load_matrix(&name("attn_output.weight"), &[embedding, queries])?,
            ffn_norm: self.load_vector(&name("ffn_norm.weight"), embedding)?,
            gate: self.load_matrix(&name("ffn_gate.weight"), &[feed_forward, embedding])?,
            up: self.load_matrix(&name("ffn_up.weight"), &[feed_forward, embedding])?,
            down: self.load_matrix(&name("ffn_down.weight"), &[embedding, feed_forward])?,
        })
    }

    fn load_matrix(&self, name: &str, shape: &[usize]) -> Result<QMatMul, EngineError> {
        self.with_device_error(name, QMatMul::from_qtensor(self.load_tensor(name, shape)?))
    }

    /// A vector as `f32`.
    fn load_vector(&self, name: &str, len: usize) -> Result<Tensor, EngineError> {
        self.with_device_error(name, self.load_tensor(name, &[len])?.dequantize(self.device))
    }

    fn load_tensor(&self, name: &str, shape: &[usize]) -> Result<QTensor, EngineError> {
        let view = self.gguf.require_tensor(name, shape)?;
        let bytes = view.data.read_all().map_err(|error| self.gguf.tensor_read_error(name, error))?;
        if !are_finite(view.dtype, &bytes) {
            return Err(self.gguf.field_error(name, NOT_FINITE_PROBLEM, PULL_AGAIN_REMEDY));
        }
        let storage = QStorage::from_data(align_blocks(bytes), self.device, view.dtype);
        self.with_device_error(name, storage.and_then(|storage| QTensor::new(storage, shape)))
    }

    fn with_device_error<T>(&self, name: &str, result: candle_core::Result<T>) -> Result<T, EngineError> {
        result.map_err(|error| EngineError::Device {
            device: format!(
                "loading {name} of {} onto {:?}",
                self.gguf.path().display(),
                self.device.location()
            ),
            source: error.into(),
        })
    }
}

/// The stored blocks at an address aligned for their widest field, which candle asserts. Allocated memory is aligned.
fn align_blocks(bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if bytes.as_ptr().align_offset(align_of::<f32>()) == 0 { bytes } else { Cow::Owned(bytes.to_vec()) }
}
