//! The caller's options for running a model.

use std::num::NonZeroUsize;
use std::str::FromStr;

use super::{DeviceChoice, Kernel};
use crate::EngineError;

/// Options for running a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The device.
    pub device: DeviceChoice,
    /// The kernels on a CPU.
    pub kernel: KernelChoice,
    /// Threads on a CPU; `None`: the useful maximum. candle's kernels use `RAYON_NUM_THREADS` instead.
    pub threads: Option<NonZeroUsize>,
    /// Tokens that the KV cache should hold, at most those that the model was trained for.
    pub context: usize,
    /// Whether to draft tokens and verify several at once, where that cannot change the result but only the speed.
    pub speculate: bool,
    /// Maximum bytes of the KV caches of all resident sequences together; the current one may exceed it.
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

/// The kernels on a CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The fastest that this processor supports.
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
