//! Calibration of the model's probabilities, and the cost and gain of suppressing suggestions below a threshold.

use std::fmt::Write as _;
use std::io::{self, Write};

use taper_engine::ScoredToken;

use super::ScoredAnswer;
use super::interval::{self, Estimate};
use crate::answers::Answer;
use taper::completion::confidence::{self, Confidence};
use taper::completion::confidence_filter;
use taper::prompt::calibration::Calibration;

/// One suggestion that our own path showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    mean: f64,
    min: f64,
    /// The calibrated probability of its first line.
    line: f64,
    exact: bool,
    exact_first: bool,
    saved: usize,
}

/// A number of a point or of a coverage.
type Measure<T> = fn(&T) -> f64;
/// The measures of confidence.
const MEASURES: [(&str, Measure<Point>); 3] =
    [("mean", |it| it.mean), ("min", |it| it.min), ("line", |it| it.line)];
/// Bins of the reliability table.
const BINS: usize = 10;

/// The suggestions whose engine reported probabilities.
pub(super) fn points(scored: &[ScoredAnswer<'_>], calibration: Calibration) -> Vec<Point> {
    let point = |it: &ScoredAnswer<'_>| {
        let Confidence { mean, min, product: all } = first_line(&it.answer)?;
        Some(Point {
            mean: f64::from(it.answer.mean_probability?),
            min: f64::from(it.answer.min_probability?),
            line: f64::from(calibration.probability(mean, min, all)),
            exact: it.score.exact,
            exact_first: it.score.exact_first,
            saved: it.score.saved,
        })
    };
    scored.iter().filter_map(point).collect()
}

/// The confidence of the first lines, and whether they were right.
pub(super) fn lines(scored: &[ScoredAnswer<'_>]) -> Vec<(Confidence, bool)> {
    scored.iter().filter_map(|it| Some((first_line(&it.answer)?, it.score.exact_first))).collect()
}

fn first_line(answer: &Answer) -> Option<Confidence> {
    let shown = answer.shown.as_deref()?;
    let line = &shown[..confidence_filter::first_line_end(shown)];
    let pieces: Vec<ScoredToken> =
        answer.pieces.iter().map(|&(end, probability)| ScoredToken { end, probability }).collect();
    confidence::prefix_confidence(&pieces, confidence::shown_byte_len(&answer.raw, line))
}

/// Suggestions by tenths of their probability: count, mean probability, and the share that is exact; by `line`, the
/// share whose first line is exact.
pub(super) fn reliability_csv(points: &[Point], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "measure,from,to,suggestions,probability,exact,exact_low,exact_high")?;
    for (name, of) in MEASURES {
        for bin in 0..BINS {
            let inside = |it: &&Point| ((of(it) * BINS as f64) as usize).min(BINS - 1) == bin;
            let here: Vec<&Point> = points.iter().filter(inside).collect();
            let hits =
                here.iter().filter(|it| if name == "line" { it.exact_first } else { it.exact }).count();
            let Some(Estimate { value, low, high }) = interval::share(hits, here.len()) else { continue };
            let probability = here.iter().map(|it| of(it)).sum::<f64>() / here.len() as f64;
            let edge = |bin: usize| bin as f64 / BINS as f64;
            writeln!(
                out,
                "{name},{:.1},{:.1},{},{probability:.4},{value:.4},{low:.4},{high:.4}",
                edge(bin),
                edge(bin + 1),
                here.len()
            )?;
        }
    }
    Ok(())
}

/// The result of showing only suggestions with at least this probability.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Coverage {
    threshold: f64,
    /// The share of suggestions that is shown.
    coverage: f64,
    /// The share of those that is exact.
    precision: f64,
    /// Their share of the characters saved by all.
    saved: f64,
}

fn coverages(points: &[Point], of: fn(&Point) -> f64) -> Vec<Coverage> {
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by(|a, b| of(b).total_cmp(&of(a)));
    let all: usize = sorted.iter().map(|it| it.saved).sum();
    let (mut exact, mut saved) = (0, 0);
    let mut out: Vec<Coverage> = Vec::new();
    for (at, point) in sorted.iter().enumerate() {
        exact += usize::from(point.exact);
        saved += point.saved;
        let shown = (at + 1) as f64;
        let cover = Coverage {
            threshold: of(point),
            coverage: shown / sorted.len() as f64,
            precision: exact as f64 / shown,
            saved: saved as f64 / all.max(1) as f64,
        };
        // No threshold separates equal probabilities.
        if out.last().is_some_and(|last| last.threshold == cover.threshold) {
            out.pop();
        }
        out.push(cover);
    }
    out
}

