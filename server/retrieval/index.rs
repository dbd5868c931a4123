//! The index of all chunks of a project, and the ranking of chunks by the terms that they share with the cursor's
//! surroundings.
//!
//! The ranking is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, section
//! 3.2; `k1` = 1.2, `b` = 0.75). A query term counts more the nearer it is to the cursor, and identifiers count more
//! than their parts.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use taper_grammars::Language;

use super::Snippet;
use super::chunks::{Chunk, ChunkContent, ChunkedFile, language_family};
use super::terms::{self, Term};
use crate::text::{Rope, lines};

// These and the following constants were chosen by `benches/snippets.rs`: with them, in 1,536 bytes, the snippets
// contain the largest share of the names that the expected code needs and that are not in its own file.
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// Bytes before and after the cursor from which query terms are taken.
const SURROUNDING_BYTES: (usize, usize) = (3072, 512);
/// Bytes at the start of the file in which imports are looked for.
const IMPORT_BYTES: usize = 4096;
/// Half-life of a term's weight, in lines from the cursor.
const HALF_LIFE_LINES: (f32, f32) = (3.0, 3.0);
/// Weight of a term after the cursor, and of a part of an identifier.
const AFTER_CURSOR_WEIGHT: f32 = 0.7;
const IDENTIFIER_PART_WEIGHT: f32 = 0.4;
/// Score bonus for a chunk that defines an identifier used near the cursor.
const DEFINITION_WEIGHT: f32 = 1.5;
/// Factors for a chunk whose file is imported, or is in the same folder.
const IMPORTED_FACTOR: f32 = 1.2;
const SAME_FOLDER_FACTOR: f32 = 1.2;
/// The score is divided by this power of the chunk's length: two short chunks are worth more than one long one.
const LENGTH_EXPONENT: f32 = 0.3;
/// Bytes that a chunk costs in addition to its text.
const PATH_COST_BYTES: f32 = 40.0;
/// A term that is in more than one chunk out of this many is ignored.
const COMMON_TERM_DIVISOR: usize = 8;
/// Maximum number of chunks that are considered, in order of score.
const MAX_CANDIDATES: usize = 400;
/// A chunk with less than this share of the best score is left out.
const MIN_SCORE_SHARE: f32 = 0.35;
/// A chunk is left out if more than this share of its lines is already around the cursor.
const MAX_KNOWN_SHARE: f32 = 0.5;

/// The position for which chunks are searched.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The file's text.
    pub text: &'a Rope,
    /// The cursor, in bytes.
    pub cursor: usize,
    /// The file's path, as [`ChunkedFile::path`]: its own chunks are excluded.
    pub path: &'a str,
    /// Its language.
    pub language: &'static Language,
}

/// All chunks of a project. Immutable; a change of a file makes a new index.
#[derive(Debug, Default)]
pub struct Index {
    /// The number of this index among all that this process made.
    number: u64,
    files: Vec<Arc<ChunkedFile>>,
    chunks: Vec<ChunkEntry>,
    /// The chunks that contain each term, and how often.
    term_postings: PostingLists,
    term_counts: Vec<u8>,
    /// The chunks that define each name.
    definition_postings: PostingLists,
}

/// The chunks of each term. All terms share one list, so that it is allocated and freed quickly although it has
/// millions of entries.
#[derive(Debug, Default)]
struct PostingLists {
    ranges: HashMap<Term, Range<u32>>,
    chunks: Vec<u32>,
}

impl PostingLists {
    /// Reserves space for the chunks that have these terms.
    fn new(words: impl Iterator<Item = Term>) -> Self {
        let mut ranges: HashMap<Term, Range<u32>> = HashMap::new();
        for word in words {
            ranges.entry(word).or_default().end += 1;
        }
        let mut all = 0;
        for range in ranges.values_mut() {
            let count = range.end;
            *range = all..all;
            all += count;
        }
        Self { ranges, chunks: vec![0; all as usize] }
    }

