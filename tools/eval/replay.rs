//! `taper-eval replay`: types the answers of completion tasks at a server of the same build, over pipes.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use taper::cli::load::ModelArgs;
use taper::text::{Edit, Encoding, Position, Rope, position};

use crate::tasks::{self, Key, Trace};

mod editor;
mod report;
mod typist;

use editor::{Editor, Outcome, ServerEvent};
use report::{Answer, Keystroke};

/// Arguments of `taper-eval replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: taper-eval replay tasks.jsonl --limit 20 --csv keys.csv

A task is one JSON object per line: `id`, `language`, `path`, `prefix`, `suffix`, `expected`. Pauses are log-normal \
                  around --pause-ms, longer after a word (1.6 times) and at a line's end (2 and 3 times). A new \
                  line begins with Enter at the end of the line above. A suggestion is accepted at the next key if its \
                  first line is the rest of the line and has at least 3 characters.")]
pub struct Args {
    /// The tasks.
    tasks: PathBuf,
    /// Type only N of them, spread over the file.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Seed of the pauses: the same seed gives the same pauses.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The median pause between two keys in a word, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 130)]
    pause_ms: u32,
    /// The median pause before the first key of a file, in milliseconds; by default eight pauses, as if the cursor had
    /// just been moved there.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=600_000))]
    look_ms: Option<u32>,
    /// The server's latency budget, in milliseconds; later responses are not in time.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=60_000))]
    budget_ms: u32,
    /// How readily the server suggests: low, medium or high; by default, its own default.
    #[arg(long, value_name = "EAGERNESS", value_parser = ["low", "medium", "high"])]
    eagerness: Option<String>,
    /// Wait for each response before the next key: what a patient user sees.
    #[arg(long)]
    patient: bool,
    /// Behave as an editor without taper's plugin: do not request again on a refresh, and do not report the cursor
    /// before the first key.
    #[arg(long)]
    plain: bool,
    /// Let the server index the other files of the tasks' projects, each in a folder of this one; by default there are
    /// none.
    #[arg(long, value_name = "FOLDER")]
    workspaces: Option<PathBuf>,
    /// Repeat the tasks with other pauses for N minutes, and report the server's memory each minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    minutes: Option<u32>,
    /// Write the result of each key to this file.
    #[arg(long, value_name = "PATH")]
    csv: Option<PathBuf>,
    /// Write keys and pauses to this file, for another program to replay, and exit.
    #[arg(long, value_name = "PATH")]
    dump_trace: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

/// Timeout of loading the model, which may be downloaded first.
const LOAD: Duration = Duration::from_secs(1800);
/// Timeout of a response with `--patient`.
const PATIENCE: Duration = Duration::from_secs(60);
/// Delay before an editor reports an idle cursor.
const CURSOR_IDLE: Duration = Duration::from_millis(100);
/// The shortest rest of a line that is worth accepting with a key.
const WORTH_ACCEPTING: usize = 3;

/// Runs the command.
///
/// # Errors
/// The tasks cannot be read, or the server fails.
pub fn run(args: &Args) -> Result<()> {
    let tasks = tasks::read(&args.tasks)?;
    if tasks.is_empty() {
        bail!("no tasks in {}", args.tasks.display());
    }
    let mut random = fastrand::Rng::with_seed(args.seed);
    // Spread over the whole file, the same every time.
    let limit = args.limit.unwrap_or(usize::MAX).clamp(1, tasks.len());
    let mut typed = || -> Vec<Trace> {
        let chosen = (0..limit).map(|at| &tasks[at * tasks.len() / limit]);
        chosen
            .map(|task| {
                typist::typed(task, f64::from(args.pause_ms), args.look_ms.map(f64::from), &mut random)
            })
            .collect()
    };
    let traces = typed();
    if let Some(path) = &args.dump_trace {
        return Ok(tasks::write(path, &traces)?);
    }

    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let budget = Duration::from_millis(u64::from(args.budget_ms));
    // With `--patient`, wait for the whole response.
    let plain = args.plain || args.patient;
    let (folder, mut folders) = match &args.workspaces {
        Some(folder) => {
            let whole = folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?;
            let whole = whole.to_str().with_context(|| format!("{} is not UTF-8", whole.display()))?;
            let projects = traces.iter().filter_map(|it| tasks::project(&it.path));
            (whole.to_owned(), projects.map(|(project, _)| format!("{whole}/{project}")).collect())
        }
        None => (editor::VIRTUAL_FOLDER.to_owned(), vec![editor::VIRTUAL_FOLDER.to_owned()]),
    };
    folders.sort_unstable();
    folders.dedup();
    let mut editor = Editor::start(&editor::StartOptions {
        program: &program,
        arguments: &arguments(&args.model),
        budget,
        refreshes: !plain,
        eagerness: args.eagerness.as_deref(),
        folders: &folders,
    })?;
    editor.wait_ready(LOAD)?;
    let mut typing = ReplayRun {
        editor,
        folder,
        patient: args.patient,
        plain,
        keystrokes: Vec::new(),
        open: HashMap::new(),
        memory: MemorySamples::default(),
    };
    typing.memory.sample(typing.editor.pid());
    let (mut count, mut expected) = (0, 0);
    let mut round = traces;
    // At least once; then repeated while there is time.
    'typing: loop {
        for trace in &round {
            if count >= limit && typing.memory.minutes() >= args.minutes.unwrap_or(0) {
                break 'typing;
            }
            typing.task(trace)?;
            count += 1;
            // Line breaks are always pressed: no suggestion replaces them.
            expected += trace.keys.iter().filter(|key| !typist::breaks(&key.text)).count();
        }
        round = typed();
    }
    typing.wait_outstanding()?;
    let peak = memory(typing.editor.pid(), "VmHWM:");
    typing.memory.sample(typing.editor.pid());
    let ReplayRun { editor, keystrokes, memory, .. } = typing;
    editor.quit()?;

