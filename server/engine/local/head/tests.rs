//! The head against the full product: on random matrices, and on the real model over real text.
//! It knows nothing of how the screening is made.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::gguf::{Gguf, TensorView};
use crate::local::kernels::Kernel;
use crate::local::pool::Pool;
use crate::local::{Config, CpuDecoder, Decoder, real_model, sample};
use crate::{TokenId, Tokens};

const PLANES: [GgmlDType; 2] = [GgmlDType::Q8_0, GgmlDType::Q6K];

fn computes() -> Vec<Compute> {
    let kernels = Kernel::available();
    // Logits of several rows are asked for where drafts are verified.
    let exact = |kernel| {
        let compute = Compute::new(kernel, Pool::new(2));
        compute.set_exact(true);
        compute
    };
    kernels.map(exact).collect()
}

/// Near to a normal distribution.
fn random_values(random: &mut fastrand::Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| (0..6).map(|_| random.f32() - 0.5).sum::<f32>()).collect()
}

fn stored(dtype: GgmlDType, values: &[f32], shape: &[usize]) -> Vec<u8> {
    let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, dtype).unwrap().data().unwrap().to_vec()
}

fn linear(weight: Packed) -> Linear {
    Linear { weight, bias: None }
}

fn prepared(compute: &Compute, x: &[f32], columns: usize) -> Activations {
    let mut activations = Activations::default();
    compute.prepare(&mut activations, x.len() / columns, columns, |row, out| {
        out.copy_from_slice(&x[row * columns..(row + 1) * columns]);
    });
    activations
}

fn full(compute: &Compute, linear: &Linear, x: &Activations) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.rows() * linear.weight.rows()];
    compute.multiply(x, &mut [Target { linear, out: &mut out, add: false }]);
    out
}

fn asked(head: &mut Head, compute: &Compute, x: &Activations, asks: &[Ask]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.rows() * head.weight().rows()];
    head.logits(compute, x, asks, &mut out);
    out
}

#[test]
fn two_planes_are_the_same_weights() {
    let mut random = fastrand::Rng::with_seed(1);
    for dtype in PLANES {
        for rows in [1, 16, 37, 100] {
            let columns = 256 * random.usize(1..4);
            let data = stored(dtype, &random_values(&mut random, rows * columns), &[rows, columns]);
            let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
            for count in [1, 2, 3, 8, 13, 33] {
                let x = random_values(&mut random, count * columns);
                for compute in computes() {
                    let one = linear(Packed::new(&view, &compute.pool).unwrap());
                    let two = linear(Packed::in_planes(&view, &compute.pool).unwrap());
                    assert!(
                        two.weight.bytes() == one.weight.bytes()
                            && two.weight.format() != one.weight.format()
                    );
                    let (mut row_one, mut row_two) = (vec![0.0; columns], vec![0.0; columns]);
                    one.weight.row(rows - 1, &mut row_one);
                    two.weight.row(rows - 1, &mut row_two);
                    assert_eq!(row_one, row_two);
                    let x = prepared(&compute, &x, columns);
                    assert!(full(&compute, &one, &x) == full(&compute, &two, &x), "{dtype:?} {count} {rows}");
                }
            }
        }
    }
}

#[test]
fn what_is_asked_for_is_exact_and_the_rest_is_near() {
    let mut random = fastrand::Rng::with_seed(2);
    for dtype in [GgmlDType::Q8_0, GgmlDType::Q6K, GgmlDType::Q5K, GgmlDType::F16] {
        for vocabulary in [5, 64, 999] {
            let columns = 256 * random.usize(1..4);
            let data =
                stored(dtype, &random_values(&mut random, vocabulary * columns), &[vocabulary, columns]);
            let view = TensorView { dtype, shape: vec![vocabulary, columns], data: (&data).into() };
            for count in [1, 2, 3, 4, 7, 18] {
                let x = random_values(&mut random, count * columns);
                let asks: Vec<Ask> = (0..count)
                    .map(|_| match random.u8(..4) {
                        0 => Ask::All,
                        1 => Ask::Among(
                            (0..random.usize(..9)).map(|_| random.u32(..vocabulary as u32 + 9)).collect(),
                        ),
                        _ => Ask::Greatest,
                    })
                    .collect();
                let mut first: Option<Vec<f32>> = None;
                for compute in computes() {
                    let mut head = Head::new(linear(Packed::in_planes(&view, &compute.pool).unwrap()));
                    assert_eq!(head.margins.is_some(), PLANES.contains(&dtype));
                    let activations = prepared(&compute, &x, columns);
                    let all = full(&compute, &head.linear, &activations);
                    let ours = asked(&mut head, &compute, &activations, &asks);
                    for (row, ask) in asks.iter().enumerate() {
                        let (all, ours) =
                            (&all[row * vocabulary..][..vocabulary], &ours[row * vocabulary..][..vocabulary]);
                        match ask {
                            Ask::All => assert_eq!(all, ours),
                            Ask::Among(tokens) => {
                                for &token in tokens.iter().filter(|&&token| (token as usize) < vocabulary) {
                                    assert_eq!(all[token as usize], ours[token as usize]);
                                }
                            }
                            Ask::Greatest => {
                                let (exact, near) =
                                    (sample::greedy(all).unwrap(), sample::greedy(ours).unwrap());
                                assert_eq!(exact.token, near.token);
                                assert_eq!(most(all), most(ours));
                                // A row of the weights and of the activations have lengths of about sqrt(columns / 2).
                                let far =
                                    all.iter().zip(ours).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                                assert!(far < 0.5 * (columns as f32 / 2.0).sqrt(), "{dtype:?}: {far}");
                            }
                        }
                        // The row alone, and on every kernel: the same bits.
                        let alone = prepared(&compute, &x[row * columns..(row + 1) * columns], columns);
                        let alone = asked(&mut head, &compute, &alone, std::slice::from_ref(ask));
                        if !matches!(ask, Ask::Among(_)) {
                            assert!(alone == ours, "{dtype:?}, row {row} of {count}, {ask:?}");
                        }
                    }
                    if !asks.iter().any(|ask| matches!(ask, Ask::Among(_))) {
                        assert!(*first.get_or_insert_with(|| ours.clone()) == ours);
                    }
                }
            }
        }
    }
}

