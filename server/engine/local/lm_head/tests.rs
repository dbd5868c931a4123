//! Tests that compare the head with the full product, on random matrices and on the real model over real text.

use std::ops::ControlFlow;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::gguf::{Gguf, TensorView};
use crate::local::kernels::Kernel;
use crate::local::matmul::ComputeContext;
use crate::local::thread_pool::ThreadPool;
use crate::local::{Batch, CpuDecoder, Decoder, ModelConfig, real_model, sampling};
use crate::priority::Priority;
use crate::{TokenId, Tokenizer};

const TWO_PLANE_DTYPES: [GgmlDType; 2] = [GgmlDType::Q8_0, GgmlDType::Q6K];

fn available_computes() -> Vec<ComputeContext> {
    Kernel::available_kernels().map(|kernel| ComputeContext::new(kernel, ThreadPool::new(2))).collect()
}

/// Logits of several rows are requested when drafts are verified.
fn exact_batch(compute: &ComputeContext) -> BatchCompute<'_> {
    compute.for_batch(true, Priority::Interactive)
}

/// Values close to a normal distribution.
fn random_values(random: &mut fastrand::Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| (0..6).map(|_| random.f32() - 0.5).sum::<f32>()).collect()
}

fn quantize_bytes(dtype: GgmlDType, values: &[f32], shape: &[usize]) -> Vec<u8> {
    let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, dtype).unwrap().data().unwrap().to_vec()
}

fn unbiased_linear(weight: PackedMatrix) -> LinearLayer {
    LinearLayer { weight, bias: None }
}

fn prepare_activations(compute: &ComputeContext, x: &[f32], columns: usize) -> Activations {
    let mut activations = Activations::default();
    exact_batch(compute).prepare_rows(&mut activations, x.len() / columns, columns, |row, out| {
        out.copy_from_slice(&x[row * columns..(row + 1) * columns]);
    });
    activations
}

fn full_logits(compute: &ComputeContext, linear: &LinearLayer, x: &Activations) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.rows() * linear.weight.rows()];
    exact_batch(compute).multiply_targets(x, &mut [ProductTarget { linear, out: &mut out, add: false }]);
    out
}

fn requested_logits(
    head: &mut LmHead,
    compute: &ComputeContext,
    x: &Activations,
    requests: &[LogitsRequest],
) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.rows() * head.weight().rows()];
    head.compute_logits(&exact_batch(compute), x, requests, &mut out);
    out
}

#[test]
fn two_plane_packing_keeps_the_weights() {
    let mut random = fastrand::Rng::with_seed(1);
    for dtype in TWO_PLANE_DTYPES {
        for rows in [1, 16, 37, 100] {
            let columns = 256 * random.usize(1..4);
            let data = quantize_bytes(dtype, &random_values(&mut random, rows * columns), &[rows, columns]);
            let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
            for count in [1, 2, 3, 8, 13, 33] {
                let x = random_values(&mut random, count * columns);
                for compute in available_computes() {
                    let one = unbiased_linear(PackedMatrix::new(&view, &compute.pool).unwrap());
                    let two = unbiased_linear(PackedMatrix::new_in_planes(&view, &compute.pool).unwrap());
                    assert!(
                        two.weight.byte_len() == one.weight.byte_len()
                            && two.weight.format() != one.weight.format()
                    );
                    let (mut row_one, mut row_two) = (vec![0.0; columns], vec![0.0; columns]);
                    one.weight.dequantize_row(rows - 1, &mut row_one);
                    two.weight.dequantize_row(rows - 1, &mut row_two);
                    assert_eq!(row_one, row_two);
                    let x = prepare_activations(&compute, &x, columns);
                    assert!(
                        full_logits(&compute, &one, &x) == full_logits(&compute, &two, &x),
                        "{dtype:?} {count} {rows}"
                    );
                }
            }
        }
    }
}

