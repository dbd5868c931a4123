//! Confidence intervals of measured shares and means.

/// A value with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The normal distribution's 97.5 % point.
const Z: f64 = 1.959_964;
/// Resamples of a bootstrap: the interval's ends then vary by about a tenth of its width.
const RESAMPLES: usize = 1000;

/// The share of `hits` in `of`, with Wilson's score interval (E. B. Wilson, JASA 22 (1927), 209-212); `None` if `of` is
/// 0.
pub(super) fn share(hits: usize, of: usize) -> Option<Estimate> {
    let n = of as f64;
    let value = hits as f64 / n;
    if of == 0 {
        return None;
    }
    let z2 = Z * Z / n;
    let centre = (value + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (value * (1.0 - value) / n + z2 / (4.0 * n)).sqrt();
    Some(Estimate { value, low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
}

/// The mean, with the percentile bootstrap's interval (B. Efron, Ann. Statist. 7 (1979), 1-26), always from the same
/// resamples; `None` without values.
pub(super) fn mean(values: &[f64]) -> Option<Estimate> {
    resampled(values.len(), |picked| picked.map(|at| values[at]).sum::<f64>() / values.len() as f64)
}

/// The ratio of two paired scores' sums, with the bootstrap's interval over the pairs; `None` if the second is 0.
pub(super) fn ratio(pairs: &[(f64, f64)]) -> Option<Estimate> {
    let second: f64 = pairs.iter().map(|pair| pair.1).sum();
    if second == 0.0 {
        return None;
    }
    resampled(pairs.len(), |picked| {
        let (a, b) = picked.fold((0.0, 0.0), |(a, b), at| (a + pairs[at].0, b + pairs[at].1));
        // A resample in which the second sum is 0: the largest ratio.
        a / if b == 0.0 { second / pairs.len() as f64 } else { b }
    })
}

fn resampled(len: usize, statistic: impl Fn(&mut dyn Iterator<Item = usize>) -> f64) -> Option<Estimate> {
    if len == 0 {
        return None;
    }
    let value = statistic(&mut (0..len));
    let mut random = fastrand::Rng::with_seed(1);
    let mut values: Vec<f64> =
        (0..RESAMPLES).map(|_| statistic(&mut (0..len).map(|_| random.usize(..len)))).collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some(Estimate { value, low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval_matches_known_values() {
        // 8 of 10 and 0 of 10: the usual textbook values.
        let it = share(8, 10).unwrap();
        assert!((it.low - 0.4902).abs() < 1e-4 && (it.high - 0.9433).abs() < 1e-4, "{it:?}");
        let it = share(0, 10).unwrap();
        assert!(it.low == 0.0 && (it.high - 0.2775).abs() < 1e-4, "{it:?}");
        assert_eq!(share(0, 0), None);
    }

    #[test]
    fn bootstrap_is_near_normal_interval_and_deterministic() {
        let values: Vec<f64> = (0..400).map(|n| f64::from(n % 20)).collect();
        let it = mean(&values).unwrap();
        // The standard deviation of 0..20 is 5.766; 1.96 of it over the root of 400 is 0.565.
        assert!((it.value - 9.5).abs() < 1e-9);
        assert!((it.low - 8.935).abs() < 0.1 && (it.high - 10.065).abs() < 0.1, "{it:?}");
        assert_eq!(mean(&values), Some(it));
        let it = mean(&[3.0]).unwrap();
        assert_eq!((it.low, it.value, it.high), (3.0, 3.0, 3.0));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn ratio_of_pairs_has_interval() {
        let it = ratio(&[(2.0, 1.0); 9]).unwrap();
        assert_eq!((it.low, it.value, it.high), (2.0, 2.0, 2.0));
        assert_eq!(ratio(&[(1.0, 0.0)]), None);
    }
}