    /// Adds a chunk to a term; returns its position in the list.
    fn add_chunk(&mut self, word: Term, piece: u32) -> usize {
        let range = self.ranges.entry(word).or_default();
        let at = range.end as usize;
        self.chunks[at] = piece;
        range.end += 1;
        at
    }

    /// The range of a term's chunks in the list.
    fn chunk_range(&self, word: Term) -> Range<usize> {
        self.ranges.get(&word).map_or(0..0, |it| it.start as usize..it.end as usize)
    }
}

/// A chunk, as the ranking sees it.
#[derive(Debug)]
struct ChunkEntry {
    /// The file's index, and the chunk's index in it.
    file: u32,
    chunk: u32,
    /// BM25's `k1 (1 - b + b l)`, with `l` its length relative to the average.
    length_norm: f32,
    /// Factor of its score that accounts for its cost.
    cost_factor: f32,
}

impl Index {
    /// Builds the index of these files.
    pub fn new(files: Vec<Arc<ChunkedFile>>) -> Self {
        static NEXT_INDEX_ID: AtomicU64 = AtomicU64::new(1);
        let number = NEXT_INDEX_ID.fetch_add(1, Ordering::Relaxed);
        let pieces = || files.iter().flat_map(|file| &file.chunks);
        let term_postings =
            PostingLists::new(pieces().flat_map(|piece| piece.terms.iter().map(|&(word, _)| word)));
        let defined = PostingLists::new(pieces().flat_map(|piece| piece.defined_terms.iter().copied()));
        let (times, entries) = (vec![0; term_postings.chunks.len()], Vec::with_capacity(pieces().count()));
        let mut it = Self {
            number,
            files,
            chunks: entries,
            term_postings,
            term_counts: times,
            definition_postings: defined,
        };
        let mut words = 0.0;
        for (file, at) in it.files.iter().zip(0..) {
            for (piece, number) in file.chunks.iter().zip(0..) {
                let place = u32::try_from(it.chunks.len()).unwrap_or(u32::MAX);
                let length = piece.term_count as f32;
                words += length;
                let cheapness =
                    (file.chunk_text(&piece.content).len() as f32 + PATH_COST_BYTES).powf(-LENGTH_EXPONENT);
                it.chunks.push(ChunkEntry {
                    file: at,
                    chunk: number,
                    length_norm: length,
                    cost_factor: cheapness,
                });
                for &(word, times) in &piece.terms {
                    let at = it.term_postings.add_chunk(word, place);
                    it.term_counts[at] = times;
                }
                for &word in &piece.defined_terms {
                    it.definition_postings.add_chunk(word, place);
                }
            }
        }
        let average = words / it.chunks.len().max(1) as f32;
        for entry in &mut it.chunks {
            entry.length_norm = K1 * (1.0 - B + B * entry.length_norm / average);
        }
        it
    }

    /// An id that no other index of this process has. Remembering it does not keep the index alive.
    pub fn index_id(&self) -> u64 {
        self.number
    }

    /// The indexed files.
    pub fn files(&self) -> &[Arc<ChunkedFile>] {
        &self.files
    }

    fn chunk_at(&self, at: u32) -> (&ChunkedFile, &Chunk) {
        let ChunkEntry { file, chunk: number, .. } = self.chunks[at as usize];
        let file = &self.files[file as usize];
        (file, &file.chunks[number as usize])
    }

