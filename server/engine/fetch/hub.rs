//! Downloads a file from the Hugging Face hub or a mirror, resuming an earlier download.
//!
//! This client exists because the hub's own client does not guarantee the following: the user's token is sent to the
//! hub's origin only, redirects stay encrypted ([`endpoint`]), size and hash are known before the first byte, and no
//! more bytes than that are ever written.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::endpoint::{self, HubEndpoint};
use super::stall::{FetchTimeouts, StallDetector};
use super::{
    AttemptError, ByteSize, ModelStore, PullOptions, PullPhase, PullProgress, SourceError, is_sha256,
    model_reference, read_small_text,
};
use crate::catalog::CatalogModel;

/// Maximum retries of an interrupted transfer while no bytes arrive.
const MAX_RETRIES: u32 = 5;
/// Maximum restarts of a transfer from the beginning.
const MAX_RESTARTS: u32 = 3;
/// Maximum redirects followed for one request.
const MAX_REDIRECTS: u32 = 8;
/// Maximum size of a token file.
const MAX_TOKEN_FILE_BYTES: u64 = 4096;

/// Appends the missing bytes of the file `from` to `part`, and returns the sha256 that the file must have.
///
/// Runs its own thread with its own async runtime, so it may be called from anywhere, even from inside
/// another runtime.
pub(super) fn download_file(
    store: &ModelStore,
    model: &CatalogModel,
    from: HubFile<'_>,
    part: &Path,
    options: &PullOptions,
    watch: super::ProgressCallback<'_>,
) -> Result<String, AttemptError> {
    if let Some(variable) = offline_variable() {
        return Err(SourceError::Disabled(format!("{variable} is set")).into());
    }
    let named = options.endpoint.clone().or_else(|| env_variable("HF_ENDPOINT"));
    download_from_endpoint(store, model, from, part, named.as_deref(), read_token()?, watch)
}

/// As [`download_file`], with explicit endpoint and token.
pub(super) fn download_from_endpoint(
    store: &ModelStore,
    model: &CatalogModel,
    from: HubFile<'_>,
    part: &Path,
    endpoint: Option<&str>,
    token: Option<HeaderValue>,
    watch: super::ProgressCallback<'_>,
) -> Result<String, AttemptError> {
    let endpoint = HubEndpoint::parse(endpoint)?;
    std::thread::scope(|scope| {
        let (send, progress) = mpsc::channel();
        let thread = std::thread::Builder::new().name("download".to_owned());
        let worker = thread.spawn_scoped(scope, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| SourceError::Unreachable(format!("no async runtime: {e}")))?;
            let clients = HttpClients::new(&store.timeouts)?;
            let transfer = HubTransfer { store, model, from, part, progress: send, endpoint, token, clients };
            runtime.block_on(transfer.run())
        });
        let worker =
            worker.map_err(|e| SourceError::Unreachable(format!("no thread to download with: {e}")))?;
        for now in progress {
            watch(now);
        }
        worker
            .join()
            .unwrap_or_else(|_| Err(SourceError::InvalidData("the download thread panicked".into()).into()))
    })
}

/// The location of a file on the hub.
#[derive(Debug, Clone, Copy)]
pub(super) struct HubFile<'a> {
    /// `owner/name`.
    pub(super) repository: &'a str,
    /// A commit, or a branch.
    pub(super) revision: &'a str,
    /// The file.
    pub(super) file: &'a str,
}

/// The variable that forbids network access, if any, interpreted as by huggingface_hub.
pub(super) fn offline_variable() -> Option<&'static str> {
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| {
        let value = std::env::var(name).unwrap_or_default();
        matches!(value.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
    })
}

/// The hub's folder on this machine: `HF_HOME`, else `huggingface` among the user's caches.
fn home_folder() -> PathBuf {
    if let Some(home) = env_variable("HF_HOME") {
        return model_reference::expand_path(&home);
    }
    let caches = env_variable("XDG_CACHE_HOME")
        .map_or_else(|| model_reference::expand_path("~/.cache"), PathBuf::from);
    caches.join("huggingface")
}

