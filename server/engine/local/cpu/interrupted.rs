//! Interrupted batches, kept so that the next batch can continue with the layer that they were in.

use std::collections::VecDeque;
use std::ops::Range;

use crate::TokenId;
use crate::local::ResumableWork;

/// Interrupted batches to keep, each of a different sequence: a request and a prefetch interrupt each other, and
/// neither should restart.
const MAX_INTERRUPTED: usize = 2;

/// Tokens of a batch that have passed the same layers.
#[derive(Debug)]
pub(super) struct TokenGroup {
    /// Their rows in the batch.
    pub(super) rows: Range<usize>,
    /// Number of layers passed; their keys and values are in the pages.
    pub(super) layers_passed: usize,
    /// The residual stream after these layers, `[rows, embedding]`.
    pub(super) stream: Vec<f32>,
    /// If set, the next layer runs to completion before interruption is checked. Set for the first layer (nothing to
    /// resume yet) and for a layer that was interrupted before, so that frequent interruptions cannot starve it.
    pub(super) must_finish_layer: bool,
}

impl TokenGroup {
    fn truncate_rows(&mut self, end: usize) {
        let width = self.stream.len() / self.rows.len().max(1);
        self.rows.end = self.rows.end.min(end);
        self.stream.truncate(self.rows.len() * width);
    }
}

/// Progress of a batch. In each layer a token reads the output of all tokens before it, so none is ever ahead of an
/// earlier one. The progress of the first tokens does not depend on the tokens after them.
#[derive(Debug, Default)]
pub(super) struct BatchProgress {
    /// Tokens that have passed all layers.
    finished: usize,
    /// The tokens after them, in order; each group has passed fewer layers than the one before it.
    groups: Vec<TokenGroup>,
}

impl BatchProgress {
    /// Tokens that have passed all layers.
    pub(super) fn finished_tokens(&self) -> usize {
        self.finished
    }

    /// Tokens that have been started.
    pub(super) fn started_tokens(&self) -> usize {
        self.groups.last().map_or(self.finished, |group| group.rows.end)
    }

    /// Adds tokens that have passed no layer, with their embeddings.
    pub(super) fn start_tokens(&mut self, stream: Vec<f32>, tokens: usize) {
        let start = self.started_tokens();
        self.groups.push(TokenGroup {
            rows: start..start + tokens,
            layers_passed: 0,
            stream,
            must_finish_layer: true,
        });
    }

    /// The group to continue with, and the layer to stop at: where the previous group is, so that both continue
    /// together. Merges groups that have passed the same layers.
    pub(super) fn least_advanced(&mut self, layers: usize) -> Option<(&mut TokenGroup, usize)> {
        while let [.., before, last] = &mut self.groups[..]
            && before.layers_passed == last.layers_passed
        {
            before.rows.end = last.rows.end;
            before.stream.append(&mut last.stream);
            before.must_finish_layer |= last.must_finish_layer;
            self.groups.pop();
        }
        let until = self.groups.iter().nth_back(1).map_or(layers, |before| before.layers_passed);
        self.groups.last_mut().map(|last| (last, until))
    }

    /// Records that all tokens before those of `rest` have passed all layers.
    pub(super) fn mark_finished(&mut self, rest: TokenGroup) {
        self.finished = rest.rows.start;
        self.groups.clear();
        if !rest.rows.is_empty() {
            self.groups.push(rest);
        }
    }

    /// Records that all started tokens have passed all layers.
    pub(super) fn mark_all_finished(&mut self) {
        self.finished = self.started_tokens();
        self.groups.clear();
    }

    /// Keeps the first `tokens`.
    pub(super) fn truncate_tokens(&mut self, tokens: usize) {
        self.finished = self.finished.min(tokens);
        self.groups.retain(|group| group.rows.start < tokens);
        if let Some(last) = self.groups.last_mut() {
            last.truncate_rows(tokens);
        }
    }

    /// How much of the work on the first `tokens` is done, in tokens.
    fn work_done(&self, tokens: usize, layers: usize) -> f32 {
        let groups = self.groups.iter().map(|group| {
            let rows = group.rows.end.min(tokens).saturating_sub(group.rows.start);
            rows as f32 * group.layers_passed as f32 / layers.max(1) as f32
        });
        self.finished.min(tokens) as f32 + groups.sum::<f32>()
    }
}

/// An interrupted batch after the end of a sequence.
#[derive(Debug)]
struct InterruptedBatch {
    sequence: usize,
    tokens: Vec<TokenId>,
    progress: BatchProgress,
}

impl InterruptedBatch {
    fn common_prefix_len(&self, tokens: &[TokenId]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }
}

/// Interrupted batches, oldest first. Each starts at the end of its sequence and lives until the sequence is truncated
/// or gets other tokens.
#[derive(Debug, Default)]
pub(super) struct InterruptedBatches {
    batches: VecDeque<InterruptedBatch>,
}

impl InterruptedBatches {
    /// The resumable work on `tokens` after the end of a sequence.
    pub(super) fn resumable_work(&self, sequence: usize, tokens: &[TokenId], layers: usize) -> ResumableWork {
        let Some(batch) = self.batches.iter().find(|it| it.sequence == sequence) else {
            return ResumableWork::default();
        };
        let tokens = batch.common_prefix_len(tokens);
        let work = |tokens| batch.progress.work_done(tokens, layers);
        ResumableWork { tokens, work: work(tokens), discarded: work(batch.tokens.len()) - work(tokens) }
    }

