//! The decoder on our own kernels: packed weights, half-precision KV caches, all threads of a pool.
//!
//! The logits of a position have the same bits no matter how the tokens before it were split into calls, and no matter
//! what follows them in the cache: see [`kernels`](crate::local::kernels).

use std::ops::{ControlFlow, Range};
use std::slice;

use crate::gguf::Gguf;
use crate::local::config::ModelConfig;
use crate::local::kernels::attention::PAGE_KEYS;
use crate::local::kernels::pack::PackedMatrix;
use crate::local::kernels::{GEMV_MAX_ROWS, Kernel};
use crate::local::lm_head::LmHead;
use crate::local::matmul::{ComputeContext, LinearLayer, NormWeights};
use crate::local::thread_pool::{DisjointChunks, ThreadPool};
use crate::local::{
    Batch, Decoder, LogitsRequest, ResumableWork, SequenceTokens, SequencesBatch, SuffixShift, throughput,
};
use crate::priority::Priority;
use crate::{EngineError, TokenId};

mod feed_forward;
mod interrupted;
mod layer;
mod paged_kv;
mod weight_loader;

use interrupted::{BatchProgress, InterruptedBatches, TokenGroup};
use layer::{LayerContext, LayerWeights, LayerWorkspace, TokenRun, resize_buffer};
use paged_kv::PagedKv;
use weight_loader::WeightLoader;

/// Tokens that pass through the layers together: enough to reuse unpacked weights often, few enough that the
/// activations between two layers stay in the cache. A chunk grows a little rather than leave a small remainder.
const CHUNK_TOKENS: usize = 256;

/// A batch as the layers take it.
struct ForwardPass<'a> {
    tokens: &'a [TokenId],
    /// Where the tokens go.
    runs: Vec<TokenRun>,
    /// The logits requested for the last tokens.
    logits: &'a [LogitsRequest],
    exact: bool,
    priority: Priority,
}

/// A decoder of the Llama family with its weights and sequences.
#[derive(Debug)]
pub struct CpuDecoder {
    config: ModelConfig,
    compute: ComputeContext,
    blocks: Vec<LayerWeights>,
    /// `None` if the output head serves as the embedding.
    embedding: Option<PackedMatrix>,
    /// With the factor of the logits in its weights.
    output_norm: NormWeights,
    lm_head: LmHead,
    paged_kv: PagedKv,
    /// Unfinished work of interrupted calls, after the ends of sequences.
    interrupted: InterruptedBatches,
    capacity: usize,
    workspace: LayerWorkspace,
    logits: Vec<f32>,
}

impl CpuDecoder {
    /// Packs the weights of `gguf`, which is not needed afterwards. `threads` includes the caller's.
    ///
    /// # Errors
    /// A tensor is missing, misshapen, or stored in a format without kernels; or memory is short.
    pub fn new(
        gguf: &Gguf,
        config: &ModelConfig,
        capacity: usize,
        kernel: Kernel,
        threads: usize,
    ) -> Result<Self, EngineError> {
        Self::with_pool(gguf, config, capacity, kernel, ThreadPool::new(threads))
    }

    /// The same with an existing pool.
    pub(super) fn with_pool(
        gguf: &Gguf,
        config: &ModelConfig,
        capacity: usize,
        kernel: Kernel,
        pool: ThreadPool,
    ) -> Result<Self, EngineError> {
        let compute = ComputeContext::new(kernel, pool);
        let load = WeightLoader { gguf, config, pool: &compute.pool };
        let ModelConfig { embedding, vocabulary, .. } = *config;
        let (table, head) = if config.tied_output {
            (None, "token_embd.weight")
        } else {
            (Some(load.load_packed("token_embd.weight", vocabulary, embedding)?), "output.weight")
        };
        let head = LmHead::new(LinearLayer {
            weight: load.load_planes(head, vocabulary, embedding)?,
            bias: load.load_optional_vector("output.bias", vocabulary)?,
        });
        let capacity = config.context_capacity(capacity);
        let blocks = (0..config.blocks).map(|index| load.load_layer(index)).collect::<Result<_, _>>()?;
        let mut output_norm = load.load_norm("output_norm", embedding)?;
        for values in [Some(&mut output_norm.weight), output_norm.bias.as_mut()].into_iter().flatten() {
            values.iter_mut().for_each(|value| *value *= config.logit_scale);
        }
        Ok(Self {
            config: config.clone(),
            compute,
            blocks,
            embedding: table,
            output_norm,
            lm_head: head,
            paged_kv: PagedKv::new(config),
            interrupted: InterruptedBatches::default(),
            capacity,
            workspace: LayerWorkspace::default(),
            logits: Vec::new(),
        })
    }

