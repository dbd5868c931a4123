//! AMX int8: products of many rows in tiles, what is left to do in AVX-512.
//! It knows nothing of threads or of what the products mean.
//!
//! A tile product multiplies 16 activation rows with 16 weight rows over one *block*: the columns that share a scale,
//! 32 or (`SuperHalves`) 16. Its 256 sums are whole 32-bit numbers, the same that the other kernels reach; then a
//! sum is turned into a float, scaled and added as they do it, block behind block. So the bits are the same, and that
//! second half, three vector operations for each 16 sums, is what the time goes to.
//!
//! | tiles | hold | rows | bytes a row |
//! |---|---|---|---|
//! | 0 to 3 | sums of four blocks, `[activation row][weight row]` | panel's width | 64 |
//! | 4, 5 | activations, a block's codes | panel's width | 32 or 16 |
//! | 6, 7 | weights, `[columns / 4][weight row][4]` | 8 or 4 | 64 |
//!
//! Four blocks are multiplied and stored while the four before them are scaled: sums cannot be read back before they
//! have left the tile, been stored and reached the cache.
//!
//! Why a scale costs a conversion: the `K` formats' small integer scales could be multiplied into the sums before
//! they become floats, one conversion for 256 columns, if the activations had one scale for 256 columns. They have
//! one for 32, which is more exact and is what all kernels compute; different scales cannot meet in one integer.
//!
//! Each piece configures the tiles of its thread and releases them at its end: some hundred cycles in some hundred
//! thousand. In between, a thread that is interrupted or loses its core has 8 KiB more saved and restored; afterwards
//! nothing more than before, so the pool's idle threads cost the system nothing.

use std::ops::Range;

use super::activations::Panel;
use super::isa::Isa;
use super::pack::{GROUP, Scales, UNIT};
use super::product::{AHEAD, Form, Line, Tile, Wide, codes, emit, factors, finish};
use tiles::{Shapes, Tiles};

#[cfg(test)]
mod model;
#[cfg(target_arch = "x86_64")]
mod support;
#[cfg(test)]
pub(in crate::local) mod tests;
mod tiles;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod trap;

#[cfg(target_arch = "x86_64")]
mod entries;
#[cfg(target_arch = "x86_64")]
pub(super) use {entries::ENTRIES, support::lacks};

/// Rows of a panel at most, and rows from which on tiles are used.
const ROWS: usize = 16;
/// Groups of weight rows that one pass over the activations serves.
const GROUPS: usize = 4;
/// Blocks whose sums lie in tiles at once. Chosen by reasoning, not measured: two would leave less time for sums to
/// reach the cache, but keep both batches within 4 KiB, so that no address read is one written plus 4 KiB.
const BATCH: usize = 4;
/// Units of all groups that are multiplied with a panel before the next ones: with this many, the panel's codes stay
/// in the first-level cache (16 KiB) beside a group's (as many).
const CHUNK: usize = 32;

/// What the scaling half needs of its instruction set beside [`Isa`]. One vector holds a group.
trait Scaling: Isa {
    /// 16 sums.
    ///
    /// # Safety
    /// As for all methods of [`Isa`].
    unsafe fn load_ints(from: *const i32) -> Self::Ints;

    /// Each byte less `offset`, in eight bits.
    ///
    /// # Safety
    /// As for all methods of [`Isa`].
    unsafe fn less(bytes: Self::Bytes, offset: u8) -> Self::Bytes;
}

/// The tiles in use, which are released when it goes.
struct InUse<T: Tiles>(T);

impl<T: Tiles> Drop for InUse<T> {
    fn drop(&mut self) {
        // SAFETY: whoever made it promised that the tiles are there.
        unsafe { self.0.release() }
    }
}

/// Room for two batches' sums, `[batch][block][activation row]`.
type Sums = [Line<i32, GROUP>; 2 * BATCH * ROWS];