    let mut out = io::stdout().lock();
    let session = report::Session {
        tasks: count,
        expected,
        budget,
        peak,
        resident: if args.minutes.is_some() { &memory.resident } else { &[] },
        keystrokes: &keystrokes,
    };
    report::table(&session, &mut out).context("cannot print")?;
    if let Some(path) = &args.csv {
        let write = || -> io::Result<()> {
            let mut file = io::BufWriter::new(fs::File::create(path)?);
            report::csv(&keystrokes, &mut file)?;
            file.flush()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The server's arguments.
fn arguments(model: &ModelArgs) -> Vec<String> {
    let ModelArgs { model, device, kernel, threads, context, offline, engine } = model;
    let mut arguments: Vec<String> = ["serve", "--stdio", "--log", "warn"].map(str::to_owned).to_vec();
    let options = [
        ("--model", model.clone()),
        ("--device", device.clone()),
        ("--kernel", kernel.clone()),
        ("--threads", threads.map(|it| it.to_string())),
        ("--context", context.map(|it| it.to_string())),
        ("--engine", engine.clone()),
    ];
    for (name, value) in options {
        if let Some(value) = value {
            arguments.extend([name.to_owned(), value]);
        }
    }
    if *offline {
        arguments.push("--offline".to_owned());
    }
    arguments
}

/// Prints a message of the server to the user.
#[expect(clippy::print_stderr, reason = "stdout is the table's")]
fn print_server_message(message: &str) {
    eprintln!("taper: {message}");
}

/// Memory of a process in bytes, where the system reports it: `VmRSS:` now, `VmHWM:` peak.
fn memory(pid: u32, which: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Samples of the server's memory.
struct MemorySamples {
    began: Instant,
    /// At the beginning, after each minute, and at the end; bytes, where the system reports it.
    resident: Vec<Option<u64>>,
}

impl Default for MemorySamples {
    fn default() -> Self {
        Self { began: Instant::now(), resident: Vec::new() }
    }
}

impl MemorySamples {
    /// Whole minutes since the beginning.
    fn minutes(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_secs() / 60).unwrap_or(u32::MAX)
    }

    /// Samples once a minute; to be called often.
    fn sample_if_due(&mut self, pid: u32) {
        if self.minutes() as usize >= self.resident.len() {
            self.sample(pid);
        }
    }

    fn sample(&mut self, pid: u32) {
        self.resident.push(memory(pid, "VmRSS:"));
    }
}

/// The text that remains to be typed in this line.
fn rest_of_line(keys: &[Key]) -> String {
    keys.iter().map(|key| key.text.as_str()).take_while(|key| !typist::breaks(key)).collect()
}

/// The newest request and its suggestion.
#[derive(Default)]
struct LatestRequest<'a> {
    /// The id of the newest request.
    id: Option<i64>,
    /// Its document, version and cursor.
    place: Option<(&'a str, i64, Position)>,
    /// The shown suggestion.
    shown: Option<String>,
}

/// The state of a replay.
struct ReplayRun {
    editor: Editor,
    /// The folder that the tasks' paths are relative to.
    folder: String,
    patient: bool,
    plain: bool,
    keystrokes: Vec<Keystroke>,
    /// Requests without a response: their index in `keystrokes`, and when they were sent.
    open: HashMap<i64, (usize, Instant)>,
    memory: MemorySamples,
}

impl ReplayRun {
    fn task(&mut self, trace: &Trace) -> Result<()> {
        let uri = editor::uri(&self.folder, &trace.path);
        let mut text = Rope::from_str(&format!("{}{}", trace.prefix, trace.suffix));
        let mut cursor = trace.prefix.len();
        let mut version = 1;
        self.editor.open(&uri, &trace.language, &text.to_string())?;
        let opened = Instant::now();
        let at = position::position_at(&text, cursor, Encoding::Utf16);
        if !self.plain {
            self.handle_events(
                opened + CURSOR_IDLE.min(milliseconds(trace.look_ms)),
                &mut LatestRequest::default(),
            )?;
            self.editor.notify_cursor(&uri, at)?;
        }
        self.handle_events(opened + milliseconds(trace.look_ms), &mut LatestRequest::default())?;

        let mut at = 0;
        let mut shown: Option<String> = None;
        let mut request: Option<i64> = None;
        while let Some(key) = trace.keys.get(at) {
            self.memory.sample_if_due(self.editor.pid());
            let rest = rest_of_line(&trace.keys[at..]);
            let length = rest.chars().count();
            let fits = shown.take().is_some_and(|it| it.lines().next() == Some(rest.as_str()));
            let (inserted, keys) = if fits && length >= WORTH_ACCEPTING {
                // Each key of the rest is one character.
                (rest, length)
            } else {
                (key.text.clone(), 1)
            };
            let pause_ms = trace.keys[at + keys - 1].pause_ms;
            let before = position::position_at(&text, cursor, Encoding::Utf16);
            version += 1;
            let edit = Edit::insert(cursor, inserted.clone());
            edit.apply(&mut text).context("a key does not fit into its document")?;
            cursor += inserted.len();
            let after = position::position_at(&text, cursor, Encoding::Utf16);

            if let Some(id) = request.filter(|id| self.open.contains_key(id)) {
                self.editor.cancel(id)?;
            }
            self.editor.insert(&uri, version, before, &inserted)?;
            let sent = Instant::now();
            let id = self.editor.ask(&uri, after)?;
            self.open.insert(id, (self.keystrokes.len(), sent));
            self.keystrokes.push(Keystroke {
                task: trace.id.clone(),
                at,
                saved: if keys > 1 { length } else { 0 },
                pause_ms,
                ..Keystroke::default()
            });
            request = Some(id);
            let mut waiting =
                LatestRequest { id: Some(id), place: Some((&uri, version, after)), shown: None };
            self.handle_events(sent + milliseconds(pause_ms), &mut waiting)?;
            shown = waiting.shown;
            if let Some((place, _)) = self.open.get(&id) {
                self.keystrokes[*place].overtaken = true;
            }
            at += keys;
        }
        if let Some(id) = request.filter(|id| self.open.contains_key(id)) {
            self.editor.cancel(id)?;
        }
        Ok(self.editor.close(&uri)?)
    }

    /// Handles events until `end`; with `patient`, until there is a response, too. Requests again on a refresh.
    fn handle_events(&mut self, end: Instant, waiting: &mut LatestRequest<'_>) -> Result<()> {
        loop {
            let waits = self.patient && waiting.id.is_some_and(|id| self.open.contains_key(&id));
            let until = if waits { end.max(Instant::now() + PATIENCE) } else { end };
            match self.editor.next_event(until)? {
                None if waits => bail!("no response to a request for {} s", PATIENCE.as_secs()),
                None => return Ok(()),
                Some(ServerEvent::Answer { id, at, outcome }) => {
                    if Some(id) == waiting.id
                        && let Outcome::Text { text, inserts: true } = &outcome
                    {
                        waiting.shown = Some(text.clone());
                    }
                    self.record_outcome(id, at, &outcome);
                }
                Some(ServerEvent::Refresh { uri, version }) => {
                    if let Some((its, at, place)) = waiting.place
                        && (its, at) == (uri.as_str(), version)
                    {
                        waiting.id = Some(self.editor.ask(its, place)?);
                    }
                }
                Some(ServerEvent::Completed { evaluated, decoded }) => self.count_work(evaluated, decoded),
                Some(ServerEvent::Problem(message)) => print_server_message(&message),
                Some(ServerEvent::Ready) => {}
            }
        }
    }

    /// Waits for outstanding responses.
    fn wait_outstanding(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.open.is_empty() {
            match self.editor.next_event(end)? {
                Some(ServerEvent::Answer { id, at, outcome }) => self.record_outcome(id, at, &outcome),
                Some(ServerEvent::Completed { evaluated, decoded }) => self.count_work(evaluated, decoded),
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }

    fn record_outcome(&mut self, id: i64, at: Instant, outcome: &Outcome) {
        let Some((place, sent)) = self.open.remove(&id) else { return };
        let keystroke = &mut self.keystrokes[place];
        keystroke.answer_ms = Some((at - sent).as_secs_f64() * 1e3);
        keystroke.answer = match outcome {
            Outcome::Text { text, .. } => Answer::Text(text.chars().count()),
            Outcome::Nothing => Answer::Empty,
            Outcome::Refused if keystroke.overtaken => Answer::Cancelled,
            Outcome::Refused => Answer::Failed,
        };
    }

    /// Counts work for the newest key, although the previous one may have requested it.
    fn count_work(&mut self, evaluated: u64, decoded: u64) {
        if let Some(keystroke) = self.keystrokes.last_mut() {
            keystroke.evaluated += evaluated;
            keystroke.decoded += decoded;
        }
    }
}

fn milliseconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number / 1e3).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_sampled_once_a_minute() {
        let mut memory = MemorySamples::default();
        let pid = std::process::id();
        memory.sample(pid);
        memory.sample_if_due(pid);
        assert_eq!((memory.minutes(), memory.resident.len()), (0, 1));
        if let Some(began) = memory.began.checked_sub(Duration::from_secs(125)) {
            memory.began = began;
            (0..5).for_each(|_| memory.sample_if_due(pid));
            assert_eq!((memory.minutes(), memory.resident.len()), (2, 3));
        }
    }
}
