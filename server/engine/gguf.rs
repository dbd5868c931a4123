//! The GGUF container: reads the metadata and tensors of a model file and validates them before use.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little endian.
//! A number from the file is compared with the remaining bytes before it sizes an allocation.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use crate::EngineError;

mod blocks;
mod reader;
mod sanitize;
mod source;
#[doc(hidden)]
#[cfg(any(test, feature = "test-support"))]
pub mod testing;

pub(crate) use blocks::{are_finite, half_float_offsets};
use reader::GgufReader;
pub(crate) use sanitize::{model_error, sanitize_word};
use source::ByteSource;
pub use source::TensorData;

/// An open model file: its header is in memory, its tensors are read from the file on demand.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    source: ByteSource,
    /// The bytes before the tensors.
    header: Vec<u8>,
    metadata: HashMap<String, MetadataValue>,
    lists: HashMap<String, ListSpan>,
    tensors: HashMap<String, TensorInfo>,
}

/// The location of a list. Lists stay in the file: a vocabulary has hundreds of thousands of entries.
#[derive(Debug, Clone, Copy)]
struct ListSpan {
    /// `gguf_metadata_value_type` of the elements.
    kind: u32,
    count: usize,
    /// Offset of the first element. All elements were validated when the file was opened.
    start: usize,
}

/// One metadata value. Arrays keep their elements as written.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// `f32` and `f64`.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string. Invalid UTF-8, which vocabularies of old converters contain, is replaced.
    String(String),
    /// A list of any of these.
    Array(Vec<MetadataValue>),
}

#[derive(Debug, Clone)]
struct TensorInfo {
    dtype: GgmlDType,
    shape: Vec<usize>,
    start: u64,
    len: usize,
}

/// A tensor as stored in the file.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// How the values are stored.
    pub dtype: GgmlDType,
    /// Row-major shape, the outermost dimension first (GGUF stores it reversed): `[rows, columns]` of a matrix.
    pub shape: Vec<usize>,
    /// The stored blocks.
    pub data: TensorData<'a>,
}

impl<'a> TensorView<'a> {
    /// Some of the rows of a tensor that has all its dimensions but the last as rows: `[rows, columns]`. `None`: there
    /// are fewer rows.
    #[must_use]
    pub fn matrix_rows(&self, rows: Range<usize>) -> Option<TensorView<'a>> {
        let (&columns, outer) = self.shape.split_last()?;
        let all: usize = outer.iter().product();
        let row_bytes = self.data.len().checked_div(all)?;
        (rows.start <= rows.end && rows.end <= all).then(|| TensorView {
            dtype: self.dtype,
            shape: vec![rows.len(), columns],
            data: self.data.slice(rows.start * row_bytes..rows.end * row_bytes),
        })
    }
}

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// `gguf_metadata_value_type` of a string.
const STRING_TYPE: u32 = 8;
/// `gguf_metadata_value_type` of a list.
const LIST_TYPE: u32 = 9;
/// Maximum size of a file's header, in bytes. The largest known headers, with vocabularies of 260,000 tokens and their
/// merges, have 16 MB.
const MAX_HEADER_BYTES: usize = 128 << 20;
/// Bytes of the header that are read first; each further attempt reads four times as many.
const INITIAL_READ_BYTES: usize = 1 << 20;
/// Maximum number of metadata values, and of tensors: models have fewer than a hundred and a few thousand.
const MAX_ENTRIES: u64 = 1 << 16;

pub(crate) const PULL_AGAIN_REMEDY: &str =
    "the file is damaged or incomplete: delete it and run `taper pull` again";
/// The problem reported for a tensor with infinite or NaN values, which no valid model has.
pub(crate) const NOT_FINITE_PROBLEM: &str = "contains NaN or infinite values";
const NOT_A_MODEL_REMEDY: &str = "name a GGUF file, or a model that `taper models` lists";

