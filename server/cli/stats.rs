//! `taper stats`: prints the usage statistics of today and of all time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write as _};

use anyhow::Context as _;
use chrono::{Days, NaiveDate};

use super::terminal;
use crate::usage::stats::{LatencyHistogram, UsageHistory, UsageStats};
use crate::usage::store::{StatsFile, format_history, local_date};

/// Width of a full bar, in characters.
const BAR: usize = 30;
/// Number of days in the plot.
const DAYS: u64 = 14;

/// Show usage statistics, today and all time: counted on this machine, sent nowhere.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "Examples:
  taper stats           tables by language and model, latencies, plots
  taper stats --json    the same counts for programs

accepted: all that was left was accepted; partly: a word or a line was accepted; typed: at least the first word was
typed as suggested; dismissed: none of these. A server adds its counts once a minute and when it ends.

`statistics = false` in the configuration switches counting off.")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The home folder is unknown, the file cannot be read or is not taper's, or stdout is closed.
pub fn run(args: Args) -> anyhow::Result<()> {
    let file = StatsFile::open()?;
    let (history, today) = (file.read()?, local_date());
    let text = if args.json {
        format_history(&history, today)
    } else {
        format_page(&history, today, &file.path().display().to_string())
    };
    io::stdout().write_all(terminal::escape_controls(&text).as_bytes()).context("cannot write to stdout")
}

fn format_page(history: &UsageHistory, today: NaiveDate, file: &str) -> String {
    let off = "`statistics = false` in the configuration switches counting off.";
    if history.is_empty() {
        return format!(
            "Nothing was counted yet. Servers count suggestions and their outcomes, and add the counts to\n\
             {file}\n\
             once a minute and when they end: numbers only, never code, and nothing is sent.\n{off}\n"
        );
    }
    let mut text = format_table(&format!("today, {today}"), history, Some(today));
    text += &format_table(&format!("all time, since {}", history.since().unwrap_or("?")), history, None);
    text += &plot_latencies(&history.total(None).latency);
    text += &plot_days(history, today);
    text + &format!("\nThe counts are only in {file}; delete it to reset them.\n{off}\n")
}

/// The table of a day, or of all days.
fn format_table(title: &str, history: &UsageHistory, day: Option<NaiveDate>) -> String {
    let total = history.total(day);
    if total == UsageStats::default() {
        return format!("{title}: nothing\n\n");
    }
    let percentile = |percent| total.latency.percentile(percent).map(format_milliseconds);
    let latencies = match (percentile(50), percentile(95), percentile(99)) {
        (Some(p50), Some(p95), Some(p99)) => {
            format!("  response time: p50 {p50}, p95 {p95}, p99 {p99}\n")
        }
        _ => String::new(),
    };
    let groups = [
        ("", BTreeMap::from([("all", total)])),
        ("  by language\n", history.by_language(day)),
        ("  by model\n", history.by_model(day)),
    ];
    let names = groups.iter().flat_map(|(_, rows)| rows.keys());
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0).max(8);
    let mut text = format!(
        "{title}\n  {:width$} {:>8} {:>8} {:>9} {:>6} {:>7} {:>7} {:>10} {:>11}\n",
        "", "requests", "shown", "accepted", "rate", "partly", "typed", "dismissed", "characters",
    );
    for (heading, rows) in groups {
        text += heading;
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|(_, stats)| Reverse((stats.shown, stats.asked)));
        for (name, stats) in rows {
            let UsageStats { asked, shown, accepted, partially_accepted, .. } = stats;
            let UsageStats { typed_through, dismissed, characters, .. } = stats;
            let rate = match shown {
                0 => "-".to_owned(),
                _ => format!("{:.0} %", accepted as f64 * 100.0 / shown as f64),
            };
            text += &format!(
                "  {name:width$} {asked:>8} {shown:>8} {accepted:>9} {rate:>6} {partially_accepted:>7} \
                 {typed_through:>7} {dismissed:>10} {characters:>11}\n",
            );
        }
    }
    text + &latencies + "\n"
}

fn format_milliseconds(time: f64) -> String {
    if time < 10.0 { format!("{time:.1} ms") } else { format!("{time:.0} ms") }
}

