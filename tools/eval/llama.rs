//! A llama.cpp server, asked over HTTP, to be measured beside: its `/infill` and its `/completion`.
//! It knows nothing of tasks or scores; no server of ours opens a connection through it.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::runtime::Runtime;

/// How long an answer may take: a slow machine with a long prompt.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a server that is loading its model is waited for, and how often it is asked meanwhile.
const LOADING: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_millis(500);

/// What goes wrong with such a server.
#[derive(Debug, Error)]
pub enum LlamaError {
    /// The address is not one that can be asked.
    #[error("`{address}` is no address of a llama.cpp server; write for example http://127.0.0.1:8080")]
    Address {
        /// As it was given.
        address: String,
    },
    /// No connection, or none that lasts.
    #[error("cannot ask the llama.cpp server at {address}: {cause}; is `llama-server` running there?")]
    Unreachable {
        /// Its address.
        address: String,
        /// Why.
        cause: String,
    },
    /// It answers something else.
    #[error("the llama.cpp server at {address} answers {status} to {path}: {text}")]
    Refused {
        /// Its address.
        address: String,
        /// What was asked.
        path: &'static str,
        /// The HTTP status.
        status: u16,
        /// The first of what it says.
        text: String,
    },
}

/// What it answered.
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
    /// Why it ended: `eos`, `limit`, `word`.
    #[serde(default)]
    pub stop_type: String,
}

/// How much is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Tokens at most.
    pub tokens: usize,
    /// Nothing behind the first line that has something on it.
    pub one_line: bool,
}

/// One server.
pub struct Llama {
    address: String,
    http: reqwest::Client,
    runtime: Runtime,
}

impl Llama {
    /// A server at `http://host:port`. Nothing is asked yet.
    ///
    /// # Errors
    /// The address is none.
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

    /// Asks `/infill` as editors' plug-ins do: the lines before the cursor's as `input_prefix`, the cursor's own
    /// up to the cursor as `prompt`, pieces of `others` (path and text) as `input_extra`. Greedy.
    ///
    /// # Errors
    /// The server cannot be asked, or has no model with fill-in-the-middle tokens.
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

    /// Asks `/completion` with a prompt whose special tokens are spelled out. Greedy.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn complete(&self, prompt: &str, extent: Extent) -> Result<Completion, LlamaError> {
        self.ask("/completion", json!({ "prompt": prompt }), extent)
    }

    fn ask(&self, path: &'static str, text: Value, extent: Extent) -> Result<Completion, LlamaError> {
        let mut question = text;
        question["n_predict"] = extent.tokens.into();
        question["temperature"] = json!(0.0);
        question["cache_prompt"] = true.into();
        question["stream"] = false.into();
        if extent.one_line {
            question["stop"] = json!(["\n"]);
            let answer = self.ask_patiently(path, &question)?;
            if !answer.content.trim().is_empty() || answer.stop_type != "word" {
                return Ok(answer);
            }
            // It begins with a line break: the line that counts comes behind it.
            question["stop"] = json!([]);
        }
        self.ask_patiently(path, &question)
    }

    fn ask_patiently(&self, path: &'static str, question: &Value) -> Result<Completion, LlamaError> {
        let started = Instant::now();
        loop {
            match self.ask_once(path, question) {
                Err(LlamaError::Refused { status: 503, .. }) if started.elapsed() < LOADING => {
                    std::thread::sleep(AGAIN);
                }
                other => return other,
            }
        }
    }

    fn ask_once(&self, path: &'static str, question: &Value) -> Result<Completion, LlamaError> {
        let asked = async {
            let request = self.http.post(format!("{}{path}", self.address));
            let request = request.header("content-type", "application/json").body(question.to_string());
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            Ok((status, answer.text().await?))
        };
        let (status, text) = self.runtime.block_on(asked).map_err(|error: reqwest::Error| {
            LlamaError::Unreachable { address: self.address.clone(), cause: innermost(&error) }
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

/// The cause that says most: "error sending request" says nothing.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
