//! A file from the Hugging Face hub, or a mirror of it, going on where an earlier download ended.
//! It knows nothing of the table of models beyond the row that it is given.
//!
//! `hf-hub` brings the address, the token and the transfer; what is ours is what it lacks: a size and a hash
//! known before the first byte, resuming a file of our own, and giving up soon where there is no hub.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use futures::StreamExt as _;
use hf_hub::{HFClient, HFError, split_id};
use reqwest::header::{self, HeaderMap};

use super::{Cause, Options, Phase, Progress, Store, Trouble, is_sha256};
use crate::models::Model;

/// Until a connection stands. Without a network the next source should get its turn soon.
const CONNECT: Duration = Duration::from_secs(4);
/// Until the hub has answered the first question.
const FIRST_ANSWER: Duration = Duration::from_secs(8);
/// Until the first or the next bytes of a file come.
const SILENCE: Duration = Duration::from_secs(30);
/// How often an interrupted transfer is taken up again while bytes keep coming.
const RETRIES: u32 = 5;

/// Downloads `file` of `repository` behind what `part` already holds, and returns the sha256 that it must have.
///
/// Runs its own thread with its own async runtime, so it may be called from anywhere, also from inside
/// another runtime.
pub(super) fn download(
    store: &Store,
    model: &Model,
    repository: &str,
    file: &str,
    part: &Path,
    options: &Options,
    watch: super::Watch<'_>,
) -> Result<String, Trouble> {
    if switched_off() {
        return Err(Cause::Off("HF_HUB_OFFLINE is set".into()).into());
    }
    std::thread::scope(|scope| {
        let (send, progress) = mpsc::channel();
        let thread = std::thread::Builder::new().name("download".to_owned());
        let worker = thread.spawn_scoped(scope, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Cause::Unreachable(format!("no async runtime: {e}")))?;
            let transfer = Transfer { store, model, repository, file, part, progress: send };
            runtime.block_on(transfer.run(options.endpoint.as_deref()))
        });
        let worker = worker.map_err(|e| Cause::Unreachable(format!("no thread to download with: {e}")))?;
        for now in progress {
            watch(now);
        }
        worker.join().unwrap_or_else(|_| Err(Cause::Broken("the download thread panicked".into()).into()))
    })
}

/// `HF_HUB_OFFLINE`, read as huggingface_hub reads it.
fn switched_off() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// What the hub says of a file.
struct Announced {
    /// Its size in bytes.
    bytes: u64,
    /// Its sha256, which the hub keeps for every large file.
    sha256: Option<String>,
}

/// One download.
struct Transfer<'a> {
    store: &'a Store,
    model: &'a Model,
    repository: &'a str,
    file: &'a str,
    part: &'a Path,
    progress: mpsc::Sender<Progress>,
}

