//! One layer of the transformer: its workspace, and the keys and values that it writes to the pages.

use std::ops::{ControlFlow, Range};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::feed_forward::FeedForwardWorkspace;
use super::paged_kv::PagedKv;
use crate::local::block_weights::BlockWeights;
use crate::local::config::{ModelConfig, RopeConfig, RopeStyle};
use crate::local::kernels::activations::Activations;
use crate::local::kernels::attention::{AttentionArgs, BLOCK_KEYS, HEAD_ALIGNMENT, MAX_QUERY_ROWS};
use crate::local::matmul::{BatchCompute, LinearLayer, NormWeights, ProductTarget};
use crate::local::thread_pool::DisjointChunks;

/// One layer.
pub(super) type LayerWeights = BlockWeights<LinearLayer, NormWeights>;

/// Tokens of a batch at consecutive positions. A batch has one such run, or two with a shifted segment between them, or
/// one for each of several sequences.
#[derive(Debug, Clone)]
pub(super) struct TokenRun {
    /// The range of the batch's tokens.
    pub(super) tokens: Range<usize>,
    /// Their sequence; tokens of several sequences are in separate consecutive runs.
    pub(super) sequence: usize,
    /// The position of the first token in the sequence.
    pub(super) position: usize,
}

impl TokenRun {
    pub(super) fn end_position(&self) -> usize {
        self.position + self.tokens.len()
    }

    /// The part of the run inside `tokens`, counted from their start.
    pub(super) fn intersect_tokens(&self, tokens: &Range<usize>) -> Self {
        let start = self.tokens.start.clamp(tokens.start, tokens.end);
        let end = self.tokens.end.clamp(start, tokens.end);
        let position = self.position + (start - self.tokens.start.min(start));
        Self { tokens: start - tokens.start..end - tokens.start, position, sequence: self.sequence }
    }
}

/// Buffers between the layers, for about [`CHUNK_TOKENS`](super::CHUNK_TOKENS) tokens.
#[derive(Debug, Default)]
pub(super) struct LayerWorkspace {
    pub(super) activations: Activations,
    /// The residual stream, `[tokens, embedding]`.
    pub(super) stream: Vec<f32>,
    /// The residual stream before the layer.
    pub(super) layer_input: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    pub(super) feed_forward: FeedForwardWorkspace,
    /// What is to be added to the stream, if it is normed or scaled before.
    pub(super) result: Vec<f32>,
    /// One for each rotation of the model.
    angles: Vec<RotationAngles>,
}

/// Cosines and sines of the tokens' positions, `[tokens, dim / 2]` each.
#[derive(Debug, Default)]
struct RotationAngles {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

/// The context of a layer's run.
pub(super) struct LayerContext<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) compute: BatchCompute<'a>,
    pub(super) paged_kv: &'a mut PagedKv,
    /// The layer's index.
    pub(super) index: usize,
}

impl LayerWeights {
    /// Runs the layer on `count` tokens and writes their keys and values; only the last `keep` of them remain in the
    /// stream.
    ///
    /// `look` is called every few milliseconds; if it breaks, the stream and the page contents of these tokens are
    /// undefined.
    pub(super) fn run_layer(
        &self,
        layer: &mut LayerContext<'_>,
        work: &mut LayerWorkspace,
        runs: &[TokenRun],
        count: usize,
        keep: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let LayerContext { config, compute, .. } = *layer;
        let width = config.embedding;
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let epsilon = config.norm_epsilon;
        let stream = &work.stream;
        compute.prepare_rows(&mut work.activations, count, width, |row, out| {
            compute.normalize(&stream[row * width..(row + 1) * width], &self.attention_norm, epsilon, out);
        });
        resize_buffer(&mut work.query, count * query_width);
        resize_buffer(&mut work.key, count * kv_width);
        resize_buffer(&mut work.value, count * kv_width);
        let mut products = self.parallel_products(&mut work.feed_forward, count, config.feed_forward);
        products.extend([
            ProductTarget { linear: &self.query, out: &mut work.query, add: false },
            ProductTarget { linear: &self.key, out: &mut work.key, add: false },
            ProductTarget { linear: &self.value, out: &mut work.value, add: false },
        ]);
        compute.multiply_while(&work.activations, &mut products, look)?;
        for runs in runs.chunk_by(|a, b| a.sequence == b.sequence) {
            self.append_kv(layer, work, runs);
        }
        if keep == 0 {
            return ControlFlow::Continue(());
        }
        if keep < count {
            work.stream.copy_within((count - keep) * width..count * width, 0);
            work.query.copy_within((count - keep) * query_width..count * query_width, 0);
            if self.feed_forward_norm.is_none() {
                let inner = config.feed_forward;
                for values in [&mut work.feed_forward.gate, &mut work.feed_forward.up] {
                    values.copy_within((count - keep) * inner..count * inner, 0);
                }
            }
        }
        let kept: Vec<TokenRun> =
            runs.iter().map(|run| run.intersect_tokens(&(count - keep..count))).collect();
        layer.attend_runs(work, &kept, keep, look)?;

        let attended = &work.attended;
        compute.prepare_rows(&mut work.activations, keep, query_width, |row, out| {
            out.copy_from_slice(&attended[row * query_width..(row + 1) * query_width]);
        });
        self.add_product(layer, work, &self.attention_output, self.attention_post_norm.as_ref(), keep, look)?;
        self.run_feed_forward(layer, work, keep, look)
    }