/// A piece of a product, on tiles.
///
/// # Safety
/// `I` and the tiles are there; panels hold whole units (see `activations::quantize`); and see `product::Thin`.
#[inline(always)]
unsafe fn multiply<I: Scaling, F: Form, T: Tiles>(args: &Wide<'_>, tile: &mut Tile, tiles: T) {
    const { assert!(I::PARTS == 1) };
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    assert!(args.groups.len() <= GROUPS);
    // SAFETY: the caller's promise; the shapes are those of the panel's width.
    unsafe {
        expand::<I, F>(args, tile);
        let mut tiles = InUse(tiles);
        let mut sums: Sums = [Line([0; GROUP]); 2 * BATCH * ROWS];
        let mut width = 0;
        for index in 0..args.x.panels() {
            let panel = &args.x.panel(index);
            // Only the last panel may be narrower.
            if panel.width != width {
                width = panel.width;
                tiles.0.configure(&shapes::<F>(width));
            }
            let (tiles, sums) = (&mut tiles.0, &mut sums);
            match width {
                1 => multiply_panel::<I, F, T, 1>(args, tile, panel, tiles, sums),
                2 => multiply_panel::<I, F, T, 2>(args, tile, panel, tiles, sums),
                4 => multiply_panel::<I, F, T, 4>(args, tile, panel, tiles, sums),
                8 => multiply_panel::<I, F, T, 8>(args, tile, panel, tiles, sums),
                _ => multiply_panel::<I, F, T, ROWS>(args, tile, panel, tiles, sums),
            }
        }
    }
}

/// Blocks of a unit.
const fn halves<F: Form>() -> usize {
    if matches!(F::SCALES, Scales::SuperHalves) { 2 } else { 1 }
}

/// The tiles' shapes for panels of `width` rows.
fn shapes<F: Form>(width: usize) -> Shapes {
    let block = UNIT / halves::<F>();
    let (sums, activations, weights) = ((width, 4 * GROUP), (width, block), (block / 4, 4 * GROUP));
    Shapes::new([sums, sums, sums, sums, activations, activations, weights, weights])
}

/// Unpacks the groups: codes as signed bytes with their offset gone, scales as floats.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
unsafe fn expand<I: Scaling, F: Form>(args: &Wide<'_>, tile: &mut Tile) {
    let units = args.weight.columns() / UNIT;
    let groups = args.groups.len();
    // Only ever grown: what is there is written anew.
    tile.codes.resize(tile.codes.len().max(groups * units * 8), Line([0; 64]));
    tile.scales.resize(tile.scales.len().max(groups * units * 2), Line([0.0; GROUP]));
    let offset = match F::SCALES {
        Scales::Plain | Scales::SuperHalves => 1 << (F::BITS - 1),
        Scales::Min | Scales::SuperMin => 0,
    };
    for (index, group) in args.groups.clone().enumerate() {
        let (codes_bytes, scale_bytes) = args.weight.group(group);
        let lower_bytes = args.weight.lower(group);
        for unit in 0..units {
            // SAFETY: places inside the group as `Packed` states, and inside the tile as just made sure.
            unsafe {
                let from = codes_bytes.as_ptr().add(unit * 64 * F::UPPER as usize);
                let lower = lower_bytes.as_ptr().wrapping_add(unit * 64 * F::LOWER as usize);
                for line in 0..F::UPPER as usize {
                    I::prefetch(from.wrapping_add(AHEAD + 64 * line));
                }
                let to = tile.codes.as_mut_ptr().add((index * units + unit) * 8).cast::<u8>();
                for step in 0..4 {
                    let (low, high) = codes::<I, F>(from, lower, step);
                    I::store(to.add(64 * step), I::less(low, offset));
                    I::store(to.add(64 * (step + 4)), I::less(high, offset));
                }
                let (scale, other) = factors::<I, F>(scale_bytes.as_ptr(), unit, 0);
                let to = tile.scales.as_mut_ptr().add((index * units + unit) * 2).cast::<f32>();
                I::store_f32(to, scale);
                I::store_f32(to.add(GROUP), other);
            }
        }
    }
}

/// The tile's groups times one panel of `R` rows.
///
/// # Safety
/// As [`multiply`]; `tile` was filled by [`expand`], and the tiles have the shapes for `R` rows.
#[inline(always)]
unsafe fn multiply_panel<I: Scaling, F: Form, T: Tiles, const R: usize>(
    args: &Wide<'_>,
    tile: &Tile,
    panel: &Panel<'_>,
    tiles: &mut T,
    sums: &mut Sums,
) {
    let units = args.weight.columns() / UNIT;
    let groups = args.groups.len();
    assert!(panel.width == R && panel.codes.len() == R * units * UNIT);
    assert!(panel.scales.len() == R * units && panel.sized_sums.len() == R * units);
    assert!(tile.codes.len() >= groups * units * 8 && tile.scales.len() >= groups * units * 2);
    let mut out = [[Line([0.0_f32; GROUP]); R]; GROUPS];
    for first in (0..units).step_by(CHUNK) {
        for (group, out) in out.iter_mut().enumerate().take(groups) {
            let place = Place {
                x: panel.codes.as_ptr().cast(),
                x_scales: panel.scales.as_ptr(),
                x_sized: panel.sized_sums.as_ptr(),
                codes: tile.codes[group * units * 8..].as_ptr().cast(),
                scales: tile.scales[group * units * 2..].as_ptr().cast(),
            };
            // SAFETY: the caller's promise, and the lengths just checked.
            unsafe {
                multiply_units::<I, F, T, R>(&place, first..units.min(first + CHUNK), tiles, sums, out);
            }
        }
    }
    for (group, out) in out.iter().enumerate().take(groups) {
        // SAFETY: see `Thin`.
        unsafe { emit(args, args.groups.start + group, panel, out) };
    }
}

