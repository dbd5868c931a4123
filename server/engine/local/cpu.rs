//! The decoder on our own kernels: packed weights, half-precision KV caches, all threads of a pool.
//! It knows nothing of prompts, of sampling, or of devices other than the CPU.
//!
//! The logits of a position are the same bits however the tokens before it were split into calls, and whatever
//! else was in the cache behind them: see [`kernels`](crate::local::kernels).

use std::ops::{ControlFlow, Range};

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::gguf::Gguf;
use crate::local::config::{Config, RopeStyle};
use crate::local::head::Head;
use crate::local::kernels::activations::Activations;
use crate::local::kernels::attention::{Attend, BLOCK, DIM, KEYS, ROWS};
use crate::local::kernels::pack::Packed;
use crate::local::kernels::{Kernel, THIN_ROWS};
use crate::local::linear::{Compute, Linear, Target};
use crate::local::pool::{Chunks, Pool};
use crate::local::{Ask, Batch, Begun, Decoder, pace};
use crate::{EngineError, TokenId};

mod load;
mod pages;
mod suspended;

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
    kernel: Kernel,
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

/// One layer.
#[derive(Debug)]
struct Block {
    attention_norm: Vec<f32>,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    output: Linear,
    feed_forward_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Tokens of a batch at consecutive positions. A batch has one such run, or two with a moved segment between them, or
/// one for each of several sequences.
#[derive(Debug, Clone)]
struct Run {
    /// Which of the batch's tokens.
    tokens: Range<usize>,
    /// The sequence that they belong to; tokens of several are in runs of their own, one behind the other.
    sequence: usize,
    /// Where the first of them stands in the sequence.
    position: usize,
}

impl Run {
    fn end(&self) -> usize {
        self.position + self.tokens.len()
    }

    /// What of it lies inside `tokens`, counted from their start.
    fn within(&self, tokens: &Range<usize>) -> Self {
        let start = self.tokens.start.clamp(tokens.start, tokens.end);
        let end = self.tokens.end.clamp(start, tokens.end);
        let position = self.position + (start - self.tokens.start.min(start));
        Self { tokens: start - tokens.start..end - tokens.start, position, sequence: self.sequence }
    }
}

/// What lies between the layers, for about [`CHUNK`] tokens.
#[derive(Debug, Default)]
struct Work {
    activations: Activations,
    /// The residual stream, `[tokens, embedding]`.
    stream: Vec<f32>,
    /// What it was in front of the layer.
    before: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// Cosines and sines, `[tokens, rope dim / 2]` each.
    cosines: Vec<f32>,
    sines: Vec<f32>,
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
        let compute = Compute::new(kernel, Pool::new(threads));
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
            kernel,
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