    /// Takes the progress on `tokens` after the end of a sequence and discards other progress there.
    pub(super) fn take_progress(&mut self, sequence: usize, tokens: &[TokenId]) -> BatchProgress {
        let Some(mut batch) = self.remove_sequence(sequence) else { return BatchProgress::default() };
        batch.progress.truncate_tokens(batch.common_prefix_len(tokens));
        batch.progress
    }

    /// Stores the progress of `tokens` after the end of a sequence. Returns the sequence whose batch was discarded to
    /// make room.
    pub(super) fn store_progress(
        &mut self,
        sequence: usize,
        tokens: &[TokenId],
        progress: BatchProgress,
    ) -> Option<usize> {
        self.remove_sequence(sequence);
        if progress.started_tokens() == 0 {
            return None;
        }
        let oldest = if self.batches.len() == MAX_INTERRUPTED { self.batches.pop_front() } else { None };
        let tokens = tokens[..progress.started_tokens()].to_vec();
        self.batches.push_back(InterruptedBatch { sequence, tokens, progress });
        oldest.map(|it| it.sequence)
    }

    /// Discards the progress after the end of a sequence.
    pub(super) fn discard_sequence(&mut self, sequence: usize) {
        self.remove_sequence(sequence);
    }

    fn remove_sequence(&mut self, sequence: usize) -> Option<InterruptedBatch> {
        let at = self.batches.iter().position(|it| it.sequence == sequence)?;
        self.batches.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two values per token: the token, and its number of passed layers.
    fn token_group(rows: Range<usize>, passed: usize) -> TokenGroup {
        let stream = rows.clone().flat_map(|row| [row as f32, passed as f32]).collect();
        TokenGroup { rows, layers_passed: passed, stream, must_finish_layer: false }
    }

    fn sample_progress() -> BatchProgress {
        BatchProgress {
            finished: 3,
            groups: vec![token_group(3..7, 6), token_group(7..8, 2), token_group(8..12, 1)],
        }
    }

    #[test]
    fn later_token_group_catches_up_and_merges() {
        let mut progress = sample_progress();
        for (rows, until) in [(8..12, 2), (7..12, 6), (3..12, 8)] {
            let (group, to) = progress.least_advanced(8).unwrap();
            assert_eq!((group.rows.clone(), to), (rows.clone(), until));
            let first: Vec<f32> = group.stream.iter().copied().step_by(2).collect();
            assert_eq!(first, rows.map(|row| row as f32).collect::<Vec<_>>());
            group.layers_passed = to;
        }
        progress.mark_finished(token_group(10..12, 7));
        assert_eq!((progress.finished_tokens(), progress.started_tokens()), (10, 12));
        progress.start_tokens(vec![0.0; 6], 3);
        assert_eq!(progress.least_advanced(8).unwrap().0.rows, 12..15);
        progress.mark_all_finished();
        assert!(progress.least_advanced(8).is_none());
        assert_eq!((progress.finished_tokens(), progress.started_tokens()), (15, 15));
    }

    #[test]
    fn truncated_tokens_do_not_count_as_work() {
        for tokens in 0..14 {
            let expected = [8, 8, 8, 6, 6, 6, 6, 2, 1, 1, 1, 1].iter().take(tokens).sum::<i32>() as f32 / 8.0;
            assert_eq!(sample_progress().work_done(tokens, 8), expected);
            let mut cut = sample_progress();
            cut.truncate_tokens(tokens);
            assert_eq!((cut.started_tokens(), cut.finished_tokens()), (tokens.min(12), tokens.min(3)));
            assert_eq!(cut.work_done(99, 8), expected);
            for group in &cut.groups {
                assert!(group.stream.len() == 2 * group.rows.len() && !group.rows.is_empty());
            }
        }
    }

    #[test]
    fn interrupted_batches_are_limited_to_one_per_sequence() {
        let tokens: Vec<TokenId> = (0..12).collect();
        let mut suspended = InterruptedBatches::default();
        assert_eq!(suspended.store_progress(0, &tokens, BatchProgress::default()), None);
        assert_eq!(suspended.resumable_work(0, &tokens, 8), ResumableWork::default());
        for (sequence, forgotten) in [(0, None), (1, None), (1, None), (2, Some(0)), (1, None), (3, Some(2))]
        {
            assert_eq!(suspended.store_progress(sequence, &tokens, sample_progress()), forgotten);
            assert_eq!(suspended.resumable_work(sequence, &tokens, 8).tokens, 12);
        }
        assert_eq!(
            suspended.resumable_work(1, &[0, 1, 2, 3, 99], 8),
            ResumableWork { tokens: 4, work: 3.75, discarded: 3.0 }
        );
        assert_eq!(suspended.take_progress(1, &[0, 1, 99]).started_tokens(), 2);
        assert_eq!(suspended.take_progress(1, &tokens).started_tokens(), 0, "it was taken");
        suspended.discard_sequence(3);
        assert!(suspended.batches.is_empty());
    }
}
