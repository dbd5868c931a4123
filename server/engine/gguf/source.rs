//! Reads the bytes of a model file on demand, with an error if they no longer exist.
//!
//! Nothing is memory-mapped. If another process truncates a mapped file, reading it kills this process (SIGBUS); a
//! plain read returns an error. The file is not needed after the tensors are packed.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use super::NOT_A_MODEL_REMEDY;
use super::conversion::Conversion;
use super::sanitize::model_error;
use crate::EngineError;

/// Bytes of known length that several threads can read at any offset.
#[derive(Debug)]
pub(super) struct ByteSource {
    len: u64,
    bytes: SourceBytes,
}

#[derive(Debug)]
enum SourceBytes {
    /// With its modification time when it was opened.
    File(File, Option<SystemTime>),
    Memory(Vec<u8>),
}

impl ByteSource {
    /// Opens a plain file.
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let read = |source| EngineError::Read { path: path.to_owned(), source };
        // Checked before the file is opened: opening a pipe waits for a writer.
        check_kind(path, &fs::metadata(path).map_err(read)?)?;
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        check_kind(path, &metadata)?;
        Ok(Self { len: metadata.len(), bytes: SourceBytes::File(file, metadata.modified().ok()) })
    }

    pub(super) fn from_memory(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len() as u64, bytes: SourceBytes::Memory(bytes) }
    }

    /// Number of bytes when the source was opened.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the bytes from offset `at`.
    pub(super) fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.bytes {
            SourceBytes::File(file, _) => read_at(file, at, out),
            SourceBytes::Memory(bytes) => {
                let start = usize::try_from(at).ok();
                let from = start.and_then(|start| bytes.get(start..start.checked_add(out.len())?));
                out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// Whether length and modification time are the same as when the source was opened.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.bytes {
            SourceBytes::File(file, modified) => {
                let now = file.metadata().ok();
                now.is_some_and(|now| now.len() == self.len && now.modified().ok() == *modified)
            }
            SourceBytes::Memory(_) => true,
        }
    }
}

fn check_kind(path: &Path, metadata: &fs::Metadata) -> Result<(), EngineError> {
    match () {
        () if metadata.is_dir() => Err(model_error(path, "file", "is a folder", NOT_A_MODEL_REMEDY)),
        () if !metadata.is_file() => {
            Err(model_error(path, "file", "is not a plain file", NOT_A_MODEL_REMEDY))
        }
        () => Ok(()),
    }
}

#[cfg(unix)]
fn read_at(file: &File, at: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !out.is_empty() {
        match file.seek_read(out, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                out = &mut out[read..];
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The bytes of a tensor, or a part of them.
#[derive(Debug, Clone, Copy)]
pub struct TensorData<'a> {
    location: DataLocation<'a>,
    /// The part of the tensor, in bytes as they are read.
    start: usize,
    len: usize,
    /// The conversion of the stored blocks into those that are read.
    conversion: Option<Conversion>,
}

#[derive(Debug, Clone, Copy)]
enum DataLocation<'a> {
    Memory(&'a [u8]),
    /// A tensor that begins at this offset.
    Source(&'a ByteSource, u64),
}

impl<'a> From<&'a [u8]> for TensorData<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { location: DataLocation::Memory(bytes), start: 0, len: bytes.len(), conversion: None }
    }
}

impl<'a> From<&'a Vec<u8>> for TensorData<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::from(&bytes[..])
    }
}

impl<'a> TensorData<'a> {
    pub(super) fn from_source(source: &'a ByteSource, start: u64, len: usize) -> Self {
        Self { location: DataLocation::Source(source, start), start: 0, len, conversion: None }
    }

    /// The same blocks in another format. They are converted each time they are read.
    pub(super) fn with_conversion(self, conversion: Conversion) -> Self {
        debug_assert!(self.conversion.is_none());
        let convert = |len: usize| len / conversion.stored_bytes * conversion.converted_bytes;
        Self { start: convert(self.start), len: convert(self.len), conversion: Some(conversion), ..self }
    }

    /// Number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "no tensor is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first `len` bytes, or all if there are fewer.
    pub fn prefix(&self, len: usize) -> Self {
        self.slice(0..len)
    }

    /// The bytes in `range`, or as many of them as there are.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        Self { start: self.start + start, len: end - start, ..*self }
    }

    /// Reads the bytes in `range`, which must be within the tensor.
    ///
    /// # Errors
    /// The file has become shorter, its device fails, or memory is short.
    pub fn read(&self, range: Range<usize>) -> io::Result<Cow<'a, [u8]>> {
        debug_assert!(range.start <= range.end && range.end <= self.len);
        let range = self.start + range.start..self.start + range.end;
        let Some(conversion) = self.conversion else { return self.location.read(range) };
        let blocks = range.start / conversion.converted_bytes..range.end.div_ceil(conversion.converted_bytes);
        let stored = blocks.start * conversion.stored_bytes..blocks.end * conversion.stored_bytes;
        let stored = self.location.read(stored)?;
        let mut out = zeroed_bytes(blocks.len() * conversion.converted_bytes)?;
        conversion.convert_blocks(&stored, &mut out);
        // The range may begin and end inside a block.
        out.truncate(range.end - blocks.start * conversion.converted_bytes);
        out.drain(..range.start - blocks.start * conversion.converted_bytes);
        Ok(Cow::Owned(out))
    }

    /// Reads all bytes.
    ///
    /// # Errors
    /// As [`TensorData::read`].
    pub fn read_all(&self) -> io::Result<Cow<'a, [u8]>> {
        self.read(0..self.len)
    }
}

impl<'a> DataLocation<'a> {
    /// Reads stored bytes.
    fn read(self, range: Range<usize>) -> io::Result<Cow<'a, [u8]>> {
        match self {
            Self::Memory(bytes) => {
                bytes.get(range).map(Cow::Borrowed).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Self::Source(source, start) => {
                let mut out = zeroed_bytes(range.len())?;
                source.read(start + range.start as u64, &mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }
}

/// Zeros, or an error if there is no memory for them.
fn zeroed_bytes(len: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    out.resize(len, 0);
    Ok(out)
}
