//! A small local HTTP server that mimics the model hub; the engine's tests use it too.
//!
//! `HEAD …/resolve/main/FILE` returns `x-linked-size`, `x-linked-etag` and a redirect; `GET` is redirected to
//! `/blob/FILE`, which sends the bytes and supports ranges.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Configuration of the server's behaviour.
#[derive(Clone, Default)]
pub(super) struct Behaviour {
    /// File name to content.
    pub(super) files: HashMap<String, Vec<u8>>,
    /// The announced SHA-256 of each file.
    pub(super) hashes: HashMap<String, String>,
    /// Close the connection after this many bytes of content.
    pub(super) break_after: Option<usize>,
    /// Send the whole file and ignore the requested range.
    pub(super) no_ranges: bool,
    /// Pause every content after this many bytes until [`Hub::release`].
    pub(super) hold_after: Option<usize>,
    /// Respond to everything with this status.
    pub(super) status: Option<u16>,
    /// Reject requests without this token.
    pub(super) token: Option<String>,
    /// Redirect HEAD requests to another path first, as for a renamed repository.
    pub(super) renamed: bool,
    /// Redirect requests for a file here instead of `/blob/`; the file's name is appended.
    pub(super) sends_to: Option<String>,
    /// Redirect without the file's headers, as some mirrors do.
    pub(super) silent: bool,
    /// The existing revisions; all if empty.
    pub(super) revisions: Vec<String>,
    /// Announced sizes, in place of the right ones.
    pub(super) sizes: HashMap<String, u64>,
    /// Additional header lines of every content.
    pub(super) lines: String,
    /// Send this many bytes of each content, then nothing more.
    pub(super) silent_after: Option<usize>,
}

/// A received request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// `HEAD` or `GET`.
    pub(super) method: String,
    /// Its path.
    pub(super) path: String,
    /// The token in the request.
    pub(super) token: Option<String>,
}

/// A running server, until the process ends.
pub(super) struct Hub {
    /// Its address, for `HF_ENDPOINT`.
    pub(super) endpoint: String,
    behaviour: Arc<Mutex<Behaviour>>,
    /// Requests for content so far, as `FILE RANGE`.
    pub(super) requests: Arc<Mutex<Vec<String>>>,
    /// Every request so far.
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    /// The number of paused contents.
    held: Arc<AtomicUsize>,
}

