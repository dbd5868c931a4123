//! How sure the model was of what is shown, from the probabilities of its tokens.
//! It knows nothing of thresholds: what to do with a doubtful suggestion is decided elsewhere.

use std::ops::Range;

use taper_engine::{Piece, Said};

use super::Work;

/// Probabilities of the tokens that a text was made of, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// Their arithmetic mean.
    pub mean: f32,
    /// The lowest.
    pub min: f32,
    /// Their product: by the model's own account, the probability that all of them are right.
    pub all: f32,
}

/// The confidence in `shown`, which was cut from the raw answer of `work`; `None` if the engine told no
/// probabilities, or nothing is shown.
///
/// What trimming takes away in front and inside is blanks only; so the tokens are found by counting the others.
pub fn of(work: &Work, shown: &str) -> Option<Confidence> {
    of_pieces(&work.pieces, extent(&work.raw, shown))
}

/// Bytes of `raw` that the visible characters of `shown` take up.
pub fn extent(raw: &str, shown: &str) -> usize {
    let visible = shown.chars().filter(|c| !c.is_whitespace()).count();
    let Some(last) = visible.checked_sub(1) else { return 0 };
    let mut places = raw.char_indices().filter(|(_, c)| !c.is_whitespace());
    places.nth(last).map_or(raw.len(), |(at, c)| at + c.len_utf8())
}

/// The confidence in the first `extent` bytes. A token that reaches beyond them counts; one that only spells what
/// was forced does not.
pub fn of_pieces(pieces: &[Piece], extent: usize) -> Option<Confidence> {
    of_range(pieces, 0..extent)
}

/// The confidence in a range of bytes, by the tokens that have any of them.
pub fn of_range(pieces: &[Piece], range: Range<usize>) -> Option<Confidence> {
    let (mut sum, mut count, mut min, mut all) = (0.0, 0, f32::INFINITY, 1.0);
    for piece in inside(pieces, range) {
        sum += piece.probability;
        count += 1;
        min = min.min(piece.probability);
        all *= piece.probability;
    }
    (count > 0).then(|| Confidence { mean: sum / count as f32, min, all })
}

/// The tokens that have any of the bytes in `range`.
pub fn inside(pieces: &[Piece], range: Range<usize>) -> impl Iterator<Item = &Piece> {
    let starts = [0].into_iter().chain(pieces.iter().map(|piece| piece.end));
    let begun = pieces.iter().zip(starts).take_while(move |(_, start)| *start < range.end);
    begun.map(|(piece, _)| piece).filter(move |piece| piece.end > range.start)
}

/// How many of the characters in the first `extent` bytes are right, by the model's own account: each counts with the
/// probability that all tokens up to it are.
pub fn right_characters(said: Said<'_>, extent: usize) -> f32 {
    let right = |(bytes, all): (Range<usize>, f32)| all * characters(said.text, bytes) as f32;
    up_to(said.pieces, extent).map(right).sum()
}

/// Each token that begins in the first `extent` bytes: its bytes, and the probability that all tokens up to it are right.
/// Those that only spell what was forced have no bytes and do not count.
pub fn up_to(pieces: &[Piece], extent: usize) -> impl Iterator<Item = (Range<usize>, f32)> {
    let (mut before, mut all) = (0, 1.0);
    pieces.iter().map_while(move |piece| {
        let bytes = before..piece.end;
        all *= if piece.end > 0 { piece.probability } else { 1.0 };
        before = piece.end;
        (bytes.start < extent).then_some((bytes, all))
    })
}

/// How many there are in these bytes.
pub fn characters(text: &str, bytes: Range<usize>) -> usize {
    text.get(bytes).map_or(0, |it| it.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_shown_counts() {
        // `f` is forced, `oo` is new, then `(x)`, then a line break and `bad`.
        let ends = [(0, 0.1), (2, 0.9), (5, 0.5), (6, 0.2), (9, 0.01)];
        let pieces = ends.map(|(end, probability)| Piece { end, probability }).to_vec();
        let work = Work { raw: "oo(x)\nbad".into(), pieces, ..Work::default() };
        let Some(it) = of(&work, "oo(x)") else { panic!("there are probabilities") };
        assert!((it.mean - 0.7).abs() < 1e-6 && (it.min - 0.5).abs() < 1e-6, "{it:?}");
        let Some(it) = of(&work, "oo") else { panic!("there are probabilities") };
        assert!((it.mean - 0.9).abs() < 1e-6, "{it:?}");
        let Some(it) = of_range(&work.pieces, 2..6) else { panic!("there are probabilities") };
        assert!((it.mean - 0.35).abs() < 1e-6 && (it.all - 0.1).abs() < 1e-6, "{it:?}");
        assert_eq!(of(&work, ""), None);
        assert_eq!(of(&Work::default(), "oo"), None);
    }

    #[test]
    fn characters_count_as_long_as_all_may_be_right() {
        let pieces = [(0, 0.1), (2, 0.5), (6, 0.5)].map(|(end, probability)| Piece { end, probability });
        let said = Said { text: "oo(xä", pieces: &pieces };
        assert_eq!(right_characters(said, 6), 1.0 + 0.75);
        assert_eq!(right_characters(said, 2), 1.0);
    }

    #[test]
    fn blanks_that_were_cut_do_not_shift_it() {
        assert_eq!(extent("    a b\n        c\nd", "a b\n    c"), 17);
        assert_eq!(extent("ä\r\nb", "ä\nb"), 5);
    }
}