/// The plot of response times, one bar per doubling.
fn plot_latencies(latency: &LatencyHistogram) -> String {
    let mut bars = vec![("below 1 ms".to_owned(), latency.count_between(0, 1))];
    bars.extend(
        (0..9)
            .map(|octave| (1 << octave, 2 << octave))
            .map(|(from, to)| (format!("{from} to {to} ms"), latency.count_between(from, to))),
    );
    bars.push(("512 ms and more".to_owned(), latency.count_between(512, u64::MAX)));
    let used = |(_, count): &(String, u64)| *count > 0;
    let (Some(first), Some(last)) = (bars.iter().position(used), bars.iter().rposition(used)) else {
        return String::new();
    };
    format!("response time, all time\n{}", plot_bars(&bars[first..=last]))
}

/// The plot of accepted suggestions, one bar per day.
fn plot_days(history: &UsageHistory, today: NaiveDate) -> String {
    let days = (0..DAYS).rev().filter_map(|ago| today.checked_sub_days(Days::new(ago)));
    let bars: Vec<_> =
        days.map(|day| (day.format("%m-%d").to_string(), history.total(Some(day)).accepted)).collect();
    if bars.iter().all(|(_, count)| *count == 0) {
        return String::new();
    }
    format!("\naccepted, the last {DAYS} days\n{}", plot_bars(&bars))
}

/// Bars in eighths of a character. A count above 0 shows at least one.
fn plot_bars(bars: &[(String, u64)]) -> String {
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let line = |(name, count): &(String, u64)| {
        let exact = u128::from(*count) * (BAR as u128) * 8;
        let eighths = usize::try_from(exact.div_ceil(u128::from(most))).unwrap_or(0);
        let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let bar = "█".repeat(eighths / 8) + part;
        format!("  {name:>15} {bar:BAR$} {count}\n")
    };
    bars.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;
    use crate::usage::outcome::Outcome;
    use crate::usage::stats::{UsageEvent, UsageRecord};

    #[test]
    fn page_shows_two_days_of_two_languages() {
        let mut history = UsageHistory::default();
        for (day, language, outcome, milliseconds, characters) in [
            ("2026-01-01", "python", Outcome::Accepted, 2, 12),
            ("2026-01-02", "python", Outcome::Accepted, 40, 12),
            ("2026-01-02", "python", Outcome::PartiallyAccepted, 45, 12),
            ("2026-01-02", "rust", Outcome::TypedThrough, 120, 0),
            ("2026-01-02", "rust", Outcome::Dismissed, 600, 0),
        ] {
            for event in [
                UsageEvent::Requested,
                UsageEvent::Responded { latency: Duration::from_millis(milliseconds), empty: false },
                UsageEvent::Shown,
                UsageEvent::Finished { outcome, characters },
            ] {
                let (language, model) = (language.into(), "Small Coder 0.5B".into());
                history.record(day.parse().unwrap(), &UsageRecord { language, model, event });
            }
        }
        expect![[r#"
            today, 2026-01-02
                               requests    shown  accepted   rate  partly   typed  dismissed  characters
              all                     4        4         1   25 %       1       1          1          24
              by language
              python                  2        2         1   50 %       1       0          0          24
              rust                    2        2         0    0 %       0       1          1           0
              by model
              Small Coder 0.5B        4        4         1   25 %       1       1          1          24
              response time: p50 43 ms, p95 623 ms, p99 623 ms

            all time, since 2026-01-01
                               requests    shown  accepted   rate  partly   typed  dismissed  characters
              all                     5        5         2   40 %       1       1          1          36
              by language
              python                  3        3         2   67 %       1       0          0          36
              rust                    2        2         0    0 %       0       1          1           0
              by model
              Small Coder 0.5B        5        5         2   40 %       1       1          1          36
              response time: p50 43 ms, p95 623 ms, p99 623 ms

            response time, all time
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

            The counts are only in /there/statistics.json; delete it to reset them.
            `statistics = false` in the configuration switches counting off.
        "#]]
        .assert_eq(&format_page(&history, "2026-01-02".parse().unwrap(), "/there/statistics.json"));
    }
}
