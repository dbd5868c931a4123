//! A file from the Hugging Face hub, or a mirror of it, going on where an earlier download ended.
//! It knows nothing of the table of models beyond the row that it is given.
//!
//! What the hub's own client does not promise is why this is one of our own: the user's token goes to the hub's
//! origin and nowhere else, redirects stay encrypted ([`address`](super::address)), size and hash are known before
//! the first byte, and no more than that is ever written.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::address::{self, Endpoint};
use super::stall::{Patience, Stall};
use super::{Bytes, Cause, Options, Phase, Progress, Store, Trouble, is_sha256, small_text, wanted};
use crate::models::Model;

/// How often an interrupted transfer is taken up again while no bytes come.
const RETRIES: u32 = 5;
/// How often a transfer may begin again from the start.
const RESTARTS: u32 = 3;
/// Redirects that are followed for one request.
const REDIRECTS: u32 = 8;
/// The largest file that is read as a token.
const TOKEN_BYTES: u64 = 4096;

/// Downloads `file` of `repository` behind what `part` already holds, and returns the sha256 that it must have.
///
/// Runs its own thread with its own async runtime, so it may be called from anywhere, also from inside
/// another runtime.
pub(super) fn download(
    store: &Store,
    model: &Model,
    from: Location<'_>,
    part: &Path,
    options: &Options,
    watch: super::Watch<'_>,
) -> Result<String, Trouble> {
    if let Some(variable) = switched_off() {
        return Err(Cause::Off(format!("{variable} is set")).into());
    }
    let named = options.endpoint.clone().or_else(|| variable("HF_ENDPOINT"));
    download_with(store, model, from, part, named.as_deref(), token()?, watch)
}

/// The same with the endpoint and the token at hand.
pub(super) fn download_with(
    store: &Store,
    model: &Model,
    from: Location<'_>,
    part: &Path,
    endpoint: Option<&str>,
    token: Option<HeaderValue>,
    watch: super::Watch<'_>,
) -> Result<String, Trouble> {
    let endpoint = Endpoint::parse(endpoint)?;
    std::thread::scope(|scope| {
        let (send, progress) = mpsc::channel();
        let thread = std::thread::Builder::new().name("download".to_owned());
        let worker = thread.spawn_scoped(scope, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Cause::Unreachable(format!("no async runtime: {e}")))?;
            let clients = Clients::new(&store.patience)?;
            let transfer = Transfer { store, model, from, part, progress: send, endpoint, token, clients };
            runtime.block_on(transfer.run())
        });
        let worker = worker.map_err(|e| Cause::Unreachable(format!("no thread to download with: {e}")))?;
        for now in progress {
            watch(now);
        }
        worker.join().unwrap_or_else(|_| Err(Cause::Broken("the download thread panicked".into()).into()))
    })
}

/// Where on the hub a file lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Location<'a> {
    /// `owner/name`.
    pub(super) repository: &'a str,
    /// A commit, or a branch.
    pub(super) revision: &'a str,
    /// The file.
    pub(super) file: &'a str,
}

/// The variable that forbids the network, if one does: read as huggingface_hub reads them.
pub(super) fn switched_off() -> Option<&'static str> {
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| {
        let value = std::env::var(name).unwrap_or_default();
        matches!(value.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
    })
}

/// The hub's folder on this machine: `HF_HOME`, else `huggingface` among the user's caches.
fn home() -> PathBuf {
    if let Some(home) = variable("HF_HOME") {
        return wanted::expanded(&home);
    }
    let caches = variable("XDG_CACHE_HOME").map_or_else(|| wanted::expanded("~/.cache"), PathBuf::from);
    caches.join("huggingface")
}

/// The hub's cache on this machine: `HF_HUB_CACHE`, else `hub` in its folder.
pub(super) fn cache() -> PathBuf {
    let named = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    named.map_or_else(|| home().join("hub"), |named| wanted::expanded(&named))
}

/// An environment variable that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The user's token as a header, looked for where huggingface_hub looks: `HF_TOKEN`, the file that `HF_TOKEN_PATH`
/// names, `token` in the hub's folder.
fn token() -> Result<Option<HeaderValue>, Cause> {
    if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return Ok(None);
    }
    let (origin, token) = match variable("HF_TOKEN") {
        Some(token) => ("HF_TOKEN".to_owned(), token),
        None => {
            let file = variable("HF_TOKEN_PATH");
            let file = file.map_or_else(|| home().join("token"), |file| wanted::expanded(&file));
            let Some(token) = small_text(&file, TOKEN_BYTES) else { return Ok(None) };
            (file.display().to_string(), token)
        }
    };
    bearer(&token, &origin)
}

