//! How fast the decoder is, and how many prompt tokens one chunk may have so that it can be interrupted in time.
//! It knows nothing of clocks: it is told what took how long.

use std::time::Duration;

use crate::Rates;

/// What one chunk of a prompt may take where the decoder keeps nothing of one that is broken off: so much work is lost.
const LOST: Duration = Duration::from_millis(100);
/// The same where it goes on with the layer in which it was broken off ([`Decoder::resumes`](super::Decoder::resumes)):
/// one of some twenty-four layers is lost, and more only if the next prompt does not begin with the same tokens. That
/// layer takes less than 10 ms: nobody waits for longer where it is one that is not given up.
const KEPT: Duration = Duration::from_millis(200);
/// Fewer tokens cost hardly less: the weights are read once either way, and up to eight rows by the slower product.
const SMALLEST: usize = 16;
/// More tokens gain hardly more, and their activations need room.
const LARGEST: usize = 512;
/// Weight of the newest measurement.
const NEWEST: f32 = 0.3;

/// `chunk` of `left` tokens, or all of them where fewer than [`SMALLEST`] would be left behind. Those would cost as much as
/// that many, and where products of few rows have other bits than those of many (AMX), what a prompt gives would depend
/// on how fast it was read.
pub(super) fn none_left_over(chunk: usize, left: usize) -> usize {
    if left.saturating_sub(chunk) < SMALLEST { left } else { chunk }
}

/// Running averages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// What one chunk may take.
    chunk: Duration,
    rates: Rates,
    /// Tokens that a decoding step chose, and the seconds that it took.
    step: (f32, f32),
}

impl Pace {
    /// Of a decoder that goes on with an interrupted chunk, or begins it anew.
    pub(super) fn new(resumes: bool) -> Self {
        Self { chunk: if resumes { KEPT } else { LOST }, rates: Rates::default(), step: (0.0, 0.0) }
    }

    /// The averages, tokens per second; 0 where nothing was measured.
    pub(super) fn rates(&self) -> Rates {
        self.rates
    }

    /// Tokens that the next chunk of a prompt shall have, of which `left` are to be evaluated and the first `begun` are
    /// on their way. It has these at least.
    ///
    /// Others that join them pass the layers by themselves until they have caught up. That pays if all of the rest goes
    /// with them; else the weights are read once more for few tokens, and those that are begun go alone.
    ///
    /// A few are never left behind: see [`none_left_over`].
    pub(super) fn chunk(&self, begun: usize, left: usize) -> usize {
        let most =
            ((self.rates.prefill * self.chunk.as_secs_f32()).round() as usize).clamp(SMALLEST, LARGEST);
        let chunk = if left > most && 2 * begun >= most { begun } else { most.max(begun) };
        none_left_over(chunk, left)
    }

