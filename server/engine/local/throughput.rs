//! Measures the decoder's speed, and sizes prompt chunks so that they can be interrupted in time.

use std::time::Duration;

use crate::ThroughputEstimate;

/// Target time of a prompt chunk if the decoder keeps nothing of an interrupted one: this much work is lost.
const DISCARDED_CHUNK_TIME: Duration = Duration::from_millis(100);
/// The same if it resumes the interrupted layer ([`Decoder::can_resume`](super::Decoder::can_resume)): only that layer
/// is lost, and more only if the next prompt does not begin with the same tokens. A layer takes less than 10 ms, which
/// is also the longest wait for a layer that must finish.
const RESUMABLE_CHUNK_TIME: Duration = Duration::from_millis(200);
/// Fewer tokens cost hardly less: the weights are read once either way, and up to eight rows by the slower product.
const MIN_CHUNK_TOKENS: usize = 16;
/// More tokens gain hardly anything, and their activations need memory.
const MAX_CHUNK_TOKENS: usize = 512;
/// Weight of the newest measurement.
const MEASUREMENT_WEIGHT: f32 = 0.3;

/// `chunk` of `left` tokens, or all of them if fewer than [`MIN_CHUNK_TOKENS`] would remain. Those would cost as much
/// as a chunk of that size. And where products of few rows have other bits than those of many (AMX), the result of a
/// prompt would depend on the speed of its evaluation.
pub(super) fn absorb_remainder(chunk: usize, left: usize) -> usize {
    if left.saturating_sub(chunk) < MIN_CHUNK_TOKENS { left } else { chunk }
}

/// Running averages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Throughput {
    /// Target time of one chunk.
    chunk_time: Duration,
    rates: ThroughputEstimate,
    /// Tokens chosen by a decoding step, and its seconds.
    decode_step: (f32, f32),
}

impl Throughput {
    /// For a decoder that resumes interrupted chunks, or restarts them.
    pub(super) fn new(resumes: bool) -> Self {
        Self {
            chunk_time: if resumes { RESUMABLE_CHUNK_TIME } else { DISCARDED_CHUNK_TIME },
            rates: ThroughputEstimate::default(),
            decode_step: (0.0, 0.0),
        }
    }

    /// The averages, in tokens per second; 0 if not measured.
    pub(super) fn token_rates(&self) -> ThroughputEstimate {
        self.rates
    }

    /// Number of tokens in the next chunk of a prompt with `left` tokens to evaluate, of which the first `begun` are
    /// already started. It has at least these.
    ///
    /// New tokens join an interrupted chunk only if all remaining tokens fit: they must catch up layer by layer, which
    /// means reading the weights again.
    ///
    /// A small remainder is absorbed: see [`absorb_remainder`].
    pub(super) fn chunk_tokens(&self, begun: usize, left: usize) -> usize {
        let most = ((self.rates.prefill * self.chunk_time.as_secs_f32()).round() as usize)
            .clamp(MIN_CHUNK_TOKENS, MAX_CHUNK_TOKENS);
        let chunk = if left > most && 2 * begun >= most { begun } else { most.max(begun) };
        absorb_remainder(chunk, left)
    }

    /// Records that a chunk of `tokens` took `time` for `work`, in tokens: less than all if it was interrupted or
    /// resumed. The few tokens of a keystroke are not representative for the speed of a long prompt.
    pub(super) fn record_prefill(&mut self, tokens: usize, work: f32, time: Duration) {
        let rate = &mut self.rates.prefill;
        if work <= 0.0 || (tokens < MIN_CHUNK_TOKENS && *rate != 0.0) {
            return;
        }
        let new = work / time.as_secs_f32().max(1e-6);
        let part = (work / tokens as f32).min(1.0);
        *rate = if *rate == 0.0 { new } else { *rate + MEASUREMENT_WEIGHT * part * (new - *rate) };
    }

