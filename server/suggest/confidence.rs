//! How sure the model was of what is shown, from the probabilities of its tokens.
//! It knows nothing of thresholds: what to do with a doubtful suggestion is decided elsewhere.

use taper_engine::Piece;

use super::Work;

/// Probabilities of the tokens that a text was made of, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// Their arithmetic mean.
    pub mean: f32,
    /// The lowest.
    pub min: f32,
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
fn of_pieces(pieces: &[Piece], extent: usize) -> Option<Confidence> {
    let mut before = 0;
    let (mut sum, mut count, mut min) = (0.0, 0, f32::INFINITY);
    for piece in pieces {
        if before >= extent {
            break;
        }
        if piece.end > 0 {
            sum += piece.probability;
            count += 1;
            min = min.min(piece.probability);
        }
        before = piece.end;
    }
    (count > 0).then(|| Confidence { mean: sum / count as f32, min })
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
        assert_eq!(of(&work, ""), None);
        assert_eq!(of(&Work::default(), "oo"), None);
    }

    #[test]
    fn blanks_that_were_cut_do_not_shift_it() {
        assert_eq!(extent("    a b\n        c\nd", "a b\n    c"), 17);
        assert_eq!(extent("ä\r\nb", "ä\nb"), 5);
    }
}
