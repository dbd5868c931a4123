//! Compares scores with those of an earlier run: which fell by more than noise.

use anyhow::{Result, bail};

use super::table::{Better, METRICS, Row};

/// The share of tasks whose answer may differ on another machine. Decoding is greedy, so the same build on the same
/// kernel gives the same scores; other kernels round differently, which can swap two tokens with nearly the same
/// probability. An upper estimate: benches/quality/README.md has the measurement.
const CHANGED: f64 = 0.05;

/// Standard deviations that count as noise: a table has a hundred scores, and none of them should fall by chance.
const DEVIATIONS: f64 = 3.0;

/// Rows with fewer tasks are not significant.
const FEWEST: usize = 16;

/// The largest error of a score over `tasks` tasks for that reason alone: a changed answer moves it by at most `span`,
/// up as often as down.
fn noise(tasks: usize, span: f64) -> f64 {
    DEVIATIONS * (CHANGED / tasks as f64).sqrt() * span
}

/// The scores that fell by more than their noise, one line each; of rows with enough tasks.
///
/// # Errors
/// The tables are not of the same tasks.
pub(super) fn regressions(former: &[Row], now: &[Row]) -> Result<Vec<String>> {
    let mut regressions = Vec::new();
    for then in former {
        let Some(row) = now.iter().find(|row| row.system == then.system && row.stratum == then.stratum)
        else {
            bail!("the earlier scores have a row `{}`, but no task belongs to it", then.name());
        };
        if row.tasks != then.tasks {
            bail!(
                "`{}` has {} tasks and had {}: the same files, --sample and --seed are needed",
                row.name(),
                row.tasks,
                then.tasks
            );
        }
        if row.tasks < FEWEST {
            continue;
        }
        for ((metric, then), value) in METRICS.iter().zip(&then.values).zip(&row.values) {
            let (Some(then), Some(value)) = (then, value) else { continue };
            let fall = match metric.better {
                Better::Up => then.value - value.value,
                Better::Down => value.value - then.value,
                Better::Neither => continue,
            };
            let noise = noise(row.tasks, metric.span());
            if fall > noise {
                regressions.push(format!(
                    "{} of {}: {:.4}, was {:.4}; noise is {noise:.4}",
                    metric.name,
                    row.name(),
                    value.value,
                    then.value
                ));
            }
        }
    }
    Ok(regressions)
}

#[cfg(test)]
mod tests {
    use super::super::interval::Estimate;
    use super::super::sample::Stratum;
    use super::*;

    fn rows(tasks: usize, exact: f64, repeats: f64) -> Vec<Row> {
        let value = |name: &str| match name {
            "exact" => Some(exact),
            "repeats" => Some(repeats),
            "ms" => Some(1000.0 * exact),
            _ => None,
        };
        let estimate = |value: f64| Estimate { value, low: value, high: value };
        vec![Row {
            system: "taper".into(),
            stratum: Stratum {
                set: "real_word".into(),
                kind: "rest-of-line".into(),
                language: "rust".into(),
            },
            tasks,
            values: METRICS.iter().map(|metric| value(metric.name).map(estimate)).collect(),
        }]
    }

    #[test]
    fn regression_is_reported_and_noise_is_not() {
        assert_eq!(regressions(&rows(100, 0.5, 0.0), &rows(100, 0.5, 0.0)).unwrap(), [""; 0]);
        assert_eq!(regressions(&rows(100, 0.5, 0.0), &rows(100, 0.7, 0.0)).unwrap(), [""; 0], "it rose");
        assert_eq!(regressions(&rows(100, 0.5, 0.0), &rows(100, 0.44, 0.0)).unwrap(), [""; 0], "noise");
        let fell = regressions(&rows(100, 0.5, 0.0), &rows(100, 0.43, 0.1)).unwrap();
        assert_eq!(fell.len(), 2, "{fell:?}");
        assert!(fell[0].starts_with("exact of real_word rest-of-line rust: 0.4300, was 0.5000"), "{fell:?}");
        assert!(fell[1].starts_with("repeats of"), "{fell:?}");
        // Two tasks of sixteen may change, three may not; fifteen are too few.
        assert_eq!(regressions(&rows(16, 0.5, 0.0), &rows(16, 6.0 / 16.0, 0.0)).unwrap(), [""; 0]);
        assert_eq!(regressions(&rows(16, 0.5, 0.0), &rows(16, 5.0 / 16.0, 0.0)).unwrap().len(), 1);
        assert_eq!(regressions(&rows(15, 0.5, 0.0), &rows(15, 0.0, 0.0)).unwrap(), [""; 0]);
    }

    #[test]
    fn different_tasks_are_rejected() {
        let message = regressions(&rows(6, 0.5, 0.0), &rows(5, 0.5, 0.0)).unwrap_err().to_string();
        assert!(message.contains("5 tasks and had 6"), "{message}");
        let message = regressions(&rows(6, 0.5, 0.0), &[]).unwrap_err().to_string();
        assert!(message.contains("real_word"), "{message}");
    }
}