#[test]
fn requested_logits_are_exact_others_are_close() {
    let mut random = fastrand::Rng::with_seed(2);
    for dtype in [GgmlDType::Q8_0, GgmlDType::Q6K, GgmlDType::Q5K, GgmlDType::F16] {
        for vocabulary in [5, 64, 999] {
            let columns = 256 * random.usize(1..4);
            let data = quantize_bytes(
                dtype,
                &random_values(&mut random, vocabulary * columns),
                &[vocabulary, columns],
            );
            let view = TensorView { dtype, shape: vec![vocabulary, columns], data: (&data).into() };
            for count in [1, 2, 3, 4, 7, 18] {
                let x = random_values(&mut random, count * columns);
                let requests: Vec<LogitsRequest> = (0..count)
                    .map(|_| match random.u8(..4) {
                        0 => LogitsRequest::All,
                        1 => LogitsRequest::Subset(
                            (0..random.usize(..9)).map(|_| random.u32(..vocabulary as u32 + 9)).collect(),
                        ),
                        _ => LogitsRequest::Argmax,
                    })
                    .collect();
                let mut first: Option<Vec<f32>> = None;
                for compute in available_computes() {
                    let mut head = LmHead::new(unbiased_linear(
                        PackedMatrix::new_in_planes(&view, &compute.pool).unwrap(),
                    ));
                    assert_eq!(head.margins.is_some(), TWO_PLANE_DTYPES.contains(&dtype));
                    let activations = prepare_activations(&compute, &x, columns);
                    let all = full_logits(&compute, &head.linear, &activations);
                    let ours = requested_logits(&mut head, &compute, &activations, &requests);
                    for (row, request) in requests.iter().enumerate() {
                        let (all, ours) =
                            (&all[row * vocabulary..][..vocabulary], &ours[row * vocabulary..][..vocabulary]);
                        match request {
                            LogitsRequest::All => assert_eq!(all, ours),
                            LogitsRequest::Subset(tokens) => {
                                for &token in tokens.iter().filter(|&&token| (token as usize) < vocabulary) {
                                    assert_eq!(all[token as usize], ours[token as usize]);
                                }
                            }
                            LogitsRequest::Argmax => {
                                let (exact, near) = (
                                    sampling::greedy_choice(all).unwrap(),
                                    sampling::greedy_choice(ours).unwrap(),
                                );
                                assert_eq!(exact.token, near.token);
                                assert_eq!(greatest_value(all), greatest_value(ours));
                                // A row of the weights and of the activations have norms of about sqrt(columns / 2).
                                let far =
                                    all.iter().zip(ours).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                                assert!(far < 0.5 * (columns as f32 / 2.0).sqrt(), "{dtype:?}: {far}");
                            }
                        }
                        // The row alone, and on every kernel: the same bits.
                        let alone =
                            prepare_activations(&compute, &x[row * columns..(row + 1) * columns], columns);
                        let alone =
                            requested_logits(&mut head, &compute, &alone, std::slice::from_ref(request));
                        if !matches!(request, LogitsRequest::Subset(_)) {
                            assert!(alone == ours, "{dtype:?}, row {row} of {count}, {request:?}");
                        }
                    }
                    if !requests.iter().any(|request| matches!(request, LogitsRequest::Subset(_))) {
                        assert!(*first.get_or_insert_with(|| ours.clone()) == ours);
                    }
                }
            }
        }
    }
}

#[test]
fn screening_recomputes_few_rows_exactly() {
    // One row of the weights stands out: only its group is exact.
    let (vocabulary, columns) = (4096, 256);
    let mut random = fastrand::Rng::with_seed(3);
    let mut values = random_values(&mut random, vocabulary * columns);
    let x = random_values(&mut random, columns);
    values[1234 * columns..1235 * columns].copy_from_slice(&x);
    let data = quantize_bytes(GgmlDType::Q8_0, &values, &[vocabulary, columns]);
    let view = TensorView { dtype: GgmlDType::Q8_0, shape: vec![vocabulary, columns], data: (&data).into() };
    let compute = ComputeContext::new(Kernel::best_available(), ThreadPool::new(2));
    let mut head = LmHead::new(unbiased_linear(PackedMatrix::new_in_planes(&view, &compute.pool).unwrap()));
    requested_logits(
        &mut head,
        &compute,
        &prepare_activations(&compute, &x, columns),
        &[LogitsRequest::Argmax],
    );
    assert_eq!(head.exact_rows, [(1234 / GROUP_ROWS, 0)]);
    assert!(head.streamed_bytes() * 100 < head.weight().byte_len() * 55);
}

