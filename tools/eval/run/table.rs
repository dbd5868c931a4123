//! Aggregates scores per set and language: prints them, and writes and reads CSV.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use anyhow::{Context, Result, bail};

use super::interval::{self, Estimate};
use super::sample::Stratum;
use super::{GREEDY, ScoredAnswer};

/// One column.
#[derive(Debug)]
pub(super) struct Metric {
    /// Its name in CSV files and messages.
    pub(super) name: &'static str,
    /// Its head in the printed table.
    head: &'static str,
    of: fn(&ScoredAnswer<'_>) -> Option<f64>,
    /// Yes or no for each task, so printed in percent.
    share: bool,
    /// Whether its interval is printed as well.
    wide: bool,
    /// Whether a higher value is better, a lower one, or neither.
    pub(super) better: Better,
}

/// The direction of improvement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Up,
    Down,
    Neither,
}

fn indicator(value: bool) -> Option<f64> {
    Some(f64::from(u8::from(value)))
}

/// All columns.
pub(super) static METRICS: &[Metric] = &[
    metric("exact", "exact %", |it| indicator(it.score.exact), true, true, Better::Up),
    metric("exact_any", "any %", |it| it.score.exact_any.and_then(indicator), true, true, Better::Up),
    metric(
        "suggestions",
        "of",
        |it| Some((it.answer.others.as_ref()?.len() + usize::from(it.score.shown)) as f64),
        false,
        false,
        Better::Neither,
    ),
    metric("exact_first_line", "first", |it| indicator(it.score.exact_first), true, false, Better::Up),
    metric("similarity", "simil.", |it| Some(it.score.similarity), false, false, Better::Up),
    metric("pass", "pass@1 %", |it| it.score.passed.and_then(indicator), true, true, Better::Up),
    metric(
        "saved",
        "saved",
        |it| Some(it.score.saved as f64 / it.score.expected.max(1) as f64),
        false,
        false,
        Better::Up,
    ),
    metric("shown", "shown", |it| indicator(it.score.shown), true, false, Better::Up),
    metric("parses", "parses", |it| it.score.parses.and_then(indicator), true, false, Better::Up),
    metric("repeats", "repeats", |it| it.score.repeats.and_then(indicator), true, false, Better::Down),
    metric("half_word", "half", |it| it.score.half_word.and_then(indicator), true, false, Better::Down),
    metric("prompt_tokens", "read", |it| Some(it.answer.prompt_tokens as f64), false, false, Better::Neither),
    metric("decoded", "written", |it| Some(it.answer.decoded as f64), false, false, Better::Neither),
    metric("ms", "ms", |it| Some(it.answer.seconds * 1e3), false, false, Better::Neither),
];

const fn metric(
    name: &'static str,
    head: &'static str,
    of: fn(&ScoredAnswer<'_>) -> Option<f64>,
    share: bool,
    wide: bool,
    better: Better,
) -> Metric {
    Metric { name, head, of, share, wide, better }
}

/// The name for all languages, all kinds, all sets.
const ALL: &str = "all";

/// The scores of one system on one stratum, or on several together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) system: String,
    pub(super) stratum: Stratum,
    pub(super) tasks: usize,
    /// One value per [`METRICS`] entry.
    pub(super) values: Vec<Option<Estimate>>,
}

impl Row {
    /// The row's name in messages.
    pub(super) fn name(&self) -> String {
        let Stratum { set, kind, language } = &self.stratum;
        format!("{set} {kind} {language}")
    }
}

