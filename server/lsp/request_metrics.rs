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
    status: UnboundedSender<StatusEvent>,
    arrived: Instant,
    responded: bool,
}

impl RequestMetrics {
    /// Counts a request.
    pub(crate) fn begin(stats: StatsHandle, status: UnboundedSender<StatusEvent>, arrived: Instant) -> Self {
        stats.record_since_start(UsageEvent::Requested);
        // An error means that the server is ending.
        let _ = status.send(StatusEvent::Requested);
        Self { stats, status, arrived, responded: false }
    }

    /// Counts its response.
    pub(crate) fn record_response(mut self, response: &CompletionResponse) {
        self.responded = true;
        let latency = self.arrived.elapsed();
        self.stats.record_since_start(match response {
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
        if !self.responded {
            self.stats.record_since_start(UsageEvent::Cancelled);
        }
        let _ = self.status.send(StatusEvent::Responded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::store::{StatsFileError, StatsWorker};

    #[test]
    fn dropped_request_counts_as_cancelled() {
        let (worker, stats, _finished) = StatsWorker::new(Err(StatsFileError::NoHome));
        let (status, mut events) = tokio::sync::mpsc::unbounded_channel();
        let begin = || RequestMetrics::begin(stats.clone(), status.clone(), Instant::now());
        drop(begin());
        begin().record_response(&CompletionResponse::Empty);
        begin().record_response(&CompletionResponse::Superseded);
        std::thread::spawn(move || worker.run());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let report = runtime.block_on(stats.report());
        let counted =
            ["asked", "cancelled", "empty", "superseded", "shown"].map(|name| report[name].as_u64());
        assert_eq!(counted, [3, 1, 1, 1, 0].map(Some));
        for _ in 0..3 {
            assert_eq!(events.try_recv(), Ok(StatusEvent::Requested));
            assert_eq!(events.try_recv(), Ok(StatusEvent::Responded));
        }
    }
}
