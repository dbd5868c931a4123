//! Elementwise operations: norm, gate, rotation, and the exponential that the gate and attention need. Bodies are
//! inlined into functions with more target features.

/// Lanes of the partial sums, the same for every instruction set, so that sums are equal.
const SUM_LANES: usize = 16;

/// `e^x` within 2 units in the last place, without a branch, so that loops of it become vector code; exactly 0
/// below -87. The polynomial is that of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding this leaves the nearest integer in the lowest bits.
    const ROUNDING_OFFSET: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDING_OFFSET;
    let n = shifted - ROUNDING_OFFSET;
    // ln 2 in two parts; the first is exact in few bits.
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut y = 1.987_569_1e-4;
    y = y * r + 1.398_2e-3;
    y = y * r + 8.333_452e-3;
    y = y * r + 4.166_579_6e-2;
    y = y * r + 1.666_666_5e-1;
    y = y * r + 0.5;
    y = y * (r * r) + r + 1.0;
    let power = (shifted.to_bits().wrapping_sub(ROUNDING_OFFSET.to_bits()).wrapping_add(127)) << 23;
    let result = y * f32::from_bits(power);
    if x < -87.0 { 0.0 } else { result }
}

/// The sum of the lanes, in tree order: the same for every instruction set.
#[inline(always)]
pub(super) fn sum_lanes(x: &[f32; SUM_LANES]) -> f32 {
    let mut eight = [0.0; 8];
    for i in 0..8 {
        eight[i] = x[i] + x[i + 8];
    }
    let mut four = [0.0; 4];
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The largest lane that is not NaN.
#[inline(always)]
pub(super) fn largest_lane(x: &[f32; SUM_LANES]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut eight = [0.0; 8];
    for i in 0..8 {
        eight[i] = larger(x[i], x[i + 8]);
    }
    let mut four = [0.0; 4];
    for i in 0..4 {
        four[i] = larger(eight[i], eight[i + 4]);
    }
    larger(larger(four[0], four[2]), larger(four[1], four[3]))
}

/// RMS norm (<https://arxiv.org/abs/1910.07467>): `x / sqrt(mean(x²) + epsilon) * weight`.
#[inline(always)]
pub(in crate::local) fn norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut squares = [0.0_f32; SUM_LANES];
    let (whole, rest) = x.as_chunks::<SUM_LANES>();
    for x in whole {
        for (square, x) in squares.iter_mut().zip(x) {
            *square += x * x;
        }
    }
    let sum = sum_lanes(&squares) + rest.iter().map(|x| x * x).sum::<f32>();
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// Layer norm (<https://arxiv.org/abs/1607.06450>): `(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`.
#[inline(always)]
pub(in crate::local) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let (whole, rest) = x.as_chunks::<SUM_LANES>();
    let mut sums = [0.0_f32; SUM_LANES];
    for x in whole {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x;
        }
    }
    let mean = (sum_lanes(&sums) + rest.iter().sum::<f32>()) / x.len() as f32;
    let mut squares = [0.0_f32; SUM_LANES];
    for x in whole {
        for (square, x) in squares.iter_mut().zip(x) {
            *square += (x - mean) * (x - mean);
        }
    }
    let sum = sum_lanes(&squares) + rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * scale * weight + bias;
    }
}

/// The tanh approximation of GELU (<https://arxiv.org/abs/1606.08415>): `x / 2 * (1 + tanh(y))` with
/// `y = sqrt(2 / pi) * (x + 0.044715 x^3)`, which is `x / (1 + e^-2y)`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const SQRT_8_OVER_PI: f32 = 1.595_769;
    x / (1.0 + exp(-SQRT_8_OVER_PI * (x + 0.044_715 * x * x * x)))
}

/// GELU of each value.
#[inline(always)]
pub(in crate::local) fn gelu(x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = gelu_tanh(*x);
    }
}

/// GeGLU (<https://arxiv.org/abs/2002.05202>): `gelu(gate) * up`.
#[inline(always)]
pub(in crate::local) fn geglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gelu_tanh(*gate) * up;
    }
}

/// `tanh(x)` within 2e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// `limit * tanh(x / limit)`: values that stay below a limit (<https://arxiv.org/abs/2408.00118>).
#[inline(always)]
pub(in crate::local) fn soft_cap(x: &mut [f32], limit: f32) {
    let inverse = 1.0 / limit;
    for x in x.iter_mut() {
        *x = limit * tanh(*x * inverse);
    }
}

/// SwiGLU (<https://arxiv.org/abs/2002.05202>): `gate / (1 + e^-gate) * up`.
#[inline(always)]
pub(in crate::local) fn gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

/// The greatest value and the sum of `e^(x - greatest)`, both ignoring NaN; minus infinity and 0 if nothing is left.
#[inline(always)]
pub(super) fn softmax(x: &[f32]) -> (f32, f32) {
    let (whole, rest) = x.as_chunks::<SUM_LANES>();
    let mut most = [f32::NEG_INFINITY; SUM_LANES];
    for x in whole {
        for (most, &x) in most.iter_mut().zip(x) {
            *most = if x > *most { x } else { *most };
        }
    }
    let most = rest.iter().fold(largest_lane(&most), |most, &x| if x > most { x } else { most });
    // NaN compares as false.
    let weight = |x: f32| {
        let weight = exp(x - most);
        if weight > 0.0 { weight } else { 0.0 }
    };
    let mut sums = [0.0_f32; SUM_LANES];
    for x in whole {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += weight(x);
        }
    }
    (most, sum_lanes(&sums) + rest.iter().map(|&x| weight(x)).sum::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_and_underflows_to_zero() {
        let mut x = -87.0_f32;
        while x < 88.0 {
            let (ours, theirs) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / theirs - 1.0).abs() < 3e-7, "e^{x}: {ours}, not {theirs}");
            x += 0.013;
        }
        assert_eq!((exp(-87.1), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
    }

    #[test]
    fn softmax_of_any_length_skips_nan() {
        let mut random = fastrand::Rng::with_seed(1);
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut x: Vec<f32> = (0..len).map(|_| 40.0 * random.f32() - 20.0).collect();
            for _ in 0..len / 10 {
                x[random.usize(..len)] = f32::NAN;
                x[random.usize(..len)] = f32::NEG_INFINITY;
            }
            let numbers: Vec<f64> = x.iter().filter(|x| !x.is_nan()).map(|x| f64::from(*x)).collect();
            let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let expected: f64 = numbers.iter().map(|x| (x - most).exp()).sum();
            let (ours, sum) = softmax(&x);
            assert_eq!(f64::from(ours), most);
            assert!((f64::from(sum) - expected).abs() <= 1e-5 * expected, "{len}: {sum}, not {expected}");
        }
    }

    #[test]
    fn rms_norm_handles_odd_length() {
        let x: Vec<f32> = (0..35).map(|i| i as f32 - 7.0).collect();
        let weight: Vec<f32> = (0..35).map(|i| 1.0 + i as f32 / 10.0).collect();
        let mut out = vec![0.0; 35];
        norm(&x, &weight, 1e-6, &mut out);
        let mean = x.iter().map(|x| f64::from(x * x)).sum::<f64>() / 35.0 + 1e-6;
        for i in 0..35 {
            let expected = f64::from(x[i]) / mean.sqrt() * f64::from(weight[i]);
            assert!((f64::from(out[i]) - expected).abs() < 1e-5);
        }
    }
}
