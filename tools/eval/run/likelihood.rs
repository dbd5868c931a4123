//! The likelihood of a task's expected line: the model's own probability of it, without decoding.
//!
//! A share of exact answers separates two prompt forms only over hundreds of tasks, since each task gives one bit. The
//! probability is graded and costs only prefill.

use taper_engine::local::token_healing::TokenHealing;
use taper_engine::{Engine, EngineError, Prompt, TokenDistribution, TokenId, Tokenizer};

use crate::answers::Likelihood;
use crate::tasks::Task;

/// The expected line after the cursor, if there is one, and whether it ends there too.
pub(super) fn line(task: &Task) -> Option<(&str, bool)> {
    let line = task.expected.lines().next().map(str::trim_end).filter(|line| !line.is_empty())?;
    let rest = task.expected[line.len()..].trim_start_matches([' ', '\t']);
    let after = if rest.is_empty() { &task.suffix } else { rest };
    Some((line, breaks(after.as_bytes())))
}

/// The likelihood of `line` after `prompt`, and of its end if it `ends`; the forced text counts only as far as other
/// tokens allow it. `None` if the engine has no probabilities.
///
/// # Errors
/// See [`Engine::score`].
pub(super) fn of(
    engine: &mut dyn Engine,
    prompt: &Prompt,
    line: &str,
    ends: bool,
) -> Result<Option<Likelihood>, EngineError> {
    // The prompt is cut between characters.
    let forced = String::from_utf8_lossy(&prompt.healing_bytes);
    let answer = engine.tokenizer().encode(&format!("{forced}{line}"));
    let mut scorer = LineScorer::new(engine.tokenizer(), &prompt.healing_bytes, &answer, ends);
    engine.score(prompt, &answer, &mut |row| scorer.add_distribution(row))?;
    Ok(scorer.likelihood())
}

/// Scores a line token by token.
struct LineScorer<'a> {
    answer: &'a [TokenId],
    /// The tokens allowed in place of each; `None`: all.
    allowed: Vec<Option<Vec<TokenId>>>,
    /// How the line ends, if it must.
    end: Option<LineEnd>,
    /// Distributions seen.
    seen: usize,
    log: f64,
    greedy: bool,
    /// The last token of a line that must end: its probability, the probability of tokens that also end the line, and
    /// whether each is the most likely.
    last: [(f64, bool); 2],
}

/// The tokens that end a line.
struct LineEnd {
    /// In place of the last one: `)` and a line break may be one token.
    with: Vec<TokenId>,
    /// After it.
    after: Vec<TokenId>,
}

impl<'a> LineScorer<'a> {
    fn new(tokens: &Tokenizer, forced: &[u8], answer: &'a [TokenId], must_end: bool) -> Self {
        let mut heal = TokenHealing::new(forced);
        let mut allowed = Vec::with_capacity(answer.len());
        for &token in answer {
            allowed.push((!heal.is_done()).then(|| heal.allowed_tokens(tokens).collect()));
            if heal.allows_token(tokens, token) {
                heal.consume_token(tokens.token_bytes(token));
            }
        }
        let end = answer.last().filter(|_| must_end).map(|&last| {
            let last = tokens.token_bytes(last);
            let with = |&token: &TokenId| breaks(&tokens.token_bytes(token)[last.len()..]);
            let after = |&token: &TokenId| tokens.is_stop_token(token) || breaks(tokens.token_bytes(token));
            LineEnd {
                with: tokens.tokens_with_prefix(last).filter(with).collect(),
                after: (0..tokens.len() as TokenId).filter(after).collect(),
            }
        });
        Self { answer, allowed, end, seen: 0, log: 0.0, greedy: true, last: [(0.0, false); 2] }
    }

    /// Takes the next distribution: before each token of the answer, and after the last.
    fn add_distribution(&mut self, row: &TokenDistribution<'_>) {
        let at = self.seen;
        self.seen += 1;
        let Some(&token) = self.answer.get(at) else {
            if let Some(end) = self.end.as_ref().filter(|_| at == self.answer.len()) {
                let [(itself, is), (with_end, is_with_end)] = self.last;
                let (then, ends) = any_of(row, &end.after);
                self.count((itself * then + with_end, is && ends || is_with_end));
            }
            return;
        };
        let among = self.allowed[at].as_ref().and_then(|allowed| row.restricted_to(allowed.iter().copied()));
        let row = among.as_ref().unwrap_or(row);
        let itself = any_of(row, &[token]);
        match &self.end {
            Some(end) if at + 1 == self.answer.len() => self.last = [itself, any_of(row, &end.with)],
            _ => self.count(itself),
        }
    }

    fn count(&mut self, (probability, greedy): (f64, bool)) {
        self.log += probability.max(f64::MIN_POSITIVE).ln();
        self.greedy &= greedy;
    }

