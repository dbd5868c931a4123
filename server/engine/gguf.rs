//! The GGUF container: metadata and tensors of a model file, mapped and checked before anything is believed.
//! It knows nothing of what the metadata mean: families, tokenizers and layers are read elsewhere.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little endian.
//! No allocation is made by a number from the file before that number was compared with the bytes left.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use memmap2::Mmap;

use crate::EngineError;

#[doc(hidden)]
pub mod testing;

/// An open model file. Cheap to read from; the tensors stay in the page cache until they are touched.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
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
    start: usize,
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
    pub data: &'a [u8],
}

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// `gguf_metadata_value_type` of a string.
const STRING: u32 = 8;
/// `gguf_metadata_value_type` of a list.
const LIST: u32 = 9;
/// GGUF allows arrays of arrays; no known file nests deeper than one.
const MAX_NESTING: usize = 4;
/// ggml's own limit.
const MAX_DIMENSIONS: u32 = 4;

pub(crate) const FETCH_AGAIN: &str = "the file is broken or incomplete: delete it and run `taper pull` again";
const NOT_A_MODEL: &str = "name a GGUF file, or a model that `taper models` lists";

impl Gguf {
    /// Maps and reads the head of the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not GGUF, is truncated, or names impossible sizes.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let read = |source| EngineError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if metadata.is_dir() {
            return Err(bad(path, "file", "is a folder", NOT_A_MODEL));
        }
        if metadata.len() < 24 {
            let problem = format!("is {} bytes long, too short for a GGUF head", metadata.len());
            return Err(bad(path, "file", problem, NOT_A_MODEL));
        }
        // SAFETY: the map is read only. Another process that truncates the file while it is mapped could
        // end this one by SIGBUS; taper itself replaces model files only by renaming a new one over them,
        // which leaves the mapped one intact.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        Self::from_map(path, map)
    }

    fn from_map(path: &Path, map: Mmap) -> Result<Self, EngineError> {
        let mut reader = Reader { path, bytes: &map, at: 0 };
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
        reader.check_count(tensor_count, 24, "tensor_count")?;
        reader.check_count(metadata_count, 13, "metadata_kv_count")?;

        let mut metadata = HashMap::new();
        let mut lists = HashMap::new();
        for _ in 0..metadata_count {
            let key = reader.string("metadata key")?;
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

        let mut heads = Vec::new();
        for _ in 0..tensor_count {
            heads.push(reader.tensor_head()?);
        }
        let data_start = (reader.at as u64).div_ceil(alignment).saturating_mul(alignment);
        let mut tensors = HashMap::new();
        for head in heads {
            let start = data_start.checked_add(head.offset);
            let end = start.and_then(|start| start.checked_add(head.len));
            match (start, end) {
                (Some(start), Some(end)) if end <= map.len() as u64 => {
                    let info = TensorInfo {
                        dtype: head.dtype,
                        shape: head.shape,
                        start: start as usize,
                        len: head.len as usize,
                    };
                    tensors.insert(head.name, info);
                }
                _ => {
                    let problem =
                        format!("needs {} bytes at {}, the file has {}", head.len, head.offset, map.len());
                    return Err(bad(path, &head.name, problem, FETCH_AGAIN));
                }
            }
        }
        Ok(Self { path: path.to_owned(), map, metadata, lists, tensors })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.map.len() as u64
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

    /// An integer that must be there.
    ///
    /// # Errors
    /// It is missing or no such number.
    pub fn need_usize(&self, key: &str) -> Result<usize, EngineError> {
        self.usize(key)?.ok_or_else(|| self.bad(key, "is missing", FETCH_AGAIN))
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

    /// A list, if the file has one under this key; decoded anew at each call.
    pub fn array(&self, key: &str) -> Option<Vec<Value>> {
        let list = self.lists.get(key)?;
        let mut reader = Reader { path: &self.path, bytes: &self.map, at: list.start };
        (0..list.count).map(|_| reader.value(list.kind, key, 1).ok()).collect()
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
        let mut reader = Reader { path: &self.path, bytes: &self.map, at: list.start };
        (0..list.count).map(|_| reader.raw_string(key)).collect::<Result<_, _>>().map(Some)
    }

    /// A list of numbers of any kind, if there is one under this key.
    ///
    /// # Errors
    /// There is a value, but it is no list of finite numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, EngineError> {
        let Some(list) = self.list(key, "numbers")? else { return Ok(None) };
        let mut reader = Reader { path: &self.path, bytes: &self.map, at: list.start };
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
            data: &self.map[info.start..info.start + info.len],
        })
    }

    /// Says that a tensor was read for the last time, for now: its pages are no longer this process's memory, but stay
    /// in the system's cache. Loading a model would otherwise take its size twice.
    pub fn release(&self, name: &str) {
        let Some(info) = self.tensors.get(name) else { return };
        // SAFETY: the map is a file's and read only, so pages that are given back are the same when they are read
        // again; views of them stay valid.
        #[cfg(unix)]
        let _ = unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, info.start, info.len)
        };
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
    pub fn bad(&self, field: &str, problem: impl Into<String>, remedy: &str) -> EngineError {
        bad(&self.path, field, problem, remedy)
    }
}

