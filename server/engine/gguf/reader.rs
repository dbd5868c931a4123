//! Reads the header of a model file (numbers, strings, lists, tensor locations) and trusts none of it.

use std::path::Path;

use super::format::TensorFormat;
use super::sanitize::{model_error, sanitize_word};
use super::{LIST_TYPE, ListSpan, MetadataValue, PULL_AGAIN_REMEDY, STRING_TYPE};
use crate::EngineError;

/// GGUF allows arrays of arrays; no known file nests deeper than one level.
const MAX_NESTING: usize = 4;
/// ggml's own limit.
const MAX_DIMENSIONS: u32 = 4;
/// Maximum elements of a list; the largest known vocabularies and their merges have half a million.
const MAX_LIST_LEN: u64 = 1 << 22;

/// Files that exist of nearly every model, the most usual first.
const READABLE_FORMAT_REMEDY: &str =
    "use another file of the model: Q4_K_M, Q5_K_M, Q6_K, Q8_0, IQ4_XS, Q3_K_M, Q4_0, F16 or BF16";

/// A tensor's entry in the header.
pub(super) struct TensorHeader {
    pub(super) name: String,
    pub(super) format: TensorFormat,
    pub(super) shape: Vec<usize>,
    /// Relative to the start of the tensor data.
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Reads from the first bytes of a file.
pub(super) struct GgufReader<'a> {
    path: &'a Path,
    /// The bytes read so far.
    bytes: &'a [u8],
    /// Size of the whole file, in bytes.
    file_len: u64,
    at: usize,
    /// Whether the error is only that more of the file has to be read.
    needs_more: bool,
}

