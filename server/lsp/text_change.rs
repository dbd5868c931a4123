//! Positions, ranges and changes of documents, as messages write them.

use std::fmt;
use std::ops::Range;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::session::TextChange;
use crate::text::Position;

/// A `TextDocumentContentChangeEvent`.
#[derive(Deserialize)]
pub(crate) struct JsonChange {
    range: Option<JsonRange>,
    text: String,
}

/// A `Range`.
#[derive(Deserialize)]
struct JsonRange {
    start: JsonPosition,
    end: JsonPosition,
}

/// A `Position`; numbers out of range are clamped.
#[derive(Deserialize)]
struct JsonPosition {
    line: ClampedNumber,
    character: ClampedNumber,
}

impl From<JsonPosition> for Position {
    fn from(JsonPosition { line, character }: JsonPosition) -> Self {
        Self { line: line.0, character: character.0 }
    }
}

impl From<JsonRange> for Range<Position> {
    fn from(JsonRange { start, end }: JsonRange) -> Self {
        start.into()..end.into()
    }
}

impl From<JsonChange> for TextChange {
    fn from(JsonChange { range, text }: JsonChange) -> Self {
        Self { range: range.map(Range::from), text }
    }
}

/// A number in a position: negative numbers become 0, huge ones the largest.
struct ClampedNumber(u32);

impl<'de> Deserialize<'de> for ClampedNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = ClampedNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_u64<E>(self, number: u64) -> Result<ClampedNumber, E> {
                Ok(ClampedNumber(u32::try_from(number).unwrap_or(u32::MAX)))
            }

            fn visit_i64<E>(self, number: i64) -> Result<ClampedNumber, E> {
                Ok(ClampedNumber(u32::try_from(number.max(0)).unwrap_or(u32::MAX)))
            }

            fn visit_f64<E>(self, number: f64) -> Result<ClampedNumber, E> {
                // `as` saturates at both ends.
                Ok(ClampedNumber(number as u32))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// Reads a list of changes; `None` if any of them is invalid.
pub(crate) fn parse_changes(list: Value) -> Option<Vec<TextChange>> {
    let changes: Vec<JsonChange> = serde_json::from_value(list).ok()?;
    Some(changes.into_iter().map(TextChange::from).collect())
}

pub(crate) fn parse_position(position: &Value) -> Option<Position> {
    JsonPosition::deserialize(position).ok().map(Position::from)
}

pub(crate) fn parse_range(range: &Value) -> Option<Range<Position>> {
    JsonRange::deserialize(range).ok().map(Range::from)
}

pub(crate) fn position_json(position: Position) -> Value {
    json!({ "line": position.line, "character": position.character })
}

pub(crate) fn range_json(start: Position, end: Position) -> Value {
    json!({ "start": position_json(start), "end": position_json(end) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_clamped_and_nonsense_is_refused() {
        let at = |line| Some(Position { line, character: 1 });
        let read = |line: &str| {
            parse_position(&serde_json::from_str(&format!(r#"{{"line":{line},"character":1}}"#)).unwrap())
        };
        assert_eq!(read("3"), at(3));
        assert_eq!(read("-3"), at(0));
        assert_eq!(read("4294967296"), at(u32::MAX));
        assert_eq!(read("99999999999999999999999"), at(u32::MAX));
        assert_eq!(read("-1e300"), at(0));
        assert_eq!(read("\"3\""), None);
        assert_eq!(read("null"), None);
    }

    #[test]
    fn changes_are_all_read_or_none() {
        let range =
            json!({ "start": { "line": 0, "character": -1 }, "end": { "line": 9e99, "character": 2 } });
        let read = parse_changes(json!([{ "range": range, "text": "a" }, { "text": "b" }])).unwrap();
        let at = |line, character| Position { line, character };
        assert_eq!(read[0].range, Some(at(0, 0)..at(u32::MAX, 2)));
        assert_eq!(read[1].range, None);
        for wrong in [json!(null), json!(1), json!([{}]), json!([{ "range": 1, "text": "a" }])] {
            assert_eq!(parse_changes(wrong.clone()), None, "{wrong}");
        }
    }
}