impl Hub {
    /// Starts one.
    pub(super) fn start(behaviour: Behaviour) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
        let endpoint = format!("http://{}", listener.local_addr().expect("its number"));
        let behaviour = Arc::new(Mutex::new(behaviour));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hub = Hub { endpoint, behaviour, requests, seen, held };
        let connection = Connection {
            behaviour: hub.behaviour.clone(),
            requests: hub.requests.clone(),
            seen: hub.seen.clone(),
            held: hub.held.clone(),
        };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = connection.clone();
                // Clients may disconnect in the middle.
                thread::spawn(move || drop(connection.answer(&stream)));
            }
        });
        hub
    }

    /// Changes the behaviour, also for contents in transit.
    pub(super) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().expect("no thread panicked"));
    }

    /// Resumes paused contents and pauses no more.
    pub(super) fn release(&self) {
        self.change(|b| b.hold_after = None);
    }

    /// Waits until a content is paused.
    pub(super) fn wait_until_held(&self) {
        while self.held.load(Ordering::SeqCst) == 0 {
            thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

/// State shared by a connection and the hub.
#[derive(Clone)]
struct Connection {
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<Mutex<Vec<String>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    held: Arc<AtomicUsize>,
}

impl Connection {
    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let mut out = stream;
        while let Some(first) = lines.next().transpose()? {
            let (mut range, mut token) = (None, None);
            for line in lines.by_ref() {
                let line = line?.to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("range: bytes=") {
                    let ends = value.split_once('-');
                    range = ends
                        .and_then(|(from, to)| Some((from.parse().ok()?, to.parse().unwrap_or(usize::MAX))));
                }
                if let Some(value) = line.strip_prefix("authorization: bearer ") {
                    token = Some(value.to_owned());
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut words = first.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let seen = Seen { method: method.to_owned(), path: path.to_owned(), token: token.clone() };
            self.seen.lock().expect("no thread panicked").push(seen);
            let b = self.behaviour.lock().expect("no thread panicked").clone();
            let status = b.status.or((b.token.is_some() && b.token != token).then_some(401));
            if let Some(status) = status {
                write!(out, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n")?;
                continue;
            }
            let name = path.rsplit('/').next().unwrap_or_default();
            let known = |revision: &String| path.contains(&format!("/resolve/{revision}/"));
            let has = b.revisions.is_empty() || !path.contains("/resolve/") || b.revisions.iter().any(known);
            let Some(content) = b.files.get(name).filter(|_| has) else {
                write!(
                    out,
                    "HTTP/1.1 404 Not Found\r\nx-error-code: EntryNotFound\r\ncontent-length: 0\r\n\r\n"
                )?;
                continue;
            };
            if path.contains("/resolve/") {
                if b.renamed && !path.starts_with("/new/") {
                    write!(out, "HTTP/1.1 307 Moved\r\nlocation: /new{path}\r\ncontent-length: 0\r\n\r\n")?;
                    continue;
                }
                let to = format!("{}{name}", b.sends_to.as_deref().unwrap_or("/blob/"));
                let size = b.sizes.get(name).copied().unwrap_or(content.len() as u64);
                let about = match b.hashes.get(name) {
                    _ if b.silent => String::new(),
                    Some(hash) => format!("x-linked-etag: \"{hash}\"\r\nx-linked-size: {size}\r\n"),
                    None => format!("x-linked-size: {size}\r\n"),
                };
                write!(out, "HTTP/1.1 302 Found\r\n{about}x-repo-commit: {:040}\r\n", 0)?;
                write!(out, "location: {to}\r\ncontent-length: 0\r\n\r\n")?;
                continue;
            }
            self.send(stream, &b, (method, name), content, range)?;
        }
        Ok(())
    }

    /// Sends a content or the requested range of it.
    fn send(
        &self,
        stream: &TcpStream,
        b: &Behaviour,
        (method, name): (&str, &str),
        content: &[u8],
        range: Option<(usize, usize)>,
    ) -> std::io::Result<()> {
        let mut out = stream;
        let (from, to) = range.filter(|_| !b.no_ranges).unwrap_or((0, content.len() - 1));
        if from >= content.len() {
            return write!(
                out,
                "HTTP/1.1 416 No\r\ncontent-range: bytes */{}\r\ncontent-length: 0\r\n\r\n",
                content.len()
            );
        }
        let to = to.min(content.len() - 1);
        let part = &content[from..=to];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        write!(out, "HTTP/1.1 {status}\r\naccept-ranges: bytes\r\n{}", b.lines)?;
        if !b.lines.contains("transfer-encoding") {
            write!(out, "content-length: {}\r\n", part.len())?;
        }
        write!(out, "content-range: bytes {from}-{to}/{}\r\n\r\n", content.len())?;
        if method == "HEAD" {
            return Ok(());
        }
        self.requests.lock().expect("no thread panicked").push(format!("{name} {from}"));
        let mut sent = 0;
        for chunk in part.chunks(1000) {
            let now = || self.behaviour.lock().expect("no thread panicked").hold_after;
            if now().is_some_and(|after| sent >= after) {
                out.flush()?;
                self.held.fetch_add(1, Ordering::SeqCst);
                while now().is_some() {
                    thread::sleep(std::time::Duration::from_millis(2));
                }
                self.held.fetch_sub(1, Ordering::SeqCst);
            }
            if b.break_after.is_some_and(|after| sent >= after) {
                return stream.shutdown(std::net::Shutdown::Both);
            }
            if b.silent_after.is_some_and(|after| sent >= after) {
                // Until the client disconnects.
                let _ = std::io::Read::read(&mut &*stream, &mut [0; 1]);
                return Ok(());
            }
            out.write_all(chunk)?;
            sent += chunk.len();
        }
        Ok(())
    }
}
