//! Quantization formats of weights as types, and loading a unit's codes and factors into registers.

use super::isa::Isa;
use super::pack::{PackedFormat, ScaleLayout};

/// A quantization format as a type, so that kernels are compiled for each.
pub(in crate::local) trait QuantFormat {
    /// Bits of a code.
    const BITS: u32;
    /// How scales are stored.
    const SCALES: ScaleLayout;
    /// Bits of a code in the second plane.
    const LOWER_BITS: u32;
    /// In 1/32, the code that represents zero if only a code's upper bits are read; `None` if all are read.
    const SCREEN_ZERO: Option<i32>;
    /// Bits of a code in the first plane, which is also its number of 64-byte lines per unit.
    const UPPER_BITS: u32 = Self::BITS - Self::LOWER_BITS;
}

macro_rules! quant_formats {
    ($($name:ident $bits:literal $scales:ident $lower:literal $screen:expr;)*) => {
        $(
            #[derive(Debug)]
            pub(super) struct $name;
            impl QuantFormat for $name {
                const BITS: u32 = $bits;
                const SCALES: ScaleLayout = ScaleLayout::$scales;
                const LOWER_BITS: u32 = $lower;
                const SCREEN_ZERO: Option<i32> = $screen;
            }
        )*
    };
}
quant_formats! {
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
    // 128 / 16 minus the average of four lower bits, 7.5 / 16.
    Q8Screen 4 Plain 0 Some(256 - 15);
    // 32 / 4 minus the average of two lower bits, 1.5 / 4.
    Q6KScreen 4 SuperHalves 0 Some(256 - 12);
}

/// The error of the screen kernel relative to gemv, in units of the weights' scale: the standard deviation of one
/// code's lower bits, in the code steps of its result. `None` if the format has only one plane.
pub(in crate::local) fn screening_error(format: PackedFormat) -> Option<f32> {
    // The standard deviation of a uniform number from 0 to n - 1: sqrt((n^2 - 1) / 12).
    let steps = match format.lower_bits() {
        0 => return None,
        bits => (1_u32 << bits) as f32,
    };
    Some(((steps * steps - 1.0) / 12.0).sqrt())
}

/// Runs `$body` with `$form` as the weights' format. Floats are handled elsewhere.
macro_rules! with_quant_format {
    ($format:expr, $form:ident => $body:expr) => {
        match $format {
            PackedFormat::Q4_0 => {
                type $form = $crate::local::kernels::quant_format::Q4_0;
                $body
            }
            PackedFormat::Q4_1 => {
                type $form = $crate::local::kernels::quant_format::Q4_1;
                $body
            }
            PackedFormat::Q5_0 => {
                type $form = $crate::local::kernels::quant_format::Q5_0;
                $body
            }
            PackedFormat::Q5_1 => {
                type $form = $crate::local::kernels::quant_format::Q5_1;
                $body
            }
            PackedFormat::Q8_0 => {
                type $form = $crate::local::kernels::quant_format::Q8_0;
                $body
            }
            PackedFormat::Q4K => {
                type $form = $crate::local::kernels::quant_format::Q4K;
                $body
            }
            PackedFormat::Q5K => {
                type $form = $crate::local::kernels::quant_format::Q5K;
                $body
            }
            PackedFormat::Q6K => {
                type $form = $crate::local::kernels::quant_format::Q6K;
                $body
            }
            PackedFormat::Q8Planes => {
                type $form = $crate::local::kernels::quant_format::Q8Planes;
                $body
            }
            PackedFormat::Q6KPlanes => {
                type $form = $crate::local::kernels::quant_format::Q6KPlanes;
                $body
            }
            PackedFormat::F16 | PackedFormat::Bf16 | PackedFormat::F32 => {}
        }
    };
}
pub(super) use with_quant_format;

/// An operation that is generic over the weights' format.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for AMX alone"))]
pub(in crate::local) trait FormatJob {
    /// Runs it.
    ///
    /// # Safety
    /// As the implementation documents.
    unsafe fn run<F: QuantFormat>(self);
}

