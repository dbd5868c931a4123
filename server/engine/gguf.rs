//! The GGUF container: reads the metadata and tensors of a model file and validates them before use.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little endian.
//! A number from the file is compared with the remaining bytes before it sizes an allocation.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use crate::EngineError;

mod blocks;
mod conversion;
mod format;
mod parts;
mod reader;
mod remedy;
mod sanitize;
mod source;
#[doc(hidden)]
#[cfg(any(test, feature = "test-support"))]
pub mod testing;

pub(crate) use blocks::{are_finite, half_float_offsets};
pub use format::TensorFormat;
use reader::GgufReader;
pub use remedy::Remedy;
pub(crate) use sanitize::{model_error, sanitize_word};
use source::ByteSource;
pub use source::TensorData;

/// An open model: its header is in memory, its tensors are read from the file, or from its parts, on demand.
#[derive(Debug)]
pub struct Gguf {
    /// At least one. The first has the metadata.
    files: Vec<ModelFile>,
    /// The tensors of all files.
    tensors: HashMap<String, TensorInfo>,
}

/// One open file of a model.
#[derive(Debug)]
struct ModelFile {
    path: PathBuf,
    source: ByteSource,
    /// The bytes before the tensors.
    header: Vec<u8>,
    metadata: HashMap<String, MetadataValue>,
    lists: HashMap<String, ListSpan>,
    /// Moved to [`Gguf::tensors`] when all files are open.
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
    /// Index of the file that has the tensor.
    part: usize,
    format: TensorFormat,
    shape: Vec<usize>,
    start: u64,
    len: usize,
}

