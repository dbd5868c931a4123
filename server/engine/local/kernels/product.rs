//! The matrix kernels: packed weights times rows of activations.
//! It knows nothing of threads or of what the products mean; the instruction set is a type parameter.
//!
//! Two kernels for quantized weights. *Thin* (few rows: decode, verification of drafts) unpacks codes in registers,
//! uses them for all rows of a panel, and is bound by reading the weights from memory. *Wide* (prefill) unpacks
//! two groups of weight rows into a tile in the cache once and multiplies it with all panels, and is bound by
//! the dot-product instructions. Both add up the units in the same order with the same operations.
//!
//! *Coarse* is the thin kernel with the first plane of weights in two planes: it takes the lower bits of a code for
//! their average, and reads half of the bytes (see [`coarse_error`]).

#![expect(clippy::needless_range_loop, reason = "several arrays are indexed by row, vector and part at once")]

use std::ops::Range;

use super::activations::{Activations, Halves, Panel};
use super::isa::{Isa, flush_after};
use super::pack::{Format, GROUP, Packed, Scales, UNIT};

/// Bytes by which the thin kernel asks for weights ahead of their use: the processor's own prefetching stops at
/// page borders and starts anew behind them. So far ahead that memory has answered by then at its full rate.
pub(super) const AHEAD: usize = 8192;

/// Groups that the wide kernel works on at once at most.
const MAX_WIDE: usize = 4;

/// Where products go.
#[derive(Debug)]
pub(in crate::local) struct Out<'a> {
    /// Row 0, column 0 of a row-major matrix, whose rows the activations' rows are.
    pub(in crate::local) start: *mut f32,
    /// Values from one row to the next.
    pub(in crate::local) stride: usize,
    /// Added to every row, if there.
    pub(in crate::local) bias: Option<&'a [f32]>,
    /// Whether to add to what is there.
    pub(in crate::local) add: bool,
}

/// A piece of a product with few activation rows.
///
/// # Safety of its use
/// `out` is valid for every activation row and weight row of `groups`, and nobody else uses these places.
#[derive(Debug)]
pub(in crate::local) struct Thin<'a> {
    pub(in crate::local) weight: &'a Packed,
    pub(in crate::local) groups: Range<usize>,
    pub(in crate::local) x: &'a Activations,
    pub(in crate::local) out: Out<'a>,
}

/// A piece of a product with many rows; the same promises as for [`Thin`]. At most [`super::Entries::wide_groups`]
/// groups.
pub(in crate::local) type Wide<'a> = Thin<'a>;

/// A piece of a product with weights that are floats; the same promises as for [`Thin`].
pub(in crate::local) type Dense<'a> = Thin<'a>;

/// Unpacked weights: codes as bytes (8 steps of 64 bytes a unit) and scales as floats (two times 16 a unit: the
/// scale and the minimum, or the scales of both halves), group behind group. One for each thread, reused. `halves` and
/// `sums` are the tile registers' (see `amx`).
#[derive(Debug, Default)]
pub(in crate::local) struct Tile {
    pub(super) codes: Vec<Line<u8, 64>>,
    pub(super) scales: Vec<Line<f32, GROUP>>,
    pub(super) halves: Vec<Halves>,
    pub(super) sums: Vec<Line<f32, GROUP>>,
}

/// A cache line. Vectors that straddle two lines take two loads.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::local) struct Line<T, const N: usize>(pub(super) [T; N]);

/// A storage form as a type, so that kernels are compiled for each.
pub(in crate::local) trait Form {
    /// Bits of a code.
    const BITS: u32;
    /// How scales are stored.
    const SCALES: Scales;
    /// Bits of a code that lie in the second plane.
    const LOWER: u32;
    /// In 1/32, the code that stands for zero where only a code's upper bits are read; none: all are read.
    const COARSE: Option<i32>;
    /// Bits of a code in the first plane: lines of 64 bytes that a unit has there.
    const UPPER: u32 = Self::BITS - Self::LOWER;
}

