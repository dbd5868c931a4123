//! Parses a message body into a request, a response, or a document change, with a tree of bounded size.
//!
//! Members come in any order, and a JSON tree takes up to eighty times the memory of its text. So the members that
//! identify a message are read first, and the others are skipped without a tree. Then the required one is parsed,
//! once, unless it is too complex. A document may have many changes: they are read into their own type.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tower_lsp::jsonrpc::{Error, ErrorCode, Id, Request, Response};
use tracing::warn;

use crate::lsp::text_change::JsonChange;
use crate::session::TextChange;

/// Maximum memory of a tree, as [`JsonComplexity`] estimates it: the settings of an editor take a megabyte or two,
/// a list of 50,000 changed files some 50.
const MAX_TREE_BYTES: usize = 96 << 20;
/// A non-empty object: a node of a B-tree, and the name of its member.
const OBJECT_BYTES: usize = 700;
/// A value in a list that has grown, or in an object that already has a node.
const VALUE_BYTES: usize = 96;

/// Size of a body, counted without parsing it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JsonComplexity {
    /// Opening braces.
    pub(crate) objects: usize,
    /// Everything else that begins or separates values.
    pub(crate) values: usize,
}

impl JsonComplexity {
    /// Whether its tree would be too large.
    fn is_excessive(self) -> bool {
        self.objects.saturating_mul(OBJECT_BYTES).saturating_add(self.values.saturating_mul(VALUE_BYTES))
            > MAX_TREE_BYTES
    }
}

/// A message.
#[derive(Debug)]
pub enum IncomingMessage {
    /// A request or a notification.
    Request(Request),
    /// The response to one of the server's requests.
    Response(Response),
    /// A document has changed.
    Changed(DocumentChange),
    /// None of them; the sender gets this error.
    Malformed(Response),
}

/// `textDocument/didChange`.
#[derive(Debug)]
pub struct DocumentChange {
    /// The document.
    pub uri: String,
    /// Its version after the changes, if the client sends one.
    pub version: Option<i64>,
    /// The changes, in order; `None` if any of them is invalid.
    pub changes: Option<Vec<TextChange>>,
}

/// The members that identify a message.
#[derive(Deserialize)]
struct MessageHead<'a> {
    #[serde(default)]
    jsonrpc: JsonScalar,
    #[serde(default, borrow)]
    method: Option<MethodName<'a>>,
    #[serde(default, deserialize_with = "deserialize_present")]
    id: Option<JsonScalar>,
    #[serde(default, deserialize_with = "deserialize_present")]
    result: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "deserialize_present")]
    error: Option<IgnoredAny>,
}

/// A method's name; `None` if the member is not a string.
struct MethodName<'a>(Option<Cow<'a, str>>);

/// A member that is present, even if it is null.
fn deserialize_present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A JSON value without a tree.
#[derive(Debug, Default, Clone, PartialEq)]
enum JsonScalar {
    #[default]
    Null,
    Integer(i64),
    Text(String),
    /// A fraction, a boolean, a list, an object.
    Other,
}

impl JsonScalar {
    fn into_id(self) -> Option<Id> {
        match self {
            Self::Null => Some(Id::Null),
            Self::Integer(number) => Some(Id::Number(number)),
            Self::Text(text) => Some(Id::String(text)),
            Self::Other => None,
        }
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = JsonScalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<JsonScalar, E> {
        Ok(i64::try_from(number).map_or(JsonScalar::Other, JsonScalar::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<JsonScalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(JsonScalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<JsonScalar, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(JsonScalar::Other)
    }
}

impl<'de> Deserialize<'de> for JsonScalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for MethodName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match JsonScalar::deserialize(deserializer)? {
            JsonScalar::Text(text) => Some(text.into()),
            _ => None,
        }))
    }
}

/// Only the params, as the required type.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct WithParams<T> {
    #[serde(default = "absent_params", deserialize_with = "deserialize_present")]
    params: Option<T>,
}

fn absent_params<T>() -> Option<T> {
    None
}

/// Only the members of a response.
#[derive(Deserialize)]
struct ResponseOutcome {
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Value,
}

