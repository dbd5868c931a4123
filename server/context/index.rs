//! All pieces of a project's files, and which of them help at a place: ranked by the words that both say.
//! It knows nothing of how files come here, or of how much of an answer is used.
//!
//! The ranking is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, section
//! 3.2; `k1` = 1.2, `b` = 0.75) with words for terms, where a word of the place counts the more the nearer it stands to the
//! cursor, and identifiers count more than their parts.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use taper_grammars::Language;

use super::Snippet;
use super::pieces::{Extent, File, Piece, family};
use super::words::{self, Word};
use crate::text::{Rope, lines};

// These and the following were chosen by `benches/snippets.rs`, on 922 tasks in 61 projects: with them the snippets say
// 39 % of the names that an answer needs and its own file does not say, in 1,536 bytes; with a half-life of eight lines, less
// weight behind the cursor and windows of up to fourteen lines it was 26 %.
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// Bytes before and behind the cursor that say what is needed.
const AROUND: (usize, usize) = (3072, 512);
/// Bytes at the start of the file that its imports stand in.
const IMPORTS: usize = 4096;
/// A word counts half when it stands so many lines further from the cursor.
const HALF_LIFE: (f32, f32) = (3.0, 3.0);
/// What a word behind the cursor, and a part of an identifier, counts.
const BEHIND: f32 = 0.7;
const PART: f32 = 0.4;
/// What it adds that a piece defines a name which is said.
const DEFINES: f32 = 1.5;
/// What it multiplies that a piece's file is imported, or lies in the same folder.
const IMPORTED: f32 = 1.2;
const NEIGHBOUR: f32 = 1.2;
/// A piece counts less by this power of its length: two short ones say more than a long one.
const COST: f32 = 0.3;
/// Bytes that a piece costs beside its text.
const PATH: f32 = 40.0;
/// A word in more than one in so many pieces tells nothing.
const COMMON: usize = 8;
/// Pieces that are looked at in order of their scores.
const LOOKED_AT: usize = 400;
/// A piece with less than this share of the best one's score is left out.
const WORTH: f32 = 0.35;
/// Of a piece that says mostly what stands around the cursor already, nothing new is learnt: this share of its lines.
const KNOWN: f32 = 0.5;

/// The place that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file's text.
    pub text: &'a Rope,
    /// The cursor, in bytes.
    pub cursor: usize,
    /// The file's path, as [`File::path`]: its own pieces are no help.
    pub path: &'a str,
    /// Its language.
    pub language: &'static Language,
}

/// All pieces of a project. Never changed; made anew when a file changes.
#[derive(Debug, Default)]
pub struct Index {
    /// Which index this is, of all that this process made.
    number: u64,
    files: Vec<Arc<File>>,
    pieces: Vec<Entry>,
    /// Which pieces say a word, and how often.
    said: Postings,
    times: Vec<u8>,
    /// Which pieces define a name.
    defined: Postings,
}

/// The pieces of each word, those of all words in one list: made and let go quickly, though there are millions.
#[derive(Debug, Default)]
struct Postings {
    ranges: HashMap<Word, Range<u32>>,
    pieces: Vec<u32>,
}

impl Postings {
    /// With room for what has these words.
    fn new(words: impl Iterator<Item = Word>) -> Self {
        let mut ranges: HashMap<Word, Range<u32>> = HashMap::new();
        for word in words {
            ranges.entry(word).or_default().end += 1;
        }
        let mut all = 0;
        for range in ranges.values_mut() {
            let count = range.end;
            *range = all..all;
            all += count;
        }
        Self { ranges, pieces: vec![0; all as usize] }
    }

    /// Adds a piece to a word; where it stands.
    fn add(&mut self, word: Word, piece: u32) -> usize {
        let range = self.ranges.entry(word).or_default();
        let at = range.end as usize;
        self.pieces[at] = piece;
        range.end += 1;
        at
    }

    /// Where the pieces of a word stand.
    fn of(&self, word: Word) -> Range<usize> {
        self.ranges.get(&word).map_or(0..0, |it| it.start as usize..it.end as usize)
    }
}

/// A piece, as the ranking looks at it.
#[derive(Debug)]
struct Entry {
    /// In which file it is, and the how-manyth there.
    file: u32,
    number: u32,
    /// BM25's `k1 (1 - b + b l)`, with `l` its length relative to the average.
    length: f32,
    /// What its score is multiplied by for what it costs.
    cheapness: f32,
}