    /// Number of threads, including the caller's.
    pub fn thread_count(&self) -> usize {
        self.compute.pool.thread_count()
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> u64 {
        let blocks = self.blocks.iter().flat_map(|block| {
            let LayerWeights { query, key, value, attention_output, .. } = block;
            [query, key, value, attention_output]
        });
        let feed_forward = self.blocks.iter().map(|block| block.feed_forward.byte_len()).sum::<usize>();
        let blocks = feed_forward + blocks.map(|linear| linear.weight.byte_len()).sum::<usize>();
        (blocks
            + self.lm_head.weight().byte_len()
            + self.embedding.as_ref().map_or(0, PackedMatrix::byte_len)) as u64
    }

    /// Bytes of the packed weights that one decoded token reads if only its greatest logit is requested: all except the
    /// embedding table and what the head's screening saves.
    pub fn streamed_bytes(&self) -> u64 {
        let experts = self.config.experts;
        let unused = self.blocks.iter().map(|block| &block.feed_forward);
        let unused = unused.map(|it| it.byte_len() - it.streamed_bytes(experts)).sum::<usize>();
        let spared = unused + self.lm_head.weight().byte_len() - self.lm_head.streamed_bytes();
        self.weight_bytes() - (spared + self.embedding.as_ref().map_or(0, PackedMatrix::byte_len)) as u64
    }

    /// Takes the first `end` tokens of a batch through the remaining layers; about [`CHUNK_TOKENS`] of them are
    /// unfinished. Leaves the stream of the last `rows` in the workspace; these stay unfinished, before the last layer,
    /// because only that layer can produce their logits.
    fn run_layers(
        &mut self,
        pass: &ForwardPass<'_>,
        end: usize,
        rows: usize,
        progress: &mut BatchProgress,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Self { config, blocks, embedding, lm_head: head, paged_kv: pages, workspace: work, .. } = self;
        let compute = self.compute.for_batch(pass.exact, pass.priority);
        let width = config.embedding;
        let table = embedding.as_ref().unwrap_or(head.weight());
        let new = &pass.tokens[progress.started_tokens().min(end)..end];
        if !new.is_empty() {
            let mut stream = vec![0.0; new.len() * width];
            let places = DisjointChunks::new(&mut stream, width);
            compute.pool.run_pieces(new.len(), |row, _| {
                // SAFETY: each row is one piece, and each piece runs once.
                let stream = unsafe { places.get(row) };
                table.dequantize_row(new[row] as usize, stream);
                if config.embedding_scale != 1.0 {
                    stream.iter_mut().for_each(|value| *value *= config.embedding_scale);
                }
            });
            progress.start_tokens(stream, new.len());
        }
        while let Some((group, until)) = progress.least_advanced(blocks.len()) {
            let count = group.rows.len();
            let runs: Vec<TokenRun> = pass.runs.iter().map(|run| run.intersect_tokens(&group.rows)).collect();
            work.compute_angles(&config.ropes, &runs);
            for (index, block) in blocks.iter().enumerate().take(until).skip(group.layers_passed) {
                let mut layer = LayerContext { config, compute, paged_kv: pages, index };
                // After the last layer's keys and values, only the requested positions matter.
                let is_last = index + 1 == blocks.len();
                let keep = if is_last { rows } else { count };
                work.layer_input.clone_from(&group.stream);
                std::mem::swap(&mut work.stream, &mut group.stream);
                // A layer of few tokens ends too soon for polling inside it to pay off.
                let is_passed = group.must_finish_layer || count <= GEMV_MAX_ROWS;
                let inside: &mut dyn FnMut() -> _ =
                    if is_passed { &mut || ControlFlow::Continue(()) } else { &mut *look };
                if block.run_layer(&mut layer, work, &runs, count, keep, inside).is_break() {
                    // The layer restarts. Its output in the pages is overwritten before it is read.
                    std::mem::swap(&mut work.layer_input, &mut group.stream);
                    group.must_finish_layer = true;
                    return ControlFlow::Break(());
                }
                if is_last {
                    let stream = work.layer_input[(count - rows) * width..].to_vec();
                    progress.mark_finished(TokenGroup {
                        rows: end - rows..end,
                        layers_passed: index,
                        stream,
                        must_finish_layer: false,
                    });
                    return look();
                }
                std::mem::swap(&mut work.stream, &mut group.stream);
                group.layers_passed += 1;
                group.must_finish_layer = false;
                look()?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Computes the logits of the last chunk's last `rows`, into row `written` of the result.
    fn project_logits(
        &mut self,
        pass: &ForwardPass<'_>,
        rows: usize,
        written: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Self { config, lm_head: head, output_norm, workspace: work, logits, .. } = self;
        let compute = self.compute.for_batch(pass.exact, pass.priority);
        let (vocabulary, width) = (config.vocabulary, config.embedding);
        let stream = &work.stream;
        compute.prepare_rows(&mut work.activations, rows, width, |row, out| {
            compute.normalize(&stream[row * width..(row + 1) * width], output_norm, config.norm_epsilon, out);
        });
        let out = &mut logits[written * vocabulary..(written + rows) * vocabulary];
        head.compute_logits(&compute, &work.activations, &pass.logits[written..written + rows], out);
        if let Some(limit) = config.logit_softcap {
            // It keeps their order, so that it may follow the search for the greatest one.
            compute.apply_soft_cap(out, limit);
        }
        look()
    }

    /// Stores the progress of `tokens`, for the next batch of this sequence.
    fn store_interrupted(&mut self, sequence: usize, tokens: &[TokenId], mut progress: BatchProgress) {
        progress.truncate_tokens(tokens.len());
        let Self { paged_kv: pages, interrupted: suspended, .. } = self;
        pages.trim_pages(sequence, pages.sequence_len(sequence) + progress.started_tokens());
        if let Some(forgotten) = suspended.store_progress(sequence, tokens, progress) {
            pages.trim_pages(forgotten, 0);
        }
    }

    /// Reserves pages for a batch that ends at position `end`, copies its shifted segment into them, and returns where
    /// its tokens go.
    fn place_tokens(&mut self, batch: &Batch<'_>, end: usize) -> Vec<TokenRun> {
        let sequence = batch.sequence;
        let base = self.paged_kv.sequence_len(sequence);
        self.paged_kv.reserve_pages(sequence, end);
        let count = batch.tokens.len();
        let Some(SuffixShift { insert_after, source, rows, .. }) = &batch.suffix_shift else {
            return vec![TokenRun { tokens: 0..count, sequence, position: base }];
        };
        let at = base + insert_after;
        let pool = self.compute.pool.with_priority(batch.priority);
        self.paged_kv.shift_suffix(*source, rows.clone(), sequence, at, &self.config, pool);
        vec![
            TokenRun { tokens: 0..*insert_after, sequence, position: base },
            TokenRun { tokens: *insert_after..count, sequence, position: at + rows.len() },
        ]
    }

    /// Takes a batch of one sequence through the layers, in chunks, and computes its logits. If `look` breaks, what can
    /// be resumed is stored.
    fn run_chunks(
        &mut self,
        pass: &ForwardPass<'_>,
        sequence: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (tokens, rows) = (pass.tokens, pass.logits.len());
        // Tokens before a shifted segment do not depend on it.
        let first = &tokens[..pass.runs[0].tokens.end];
        let mut progress = self.interrupted.take_progress(sequence, first);
        if progress.finished_tokens() > tokens.len() - rows {
            // Logits come from the last layer.
            progress.truncate_tokens(tokens.len() - rows);
        }
        let mut written = 0;
        let mut start = progress.finished_tokens();
        while start < tokens.len() {
            let chunk = start..start + throughput::absorb_remainder(CHUNK_TOKENS, tokens.len() - start);
            start = chunk.end;
            // Requested positions in this chunk: those among the last `rows` of the batch.
            let left = tokens.len() - chunk.end;
            let here = rows.saturating_sub(left).min(chunk.len()).min(rows - written);
            let mut flow = self.run_layers(pass, chunk.end, here, &mut progress, look);
            if here > 0 && flow.is_continue() {
                flow = self.project_logits(pass, here, written, look);
                written += here;
            }
            if flow.is_break() {
                self.store_interrupted(sequence, first, progress);
                return flow;
            }
            progress.mark_all_finished();
        }
        ControlFlow::Continue(())
    }

    fn check_token(&self, token: TokenId) -> Result<(), EngineError> {
        let vocabulary = self.config.vocabulary;
        if (token as usize) < vocabulary {
            return Ok(());
        }
        let problem = format!("token {token} is outside the vocabulary of {vocabulary}");
        Err(EngineError::Device { device: "CPU".to_owned(), source: problem.into() })
    }
}

impl Decoder for CpuDecoder {
    fn forward_batch(
        &mut self,
        batch: &Batch<'_>,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError> {
        let &Batch { sequence, tokens, exact, priority, .. } = batch;
        let shifted = batch.suffix_shift.as_ref().map_or(0, |shift| shift.rows.len());
        let end = self.paged_kv.sequence_len(sequence) + tokens.len() + shifted;
        if end > self.capacity {
            return Err(EngineError::PromptTooLong { tokens: end, context: self.capacity });
        }
        tokens.iter().try_for_each(|&token| self.check_token(token))?;
        let logits = &batch.logits[batch.logits.len().saturating_sub(tokens.len())..];
        resize_buffer(&mut self.logits, logits.len() * self.config.vocabulary);
        if tokens.is_empty() && shifted == 0 {
            return Ok(ControlFlow::Continue(&self.logits));
        }
        let runs = self.place_tokens(batch, end);
        let pass = ForwardPass { tokens, runs, logits, exact, priority };
        if self.run_chunks(&pass, sequence, look).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.paged_kv.append_tokens(sequence, tokens, batch.suffix_shift.as_ref());
        Ok(ControlFlow::Continue(&self.logits))
    }

    fn forward_sequences(
        &mut self,
        batch: &SequencesBatch<'_>,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError> {
        let SequencesBatch { sequences, tokens, logits } = *batch;
        let mut runs = Vec::with_capacity(tokens.len());
        for (row, (&sequence, &token)) in sequences.iter().zip(tokens).enumerate() {
            let position = self.paged_kv.sequence_len(sequence);
            if position >= self.capacity {
                return Err(EngineError::PromptTooLong { tokens: position + 1, context: self.capacity });
            }
            self.check_token(token)?;
            runs.push(TokenRun { tokens: row..row + 1, sequence, position });
        }
        for run in &runs {
            self.paged_kv.reserve_pages(run.sequence, run.end_position());
        }
        let count = tokens.len();
        resize_buffer(&mut self.logits, count * self.config.vocabulary);
        let pass = ForwardPass { tokens, runs, logits, exact: true, priority: Priority::Interactive };
        let mut flow = self.run_layers(&pass, count, count, &mut BatchProgress::default(), look);
        if flow.is_continue() {
            flow = self.project_logits(&pass, count, 0, look);
        }
        for (&sequence, token) in sequences.iter().zip(tokens) {
            match flow {
                ControlFlow::Continue(()) => {
                    self.paged_kv.append_tokens(sequence, slice::from_ref(token), None);
                }
                ControlFlow::Break(()) => self.paged_kv.trim_pages(sequence, 0),
            }
        }
        Ok(flow.map_continue(|()| &self.logits[..]))
    }

    fn sequence_tokens(&self, sequence: usize) -> &SequenceTokens {
        self.paged_kv.sequence_tokens(sequence)
    }

    fn truncate_sequence(&mut self, sequence: usize, len: usize) {
        if len < self.sequence_len(sequence) {
            self.interrupted.discard_sequence(sequence);
            self.paged_kv.truncate_sequence(sequence, len);
        }
    }

    fn clear_sequence(&mut self, sequence: usize) {
        self.interrupted.discard_sequence(sequence);
        self.paged_kv.truncate_sequence(sequence, 0);
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn is_batch_invariant(&self) -> bool {
        true
    }

    fn resize_sequences(&mut self, sequences: usize) -> usize {
        (sequences.max(1)..self.paged_kv.sequence_count())
            .for_each(|gone| self.interrupted.discard_sequence(gone));
        self.paged_kv.resize_sequences(sequences.max(1));
        self.paged_kv.sequence_count()
    }

    fn fork_sequence(&mut self, from: usize, to: usize, rows: Range<usize>) {
        self.interrupted.discard_sequence(to);
        self.paged_kv.fork_sequence(from, to, rows);
    }

    fn can_resume(&self) -> bool {
        true
    }

    fn resumable_work(&self, sequence: usize, tokens: &[TokenId]) -> ResumableWork {
        self.interrupted.resumable_work(sequence, tokens, self.blocks.len())
    }

    fn kv_bytes(&self) -> usize {
        self.paged_kv.total_bytes()
    }

    fn kv_bytes_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(PAGE_KEYS) * self.paged_kv.page_bytes()
    }
}

#[cfg(test)]
mod tests;
