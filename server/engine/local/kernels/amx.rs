//! AMX: products of many rows in tiles of bfloat16; AVX-512 does the rest.
//!
//! Weights are unpacked to their values, code times scale, and rounded to bfloat16, as activations are. A tile product
//! multiplies 16 activation rows with 16 weight rows over 32 columns, and its 256 sums stay in the tile as 32-bit
//! floats over all columns. Int8 tiles are twice as fast by themselves, but a scale covers only 32 columns: after each
//! of these, the sums must be converted to floats, scaled and added, with three vector operations per 16 sums. That
//! more than halves the speed of prefill.
//!
//! Rounding loses 0.1 % (2^-9 at most) of a weight and as much of an activation; int8 codes lose 0.7 % of an average
//! activation. So products are closer to those of exact arithmetic than the other kernels' are, but have different
//! bits.
//!
//! | tiles | contents | rows | bytes a row |
//! |---|---|---|---|
//! | 0 to 3 | sums, `[activation row][weight row]`, of two panels and two groups | 16 | 64 |
//! | 4, 5 | activations of two panels, `[row][32 columns]` | 16 | 64 |
//! | 6, 7 | weights of two groups, `[columns / 2][weight row][2]` | 16 | 64 |
//!
//! Four products share four loads, so that the multiplier is the bottleneck. Some units of weights are unpacked and
//! multiplied with all panels while they are in the cache; then their memory is reused.
//!
//! Each piece configures the tiles of its thread and releases them at its end, which costs about a thousandth of the
//! piece's time. In between, the system saves and restores 8 KiB more for a thread that is interrupted or loses its
//! core. After the release it saves no more than before, so the pool's idle threads cost the system nothing.

use std::ops::Range;

use super::activations::TILE_ROWS as ROWS;
use super::gemv::{CacheLine, GemmArgs, PREFETCH_BYTES, UnpackedTile, write_products};
use super::isa::Isa;
use super::pack::{GROUP_ROWS, ScaleLayout, UNIT_COLUMNS};
use super::quant_format::{QuantFormat, load_codes, load_factors};
use tiles::{TileRegisters, TileShapes};

#[cfg(target_arch = "x86_64")]
mod support;
#[cfg(test)]
pub(in crate::local) mod tests;
#[cfg(test)]
mod tile_model;
mod tiles;

#[cfg(target_arch = "x86_64")]
mod kernel_table;
#[cfg(target_arch = "x86_64")]
pub(super) use {kernel_table::KERNEL_TABLE, support::missing_features};

/// Maximum number of groups of weight rows in a piece; even. Each piece reads all activations, which may not fit into
/// the second-level cache: a fourth of this makes prefill slower.
const MAX_GROUPS: usize = 16;
/// Units that are unpacked and multiplied with all panels before the next ones. Those of two groups are 16 KiB, those
/// of all groups 128.
const CHUNK_UNITS: usize = 8;
/// Lines of a unit of 16 rows: one kilobyte, which fills a tile.
const UNIT_LINES: usize = 16;

/// What unpacking needs of its instruction set besides [`Isa`]. One vector holds a group.
trait Bf16Unpack: Isa {
    /// Writes code times `scale` plus `offset` for the four columns of 16 weight rows in `codes`, rounded to bfloat16:
    /// two lines, `[columns / 2][weight row][2]`.
    ///
    /// # Safety
    /// As for all methods of [`Isa`].
    unsafe fn unpack_bf16(to: *mut u16, codes: Self::Bytes, scale: Self::Floats, offset: Self::Floats);
}

/// The tiles in use; released on drop.
struct TilesInUse<T: TileRegisters>(T);

impl<T: TileRegisters> Drop for TilesInUse<T> {
    fn drop(&mut self) {
        // SAFETY: the constructor's caller guarantees that tiles are available.
        unsafe { self.0.release() }
    }
}

