//! Writes small GGUF files for tests: any metadata and tensors, and whole models with random weights.

use std::fs;
use std::io;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::{DEFAULT_ALIGNMENT, MetadataValue, TensorFormat};
use crate::tokenizer::tiny;

/// A builder of GGUF files (version 3, little endian).
///
/// ```no_run
/// use taper_engine::gguf::{MetadataValue, testing::GgufWriter};
/// let writer =
///     GgufWriter::new().with_metadata("general.architecture", MetadataValue::String("qwen2".into()));
/// writer.write("model.gguf".as_ref())?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, MetadataValue)>,
    tensors: Vec<(String, TensorFormat, Vec<usize>, Vec<u8>)>,
}

impl GgufWriter {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tensors and metadata of a file, of which lists only if they are of strings.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn from_gguf(gguf: &super::Gguf) -> io::Result<Self> {
        let mut writer = Self::new();
        for (key, value) in &gguf.first_file().metadata {
            writer = writer.with_metadata(key, value.clone());
        }
        for key in gguf.first_file().lists.keys() {
            if let Ok(Some(strings)) = gguf.get_strings(key) {
                let strings = strings.into_iter().map(|it| String::from_utf8_lossy(it).into_owned());
                writer = writer.with_metadata(key, string_array(strings.collect()));
            }
        }
        for (name, view) in gguf.tensor_names().filter_map(|name| Some((name, gguf.tensor(name)?))) {
            writer = writer.with_tensor(name, view.dtype, &view.shape, view.data.read_all()?.into_owned());
        }
        Ok(writer)
    }

    /// Adds a metadata value, or replaces the one under this key.
    ///
    /// Stored as converters do: integers as `u32`/`i32` where they fit, else `u64`/`i64`; floats as `f32`.
    /// A list takes the type of its first element (`u32` if empty), so its elements must be of one kind.
    pub fn with_metadata(mut self, key: &str, value: MetadataValue) -> Self {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// Removes the metadata value under this key.
    pub fn without_metadata(mut self, key: &str) -> Self {
        self.metadata.retain(|(other, _)| other != key);
        self
    }

    /// Adds a tensor, or replaces the one of this name. `shape` has the outermost dimension first (as
    /// [`super::TensorView::shape`]); `bytes` are the stored blocks and are not checked.
    pub fn with_tensor(
        mut self,
        name: &str,
        format: impl Into<TensorFormat>,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> Self {
        self.tensors.retain(|(other, ..)| other != name);
        self.tensors.push((name.to_owned(), format.into(), shape.to_vec(), bytes));
        self
    }

    /// Removes the tensor of this name.
    pub fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|(other, ..)| other != name);
        self
    }

    /// The same model in `count` files, as `gguf-split` of llama.cpp writes them: all metadata in the first, and in each
    /// as many tensors in turn.
    #[cfg(test)]
    pub(crate) fn split(self, count: usize) -> Vec<Self> {
        let number = |n: usize| MetadataValue::Unsigned(n as u64);
        let (total, share) = (self.tensors.len(), self.tensors.len().div_ceil(count));
        let mut tensors = self.tensors.into_iter();
        let mut metadata = Some(self.metadata);
        let parts = (0..count).map(|index| {
            let tensors = tensors.by_ref().take(share).collect();
            Self { metadata: metadata.take().unwrap_or_default(), tensors }
                .with_metadata("split.no", number(index))
                .with_metadata("split.count", number(count))
                .with_metadata("split.tensors.count", MetadataValue::Signed(total as i64))
        });
        parts.collect()
    }