    /// A chunk of `tokens` was worked on for `time`, of which so much, in tokens, was done: less than all where it was
    /// interrupted, or goes on from where it was. The few tokens of a keystroke say nothing about the speed of a long
    /// prompt.
    pub(super) fn note_prefill(&mut self, tokens: usize, work: f32, time: Duration) {
        let rate = &mut self.rates.prefill;
        if work <= 0.0 || (tokens < SMALLEST && *rate != 0.0) {
            return;
        }
        let new = work / time.as_secs_f32().max(1e-6);
        let part = (work / tokens as f32).min(1.0);
        *rate = if *rate == 0.0 { new } else { *rate + NEWEST * part * (new - *rate) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_start_small_and_grow_to_the_time_they_may_take() {
        let mut pace = Pace::new(false);
        assert_eq!(pace.chunk(0, usize::MAX), SMALLEST);
        for _ in 0..20 {
            let tokens = pace.chunk(0, usize::MAX);
            pace.note_prefill(tokens, tokens as f32, Duration::from_millis(tokens as u64));
        }
        assert_eq!(pace.chunk(0, usize::MAX), 100, "1,000 tokens a second for 100 ms");
        let resumed = Pace { chunk: KEPT, ..pace };
        assert_eq!(resumed.chunk(0, usize::MAX), 200, "more where little is lost");
        for _ in 0..20 {
            pace.note_prefill(100, 100.0, Duration::from_micros(1));
        }
        assert_eq!(pace.chunk(0, usize::MAX), LARGEST);
        for _ in 0..40 {
            pace.note_prefill(16, 16.0, Duration::from_secs(16));
        }
        assert_eq!(pace.chunk(0, usize::MAX), SMALLEST);
    }

    #[test]
    fn a_device_with_a_fixed_cost_per_call_gets_large_chunks() {
        let mut pace = Pace::new(false);
        for _ in 0..40 {
            let tokens = pace.chunk(0, usize::MAX);
            pace.note_prefill(tokens, tokens as f32, Duration::from_micros(10_000 + 20 * tokens as u64));
        }
        assert_eq!(pace.chunk(0, usize::MAX), LARGEST);
    }

    #[test]
    fn what_is_begun_is_in_the_next_chunk_and_takes_few_others_along() {
        let mut pace = Pace::new(false);
        pace.note_prefill(300, 300.0, Duration::from_secs(1));
        assert_eq!(pace.chunk(0, 500), 30);
        assert_eq!(pace.chunk(25, 500), 25, "the others wait for a chunk of their own");
        assert_eq!(pace.chunk(25, 29), 29, "unless these are all");
        assert_eq!(pace.chunk(5, 500), 30);
        assert_eq!(pace.chunk(60, 500), 60, "nothing of it is left behind");
        assert_eq!(pace.chunk(60, 60), 60);
    }

    #[test]
    fn few_tokens_are_never_left_behind() {
        let mut pace = Pace::new(false);
        for rate in 0..60 {
            pace.rates.prefill = rate as f32 * 100.0;
            for begun in [0, 1, 20, 300] {
                for all in begun.max(1)..700 {
                    let chunk = pace.chunk(begun, all);
                    assert!(begun <= chunk && chunk <= all && (1..LARGEST + SMALLEST).contains(&chunk));
                    assert!(
                        chunk == all || all - chunk >= SMALLEST,
                        "{chunk} of {all}, {begun} begun, {rate}"
                    );
                    assert!(chunk >= SMALLEST.min(all), "{chunk} of {all}, {begun} begun, {rate}");
                }
            }
        }
    }

    #[test]
    fn a_part_of_a_chunk_counts_for_what_it_is() {
        let mut pace = Pace::new(false);
        pace.note_prefill(100, 25.0, Duration::from_millis(25));
        assert!((pace.rates().prefill - 1000.0).abs() < 1.0, "{:?}", pace.rates());
        let (mut whole, mut part) = (pace, pace);
        whole.note_prefill(100, 100.0, Duration::from_secs(1));
        part.note_prefill(100, 10.0, Duration::from_millis(100));
        let (whole, part) = (whole.rates().prefill, part.rates().prefill);
        assert!(whole < part && part < 1000.0 && whole > 100.0, "{whole} {part}");
        pace.note_prefill(100, -3.0, Duration::from_millis(25));
        pace.note_prefill(100, 0.0, Duration::from_millis(25));
        assert!((pace.rates().prefill - 1000.0).abs() < 1.0, "{:?}", pace.rates());
    }

    #[test]
    fn a_keystrokes_few_tokens_do_not_slow_the_average() {
        let mut pace = Pace::new(false);
        pace.note_prefill(100, 100.0, Duration::from_millis(100));
        pace.note_prefill(2, 2.0, Duration::from_millis(30));
        assert!((pace.rates().prefill - 1000.0).abs() < 1.0, "{:?}", pace.rates());
        pace.note_decode(1, Duration::from_millis(50));
        assert!((pace.rates().decode - 20.0).abs() < 0.1);
        pace.note_decode(3, Duration::from_millis(50));
        assert!((pace.rates().decode - 32.0).abs() < 0.1, "1.6 tokens on the average");
        pace.note_decode(1, Duration::ZERO);
        assert!(pace.rates().decode.is_finite());
    }
}
