//! The weights of a block, whatever a decoder's matrices and norms are: which ones a family has is decided here, once.

use super::config::ModelConfig;
use super::config::tensors::MatrixName;
use crate::EngineError;

/// One block, with matrices `L` and norms `N`.
#[derive(Debug)]
pub(super) struct BlockWeights<L, N> {
    pub(super) attention_norm: N,
    pub(super) query: L,
    pub(super) key: L,
    pub(super) value: L,
    /// Over every head of queries, `[head_dim]`.
    pub(super) query_norm: Option<N>,
    /// Over every head of keys, `[head_dim]`.
    pub(super) key_norm: Option<N>,
    /// `[embedding, heads * head_dim]`
    pub(super) attention_output: L,
    /// Of the result of attention.
    pub(super) attention_post_norm: Option<N>,
    /// `None`: the feed-forward half reads the same normed values as attention.
    pub(super) feed_forward_norm: Option<N>,
    pub(super) feed_forward: FeedForward<L>,
    /// Of the result of the feed-forward half.
    pub(super) feed_forward_post_norm: Option<N>,
}

/// The feed-forward half of a block.
#[derive(Debug)]
pub(super) enum FeedForward<L> {
    Dense(MlpWeights<L>),
    Experts {
        /// `[experts, embedding]`
        router: L,
        experts: Vec<MlpWeights<L>>,
    },
}

/// The matrices of a feed-forward half, or of an expert.
#[derive(Debug)]
pub(super) struct MlpWeights<L> {
    /// `[feed_forward, embedding]`
    pub(super) gate: Option<L>,
    /// `[feed_forward, embedding]`
    pub(super) up: L,
    /// `[embedding, feed_forward]`
    pub(super) down: L,
}

impl<L, N> BlockWeights<L, N> {
    /// Loads the block's matrices by `linear`, and its norms by `norm`, which takes the name in the file and the length.
    ///
    /// # Errors
    /// The first one of `linear` or `norm`.
    pub(super) fn load(
        config: &ModelConfig,
        index: usize,
        linear: impl Fn(MatrixName) -> Result<L, EngineError>,
        norm: impl Fn(&str, usize) -> Result<N, EngineError>,
    ) -> Result<Self, EngineError> {
        let family = config.family;
        let norm = |part: &str, len: usize| norm(&format!("blk.{index}.{part}"), len);
        let head_norm = |part: &str| family.qk_norm.then(|| norm(part, config.head_dim)).transpose();
        let post_norm = |part: &str| family.post_norms.then(|| norm(part, config.embedding)).transpose();
        let own_norm = !family.parallel_residual;
        let feed_forward = match config.experts {
            None => FeedForward::Dense(MlpWeights {
                gate: family.activation.has_gate().then(|| linear(MatrixName::Gate)).transpose()?,
                up: linear(MatrixName::Up)?,
                down: linear(MatrixName::Down)?,
            }),
            Some(experts) => FeedForward::Experts {
                router: linear(MatrixName::Router)?,
                experts: (0..experts.count)
                    .map(|expert| {
                        Ok(MlpWeights {
                            gate: Some(linear(MatrixName::ExpertGate(expert))?),
                            up: linear(MatrixName::ExpertUp(expert))?,
                            down: linear(MatrixName::ExpertDown(expert))?,
                        })
                    })
                    .collect::<Result<_, EngineError>>()?,
            },
        };
        Ok(Self {
            attention_norm: norm("attn_norm", config.embedding)?,
            query: linear(MatrixName::Query)?,
            key: linear(MatrixName::Key)?,
            value: linear(MatrixName::Value)?,
            query_norm: head_norm("attn_q_norm")?,
            key_norm: head_norm("attn_k_norm")?,
            attention_output: linear(MatrixName::AttentionOutput)?,
            attention_post_norm: post_norm("post_attention_norm")?,
            feed_forward_norm: own_norm.then(|| norm("ffn_norm", config.embedding)).transpose()?,
            feed_forward,
            feed_forward_post_norm: post_norm("post_ffw_norm")?,
        })
    }
}

/// The experts with the `used` greatest scores, in the order of their numbers, and their weights: the softmax of all
/// scores, scaled to a sum of 1. Of equal scores the expert with the smaller number wins.
pub(super) fn choose_experts(scores: &[f32], used: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(used);
    order.sort_unstable();
    let greatest = order.iter().map(|&expert| scores[expert]).fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = order.iter().map(|&expert| (scores[expert] - greatest).exp()).collect();
    let sum: f32 = weights.iter().sum();
    order.into_iter().zip(weights.into_iter().map(|weight| weight / sum)).collect()
}