    /// The best chunks of other files for a query, at most `bytes` together, the best last.
    pub fn find_snippets(&self, place: Query<'_>, bytes: usize) -> Vec<Snippet> {
        let query = WeightedQuery::new(place);
        let mut scores = vec![0.0; self.chunks.len()];
        let all = self.chunks.len();
        for (word, weight) in &query.terms {
            let postings = self.term_postings.chunk_range(*word);
            if postings.is_empty() || postings.len() > (all / COMMON_TERM_DIVISOR).max(20) {
                continue;
            }
            let (n, all) = (postings.len() as f32, all as f32);
            let weight = weight * (1.0 + (all - n + 0.5) / (n + 0.5)).ln();
            for (&at, &times) in
                self.term_postings.chunks[postings.clone()].iter().zip(&self.term_counts[postings])
            {
                let times = f32::from(times);
                scores[at as usize] +=
                    weight * times * (K1 + 1.0) / (times + self.chunks[at as usize].length_norm);
            }
            for &at in &self.definition_postings.chunks[self.definition_postings.chunk_range(*word)] {
                scores[at as usize] += weight * DEFINITION_WEIGHT;
            }
        }
        // Chunks of the query's own file and of other languages are excluded.
        let nearness: Vec<f32> = self
            .files
            .iter()
            .map(|it| {
                let other = it.family == query.family && it.path != place.path;
                if other { query.location_factor(it) } else { 0.0 }
            })
            .collect();
        let mut ranked: Vec<(f32, u32)> = Vec::new();
        for ((score, entry), at) in scores.iter().zip(&self.chunks).zip(0..) {
            let worth = score * entry.cost_factor * nearness[entry.file as usize];
            if worth > 0.0 {
                ranked.push((worth, at));
            }
        }
        let better = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if ranked.len() > MAX_CANDIDATES {
            ranked.select_nth_unstable_by(MAX_CANDIDATES, better);
            ranked.truncate(MAX_CANDIDATES);
        }
        ranked.sort_unstable_by(better);
        self.fit_snippets(&ranked, &query, bytes)
    }

    /// The best chunks that fit and add something new; adjacent chunks of a file are merged.
    fn fit_snippets(&self, ranked: &[(f32, u32)], query: &WeightedQuery<'_>, bytes: usize) -> Vec<Snippet> {
        let mut left = bytes;
        let mut taken: Vec<u32> = Vec::new();
        let mut seen: HashSet<&str> = informative_lines(&query.surrounding_text).collect();
        let mut worth = 0.0;
        for &(score, at) in ranked {
            if score < worth {
                break;
            }
            let (file, piece) = self.chunk_at(at);
            let text = file.chunk_text(&piece.content);
            if is_mostly_known(text, &seen) {
                continue;
            }
            worth = worth.max(score * MIN_SCORE_SHARE);
            let cost = text.len() + file.path.len() + 2;
            if cost <= left {
                seen.extend(informative_lines(text));
                left -= cost;
                taken.push(at);
            }
        }
        let mut out: Vec<Snippet> = Vec::new();
        while let Some(last) = taken.pop() {
            // A window is merged with the next one in its file if that is taken too.
            let mut run = vec![last];
            while let Some(at) = taken.iter().position(|&it| self.is_adjacent(it, run[0])) {
                run.insert(0, taken.remove(at));
            }
            while let Some(at) = taken.iter().position(|&it| self.is_adjacent(run[run.len() - 1], it)) {
                run.push(taken.remove(at));
            }
            let (file, _) = self.chunk_at(last);
            let texts: Vec<&str> =
                run.iter().map(|&at| file.chunk_text(&self.chunk_at(at).1.content)).collect();
            out.push(Snippet { path: file.path.clone(), text: texts.concat() });
        }
        out
    }

    /// Whether the window `next` directly follows `before`.
    fn is_adjacent(&self, before: u32, next: u32) -> bool {
        let (a, b) = (&self.chunks[before as usize], &self.chunks[next as usize]);
        let lines = |at| matches!(self.chunk_at(at).1.content, ChunkContent::Lines(_));
        a.file == b.file && a.chunk + 1 == b.chunk && lines(before) && lines(next)
    }
}

/// A query with its terms weighted.
struct WeightedQuery<'a> {
    family: &'static str,
    terms: HashMap<Term, f32>,
    imported: HashSet<Term>,
    folder: &'a str,
    /// The text around the cursor.
    surrounding_text: String,
}