    /// Adds the product of the activations to the first `rows` of the stream, normed and scaled as the family does.
    pub(super) fn add_product(
        &self,
        layer: &LayerContext<'_>,
        work: &mut LayerWorkspace,
        linear: &LinearLayer,
        post_norm: Option<&NormWeights>,
        rows: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let LayerContext { config, compute, .. } = *layer;
        let len = rows * config.embedding;
        if post_norm.is_none() && config.residual_scale == 1.0 {
            let target = ProductTarget { linear, out: &mut work.stream[..len], add: true };
            return compute.multiply_while(&work.activations, &mut [target], look);
        }
        resize_buffer(&mut work.result, len);
        let target = ProductTarget { linear, out: &mut work.result, add: false };
        compute.multiply_while(&work.activations, &mut [target], look)?;
        layer.add_result(work, post_norm, rows);
        ControlFlow::Continue(())
    }

    /// Norms and rotates queries and keys, and writes keys and values to the cache. The runs are of one sequence.
    fn append_kv(&self, layer: &mut LayerContext<'_>, work: &mut LayerWorkspace, runs: &[TokenRun]) {
        let LayerContext { config, compute, index, .. } = *layer;
        let Some(&TokenRun { sequence, .. }) = runs.first() else { return };
        let ModelConfig { head_dim, kv_heads, .. } = *config;
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let dim = head_dim.next_multiple_of(HEAD_ALIGNMENT);
        let cache = layer.paged_kv.page_writer(sequence);
        let queries = DisjointChunks::new(&mut work.query, query_width);
        let new_keys = DisjointChunks::new(&mut work.key, kv_width);
        let new_values = &work.value;
        let rotation = config.layers[index].rope.map(|rope| (&config.ropes[rope], &work.angles[rope]));
        let (query_norm, key_norm) = (self.query_norm.as_ref(), self.key_norm.as_ref());
        let runs = || runs.iter().filter(|run| !run.tokens.is_empty());
        let first_block = runs().map(|run| run.position / BLOCK_KEYS).min().unwrap_or(0);
        let end_block = runs().map(|run| run.end_position().div_ceil(BLOCK_KEYS)).max().unwrap_or(0);
        compute.pool.run_pieces(end_block - first_block, |piece, _| {
            let block = first_block + piece;
            let mut halves = vec![f16::ZERO; head_dim];
            let inside = runs().flat_map(|run| {
                let positions =
                    run.position.max(block * BLOCK_KEYS)..run.end_position().min((block + 1) * BLOCK_KEYS);
                positions.map(|position| (position, run.tokens.start + position - run.position))
            });
            for (position, token) in inside {
                // SAFETY: a token belongs to one block, and each block is one piece, which runs once.
                let (query, key) = unsafe { (queries.get(token), new_keys.get(token)) };
                let turn = |heads: &mut [f32], norm: Option<&NormWeights>| {
                    for head in heads.chunks_exact_mut(head_dim) {
                        if let Some(norm) = norm {
                            let raw = head.to_vec();
                            compute.normalize(&raw, norm, config.norm_epsilon, head);
                        }
                        if let Some((rope, angles)) = rotation {
                            let pairs = rope.dim / 2;
                            let of_token = token * pairs..(token + 1) * pairs;
                            let (cosines, sines) =
                                (&angles.cosines[of_token.clone()], &angles.sines[of_token]);
                            rotate_pairs(rope.style, head, cosines, sines);
                        }
                    }
                };
                turn(query, query_norm);
                turn(key, key_norm);
                let value = &new_values[token * kv_width..(token + 1) * kv_width];
                for kv_head in 0..kv_heads {
                    // SAFETY: as above: this block's slots of each key head.
                    let (keys, values) = unsafe {
                        (cache.block_keys(index, kv_head, block), cache.block_values(index, kv_head, block))
                    };
                    let own = kv_head * head_dim..(kv_head + 1) * head_dim;
                    round_to_f16(&mut key[own.clone()], &mut halves);
                    for (i, half) in halves.iter().enumerate() {
                        keys[i * BLOCK_KEYS + position % BLOCK_KEYS] = half.to_bits();
                    }
                    let mut value = value[own].to_vec();
                    round_to_f16(&mut value, &mut halves);
                    let start = position % BLOCK_KEYS * dim;
                    for (to, half) in values[start..start + head_dim].iter_mut().zip(&halves) {
                        *to = half.to_bits();
                    }
                }
            }
        });
    }
}