impl<'a> GgufReader<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8], file_len: u64) -> Self {
        Self { path, bytes, file_len, at: 0, needs_more: false }
    }

    /// A reader positioned at an offset that was read before.
    pub(super) fn at_offset(path: &'a Path, bytes: &'a [u8], at: usize) -> Self {
        Self { at, ..Self::new(path, bytes, bytes.len() as u64) }
    }

    /// Size of the whole file, in bytes.
    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The current offset.
    pub(super) fn position(&self) -> u64 {
        self.at as u64
    }

    /// Whether the only cause of the last error was that too few bytes had been read.
    pub(super) fn needs_more(&self) -> bool {
        self.needs_more
    }

    fn remaining_bytes(&self) -> u64 {
        self.file_len.saturating_sub(self.at as u64)
    }

    fn field_error(&self, field: &str, problem: impl AsRef<str>) -> EngineError {
        model_error(self.path, field, problem, PULL_AGAIN_REMEDY)
    }

    /// Refuses a count whose entries cannot fit into the rest of the file.
    pub(super) fn check_count(
        &self,
        count: u64,
        smallest_entry: u64,
        field: &str,
    ) -> Result<(), EngineError> {
        if count > self.remaining_bytes() / smallest_entry {
            let problem = format!(
                "says {count} entries, but only {} bytes of the file are left",
                self.remaining_bytes()
            );
            return Err(self.field_error(field, problem));
        }
        Ok(())
    }

    pub(super) fn read_bytes(&mut self, len: u64, field: &str) -> Result<&'a [u8], EngineError> {
        if len > self.remaining_bytes() {
            let problem =
                format!("the file ends here: {len} bytes are needed, {} are left", self.remaining_bytes());
            return Err(self.field_error(field, problem));
        }
        let bytes = usize::try_from(len).ok().and_then(|len| self.bytes[self.at..].get(..len));
        let Some(bytes) = bytes else {
            self.needs_more = true;
            return Err(self.field_error(field, "the header of the file is longer than that of any model"));
        };
        self.at += bytes.len();
        Ok(bytes)
    }

    fn read_array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], EngineError> {
        let mut out = [0; N];
        out.copy_from_slice(self.read_bytes(N as u64, field)?);
        Ok(out)
    }

    pub(super) fn read_u32(&mut self, field: &str) -> Result<u32, EngineError> {
        Ok(u32::from_le_bytes(self.read_array(field)?))
    }

    pub(super) fn read_u64(&mut self, field: &str) -> Result<u64, EngineError> {
        Ok(u64::from_le_bytes(self.read_array(field)?))
    }

    pub(super) fn read_raw_string(&mut self, field: &str) -> Result<&'a [u8], EngineError> {
        let len = self.read_u64(field)?;
        self.read_bytes(len, field)
    }

    pub(super) fn read_string(&mut self, field: &str) -> Result<String, EngineError> {
        Ok(String::from_utf8_lossy(self.read_raw_string(field)?).into_owned())
    }

    /// Reads a list's header and walks over its elements.
    pub(super) fn read_list(&mut self, key: &str, depth: usize) -> Result<ListSpan, EngineError> {
        if depth == MAX_NESTING {
            return Err(self.field_error(key, "lists are nested too deeply"));
        }
        let kind = self.read_u32(key)?;
        let count = self.read_u64(key)?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            LIST_TYPE => 12,
            STRING_TYPE | 10..=12 => 8,
            _ => return Err(self.field_error(key, format!("has elements of the unknown type {kind}"))),
        };
        self.check_count(count, size, key)?;
        if count > MAX_LIST_LEN {
            return Err(self.field_error(
                key,
                format!("is a list of {count} elements, at most {MAX_LIST_LEN} are allowed"),
            ));
        }
        let start = self.at;
        for _ in 0..count {
            match kind {
                STRING_TYPE => {
                    self.read_raw_string(key)?;
                }
                LIST_TYPE => {
                    self.read_list(key, depth + 1)?;
                }
                _ => {
                    // All at once: `count * size` was compared with the remaining bytes.
                    self.read_bytes(count * size, key)?;
                    break;
                }
            }
        }
        Ok(ListSpan { kind, count: count as usize, start })
    }

    /// Reads a value; `kind` is the specification's `gguf_metadata_value_type`.
    pub(super) fn read_value(
        &mut self,
        kind: u32,
        key: &str,
        depth: usize,
    ) -> Result<MetadataValue, EngineError> {
        Ok(match kind {
            0 => MetadataValue::Unsigned(u64::from(u8::from_le_bytes(self.read_array(key)?))),
            1 => MetadataValue::Signed(i64::from(i8::from_le_bytes(self.read_array(key)?))),
            2 => MetadataValue::Unsigned(u64::from(u16::from_le_bytes(self.read_array(key)?))),
            3 => MetadataValue::Signed(i64::from(i16::from_le_bytes(self.read_array(key)?))),
            4 => MetadataValue::Unsigned(u64::from(self.read_u32(key)?)),
            5 => MetadataValue::Signed(i64::from(i32::from_le_bytes(self.read_array(key)?))),
            6 => MetadataValue::Float(f64::from(f32::from_le_bytes(self.read_array(key)?))),
            7 => MetadataValue::Bool(self.read_array::<1>(key)?[0] != 0),
            STRING_TYPE => MetadataValue::String(self.read_string(key)?),
            LIST_TYPE => {
                let ListSpan { kind, count, start } = self.read_list(key, depth)?;
                let mut inner = GgufReader { at: start, needs_more: false, ..*self };
                let values = (0..count).map(|_| inner.read_value(kind, key, depth + 1));
                MetadataValue::Array(values.collect::<Result<_, _>>()?)
            }
            10 => MetadataValue::Unsigned(self.read_u64(key)?),
            11 => MetadataValue::Signed(i64::from_le_bytes(self.read_array(key)?)),
            12 => MetadataValue::Float(f64::from_le_bytes(self.read_array(key)?)),
            _ => return Err(self.field_error(key, format!("has the unknown type {kind}"))),
        })
    }

    pub(super) fn read_tensor_header(&mut self) -> Result<TensorHeader, EngineError> {
        let name = self.read_string("tensor name")?;
        let dimensions = self.read_u32(&name)?;
        if dimensions > MAX_DIMENSIONS {
            return Err(self.field_error(
                &name,
                format!("has {dimensions} dimensions, at most {MAX_DIMENSIONS} are allowed"),
            ));
        }
        let mut shape = Vec::new();
        let mut elements = 1_u64;
        for _ in 0..dimensions {
            let n = self.read_u64(&name)?;
            elements =
                elements.checked_mul(n).ok_or_else(|| self.field_error(&name, "its size overflows"))?;
            shape.push(usize::try_from(n).map_err(|_| self.field_error(&name, "its size overflows"))?);
        }
        shape.reverse();
        let ggml_type = self.read_u32(&name)?;
        let offset = self.read_u64(&name)?;
        let format = TensorFormat::from_ggml_type(ggml_type).map_err(|found| {
            let problem = format!("is stored as {found}, which taper cannot read");
            model_error(self.path, &name, problem, READABLE_FORMAT_REMEDY)
        })?;
        let (block, block_bytes) = format.block_size();
        let row = shape.last().copied().unwrap_or(1);
        if elements == 0 || !row.is_multiple_of(block) {
            let format = format.name();
            let problem =
                format!("has the shape {shape:?}, which {format} blocks of {block} values cannot store");
            return Err(self.field_error(&name, problem));
        }
        let len = (elements / block as u64).checked_mul(block_bytes as u64);
        let len = len.ok_or_else(|| self.field_error(&name, "its size overflows"))?;
        Ok(TensorHeader { name, format, shape, offset, len })
    }
}

/// The location of each tensor in the file: `(start, length)`, in the order of `heads`.
///
/// # Errors
/// A tensor extends past the end of the file, or two share bytes, with which a small file could demand any amount of
/// memory.
pub(super) fn locate_tensors(
    path: &Path,
    heads: &[TensorHeader],
    data_start: u64,
    file_len: u64,
) -> Result<Vec<(u64, usize)>, EngineError> {
    let mut places = Vec::with_capacity(heads.len());
    for head in heads {
        let start = data_start.checked_add(head.offset);
        let end = start.and_then(|start| start.checked_add(head.len)).filter(|&end| end <= file_len);
        let (Some(start), Some(_), Ok(len)) = (start, end, usize::try_from(head.len)) else {
            let problem = format!("needs {} bytes at {}, the file has {file_len}", head.len, head.offset);
            return Err(model_error(path, &head.name, problem, PULL_AGAIN_REMEDY));
        };
        places.push((start, len));
    }
    let mut order: Vec<usize> = (0..heads.len()).collect();
    order.sort_by_key(|&index| places[index].0);
    for pair in order.windows(2) {
        let ((start, len), (next, _)) = (places[pair[0]], places[pair[1]]);
        if start + len as u64 > next {
            let problem = format!("occupies the same bytes as {}", sanitize_word(&heads[pair[0]].name));
            return Err(model_error(path, &heads[pair[1]].name, problem, PULL_AGAIN_REMEDY));
        }
    }
    Ok(places)
}
