//! Remembered suggestions that still fit: typed through, requested again, or restored by undo.

pub(crate) mod lenient;

use std::collections::VecDeque;
use std::ops::Range;

use crate::completion::{Snapshot, Suggestion, Trigger};
use crate::text::Rope;
use crate::text::lines::floor_char_boundary;

/// Entries of one document.
const MAX_CACHE_ENTRIES: usize = 64;
/// Bytes of the text before the cursor that must agree.
const BEFORE_BYTES: usize = 4096;
/// Bytes of the text after the replaced range that must agree.
const AFTER_BYTES: usize = 1024;
/// Maximum bytes of a cached suggestion.
const MAX_SUGGESTION_BYTES: usize = 8192;

/// The suggestions of one document, newest last, and the positions known to have none. Bounded: twice 64 entries of a
/// few kilobytes.
#[derive(Debug, Default)]
pub struct CompletionCache {
    entries: VecDeque<CacheEntry>,
    /// Entries with empty texts.
    empty_entries: VecDeque<CacheEntry>,
}

#[derive(Debug)]
struct CacheEntry {
    /// Up to [`BEFORE_BYTES`] bytes that end where the suggestion begins.
    before: String,
    /// Whether `before` reaches the start of the document.
    at_start: bool,
    /// The text that the suggestion replaces.
    replaced: String,
    /// Up to [`AFTER_BYTES`] bytes that begin where the replaced range ends.
    after: String,
    /// Whether `after` reaches the end of the document.
    at_end: bool,
    /// The text it inserts.
    text: String,
    /// The alternatives to `text`; `None` if they were never decoded.
    alternatives: Option<Vec<String>>,
}

impl CompletionCache {
    /// The remainder of a suggestion for this position, or for an earlier one from which the user has typed along:
    /// exactly, in another style, or with brackets that the editor closed. `None` if nothing remains.
    pub fn get(&mut self, text: &Rope, cursor: usize) -> Option<Suggestion> {
        let place = CacheKey::at_cursor(text, cursor)?;
        let mut found = self.entries.iter().enumerate().rev();
        let exact = found.find_map(|(index, entry)| {
            let rest = entry.text[entry.typed_len(&place)?..].to_owned();
            Some((index, rest, cursor..cursor + entry.replaced.len()))
        });
        let (index, text, range) = exact.or_else(|| {
            let mut found = self.entries.iter().enumerate().rev();
            found.find_map(|(index, entry)| Some((index, entry.lenient_remainder(&place)?, cursor..cursor)))
        })?;
        // Keeps used entries longest.
        let entry = self.entries.remove(index)?;
        self.entries.push_back(entry);
        Some(Suggestion { range, text })
    }

    /// Caches a suggestion for `cursor` in `text`.
    pub fn insert(&mut self, text: &Rope, cursor: usize, suggestion: &Suggestion) {
        let range = &suggestion.range;
        // A suggestion that extends a popup's item replaces text before the cursor: it is valid for that popup only.
        if range.start != cursor || range.end < cursor || range.end > text.len_bytes() {
            return;
        }
        if suggestion.text.len() > MAX_SUGGESTION_BYTES {
            return;
        }
        insert_entry(&mut self.entries, CacheEntry::new(text, cursor, suggestion));
    }

    /// Caches the alternatives to `first`, which must have been inserted.
    pub fn set_alternatives(
        &mut self,
        text: &Rope,
        cursor: usize,
        first: &Suggestion,
        others: &[Suggestion],
    ) {
        let Some(place) = CacheKey::at_cursor(text, cursor) else { return };
        let is_it = |it: &&mut CacheEntry| it.text == first.text && it.matches_key(&place, 0);
        if let Some(entry) = self.entries.iter_mut().rev().find(is_it) {
            let others =
                others.iter().filter(|it| it.range == first.range && it.text.len() <= MAX_SUGGESTION_BYTES);
            entry.alternatives = Some(others.map(|it| it.text.clone()).collect());
        }
    }