/// The hub's cache on this machine: `HF_HUB_CACHE`, else `hub` in its folder.
pub(super) fn cache_folder() -> PathBuf {
    let named = env_variable("HF_HUB_CACHE").or_else(|| env_variable("HUGGINGFACE_HUB_CACHE"));
    named.map_or_else(|| home_folder().join("hub"), |named| model_reference::expand_path(&named))
}

/// An environment variable that is not blank.
fn env_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The user's token as a header, from the same places as in huggingface_hub: `HF_TOKEN`, the file in `HF_TOKEN_PATH`,
/// `token` in the hub's folder.
fn read_token() -> Result<Option<HeaderValue>, SourceError> {
    if env_variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return Ok(None);
    }
    let (origin, token) = match env_variable("HF_TOKEN") {
        Some(token) => ("HF_TOKEN".to_owned(), token),
        None => {
            let file = env_variable("HF_TOKEN_PATH");
            let file =
                file.map_or_else(|| home_folder().join("token"), |file| model_reference::expand_path(&file));
            let Some(token) = read_small_text(&file, MAX_TOKEN_FILE_BYTES) else { return Ok(None) };
            (file.display().to_string(), token)
        }
    };
    bearer_header(&token, &origin)
}

/// The token as a header's value. `origin` is for the error message, which never contains the token.
pub(super) fn bearer_header(token: &str, origin: &str) -> Result<Option<HeaderValue>, SourceError> {
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        SourceError::Disabled(format!(
            "the token in {origin} is invalid: it has blanks or special characters"
        ))
    };
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The hub's metadata of a file.
#[derive(Debug, Default)]
struct AnnouncedFile {
    /// Its size in bytes.
    bytes: Option<u64>,
    /// Its sha256, which the hub has for every large file.
    sha256: Option<String>,
}

/// The HTTP clients; neither follows redirects by itself.
struct HttpClients {
    /// For this machine, without proxies: a plain http request would reveal the token to a proxy.
    loopback: Client,
    /// For everything else: encrypted only, through the proxies set in the environment.
    external: Client,
}

impl HttpClients {
    fn new(patience: &FetchTimeouts) -> Result<HttpClients, SourceError> {
        let builder = || {
            Client::builder()
                .connect_timeout(patience.connect)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .user_agent(USER_AGENT)
        };
        // `localhost` is this machine, regardless of the machine's hosts file.
        let here = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        let here = builder()
            .no_proxy()
            .resolve_to_addrs("localhost", &here.map(|address| SocketAddr::new(address, 0)));
        let built = |client: reqwest::ClientBuilder| client.build().map_err(unreachable_error);
        Ok(HttpClients { loopback: built(here)?, external: built(builder().https_only(true))? })
    }
}

/// One download.
struct HubTransfer<'a> {
    store: &'a ModelStore,
    model: &'a CatalogModel,
    from: HubFile<'a>,
    part: &'a Path,
    progress: mpsc::Sender<PullProgress>,
    endpoint: HubEndpoint,
    token: Option<HeaderValue>,
    clients: HttpClients,
}

