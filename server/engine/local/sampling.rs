//! The choice of the next token: the most probable of the allowed tokens, and its probability.

use crate::TokenId;
use crate::local::kernels::best_softmax;

/// The chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TokenChoice {
    /// Its ID.
    pub(super) token: TokenId,
    /// Its probability among the allowed tokens, 0 to 1: softmax of the logits at temperature 1.
    pub(super) probability: f32,
    /// The next most probable tokens, if they come close.
    pub(super) runner_ups: RunnerUps,
}

/// The second and the third token with their probabilities, if these are at least [`MIN_RUNNER_UP`].
pub(super) type RunnerUps = [Option<(TokenId, f32)>; 2];

/// Minimum probability of a runner-up.
pub(super) const MIN_RUNNER_UP: f32 = 0.05;

/// The most probable token of all. `logits` is `[vocabulary]`.
///
/// `None` if all logits are NaN (weights that are broken in a way that only shows in the result). The lowest ID wins a
/// tie, so the choice does not depend on the order of evaluation.
pub(super) fn greedy_choice(logits: &[f32]) -> Option<TokenChoice> {
    let (most, sum) = best_softmax(logits);
    let token = logits.iter().position(|&logit| logit == most)?;
    let choice =
        |token| TokenChoice::with_runner_ups(token, most, sum, || (0_u32..).zip(logits.iter().copied()));
    most.is_finite().then(|| choice(token as TokenId))
}

/// The most probable of the `allowed` tokens. `logits` is `[vocabulary]`; IDs outside of it are ignored.
pub(super) fn greedy_among(logits: &[f32], allowed: &[TokenId]) -> Option<TokenChoice> {
    let logit = |token: TokenId| logits.get(token as usize).copied().unwrap_or(f32::NAN);
    let values: Vec<f32> = allowed.iter().map(|&token| logit(token)).collect();
    let (most, sum) = best_softmax(&values);
    let token = allowed.iter().copied().filter(|&token| logit(token) == most).min()?;
    let choice = || {
        TokenChoice::with_runner_ups(token, most, sum, || allowed.iter().copied().zip(values.iter().copied()))
    };
    most.is_finite().then(choice)
}

impl TokenChoice {
    /// The choice of `token`, whose logit is `most`, among `logits`; `sum` is the sum of the exponentials of their
    /// differences to `most`.
    fn with_runner_ups<I: Iterator<Item = (TokenId, f32)>>(
        token: TokenId,
        most: f32,
        sum: f32,
        logits: impl Fn() -> I,
    ) -> Self {
        let probability = 1.0 / sum.max(1.0);
        let mut rivals = RunnerUps::default();
        // Most tokens are certain, and need no second pass over a hundred thousand logits.
        if probability <= 1.0 - MIN_RUNNER_UP {
            let least = most + (MIN_RUNNER_UP / probability).ln();
            for (other, logit) in logits().filter(|&(other, logit)| logit >= least && other != token) {
                let new = (other, (logit - most).exp() * probability);
                let [second, third] = &mut rivals;
                // The lower ID wins a tie.
                let before = |old: &Option<(TokenId, f32)>| {
                    old.is_none_or(|old| new.1 > old.1 || new.1 == old.1 && new.0 < old.0)
                };
                if before(second) {
                    (*third, *second) = (*second, Some(new));
                } else if before(third) {
                    *third = Some(new);
                }
            }
        }
        Self { token, probability, runner_ups: rivals }
    }
}

/// The probabilities of all or some tokens: the softmax of the logits at temperature 1.
#[derive(Debug, Clone)]
pub struct TokenDistribution<'a> {
    logits: &'a [f32],
    /// Tokens that have a probability, sorted; `None`: all.
    allowed: Option<Vec<TokenId>>,
    greatest: TokenChoice,
}

impl<'a> TokenDistribution<'a> {
    /// Over the whole vocabulary. `logits` is `[vocabulary]`; `None` if all are NaN.
    pub fn from_logits(logits: &'a [f32]) -> Option<Self> {
        Some(Self { logits, allowed: None, greatest: greedy_choice(logits)? })
    }

    /// Over these tokens only; `None` if none of them has a logit.
    pub fn restricted_to(&self, allowed: impl IntoIterator<Item = TokenId>) -> Option<Self> {
        let mut allowed: Vec<TokenId> = allowed.into_iter().collect();
        allowed.sort_unstable();
        let greatest = greedy_among(self.logits, &allowed)?;
        Some(Self { logits: self.logits, allowed: Some(allowed), greatest })
    }

    /// The most probable token; the lowest ID wins a tie.
    pub fn most_likely(&self) -> TokenId {
        self.greatest.token
    }