    /// The alternatives where [`CompletionCache::get`] returns `first`, as far as they begin with the text typed
    /// since; `None` if they were never decoded.
    pub fn alternatives(&self, text: &Rope, cursor: usize, first: &Suggestion) -> Option<Vec<Suggestion>> {
        let place = CacheKey::at_cursor(text, cursor)?;
        let (entry, typed) = self.entries.iter().rev().find_map(|entry| {
            let typed = entry.typed_len(&place)?;
            (entry.text[typed..] == first.text).then(|| (entry, &entry.text[..typed]))
        })?;
        let rests = entry.alternatives.as_ref()?.iter().filter_map(|other| other.strip_prefix(typed));
        let others = rests.filter(|rest| !rest.is_empty() && *rest != first.text);
        Some(others.map(|rest| Suggestion { range: first.range.clone(), text: rest.to_owned() }).collect())
    }

    /// Whether the model ran for this position and produced nothing to show.
    pub fn is_known_empty(&self, text: &Rope, cursor: usize) -> bool {
        !self.empty_entries.is_empty()
            && CacheKey::at_cursor(text, cursor)
                .is_some_and(|place| self.empty_entries.iter().any(|entry| entry.matches_key(&place, 0)))
    }

    /// Caches that there is nothing to show for `cursor` in `text`.
    pub fn insert_empty(&mut self, text: &Rope, cursor: usize) {
        let nothing = Suggestion { range: cursor..cursor, text: String::new() };
        if cursor <= text.len_bytes() {
            insert_entry(&mut self.empty_entries, CacheEntry::new(text, cursor, &nothing));
        }
    }

    /// Clears the cache: the settings or the model changed.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.empty_entries.clear();
    }
}

/// The text typed at the cursor of `older`, if `text` has no other change; empty if it has none at all. The
/// cursor is then after the typed text.
///
/// Far from the cursor only the length is compared, as in a [`CompletionCache`].
pub fn typed_since(older: &Snapshot, text: &Rope) -> Option<String> {
    let length = text
        .len_bytes()
        .checked_sub(older.text.len_bytes())
        .filter(|&length| length <= MAX_SUGGESTION_BYTES)?;
    let cursor = older.cursor;
    let end = cursor + length;
    if end > text.len_bytes()
        || floor_char_boundary(text, cursor) != cursor
        || floor_char_boundary(text, end) != end
    {
        return None;
    }
    let from = floor_char_boundary(&older.text, cursor.saturating_sub(BEFORE_BYTES));
    let to = floor_char_boundary(&older.text, (cursor + AFTER_BYTES).min(older.text.len_bytes()));
    let slices = |text: &Rope, range: Range<usize>| {
        let fits = floor_char_boundary(text, range.start) == range.start
            && floor_char_boundary(text, range.end) == range.end;
        fits.then(|| text.byte_slice(range).to_string())
    };
    let same = slices(text, from..cursor) == slices(&older.text, from..cursor)
        && slices(text, end..to + length) == slices(&older.text, cursor..to);
    same.then(|| text.byte_slice(cursor..end).to_string())
}

/// The text typed between two requests for one document, if a response to `older` may serve `newer`: nothing but
/// typing at the cursor happened in between.
pub fn typed_between(older: &Snapshot, newer: &Snapshot) -> Option<String> {
    // Text withheld from an automatic request is shown for an explicit one.
    let becomes_explicit = newer.trigger == Trigger::Invoked && older.trigger == Trigger::Automatic;
    let selected = older.selected.is_some() || newer.selected.is_some();
    if becomes_explicit || selected || older.options != newer.options || !older.has_same_preceding(newer) {
        return None;
    }
    typed_since(older, &newer.text).filter(|typed| older.cursor + typed.len() == newer.cursor)
}

/// The remainder of a suggestion once `typed` was typed; `None` if nothing remains, or the suggestion begins
/// differently.
pub fn remainder(suggestion: &Suggestion, typed: &str) -> Option<Suggestion> {
    let text = suggestion.text.strip_prefix(typed).filter(|rest| !rest.is_empty())?.to_owned();
    let Range { start, end } = suggestion.range;
    Some(Suggestion { range: start + typed.len()..end + typed.len(), text })
}

/// Whether `output`, which may continue, is or may become an extension of `typed`.
pub fn is_compatible(output: &str, typed: &str) -> bool {
    output.starts_with(typed) || typed.starts_with(output)
}

