//! The GGUF container: metadata and tensors of a model file, read and checked before anything is believed.
//! It knows nothing of what the metadata mean: families, tokenizers and layers are read elsewhere.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little endian.
//! No allocation is made by a number from the file before that number was compared with the bytes left.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use crate::EngineError;

mod blocks;
mod reader;
mod source;
#[doc(hidden)]
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
mod words;

pub(crate) use blocks::{are_numbers, half_floats};
use reader::Reader;
use source::Source;
pub use source::Stored;
pub(crate) use words::{bad, shown};

/// An open model file: its head is in memory, its tensors are read from the file when they are asked for.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    source: Source,
    /// The bytes in front of the tensors.
    head: Vec<u8>,
    metadata: HashMap<String, Value>,
    lists: HashMap<String, List>,
    tensors: HashMap<String, TensorInfo>,
}

/// Where a list lies. Lists stay in the file: a vocabulary has hundreds of thousands of entries.
#[derive(Debug, Clone, Copy)]
struct List {
    /// `gguf_metadata_value_type` of the elements.
    kind: u32,
    count: usize,
    /// Offset of the first element; all of them were walked over when the file was opened.
    start: usize,
}

/// One metadata value. Arrays keep their elements as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// `f32` and `f64`.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string; bytes that are not UTF-8 are replaced, as vocabularies of old converters contain them.
    String(String),
    /// A list of any of these.
    Array(Vec<Value>),
}

#[derive(Debug, Clone)]
struct TensorInfo {
    dtype: GgmlDType,
    shape: Vec<usize>,
    start: u64,
    len: usize,
}

/// A tensor as it lies in the file.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// How the values are stored.
    pub dtype: GgmlDType,
    /// Row-major shape, the outermost dimension first (GGUF stores it reversed): `[rows, columns]` of a matrix.
    pub shape: Vec<usize>,
    /// The stored blocks.
    pub data: Stored<'a>,
}

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// `gguf_metadata_value_type` of a string.
const STRING: u32 = 8;
/// `gguf_metadata_value_type` of a list.
const LIST: u32 = 9;
/// Bytes that the head of a file has at most: the largest known, with vocabularies of 260,000 tokens and their merges,
/// have 16 MB.
const MAX_HEAD: usize = 128 << 20;
/// Bytes of the head that are read at first; four times as many wherever these are too few.
const FIRST_READ: usize = 1 << 20;
/// Values, and tensors, that a file has at most: models have less than a hundred and some thousands.
const MAX_ENTRIES: u64 = 1 << 16;

pub(crate) const FETCH_AGAIN: &str =
    "the file is damaged or incomplete: delete it and run `taper pull` again";
/// What is wrong with a tensor whose values are infinite, or no numbers: no model has any.
pub(crate) const NO_NUMBERS: &str = "holds values that are no numbers";
const NOT_A_MODEL: &str = "name a GGUF file, or a model that `taper models` lists";

