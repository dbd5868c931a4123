//! `taper-eval run`: scores completion tasks through the whole completion path, optionally with llama.cpp as a
//! baseline. It calls the library directly, as `complete` does.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use taper_engine::Engine;

use crate::answers::{Answer, Answers};
use crate::llama::Llama;
use crate::tasks::{self, Task};
use taper::cli::load::{self, ModelArgs};
use taper::cli::terminal::EscapedWriter;
use taper::completion::alternatives;
use taper::prompt::calibration::Calibration;
use taper::prompt::template::Profile;

mod ask;
mod check;
mod curve;
mod explain;
mod fit;
mod form;
mod interval;
mod levels;
mod likelihood;
mod runner;
mod sample;
mod score;
mod table;
mod tune;
mod workspaces;

use ask::Taper;
use score::Score;
use workspaces::Workspaces;

/// Arguments of `taper-eval run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  taper-eval run tasks/*.jsonl --sample 10 --out runs/today
  taper-eval run tasks/*.jsonl --sample 10 --out runs/today --against-llama http://127.0.0.1:8080
  taper-eval run tasks/real_python_word.jsonl --explain ID
  taper-eval run tasks/real_*.jsonl --sample 5 --tune model.gguf

A task is one JSON object per line: `id`, `set`, `language`, `kind`, `path`, `prefix`, `suffix`, `expected`, and, where a \
                  completion can be tested, `tests`. With --out the answers are kept as they arrive: a run that was \
                  killed resumes, and a task is asked again if the configuration or the build changed.")]
pub struct Args {
    /// Files of tasks.
    #[arg(required = true, value_name = "TASKS.jsonl")]
    tasks: Vec<PathBuf>,
    /// Only N tasks of each set, kind and language.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Seed of the sample: the same seed draws the same tasks, and a larger sample contains a smaller one.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Keep the results in this folder: answers.jsonl, scores.csv (one line per set and language), tasks.csv (one line
    /// per task).
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Also write the calibration of probabilities there, reliability.csv, coverage.csv, curve.svg, and the scores of
    /// each eagerness, eagerness.csv; and propose the model's row for server/prompt/calibration.rs.
    #[arg(long, requires = "out")]
    curve: bool,
    /// Request up to N suggestions explicitly, and also score whether any of them is the expected text.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=alternatives::MAX_SUGGESTIONS as i64),
          conflicts_with_all = ["curve", "tune", "explain"])]
    candidates: Option<u8>,
    /// Also score greedy decoding by itself, without the alternatives that replace it if nothing of it can be shown.
    #[arg(long, conflicts_with_all = ["candidates", "curve", "tune", "explain"])]
    greedy: bool,
    /// Run the tests of tasks that have some: generated code, in a process without network and with limits.
    #[arg(long)]
    run_tests: bool,
    /// Also ask a llama.cpp server with the same weights: `/infill`, and a bare prompt to `/completion`.
    #[arg(long, value_name = "URL")]
    against_llama: Option<String>,
    /// Use only these ways to ask it; by default, all that the model's format allows.
    // If `--against-llama` is excluded, clap does not require it: these are its conflicts, as with `--by` below.
    #[arg(long, value_name = "HOW", value_enum, value_delimiter = ',', requires = "against_llama")]
    #[arg(conflicts_with_all = ["tune", "check", "explain"])]
    baseline: Vec<ask::Baseline>,
    /// Show one task: prompt, raw answer, each cut with its rule, result.
    #[arg(long, value_name = "ID", conflicts_with_all = ["tune", "check", "out", "against_llama"])]
    explain: Option<String>,
    /// Compare the forms of a prompt with this model, and propose its row for server/prompt/template.rs.
    #[arg(long, value_name = "NAME|PATH", conflicts_with_all = ["model", "check", "against_llama", "run_tests"])]
    tune: Option<String>,
    /// Compare forms by their answers, or by the likelihood of the expected line. That needs no decoding and gives more
    /// than one bit per task.
    #[arg(long, value_name = "BY", value_enum, default_value_t, requires = "tune")]
    #[arg(conflicts_with_all = ["model", "check", "against_llama", "run_tests"])]
    by: tune::By,
    /// Fail if a score falls below this table of an earlier run by more than its noise.
    #[arg(long, value_name = "SCORES.csv", conflicts_with_all = ["against_llama"])]
    check: Option<PathBuf>,
    /// Retrieve from the other files of the tasks' projects, each in a folder of this one, instead of from the tasks'
    /// own `context`.
    #[arg(long, value_name = "FOLDER")]
    workspaces: Option<PathBuf>,
    #[command(flatten)]
    form: form::FormArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// The system name of our own greedy decoding.
const GREEDY: &str = "greedy";

/// A task, its answer, and the scores.
struct ScoredAnswer<'t> {
    task: &'t Task,
    answer: Answer,
    score: Score,
}

/// Runs the command.
///
/// # Errors
/// The tasks cannot be read, the model or the server is not available, a file cannot be written, or a score fell.
pub fn run(args: &Args) -> Result<()> {
    let mut tasks = Vec::new();
    for path in &args.tasks {
        tasks.extend(tasks::read(path)?);
    }
    if let Some(id) = &args.explain {
        let Some(task) = tasks.iter().find(|task| task.id == *id) else {
            bail!("no task has the id `{id}`; the first is `{}`", tasks.first().map_or("", |it| &it.id));
        };
        let mut engine = load::load_engine(&args.model)?;
        let profile = args.form.profile(engine.as_ref());
        let options = args.form.options();
        return ignore_broken_pipe(explain::print(
            task,
            profile,
            options,
            engine.as_mut(),
            &mut EscapedWriter::new(&mut io::stdout().lock()),
        ));
    }
    if let Some(folder) = args.workspaces.as_ref().filter(|it| !it.is_dir()) {
        bail!("no folder {}: it should have a project in each of its folders", folder.display());
    }
    let tasks = sample::draw(tasks, args.sample, args.seed);
    if tasks.is_empty() {
        bail!("there are no tasks in these files");
    }
    if args.run_tests {
        runner::ready()?;
    }
    let model = match &args.tune {
        Some(model) => ModelArgs { model: Some(model.clone()), ..args.model.clone() },
        None => args.model.clone(),
    };
    let mut engine = load::load_engine(&model)?;
    let mut kept = AnswerStore::open(args.out.as_deref())?;
    let mut workspaces = args.workspaces.clone().map(Workspaces::new);
    if args.tune.is_some() {
        return tune::run(&tasks, args.by, &args.form, engine.as_mut(), workspaces.as_mut(), &mut kept);
    }

    let profile = args.form.profile(engine.as_ref());
    let mut baselines = ask::Baseline::of(&profile);
    baselines.retain(|it| args.baseline.is_empty() || args.baseline.contains(it));
    if baselines.is_empty() {
        bail!("this model's format allows no bare prompt: leave out --baseline");
    }
    let mut taper = Taper::new(engine.as_mut(), profile.clone(), args.form.options())
        .with_candidates(args.candidates.map(usize::from))
        .with_workspaces(workspaces.as_mut());
    print_progress(&format!("{} tasks; {}", tasks.len(), taper.configuration));
    let mut scored =
        ask_all(&tasks, &mut kept, args.run_tests, &taper.configuration.clone(), "taper", |task| {
            taper.ask(task)
        })?;
    if args.greedy {
        let configuration = format!("{}; greedy", taper.configuration);
        let plain: HashMap<&str, Answer> =
            scored.iter().map(|it| (it.task.id.as_str(), it.answer.without_search())).collect();
        let ask = |task: &Task| Ok(plain.get(task.id.as_str()).cloned().unwrap_or_default());
        scored.extend(ask_all(
            &tasks,
            &mut AnswerStore::default(),
            args.run_tests,
            &configuration,
            GREEDY,
            ask,
        )?);
    }
    if let Some(address) = &args.against_llama {
        let llama = Llama::new(address)?;
        for system in baselines {
            let configuration = system.configuration(engine.as_ref(), &profile, &args.form.options());
            let options = args.form.options();
            scored.extend(ask_all(
                &tasks,
                &mut kept,
                args.run_tests,
                &configuration,
                system.name(),
                |task| Ok(system.ask(&llama, task, &profile, engine.tokenizer(), &options)?),
            )?);
        }
    }
    report_results(args, &scored, &profile, engine.as_mut())
}

/// Prints the table, writes the files, and checks the scores.
fn report_results(
    args: &Args,
    scored: &[ScoredAnswer<'_>],
    profile: &Profile,
    engine: &mut dyn Engine,
) -> Result<()> {
    let rows = table::rows(scored);
    ignore_broken_pipe(table::print(&rows, scored, &mut EscapedWriter::new(&mut io::stdout().lock())))?;
    if let Some(folder) = &args.out {
        write(&folder.join("scores.csv"), |out| table::csv(&rows, out))?;
        write(&folder.join("tasks.csv"), |out| table::tasks_csv(scored, out))?;
        if args.curve {
            if let Some(Calibration { bias, mean, min, all }) = fit::calibration(&curve::lines(scored)) {
                print_progress(&format!(
                    "this model's row for server/prompt/calibration.rs, from these tasks:\n    Calibration {{ bias: \
                     {bias:.2}, mean: {mean:.2}, min: {min:.2}, all: {all:.2} }}"
                ));
            }
            let points = curve::points(scored, profile.calibration);
            write(&folder.join("reliability.csv"), |out| curve::reliability_csv(&points, out))?;
            write(&folder.join("coverage.csv"), |out| curve::coverage_csv(&points, out))?;
            write(&folder.join("curve.svg"), |out| curve::svg(&points, out))?;
            let levels = levels::of(scored, profile, &args.form.options(), engine)?;
            write(&folder.join("eagerness.csv"), |out| levels::csv(&levels, out))?;
        }
    }
    if let Some(path) = &args.check {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let former = table::read_csv(&text).with_context(|| path.display().to_string())?;
        let regressions = check::regressions(&former, &rows)?;
        if !regressions.is_empty() {
            bail!(
                "{} fell by more than noise, compared with {}:\n  {}",
                if regressions.len() == 1 { "a score" } else { "scores" },
                path.display(),
                regressions.join("\n  ")
            );
        }
        print_progress(&format!("no score fell below {} by more than its noise", path.display()));
    }
    Ok(())
}

/// The answers of earlier runs, and the file for new ones, if there is one.
#[derive(Default)]
struct AnswerStore {
    file: Option<Answers>,
    answers: HashMap<String, Answer>,
}

impl AnswerStore {
    fn open(folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self::default()) };
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (file, answers) = Answers::<Answer>::open(&folder.join("answers.jsonl"))?;
        let answers = answers.into_iter().map(|it| (key(&it.task, &it.content, &it.configuration), it));
        Ok(Self { file: Some(file), answers: answers.collect() })
    }

    fn find(&self, task: &Task, configuration: &str) -> Option<Answer> {
        self.answers.get(&key(&task.id, &sample::content(task), configuration)).cloned()
    }

    fn keep(&mut self, answer: &Answer) -> Result<()> {
        self.answers.insert(key(&answer.task, &answer.content, &answer.configuration), answer.clone());
        match &mut self.file {
            Some(file) => Ok(file.append(answer)?),
            None => Ok(()),
        }
    }
}

fn key(task: &str, content: &str, configuration: &str) -> String {
    format!("{task}\n{content}\n{configuration}")
}

/// Answers to all tasks: the kept ones, and the others by `ask`.
fn ask_all<'t>(
    tasks: &'t [Task],
    kept: &mut AnswerStore,
    run_tests: bool,
    configuration: &str,
    system: &str,
    mut ask: impl FnMut(&Task) -> Result<Answer>,
) -> Result<Vec<ScoredAnswer<'t>>> {
    let bar = ProgressBar::new(tasks.len() as u64).with_message(system.to_owned());
    let mut all = Vec::new();
    for task in tasks {
        all.push(scored(task, kept, run_tests, configuration, system, &mut ask)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(all)
}

/// The answer to one task: the kept one, or by `ask`.
fn scored<'t>(
    task: &'t Task,
    kept: &mut AnswerStore,
    run_tests: bool,
    configuration: &str,
    system: &str,
    ask: impl FnOnce(&Task) -> Result<Answer>,
) -> Result<ScoredAnswer<'t>> {
    let mut answer = match kept.find(task, configuration) {
        Some(answer) => answer,
        None => {
            let answer = Answer {
                task: task.id.clone(),
                content: sample::content(task),
                system: system.to_owned(),
                configuration: configuration.to_owned(),
                ..ask(task)?
            };
            kept.keep(&answer)?;
            answer
        }
    };
    if run_tests && answer.passed.is_none() {
        answer.passed = match answer.shown {
            // A suggestion that is not shown cannot be right, which needs no process.
            None => runner::can_test(task).then_some(false),
            Some(_) => runner::passes(task, score::inserted(task, &answer))?,
        };
        if answer.passed.is_some() {
            kept.keep(&answer)?;
        }
    }
    Ok(ScoredAnswer { task, score: Score::of(task, &answer), answer })
}

/// Writes a file as a whole.
fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let written = || -> io::Result<()> {
        let mut file = io::BufWriter::new(fs::File::create(path)?);
        fill(&mut file)?;
        file.flush()
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// A closed pipe (`| head`) is not an error.
fn ignore_broken_pipe(written: Result<()>) -> Result<()> {
    match written {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Prints progress to stderr.
#[expect(clippy::print_stderr, reason = "stdout is for the table")]
fn print_progress(text: &str) {
    eprintln!("{text}");
}
