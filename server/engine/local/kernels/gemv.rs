//! The matrix kernels, packed weights times rows of activations: their shared parts, their dispatch, and *gemv*.
//!
//! There are two kernels for quantized weights. *Gemv* (few rows: decode, verification of drafts) unpacks codes in
//! registers, uses them for all rows of a panel, and is bound by reading the weights from memory. *Gemm* (prefill)
//! unpacks two groups of weight rows into a tile in the cache once, multiplies it with all panels, and is bound by
//! the dot-product instructions. Both add up the units in the same order with the same operations.
//!
//! *Screen* is the gemv kernel with the first plane of weights in two planes: it replaces the lower bits of a code by
//! their average, and reads half of the bytes (see [`super::quant_format::screening_error`]).

#![expect(clippy::needless_range_loop, reason = "several arrays are indexed by row, vector and part at once")]

use std::ops::Range;

use super::activations::{Activations, Bf16Unit, PanelRef};
use super::isa::{Isa, flush_after};
use super::pack::{GROUP_ROWS, PackedFormat, PackedMatrix, ScaleLayout, UNIT_COLUMNS};
use super::quant_format::{
    Q6KScreen, Q8Screen, QuantFormat, initial_sums, load_codes, load_factors, with_quant_format,
};

/// How far ahead the gemv kernel prefetches weights, in bytes. The processor's own prefetching stops at page borders
/// and restarts after them. This distance lets memory deliver at its full rate.
pub(super) const PREFETCH_BYTES: usize = 8192;

/// Destination of products.
#[derive(Debug)]
pub(in crate::local) struct ProductOutput<'a> {
    /// Row 0, column 0 of a row-major matrix with one row per activation row.
    pub(in crate::local) start: *mut f32,
    /// Values from one row to the next.
    pub(in crate::local) stride: usize,
    /// Added to every row, if present.
    pub(in crate::local) bias: Option<&'a [f32]>,
    /// Whether to add to the present contents.
    pub(in crate::local) add: bool,
}

/// A piece of a product with few activation rows.
///
/// # Safety of its use
/// `out` is valid for every activation row and weight row of `groups`, and nothing else accesses these values.
#[derive(Debug)]
pub(in crate::local) struct GemvArgs<'a> {
    pub(in crate::local) weight: &'a PackedMatrix,
    pub(in crate::local) groups: Range<usize>,
    pub(in crate::local) x: &'a Activations,
    pub(in crate::local) out: ProductOutput<'a>,
}

/// A piece of a product with many rows, with the same contract as [`GemvArgs`]. At most
/// [`super::KernelTable::gemm_groups`] groups.
pub(in crate::local) type GemmArgs<'a> = GemvArgs<'a>;

/// A piece of a product with float weights, with the same contract as [`GemvArgs`].
pub(in crate::local) type DenseArgs<'a> = GemvArgs<'a>;

/// Unpacked weights, group after group: codes as bytes (8 steps of 64 bytes per unit) and scales as floats (two times
/// 16 per unit: the scale and the minimum, or the scales of both halves). One per thread, reused. `bf16` and `sums`
/// belong to the tile registers (see `amx`).
#[derive(Debug, Default)]
pub(in crate::local) struct UnpackedTile {
    pub(super) codes: Vec<CacheLine<u8, 64>>,
    pub(super) scales: Vec<CacheLine<f32, GROUP_ROWS>>,
    pub(super) bf16: Vec<Bf16Unit>,
    pub(super) sums: Vec<CacheLine<f32, GROUP_ROWS>>,
}

/// A cache line. Vectors that straddle two lines take two loads.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::local) struct CacheLine<T, const N: usize>(pub(super) [T; N]);

/// The gemv kernel of one instruction set, for a format and a number of rows.
pub(in crate::local) trait GemvKernel {
    /// Multiplies one group with one panel.
    ///
    /// # Safety
    /// The instruction set is available, the panel is `R` rows wide, and see [`GemvArgs`].
    unsafe fn run<F: QuantFormat, const R: usize>(args: &GemvArgs<'_>, group: usize, panel: &PanelRef<'_>);
}

