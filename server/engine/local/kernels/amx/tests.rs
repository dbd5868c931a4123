//! The AMX kernel on the model of the tiles. Its products are compared with those of all other kernels in the tests of
//! `matmul`.

use super::tile_model::TileModel;
use super::tiles::TileShapes;
use super::{Bf16Unpack, MAX_GROUPS, ROWS, multiply_piece};
use crate::local::kernels::activations::{PanelMut, panel_to_bf16, to_bf16};
use crate::local::kernels::gemv::{GemmArgs, UnpackedTile};
use crate::local::kernels::portable::{self, Portable};
use crate::local::kernels::quant_format::{FormatJob, QuantFormat, run_for_format};
use crate::local::kernels::{KernelTable, TileGemm};

// The caller guarantees valid pointers (see `Isa`).
impl Bf16Unpack for Portable {
    unsafe fn unpack_bf16(to: *mut u16, codes: [u8; 64], scale: [f32; 16], offset: [f32; 16]) {
        for row in 0..16 {
            for column in 0..4 {
                let value = f32::from(codes[4 * row + column]).mul_add(scale[row], offset[row]);
                // SAFETY: by the caller's contract.
                unsafe { to.add(column / 2 * 32 + 2 * row + column % 2).write(to_bf16(value)) };
            }
        }
    }
}

struct ModelPiece<'a, 'b> {
    args: &'a GemmArgs<'b>,
    tile: &'a mut UnpackedTile,
}

impl FormatJob for ModelPiece<'_, '_> {
    unsafe fn run<F: QuantFormat>(self) {
        // SAFETY: by the caller's contract.
        unsafe { multiply_piece::<Portable, F, TileModel>(self.args, self.tile, TileModel::new()) }
    }
}

/// The portable kernel as a constant, for tables that differ from it.
pub(in crate::local) const PORTABLE_TABLE: KernelTable =
    KernelTable { tile_gemm: None, ..portable::KERNEL_TABLE };

/// The AMX kernel on the model of the tiles, with plain Rust for the rest.
pub(in crate::local) static TILE_MODEL_TABLE: KernelTable = KernelTable {
    tile_gemm: Some(TileGemm { min_rows: ROWS, gemm_groups: MAX_GROUPS, gemm, to_bf16: rows_to_bf16 }),
    ..portable::KERNEL_TABLE
};

unsafe fn rows_to_bf16(rows: &[f32], slot: &mut PanelMut<'_>) {
    panel_to_bf16(rows, slot);
}

unsafe fn gemm(args: &GemmArgs<'_>, tile: &mut UnpackedTile) {
    // SAFETY: by the caller's contract.
    unsafe { run_for_format(args.weight.format(), ModelPiece { args, tile }) }
}

#[test]
fn tile_model_multiplies_matrices() {
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..50 {
        let (rows, columns, steps) = (random.usize(1..=16), random.usize(1..=16), random.usize(1..=16));
        let depth = 2 * steps;
        // Small whole numbers: every sum is exact.
        let mut numbers = |len| (0..len).map(|_| random.i32(-128..=128)).collect::<Vec<_>>();
        let (left, right) = (numbers(rows * depth), numbers(depth * columns));
        let halves: Vec<u16> = left.iter().map(|&number| to_bf16(number as f32)).collect();
        // Two rows of the right matrix side by side, as the instruction expects them.
        let mut packed = vec![0_u16; depth * columns];
        for row in 0..depth {
            for column in 0..columns {
                packed[(row / 2 * columns + column) * 2 + row % 2] =
                    to_bf16(right[row * columns + column] as f32);
            }
        }
        let (sums, a, b) = ((rows, 4 * columns), (rows, 2 * depth), (steps, 4 * columns));
        let mut model = TileModel::new();
        model.configure(TileShapes::new([sums, a, b, b, b, b, b, b]));
        let mut out = vec![0_f32; rows * columns];
        // SAFETY: the matrices have the shapes.
        unsafe {
            model.load(1, halves.as_ptr().cast(), 2 * depth);
            model.load(2, packed.as_ptr().cast(), 4 * columns);
            model.dot(0, 1, 2);
            model.store(0, out.as_mut_ptr().cast(), 4 * columns);
        }
        for row in 0..rows {
            for column in 0..columns {
                let product = |k: usize| left[row * depth + k] * right[k * columns + column];
                assert_eq!(out[row * columns + column], (0..depth).map(product).sum::<i32>() as f32);
            }
        }
    }
}