impl HubTransfer<'_> {
    async fn run(&self) -> Result<String, AttemptError> {
        let HubFile { repository, revision, file } = self.from;
        let mut address = self.endpoint.file_url(repository, revision, file)?;
        let announced = match self.fetch_announced(&address).await {
            // A mirror may have only the newest revision. Its file must still have the pinned hash.
            Err(SourceError::Missing(_)) if revision != "main" && self.model.sha256.is_some() => {
                address = self.endpoint.file_url(repository, "main", file)?;
                self.fetch_announced(&address).await?
            }
            announced => announced?,
        };
        if let Some(bytes) = announced.bytes {
            self.check_size(bytes)?;
        }
        let sha256 = match (announced.sha256, self.model.sha256) {
            (Some(found), Some(pinned)) if found != pinned => {
                return Err(SourceError::Hash { expected: pinned.into(), found }.into());
            }
            (_, Some(pinned)) => pinned.to_owned(),
            (Some(found), None) => found,
            (None, None) => {
                return Err(SourceError::InvalidData("it does not announce the file's sha256".into()).into());
            }
        };
        let bytes = if self.model.exact { Some(self.model.bytes) } else { announced.bytes };
        self.transfer_file(&address, bytes).await?;
        Ok(sha256)
    }

    /// Checks a size announced by the source against the catalog's.
    fn check_size(&self, bytes: u64) -> Result<(), SourceError> {
        if self.model.accepts_size(bytes) {
            return Ok(());
        }
        let (found, expected) = (ByteSize(bytes), ByteSize(self.model.bytes));
        let about = if self.model.exact { "" } else { "about " };
        Err(SourceError::InvalidData(format!(
            "its {} has {found} ({bytes} bytes) where {about}{expected} are expected: that is another file",
            self.from.file
        )))
    }

    /// Sends one request. The token is sent to the hub's own origin only.
    async fn send_request(&self, method: Method, url: &Url, from: u64) -> Result<Response, SourceError> {
        let client =
            if endpoint::is_local_address(url) { &self.clients.loopback } else { &self.clients.external };
        let patience = &self.store.timeouts;
        let limit = if method == Method::HEAD { patience.answer } else { patience.idle };
        let mut request = client.request(method, url.clone()).header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.token
            && self.endpoint.is_same_origin(url)
        {
            request = request.header(header::AUTHORIZATION, token.clone());
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let answer = tokio::time::timeout(limit, request.send()).await;
        let silent = |_| SourceError::Unreachable(format!("no response within {} s", limit.as_secs_f64()));
        answer.map_err(silent)?.map_err(unreachable_error)
    }

    /// Requests the file's size and hash: a HEAD request to its address, to which the hub itself responds
    /// (`x-linked-size`, `x-linked-etag`) before it redirects to the storage of large files.
    async fn fetch_announced(&self, address: &Url) -> Result<AnnouncedFile, SourceError> {
        let mut url = address.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send_request(Method::HEAD, &url, 0).await?;
            // A renamed repository redirects to its new path; that response has no metadata of the file.
            if answer.status().is_redirection() && !answer.headers().contains_key(LINKED_ETAG_HEADER) {
                let to = endpoint::resolve_redirect(
                    &url,
                    header_text(answer.headers(), header::LOCATION.as_str()),
                )?;
                if !self.endpoint.is_same_origin(&to) {
                    // The hub's file storage is only asked for the files themselves.
                    return Ok(AnnouncedFile::default());
                }
                url = to;
                continue;
            }
            if !answer.status().is_redirection() {
                self.check_status(answer.status())?;
            }
            return Ok(parse_announced(answer.headers(), answer.status()));
        }
        Err(SourceError::InvalidData("its redirects form a loop".into()))
    }

    /// Returns an error if the response is not a success.
    fn check_status(&self, status: StatusCode) -> Result<(), SourceError> {
        if status.is_success() {
            return Ok(());
        }
        let what = format!("it returned {status} for {}", self.from.file);
        Err(match status.as_u16() {
            401 | 403 => SourceError::Missing(format!("{what}; a token in HF_TOKEN may be needed")),
            408 | 429 => SourceError::Unreachable(what),
            400..500 => SourceError::Missing(what),
            _ => SourceError::Unreachable(what),
        })
    }

    /// Requests the file from the byte offset `from`, following redirects.
    async fn open_stream(&self, address: &Url, from: u64) -> Result<Response, SourceError> {
        let mut url = address.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send_request(Method::GET, &url, from).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            url = endpoint::resolve_redirect(&url, header_text(answer.headers(), header::LOCATION.as_str()))?;
        }
        Err(SourceError::InvalidData(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    /// Extends `part` to `bytes` bytes, or to the source's size if `bytes` is not known yet.
    async fn transfer_file(&self, address: &Url, bytes: Option<u64>) -> Result<(), AttemptError> {
        let most = bytes.unwrap_or(self.model.max_bytes());
        let (out, done) = self.store.open_partial(self.part, most)?;
        self.store.check_free_space(most - done)?;
        let patience = &self.store.timeouts;
        let stall = StallDetector::new(patience.window, patience.bytes, Instant::now(), done);
        let mut stretch = TransferState { out, done, bytes, restarts: 0, stall };
        let mut tries = 0;
        loop {
            self.report_progress(stretch.done, bytes.unwrap_or(most));
            if stretch.bytes == Some(stretch.done) {
                return Ok(());
            }
            let before = stretch.done;
            let cause = match self.transfer_rest(address, &mut stretch).await {
                Ok(()) => continue,
                Err(AttemptError::Source(SourceError::Unreachable(cause))) => cause,
                Err(trouble) => return Err(trouble),
            };
            // Retries only count while no bytes arrive.
            tries = if stretch.done > before { 0 } else { tries + 1 };
            let slow = stretch.stall.check_progress(Instant::now(), stretch.done).is_err();
            if tries >= MAX_RETRIES || stretch.restarts > MAX_RESTARTS || slow {
                let of = stretch.bytes.map(|bytes| format!(" of {bytes}")).unwrap_or_default();
                let cause = format!("it broke off at {}{of} bytes: {cause}", stretch.done);
                return Err(SourceError::Unreachable(cause).into());
            }
            tokio::time::sleep(patience.retry_delay * (1 << tries)).await;
        }
    }

    /// Requests all missing bytes, and writes them as they arrive.
    async fn transfer_rest(&self, address: &Url, stretch: &mut TransferState) -> Result<(), AttemptError> {
        let mut answer = self.open_stream(address, stretch.done).await?;
        let headers = answer.headers();
        if headers.get(header::CONTENT_ENCODING).is_some_and(|how| how != "identity") {
            return Err(SourceError::InvalidData(
                "it sends the file compressed, which was not requested".into(),
            )
            .into());
        }
        let whole = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range =
                    header_text(headers, header::CONTENT_RANGE.as_str()).and_then(parse_content_range);
                let Some((_, whole)) = range.filter(|(from, _)| *from == stretch.done) else {
                    return self.fail_and_restart(stretch, "it sends another range than requested");
                };
                whole
            }
            // The source's file ends before the partial file does, so the partial file is not a prefix of it.
            StatusCode::RANGE_NOT_SATISFIABLE if stretch.done > 0 => {
                return self.fail_and_restart(stretch, "its file is shorter than the partial download");
            }
            status => {
                self.check_status(status)?;
                // The server ignores the requested range and sends the whole file.
                if stretch.done > 0 {
                    self.restart(stretch)?;
                }
                header_text(headers, header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok())
            }
        };
        if let Some(whole) = whole {
            self.check_size(whole)?;
        }
        let bytes = match (stretch.bytes, whole) {
            (Some(bytes), Some(whole)) if bytes != whole => {
                let problem = format!("it sends a file of {whole} bytes and announced {bytes}");
                return Err(SourceError::InvalidData(problem).into());
            }
            (Some(bytes), _) => bytes,
            (None, Some(whole)) => whole,
            (None, None) => {
                return Err(SourceError::InvalidData(format!(
                    "it does not announce the size of {}",
                    self.from.file
                ))
                .into());
            }
        };
        stretch.bytes = Some(bytes);
        let silence = self.store.timeouts.idle;
        let silent = |_| SourceError::Unreachable(format!("no data for {} s", silence.as_secs_f64()));
        while let Some(chunk) =
            tokio::time::timeout(silence, answer.chunk()).await.map_err(silent)?.map_err(unreachable_error)?
        {
            if chunk.len() as u64 > bytes.saturating_sub(stretch.done) {
                return Err(SourceError::InvalidData("it sends more than it announced".into()).into());
            }
            let unwritten = |e| self.store.write_error(self.part, bytes - stretch.done, e);
            stretch.out.write_all(&chunk).map_err(unwritten)?;
            stretch.done += chunk.len() as u64;
            self.report_progress(stretch.done, bytes);
            stretch.stall.check_progress(Instant::now(), stretch.done).map_err(SourceError::Unreachable)?;
        }
        if stretch.done < bytes {
            return Err(SourceError::Unreachable("the transfer ended early".into()).into());
        }
        Ok(())
    }

    /// Discards the partial file, and has the request retried.
    fn fail_and_restart(&self, stretch: &mut TransferState, why: &str) -> Result<(), AttemptError> {
        self.restart(stretch)?;
        Err(SourceError::Unreachable(why.into()).into())
    }

    /// Discards the partial file.
    fn restart(&self, stretch: &mut TransferState) -> Result<(), AttemptError> {
        stretch.out.set_len(0).map_err(|e| self.store.io_error("cut", self.part, e))?;
        stretch.done = 0;
        stretch.restarts += 1;
        Ok(())
    }

    fn report_progress(&self, done: u64, total: u64) {
        // Sending fails only if the caller is gone, and then the progress does not matter.
        let _ = self.progress.send(PullProgress { phase: PullPhase::Download, done, total });
    }
}