/// Inserts an entry in place of one for the same text, or of the oldest. The alternatives are kept if the suggestion
/// is the same.
fn insert_entry(entries: &mut VecDeque<CacheEntry>, mut new: CacheEntry) {
    entries.retain_mut(|old| {
        let same = (&old.before, &old.replaced, &old.after) == (&new.before, &new.replaced, &new.after);
        if same && old.text == new.text {
            new.alternatives = old.alternatives.take();
        }
        !same
    });
    entries.push_back(new);
    if entries.len() > MAX_CACHE_ENTRIES {
        entries.pop_front();
    }
}

impl CacheEntry {
    fn new(text: &Rope, cursor: usize, suggestion: &Suggestion) -> Self {
        let range = &suggestion.range;
        let from = floor_char_boundary(text, cursor.saturating_sub(BEFORE_BYTES));
        let to = floor_char_boundary(text, (range.end + AFTER_BYTES).min(text.len_bytes()));
        let (at_start, at_end) = (from == 0, to == text.len_bytes());
        let before = text.byte_slice(from..cursor).to_string();
        let replaced = text.byte_slice(range.clone()).to_string();
        let after = text.byte_slice(range.end..to).to_string();
        let (text, others) = (suggestion.text.clone(), None);
        Self { before, at_start, replaced, after, at_end, text, alternatives: others }
    }

    /// Bytes of the suggestion that are already before the cursor, if it fits and has a remainder. Of several
    /// possible lengths the longest, which leaves the least to guess.
    fn typed_len(&self, place: &CacheKey) -> Option<usize> {
        (0..self.text.len())
            .rev()
            .find(|&typed| self.text.is_char_boundary(typed) && self.matches_key(place, typed))
    }

    /// The remainder if the position differs from the entry's only by text that the editor closed after the cursor,
    /// or by the style in which the suggestion was typed.
    fn lenient_remainder(&self, place: &CacheKey) -> Option<String> {
        if !self.replaced.is_empty() {
            return None;
        }
        let closed = lenient::editor_closed_text(&place.after, |after| {
            after.starts_with(&self.after)
                && (!self.at_end || (place.at_end && after.len() == self.after.len()))
        })?;
        let start = if self.at_start {
            (place.at_start && place.before.starts_with(&self.before)).then_some(0)
        } else {
            place.before.rfind(&self.before)
        };
        let typed = &place.before[start? + self.before.len()..];
        let rest = lenient::lenient_match(&self.text, typed)?;
        if closed.is_empty() { Some(rest) } else { lenient::remainder_inside(typed, &rest, closed) }
    }

    /// Whether the position is the entry's, with the first `typed` bytes of the suggestion before the cursor.
    fn matches_key(&self, place: &CacheKey, typed: usize) -> bool {
        // Everything from the cursor on must be unchanged.
        let same_after = place.after.strip_prefix(self.replaced.as_str()).is_some_and(|after| {
            after.starts_with(&self.after)
                && (!self.at_end || (place.at_end && after.len() == self.after.len()))
        });
        same_after
            && place.before.strip_suffix(&self.text[..typed]).is_some_and(|before| {
                before.ends_with(&self.before)
                    && (!self.at_start || (place.at_start && before.len() == self.before.len()))
            })
    }
}

/// The text around a cursor, as much as an entry compares.
struct CacheKey {
    before: String,
    at_start: bool,
    after: String,
    at_end: bool,
}

