//! Rows of activations as the kernels take them: floats, and int8 codes with one scale per 32 values, or bfloat16.
//!
//! The method is that of ggml's `Q8_1` (`quantize_row_q8_1`): scale `max |x| / 127`, codes rounded to nearest,
//! and the codes' sums for the formats with an offset or a minimum; the scale stays a 32-bit float.

use super::gemv::CacheLine;
use super::pack::UNIT_COLUMNS;

/// The values of a unit and row as bfloat16.
pub(in crate::local) type Bf16Unit = CacheLine<u16, UNIT_COLUMNS>;
/// Rows of a bfloat16 panel: those of a tile.
pub(in crate::local) const TILE_ROWS: usize = 16;

/// Rows of activations, quantized, in *panels* of a width that one kernel call takes.
#[derive(Debug, Default)]
pub(in crate::local) struct Activations {
    rows: usize,
    columns: usize,
    panel: usize,
    /// `[rows, columns]`.
    pub(in crate::local) floats: Vec<f32>,
    /// Whether the rows are in `bf16` instead of quantized.
    is_bf16: bool,
    /// For each panel `[units, TILE_ROWS]`.
    bf16: Vec<Bf16Unit>,
    /// For each panel `[columns / 4, width, 4]`.
    codes: Vec<i8>,
    /// For each panel `[units, width]`.
    scales: Vec<f32>,
    /// For each panel `[units, 3, width]`: minus the sum of a unit's codes, of its first and its second half.
    sums: Vec<i32>,
    /// For each panel `[units, width]`: scale times sum of codes.
    scaled_sums: Vec<f32>,
}

/// One panel to write: bfloat16, or the other buffers.
#[derive(Debug, Default)]
pub(in crate::local) struct PanelMut<'a> {
    /// Rows that a kernel takes, the padding included.
    pub(in crate::local) width: usize,
    pub(in crate::local) bf16: &'a mut [Bf16Unit],
    pub(in crate::local) codes: &'a mut [i8],
    pub(in crate::local) scales: &'a mut [f32],
    pub(in crate::local) sums: &'a mut [i32],
    pub(in crate::local) scaled_sums: &'a mut [f32],
}

/// One panel to read: see [`Activations`] for the shapes.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::local) struct PanelRef<'a> {
    /// The first row in the matrix.
    pub(in crate::local) first: usize,
    /// Valid rows.
    pub(in crate::local) rows: usize,
    /// Rows that the kernel takes: `rows` rounded up to a power of two.
    pub(in crate::local) width: usize,
    pub(in crate::local) bf16: &'a [Bf16Unit],
    pub(in crate::local) codes: &'a [i8],
    pub(in crate::local) scales: &'a [f32],
    pub(in crate::local) sums: &'a [i32],
    pub(in crate::local) scaled_sums: &'a [f32],
}

/// The slices of all panels, to be split among threads.
#[derive(Debug)]
pub(in crate::local) struct PanelBuffers<'a> {
    pub(in crate::local) floats: &'a mut [f32],
    pub(in crate::local) bf16: &'a mut [Bf16Unit],
    pub(in crate::local) codes: &'a mut [i8],
    pub(in crate::local) scales: &'a mut [f32],
    pub(in crate::local) sums: &'a mut [i32],
    pub(in crate::local) scaled_sums: &'a mut [f32],
}

