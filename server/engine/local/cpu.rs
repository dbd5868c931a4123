//! The decoder on our own kernels: packed weights, half-precision KV caches, all threads of a pool.
//! It knows nothing of prompts, of sampling, or of devices other than the CPU.
//!
//! The logits of a position are the same bits however the tokens before it were split into calls, and whatever
//! else was in the cache behind them: see [`kernels`](crate::local::kernels).

use std::ops::{ControlFlow, Range};

use crate::gguf::Gguf;
use crate::local::config::Config;
use crate::local::head::Head;
use crate::local::kernels::attention::KEYS;
use crate::local::kernels::pack::Packed;
use crate::local::kernels::{Kernel, THIN_ROWS};
use crate::local::linear::{Compute, Linear};
use crate::local::pool::{Chunks, Pool};
use crate::local::{Ask, Batch, Begun, Decoder, pace};
use crate::{EngineError, TokenId};

mod layer;
mod load;
mod pages;
mod suspended;

use layer::{Block, Layer, Run, Work, resize};
use load::Load;
use pages::Pages;
use suspended::{Group, Progress, Suspended};

/// Tokens that pass through the layers together: enough to use unpacked weights often, few enough that what
/// lies between two layers stays in the cache. A few more where else these would be left over.
const CHUNK: usize = 256;

/// A decoder of the llama family with its weights and sequences.
#[derive(Debug)]
pub struct CpuDecoder {
    config: Config,
    compute: Compute,
    blocks: Vec<Block>,
    /// None if it is the output head.
    embedding: Option<Packed>,
    output_norm: Vec<f32>,
    head: Head,
    /// What the rows of the next call are for.
    asks: Vec<Ask>,
    pages: Pages,
    /// What of interrupted calls is behind the ends of sequences.
    suspended: Suspended,
    /// The sequence that is selected.
    current: usize,
    capacity: usize,
    work: Work,
    logits: Vec<f32>,
}

impl CpuDecoder {
    /// Packs the weights of `gguf`, which is not needed afterwards. `threads` includes the caller's.
    ///
    /// # Errors
    /// A tensor is missing, misshapen, or stored in a format without kernels; or memory is short.
    pub fn new(
        gguf: &Gguf,
        config: &Config,
        capacity: usize,
        kernel: Kernel,
        threads: usize,
    ) -> Result<Self, EngineError> {
        Self::on(gguf, config, capacity, kernel, Pool::new(threads))
    }

    /// The same on threads that are there already.
    pub(super) fn on(
        gguf: &Gguf,
        config: &Config,
        capacity: usize,
        kernel: Kernel,
        pool: Pool,
    ) -> Result<Self, EngineError> {
        let compute = Compute::new(kernel, pool);
        let load = Load { gguf, pool: &compute.pool };
        let Config { embedding, feed_forward, vocabulary, head_dim, .. } = *config;
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let (table, head) = if config.tied_output {
            (None, "token_embd.weight")
        } else {
            (Some(load.packed("token_embd.weight", vocabulary, embedding)?), "output.weight")
        };
        let head = Head::new(Linear { weight: load.planes(head, vocabulary, embedding)?, bias: None });
        let capacity = config.capacity(capacity);
        let mut blocks = Vec::with_capacity(config.blocks);
        for index in 0..config.blocks {
            let name = |part: &str| format!("blk.{index}.{part}");
            let linear = |part: &str, rows, columns, bias| load.linear(&name(part), rows, columns, bias);
            let head_norm =
                |part: &str| config.qk_norm.then(|| load.floats(&name(part), head_dim)).transpose();
            blocks.push(Block {
                attention_norm: load.floats(&name("attn_norm.weight"), embedding)?,
                query: linear("attn_q", query_width, embedding, config.qkv_bias)?,
                key: linear("attn_k", kv_width, embedding, config.qkv_bias)?,
                value: linear("attn_v", kv_width, embedding, config.qkv_bias)?,
                query_norm: head_norm("attn_q_norm.weight")?,
                key_norm: head_norm("attn_k_norm.weight")?,
                output: linear("attn_output", embedding, query_width, false)?,
                feed_forward_norm: load.floats(&name("ffn_norm.weight"), embedding)?,
                gate: linear("ffn_gate", feed_forward, embedding, false)?,
                up: linear("ffn_up", feed_forward, embedding, false)?,
                down: linear("ffn_down", embedding, feed_forward, false)?,
            });
        }
        let output_norm = load.floats("output_norm.weight", embedding)?;
        Ok(Self {
            config: config.clone(),
            compute,
            blocks,
            embedding: table,
            output_norm,
            head,
            pages: Pages::new(config),
            suspended: Suspended::default(),
            current: 0,
            asks: Vec::new(),
            capacity,
            work: Work::default(),
            logits: Vec::new(),
        })
    }

