//! Client of a llama.cpp server over HTTP, as a baseline: its `/infill` and its `/completion`.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::runtime::Runtime;

/// Timeout of a response: a slow machine with a long prompt.
const PATIENCE: Duration = Duration::from_secs(600);
/// Timeout for a server that is loading its model, and the interval between retries.
const LOADING: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_millis(500);

/// Errors of a llama.cpp server.
#[derive(Debug, Error)]
pub enum LlamaError {
    /// The address is invalid.
    #[error("invalid llama.cpp address `{address}`; expected for example http://127.0.0.1:8080")]
    Address {
        /// As it was given.
        address: String,
    },
    /// The connection failed or was closed.
    #[error("cannot ask the llama.cpp server at {address}: {cause}; is `llama-server` running there?")]
    Unreachable {
        /// Its address.
        address: String,
        /// Why.
        cause: String,
    },
    /// The server returned an error.
    #[error("the llama.cpp server at {address} answers {status} to {path}: {text}")]
    Refused {
        /// Its address.
        address: String,
        /// The requested path.
        path: &'static str,
        /// The HTTP status.
        status: u16,
        /// The beginning of the response.
        text: String,
    },
}

/// The server's response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Completion {
    /// The text.
    pub content: String,
    /// Tokens of the prompt.
    #[serde(default)]
    pub tokens_evaluated: usize,
    /// Tokens decoded.
    #[serde(default)]
    pub tokens_predicted: usize,
    /// The stop reason: `eos`, `limit`, `word`.
    #[serde(default)]
    pub stop_type: String,
}

/// Limits of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Tokens at most.
    pub tokens: usize,
    /// Stop after the first line that is not blank.
    pub one_line: bool,
}

/// One server.
pub struct Llama {
    address: String,
    http: reqwest::Client,
    runtime: Runtime,
}

impl Llama {
    /// A server at `http://host:port`. No request is sent yet.
    ///
    /// # Errors
    /// The address is invalid.
    pub fn new(address: &str) -> Result<Self, LlamaError> {
        let wrong = || LlamaError::Address { address: address.to_owned() };
        let address = address.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&address).map_err(|_| wrong())?;
        if parsed.scheme() != "http" || !parsed.has_host() {
            return Err(wrong());
        }
        let unreachable = |cause: String| LlamaError::Unreachable { address: address.clone(), cause };
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .map_err(|error| unreachable(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unreachable(error.to_string()))?;
        Ok(Self { address, http, runtime })
    }

    /// Requests `/infill` as editors' plug-ins do: the lines before the cursor's as `input_prefix`, the cursor's line
    /// up to the cursor as `prompt`, chunks of `others` (path and text) as `input_extra`. Greedy.
    ///
    /// # Errors
    /// The request failed, or the model has no fill-in-the-middle tokens.
    pub fn infill(
        &self,
        prefix: &str,
        suffix: &str,
        others: &[(&str, &str)],
        extent: Extent,
    ) -> Result<Completion, LlamaError> {
        let line = prefix.rfind('\n').map_or(0, |at| at + 1);
        let others: Vec<Value> =
            others.iter().map(|(path, text)| json!({ "filename": path, "text": text })).collect();
        let text = json!({
            "input_prefix": prefix[..line],
            "prompt": prefix[line..],
            "input_suffix": suffix,
            "input_extra": others,
        });
        self.ask("/infill", text, extent)
    }

    /// Requests `/completion` with a prompt whose special tokens are spelled out. Greedy.
    ///
    /// # Errors
    /// The request failed.
    pub fn complete(&self, prompt: &str, extent: Extent) -> Result<Completion, LlamaError> {
        self.ask("/completion", json!({ "prompt": prompt }), extent)
    }

    fn ask(&self, path: &'static str, text: Value, extent: Extent) -> Result<Completion, LlamaError> {
        let mut request_body = text;
        request_body["n_predict"] = extent.tokens.into();
        request_body["temperature"] = json!(0.0);
        request_body["cache_prompt"] = true.into();
        request_body["stream"] = false.into();
        if extent.one_line {
            request_body["stop"] = json!(["\n"]);
            let answer = self.ask_patiently(path, &request_body)?;
            if !answer.content.trim().is_empty() || answer.stop_type != "word" {
                return Ok(answer);
            }
            // The text begins with a line break; the line that counts comes after it.
            request_body["stop"] = json!([]);
        }
        self.ask_patiently(path, &request_body)
    }

    fn ask_patiently(&self, path: &'static str, request_body: &Value) -> Result<Completion, LlamaError> {
        let started = Instant::now();
        loop {
            match self.ask_once(path, request_body) {
                Err(LlamaError::Refused { status: 503, .. }) if started.elapsed() < LOADING => {
                    std::thread::sleep(AGAIN);
                }
                other => return other,
            }
        }
    }

    fn ask_once(&self, path: &'static str, request_body: &Value) -> Result<Completion, LlamaError> {
        let response = async {
            let request = self.http.post(format!("{}{path}", self.address));
            let request = request.header("content-type", "application/json").body(request_body.to_string());
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            Ok((status, answer.text().await?))
        };
        let (status, text) = self.runtime.block_on(response).map_err(|error: reqwest::Error| {
            LlamaError::Unreachable { address: self.address.clone(), cause: innermost_cause(&error) }
        })?;
        let refused = |text: &str| LlamaError::Refused {
            address: self.address.clone(),
            path,
            status,
            text: text.chars().take(200).collect(),
        };
        if status != 200 {
            return Err(refused(&text));
        }
        serde_json::from_str(&text).map_err(|_| refused(&text))
    }
}

/// The innermost cause: the outer "error sending request" has no information.
fn innermost_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
