//! The feed-forward half of a layer: one network for all tokens, or experts of which each token uses a few.

use std::ops::ControlFlow;

use super::layer::{LayerContext, LayerWeights, LayerWorkspace, resize_buffer};
use crate::local::block_weights::{FeedForward, MlpWeights, choose_experts};
use crate::local::config::ExpertConfig;
use crate::local::families::Activation;
use crate::local::matmul::{BatchCompute, LinearLayer, ProductTarget};

impl MlpWeights<LinearLayer> {
    fn byte_len(&self) -> usize {
        let matrices = [self.gate.as_ref(), Some(&self.up), Some(&self.down)];
        matrices.into_iter().flatten().map(|linear| linear.weight.byte_len()).sum()
    }

    /// The products with the activations that begin the network, into `gate` and `up`.
    fn first_products<'a>(&'a self, gate: &'a mut [f32], up: &'a mut [f32]) -> Vec<ProductTarget<'a>> {
        let mut products = vec![ProductTarget { linear: &self.up, out: up, add: false }];
        if let Some(linear) = &self.gate {
            products.push(ProductTarget { linear, out: gate, add: false });
        }
        products
    }
}

impl FeedForward<LinearLayer> {
    /// Bytes of all weights.
    pub(super) fn byte_len(&self) -> usize {
        match self {
            Self::Dense(mlp) => mlp.byte_len(),
            Self::Experts { router, experts } => {
                router.weight.byte_len() + experts.iter().map(MlpWeights::byte_len).sum::<usize>()
            }
        }
    }

    /// Bytes of the weights that one token reads.
    pub(super) fn streamed_bytes(&self, experts: Option<ExpertConfig>) -> usize {
        match (self, experts) {
            (Self::Experts { router, experts: all }, Some(ExpertConfig { used, .. })) => {
                let each = all.first().map_or(0, MlpWeights::byte_len);
                router.weight.byte_len() + used * each
            }
            _ => self.byte_len(),
        }
    }
}

/// Buffers of the feed-forward half.
#[derive(Debug, Default)]
pub(super) struct FeedForwardWorkspace {
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    /// The input of experts, `[rows, embedding]`.
    normed: Vec<f32>,
    /// The scores of experts, `[rows, experts]`.
    scores: Vec<f32>,
    /// The results of the experts for each row, `[rows, used, embedding]`.
    results: Vec<f32>,
    /// The results of one expert, `[its rows, embedding]`.
    expert_result: Vec<f32>,
}

/// An expert that a row uses.
#[derive(Debug, Clone, Copy)]
struct ExpertUse {
    row: usize,
    /// Which of the row's experts it is, in the order of their numbers.
    slot: usize,
    weight: f32,
}