/// Precision and characters saved over coverage, one line for each threshold that separates two suggestions.
pub(super) fn coverage_csv(points: &[Point], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "measure,threshold,coverage,precision,saved")?;
    for (name, of) in MEASURES {
        for Coverage { threshold, coverage, precision, saved } in coverages(points, of) {
            writeln!(out, "{name},{threshold:.4},{coverage:.4},{precision:.4},{saved:.4}")?;
        }
    }
    Ok(())
}

/// The same as a plot.
pub(super) fn svg(points: &[Point], out: &mut dyn Write) -> io::Result<()> {
    const SIZE: f64 = 320.0;
    const LEFT: f64 = 48.0;
    const TOP: f64 = 24.0;
    let x = |share: f64| LEFT + share * SIZE;
    let y = |share: f64| TOP + (1.0 - share) * SIZE;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"560\" height=\"392\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"560\" height=\"392\" fill=\"white\"/>"
    )?;
    for tenth in 0..=5 {
        let share = f64::from(tenth) / 5.0;
        writeln!(
            out,
            "<path d=\"M{:.0} {:.0}H{:.0}M{:.0} {:.0}V{:.0}\" stroke=\"#ddd\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{share:.1}</text>\
             <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{share:.1}</text>",
            x(0.0),
            y(share),
            x(1.0),
            x(share),
            y(0.0),
            y(1.0),
            LEFT - 6.0,
            y(share) + 4.0,
            x(share),
            y(0.0) + 16.0
        )?;
    }
    writeln!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">share of the {} suggestions that is shown</text>",
        x(0.5),
        y(0.0) + 34.0,
        points.len()
    )?;
    let colours = [["#a8cbe3", "#ffd3a8"], ["#cfdbe3", "#f0dfcf"], ["#1f77b4", "#ff7f0e"]];
    let mut legend = TOP + 12.0;
    for ((name, of), colours) in MEASURES.into_iter().zip(colours) {
        let coverages = coverages(points, of);
        let values: [(&str, Measure<Coverage>); 2] =
            [("exact", |it| it.precision), ("characters saved", |it| it.saved)];
        for ((what, value), colour) in values.into_iter().zip(colours) {
            let mut path = String::new();
            for cover in &coverages {
                let letter = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", x(cover.coverage), y(value(cover)));
            }
            writeln!(
                out,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
                 <path d=\"M{0:.0} {1:.0}h16\" stroke=\"{colour}\" stroke-width=\"3\"/>\
                 <text x=\"{2:.0}\" y=\"{3:.0}\">{what}, by {name}</text>",
                x(1.0) + 12.0,
                legend - 4.0,
                x(1.0) + 32.0,
                legend
            )?;
            legend += 18.0;
        }
    }
    writeln!(out, "</svg>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(mean: f64, exact: bool, saved: usize) -> Point {
        Point { mean, min: mean / 2.0, line: mean * mean, exact, exact_first: exact, saved }
    }

    #[test]
    fn most_probable_suggestions_are_covered_first() {
        let points = [point(0.5, false, 0), point(0.95, true, 6), point(0.8, true, 3), point(0.5, true, 1)];
        let coverages = coverages(&points, |it| it.mean);
        let rows: Vec<_> = coverages.iter().map(|it| (it.coverage, it.precision, it.saved)).collect();
        assert_eq!(rows, [(0.25, 1.0, 0.6), (0.5, 1.0, 0.9), (1.0, 0.75, 1.0)]);
    }

    #[test]
    fn reliability_has_tenths_with_intervals() {
        let points = [point(1.0, true, 1), point(0.95, false, 1), point(0.31, false, 0)];
        let mut text = Vec::new();
        reliability_csv(&points, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("\nmean,0.9,1.0,2,0.9750,0.5000,"), "{text}");
        assert!(text.contains("\nmean,0.3,0.4,1,"), "{text}");
        assert!(text.contains("\nmin,0.5,0.6,1,"), "{text}");
    }

    #[test]
    fn svg_is_complete() {
        for points in [&[point(0.9, true, 2), point(0.2, false, 0)][..], &[]] {
            let mut text = Vec::new();
            svg(points, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(
                text.starts_with("<svg") && text.ends_with("</svg>\n") && !text.contains("NaN"),
                "{text}"
            );
        }
    }
}
