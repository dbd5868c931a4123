//! The decoder on our own kernels: packed weights, half-precision KV cache, all threads of a pool.
//! It knows nothing of prompts, of sampling, or of devices other than the CPU.
//!
//! The logits of a position are the same bits however the tokens before it were split into calls, and whatever
//! else was in the cache behind them: see [`kernels`](crate::local::kernels).

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::gguf::{Gguf, TensorView};
use crate::local::config::{Config, RopeStyle};
use crate::local::head::Head;
use crate::local::kernels::Kernel;
use crate::local::kernels::activations::Activations;
use crate::local::kernels::attention::{Attend, BLOCK, DIM, KEYS, ROWS};
use crate::local::kernels::pack::Packed;
use crate::local::linear::{Compute, Linear, Target};
use crate::local::pool::{Chunks, Pool};
use crate::local::{Ask, Decoder};
use crate::{EngineError, TokenId};

/// Tokens that pass through the layers together: enough to use unpacked weights often, few enough that what
/// lies between two layers stays in the cache.
const CHUNK: usize = 256;

const REMEDY: &str =
    "choose another file of the model (Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16), or the kernel \"candle\"";

/// A decoder of the llama family with its weights and one sequence.
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
    len: usize,
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
    cache: Cache,
}

/// Keys and values of one layer as half floats, for each key head [`Cache::stride`] values. Zeroed memory is not
/// resident until it is written, so a large capacity costs nothing before it is used.
#[derive(Debug)]
struct Cache {
    /// `[kv_heads, length / BLOCK, padded head_dim, BLOCK]`.
    keys: Vec<u16>,
    /// `[kv_heads, length, padded head_dim]`.
    values: Vec<u16>,
    /// Values of one key head.
    stride: usize,
}

/// What lies between the layers, for up to [`CHUNK`] tokens.
#[derive(Debug, Default)]
struct Work {
    activations: Activations,
    /// The residual stream, `[tokens, embedding]`.
    stream: Vec<f32>,
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
        let stride = capacity.next_multiple_of(KEYS) * head_dim.next_multiple_of(DIM);
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
                cache: Cache {
                    keys: vec![0; config.kv_heads * stride],
                    values: vec![0; config.kv_heads * stride],
                    stride,
                },
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
            asks: Vec::new(),
            len: 0,
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

    /// Runs up to [`CHUNK`] tokens through the layers; leaves the stream of the last `rows` in the work space.
    fn chunk(&mut self, tokens: &[TokenId], rows: usize) {
        let Self { config, compute, blocks, embedding, head, len, work, .. } = self;
        let count = tokens.len();
        let width = config.embedding;
        let table = embedding.as_ref().unwrap_or(head.weight());
        resize(&mut work.stream, count * width);
        let stream = Chunks::new(&mut work.stream, width);
        compute.pool.run(count, |row, _| {
            // SAFETY: each row is one piece, which runs once.
            table.row(tokens[row] as usize, unsafe { stream.get(row) });
        });
        work.angles(&config.rope.frequencies, *len, count);
        let last = blocks.len().saturating_sub(1);
        for (index, block) in blocks.iter_mut().enumerate() {
            // Behind the last layer's keys and values only the asked positions matter.
            block.run(config, compute, work, *len, count, if index == last { rows } else { count });
        }
        *len += count;
    }
}

