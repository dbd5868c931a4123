//! Tests of `matmul`.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::gguf::{Gguf, TensorView};
use crate::local::kernels::amx_tests;
use crate::local::real_model;

const QUANTIZED_DTYPES: [GgmlDType; 8] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];
const FLOAT_DTYPES: [GgmlDType; 3] = [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16];

/// Every kernel of this machine, and the AMX kernel on the tile model.
fn all_computes() -> Vec<(&'static str, ComputeContext)> {
    let kernels = Kernel::available_kernels();
    let mut computes: Vec<_> =
        kernels.map(|kernel| (kernel.name(), ComputeContext::new(kernel, ThreadPool::new(2)))).collect();
    computes.push((
        "amx on the model",
        ComputeContext::with_table(&amx_tests::TILE_MODEL_TABLE, ThreadPool::new(2)),
    ));
    computes
}

/// Uneven values like those of weights, with some outliers.
fn random_values(random: &mut fastrand::Rng, len: usize) -> Vec<f32> {
    let value = |random: &mut fastrand::Rng| {
        let x = (0..4).map(|_| random.f32() - 0.5).sum::<f32>();
        if random.u32(..50) == 0 { 5.0 * x } else { x }
    };
    (0..len).map(|_| value(random)).collect()
}

/// A stored matrix and the values that candle reads from it.
fn quantize_matrix(dtype: GgmlDType, values: &[f32], rows: usize, columns: usize) -> (Vec<u8>, Vec<f32>) {
    let tensor = Tensor::from_slice(values, (rows, columns), &Device::Cpu).unwrap();
    let tensor = QTensor::quantize(&tensor, dtype).unwrap();
    let bytes = tensor.data().unwrap().to_vec();
    (bytes, dequantize_tensor(&tensor))
}

