//! `taper stats`: what was suggested and what became of it, today and all time.
//! It knows nothing of how that is counted.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use anyhow::Context as _;
use chrono::{Days, NaiveDate};

use super::terminal;
use crate::protocol::counts::{Book, Counts};
use crate::protocol::ledger::Ledger;
use crate::protocol::statistics::{report_text, today};

/// Characters of a full bar.
const BAR: usize = 30;
/// Days of the plot.
const DAYS: u64 = 14;

/// Show what was suggested and what became of it, today and all time: counted on this machine, sent nowhere.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "Examples:
  taper stats           tables by language and model, latencies, plots
  taper stats --json    the same counts for programs

accepted: all that was left was taken; partly: a word or a line of it was; typed along: at least its first word was
typed as suggested; dismissed: none of that. A server adds its counts once a minute and when it ends.

`statistics = false` in the configuration switches the counting off.")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// There is no home folder, the file cannot be read or is none of taper's, or stdout is closed.
pub fn run(args: Args) -> anyhow::Result<()> {
    let ledger = Ledger::open()?;
    let book = ledger.read()?;
    let file = ledger.path().display().to_string();
    let text = if args.json { report_text(&book, today()) } else { shown(&book, today(), &file) };
    io::stdout().write_all(terminal::plain(&text).as_bytes()).context("cannot write to stdout")
}

fn shown(book: &Book, today: NaiveDate, file: &str) -> String {
    let off = "`statistics = false` in the configuration switches the counting off.";
    if book.is_empty() {
        return format!(
            "Nothing was counted yet. Servers count what they suggest and what becomes of it, and add that to\n\
             {file}\n\
             once a minute and when they end: numbers only, never code, and nothing is sent.\n{off}\n"
        );
    }
    let mut text = part(&format!("today, {today}"), book, Some(today));
    text += &part(&format!("all time, since {}", book.since().unwrap_or("?")), book, None);
    text += &latencies(&book.total(None));
    text += &days(book, today);
    text + &format!("\nOnly in {file}, numbers only; delete it to forget.\n{off}\n")
}

/// A table of a day, or of all days.
fn part(title: &str, book: &Book, day: Option<NaiveDate>) -> String {
    let total = book.total(day);
    if total == Counts::default() {
        return format!("{title}: nothing\n\n");
    }
    let mut rows = vec![("all".to_owned(), total)];
    let mut add = |sums: BTreeMap<String, Counts>| {
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, counts)| std::cmp::Reverse((counts.shown, counts.asked)));
        rows.extend(sums);
    };
    add(book.by_language(day));
    let languages = book.by_language(day).len();
    add(book.by_model(day));
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(8);
    let mut text = format!("{title}\n");
    text += &format!(
        "  {:width$} {:>8} {:>8} {:>9} {:>6} {:>7} {:>7} {:>10} {:>11}\n",
        "", "asked", "shown", "accepted", "rate", "partly", "typed", "dismissed", "characters",
    );
    for (index, (name, counts)) in rows.iter().enumerate() {
        if index == 1 || index == 1 + languages {
            text += &format!("  {}\n", if index == 1 { "by language" } else { "by model" });
        }
        let Counts { asked, shown, accepted, partly, typed, dismissed, characters, .. } = counts;
        text += &format!(
            "  {name:width$} {asked:>8} {shown:>8} {accepted:>9} {:>6} {partly:>7} {typed:>7} {dismissed:>10} {characters:>11}\n",
            rate(*accepted, *shown),
        );
    }
    let latency = |percent| rows[0].1.latency.percentile(percent).map(milliseconds);
    if let (Some(p50), Some(p95), Some(p99)) = (latency(50), latency(95), latency(99)) {
        text += &format!("  question to answer: p50 {p50}, p95 {p95}, p99 {p99}\n");
    }
    text + "\n"
}

fn rate(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.0} %", part as f64 * 100.0 / whole as f64) }
}

fn milliseconds(time: f64) -> String {
    if time < 10.0 { format!("{time:.1} ms") } else { format!("{time:.0} ms") }
}

/// How long answers took, a bar for each doubling.
fn latencies(total: &Counts) -> String {
    let mut bars: Vec<(String, u64)> = vec![("below 1 ms".to_owned(), total.latency.between(0, 1))];
    for octave in 0..9 {
        let (from, to) = (1 << octave, 2 << octave);
        bars.push((format!("{from} to {to} ms"), total.latency.between(from, to)));
    }
    bars.push(("512 ms and more".to_owned(), total.latency.between(512, u64::MAX)));
    let used = |(_, count): &(String, u64)| *count > 0;
    let (Some(first), Some(last)) = (bars.iter().position(used), bars.iter().rposition(used)) else {
        return String::new();
    };
    format!("question to answer, all time\n{}", plot(&bars[first..=last]))
}

