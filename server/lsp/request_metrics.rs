//! Counts one request since the server's start, and reports it to the status line while it is open.

use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use crate::lsp::status::StatusEvent;
use crate::session::CompletionResponse;
use crate::usage::stats::UsageEvent;
use crate::usage::store::StatsHandle;

/// An open request. Dropped without a response, it counts as cancelled.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    stats: StatsHandle,
    news: UnboundedSender<StatusEvent>,
    arrived: Instant,
    answered: bool,
}

impl RequestMetrics {
    /// Counts a request.
    pub(crate) fn begin(stats: StatsHandle, news: UnboundedSender<StatusEvent>, arrived: Instant) -> Self {
        stats.record_since_start(UsageEvent::Requested);
        // An error means that the server is ending.
        let _ = news.send(StatusEvent::Asked);
        Self { stats, news, arrived, answered: false }
    }

    /// Counts its response.
    pub(crate) fn record_answer(mut self, answer: &CompletionResponse) {
        self.answered = true;
        let latency = self.arrived.elapsed();
        self.stats.record_since_start(match answer {
            CompletionResponse::Superseded => UsageEvent::Superseded,
            CompletionResponse::Empty => UsageEvent::Responded { latency, empty: true },
            CompletionResponse::Shown(_) => {
                self.stats.record_since_start(UsageEvent::Shown);
                UsageEvent::Responded { latency, empty: false }
            }
        });
    }
}

impl Drop for RequestMetrics {
    fn drop(&mut self) {
        if !self.answered {
            self.stats.record_since_start(UsageEvent::Cancelled);
        }
        let _ = self.news.send(StatusEvent::Answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::store::{StatsFileError, StatsWorker};

    #[test]
    fn dropped_request_counts_as_cancelled() {
        let (worker, stats, _finished) = StatsWorker::new(Err(StatsFileError::NoHome));
        let (news, mut events) = tokio::sync::mpsc::unbounded_channel();
        let begin = || RequestMetrics::begin(stats.clone(), news.clone(), Instant::now());
        drop(begin());
        begin().record_answer(&CompletionResponse::Empty);
        begin().record_answer(&CompletionResponse::Superseded);
        std::thread::spawn(move || worker.run());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let report = runtime.block_on(stats.report());
        let counted =
            ["asked", "cancelled", "empty", "superseded", "shown"].map(|name| report[name].as_u64());
        assert_eq!(counted, [3, 1, 1, 1, 0].map(Some));
        for _ in 0..3 {
            assert_eq!(events.try_recv(), Ok(StatusEvent::Asked));
            assert_eq!(events.try_recv(), Ok(StatusEvent::Answered));
        }
    }
}
