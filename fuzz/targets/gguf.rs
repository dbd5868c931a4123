//! Fuzzes the GGUF reader with arbitrary bytes: header, metadata, tensors, and both decoders if the file passes for a
//! model.
#![no_main]

use std::path::Path;

use candle_core::quantized::GgmlDType;
use libfuzzer_sys::fuzz_target;
use taper_engine::Tokenizer;
use taper_engine::gguf::Gguf;
use taper_engine::local::device::{DeviceChoice, choose_device};
use taper_engine::local::{CandleDecoder, ModelConfig, CpuDecoder, Decoder, Kernel};

/// Whether a debug assertion in candle would end the run. It requires an even number of these blocks per row, although
/// candle's code does not need that and a release build does not check it.
fn is_asserted(dtype: GgmlDType, shape: &[usize]) -> bool {
    let columns = shape.last().copied().unwrap_or(0);
    matches!(dtype, GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1) && columns % 64 != 0
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(Path::new("fuzzed"), bytes.to_vec()) else { return };
    let (mut total, mut is_for_candle) = (0, true);
    for name in gguf.tensor_names() {
        if let Some(tensor) = gguf.tensor(name) {
            total += tensor.data.read_all().map_or(0, |bytes| bytes.len());
            is_for_candle &= !is_asserted(tensor.dtype, &tensor.shape);
        }
    }
    // Converted blocks take at most two and a half times as much as stored ones.
    assert!(gguf.tensor_bytes() <= bytes.len() as u64 && total <= 3 * bytes.len(), "more tensors than file");
    let Ok(config) = ModelConfig::from_gguf(&gguf) else { return };
    let _ = Tokenizer::from_gguf(&gguf);
    let tokens = [0, 1.min(config.vocabulary as u32 - 1), 0];
    if let Ok(mut decoder) = CpuDecoder::new(&gguf, &config, 8, Kernel::best_available(), 1) {
        let _ = decoder.forward(&tokens, 2);
    }
    if !is_for_candle {
        return;
    }
    let Ok(cpu) = choose_device(DeviceChoice::Cpu) else { return };
    if let Ok(mut decoder) = CandleDecoder::load(&gguf, &config, config.context_capacity(8), &cpu.device) {
        let _ = decoder.forward(&tokens, 2);
    }
});
