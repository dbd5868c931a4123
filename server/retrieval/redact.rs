//! Redaction: removes keys, tokens and passwords from text before it is shown to the model, because a suggestion may
//! repeat what the model has seen.
//!
//! A text is redacted as a whole, before it is cut into chunks. There are four detectors: [rules] for secrets with a
//! known shape, [assignments] to a name that is secret, [high-entropy strings](high_entropy), and multi-line [blocks].
//! One pass finds the candidates by their keywords; the cost is linear in the length of the text.
//!
//! When in doubt it removes too much, but it keeps words, sentences, paths and references: a snippet that is redacted
//! everywhere is of no use. `tests/redaction/` has cases of both sides, for anyone to extend.

mod assignments;
mod blocks;
mod high_entropy;
mod names;
mod rules;
mod values;
mod words;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use taper_grammars::Language;

use assignments::AssignmentScanner;
pub use assignments::BareWords;
use rules::SecretRule;

/// Maximum bytes of a line that are searched; on longer ones the work would grow faster than the text.
const MAX_LINE_BYTES: usize = 1024;

/// The start of the line of `at`, or of its searched part.
fn line_start(bytes: &[u8], at: usize) -> usize {
    let from = at.saturating_sub(MAX_LINE_BYTES);
    memchr::memrchr(b'\n', &bytes[from..at]).map_or(from, |it| from + it + 1)
}

/// The end of the line of `at`, its line break included, or of its searched part.
fn line_end(bytes: &[u8], at: usize) -> usize {
    let to = bytes.len().min(at + MAX_LINE_BYTES);
    memchr::memchr(b'\n', &bytes[at..to]).map_or(to, |it| at + it + 1)
}

/// The replacement of a secret.
pub const REDACTED: &str = "REDACTED";

/// Languages in which an unquoted word is a value.
const BARE_VALUE_LANGUAGES: &[&str] =
    &["shellscript", "fish", "yaml", "toml", "dockerfile", "makefile", "cmake", "ini"];

impl BareWords {
    /// The setting for a language.
    pub fn for_language(language: &Language) -> Self {
        if BARE_VALUE_LANGUAGES.contains(&language.name) { Self::Values } else { Self::Names }
    }
}

/// What to do at a keyword.
#[derive(Debug, Clone, Copy)]
enum KeywordTarget {
    Rule(usize),
    Name,
    Block,
}

struct SecretScanner {
    rules: Vec<SecretRule>,
    keywords: AhoCorasick,
    /// The targets of each keyword.
    targets: Vec<Vec<KeywordTarget>>,
}

static SECRET_SCANNER: LazyLock<Option<SecretScanner>> = LazyLock::new(SecretScanner::new);

impl SecretScanner {
    fn new() -> Option<Self> {
        let rules = rules::load_rules().filter(|_| assignments::has_patterns())?;
        let mut keywords: Vec<String> = Vec::new();
        let mut leads: Vec<Vec<KeywordTarget>> = Vec::new();
        let of_rules = rules.iter().enumerate().flat_map(|(at, rule)| {
            rule.keywords.iter().map(move |keyword| (keyword.clone(), KeywordTarget::Rule(at)))
        });
        let names = names::NAME_PARTS.iter().map(|it| ((*it).to_owned(), KeywordTarget::Name));
        let blocks = blocks::BLOCK_HEADS.iter().map(|it| ((*it).to_owned(), KeywordTarget::Block));
        for (keyword, lead) in of_rules.chain(names).chain(blocks) {
            match keywords.iter().position(|it| *it == keyword) {
                Some(at) => leads[at].push(lead),
                None => {
                    keywords.push(keyword);
                    leads.push(vec![lead]);
                }
            }
        }
        let keywords = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&keywords)
            .ok()?;
        Some(Self { rules, keywords, targets: leads })
    }

    /// The ranges of the secrets, unordered; they may overlap.
    fn find_secrets(&self, text: &str, bare: BareWords) -> Option<Vec<Range<usize>>> {
        let mut found = Vec::new();
        let mut assignments = AssignmentScanner::new(text, bare)?;
        // How far each rule that searches around its keywords has searched, and the end of the last block.
        let mut looked = vec![0; self.rules.len()];
        let mut blocks = 0;
        for hit in self.keywords.find_overlapping_iter(text) {
            for lead in &self.targets[hit.pattern().as_usize()] {
                match *lead {
                    KeywordTarget::Rule(rule) => {
                        self.rules[rule].find_matches(text, hit.start(), &mut looked[rule], &mut found)?;
                    }
                    KeywordTarget::Name => assignments.find_values(hit.start()..hit.end(), &mut found),
                    KeywordTarget::Block if hit.start() < blocks => {}
                    KeywordTarget::Block => blocks = blocks::find_block(text, hit.start(), &mut found),
                }
            }
        }
        high_entropy::find_high_entropy(text, &mut found);
        Some(found)
    }
}

/// The redacted text, with the same number of lines. `None` if the detectors are unavailable: then none of the text may
/// be used.
pub fn redact(text: &str, bare: BareWords) -> Option<Cow<'_, str>> {
    let mut found = SECRET_SCANNER.as_ref()?.find_secrets(text, bare)?;
    found.retain(|range| !range.is_empty());
    if found.is_empty() {
        return Some(Cow::Borrowed(text));
    }
    found.sort_unstable_by_key(|range| (range.start, range.end));
    let mut out = String::with_capacity(text.len());
    let mut done: Option<usize> = None;
    for Range { start, end } in found {
        let from = match done {
            Some(done) if end <= done => continue,
            // Merge overlapping ranges.
            Some(done) if start <= done => done,
            _ => {
                out.push_str(text.get(done.unwrap_or(0)..start)?);
                out.push_str(REDACTED);
                start
            }
        };
        let taken = text.get(from..end)?;
        for (at, _) in taken.match_indices('\n') {
            // Keep a backslash that continues a string on the next line.
            out.push_str(if taken[..at].ends_with('\\') { "\\\n" } else { "\n" });
        }
        done = Some(end);
    }
    out.push_str(text.get(done.unwrap_or(0)..)?);
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests;