impl Index {
    /// The index of these files.
    pub fn new(files: Vec<Arc<File>>) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(1);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let pieces = || files.iter().flat_map(|file| &file.pieces);
        let said = Postings::new(pieces().flat_map(|piece| piece.words.iter().map(|&(word, _)| word)));
        let defined = Postings::new(pieces().flat_map(|piece| piece.defines.iter().copied()));
        let (times, entries) = (vec![0; said.pieces.len()], Vec::with_capacity(pieces().count()));
        let mut it = Self { number, files, pieces: entries, said, times, defined };
        let mut words = 0.0;
        for (file, at) in it.files.iter().zip(0..) {
            for (piece, number) in file.pieces.iter().zip(0..) {
                let place = u32::try_from(it.pieces.len()).unwrap_or(u32::MAX);
                let length = piece.length as f32;
                words += length;
                let cheapness = (file.text_of(&piece.extent).len() as f32 + PATH).powf(-COST);
                it.pieces.push(Entry { file: at, number, length, cheapness });
                for &(word, times) in &piece.words {
                    let at = it.said.add(word, place);
                    it.times[at] = times;
                }
                for &word in &piece.defines {
                    it.defined.add(word, place);
                }
            }
        }
        let average = words / it.pieces.len().max(1) as f32;
        for entry in &mut it.pieces {
            entry.length = K1 * (1.0 - B + B * entry.length / average);
        }
        it
    }

    /// A number that no other index of this process has: whoever remembers it need not keep the index.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Files in it.
    pub fn files(&self) -> &[Arc<File>] {
        &self.files
    }

    fn piece(&self, at: u32) -> (&File, &Piece) {
        let Entry { file, number, .. } = self.pieces[at as usize];
        let file = &self.files[file as usize];
        (file, &file.pieces[number as usize])
    }

    /// The pieces of other files that help most at a place, of at most so many bytes together, the best last.
    pub fn find(&self, place: Place<'_>, bytes: usize) -> Vec<Snippet> {
        let asked = Asked::new(place);
        let mut scores = vec![0.0; self.pieces.len()];
        let all = self.pieces.len();
        for (word, weight) in &asked.words {
            let said = self.said.of(*word);
            if said.is_empty() || said.len() > (all / COMMON).max(20) {
                continue;
            }
            let (n, all) = (said.len() as f32, all as f32);
            let weight = weight * (1.0 + (all - n + 0.5) / (n + 0.5)).ln();
            for (&at, &times) in self.said.pieces[said.clone()].iter().zip(&self.times[said]) {
                let times = f32::from(times);
                scores[at as usize] +=
                    weight * times * (K1 + 1.0) / (times + self.pieces[at as usize].length);
            }
            for &at in &self.defined.pieces[self.defined.of(*word)] {
                scores[at as usize] += weight * DEFINES;
            }
        }
        // What its own file says, and what other languages say, is no help.
        let nearness: Vec<f32> = self
            .files
            .iter()
            .map(|it| {
                let other = it.family == asked.family && it.path != place.path;
                if other { asked.nearness(it) } else { 0.0 }
            })
            .collect();
        let mut ranked: Vec<(f32, u32)> = Vec::new();
        for ((score, entry), at) in scores.iter().zip(&self.pieces).zip(0..) {
            let worth = score * entry.cheapness * nearness[entry.file as usize];
            if worth > 0.0 {
                ranked.push((worth, at));
            }
        }
        let better = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if ranked.len() > LOOKED_AT {
            ranked.select_nth_unstable_by(LOOKED_AT, better);
            ranked.truncate(LOOKED_AT);
        }
        ranked.sort_unstable_by(better);
        self.fitting(&ranked, &asked, bytes)
    }

    /// The best that fit and say something new; neighbours in a file as one.
    fn fitting(&self, ranked: &[(f32, u32)], asked: &Asked<'_>, bytes: usize) -> Vec<Snippet> {
        let mut left = bytes;
        let mut taken: Vec<u32> = Vec::new();
        let mut seen: HashSet<&str> = telling_lines(&asked.around).collect();
        let mut worth = 0.0;
        for &(score, at) in ranked {
            if score < worth {
                break;
            }
            let (file, piece) = self.piece(at);
            let text = file.text_of(&piece.extent);
            if is_known(text, &seen) {
                continue;
            }
            worth = worth.max(score * WORTH);
            let cost = text.len() + file.path.len() + 2;
            if cost <= left {
                seen.extend(telling_lines(text));
                left -= cost;
                taken.push(at);
            }
        }
        let mut out: Vec<Snippet> = Vec::new();
        while let Some(last) = taken.pop() {
            // A window goes on where the one behind it in the file is taken too.
            let mut run = vec![last];
            while let Some(at) = taken.iter().position(|&it| self.follows(it, run[0])) {
                run.insert(0, taken.remove(at));
            }
            while let Some(at) = taken.iter().position(|&it| self.follows(run[run.len() - 1], it)) {
                run.push(taken.remove(at));
            }
            let (file, _) = self.piece(last);
            let texts: Vec<&str> = run.iter().map(|&at| file.text_of(&self.piece(at).1.extent)).collect();
            out.push(Snippet { path: file.path.clone(), text: texts.concat() });
        }
        out
    }

    /// Whether the window `next` stands right behind `before`.
    fn follows(&self, before: u32, next: u32) -> bool {
        let (a, b) = (&self.pieces[before as usize], &self.pieces[next as usize]);
        let lines = |at| matches!(self.piece(at).1.extent, Extent::Lines(_));
        a.file == b.file && a.number + 1 == b.number && lines(before) && lines(next)
    }
}

