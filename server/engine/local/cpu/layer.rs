//! One layer of the transformer: what lies between two of them, and what it leaves in the pages.
//! It knows nothing of calls, of what is suspended between them, or of logits.

use std::ops::{ControlFlow, Range};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::pages::Pages;
use crate::local::config::{Config, RopeStyle};
use crate::local::kernels::activations::Activations;
use crate::local::kernels::attention::{Attend, BLOCK, DIM, ROWS};
use crate::local::linear::{Compute, Linear, Target};
use crate::local::pool::Chunks;

/// One layer.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) query_norm: Option<Vec<f32>>,
    pub(super) key_norm: Option<Vec<f32>>,
    pub(super) output: Linear,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// Tokens of a batch at consecutive positions. A batch has one such run, or two with a moved segment between them, or
/// one for each of several sequences.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Which of the batch's tokens.
    pub(super) tokens: Range<usize>,
    /// The sequence that they belong to; tokens of several are in runs of their own, one behind the other.
    pub(super) sequence: usize,
    /// Where the first of them stands in the sequence.
    pub(super) position: usize,
}

impl Run {
    pub(super) fn end(&self) -> usize {
        self.position + self.tokens.len()
    }

    /// What of it lies inside `tokens`, counted from their start.
    pub(super) fn within(&self, tokens: &Range<usize>) -> Self {
        let start = self.tokens.start.clamp(tokens.start, tokens.end);
        let end = self.tokens.end.clamp(start, tokens.end);
        let position = self.position + (start - self.tokens.start.min(start));
        Self { tokens: start - tokens.start..end - tokens.start, position, sequence: self.sequence }
    }
}

/// What lies between the layers, for about [`CHUNK`](super::CHUNK) tokens.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) activations: Activations,
    /// The residual stream, `[tokens, embedding]`.
    pub(super) stream: Vec<f32>,
    /// What it was in front of the layer.
    pub(super) before: Vec<f32>,
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

/// What a layer works on.
pub(super) struct Layer<'a> {
    pub(super) config: &'a Config,
    pub(super) compute: &'a Compute,
    pub(super) pages: &'a mut Pages,
    /// Which layer it is.
    pub(super) index: usize,
}

impl Block {
    /// Writes the keys and values of `count` tokens; the stream of the last `keep` of them is what is left of it.
    ///
    /// `look` is called every few milliseconds; if it breaks, the stream and what is in the pages of these tokens are
    /// undefined.
    pub(super) fn run(
        &self,
        layer: &mut Layer<'_>,
        work: &mut Work,
        runs: &[Run],
        count: usize,
        keep: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Layer { config, compute, .. } = *layer;
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
    pub(super) fn angles(&mut self, frequencies: &[f32], runs: &[Run]) {
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
pub(super) fn rotate(style: RopeStyle, head: &mut [f32], cosines: &[f32], sines: &[f32]) {
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
pub(super) fn to_halves(values: &mut [f32], halves: &mut [f16]) {
    for value in values.iter_mut() {
        *value = value.clamp(-65504.0, 65504.0);
    }
    halves.convert_from_f32_slice(values);
}

pub(super) fn resize(vec: &mut Vec<f32>, len: usize) {
    // The old contents are not wanted, and are not cleared either: every value is written before it is read.
    vec.resize(len, 0.0);
}
