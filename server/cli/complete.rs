//! `taper complete PATH:LINE:COLUMN`: prints a suggestion in its place in the file.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use taper_engine::Engine;

use super::load::{self, ModelArgs};
use super::terminal::{EscapedWriter, escape_controls};
use crate::completion::{self, CompletionWork, ExtentSetting, Snapshot, Suggestion, Trigger, alternatives};
use crate::config;
use crate::prompt::{self, template::Profile};
use crate::retrieval::Query;
use crate::retrieval::crawl;
use crate::retrieval::redact::{BareWords, REDACTED, redact};
use crate::session::crawler::{self, CrawlMode};
use crate::syntax::{RegionSize, Syntax};
use crate::text::plain_file::{self, Links};
use crate::text::{Encoding, Position, Rope, position};

/// Arguments of `taper complete`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  taper complete src/main.rs:12:5\n  taper complete --plain --model qwen2.5-coder-1.5b app.py:80:1"
)]
pub struct Args {
    /// Position: a file, a line and a column, both counted from 1; the column counts characters.
    #[arg(value_name = "PATH:LINE:COLUMN")]
    place: String,
    /// Print only the inserted text; separate several with NUL.
    #[arg(long)]
    plain: bool,
    /// Maximum number of suggestions, the best first: 1 to 3.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=alternatives::MAX_SUGGESTIONS as i64))]
    candidates: u8,
    /// Maximum number of lines.
    #[arg(long, value_name = "N", value_parser = |text: &str| config::parse_option_number("max-lines", text))]
    max_lines: Option<usize>,
    /// Suggest one line only.
    #[arg(long)]
    line: bool,
    /// Print the prompt, the raw output and the rule that cut it.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Lines of the file shown above and below the suggestion.
const CONTEXT_LINES: usize = 4;
/// Maximum bytes of the file.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Time limit of the parse.
const PARSE_BUDGET: Duration = Duration::from_secs(2);

/// Time limit of the crawl of the workspace.
const WALK_BUDGET: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// The position is invalid, the file cannot be read, or the model is unavailable.
pub fn run(args: &Args) -> Result<()> {
    let (path, line, column) = parse_place(&args.place)?;
    let bytes = plain_file::read(&path, MAX_FILE_BYTES, Links::Followed)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let Ok(source) = String::from_utf8(bytes) else {
        bail!("{} is not UTF-8 text, and taper reads no other encoding; convert it first", path.display());
    };
    let text = Rope::from_str(&source);
    let place = Position { line: line - 1, character: column - 1 };
    let cursor = position::byte_offset(&text, place, Encoding::Utf32);
    if position::position_at(&text, cursor, Encoding::Utf32) != place {
        let lines = text.len_lines();
        bail!(
            "position {line}:{column} is outside {}: it has {lines} lines, and the column must be on its line",
            path.display()
        );
    }

    let started = Instant::now();
    let (settings, problems) = load::command_settings(&args.model);
    problems.iter().for_each(|problem| super::print_warning(problem));
    let mut engine = load::load_engine_with(&args.model, &settings.engine)?;
    let loaded = started.elapsed();

    let language = taper_grammars::by_path(&path);
    let mut options = settings.suggest.clone();
    if let Some(lines) = args.max_lines {
        options.max_lines = lines;
    }
    if args.line {
        options.extent = ExtentSetting::Line;
    }
    let parse_end = Instant::now() + PARSE_BUDGET;
    let mut snapshot = Snapshot {
        syntax: language.and_then(|it| {
            Syntax::parse_around(&text, it, cursor, RegionSize::DEFAULT, &mut || Instant::now() > parse_end)
        }),
        language,
        path: shown_path(&path),
        trigger: Trigger::Invoked,
        ..Snapshot::new(text, cursor, options)
    };
    let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
    let bytes = completion::snippet_bytes(&snapshot.options, &profile);
    if bytes > 0
        && settings.other_files
        && let Some((root, inside)) = find_workspace(&path)
        && let Some(language) = language
    {
        let crawling = CrawlMode::Apart(crawler::current_program().unwrap_or_default());
        let index = crawler::crawl_index(
            crawling,
            &root,
            slice::from_ref(&inside),
            &settings.excluded_files,
            WALK_BUDGET,
        );
        let place = Query { text: &snapshot.text, cursor, path: &inside, language };
        snapshot.snippets = index.find_snippets(place, bytes).into();
    }
    let requested = Instant::now();
    let (suggestion, work) =
        completion::suggest(&snapshot, &profile, engine.as_mut(), &mut |_| ControlFlow::Continue(()))?;
    let took = requested.elapsed();
    let others = match &suggestion {
        Some(first) => {
            let most = usize::from(args.candidates) - 1;
            let engine = engine.as_mut();
            alternatives::find_alternatives(most, &snapshot, &profile, engine, (first, &work), &mut |_| {
                ControlFlow::Continue(())
            })?
        }
        None => Vec::new(),
    };
    let all_took = requested.elapsed();

    let mut out = io::stdout().lock();
    let written = if args.plain {
        let texts: Vec<&str> = suggestion.iter().chain(&others).map(|it| it.text.as_str()).collect();
        let text = texts.join("\0");
        // A program gets the exact text, a terminal the escaped one.
        if out.is_terminal() { write!(out, "{}", escape_controls(&text)) } else { write!(out, "{text}") }
    } else {
        print_suggestion(&mut out, &snapshot, suggestion.as_ref())
            .and_then(|()| {
                others.iter().zip(2..).try_for_each(|(other, number)| {
                    writeln!(out, "── candidate {number} ──")?;
                    print_suggestion(&mut out, &snapshot, Some(other))
                })
            })
            .and_then(|()| {
                if args.explain {
                    print_explanation(
                        &mut EscapedWriter::new(&mut out),
                        &snapshot,
                        &profile,
                        engine.as_ref(),
                        &work,
                    )
                } else {
                    Ok(())
                }
            })
            .and_then(|()| {
                print_timings(&mut EscapedWriter::new(&mut out), engine.as_ref(), &work, loaded, took)
            })
            .and_then(|()| match others.len() {
                0 => Ok(()),
                _ => writeln!(out, "all candidates in {:.0} ms", all_took.as_secs_f64() * 1e3),
            })
    };
    // A reader that stops early (`| head`) is not an error.
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// `PATH:LINE:COLUMN`; the path may contain colons.
fn parse_place(place: &str) -> Result<(PathBuf, u32, u32)> {
    let parsed = place.rsplit_once(':').and_then(|(rest, column)| {
        let (path, line) = rest.rsplit_once(':')?;
        Some((PathBuf::from(path), line.parse::<u32>().ok()?, column.parse::<u32>().ok()?))
    });
    match parsed {
        Some((path, line, column)) if line > 0 && column > 0 && !path.as_os_str().is_empty() => {
            Ok((path, line, column))
        }
        _ => bail!(
            "invalid position `{place}`: expected PATH:LINE:COLUMN, counted from 1, as in src/main.rs:12:5"
        ),
    }
}

/// The path as the model sees it: relative to the folder the command runs in, where it is below it.
fn shown_path(path: &Path) -> String {
    let relative = std::env::current_dir().ok().and_then(|folder| {
        let whole = path.canonicalize().ok()?;
        Some(whole.strip_prefix(folder.canonicalize().ok()?).ok()?.to_owned())
    });
    let shown = relative.as_deref().unwrap_or(path);
    let parts: Vec<_> = shown.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// The repository of a file, else the working directory if the file is below it; and the file's path relative to it,
/// with `/`.
fn find_workspace(path: &Path) -> Option<(PathBuf, String)> {
    let whole = path.canonicalize().ok()?;
    let here = || std::env::current_dir().ok()?.canonicalize().ok();
    let root = crawl::repository_root(&whole).or_else(here)?;
    let inside = crawl::display_path(whole.strip_prefix(&root).ok()?)?;
    Some((root, inside))
}

/// Prints the lines around the cursor with the suggestion in its place: dim on a terminal, between `⟦` and
/// `⟧` elsewhere.
fn print_suggestion(
    out: &mut dyn Write,
    snapshot: &Snapshot,
    suggestion: Option<&Suggestion>,
) -> io::Result<()> {
    let (on, off) = if io::stdout().is_terminal() { ("\x1b[2;36m", "\x1b[0m") } else { ("⟦", "⟧") };
    let text = &snapshot.text;
    let line = text.byte_to_line(snapshot.cursor);
    let first = line.saturating_sub(CONTEXT_LINES);
    let end_line = (line + CONTEXT_LINES + 1).min(text.len_lines());
    let end = if end_line == text.len_lines() { text.len_bytes() } else { text.line_to_byte(end_line) };
    let shown =
        |part: std::ops::Range<usize>| escape_controls(&text.byte_slice(part).to_string()).into_owned();
    let before = shown(text.line_to_byte(first)..snapshot.cursor);
    let after = shown(snapshot.cursor..end);
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

fn print_explanation(
    out: &mut dyn Write,
    snapshot: &Snapshot,
    profile: &Profile,
    engine: &dyn Engine,
    work: &CompletionWork,
) -> io::Result<()> {
    let (prompt, _) = prompt::build_prompt(
        profile,
        engine.tokenizer(),
        snapshot.joined_document().prompt_file(),
        completion::prompt_budget(&snapshot.options, profile),
    );
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
    if let Some(greedy) = &work.rejected_greedy {
        writeln!(out, "── rejected result of greedy decoding ──\n{}", redacted(&greedy.raw))?;
    }
    Ok(())
}

fn print_timings(
    out: &mut dyn Write,
    engine: &dyn Engine,
    work: &CompletionWork,
    loaded: Duration,
    took: Duration,
) -> io::Result<()> {
    let rate = |tokens: usize, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
    writeln!(
        out,
        "{} on {}: loaded in {:.2} s; read {} tokens at {:.0}/s, wrote {} at {:.0}/s; answered in {:.0} ms ({})",
        engine.engine_info().model,
        engine.engine_info().kernel,
        loaded.as_secs_f64(),
        work.evaluated,
        rate(work.evaluated, work.prefill_seconds),
        work.decoded,
        rate(work.decoded, work.decode_seconds),
        took.as_secs_f64() * 1e3,
        if work.reason.is_empty() { "done" } else { work.reason },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(parse_place("a/b.rs:3:7").ok(), Some(("a/b.rs".into(), 3, 7)));
        assert_eq!(parse_place("C:\\x.rs:3:7").ok(), Some(("C:\\x.rs".into(), 3, 7)));
        for wrong in ["a.rs", "a.rs:1", "a.rs:0:1", "a.rs:1:0", "a.rs:x:1", ":1:1", "a.rs:1:99999999999"] {
            let message = parse_place(wrong).map(|_| ()).map_err(|error| error.to_string());
            assert!(message.is_err_and(|it| it.contains(wrong)), "{wrong}");
        }
    }
}