/// Where a panel and a group of weight rows lie; unit 0 of each.
struct Place {
    x: *const u8,
    x_scales: *const f32,
    x_sized: *const f32,
    codes: *const u8,
    scales: *const f32,
}

/// Adds the products of some units to `out`.
///
/// # Safety
/// As [`multiply_panel`]; the units are there.
#[inline(always)]
unsafe fn multiply_units<I: Scaling, F: Form, T: Tiles, const R: usize>(
    place: &Place,
    units: Range<usize>,
    tiles: &mut T,
    sums: &mut Sums,
    out: &mut [Line<f32, GROUP>; R],
) {
    let halves = halves::<F>();
    let blocks = units.start * halves..units.end * halves;
    // One pointer for what the tiles write and what is read back.
    let sums = sums.as_mut_ptr().cast::<i32>();
    // SAFETY: the caller's promise; a batch's sums are `BATCH * R` lines, two batches fit into `Sums`.
    unsafe {
        let sums_of = |batch: usize| sums.add(batch % 2 * BATCH * ROWS * GROUP);
        let mut totals = [I::splat(0.0); R];
        for row in 0..R {
            totals[row] = I::load_f32(out[row].0.as_ptr());
        }
        multiply_batch::<F, T, R>(place, blocks.start, blocks.end, tiles, sums_of(0));
        for (batch, first) in blocks.clone().step_by(BATCH).enumerate() {
            let next = first + BATCH;
            if next < blocks.end {
                multiply_batch::<F, T, R>(place, next, blocks.end, tiles, sums_of(batch + 1));
            }
            for block in first..next.min(blocks.end) {
                let sums = sums_of(batch).add((block - first) * R * GROUP);
                let (unit, half) = (block / halves, block % halves);
                let scales = place.scales.add(unit * 2 * GROUP);
                let scale = I::load_f32(scales.add(half * GROUP));
                let x_scales = place.x_scales.add(unit * R);
                for row in 0..R {
                    let ints = I::load_ints(sums.add(row * GROUP));
                    totals[row] = finish::<I>(totals[row], ints, scale, x_scales.add(row));
                }
                if matches!(F::SCALES, Scales::Min | Scales::SuperMin) {
                    let min = I::load_f32(scales.add(GROUP));
                    let x_sized = place.x_sized.add(unit * R);
                    for row in 0..R {
                        totals[row] = I::mul_add(min, I::splat(*x_sized.add(row)), totals[row]);
                    }
                }
            }
        }
        for row in 0..R {
            I::store_f32(out[row].0.as_mut_ptr(), totals[row]);
        }
    }
}

/// Writes the sums of up to [`BATCH`] blocks, `first` and those behind it below `end`, to `sums`:
/// `[block][activation row][weight row]`.
///
/// # Safety
/// The blocks are there, `sums` has the room, and the tiles have the shapes for `R` rows.
#[inline(always)]
unsafe fn multiply_batch<F: Form, T: Tiles, const R: usize>(
    place: &Place,
    first: usize,
    end: usize,
    tiles: &mut T,
    sums: *mut i32,
) {
    let halves = halves::<F>();
    let block = UNIT / halves;
    /// Multiplies into the sums' tile `$c` with the help of `$a` and `$b`, for each of them while there are blocks.
    macro_rules! blocks {
        ($($c:literal $a:literal $b:literal;)*) => {
            $(if first + $c < end {
                let (unit, half) = ((first + $c) / halves, (first + $c) % halves);
                tiles.zero::<$c>();
                tiles.load::<$a>(place.x.add(unit * UNIT * R + half * block), UNIT);
                tiles.load::<$b>(place.codes.add(unit * 16 * UNIT + half * 16 * block), 4 * GROUP);
                tiles.dot::<$c, $a, $b>();
            })*
            $(if first + $c < end {
                tiles.store::<$c>(sums.add($c * R * GROUP).cast(), 4 * GROUP);
            })*
        };
    }
    // SAFETY: the caller's promise: a panel's unit has 32 bytes a row, a group's 8 steps of 64 bytes.
    unsafe {
        blocks! {
            0 4 6;
            1 5 7;
            2 4 6;
            3 5 7;
        }
    }
}
