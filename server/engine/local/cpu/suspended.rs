//! Batches that were interrupted, kept so that the next one goes on with the layer that they were in.
//! It knows nothing of weights, or of the keys and values that they have left in the pages.

use std::collections::VecDeque;
use std::ops::Range;

use crate::TokenId;
use crate::local::Begun;

/// Interrupted batches that are kept, each of another sequence: what somebody waits for and what is read ahead for
/// nobody yet interrupt each other, and neither should begin anew.
const KEPT: usize = 2;

/// Tokens of a batch that have passed the same layers.
#[derive(Debug)]
pub(super) struct Group {
    /// Which of the batch's.
    pub(super) rows: Range<usize>,
    /// How many layers; the keys and values of these are in the pages.
    pub(super) passed: usize,
    /// The residual stream behind them, `[rows, embedding]`.
    pub(super) stream: Vec<f32>,
    /// Whether the next layer is passed once it is begun: the first one, because who has passed none has nothing that is
    /// worth keeping, and one that was given up before. So interruptions that follow each other sooner than a layer takes
    /// cannot hold it up for ever.
    pub(super) passes: bool,
}

impl Group {
    fn cut(&mut self, end: usize) {
        let width = self.stream.len() / self.rows.len().max(1);
        self.rows.end = self.rows.end.min(end);
        self.stream.truncate(self.rows.len() * width);
    }
}

/// How far a batch is. In each layer a token reads what all tokens before it have left there, so none is ever ahead of
/// an earlier one: the first tokens of a batch are as far whatever stands behind them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// So many tokens have passed all layers.
    finished: usize,
    /// Those behind them, in order; each group has passed fewer layers than the one before it.
    groups: Vec<Group>,
}

impl Progress {
    /// Tokens that have passed all layers.
    pub(super) fn finished(&self) -> usize {
        self.finished
    }

    /// Tokens that have been begun.
    pub(super) fn begun(&self) -> usize {
        self.groups.last().map_or(self.finished, |group| group.rows.end)
    }

    /// Adds tokens that have passed no layer, with their embeddings.
    pub(super) fn begin(&mut self, stream: Vec<f32>, tokens: usize) {
        let start = self.begun();
        self.groups.push(Group { rows: start..start + tokens, passed: 0, stream, passes: true });
    }

    /// The group that is to go on, and up to which layer: until it is where the group before it is, so that both go on
    /// together. Once it is there, this is the two as one.
    pub(super) fn lowest(&mut self, layers: usize) -> Option<(&mut Group, usize)> {
        while let [.., before, last] = &mut self.groups[..]
            && before.passed == last.passed
        {
            before.rows.end = last.rows.end;
            before.stream.append(&mut last.stream);
            before.passes |= last.passes;
            self.groups.pop();
        }
        let until = self.groups.iter().nth_back(1).map_or(layers, |before| before.passed);
        self.groups.last_mut().map(|last| (last, until))
    }

    /// All tokens up to those of `rest` have passed all layers.
    pub(super) fn finish(&mut self, rest: Group) {
        self.finished = rest.rows.start;
        self.groups.clear();
        if !rest.rows.is_empty() {
            self.groups.push(rest);
        }
    }

    /// All tokens that were begun have passed all layers.
    pub(super) fn finish_all(&mut self) {
        self.finished = self.begun();
        self.groups.clear();
    }

    /// Keeps the first `tokens`.
    pub(super) fn cut(&mut self, tokens: usize) {
        self.finished = self.finished.min(tokens);
        self.groups.retain(|group| group.rows.start < tokens);
        if let Some(last) = self.groups.last_mut() {
            last.cut(tokens);
        }
    }

    /// How much of the work on the first `tokens` is done, in tokens.
    fn work(&self, tokens: usize, layers: usize) -> f32 {
        let groups = self.groups.iter().map(|group| {
            let rows = group.rows.end.min(tokens).saturating_sub(group.rows.start);
            rows as f32 * group.passed as f32 / layers.max(1) as f32
        });
        self.finished.min(tokens) as f32 + groups.sum::<f32>()
    }
}

/// An interrupted batch behind the end of a sequence.
#[derive(Debug)]
struct Batch {
    sequence: usize,
    tokens: Vec<TokenId>,
    progress: Progress,
}

impl Batch {
    fn common(&self, tokens: &[TokenId]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }
}

/// Interrupted batches, the oldest first. Each stands behind the end of its sequence and lives until tokens of the
/// sequence are cut off, or it gets others.
#[derive(Debug, Default)]
pub(super) struct Suspended {
    batches: VecDeque<Batch>,
}