impl Gguf {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not GGUF, is truncated, or contains impossible sizes.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        Self::from_source(path, ByteSource::open(path)?)
    }

    /// Reads the header from a file's bytes; errors name them `path`.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    #[doc(hidden)]
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, EngineError> {
        Self::from_source(path, ByteSource::from_memory(bytes))
    }

    fn from_source(path: &Path, source: ByteSource) -> Result<Self, EngineError> {
        if source.len() < 24 {
            let problem = format!("is {} bytes long, too short for a GGUF header", source.len());
            return Err(model_error(path, "file", problem, NOT_A_MODEL_REMEDY));
        }
        let mut size = INITIAL_READ_BYTES;
        loop {
            let len = size.min(usize::try_from(source.len()).unwrap_or(usize::MAX));
            let mut head = vec![0; len];
            source.read(0, &mut head).map_err(|error| read_error(path, "file", error))?;
            let mut reader = GgufReader::new(path, &head, source.len());
            match ParsedHeader::parse(path, &mut reader) {
                Ok(ParsedHeader { metadata, lists, tensors }) => {
                    let end = reader.position() as usize;
                    head.truncate(end);
                    head.shrink_to_fit();
                    return Ok(Self {
                        path: path.to_owned(),
                        source,
                        header: head,
                        metadata,
                        lists,
                        tensors,
                    });
                }
                Err(_) if reader.needs_more() && size < MAX_HEADER_BYTES => {
                    size = (size * 4).min(MAX_HEADER_BYTES);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the whole file, in bytes.
    pub fn file_len(&self) -> u64 {
        self.source.len()
    }

    /// Size of all tensors, in bytes.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.values().map(|info| info.len as u64).sum()
    }

    /// Checks by length and modification time that the file has not changed since it was opened.
    ///
    /// # Errors
    /// Another process has written to the file: the bytes read so far are a mixture of two files.
    pub fn check_unchanged(&self) -> Result<(), EngineError> {
        if self.source.is_unchanged() {
            return Ok(());
        }
        let remedy = "load it again when no other program is writing to it";
        Err(self.field_error("file", "was changed while it was read", remedy))
    }

    /// A metadata value that is not a list, if the file has it.
    pub fn get(&self, key: &str) -> Option<&MetadataValue> {
        self.metadata.get(key)
    }

    /// Whether the file has a value or a list under this key.
    pub fn has_key(&self, key: &str) -> bool {
        self.metadata.contains_key(key) || self.lists.contains_key(key)
    }

    /// An integer that fits `usize`, if the file has it.
    ///
    /// # Errors
    /// The value exists but is not such a number.
    pub fn get_usize(&self, key: &str) -> Result<Option<usize>, EngineError> {
        let n = match self.get(key) {
            None => return Ok(None),
            Some(&MetadataValue::Unsigned(n)) => usize::try_from(n).ok(),
            Some(&MetadataValue::Signed(n)) => usize::try_from(n).ok(),
            Some(_) => None,
        };
        n.map(Some)
            .ok_or_else(|| self.field_error(key, "is not a whole number of at least 0", PULL_AGAIN_REMEDY))
    }

    /// A float, if the file has it.
    ///
    /// # Errors
    /// The value exists but is not a finite number.
    pub fn get_float(&self, key: &str) -> Result<Option<f64>, EngineError> {
        match self.get(key) {
            None => Ok(None),
            Some(&MetadataValue::Float(x)) if x.is_finite() => Ok(Some(x)),
            Some(_) => Err(self.field_error(key, "is not a finite float", PULL_AGAIN_REMEDY)),
        }
    }

    /// A string, if the file has one under this key.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(MetadataValue::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A truth value, if the file has one under this key.
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(&MetadataValue::Bool(value)) => Some(value),
            _ => None,
        }
    }

    /// The bytes of a list of strings as stored in the file, if there is one under this key.
    ///
    /// # Errors
    /// The value exists but is not a list of strings.
    pub fn get_strings(&self, key: &str) -> Result<Option<Vec<&[u8]>>, EngineError> {
        let Some(list) = self.find_list(key, "strings")? else { return Ok(None) };
        if list.count > 0 && list.kind != STRING_TYPE {
            return Err(self.field_error(key, "is not a list of strings", PULL_AGAIN_REMEDY));
        }
        let mut reader = GgufReader::at_offset(&self.path, &self.header, list.start);
        (0..list.count).map(|_| reader.read_raw_string(key)).collect::<Result<_, _>>().map(Some)
    }

    /// A list of numbers of any kind, if there is one under this key.
    ///
    /// # Errors
    /// The value exists but is not a list of finite numbers.
    pub fn get_numbers(&self, key: &str) -> Result<Option<Vec<f64>>, EngineError> {
        let Some(list) = self.find_list(key, "numbers")? else { return Ok(None) };
        let mut reader = GgufReader::at_offset(&self.path, &self.header, list.start);
        let mut numbers = Vec::with_capacity(list.count);
        for _ in 0..list.count {
            let number = match reader.read_value(list.kind, key, 1)? {
                MetadataValue::Unsigned(n) => n as f64,
                MetadataValue::Signed(n) => n as f64,
                MetadataValue::Float(x) if x.is_finite() => x,
                _ => return Err(self.field_error(key, "is not a list of finite numbers", PULL_AGAIN_REMEDY)),
            };
            numbers.push(number);
        }
        Ok(Some(numbers))
    }

    /// A list of truth values, or of whole numbers of which 0 is false; `None` if the value is not a list.
    ///
    /// # Errors
    /// The list has other elements.
    pub fn get_bools(&self, key: &str) -> Result<Option<Vec<bool>>, EngineError> {
        let Some(list) = self.lists.get(key) else { return Ok(None) };
        let mut reader = GgufReader::at_offset(&self.path, &self.header, list.start);
        let mut values = Vec::with_capacity(list.count);
        for _ in 0..list.count {
            values.push(match reader.read_value(list.kind, key, 1)? {
                MetadataValue::Bool(value) => value,
                MetadataValue::Unsigned(n) => n != 0,
                MetadataValue::Signed(n) => n != 0,
                _ => return Err(self.field_error(key, "is not a list of truth values", PULL_AGAIN_REMEDY)),
            });
        }
        Ok(Some(values))
    }

    fn find_list(&self, key: &str, what: &str) -> Result<Option<ListSpan>, EngineError> {
        match self.lists.get(key) {
            Some(&list) => Ok(Some(list)),
            None if self.metadata.contains_key(key) => {
                Err(self.field_error(key, format!("is not a list of {what}"), PULL_AGAIN_REMEDY))
            }
            None => Ok(None),
        }
    }

    /// Names of all tensors, in arbitrary order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.tensors.get(name)?;
        Some(TensorView {
            dtype: info.dtype,
            shape: info.shape.clone(),
            data: TensorData::from_source(&self.source, info.start, info.len),
        })
    }

    /// A tensor that must exist with this shape (outermost dimension first).
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn require_tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, EngineError> {
        let view = self
            .tensor(name)
            .ok_or_else(|| self.field_error(name, "the tensor is missing", PULL_AGAIN_REMEDY))?;
        if view.shape != shape {
            let problem = format!("has the shape {:?}, the metadata require {shape:?}", view.shape);
            return Err(self.field_error(name, problem, PULL_AGAIN_REMEDY));
        }
        Ok(view)
    }

    /// An error about this file: the field or tensor, what is wrong with it, the remedy.
    pub fn field_error(&self, field: &str, problem: impl AsRef<str>, remedy: &str) -> EngineError {
        model_error(&self.path, field, problem, remedy)
    }

    /// The error for a tensor whose bytes could not be read.
    pub(crate) fn tensor_read_error(&self, name: &str, error: io::Error) -> EngineError {
        read_error(&self.path, name, error)
    }
}