/// Runs `job` for the format `format`; does nothing for floats.
///
/// # Safety
/// As `job` documents.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for AMX alone"))]
pub(super) unsafe fn run_for_format(format: PackedFormat, job: impl FormatJob) {
    // SAFETY: by the caller's contract.
    with_quant_format!(format, F => unsafe { job.run::<F>() });
}

/// How far a format shifts its codes up: the shift that turns a sum of activations into that offset.
#[inline(always)]
const fn offset_shift<I: Isa, F: QuantFormat>() -> Option<u32> {
    match F::SCALES {
        ScaleLayout::Min | ScaleLayout::SuperMin => None,
        ScaleLayout::Plain | ScaleLayout::SuperHalves if F::BITS == 8 && I::SIGNED_BYTES => None,
        ScaleLayout::Plain | ScaleLayout::SuperHalves => Some(F::BITS - 1),
    }
}

/// The codes of steps `step` (below 4) and `step + 4`.
///
/// # Safety
/// `unit` is a unit's first byte plus the part's offset in a step, `lower` the same in the second plane, if there is
/// one.
#[inline(always)]
pub(super) unsafe fn load_codes<I: Isa, F: QuantFormat>(
    unit: *const u8,
    lower: *const u8,
    step: usize,
) -> (I::Bytes, I::Bytes) {
    // SAFETY: by the caller's contract; a unit has 64 * UPPER_BITS bytes, and 64 * LOWER_BITS in the second plane.
    unsafe {
        let at = |index: usize| I::load(unit.add(64 * index));
        let shift = |from: usize| if from < 4 { (4 - from as u32, 0) } else { (0, from as u32 - 4) };
        if F::LOWER_BITS == 4 {
            let (upper, lower) = (at(step), I::load(lower.add(64 * step)));
            return (I::merge(I::low(lower), upper, 4, 0, 0xf0), I::merge(I::high(lower), upper, 0, 0, 0xf0));
        }
        if F::LOWER_BITS == 2 {
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
/// `scales` is the first byte of the scales of a group that contains the unit.
#[inline(always)]
pub(super) unsafe fn load_factors<I: Isa, F: QuantFormat>(
    scales: *const u8,
    unit: usize,
    part: usize,
) -> (I::Floats, I::Floats) {
    let lane = part * I::LANES;
    // SAFETY: by the caller's contract; see `ScaleLayout` for the offsets.
    unsafe {
        let own = scales.add(F::SCALES.unit_offset(unit));
        let shared = scales.add(F::SCALES.super_offset(unit));
        let half = |from: *const u8| I::load_f16(from.cast::<u16>().add(lane));
        match F::SCALES {
            ScaleLayout::Plain => {
                let scale = half(own);
                (scale, scale)
            }
            ScaleLayout::Min => (half(own), half(own.add(32))),
            ScaleLayout::SuperMin => (
                I::mul(half(shared), I::load_u8(own.add(lane))),
                I::mul(half(shared.add(32)), I::load_u8(own.add(16 + lane))),
            ),
            ScaleLayout::SuperHalves => {
                let d = half(shared);
                (I::mul(d, I::load_i8(own.add(lane))), I::mul(d, I::load_i8(own.add(16 + lane))))
            }
        }
    }
}

/// The start of a unit's integer sums.
///
/// # Safety
/// `sums` is readable.
#[inline(always)]
pub(super) unsafe fn initial_sums<I: Isa, F: QuantFormat>(sums: *const i32) -> I::Ints {
    static ZERO: i32 = 0;
    // SAFETY: by the caller's contract.
    unsafe {
        if let Some(zero) = F::SCREEN_ZERO {
            // Sums of NaN activations are meaningless, and may be too large.
            let start = (*sums).wrapping_mul(zero) >> 5;
            return I::ints(&raw const start, 0);
        }
        match offset_shift::<I, F>() {
            Some(shift) => I::ints(sums, shift),
            None => I::ints(&raw const ZERO, 0),
        }
    }
}