macro_rules! forms {
    ($($name:ident $bits:literal $scales:ident $lower:literal $coarse:expr;)*) => {
        $(
            #[derive(Debug)]
            struct $name;
            impl Form for $name {
                const BITS: u32 = $bits;
                const SCALES: Scales = Scales::$scales;
                const LOWER: u32 = $lower;
                const COARSE: Option<i32> = $coarse;
            }
        )*
    };
}
forms! {
    Q4_0 4 Plain 0 None;
    Q4_1 4 Min 0 None;
    Q5_0 5 Plain 0 None;
    Q5_1 5 Min 0 None;
    Q8_0 8 Plain 0 None;
    Q4K 4 SuperMin 0 None;
    Q5K 5 SuperMin 0 None;
    Q6K 6 SuperHalves 0 None;
    Q8Planes 8 Plain 4 None;
    Q6KPlanes 6 SuperHalves 2 None;
    // 128 / 16 less the average of four lower bits, 7.5 / 16.
    Q8Coarse 4 Plain 0 Some(256 - 15);
    // 32 / 4 less the average of two lower bits, 1.5 / 4.
    Q6KCoarse 4 SuperHalves 0 Some(256 - 12);
}

/// What the coarse kernel leaves out of a product, as a part of the weights' scale: the spread (standard deviation)
/// of one code's lower bits, and the code steps that its result counts in. None if the format has one plane only.
pub(in crate::local) fn coarse_error(format: Format) -> Option<f32> {
    // The spread of a number that is any of 0 to n - 1: sqrt((n^2 - 1) / 12).
    let steps = match format.lower_bits() {
        0 => return None,
        bits => (1_u32 << bits) as f32,
    };
    Some(((steps * steps - 1.0) / 12.0).sqrt())
}

/// Runs `$body` with `$form` standing for the weights' form. Floats are handled elsewhere.
macro_rules! with_form {
    ($format:expr, $form:ident => $body:expr) => {
        match $format {
            Format::Q4_0 => {
                type $form = Q4_0;
                $body
            }
            Format::Q4_1 => {
                type $form = Q4_1;
                $body
            }
            Format::Q5_0 => {
                type $form = Q5_0;
                $body
            }
            Format::Q5_1 => {
                type $form = Q5_1;
                $body
            }
            Format::Q8_0 => {
                type $form = Q8_0;
                $body
            }
            Format::Q4K => {
                type $form = Q4K;
                $body
            }
            Format::Q5K => {
                type $form = Q5K;
                $body
            }
            Format::Q6K => {
                type $form = Q6K;
                $body
            }
            Format::Q8Planes => {
                type $form = Q8Planes;
                $body
            }
            Format::Q6KPlanes => {
                type $form = Q6KPlanes;
                $body
            }
            Format::F16 | Format::Bf16 | Format::F32 => {}
        }
    };
}

/// Something to be done for the weights' form.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for AMX alone"))]
pub(in crate::local) trait ForForm {
    /// Does it.
    ///
    /// # Safety
    /// As the implementation says.
    unsafe fn run<F: Form>(self);
}

/// Does it for the form of `format`; nothing for floats.
///
/// # Safety
/// As `job` says.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for AMX alone"))]
pub(super) unsafe fn for_form(format: Format, job: impl ForForm) {
    // SAFETY: the caller's promise.
    with_form!(format, F => unsafe { job.run::<F>() });
}

/// The thin kernel of one instruction set, for a form and a number of rows.
pub(in crate::local) trait ThinRows {
    /// One group and one panel.
    ///
    /// # Safety
    /// The instruction set is there, the panel is `R` wide, and see [`Thin`].
    unsafe fn run<F: Form, const R: usize>(args: &Thin<'_>, group: usize, panel: &Panel<'_>);
}