impl<'a> WeightedQuery<'a> {
    fn new(place: Query<'a>) -> Self {
        let Query { text, cursor, path, language } = place;
        let piece = |from: usize, to: usize| {
            text.byte_slice(lines::floor_char_boundary(text, from)..lines::floor_char_boundary(text, to))
                .to_string()
        };
        let before = piece(cursor.saturating_sub(SURROUNDING_BYTES.0), cursor);
        let after = piece(cursor, cursor + SURROUNDING_BYTES.1);
        // An incomplete word at the cursor is not a term.
        let whole = before.trim_end_matches(lines::is_word_char);
        let mut words: HashMap<Term, f32> = HashMap::new();
        let mut note = |line: &str, weight: f32| {
            terms::for_each_term(line, |occurrence| {
                let weight = if occurrence.is_identifier { weight } else { weight * IDENTIFIER_PART_WEIGHT };
                let known = words.entry(occurrence.term).or_default();
                *known = known.max(weight);
            });
        };
        for (line, at) in whole.rsplit('\n').zip(0u16..) {
            note(line, (-f32::from(at) / HALF_LIFE_LINES.0).exp2());
        }
        for (line, at) in after.split('\n').zip(0u16..) {
            note(line, AFTER_CURSOR_WEIGHT * (-f32::from(at) / HALF_LIFE_LINES.1).exp2());
        }
        let mut imported = HashSet::new();
        for line in piece(0, IMPORT_BYTES).lines().filter(|line| is_import_line(line)) {
            terms::for_each_term(line, |occurrence| {
                imported.insert(occurrence.term);
            });
        }
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self {
            family: language_family(language),
            terms: words,
            imported,
            folder,
            surrounding_text: before + &after,
        }
    }

    /// The factor of a file's chunks that depends on the file's location.
    fn location_factor(&self, file: &ChunkedFile) -> f32 {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let imported = if self.imported.contains(&file.stem) { IMPORTED_FACTOR } else { 1.0 };
        if folder == self.folder { imported * SAME_FOLDER_FACTOR } else { imported }
    }
}

/// Whether a line imports another file, in the syntax of any of the languages.
fn is_import_line(line: &str) -> bool {
    let line = line.trim_start();
    ["import ", "from ", "use ", "pub use ", "mod ", "pub mod ", "#include", "using ", "export "]
        .iter()
        .any(|word| line.starts_with(word))
        || line.contains("require(")
        || line.contains(" from '")
        || line.contains(" from \"")
}

/// The lines of a text that are long enough to count.
fn informative_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| line.len() > 6)
}