/// A tensor of the file. Its blocks are those in the file, or converted when they are read, if the tensor library does
/// not know the file's format.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// The format of the blocks.
    pub dtype: GgmlDType,
    /// Row-major shape, the outermost dimension first (GGUF stores it reversed): `[rows, columns]` of a matrix.
    pub shape: Vec<usize>,
    /// The blocks.
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

    /// The same tensor in a format that taper has kernels for: blocks of another format are converted when they are
    /// read.
    #[must_use]
    pub(crate) fn with_kernel_format(&self) -> Self {
        let mut view = self.clone();
        if let Some(conversion) = TensorFormat::Ggml(self.dtype).kernel_conversion() {
            view.dtype = conversion.target;
            view.data = view.data.with_conversion(conversion);
        }
        view
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

pub(crate) const PULL_AGAIN_REMEDY: Remedy<'static> = Remedy::GetAgain;
/// The problem reported for a tensor with infinite or NaN values, which no valid model has.
pub(crate) const NOT_FINITE_PROBLEM: &str = "contains NaN or infinite values";
const NOT_A_MODEL_REMEDY: &str = "name a GGUF file, or a model that `taper models` lists";

impl Gguf {
    /// Reads the header of the file at `path`, and those of the other parts if it is a part of a model.
    ///
    /// # Errors
    /// The file cannot be read, is not GGUF, is truncated, or contains impossible sizes; or a part is missing or does
    /// not belong to the others.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        Self::from_files(parts::open_parts(ModelFile::open(path)?)?)
    }

    /// Reads the header from a file's bytes; errors name them `path`.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    #[doc(hidden)]
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, EngineError> {
        Self::from_files(vec![ModelFile::from_source(path, ByteSource::from_memory(bytes))?])
    }

    fn from_files(mut files: Vec<ModelFile>) -> Result<Self, EngineError> {
        let tensors = parts::join_tensors(&mut files)?;
        Ok(Self { files, tensors })
    }

    fn first_file(&self) -> &ModelFile {
        &self.files[0]
    }

    /// The path of the file, or of the first part.
    pub fn path(&self) -> &Path {
        &self.first_file().path
    }

    /// Size of the whole file, or of all parts, in bytes.
    pub fn file_len(&self) -> u64 {
        self.files.iter().map(|file| file.source.len()).sum()
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
        let Some(changed) = self.files.iter().find(|file| !file.source.is_unchanged()) else { return Ok(()) };
        let remedy = "load it again when no other program is writing to it";
        Err(model_error(&changed.path, "file", "was changed while it was read", remedy))
    }

    /// A metadata value that is not a list, if the file has it.
    pub fn get(&self, key: &str) -> Option<&MetadataValue> {
        self.first_file().metadata.get(key)
    }

    /// Whether the file has a value or a list under this key.
    pub fn has_key(&self, key: &str) -> bool {
        let file = self.first_file();
        file.metadata.contains_key(key) || file.lists.contains_key(key)
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
        let mut reader = self.list_reader(list);
        (0..list.count).map(|_| reader.read_raw_string(key)).collect::<Result<_, _>>().map(Some)
    }

    /// A list of numbers of any kind, if there is one under this key.
    ///
    /// # Errors
    /// The value exists but is not a list of finite numbers.
    pub fn get_numbers(&self, key: &str) -> Result<Option<Vec<f64>>, EngineError> {
        let Some(list) = self.find_list(key, "numbers")? else { return Ok(None) };
        let mut reader = self.list_reader(list);
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
        let Some(&list) = self.first_file().lists.get(key) else { return Ok(None) };
        let mut reader = self.list_reader(list);
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

    fn list_reader(&self, list: ListSpan) -> GgufReader<'_> {
        let file = self.first_file();
        GgufReader::at_offset(&file.path, &file.header, list.start)
    }

    fn find_list(&self, key: &str, what: &str) -> Result<Option<ListSpan>, EngineError> {
        match self.first_file().lists.get(key) {
            Some(&list) => Ok(Some(list)),
            None if self.get(key).is_some() => {
                Err(self.field_error(key, format!("is not a list of {what}"), PULL_AGAIN_REMEDY))
            }
            None => Ok(None),
        }
    }

    /// The formats of the tensors, the one with the most bytes first, and those into which they are converted:
    /// `IQ4_XS, converted to Q8_0 at load; Q6_K; F32`.
    ///
    /// With `for_kernels`, also the formats that only taper's own kernels do not have.
    pub(crate) fn describe_formats(&self, for_kernels: bool) -> String {
        let mut sizes: Vec<(TensorFormat, usize)> = Vec::new();
        for info in self.tensors.values() {
            match sizes.iter_mut().find(|(format, _)| *format == info.format) {
                Some((_, size)) => *size += info.len,
                None => sizes.push((info.format, info.len)),
            }
        }
        sizes.sort_by_key(|&(format, size)| (Reverse(size), format.name()));
        let texts = sizes.into_iter().map(|(format, _)| {
            let (_, conversion) = format.library_format();
            match conversion.or_else(|| format.kernel_conversion().filter(|_| for_kernels)) {
                None => format.name().to_owned(),
                Some(conversion) => {
                    let target = TensorFormat::Ggml(conversion.target).name();
                    format!("{}, converted to {target} at load", format.name())
                }
            }
        });
        texts.collect::<Vec<_>>().join("; ")
    }

    /// Names of all tensors, in arbitrary order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.tensors.get(name)?;
        let data = TensorData::from_source(&self.files[info.part].source, info.start, info.len);
        let (dtype, conversion) = info.format.library_format();
        let data = conversion.map_or(data, |conversion| data.with_conversion(conversion));
        Some(TensorView { dtype, shape: info.shape.clone(), data })
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
    pub fn field_error<'a>(
        &self,
        field: &str,
        problem: impl AsRef<str>,
        remedy: impl Into<Remedy<'a>>,
    ) -> EngineError {
        model_error(self.path_of(field), field, problem, remedy)
    }

    /// The path of the file that has this field or tensor.
    fn path_of(&self, field: &str) -> &Path {
        self.tensors.get(field).map_or(self.path(), |info| self.files[info.part].path.as_path())
    }

    /// The error for a tensor whose bytes could not be read.
    pub(crate) fn tensor_read_error(&self, name: &str, error: io::Error) -> EngineError {
        read_error(self.path_of(name), name, error)
    }
}

impl ModelFile {
    fn open(path: &Path) -> Result<Self, EngineError> {
        Self::from_source(path, ByteSource::open(path)?)
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
            tensors.insert(
                head.name,
                TensorInfo { part: 0, format: head.format, shape: head.shape, start, len },
            );
        }
        Ok(Self { metadata, lists, tensors })
    }
}

#[cfg(test)]
mod tests;
