//! Checks that the values in blocks are finite.
//!
//! Formats: `ggml-common.h` of <https://github.com/ggml-org/ggml>.

use candle_core::quantized::GgmlDType;

/// Offsets of the half-precision floats in a block. The rest of a block is integers, of which every value is valid.
pub(crate) fn half_float_offsets(dtype: GgmlDType) -> &'static [usize] {
    match dtype {
        GgmlDType::Q4_0 | GgmlDType::Q5_0 | GgmlDType::Q8_0 => &[0],
        GgmlDType::Q4_1 | GgmlDType::Q5_1 | GgmlDType::Q4K | GgmlDType::Q5K => &[0, 2],
        GgmlDType::Q2K => &[80, 82],
        GgmlDType::Q3K => &[108],
        GgmlDType::Q6K => &[208],
        _ => &[],
    }
}

/// Whether all values in these complete blocks are finite. A file damaged in transfer or on disk almost always has some
/// that are not: one in 32 random half floats is not finite.
pub(crate) fn are_finite(dtype: GgmlDType, blocks: &[u8]) -> bool {
    // Exactly the infinite and NaN values have all exponent bits set.
    let half = |bytes: [u8; 2]| bytes[1] & 0x7c != 0x7c;
    match dtype {
        GgmlDType::F32 => blocks.as_chunks::<4>().0.iter().all(|it| f32::from_le_bytes(*it).is_finite()),
        GgmlDType::BF16 => {
            blocks.as_chunks::<2>().0.iter().all(|it| u16::from_le_bytes(*it) & 0x7f80 != 0x7f80)
        }
        GgmlDType::F16 => blocks.as_chunks::<2>().0.iter().all(|it| half(*it)),
        _ => {
            let halves = half_float_offsets(dtype);
            blocks
                .chunks_exact(dtype.type_size())
                .all(|block| halves.iter().all(|&at| half([block[at], block[at + 1]])))
        }
    }
}

#[cfg(test)]
mod tests {

    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    use super::*;

    const ALL_TYPES: [GgmlDType; 13] = [
        GgmlDType::F32,
        GgmlDType::F16,
        GgmlDType::BF16,
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    #[test]
    fn non_finite_values_are_detected_in_every_format() {
        for dtype in ALL_TYPES {
            let values: Vec<f32> = (0..1024).map(|at| ((at * 37 % 101) as f32 - 50.0) / 9.0).collect();
            let tensor = Tensor::from_vec(values, (2, 512), &Device::Cpu).unwrap();
            let blocks = QTensor::quantize(&tensor, dtype).unwrap().data().unwrap().into_owned();
            assert!(are_finite(dtype, &blocks), "{dtype:?}");
            let places = match dtype {
                GgmlDType::F32 => &[2][..],
                GgmlDType::F16 | GgmlDType::BF16 => &[0],
                _ => half_float_offsets(dtype),
            };
            for block in [0, blocks.len() / dtype.type_size() - 1] {
                for place in places {
                    for no_number in [0x7fc0_u16, 0xff80, 0x7fff] {
                        let mut blocks = blocks.clone();
                        let at = block * dtype.type_size() + place;
                        blocks[at..at + 2].copy_from_slice(&no_number.to_le_bytes());
                        assert!(!are_finite(dtype, &blocks), "{dtype:?} {block} {place} {no_number:#x}");
                    }
                }
            }
            // The other bytes of a block may have any value.
            if dtype.block_size() > 1 {
                let mut blocks = blocks;
                for (at, byte) in blocks.iter_mut().enumerate() {
                    let at = at % dtype.type_size();
                    if !places.iter().any(|place| (*place..place + 2).contains(&at)) {
                        *byte = 0xff;
                    }
                }
                assert!(are_finite(dtype, &blocks), "{dtype:?}");
            }
        }
    }
}
