//! Counts of requests and suggestions, by day, language and model. They merge by addition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::usage::outcome::Outcome;

/// Days that are stored separately; older ones are merged.
const DAYS: u64 = 400;
/// The key of the merged days. It sorts before every day.
const EARLIER: &str = "0000-00-00";

/// Something to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageEvent {
    /// A request arrived.
    Requested,
    /// A request was answered after `latency`, with a text or, if `empty`, without one.
    Responded {
        /// From the request to its response.
        latency: Duration,
        /// Without a text.
        empty: bool,
    },
    /// A newer request replaced it.
    Superseded,
    /// The editor cancelled it.
    Cancelled,
    /// A suggestion is shown that was not shown before.
    Shown,
    /// The outcome of a shown suggestion is known.
    Finished {
        /// What happened to it.
        outcome: Outcome,
        /// Characters of it that were accepted.
        characters: usize,
    },
}

/// An event with what it is counted under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// The language's name.
    pub language: Arc<str>,
    /// The model's name.
    pub model: Arc<str>,
    /// What happened.
    pub event: UsageEvent,
}

/// Response times: counts by class, keyed by the class's lowest time in microseconds. There are eight classes per
/// doubling, so the error of a percentile is at most one sixteenth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LatencyHistogram(BTreeMap<u64, u64>);

impl LatencyHistogram {
    fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
        // Keeps the leading bit and three more.
        let shift = micros.ilog2().saturating_sub(3);
        add(self.0.entry(micros >> shift << shift).or_default(), 1);
    }

    /// The time in milliseconds that this percentage of responses did not exceed; `None` without responses.
    pub fn percentile(&self, percent: u64) -> Option<f64> {
        let total = self.count_between(0, u64::MAX);
        let rank = u64::try_from((u128::from(total) * u128::from(percent)).div_ceil(100)).unwrap_or(total);
        let mut seen = 0_u64;
        let class = self.0.iter().find(|(_, count)| {
            seen = seen.saturating_add(**count);
            seen >= rank.max(1)
        });
        class.map(|(&first, _)| {
            let width = 1_u64 << first.max(1).ilog2().saturating_sub(3);
            (first as f64 + (width - 1) as f64 / 2.0) / 1000.0
        })
    }

    /// How many responses took `from` to below `to` milliseconds.
    pub fn count_between(&self, from: u64, to: u64) -> u64 {
        let times = from.saturating_mul(1000)..to.saturating_mul(1000);
        if times.is_empty() { 0 } else { self.0.range(times).fold(0, |sum, (_, &it)| sum.saturating_add(it)) }
    }
}

/// Counts of one language and model on one day, or any sum of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageStats {
    /// Requests.
    pub asked: u64,
    /// Shown suggestions, each once, however often it was refined or shown again during typing.
    pub shown: u64,
    /// Requests that were answered without a text.
    pub empty: u64,
    /// Requests that a newer one replaced. Not stored.
    #[serde(skip)]
    pub superseded: u64,
    /// Requests that the editor cancelled. Not stored.
    #[serde(skip)]
    pub cancelled: u64,
    /// See [`Outcome::Accepted`].
    pub accepted: u64,
    /// See [`Outcome::PartiallyAccepted`].
    #[serde(rename = "partly")]
    pub partially_accepted: u64,
    /// See [`Outcome::TypedThrough`].
    #[serde(rename = "typed")]
    pub typed_through: u64,
    /// See [`Outcome::Dismissed`].
    pub dismissed: u64,
    /// Accepted characters.
    pub characters: u64,
    /// From requests to their responses.
    pub latency: LatencyHistogram,
}

fn add(to: &mut u64, number: u64) {
    *to = to.saturating_add(number);
}

impl UsageStats {
    /// Counts an event.
    pub fn record(&mut self, event: UsageEvent) {
        let counter = match event {
            UsageEvent::Requested => &mut self.asked,
            UsageEvent::Responded { latency, empty } => {
                self.latency.add(latency);
                return add(&mut self.empty, u64::from(empty));
            }
            UsageEvent::Superseded => &mut self.superseded,
            UsageEvent::Cancelled => &mut self.cancelled,
            UsageEvent::Shown => &mut self.shown,
            UsageEvent::Finished { outcome, characters } => {
                add(&mut self.characters, characters as u64);
                match outcome {
                    Outcome::Accepted => &mut self.accepted,
                    Outcome::PartiallyAccepted => &mut self.partially_accepted,
                    Outcome::TypedThrough => &mut self.typed_through,
                    Outcome::Dismissed => &mut self.dismissed,
                }
            }
        };
        add(counter, 1);
    }

    /// Adds other counts.
    pub fn merge(&mut self, other: &Self) {
        for (to, number) in [
            (&mut self.asked, other.asked),
            (&mut self.shown, other.shown),
            (&mut self.empty, other.empty),
            (&mut self.superseded, other.superseded),
            (&mut self.cancelled, other.cancelled),
            (&mut self.accepted, other.accepted),
            (&mut self.partially_accepted, other.partially_accepted),
            (&mut self.typed_through, other.typed_through),
            (&mut self.dismissed, other.dismissed),
            (&mut self.characters, other.characters),
        ] {
            add(to, number);
        }
        for (&class, &count) in &other.latency.0 {
            add(self.latency.0.entry(class).or_default(), count);
        }
    }
}

type ByLanguageAndModel = BTreeMap<String, BTreeMap<String, UsageStats>>;

/// All counts by day (`2026-01-31`), language and model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageHistory {
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    days: BTreeMap<String, ByLanguageAndModel>,
}