/// The state of a transfer across all its requests.
struct TransferState {
    out: File,
    /// Current size of the file, in bytes.
    done: u64,
    /// Final size of the file, if it is known.
    bytes: Option<u64>,
    restarts: u32,
    stall: StallDetector,
}

/// The `User-Agent` header.
const USER_AGENT: &str = concat!("taper/", env!("CARGO_PKG_VERSION"));
/// The hub's headers for a file that is stored elsewhere.
const LINKED_ETAG_HEADER: &str = "x-linked-etag";
const LINKED_SIZE_HEADER: &str = "x-linked-size";

/// A header as text.
fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Size and hash from the headers of a HEAD response. The length of a redirect is not the file's size.
fn parse_announced(headers: &HeaderMap, status: StatusCode) -> AnnouncedFile {
    let length = || header_text(headers, "content-length").filter(|_| status.is_success());
    let bytes = header_text(headers, LINKED_SIZE_HEADER).or_else(length).and_then(|bytes| bytes.parse().ok());
    let tag =
        header_text(headers, LINKED_ETAG_HEADER).or_else(|| header_text(headers, "etag")).unwrap_or_default();
    let tag = tag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    AnnouncedFile { bytes, sha256: Some(tag).filter(|tag| is_sha256(tag)) }
}

/// First byte and whole size from `bytes FIRST-LAST/SIZE` (RFC 9110, section 14.4).
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    Some((first.parse().ok()?, size))
}