fn read_error(path: &Path, field: &str, source: io::Error) -> EngineError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => {
            model_error(path, field, "the file became shorter while it was read", PULL_AGAIN_REMEDY)
        }
        _ => EngineError::Read { path: path.to_owned(), source },
    }
}

/// The parsed header of a file.
struct ParsedHeader {
    metadata: HashMap<String, MetadataValue>,
    lists: HashMap<String, ListSpan>,
    tensors: HashMap<String, TensorInfo>,
}

impl ParsedHeader {
    fn parse(path: &Path, reader: &mut GgufReader<'_>) -> Result<Self, EngineError> {
        if reader.read_bytes(4, "magic")? != MAGIC {
            return Err(model_error(
                path,
                "magic",
                "the file does not begin with \"GGUF\"",
                NOT_A_MODEL_REMEDY,
            ));
        }
        let version = reader.read_u32("version")?;
        if !(2..=3).contains(&version) {
            let problem = format!("{version} (2 and 3 are supported, in little endian only)");
            return Err(model_error(path, "version", problem, NOT_A_MODEL_REMEDY));
        }
        let tensor_count = reader.read_u64("tensor_count")?;
        let metadata_count = reader.read_u64("metadata_kv_count")?;
        // The smallest entries: a tensor's name length, dimension count, type and offset; a key's length,
        // type and one byte of value.
        for (count, smallest, field) in
            [(tensor_count, 24, "tensor_count"), (metadata_count, 13, "metadata_kv_count")]
        {
            reader.check_count(count, smallest, field)?;
            if count > MAX_ENTRIES {
                return Err(model_error(
                    path,
                    field,
                    format!("is {count}, at most {MAX_ENTRIES} are supported"),
                    PULL_AGAIN_REMEDY,
                ));
            }
        }
        let twice = |name: &str| model_error(path, name, "occurs twice", PULL_AGAIN_REMEDY);

        let mut metadata = HashMap::new();
        let mut lists = HashMap::new();
        for _ in 0..metadata_count {
            let key = reader.read_string("metadata key")?;
            if metadata.contains_key(&key) || lists.contains_key(&key) {
                return Err(twice(&key));
            }
            let kind = reader.read_u32(&key)?;
            if kind == LIST_TYPE {
                let list = reader.read_list(&key, 0)?;
                lists.insert(key, list);
            } else {
                let value = reader.read_value(kind, &key, 0)?;
                metadata.insert(key, value);
            }
        }
        let alignment = match metadata.get("general.alignment") {
            Some(&MetadataValue::Unsigned(n)) if n.is_power_of_two() && n <= 1 << 20 => n,
            None => DEFAULT_ALIGNMENT,
            Some(other) => {
                return Err(model_error(path, "general.alignment", format!("{other:?}"), PULL_AGAIN_REMEDY));
            }
        };
        let heads = (0..tensor_count).map(|_| reader.read_tensor_header()).collect::<Result<Vec<_>, _>>()?;
        let data_start = reader.position().div_ceil(alignment).saturating_mul(alignment);
        let places = reader::locate_tensors(path, &heads, data_start, reader.file_len())?;
        let mut tensors = HashMap::new();
        for (head, (start, len)) in heads.into_iter().zip(places) {
            if tensors.contains_key(&head.name) {
                return Err(twice(&head.name));
            }
            tensors.insert(head.name, TensorInfo { dtype: head.dtype, shape: head.shape, start, len });
        }
        Ok(Self { metadata, lists, tensors })
    }
}

#[cfg(test)]
mod tests;
