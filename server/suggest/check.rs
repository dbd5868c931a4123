//! The last look before a suggestion is shown: the file must not parse worse with it than without.
//! It knows nothing of models: it repairs, cuts or drops text.

use super::place::Place;
use super::{Snapshot, Suggestion};
use crate::text::{Edit, edit};

/// The longest document that is parsed again for each suggestion, in bytes. Beyond it a parse could cost
/// more than the answer.
const LARGEST_CHECKED: usize = 2_000_000;

/// The suggestion at the cursor that inserts `text`, or as much of it as leaves the tree no worse; `None` if
/// nothing does. Line breaks become those of the file.
pub(super) fn fitting(snapshot: &Snapshot, place: &Place<'_>, text: &str) -> Option<Suggestion> {
    let mut candidate = text;
    loop {
        let shown = with_line_breaks(snapshot, candidate);
        if parses_no_worse(snapshot, place, &shown) {
            return Some(Suggestion { range: snapshot.cursor..snapshot.cursor, text: shown });
        }
        // Fewer lines may stand alone where all of them do not.
        let shorter = candidate.trim_end().rsplit_once('\n')?.0.trim_end();
        if shorter.trim().is_empty() {
            return None;
        }
        candidate = shorter;
    }
}

fn with_line_breaks(snapshot: &Snapshot, text: &str) -> String {
    match edit::line_break(&snapshot.text) {
        "\n" => text.to_owned(),
        other => text.replace('\n', other),
    }
}
