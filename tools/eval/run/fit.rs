//! The logistic fit that makes a model's row of server/prompt/calibration.rs from answered tasks.

use taper::completion::confidence::Confidence;
use taper::prompt::calibration::Calibration;

/// Steps of gradient descent: many more change the third digit.
const STEPS: usize = 20_000;
const RATE: f64 = 0.3;
/// L2 regularization of the weights, over standardized features.
const RIDGE: f64 = 0.01;

/// The row that fits `lines` best, each a confidence and whether the line was exactly right. Weights are never
/// negative, so that a higher probability never lowers the confidence. `None` if all or no lines are right.
pub(super) fn calibration(lines: &[(Confidence, bool)]) -> Option<Calibration> {
    let right = lines.iter().filter(|it| it.1).count();
    if right == 0 || right == lines.len() {
        return None;
    }
    let features: Vec<[f64; 3]> =
        lines.iter().map(|(it, _)| [it.mean, it.min, it.product].map(f64::from)).collect();
    let n = lines.len() as f64;
    let mean = [0, 1, 2].map(|of| features.iter().map(|it| it[of]).sum::<f64>() / n);
    let spread = [0, 1, 2].map(|of| {
        let square: f64 = features.iter().map(|it| (it[of] - mean[of]).powi(2)).sum();
        (square / n).sqrt().max(1e-6)
    });
    let standard: Vec<[f64; 3]> =
        features.iter().map(|it| [0, 1, 2].map(|of| (it[of] - mean[of]) / spread[of])).collect();
    let (mut bias, mut weights) = (0.0, [0.0; 3]);
    for _ in 0..STEPS {
        let (mut of_bias, mut of_weights) = (0.0, [0.0; 3]);
        for (it, (_, right)) in standard.iter().zip(lines) {
            let sum: f64 = bias + it.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>();
            let error = 1.0 / (1.0 + (-sum).exp()) - f64::from(u8::from(*right));
            of_bias += error;
            of_weights.iter_mut().zip(it).for_each(|(total, value)| *total += error * value);
        }
        bias -= RATE * of_bias / n;
        for (weight, slope) in weights.iter_mut().zip(of_weights) {
            *weight = (*weight - RATE * (slope / n + RIDGE * *weight)).max(0.0);
        }
    }
    let weights = [0, 1, 2].map(|of| weights[of] / spread[of]);
    let bias = bias - weights.iter().zip(mean).map(|(weight, mean)| weight * mean).sum::<f64>();
    let [mean, min, all] = weights.map(|it| it as f32);
    Some(Calibration { bias: bias as f32, mean, min, all })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(mean: f32, min: f32, right: bool) -> (Confidence, bool) {
        (Confidence { mean, min, product: min }, right)
    }

    #[test]
    fn fit_reproduces_shares_of_right_lines() {
        // Three in four sure lines are right, one in four unsure ones; the mean has no information.
        let mut lines = Vec::new();
        for at in 0..400 {
            lines.push(line(if at % 3 == 0 { 0.6 } else { 0.8 }, 0.9, at % 4 != 0));
            lines.push(line(if at % 3 == 0 { 0.6 } else { 0.8 }, 0.1, at % 4 == 0));
        }
        let Some(it) = calibration(&lines) else { panic!("some are right") };
        let sure = it.probability(0.8, 0.9, 0.9);
        let unsure = it.probability(0.8, 0.1, 0.1);
        // Regularization has a small effect.
        assert!((0.71..0.77).contains(&sure) && (0.23..0.29).contains(&unsure), "{sure} {unsure} {it:?}");
        assert!(it.mean < 0.3 && it.mean >= 0.0, "{it:?}");
    }

    #[test]
    fn lines_of_one_outcome_give_no_fit() {
        assert_eq!(calibration(&[]), None);
        assert_eq!(calibration(&[line(0.9, 0.9, true), line(0.1, 0.1, true)]), None);
    }
}
