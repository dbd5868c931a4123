//! How fast the decoder is, and how many prompt tokens one chunk may have so that it can be interrupted in time.
//! It knows nothing of clocks: it is told what took how long.

use std::time::Duration;

use crate::Rates;

/// What one chunk of a prompt may take: so much work is lost at most when it is broken off between two layers.
const CHUNK: Duration = Duration::from_millis(100);
/// Fewer tokens cost hardly less: the weights are read once either way, and up to eight rows by the slower product.
const SMALLEST: usize = 16;
/// More tokens gain hardly more, and their activations need room.
const LARGEST: usize = 512;
/// Weight of the newest measurement.
const NEWEST: f32 = 0.3;

/// Running averages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    rates: Rates,
    /// Tokens that a decoding step chose, and the seconds that it took.
    step: (f32, f32),
}

impl Pace {
    /// The averages, tokens per second; 0 where nothing was measured.
    pub(super) fn rates(&self) -> Rates {
        self.rates
    }

    /// Tokens that the next chunk of a prompt may have.
    pub(super) fn chunk(&self) -> usize {
        ((self.rates.prefill * CHUNK.as_secs_f32()).round() as usize).clamp(SMALLEST, LARGEST)
    }

    /// A chunk of `tokens` took `time`. The few tokens of a keystroke say nothing about the speed of a long prompt.
    pub(super) fn note_prefill(&mut self, tokens: usize, time: Duration) {
        if tokens >= SMALLEST || self.rates.prefill == 0.0 {
            average(&mut self.rates.prefill, tokens, time);
        }
    }

    /// A decoding step that chose `tokens` took `time`.
    pub(super) fn note_decode(&mut self, tokens: usize, time: Duration) {
        // Averages of both, not of their ratio: a step that was lucky is no rate.
        let (tokens, time) = (tokens as f32, time.as_secs_f32().max(1e-6));
        let step = &mut self.step;
        if *step == (0.0, 0.0) {
            *step = (tokens, time);
        } else {
            step.0 += NEWEST * (tokens - step.0);
            step.1 += NEWEST * (time - step.1);
        }
        self.rates.decode = step.0 / step.1;
    }
}

fn average(rate: &mut f32, tokens: usize, time: Duration) {
    let new = tokens as f32 / time.as_secs_f32().max(1e-6);
    *rate = if *rate == 0.0 { new } else { *rate + NEWEST * (new - *rate) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_start_small_and_grow_to_the_time_they_may_take() {
        let mut pace = Pace::default();
        assert_eq!(pace.chunk(), SMALLEST);
        for _ in 0..20 {
            let tokens = pace.chunk();
            pace.note_prefill(tokens, Duration::from_millis(tokens as u64));
        }
        assert_eq!(pace.chunk(), 100, "1,000 tokens a second for 100 ms");
        for _ in 0..20 {
            pace.note_prefill(100, Duration::from_micros(1));
        }
        assert_eq!(pace.chunk(), LARGEST);
        for _ in 0..40 {
            pace.note_prefill(16, Duration::from_secs(16));
        }
        assert_eq!(pace.chunk(), SMALLEST);
    }

    #[test]
    fn a_device_with_a_fixed_cost_per_call_gets_large_chunks() {
        let mut pace = Pace::default();
        for _ in 0..40 {
            let tokens = pace.chunk();
            pace.note_prefill(tokens, Duration::from_micros(10_000 + 20 * tokens as u64));
        }
        assert_eq!(pace.chunk(), LARGEST);
    }

    #[test]
    fn a_keystrokes_few_tokens_do_not_slow_the_average() {
        let mut pace = Pace::default();
        pace.note_prefill(100, Duration::from_millis(100));
        pace.note_prefill(2, Duration::from_millis(30));
        assert!((pace.rates().prefill - 1000.0).abs() < 1.0, "{:?}", pace.rates());
        pace.note_decode(1, Duration::from_millis(50));
        assert!((pace.rates().decode - 20.0).abs() < 0.1);
        pace.note_decode(3, Duration::from_millis(50));
        assert!((pace.rates().decode - 32.0).abs() < 0.1, "1.6 tokens on the average");
        pace.note_decode(1, Duration::ZERO);
        assert!(pace.rates().decode.is_finite());
    }
}
