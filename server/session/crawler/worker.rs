//! The process that looks through other people's files, from inside.
//! It knows nothing of what the files are for, and ends with whoever started it.

use std::io::{self, Read, Write};
use std::thread;

use taper_engine::background;

use super::message::{self, Request, Response, VERSION};
use super::{Crawler, Here};

/// Addresses that the process may use: a third of it is taken before it does anything.
const MEMORY: u64 = 768 << 20;

/// Does what the server on the other end of the pipes asks for, until that closes them: then `gone` is called, on another
/// thread, whatever is being done.
///
/// # Errors
/// The system gives no thread, or nobody reads the answers.
pub fn serve(
    mut input: impl Read + Send + 'static,
    mut output: impl Write,
    gone: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    background::lower_priority();
    background::confine(MEMORY);
    let (sender, requests) = crossbeam_channel::bounded(1);
    thread::Builder::new().name("requests".to_owned()).spawn(move || {
        while let Ok(request) = message::read::<Request>(&mut input) {
            if sender.send(request).is_err() {
                break;
            }
        }
        gone();
    })?;
    message::write(&mut output, &Response::Ready(VERSION.to_owned()))?;
    for request in requests {
        message::write(&mut output, &handle(request))?;
    }
    Ok(())
}

fn handle(request: Request) -> Response {
    match request {
        Request::Walk { root, near, time } => {
            Response::Walked(Here.walk(&root, &near, time).unwrap_or_default())
        }
        Request::Cut { root, found } => Response::Cut(Here.cut(&root, &found)),
        Request::CutText { path, language, text } => {
            let language = taper_grammars::by_id(&language);
            Response::Cut(language.and_then(|language| Here.cut_text(&path, language, &text)))
        }
    }
}