impl LayerWeights {
    /// Adds the result of the feed-forward half to the first `rows` of the stream.
    pub(super) fn run_feed_forward(
        &self,
        layer: &LayerContext<'_>,
        work: &mut LayerWorkspace,
        rows: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let LayerContext { config, compute, .. } = *layer;
        let (width, inner) = (config.embedding, config.feed_forward);
        let mlp = match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp,
            FeedForward::Experts { router, experts } => {
                return self.run_experts(layer, work, router, experts, rows, look);
            }
        };
        if let Some(norm) = &self.feed_forward_norm {
            let stream = &work.stream;
            compute.prepare_rows(&mut work.activations, rows, width, |row, out| {
                compute.normalize(&stream[row * width..(row + 1) * width], norm, config.norm_epsilon, out);
            });
            let FeedForwardWorkspace { gate, up, .. } = &mut work.feed_forward;
            resize_buffer(gate, rows * inner);
            resize_buffer(up, rows * inner);
            compute.multiply_while(&work.activations, &mut mlp.first_products(gate, up), look)?;
        }
        let FeedForwardWorkspace { gate, up, .. } = &work.feed_forward;
        compute.prepare_rows(&mut work.activations, rows, inner, |row, out| {
            let row = row * inner..(row + 1) * inner;
            activate(compute, config.family.activation, &gate[row.clone()], &up[row], out);
        });
        self.add_product(layer, work, &mlp.down, self.feed_forward_post_norm.as_ref(), rows, look)
    }

    /// The products with the normed values of attention that a parallel feed-forward half begins with.
    pub(super) fn parallel_products<'a>(
        &'a self,
        work: &'a mut FeedForwardWorkspace,
        rows: usize,
        inner: usize,
    ) -> Vec<ProductTarget<'a>> {
        match &self.feed_forward {
            FeedForward::Dense(mlp) if self.feed_forward_norm.is_none() => {
                resize_buffer(&mut work.gate, rows * inner);
                resize_buffer(&mut work.up, rows * inner);
                mlp.first_products(&mut work.gate, &mut work.up)
            }
            _ => Vec::new(),
        }
    }

    /// Rows that use the same expert are multiplied together. The results of a row are added in the order of its
    /// experts' numbers, so that they have the same bits whatever the other rows use.
    fn run_experts(
        &self,
        layer: &LayerContext<'_>,
        work: &mut LayerWorkspace,
        router: &LinearLayer,
        experts: &[MlpWeights<LinearLayer>],
        rows: usize,
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let LayerContext { config, compute, .. } = *layer;
        let Some(ExpertConfig { used, feed_forward: inner, .. }) = config.experts else {
            return ControlFlow::Continue(());
        };
        let width = config.embedding;
        let LayerWorkspace { activations, stream, feed_forward, .. } = work;
        let FeedForwardWorkspace { gate, up, normed, scores, results, expert_result } = feed_forward;
        let stream_row = |row: usize| &stream[row * width..(row + 1) * width];
        compute.prepare_rows(activations, rows, width, |row, out| match &self.feed_forward_norm {
            Some(norm) => compute.normalize(stream_row(row), norm, config.norm_epsilon, out),
            None => out.copy_from_slice(stream_row(row)),
        });
        resize_buffer(normed, rows * width);
        for (row, normed) in normed.chunks_exact_mut(width).enumerate() {
            normed.copy_from_slice(activations.row(row));
        }
        resize_buffer(scores, rows * experts.len());
        compute.multiply_while(
            activations,
            &mut [ProductTarget { linear: router, out: scores, add: false }],
            look,
        )?;
        let mut uses: Vec<Vec<ExpertUse>> = vec![Vec::new(); experts.len()];
        for (row, scores) in scores.chunks_exact(experts.len()).enumerate() {
            for (slot, (expert, weight)) in choose_experts(scores, used).into_iter().enumerate() {
                uses[expert].push(ExpertUse { row, slot, weight });
            }
        }
        resize_buffer(results, rows * used * width);
        for (expert, uses) in experts.iter().zip(&uses).filter(|(_, uses)| !uses.is_empty()) {
            compute.prepare_rows(activations, uses.len(), width, |index, out| {
                let row = uses[index].row;
                out.copy_from_slice(&normed[row * width..(row + 1) * width]);
            });
            resize_buffer(gate, uses.len() * inner);
            resize_buffer(up, uses.len() * inner);
            compute.multiply_while(activations, &mut expert.first_products(gate, up), look)?;
            compute.prepare_rows(activations, uses.len(), inner, |row, out| {
                let row = row * inner..(row + 1) * inner;
                activate(compute, config.family.activation, &gate[row.clone()], &up[row], out);
            });
            resize_buffer(expert_result, uses.len() * width);
            let down = ProductTarget { linear: &expert.down, out: expert_result, add: false };
            compute.multiply_while(activations, &mut [down], look)?;
            for (used_by, result) in uses.iter().zip(expert_result.chunks_exact(width)) {
                let start = (used_by.row * used + used_by.slot) * width;
                for (to, value) in results[start..start + width].iter_mut().zip(result) {
                    *to = used_by.weight * value;
                }
            }
        }
        resize_buffer(&mut work.result, rows * width);
        for (sum, results) in work.result.chunks_exact_mut(width).zip(results.chunks_exact(used * width)) {
            sum.copy_from_slice(&results[..width]);
            for result in results.chunks_exact(width).skip(1) {
                sum.iter_mut().zip(result).for_each(|(sum, value)| *sum += value);
            }
        }
        layer.add_result(work, self.feed_forward_post_norm.as_ref(), rows);
        ControlFlow::Continue(())
    }
}

/// The inner function of the network for one row; `gate` is not read if there is none.
fn activate(compute: BatchCompute<'_>, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match activation {
        Activation::SwiGlu => compute.apply_swiglu(gate, up, out),
        Activation::GeGlu => compute.apply_geglu(gate, up, out),
        Activation::Gelu => compute.apply_gelu(up, out),
    }
}