    /// The whole file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&super::MAGIC);
        out.extend_from_slice(&3_u32.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_string(&mut out, key);
            let kind = value_type(value);
            out.extend_from_slice(&kind.to_le_bytes());
            write_value(&mut out, kind, value);
        }
        let mut offset = 0;
        for (name, format, shape, bytes) in &self.tensors {
            write_string(&mut out, name);
            out.extend_from_slice(&(shape.len() as u32).to_le_bytes());
            for &n in shape.iter().rev() {
                out.extend_from_slice(&(n as u64).to_le_bytes());
            }
            out.extend_from_slice(&format.number().to_le_bytes());
            out.extend_from_slice(&(offset as u64).to_le_bytes());
            offset = (offset + bytes.len()).next_multiple_of(DEFAULT_ALIGNMENT as usize);
        }
        for (.., bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
            out.extend_from_slice(bytes);
        }
        out
    }

    /// Writes the file.
    ///
    /// # Errors
    /// File system errors.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, self.to_bytes())
    }

    /// Adds `tokenizer.ggml.*` of a tiny byte-level vocabulary with Qwen's special tokens (that of
    /// [`crate::Tokenizer::bytes_only`]).
    pub fn with_byte_level_tokenizer(self) -> Self {
        let (tokens, types, merges) = tiny::byte_level_vocabulary();
        let id = |name: &str| {
            MetadataValue::Unsigned(tokens.iter().position(|token| token == name).unwrap_or_default() as u64)
        };
        let end = id("<|endoftext|>");
        self.with_metadata("tokenizer.ggml.model", MetadataValue::String("gpt2".into()))
            .with_metadata("tokenizer.ggml.pre", MetadataValue::String("qwen2".into()))
            .with_metadata("tokenizer.ggml.bos_token_id", end.clone())
            .with_metadata("tokenizer.ggml.eos_token_id", id("<|im_end|>"))
            .with_metadata("tokenizer.ggml.padding_token_id", end)
            .with_metadata("tokenizer.ggml.add_bos_token", MetadataValue::Bool(false))
            .with_metadata("tokenizer.ggml.tokens", string_array(tokens))
            .with_metadata(
                "tokenizer.ggml.token_type",
                MetadataValue::Array(types.into_iter().map(MetadataValue::Signed).collect()),
            )
            .with_metadata("tokenizer.ggml.merges", string_array(merges))
    }

    /// Adds `tokenizer.ggml.*` of a tiny SentencePiece vocabulary with CodeLlama's special tokens.
    pub fn with_sentencepiece_tokenizer(self) -> Self {
        let (tokens, types, scores) = tiny::sentencepiece_vocabulary();
        self.with_metadata("tokenizer.ggml.model", MetadataValue::String("llama".into()))
            .with_metadata("tokenizer.ggml.pre", MetadataValue::String("default".into()))
            .with_metadata("tokenizer.ggml.unknown_token_id", MetadataValue::Unsigned(0))
            .with_metadata("tokenizer.ggml.bos_token_id", MetadataValue::Unsigned(1))
            .with_metadata("tokenizer.ggml.eos_token_id", MetadataValue::Unsigned(2))
            .with_metadata("tokenizer.ggml.add_bos_token", MetadataValue::Bool(true))
            .with_metadata("tokenizer.ggml.tokens", string_array(tokens))
            .with_metadata(
                "tokenizer.ggml.scores",
                MetadataValue::Array(scores.into_iter().map(MetadataValue::Float).collect()),
            )
            .with_metadata(
                "tokenizer.ggml.token_type",
                MetadataValue::Array(types.into_iter().map(MetadataValue::Signed).collect()),
            )
    }
}

fn string_array(texts: Vec<String>) -> MetadataValue {
    MetadataValue::Array(texts.into_iter().map(MetadataValue::String).collect())
}

/// Sizes of a model with random weights.
#[derive(Debug, Clone)]
pub struct ModelDims {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads; each is `hidden / heads` wide.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Inner width of the feed-forward network.
    pub intermediate: usize,
    /// The file's `context_length`.
    pub context: usize,
    /// Formats of the matrices, used in turn: one element for a uniform file, several for a mix. The
    /// block size (32 values, K-quants 256) must divide `hidden` and `intermediate`.
    pub weights: Vec<GgmlDType>,
    /// Format of the embedding table.
    pub embedding: GgmlDType,
    /// Format of the output head; `None`: it is tied to the embedding table.
    pub output: Option<GgmlDType>,
}

