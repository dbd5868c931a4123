//! Comparison of logits with reference logits, for tests.

/// The index of the greatest logit.
pub(super) fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

/// Greatest difference relative to the greatest value.
pub(super) fn relative_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().all(|x| x.is_finite()));
    let most = theirs.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(most > 0.0);
    ours.iter().zip(theirs).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / most
}