    /// Records that a decoding step that chose `tokens` took `time`.
    pub(super) fn record_decode(&mut self, tokens: usize, time: Duration) {
        // Averages of both instead of their ratio: a single lucky step is not representative.
        let (tokens, time) = (tokens as f32, time.as_secs_f32().max(1e-6));
        let step = &mut self.decode_step;
        if *step == (0.0, 0.0) {
            *step = (tokens, time);
        } else {
            step.0 += MEASUREMENT_WEIGHT * (tokens - step.0);
            step.1 += MEASUREMENT_WEIGHT * (time - step.1);
        }
        self.rates.decode = step.0 / step.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_size_grows_to_the_time_budget() {
        let mut pace = Throughput::new(false);
        assert_eq!(pace.chunk_tokens(0, usize::MAX), MIN_CHUNK_TOKENS);
        for _ in 0..20 {
            let tokens = pace.chunk_tokens(0, usize::MAX);
            pace.record_prefill(tokens, tokens as f32, Duration::from_millis(tokens as u64));
        }
        assert_eq!(pace.chunk_tokens(0, usize::MAX), 100, "1,000 tokens a second for 100 ms");
        let resumed = Throughput { chunk_time: RESUMABLE_CHUNK_TIME, ..pace };
        assert_eq!(resumed.chunk_tokens(0, usize::MAX), 200, "more where little is lost");
        for _ in 0..20 {
            pace.record_prefill(100, 100.0, Duration::from_micros(1));
        }
        assert_eq!(pace.chunk_tokens(0, usize::MAX), MAX_CHUNK_TOKENS);
        for _ in 0..40 {
            pace.record_prefill(16, 16.0, Duration::from_secs(16));
        }
        assert_eq!(pace.chunk_tokens(0, usize::MAX), MIN_CHUNK_TOKENS);
    }

    #[test]
    fn fixed_call_cost_leads_to_large_chunks() {
        let mut pace = Throughput::new(false);
        for _ in 0..40 {
            let tokens = pace.chunk_tokens(0, usize::MAX);
            pace.record_prefill(tokens, tokens as f32, Duration::from_micros(10_000 + 20 * tokens as u64));
        }
        assert_eq!(pace.chunk_tokens(0, usize::MAX), MAX_CHUNK_TOKENS);
    }

    #[test]
    fn next_chunk_contains_all_resumable_tokens() {
        let mut pace = Throughput::new(false);
        pace.record_prefill(300, 300.0, Duration::from_secs(1));
        assert_eq!(pace.chunk_tokens(0, 500), 30);
        assert_eq!(pace.chunk_tokens(25, 500), 25, "the others wait for a chunk of their own");
        assert_eq!(pace.chunk_tokens(25, 29), 29, "unless these are all");
        assert_eq!(pace.chunk_tokens(5, 500), 30);
        assert_eq!(pace.chunk_tokens(60, 500), 60, "no remainder is left");
        assert_eq!(pace.chunk_tokens(60, 60), 60);
    }

    #[test]
    fn chunk_never_leaves_a_small_remainder() {
        let mut pace = Throughput::new(false);
        for rate in 0..60 {
            pace.rates.prefill = rate as f32 * 100.0;
            for begun in [0, 1, 20, 300] {
                for all in begun.max(1)..700 {
                    let chunk = pace.chunk_tokens(begun, all);
                    assert!(
                        begun <= chunk
                            && chunk <= all
                            && (1..MAX_CHUNK_TOKENS + MIN_CHUNK_TOKENS).contains(&chunk)
                    );
                    assert!(
                        chunk == all || all - chunk >= MIN_CHUNK_TOKENS,
                        "{chunk} of {all}, {begun} begun, {rate}"
                    );
                    assert!(chunk >= MIN_CHUNK_TOKENS.min(all), "{chunk} of {all}, {begun} begun, {rate}");
                }
            }
        }
    }

    #[test]
    fn partial_chunk_is_weighted_by_its_work() {
        let mut pace = Throughput::new(false);
        pace.record_prefill(100, 25.0, Duration::from_millis(25));
        assert!((pace.token_rates().prefill - 1000.0).abs() < 1.0, "{:?}", pace.token_rates());
        let (mut whole, mut part) = (pace, pace);
        whole.record_prefill(100, 100.0, Duration::from_secs(1));
        part.record_prefill(100, 10.0, Duration::from_millis(100));
        let (whole, part) = (whole.token_rates().prefill, part.token_rates().prefill);
        assert!(whole < part && part < 1000.0 && whole > 100.0, "{whole} {part}");
        pace.record_prefill(100, -3.0, Duration::from_millis(25));
        pace.record_prefill(100, 0.0, Duration::from_millis(25));
        assert!((pace.token_rates().prefill - 1000.0).abs() < 1.0, "{:?}", pace.token_rates());
    }

    #[test]
    fn short_prefill_does_not_lower_throughput() {
        let mut pace = Throughput::new(false);
        pace.record_prefill(100, 100.0, Duration::from_millis(100));
        pace.record_prefill(2, 2.0, Duration::from_millis(30));
        assert!((pace.token_rates().prefill - 1000.0).abs() < 1.0, "{:?}", pace.token_rates());
        pace.record_decode(1, Duration::from_millis(50));
        assert!((pace.token_rates().decode - 20.0).abs() < 0.1);
        pace.record_decode(3, Duration::from_millis(50));
        assert!((pace.token_rates().decode - 32.0).abs() < 0.1, "1.6 tokens on the average");
        pace.record_decode(1, Duration::ZERO);
        assert!(pace.token_rates().decode.is_finite());
    }
}