fn is_mostly_known(text: &str, seen: &HashSet<&str>) -> bool {
    let (mut known, mut all) = (0.0, 0.0);
    for line in informative_lines(text) {
        all += 1.0;
        known += f32::from(u8::from(seen.contains(line)));
    }
    all == 0.0 || known > all * MAX_KNOWN_SHARE
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn build_index(files: &[(&str, &str)]) -> Index {
        let cut = |(path, text): &(&str, &str)| {
            let language = taper_grammars::by_path(Path::new(path)).unwrap();
            ChunkedFile::new(path, language, text, &mut || false).map(Arc::new)
        };
        Index::new(files.iter().filter_map(cut).collect())
    }

    fn find_marked(index: &Index, path: &str, marked: &str, bytes: usize) -> Vec<Snippet> {
        let (before, after) = marked.split_once('▮').unwrap();
        let text = Rope::from(format!("{before}{after}"));
        let language = taper_grammars::by_path(Path::new(path)).unwrap();
        index.find_snippets(Query { text: &text, cursor: before.len(), path, language }, bytes)
    }

    const GROUP_SOURCE: &str = "class TaskGroup:\n    def start_soon(self, func, *args):\n        self._run(func, args)\n\n    def \
                         cancel(self):\n        self._stop()\n";
    const SHAPE_SOURCE: &str =
        "def area(width, height):\n    return width * height\n\n\ndef edge(width):\n    return width * 4\n";

    #[test]
    fn named_definition_is_found_best_last() {
        let index = build_index(&[("a/group.py", GROUP_SOURCE), ("a/shape.py", SHAPE_SOURCE)]);
        let found = find_marked(&index, "a/use.py", "def go(self):\n    self._task_group.▮\n", 4000);
        assert!(found.last().unwrap().text.contains("def start_soon"), "{found:?}");
        assert!(found.iter().all(|it| it.path == "a/group.py"), "{found:?}");
        let found = find_marked(&index, "a/use.py", "size = area(▮)\n", 4000);
        assert!(found.last().unwrap().text.contains("def area(width, height)"), "{found:?}");
        assert_eq!(find_marked(&index, "a/use.py", "print(▮)\n", 4000), []);
        assert_eq!(find_marked(&index, "a/use.py", "▮", 4000), []);
        assert_eq!(find_marked(&Index::default(), "a/use.py", "size = area(▮)\n", 4000), []);
    }

    #[test]
    fn own_file_foreign_language_known_text_are_skipped() {
        let files = build_index(&[
            ("a/group.py", GROUP_SOURCE),
            ("a/shape.js", "function area(width) {\n  return width;\n}\n"),
        ]);
        assert_eq!(find_marked(&files, "a/group.py", "self._task_group.▮\n", 4000), []);
        assert_eq!(find_marked(&files, "a/use.py", "size = area(▮)\n", 4000), []);
        assert_eq!(find_marked(&files, "a/use.ts", "size = area(▮)\n", 4000).len(), 1);
        let copied = format!("{GROUP_SOURCE}\n\ndef go(task_group):\n    task_group.▮\n");
        let found = find_marked(&build_index(&[("b/copy.py", GROUP_SOURCE)]), "a/use.py", &copied, 4000);
        assert!(found.iter().all(|it| !it.text.contains("self._run")), "{found:?}");
    }

    #[test]
    fn snippets_fit_the_byte_budget() {
        let many: Vec<(String, String)> = (0..15)
            .map(|n| (format!("a/m{n}.py"), format!("def area_{n}(width):\n    return area(width, {n})\n")))
            .collect();
        let many: Vec<(&str, &str)> =
            many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let index = build_index(&many);
        for bytes in [0, 10, 100, 500] {
            let found = find_marked(&index, "a/use.py", "size = area(width▮)\n", bytes);
            let size: usize = found.iter().map(|it| it.path.len() + it.text.len()).sum();
            assert!(size <= bytes && (found.is_empty() == (bytes < 60)), "{bytes}: {found:?}");
        }
    }

    #[test]
    fn adjacent_windows_merge_into_one_snippet() {
        let long: String = (0..40).map(|n| format!("    area_{n} = area(width, {n})\n")).collect();
        let index = build_index(&[
            ("a/long.py", &format!("def areas(width):\n{long}")),
            ("a/shape.py", SHAPE_SOURCE),
        ]);
        let found =
            find_marked(&index, "a/use.py", "area_1 = area(width, 1)\narea_14 = area(width, 14)\n▮", 4000);
        let long: Vec<_> = found.iter().filter(|it| it.path == "a/long.py").collect();
        assert_eq!(long.len(), 1, "{found:?}");
        let at = |line: &str| long[0].text.find(line).unwrap();
        assert!(at("area_1 =") < at("area_12 =") && at("area_12 =") < at("area_13 ="), "{}", long[0].text);
    }

    #[test]
    fn imported_file_ranks_higher() {
        let body = "def load(path):\n    return read(path)\n";
        let index = build_index(&[("a/first.py", body), ("b/second.py", body)]);
        for (import, expected) in [("first", "a/first.py"), ("second", "b/second.py")] {
            let found =
                find_marked(&index, "c/use.py", &format!("from {import} import load\n\nx = load(▮)\n"), 70);
            assert_eq!(found.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), [expected]);
        }
    }
}