impl CacheKey {
    fn at_cursor(text: &Rope, cursor: usize) -> Option<Self> {
        if cursor > text.len_bytes() || floor_char_boundary(text, cursor) != cursor {
            return None;
        }
        let from = floor_char_boundary(text, cursor.saturating_sub(BEFORE_BYTES + MAX_SUGGESTION_BYTES));
        // The few replaced bytes are included too.
        let to =
            floor_char_boundary(text, (cursor + AFTER_BYTES + MAX_SUGGESTION_BYTES).min(text.len_bytes()));
        let slice = |range: Range<usize>| text.byte_slice(range).to_string();
        let (at_start, at_end) = (from == 0, to == text.len_bytes());
        Some(Self { before: slice(from..cursor), at_start, after: slice(cursor..to), at_end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_fixture(fixture: &str) -> (Rope, usize) {
        let (before, after) = fixture.split_once('▮').unwrap();
        (Rope::from(format!("{before}{after}")), before.len())
    }

    fn insert_at(cache: &mut CompletionCache, fixture: &str, suggested: &str) {
        let (text, cursor) = parse_fixture(fixture);
        cache.insert(&text, cursor, &Suggestion { range: cursor..cursor, text: suggested.into() });
    }

    fn get_at(cache: &mut CompletionCache, fixture: &str) -> Option<String> {
        let (text, cursor) = parse_fixture(fixture);
        let suggestion = cache.get(&text, cursor)?;
        assert_eq!(suggestion.range, cursor..cursor);
        Some(suggestion.text)
    }

    #[test]
    fn cached_suggestion_shrinks_while_typed_through() {
        let mut cache = CompletionCache::default();
        insert_at(&mut cache, "let x▮\nend", " = f(ä);");
        assert_eq!(get_at(&mut cache, "let x▮\nend").unwrap(), " = f(ä);");
        assert_eq!(get_at(&mut cache, "let x = ▮\nend").unwrap(), "f(ä);");
        assert_eq!(get_at(&mut cache, "let x = f(ä▮\nend").unwrap(), ");");
        assert_eq!(get_at(&mut cache, "let x = f(ä);▮\nend"), None, "nothing is left");
        assert_eq!(get_at(&mut cache, "let x▮\nend").unwrap(), " = f(ä);", "deleted back, or undone");
    }

    #[test]
    fn changed_text_around_cursor_misses_cache() {
        let mut cache = CompletionCache::default();
        insert_at(&mut cache, "let x▮\nend", " = 1;");
        for other in
            ["let y▮\nend", "a let x▮\nend", "let x+▮\nend", "let x▮\nEnd", "let x▮\nend ", "let x =▮)\nend"]
        {
            assert_eq!(get_at(&mut cache, other), None, "{other}");
        }
    }

    #[test]
    fn distant_text_is_not_compared() {
        let mut cache = CompletionCache::default();
        let far = "x".repeat(BEFORE_BYTES + 10);
        insert_at(&mut cache, &format!("1{far}▮{far}1"), "abc");
        assert_eq!(get_at(&mut cache, &format!("2{far}a▮{far}2")).unwrap(), "bc");
    }

    #[test]
    fn compared_text_is_cut_at_char_boundaries() {
        let mut cache = CompletionCache::default();
        for shift in 0..4 {
            let far = "€".repeat(BEFORE_BYTES);
            let pad = "x".repeat(shift);
            insert_at(&mut cache, &format!("{far}{pad}▮{pad}{far}"), "abc");
            assert_eq!(get_at(&mut cache, &format!("{far}{pad}ab▮{pad}{far}")).unwrap(), "c");
        }
    }

    #[test]
    fn repetitive_suggestion_yields_shortest_remainder() {
        let mut cache = CompletionCache::default();
        insert_at(&mut cache, "▮", "aaaa");
        assert_eq!(get_at(&mut cache, "aaa▮").unwrap(), "a");
    }

    #[test]
    fn remainder_still_replaces_closers() {
        let mut cache = CompletionCache::default();
        let (text, cursor) = parse_fixture("f(▮)\n");
        cache.insert(&text, cursor, &Suggestion { range: cursor..cursor + 1, text: "a, b);".into() });
        let (text, cursor) = parse_fixture("f(a▮)\n");
        let rest = cache.get(&text, cursor).unwrap();
        assert_eq!(rest, Suggestion { range: cursor..cursor + 1, text: ", b);".into() });
    }

    #[test]
    fn empty_result_is_known_until_text_changes() {
        let mut cache = CompletionCache::default();
        let (text, cursor) = parse_fixture("let x▮\nend");
        assert!(!cache.is_known_empty(&text, cursor));
        cache.insert_empty(&text, cursor);
        for (fixture, is_empty) in [
            ("let x▮\nend", true),
            ("let xy▮\nend", false),
            ("let ▮\nend", false),
            ("let x▮\nEnd", false),
            ("let x▮\nend ", false),
            (" let x▮\nend", false),
        ] {
            let (text, cursor) = parse_fixture(fixture);
            assert_eq!(cache.is_known_empty(&text, cursor), is_empty, "{fixture}");
        }
        assert_eq!(get_at(&mut cache, "let x▮\nend"), None);
        cache.clear();
        assert!(!cache.is_known_empty(&text, cursor));
    }

    fn snapshot_at(fixture: &str) -> Snapshot {
        let (text, cursor) = parse_fixture(fixture);
        Snapshot { text, cursor, ..crate::completion::fixture::snapshot("a", "") }
    }

    #[test]
    fn typed_between_finds_text_typed_at_cursor() {
        let far = "x".repeat(BEFORE_BYTES + 10);
        let around = |text: &str| format!("{far}é{text}é{far}");
        for (older, newer, typed) in [
            ("a▮b", "a▮b", Some("")),
            ("a▮b", "aä▮b", Some("ä")),
            ("▮", "a\n▮", Some("a\n")),
            ("a▮b", "ac▮d", None),
            ("a▮b", "bc▮b", None),
            ("a▮b", "▮b", None),
            ("a▮b", "a▮cb", None),
            ("f▮\n", "f(▮)\n", None),
            ("a▮bb", "abb▮", None),
        ] {
            for (older, newer) in [(older.to_owned(), newer.to_owned()), (around(older), around(newer))] {
                assert_eq!(
                    typed_between(&snapshot_at(&older), &snapshot_at(&newer)).as_deref(),
                    typed,
                    "{older} {newer}"
                );
            }
        }
        let mut other = snapshot_at("ab▮");
        other.options.max_lines += 1;
        assert_eq!(typed_between(&snapshot_at("a▮"), &other), None);
        let person = Snapshot { trigger: Trigger::Invoked, ..snapshot_at("ab▮") };
        assert_eq!(typed_between(&snapshot_at("a▮"), &person), None, "something may be held back");
        assert_eq!(typed_between(&person, &snapshot_at("abc▮")).as_deref(), Some("c"));
        // Without a second cursor, it is assumed to be after the inserted text.
        assert_eq!(typed_since(&snapshot_at("a▮b"), &snapshot_at("axy▮b").text).as_deref(), Some("xy"));
    }

    #[test]
    fn remainder_drops_typed_prefix() {
        let suggestion = Suggestion { range: 3..4, text: "a, b)".into() };
        assert_eq!(remainder(&suggestion, "a,").unwrap(), Suggestion { range: 5..6, text: " b)".into() });
        assert_eq!(
            (
                remainder(&suggestion, "a, b)"),
                remainder(&suggestion, "b"),
                remainder(&suggestion, "").as_ref()
            ),
            (None, None, Some(&suggestion))
        );
        assert!(
            is_compatible("", "x")
                && is_compatible("ab", "a")
                && is_compatible("ab", "abc")
                && !is_compatible("ab", "b")
        );
    }

    #[test]
    fn cached_alternatives_shrink_while_typing() {
        let mut cache = CompletionCache::default();
        let (text, cursor) = parse_fixture("x = ▮\n");
        let suggestion = |text: &str| Suggestion { range: cursor..cursor, text: text.to_owned() };
        let first = suggestion("foo(a)");
        let others = |cache: &mut CompletionCache, fixture: &str| -> Option<Vec<String>> {
            let (text, cursor) = parse_fixture(fixture);
            let first = cache.get(&text, cursor)?;
            Some(cache.alternatives(&text, cursor, &first)?.into_iter().map(|it| it.text).collect())
        };
        cache.set_alternatives(&text, cursor, &first, &[suggestion("x")]);
        assert_eq!(others(&mut cache, "x = ▮\n"), None, "nothing is there");
        cache.insert(&text, cursor, &first);
        assert_eq!(others(&mut cache, "x = ▮\n"), None, "alternatives were never decoded");
        cache.set_alternatives(
            &text,
            cursor,
            &first,
            &[suggestion("fob"), suggestion("bar"), suggestion("fo")],
        );
        assert_eq!(others(&mut cache, "x = ▮\n").unwrap(), ["fob", "bar", "fo"]);
        assert_eq!(others(&mut cache, "x = fo▮\n").unwrap(), ["b"]);
        assert_eq!(others(&mut cache, "x = foo▮\n").unwrap(), [""; 0]);
        assert_eq!(others(&mut cache, "x = b▮\n"), None, "the first does not fit here");
        cache.insert(&text, cursor, &first);
        assert_eq!(others(&mut cache, "x = ▮\n").unwrap().len(), 3, "the same again takes nothing away");
        cache.insert(&text, cursor, &suggestion("other"));
        assert_eq!(others(&mut cache, "x = ▮\n"), None);
    }

    #[test]
    fn least_recently_used_cache_entry_is_evicted() {
        let mut cache = CompletionCache::default();
        for number in 0..MAX_CACHE_ENTRIES {
            insert_at(&mut cache, &format!("{number}▮"), "!!");
        }
        assert!(get_at(&mut cache, "0▮").is_some());
        insert_at(&mut cache, "new▮", "!!");
        assert!(get_at(&mut cache, "0▮").is_some(), "used, so kept");
        assert_eq!(get_at(&mut cache, "1▮"), None);
        assert_eq!(cache.entries.len(), MAX_CACHE_ENTRIES);
    }

    #[test]
    fn cache_tolerates_brackets_and_quotes_closed_by_editor() {
        let mut cache = CompletionCache::default();
        insert_at(&mut cache, "x = ▮;\n", "foo(\"a\", [b]) + 1");
        for (fixture, left) in [
            ("x = foo▮;\n", Some("(\"a\", [b]) + 1")),
            ("x = foo(▮);\n", Some("\"a\", [b]")),
            ("x = foo(\"▮\");\n", Some("a")),
            ("x = foo('▮');\n", Some("a")),
            ("x = foo(\"a\"▮);\n", Some(", [b]")),
            ("x = foo(\"a\", [▮]);\n", Some("b")),
            ("x = foo(\"a\",[▮]);\n", Some("b")),
            ("x = foo(\"a\", [b]▮);\n", None),
            ("x = foo(\"a\", [b])▮;\n", Some(" + 1")),
            ("x = foo(\"a\", [b])▮);\n", None),
            ("x = foo(\"c▮\");\n", None),
            // Deleted back, or undone.
            ("x = fo▮;\n", Some("o(\"a\", [b]) + 1")),
            ("x = ▮;\n", Some("foo(\"a\", [b]) + 1")),
            ("x =▮;\n", None),
        ] {
            assert_eq!(get_at(&mut cache, fixture).as_deref(), left, "{fixture}");
        }
        // If accepted, each leaves the file as the suggestion would have.
        for fixture in ["x = foo(▮);\n", "x = foo(\"▮\");\n", "x = foo(\"a\", [▮]);\n"] {
            let (mut text, cursor) = parse_fixture(fixture);
            let suggestion = cache.get(&text, cursor).unwrap();
            text.insert(cursor, &suggestion.text);
            let whole = "x = foo(\"a\", [b]) + 1;\n";
            assert!(whole.starts_with(text.to_string().trim_end_matches([';', '\n', ')', ']'])), "{text}");
        }
    }

    #[test]
    fn distant_text_is_not_compared_with_closed_brackets() {
        let mut cache = CompletionCache::default();
        let far = "x".repeat(BEFORE_BYTES + 10);
        insert_at(&mut cache, &format!("1{far}▮\n{far}1"), "f(a, b)");
        assert_eq!(get_at(&mut cache, &format!("2{far}f(a,▮)\n{far}2")).unwrap(), " b");
    }

    #[test]
    fn partial_acceptance_keeps_remainder_cached() {
        let mut cache = CompletionCache::default();
        insert_at(&mut cache, "def f():▮\n", "\n    x = foo(a)\n    return x");
        for (fixture, left) in [
            ("def f():\n    x▮\n", " = foo(a)\n    return x"),
            ("def f():\n    x = foo(a)▮\n", "\n    return x"),
            ("def f():\n    x = foo(a)\n▮\n", "    return x"),
            ("def f():\n    x = foo(a)\n    ▮\n", "return x"),
        ] {
            assert_eq!(get_at(&mut cache, fixture).unwrap(), left);
        }
    }
}