/// The token as a header's value. `origin` is for the message; the token is in none.
pub(super) fn bearer(token: &str, origin: &str) -> Result<Option<HeaderValue>, Cause> {
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || Cause::Off(format!("what is in {origin} is no token: it has blanks or other characters"));
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// What the hub says of a file.
#[derive(Debug, Default)]
struct Announced {
    /// Its size in bytes.
    bytes: Option<u64>,
    /// Its sha256, which the hub keeps for every large file.
    sha256: Option<String>,
}

/// The HTTP clients: neither follows a redirect by itself.
struct Clients {
    /// For this machine, past any proxy: a request in plain http would show a proxy the token.
    here: Client,
    /// For everything else: encrypted only, through the proxies that the environment names.
    outside: Client,
}

impl Clients {
    fn new(patience: &Patience) -> Result<Clients, Cause> {
        let builder = || {
            Client::builder()
                .connect_timeout(patience.connect)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .user_agent(AGENT)
        };
        // Whatever the machine's tables say, `localhost` is this machine.
        let here = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        let here = builder()
            .no_proxy()
            .resolve_to_addrs("localhost", &here.map(|address| SocketAddr::new(address, 0)));
        let built = |client: reqwest::ClientBuilder| client.build().map_err(unreachable_);
        Ok(Clients { here: built(here)?, outside: built(builder().https_only(true))? })
    }
}

/// One download.
struct Transfer<'a> {
    store: &'a Store,
    model: &'a Model,
    from: Location<'a>,
    part: &'a Path,
    progress: mpsc::Sender<Progress>,
    endpoint: Endpoint,
    token: Option<HeaderValue>,
    clients: Clients,
}

