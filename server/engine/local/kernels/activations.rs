//! Rows of activations as the products want them: floats, and int8 codes with a scale for each 32 of them.
//! It knows nothing of weights, layers, or threads.
//!
//! The method is that of ggml's `Q8_1` (`quantize_row_q8_1`): scale `max |x| / 127`, codes rounded to nearest,
//! and the codes' sums for the formats with an offset or a minimum; the scale stays a 32-bit float.

use super::pack::UNIT;

/// Some rows, quantized, in *panels* of up to [`Activations::panel_rows`] rows that a kernel takes at once.
#[derive(Debug, Default)]
pub(in crate::local) struct Activations {
    rows: usize,
    columns: usize,
    panel: usize,
    /// `[rows, columns]`.
    pub(in crate::local) floats: Vec<f32>,
    /// For each panel `[columns / 4, width, 4]`; `[columns / 32, width, 32]` where the kernel asks for whole units.
    codes: Vec<i8>,
    /// For each panel `[units, width]`.
    scales: Vec<f32>,
    /// For each panel `[units, 3, width]`: minus the sum of a unit's codes, of its first and its second half.
    sums: Vec<i32>,
    /// For each panel `[units, width]`: scale times sum of codes.
    sized_sums: Vec<f32>,
}

/// One panel to be written.
#[derive(Debug)]
pub(in crate::local) struct Slot<'a> {
    /// Rows that a kernel takes, the padding included.
    pub(in crate::local) width: usize,
    pub(in crate::local) codes: &'a mut [i8],
    pub(in crate::local) scales: &'a mut [f32],
    pub(in crate::local) sums: &'a mut [i32],
    pub(in crate::local) sized_sums: &'a mut [f32],
}

/// One panel to be read: see [`Activations`] for the shapes.
#[derive(Debug, Clone, Copy)]
pub(in crate::local) struct Panel<'a> {
    /// The first row in the matrix.
    pub(in crate::local) first: usize,
    /// Rows that are there.
    pub(in crate::local) rows: usize,
    /// Rows that the kernel takes: `rows` rounded up to a power of two.
    pub(in crate::local) width: usize,
    pub(in crate::local) codes: &'a [i8],
    pub(in crate::local) scales: &'a [f32],
    pub(in crate::local) sums: &'a [i32],
    pub(in crate::local) sized_sums: &'a [f32],
}

/// The slices of all panels, to be split among threads.
#[derive(Debug)]
pub(in crate::local) struct Buffers<'a> {
    pub(in crate::local) floats: &'a mut [f32],
    pub(in crate::local) codes: &'a mut [i8],
    pub(in crate::local) scales: &'a mut [f32],
    pub(in crate::local) sums: &'a mut [i32],
    pub(in crate::local) sized_sums: &'a mut [f32],
}

impl Activations {
    /// Makes room for `rows` rows in panels of `panel`; what was there is lost.
    pub(in crate::local) fn shape(&mut self, rows: usize, columns: usize, panel: usize) -> Buffers<'_> {
        (self.rows, self.columns, self.panel) = (rows, columns, panel);
        let units = columns / UNIT;
        let padded = rows.next_multiple_of(panel);
        // Only ever grown: lengths are checked by the kernels, contents are always written anew.
        let grow = |vec: &mut Vec<f32>, len: usize| vec.resize(vec.len().max(len), 0.0);
        grow(&mut self.floats, rows * columns);
        grow(&mut self.scales, padded * units);
        grow(&mut self.sized_sums, padded * units);
        self.codes.resize(self.codes.len().max(padded * units * UNIT), 0);
        self.sums.resize(self.sums.len().max(padded * units * 3), 0);
        Buffers {
            floats: &mut self.floats[..rows * columns],
            codes: &mut self.codes[..padded * units * UNIT],
            scales: &mut self.scales[..padded * units],
            sums: &mut self.sums[..padded * units * 3],
            sized_sums: &mut self.sized_sums[..padded * units],
        }
    }

    /// Rows.
    pub(in crate::local) fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub(in crate::local) fn columns(&self) -> usize {
        self.columns
    }

    /// Number of panels.
    pub(in crate::local) fn panels(&self) -> usize {
        self.rows.div_ceil(self.panel.max(1))
    }

    /// The row as floats.
    pub(in crate::local) fn row(&self, row: usize) -> &[f32] {
        &self.floats[row * self.columns..(row + 1) * self.columns]
    }

    /// A panel.
    pub(in crate::local) fn panel(&self, index: usize) -> Panel<'_> {
        let first = index * self.panel;
        let rows = self.panel.min(self.rows - first);
        let width = width(rows);
        let units = self.columns / UNIT;
        Panel {
            first,
            rows,
            width,
            codes: &self.codes[first * units * UNIT..][..width * units * UNIT],
            scales: &self.scales[first * units..][..width * units],
            sums: &self.sums[first * units * 3..][..width * units * 3],
            sized_sums: &self.sized_sums[first * units..][..width * units],
        }
    }
}

/// Rows of a panel with the padding that its kernel wants.
pub(in crate::local) fn width(rows: usize) -> usize {
    rows.next_power_of_two()
}

/// Adding this to a float below 2^22 leaves the nearest integer in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// Quantizes the rows of one panel: `floats` is `[rows, columns]`, `rows` at most the slot's width; the rest is
/// padded with zero scales. `WHOLE` leaves the 32 codes of a unit and row together.
#[inline(always)]
pub(in crate::local) fn quantize<const WHOLE: bool>(floats: &[f32], slot: &mut Slot<'_>) {
    let width = slot.width;
    let units = slot.scales.len() / width;
    let columns = units * UNIT;
    slot.scales.fill(0.0);
    slot.sized_sums.fill(0.0);
    for (row, floats) in floats.chunks_exact(columns).enumerate() {
        let (floats, _) = floats.as_chunks::<UNIT>();
        for (unit, floats) in floats.iter().enumerate() {
            // Without their sign, floats are ordered as their bits are; a NaN comes out largest and spreads.
            let mut largest = 0_u32;
            for x in floats {
                largest = largest.max(x.to_bits() & 0x7fff_ffff);
            }
            let largest = f32::from_bits(largest);
            // Below this the inverse would overflow, and the values mean nothing.
            let (scale, inverse) =
                if largest < 1e-30 { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) };
            // Loops rather than `map`, which may stay a call without the instruction set.
            let mut wide = [0_i32; UNIT];
            let mut codes = [0_i8; UNIT];
            for i in 0..UNIT {
                wide[i] = (floats[i] * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
                codes[i] = wide[i] as i8;
            }
            let mut halves = [0_i32; 2];
            for i in 0..16 {
                halves[0] += wide[i];
                halves[1] += wide[16 + i];
            }
            let to = &mut slot.codes[unit * UNIT * width..(unit + 1) * UNIT * width];
            if WHOLE {
                to[row * UNIT..][..UNIT].copy_from_slice(&codes);
            } else {
                let (to, _) = to.as_chunks_mut::<4>();
                let (steps, _) = codes.as_chunks::<4>();
                for (to, codes) in to[row..].iter_mut().step_by(width).zip(steps) {
                    *to = *codes;
                }
            }
            let sum = halves[0] + halves[1];
            slot.scales[unit * width + row] = scale;
            slot.sized_sums[unit * width + row] = scale * sum as f32;
            let sums = &mut slot.sums[unit * 3 * width..(unit + 1) * 3 * width];
            sums[row] = -sum;
            sums[width + row] = -halves[0];
            sums[2 * width + row] = -halves[1];
        }
    }
}
