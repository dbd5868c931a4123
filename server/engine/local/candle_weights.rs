//! The candle decoder's tensors from a model file, with their names, shapes and devices checked.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};

use super::ModelConfig;
use super::block_weights::BlockWeights;
use super::config::tensors::{self, MatrixName};
use super::families::NormKind;
use crate::EngineError;
use crate::gguf::{Gguf, NOT_FINITE_PROBLEM, PULL_AGAIN_REMEDY, TensorView, are_finite};

/// All tensors of a decoder. Matrices stay quantized as stored; norms and biases are `f32`.
#[derive(Debug)]
pub(super) struct CandleWeights {
    /// `[vocabulary, embedding]`, always in CPU memory: each call reads a few rows, and GPU memory is scarce.
    pub(super) embedding: Arc<QTensor>,
    pub(super) blocks: Vec<CandleBlock>,
    pub(super) output_norm: CandleNorm,
    /// `[vocabulary, embedding]`
    pub(super) output: LinearProjection,
}

/// One layer.
pub(super) type CandleBlock = BlockWeights<LinearProjection, CandleNorm>;

/// A norm's weight, and its bias if it is a layer norm.
#[derive(Debug)]
pub(super) struct CandleNorm {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

/// A matrix, `[out, in]`, with an optional bias, `[out]`.
#[derive(Debug)]
pub(super) struct LinearProjection {
    pub(super) weight: QMatMul,
    pub(super) bias: Option<Tensor>,
}

impl LinearProjection {
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.weight.forward(x)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

impl CandleWeights {
    /// Copies the tensors from the file to `device`.
    ///
    /// # Errors
    /// A tensor is missing, has another shape than in `config`, or holds NaN or infinities; or the device lacks memory.
    pub(super) fn load(gguf: &Gguf, config: &ModelConfig, device: &Device) -> Result<Self, EngineError> {
        let load = TensorLoader { gguf, config, device };
        let table = [config.vocabulary, config.embedding];
        let on_cpu = TensorLoader { device: &Device::Cpu, ..load };
        let embedding = Arc::new(on_cpu.load_tensor("token_embd.weight", &table)?);
        let weight = match (config.tied_output, device.is_cpu()) {
            (true, true) => {
                load.with_device_error("token_embd.weight", QMatMul::from_arc(Arc::clone(&embedding)))?
            }
            (true, false) => load.load_matrix("token_embd.weight", &table)?,
            (false, _) => load.load_matrix("output.weight", &table)?,
        };
        let bias = load.load_optional_vector("output.bias", config.vocabulary)?;
        let output = LinearProjection { weight, bias };
        let blocks = (0..config.blocks).map(|i| load.load_block(i)).collect::<Result<_, _>>()?;
        let output_norm = load.load_norm("output_norm", config.embedding)?;
        Ok(Self { embedding, blocks, output_norm, output })
    }
}

#[derive(Clone, Copy)]
struct TensorLoader<'a> {
    gguf: &'a Gguf,
    config: &'a ModelConfig,
    device: &'a Device,
}

impl TensorLoader<'_> {
    fn load_block(&self, index: usize) -> Result<CandleBlock, EngineError> {
        let linear = |name| self.load_linear(index, name);
        CandleBlock::load(self.config, index, linear, |name, len| self.load_norm(name, len))
    }

    fn load_linear(&self, block: usize, name: MatrixName) -> Result<LinearProjection, EngineError> {
        let found = tensors::find_matrix(self.gguf, self.config, block, name)?;
        let storage = self.load_view(&found.name, &found.weight)?;
        let weight = self.with_device_error(&found.name, QMatMul::from_qtensor(storage))?;
        let bias = found.bias.map(|(name, view)| {
            self.with_device_error(&name, self.load_view(&name, &view)?.dequantize(self.device))
        });
        Ok(LinearProjection { weight, bias: bias.transpose()? })
    }

    fn load_norm(&self, name: &str, len: usize) -> Result<CandleNorm, EngineError> {
        let weight = self.load_vector(&format!("{name}.weight"), len)?;
        let has_bias = self.config.family.norm == NormKind::Layer;
        let bias = has_bias.then(|| self.load_vector(&format!("{name}.bias"), len)).transpose()?;
        Ok(CandleNorm { weight, bias })
    }

    fn load_matrix(&self, name: &str, shape: &[usize]) -> Result<QMatMul, EngineError> {
        self.with_device_error(name, QMatMul::from_qtensor(self.load_tensor(name, shape)?))
    }

    /// A vector as `f32`.
    fn load_vector(&self, name: &str, len: usize) -> Result<Tensor, EngineError> {
        self.with_device_error(name, self.load_tensor(name, &[len])?.dequantize(self.device))
    }

    fn load_optional_vector(&self, name: &str, len: usize) -> Result<Option<Tensor>, EngineError> {
        self.gguf.tensor(name).map(|_| self.load_vector(name, len)).transpose()
    }

    fn load_tensor(&self, name: &str, shape: &[usize]) -> Result<QTensor, EngineError> {
        self.load_view(name, &self.gguf.require_tensor(name, shape)?)
    }

    fn load_view(&self, name: &str, view: &TensorView<'_>) -> Result<QTensor, EngineError> {
        let bytes = view.data.read_all().map_err(|error| self.gguf.tensor_read_error(name, error))?;
        if !are_finite(view.dtype, &bytes) {
            return Err(self.gguf.field_error(name, NOT_FINITE_PROBLEM, PULL_AGAIN_REMEDY));
        }
        let storage = QStorage::from_data(align_blocks(bytes), self.device, view.dtype);
        self.with_device_error(name, storage.and_then(|storage| QTensor::new(storage, view.shape.as_slice())))
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
