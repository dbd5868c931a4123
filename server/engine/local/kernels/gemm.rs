//! The gemm kernel: groups of weight rows unpacked into a tile in the cache, then multiplied with all panels.

#![expect(clippy::needless_range_loop, reason = "several arrays are indexed by row, vector and part at once")]

use super::activations::PanelRef;
use super::gemv::{CacheLine, GemmArgs, PREFETCH_BYTES, UnpackedTile, accumulate_unit, write_products};
use super::isa::{Isa, flush_after};
use super::pack::{GROUP_ROWS, ScaleLayout, UNIT_COLUMNS};
use super::quant_format::{QuantFormat, initial_sums, load_codes, load_factors};

/// Maximum number of groups that the gemm kernel works on at once.
const MAX_GEMM_GROUPS: usize = 4;

/// Unpacks the groups into the tile.
///
/// # Safety
/// The instruction set is available.
#[inline(always)]
pub(super) unsafe fn expand<I: Isa, F: QuantFormat>(args: &GemmArgs<'_>, tile: &mut UnpackedTile) {
    let units = args.weight.columns() / UNIT_COLUMNS;
    let groups = args.groups.len();
    // Eight-bit codes in one plane are used in place.
    if F::UPPER_BITS != 8 && tile.codes.len() < groups * units * 8 {
        tile.codes.resize(groups * units * 8, CacheLine([0; 64]));
    }
    if tile.scales.len() < groups * units * 2 {
        tile.scales.resize(groups * units * 2, CacheLine([0.0; GROUP_ROWS]));
    }
    for (index, group) in args.groups.clone().enumerate() {
        let (codes_bytes, scale_bytes) = args.weight.group_data(group);
        let lower_bytes = args.weight.lower_plane(group);
        // SAFETY: offsets are inside the group as `PackedMatrix` states, and inside the tile as resized above.
        unsafe {
            let to_codes = tile.codes.as_mut_ptr().cast::<u8>();
            let to_scales = tile.scales.as_mut_ptr().cast::<f32>().add(index * units * 2 * GROUP_ROWS);
            for unit in 0..units {
                for line in 0..F::UPPER_BITS as usize {
                    let line = (unit * F::UPPER_BITS as usize + line) * 64;
                    I::prefetch(codes_bytes.as_ptr().wrapping_add(PREFETCH_BYTES + line));
                }
                for part in 0..I::PARTS {
                    if F::UPPER_BITS != 8 {
                        let place = part * 4 * I::LANES;
                        let from = codes_bytes.as_ptr().add(unit * 64 * F::UPPER_BITS as usize + place);
                        let lower =
                            lower_bytes.as_ptr().wrapping_add(unit * 64 * F::LOWER_BITS as usize + place);
                        let to = to_codes.add((index * units + unit) * 512 + place);
                        for step in 0..4 {
                            let (low, high) = load_codes::<I, F>(from, lower, step);
                            I::store(to.add(64 * step), low);
                            I::store(to.add(64 * (step + 4)), high);
                        }
                    }
                    let (scale, other) = load_factors::<I, F>(scale_bytes.as_ptr(), unit, part);
                    let to = to_scales.add(unit * 2 * GROUP_ROWS + part * I::LANES);
                    I::store_f32(to, scale);
                    I::store_f32(to.add(GROUP_ROWS), other);
                }
            }
        }
    }
}

/// Multiplies the tile's groups with one panel of `R` rows, `V` vectors of weights at once.
///
/// # Safety
/// The instruction set is available, the tile was filled by [`expand`], the panel is `R` rows wide, and see
/// [`GemvArgs`](super::gemv::GemvArgs).
#[inline(always)]
pub(super) unsafe fn gemm<I: Isa, F: QuantFormat, const R: usize, const V: usize>(
    args: &GemmArgs<'_>,
    tile: &UnpackedTile,
    panel: &PanelRef<'_>,
) {
    let units = args.weight.columns() / UNIT_COLUMNS;
    let groups = args.groups.len();
    let halves = matches!(F::SCALES, ScaleLayout::SuperHalves);
    assert!(panel.codes.len() == R * units * UNIT_COLUMNS && panel.scales.len() == R * units);
    assert!(F::UPPER_BITS == 8 || tile.codes.len() >= groups * units * 8);
    assert!(tile.scales.len() >= groups * units * 2);
    let mut out = [[CacheLine([0.0_f32; GROUP_ROWS]); R]; MAX_GEMM_GROUPS];
    // SAFETY: the slices have the lengths just checked, and those that `PackedMatrix` and `Activations` state.
    unsafe {
        for first in (0..groups * I::PARTS).step_by(V) {
            let mut codes_at = [std::ptr::null::<u8>(); V];
            let mut scales_at = [std::ptr::null::<f32>(); V];
            for v in 0..V {
                // An odd group at the end is computed twice and written once.
                let vector = (first + v).min(groups * I::PARTS - 1);
                let (index, part) = (vector / I::PARTS, vector % I::PARTS);
                let codes = if F::UPPER_BITS == 8 {
                    args.weight.group_data(args.groups.start + index).0.as_ptr()
                } else {
                    tile.codes.as_ptr().cast::<u8>().add(index * units * 512)
                };
                codes_at[v] = codes.add(part * 4 * I::LANES);
                scales_at[v] =
                    tile.scales.as_ptr().cast::<f32>().add(index * units * 2 * GROUP_ROWS + part * I::LANES);
            }
            let mut sums = [[I::splat(0.0); V]; R];
            for unit in 0..units {
                let x = panel.codes.as_ptr().cast::<u8>().add(unit * UNIT_COLUMNS * R);
                let x_scales = panel.scales.as_ptr().add(unit * R);
                let x_sums = panel.sums.as_ptr().add(unit * 3 * R);
                let x_sized = panel.scaled_sums.as_ptr().add(unit * R);
                let (rounds, steps) = if halves { (2, 4) } else { (1, 8) };
                for round in 0..rounds {
                    let x_sums = x_sums.add(if halves { (1 + round) * R } else { 0 });
                    let mut ints = [[initial_sums::<I, F>(x_sums); V]; R];
                    for row in 1..R {
                        ints[row] = [initial_sums::<I, F>(x_sums.add(row)); V];
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
                        let from = scales_at[v].add(unit * 2 * GROUP_ROWS);
                        let scale = I::load_f32(from.add(round * GROUP_ROWS));
                        for row in 0..R {
                            let sum = &mut sums[row][v];
                            *sum = accumulate_unit::<I>(*sum, ints[row][v], scale, x_scales.add(row));
                        }
                        if matches!(F::SCALES, ScaleLayout::Min | ScaleLayout::SuperMin) {
                            let min = I::load_f32(from.add(GROUP_ROWS));
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
            write_products(args, args.groups.start + index, panel, out);
        }
    }
}
