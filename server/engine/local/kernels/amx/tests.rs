//! The kernel on the model of the tiles, and its real instructions on the trap.
//! It knows nothing of layers: that products are right is tested there, with those of all other kernels.

use super::model::Model;
use super::tiles::Tiles;
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

struct Piece<'a, 'b, T> {
    args: &'a Wide<'b>,
    tile: &'a mut Tile,
    tiles: T,
}

impl<T: Tiles> ForForm for Piece<'_, '_, T> {
    unsafe fn run<F: Form>(self) {
        // SAFETY: the caller's promise.
        unsafe { multiply::<Portable, F, T>(self.args, self.tile, self.tiles) }
    }
}

/// The plain kernel as a constant, for entries that differ from it.
pub(in crate::local) const ON_PORTABLE: Entries = Entries { many: None, ..portable::ENTRIES };

const fn entries(wide: unsafe fn(&Wide<'_>, &mut Tile)) -> Entries {
    Entries {
        many: Some(Many { from: ROWS, wide_groups: GROUPS, wide, halve: halve_rows }),
        ..portable::ENTRIES
    }
}

unsafe fn halve_rows(rows: &[f32], slot: &mut Slot<'_>) {
    halve(rows, slot);
}

/// The kernel on the model of the tiles, scaled by plain Rust.
pub(in crate::local) static ON_MODEL: Entries = entries(wide_on_model);

unsafe fn wide_on_model(args: &Wide<'_>, tile: &mut Tile) {
    // SAFETY: the caller's promise.
    unsafe { for_form(args.weight.format(), Piece { args, tile, tiles: Model::new() }) }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(in crate::local) use trapped::TRAPPED;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod trapped {
    use super::super::support;
    use super::super::tiles::{Shapes, Silicon};
    use super::super::trap::{self, Instruction, decode};
    use super::*;

    /// The kernel with the processor's instructions, which the trap does where there are none; scaled by plain Rust.
    pub(in crate::local) static TRAPPED: Entries = entries(wide_trapped);

    unsafe fn wide_trapped(args: &Wide<'_>, tile: &mut Tile) {
        trap::set();
        let before = trap::done();
        // SAFETY: the caller's promise; the tiles are there, as of now.
        unsafe { for_form(args.weight.format(), Piece { args, tile, tiles: Silicon }) };
        assert!(trap::done() > before || support::lacks().is_empty(), "nobody did the tiles' work");
        assert!(!trap::configured(), "tiles are still configured behind the end of the piece");
    }

    #[test]
    fn each_instruction_has_the_manuals_bytes() {
        // Registers hold a thousand times their number, so that base and stride cannot be mistaken.
        let instruction = |bytes: &[u8]| {
            let mut padded = [0x90; 15];
            padded[..bytes.len()].copy_from_slice(bytes);
            decode(&padded, |register| 1000 * usize::from(register)).map(|(instruction, length)| {
                assert_eq!(length, bytes.len(), "{instruction:?}");
                instruction
            })
        };
        // By hand from the manual: ldtilecfg [rdi]; tileloadd tmm6, [r10 + r9]; tdpbf16ps tmm1, tmm5, tmm7;
        // tilestored [rax + rsi + 0x1000], tmm3; tilezero tmm2; tilerelease.
        let expected = [
            (&[0xc4, 0xe2, 0x78, 0x49, 0x07][..], Instruction::Configure { from: 7000 }),
            (
                &[0xc4, 0x82, 0x7b, 0x4b, 0x34, 0x0a],
                Instruction::Load { tile: 6, from: 10_000, stride: 9000 },
            ),
            (&[0xc4, 0xe2, 0x42, 0x5c, 0xcd], Instruction::Dot { c: 1, a: 5, b: 7 }),
            (
                &[0xc4, 0xe2, 0x7a, 0x4b, 0x9c, 0x30, 0x00, 0x10, 0x00, 0x00],
                Instruction::Store { tile: 3, to: 4096, stride: 6000 },
            ),
            (&[0xc4, 0xe2, 0x7b, 0x49, 0xd0], Instruction::Zero { tile: 2 }),
            (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Instruction::Release),
        ];
        for (bytes, expected) in expected {
            assert_eq!(instruction(bytes), Some(expected));
        }
        // tdpfp16ps, tileloaddt1 and sttilecfg differ from ours by the prefix alone; ud2 is nothing of ours.
        for other in [
            &[0xc4, 0xe2, 0x43, 0x5c, 0xcd][..],
            &[0xc4, 0x82, 0x79, 0x4b, 0x34, 0x0a],
            &[0xc4, 0xe2, 0x79, 0x49, 0x07],
            &[0x0f, 0x0b],
        ] {
            assert_eq!(instruction(other), None);
        }
    }

    #[test]
    fn the_instructions_do_what_the_model_does() {
        trap::set();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            let (rows, columns, steps) = (random.usize(1..=16), random.usize(1..=16), random.usize(1..=16));
            let sums = (rows, 4 * columns);
            let (left, right) = ((rows, 4 * steps), (steps, 4 * columns));
            let shapes = Shapes::new([sums, left, right, sums, left, right, sums, left]);
            let stride = 2 * random.usize(32..40);
            // Finite numbers of very different size, denormal ones and zeros of both signs among them.
            let mut half = || {
                let exponent = if random.u32(..8) == 0 { 0 } else { random.u16(110..140) };
                random.u16(..2) << 15 | exponent << 7 | (random.u16(..128) * random.u16(..2))
            };
            let source: Vec<u8> = (0..3 * 8 * stride).flat_map(|_| half().to_le_bytes()).collect();
            let mut results = [vec![1_u8; 16 * stride], vec![1; 16 * stride]];
            fn run(mut tiles: impl Tiles, shapes: &Shapes, source: &[u8], stride: usize, to: &mut [u8]) {
                // SAFETY: the tiles are there; 16 rows of 64 bytes are within 16 strides.
                unsafe {
                    tiles.configure(shapes);
                    tiles.zero::<6>();
                    tiles.load::<7>(source.as_ptr(), stride);
                    tiles.load::<5>(source[16 * stride..].as_ptr(), stride);
                    tiles.dot::<6, 7, 5>();
                    tiles.load::<3>(source[32 * stride..].as_ptr(), stride);
                    tiles.dot::<3, 7, 5>();
                    tiles.dot::<6, 7, 5>();
                    tiles.store::<3>(to.as_mut_ptr(), stride);
                    // Into the gaps between the rows as well, if there are any.
                    tiles.store::<6>(to.as_mut_ptr(), 60);
                    tiles.release();
                }
            }
            run(Model::new(), &shapes, &source, stride, &mut results[0]);
            run(Silicon, &shapes, &source, stride, &mut results[1]);
            assert!(results[0] == results[1], "{shapes:?}");
        }
    }
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
        model.configure(super::tiles::Shapes::new([sums, a, b, b, b, b, b, b]));
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