impl Gguf {
    /// Reads the head of the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not GGUF, is truncated, or names impossible sizes.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        Self::from_source(path, Source::open(path)?)
    }

    /// The same of a file's bytes, which are called `path` in errors.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    #[doc(hidden)]
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, EngineError> {
        Self::from_source(path, Source::memory(bytes))
    }

    fn from_source(path: &Path, source: Source) -> Result<Self, EngineError> {
        if source.len() < 24 {
            let problem = format!("is {} bytes long, too short for a GGUF head", source.len());
            return Err(bad(path, "file", problem, NOT_A_MODEL));
        }
        let mut size = FIRST_READ;
        loop {
            let len = size.min(usize::try_from(source.len()).unwrap_or(usize::MAX));
            let mut head = vec![0; len];
            source.read(0, &mut head).map_err(|error| unread(path, "file", error))?;
            let mut reader = Reader::new(path, &head, source.len());
            match Parsed::read(path, &mut reader) {
                Ok(Parsed { metadata, lists, tensors }) => {
                    let end = reader.place() as usize;
                    head.truncate(end);
                    head.shrink_to_fit();
                    return Ok(Self { path: path.to_owned(), source, head, metadata, lists, tensors });
                }
                Err(_) if reader.wants_more() && size < MAX_HEAD => size = (size * 4).min(MAX_HEAD),
                Err(error) => return Err(error),
            }
        }
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.source.len()
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.values().map(|info| info.len as u64).sum()
    }

    /// Says whether the file is still the one that was opened, as far as its length and time of change tell.
    ///
    /// # Errors
    /// Somebody has written to it: what was read of it is a mixture of two files.
    pub fn check_unchanged(&self) -> Result<(), EngineError> {
        if self.source.is_unchanged() {
            return Ok(());
        }
        let remedy = "load it again once nobody writes to it any more";
        Err(self.bad("file", "was changed while it was read", remedy))
    }

    /// A metadata value that is not a list, if the file has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// An integer that fits `usize`, if the file has it.
    ///
    /// # Errors
    /// The value is there but is no such number.
    pub fn usize(&self, key: &str) -> Result<Option<usize>, EngineError> {
        let n = match self.get(key) {
            None => return Ok(None),
            Some(&Value::Unsigned(n)) => usize::try_from(n).ok(),
            Some(&Value::Signed(n)) => usize::try_from(n).ok(),
            Some(_) => None,
        };
        n.map(Some).ok_or_else(|| self.bad(key, "is not a whole number of at least 0", FETCH_AGAIN))
    }

    /// A float, if the file has it.
    ///
    /// # Errors
    /// The value is there but is no finite number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, EngineError> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::Float(x)) if x.is_finite() => Ok(Some(x)),
            Some(_) => Err(self.bad(key, "is not a finite float", FETCH_AGAIN)),
        }
    }

    /// A string, if the file has one under this key.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A truth value, if the file has one under this key.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(&Value::Bool(value)) => Some(value),
            _ => None,
        }
    }

    /// The bytes of a list of strings, as they lie in the file, if there is one under this key.
    ///
    /// # Errors
    /// There is a value, but it is no list of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&[u8]>>, EngineError> {
        let Some(list) = self.list(key, "strings")? else { return Ok(None) };
        if list.count > 0 && list.kind != STRING {
            return Err(self.bad(key, "is not a list of strings", FETCH_AGAIN));
        }
        let mut reader = Reader::at(&self.path, &self.head, list.start);
        (0..list.count).map(|_| reader.raw_string(key)).collect::<Result<_, _>>().map(Some)
    }

    /// A list of numbers of any kind, if there is one under this key.
    ///
    /// # Errors
    /// There is a value, but it is no list of finite numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, EngineError> {
        let Some(list) = self.list(key, "numbers")? else { return Ok(None) };
        let mut reader = Reader::at(&self.path, &self.head, list.start);
        let mut numbers = Vec::with_capacity(list.count);
        for _ in 0..list.count {
            let number = match reader.value(list.kind, key, 1)? {
                Value::Unsigned(n) => n as f64,
                Value::Signed(n) => n as f64,
                Value::Float(x) if x.is_finite() => x,
                _ => return Err(self.bad(key, "is not a list of finite numbers", FETCH_AGAIN)),
            };
            numbers.push(number);
        }
        Ok(Some(numbers))
    }

    fn list(&self, key: &str, what: &str) -> Result<Option<List>, EngineError> {
        match self.lists.get(key) {
            Some(&list) => Ok(Some(list)),
            None if self.metadata.contains_key(key) => {
                Err(self.bad(key, format!("is not a list of {what}"), FETCH_AGAIN))
            }
            None => Ok(None),
        }
    }

    /// Names of all tensors, in no order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.tensors.get(name)?;
        Some(TensorView {
            dtype: info.dtype,
            shape: info.shape.clone(),
            data: Stored::of(&self.source, info.start, info.len),
        })
    }

    /// A tensor that must be there, in this shape (outermost dimension first).
    ///
    /// # Errors
    /// It is missing or of another shape.
    pub fn need_tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, EngineError> {
        let view = self.tensor(name).ok_or_else(|| self.bad(name, "the tensor is missing", FETCH_AGAIN))?;
        if view.shape != shape {
            let problem = format!("has the shape {:?}, the metadata ask for {shape:?}", view.shape);
            return Err(self.bad(name, problem, FETCH_AGAIN));
        }
        Ok(view)
    }

    /// An error about this file: the field or tensor, what is wrong with it, the remedy.
    pub fn bad(&self, field: &str, problem: impl AsRef<str>, remedy: &str) -> EngineError {
        bad(&self.path, field, problem, remedy)
    }

    /// What to say where the bytes of a tensor could not be read.
    pub(crate) fn unread(&self, name: &str, error: io::Error) -> EngineError {
        unread(&self.path, name, error)
    }
}