impl Decoder for CpuDecoder {
    fn forward(&mut self, tokens: &[TokenId], rows: usize) -> Result<&[f32], EngineError> {
        let asks = std::mem::take(&mut self.asks);
        let asked = self.len + tokens.len();
        if asked > self.capacity {
            return Err(EngineError::PromptTooLong { tokens: asked, context: self.capacity });
        }
        let vocabulary = self.config.vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            let problem = format!("token {token} is outside the vocabulary of {vocabulary}");
            return Err(EngineError::Device { device: "CPU".to_owned(), source: problem.into() });
        }
        let rows = rows.min(tokens.len());
        resize(&mut self.logits, rows * vocabulary);
        let mut left = tokens.len();
        let mut written = 0;
        for chunk in tokens.chunks(CHUNK) {
            left -= chunk.len();
            // Positions of this chunk whose logits are asked for: those among the last `rows` of all.
            let here = rows.saturating_sub(left).min(chunk.len());
            let here = here.min(rows - written);
            self.chunk(chunk, here);
            if here == 0 {
                continue;
            }
            let Self { config, compute, head, output_norm, work, logits, .. } = self;
            let (stream, width) = (&work.stream, config.embedding);
            let offset = if config.blocks == 0 { chunk.len() - here } else { 0 };
            compute.prepare(&mut work.activations, here, width, |row, out| {
                let row = offset + row;
                compute.norm(&stream[row * width..(row + 1) * width], output_norm, config.norm_epsilon, out);
            });
            let out = &mut logits[written * vocabulary..(written + here) * vocabulary];
            head.logits(compute, &work.activations, asks.get(written..).unwrap_or_default(), out);
            written += here;
        }
        Ok(&self.logits)
    }

    fn ask(&mut self, asks: Vec<Ask>) {
        self.asks = asks;
    }

    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
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
}

impl Block {
    /// Appends `count` tokens at `len`; the stream of the last `keep` of them is what is left of the stream.
    fn run(
        &mut self,
        config: &Config,
        compute: &Compute,
        work: &mut Work,
        len: usize,
        count: usize,
        keep: usize,
    ) {
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
        compute.multiply(
            &work.activations,
            &mut [
                Target { linear: &self.query, out: &mut work.query, add: false },
                Target { linear: &self.key, out: &mut work.key, add: false },
                Target { linear: &self.value, out: &mut work.value, add: false },
            ],
        );
        self.append(config, compute, work, len, count);
        if keep == 0 {
            return;
        }
        if keep < count {
            work.stream.copy_within((count - keep) * width..count * width, 0);
            work.query.copy_within((count - keep) * query_width..count * query_width, 0);
        }
        self.attend(config, compute, work, len + count - keep, keep);

        let attended = &work.attended;
        compute.prepare(&mut work.activations, keep, query_width, |row, out| {
            out.copy_from_slice(&attended[row * query_width..(row + 1) * query_width]);
        });
        let stream = &mut work.stream[..keep * width];
        compute.multiply(
            &work.activations,
            &mut [Target { linear: &self.output, out: &mut *stream, add: true }],
        );
        let input: &[f32] = stream;
        compute.prepare(&mut work.activations, keep, width, |row, out| {
            compute.norm(&input[row * width..(row + 1) * width], &self.feed_forward_norm, epsilon, out);
        });
        let inner = config.feed_forward;
        resize(&mut work.gate, keep * inner);
        resize(&mut work.up, keep * inner);
        compute.multiply(
            &work.activations,
            &mut [
                Target { linear: &self.gate, out: &mut work.gate, add: false },
                Target { linear: &self.up, out: &mut work.up, add: false },
            ],
        );
        let (gate, up) = (&work.gate, &work.up);
        compute.prepare(&mut work.activations, keep, inner, |row, out| {
            let row = row * inner..(row + 1) * inner;
            compute.gate(&gate[row.clone()], &up[row], out);
        });
        compute.multiply(&work.activations, &mut [Target { linear: &self.down, out: stream, add: true }]);
    }

