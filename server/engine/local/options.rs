//! How a model is to be run: what the caller may choose.
//! It knows nothing of what the machine has.

use std::num::NonZeroUsize;
use std::str::FromStr;

use super::{DeviceChoice, Kernel};
use crate::EngineError;

/// How a model is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The device.
    pub device: DeviceChoice,
    /// What multiplies on a CPU.
    pub kernel: KernelChoice,
    /// Threads on a CPU; none: as many as pay. candle's kernels take theirs from `RAYON_NUM_THREADS` instead.
    pub threads: Option<NonZeroUsize>,
    /// Tokens that the KV cache shall hold, at most those that the model was trained for.
    pub context: usize,
    /// Whether to guess tokens and verify several at once, where that cannot change the result: it is only faster.
    pub speculate: bool,
    /// Bytes that the KV caches of all resident sequences may take together; the one in use may take more.
    pub resident_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            kernel: KernelChoice::Auto,
            threads: None,
            context: 8192,
            speculate: true,
            resident_bytes: 128 << 20,
        }
    }
}

/// What multiplies on a CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The fastest that this processor has.
    #[default]
    Auto,
    /// One of our own.
    Own(Kernel),
    /// candle's own: the reference.
    Candle,
}

impl FromStr for KernelChoice {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self, EngineError> {
        match name {
            "auto" => Ok(Self::Auto),
            "candle" => Ok(Self::Candle),
            name => Ok(Self::Own(Kernel::choose_by_name(Some(name))?.0)),
        }
    }
}