    /// The probability of a token, 0 to 1.
    pub fn probability(&self, token: TokenId) -> f32 {
        let TokenChoice { token: greatest, probability, .. } = self.greatest;
        let logit = |token: TokenId| self.logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let may_be = self.allowed.as_ref().is_none_or(|allowed| allowed.binary_search(&token).is_ok());
        // NaN has probability 0; `max` ignores it.
        if may_be { ((logit(token) - logit(greatest)).exp() * probability).max(0.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn distribution_sums_to_one_over_allowed_tokens() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let mut logits: Vec<f32> = (0..50).map(|_| 20.0 * random.f32() - 10.0).collect();
            (logits[7], logits[9]) = (f32::NAN, f32::NEG_INFINITY);
            let all = TokenDistribution::from_logits(&logits).unwrap();
            // Unordered, and with IDs that do not exist.
            let allowed: Vec<TokenId> = (0..60).rev().filter(|_| random.bool()).collect();
            let Some(some) = all.restricted_to(allowed.iter().copied()) else { continue };
            let sum = |it: &TokenDistribution<'_>| (0..70).map(|token| it.probability(token)).sum::<f32>();
            assert!((sum(&all) - 1.0).abs() < 1e-4 && (sum(&some) - 1.0).abs() < 1e-4);
            for token in 0..70 {
                let expected = if allowed.contains(&token) { all.probability(token) } else { 0.0 };
                let of_allowed: f32 = allowed.iter().map(|&it| all.probability(it)).sum();
                assert!((some.probability(token) * of_allowed - expected).abs() < 1e-4, "{token}");
                assert!(some.probability(token) <= some.probability(some.most_likely()));
            }
        }
        assert!(TokenDistribution::from_logits(&[f32::NAN]).is_none());
        assert!(TokenDistribution::from_logits(&[0.0]).unwrap().restricted_to([7]).is_none());
    }

    #[test]
    fn greedy_choice_has_its_softmax_probability() {
        let choice = greedy_choice(&[0.0, 2.0_f32.ln(), 0.0]).unwrap();
        assert_eq!(choice.token, 1);
        assert!((choice.probability - 0.5).abs() < 1e-6, "{choice:?}");
    }

    #[test]
    fn probability_is_normalized_over_allowed_tokens() {
        let logits = [9.0, 1.0, 1.0, 0.0];
        let choice = greedy_among(&logits, &[2, 1]).unwrap();
        assert_eq!(choice.token, 1, "of equals the lowest id, whatever the order");
        assert!((choice.probability - 0.5).abs() < 1e-6, "{choice:?}");
        assert_eq!(
            greedy_among(&logits, &[3]).unwrap(),
            TokenChoice { token: 3, probability: 1.0, runner_ups: [None; 2] }
        );
    }

    #[test]
    fn runner_ups_are_next_most_likely_tokens() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut seen = [0; 3];
        for _ in 0..2000 {
            let spread = random.f32() * 80.0;
            // Rounded, so that some are equal.
            let logits: Vec<f32> = (0..20).map(|_| (random.f32() * spread * 4.0).round() / 4.0).collect();
            let allowed: Vec<TokenId> = (0..20).filter(|_| random.bool()).collect();
            for among in [None, Some(&allowed)] {
                let all: Vec<TokenId> = (0..20).collect();
                let mut order = among.unwrap_or(&all).clone();
                let Some(choice) =
                    among.map_or_else(|| greedy_choice(&logits), |it| greedy_among(&logits, it))
                else {
                    assert!(order.is_empty());
                    continue;
                };
                order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
                let sum: f32 = order.iter().map(|&it| logits[it as usize].exp()).sum();
                let probability = |token: TokenId| logits[token as usize].exp() / sum;
                assert_eq!(choice.token, order[0]);
                let close = choice.runner_ups.iter().flatten().count();
                seen[close] += 1;
                for (rank, rival) in choice.runner_ups.iter().enumerate() {
                    let expected = order.get(rank + 1).map(|&token| (token, probability(token)));
                    match (rival, expected) {
                        (Some(rival), Some(expected)) => {
                            assert_eq!(rival.0, expected.0);
                            assert!((rival.1 - expected.1).abs() < 1e-4, "{rival:?} {expected:?}");
                        }
                        (None, expected) => assert!(expected.is_none_or(|it| it.1 < MIN_RUNNER_UP + 1e-4)),
                        (Some(rival), None) => panic!("{rival:?} is no token of these"),
                    }
                }
            }
        }
        assert!(seen.iter().all(|&count| count > 100), "{seen:?}");
    }

    #[test]
    fn nan_and_unknown_tokens_are_never_chosen() {
        assert_eq!(
            greedy_choice(&[f32::NAN, -1.0, f32::NEG_INFINITY]).unwrap(),
            TokenChoice { token: 1, probability: 1.0, runner_ups: [None; 2] }
        );
        assert_eq!(greedy_choice(&[f32::NAN, f32::NAN]), None);
        assert_eq!(greedy_choice(&[f32::NEG_INFINITY]), None);
        assert_eq!(greedy_choice(&[f32::INFINITY, 0.0]), None);
        assert_eq!(greedy_choice(&[]), None);
        assert_eq!(greedy_among(&[1.0], &[7]), None);
        assert_eq!(greedy_among(&[1.0], &[]), None);
    }
}
