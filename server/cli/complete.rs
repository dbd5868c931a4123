//! `taper complete PATH:LINE:COLUMN`: prints a suggestion in its place in the file.

mod report;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::{self, ModelArgs};
use crate::completion::alternatives::{self, AlternativesRequest};
use crate::completion::{self, ExtentSetting, Options, Snapshot, Trigger};
use crate::config::{self, Settings};
use crate::prompt::template::Profile;
use crate::retrieval::crawl;
use crate::retrieval::{Query, Snippet};
use crate::session::crawler::{self, CrawlMode};
use crate::syntax::{RegionSize, Syntax};
use crate::text::plain_file::{self, Links};
use crate::text::{Encoding, Position, Rope, position};
use report::CompletionReport;

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
    /// Print the prompt, the raw output and the rules that cut it.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Maximum bytes of the file.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Time limit of the parse.
const PARSE_BUDGET: Duration = Duration::from_secs(2);
/// Time limit of the crawl of the workspace.
const CRAWL_BUDGET: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// The position is invalid, the file cannot be read, or the model is unavailable.
pub fn run(args: &Args) -> Result<()> {
    let document = SourceDocument::read(FilePosition::parse(&args.place)?)?;
    let started = Instant::now();
    let (settings, problems) = load::command_settings(&args.model);
    problems.iter().for_each(|problem| super::print_warning(problem));
    let mut engine = load::load_engine_with(&args.model, &settings.engine)?;
    let load_time = started.elapsed();

    let profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
    let mut snapshot = document.take_snapshot(args.completion_options(&settings));
    let bytes = completion::snippet_bytes(&snapshot.options, &profile);
    if bytes > 0 && settings.other_files {
        snapshot.snippets = find_snippets(&document.path, &snapshot, &settings, bytes).into();
    }
    let requested = Instant::now();
    let (first, work) =
        completion::suggest(&snapshot, &profile, engine.as_mut(), &mut |_| ControlFlow::Continue(()))?;
    let response_time = requested.elapsed();
    let mut suggestions = Vec::from_iter(first);
    if let Some(first) = suggestions.first() {
        let most = usize::from(args.candidates) - 1;
        let request = AlternativesRequest { snapshot: &snapshot, first, work: &work, most };
        let others = alternatives::find_alternatives(request, &profile, engine.as_mut(), &mut |_| {
            ControlFlow::Continue(())
        })?;
        suggestions.extend(others);
    }
    let report = CompletionReport {
        snapshot: &snapshot,
        profile: &profile,
        engine: engine.as_ref(),
        suggestions,
        work,
        load_time,
        response_time,
        total_time: requested.elapsed(),
    };
    let mut out = io::stdout().lock();
    let printed =
        if args.plain { report.print_texts(&mut out) } else { report.print_in_place(&mut out, args.explain) };
    // A reader that stops early (`| head`) is not an error.
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

impl Args {
    fn completion_options(&self, settings: &Settings) -> Options {
        let mut options = settings.suggest.clone();
        if let Some(lines) = self.max_lines {
            options.max_lines = lines;
        }
        if self.line {
            options.extent = ExtentSetting::Line;
        }
        options
    }
}

/// A position as it is written on the command line.
#[derive(Debug, PartialEq, Eq)]
struct FilePosition {
    path: PathBuf,
    /// Counted from 1.
    line: u32,
    /// In characters, counted from 1.
    column: u32,
}

impl FilePosition {
    /// Parses `PATH:LINE:COLUMN`; the path may contain colons.
    fn parse(text: &str) -> Result<Self> {
        let parsed = text.rsplit_once(':').and_then(|(rest, column)| {
            let (path, line) = rest.rsplit_once(':')?;
            Some(Self { path: path.into(), line: line.parse().ok()?, column: column.parse().ok()? })
        });
        match parsed {
            Some(it) if it.line > 0 && it.column > 0 && !it.path.as_os_str().is_empty() => Ok(it),
            _ => bail!(
                "invalid position `{text}`: expected PATH:LINE:COLUMN, counted from 1, as in src/main.rs:12:5"
            ),
        }
    }
}

/// A file with a cursor.
struct SourceDocument {
    path: PathBuf,
    text: Rope,
    /// In bytes.
    cursor: usize,
}

impl SourceDocument {
    fn read(FilePosition { path, line, column }: FilePosition) -> Result<Self> {
        let bytes = plain_file::read(&path, MAX_FILE_BYTES, Links::Followed)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let Ok(source) = String::from_utf8(bytes) else {
            bail!(
                "{} is not UTF-8 text, and taper reads no other encoding; convert it first",
                path.display()
            );
        };
        let text = Rope::from_str(&source);
        let position = Position { line: line - 1, character: column - 1 };
        let cursor = position::byte_offset(&text, position, Encoding::Utf32);
        if position::position_at(&text, cursor, Encoding::Utf32) != position {
            bail!(
                "position {line}:{column} is outside {}: it has {} lines, and the column must be on its line",
                path.display(),
                text.len_lines()
            );
        }
        Ok(Self { path, text, cursor })
    }

    fn take_snapshot(&self, options: Options) -> Snapshot {
        let language = taper_grammars::by_path(&self.path);
        let parse_end = Instant::now() + PARSE_BUDGET;
        let mut is_late = || Instant::now() > parse_end;
        Snapshot {
            syntax: language.and_then(|language| {
                Syntax::parse_around(&self.text, language, self.cursor, RegionSize::DEFAULT, &mut is_late)
            }),
            language,
            path: shown_path(&self.path),
            trigger: Trigger::Invoked,
            ..Snapshot::new(self.text.clone(), self.cursor, options)
        }
    }
}

/// At most `bytes` of the other files in the file's workspace that may help at the cursor.
fn find_snippets(path: &Path, snapshot: &Snapshot, settings: &Settings, bytes: usize) -> Vec<Snippet> {
    let (Some((root, inside)), Some(language)) = (find_workspace(path), snapshot.language) else {
        return Vec::new();
    };
    let mode = CrawlMode::Apart(crawler::current_program().unwrap_or_default());
    let excluded = &settings.excluded_files;
    let index = crawler::crawl_index(mode, &root, slice::from_ref(&inside), excluded, CRAWL_BUDGET);
    let query = Query { text: &snapshot.text, cursor: snapshot.cursor, path: &inside, language };
    index.find_snippets(query, bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_parsed() {
        for path in ["a/b.rs", "C:\\x.rs"] {
            let expected = FilePosition { path: path.into(), line: 3, column: 7 };
            assert_eq!(FilePosition::parse(&format!("{path}:3:7")).ok(), Some(expected));
        }
        for wrong in ["a.rs", "a.rs:1", "a.rs:0:1", "a.rs:1:0", "a.rs:x:1", ":1:1", "a.rs:1:99999999999"] {
            let message = FilePosition::parse(wrong).map(|_| ()).map_err(|error| error.to_string());
            assert!(message.is_err_and(|it| it.contains(wrong)), "{wrong}");
        }
    }
}