/// Multiplies a piece of a gemm on tiles.
///
/// # Safety
/// `I` and the tiles are available; see `gemv::GemvArgs`.
#[inline(always)]
unsafe fn multiply_piece<I: Bf16Unpack, F: QuantFormat, T: TileRegisters>(
    args: &GemmArgs<'_>,
    tile: &mut UnpackedTile,
    tiles: T,
) {
    const { assert!(I::PARTS == 1 && MAX_GROUPS.is_multiple_of(2)) };
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    let units = args.weight.columns() / UNIT_COLUMNS;
    let (groups, panels) = (args.groups.len(), args.x.panels());
    assert!(groups <= MAX_GROUPS);
    // The buffer only grows: everything read was written before.
    tile.bf16
        .resize(tile.bf16.len().max(MAX_GROUPS * CHUNK_UNITS * UNIT_LINES), CacheLine([0; UNIT_COLUMNS]));
    tile.sums.resize(tile.sums.len().max(panels * MAX_GROUPS * ROWS), CacheLine([0.0; GROUP_ROWS]));
    // SAFETY: by the caller's contract; all shapes are whole tiles.
    unsafe {
        let mut tiles = TilesInUse(tiles);
        tiles.0.configure(&TileShapes::new([(ROWS, 64); tiles::TILE_COUNT]));
        for first in (0..units).step_by(CHUNK_UNITS) {
            let chunk = first..units.min(first + CHUNK_UNITS);
            for group in 0..groups {
                unpack_units::<I, F>(args, group, chunk.clone(), tile);
            }
            for group in (0..groups).step_by(2) {
                for panel in (0..panels).step_by(2) {
                    let (tiles, chunk) = (&mut tiles.0, chunk.clone());
                    match (panels - panel, groups - group) {
                        (1, 1) => multiply_chunk::<T, 1, 1>(args, tile, panel, group, chunk, tiles),
                        (1, _) => multiply_chunk::<T, 1, 2>(args, tile, panel, group, chunk, tiles),
                        (_, 1) => multiply_chunk::<T, 2, 1>(args, tile, panel, group, chunk, tiles),
                        _ => multiply_chunk::<T, 2, 2>(args, tile, panel, group, chunk, tiles),
                    }
                }
            }
        }
        for index in 0..panels {
            let panel = &args.x.panel(index);
            for group in 0..groups {
                let (sums, _) = tile.sums[sums_offset(index, group)..].as_chunks::<ROWS>();
                write_products(args, args.groups.start + group, panel, &sums[0]);
            }
        }
    }
}

/// Offset of the sums of a panel and a group.
const fn sums_offset(panel: usize, group: usize) -> usize {
    (panel * MAX_GROUPS + group) * ROWS
}

/// Unpacks some units of a group: `[unit][columns / 2][weight row][2]`.
///
/// # Safety
/// The instruction set is available; the group and the units exist; the tile is large enough.
#[inline(always)]
unsafe fn unpack_units<I: Bf16Unpack, F: QuantFormat>(
    args: &GemmArgs<'_>,
    group: usize,
    units: Range<usize>,
    tile: &mut UnpackedTile,
) {
    let (codes_bytes, scale_bytes) = args.weight.group_data(args.groups.start + group);
    let lower_bytes = args.weight.lower_plane(args.groups.start + group);
    let to = tile.bf16[group * CHUNK_UNITS * UNIT_LINES..].as_mut_ptr().cast::<u16>();
    for (index, unit) in units.enumerate() {
        // SAFETY: offsets are inside the group as `PackedMatrix` states, and inside the tile.
        unsafe {
            let from = codes_bytes.as_ptr().add(unit * 64 * F::UPPER_BITS as usize);
            let lower = lower_bytes.as_ptr().wrapping_add(unit * 64 * F::LOWER_BITS as usize);
            for line in 0..F::UPPER_BITS as usize {
                I::prefetch(from.wrapping_add(PREFETCH_BYTES + 64 * line));
            }
            let (scale, other) = load_factors::<I, F>(scale_bytes.as_ptr(), unit, 0);
            let zero = I::splat(-((1_u32 << (F::BITS - 1)) as f32));
            // Scale and offset of the unit's first and second half.
            let [first, second] = match F::SCALES {
                ScaleLayout::Plain => [(scale, I::mul(scale, zero)); 2],
                ScaleLayout::Min | ScaleLayout::SuperMin => [(scale, other); 2],
                ScaleLayout::SuperHalves => [(scale, I::mul(scale, zero)), (other, I::mul(other, zero))],
            };
            let to = to.add(index * UNIT_LINES * UNIT_COLUMNS);
            for step in 0..4 {
                let (low, high) = load_codes::<I, F>(from, lower, step);
                I::unpack_bf16(to.add(2 * UNIT_COLUMNS * step), low, first.0, first.1);
                I::unpack_bf16(to.add(2 * UNIT_COLUMNS * (step + 4)), high, second.0, second.1);
            }
        }
    }
}

