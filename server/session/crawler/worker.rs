//! The crawl process from inside. It ends with the process that started it.

use std::io::{self, Read, Write};
use std::thread;

use taper_engine::priority;

use super::message::{self, CrawlRequest, CrawlResponse, VERSION};
use super::{FileCrawler, InProcess};

/// Maximum address space of the process: a third of it is taken at the start.
const MEMORY_LIMIT: u64 = 768 << 20;

/// Handles the requests of the server at the other end of the pipes, until it closes them: then `on_input_end` is
/// called, on another thread, whatever is in progress.
///
/// # Errors
/// The system cannot start a thread, or the output is closed.
pub fn serve_crawl(
    mut input: impl Read + Send + 'static,
    mut output: impl Write,
    on_input_end: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    priority::lower_priority();
    priority::limit_process_memory(MEMORY_LIMIT);
    let (sender, requests) = crossbeam_channel::bounded(1);
    thread::Builder::new().name("requests".to_owned()).spawn(move || {
        while let Ok(request) = message::read_message::<CrawlRequest>(&mut input) {
            if sender.send(request).is_err() {
                break;
            }
        }
        on_input_end();
    })?;
    message::write_message(&mut output, &CrawlResponse::Ready(VERSION.to_owned()))?;
    for request in requests {
        message::write_message(&mut output, &handle_request(request))?;
    }
    Ok(())
}

fn handle_request(request: CrawlRequest) -> CrawlResponse {
    match request {
        CrawlRequest::Walk { root, near, time } => {
            CrawlResponse::Walked(InProcess.walk(&root, &near, time).unwrap_or_default())
        }
        CrawlRequest::Cut { root, found } => CrawlResponse::Cut(InProcess.cut(&root, &found)),
        CrawlRequest::CutText { path, language, text } => {
            let language = taper_grammars::by_id(&language);
            CrawlResponse::Cut(language.and_then(|language| InProcess.cut_text(&path, language, &text)))
        }
    }
}
