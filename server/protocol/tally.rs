//! Counts of what was asked and answered since the start: in memory only, and told to nobody but the user.
//! It knows nothing of what the questions were about.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::protocol::status::News;
use crate::session::Answer;

/// Answers whose times are kept, the newest ones.
const KEPT: usize = 1000;

/// The counts.
#[derive(Debug)]
pub(crate) struct Tally {
    since: Instant,
    asked: u64,
    shown: u64,
    empty: u64,
    superseded: u64,
    cancelled: u64,
    accepted: u64,
    /// From a question to its answer, shown or empty.
    latencies: VecDeque<Duration>,
}

impl Default for Tally {
    fn default() -> Self {
        let (asked, shown, empty, superseded, cancelled, accepted) = (0, 0, 0, 0, 0, 0);
        let latencies = VecDeque::new();
        Self { since: Instant::now(), asked, shown, empty, superseded, cancelled, accepted, latencies }
    }
}

impl Tally {
    /// The user took a suggestion.
    pub(crate) fn accept(&mut self) {
        self.accepted += 1;
    }

    fn answer(&mut self, answer: &Answer, latency: Duration) {
        match answer {
            Answer::Superseded => {
                self.superseded += 1;
                return;
            }
            Answer::Shown(_) => self.shown += 1,
            Answer::Nothing => self.empty += 1,
        }
        if self.latencies.len() == KEPT {
            self.latencies.pop_front();
        }
        self.latencies.push_back(latency);
    }

    /// The counts as the answer to a command; times are null while there are none.
    pub(crate) fn written(&self) -> Value {
        let mut latencies: Vec<Duration> = self.latencies.iter().copied().collect();
        latencies.sort_unstable();
        // The nearest rank: the smallest time that so many of a hundred answers did not exceed.
        let percentile = |percent: usize| {
            let rank = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(rank).map(|latency| (latency.as_secs_f64() * 10_000.0).round() / 10.0)
        };
        json!({
            "seconds": self.since.elapsed().as_secs(),
            "asked": self.asked,
            "shown": self.shown,
            "empty": self.empty,
            "superseded": self.superseded,
            "cancelled": self.cancelled,
            "accepted": self.accepted,
            "p50Ms": percentile(50),
            "p95Ms": percentile(95),
        })
    }
}

/// A question that is counted: asked when made, cancelled when dropped without an answer.
#[derive(Debug)]
pub(crate) struct Asking {
    tally: Arc<Mutex<Tally>>,
    news: UnboundedSender<News>,
    arrived: Instant,
    answered: bool,
}

impl Asking {
    /// A question arrived now.
    pub(crate) fn begin(tally: Arc<Mutex<Tally>>, news: UnboundedSender<News>, arrived: Instant) -> Self {
        tally.lock().unwrap_or_else(PoisonError::into_inner).asked += 1;
        // An error means that nobody is told any more.
        let _ = news.send(News::Asked);
        Self { tally, news, arrived, answered: false }
    }

    /// It was answered.
    pub(crate) fn answered(mut self, answer: &Answer) {
        self.answered = true;
        let latency = self.arrived.elapsed();
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).answer(answer, latency);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.answered {
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).cancelled += 1;
        }
        let _ = self.news.send(News::Answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_newest_answers_and_superseded_ones_have_no_time() {
        let mut tally = Tally::default();
        assert_eq!(tally.written()["p50Ms"], Value::Null);
        for _ in 0..KEPT {
            tally.answer(&Answer::Nothing, Duration::from_secs(9));
        }
        for milliseconds in 1..=1000 {
            tally.answer(&Answer::Nothing, Duration::from_millis(milliseconds));
        }
        tally.answer(&Answer::Superseded, Duration::from_secs(1));
        let written = tally.written();
        assert_eq!((&written["p50Ms"], &written["p95Ms"]), (&json!(500.0), &json!(950.0)));
        assert_eq!((&written["empty"], &written["superseded"]), (&json!(2000), &json!(1)));
    }

    #[test]
    fn a_question_dropped_unanswered_counts_as_cancelled() {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (news, mut told) = tokio::sync::mpsc::unbounded_channel();
        drop(Asking::begin(Arc::clone(&tally), news.clone(), Instant::now()));
        Asking::begin(Arc::clone(&tally), news, Instant::now()).answered(&Answer::Nothing);
        let written = tally.lock().unwrap_or_else(PoisonError::into_inner).written();
        assert_eq!(
            (&written["asked"], &written["cancelled"], &written["empty"]),
            (&json!(2), &json!(1), &json!(1))
        );
        for expected in [News::Asked, News::Answered, News::Asked, News::Answered] {
            assert_eq!(told.try_recv(), Ok(expected));
        }
    }
}