/// What was accepted, a bar a day.
fn days(book: &Book, today: NaiveDate) -> String {
    let days = (0..DAYS).rev().filter_map(|ago| today.checked_sub_days(Days::new(ago)));
    let bars: Vec<_> =
        days.map(|day| (day.format("%m-%d").to_string(), book.total(Some(day)).accepted)).collect();
    if bars.iter().all(|(_, count)| *count == 0) {
        return String::new();
    }
    format!("\naccepted, the last {DAYS} days\n{}", plot(&bars))
}

/// Bars in eighths of a character.
fn plot(bars: &[(String, u64)]) -> String {
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let line = |(name, count): &(String, u64)| {
        let exact = u128::from(*count) * (BAR as u128) * 8;
        // What is there is seen, be it an eighth.
        let eighths = usize::try_from(exact.div_ceil(u128::from(most))).unwrap_or(0);
        let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let bar = "█".repeat(eighths / 8) + part;
        format!("  {name:>15} {bar:BAR$} {count}\n")
    };
    bars.iter().map(line).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;
    use crate::session::{Counted, Happening};
    use crate::suggest::fate::Fate;

    #[test]
    fn nothing_is_said_in_words() {
        let text = shown(&Book::default(), "2026-01-02".parse().unwrap(), "/there/statistics.json");
        assert!(
            text.contains("Nothing was counted yet") && text.contains("/there/statistics.json"),
            "{text}"
        );
        assert!(text.contains("statistics = false"), "{text}");
    }

    #[test]
    fn bars_are_as_long_as_their_numbers() {
        let bar = |count| {
            plot(&[("a".to_owned(), count), ("b".to_owned(), 240)]).lines().next().unwrap().to_owned()
        };
        assert_eq!(bar(0).matches(['█', '▏']).count(), 0);
        assert_eq!(bar(1).matches('▏').count(), 1);
        assert_eq!(bar(120).matches('█').count(), BAR / 2);
        assert_eq!(bar(u64::MAX).matches('█').count(), BAR);
    }

    #[test]
    fn two_days_of_two_languages() {
        let mut book = Book::default();
        let mut note = |day: &str, language: &str, what: Happening| {
            let counted = Counted { language: language.into(), model: "Small Coder 0.5B".into(), what };
            book.note(day.parse().unwrap(), &counted);
        };
        for (day, language, fate, ms) in [
            ("2026-01-01", "python", Fate::Accepted, 2),
            ("2026-01-02", "python", Fate::Accepted, 40),
            ("2026-01-02", "python", Fate::Partly, 45),
            ("2026-01-02", "rust", Fate::Typed, 120),
            ("2026-01-02", "rust", Fate::Dismissed, 600),
        ] {
            note(day, language, Happening::Asked);
            note(day, language, Happening::Answered { after: Duration::from_millis(ms), empty: false });
            note(day, language, Happening::Shown);
            let characters = if matches!(fate, Fate::Accepted | Fate::Partly) { 12 } else { 0 };
            note(day, language, Happening::Ended { fate, characters });
        }
        expect![[r#"
            today, 2026-01-02
                                  asked    shown  accepted   rate  partly   typed  dismissed  characters
              all                     4        4         1   25 %       1       1          1          24
              by language
              python                  2        2         1   50 %       1       0          0          24
              rust                    2        2         0    0 %       0       1          1           0
              by model
              Small Coder 0.5B        4        4         1   25 %       1       1          1          24
              question to answer: p50 43 ms, p95 623 ms, p99 623 ms

            all time, since 2026-01-01
                                  asked    shown  accepted   rate  partly   typed  dismissed  characters
              all                     5        5         2   40 %       1       1          1          36
              by language
              python                  3        3         2   67 %       1       0          0          36
              rust                    2        2         0    0 %       0       1          1           0
              by model
              Small Coder 0.5B        5        5         2   40 %       1       1          1          36
              question to answer: p50 43 ms, p95 623 ms, p99 623 ms

            question to answer, all time
                    1 to 2 ms ███████████████                1
                    2 to 4 ms                                0
                    4 to 8 ms                                0
                   8 to 16 ms                                0
                  16 to 32 ms                                0
                  32 to 64 ms ██████████████████████████████ 2
                 64 to 128 ms ███████████████                1
                128 to 256 ms                                0
                256 to 512 ms                                0
              512 ms and more ███████████████                1

            accepted, the last 14 days
                        12-20                                0
                        12-21                                0
                        12-22                                0
                        12-23                                0
                        12-24                                0
                        12-25                                0
                        12-26                                0
                        12-27                                0
                        12-28                                0
                        12-29                                0
                        12-30                                0
                        12-31                                0
                        01-01 ██████████████████████████████ 1
                        01-02 ██████████████████████████████ 1

            Only in /there/statistics.json, numbers only; delete it to forget.
            `statistics = false` in the configuration switches the counting off.
        "#]]
        .assert_eq(&shown(&book, "2026-01-02".parse().unwrap(), "/there/statistics.json"));
    }
}