/// The error of `reqwest`, without the address, which may be signed.
fn unreachable_error(error: reqwest::Error) -> SourceError {
    SourceError::Unreachable(error_chain(&error.without_url()))
}

/// An error with all its sources, without repetitions.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn invalid_token_is_refused_and_never_shown() {
        assert_eq!(bearer_header(" hf_abc\n", "X").unwrap().unwrap(), "Bearer hf_abc");
        assert_eq!(bearer_header(" \n", "X").unwrap(), None);
        for wrong in ["hf_abc\r\nX-Evil: 1", "hf abc", "hf_\u{e4}", "hf_\0", "hf_\u{7f}"] {
            let problem = bearer_header(wrong, "HF_TOKEN").unwrap_err().to_string();
            assert!(problem.contains("HF_TOKEN") && !problem.contains("hf_"), "{problem}");
        }
        let shown = format!("{:?}", bearer_header("hf_abc", "X").unwrap());
        assert!(!shown.contains("hf_abc"), "{shown}");
    }

    #[test]
    fn content_range_follows_rfc_9110() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        for wrong in ["", "bytes", "bytes */10", "bytes 5/10", "items 5-9/10", "bytes -1-9/10", "bytes 5-9/x"]
        {
            assert_eq!(parse_content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn etag_is_used_only_if_sha256() {
        let hash = "AB".repeat(32);
        let announced = |tag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINKED_ETAG_HEADER, tag.parse().unwrap());
            headers.insert("content-length", "7".parse().unwrap());
            parse_announced(&headers, StatusCode::FOUND)
        };
        assert_eq!(announced(&format!("\"{hash}\"")).sha256, Some(hash.to_lowercase()));
        assert_eq!(announced(&format!("W/\"{hash}\"")).sha256, Some(hash.to_lowercase()));
        assert_eq!(announced(&hash).bytes, None);
        for wrong in ["", "\"abc\"", "../../../etc/passwd", &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(announced(wrong).sha256, None, "{wrong}");
        }
    }
}
