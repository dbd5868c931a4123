//! Draws a reproducible sample of tasks: the same number of each set, kind and language.

use std::collections::BTreeMap;

use crate::tasks::Task;

/// The unit of sampling and reporting: tasks of one set and kind in one language.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Stratum {
    /// The set's name without its language: `real_python_word` is of `real_word`.
    pub(super) set: String,
    /// The tasks' kind.
    pub(super) kind: String,
    /// Their language.
    pub(super) language: String,
}

impl Stratum {
    pub(super) fn of(task: &Task) -> Self {
        let parts: Vec<&str> = task.set.split('_').filter(|part| *part != task.language).collect();
        Self { set: parts.join("_"), kind: task.kind.clone(), language: task.language.clone() }
    }
}

/// At most `per` tasks of each stratum. A task's rank depends on its name and the seed only, so that a larger sample
/// contains a smaller one and other files change nothing.
pub(super) fn draw(tasks: Vec<Task>, per: Option<usize>, seed: u64) -> Vec<Task> {
    let mut strata: BTreeMap<Stratum, Vec<Task>> = BTreeMap::new();
    for task in tasks {
        strata.entry(Stratum::of(&task)).or_default().push(task);
    }
    let drawn = strata.into_values().flat_map(|mut tasks| {
        let place = |task: &Task| fastrand::Rng::with_seed(seed ^ hash(&[&task.id])).u64(..);
        tasks.sort_by_cached_key(|task| (place(task), content(task)));
        tasks.truncate(per.unwrap_or(usize::MAX));
        tasks
    });
    drawn.collect()
}

/// A hash of a task's text.
pub(super) fn content(task: &Task) -> String {
    format!("{:016x}", hash(&[&task.path, &task.language, &task.prefix, &task.suffix, &task.expected]))
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the same in every build.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(language: &str, count: usize) -> Vec<Task> {
        let task = |at: usize| Task {
            id: format!("{language}{at}"),
            set: format!("real_{language}_word"),
            language: language.to_owned(),
            kind: "rest-of-line".to_owned(),
            ..Task::default()
        };
        (0..count).map(task).collect()
    }

    fn ids(tasks: &[Task]) -> Vec<&str> {
        tasks.iter().map(|task| task.id.as_str()).collect()
    }

    #[test]
    fn sample_is_reproducible_and_larger_contains_smaller() {
        let all = || [tasks("rust", 40), tasks("python", 30)].concat();
        let five = draw(all(), Some(5), 1);
        assert_eq!(ids(&five).iter().filter(|id| id.starts_with("rust")).count(), 5);
        assert_eq!(five.len(), 10);
        let backwards: Vec<Task> = all().into_iter().rev().collect();
        assert_eq!(ids(&draw(backwards, Some(5), 1)), ids(&five));
        assert_eq!(ids(&draw(tasks("rust", 40), Some(5), 1)), ids(&five)[5..]);
        let nine = draw(all(), Some(9), 1);
        assert!(ids(&five).iter().all(|id| ids(&nine).contains(id)));
        assert_ne!(ids(&draw(all(), Some(5), 2)), ids(&five));
        assert_eq!(draw(all(), None, 1).len(), 70);
    }

    #[test]
    fn stratum_set_omits_the_language() {
        assert_eq!(Stratum::of(&tasks("python", 1)[0]).set, "real_word");
        let single = Task { set: "he_single".into(), language: "python".into(), ..Task::default() };
        assert_eq!(Stratum::of(&single).set, "he_single");
    }

    #[test]
    fn changed_task_has_a_different_hash() {
        let task = tasks("rust", 1).remove(0);
        let changed = Task { suffix: "x".into(), ..task.clone() };
        assert_ne!(content(&task), content(&changed));
        // Known value of FNV-1a over "a" and our separator is not published; over nothing it is its offset.
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
    }
}