#[test]
fn little_is_computed_twice() {
    // One row of the weights stands out: its group is all that is exact.
    let (vocabulary, columns) = (4096, 256);
    let mut random = fastrand::Rng::with_seed(3);
    let mut values = random_values(&mut random, vocabulary * columns);
    let x = random_values(&mut random, columns);
    values[1234 * columns..1235 * columns].copy_from_slice(&x);
    let data = stored(GgmlDType::Q8_0, &values, &[vocabulary, columns]);
    let view = TensorView { dtype: GgmlDType::Q8_0, shape: vec![vocabulary, columns], data: (&data).into() };
    let compute = Compute::new(Kernel::best(), Pool::new(2));
    let mut head = Head::new(linear(Packed::in_planes(&view, &compute.pool).unwrap()));
    asked(&mut head, &compute, &prepared(&compute, &x, columns), &[Ask::Greatest]);
    assert_eq!(head.wanted, [(1234 / GROUP, 0)]);
    assert!(head.streamed_bytes() * 100 < head.weight().bytes() * 55);
}

#[test]
fn what_is_no_number_stays_none() {
    let (vocabulary, columns) = (64, 64);
    let data = stored(GgmlDType::Q8_0, &vec![1.0; vocabulary * columns], &[vocabulary, columns]);
    let view = TensorView { dtype: GgmlDType::Q8_0, shape: vec![vocabulary, columns], data: (&data).into() };
    for compute in computes() {
        let mut head = Head::new(linear(Packed::in_planes(&view, &compute.pool).unwrap()));
        let x = prepared(&compute, &vec![f32::NAN; columns], columns);
        assert_eq!(sample::greedy(&asked(&mut head, &compute, &x, &[Ask::Greatest])), None);
        let zero = prepared(&compute, &vec![0.0; columns], columns);
        assert_eq!(sample::greedy(&asked(&mut head, &compute, &zero, &[Ask::Greatest])).unwrap().token, 0);
    }
}

/// Over so many positions of real text the choice is the full product's, and so is its probability, nearly. More of
/// them by `TAPER_TEST_POSITIONS`.
#[test]
fn the_real_model_chooses_as_the_full_head_does() {
    let Some(path) = real_model::path() else { return };
    let asked = std::env::var("TAPER_TEST_POSITIONS").ok().and_then(|positions| positions.parse().ok());
    let positions: usize = asked.unwrap_or(300);
    let gguf = Gguf::open(&path).unwrap();
    let config = Config::from_gguf(&gguf).unwrap();
    let tokens = Tokens::from_gguf(&gguf).unwrap();
    let texts = [
        real_model::CODE,
        include_str!("../../gguf.rs"),
        include_str!("../../../suggest.rs"),
        include_str!("../../../../README.md"),
        include_str!("../../models.rs"),
        include_str!("../../../../benches/peers/peers.py"),
        include_str!("../../tokens.rs"),
        include_str!("../../fetch.rs"),
    ];
    let mut decoder = CpuDecoder::new(&gguf, &config, 1024, Kernel::best(), Pool::default_threads()).unwrap();
    let (mut seen, mut worst, mut wrong, mut near) = (0, 0.0_f32, 0, 0);
    // Short texts first, then pieces of the long ones.
    'all: for text in texts {
        let tokens: Vec<TokenId> = tokens.encode(text);
        for piece in tokens.chunks(960) {
            decoder.truncate(0);
            for chunk in piece.chunks(64) {
                let at = decoder.len();
                let exact = decoder.forward(chunk, chunk.len()).unwrap().to_vec();
                decoder.truncate(at);
                decoder.ask(vec![Ask::Greatest; chunk.len()]);
                let screened = decoder.forward(chunk, chunk.len()).unwrap();
                let rows = exact.chunks(config.vocabulary).zip(screened.chunks(config.vocabulary));
                for (exact, screened) in rows {
                    let (theirs, ours) = (sample::greedy(exact).unwrap(), sample::greedy(screened).unwrap());
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
