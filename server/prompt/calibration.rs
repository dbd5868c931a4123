//! Calibration of token probabilities: one row per measured model.

/// A logistic fit: from the probabilities of a line's tokens to the probability that the line is exactly right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// The constant term.
    pub bias: f32,
    /// Weight of the arithmetic mean.
    pub mean: f32,
    /// Weight of the minimum.
    pub min: f32,
    /// Weight of the product.
    pub all: f32,
}

/// A row: all words must occur in the model's name, in lower case.
struct CalibrationRow {
    words: &'static [&'static str],
    calibration: Calibration,
}

/// Fitted on `real_*` tasks with `taper-eval run --curve`, which proposes a row. The first matching row wins.
static CALIBRATION_ROWS: &[CalibrationRow] = &[
    // Qwen2.5-Coder-1.5B-Instruct Q4_K_M (`benches/quality/real-1.5b-reliability.csv`). Its base model is not
    // measured and uses this row.
    CalibrationRow {
        words: &["coder", "1.5b"],
        calibration: Calibration { bias: -5.90, mean: 3.81, min: 0.0, all: 5.06 },
    },
];

/// Qwen2.5-Coder-0.5B-Instruct Q4_K_M (`benches/quality/real-0.5b-reliability.csv`), also for models without a row.
const DEFAULT_CALIBRATION: Calibration = Calibration { bias: -6.93, mean: 3.85, min: 1.44, all: 3.37 };

impl Calibration {
    /// The row of a model, by its name in lower case with hyphens.
    pub(super) fn for_model(name: &str) -> Self {
        let row = CALIBRATION_ROWS.iter().find(|row| row.words.iter().all(|word| name.contains(word)));
        row.map_or(DEFAULT_CALIBRATION, |row| row.calibration)
    }

    /// The probability, 0 to 1, that a text is exactly right, from its tokens' probabilities: their mean, the lowest,
    /// and their product. It does not decrease when any of them increases.
    pub fn probability(&self, mean: f32, min: f32, all: f32) -> f32 {
        let sum = self.bias + self.mean * mean + self.min * min + self.all * all;
        1.0 / (1.0 + (-sum).exp())
    }
}
