//! Reports the results of each key: a table for people, CSV with one line per key for programs.

use std::io::{self, Write};
use std::time::Duration;

/// The response to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// No response.
    #[default]
    None,
    /// Text with this many characters.
    Text(usize),
    /// No suggestion.
    Empty,
    /// The next key came first and cancelled the request.
    Cancelled,
    /// An error for another reason.
    Failed,
}

/// One key, and its request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Keystroke {
    /// The task's name.
    pub(super) task: String,
    /// The index of the key; one that accepts counts for several.
    pub(super) at: usize,
    /// Characters that this key inserted by accepting; 0 if it was typed.
    pub(super) saved: usize,
    /// The pause after it.
    pub(super) pause_ms: f64,
    /// From the request to its response.
    pub(super) answer_ms: Option<f64>,
    /// The response.
    pub(super) answer: Answer,
    /// The next key came before the response.
    pub(super) overtaken: bool,
    /// Prompt tokens that were evaluated until the next key.
    pub(super) evaluated: u64,
    /// Tokens that were decoded until the next key.
    pub(super) decoded: u64,
}

impl Keystroke {
    fn in_time(&self, budget: Duration) -> bool {
        matches!(self.answer, Answer::Text(_))
            && !self.overtaken
            && self.answer_ms.is_some_and(|it| it <= budget.as_secs_f64() * 1e3)
    }
}

/// The results of a whole run.
pub(super) struct Session<'a> {
    pub(super) tasks: usize,
    /// Characters that the tasks expect.
    pub(super) expected: usize,
    pub(super) budget: Duration,
    /// Peak memory of the server, in bytes.
    pub(super) peak: Option<u64>,
    /// Memory at the beginning, after each minute, and at the end; empty if not requested.
    pub(super) resident: &'a [Option<u64>],
    pub(super) keystrokes: &'a [Keystroke],
}

/// Prints the table.
pub(super) fn table(session: &Session<'_>, out: &mut impl Write) -> io::Result<()> {
    let Session { tasks, expected, budget, peak, resident, keystrokes } = session;
    let mut print_line = |what: &str, text: String| writeln!(out, "{what:<19} {text}");
    let requests = keystrokes.len();
    let count =
        |which: &dyn Fn(&Keystroke) -> bool| keystrokes.iter().filter(|keystroke| which(keystroke)).count();
    let share = |number: usize, of: usize| 100.0 * number as f64 / of.max(1) as f64;
    let text = |keystroke: &Keystroke| matches!(keystroke.answer, Answer::Text(_));

    let accepted = count(&|it| it.saved > 0);
    let pauses = keystrokes.iter().map(|it| it.pause_ms);
    print_line(
        "tasks",
        format!(
            "{tasks}, of {expected} characters; {} keys typed, {accepted} suggestions accepted",
            requests - accepted
        ),
    )?;
    print_line("pauses", spread(pauses))?;
    print_line("requests", requests.to_string())?;
    let in_time = count(&|it| it.in_time(*budget));
    print_line(
        "in time with text",
        format!(
            "{in_time} ({:.1} %), within {} ms and before the next key",
            share(in_time, requests),
            budget.as_millis()
        ),
    )?;
    print_line(
        "the others",
        format!(
            "{} with text later, {} empty, {} cancelled by the next key, {} failed, {} never answered",
            count(&|it| text(it) && !it.in_time(*budget)),
            count(&|it| it.answer == Answer::Empty),
            count(&|it| it.answer == Answer::Cancelled),
            count(&|it| it.answer == Answer::Failed),
            count(&|it| it.answer == Answer::None),
        ),
    )?;
    // A cancelled request is answered soon after the next key, however long the response would have taken: the first of
    // these lines is what the editor sees, the second omits requests that took too long.
    let waits = |which: &dyn Fn(&Keystroke) -> bool| {
        spread(keystrokes.iter().filter(|it| which(it)).filter_map(|it| it.answer_ms))
    };
    print_line("request to answer", waits(&|_| true))?;
    print_line("- not cancelled", waits(&|it| it.answer != Answer::Cancelled))?;
    print_line("- with text", waits(&text))?;
    let saved = keystrokes.iter().map(|it| it.saved).sum();
    print_line("characters saved", format!("{saved} of {expected} ({:.1} %)", share(saved, *expected)))?;
    let evaluated = quantiles(keystrokes.iter().map(|it| it.evaluated as f64));
    let at = |share: f64| evaluated.at(share).unwrap_or(0.0);
    let mean = |which: fn(&Keystroke) -> u64| {
        keystrokes.iter().map(which).sum::<u64>() as f64 / requests.max(1) as f64
    };
    print_line(
        "tokens per key",
        format!(
            "prompt p50 {:.0}, p95 {:.0}, mean {:.1}; decoded mean {:.1}",
            at(0.5),
            at(0.95),
            mean(|it| it.evaluated),
            mean(|it| it.decoded)
        ),
    )?;
    let megabytes =
        |bytes: &Option<u64>| bytes.map_or("not measured".to_owned(), |it| format!("{} MB", it / 1_000_000));
    print_line("peak memory", megabytes(peak))?;
    for (minute, bytes) in resident.iter().enumerate() {
        let at = match minute {
            0 => "at the start".to_owned(),
            _ if minute + 1 == resident.len() => "at the end".to_owned(),
            _ => format!("after {minute} min"),
        };
        print_line(if minute == 0 { "resident memory" } else { "-" }, format!("{at}: {}", megabytes(bytes)))?;
    }
    Ok(())
}