fn unread(path: &Path, field: &str, source: io::Error) -> EngineError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => {
            bad(path, field, "the file became shorter while it was read", FETCH_AGAIN)
        }
        _ => EngineError::Read { path: path.to_owned(), source },
    }
}

/// What the head of a file says.
struct Parsed {
    metadata: HashMap<String, Value>,
    lists: HashMap<String, List>,
    tensors: HashMap<String, TensorInfo>,
}

impl Parsed {
    fn read(path: &Path, reader: &mut Reader<'_>) -> Result<Self, EngineError> {
        if reader.take(4, "magic")? != MAGIC {
            return Err(bad(path, "magic", "the file does not begin with \"GGUF\"", NOT_A_MODEL));
        }
        let version = reader.u32("version")?;
        if !(2..=3).contains(&version) {
            let problem = format!("{version} (2 and 3 are known; a big-endian file looks like this, too)");
            return Err(bad(path, "version", problem, NOT_A_MODEL));
        }
        let tensor_count = reader.u64("tensor_count")?;
        let metadata_count = reader.u64("metadata_kv_count")?;
        // The smallest entries: a tensor's name length, dimension count, type and offset; a key's length,
        // type and one byte of value.
        for (count, smallest, field) in
            [(tensor_count, 24, "tensor_count"), (metadata_count, 13, "metadata_kv_count")]
        {
            reader.check_count(count, smallest, field)?;
            if count > MAX_ENTRIES {
                return Err(bad(
                    path,
                    field,
                    format!("is {count}, at most {MAX_ENTRIES} are known"),
                    FETCH_AGAIN,
                ));
            }
        }
        let twice = |name: &str| bad(path, name, "is there twice", FETCH_AGAIN);

        let mut metadata = HashMap::new();
        let mut lists = HashMap::new();
        for _ in 0..metadata_count {
            let key = reader.string("metadata key")?;
            if metadata.contains_key(&key) || lists.contains_key(&key) {
                return Err(twice(&key));
            }
            let kind = reader.u32(&key)?;
            if kind == LIST {
                let list = reader.list(&key, 0)?;
                lists.insert(key, list);
            } else {
                let value = reader.value(kind, &key, 0)?;
                metadata.insert(key, value);
            }
        }
        let alignment = match metadata.get("general.alignment") {
            Some(&Value::Unsigned(n)) if n.is_power_of_two() && n <= 1 << 20 => n,
            None => DEFAULT_ALIGNMENT,
            Some(other) => {
                return Err(bad(path, "general.alignment", format!("{other:?}"), FETCH_AGAIN));
            }
        };
        let heads = (0..tensor_count).map(|_| reader.tensor_head()).collect::<Result<Vec<_>, _>>()?;
        let data_start = reader.place().div_ceil(alignment).saturating_mul(alignment);
        let places = reader::places(path, &heads, data_start, reader.file_len())?;
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