    /// Threads that work, the caller's included.
    pub fn threads(&self) -> usize {
        self.compute.pool.threads()
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> u64 {
        let blocks = self.blocks.iter().flat_map(|block| {
            let Block { query, key, value, output, gate, up, down, .. } = block;
            [query, key, value, output, gate, up, down]
        });
        let blocks = blocks.map(|linear| linear.weight.bytes()).sum::<usize>();
        (blocks + self.head.weight().bytes() + self.embedding.as_ref().map_or(0, Packed::bytes)) as u64
    }

    /// Bytes of the packed weights that one decoded token reads if only its greatest logit is asked for: all but the
    /// embedding table and what the head's screening spares.
    pub fn streamed_bytes(&self) -> u64 {
        let spared = self.head.weight().bytes() - self.head.streamed_bytes();
        self.weight_bytes() - (spared + self.embedding.as_ref().map_or(0, Packed::bytes)) as u64
    }

    /// Takes the first `end` tokens of a batch through the layers, from where they are; about [`CHUNK`] of them are not
    /// finished. Leaves the stream of the last `rows` in the work space; these stay unfinished, before the last
    /// layer, because their logits can only come from there.
    fn pass(
        &mut self,
        tokens: &[TokenId],
        runs: &[Run],
        end: usize,
        rows: usize,
        progress: &mut Progress,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Self { config, compute, blocks, embedding, head, pages, work, .. } = self;
        let width = config.embedding;
        let table = embedding.as_ref().unwrap_or(head.weight());
        let new = &tokens[progress.begun().min(end)..end];
        if !new.is_empty() {
            let mut stream = vec![0.0; new.len() * width];
            let places = Chunks::new(&mut stream, width);
            compute.pool.run(new.len(), |row, _| {
                // SAFETY: each row is one piece, which runs once.
                table.row(new[row] as usize, unsafe { places.get(row) });
            });
            progress.begin(stream, new.len());
        }
        while let Some((group, until)) = progress.lowest(blocks.len()) {
            let count = group.rows.len();
            let runs: Vec<Run> = runs.iter().map(|run| run.within(&group.rows)).collect();
            work.angles(&config.rope.frequencies, &runs);
            for (index, block) in blocks.iter().enumerate().take(until).skip(group.passed) {
                let mut layer = Layer { config, compute, pages, index };
                // Behind the last layer's keys and values only the asked positions matter.
                let is_last = index + 1 == blocks.len();
                let keep = if is_last { rows } else { count };
                work.before.clone_from(&group.stream);
                std::mem::swap(&mut work.stream, &mut group.stream);
                // A layer of few tokens is over before a look inside it were worth its while.
                let is_passed = group.passes || count <= THIN_ROWS;
                let inside: &mut dyn FnMut() -> _ =
                    if is_passed { &mut || ControlFlow::Continue(()) } else { &mut *look };
                if block.run(&mut layer, work, &runs, count, keep, inside).is_break() {
                    // The layer begins anew. What it has left in the pages is written again before it is read.
                    std::mem::swap(&mut work.before, &mut group.stream);
                    group.passes = true;
                    return ControlFlow::Break(());
                }
                if is_last {
                    let stream = work.before[(count - rows) * width..].to_vec();
                    progress.finish(Group { rows: end - rows..end, passed: index, stream, passes: false });
                    return look();
                }
                std::mem::swap(&mut work.stream, &mut group.stream);
                group.passed += 1;
                group.passes = false;
                look()?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The logits of the last chunk's last `rows`, to row `written` of all.
    fn project(
        &mut self,
        rows: usize,
        written: usize,
        asks: &[Ask],
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Self { config, compute, head, output_norm, work, logits, .. } = self;
        let (vocabulary, width) = (config.vocabulary, config.embedding);
        let stream = &work.stream;
        compute.prepare(&mut work.activations, rows, width, |row, out| {
            compute.norm(&stream[row * width..(row + 1) * width], output_norm, config.norm_epsilon, out);
        });
        let out = &mut logits[written * vocabulary..(written + rows) * vocabulary];
        head.logits(compute, &work.activations, asks.get(written..).unwrap_or_default(), out);
        look()
    }

    /// Keeps how far the first of `tokens` are, for the next batch of this sequence.
    fn suspend(&mut self, tokens: &[TokenId], mut progress: Progress) {
        progress.cut(tokens.len());
        let Self { pages, suspended, current, .. } = self;
        pages.trim(*current, pages.len(*current) + progress.begun());
        if let Some(forgotten) = suspended.keep(*current, tokens, progress) {
            pages.trim(forgotten, 0);
        }
    }
}

impl Decoder for CpuDecoder {
    fn advance(
        &mut self,
        batch: &Batch<'_>,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError> {
        let asks = std::mem::take(&mut self.asks);
        let tokens = batch.tokens;
        let base = self.pages.len(self.current);
        let moved = batch.moved.as_ref().map_or(0, |moved| moved.rows.len());
        let end = base + tokens.len() + moved;
        if end > self.capacity {
            return Err(EngineError::PromptTooLong { tokens: end, context: self.capacity });
        }
        let vocabulary = self.config.vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(outside(*token, vocabulary));
        }
        let rows = batch.rows.min(tokens.len());
        // Drafts are verified by what one token at a time gives; a prompt is only read.
        self.compute.set_exact(rows > 1);
        resize(&mut self.logits, rows * vocabulary);
        if tokens.is_empty() && moved == 0 {
            return Ok(ControlFlow::Continue(&self.logits));
        }
        self.pages.reserve(self.current, end);
        let sequence = self.current;
        let mut runs = vec![Run { tokens: 0..tokens.len(), sequence, position: base }];
        if let Some(moved) = &batch.moved {
            let behind = moved.behind.min(tokens.len());
            let at = base + behind;
            let Self { config, compute, pages, current, .. } = self;
            pages.shift(moved.from, moved.rows.clone(), *current, at, &config.rope, &compute.pool);
            runs[0].tokens.end = behind;
            runs.push(Run { tokens: behind..tokens.len(), sequence, position: at + moved.rows.len() });
        }
        // What is in front of a moved segment does not depend on it.
        let first = runs[0].tokens.end;
        let mut progress = self.suspended.take(self.current, &tokens[..first]);
        if progress.finished() > tokens.len() - rows {
            // Logits come from the last layer.
            progress.cut(tokens.len() - rows);
        }
        let mut written = 0;
        let mut start = progress.finished();
        while start < tokens.len() {
            let chunk = start..start + pace::none_left_over(CHUNK, tokens.len() - start);
            start = chunk.end;
            // Positions of this chunk whose logits are asked for: those among the last `rows` of all.
            let left = tokens.len() - chunk.end;
            let here = rows.saturating_sub(left).min(chunk.len()).min(rows - written);
            let mut flow = self.pass(tokens, &runs, chunk.end, here, &mut progress, look);
            if here > 0 && flow.is_continue() {
                flow = self.project(here, written, &asks, look);
                written += here;
            }
            if flow.is_break() {
                self.suspend(&tokens[..first], progress);
                return Ok(ControlFlow::Break(()));
            }
            progress.finish_all();
        }
        self.pages.set_len(self.current, end);
        Ok(ControlFlow::Continue(&self.logits))
    }

    fn advance_each(
        &mut self,
        rows: &[(usize, TokenId)],
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), &[f32]>, EngineError> {
        let asks = std::mem::take(&mut self.asks);
        let vocabulary = self.config.vocabulary;
        let tokens: Vec<TokenId> = rows.iter().map(|row| row.1).collect();
        let mut runs = Vec::with_capacity(rows.len());
        for (row, &(sequence, token)) in rows.iter().enumerate() {
            let position = self.pages.len(sequence);
            if position >= self.capacity {
                return Err(EngineError::PromptTooLong { tokens: position + 1, context: self.capacity });
            }
            if token as usize >= vocabulary {
                return Err(outside(token, vocabulary));
            }
            runs.push(Run { tokens: row..row + 1, sequence, position });
        }
        for run in &runs {
            self.pages.reserve(run.sequence, run.end());
        }
        resize(&mut self.logits, rows.len() * vocabulary);
        let mut flow = self.pass(&tokens, &runs, rows.len(), rows.len(), &mut Progress::default(), look);
        if flow.is_continue() {
            flow = self.project(rows.len(), 0, &asks, look);
        }
        for run in &runs {
            match flow {
                ControlFlow::Continue(()) => self.pages.set_len(run.sequence, run.end()),
                ControlFlow::Break(()) => self.pages.truncate(run.sequence, run.position),
            }
        }
        Ok(flow.map_continue(|()| &self.logits[..]))
    }

    fn ask(&mut self, asks: Vec<Ask>) {
        self.asks = asks;
    }

    fn len(&self) -> usize {
        self.pages.len(self.current)
    }

    fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.suspended.drop_of(self.current);
            self.pages.truncate(self.current, len);
        }
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn batch_invariant(&self) -> bool {
        true
    }

    fn set_background(&mut self, background: bool) {
        self.compute.pool.set_background(background);
    }

    fn hold(&mut self, sequences: usize) -> usize {
        (sequences.max(1)..self.pages.count()).for_each(|gone| self.suspended.drop_of(gone));
        self.pages.resize(sequences.max(1));
        self.current = self.current.min(self.pages.count() - 1);
        self.pages.count()
    }

    fn select(&mut self, sequence: usize) {
        self.current = sequence.min(self.pages.count() - 1);
    }

    fn fork(&mut self, from: usize, to: usize, rows: Range<usize>) {
        self.suspended.drop_of(to);
        self.pages.fork(from, to, rows);
    }

    fn resumes(&self) -> bool {
        true
    }

    fn begun(&self, sequence: usize, tokens: &[TokenId]) -> Begun {
        self.suspended.begun(sequence, tokens, self.blocks.len())
    }

    fn held_bytes(&self) -> usize {
        self.pages.bytes()
    }

    fn bytes_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(KEYS) * self.pages.page_bytes()
    }
}

fn outside(token: TokenId, vocabulary: usize) -> EngineError {
    let problem = format!("token {token} is outside the vocabulary of {vocabulary}");
    EngineError::Device { device: "CPU".to_owned(), source: problem.into() }
}

#[cfg(test)]
mod tests;