/// The gemm kernel of one instruction set.
pub(in crate::local) trait GemmKernel {
    /// Unpacks the groups into the tile.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn expand<F: QuantFormat>(args: &GemmArgs<'_>, tile: &mut UnpackedTile);

    /// Multiplies the tile with one panel.
    ///
    /// # Safety
    /// The instruction set is available, the tile was filled by `expand`, the panel is `R` rows wide, and see
    /// [`GemvArgs`].
    unsafe fn run<F: QuantFormat, const R: usize>(
        args: &GemmArgs<'_>,
        tile: &UnpackedTile,
        panel: &PanelRef<'_>,
    );
}

/// Chooses the gemv kernel for each panel.
///
/// # Safety
/// The instruction set is available, and see [`GemvArgs`].
#[inline(always)]
pub(super) unsafe fn dispatch_gemv<T: GemvKernel, const P: usize>(args: &GemvArgs<'_>) {
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    for group in args.groups.clone() {
        for panel in 0..args.x.panels() {
            let panel = &args.x.panel(panel);
            // SAFETY: by the caller's contract; the width is the panel's.
            with_quant_format!(args.weight.format(), F => unsafe {
                match panel.width {
                    1 => T::run::<F, 1>(args, group, panel),
                    2 => T::run::<F, 2>(args, group, panel),
                    4 => T::run::<F, 4>(args, group, panel),
                    _ => T::run::<F, P>(args, group, panel),
                }
            });
        }
    }
}

/// Chooses the screen kernel for each panel; does nothing for weights in one plane.
///
/// # Safety
/// The instruction set is available, and see [`GemvArgs`].
#[inline(always)]
pub(super) unsafe fn dispatch_screen<T: GemvKernel, const P: usize>(args: &GemvArgs<'_>) {
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    for group in args.groups.clone() {
        for panel in 0..args.x.panels() {
            let panel = &args.x.panel(panel);
            // SAFETY: by the caller's contract; the width is the panel's.
            unsafe {
                match (args.weight.format(), panel.width) {
                    (PackedFormat::Q8Planes, 1) => T::run::<Q8Screen, 1>(args, group, panel),
                    (PackedFormat::Q8Planes, 2) => T::run::<Q8Screen, 2>(args, group, panel),
                    (PackedFormat::Q8Planes, 4) => T::run::<Q8Screen, 4>(args, group, panel),
                    (PackedFormat::Q8Planes, _) => T::run::<Q8Screen, P>(args, group, panel),
                    (PackedFormat::Q6KPlanes, 1) => T::run::<Q6KScreen, 1>(args, group, panel),
                    (PackedFormat::Q6KPlanes, 2) => T::run::<Q6KScreen, 2>(args, group, panel),
                    (PackedFormat::Q6KPlanes, 4) => T::run::<Q6KScreen, 4>(args, group, panel),
                    (PackedFormat::Q6KPlanes, _) => T::run::<Q6KScreen, P>(args, group, panel),
                    _ => {}
                }
            }
        }
    }
}

/// Unpacks the groups, then chooses the gemm kernel for each panel.
///
/// # Safety
/// The instruction set is available, and see [`GemvArgs`].
#[inline(always)]
pub(super) unsafe fn dispatch_gemm<T: GemmKernel, const P: usize>(
    args: &GemmArgs<'_>,
    tile: &mut UnpackedTile,
) {
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    // SAFETY: by the caller's contract; the width is the panel's.
    with_quant_format!(args.weight.format(), F => unsafe {
        T::expand::<F>(args, tile);
        for panel in 0..args.x.panels() {
            let panel = &args.x.panel(panel);
            match panel.width {
                1 => T::run::<F, 1>(args, tile, panel),
                2 => T::run::<F, 2>(args, tile, panel),
                4 => T::run::<F, 4>(args, tile, panel),
                _ => T::run::<F, P>(args, tile, panel),
            }
        }
    });
}