impl Default for ModelDims {
    /// Two layers of width 64, `f32`, head tied to the embedding: the fastest model that has every part.
    fn default() -> Self {
        Self {
            layers: 2,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            intermediate: 128,
            context: 512,
            weights: vec![GgmlDType::F32],
            embedding: GgmlDType::F32,
            output: None,
        }
    }
}

impl ModelDims {
    /// The default sizes with all matrices in `dtype`; wider if `dtype` is a K-quant.
    pub fn stored_as(dtype: GgmlDType) -> Self {
        let wide = dtype.block_size() > 32;
        Self {
            hidden: if wide { 256 } else { 64 },
            intermediate: if wide { 512 } else { 128 },
            weights: vec![dtype],
            embedding: dtype,
            ..Self::default()
        }
    }
}

/// A model of the qwen2 family (biases on q, k, v; tiny byte-level vocabulary) with random weights: the
/// same `seed` and `dims` give the same file.
///
/// # Errors
/// candle refuses a dtype for these dimensions.
pub fn random_qwen2(seed: u64, dims: &ModelDims) -> candle_core::Result<GgufWriter> {
    let (tokens, ..) = tiny::byte_level_vocabulary();
    let writer = model_header("qwen2", dims).with_byte_level_tokenizer();
    add_random_weights(writer, seed, dims, tokens.len(), true)
}

/// A model of the llama family (no biases; tiny SentencePiece vocabulary) with random weights.
///
/// # Errors
/// candle refuses a dtype for these dimensions.
pub fn random_llama(seed: u64, dims: &ModelDims) -> candle_core::Result<GgufWriter> {
    let (tokens, ..) = tiny::sentencepiece_vocabulary();
    let writer = model_header("llama", dims)
        .with_sentencepiece_tokenizer()
        .with_metadata(
            "llama.rope.dimension_count",
            MetadataValue::Unsigned((dims.hidden / dims.heads) as u64),
        )
        .with_metadata("llama.vocab_size", MetadataValue::Unsigned(tokens.len() as u64));
    add_random_weights(writer, seed, dims, tokens.len(), false)
}

/// A model of the qwen3 family (queries and keys are normed, no biases) with random weights.
///
/// # Errors
/// candle refuses a dtype for these dimensions.
pub fn random_qwen3(seed: u64, dims: &ModelDims) -> candle_core::Result<GgufWriter> {
    let (tokens, ..) = tiny::byte_level_vocabulary();
    let writer = model_header("qwen3", dims).with_byte_level_tokenizer();
    let mut writer = add_random_weights(writer, seed, dims, tokens.len(), false)?;
    let mut random = SplitMix64(seed ^ 0x0003);
    let width = dims.hidden / dims.heads;
    for (layer, part) in (0..dims.layers).flat_map(|layer| ["q", "k"].map(|part| (layer, part))) {
        let bytes = (0..width).flat_map(|_| (1.0 + 0.4 * random.next_signed()).to_le_bytes()).collect();
        writer = writer.with_tensor(
            &format!("blk.{layer}.attn_{part}_norm.weight"),
            GgmlDType::F32,
            &[width],
            bytes,
        );
    }
    Ok(writer)
}

fn model_header(family: &str, dims: &ModelDims) -> GgufWriter {
    let number = |n: usize| MetadataValue::Unsigned(n as u64);
    GgufWriter::new()
        .with_metadata("general.architecture", MetadataValue::String(family.into()))
        .with_metadata("general.name", MetadataValue::String(format!("random {family}")))
        .with_metadata(&format!("{family}.block_count"), number(dims.layers))
        .with_metadata(&format!("{family}.context_length"), number(dims.context))
        .with_metadata(&format!("{family}.embedding_length"), number(dims.hidden))
        .with_metadata(&format!("{family}.feed_forward_length"), number(dims.intermediate))
        .with_metadata(&format!("{family}.attention.head_count"), number(dims.heads))
        .with_metadata(&format!("{family}.attention.head_count_kv"), number(dims.kv_heads))
        .with_metadata(&format!("{family}.attention.layer_norm_rms_epsilon"), MetadataValue::Float(1e-6))
        .with_metadata(&format!("{family}.rope.freq_base"), MetadataValue::Float(10_000.0))
}

