//! Counts of what was suggested and what became of it, by day, language and model: they merge by addition.
//! It knows nothing of where they are kept, or of what was suggested.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::session::{Counted, Happening};
use crate::suggest::fate::Fate;

/// Days that are kept apart; what is older is one sum.
const DAYS: u64 = 400;
/// The sum of what is older. It sorts before every day.
const EARLIER: &str = "0000-00-00";

/// How long answers took: how many in each class of times. Eight classes to a doubling, so a percentile is off by a
/// sixteenth at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies(BTreeMap<u64, u64>);

impl Latencies {
    /// The first time of the class, in microseconds.
    fn class(time: Duration) -> u64 {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
        // The leading bit and the three behind it.
        let shift = time.ilog2().saturating_sub(3);
        time >> shift << shift
    }

    fn add(&mut self, time: Duration) {
        add(self.0.entry(Self::class(time)).or_default(), 1);
    }

    /// So many of a hundred answers took no longer, in milliseconds; `None` if there were none.
    pub fn percentile(&self, percent: u64) -> Option<f64> {
        let total = self.0.values().fold(0_u64, |sum, &it| sum.saturating_add(it));
        let rank = u64::try_from((u128::from(total) * u128::from(percent)).div_ceil(100)).unwrap_or(total);
        let mut seen = 0_u64;
        let found = self.0.iter().find(|(_, count)| {
            seen = seen.saturating_add(**count);
            seen >= rank.max(1)
        });
        // The middle of the class: its width is an eighth of a power of two.
        found.map(|(&first, _)| {
            let width = 1_u64 << first.max(1).ilog2().saturating_sub(3);
            (first as f64 + (width - 1) as f64 / 2.0) / 1000.0
        })
    }

    /// How many took `from` to below `to` milliseconds.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        let times = from.saturating_mul(1000)..to.saturating_mul(1000);
        if times.is_empty() { 0 } else { self.0.range(times).fold(0, |sum, (_, &it)| sum.saturating_add(it)) }
    }
}

/// What was counted of one language and model on one day, or of all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Questions for the model.
    pub asked: u64,
    /// Suggestions that were shown, each once, however often it was refined or shown again while it was typed along.
    pub shown: u64,
    /// Questions that were answered with nothing.
    pub empty: u64,
    /// Suggestions of which all that was left was taken.
    pub accepted: u64,
    /// Suggestions of which a part was taken.
    pub partly: u64,
    /// Suggestions that were typed along, by their first word at least.
    pub typed: u64,
    /// Suggestions that were left.
    pub dismissed: u64,
    /// Characters that were taken.
    pub characters: u64,
    /// From questions to their answers.
    pub latency: Latencies,
}

fn add(to: &mut u64, number: u64) {
    *to = to.saturating_add(number);
}

impl Counts {
    fn note(&mut self, what: Happening) {
        match what {
            Happening::Asked => add(&mut self.asked, 1),
            Happening::Answered { after, empty } => {
                self.latency.add(after);
                add(&mut self.empty, u64::from(empty));
            }
            Happening::Shown => add(&mut self.shown, 1),
            Happening::Ended { fate, characters } => {
                add(&mut self.characters, characters as u64);
                let count = match fate {
                    Fate::Accepted => &mut self.accepted,
                    Fate::Partly => &mut self.partly,
                    Fate::Typed => &mut self.typed,
                    Fate::Dismissed => &mut self.dismissed,
                };
                add(count, 1);
            }
        }
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        let Self { asked, shown, empty, accepted, partly, typed, dismissed, characters, latency } = other;
        for (to, number) in [
            (&mut self.asked, asked),
            (&mut self.shown, shown),
            (&mut self.empty, empty),
            (&mut self.accepted, accepted),
            (&mut self.partly, partly),
            (&mut self.typed, typed),
            (&mut self.dismissed, dismissed),
            (&mut self.characters, characters),
        ] {
            add(to, *number);
        }
        for (&class, &count) in &latency.0 {
            add(self.latency.0.entry(class).or_default(), count);
        }
    }
}

type ByModel = BTreeMap<String, Counts>;
type ByLanguage = BTreeMap<String, ByModel>;

/// All counts: by day (`2026-01-31`), language and model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// The first day that was counted.
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    days: BTreeMap<String, ByLanguage>,
}

impl Book {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// The first day that was counted.
    pub fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// Counts something that happened on a day.
    pub(crate) fn note(&mut self, day: NaiveDate, counted: &Counted) {
        let Counted { language, model, what } = counted;
        let day = day.to_string();
        if self.since.as_ref().is_none_or(|since| *since > day) {
            self.since = Some(day.clone());
        }
        let models = self.days.entry(day).or_default().entry(language.to_string()).or_default();
        models.entry(model.to_string()).or_default().note(*what);
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.since = self.since.iter().chain(&other.since).min().cloned();
        for (day, languages) in &other.days {
            self.merge_day(day, languages);
        }
    }

    fn merge_day(&mut self, day: &str, languages: &ByLanguage) {
        let into = self.days.entry(day.to_owned()).or_default();
        for (language, models) in languages {
            for (model, counts) in models {
                into.entry(language.clone()).or_default().entry(model.clone()).or_default().merge(counts);
            }
        }
    }

    /// Makes one sum of the days that are long before `today`, so that the file stays small.
    pub(crate) fn compact(&mut self, today: NaiveDate) {
        let Some(first) = today.checked_sub_days(chrono::Days::new(DAYS)) else { return };
        let recent = self.days.split_off(&first.to_string());
        let old = std::mem::replace(&mut self.days, recent);
        old.values().for_each(|languages| self.merge_day(EARLIER, languages));
    }