    /// `None` if there were too few distributions.
    fn likelihood(&self) -> Option<Likelihood> {
        (self.seen > self.answer.len()).then_some(Likelihood { log: self.log, greedy: self.greedy })
    }
}

/// The total probability of these tokens, and whether the most likely is among them.
fn any_of(row: &TokenDistribution<'_>, tokens: &[TokenId]) -> (f64, bool) {
    let sum = tokens.iter().map(|&token| f64::from(row.probability(token))).sum();
    (sum, tokens.contains(&row.most_likely()))
}

/// Whether bytes begin with a line break, after optional blanks.
fn breaks(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !matches!(byte, b' ' | b'\t')).is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits with these probabilities; the other tokens share the rest.
    fn row(tokens: &Tokenizer, some: &[(&str, f64)]) -> Vec<f32> {
        let left = (1.0 - some.iter().map(|it| it.1).sum::<f64>()) / (tokens.len() - some.len()) as f64;
        let mut row = vec![left.ln() as f32; tokens.len()];
        for (text, probability) in some {
            let token = tokens.special_id(text).or_else(|| tokens.spelling(text.as_bytes())).unwrap();
            row[token as usize] = probability.ln() as f32;
        }
        row
    }

    fn score_line(forced: &str, line: &str, rows: &[&[(&str, f64)]], ends: bool) -> (f64, bool) {
        let tokens = Tokenizer::bytes_only();
        let rows: Vec<Vec<f32>> = rows.iter().map(|some| row(&tokens, some)).collect();
        let answer = tokens.encode(&format!("{forced}{line}"));
        let mut scorer = LineScorer::new(&tokens, forced.as_bytes(), &answer, ends);
        for row in &rows {
            scorer.add_distribution(&TokenDistribution::from_logits(row).unwrap());
        }
        let it = scorer.likelihood().unwrap();
        (it.log.exp(), it.greedy)
    }

    #[test]
    fn line_probability_is_product_of_tokens_and_end() {
        let near = |(p, greedy): (f64, bool), expected: f64, is: bool| {
            assert!((p - expected).abs() < 1e-5 && greedy == is, "{p} {greedy}, not {expected} {is}");
        };
        let (a, b) = ([("a", 0.5), ("b", 0.3)], [("b", 0.8)]);
        near(score_line("", "ab", &[&a, &b, &[("\n", 0.4), ("c", 0.5)]], false), 0.4, true);
        // Other tokens that end the text, and other line breaks, share the rest.
        let tokens = Tokenizer::bytes_only();
        let ends = |&it: &TokenId| tokens.is_stop_token(it) || breaks(tokens.token_bytes(it));
        let ends = (0..tokens.len() as TokenId).filter(ends).count() as f64 - 1.0;
        let of = |left: f64, named: f64| left * ends / (tokens.len() as f64 - named);
        near(
            score_line("", "ab", &[&a, &b, &[("\n", 0.4), ("c", 0.5)]], true),
            0.4 * (0.4 + of(0.1, 2.0)),
            false,
        );
        near(score_line("", "ab", &[&a, &b, &[("\n", 0.9)]], true), 0.4 * (0.9 + of(0.1, 1.0)), true);
        near(score_line("", "bb", &[&a, &b, &[("\n", 0.9)]], true), 0.24 * (0.9 + of(0.1, 1.0)), false);
    }

    #[test]
    fn forced_text_costs_no_probability() {
        let (p, greedy) = score_line("a", "b", &[&[("a", 0.01), ("x", 0.9)], &[("b", 0.8)], &[]], false);
        // Except the share of other tokens that begin with it.
        let tokens = Tokenizer::bytes_only();
        let others = (tokens.tokens_with_prefix(b"a").len() - 1) as f64 * 0.09 / (tokens.len() - 2) as f64;
        assert!((p - 0.8 * 0.01 / (0.01 + others)).abs() < 1e-5 && greedy, "{p}");
    }

    #[test]
    fn line_break_may_follow_blanks() {
        assert!(breaks(b"\n") && breaks(b"  \r\n") && !breaks(b"") && !breaks(b" ") && !breaks(b"x\n"));
    }

    #[test]
    fn expected_line_of_a_task() {
        let task = |expected: &str| Task { expected: expected.to_owned(), ..Task::default() };
        assert_eq!(line(&task("f(x) \nnext")), Some(("f(x)", true)));
        assert_eq!((line(&task("\n    x")), line(&task(""))), (None, None));
        // After the last expected line, the text after the cursor decides whether it ends.
        for (expected, suffix, ends) in [
            ("x", "\ny", true),
            ("x ", "\r\n", true),
            ("x", ")\n", false),
            ("x", "", false),
            ("x\ny", " + 1", true),
        ] {
            let task = Task { suffix: suffix.to_owned(), ..task(expected) };
            assert_eq!(line(&task), Some(("x", ends)), "{expected:?} {suffix:?}");
        }
    }
}