/// Uniform random weights, scaled so that every layer preserves the magnitude of its activations.
fn add_random_weights(
    mut writer: GgufWriter,
    seed: u64,
    dims: &ModelDims,
    vocabulary: usize,
    biases: bool,
) -> candle_core::Result<GgufWriter> {
    let mut random = SplitMix64(seed);
    let mut stored = dims.weights.iter().copied().cycle();
    let mut matrix =
        |writer: GgufWriter, name: &str, rows: usize, columns: usize, dtype: Option<GgmlDType>, gain: f32| {
            let dtype = dtype.or_else(|| stored.next()).unwrap_or(GgmlDType::F32);
            let spread = gain * (3.0 / columns as f32).sqrt();
            let values: Vec<f32> = (0..rows * columns).map(|_| random.next_signed() * spread).collect();
            let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu)?;
            let bytes = QTensor::quantize(&tensor, dtype)?.data()?.into_owned();
            candle_core::Result::Ok(writer.with_tensor(name, dtype, &[rows, columns], bytes))
        };
    let mut other = SplitMix64(seed ^ 0x5eed);
    let mut vector = |writer: GgufWriter, name: &str, len: usize, middle: f32| {
        let bytes = (0..len).flat_map(|_| (middle + 0.2 * other.next_signed()).to_le_bytes()).collect();
        writer.with_tensor(name, GgmlDType::F32, &[len], bytes)
    };
    let (hidden, kv) = (dims.hidden, dims.hidden / dims.heads * dims.kv_heads);
    // Embeddings of unit variance: spread * sqrt(columns).
    let gain = (hidden as f32).sqrt();
    writer = matrix(writer, "token_embd.weight", vocabulary, hidden, Some(dims.embedding), gain)?;
    for layer in 0..dims.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        writer = vector(writer, &name("attn_norm.weight"), hidden, 1.0);
        for (part, rows) in [("attn_q", hidden), ("attn_k", kv), ("attn_v", kv)] {
            writer = matrix(writer, &name(&format!("{part}.weight")), rows, hidden, None, 1.5)?;
            if biases {
                writer = vector(writer, &name(&format!("{part}.bias")), rows, 0.0);
            }
        }
        writer = matrix(writer, &name("attn_output.weight"), hidden, hidden, None, 1.0)?;
        writer = vector(writer, &name("ffn_norm.weight"), hidden, 1.0);
        writer = matrix(writer, &name("ffn_gate.weight"), dims.intermediate, hidden, None, 1.5)?;
        writer = matrix(writer, &name("ffn_up.weight"), dims.intermediate, hidden, None, 1.5)?;
        writer = matrix(writer, &name("ffn_down.weight"), hidden, dims.intermediate, None, 1.0)?;
    }
    writer = vector(writer, "output_norm.weight", hidden, 1.0);
    if let Some(dtype) = dims.output {
        writer = matrix(writer, "output.weight", vocabulary, hidden, Some(dtype), 4.0)?;
    }
    Ok(writer)
}

/// SplitMix64 (Steele, Lea, Flood 2014), used so that files do not change with a library's version.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    fn next_signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The `gguf_metadata_value_type` of a value.
fn value_type(value: &MetadataValue) -> u32 {
    match value {
        MetadataValue::Unsigned(n) if u32::try_from(*n).is_ok() => 4,
        MetadataValue::Unsigned(_) => 10,
        MetadataValue::Signed(n) if i32::try_from(*n).is_ok() => 5,
        MetadataValue::Signed(_) => 11,
        MetadataValue::Float(_) => 6,
        MetadataValue::Bool(_) => 7,
        MetadataValue::String(_) => 8,
        MetadataValue::Array(_) => 9,
    }
}