/// Adds the products of `P` panels with `G` groups over some units in the tile to the sums; the first units start the
/// sums.
///
/// # Safety
/// The panels, groups, units and tiles exist, and the shapes are whole tiles.
#[inline(always)]
unsafe fn multiply_chunk<T: TileRegisters, const P: usize, const G: usize>(
    args: &GemmArgs<'_>,
    tile: &mut UnpackedTile,
    panel: usize,
    group: usize,
    units: Range<usize>,
    tiles: &mut T,
) {
    let whole = args.weight.columns() / UNIT_COLUMNS;
    let x = [panel, panel + P - 1].map(|panel| {
        let halves = args.x.panel(panel).bf16;
        assert_eq!(halves.len(), whole * UNIT_LINES);
        halves.as_ptr().cast::<u8>()
    });
    let weights = [group, group + G - 1].map(|group| {
        let halves = &tile.bf16[group * CHUNK_UNITS * UNIT_LINES..][..CHUNK_UNITS * UNIT_LINES];
        halves.as_ptr().cast::<u8>()
    });
    let mut sums = |panel_of: usize, group_of: usize| {
        tile.sums[sums_offset(panel + panel_of, group + group_of)..][..ROWS].as_mut_ptr().cast::<u8>()
    };
    const TILE_BYTES: usize = UNIT_LINES * 64;
    // SAFETY: by the caller's contract, and the lengths just checked.
    unsafe {
        /// Runs `$what` with the tile of each existing panel and group.
        macro_rules! each {
            ($what:ident $(, $stride:literal)?) => {
                each!($what 0, 0, 0 $(, $stride)?);
                if G == 2 {
                    each!($what 1, 0, 1 $(, $stride)?);
                }
                if P == 2 {
                    each!($what 2, 1, 0 $(, $stride)?);
                }
                if P == 2 && G == 2 {
                    each!($what 3, 1, 1 $(, $stride)?);
                }
            };
            ($what:ident $tile:literal, $panel:literal, $group:literal) => {
                tiles.$what::<$tile>()
            };
            ($what:ident $tile:literal, $panel:literal, $group:literal, $stride:literal) => {
                tiles.$what::<$tile>(sums($panel, $group), $stride)
            };
        }
        if units.start == 0 {
            each!(zero);
        } else {
            each!(load, 64);
        }
        for (index, unit) in units.enumerate() {
            tiles.load::<4>(x[0].add(unit * TILE_BYTES), 64);
            tiles.load::<6>(weights[0].add(index * TILE_BYTES), 64);
            tiles.dot::<0, 4, 6>();
            if G == 2 {
                tiles.load::<7>(weights[1].add(index * TILE_BYTES), 64);
                tiles.dot::<1, 4, 7>();
            }
            if P == 2 {
                tiles.load::<5>(x[1].add(unit * TILE_BYTES), 64);
                tiles.dot::<2, 5, 6>();
            }
            if P == 2 && G == 2 {
                tiles.dot::<3, 5, 7>();
            }
        }
        each!(store, 64);
    }
}