fn dequantize_tensor(tensor: &QTensor) -> Vec<f32> {
    tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn multiply_rows(compute: &ComputeContext, linear: &LinearLayer, x: &[f32], columns: usize) -> Vec<f32> {
    let rows = x.len() / columns;
    let mut activations = Activations::default();
    let compute = compute.for_batch(false, Priority::Interactive);
    compute.prepare_rows(&mut activations, rows, columns, |row, out| {
        out.copy_from_slice(&x[row * columns..(row + 1) * columns]);
    });
    let mut out = vec![f32::NAN; rows * linear.weight.rows()];
    compute.multiply_targets(&activations, &mut [ProductTarget { linear, out: &mut out, add: false }]);
    out
}

/// The error relative to the product of both vectors' norms: root of the summed squares of both.
fn relative_error(ours: &[f32], weights: &[f32], x: &[f32], columns: usize) -> f64 {
    let rows = weights.len() / columns;
    let (mut wrong, mut all) = (0.0, 0.0);
    for (x, ours) in x.chunks(columns).zip(ours.chunks(rows)) {
        for (weights, &ours) in weights.chunks(columns).zip(ours) {
            let truth: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            wrong += (truth - f64::from(ours)).powi(2);
            let square = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            all += square(weights) * square(x);
        }
    }
    (wrong / all).sqrt()
}

#[test]
fn packed_rows_dequantize_to_file_values() {
    let mut random = fastrand::Rng::with_seed(1);
    let compute = ComputeContext::new(Kernel::Portable, ThreadPool::new(2));
    for dtype in QUANTIZED_DTYPES.into_iter().chain(FLOAT_DTYPES) {
        let columns = dtype.block_size().max(32) * 3;
        for rows in [1, 15, 16, 37] {
            let values = random_values(&mut random, rows * columns);
            let (data, expected) = quantize_matrix(dtype, &values, rows, columns);
            let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
            let packed = PackedMatrix::new(&view, &compute.pool).unwrap();
            let mut row_values = vec![0.0; columns];
            for row in 0..rows {
                packed.dequantize_row(row, &mut row_values);
                assert_eq!(row_values, expected[row * columns..(row + 1) * columns], "{dtype:?}, row {row}");
            }
            assert!(
                packed.byte_len() as f64
                    <= 1.04 * (rows.next_multiple_of(16) * data.len() / rows) as f64 + 64.0 * 3.0
            );
        }
    }
}

#[test]
fn random_bytes_dequantize_like_candle() {
    // Every code and scale that a file can hold, not only those that a quantizer writes.
    let mut random = fastrand::Rng::with_seed(2);
    let (rows, columns) = (19, 512);
    for dtype in QUANTIZED_DTYPES {
        let size = rows * columns / dtype.block_size() * dtype.type_size();
        let mut data: Vec<u8> = (0..size).map(|_| random.u8(..)).collect();
        // Scales stay finite and of similar size: the exponents of the half floats are set.
        let halves: &[usize] = match dtype {
            GgmlDType::Q6K => &[208],
            GgmlDType::Q4_0 | GgmlDType::Q5_0 | GgmlDType::Q8_0 => &[0],
            _ => &[0, 2],
        };
        for block in data.chunks_mut(dtype.type_size()) {
            for at in halves {
                block[at + 1] = 0x2c | block[at + 1] & 0x83;
            }
        }
        let tensor = {
            let storage =
                candle_core::quantized::QStorage::from_data(data.clone().into(), &Device::Cpu, dtype)
                    .unwrap();
            QTensor::new(storage, (rows, columns)).unwrap()
        };
        let weights = dequantize_tensor(&tensor);
        let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
        let x = random_values(&mut random, 21 * columns);
        let mut first: Option<Vec<f32>> = None;
        for (kernel, compute) in all_computes() {
            let weight = PackedMatrix::new(&view, &compute.pool).unwrap();
            let ours = multiply_rows(&compute, &LinearLayer { weight, bias: None }, &x, columns);
            let error = relative_error(&ours, &weights, &x, columns);
            assert!(error < 1e-2, "{dtype:?} {kernel:?}: {error}");
            let equal = compute.has_tile_gemm(21) || *first.get_or_insert_with(|| ours.clone()) == ours;
            assert!(equal, "{dtype:?} {kernel:?}");
        }
    }
}

#[test]
fn products_are_close_to_f32_and_bitwise_equal() {
    let mut random = fastrand::Rng::with_seed(3);
    let computes = all_computes();
    for dtype in QUANTIZED_DTYPES.into_iter().chain(FLOAT_DTYPES) {
        for rows in [1, 16, 50, 129] {
            let columns = dtype.block_size().max(32) * random.usize(1..5);
            let values = random_values(&mut random, rows * columns);
            let (data, weights) = quantize_matrix(dtype, &values, rows, columns);
            let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
            let bias = random.bool().then(|| random_values(&mut random, rows));
            for count in [1, 2, 3, 5, 8, 9, 16, 21] {
                let x = random_values(&mut random, count * columns);
                let mut first: Option<Vec<f32>> = None;
                for (kernel, compute) in &computes {
                    let weight = PackedMatrix::new(&view, &compute.pool).unwrap();
                    let linear = LinearLayer { weight, bias: bias.clone() };
                    let mut ours = multiply_rows(compute, &linear, &x, columns);
                    // Floats have only one format.
                    if !compute.has_tile_gemm(count) || FLOAT_DTYPES.contains(&dtype) {
                        assert!(
                            *first.get_or_insert_with(|| ours.clone()) == ours,
                            "{dtype:?} {kernel:?}, {count} times {rows} x {columns}"
                        );
                        // A row's products do not depend on the number of rows.
                        let last = multiply_rows(compute, &linear, &x[(count - 1) * columns..], columns);
                        assert!(last == ours[(count - 1) * rows..], "{dtype:?} {kernel:?}, row {count}");
                    }
                    if let Some(bias) = &bias {
                        for row in ours.chunks_mut(rows) {
                            row.iter_mut().zip(bias).for_each(|(value, bias)| *value -= bias);
                        }
                    }
                    let limit = if FLOAT_DTYPES.contains(&dtype) { 1e-6 } else { 1e-2 };
                    let error = relative_error(&ours, &weights, &x, columns);
                    assert!(error < limit, "{dtype:?} {kernel:?}, {count} times {rows} x {columns}: {error}");
                }
            }
        }
    }
}

#[test]
fn amx_products_are_closer_to_f32_than_int8() {
    let mut random = fastrand::Rng::with_seed(6);
    let portable = ComputeContext::new(Kernel::Portable, ThreadPool::new(2));
    let tiles: Vec<_> = all_computes().into_iter().filter(|(name, _)| name.starts_with("amx")).collect();
    // All widths of the last panel, one panel and an odd number of panels, whole and partial chunks of units, and
    // more groups than one piece.
    for dtype in QUANTIZED_DTYPES {
        for (count, units) in [(16, 1), (17, 33), (18, 3), (20, 40), (27, 5), (32, 8), (64, 2), (79, 16)] {
            let columns = (units * 32_usize).next_multiple_of(dtype.block_size());
            let rows = random.usize(1..150);
            let values = random_values(&mut random, rows * columns);
            let (data, weights) = quantize_matrix(dtype, &values, rows, columns);
            let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
            let linear =
                LinearLayer { weight: PackedMatrix::new(&view, &portable.pool).unwrap(), bias: None };
            let x = random_values(&mut random, count * columns);
            let int8 = relative_error(&multiply_rows(&portable, &linear, &x, columns), &weights, &x, columns);
            let mut first: Option<Vec<f32>> = None;
            for (name, compute) in &tiles {
                let ours = multiply_rows(compute, &linear, &x, columns);
                let error = relative_error(&ours, &weights, &x, columns);
                let what = format!("{dtype:?} {name}, {count} times {rows} x {columns}");
                assert!(error < 0.7 * int8, "{what}: {error}, int8 {int8}");
                assert!(*first.get_or_insert_with(|| ours.clone()) == ours, "{what}");
            }
        }
    }
}

#[test]
fn product_targets_share_activations_and_accumulate() {
    let mut random = fastrand::Rng::with_seed(4);
    let columns = 96;
    for (_, compute) in all_computes() {
        for count in [1, 20] {
            let x = random_values(&mut random, count * columns);
            let linear = |rows: usize, dtype, random: &mut fastrand::Rng| {
                let (data, _) = quantize_matrix(dtype, &random_values(random, rows * columns), rows, columns);
                let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
                LinearLayer { weight: PackedMatrix::new(&view, &compute.pool).unwrap(), bias: None }
            };
            let one = linear(40, GgmlDType::Q5_0, &mut random);
            let two = linear(17, GgmlDType::F16, &mut random);
            let (alone_one, alone_two) =
                (multiply_rows(&compute, &one, &x, columns), multiply_rows(&compute, &two, &x, columns));
            let mut activations = Activations::default();
            let compute = compute.for_batch(false, Priority::Interactive);
            compute.prepare_rows(&mut activations, count, columns, |row, out| {
                out.copy_from_slice(&x[row * columns..(row + 1) * columns]);
            });
            let mut out_one = vec![1.5; count * 40];
            let mut out_two = vec![f32::NAN; count * 17];
            compute.multiply_targets(
                &activations,
                &mut [
                    ProductTarget { linear: &one, out: &mut out_one, add: true },
                    ProductTarget { linear: &two, out: &mut out_two, add: false },
                ],
            );
            assert!(out_one.iter().zip(&alone_one).all(|(sum, alone)| *sum == 1.5 + alone));
            assert_eq!(out_two, alone_two);
        }
    }
}

#[test]
fn real_model_tensors_multiply_like_f32() {
    let Some(path) = real_model::path() else { return };
    let gguf = Gguf::open(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let compute = ComputeContext::new(Kernel::best_available(), ThreadPool::new(2));
    for part in ["attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_down"] {
        for block in [0, 7, 23] {
            let view = gguf.tensor(&format!("blk.{block}.{part}.weight")).unwrap();
            let (rows, columns) = (view.shape[0].min(160), view.shape[1]);
            let bytes = rows * columns / view.dtype.block_size() * view.dtype.type_size();
            let data = view.data.prefix(bytes);
            let view = TensorView { dtype: view.dtype, shape: vec![rows, columns], data };
            let storage = candle_core::quantized::QStorage::from_data(
                view.data.read_all().unwrap().into_owned().into(),
                &Device::Cpu,
                view.dtype,
            )
            .unwrap();
            let weights = dequantize_tensor(&QTensor::new(storage, (rows, columns)).unwrap());
            let x = random_values(&mut random, 12 * columns);
            let linear = LinearLayer { weight: PackedMatrix::new(&view, &compute.pool).unwrap(), bias: None };
            let error = relative_error(&multiply_rows(&compute, &linear, &x, columns), &weights, &x, columns);
            assert!(error < 1e-2, "{part} of block {block}, {:?}: {error}", view.dtype);
        }
    }
}
