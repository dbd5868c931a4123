//! The choice of the next token: the likeliest one among those that are allowed, and its probability.
//! It knows nothing of why some tokens are not allowed, or of what a token spells.

use crate::TokenId;
use crate::local::kernels::softmax;

/// The chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// Its id.
    pub(super) token: TokenId,
    /// Its probability among the allowed tokens, 0 to 1: softmax of the logits at temperature 1.
    pub(super) probability: f32,
}

/// The likeliest token of all. `logits` is `[vocabulary]`.
///
/// None if no logit is a number (weights that are broken in a way that only shows in the result). Of equal
/// logits the lowest id wins, so the choice does not depend on the order of evaluation.
pub(super) fn greedy(logits: &[f32]) -> Option<Choice> {
    let (most, sum) = softmax(logits);
    let token = logits.iter().position(|&logit| logit == most)?;
    most.is_finite().then(|| Choice { token: token as TokenId, probability: 1.0 / sum.max(1.0) })
}

/// The likeliest of the `allowed` tokens. `logits` is `[vocabulary]`; ids outside of it are passed over.
pub(super) fn greedy_among(logits: &[f32], allowed: &[TokenId]) -> Option<Choice> {
    let logit = |token: TokenId| logits.get(token as usize).copied().unwrap_or(f32::NAN);
    let values: Vec<f32> = allowed.iter().map(|&token| logit(token)).collect();
    let (most, sum) = softmax(&values);
    let token = allowed.iter().copied().filter(|&token| logit(token) == most).min()?;
    most.is_finite().then(|| Choice { token, probability: 1.0 / sum.max(1.0) })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_greatest_logit_wins_with_its_softmax() {
        let choice = greedy(&[0.0, 2.0_f32.ln(), 0.0]).unwrap();
        assert_eq!(choice.token, 1);
        assert!((choice.probability - 0.5).abs() < 1e-6, "{choice:?}");
    }

    #[test]
    fn probability_counts_allowed_tokens_only() {
        let logits = [9.0, 1.0, 1.0, 0.0];
        let choice = greedy_among(&logits, &[2, 1]).unwrap();
        assert_eq!(choice.token, 1, "of equals the lowest id, whatever the order");
        assert!((choice.probability - 0.5).abs() < 1e-6, "{choice:?}");
        assert_eq!(greedy_among(&logits, &[3]).unwrap(), Choice { token: 3, probability: 1.0 });
    }

    #[test]
    fn what_is_no_number_or_no_token_is_never_chosen() {
        assert_eq!(
            greedy(&[f32::NAN, -1.0, f32::NEG_INFINITY]).unwrap(),
            Choice { token: 1, probability: 1.0 }
        );
        assert_eq!(greedy(&[f32::NAN, f32::NAN]), None);
        assert_eq!(greedy(&[f32::NEG_INFINITY]), None);
        assert_eq!(greedy(&[f32::INFINITY, 0.0]), None);
        assert_eq!(greedy(&[]), None);
        assert_eq!(greedy_among(&[1.0], &[7]), None);
        assert_eq!(greedy_among(&[1.0], &[]), None);
    }
}