#[test]
fn nan_logits_are_never_chosen_by_head() {
    let (vocabulary, columns) = (64, 64);
    let data = quantize_bytes(GgmlDType::Q8_0, &vec![1.0; vocabulary * columns], &[vocabulary, columns]);
    let view = TensorView { dtype: GgmlDType::Q8_0, shape: vec![vocabulary, columns], data: (&data).into() };
    for compute in available_computes() {
        let mut head =
            LmHead::new(unbiased_linear(PackedMatrix::new_in_planes(&view, &compute.pool).unwrap()));
        let x = prepare_activations(&compute, &vec![f32::NAN; columns], columns);
        assert_eq!(
            sampling::greedy_choice(&requested_logits(&mut head, &compute, &x, &[LogitsRequest::Argmax])),
            None
        );
        let zero = prepare_activations(&compute, &vec![0.0; columns], columns);
        assert_eq!(
            sampling::greedy_choice(&requested_logits(&mut head, &compute, &zero, &[LogitsRequest::Argmax]))
                .unwrap()
                .token,
            0
        );
    }
}

/// Over many positions of real text, the choice is the full product's, and its probability is close.
/// `TAPER_TEST_POSITIONS` raises their number.
#[test]
fn real_model_screened_choice_matches_full_head() {
    let Some(path) = real_model::path() else { return };
    let requested = std::env::var("TAPER_TEST_POSITIONS").ok().and_then(|positions| positions.parse().ok());
    let positions: usize = requested.unwrap_or(300);
    let gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let tokens = Tokenizer::from_gguf(&gguf).unwrap();
    let texts = [
        real_model::SAMPLE_CODE,
        include_str!("../../gguf.rs"),
        include_str!("../../../completion.rs"),
        include_str!("../../../../README.md"),
        include_str!("../../catalog.rs"),
        include_str!("../../../../benches/peers/peers.py"),
        include_str!("../../tokenizer.rs"),
        include_str!("../../fetch.rs"),
    ];
    let mut decoder =
        CpuDecoder::new(&gguf, &config, 1024, Kernel::best_available(), ThreadPool::default_thread_count())
            .unwrap();
    let (mut seen, mut worst, mut wrong, mut near) = (0, 0.0_f32, 0, 0);
    // Short texts first, then parts of the long ones.
    'all: for text in texts {
        let tokens: Vec<TokenId> = tokens.encode(text);
        for piece in tokens.chunks(960) {
            decoder.truncate_sequence(0, 0);
            for chunk in piece.chunks(64) {
                let at = decoder.sequence_len(0);
                let exact = decoder.forward(chunk, chunk.len()).unwrap().to_vec();
                decoder.truncate_sequence(0, at);
                let requests = vec![LogitsRequest::Argmax; chunk.len()];
                let batch = Batch { tokens: chunk, logits: &requests, exact: true, ..Batch::default() };
                let flow = decoder.forward_batch(&batch, &mut || ControlFlow::Continue(())).unwrap();
                let ControlFlow::Continue(screened) = flow else { panic!("never interrupted") };
                let rows = exact.chunks(config.vocabulary).zip(screened.chunks(config.vocabulary));
                for (exact, screened) in rows {
                    let (theirs, ours) =
                        (sampling::greedy_choice(exact).unwrap(), sampling::greedy_choice(screened).unwrap());
                    wrong += usize::from(ours.token != theirs.token);
                    worst = worst.max((ours.probability - theirs.probability).abs());
                    near += exact.iter().zip(screened).filter(|(a, b)| a == b).count();
                    seen += 1;
                }
                if seen >= positions {
                    break 'all;
                }
            }
        }
    }
    #[expect(clippy::print_stderr, reason = "a measurement that the test's output keeps")]
    {
        let near = near as f64 / seen as f64;
        eprintln!(
            "{seen} positions, {wrong} other choices, probability off by {worst:.5}, {near:.0} rows exact"
        );
    }
    assert!(wrong == 0 && worst < 0.02, "{wrong} of {seen} choices differ; probability off by {worst}");
}