impl Transfer<'_> {
    async fn run(&self) -> Result<String, Trouble> {
        let Location { repository, revision, file } = self.from;
        let mut address = self.endpoint.file(repository, revision, file)?;
        let announced = match self.announced(&address).await {
            // A mirror may have but the newest revision. What comes from there still has to have the pinned hash.
            Err(Cause::Missing(_)) if revision != "main" && self.model.sha256.is_some() => {
                address = self.endpoint.file(repository, "main", file)?;
                self.announced(&address).await?
            }
            announced => announced?,
        };
        if let Some(bytes) = announced.bytes {
            self.fits(bytes)?;
        }
        let sha256 = match (announced.sha256, self.model.sha256) {
            (Some(found), Some(pinned)) if found != pinned => {
                return Err(Cause::Hash { expected: pinned.into(), found }.into());
            }
            (_, Some(pinned)) => pinned.to_owned(),
            (Some(found), None) => found,
            (None, None) => {
                return Err(Cause::Broken("it does not say which sha256 the file has".into()).into());
            }
        };
        let bytes = if self.model.exact { Some(self.model.bytes) } else { announced.bytes };
        self.transfer(&address, bytes).await?;
        Ok(sha256)
    }

    /// Checks a size that the source names against the table's.
    fn fits(&self, bytes: u64) -> Result<(), Cause> {
        if self.model.fits(bytes) {
            return Ok(());
        }
        let (found, expected) = (Bytes(bytes), Bytes(self.model.bytes));
        let about = if self.model.exact { "" } else { "about " };
        Err(Cause::Broken(format!(
            "its {} has {found} ({bytes} bytes) where {about}{expected} are expected: that is another file",
            self.from.file
        )))
    }

    /// Sends one request. The token goes to the hub's own origin only.
    async fn ask(&self, method: Method, url: &Url, from: u64) -> Result<Response, Cause> {
        let client = if address::is_here(url) { &self.clients.here } else { &self.clients.outside };
        let patience = &self.store.patience;
        let limit = if method == Method::HEAD { patience.answer } else { patience.silence };
        let mut request = client.request(method, url.clone()).header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.token
            && self.endpoint.trusts(url)
        {
            request = request.header(header::AUTHORIZATION, token.clone());
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let answer = tokio::time::timeout(limit, request.send()).await;
        let silent = |_| Cause::Unreachable(format!("no answer within {} s", limit.as_secs_f64()));
        answer.map_err(silent)?.map_err(unreachable_)
    }

    /// Asks for the file's size and hash: a HEAD request on its address, answered by the hub itself
    /// (`x-linked-size`, `x-linked-etag`) before it sends the reader on to where large files lie.
    async fn announced(&self, address: &Url) -> Result<Announced, Cause> {
        let mut url = address.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.ask(Method::HEAD, &url, 0).await?;
            // A renamed repository answers with a path of its own; that answer says nothing of the file.
            if answer.status().is_redirection() && !answer.headers().contains_key(LINKED_TAG) {
                let to = address::redirected(&url, text(answer.headers(), header::LOCATION.as_str()))?;
                if !self.endpoint.trusts(&to) {
                    // Where the hub keeps its files only the files themselves are asked for.
                    return Ok(Announced::default());
                }
                url = to;
                continue;
            }
            if !answer.status().is_redirection() {
                self.refusal(answer.status())?;
            }
            return Ok(announcement(answer.headers(), answer.status()));
        }
        Err(Cause::Broken("it sends the question round in circles".into()))
    }

    /// An answer that is no file.
    fn refusal(&self, status: StatusCode) -> Result<(), Cause> {
        if status.is_success() {
            return Ok(());
        }
        let what = format!("it answers {status} for {}", self.from.file);
        Err(match status.as_u16() {
            401 | 403 => Cause::Missing(format!("{what}; a token in HF_TOKEN may be needed")),
            408 | 429 => Cause::Unreachable(what),
            400..500 => Cause::Missing(what),
            _ => Cause::Unreachable(what),
        })
    }

    /// Asks for the file from the byte `from` on, where the hub sends to.
    async fn open(&self, address: &Url, from: u64) -> Result<Response, Cause> {
        let mut url = address.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.ask(Method::GET, &url, from).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            url = address::redirected(&url, text(answer.headers(), header::LOCATION.as_str()))?;
        }
        Err(Cause::Broken(format!("it redirects more than {REDIRECTS} times")))
    }

    /// Brings `part` to `bytes` bytes, or to what the source says where that is not known yet.
    async fn transfer(&self, address: &Url, bytes: Option<u64>) -> Result<(), Trouble> {
        let most = bytes.unwrap_or(self.model.most_bytes());
        let (out, done) = self.store.append(self.part, most)?;
        self.store.room(most - done)?;
        let patience = &self.store.patience;
        let stall = Stall::new(patience.window, patience.bytes, Instant::now(), done);
        let mut stretch = Stretch { out, done, bytes, restarts: 0, stall };
        let mut tries = 0;
        loop {
            self.tell(stretch.done, bytes.unwrap_or(most));
            if stretch.bytes == Some(stretch.done) {
                return Ok(());
            }
            let before = stretch.done;
            let cause = match self.stretch(address, &mut stretch).await {
                Ok(()) => continue,
                Err(Trouble::Source(Cause::Unreachable(cause))) => cause,
                Err(trouble) => return Err(trouble),
            };
            // As long as bytes keep coming, an interruption is only that.
            tries = if stretch.done > before { 0 } else { tries + 1 };
            let slow = stretch.stall.check(Instant::now(), stretch.done).is_err();
            if tries >= RETRIES || stretch.restarts > RESTARTS || slow {
                let of = stretch.bytes.map(|bytes| format!(" of {bytes}")).unwrap_or_default();
                let cause = format!("it broke off at {}{of} bytes: {cause}", stretch.done);
                return Err(Cause::Unreachable(cause).into());
            }
            tokio::time::sleep(patience.pause * (1 << tries)).await;
        }
    }

    /// One request for all that is missing, written as it comes.
    async fn stretch(&self, address: &Url, stretch: &mut Stretch) -> Result<(), Trouble> {
        let mut answer = self.open(address, stretch.done).await?;
        let headers = answer.headers();
        if headers.get(header::CONTENT_ENCODING).is_some_and(|how| how != "identity") {
            return Err(Cause::Broken("it sends the file compressed, which was not asked for".into()).into());
        }
        let whole = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = text(headers, header::CONTENT_RANGE.as_str()).and_then(content_range);
                let Some((_, whole)) = range.filter(|(from, _)| *from == stretch.done) else {
                    return self.again(stretch, "it sends another part than was asked for");
                };
                whole
            }
            // Nothing lies behind what is here already, so that is no beginning of the file.
            StatusCode::RANGE_NOT_SATISFIABLE if stretch.done > 0 => {
                return self.again(stretch, "its file is shorter than what is here already");
            }
            status => {
                self.refusal(status)?;
                // The server sends all of it where a part was asked for: from the start, then.
                if stretch.done > 0 {
                    self.restart(stretch)?;
                }
                text(headers, header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok())
            }
        };
        if let Some(whole) = whole {
            self.fits(whole)?;
        }
        let bytes = match (stretch.bytes, whole) {
            (Some(bytes), Some(whole)) if bytes != whole => {
                let problem = format!("it sends a file of {whole} bytes and announced {bytes}");
                return Err(Cause::Broken(problem).into());
            }
            (Some(bytes), _) => bytes,
            (None, Some(whole)) => whole,
            (None, None) => {
                return Err(Cause::Broken(format!("it does not say how large {} is", self.from.file)).into());
            }
        };
        stretch.bytes = Some(bytes);
        let silence = self.store.patience.silence;
        let silent = |_| Cause::Unreachable(format!("nothing came for {} s", silence.as_secs_f64()));
        while let Some(chunk) =
            tokio::time::timeout(silence, answer.chunk()).await.map_err(silent)?.map_err(unreachable_)?
        {
            if chunk.len() as u64 > bytes.saturating_sub(stretch.done) {
                return Err(Cause::Broken("it sends more than it announced".into()).into());
            }
            let unwritten = |e| self.store.unwritten(self.part, bytes - stretch.done, e);
            stretch.out.write_all(&chunk).map_err(unwritten)?;
            stretch.done += chunk.len() as u64;
            self.tell(stretch.done, bytes);
            stretch.stall.check(Instant::now(), stretch.done).map_err(Cause::Unreachable)?;
        }
        if stretch.done < bytes {
            return Err(Cause::Unreachable("the transfer ended early".into()).into());
        }
        Ok(())
    }

    /// Throws away what is here, and has the request tried once more.
    fn again(&self, stretch: &mut Stretch, why: &str) -> Result<(), Trouble> {
        self.restart(stretch)?;
        Err(Cause::Unreachable(why.into()).into())
    }

    /// Throws away what is here.
    fn restart(&self, stretch: &mut Stretch) -> Result<(), Trouble> {
        stretch.out.set_len(0).map_err(|e| self.store.broken("cut", self.part, e))?;
        stretch.done = 0;
        stretch.restarts += 1;
        Ok(())
    }

    fn tell(&self, done: u64, total: u64) {
        // Nobody listens any more only if the caller is gone, and then nobody wants to know.
        let _ = self.progress.send(Progress { phase: Phase::Download, done, total });
    }
}