    /// Norms and rotates queries and keys, and writes keys and values to the cache.
    fn append(&mut self, config: &Config, compute: &Compute, work: &mut Work, len: usize, count: usize) {
        let Config { head_dim, kv_heads, .. } = *config;
        let dim = head_dim.next_multiple_of(DIM);
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let Cache { keys, values, stride } = &mut self.cache;
        let blocks = *stride / (BLOCK * dim);
        let keys = Chunks::new(keys, BLOCK * dim);
        let values = Chunks::new(values, BLOCK * dim);
        let queries = Chunks::new(&mut work.query, query_width);
        let new_keys = Chunks::new(&mut work.key, kv_width);
        let (new_values, cosines, sines) = (&work.value, &work.cosines, &work.sines);
        let pairs = config.rope.dim / 2;
        let (query_norm, key_norm) = (self.query_norm.as_deref(), self.key_norm.as_deref());
        let first_block = len / BLOCK;
        let end = len + count;
        compute.pool.run(end.div_ceil(BLOCK) - first_block, |piece, _| {
            let block = first_block + piece;
            let mut halves = vec![f16::ZERO; head_dim];
            for position in len.max(block * BLOCK)..end.min((block + 1) * BLOCK) {
                let token = position - len;
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
                        unsafe { (keys.get(kv_head * blocks + block), values.get(kv_head * blocks + block)) };
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

    /// Attention of `count` tokens, the first of them at `position`, over the cache.
    fn attend(&self, config: &Config, compute: &Compute, work: &mut Work, position: usize, count: usize) {
        let Config { head_dim, kv_heads, .. } = *config;
        let group = config.heads / kv_heads;
        let width = config.query_width();
        resize(&mut work.attended, count * width);
        let tiles = (count * group).div_ceil(ROWS);
        let queries = &work.query[..count * width];
        let out = SharedOut(work.attended.as_mut_ptr());
        let out = &out;
        let Cache { keys, values, stride } = &self.cache;
        compute.pool.run(kv_heads * tiles, |piece, _| {
            // The last tokens see the most keys: long pieces first, so that the pieces end together.
            let (tile, kv_head) = (tiles - 1 - piece / kv_heads, piece % kv_heads);
            let own = kv_head * stride..(kv_head + 1) * stride;
            let args = Attend {
                queries,
                out: out.0,
                stride: width,
                head_dim,
                group,
                kv_head,
                first: tile * ROWS,
                rows: ROWS.min(count * group - tile * ROWS),
                visible: position + 1,
                keys: &keys[own.clone()],
                values: &values[own],
            };
            // SAFETY: `attended` has the shape of `queries`, and each piece has its own rows and head.
            unsafe { compute.attend(&args) };
        });
    }
}

/// A pointer that the pieces of a job share.
struct SharedOut(*mut f32);
// SAFETY: the pieces write to disjoint places behind it.
unsafe impl Sync for SharedOut {}

impl Work {
    /// Cosines and sines of `count` positions from `len` on.
    fn angles(&mut self, frequencies: &[f32], len: usize, count: usize) {
        self.cosines.clear();
        self.sines.clear();
        for position in len..len + count {
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

/// Reads tensors of a model file.
struct Load<'a> {
    gguf: &'a Gguf,
    pool: &'a Pool,
}

impl Load<'_> {
    fn packed(&self, name: &str, rows: usize, columns: usize) -> Result<Packed, EngineError> {
        self.pack(name, &[rows, columns], Packed::new)
    }

    /// A matrix in two planes, if its format has them.
    fn planes(&self, name: &str, rows: usize, columns: usize) -> Result<Packed, EngineError> {
        self.pack(name, &[rows, columns], Packed::in_planes)
    }

    fn pack(
        &self,
        name: &str,
        shape: &[usize],
        pack: fn(&TensorView<'_>, &Pool) -> Result<Packed, String>,
    ) -> Result<Packed, EngineError> {
        let view = self.gguf.need_tensor(name, shape)?;
        let packed = pack(&view, self.pool).map_err(|problem| self.gguf.bad(name, problem, REMEDY));
        self.gguf.release(name);
        packed
    }

    fn linear(&self, name: &str, rows: usize, columns: usize, bias: bool) -> Result<Linear, EngineError> {
        let weight = self.packed(&format!("{name}.weight"), rows, columns)?;
        let bias = bias.then(|| self.floats(&format!("{name}.bias"), rows)).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// A vector as floats.
    fn floats(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let TensorView { dtype, data, .. } = self.gguf.need_tensor(name, &[len])?;
        // A vector is a matrix of one row.
        let view = TensorView { dtype, shape: vec![1, len], data };
        let packed = Packed::new(&view, self.pool).map_err(|problem| self.gguf.bad(name, problem, REMEDY))?;
        let mut values = vec![0.0; len];
        packed.row(0, &mut values);
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use candle_core::Device;
    use candle_core::quantized::GgmlDType;

    use super::*;
    use crate::Tokens;
    use crate::gguf::testing::{Dims, Writer, random_llama, random_qwen2};
    use crate::local::{CandleDecoder, real_model};

    const DTYPES: [GgmlDType; 11] = [
        GgmlDType::F32,
        GgmlDType::F16,
        GgmlDType::BF16,
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    fn kernels() -> impl Iterator<Item = Kernel> {
        Kernel::ALL.into_iter().filter(|kernel| kernel.is_available())
    }

    fn open(writer: &Writer) -> (tempfile::TempDir, Gguf, Config) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        writer.write(&path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let config = Config::from_gguf(&gguf).unwrap();
        (folder, gguf, config)
    }

    fn random_tokens(random: &mut fastrand::Rng, config: &Config, len: usize) -> Vec<TokenId> {
        (0..len).map(|_| random.u32(..config.vocabulary as u32)).collect()
    }

    fn argmax(logits: &[f32]) -> usize {
        (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
    }

    /// Greatest difference over the greatest value.
    fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
        assert_eq!(ours.len(), theirs.len());
        assert!(ours.iter().all(|x| x.is_finite()));
        let most = theirs.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(most > 0.0);
        ours.iter().zip(theirs).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / most
    }

    #[test]
    fn tiny_models_agree_with_candle_and_all_kernels_bit_for_bit() {
        let mut random = fastrand::Rng::with_seed(5);
        for dtype in DTYPES {
            for tied in [false, true] {
                let output = (!tied).then_some(GgmlDType::Q8_0);
                let dims = Dims { output, ..Dims::stored_as(dtype) };
                for (family, writer) in [("qwen2", random_qwen2(9, &dims)), ("llama", random_llama(9, &dims))]
                {
                    let (_folder, gguf, config) = open(&writer.unwrap());
                    let tokens = random_tokens(&mut random, &config, 70);
                    let mut candle = CandleDecoder::load(&gguf, &config, 128, &Device::Cpu).unwrap();
                    let theirs = candle.forward(&tokens, 20).unwrap();
                    let mut first: Option<Vec<f32>> = None;
                    for kernel in kernels() {
                        let mut decoder = CpuDecoder::new(&gguf, &config, 128, kernel, 2).unwrap();
                        let ours = decoder.forward(&tokens, 20).unwrap().to_vec();
                        let difference = difference(&ours, theirs);
                        // Both round activations to 8 bits, candle's K-quants in blocks of 256.
                        assert!(difference < 5e-2, "{family} {dtype:?} {kernel:?}: {difference}");
                        let first = first.get_or_insert_with(|| ours.clone());
                        assert!(
                            *first == ours,
                            "{family} {dtype:?}: {kernel:?} is not {:?}",
                            Kernel::Portable
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn heads_of_an_odd_width_and_odd_groups_agree_with_candle() {
        let mut random = fastrand::Rng::with_seed(8);
        // Heads of 24 and 8 values, three and one query heads for each key head.
        for (hidden, heads, kv_heads) in [(288, 12, 4), (96, 12, 12), (160, 5, 1)] {
            let dims = Dims { hidden, heads, kv_heads, ..Dims::stored_as(GgmlDType::Q8_0) };
            for writer in [random_qwen2(4, &dims), random_llama(4, &dims)] {
                let (_folder, gguf, config) = open(&writer.unwrap());
                // More than one tile of keys.
                let tokens = random_tokens(&mut random, &config, 150);
                let mut candle = CandleDecoder::load(&gguf, &config, 200, &Device::Cpu).unwrap();
                let theirs = candle.forward(&tokens, 90).unwrap();
                let mut first: Option<Vec<f32>> = None;
                for kernel in kernels() {
                    let mut decoder = CpuDecoder::new(&gguf, &config, 200, kernel, 2).unwrap();
                    let ours = decoder.forward(&tokens, 90).unwrap().to_vec();
                    let difference = difference(&ours, theirs);
                    assert!(difference < 3e-2, "{hidden} {kernel:?}: {difference}");
                    assert!(*first.get_or_insert_with(|| ours.clone()) == ours, "{hidden} {kernel:?}");
                }
            }
        }
    }

    #[test]
    fn the_split_into_calls_does_not_matter() {
        let mut random = fastrand::Rng::with_seed(6);
        for dtype in [GgmlDType::Q5_0, GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::F16] {
            let dims = Dims { output: Some(GgmlDType::Q8_0), context: 600, ..Dims::stored_as(dtype) };
            let (_folder, gguf, config) = open(&random_qwen2(3, &dims).unwrap());
            let tokens = random_tokens(&mut random, &config, 500);
            for kernel in kernels() {
                let mut decoder = CpuDecoder::new(&gguf, &config, 600, kernel, 2).unwrap();
                let whole = decoder.forward(&tokens, tokens.len()).unwrap().to_vec();
                let rounds = if kernel == Kernel::Portable { 1 } else { 6 };
                for _ in 0..rounds {
                    // Junk behind the cut must not be seen.
                    let mut at = random.usize(..tokens.len());
                    decoder.truncate(at);
                    while at < tokens.len() {
                        let end = (at + random.usize(1..50)).min(tokens.len());
                        let rows = random.usize(..=end - at);
                        let logits = decoder.forward(&tokens[at..end], rows).unwrap();
                        let expected = &whole[(end - rows) * config.vocabulary..end * config.vocabulary];
                        assert!(logits == expected, "{kernel:?} {dtype:?}: {rows} rows up to {end}");
                        at = end;
                        assert_eq!(decoder.len(), at);
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_lost() {
        let (_folder, gguf, config) = open(&random_qwen2(1, &Dims::default()).unwrap());
        let mut decoder = CpuDecoder::new(&gguf, &config, 10, Kernel::best(), 2).unwrap();
        let expected = decoder.forward(&[1, 2, 3], 1).unwrap().to_vec();
        let too_long = decoder.forward(&[1; 8], 1).unwrap_err();
        assert!(matches!(too_long, EngineError::PromptTooLong { tokens: 11, context: 10 }));
        decoder.forward(&[1, config.vocabulary as u32], 1).unwrap_err();
        assert_eq!(decoder.len(), 3);
        decoder.truncate(2);
        assert_eq!(decoder.forward(&[3], 1).unwrap(), expected);
        assert!(decoder.forward(&[], 1).unwrap().is_empty());
        assert!(decoder.forward(&[4, 5], 0).unwrap().is_empty());
        assert_eq!(decoder.forward(&[6], 5).unwrap().len(), config.vocabulary);
    }

    #[test]
    fn formats_without_kernels_are_named() {
        let (_folder, gguf, config) = open(&random_qwen2(1, &Dims::stored_as(GgmlDType::Q3K)).unwrap());
        let error = CpuDecoder::new(&gguf, &config, 10, Kernel::best(), 1).unwrap_err().to_string();
        assert!(error.contains("Q3K") && error.contains("choose another file"), "{error}");
    }

    #[test]
    fn the_real_model_agrees_with_candle() {
        let Some(path) = real_model::path() else { return };
        let gguf = Gguf::open(&path).unwrap();
        let config = Config::from_gguf(&gguf).unwrap();
        let mut tokens = Tokens::from_gguf(&gguf).unwrap().encode(real_model::CODE);
        tokens.truncate(200);
        let rows = tokens.len();
        let mut candle = CandleDecoder::load(&gguf, &config, 512, &Device::Cpu).unwrap();
        let theirs = candle.forward(&tokens, rows).unwrap().to_vec();
        drop(candle);
        let mut decoder = CpuDecoder::new(&gguf, &config, 512, Kernel::best(), 2).unwrap();
        let ours = decoder.forward(&tokens, rows).unwrap().to_vec();
        let pairs = ours.chunks(config.vocabulary).zip(theirs.chunks(config.vocabulary));
        let differences: Vec<f32> = pairs.clone().map(|(ours, theirs)| difference(ours, theirs)).collect();
        let same = pairs.filter(|(ours, theirs)| argmax(ours) == argmax(theirs)).count();
        let mean = differences.iter().sum::<f32>() / rows as f32;
        let worst = differences.iter().copied().fold(0.0, f32::max);
        #[expect(clippy::print_stderr, reason = "a measurement that the test's output keeps")]
        {
            eprintln!("against candle: mean {mean:.4}, worst {worst:.4}, same choice {same} of {rows}");
        }
        assert!(mean < 2e-2 && worst < 0.1, "mean {mean}, worst {worst}");
        assert!(same * 100 >= rows * 97, "{same} of {rows}");

        decoder.truncate(120);
        let again = decoder.forward(&tokens[120..], 1).unwrap();
        assert!(again == &ours[(rows - 1) * config.vocabulary..]);
    }
}