/// The wide kernel of one instruction set.
pub(in crate::local) trait WideRows {
    /// Unpacks the groups into the tile.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn expand<F: Form>(args: &Wide<'_>, tile: &mut Tile);

    /// One panel.
    ///
    /// # Safety
    /// The instruction set is there, the tile was filled by `expand`, the panel is `R` wide, and see [`Thin`].
    unsafe fn run<F: Form, const R: usize>(args: &Wide<'_>, tile: &Tile, panel: &Panel<'_>);
}

/// Chooses the thin kernel for each panel.
///
/// # Safety
/// The instruction set is there, and see [`Thin`].
#[inline(always)]
pub(super) unsafe fn dispatch_thin<T: ThinRows, const P: usize>(args: &Thin<'_>) {
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    for group in args.groups.clone() {
        for panel in 0..args.x.panels() {
            let panel = &args.x.panel(panel);
            // SAFETY: the caller's promise; the width is the panel's.
            with_form!(args.weight.format(), F => unsafe {
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

/// Chooses the coarse kernel for each panel; does nothing for weights in one plane.
///
/// # Safety
/// The instruction set is there, and see [`Thin`].
#[inline(always)]
pub(super) unsafe fn dispatch_coarse<T: ThinRows, const P: usize>(args: &Thin<'_>) {
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    for group in args.groups.clone() {
        for panel in 0..args.x.panels() {
            let panel = &args.x.panel(panel);
            // SAFETY: the caller's promise; the width is the panel's.
            unsafe {
                match (args.weight.format(), panel.width) {
                    (Format::Q8Planes, 1) => T::run::<Q8Coarse, 1>(args, group, panel),
                    (Format::Q8Planes, 2) => T::run::<Q8Coarse, 2>(args, group, panel),
                    (Format::Q8Planes, 4) => T::run::<Q8Coarse, 4>(args, group, panel),
                    (Format::Q8Planes, _) => T::run::<Q8Coarse, P>(args, group, panel),
                    (Format::Q6KPlanes, 1) => T::run::<Q6KCoarse, 1>(args, group, panel),
                    (Format::Q6KPlanes, 2) => T::run::<Q6KCoarse, 2>(args, group, panel),
                    (Format::Q6KPlanes, 4) => T::run::<Q6KCoarse, 4>(args, group, panel),
                    (Format::Q6KPlanes, _) => T::run::<Q6KCoarse, P>(args, group, panel),
                    _ => {}
                }
            }
        }
    }
}

/// Unpacks the groups, then chooses the wide kernel for each panel.
///
/// # Safety
/// The instruction set is there, and see [`Thin`].
#[inline(always)]
pub(super) unsafe fn dispatch_wide<T: WideRows, const P: usize>(args: &Wide<'_>, tile: &mut Tile) {
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    // SAFETY: the caller's promise; the width is the panel's.
    with_form!(args.weight.format(), F => unsafe {
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

/// By how much a code is shifted up by its format: the shift that makes a sum of activations that offset.
#[inline(always)]
const fn offset_shift<I: Isa, F: Form>() -> Option<u32> {
    match F::SCALES {
        Scales::Min | Scales::SuperMin => None,
        Scales::Plain | Scales::SuperHalves if F::BITS == 8 && I::SIGNED_BYTES => None,
        Scales::Plain | Scales::SuperHalves => Some(F::BITS - 1),
    }
}

/// The codes of steps `step` (below 4) and `step + 4`.
///
/// # Safety
/// `unit` is a unit's first byte plus the part's place in a step, `lower` the same in the second plane, if there is one.
#[inline(always)]
pub(super) unsafe fn codes<I: Isa, F: Form>(
    unit: *const u8,
    lower: *const u8,
    step: usize,
) -> (I::Bytes, I::Bytes) {
    // SAFETY: the caller's promise; a unit has 64 * UPPER bytes, and 64 * LOWER in the second plane.
    unsafe {
        let at = |index: usize| I::load(unit.add(64 * index));
        let shift = |from: usize| if from < 4 { (4 - from as u32, 0) } else { (0, from as u32 - 4) };
        if F::LOWER == 4 {
            let (upper, lower) = (at(step), I::load(lower.add(64 * step)));
            return (I::merge(I::low(lower), upper, 4, 0, 0xf0), I::merge(I::high(lower), upper, 0, 0, 0xf0));
        }
        if F::LOWER == 2 {
            let (upper, down) = (at(step), 2 * step as u32);
            let (first, second) = (I::load(lower), I::load(lower.add(64)));
            let zero = I::zero();
            let (low, high) = (I::merge(zero, first, 0, down, 3), I::merge(zero, second, 0, down, 3));
            return (I::merge(low, upper, 2, 0, 0x3c), I::merge(high, upper, 0, 2, 0x3c));
        }
        if F::BITS == 8 {
            return (at(step), at(step + 4));
        }
        let packed = at(step);
        let (low, high) = (I::low(packed), I::high(packed));
        match F::BITS {
            5 => {
                let fifth = at(4);
                let ((up, down), (up_high, down_high)) = (shift(step), shift(step + 4));
                (I::merge(low, fifth, up, down, 0x10), I::merge(high, fifth, up_high, down_high, 0x10))
            }
            6 => {
                let (up, down) = shift(2 * step);
                (I::merge(low, at(4), up, down, 0x30), I::merge(high, at(5), up, down, 0x30))
            }
            _ => (low, high),
        }
    }
}

/// A unit's two factors: for `Min` and `SuperMin` the scale and the minimum, for `SuperHalves` the halves' scales;
/// for `Plain` both are the scale.
///
/// # Safety
/// `scales` is the first byte of a group's scales, which has that unit.
#[inline(always)]
pub(super) unsafe fn factors<I: Isa, F: Form>(
    scales: *const u8,
    unit: usize,
    part: usize,
) -> (I::Floats, I::Floats) {
    let lane = part * I::LANES;
    // SAFETY: the caller's promise; see `Scales` for the places.
    unsafe {
        let own = scales.add(F::SCALES.unit_at(unit));
        let shared = scales.add(F::SCALES.super_at(unit));
        let half = |from: *const u8| I::load_f16(from.cast::<u16>().add(lane));
        match F::SCALES {
            Scales::Plain => {
                let scale = half(own);
                (scale, scale)
            }
            Scales::Min => (half(own), half(own.add(32))),
            Scales::SuperMin => (
                I::mul(half(shared), I::load_u8(own.add(lane))),
                I::mul(half(shared.add(32)), I::load_u8(own.add(16 + lane))),
            ),
            Scales::SuperHalves => {
                let d = half(shared);
                (I::mul(d, I::load_i8(own.add(lane))), I::mul(d, I::load_i8(own.add(16 + lane))))
            }
        }
    }
}

/// The start of a unit's integer sums.
///
/// # Safety
/// `sums` has that value.
#[inline(always)]
unsafe fn start<I: Isa, F: Form>(sums: *const i32) -> I::Ints {
    static ZERO: i32 = 0;
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(zero) = F::COARSE {
            let start = (*sums * zero) >> 5;
            return I::ints(&raw const start, 0);
        }
        match offset_shift::<I, F>() {
            Some(shift) => I::ints(sums, shift),
            None => I::ints(&raw const ZERO, 0),
        }
    }
}

/// Adds a unit's (or half unit's) part to the sums of one row.
///
/// # Safety
/// The pointers are valid.
#[inline(always)]
pub(super) unsafe fn finish<I: Isa>(
    sum: I::Floats,
    ints: I::Ints,
    scale: I::Floats,
    x_scale: *const f32,
) -> I::Floats {
    // SAFETY: the caller's promise.
    unsafe { I::mul_add(I::floats(ints), I::mul(scale, I::splat(*x_scale)), sum) }
}

/// Writes the products of one group with the rows of a panel.
///
/// # Safety
/// See [`Thin`].
#[inline(always)]
pub(super) unsafe fn emit<const R: usize>(
    args: &Thin<'_>,
    group: usize,
    panel: &Panel<'_>,
    sums: &[Line<f32, GROUP>; R],
) {
    let first = group * GROUP;
    let lanes = GROUP.min(args.weight.rows() - first);
    let out = &args.out;
    for (row, Line(sums)) in sums.iter().enumerate().take(panel.rows) {
        // SAFETY: the caller's promise: a row of activations, and weight rows of this group that are there.
        let to = unsafe {
            std::slice::from_raw_parts_mut(out.start.add((panel.first + row) * out.stride + first), lanes)
        };
        if lanes == GROUP && out.bias.is_none() {
            // By far the most; a fixed length is a few vector instructions.
            let to: &mut [f32; GROUP] = match to.try_into() {
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
        } else if lanes == GROUP {
            to.copy_from_slice(&sums);
        } else {
            to.copy_from_slice(&sums[..lanes]);
        }
    }
}

/// One group times one panel of `R` rows, unpacking in registers.
///
/// # Safety
/// The instruction set is there, the panel is `R` wide, and see [`Thin`].
#[inline(always)]
pub(super) unsafe fn thin<I: Isa, F: Form, const R: usize>(args: &Thin<'_>, group: usize, panel: &Panel<'_>) {
    let units = args.weight.columns() / UNIT;
    let (codes_bytes, scale_bytes) = args.weight.group(group);
    let lower_bytes = args.weight.lower(group);
    let halves = matches!(F::SCALES, Scales::SuperHalves);
    assert!(panel.codes.len() == R * units * UNIT && panel.scales.len() == R * units);
    let (x, x_scales) = (panel.codes.as_ptr().cast::<u8>(), panel.scales.as_ptr());
    let (x_sums, x_sized) = (panel.sums.as_ptr(), panel.sized_sums.as_ptr());
    let mut out = [Line([0.0_f32; GROUP]); R];
    // Reading ahead by units leaves out what the next group has in front of its codes.
    let (next_scales, scales_step) = (codes_bytes.as_ptr_range().end, scale_bytes.len().div_ceil(units));
    if group == args.groups.start && panel.first == 0 {
        // Nobody has read ahead for a piece's first group.
        for line in (0..AHEAD + scale_bytes.len()).step_by(64) {
            // SAFETY: a hint, which cannot fault.
            unsafe { I::prefetch(scale_bytes.as_ptr().wrapping_add(line)) };
        }
    }
    // SAFETY: the slices have the lengths that `Packed` and `Activations` state; all places below are inside.
    unsafe {
        let mut sums = [[I::splat(0.0); R]; 2];
        for unit in 0..units {
            I::prefetch(next_scales.wrapping_add(AHEAD + unit * scales_step));
            let x = x.add(unit * UNIT * R);
            let x_scales = x_scales.add(unit * R);
            let x_sums = x_sums.add(unit * 3 * R);
            let x_sized = x_sized.add(unit * R);
            let unit_codes = codes_bytes.as_ptr().add(unit * 64 * F::UPPER as usize);
            let unit_lower = lower_bytes.as_ptr().add(unit * 64 * F::LOWER as usize);
            for line in 0..F::UPPER as usize {
                I::prefetch(unit_codes.wrapping_add(AHEAD + 64 * line));
            }
            for line in 0..F::LOWER as usize {
                I::prefetch(unit_lower.wrapping_add(AHEAD + 64 * line));
            }
            for part in 0..I::PARTS {
                let place = part * 4 * I::LANES;
                let (unit_codes, unit_lower) = (unit_codes.add(place), unit_lower.wrapping_add(place));
                // Two accumulators, as each dot product waits for the one before it.
                static ZERO: i32 = 0;
                let mut ints = [[I::ints(&raw const ZERO, 0); R]; 2];
                for row in 0..R {
                    if halves {
                        ints[0][row] = start::<I, F>(x_sums.add(R + row));
                        ints[1][row] = start::<I, F>(x_sums.add(2 * R + row));
                    } else {
                        ints[0][row] = start::<I, F>(x_sums.add(row));
                    }
                }
                let mut narrow = [[I::narrow(); R]; 2];
                for step in 0..4 {
                    let (low, high) = codes::<I, F>(unit_codes, unit_lower, step);
                    for row in 0..R {
                        let at = |step: usize| x.add((step * R + row) * 4);
                        I::dot(&mut ints[0][row], &mut narrow[0][row], low, at(step), F::BITS);
                        I::dot(&mut ints[1][row], &mut narrow[1][row], high, at(step + 4), F::BITS);
                        // Four steps each are less than any limit but that of six bits.
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
                let (scale, other) = factors::<I, F>(scale_bytes.as_ptr(), unit, part);
                for row in 0..R {
                    let sum = &mut sums[part][row];
                    *sum = finish::<I>(*sum, ints[0][row], scale, x_scales.add(row));
                    match F::SCALES {
                        Scales::Plain => {}
                        Scales::Min | Scales::SuperMin => {
                            *sum = I::mul_add(other, I::splat(*x_sized.add(row)), *sum);
                        }
                        Scales::SuperHalves => {
                            *sum = finish::<I>(*sum, ints[1][row], other, x_scales.add(row));
                        }
                    }
                }
            }
        }
        for part in 0..I::PARTS {
            for row in 0..R {
                let mut sum = sums[part][row];
                if F::COARSE.is_some() {
                    // An upper code counts as many of the file's steps as its lower bits have values.
                    let steps = 1_u32 << args.weight.format().lower_bits();
                    sum = I::mul(sum, I::splat(steps as f32));
                }
                I::store_f32(out[row].0.as_mut_ptr().add(part * I::LANES), sum);
            }
        }
        emit(args, group, panel, &out);
    }
}

/// Unpacks the groups into the tile.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub(super) unsafe fn expand<I: Isa, F: Form>(args: &Wide<'_>, tile: &mut Tile) {
    let units = args.weight.columns() / UNIT;
    let groups = args.groups.len();
    // Eight bits in one plane are used where they lie.
    if F::UPPER != 8 && tile.codes.len() < groups * units * 8 {
        tile.codes.resize(groups * units * 8, Line([0; 64]));
    }
    if tile.scales.len() < groups * units * 2 {
        tile.scales.resize(groups * units * 2, Line([0.0; GROUP]));
    }
    for (index, group) in args.groups.clone().enumerate() {
        let (codes_bytes, scale_bytes) = args.weight.group(group);
        let lower_bytes = args.weight.lower(group);
        // SAFETY: places inside the group as `Packed` states, and inside the tile as just made sure.
        unsafe {
            let to_codes = tile.codes.as_mut_ptr().cast::<u8>();
            let to_scales = tile.scales.as_mut_ptr().cast::<f32>().add(index * units * 2 * GROUP);
            for unit in 0..units {
                for line in 0..F::UPPER as usize {
                    let line = (unit * F::UPPER as usize + line) * 64;
                    I::prefetch(codes_bytes.as_ptr().wrapping_add(AHEAD + line));
                }
                for part in 0..I::PARTS {
                    if F::UPPER != 8 {
                        let place = part * 4 * I::LANES;
                        let from = codes_bytes.as_ptr().add(unit * 64 * F::UPPER as usize + place);
                        let lower = lower_bytes.as_ptr().wrapping_add(unit * 64 * F::LOWER as usize + place);
                        let to = to_codes.add((index * units + unit) * 512 + place);
                        for step in 0..4 {
                            let (low, high) = codes::<I, F>(from, lower, step);
                            I::store(to.add(64 * step), low);
                            I::store(to.add(64 * (step + 4)), high);
                        }
                    }
                    let (scale, other) = factors::<I, F>(scale_bytes.as_ptr(), unit, part);
                    let to = to_scales.add(unit * 2 * GROUP + part * I::LANES);
                    I::store_f32(to, scale);
                    I::store_f32(to.add(GROUP), other);
                }
            }
        }
    }
}

/// The tile's groups times one panel of `R` rows, `V` vectors of weights at once.
///
/// # Safety
/// The instruction set is there, the tile was filled by [`expand`], the panel is `R` wide, and see [`Thin`].
#[inline(always)]
pub(super) unsafe fn wide<I: Isa, F: Form, const R: usize, const V: usize>(
    args: &Wide<'_>,
    tile: &Tile,
    panel: &Panel<'_>,
) {
    let units = args.weight.columns() / UNIT;
    let groups = args.groups.len();
    let halves = matches!(F::SCALES, Scales::SuperHalves);
    assert!(panel.codes.len() == R * units * UNIT && panel.scales.len() == R * units);
    assert!(F::UPPER == 8 || tile.codes.len() >= groups * units * 8);
    assert!(tile.scales.len() >= groups * units * 2);
    let mut out = [[Line([0.0_f32; GROUP]); R]; MAX_WIDE];
    // SAFETY: the slices have the lengths just checked, and those that `Packed` and `Activations` state.
    unsafe {
        for first in (0..groups * I::PARTS).step_by(V) {
            let mut codes_at = [std::ptr::null::<u8>(); V];
            let mut scales_at = [std::ptr::null::<f32>(); V];
            for v in 0..V {
                // An odd group at the end is computed twice and written once.
                let vector = (first + v).min(groups * I::PARTS - 1);
                let (index, part) = (vector / I::PARTS, vector % I::PARTS);
                let codes = if F::UPPER == 8 {
                    args.weight.group(args.groups.start + index).0.as_ptr()
                } else {
                    tile.codes.as_ptr().cast::<u8>().add(index * units * 512)
                };
                codes_at[v] = codes.add(part * 4 * I::LANES);
                scales_at[v] =
                    tile.scales.as_ptr().cast::<f32>().add(index * units * 2 * GROUP + part * I::LANES);
            }
            let mut sums = [[I::splat(0.0); V]; R];
            for unit in 0..units {
                let x = panel.codes.as_ptr().cast::<u8>().add(unit * UNIT * R);
                let x_scales = panel.scales.as_ptr().add(unit * R);
                let x_sums = panel.sums.as_ptr().add(unit * 3 * R);
                let x_sized = panel.sized_sums.as_ptr().add(unit * R);
                let (rounds, steps) = if halves { (2, 4) } else { (1, 8) };
                for round in 0..rounds {
                    let x_sums = x_sums.add(if halves { (1 + round) * R } else { 0 });
                    let mut ints = [[start::<I, F>(x_sums); V]; R];
                    for row in 1..R {
                        ints[row] = [start::<I, F>(x_sums.add(row)); V];
                    }
                    let mut narrow = [[I::narrow(); V]; R];
                    for step in 0..steps {
                        let at = round * 4 + step;
                        let mut codes = [I::load(codes_at[0].add(unit * 512 + at * 64)); V];
                        for v in 1..V {
                            codes[v] = I::load(codes_at[v].add(unit * 512 + at * 64));
                        }
                        for row in 0..R {
                            let x = x.add((at * R + row) * 4);
                            for v in 0..V {
                                I::dot(&mut ints[row][v], &mut narrow[row][v], codes[v], x, F::BITS);
                                if (step + 1) % flush_after(F::BITS) == 0 {
                                    I::flush(&mut ints[row][v], &mut narrow[row][v], F::BITS);
                                }
                            }
                        }
                    }
                    for v in 0..V {
                        let from = scales_at[v].add(unit * 2 * GROUP);
                        let scale = I::load_f32(from.add(round * GROUP));
                        for row in 0..R {
                            let sum = &mut sums[row][v];
                            *sum = finish::<I>(*sum, ints[row][v], scale, x_scales.add(row));
                        }
                        if matches!(F::SCALES, Scales::Min | Scales::SuperMin) {
                            let min = I::load_f32(from.add(GROUP));
                            for row in 0..R {
                                sums[row][v] = I::mul_add(min, I::splat(*x_sized.add(row)), sums[row][v]);
                            }
                        }
                    }
                }
            }
            for v in 0..V {
                let vector = first + v;
                if vector < groups * I::PARTS {
                    let (index, part) = (vector / I::PARTS, vector % I::PARTS);
                    for row in 0..R {
                        I::store_f32(out[index][row].0.as_mut_ptr().add(part * I::LANES), sums[row][v]);
                    }
                }
            }
        }
        for (index, out) in out.iter().enumerate().take(groups) {
            emit(args, args.groups.start + index, panel, out);
        }
    }
}

/// Float weights times float activations, in 32-bit floats: four sums for the columns modulo four, then added.
///
/// # Safety
/// The instruction set is there, and see [`Thin`].
#[inline(always)]
pub(super) unsafe fn dense<I: Isa>(args: &Dense<'_>) {
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    for group in args.groups.clone() {
        let mut row = 0;
        while row < args.x.rows() {
            let left = args.x.rows() - row;
            // SAFETY: the caller's promise; as many rows are left as are taken.
            unsafe {
                if left >= 4 {
                    dense_rows::<I, 4>(args, group, row);
                    row += 4;
                } else {
                    dense_rows::<I, 1>(args, group, row);
                    row += 1;
                }
            }
        }
    }
}

/// # Safety
/// As [`dense`]; `first + R` rows are there.
#[inline(always)]
unsafe fn dense_rows<I: Isa, const R: usize>(args: &Dense<'_>, group: usize, first: usize) {
    let columns = args.weight.columns();
    let (weights, _) = args.weight.group(group);
    let rows: [&[f32]; R] = std::array::from_fn(|row| args.x.row(first + row));
    let mut out = [Line([0.0_f32; GROUP]); R];
    // SAFETY: a group has 16 values for each column, a row of activations one.
    unsafe {
        for part in 0..I::PARTS {
            let mut sums = [[I::splat(0.0); 4]; R];
            let mut add = |column: usize, chain: usize| {
                let at = column * GROUP + part * I::LANES;
                let weight = match args.weight.format() {
                    Format::F16 => I::load_f16(weights.as_ptr().cast::<u16>().add(at)),
                    Format::Bf16 => I::load_bf16(weights.as_ptr().cast::<u16>().add(at)),
                    _ => I::load_f32(weights.as_ptr().cast::<f32>().add(at)),
                };
                for (sums, row) in sums.iter_mut().zip(&rows) {
                    sums[chain] = I::mul_add(weight, I::splat(*row.as_ptr().add(column)), sums[chain]);
                }
            };
            let whole = columns / 4 * 4;
            for column in (0..whole).step_by(4) {
                add(column, 0);
                add(column + 1, 1);
                add(column + 2, 2);
                add(column + 3, 3);
            }
            for column in whole..columns {
                add(column, column % 4);
            }
            for (out, sums) in out.iter_mut().zip(sums) {
                let sum = I::add(I::add(sums[0], sums[1]), I::add(sums[2], sums[3]));
                I::store_f32(out.0.as_mut_ptr().add(part * I::LANES), sum);
            }
        }
        let panel = Panel { first, rows: R, width: R, ..Panel::default() };
        emit(args, group, &panel, &out);
    }
}