impl Activations {
    /// Makes room for `rows` rows in panels of `panel`, as bfloat16 or quantized. Discards the contents.
    pub(in crate::local) fn reshape_for(
        &mut self,
        rows: usize,
        columns: usize,
        panel: usize,
        halved: bool,
    ) -> PanelBuffers<'_> {
        (self.rows, self.columns, self.panel, self.is_bf16) = (rows, columns, panel, halved);
        let units = columns / UNIT_COLUMNS;
        let padded = rows.next_multiple_of(panel);
        let quantized = if halved { 0 } else { padded * units };
        let halves = if halved { padded * units } else { 0 };
        // Buffers only grow: the kernels check lengths, and contents are always overwritten.
        let grow = |vec: &mut Vec<f32>, len: usize| vec.resize(vec.len().max(len), 0.0);
        grow(&mut self.floats, rows * columns);
        grow(&mut self.scales, quantized);
        grow(&mut self.scaled_sums, quantized);
        self.bf16.resize(self.bf16.len().max(halves), CacheLine([0; UNIT_COLUMNS]));
        self.codes.resize(self.codes.len().max(quantized * UNIT_COLUMNS), 0);
        self.sums.resize(self.sums.len().max(quantized * 3), 0);
        PanelBuffers {
            floats: &mut self.floats[..rows * columns],
            bf16: &mut self.bf16[..halves],
            codes: &mut self.codes[..quantized * UNIT_COLUMNS],
            scales: &mut self.scales[..quantized],
            sums: &mut self.sums[..quantized * 3],
            scaled_sums: &mut self.scaled_sums[..quantized],
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

    /// Whether the rows are bfloat16.
    pub(in crate::local) fn has_bf16_rows(&self) -> bool {
        self.is_bf16
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
    pub(in crate::local) fn panel(&self, index: usize) -> PanelRef<'_> {
        let first = index * self.panel;
        let rows = self.panel.min(self.rows - first);
        let width = padded_width(rows);
        let units = self.columns / UNIT_COLUMNS;
        if self.is_bf16 {
            let halves = &self.bf16[first * units..][..self.panel * units];
            return PanelRef { first, rows, width: self.panel, bf16: halves, ..PanelRef::default() };
        }
        PanelRef {
            first,
            rows,
            width,
            bf16: &[],
            codes: &self.codes[first * units * UNIT_COLUMNS..][..width * units * UNIT_COLUMNS],
            scales: &self.scales[first * units..][..width * units],
            sums: &self.sums[first * units * 3..][..width * units * 3],
            scaled_sums: &self.scaled_sums[first * units..][..width * units],
        }
    }
}

/// Rows of a panel, including its kernel's padding.
pub(in crate::local) fn padded_width(rows: usize) -> usize {
    rows.next_power_of_two()
}

/// Adding this to a float below 2^22 leaves the nearest integer in the lowest bits.
const ROUNDING_OFFSET: f32 = 12_582_912.0;

/// Quantizes the rows of one panel: `floats` is `[rows, columns]`, `rows` at most the slot's width. Pads the rest with
/// zero scales.
#[inline(always)]
pub(in crate::local) fn quantize(floats: &[f32], slot: &mut PanelMut<'_>) {
    let width = slot.width;
    let units = slot.scales.len() / width;
    let columns = units * UNIT_COLUMNS;
    slot.scales.fill(0.0);
    slot.scaled_sums.fill(0.0);
    for (row, floats) in floats.chunks_exact(columns).enumerate() {
        let (floats, _) = floats.as_chunks::<UNIT_COLUMNS>();
        for (unit, floats) in floats.iter().enumerate() {
            // Without their sign, floats are ordered like their bits; a NaN is the largest and propagates.
            let mut largest = 0_u32;
            for x in floats {
                largest = largest.max(x.to_bits() & 0x7fff_ffff);
            }
            let largest = f32::from_bits(largest);
            // Below this the inverse would overflow, and the values are negligible.
            let (scale, inverse) =
                if largest < 1e-30 { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) };
            // Loops rather than `map`, which may stay a call without the instruction set.
            let mut rounded = [0_i32; UNIT_COLUMNS];
            let mut codes = [0_i8; UNIT_COLUMNS];
            for i in 0..UNIT_COLUMNS {
                rounded[i] = (floats[i] * inverse + ROUNDING_OFFSET)
                    .to_bits()
                    .wrapping_sub(ROUNDING_OFFSET.to_bits()) as i32;
                codes[i] = rounded[i] as i8;
            }
            let mut halves = [0_i32; 2];
            for i in 0..16 {
                // For weights that yield NaN these bits are arbitrary, and the scale is NaN.
                halves[0] = halves[0].wrapping_add(rounded[i]);
                halves[1] = halves[1].wrapping_add(rounded[16 + i]);
            }
            let to = &mut slot.codes[unit * UNIT_COLUMNS * width..(unit + 1) * UNIT_COLUMNS * width];
            let (to, _) = to.as_chunks_mut::<4>();
            let (steps, _) = codes.as_chunks::<4>();
            for (to, codes) in to[row..].iter_mut().step_by(width).zip(steps) {
                *to = *codes;
            }
            let sum = halves[0].wrapping_add(halves[1]);
            slot.scales[unit * width + row] = scale;
            slot.scaled_sums[unit * width + row] = scale * sum as f32;
            let sums = &mut slot.sums[unit * 3 * width..(unit + 1) * 3 * width];
            sums[row] = sum.wrapping_neg();
            sums[width + row] = halves[0].wrapping_neg();
            sums[2 * width + row] = halves[1].wrapping_neg();
        }
    }
}

/// Rounds the rows of one panel to bfloat16: `floats` is `[rows, columns]`, `rows` at most [`TILE_ROWS`]. Pads the rest
/// with zeros.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AMX alone takes them"))]
pub(in crate::local) fn panel_to_bf16(floats: &[f32], slot: &mut PanelMut<'_>) {
    let columns = slot.bf16.len() / TILE_ROWS * UNIT_COLUMNS;
    for row in 0..TILE_ROWS {
        let to = slot.bf16[row..].iter_mut().step_by(TILE_ROWS);
        match floats.get(row * columns..(row + 1) * columns) {
            Some(floats) => {
                let (floats, _) = floats.as_chunks::<UNIT_COLUMNS>();
                for (CacheLine(to), floats) in to.zip(floats) {
                    for i in 0..UNIT_COLUMNS {
                        to[i] = to_bf16(floats[i]);
                    }
                }
            }
            None => to.for_each(|to| *to = CacheLine([0; UNIT_COLUMNS])),
        }
    }
}

/// Rounds to the nearest bfloat16, ties away from zero; a NaN stays a NaN.
#[inline(always)]
pub(super) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x8000) >> 16) as u16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fc0 } else { rounded }
}