/// Prints one line per key.
pub(super) fn csv(keystrokes: &[Keystroke], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "task,key,pause_ms,answer_ms,answer,overtaken,characters,saved,evaluated,decoded")?;
    for keystroke in keystrokes {
        let Keystroke { task, at, saved, pause_ms, answer_ms, answer, overtaken, evaluated, decoded } =
            keystroke;
        let (answer, characters) = match answer {
            Answer::None => ("none", 0),
            Answer::Text(characters) => ("text", *characters),
            Answer::Empty => ("empty", 0),
            Answer::Cancelled => ("cancelled", 0),
            Answer::Failed => ("failed", 0),
        };
        let answer_ms = answer_ms.map_or(String::new(), |it| format!("{it:.3}"));
        writeln!(
            out,
            "\"{}\",{at},{pause_ms:.3},{answer_ms},{answer},{},{characters},{saved},{evaluated},{decoded}",
            task.replace('"', "\"\""),
            u8::from(*overtaken),
        )?;
    }
    Ok(())
}

/// Numbers in ascending order.
struct Quantiles(Vec<f64>);

impl Quantiles {
    /// The smallest number that at least this share of the numbers does not exceed.
    fn at(&self, share: f64) -> Option<f64> {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }
}

fn quantiles(numbers: impl Iterator<Item = f64>) -> Quantiles {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    Quantiles(numbers)
}

fn spread(numbers: impl Iterator<Item = f64>) -> String {
    let numbers = quantiles(numbers);
    let at = |share| numbers.at(share);
    match (at(0.5), at(0.95), at(0.99), at(1.0)) {
        (Some(p50), Some(p95), Some(p99), Some(max)) => {
            format!("p50 {p50:.0} ms, p95 {p95:.0} ms, p99 {p99:.0} ms, max {max:.0} ms")
        }
        _ => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_one_of_the_numbers() {
        let numbers = quantiles((1..=100).rev().map(f64::from));
        assert_eq!(numbers.at(0.5), Some(50.0));
        assert_eq!(numbers.at(0.99), Some(99.0));
        assert_eq!(numbers.at(1.0), Some(100.0));
        assert_eq!(quantiles([7.0].into_iter()).at(0.5), Some(7.0));
        assert_eq!(quantiles([].into_iter()).at(0.5), None);
    }

    #[test]
    fn only_text_before_the_next_key_is_in_time() {
        let keystroke = |answer, answer_ms, overtaken| Keystroke {
            answer,
            answer_ms: Some(answer_ms),
            overtaken,
            ..Keystroke::default()
        };
        let in_time = |it: Keystroke| it.in_time(Duration::from_millis(300));
        assert!(in_time(keystroke(Answer::Text(1), 300.0, false)));
        assert!(!in_time(keystroke(Answer::Text(1), 300.1, false)));
        assert!(!in_time(keystroke(Answer::Text(1), 10.0, true)));
        assert!(!in_time(keystroke(Answer::Empty, 10.0, false)));
    }

    #[test]
    fn csv_has_one_line_per_key() {
        let keystroke = Keystroke {
            task: "a \"b\", c".to_owned(),
            at: 2,
            saved: 4,
            pause_ms: 130.0,
            answer_ms: Some(1.25),
            answer: Answer::Text(9),
            ..Keystroke::default()
        };
        let mut out = Vec::new();
        csv(&[keystroke], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().nth(1).unwrap(), "\"a \"\"b\"\", c\",2,130.000,1.250,text,0,9,4,0,0");
    }
}