/// One row per system and stratum, one for all languages of a set and kind, and one for everything.
pub(super) fn rows(scored: &[ScoredAnswer<'_>]) -> Vec<Row> {
    let mut systems: Vec<&str> = Vec::new();
    let mut groups: BTreeMap<(Stratum, usize), Vec<&ScoredAnswer<'_>>> = BTreeMap::new();
    for it in scored {
        let system = systems.iter().position(|name| *name == it.answer.system).unwrap_or_else(|| {
            systems.push(&it.answer.system);
            systems.len() - 1
        });
        for stratum in strata(it) {
            groups.entry((stratum, system)).or_default().push(it);
        }
    }
    let row = |((stratum, system), tasks): ((Stratum, usize), Vec<&ScoredAnswer<'_>>)| Row {
        system: systems[system].to_owned(),
        stratum,
        tasks: tasks.len(),
        values: METRICS.iter().map(|metric| metric.estimate(&tasks)).collect(),
    };
    groups.into_iter().map(row).collect()
}

/// The groups that a task counts in.
fn strata(it: &ScoredAnswer<'_>) -> [Stratum; 3] {
    let own = Stratum::of(it.task);
    let languages = Stratum { language: ALL.to_owned(), ..own.clone() };
    let all = Stratum { set: ALL.to_owned(), kind: ALL.to_owned(), language: ALL.to_owned() };
    [own, languages, all]
}

impl Metric {
    /// The largest difference between two tasks' values.
    pub(super) fn span(&self) -> f64 {
        if self.name == "similarity" { 100.0 } else { 1.0 }
    }

    fn estimate(&self, tasks: &[&ScoredAnswer<'_>]) -> Option<Estimate> {
        let values: Vec<f64> = tasks.iter().filter_map(|it| (self.of)(it)).collect();
        if self.share {
            let hits = values.iter().filter(|value| **value > 0.5).count();
            interval::share(hits, values.len())
        } else {
            interval::mean(&values)
        }
    }

    fn text(&self, value: Option<Estimate>) -> String {
        let Some(Estimate { value, low, high }) = value else { return "-".to_owned() };
        let percent = 100.0;
        match (self.share, self.wide) {
            (true, true) => {
                format!("{:.1} ({:.0}-{:.0})", value * percent, low * percent, high * percent)
            }
            (true, false) => format!("{:.1}", value * percent),
            (false, _) if self.name == "saved" => format!("{value:.3}"),
            (false, _) => format!("{value:.1}"),
        }
    }
}

/// Prints the table, and the comparison if several systems answered.
pub(super) fn print(rows: &[Row], scored: &[ScoredAnswer<'_>], out: &mut dyn Write) -> Result<()> {
    // Metrics that were not requested have no column.
    let optional = |metric: &Metric| matches!(metric.name, "pass" | "exact_any" | "suggestions");
    let ran = |at: usize| !optional(&METRICS[at]) || rows.iter().any(|row| row.values[at].is_some());
    let columns: Vec<usize> = (0..METRICS.len()).filter(|&at| ran(at)).collect();
    let width = |at: usize| if METRICS[at].wide { 15 } else { 8 };
    write!(out, "{:<14} {:<13} {:<11} {:<14} {:>5}", "set", "kind", "language", "system", "tasks")?;
    for &at in &columns {
        write!(out, " {:>1$}", METRICS[at].head, width(at))?;
    }
    writeln!(out)?;
    for row in rows {
        let Stratum { set, kind, language } = &row.stratum;
        write!(out, "{set:<14} {kind:<13} {language:<11} {:<14} {:>5}", row.system, row.tasks)?;
        for &at in &columns {
            write!(out, " {:>1$}", METRICS[at].text(row.values[at]), width(at))?;
        }
        writeln!(out)?;
    }
    print_comparison(rows, scored, out)?;
    Ok(())
}

/// Prints our scores as multiples of the better baseline's, over the same tasks, and of our own greedy decoding, which
/// is not a baseline.
fn print_comparison(rows: &[Row], scored: &[ScoredAnswer<'_>], out: &mut dyn Write) -> io::Result<()> {
    let Some(ours) = rows.first().map(|row| row.system.as_str()) else { return Ok(()) };
    let (greedy, others): (Vec<&Row>, Vec<&Row>) =
        rows.iter().filter(|row| row.system != ours).partition(|row| row.system == GREEDY);
    print_ratios("greedy decoding", (ours, rows), &greedy, scored, out)?;
    print_ratios("the better of the others", (ours, rows), &others, scored, out)
}

/// Prints our scores as multiples of the best of `others`, which the heading calls `name`.
fn print_ratios(
    name: &str,
    (ours, rows): (&str, &[Row]),
    others: &[&Row],
    scored: &[ScoredAnswer<'_>],
    out: &mut dyn Write,
) -> io::Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{ours} over {name} (95 % interval over the same tasks)")?;
    for row in rows.iter().filter(|row| row.system == ours) {
        write!(out, "{:<14} {:<13} {:<11}", row.stratum.set, row.stratum.kind, row.stratum.language)?;
        for (at, metric) in METRICS.iter().enumerate() {
            if !matches!(metric.name, "exact" | "similarity" | "pass" | "saved") {
                continue;
            }
            let rivals = others.iter().filter(|it| it.stratum == row.stratum);
            let value = |row: &Row| row.values[at].map_or(0.0, |it| it.value);
            let Some(best) = rivals.max_by(|a, b| value(a).total_cmp(&value(b))) else { continue };
            let pairs = pairs(scored, row, &best.system, metric);
            if pairs.is_empty() {
                continue;
            }
            match interval::ratio(&pairs) {
                Some(it) => write!(
                    out,
                    "  {} {:.2} ({:.2}-{:.2}, {})",
                    metric.name, it.value, it.low, it.high, best.system
                )?,
                None => write!(out, "  {} - ({} has none)", metric.name, best.system)?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

fn pairs(scored: &[ScoredAnswer<'_>], row: &Row, rival: &str, metric: &Metric) -> Vec<(f64, f64)> {
    let inside = |it: &&ScoredAnswer<'_>| strata(it).contains(&row.stratum);
    let values = |system: &str| -> HashMap<(&str, &str), f64> {
        let of = |it: &&ScoredAnswer<'_>| it.answer.system == system;
        let tasks = scored.iter().filter(of).filter(inside);
        tasks.filter_map(|it| Some(((it.task.set.as_str(), it.task.id.as_str()), (metric.of)(it)?))).collect()
    };
    let theirs = values(rival);
    let mut pairs: Vec<_> = values(&row.system).into_iter().collect();
    // A fixed order, so that the resamples are the same.
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.into_iter().filter_map(|(key, ours)| Some((ours, *theirs.get(&key)?))).collect()
}

/// Writes the rows as CSV: shares from 0 to 1, each score with the ends of its 95 % interval.
pub(super) fn csv(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    write!(out, "system,set,kind,language,tasks")?;
    for metric in METRICS {
        write!(out, ",{0},{0}_low,{0}_high", metric.name)?;
    }
    writeln!(out)?;
    for row in rows {
        let Stratum { set, kind, language } = &row.stratum;
        let texts = [&row.system, set, kind, language].map(|text| field(text));
        write!(out, "{},{}", texts.join(","), row.tasks)?;
        for value in &row.values {
            match value {
                Some(it) => write!(out, ",{:.4},{:.4},{:.4}", it.value, it.low, it.high)?,
                None => write!(out, ",,,")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Reads what [`csv`] wrote; unknown columns are skipped.
///
/// # Errors
/// The text is not such a table.
pub(super) fn read_csv(text: &str) -> Result<Vec<Row>> {
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or("").split(',').collect();
    if !head.starts_with(&["system", "set", "kind", "language", "tasks"]) {
        bail!("not a scores.csv of `taper-eval run`: its first line is `{}`", head.join(","));
    }
    let read = |line: &str| -> Result<Row> {
        let fields: Vec<&str> = line.split(',').collect();
        let text = |at: usize| fields.get(at).copied().unwrap_or("").to_owned();
        let number = |name: &str| {
            let at = head.iter().position(|it| *it == name)?;
            fields.get(at)?.parse::<f64>().ok()
        };
        let value = |metric: &Metric| {
            let value = number(metric.name)?;
            let end = |end: &str| number(&format!("{}_{end}", metric.name)).unwrap_or(value);
            Some(Estimate { value, low: end("low"), high: end("high") })
        };
        Ok(Row {
            system: text(0),
            stratum: Stratum { set: text(1), kind: text(2), language: text(3) },
            tasks: text(4).parse().with_context(|| format!("no number of tasks in `{line}`"))?,
            values: METRICS.iter().map(value).collect(),
        })
    };
    lines.filter(|line| !line.is_empty()).map(read).collect()
}

/// Writes a line per task and system.
pub(super) fn tasks_csv(scored: &[ScoredAnswer<'_>], out: &mut dyn Write) -> io::Result<()> {
    write!(out, "system,set,kind,language,id")?;
    for metric in METRICS {
        write!(out, ",{}", metric.name)?;
    }
    writeln!(out, ",saved_characters,expected_characters,mean_probability,min_probability,reason")?;
    for it in scored {
        let Stratum { set, kind, language } = Stratum::of(it.task);
        let texts = [&it.answer.system, &set, &kind, &language, &it.task.id].map(|text| field(text));
        write!(out, "{}", texts.join(","))?;
        for metric in METRICS {
            match (metric.of)(it) {
                Some(value) => write!(out, ",{}", (value * 1e4).round() / 1e4)?,
                None => write!(out, ",")?,
            }
        }
        let probability = |value: Option<f32>| value.map_or(String::new(), |it| format!("{it:.4}"));
        writeln!(
            out,
            ",{},{},{},{},{}",
            it.score.saved,
            it.score.expected,
            probability(it.answer.mean_probability),
            probability(it.answer.min_probability),
            field(&it.answer.reason)
        )?;
    }
    Ok(())
}

/// A text as a field (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::score::Score;
    use super::*;
    use crate::answers::Answer;
    use crate::tasks::Task;

    fn tasks() -> Vec<Task> {
        let task = |language: &str, at: usize| Task {
            id: format!("{language}{at}, \"x\""),
            set: format!("real_{language}_word"),
            kind: "rest-of-line".into(),
            language: language.into(),
            ..Task::default()
        };
        ["python", "rust"].iter().flat_map(|it| (0..4).map(|at| task(it, at))).collect()
    }

    fn scored<'t>(tasks: &'t [Task], system: &str, right: usize) -> Vec<ScoredAnswer<'t>> {
        let one = |(at, task): (usize, &'t Task)| ScoredAnswer {
            task,
            answer: Answer { system: system.to_owned(), ..Answer::default() },
            score: Score { exact: at < right, shown: true, expected: 4, saved: 2, ..Score::default() },
        };
        tasks.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_row_for_each_language_for_all_and_back_from_csv() {
        let tasks = tasks();
        let rows = rows(&scored(&tasks, "taper", 5));
        let names: Vec<String> = rows.iter().map(Row::name).collect();
        assert_eq!(
            names,
            [
                "all all all",
                "real_word rest-of-line all",
                "real_word rest-of-line python",
                "real_word rest-of-line rust"
            ]
        );
        let exact: Vec<f64> = rows.iter().map(|row| row.values[0].unwrap().value).collect();
        assert_eq!(exact, [0.625, 0.625, 1.0, 0.25]);
        let mut text = Vec::new();
        csv(&rows, &mut text).unwrap();
        let read = read_csv(std::str::from_utf8(&text).unwrap()).unwrap();
        assert_eq!(read.len(), 4);
        for (a, b) in rows.iter().zip(&read) {
            assert_eq!((&a.system, &a.stratum, a.tasks), (&b.system, &b.stratum, b.tasks));
            for (a, b) in a.values.iter().zip(&b.values) {
                assert!(a.is_some() == b.is_some());
                assert!(a.is_none_or(|a| (a.value - b.unwrap().value).abs() < 1e-4));
            }
        }
        assert!(read_csv("a,b\n1,2\n").unwrap_err().to_string().contains("not a scores.csv"));
    }

    #[test]
    fn several_systems_are_compared_with_the_better_one() {
        let tasks = tasks();
        let mut all = scored(&tasks, "taper", 6);
        all.extend(scored(&tasks, "weak", 1));
        all.extend(scored(&tasks, "strong", 3));
        let mut text = Vec::new();
        print(&rows(&all), &all, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("exact 2.00 (") && text.contains(", strong)"), "{text}");
        assert!(!text.contains("pass@1"), "{text}");
        let mut text = Vec::new();
        tasks_csv(&all, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(",\"python0, \"\"x\"\"\",1,"), "{text}");
    }
}
