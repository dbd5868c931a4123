//! Models typing: a text in, keys and the pauses between them out.
//!
//! A pause is log-normal: `median * exp(0.45 z)` with `z` from the standard normal distribution, so that half of the
//! pauses within words are shorter than the median and one in twenty is more than twice as long. After a word it is 1.6
//! times as long, before a line break and at the end 2 times, after a line break 3 times; before the first key, it is 8
//! times as long. No pause is shorter than 0.4 or longer than 20 medians. The same seed gives the same pauses.
//!
//! A line break inserts the indentation after it, as editors do. If the hole begins a line, that line does not exist
//! yet: the first key is the line break before it, pressed at the end of the line above.

use crate::tasks::{Key, Task, Trace};

const SPREAD: f64 = 0.45;
const AFTER_WORD: f64 = 1.6;
const BEFORE_BREAK: f64 = 2.0;
const AFTER_BREAK: f64 = 3.0;
const FIRST_LOOK: f64 = 8.0;
const SHORTEST: f64 = 0.4;
const LONGEST: f64 = 20.0;

/// Converts a task to keystrokes with this median pause and this median pause before the first key, in milliseconds;
/// [`FIRST_LOOK`] pauses if that is not given.
pub(super) fn typed(task: &Task, median: f64, look: Option<f64>, random: &mut fastrand::Rng) -> Trace {
    let (prefix, line_break) = task.prefix.split_at(end_of_line_above(&task.prefix));
    let mut texts = keys(line_break);
    texts.extend(keys(&task.expected));
    let mut pause = |median: f64, pause_factor: f64| {
        let length = pause_factor * (SPREAD * standard_normal(random)).exp();
        // Rounded to microseconds to keep the file short.
        (median * length.clamp(SHORTEST, LONGEST) * 1e3).round() / 1e3
    };
    let look_ms = pause(look.map_or(median, |look| look / FIRST_LOOK), FIRST_LOOK);
    let keys = texts.iter().enumerate().map(|(at, &text)| {
        let pause_ms = pause(median, pause_factor(text, texts.get(at + 1).copied()));
        Key { text: text.to_owned(), pause_ms }
    });
    Trace {
        keys: keys.collect(),
        id: task.id.clone(),
        language: task.language.clone(),
        path: task.path.clone(),
        prefix: prefix.to_owned(),
        suffix: task.suffix.clone(),
        look_ms,
    }
}

/// The end of the line above if only blanks are before the cursor on its own line; else the cursor.
fn end_of_line_above(prefix: &str) -> usize {
    let line_break = prefix.trim_end_matches([' ', '\t']);
    let above = line_break.strip_suffix('\n').map(|it| it.strip_suffix('\r').unwrap_or(it));
    above.map_or(prefix.len(), str::len)
}

/// Whether a key inserts a line break.
pub(super) fn breaks(key: &str) -> bool {
    key.starts_with(['\n', '\r'])
}

fn pause_factor(key: &str, next: Option<&str>) -> f64 {
    let in_word = |key: &str| key.starts_with(|it: char| it.is_alphanumeric() || it == '_');
    match next {
        _ if breaks(key) => AFTER_BREAK,
        None => BEFORE_BREAK,
        Some(next) if breaks(next) => BEFORE_BREAK,
        Some(next) if in_word(key) && !in_word(next) => AFTER_WORD,
        Some(_) => 1.0,
    }
}

/// The keys that insert a text.
fn keys(text: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if breaks(rest) {
            let line_break = if rest.starts_with("\r\n") { 2 } else { 1 };
            let following = &rest[line_break..];
            line_break + following.len() - following.trim_start_matches([' ', '\t']).len()
        } else {
            first.len_utf8()
        };
        let (key, following) = rest.split_at(end);
        keys.push(key);
        rest = following;
    }
    keys
}

/// A number from the standard normal distribution (Box and Muller 1958).
fn standard_normal(random: &mut fastrand::Rng) -> f64 {
    // In (0, 1], so that the logarithm is finite.
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(expected: &str) -> Task {
        let name = || "a.py".to_owned();
        Task {
            id: name(),
            language: "python".to_owned(),
            path: name(),
            prefix: "x".to_owned(),
            suffix: "y".to_owned(),
            expected: expected.to_owned(),
            ..Task::default()
        }
    }

    #[test]
    fn line_break_inserts_its_indentation() {
        assert_eq!(keys("a \n\tä\r\n\n  b"), ["a", " ", "\n\t", "ä", "\r\n", "\n  ", "b"]);
        assert!(keys("").is_empty());
    }

    #[test]
    fn new_line_begins_at_end_of_line_above() {
        let typed = |prefix: &str, expected: &str| {
            let task = Task { prefix: prefix.to_owned(), ..task(expected) };
            let trace = typed(&task, 130.0, None, &mut fastrand::Rng::with_seed(1));
            let keys: Vec<String> = trace.keys.into_iter().map(|key| key.text).collect();
            (trace.prefix, keys)
        };
        let keys = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
        assert_eq!(typed("if x:\n    ", "y\n  z"), ("if x:".to_owned(), keys(&["\n    ", "y", "\n  ", "z"])));
        assert_eq!(typed("{\r\n\r\n\t", "y"), ("{\r\n".to_owned(), keys(&["\r\n\t", "y"])));
        assert_eq!(typed("  ", "y"), ("  ".to_owned(), keys(&["y"])));
        assert_eq!(typed("\n  x", "y"), ("\n  x".to_owned(), keys(&["y"])));
    }

    #[test]
    fn pauses_have_median_and_lengthen_at_word_ends() {
        let mut random = fastrand::Rng::with_seed(1);
        let trace = typed(&task(&format!("{} b\nc", "a".repeat(4000))), 130.0, None, &mut random);
        let mut within: Vec<f64> = trace.keys[..3999].iter().map(|key| key.pause_ms).collect();
        within.sort_by(f64::total_cmp);
        assert!((125.0..135.0).contains(&within[2000]), "{}", within[2000]);
        assert!((250.0..300.0).contains(&within[3800]), "{}", within[3800]);
        assert!(within[0] >= 0.4 * 130.0 && within[3998] <= 20.0 * 130.0);
        let mut mean = |place: usize| {
            let text = "ab c\nd";
            let all = (0..2000).map(|_| typed(&task(text), 130.0, None, &mut random).keys[place].pause_ms);
            all.sum::<f64>() / 2000.0
        };
        let mean: Vec<f64> = [0, 1, 3, 4].map(&mut mean).to_vec();
        assert!(mean.is_sorted(), "{mean:?}");
    }

    #[test]
    fn same_seed_gives_same_pauses() {
        let type_it = |seed| typed(&task("hello(world)"), 130.0, None, &mut fastrand::Rng::with_seed(seed));
        assert_eq!(type_it(3), type_it(3));
        assert_ne!(type_it(3), type_it(4));
    }
}
