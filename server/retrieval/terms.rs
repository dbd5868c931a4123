//! Terms of code: its identifiers and the words that these are made of. Keywords are terms too: they are so frequent
//! that their weight is low.

use crate::text::lines::is_word_char;

/// A term, as 32 bits of its hash. Collisions are one in millions and cost only a place in the ranking.
pub(super) type Term = u32;

/// Longer ones are data.
const MAX_IDENTIFIER_BYTES: usize = 64;

/// One occurrence of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TermOccurrence {
    /// The term, case-insensitive.
    pub(super) term: Term,
    /// Whether it is a whole identifier, not only a part of one.
    pub(super) is_identifier: bool,
}

/// Calls `found` for each identifier in `text`, and for each part of an identifier with several (`TaskGroup`,
/// `task_group`), in order.
pub(super) fn for_each_term(text: &str, mut found: impl FnMut(TermOccurrence)) {
    for name in split_identifiers(text) {
        let mut parts = identifier_parts(name).peekable();
        let first = parts.next();
        found(TermOccurrence { term: term_hash(name), is_identifier: true });
        if parts.peek().is_some() {
            for part in first.into_iter().chain(parts).filter(|part| part.len() > 2) {
                found(TermOccurrence { term: term_hash(part), is_identifier: false });
            }
        }
    }
}

/// The identifiers in a text.
fn split_identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word_char(c)).filter(|name| {
        (2..=MAX_IDENTIFIER_BYTES).contains(&name.len()) && !name.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// FNV-1a, 32 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), of the letters in lower case, without `_` at the ends.
pub(super) fn term_hash(name: &str) -> Term {
    let lower = name.trim_matches('_').chars().flat_map(char::to_lowercase);
    let mut bytes = [0; 4];
    lower.fold(0x811c_9dc5, |hash, letter| {
        letter
            .encode_utf8(&mut bytes)
            .bytes()
            .fold(hash, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    })
}

/// The parts of an identifier: `parse`, `HTTP` and `Header` of `parseHTTPHeader`.
fn identifier_parts(name: &str) -> impl Iterator<Item = &str> {
    name.split('_').filter(|part| !part.is_empty()).flat_map(|part| {
        let starts = part.char_indices().zip(part.chars().skip(1).map(Some).chain([None])).scan(
            None,
            |before: &mut Option<char>, ((at, c), next)| {
                let begins = before.is_some_and(|before| {
                    c.is_uppercase() && (!before.is_uppercase() || next.is_some_and(char::is_lowercase))
                });
                *before = Some(c);
                Some((at, begins))
            },
        );
        let mut cuts: Vec<usize> = starts.filter(|(_, begins)| *begins).map(|(at, _)| at).collect();
        cuts.insert(0, 0);
        cuts.push(part.len());
        let ranges: Vec<_> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
        ranges.into_iter().map(move |(from, to)| &part[from..to])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_split_into_parts() {
        for (name, expected) in [
            ("TaskGroup", &["Task", "Group"][..]),
            ("_task_group", &["task", "group"]),
            ("parseHTTPHeader", &["parse", "HTTP", "Header"]),
            ("x", &["x"]),
            ("HTTP", &["HTTP"]),
            ("größeÄndern", &["größe", "Ändern"]),
            ("v2Config", &["v2", "Config"]),
            ("__", &[]),
        ] {
            assert_eq!(identifier_parts(name).collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn identifier_part_equals_term_of_same_name() {
        let terms_of = |text: &str| {
            let mut all = Vec::new();
            for_each_term(text, |occurrence| all.push(occurrence));
            all
        };
        let group = terms_of("self._taskGroup.x(12, 0xff)");
        assert_eq!(
            group.iter().filter(|it| it.is_identifier).count(),
            2,
            "one letter and numbers are none: {group:?}"
        );
        for (name, whole) in [("task", false), ("GROUP", false), ("taskgroup", true), ("self", true)] {
            assert!(
                group.contains(&TermOccurrence { term: term_hash(name), is_identifier: whole }),
                "{name}"
            );
        }
        assert!(terms_of("x").is_empty() && terms_of("").is_empty());
        assert_eq!(terms_of("task_group")[0].term, term_hash("__task_group__"));
    }
}