    fn rows(&self, day: Option<NaiveDate>) -> impl Iterator<Item = (&str, &str, &Counts)> {
        let day = day.map(|day| day.to_string());
        let days = self.days.iter().filter(move |(it, _)| day.as_ref().is_none_or(|day| *it == day));
        days.flat_map(|(_, languages)| {
            languages.iter().flat_map(|(language, models)| {
                models.iter().map(|(model, counts)| (language.as_str(), model.as_str(), counts))
            })
        })
    }

    /// The sum of a day, or of all days.
    pub fn total(&self, day: Option<NaiveDate>) -> Counts {
        sum(self.rows(day).map(|(_, _, counts)| ("", counts))).remove("").unwrap_or_default()
    }

    /// The sums of a day, or of all days, by language.
    pub fn by_language(&self, day: Option<NaiveDate>) -> BTreeMap<String, Counts> {
        sum(self.rows(day).map(|(language, _, counts)| (language, counts)))
    }

    /// The sums of a day, or of all days, by model.
    pub fn by_model(&self, day: Option<NaiveDate>) -> BTreeMap<String, Counts> {
        sum(self.rows(day).map(|(_, model, counts)| (model, counts)))
    }
}

fn sum<'a>(rows: impl Iterator<Item = (&'a str, &'a Counts)>) -> BTreeMap<String, Counts> {
    let mut sums: BTreeMap<String, Counts> = BTreeMap::new();
    for (name, counts) in rows {
        sums.entry(name.to_owned()).or_default().merge(counts);
    }
    sums
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn happened(language: &str, what: Happening) -> Counted {
        Counted { language: language.into(), model: "m".into(), what }
    }

    #[test]
    fn percentiles_are_off_by_a_sixteenth_at_most() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50), None);
        for milliseconds in 1..=1000 {
            latencies.add(Duration::from_millis(milliseconds));
        }
        for percent in [1, 50, 95, 99, 100] {
            let (found, right) = (latencies.percentile(percent).unwrap(), percent as f64 * 10.0);
            assert!((found / right - 1.0).abs() <= 1.0 / 16.0, "{percent}: {found}");
        }
        assert_eq!(latencies.between(0, 128) + latencies.between(128, 1 << 20), 1000);
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            latencies.add(time);
        }
        assert!(latencies.percentile(100).unwrap() > 1e8 && latencies.percentile(0).unwrap() < 0.002);
    }

    #[test]
    fn powers_of_two_in_milliseconds_do_not_share_a_class_with_what_is_shorter() {
        // What `between` cuts at.
        for octave in 0..17 {
            let milliseconds = 1_u64 << octave;
            let mut latencies = Latencies::default();
            latencies.add(Duration::from_micros(milliseconds * 1000));
            let there = latencies.between(milliseconds, milliseconds * 2);
            let below = latencies.between(milliseconds / 2, milliseconds);
            assert_eq!(there + below, 1, "{milliseconds}");
        }
    }

    #[test]
    fn books_merge_by_addition_in_any_order() {
        let mut books = [Book::default(), Book::default(), Book::default()];
        let took = Duration::from_millis(20);
        for (index, (on, language, what)) in [
            ("2026-01-02", "python", Happening::Asked),
            ("2026-01-02", "python", Happening::Answered { after: took, empty: true }),
            ("2026-01-01", "rust", Happening::Shown),
            ("2026-01-02", "rust", Happening::Ended { fate: Fate::Accepted, characters: 7 }),
            ("2026-01-02", "rust", Happening::Ended { fate: Fate::Partly, characters: 2 }),
            ("2026-01-02", "python", Happening::Ended { fate: Fate::Typed, characters: 0 }),
            ("2026-01-03", "python", Happening::Ended { fate: Fate::Dismissed, characters: 0 }),
        ]
        .into_iter()
        .enumerate()
        {
            books[index % 3].note(day(on), &happened(language, what));
        }
        let merged = |order: [usize; 3]| {
            let mut book = Book::default();
            order.iter().for_each(|&index| book.merge(&books[index]));
            book
        };
        let all = merged([0, 1, 2]);
        assert_eq!(all, merged([2, 0, 1]));
        assert_eq!(all.since(), Some("2026-01-01"));
        let total = all.total(None);
        let Counts { asked, shown, empty, accepted, partly, typed, dismissed, characters, .. } = total;
        assert_eq!((asked, shown, empty, accepted), (1, 1, 1, 1));
        assert_eq!((partly, typed, dismissed, characters), (1, 1, 1, 9));
        assert_eq!(all.total(Some(day("2026-01-03"))).dismissed, 1);
        assert_eq!(all.by_language(None)["rust"].characters, 9);
        assert_eq!(all.by_model(Some(day("2026-01-02")))["m"].typed, 1);
        assert!(all.by_model(Some(day("2026-01-04"))).is_empty());
    }

    #[test]
    fn old_days_become_one_sum_and_nothing_is_lost() {
        let mut book = Book::default();
        for on in ["2024-01-01", "2024-05-05", "2026-01-01"] {
            book.note(day(on), &happened("python", Happening::Shown));
        }
        let before = book.total(None);
        book.compact(day("2026-01-02"));
        book.compact(day("2026-01-03"));
        assert_eq!((book.total(None), book.since()), (before, Some("2024-01-01")));
        assert_eq!(book.days.len(), 2);
        assert_eq!(book.total(Some(day("2026-01-01"))).shown, 1);
    }
}
