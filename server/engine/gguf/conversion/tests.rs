//! Compares converted blocks with the values of ggml's own definition, and measures the loss.

use std::path::Path;

use candle_core::quantized::{QStorage, QTensor};
use candle_core::{Device, Tensor};

use crate::gguf::format::TensorFormat;
use crate::gguf::{Gguf, TensorView, are_finite};

use super::*;

/// The values of a tensor in a format of the tensor library.
fn dequantize(view: &TensorView<'_>) -> Vec<f32> {
    let bytes = view.data.read_all().unwrap().into_owned();
    let storage = QStorage::from_data(bytes.into(), &Device::Cpu, view.dtype).unwrap();
    let tensor = QTensor::new(storage, &view.shape[..]).unwrap().dequantize(&Device::Cpu).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn root_mean_square(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len() as f32;
    (values.map(|value| value * value).sum::<f32>() / count).sqrt()
}

/// The root mean square difference of two lists, relative to that of the second.
fn relative_error(ours: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(ours.len(), expected.len());
    let differences = ours.iter().zip(expected).map(|(ours, expected)| ours - expected);
    root_mean_square(differences) / root_mean_square(expected.iter().copied())
}

#[test]
fn converted_blocks_have_the_values_of_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/formats/formats.gguf");
    let gguf = Gguf::open(&path).unwrap();
    for (name, target, most) in [
        ("IQ4_NL", GgmlDType::Q8_0, 0.0),
        ("MXFP4", GgmlDType::Q8_0, 0.0),
        ("Q3_K", GgmlDType::Q6K, 1e-6),
        // Half of a half float's last bit.
        ("IQ4_XS", GgmlDType::Q8_0, 1.0 / 2048.0),
        // Random bits: the minimums of neighbours differ more than in any model.
        ("Q2_K", GgmlDType::Q6K, 0.02),
    ] {
        let expected = dequantize(&gguf.tensor(&format!("{name}.values")).unwrap());
        let view = gguf.tensor(name).unwrap().with_kernel_format();
        assert_eq!((view.dtype, &view.shape[..]), (target, &[3, 512][..]), "{name}");
        let error = relative_error(&dequantize(&view), &expected);
        assert!(error <= most, "{name}: {error}");
        // Any part of the tensor reads like the same part of the whole, also if it begins inside a block.
        let all = view.data.read_all().unwrap();
        for range in [0..1, 33..35, 100..1000, all.len() - 1..all.len(), 5..5] {
            assert_eq!(*view.data.read(range.clone()).unwrap(), all[range], "{name}");
        }
        let row = all.len() / 3;
        assert_eq!(*view.data.slice(row..2 * row).read(3..9).unwrap(), all[row + 3..row + 9], "{name}");
        assert_eq!(*view.data.prefix(row).read_all().unwrap(), all[..row], "{name}");
    }
}

#[test]
fn conversion_of_two_bit_weights_adds_little_to_their_error() {
    let mut random = fastrand::Rng::with_seed(1);
    // The sum of twelve uniform numbers is nearly normally distributed, as weights are.
    let values: Vec<f32> =
        (0..1 << 16).map(|_| (0..12).map(|_| random.f32() - 0.5).sum::<f32>() * 0.02).collect();
    let tensor = Tensor::from_vec(values.clone(), (64, 1024), &Device::Cpu).unwrap();
    let stored = QTensor::quantize(&tensor, GgmlDType::Q2K).unwrap().data().unwrap().into_owned();
    let view = TensorView { dtype: GgmlDType::Q2K, shape: vec![64, 1024], data: (&stored).into() };
    let exact = dequantize(&view);
    let converted = dequantize(&view.with_kernel_format());
    let added = relative_error(&converted, &exact);
    let (before, after) = (relative_error(&exact, &values), relative_error(&converted, &values));
    assert!(added < 0.025, "{added}");
    assert!(after < before * 1.005, "{before} {after}");
}

#[test]
fn damaged_scales_are_found_after_conversion() {
    let formats = [
        (TensorFormat::Iq4Nl, &[0][..]),
        (TensorFormat::Iq4Xs, &[0]),
        (TensorFormat::Ggml(GgmlDType::Q2K), &[80, 82]),
        (TensorFormat::Ggml(GgmlDType::Q3K), &[108]),
    ];
    let mut random = fastrand::Rng::with_seed(2);
    for (format, halves) in formats {
        let conversion = format.kernel_conversion().unwrap();
        let (_, bytes) = format.block_size();
        for (&at, not_finite) in
            halves.iter().flat_map(|at| [0x7c00_u16, 0xfc00, 0x7e01].map(|half| (at, half)))
        {
            let mut block: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
            halves.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&[0, 0x20]));
            let mut out = vec![0; conversion.converted_bytes];
            conversion.convert_blocks(&block, &mut out);
            assert!(are_finite(conversion.target, &out), "{format:?}");
            block[at..at + 2].copy_from_slice(&not_finite.to_le_bytes());
            conversion.convert_blocks(&block, &mut out);
            assert!(!are_finite(conversion.target, &out), "{format:?} {at} {not_finite:#x}");
        }
    }
    let mut block = [7; 17];
    block[0] = 255;
    let mut out = [0; Q8_0_BYTES];
    MXFP4_TO_Q8_0.convert_blocks(&block, &mut out);
    assert!(!are_finite(GgmlDType::Q8_0, &out));
}
