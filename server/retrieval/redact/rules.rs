//! Rules for secrets with a known shape, as data: expressions that are tried around their keywords.

use std::ops::Range;
use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use super::values::{self, ValueStrictness};

/// The rules of gitleaks, and taper's own.
const RULE_TABLES: [&str; 2] = [include_str!("gitleaks.toml"), include_str!("rules.toml")];

/// Bytes from a keyword on that an expression sees, unless its rule has its own limit.
const LOOKAHEAD_BYTES: usize = 1024;
/// Overlap in bytes between two searches of a rule that searches around its keywords.
const OVERLAP_BYTES: usize = 256;
/// Minimum bytes of one such search.
const STEP_BYTES: usize = 2048;

/// One row of a table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretRule {
    /// For test messages and readers of the table.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests name the rule"))]
    pub(super) id: String,
    pub(super) keywords: Vec<String>,
    #[serde(default)]
    back: usize,
    ahead: Option<usize>,
    #[serde(default)]
    word: bool,
    check: Option<MatchCheck>,
    regex: String,
    #[serde(skip)]
    compiled: OnceLock<Option<Regex>>,
}

/// An additional check of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MatchCheck {
    Password,
    Plain,
    Random,
    Basic,
    Contextual,
}

#[derive(Deserialize)]
struct RuleTable {
    rules: Vec<SecretRule>,
}

/// All rules that can be read; a test checks that all can.
pub(super) fn load_rules() -> Option<Vec<SecretRule>> {
    let mut rules = Vec::new();
    for table in RULE_TABLES {
        rules.extend(toml::from_str::<RuleTable>(table).ok()?.rules);
    }
    Some(rules)
}

impl SecretRule {
    /// The expression, compiled on first use: most are never needed.
    pub(super) fn compiled_regex(&self) -> Option<&Regex> {
        let compile = || {
            let written =
                if self.searches_around() { self.regex.clone() } else { format!("^(?:{})", self.regex) };
            RegexBuilder::new(&written).unicode(false).size_limit(4 << 20).build().ok()
        };
        self.compiled.get_or_init(compile).as_ref()
    }

    fn searches_around(&self) -> bool {
        self.back > 0 || self.ahead.is_some()
    }

    /// Adds the secrets at a keyword that begins at `at`; `looked` is how far this rule has searched in this text.
    ///
    /// `None` where the expression cannot be compiled.
    pub(super) fn find_matches(
        &self,
        text: &str,
        at: usize,
        looked: &mut usize,
        found: &mut Vec<Range<usize>>,
    ) -> Option<()> {
        let bytes = text.as_bytes();
        if self.word && at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            return Some(());
        }
        let mut end = bytes.len().min(at + self.ahead.unwrap_or(LOOKAHEAD_BYTES));
        let mut start = at - self.back.min(at);
        if self.searches_around() {
            // Skip what was searched before, except for a match that may have been cut off there.
            start = start.max(looked.saturating_sub(OVERLAP_BYTES)).min(at);
            if end <= *looked {
                return Some(());
            }
            // Far enough that the next keywords, which may be close to each other, need no new search.
            end = bytes.len().min(end + STEP_BYTES);
            *looked = end;
        }
        let regex = self.compiled_regex()?;
        let window = &bytes[start..end];
        let mut from = 0;
        while let Some(captures) = regex.captures_at(window, from) {
            let whole = captures.get(0)?;
            let secret = captures.iter().skip(1).flatten().next().unwrap_or(whole);
            let range = widen_to_chars(text, start + secret.start()..start + secret.end());
            if self.check.is_none_or(|check| check.accepts(&text[range.clone()])) {
                found.push(range);
            }
            from = whole.end().max(from + 1);
            if !self.searches_around() || from > window.len() {
                break;
            }
        }
        Some(())
    }
}

/// The range, widened to whole characters: the expressions match bytes.
fn widen_to_chars(text: &str, range: Range<usize>) -> Range<usize> {
    let start = (0..=range.start).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let end = (range.end..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    start..end
}

impl MatchCheck {
    fn accepts(self, found: &str) -> bool {
        match self {
            Self::Password => values::is_secret(found, ValueStrictness::Password),
            Self::Plain => values::is_secret(found, ValueStrictness::Plain),
            Self::Random => values::is_secret(found, ValueStrictness::Random),
            Self::Basic => values::is_basic_auth(found),
            Self::Contextual => {
                found.bytes().any(|it| it.is_ascii_digit()) && values::shannon_entropy(found) > 2.5
            }
        }
    }
}
