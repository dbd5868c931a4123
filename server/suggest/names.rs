//! Names that a text says wrong by one letter: a sign of a suggestion that is worse than another.
//! It knows nothing of what a name means, nor of which files are open.

use std::collections::HashSet;
use std::sync::OnceLock;

use super::Snapshot;
use crate::text::Rope;
use crate::text::lines::{self, is_word};

/// How far from the cursor names are looked for, in bytes, in each direction.
const REACH: usize = 32 << 10;
/// Shorter names are one edit away from too many others.
const SHORTEST: usize = 4;

/// Bytes of another file that are read for names, from its beginning.
const READ: usize = 256 << 10;
/// Bytes of the names of another file that are kept.
const KEPT: usize = 64 << 10;

/// Another file that is open, for its names: read when somebody wants to know them, and once.
#[derive(Debug)]
pub struct OpenFile {
    text: Rope,
    names: OnceLock<HashSet<Box<str>>>,
}

impl OpenFile {
    /// The file with this text. Costs nothing yet.
    pub fn new(text: Rope) -> Self {
        Self { text, names: OnceLock::new() }
    }

    fn names(&self) -> &HashSet<Box<str>> {
        self.names.get_or_init(|| {
            let text =
                self.text.byte_slice(..lines::floor(&self.text, READ.min(self.text.len_bytes()))).to_string();
            let mut found = HashSet::new();
            let mut bytes = 0;
            for name in names(&text).filter(|name| name.len() >= SHORTEST) {
                if bytes + name.len() > KEPT {
                    break;
                }
                if !found.contains(name) {
                    bytes += name.len();
                    found.insert(Box::from(name));
                }
            }
            found
        })
    }
}

/// Whether `text` at the cursor says a name that neither the document nor another open file has, one edit
/// away from one that one of them has.
///
/// Names that differ in a digit, in case, or by a plural's `s` are meant to be others.
pub(super) fn are_doubtful(snapshot: &Snapshot, text: &str) -> bool {
    let (before, after) = around(&snapshot.text, snapshot.cursor);
    // The word that is being typed is no name of the document's, nor is the rest of one behind the cursor.
    let word = &before[before.trim_end_matches(is_word).len()..];
    let before = &before[..before.len() - word.len()];
    let known: HashSet<&str> = names(before).chain(names(after.trim_start_matches(is_word))).collect();
    let said = format!("{word}{text}");
    names(&said)
        .filter(|name| name.chars().count() >= SHORTEST && !known.contains(name))
        .filter(|name| !snapshot.open.iter().any(|file| file.names().contains(*name)))
        .any(|name| {
            known.iter().any(|known| is_slip(name, known))
                || snapshot.open.iter().flat_map(|file| file.names()).any(|known| is_slip(name, known))
        })
}

/// The text before and behind the cursor, as far as it counts.
fn around(text: &Rope, cursor: usize) -> (String, String) {
    let from = lines::floor(text, cursor.saturating_sub(REACH));
    let to = lines::floor(text, (cursor + REACH).min(text.len_bytes()));
    (text.byte_slice(from..cursor).to_string(), text.byte_slice(cursor..to).to_string())
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|name| name.starts_with(|c: char| !c.is_ascii_digit()))
}

/// Whether one letter was forgotten, added, exchanged, or changed places with the next between the two.
fn is_slip(said: &str, known: &str) -> bool {
    // Most are told apart by their lengths.
    if said.len().abs_diff(known.len()) > 4 {
        return false;
    }
    let (said, known): (Vec<char>, Vec<char>) = (said.chars().collect(), known.chars().collect());
    if known.len() < SHORTEST || said.len().abs_diff(known.len()) > 1 {
        return false;
    }
    let start = said.iter().zip(&known).take_while(|(a, b)| a == b).count();
    let (said, known) = (&said[start..], &known[start..]);
    let end = said.iter().rev().zip(known.iter().rev()).take_while(|(a, b)| a == b).count();
    match (&said[..said.len() - end], &known[..known.len() - end]) {
        ([one], []) | ([], [one]) => !(one.is_ascii_digit() || *one == 's' && end == 0),
        ([a], [b]) => !a.is_ascii_digit() && !b.is_ascii_digit() && !a.to_lowercase().eq(b.to_lowercase()),
        ([a, b], [c, d]) => (a, b) == (d, c),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn doubtful(marked: &str, text: &str) -> bool {
        are_doubtful(&crate::suggest::fixture::snapshot("x.py", marked), text)
    }

    #[test]
    fn a_slip_is_one_letter() {
        for (said, known, slip) in [
            ("lenght", "length", true),
            ("lengh", "length", true),
            ("lenngth", "length", true),
            ("lemgth", "length", true),
            ("length", "length", false),
            ("lneght", "length", false),
            ("item", "items", false),
            ("sitem", "item", true),
            ("row1", "row2", false),
            ("row1", "rows", false),
            ("Total", "total", false),
            ("xs", "ys", false),
            ("größe", "grösse", false),
            ("größe", "größte", true),
        ] {
            assert_eq!((is_slip(said, known), is_slip(known, said)), (slip, slip), "{said} {known}");
        }
    }

    #[test]
    fn only_names_that_the_document_lacks_are_doubtful() {
        let file = "def f(lengths, total):\n    ▮\n    return total\n";
        assert!(!doubtful(file, "total += sum(lengths)"));
        assert!(doubtful(file, "totla += sum(lengths)"));
        assert!(!doubtful(file, "count = len(lengths)"));
        // Half of a name is typed: it is no name of its own.
        assert!(!doubtful("total = 1\nx = tota▮\n", "l + 1"));
        assert!(doubtful("total = 1\nx = tota▮\n", "ll + 1"));
        assert!(!doubtful("", "anything"));
    }

    #[test]
    fn names_of_other_files_count_as_well() {
        let mut snapshot = crate::suggest::fixture::snapshot("x.py", "size = 1\nx = ▮\n");
        for (text, alone, beside) in [
            ("legnth + 1", false, true),
            ("length + 1", false, false),
            ("sizes", false, false),
            ("siez", true, true),
            ("sise", true, false),
        ] {
            snapshot.open = Vec::new();
            assert_eq!(are_doubtful(&snapshot, text), alone, "{text}");
            snapshot.open = vec![Arc::new(OpenFile::new(Rope::from("def length(sise): pass")))];
            assert_eq!(are_doubtful(&snapshot, text), beside, "{text}");
        }
    }

    #[test]
    fn of_a_large_file_little_is_kept() {
        let many: String = (0..100_000).map(|it| format!("näme_{it} ")).collect();
        let file = OpenFile::new(Rope::from(many));
        let bytes: usize = file.names().iter().map(|name| name.len()).sum();
        assert!(bytes <= KEPT && bytes > KEPT - 20, "{bytes}");
        assert!(file.names().contains("näme_7"));
    }
}
