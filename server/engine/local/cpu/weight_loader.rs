//! Reads the tensors of a model file into packed weights.

use crate::EngineError;
use crate::gguf::{Gguf, NOT_FINITE_PROBLEM, PULL_AGAIN_REMEDY, TensorView};
use crate::local::kernels::pack::{PackError, PackedMatrix};
use crate::local::matmul::LinearLayer;
use crate::local::thread_pool::ThreadPool;

const UNSUPPORTED_FORMAT_REMEDY: &str =
    "choose another file of the model (Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16), or the kernel \"candle\"";
const OUT_OF_MEMORY_REMEDY: &str = "close other programs, or choose a smaller model";

/// Reads tensors of a model file.
pub(super) struct WeightLoader<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) pool: &'a ThreadPool,
}

impl WeightLoader<'_> {
    /// A matrix `[rows, columns]`.
    pub(super) fn load_packed(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<PackedMatrix, EngineError> {
        self.pack_tensor(name, &[rows, columns], PackedMatrix::new)
    }

    /// A matrix `[rows, columns]` in two planes, if its format has them.
    pub(super) fn load_planes(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<PackedMatrix, EngineError> {
        self.pack_tensor(name, &[rows, columns], PackedMatrix::new_in_planes)
    }

    fn pack_tensor(
        &self,
        name: &str,
        shape: &[usize],
        pack: fn(&TensorView<'_>, &ThreadPool) -> Result<PackedMatrix, PackError>,
    ) -> Result<PackedMatrix, EngineError> {
        let view = self.gguf.require_tensor(name, shape)?;
        pack(&view, self.pool).map_err(|why| self.pack_error(name, why))
    }

    fn pack_error(&self, name: &str, why: PackError) -> EngineError {
        match why {
            PackError::UnsupportedFormat(problem) => {
                self.gguf.field_error(name, problem, UNSUPPORTED_FORMAT_REMEDY)
            }
            PackError::OutOfMemory(problem) => self.gguf.field_error(name, problem, OUT_OF_MEMORY_REMEDY),
            PackError::Read(error) => self.gguf.tensor_read_error(name, error),
            PackError::InvalidValues => self.gguf.field_error(name, NOT_FINITE_PROBLEM, PULL_AGAIN_REMEDY),
        }
    }

    /// A linear layer by its name.
    pub(super) fn load_linear(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
        bias: bool,
    ) -> Result<LinearLayer, EngineError> {
        let weight = self.load_packed(&format!("{name}.weight"), rows, columns)?;
        let bias = bias.then(|| self.load_vector(&format!("{name}.bias"), rows)).transpose()?;
        Ok(LinearLayer { weight, bias })
    }

    /// A vector as floats.
    pub(super) fn load_vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let TensorView { dtype, data, .. } = self.gguf.require_tensor(name, &[len])?;
        // A vector is a matrix of one row.
        let view = TensorView { dtype, shape: vec![1, len], data };
        let packed = PackedMatrix::new(&view, self.pool).map_err(|why| self.pack_error(name, why))?;
        let mut values = vec![0.0; len];
        packed.dequantize_row(0, &mut values);
        Ok(values)
    }
}