    /// The kernel that runs.
    pub fn kernel(&self) -> Kernel {
        self.kernel
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
                if block.run(&mut layer, work, &runs, count, keep, look).is_break() {
                    // The layer begins anew. What it has left in the pages is written again before it is read.
                    std::mem::swap(&mut work.before, &mut group.stream);
                    return ControlFlow::Break(());
                }
                if is_last {
                    let stream = work.before[(count - rows) * width..].to_vec();
                    progress.finish(Group { rows: end - rows..end, passed: index, stream });
                    return look();
                }
                std::mem::swap(&mut work.stream, &mut group.stream);
                group.passed += 1;
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

/// What a layer works on.
struct Layer<'a> {
    config: &'a Config,
    compute: &'a Compute,
    pages: &'a mut Pages,
    /// Which layer it is.
    index: usize,
}

impl Block {
    /// Writes the keys and values of `count` tokens; the stream of the last `keep` of them is what is left of it.
    ///
    /// `look` is called every few milliseconds; if it breaks, the stream and what is in the pages of these tokens are
    /// undefined.
    fn run(
        &self,
        layer: &mut Layer<'_>,
        work: &mut Work,
        runs: &[Run],
        count: usize,
        keep: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Layer { config, compute, .. } = *layer;
        let mut never = || ControlFlow::Continue(());
        // A layer of few tokens is over before a look inside it were worth its while.
        let look = if count > THIN_ROWS { look } else { &mut never };
        let width = config.embedding;
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let epsilon = config.norm_epsilon;
        let stream = &work.stream;
        compute.prepare(&mut work.activations, count, width, |row, out| {
            compute.norm(&stream[row * width..(row + 1) * width], &self.attention_norm, epsilon, out);
        });
        resize(&mut work.query, count * query_width);
        resize(&mut work.key, count * kv_width);
        resize(&mut work.value, count * kv_width);
        compute.multiply_while(
            &work.activations,
            &mut [
                Target { linear: &self.query, out: &mut work.query, add: false },
                Target { linear: &self.key, out: &mut work.key, add: false },
                Target { linear: &self.value, out: &mut work.value, add: false },
            ],
            look,
        )?;
        for runs in runs.chunk_by(|a, b| a.sequence == b.sequence) {
            self.append(layer, work, runs);
        }
        if keep == 0 {
            return ControlFlow::Continue(());
        }
        if keep < count {
            work.stream.copy_within((count - keep) * width..count * width, 0);
            work.query.copy_within((count - keep) * query_width..count * query_width, 0);
        }
        let kept: Vec<Run> = runs.iter().map(|run| run.within(&(count - keep..count))).collect();
        layer.attend(work, &kept, keep, look)?;

        let attended = &work.attended;
        compute.prepare(&mut work.activations, keep, query_width, |row, out| {
            out.copy_from_slice(&attended[row * query_width..(row + 1) * query_width]);
        });
        let stream = &mut work.stream[..keep * width];
        compute.multiply_while(
            &work.activations,
            &mut [Target { linear: &self.output, out: &mut *stream, add: true }],
            look,
        )?;
        let input: &[f32] = stream;
        compute.prepare(&mut work.activations, keep, width, |row, out| {
            compute.norm(&input[row * width..(row + 1) * width], &self.feed_forward_norm, epsilon, out);
        });
        let inner = config.feed_forward;
        resize(&mut work.gate, keep * inner);
        resize(&mut work.up, keep * inner);
        compute.multiply_while(
            &work.activations,
            &mut [
                Target { linear: &self.gate, out: &mut work.gate, add: false },
                Target { linear: &self.up, out: &mut work.up, add: false },
            ],
            look,
        )?;
        let (gate, up) = (&work.gate, &work.up);
        compute.prepare(&mut work.activations, keep, inner, |row, out| {
            let row = row * inner..(row + 1) * inner;
            compute.gate(&gate[row.clone()], &up[row], out);
        });
        let down = Target { linear: &self.down, out: stream, add: true };
        compute.multiply_while(&work.activations, &mut [down], look)
    }