impl LayerContext<'_> {
    /// Adds [`LayerWorkspace::result`], normed and scaled as the family does, to the first `rows` of the stream.
    pub(super) fn add_result(&self, work: &mut LayerWorkspace, post_norm: Option<&NormWeights>, rows: usize) {
        let Self { config, compute, .. } = *self;
        let width = config.embedding;
        let (results, streams) = (&work.result, DisjointChunks::new(&mut work.stream, width));
        compute.pool.run_pieces(rows, |row, _| {
            let result = &results[row * width..(row + 1) * width];
            let mut normed = Vec::new();
            let result = match post_norm {
                Some(norm) => {
                    normed.resize(width, 0.0);
                    compute.normalize(result, norm, config.norm_epsilon, &mut normed);
                    &normed
                }
                None => result,
            };
            // SAFETY: each row is one piece, and each piece runs once.
            let stream = unsafe { streams.get(row) };
            for (stream, value) in stream.iter_mut().zip(result) {
                *stream += config.residual_scale * value;
            }
        });
    }

    /// Attention of the `count` tokens of `runs` over the cache; `look` is that of [`LayerWeights::run_layer`].
    fn attend_runs(
        &self,
        work: &mut LayerWorkspace,
        runs: &[TokenRun],
        count: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Self { config, compute, .. } = *self;
        let ModelConfig { head_dim, kv_heads, .. } = *config;
        let group = config.heads / kv_heads;
        let width = config.query_width();
        resize_buffer(&mut work.attended, count * width);
        let queries = &work.query[..count * width];
        let out = AttentionOutPtr(work.attended.as_mut_ptr());
        let out = &out;
        let layout = self.paged_kv.layout();
        let pages: Vec<_> = runs.iter().map(|run| self.paged_kv.page_slices(run.sequence)).collect();
        let tiles: Vec<(&TokenRun, &[&[u16]], usize)> = runs
            .iter()
            .zip(&pages)
            .flat_map(|(run, pages)| {
                let tiles = (run.tokens.len() * group).div_ceil(MAX_QUERY_ROWS);
                (0..tiles).map(move |tile| (run, &pages[..], tile))
            })
            .collect();
        compute.pool.run_while(kv_heads * tiles.len(), look, |piece, _| {
            // The last tokens see the most keys: long pieces go first, so that all threads finish together.
            let ((run, pages, tile), kv_head) = (tiles[tiles.len() - 1 - piece / kv_heads], piece % kv_heads);
            let values = run.tokens.start * width..run.tokens.end * width;
            let args = AttentionArgs {
                // SAFETY: inside the output, which has the shape of the queries.
                out: unsafe { out.0.add(values.start) },
                queries: &queries[values],
                stride: width,
                head_dim,
                group,
                kv_head,
                first: tile * MAX_QUERY_ROWS,
                rows: MAX_QUERY_ROWS.min(run.tokens.len() * group - tile * MAX_QUERY_ROWS),
                visible: run.position + 1,
                window: config.layers[self.index].window.unwrap_or(usize::MAX),
                scale: config.attention_scale,
                softcap: config.attention_softcap,
                pages,
                keys: layout.keys_offset(self.index, kv_head),
                values: layout.values_offset(self.index, kv_head),
            };
            // SAFETY: `attended` has the shape of `queries`, and each piece has its own rows and head.
            unsafe { compute.attend_tile(&args) };
        })
    }
}

/// A pointer that the pieces of a job share.
struct AttentionOutPtr(*mut f32);
// SAFETY: the pieces write to disjoint ranges of it.
unsafe impl Sync for AttentionOutPtr {}

impl LayerWorkspace {
    /// Computes the cosines and sines of the tokens' positions.
    pub(super) fn compute_angles(&mut self, ropes: &[RopeConfig], runs: &[TokenRun]) {
        self.angles.resize_with(ropes.len(), RotationAngles::default);
        for (rope, RotationAngles { cosines, sines }) in ropes.iter().zip(&mut self.angles) {
            cosines.clear();
            sines.clear();
            for position in runs.iter().flat_map(|run| run.position..run.end_position()) {
                for frequency in &rope.frequencies {
                    let (sine, cosine) = (position as f32 * frequency).sin_cos();
                    cosines.push(rope.amplitude * cosine);
                    sines.push(rope.amplitude * sine);
                }
            }
        }
    }
}

/// Rotates the pairs of a head (<https://arxiv.org/abs/2104.09864>).
pub(super) fn rotate_pairs(style: RopeStyle, head: &mut [f32], cosines: &[f32], sines: &[f32]) {
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

/// Rounds to half precision; values out of range become the largest half float, so that the cache stays finite.
pub(super) fn round_to_f16(values: &mut [f32], halves: &mut [f16]) {
    for value in values.iter_mut() {
        *value = value.clamp(-65504.0, 65504.0);
    }
    halves.convert_from_f32_slice(values);
}

pub(super) fn resize_buffer(vec: &mut Vec<f32>, len: usize) {
    // The old contents are not cleared: every value is written before it is read.
    vec.resize(len, 0.0);
}
