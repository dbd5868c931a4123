//! The vocabulary head: computes the logits that can matter exactly and estimates the others.
//!
//! The head is the largest matrix that a decoded token reads, and all for one result: the greatest logit. So it is
//! stored in two planes (see `kernels::pack`), and all rows are screened with only the upper bits of their codes. The
//! omitted part is a sum of lower bits times activations. Its standard deviation is bounded by that of lower bits that
//! are practically random, `s`, the greatest scale of the row's group, and the norm of the activations:
//! `s * scale * |x|`. Then the exact logit of the row with the best screening result is computed, and every row within
//! [`SCREEN_MARGIN`] standard deviations of it is computed exactly, too. If the greatest logit was within that margin,
//! it is found, and its value is that of the full gemv, bit for bit.
//!
//! Safety of the margin: lower bits are bounded, so for independent ones Hoeffding's inequality holds for any
//! activations. The probability of an error beyond `k` standard deviations is at most `exp(-2 k² s² / range²)`, with
//! range 15 and s 4.61 (or 3 and 1.118) below `exp(-0.18 k²)`: for k = 12 one in 10^11, and only one row, the greatest,
//! has to stay within it. A test compares the choices over real text. Estimated logits affect only the probability of
//! the greatest one, as part of the sum in its denominator.
//!
//! The screening and exact computation of a row depend only on its own activations, so the logits of a position have
//! the same bits regardless of the other rows in the batch.

use std::borrow::Cow;

use crate::local::LogitsRequest;
use crate::local::kernels::activations::Activations;
use crate::local::kernels::pack::{GROUP_ROWS, PackedMatrix};
use crate::local::kernels::quant_format::screening_error;
use crate::local::matmul::{BatchCompute, LinearLayer, ProductTarget};

/// Standard deviations by which the omitted part may deviate.
const SCREEN_MARGIN: f32 = 12.0;

/// The output matrix and its screening data.
#[derive(Debug)]
pub(in crate::local) struct LmHead {
    linear: LinearLayer,
    /// For each group of rows, [`SCREEN_MARGIN`] standard deviations for activations of norm 1; `None`: no screening.
    margins: Option<Vec<f32>>,
    /// `[groups, rows]`: the greatest screened logit.
    screened_max: Vec<f32>,
    /// Pairs of a group of weight rows and a row of activations that must be exact.
    exact_rows: Vec<(usize, usize)>,
}

impl LmHead {
    /// Takes the matrix `[vocabulary, width]`.
    pub(in crate::local) fn new(linear: LinearLayer) -> Self {
        let weight = &linear.weight;
        // The error of rounding is far below a hundredth.
        let margins = screening_error(weight.format()).filter(|_| linear.bias.is_none()).map(|spread| {
            (0..weight.group_count())
                .map(|group| 1.01 * SCREEN_MARGIN * spread * weight.greatest_scale(group))
                .collect()
        });
        Self { linear, margins, screened_max: Vec::new(), exact_rows: Vec::new() }
    }

    /// The matrix.
    pub(in crate::local) fn weight(&self) -> &PackedMatrix {
        &self.linear.weight
    }

    /// Bytes of weights read for a token's greatest logit, without the few rows that come close.
    pub(in crate::local) fn streamed_bytes(&self) -> usize {
        if self.margins.is_some() { self.weight().upper_bytes() } else { self.weight().byte_len() }
    }

    /// The requested logits of the rows of `x`, one request for each. `out` is `[rows, vocabulary]`.
    pub(in crate::local) fn compute_logits(
        &mut self,
        compute: &BatchCompute<'_>,
        x: &Activations,
        requests: &[LogitsRequest],
        out: &mut [f32],
    ) {
        let Self { linear, margins, screened_max: greatest, exact_rows: wanted } = self;
        let (rows, groups) = (x.rows(), linear.weight.group_count());
        let request = |row: usize| match &requests[row] {
            // Without screening, the greatest one needs all logits.
            LogitsRequest::Argmax if margins.is_none() => Cow::Owned(LogitsRequest::All),
            request => Cow::Borrowed(request),
        };
        // Activations in the format for many rows fit no other kernel.
        if x.has_bf16_rows() || (0..rows).all(|row| *request(row) == LogitsRequest::All) {
            compute.multiply_targets(x, &mut [ProductTarget { linear, out, add: false }]);
            return;
        }
        wanted.clear();
        let mut screened = Vec::new();
        for row in 0..rows {
            match &*request(row) {
                LogitsRequest::All => wanted.extend((0..groups).map(|group| (group, row))),
                LogitsRequest::Argmax => screened.push(row),
                LogitsRequest::Subset(tokens) => {
                    let requested = tokens.iter().map(|&token| token as usize / GROUP_ROWS);
                    wanted.extend(requested.filter(|&group| group < groups).map(|group| (group, row)));
                }
            }
        }
        if let Some(margins) = margins.as_ref().filter(|_| !screened.is_empty()) {
            greatest.resize(groups * rows, 0.0);
            compute.screen_rows(x, &linear.weight, out, greatest);
            // The exact values of the groups with the best screening results are the threshold.
            let best: Vec<(usize, usize)> =
                screened.iter().map(|&row| (best_group(greatest, rows, row), row)).collect();
            compute_exact(compute, x, linear, &mut best.clone(), out);
            for (group, row) in best {
                let logits = &out[row * linear.weight.rows()..(row + 1) * linear.weight.rows()];
                let reached =
                    greatest_value(&logits[group * GROUP_ROWS..logits.len().min((group + 1) * GROUP_ROWS)]);
                let length = x.row(row).iter().map(|x| x * x).sum::<f32>().sqrt();
                // Also for NaN: then everything is computed and found to be NaN.
                let near = |group: usize, margin: f32| {
                    let screened = greatest[group * rows + row] + margin * length;
                    screened >= reached || screened.is_nan() || reached.is_nan()
                };
                let near = margins.iter().enumerate().filter(|&(group, margin)| near(group, *margin));
                wanted.extend(near.map(|(group, _)| (group, row)));
            }
        }
        compute_exact(compute, x, linear, wanted, out);
    }
}

/// The greatest of some values, ignoring NaN; minus infinity if there is none.
fn greatest_value(values: &[f32]) -> f32 {
    values.iter().fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// The group of weight rows with the best screening result for a row of activations.
fn best_group(greatest: &[f32], rows: usize, row: usize) -> usize {
    let values = greatest.iter().skip(row).step_by(rows).enumerate();
    values
        .fold(
            (0, f32::NEG_INFINITY),
            |best, (group, &value)| if value > best.1 { (group, value) } else { best },
        )
        .0
}

/// Computes the wanted pairs, which may be in any order and may repeat.
fn compute_exact(
    compute: &BatchCompute<'_>,
    x: &Activations,
    linear: &LinearLayer,
    wanted: &mut Vec<(usize, usize)>,
    out: &mut [f32],
) {
    wanted.sort_unstable();
    wanted.dedup();
    let parts: Vec<&[(usize, usize)]> = wanted.chunk_by(|a, b| a.0 == b.0).collect();
    let groups: Vec<usize> = parts.iter().map(|part| part[0].0).collect();
    let is_wanted = |index: usize, row: usize| parts[index].iter().any(|wanted| wanted.1 == row);
    compute.multiply_groups(x, linear, &groups, is_wanted, out);
}

#[cfg(test)]
mod tests;