pub(crate) fn bad(path: &Path, field: &str, problem: impl Into<String>, remedy: &str) -> EngineError {
    EngineError::Model {
        path: path.to_owned(),
        field: field.to_owned(),
        problem: problem.into(),
        remedy: remedy.to_owned(),
    }
}

struct TensorHead {
    name: String,
    dtype: GgmlDType,
    shape: Vec<usize>,
    offset: u64,
    len: u64,
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn bad(&self, field: &str, problem: impl Into<String>) -> EngineError {
        bad(self.path, field, problem, FETCH_AGAIN)
    }

    /// Refuses a count whose entries cannot fit into what is left of the file.
    fn check_count(&self, count: u64, smallest_entry: u64, field: &str) -> Result<(), EngineError> {
        if count > self.left() / smallest_entry {
            let problem =
                format!("says {count} entries, but only {} bytes of the file are left", self.left());
            return Err(self.bad(field, problem));
        }
        Ok(())
    }

    fn take(&mut self, len: u64, field: &str) -> Result<&'a [u8], EngineError> {
        if len > self.left() {
            let problem = format!("the file ends here: {len} bytes are needed, {} are left", self.left());
            return Err(self.bad(field, problem));
        }
        let bytes = &self.bytes[self.at..self.at + len as usize];
        self.at += len as usize;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], EngineError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, field)?);
        Ok(out)
    }

    fn u32(&mut self, field: &str) -> Result<u32, EngineError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &str) -> Result<u64, EngineError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    fn raw_string(&mut self, field: &str) -> Result<&'a [u8], EngineError> {
        let len = self.u64(field)?;
        self.take(len, field)
    }

    fn string(&mut self, field: &str) -> Result<String, EngineError> {
        Ok(String::from_utf8_lossy(self.raw_string(field)?).into_owned())
    }

    /// Reads a list's head and walks over its elements.
    fn list(&mut self, key: &str, depth: usize) -> Result<List, EngineError> {
        if depth == MAX_NESTING {
            return Err(self.bad(key, "lists are nested too deeply"));
        }
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            LIST => 12,
            STRING | 10..=12 => 8,
            _ => return Err(self.bad(key, format!("has elements of the unknown type {kind}"))),
        };
        self.check_count(count, size, key)?;
        let start = self.at;
        for _ in 0..count {
            match kind {
                STRING => {
                    self.raw_string(key)?;
                }
                LIST => {
                    self.list(key, depth + 1)?;
                }
                _ => {
                    // All of them at once; `count * size` was compared with what is left.
                    self.take(count * size, key)?;
                    break;
                }
            }
        }
        Ok(List { kind, count: count as usize, start })
    }

    /// `gguf_metadata_value_type` of the specification.
    fn value(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value, EngineError> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(u8::from_le_bytes(self.array(key)?))),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array(key)?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array(key)?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array(key)?))),
            4 => Value::Unsigned(u64::from(self.u32(key)?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array(key)?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array(key)?))),
            7 => Value::Bool(self.array::<1>(key)?[0] != 0),
            STRING => Value::String(self.string(key)?),
            LIST => {
                let List { kind, count, start } = self.list(key, depth)?;
                let mut inner = Reader { path: self.path, bytes: self.bytes, at: start };
                let values = (0..count).map(|_| inner.value(kind, key, depth + 1));
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            10 => Value::Unsigned(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => return Err(self.bad(key, format!("has the unknown type {kind}"))),
        })
    }

    fn tensor_head(&mut self) -> Result<TensorHead, EngineError> {
        let name = self.string("tensor name")?;
        let dimensions = self.u32(&name)?;
        if dimensions > MAX_DIMENSIONS {
            return Err(
                self.bad(&name, format!("has {dimensions} dimensions, at most {MAX_DIMENSIONS} are allowed"))
            );
        }
        let mut shape = Vec::new();
        let mut elements = 1_u64;
        for _ in 0..dimensions {
            let n = self.u64(&name)?;
            elements = elements.checked_mul(n).ok_or_else(|| self.bad(&name, "its size overflows"))?;
            shape.push(usize::try_from(n).map_err(|_| self.bad(&name, "its size overflows"))?);
        }
        shape.reverse();
        let dtype = self.u32(&name)?;
        let offset = self.u64(&name)?;
        let Some(dtype) = dtype_from_id(dtype) else {
            let problem = format!("is stored in the ggml type {dtype}, which taper cannot read");
            let remedy = "use a Q4_0, Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16 or BF16 file of the model";
            return Err(bad(self.path, &name, problem, remedy));
        };
        let block = dtype.block_size() as u64;
        let row = shape.last().copied().unwrap_or(1) as u64;
        if elements == 0 || !row.is_multiple_of(block) {
            let problem =
                format!("has the shape {shape:?}, which {dtype:?} blocks of {block} values cannot store");
            return Err(self.bad(&name, problem));
        }
        let len = (elements / block).checked_mul(dtype.type_size() as u64);
        let len = len.ok_or_else(|| self.bad(&name, "its size overflows"))?;
        Ok(TensorHead { name, dtype, shape, offset, len })
    }
}

/// `ggml_type` of ggml.h.
fn dtype_from_id(id: u32) -> Option<GgmlDType> {
    Some(match id {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}