fn write_value(out: &mut Vec<u8>, kind: u32, value: &MetadataValue) {
    match (kind, value) {
        (4, MetadataValue::Unsigned(n)) => out.extend_from_slice(&(*n as u32).to_le_bytes()),
        (_, MetadataValue::Unsigned(n)) => out.extend_from_slice(&n.to_le_bytes()),
        (5, MetadataValue::Signed(n)) => out.extend_from_slice(&(*n as i32).to_le_bytes()),
        (_, MetadataValue::Signed(n)) => out.extend_from_slice(&n.to_le_bytes()),
        (_, MetadataValue::Float(x)) => out.extend_from_slice(&(*x as f32).to_le_bytes()),
        (_, MetadataValue::Bool(value)) => out.push(u8::from(*value)),
        (_, MetadataValue::String(text)) => write_string(out, text),
        (_, MetadataValue::Array(values)) => {
            let kind = values.first().map_or(4, value_type);
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&(values.len() as u64).to_le_bytes());
            for value in values {
                write_value(out, kind, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;

    #[test]
    fn written_gguf_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let writer = GgufWriter::new()
            .with_metadata("a", MetadataValue::Unsigned(7))
            .with_metadata("b", MetadataValue::Signed(-7))
            .with_metadata("c", MetadataValue::Unsigned(1 << 40))
            .with_metadata("d", MetadataValue::Float(0.5))
            .with_metadata("e", string_array(vec!["x".into(), "é".into()]))
            .with_metadata(
                "f",
                MetadataValue::Array(vec![
                    MetadataValue::Array(vec![MetadataValue::Bool(true)]),
                    MetadataValue::Array(vec![]),
                ]),
            )
            .with_tensor("t", GgmlDType::F32, &[2, 3], (0..24).collect())
            .with_tensor("u", GgmlDType::F16, &[1], vec![1, 2]);
        writer.write(&path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.get_usize("a").unwrap(), Some(7));
        assert_eq!(gguf.get("b"), Some(&MetadataValue::Signed(-7)));
        assert_eq!(gguf.get_usize("c").unwrap(), Some(1 << 40));
        assert_eq!(gguf.get_float("d").unwrap(), Some(0.5));
        assert_eq!(gguf.get_strings("e").unwrap(), Some(vec!["x".as_bytes(), "é".as_bytes()]));
        assert!(
            gguf.get_numbers("e").is_err()
                && gguf.get_numbers("f").is_err()
                && gguf.get_strings("a").is_err()
        );
        let t = gguf.require_tensor("t", &[2, 3]).unwrap();
        assert_eq!(*t.data.read_all().unwrap(), (0..24).collect::<Vec<u8>>());
        assert_eq!(*gguf.require_tensor("u", &[1]).unwrap().data.read_all().unwrap(), [1, 2]);
    }

    #[test]
    fn random_models_open_for_every_dtype() {
        use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        for dtype in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
            let dims = ModelDims { output: Some(Q8_0), ..ModelDims::stored_as(dtype) };
            for writer in [random_qwen2(1, &dims).unwrap(), random_llama(1, &dims).unwrap()] {
                writer.write(&path).unwrap();
                let gguf = Gguf::open(&path).unwrap();
                assert!(gguf.tensor("blk.1.ffn_down.weight").is_some_and(|t| t.dtype == dtype));
            }
        }
        let dims = ModelDims::default();
        assert_eq!(random_qwen2(3, &dims).unwrap().to_bytes(), random_qwen2(3, &dims).unwrap().to_bytes());
        assert_ne!(random_qwen2(3, &dims).unwrap().to_bytes(), random_qwen2(4, &dims).unwrap().to_bytes());
    }
}