/// Adds the contribution of a unit (or half unit) to the sums of one row.
///
/// # Safety
/// The pointers are valid.
#[inline(always)]
pub(super) unsafe fn accumulate_unit<I: Isa>(
    sum: I::Floats,
    ints: I::Ints,
    scale: I::Floats,
    x_scale: *const f32,
) -> I::Floats {
    // SAFETY: by the caller's contract.
    unsafe { I::mul_add(I::floats(ints), I::mul(scale, I::splat(*x_scale)), sum) }
}

/// Writes the products of one group with the rows of a panel.
///
/// # Safety
/// See [`GemvArgs`].
#[inline(always)]
pub(super) unsafe fn write_products<const R: usize>(
    args: &GemvArgs<'_>,
    group: usize,
    panel: &PanelRef<'_>,
    sums: &[CacheLine<f32, GROUP_ROWS>; R],
) {
    let first = group * GROUP_ROWS;
    let lanes = GROUP_ROWS.min(args.weight.rows() - first);
    let out = &args.out;
    for (row, CacheLine(sums)) in sums.iter().enumerate().take(panel.rows) {
        // SAFETY: by the caller's contract: a row of activations, and existing weight rows of this group.
        let to = unsafe {
            std::slice::from_raw_parts_mut(out.start.add((panel.first + row) * out.stride + first), lanes)
        };
        if lanes == GROUP_ROWS && out.bias.is_none() {
            // The common case; a fixed length compiles to a few vector instructions.
            let to: &mut [f32; GROUP_ROWS] = match to.try_into() {
                Ok(to) => to,
                Err(_) => continue,
            };
            if out.add {
                for (to, sum) in to.iter_mut().zip(sums) {
                    *to += sum;
                }
            } else {
                *to = *sums;
            }
            continue;
        }
        let mut sums = *sums;
        if let Some(bias) = out.bias {
            for (sum, bias) in sums.iter_mut().zip(&bias[first..first + lanes]) {
                *sum += bias;
            }
        }
        if out.add {
            for (to, sum) in to.iter_mut().zip(&sums) {
                *to += sum;
            }
        } else if lanes == GROUP_ROWS {
            to.copy_from_slice(&sums);
        } else {
            to.copy_from_slice(&sums[..lanes]);
        }
    }
}

