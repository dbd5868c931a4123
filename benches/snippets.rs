//! Recall of retrieval: the share of names in the expected text, absent from its own file, that the snippets contain. A
//! fast proxy for `taper-eval run --workspaces`, without a model.
//!
//! `cargo bench --bench snippets -- FOLDER TASKS.jsonl...`, with the folder that `benches/quality/workspaces.py` fills.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints what it measured, and ends on what it cannot use"
)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use taper::retrieval::crawl::{self, CrawlLimits};
use taper::retrieval::{Index, Query};
use taper::text::Rope;
use taper_eval::tasks::{self, Task};

/// Bytes of snippets: 512 tokens by the prompt's estimate, and half and twice as many.
const BYTES: [usize; 3] = [768, 1536, 3072];
/// Bytes before and after the cursor that the model sees: 2,048 and 128 tokens.
const SEEN: (usize, usize) = (6144, 384);

/// Of one set: names that only other files contain, how many of them are in the project at all, and how many were found
/// in this many bytes.
#[derive(Default)]
struct Counts {
    tasks: usize,
    needed: usize,
    exist: usize,
    found: [usize; BYTES.len()],
    /// The most bytes of snippets.
    bytes: usize,
    took: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let Some((folder, files)) = arguments.split_first().filter(|(_, files)| !files.is_empty()) else {
        println!("skipped: name a folder of projects and files of tasks");
        return;
    };
    let mut indexes: HashMap<String, (Index, HashSet<String>)> = HashMap::new();
    let mut sets: BTreeMap<String, Counts> = BTreeMap::new();
    for path in files {
        for task in tasks::read(Path::new(path)).expect("the tasks are read") {
            let Some((project, inside)) = tasks::project(&task.path) else { continue };
            let known = indexes.entry(project.to_owned()).or_insert_with(|| {
                let root = Path::new(folder).join(project);
                let near = [inside.to_owned()];
                let index = crawl::build_index(&root, &near, CrawlLimits::DEFAULT, &mut || false);
                let all = index.files().iter().flat_map(|it| names(it.text()).map(str::to_owned)).collect();
                (index, all)
            });
            for set in [&task.set, "all"] {
                count(sets.entry(set.to_owned()).or_default(), &task, inside, known);
            }
        }
    }
    println!(
        "{:<24} {:>6} {:>7} {:>10}  {:>24} {:>8} {:>8}",
        "set", "tasks", "needed", "in project", "found in 768 1536 3072 B", "bytes", "ms each"
    );
    for (set, it) in sets {
        let share = |found: usize| 100.0 * found as f64 / it.needed.max(1) as f64;
        println!(
            "{set:<24} {:>6} {:>7} {:>8.1} %   {:>6.1} {:>6.1} {:>6.1} % {:>9.0} {:>8.2}",
            it.tasks,
            it.needed,
            share(it.exist),
            share(it.found[0]),
            share(it.found[1]),
            share(it.found[2]),
            it.bytes as f64 / it.tasks as f64,
            it.took.as_secs_f64() * 1e3 / (it.tasks * BYTES.len()) as f64,
        );
    }
}

fn count(counts: &mut Counts, task: &Task, inside: &str, (index, all): &(Index, HashSet<String>)) {
    let Some(language) = taper_grammars::by_path(Path::new(inside)) else { return };
    let before = task.prefix.len();
    let from = (before.saturating_sub(SEEN.0)..).find(|&at| task.prefix.is_char_boundary(at)).unwrap_or(0);
    let to = (0..=SEEN.1.min(task.suffix.len())).rev().find(|&at| task.suffix.is_char_boundary(at));
    let seen: HashSet<&str> =
        names(&task.prefix[from..]).chain(names(&task.suffix[..to.unwrap_or(0)])).collect();
    // A word that has already begun is not part of the expected text alone.
    let begun = task.prefix.len() - task.prefix.trim_end_matches(is_word).len();
    let line = task.expected.lines().next().unwrap_or("");
    let whole = format!("{}{line}", &task.prefix[before - begun..]);
    let needed: HashSet<&str> = names(&whole).filter(|it| it.len() > 3 && !seen.contains(it)).collect();
    let text = Rope::from_str(&format!("{}{}", task.prefix, task.suffix));
    counts.tasks += 1;
    counts.needed += needed.len();
    counts.exist += needed.iter().filter(|it| all.contains(**it)).count();
    for (bytes, found) in BYTES.into_iter().zip(&mut counts.found) {
        let start = Instant::now();
        let snippets =
            index.find_snippets(Query { text: &text, cursor: before, path: inside, language }, bytes);
        counts.took += start.elapsed();
        let found_names: HashSet<&str> = snippets.iter().flat_map(|it| names(&it.text)).collect();
        *found += needed.iter().filter(|it| found_names.contains(**it)).count();
        if bytes == BYTES[BYTES.len() - 1] {
            counts.bytes += snippets.iter().map(|it| it.text.len()).sum::<usize>();
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|it| !it.is_empty() && !it.starts_with(|c: char| c.is_ascii_digit()))
}