    /// Norms and rotates queries and keys, and writes keys and values to the cache. The runs are of one sequence.
    fn append(&self, layer: &mut Layer<'_>, work: &mut Work, runs: &[Run]) {
        let Layer { config, compute, index, .. } = *layer;
        let Some(&Run { sequence, .. }) = runs.first() else { return };
        let Config { head_dim, kv_heads, .. } = *config;
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let dim = head_dim.next_multiple_of(DIM);
        let cache = layer.pages.writer(sequence);
        let queries = Chunks::new(&mut work.query, query_width);
        let new_keys = Chunks::new(&mut work.key, kv_width);
        let (new_values, cosines, sines) = (&work.value, &work.cosines, &work.sines);
        let pairs = config.rope.dim / 2;
        let (query_norm, key_norm) = (self.query_norm.as_deref(), self.key_norm.as_deref());
        let runs = || runs.iter().filter(|run| !run.tokens.is_empty());
        let first_block = runs().map(|run| run.position / BLOCK).min().unwrap_or(0);
        let end_block = runs().map(|run| run.end().div_ceil(BLOCK)).max().unwrap_or(0);
        compute.pool.run(end_block - first_block, |piece, _| {
            let block = first_block + piece;
            let mut halves = vec![f16::ZERO; head_dim];
            let inside = runs().flat_map(|run| {
                let positions = run.position.max(block * BLOCK)..run.end().min((block + 1) * BLOCK);
                positions.map(|position| (position, run.tokens.start + position - run.position))
            });
            for (position, token) in inside {
                let angles = token * pairs..(token + 1) * pairs;
                let (cosines, sines) = (&cosines[angles.clone()], &sines[angles]);
                // SAFETY: a token belongs to one block, and each block is one piece, which runs once.
                let (query, key) = unsafe { (queries.get(token), new_keys.get(token)) };
                let turn = |heads: &mut [f32], norm: Option<&[f32]>| {
                    for head in heads.chunks_exact_mut(head_dim) {
                        if let Some(weight) = norm {
                            let raw = head.to_vec();
                            compute.norm(&raw, weight, config.norm_epsilon, head);
                        }
                        rotate(config.rope.style, head, cosines, sines);
                    }
                };
                turn(query, query_norm);
                turn(key, key_norm);
                let value = &new_values[token * kv_width..(token + 1) * kv_width];
                for kv_head in 0..kv_heads {
                    // SAFETY: as above: this block's places of each key head.
                    let (keys, values) =
                        unsafe { (cache.keys(index, kv_head, block), cache.values(index, kv_head, block)) };
                    let own = kv_head * head_dim..(kv_head + 1) * head_dim;
                    to_halves(&mut key[own.clone()], &mut halves);
                    for (i, half) in halves.iter().enumerate() {
                        keys[i * BLOCK + position % BLOCK] = half.to_bits();
                    }
                    let mut value = value[own].to_vec();
                    to_halves(&mut value, &mut halves);
                    let start = position % BLOCK * dim;
                    for (to, half) in values[start..start + head_dim].iter_mut().zip(&halves) {
                        *to = half.to_bits();
                    }
                }
            }
        });
    }
}

impl Layer<'_> {
    /// Attention of the `count` tokens of `runs` over the cache; `look` is that of [`Block::run`].
    fn attend(
        &self,
        work: &mut Work,
        runs: &[Run],
        count: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Self { config, compute, .. } = *self;
        let Config { head_dim, kv_heads, .. } = *config;
        let group = config.heads / kv_heads;
        let width = config.query_width();
        resize(&mut work.attended, count * width);
        let queries = &work.query[..count * width];
        let out = SharedOut(work.attended.as_mut_ptr());
        let out = &out;
        let layout = self.pages.layout();
        let pages: Vec<_> = runs.iter().map(|run| self.pages.view(run.sequence)).collect();
        let tiles: Vec<(&Run, &[&[u16]], usize)> = runs
            .iter()
            .zip(&pages)
            .flat_map(|(run, pages)| {
                let tiles = (run.tokens.len() * group).div_ceil(ROWS);
                (0..tiles).map(move |tile| (run, &pages[..], tile))
            })
            .collect();
        compute.pool.run_while(kv_heads * tiles.len(), look, |piece, _| {
            // The last tokens see the most keys: long pieces first, so that the pieces end together.
            let ((run, pages, tile), kv_head) = (tiles[tiles.len() - 1 - piece / kv_heads], piece % kv_heads);
            let values = run.tokens.start * width..run.tokens.end * width;
            let args = Attend {
                // SAFETY: inside the output, which has the shape of the queries.
                out: unsafe { out.0.add(values.start) },
                queries: &queries[values],
                stride: width,
                head_dim,
                group,
                kv_head,
                first: tile * ROWS,
                rows: ROWS.min(run.tokens.len() * group - tile * ROWS),
                visible: run.position + 1,
                pages,
                keys: layout.keys(self.index, kv_head),
                values: layout.values(self.index, kv_head),
            };
            // SAFETY: `attended` has the shape of `queries`, and each piece has its own rows and head.
            unsafe { compute.attend(&args) };
        })
    }
}

/// A pointer that the pieces of a job share.
struct SharedOut(*mut f32);
// SAFETY: the pieces write to disjoint places behind it.
unsafe impl Sync for SharedOut {}

impl Work {
    /// Cosines and sines of the tokens' positions.
    fn angles(&mut self, frequencies: &[f32], runs: &[Run]) {
        self.cosines.clear();
        self.sines.clear();
        for position in runs.iter().flat_map(|run| run.position..run.end()) {
            for frequency in frequencies {
                let (sine, cosine) = (position as f32 * frequency).sin_cos();
                self.cosines.push(cosine);
                self.sines.push(sine);
            }
        }
    }
}

/// Rotates the pairs of a head (<https://arxiv.org/abs/2104.09864>).
fn rotate(style: RopeStyle, head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let pairs = cosines.len();
    match style {
        RopeStyle::Halves => {
            let (low, high) = head[..2 * pairs].split_at_mut(pairs);
            for (((low, high), cosine), sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
                (*low, *high) = (*low * cosine - *high * sine, *low * sine + *high * cosine);
            }
        }
        RopeStyle::Interleaved => {
            let (head, _) = head.as_chunks_mut::<2>();
            for (([even, odd], cosine), sine) in head.iter_mut().zip(cosines).zip(sines) {
                (*even, *odd) = (*even * cosine - *odd * sine, *even * sine + *odd * cosine);
            }
        }
    }
}

/// Rounds to half precision; what is too large becomes the largest half float, so that the cache stays finite.
fn to_halves(values: &mut [f32], halves: &mut [f16]) {
    for value in values.iter_mut() {
        *value = value.clamp(-65504.0, 65504.0);
    }
    halves.convert_from_f32_slice(values);
}

fn resize(vec: &mut Vec<f32>, len: usize) {
    // The old contents are not wanted, and are not cleared either: every value is written before it is read.
    vec.resize(len, 0.0);
}

#[cfg(test)]
mod tests;
