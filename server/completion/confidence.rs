//! The model's confidence in the shown text, from its token probabilities. The thresholds are elsewhere.

use std::ops::Range;

use taper_engine::{PartialOutput, ScoredToken};

use super::CompletionWork;

/// Probabilities of the tokens that a text consists of, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// Their arithmetic mean.
    pub mean: f32,
    /// The lowest.
    pub min: f32,
    /// Their product: the model's own probability that all of them are right.
    pub product: f32,
}

/// The confidence in `shown`, which was cut from the raw output of `work`; `None` if the engine reported no
/// probabilities, or nothing is shown.
///
/// Trimming at the front and inside removes only blanks, so the tokens are found by counting the other characters.
pub fn shown_confidence(work: &CompletionWork, shown: &str) -> Option<Confidence> {
    prefix_confidence(&work.pieces, shown_byte_len(&work.raw, shown))
}

/// Bytes of `raw` that the visible characters of `shown` take up.
pub fn shown_byte_len(raw: &str, shown: &str) -> usize {
    let visible = shown.chars().filter(|c| !c.is_whitespace()).count();
    let Some(last) = visible.checked_sub(1) else { return 0 };
    let mut places = raw.char_indices().filter(|(_, c)| !c.is_whitespace());
    places.nth(last).map_or(raw.len(), |(at, c)| at + c.len_utf8())
}

/// The confidence in the first `extent` bytes. A token that extends past them counts; one that only spells the forced
/// text does not.
pub fn prefix_confidence(pieces: &[ScoredToken], extent: usize) -> Option<Confidence> {
    range_confidence(pieces, 0..extent)
}

/// The confidence in a range of bytes, from the tokens that overlap it.
pub fn range_confidence(pieces: &[ScoredToken], range: Range<usize>) -> Option<Confidence> {
    let (mut sum, mut count, mut min, mut all) = (0.0, 0, f32::INFINITY, 1.0);
    for piece in tokens_in_range(pieces, range) {
        sum += piece.probability;
        count += 1;
        min = min.min(piece.probability);
        all *= piece.probability;
    }
    (count > 0).then(|| Confidence { mean: sum / count as f32, min, product: all })
}

/// The tokens that overlap `range`.
pub fn tokens_in_range(pieces: &[ScoredToken], range: Range<usize>) -> impl Iterator<Item = &ScoredToken> {
    let starts = [0].into_iter().chain(pieces.iter().map(|piece| piece.end));
    let begun = pieces.iter().zip(starts).take_while(move |(_, start)| *start < range.end);
    begun.map(|(piece, _)| piece).filter(move |piece| piece.end > range.start)
}

/// The expected number of correct characters in the first `extent` bytes: each counts with the probability that all
/// tokens up to it are right.
pub fn expected_correct_chars(output: PartialOutput<'_>, extent: usize) -> f32 {
    let right = |(bytes, all): (Range<usize>, f32)| all * char_count(output.text, bytes) as f32;
    cumulative_probabilities(output.tokens, extent).map(right).sum()
}

/// Each token that begins in the first `extent` bytes: its bytes, and the probability that all tokens up to it are
/// right. Tokens that only spell the forced text have no bytes and do not count.
pub fn cumulative_probabilities(
    pieces: &[ScoredToken],
    extent: usize,
) -> impl Iterator<Item = (Range<usize>, f32)> {
    let (mut before, mut all) = (0, 1.0);
    pieces.iter().map_while(move |piece| {
        let bytes = before..piece.end;
        all *= if piece.end > 0 { piece.probability } else { 1.0 };
        before = piece.end;
        (bytes.start < extent).then_some((bytes, all))
    })
}

/// The number of characters in these bytes.
pub fn char_count(text: &str, bytes: Range<usize>) -> usize {
    text.get(bytes).map_or(0, |it| it.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_counts_only_shown_tokens() {
        // `f` is forced, `oo` is new, then `(x)`, then a line break and `bad`.
        let ends = [(0, 0.1), (2, 0.9), (5, 0.5), (6, 0.2), (9, 0.01)];
        let pieces = ends.map(|(end, probability)| ScoredToken { end, probability }).to_vec();
        let work = CompletionWork { raw: "oo(x)\nbad".into(), pieces, ..CompletionWork::default() };
        let Some(it) = shown_confidence(&work, "oo(x)") else { panic!("there are probabilities") };
        assert!((it.mean - 0.7).abs() < 1e-6 && (it.min - 0.5).abs() < 1e-6, "{it:?}");
        let Some(it) = shown_confidence(&work, "oo") else { panic!("there are probabilities") };
        assert!((it.mean - 0.9).abs() < 1e-6, "{it:?}");
        let Some(it) = range_confidence(&work.pieces, 2..6) else { panic!("there are probabilities") };
        assert!((it.mean - 0.35).abs() < 1e-6 && (it.product - 0.1).abs() < 1e-6, "{it:?}");
        assert_eq!(shown_confidence(&work, ""), None);
        assert_eq!(shown_confidence(&CompletionWork::default(), "oo"), None);
    }

    #[test]
    fn expected_chars_use_cumulative_probability() {
        let pieces =
            [(0, 0.1), (2, 0.5), (6, 0.5)].map(|(end, probability)| ScoredToken { end, probability });
        let output = PartialOutput { text: "oo(xä", tokens: &pieces };
        assert_eq!(expected_correct_chars(output, 6), 1.0 + 0.75);
        assert_eq!(expected_correct_chars(output, 2), 1.0);
    }

    #[test]
    fn trimmed_blanks_do_not_shift_shown_bytes() {
        assert_eq!(shown_byte_len("    a b\n        c\nd", "a b\n    c"), 17);
        assert_eq!(shown_byte_len("ä\r\nb", "ä\nb"), 5);
    }
}