/// What a place says.
struct Asked<'a> {
    family: &'static str,
    words: HashMap<Word, f32>,
    imported: HashSet<Word>,
    folder: &'a str,
    /// The text around the cursor.
    around: String,
}

impl<'a> Asked<'a> {
    fn new(place: Place<'a>) -> Self {
        let Place { text, cursor, path, language } = place;
        let piece = |from: usize, to: usize| {
            text.byte_slice(lines::floor(text, from)..lines::floor(text, to)).to_string()
        };
        let before = piece(cursor.saturating_sub(AROUND.0), cursor);
        let behind = piece(cursor, cursor + AROUND.1);
        // Half a word is none.
        let whole = before.trim_end_matches(lines::is_word);
        let mut words: HashMap<Word, f32> = HashMap::new();
        let mut note = |line: &str, weight: f32| {
            words::each(line, |said| {
                let weight = if said.whole { weight } else { weight * PART };
                let known = words.entry(said.word).or_default();
                *known = known.max(weight);
            });
        };
        for (line, at) in whole.rsplit('\n').zip(0u16..) {
            note(line, (-f32::from(at) / HALF_LIFE.0).exp2());
        }
        for (line, at) in behind.split('\n').zip(0u16..) {
            note(line, BEHIND * (-f32::from(at) / HALF_LIFE.1).exp2());
        }
        let mut imported = HashSet::new();
        for line in piece(0, IMPORTS).lines().filter(|line| is_import(line)) {
            words::each(line, |said| {
                imported.insert(said.word);
            });
        }
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self { family: family(language), words, imported, folder, around: before + &behind }
    }

    /// What a file's pieces are worth because of where it is.
    fn nearness(&self, file: &File) -> f32 {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let imported = if self.imported.contains(&file.stem) { IMPORTED } else { 1.0 };
        if folder == self.folder { imported * NEIGHBOUR } else { imported }
    }
}

/// Whether a line brings another file's names here, in one of the ways that languages have.
fn is_import(line: &str) -> bool {
    let line = line.trim_start();
    ["import ", "from ", "use ", "pub use ", "mod ", "pub mod ", "#include", "using ", "export "]
        .iter()
        .any(|word| line.starts_with(word))
        || line.contains("require(")
        || line.contains(" from '")
        || line.contains(" from \"")
}

/// The lines of a text that say something.
fn telling_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| line.len() > 6)
}

