//! Prints what `taper complete` found: the suggestions in their place, an explanation, the timings.

use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::time::Duration;

use taper_engine::Engine;

use crate::cli::terminal::{EscapedWriter, escape_controls};
use crate::completion::{self, CompletionWork, Snapshot, Suggestion, TrimStep};
use crate::prompt::template::Profile;
use crate::retrieval::redact::{BareWords, REDACTED, redact};

/// Lines of the file shown above and below the suggestion.
const CONTEXT_LINES: usize = 4;

/// The result of the command.
pub(super) struct CompletionReport<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) profile: &'a Profile,
    pub(super) engine: &'a dyn Engine,
    /// The best first.
    pub(super) suggestions: Vec<Suggestion>,
    /// The work done for the first.
    pub(super) work: CompletionWork,
    /// Until the model was loaded.
    pub(super) load_time: Duration,
    /// Until the first suggestion was complete.
    pub(super) response_time: Duration,
    /// Until all were.
    pub(super) total_time: Duration,
}

impl CompletionReport<'_> {
    /// Prints the inserted texts, separated by NUL.
    pub(super) fn print_texts(&self, out: &mut dyn Write) -> io::Result<()> {
        let texts: Vec<&str> = self.suggestions.iter().map(|it| it.text.as_str()).collect();
        let text = texts.join("\0");
        // A program gets the exact text, a terminal the escaped one.
        if io::stdout().is_terminal() {
            write!(out, "{}", escape_controls(&text))
        } else {
            write!(out, "{text}")
        }
    }

    /// Prints each suggestion in its place, then how it came about.
    pub(super) fn print_in_place(&self, out: &mut dyn Write, explain: bool) -> io::Result<()> {
        self.print_suggestion(out, self.suggestions.first())?;
        for (other, number) in self.suggestions.iter().skip(1).zip(2..) {
            writeln!(out, "── candidate {number} ──")?;
            self.print_suggestion(out, Some(other))?;
        }
        let out = &mut EscapedWriter::new(out);
        if explain {
            self.print_explanation(out)?;
        }
        self.print_timings(out)?;
        if self.suggestions.len() > 1 {
            writeln!(out, "all candidates in {:.0} ms", self.total_time.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }

    /// Prints the lines around the cursor with the suggestion in its place: dim on a terminal, between `⟦` and `⟧`
    /// elsewhere.
    fn print_suggestion(&self, out: &mut dyn Write, suggestion: Option<&Suggestion>) -> io::Result<()> {
        let (on, off) = if io::stdout().is_terminal() { ("\x1b[2;36m", "\x1b[0m") } else { ("⟦", "⟧") };
        let Snapshot { text, cursor, .. } = self.snapshot;
        let line = text.byte_to_line(*cursor);
        let first = line.saturating_sub(CONTEXT_LINES);
        let end_line = (line + CONTEXT_LINES + 1).min(text.len_lines());
        let end = if end_line == text.len_lines() { text.len_bytes() } else { text.line_to_byte(end_line) };
        let shown = |part: Range<usize>| escape_controls(&text.byte_slice(part).to_string()).into_owned();
        let before = shown(text.line_to_byte(first)..*cursor);
        let after = shown(*cursor..end);
        let inserted = match suggestion {
            // Color each line, so that line numbers stay plain.
            Some(it) => {
                let lines: Vec<_> =
                    escape_controls(&it.text).lines().map(|line| format!("{on}{line}{off}")).collect();
                lines.join("\n")
            }
            None => format!("{on}{off}"),
        };
        for (at, shown) in format!("{before}{inserted}{after}").lines().enumerate() {
            writeln!(out, "{:>5} │ {shown}", first + at + 1)?;
        }
        Ok(())
    }

    fn print_explanation(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { snapshot, profile, engine, work, .. } = self;
        let prompt = completion::best_prompt(snapshot, profile, engine.tokenizer());
        // Users share explanations, so secrets are redacted, including those of the file itself.
        let bare = snapshot.language.map_or(BareWords::Values, BareWords::for_language);
        let redacted = |text: &str| redact(text, bare).unwrap_or_default().into_owned();
        let rendered = engine.tokenizer().render(&prompt.tokens);
        writeln!(out, "── prompt ({}) ──\n{}", profile.describe(), redacted(&rendered))?;
        // A few characters at the cursor do not reveal whether they are part of a secret; the text around them does.
        let text = snapshot.text.to_string();
        let line = text.as_bytes().iter().take(snapshot.cursor).filter(|&&byte| byte == b'\n').count();
        let is_plain = redacted(&text).split('\n').nth(line) == text.split('\n').nth(line);
        let forced = if is_plain { String::from_utf8_lossy(&prompt.healing_bytes) } else { REDACTED.into() };
        writeln!(out, "── forced ──\n{forced:?}")?;
        writeln!(out, "── raw answer ──\n{}\n── ended by: {} ──", redacted(&work.raw), work.reason)?;
        // Without the text: a part of a secret is not recognised as one.
        for TrimStep { rule, remaining } in &work.trim_steps {
            writeln!(out, "{rule}; bytes left: {}", remaining.len())?;
        }
        if let Some(greedy) = &work.rejected_greedy {
            writeln!(out, "── rejected result of greedy decoding ──\n{}", redacted(&greedy.raw))?;
        }
        Ok(())
    }

    fn print_timings(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { engine, work, .. } = self;
        let rate = |tokens: usize, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        writeln!(
            out,
            "{} on {}: loaded in {:.2} s; read {} tokens at {:.0}/s, wrote {} at {:.0}/s; answered in {:.0} ms ({})",
            engine.engine_info().model,
            engine.engine_info().kernel,
            self.load_time.as_secs_f64(),
            work.evaluated,
            rate(work.evaluated, work.prefill_seconds),
            work.decoded,
            rate(work.decoded, work.decode_seconds),
            self.response_time.as_secs_f64() * 1e3,
            if work.reason.is_empty() { "done" } else { work.reason },
        )
    }
}
