//! Products with float weights.

use super::activations::PanelRef;
use super::gemv::{CacheLine, DenseArgs, write_products};
use super::isa::Isa;
use super::pack::{GROUP_ROWS, PackedFormat};

/// Float weights times float activations, in 32-bit floats: four sums for the columns modulo four, then added.
///
/// # Safety
/// The instruction set is available, and see [`GemvArgs`](super::gemv::GemvArgs).
#[inline(always)]
pub(super) unsafe fn dense<I: Isa>(args: &DenseArgs<'_>) {
    assert_eq!(args.weight.columns(), args.x.columns(), "a product of matrices that do not fit");
    for group in args.groups.clone() {
        let mut row = 0;
        while row < args.x.rows() {
            let left = args.x.rows() - row;
            // SAFETY: by the caller's contract; at least as many rows are left as are taken.
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
/// As [`dense`]; the group has `first + R` rows.
#[inline(always)]
unsafe fn dense_rows<I: Isa, const R: usize>(args: &DenseArgs<'_>, group: usize, first: usize) {
    let columns = args.weight.columns();
    let (weights, _) = args.weight.group_data(group);
    let rows: [&[f32]; R] = std::array::from_fn(|row| args.x.row(first + row));
    let mut out = [CacheLine([0.0_f32; GROUP_ROWS]); R];
    // SAFETY: a group has 16 values for each column, a row of activations one.
    unsafe {
        for part in 0..I::PARTS {
            let mut sums = [[I::splat(0.0); 4]; R];
            let mut add = |column: usize, chain: usize| {
                let at = column * GROUP_ROWS + part * I::LANES;
                let weight = match args.weight.format() {
                    PackedFormat::F16 => I::load_f16(weights.as_ptr().cast::<u16>().add(at)),
                    PackedFormat::Bf16 => I::load_bf16(weights.as_ptr().cast::<u16>().add(at)),
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
        let panel = PanelRef { first, rows: R, width: R, ..PanelRef::default() };
        write_products(args, group, &panel, &out);
    }
}
