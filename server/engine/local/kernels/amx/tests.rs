//! The kernel on the model of the tiles.
//! It knows nothing of layers: that products are right is tested there, with those of all other kernels.

use super::model::Model;
use super::tiles::Shapes;
use super::{GROUPS, ROWS, Unpack, multiply};
use crate::local::kernels::activations::{Slot, half, halve};
use crate::local::kernels::form::{ForForm, Form, for_form};
use crate::local::kernels::portable::{self, Portable};
use crate::local::kernels::product::{Tile, Wide};
use crate::local::kernels::{Entries, Many};

// The caller promises valid pointers (see `Isa`).
impl Unpack for Portable {
    unsafe fn unpack(to: *mut u16, codes: [u8; 64], scale: [f32; 16], offset: [f32; 16]) {
        for row in 0..16 {
            for column in 0..4 {
                let value = f32::from(codes[4 * row + column]).mul_add(scale[row], offset[row]);
                // SAFETY: the caller's promise.
                unsafe { to.add(column / 2 * 32 + 2 * row + column % 2).write(half(value)) };
            }
        }
    }
}

struct Piece<'a, 'b> {
    args: &'a Wide<'b>,
    tile: &'a mut Tile,
}

impl ForForm for Piece<'_, '_> {
    unsafe fn run<F: Form>(self) {
        // SAFETY: the caller's promise.
        unsafe { multiply::<Portable, F, Model>(self.args, self.tile, Model::new()) }
    }
}

/// The plain kernel as a constant, for entries that differ from it.
pub(in crate::local) const ON_PORTABLE: Entries = Entries { many: None, ..portable::ENTRIES };

/// The kernel on the model of the tiles, scaled by plain Rust.
pub(in crate::local) static ON_MODEL: Entries = Entries {
    many: Some(Many { from: ROWS, wide_groups: GROUPS, wide, halve: halve_rows }),
    ..portable::ENTRIES
};

unsafe fn halve_rows(rows: &[f32], slot: &mut Slot<'_>) {
    halve(rows, slot);
}

unsafe fn wide(args: &Wide<'_>, tile: &mut Tile) {
    // SAFETY: the caller's promise.
    unsafe { for_form(args.weight.format(), Piece { args, tile }) }
}

#[test]
fn the_model_multiplies_matrices() {
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..50 {
        let (rows, columns, steps) = (random.usize(1..=16), random.usize(1..=16), random.usize(1..=16));
        let depth = 2 * steps;
        // Small whole numbers: every sum is exact.
        let mut numbers = |len| (0..len).map(|_| random.i32(-128..=128)).collect::<Vec<_>>();
        let (left, right) = (numbers(rows * depth), numbers(depth * columns));
        let halves: Vec<u16> = left.iter().map(|&number| half(number as f32)).collect();
        // Two rows of the right matrix beside each other, as the instruction wants them.
        let mut packed = vec![0_u16; depth * columns];
        for row in 0..depth {
            for column in 0..columns {
                packed[(row / 2 * columns + column) * 2 + row % 2] =
                    half(right[row * columns + column] as f32);
            }
        }
        let (sums, a, b) = ((rows, 4 * columns), (rows, 2 * depth), (steps, 4 * columns));
        let mut model = Model::new();
        model.configure(Shapes::new([sums, a, b, b, b, b, b, b]));
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
