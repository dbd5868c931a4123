//! Crawls project files: walks, reads, parses, cuts into chunks.
//!
//! A project's files may be anything, and grammars are C code, so one file could crash the process that parses it.
//! The editor's server therefore uses [a process of its own](process) for it: taper itself, started with `crawl`,
//! with low priority and little memory. A file that crashes that process, or takes too long, costs only itself. Not
//! parsing unopened files would lose the outlines, which are a good part of what makes other files worth their
//! tokens in a prompt. And a parser is not the only thing that may fail there: a file on a network that hangs, an
//! expensive expression, too much memory. Without such a process, files are read here, and cut without a parser.

mod message;
mod process;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use taper_grammars::Language;

use crate::retrieval::Index;
use crate::retrieval::chunks::ChunkedFile;
use crate::retrieval::crawl::{self, CrawlLimits, CrawledFile};
use crate::retrieval::excluded_files::ExcludedFiles;
use crate::session::document::deadline_after;

pub use worker::serve_crawl;

/// Time limit for parsing a file; one that takes longer has no outlines.
const FILE_PARSE_LIMIT: Duration = Duration::from_millis(500);
/// Where the crawl runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrawlMode {
    /// In this process: for tests and measurements on their own files.
    Here,
    /// In a process of its own, started from this program, which is taper.
    Apart(PathBuf),
}

/// The crawl.
pub(super) trait FileCrawler: Send {
    /// The files below a folder that are found in this time, those near to `near` first; `None` on failure.
    fn walk(&mut self, root: &Path, near: &[String], time: Duration) -> Option<Vec<CrawledFile>>;

    /// Reads and cuts a file; `None` if it is of no use, or on failure.
    fn cut(&mut self, root: &Path, found: &CrawledFile) -> Option<ChunkedFile>;

    /// Cuts a document's text; `None` as for [`FileCrawler::cut`].
    fn cut_text(&mut self, path: &str, language: &'static Language, text: &str) -> Option<ChunkedFile>;

    /// Called when the crawler has been idle for a while.
    fn release_process(&mut self);
}

impl CrawlMode {
    pub(super) fn start(self) -> Box<dyn FileCrawler> {
        match self {
            Self::Here => Box::new(InProcess),
            Self::Apart(program) => Box::new(process::ChildProcess::new(program)),
        }
    }
}

/// The path of the running program, for [`CrawlMode::Apart`]; it works even if the file was replaced by a newer
/// version.
///
/// # Errors
/// The system does not provide it.
pub fn current_program() -> std::io::Result<PathBuf> {
    let itself = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && itself.exists() { Ok(itself.to_owned()) } else { std::env::current_exe() }
}

/// The index of the files below `root`, those near to `near` first, as far as possible in this time.
pub fn crawl_index(
    crawling: CrawlMode,
    root: &Path,
    near: &[String],
    excluded: &ExcludedFiles,
    time: Duration,
) -> Index {
    let mut time_is_up = deadline_after(time);
    let mut crawler = crawling.start();
    let mut found = crawler.walk(root, near, time).unwrap_or_default();
    found.retain(|it| excluded.exclusion_reason(Path::new(&it.path)).is_none());
    let files = found.iter().take_while(|_| !time_is_up()).filter_map(|it| crawler.cut(root, it));
    Index::new(files.map(Arc::new).collect())
}

/// The crawl in this process, with parsers.
struct InProcess;

impl FileCrawler for InProcess {
    fn walk(&mut self, root: &Path, near: &[String], time: Duration) -> Option<Vec<CrawledFile>> {
        Some(crawl::find_files(root, near, CrawlLimits::DEFAULT, &mut deadline_after(time)))
    }

    fn cut(&mut self, root: &Path, found: &CrawledFile) -> Option<ChunkedFile> {
        crawl::chunk_file(root, found, &mut deadline_after(FILE_PARSE_LIMIT))
    }

    fn cut_text(&mut self, path: &str, language: &'static Language, text: &str) -> Option<ChunkedFile> {
        ChunkedFile::new(path, language, text, &mut deadline_after(FILE_PARSE_LIMIT))
    }

    fn release_process(&mut self) {}
}