/// Parses a body. Returns `None` if it is malformed and there is no sender to report that to.
pub(crate) fn parse_message(body: &[u8], complexity: JsonComplexity) -> Option<IncomingMessage> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Some(invalid_request(Id::Null, ErrorCode::ParseError, "the message is not UTF-8"));
    };
    let head = match serde_json::from_str::<MessageHead<'_>>(text) {
        // Serde would also accept a list with its elements in the order of the members.
        Ok(head) if text.trim_start().starts_with('{') => head,
        Err(problem) if !problem.is_data() => {
            return Some(invalid_request(Id::Null, ErrorCode::ParseError, "the message is not JSON"));
        }
        _ => {
            return Some(invalid_request(
                Id::Null,
                ErrorCode::InvalidRequest,
                "the message is not a request",
            ));
        }
    };
    let MessageHead { jsonrpc, method, id, result, error } = head;
    let id = id.map(JsonScalar::into_id);
    let is_version_2 = jsonrpc == JsonScalar::Text("2.0".to_owned());
    let Some(method) = method else {
        if result.is_some() || error.is_some() {
            return parse_response(text, id.flatten().filter(|_| is_version_2), complexity);
        }
        let id = id.flatten().unwrap_or_default();
        return Some(invalid_request(id, ErrorCode::InvalidRequest, "the message is not a request"));
    };
    let is_id = id != Some(None);
    let id = id.flatten();
    let Some(method) = method.0.filter(|name| is_id && is_version_2 && !name.is_empty()) else {
        let id = id.unwrap_or_default();
        return Some(invalid_request(id, ErrorCode::InvalidRequest, "the message is not a request"));
    };
    if id.is_none() && method == "textDocument/didChange" {
        return parse_did_change(text).map(IncomingMessage::Changed);
    }
    if complexity.is_excessive() {
        warn!(method = &*method, bytes = text.len(), "ignored a message that is too complex");
        return id.map(|id| invalid_request(id, ErrorCode::InvalidRequest, "the message is too complex"));
    }
    let Some(WithParams { params }) = parse_json::<WithParams<Value>>(text) else {
        warn!(method = &*method, bytes = text.len(), "ignored a message that is not valid JSON");
        let id = id.unwrap_or_default();
        return Some(invalid_request(id, ErrorCode::ParseError, "the message is not JSON"));
    };
    let mut request = Request::build(method.into_owned());
    if let Some(params) = params {
        request = request.params(params);
    }
    if let Some(id) = id {
        request = request.id(id);
    }
    Some(IncomingMessage::Request(request.finish()))
}

/// An error as the response to an invalid request.
pub(crate) fn invalid_request(id: Id, code: ErrorCode, message: &'static str) -> IncomingMessage {
    IncomingMessage::Malformed(Response::from_error(id, Error { code, message: message.into(), data: None }))
}

/// Parses a response of the client. An unreadable one becomes an error for its receiver.
fn parse_response(text: &str, id: Option<Id>, complexity: JsonComplexity) -> Option<IncomingMessage> {
    let Some(id) = id.filter(|id| *id != Id::Null) else {
        warn!("ignored a malformed response from the client");
        return None;
    };
    let outcome = if complexity.is_excessive() { None } else { parse_json::<ResponseOutcome>(text) };
    let body = match outcome {
        Some(ResponseOutcome { error: Value::Null, result }) => Ok(result),
        Some(ResponseOutcome { error, .. }) => {
            Err(serde_json::from_value(error).unwrap_or_else(|_| unreadable_response()))
        }
        None => Err(unreadable_response()),
    };
    Some(IncomingMessage::Response(Response::from_parts(id, body)))
}

fn unreadable_response() -> Error {
    Error { code: ErrorCode::InternalError, message: "the response cannot be read".into(), data: None }
}

/// Parses JSON, with lone surrogates replaced: editors in JavaScript send them where a text contains them.
fn parse_json<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok().or_else(|| serde_json::from_str(&without_lone_surrogates(text)?).ok())
}

/// Replaces every lone `\ud800` by `\ufffd`, which counts as the same number of columns; `None` if there is none.
fn without_lone_surrogates(text: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\').map(|found| at + found) {
        at = match (unit(found), unit(found + 6)) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => found + 12,
            (Some(0xD800..0xE000), _) => {
                out.push_str(&text[copied..found]);
                out.push_str("\\ufffd");
                copied = found + 6;
                copied
            }
            // The escaped character may be a backslash. An invalid escape makes the JSON invalid as well.
            _ => found + 1 + text[found + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    (copied > 0).then(|| out + &text[copied..])
}

/// Parses the params of `textDocument/didChange`. Returns `None` if they name no document.
fn parse_did_change(text: &str) -> Option<DocumentChange> {
    if let Some(WithParams { params: Some(params) }) = parse_json::<WithParams<ChangeParams>>(text) {
        let ChangeParams { text_document: VersionedDocument { uri, version }, content_changes } = params;
        let version = if let JsonScalar::Integer(version) = version { Some(version) } else { None };
        let changes = content_changes.into_iter().map(TextChange::from).collect();
        return Some(DocumentChange { uri, version, changes: Some(changes) });
    }
    // The changes are invalid, but the document's name may be right.
    let Some(WithParams { params: Some(DocumentName { text_document: VersionedDocument { uri, .. } }) }) =
        parse_json(text)
    else {
        warn!("ignored a `textDocument/didChange` without a document");
        return None;
    };
    Some(DocumentChange { uri, version: None, changes: None })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentName {
    text_document: VersionedDocument,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeParams {
    text_document: VersionedDocument,
    content_changes: Vec<JsonChange>,
}

#[derive(Deserialize)]
struct VersionedDocument {
    uri: String,
    #[serde(default)]
    version: JsonScalar,
}

#[cfg(test)]
mod tests;