/// A transfer that is going on, over all its requests.
struct Stretch {
    out: File,
    /// Bytes that are in the file.
    done: u64,
    /// Bytes that it will have, once that is known.
    bytes: Option<u64>,
    restarts: u32,
    stall: Stall,
}

/// How taper introduces itself.
const AGENT: &str = concat!("taper/", env!("CARGO_PKG_VERSION"));
/// The hub's headers for a file that lies elsewhere.
const LINKED_TAG: &str = "x-linked-etag";
const LINKED_SIZE: &str = "x-linked-size";

/// A header as text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Size and hash out of the headers of a HEAD answer. The length of a redirect is no size of a file.
fn announcement(headers: &HeaderMap, status: StatusCode) -> Announced {
    let length = || text(headers, "content-length").filter(|_| status.is_success());
    let bytes = text(headers, LINKED_SIZE).or_else(length).and_then(|bytes| bytes.parse().ok());
    let tag = text(headers, LINKED_TAG).or_else(|| text(headers, "etag")).unwrap_or_default();
    let tag = tag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    Announced { bytes, sha256: Some(tag).filter(|tag| is_sha256(tag)) }
}

/// First byte and whole size out of `bytes FIRST-LAST/SIZE` (RFC 9110, section 14.4).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    Some((first.parse().ok()?, size))
}

/// What `reqwest` says went wrong, without the address: it may be signed.
fn unreachable_(error: reqwest::Error) -> Cause {
    Cause::Unreachable(with_sources(&error.without_url()))
}

/// An error with everything below it, each said once.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        below = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn a_token_is_a_word_and_is_never_shown() {
        assert_eq!(bearer(" hf_abc\n", "X").unwrap().unwrap(), "Bearer hf_abc");
        assert_eq!(bearer(" \n", "X").unwrap(), None);
        for wrong in ["hf_abc\r\nX-Evil: 1", "hf abc", "hf_\u{e4}", "hf_\0", "hf_\u{7f}"] {
            let problem = bearer(wrong, "HF_TOKEN").unwrap_err().to_string();
            assert!(problem.contains("HF_TOKEN") && !problem.contains("hf_"), "{problem}");
        }
        let shown = format!("{:?}", bearer("hf_abc", "X").unwrap());
        assert!(!shown.contains("hf_abc"), "{shown}");
    }

    #[test]
    fn a_range_is_read_as_the_standard_has_it() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for wrong in ["", "bytes", "bytes */10", "bytes 5/10", "items 5-9/10", "bytes -1-9/10", "bytes 5-9/x"]
        {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_a_sha256_is_taken_from_a_tag() {
        let hash = "AB".repeat(32);
        let said = |tag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINKED_TAG, tag.parse().unwrap());
            headers.insert("content-length", "7".parse().unwrap());
            announcement(&headers, StatusCode::FOUND)
        };
        assert_eq!(said(&format!("\"{hash}\"")).sha256, Some(hash.to_lowercase()));
        assert_eq!(said(&format!("W/\"{hash}\"")).sha256, Some(hash.to_lowercase()));
        assert_eq!(said(&hash).bytes, None);
        for wrong in ["", "\"abc\"", "../../../etc/passwd", &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(said(wrong).sha256, None, "{wrong}");
        }
    }
}
