//! `workspace/executeCommand`: the commands that editors offer, and their results.
//!
//! | command | argument | result |
//! |---|---|---|
//! | `taper.pause`, `taper.resume` | `{ scope: "everywhere" \| "language" \| "document", language?, uri? }`; none: everywhere | null |
//! | `taper.statistics` | | counts and times since the start, `today` and `allTime`, those by language and model |
//! | `taper.explainLast` | | how the last suggestion, and the last empty response since, came about, each or null |
//! | `taper.models` | | the known models, and which are on this machine |
//! | `taper.accepted` | | null; editors run it when a suggestion is accepted |

use serde_json::{Value, json};
use taper_engine::catalog::MODELS;
use taper_engine::fetch::ModelStore;

use crate::session::{Explanation, Explanations, PauseScope};

/// The advertised commands.
pub(crate) const COMMAND_NAMES: [&str; 6] = [
    "taper.pause",
    "taper.resume",
    "taper.statistics",
    "taper.explainLast",
    "taper.models",
    ACCEPTED_COMMAND,
];

/// Run by the editor when a suggestion is accepted.
pub(crate) const ACCEPTED_COMMAND: &str = "taper.accepted";

/// A requested command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExecuteCommand {
    /// Pause (true) or resume.
    Pause(PauseScope, bool),
    Statistics,
    ExplainLast,
    Models,
    Accepted,
}

impl ExecuteCommand {
    /// Reads the params of `workspace/executeCommand`.
    ///
    /// # Errors
    /// The message names the invalid part.
    pub(crate) fn parse_params(params: &Value) -> Result<Self, String> {
        let name = params.get("command").and_then(Value::as_str).unwrap_or_default();
        Ok(match name {
            "taper.pause" | "taper.resume" => {
                let argument = params.pointer("/arguments/0").unwrap_or(&Value::Null);
                Self::Pause(parse_scope(argument)?, name == "taper.pause")
            }
            "taper.statistics" => Self::Statistics,
            "taper.explainLast" => Self::ExplainLast,
            "taper.models" => Self::Models,
            ACCEPTED_COMMAND => Self::Accepted,
            _ => return Err(format!("unknown command `{name}`; known: {}", COMMAND_NAMES.join(", "))),
        })
    }
}

fn parse_scope(argument: &Value) -> Result<PauseScope, String> {
    let text = |name: &str| argument.get(name).and_then(Value::as_str).map(str::to_owned);
    let missing = |name: &str| format!("this scope requires `{name}`");
    match text("scope").as_deref() {
        None if argument.is_null() => Ok(PauseScope::Everywhere),
        Some("everywhere") => Ok(PauseScope::Everywhere),
        Some("language") => Ok(PauseScope::Language(text("language").ok_or_else(|| missing("language"))?)),
        Some("document") => Ok(PauseScope::Document(text("uri").ok_or_else(|| missing("uri"))?)),
        _ => Err("`scope` must be \"everywhere\", \"language\" or \"document\"".to_owned()),
    }
}

/// The result of `taper.explainLast`.
pub(crate) fn explanations_json(Explanations { suggestion, silence }: Explanations) -> Value {
    json!({ "suggestion": suggestion.map(explanation_json), "silence": silence.map(explanation_json) })
}

fn explanation_json(Explanation { path, language, text, work }: Explanation) -> Value {
    let mut json = json!({ "path": path, "language": language, "text": text });
    if let Some(work) = work {
        json["work"] = json!({
            "promptTokens": work.prompt_tokens,
            "short": work.short,
            "evaluated": work.evaluated,
            "decoded": work.decoded,
            "searched": work.searched,
            "prefillMs": (work.prefill_seconds * 1000.0).round(),
            "decodeMs": (work.decode_seconds * 1000.0).round(),
            "reason": work.reason,
        });
    }
    json
}

/// The result of `taper.models`.
///
/// # Errors
/// The model folder is unknown; the message has the reason.
pub(crate) fn models_json() -> Result<Value, String> {
    let store = ModelStore::open().map_err(|problem| problem.to_string())?;
    let json = MODELS.iter().map(|model| {
        json!({
            "name": model.name,
            "bytes": model.bytes,
            "licence": model.licence,
            "note": model.note,
            "here": store.find_file(model).is_some(),
        })
    });
    Ok(Value::Array(json.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_command_and_others_are_refused() {
        for name in COMMAND_NAMES {
            assert!(ExecuteCommand::parse_params(&json!({ "command": name })).is_ok(), "{name}");
        }
        for wrong in [json!({ "command": "taper.nonsense" }), json!({}), Value::Null] {
            assert!(ExecuteCommand::parse_params(&wrong).unwrap_err().contains("taper.pause"), "{wrong}");
        }
    }

    #[test]
    fn scopes_are_read_and_half_ones_refused() {
        let read = |argument| {
            ExecuteCommand::parse_params(&json!({ "command": "taper.resume", "arguments": [argument] }))
        };
        assert_eq!(read(Value::Null), Ok(ExecuteCommand::Pause(PauseScope::Everywhere, false)));
        let language = json!({ "scope": "language", "language": "python" });
        assert_eq!(
            read(language),
            Ok(ExecuteCommand::Pause(PauseScope::Language("python".to_owned()), false))
        );
        let document = json!({ "scope": "document", "uri": "file:///a" });
        assert_eq!(
            read(document),
            Ok(ExecuteCommand::Pause(PauseScope::Document("file:///a".to_owned()), false))
        );
        for wrong in [json!({ "scope": "language" }), json!({ "scope": "document" }), json!({}), json!(5)] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