impl Transfer<'_> {
    async fn run(&self, endpoint: Option<&str>) -> Result<String, Trouble> {
        let http = || reqwest::Client::builder().connect_timeout(CONNECT).user_agent(AGENT);
        let body = http().read_timeout(SILENCE).build().map_err(|e| unreachable_(&e))?;
        let mut builder = HFClient::builder().client(body).cache_enabled(false).retry_max_attempts(0);
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint(endpoint);
        }
        let client = builder.build().map_err(|e| failure(&e))?;

        let announced = self.announced(&client, http()).await;
        let (bytes, sha256) = match (announced, self.model.sha256) {
            (Ok(Announced { sha256: Some(found), .. }), Some(pinned)) if found != pinned => {
                return Err(Cause::Hash { expected: pinned.into(), found }.into());
            }
            (Ok(_), Some(pinned)) => (self.model.bytes, pinned.to_owned()),
            (Ok(Announced { bytes, sha256: Some(found) }), None) => (bytes, found),
            (Ok(Announced { sha256: None, .. }), None) => {
                return Err(Cause::Broken("it does not say which sha256 the file has".into()).into());
            }
            (Err(cause), _) => return Err(cause.into()),
        };
        self.transfer(&client, bytes).await?;
        Ok(sha256)
    }

    /// Asks for the file's size and hash: a HEAD request on its address, answered by the hub itself
    /// (`x-linked-size`, `x-linked-etag`) before it sends the reader on to where large files lie.
    async fn announced(&self, client: &HFClient, http: reqwest::ClientBuilder) -> Result<Announced, Cause> {
        let http = http.redirect(reqwest::redirect::Policy::none()).build().map_err(|e| unreachable_(&e))?;
        let address = format!("{}/{}/resolve/main/{}", client.endpoint(), self.repository, self.file);
        let mut address =
            reqwest::Url::parse(&address).map_err(|e| Cause::Unreachable(format!("{e}: {address}")))?;
        for _ in 0..5 {
            let mut request = http.head(address.clone());
            if let Some(token) = token() {
                request = request.bearer_auth(token);
            }
            let answer = tokio::time::timeout(FIRST_ANSWER, request.send()).await;
            let answer = answer
                .map_err(|_| Cause::Unreachable(format!("no answer within {} s", FIRST_ANSWER.as_secs())))?
                .map_err(|e| unreachable_(&e))?;
            let text = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok());
            let status = answer.status();
            // A renamed repository answers with a path of its own; that answer says nothing of the file.
            if status.is_redirection()
                && text("x-linked-etag").is_none()
                && let Some(to) = text(header::LOCATION.as_str()).and_then(|to| address.join(to).ok())
            {
                address = to;
                continue;
            }
            if !status.is_success() && !status.is_redirection() {
                let what = format!("it answers {status} for {}", self.file);
                return Err(match status.as_u16() {
                    401 | 403 => Cause::Missing(format!("{what}; a token in HF_TOKEN may be needed")),
                    400..500 => Cause::Missing(what),
                    _ => Cause::Unreachable(what),
                });
            }
            return announcement(answer.headers())
                .ok_or_else(|| Cause::Broken(format!("it does not say how large {} is", self.file)));
        }
        Err(Cause::Broken("it sends the question round in circles".into()))
    }

    /// Brings `part` to `bytes` bytes.
    async fn transfer(&self, client: &HFClient, bytes: u64) -> Result<(), Trouble> {
        let (mut out, mut done) = self.store.append(self.part, bytes)?;
        self.store.room(bytes - done)?;
        let mut tries = 0;
        loop {
            self.tell(done, bytes);
            if done == bytes {
                return Ok(());
            }
            let before = done;
            let cause = match self.stretch(client, &mut out, &mut done, bytes).await {
                Ok(()) => continue,
                Err(Trouble::Source(Cause::Unreachable(cause))) => cause,
                Err(trouble) => return Err(trouble),
            };
            // As long as bytes keep coming, an interruption is only that.
            tries = if done > before { 0 } else { tries + 1 };
            if tries >= RETRIES {
                let cause = format!("it broke off at {done} of {bytes} bytes: {cause}");
                return Err(Cause::Unreachable(cause).into());
            }
            tokio::time::sleep(Duration::from_millis(200) * (1 << tries)).await;
        }
    }

    /// One request for all that is missing, written to `out` as it comes.
    async fn stretch(
        &self,
        client: &HFClient,
        out: &mut File,
        done: &mut u64,
        bytes: u64,
    ) -> Result<(), Trouble> {
        let start = *done;
        let (owner, name) = split_id(self.repository);
        let model = client.model(owner, name);
        let request = model.download_file_stream().filename(self.file).range(start..bytes).send();
        let silent = || Cause::Unreachable(format!("nothing came for {} s", SILENCE.as_secs()));
        let (_, mut stream) =
            tokio::time::timeout(SILENCE, request).await.map_err(|_| silent())?.map_err(|e| failure(&e))?;
        while let Some(chunk) = tokio::time::timeout(SILENCE, stream.next()).await.map_err(|_| silent())? {
            let chunk = chunk.map_err(|e| failure(&e))?;
            if chunk.len() as u64 > bytes - *done {
                if start == 0 {
                    return Err(Cause::Broken("it sends more than it announced".into()).into());
                }
                // The server sends all of it where a part was asked for: from the start, then.
                out.set_len(0).map_err(|e| self.store.broken("cut", self.part, e))?;
                *done = 0;
                return Err(Cause::Unreachable("it cannot send a part of a file".into()).into());
            }
            out.write_all(&chunk).map_err(|e| self.store.unwritten(self.part, bytes - *done, e))?;
            *done += chunk.len() as u64;
            self.tell(*done, bytes);
        }
        if *done < bytes {
            return Err(Cause::Unreachable("the transfer ended early".into()).into());
        }
        Ok(())
    }

    fn tell(&self, done: u64, total: u64) {
        // Nobody listens any more only if the caller is gone, and then nobody wants to know.
        let _ = self.progress.send(Progress { phase: Phase::Download, done, total });
    }
}

/// How taper introduces itself.
const AGENT: &str = concat!("taper/", env!("CARGO_PKG_VERSION"));

/// Size and hash out of the headers of a HEAD answer.
fn announcement(headers: &HeaderMap) -> Option<Announced> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bytes = text("x-linked-size").or_else(|| text("content-length"))?.parse().ok()?;
    let tag = text("x-linked-etag").or_else(|| text("etag")).unwrap_or_default();
    let tag = tag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    Some(Announced { bytes, sha256: Some(tag).filter(|tag| is_sha256(tag)) })
}

/// The user's token, looked for where `hf-hub` looks (it uses the token itself but does not hand it out).
fn token() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return None;
    }
    let file = variable("HF_TOKEN_PATH").map_or_else(|| hf_hub::hf_home().join("token"), Into::into);
    let token = variable("HF_TOKEN").or_else(|| std::fs::read_to_string(file).ok())?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// What `hf-hub` says went wrong.
fn failure(error: &HFError) -> Cause {
    match error {
        HFError::EntryNotFound { .. } | HFError::RepoNotFound { .. } | HFError::AuthRequired { .. } => {
            Cause::Missing(error.to_string())
        }
        _ => Cause::Unreachable(with_sources(error)),
    }
}

/// What `reqwest` says went wrong.
fn unreachable_(error: &reqwest::Error) -> Cause {
    Cause::Unreachable(with_sources(error))
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