fn is_known(text: &str, seen: &HashSet<&str>) -> bool {
    let (mut known, mut all) = (0.0, 0.0);
    for line in telling_lines(text) {
        all += 1.0;
        known += f32::from(u8::from(seen.contains(line)));
    }
    all == 0.0 || known > all * KNOWN
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;

    fn index(files: &[(&str, &str)]) -> Index {
        let cut = |(path, text): &(&str, &str)| {
            let language = taper_grammars::by_path(Path::new(path)).unwrap();
            File::new(path, language, text, &mut || false).map(Arc::new)
        };
        Index::new(files.iter().filter_map(cut).collect())
    }

    fn find(index: &Index, path: &str, marked: &str, bytes: usize) -> Vec<Snippet> {
        let (before, behind) = marked.split_once('▮').unwrap();
        let text = Rope::from(format!("{before}{behind}"));
        let language = taper_grammars::by_path(Path::new(path)).unwrap();
        index.find(Place { text: &text, cursor: before.len(), path, language }, bytes)
    }

    const GROUP: &str = "class TaskGroup:\n    def start_soon(self, func, *args):\n        self._run(func, args)\n\n    def \
                         cancel(self):\n        self._stop()\n";
    const OTHER: &str =
        "def area(width, height):\n    return width * height\n\n\ndef edge(width):\n    return width * 4\n";

    #[test]
    fn what_is_named_is_found_and_the_best_stands_last() {
        let index = index(&[("a/group.py", GROUP), ("a/shape.py", OTHER)]);
        let found = find(&index, "a/use.py", "def go(self):\n    self._task_group.▮\n", 4000);
        assert!(found.last().unwrap().text.contains("def start_soon"), "{found:?}");
        assert!(found.iter().all(|it| it.path == "a/group.py"), "{found:?}");
        let found = find(&index, "a/use.py", "size = area(▮)\n", 4000);
        assert!(found.last().unwrap().text.contains("def area(width, height)"), "{found:?}");
        assert_eq!(find(&index, "a/use.py", "print(▮)\n", 4000), []);
        assert_eq!(find(&index, "a/use.py", "▮", 4000), []);
        assert_eq!(find(&Index::default(), "a/use.py", "size = area(▮)\n", 4000), []);
    }

    #[test]
    fn neither_its_own_file_nor_another_language_nor_what_stands_there_already_helps() {
        let files =
            index(&[("a/group.py", GROUP), ("a/shape.js", "function area(width) {\n  return width;\n}\n")]);
        assert_eq!(find(&files, "a/group.py", "self._task_group.▮\n", 4000), []);
        assert_eq!(find(&files, "a/use.py", "size = area(▮)\n", 4000), []);
        assert_eq!(find(&files, "a/use.ts", "size = area(▮)\n", 4000).len(), 1);
        let copied = format!("{GROUP}\n\ndef go(task_group):\n    task_group.▮\n");
        let found = find(&index(&[("b/copy.py", GROUP)]), "a/use.py", &copied, 4000);
        assert!(found.iter().all(|it| !it.text.contains("self._run")), "{found:?}");
    }

    #[test]
    fn no_more_is_found_than_there_is_room_for() {
        let many: Vec<(String, String)> = (0..15)
            .map(|n| (format!("a/m{n}.py"), format!("def area_{n}(width):\n    return area(width, {n})\n")))
            .collect();
        let many: Vec<(&str, &str)> =
            many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let index = index(&many);
        for bytes in [0, 10, 100, 500] {
            let found = find(&index, "a/use.py", "size = area(width▮)\n", bytes);
            let size: usize = found.iter().map(|it| it.path.len() + it.text.len()).sum();
            assert!(size <= bytes && (found.is_empty() == (bytes < 60)), "{bytes}: {found:?}");
        }
    }

    #[test]
    fn windows_that_follow_each_other_are_one_snippet() {
        let long: String = (0..40).map(|n| format!("    area_{n} = area(width, {n})\n")).collect();
        let index = index(&[("a/long.py", &format!("def areas(width):\n{long}")), ("a/shape.py", OTHER)]);
        let found = find(&index, "a/use.py", "area_1 = area(width, 1)\narea_14 = area(width, 14)\n▮", 4000);
        let long: Vec<_> = found.iter().filter(|it| it.path == "a/long.py").collect();
        assert_eq!(long.len(), 1, "{found:?}");
        let at = |line: &str| long[0].text.find(line).unwrap();
        assert!(at("area_1 =") < at("area_12 =") && at("area_12 =") < at("area_13 ="), "{}", long[0].text);
    }

    #[test]
    fn of_two_the_one_that_is_imported_counts_more() {
        let body = "def load(path):\n    return read(path)\n";
        let index = index(&[("a/first.py", body), ("b/second.py", body)]);
        for (import, expected) in [("first", "a/first.py"), ("second", "b/second.py")] {
            let found = find(&index, "c/use.py", &format!("from {import} import load\n\nx = load(▮)\n"), 70);
            assert_eq!(found.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), [expected]);
        }
    }
}
