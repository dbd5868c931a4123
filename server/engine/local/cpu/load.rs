//! Reads the tensors of a model file into packed weights.
//! It knows nothing of what the layers compute.

use crate::EngineError;
use crate::gguf::{FETCH_AGAIN, Gguf, NO_NUMBERS, TensorView};
use crate::local::kernels::pack::{Packed, Unpacked};
use crate::local::linear::Linear;
use crate::local::pool::Pool;

const REMEDY: &str =
    "choose another file of the model (Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16), or the kernel \"candle\"";
const NO_ROOM: &str = "close other programs, or choose a smaller model";

/// Reads tensors of a model file.
pub(super) struct Load<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) pool: &'a Pool,
}

impl Load<'_> {
    /// A matrix `[rows, columns]`.
    pub(super) fn packed(&self, name: &str, rows: usize, columns: usize) -> Result<Packed, EngineError> {
        self.pack(name, &[rows, columns], Packed::new)
    }

    /// A matrix `[rows, columns]` in two planes, if its format has them.
    pub(super) fn planes(&self, name: &str, rows: usize, columns: usize) -> Result<Packed, EngineError> {
        self.pack(name, &[rows, columns], Packed::in_planes)
    }

    fn pack(
        &self,
        name: &str,
        shape: &[usize],
        pack: fn(&TensorView<'_>, &Pool) -> Result<Packed, Unpacked>,
    ) -> Result<Packed, EngineError> {
        let view = self.gguf.need_tensor(name, shape)?;
        pack(&view, self.pool).map_err(|why| self.error(name, why))
    }

    fn error(&self, name: &str, why: Unpacked) -> EngineError {
        match why {
            Unpacked::Form(problem) => self.gguf.bad(name, problem, REMEDY),
            Unpacked::NoRoom(problem) => self.gguf.bad(name, problem, NO_ROOM),
            Unpacked::Read(error) => self.gguf.unread(name, error),
            Unpacked::NoNumbers => self.gguf.bad(name, NO_NUMBERS, FETCH_AGAIN),
        }
    }

    /// A linear layer by the name of its part.
    pub(super) fn linear(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
        bias: bool,
    ) -> Result<Linear, EngineError> {
        let weight = self.packed(&format!("{name}.weight"), rows, columns)?;
        let bias = bias.then(|| self.floats(&format!("{name}.bias"), rows)).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// A vector as floats.
    pub(super) fn floats(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let TensorView { dtype, data, .. } = self.gguf.need_tensor(name, &[len])?;
        // A vector is a matrix of one row.
        let view = TensorView { dtype, shape: vec![1, len], data };
        let packed = Packed::new(&view, self.pool).map_err(|why| self.error(name, why))?;
        let mut values = vec![0.0; len];
        packed.row(0, &mut values);
        Ok(values)
    }
}