/// Multiplies one group with one panel of `R` rows, unpacking in registers.
///
/// # Safety
/// The instruction set is available, the panel is `R` rows wide, and see [`GemvArgs`].
#[inline(always)]
pub(super) unsafe fn gemv<I: Isa, F: QuantFormat, const R: usize>(
    args: &GemvArgs<'_>,
    group: usize,
    panel: &PanelRef<'_>,
) {
    let units = args.weight.columns() / UNIT_COLUMNS;
    let (codes_bytes, scale_bytes) = args.weight.group_data(group);
    let lower_bytes = args.weight.lower_plane(group);
    let halves = matches!(F::SCALES, ScaleLayout::SuperHalves);
    assert!(panel.codes.len() == R * units * UNIT_COLUMNS && panel.scales.len() == R * units);
    let (x, x_scales) = (panel.codes.as_ptr().cast::<u8>(), panel.scales.as_ptr());
    let (x_sums, x_sized) = (panel.sums.as_ptr(), panel.scaled_sums.as_ptr());
    let mut out = [CacheLine([0.0_f32; GROUP_ROWS]); R];
    // Prefetching by units skips the scales that precede the next group's codes.
    let (next_scales, scales_step) = (codes_bytes.as_ptr_range().end, scale_bytes.len().div_ceil(units));
    if group == args.groups.start && panel.first == 0 {
        // The first group of a piece has not been prefetched.
        for line in (0..PREFETCH_BYTES + scale_bytes.len()).step_by(64) {
            // SAFETY: a hint, which cannot fault.
            unsafe { I::prefetch(scale_bytes.as_ptr().wrapping_add(line)) };
        }
    }
    // SAFETY: the slices have the lengths that `PackedMatrix` and `Activations` state; all offsets below are inside.
    unsafe {
        let mut sums = [[I::splat(0.0); R]; 2];
        for unit in 0..units {
            I::prefetch(next_scales.wrapping_add(PREFETCH_BYTES + unit * scales_step));
            let x = x.add(unit * UNIT_COLUMNS * R);
            let x_scales = x_scales.add(unit * R);
            let x_sums = x_sums.add(unit * 3 * R);
            let x_sized = x_sized.add(unit * R);
            let unit_codes = codes_bytes.as_ptr().add(unit * 64 * F::UPPER_BITS as usize);
            let unit_lower = lower_bytes.as_ptr().add(unit * 64 * F::LOWER_BITS as usize);
            for line in 0..F::UPPER_BITS as usize {
                I::prefetch(unit_codes.wrapping_add(PREFETCH_BYTES + 64 * line));
            }
            for line in 0..F::LOWER_BITS as usize {
                I::prefetch(unit_lower.wrapping_add(PREFETCH_BYTES + 64 * line));
            }
            for part in 0..I::PARTS {
                let place = part * 4 * I::LANES;
                let (unit_codes, unit_lower) = (unit_codes.add(place), unit_lower.wrapping_add(place));
                // Two accumulators, because each dot product waits for the previous one.
                static ZERO: i32 = 0;
                let mut ints = [[I::ints(&raw const ZERO, 0); R]; 2];
                for row in 0..R {
                    if halves {
                        ints[0][row] = initial_sums::<I, F>(x_sums.add(R + row));
                        ints[1][row] = initial_sums::<I, F>(x_sums.add(2 * R + row));
                    } else {
                        ints[0][row] = initial_sums::<I, F>(x_sums.add(row));
                    }
                }
                let mut narrow = [[I::narrow(); R]; 2];
                for step in 0..4 {
                    let (low, high) = load_codes::<I, F>(unit_codes, unit_lower, step);
                    for row in 0..R {
                        let at = |step: usize| x.add((step * R + row) * 4);
                        I::dot(&mut ints[0][row], &mut narrow[0][row], low, at(step), F::BITS);
                        I::dot(&mut ints[1][row], &mut narrow[1][row], high, at(step + 4), F::BITS);
                        // Four steps each are below every limit except that of six bits.
                        if (step + 1) % flush_after(F::BITS).min(4) == 0 {
                            I::flush(&mut ints[0][row], &mut narrow[0][row], F::BITS);
                            I::flush(&mut ints[1][row], &mut narrow[1][row], F::BITS);
                        }
                    }
                }
                if !halves {
                    for row in 0..R {
                        ints[0][row] = I::add_ints(ints[0][row], ints[1][row]);
                    }
                }
                let (scale, other) = load_factors::<I, F>(scale_bytes.as_ptr(), unit, part);
                for row in 0..R {
                    let sum = &mut sums[part][row];
                    *sum = accumulate_unit::<I>(*sum, ints[0][row], scale, x_scales.add(row));
                    match F::SCALES {
                        ScaleLayout::Plain => {}
                        ScaleLayout::Min | ScaleLayout::SuperMin => {
                            *sum = I::mul_add(other, I::splat(*x_sized.add(row)), *sum);
                        }
                        ScaleLayout::SuperHalves => {
                            *sum = accumulate_unit::<I>(*sum, ints[1][row], other, x_scales.add(row));
                        }
                    }
                }
            }
        }
        for part in 0..I::PARTS {
            for row in 0..R {
                let mut sum = sums[part][row];
                if F::SCREEN_ZERO.is_some() {
                    // An upper code is worth as many of the file's steps as its lower bits have values.
                    let steps = 1_u32 << args.weight.format().lower_bits();
                    sum = I::mul(sum, I::splat(steps as f32));
                }
                I::store_f32(out[row].0.as_mut_ptr().add(part * I::LANES), sum);
            }
        }
        write_products(args, group, panel, &out);
    }
}