impl Suspended {
    /// What is begun of `tokens` behind the end of a sequence.
    pub(super) fn begun(&self, sequence: usize, tokens: &[TokenId], layers: usize) -> Begun {
        let Some(batch) = self.batches.iter().find(|it| it.sequence == sequence) else {
            return Begun::default();
        };
        let tokens = batch.common(tokens);
        let work = |tokens| batch.progress.work(tokens, layers);
        Begun { tokens, work: work(tokens), lost: work(batch.tokens.len()) - work(tokens) }
    }

    /// Takes what is begun of `tokens` behind the end of a sequence; what else was begun there is forgotten.
    pub(super) fn take(&mut self, sequence: usize, tokens: &[TokenId]) -> Progress {
        let Some(mut batch) = self.forget(sequence) else { return Progress::default() };
        batch.progress.cut(batch.common(tokens));
        batch.progress
    }

    /// Keeps how far the first of `tokens` are behind the end of a sequence. Returns the sequence whose batch is
    /// forgotten for it.
    pub(super) fn keep(&mut self, sequence: usize, tokens: &[TokenId], progress: Progress) -> Option<usize> {
        self.forget(sequence);
        if progress.begun() == 0 {
            return None;
        }
        let oldest = if self.batches.len() == KEPT { self.batches.pop_front() } else { None };
        let tokens = tokens[..progress.begun()].to_vec();
        self.batches.push_back(Batch { sequence, tokens, progress });
        oldest.map(|it| it.sequence)
    }

    /// Forgets what is begun behind the end of a sequence.
    pub(super) fn drop_of(&mut self, sequence: usize) {
        self.forget(sequence);
    }

    fn forget(&mut self, sequence: usize) -> Option<Batch> {
        let at = self.batches.iter().position(|it| it.sequence == sequence)?;
        self.batches.remove(at)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// Two values a token: the token, and the layers that it has passed.
    fn group(rows: Range<usize>, passed: usize) -> Group {
        let stream = rows.clone().flat_map(|row| [row as f32, passed as f32]).collect();
        Group { rows, passed, stream, passes: false }
    }

    fn progress() -> Progress {
        Progress { finished: 3, groups: vec![group(3..7, 6), group(7..8, 2), group(8..12, 1)] }
    }

    #[test]
    fn later_tokens_catch_up_and_go_on_with_the_earlier_ones() {
        let mut progress = progress();
        for (rows, until) in [(8..12, 2), (7..12, 6), (3..12, 8)] {
            let (group, to) = progress.lowest(8).unwrap();
            assert_eq!((group.rows.clone(), to), (rows.clone(), until));
            let first: Vec<f32> = group.stream.iter().copied().step_by(2).collect();
            assert_eq!(first, rows.map(|row| row as f32).collect::<Vec<_>>());
            group.passed = to;
        }
        progress.finish(group(10..12, 7));
        assert_eq!((progress.finished(), progress.begun()), (10, 12));
        progress.begin(vec![0.0; 6], 3);
        assert_eq!(progress.lowest(8).unwrap().0.rows, 12..15);
        progress.finish_all();
        assert!(progress.lowest(8).is_none());
        assert_eq!((progress.finished(), progress.begun()), (15, 15));
    }

    #[test]
    fn what_is_cut_off_is_no_work_done() {
        for tokens in 0..14 {
            let expected = [8, 8, 8, 6, 6, 6, 6, 2, 1, 1, 1, 1].iter().take(tokens).sum::<i32>() as f32 / 8.0;
            assert_eq!(progress().work(tokens, 8), expected);
            let mut cut = progress();
            cut.cut(tokens);
            assert_eq!((cut.begun(), cut.finished()), (tokens.min(12), tokens.min(3)));
            assert_eq!(cut.work(99, 8), expected);
            for group in &cut.groups {
                assert!(group.stream.len() == 2 * group.rows.len() && !group.rows.is_empty());
            }
        }
    }

    #[test]
    fn few_batches_are_kept_and_one_of_a_sequence() {
        let tokens: Vec<TokenId> = (0..12).collect();
        let mut suspended = Suspended::default();
        assert_eq!(suspended.keep(0, &tokens, Progress::default()), None);
        assert_eq!(suspended.begun(0, &tokens, 8), Begun::default());
        for (sequence, forgotten) in [(0, None), (1, None), (1, None), (2, Some(0)), (1, None), (3, Some(2))]
        {
            assert_eq!(suspended.keep(sequence, &tokens, progress()), forgotten);
            assert_eq!(suspended.begun(sequence, &tokens, 8).tokens, 12);
        }
        assert_eq!(suspended.begun(1, &[0, 1, 2, 3, 99], 8), Begun { tokens: 4, work: 3.75, lost: 3.0 });
        assert_eq!(suspended.take(1, &[0, 1, 99]).begun(), 2);
        assert_eq!(suspended.take(1, &tokens).begun(), 0, "it was taken");
        suspended.drop_of(3);
        assert!(suspended.batches.is_empty());
    }
}
