//! Checks whether a model fits into the available memory before it is loaded.

use candle_core::quantized::GgmlDType;

use super::ModelConfig;
use crate::EngineError;
use crate::catalog;
use crate::fetch::ByteSize;
use crate::gguf::Gguf;
use crate::memory::{AvailableMemory, MACHINE_PLACE, MemoryProbe};

/// Memory besides weights and keys: activations, tokens, the program.
const OVERHEAD_BYTES: u64 = 64 << 20;

/// How a model is held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WeightStorage {
    /// Packed for our own kernels.
    Packed,
    /// As candle's tensors: floats as `f32`, keys and values of the whole context at once.
    Tensors,
    /// On a device with memory of its own; the embedding table stays here.
    OnDevice,
}

/// Bytes of main memory that a model takes with `capacity` tokens of context.
fn needed_bytes(gguf: &Gguf, config: &ModelConfig, capacity: usize, held: WeightStorage) -> u64 {
    let keys = 2 * (config.blocks * config.kv_width()) as u64 * capacity as u64;
    let views = || gguf.tensor_names().filter_map(|name| Some((name, gguf.tensor(name)?)));
    let floats = |dtype| matches!(dtype, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16);
    let (weights, keys) = match held {
        // Scales of K-quants are packed a little less tightly.
        WeightStorage::Packed => {
            let sizes = views().map(|(_, view)| view.with_kernel_format().data.len() as u64);
            (sizes.sum::<u64>() / 100 * 104, keys * 2)
        }
        WeightStorage::Tensors => {
            let sizes = views().map(|(_, view)| {
                let values: usize = view.shape.iter().product();
                if floats(view.dtype) { 4 * values as u64 } else { view.data.len() as u64 }
            });
            (sizes.sum(), keys * 4)
        }
        WeightStorage::OnDevice => {
            let table = views().filter(|(name, _)| *name == "token_embd.weight");
            (table.map(|(_, view)| view.data.len() as u64).sum(), 0)
        }
    };
    weights + keys + OVERHEAD_BYTES
}

/// Refuses a model if memory is short.
///
/// # Errors
/// With both sizes and a remedy.
pub(super) fn check_memory(
    gguf: &Gguf,
    config: &ModelConfig,
    capacity: usize,
    held: WeightStorage,
    memory: &MemoryProbe,
) -> Result<(), EngineError> {
    let Some(AvailableMemory { bytes: available, place }) = memory.available_memory() else { return Ok(()) };
    let needed = needed_bytes(gguf, config, capacity, held);
    if needed <= available {
        return Ok(());
    }
    let smaller = catalog::largest_default_within(available, gguf.file_len());
    let more = if place == MACHINE_PLACE { "close other programs" } else { "raise that limit" };
    let remedy = match smaller {
        Some(model) => {
            format!("{more}, or choose a smaller model, such as {} ({})", model.name, ByteSize(model.bytes))
        }
        None => format!("{more}, or reduce the context"),
    };
    Err(EngineError::Memory { path: gguf.path().to_owned(), needed, available, place, remedy })
}

#[cfg(test)]
mod tests {

    use std::fs;

    use super::*;
    use crate::gguf::testing::{ModelDims, random_qwen2};
    use crate::local::machine::HostMachine;
    use crate::local::{DeviceChoice, KernelChoice, Local, Options};

    fn machine_with_memory(folder: &std::path::Path, kilobytes: u64) -> HostMachine {
        fs::create_dir_all(folder.join("proc")).unwrap();
        fs::write(folder.join("proc/meminfo"), format!("MemAvailable: {kilobytes} kB\n")).unwrap();
        HostMachine { memory: MemoryProbe::Root(folder.to_owned()), ..HostMachine::current() }
    }

    #[test]
    fn memory_error_names_both_sizes_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        random_qwen2(1, &ModelDims::default()).unwrap().write(&path).unwrap();
        for kernel in [KernelChoice::Auto, KernelChoice::Candle] {
            let options = Options { device: DeviceChoice::Cpu, kernel, context: 128, ..Options::default() };
            let open = |kilobytes| {
                Local::open_with_machine(&path, &options, machine_with_memory(folder.path(), kilobytes))
            };
            assert!(open(100 << 10).is_ok());
            let error = open(60_000).unwrap_err();
            assert!(matches!(error, EngineError::Memory { available: 61_440_000, .. }), "{error}");
            let error = error.to_string();
            assert!(error.contains("61.4 MB") && error.contains("in this machine"), "{error}");
            assert!(error.contains("needs about 67.") && error.contains("close other programs"), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn memory_error_suggests_a_smaller_model() {
        let name =
            |memory, file_len| catalog::largest_default_within(memory, file_len).map(|model| model.name);
        let needed = |name| catalog::find_model(name).unwrap().memory_bytes();
        let (small, large) = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b");
        for (memory, expected) in [
            (0, None),
            (needed(small) - 1, None),
            (needed(small), Some(small)),
            (needed(large), Some(large)),
            (u64::MAX, Some(large)),
        ] {
            assert_eq!(name(memory, u64::MAX), expected);
        }
        // It has to be smaller than the model that did not fit.
        assert_eq!(name(u64::MAX, 1_117_320_768), Some(small));
        assert_eq!(name(u64::MAX, 491_400_064), None);
    }
}
