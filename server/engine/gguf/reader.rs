//! Reads the head of a model file: numbers, strings, lists, and where the tensors lie, none of it believed.
//! It knows nothing of what the keys mean.

use std::path::Path;

use candle_core::quantized::GgmlDType;

use super::blocks::dtype_from_id;
use super::words::{bad, shown};
use super::{FETCH_AGAIN, LIST, List, STRING, Value};
use crate::EngineError;

/// GGUF allows arrays of arrays; no known file nests deeper than one.
const MAX_NESTING: usize = 4;
/// ggml's own limit.
const MAX_DIMENSIONS: u32 = 4;
/// Elements of a list; the largest known vocabularies and their merges have half a million.
const MAX_LIST: u64 = 1 << 22;

/// What the head says of a tensor.
pub(super) struct TensorHead {
    pub(super) name: String,
    pub(super) dtype: GgmlDType,
    pub(super) shape: Vec<usize>,
    /// From where the data begin.
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Reads from the first bytes of a file.
pub(super) struct Reader<'a> {
    path: &'a Path,
    /// The bytes that were read so far.
    bytes: &'a [u8],
    /// Bytes of the whole file.
    file_len: u64,
    at: usize,
    /// Whether an error was none of the file's: more of it has to be read.
    wants_more: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8], file_len: u64) -> Self {
        Self { path, bytes, file_len, at: 0, wants_more: false }
    }

    /// One that goes on at a place that was read before.
    pub(super) fn at(path: &'a Path, bytes: &'a [u8], at: usize) -> Self {
        Self { at, ..Self::new(path, bytes, bytes.len() as u64) }
    }

    /// Bytes of the whole file.
    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Where it is.
    pub(super) fn place(&self) -> u64 {
        self.at as u64
    }

    /// Whether the last error came only of too few bytes having been read.
    pub(super) fn wants_more(&self) -> bool {
        self.wants_more
    }

    fn left(&self) -> u64 {
        self.file_len.saturating_sub(self.at as u64)
    }

    fn bad(&self, field: &str, problem: impl AsRef<str>) -> EngineError {
        bad(self.path, field, problem, FETCH_AGAIN)
    }

    /// Refuses a count whose entries cannot fit into what is left of the file.
    pub(super) fn check_count(
        &self,
        count: u64,
        smallest_entry: u64,
        field: &str,
    ) -> Result<(), EngineError> {
        if count > self.left() / smallest_entry {
            let problem =
                format!("says {count} entries, but only {} bytes of the file are left", self.left());
            return Err(self.bad(field, problem));
        }
        Ok(())
    }

    pub(super) fn take(&mut self, len: u64, field: &str) -> Result<&'a [u8], EngineError> {
        if len > self.left() {
            let problem = format!("the file ends here: {len} bytes are needed, {} are left", self.left());
            return Err(self.bad(field, problem));
        }
        let bytes = usize::try_from(len).ok().and_then(|len| self.bytes[self.at..].get(..len));
        let Some(bytes) = bytes else {
            self.wants_more = true;
            return Err(self.bad(field, "the head of the file is longer than that of any model"));
        };
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], EngineError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, field)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32, EngineError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u64(&mut self, field: &str) -> Result<u64, EngineError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(super) fn raw_string(&mut self, field: &str) -> Result<&'a [u8], EngineError> {
        let len = self.u64(field)?;
        self.take(len, field)
    }

    pub(super) fn string(&mut self, field: &str) -> Result<String, EngineError> {
        Ok(String::from_utf8_lossy(self.raw_string(field)?).into_owned())
    }

    /// Reads a list's head and walks over its elements.
    pub(super) fn list(&mut self, key: &str, depth: usize) -> Result<List, EngineError> {
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
        if count > MAX_LIST {
            return Err(self.bad(key, format!("is a list of {count}, more than {MAX_LIST} are never needed")));
        }
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
    pub(super) fn value(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value, EngineError> {
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
                let mut inner = Reader { at: start, wants_more: false, ..*self };
                let values = (0..count).map(|_| inner.value(kind, key, depth + 1));
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            10 => Value::Unsigned(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => return Err(self.bad(key, format!("has the unknown type {kind}"))),
        })
    }

    pub(super) fn tensor_head(&mut self) -> Result<TensorHead, EngineError> {
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

/// Where each tensor lies in the file: `(start, length)`, in the order of the heads.
///
/// # Errors
/// One reaches beyond the end of the file, or two share bytes: then a small file would ask for any amount of memory.
pub(super) fn places(
    path: &Path,
    heads: &[TensorHead],
    data_start: u64,
    file_len: u64,
) -> Result<Vec<(u64, usize)>, EngineError> {
    let mut places = Vec::with_capacity(heads.len());
    for head in heads {
        let start = data_start.checked_add(head.offset);
        let end = start.and_then(|start| start.checked_add(head.len)).filter(|&end| end <= file_len);
        let (Some(start), Some(_), Ok(len)) = (start, end, usize::try_from(head.len)) else {
            let problem = format!("needs {} bytes at {}, the file has {file_len}", head.len, head.offset);
            return Err(bad(path, &head.name, problem, FETCH_AGAIN));
        };
        places.push((start, len));
    }
    let mut order: Vec<usize> = (0..heads.len()).collect();
    order.sort_by_key(|&index| places[index].0);
    for pair in order.windows(2) {
        let ((start, len), (next, _)) = (places[pair[0]], places[pair[1]]);
        if start + len as u64 > next {
            let problem = format!("lies on the same bytes as {}", shown(&heads[pair[0]].name));
            return Err(bad(path, &heads[pair[1]].name, problem, FETCH_AGAIN));
        }
    }
    Ok(places)
}
