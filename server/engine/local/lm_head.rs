//! The vocabulary head: of a hundred thousand logits, exact those that can matter, near those that cannot.
//! It knows nothing of the layers before it, or of how a token is chosen from its logits.
//!
//! The head is the largest matrix that a decoded token reads, for one answer: the greatest logit. So it lies in two
//! planes (see `kernels::pack`), and all rows are screened with the upper bits of their codes alone. What they leave
//! out is a sum of lower bits times activations; its spread is bounded by the spread of lower bits that are as good
//! as random, `s`, the greatest scale of the row's group, and the length of the activations: `s * scale * |x|`. The
//! exact logit of the row that screens best is then computed, and every row that comes within [`MARGIN`] spreads
//! of it is computed exactly, too. Wherever the greatest logit was within that margin, it is found, and its value is
//! that of the full gemv, bit for bit.
//!
//! How safe that is: lower bits are bounded, so for independent ones Hoeffding's inequality holds whatever the
//! activations: beyond `k` spreads lies at most `exp(-2 k² s² / range²)`, with range 15 and s 4.61 (or 3 and 1.118)
//! below `exp(-0.18 k²)`: for 12 spreads one in 10^11, and only one row, the greatest, has to keep within it. A test
//! compares the choices over real text. Logits that are not computed exactly count for the probability of the greatest
//! one only, as a part of the sum below it.
//!
//! What a row is screened and computed with depends on its own activations only, so that the logits of a position
//! are the same bits whatever is evaluated with it.

use std::borrow::Cow;

use crate::local::LogitsRequest;
use crate::local::kernels::activations::Activations;
use crate::local::kernels::pack::{GROUP_ROWS, PackedMatrix};
use crate::local::kernels::quant_format::screening_error;
use crate::local::matmul::{ComputeContext, LinearLayer, ProductTarget};

/// Spreads by which the part left out may be wrong.
const SCREEN_MARGIN: f32 = 12.0;

/// The output matrix, and what its screening needs.
#[derive(Debug)]
pub(in crate::local) struct LmHead {
    linear: LinearLayer,
    /// For each group of rows [`MARGIN`] spreads for activations of length 1; none: nothing is screened.
    margins: Option<Vec<f32>>,
    /// `[groups, rows]`: the greatest screened logit.
    screened_max: Vec<f32>,
    /// Groups of weight rows, and rows of activations, that have to be exact.
    exact_rows: Vec<(usize, usize)>,
}

impl LmHead {
    /// Takes the matrix `[vocabulary, width]`.
    pub(in crate::local) fn new(linear: LinearLayer) -> Self {
        let weight = &linear.weight;
        // What rounding adds is far below a hundredth.
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

    /// Bytes of weights that a token reads whose greatest logit is asked for, but for the few rows that come close.
    pub(in crate::local) fn streamed_bytes(&self) -> usize {
        if self.margins.is_some() { self.weight().upper_bytes() } else { self.weight().byte_len() }
    }

    /// The logits of the rows of `x`, as they are asked for; rows without a question are asked for all. `out` is
    /// `[rows, vocabulary]`.
    pub(in crate::local) fn compute_logits(
        &mut self,
        compute: &ComputeContext,
        x: &Activations,
        asks: &[LogitsRequest],
        out: &mut [f32],
    ) {
        let Self { linear, margins, screened_max: greatest, exact_rows: wanted } = self;
        let (rows, groups) = (x.rows(), linear.weight.group_count());
        let ask = |row: usize| match asks.get(row).unwrap_or(&LogitsRequest::All) {
            // Without screening the greatest one is found among all.
            LogitsRequest::Argmax if margins.is_none() => Cow::Owned(LogitsRequest::All),
            ask => Cow::Borrowed(ask),
        };
        // Activations that lie in a form for products of many rows fit no other kernel.
        if x.has_bf16_rows() || (0..rows).all(|row| *ask(row) == LogitsRequest::All) {
            compute.multiply_targets(x, &mut [ProductTarget { linear, out, add: false }]);
            return;
        }
        wanted.clear();
        let mut screened = Vec::new();
        for row in 0..rows {
            match &*ask(row) {
                LogitsRequest::All => wanted.extend((0..groups).map(|group| (group, row))),
                LogitsRequest::Argmax => screened.push(row),
                LogitsRequest::Subset(tokens) => {
                    let asked = tokens.iter().map(|&token| token as usize / GROUP_ROWS);
                    wanted.extend(asked.filter(|&group| group < groups).map(|group| (group, row)));
                }
            }
        }
        if let Some(margins) = margins.as_ref().filter(|_| !screened.is_empty()) {
            greatest.resize(groups * rows, 0.0);
            compute.screen_rows(x, &linear.weight, out, greatest);
            // The exact values of the groups that screen best are the ones to beat.
            let best: Vec<(usize, usize)> =
                screened.iter().map(|&row| (best_group(greatest, rows, row), row)).collect();
            compute_exact(compute, x, linear, &mut best.clone(), out);
            for (group, row) in best {
                let logits = &out[row * linear.weight.rows()..(row + 1) * linear.weight.rows()];
                let reached =
                    greatest_value(&logits[group * GROUP_ROWS..logits.len().min((group + 1) * GROUP_ROWS)]);
                let length = x.row(row).iter().map(|x| x * x).sum::<f32>().sqrt();
                // Also where nothing is a number: then everything is computed, and found to be none.
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

/// The greatest number of some; minus infinity if there is none.
fn greatest_value(values: &[f32]) -> f32 {
    values.iter().fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// The group of weight rows that screens best for a row of activations.
fn best_group(greatest: &[f32], rows: usize, row: usize) -> usize {
    let values = greatest.iter().skip(row).step_by(rows).enumerate();
    values
        .fold(
            (0, f32::NEG_INFINITY),
            |best, (group, &value)| if value > best.1 { (group, value) } else { best },
        )
        .0
}

/// Computes what is wanted, in any order, perhaps named twice.
fn compute_exact(
    compute: &ComputeContext,
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