impl UsageHistory {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// The first day that was counted.
    pub fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// Counts an event of a day.
    pub fn record(&mut self, day: NaiveDate, record: &UsageRecord) {
        let UsageRecord { language, model, event } = record;
        let day = day.to_string();
        if self.since.as_ref().is_none_or(|since| *since > day) {
            self.since = Some(day.clone());
        }
        let models = self.days.entry(day).or_default().entry(language.to_string()).or_default();
        models.entry(model.to_string()).or_default().record(*event);
    }

    /// Adds other counts.
    pub fn merge(&mut self, other: &Self) {
        self.since = self.since.iter().chain(&other.since).min().cloned();
        other.days.iter().for_each(|(day, languages)| self.merge_day(day, languages));
    }

    fn merge_day(&mut self, day: &str, languages: &ByLanguageAndModel) {
        let into = self.days.entry(day.to_owned()).or_default();
        for (language, models) in languages {
            for (model, stats) in models {
                into.entry(language.clone()).or_default().entry(model.clone()).or_default().merge(stats);
            }
        }
    }

    /// Merges the days that are long before `today`, so that the file stays small.
    pub fn compact(&mut self, today: NaiveDate) {
        let Some(first) = today.checked_sub_days(chrono::Days::new(DAYS)) else { return };
        let recent = self.days.split_off(&first.to_string());
        let old = std::mem::replace(&mut self.days, recent);
        old.values().for_each(|languages| self.merge_day(EARLIER, languages));
    }

    fn sum_by(
        &self,
        day: Option<NaiveDate>,
        key: for<'a> fn(&'a str, &'a str) -> &'a str,
    ) -> BTreeMap<&str, UsageStats> {
        let day = day.map(|day| day.to_string());
        let mut sums: BTreeMap<&str, UsageStats> = BTreeMap::new();
        for (_, languages) in self.days.iter().filter(|(it, _)| day.as_ref().is_none_or(|day| *it == day)) {
            for (language, models) in languages {
                for (model, stats) in models {
                    sums.entry(key(language, model)).or_default().merge(stats);
                }
            }
        }
        sums
    }

    /// The sum of a day, or of all days.
    pub fn total(&self, day: Option<NaiveDate>) -> UsageStats {
        self.sum_by(day, |_, _| "").remove("").unwrap_or_default()
    }

    /// The sums of a day, or of all days, by language.
    pub fn by_language(&self, day: Option<NaiveDate>) -> BTreeMap<&str, UsageStats> {
        self.sum_by(day, |language, _| language)
    }

    /// The sums of a day, or of all days, by model.
    pub fn by_model(&self, day: Option<NaiveDate>) -> BTreeMap<&str, UsageStats> {
        self.sum_by(day, |_, model| model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn record(language: &str, event: UsageEvent) -> UsageRecord {
        UsageRecord { language: language.into(), model: "m".into(), event }
    }

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let mut latencies = LatencyHistogram::default();
        assert_eq!(latencies.percentile(50), None);
        for milliseconds in 1..=1000 {
            latencies.add(Duration::from_millis(milliseconds));
        }
        for percent in [1, 50, 95, 99, 100] {
            let (found, exact) = (latencies.percentile(percent).unwrap(), percent as f64 * 10.0);
            assert!((found / exact - 1.0).abs() <= 1.0 / 16.0, "{percent}: {found}");
        }
        assert_eq!(latencies.count_between(0, 128) + latencies.count_between(128, 1 << 20), 1000);
        for latency in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            latencies.add(latency);
        }
        assert!(latencies.percentile(100).unwrap() > 1e8 && latencies.percentile(0).unwrap() < 0.002);
    }

    #[test]
    fn histories_merge_by_addition_in_any_order() {
        let mut histories = [UsageHistory::default(), UsageHistory::default()];
        let latency = Duration::from_millis(20);
        for (which, on, language, event) in [
            (0, "2026-01-02", "python", UsageEvent::Responded { latency, empty: true }),
            (1, "2026-01-02", "python", UsageEvent::Responded { latency, empty: false }),
            (1, "2026-01-02", "rust", UsageEvent::Finished { outcome: Outcome::Accepted, characters: 7 }),
            (1, "2026-01-01", "rust", UsageEvent::Finished { outcome: Outcome::Dismissed, characters: 0 }),
            (
                0,
                "2026-01-01",
                "rust",
                UsageEvent::Finished { outcome: Outcome::PartiallyAccepted, characters: 2 },
            ),
        ] {
            histories[which].record(day(on), &record(language, event));
        }
        let [mut one, mut other] = histories.clone();
        one.merge(&histories[1]);
        other.merge(&histories[0]);
        assert_eq!(one, other);
        assert_eq!(one.since(), Some("2026-01-01"));
        let total = one.total(None);
        assert_eq!((total.empty, total.accepted, total.partially_accepted, total.dismissed), (1, 1, 1, 1));
        assert_eq!(total.latency.count_between(0, 100), 2);
        assert_eq!(one.by_language(None)["rust"].characters, 9);
        assert_eq!(one.by_model(Some(day("2026-01-02")))["m"].characters, 7);
        assert!(one.by_model(Some(day("2026-01-04"))).is_empty());
    }

    #[test]
    fn compaction_keeps_the_totals() {
        let mut history = UsageHistory::default();
        for on in ["2024-01-01", "2024-05-05", "2026-01-01"] {
            history.record(day(on), &record("python", UsageEvent::Shown));
        }
        let before = history.total(None);
        history.compact(day("2026-01-02"));
        history.compact(day("2026-01-03"));
        assert_eq!((history.total(None), history.since()), (before, Some("2024-01-01")));
        assert_eq!(history.days.len(), 2);
        assert_eq!(history.total(Some(day("2026-01-01"))).shown, 1);
    }
}
