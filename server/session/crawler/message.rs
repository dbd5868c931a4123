//! The messages between the server and its crawl process, and their format in a pipe: four bytes of length, then
//! the message.

use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::retrieval::chunks::ChunkedFile;
use crate::retrieval::crawl::CrawledFile;

/// Maximum bytes of a message: a file of the largest size takes a tenth of it.
const MAX_MESSAGE_BYTES: u32 = 32 << 20;

/// The version that both must have: both come from one program, unless it was replaced in between.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A request to the crawl process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CrawlRequest {
    /// [`super::FileCrawler::walk`]
    Walk { root: PathBuf, near: Vec<String>, time: Duration },
    /// [`super::FileCrawler::cut`]
    Cut { root: PathBuf, found: CrawledFile },
    /// [`super::FileCrawler::cut_text`]
    CutText { path: String, language: String, text: String },
}

/// A response. The first message, sent without a request, is `Ready`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CrawlResponse {
    /// The process is running this version.
    Ready(String),
    /// The files of a walk.
    Walked(Vec<CrawledFile>),
    /// A file, if it is of use.
    Cut(Option<ChunkedFile>),
}

pub(super) fn write_message(output: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let invalid = |_| io::Error::from(ErrorKind::InvalidInput);
    let mut bytes = postcard::to_extend(message, vec![0; 4]).map_err(invalid)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|&length| length <= MAX_MESSAGE_BYTES);
    let length = length.ok_or(ErrorKind::InvalidInput)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    output.write_all(&bytes)?;
    output.flush()
}

pub(super) fn read_message<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_MESSAGE_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    // Allocated as bytes arrive, not by the announced length.
    let mut bytes = Vec::new();
    input.take(length.into()).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(|_| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent_and_nothing_else_does() {
        let python = taper_grammars::by_id("python").unwrap();
        let file = ChunkedFile::new(
            "a/b.py",
            python,
            "class A:\n    def f(self): pass\n    def g(self): pass\n",
            &mut || false,
        );
        let mut pipe = Vec::new();
        let sent = CrawlResponse::Cut(file);
        write_message(&mut pipe, &sent).unwrap();
        let CrawlResponse::Cut(Some(received)) = read_message(&mut pipe.as_slice()).unwrap() else {
            panic!("no file")
        };
        assert_eq!(CrawlResponse::Cut(received.validate_received("a/b.py", python)), sent);
        let found = CrawledFile { path: "ä.py".to_owned(), bytes: u64::MAX, modified: Some(i64::MIN) };
        let sent = CrawlRequest::Cut { root: "/w".into(), found };
        let mut pipe = Vec::new();
        write_message(&mut pipe, &sent).unwrap();
        assert_eq!(read_message::<CrawlRequest>(&mut pipe.as_slice()).unwrap(), sent);
        for cut in 0..pipe.len() {
            assert!(read_message::<CrawlRequest>(&mut &pipe[..cut]).is_err(), "{cut}");
        }
        assert!(read_message::<CrawlResponse>(&mut &b"\xff\xff\xff\xff...."[..]).is_err());
        assert!(read_message::<CrawlResponse>(&mut &b"\x05\0\0\0\x07hello"[..]).is_err());
    }

    #[test]
    fn crawled_file_with_chunks_out_of_range_is_rejected() {
        let python = taper_grammars::by_id("python").unwrap();
        let text = "def f(): pass\n";
        let mut pipe = Vec::new();
        let file = ChunkedFile::new("a.py", python, text, &mut || false);
        write_message(&mut pipe, &CrawlResponse::Cut(file)).unwrap();
        let at = pipe.windows(text.len()).position(|it| it == text.as_bytes()).unwrap();
        // The text's length is announced as one byte less: the rest is read as another field, or as ranges that do
        // not fit.
        for (place, byte) in [(at - 1, 3), (at + text.len(), 9), (at + text.len() + 2, 200)] {
            let mut broken = pipe.clone();
            broken[place] = byte;
            if let Ok(CrawlResponse::Cut(Some(file))) = read_message::<CrawlResponse>(&mut broken.as_slice())
            {
                assert!(file.validate_received("b.py", python).is_none());
            }
        }
    }
}
