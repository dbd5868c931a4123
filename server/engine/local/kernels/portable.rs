//! The kernels in plain Rust: the reference, and the fallback without a supported instruction set.

use half::{bf16, f16};

use super::isa::Isa;
use super::{KernelTable, kernel_table};

/// Arrays of 16 lanes, which the compiler maps to the target's vectors.
#[derive(Clone, Copy)]
pub(super) struct Portable;

pub(super) static KERNEL_TABLE: KernelTable = kernel_table!(Portable, [], 4, 1);

#[inline(always)]
fn map_lanes<const N: usize, A: Copy, B>(a: [A; N], f: impl Fn(A) -> B) -> [B; N] {
    a.map(f)
}

#[inline(always)]
fn zip_lanes<const N: usize, A: Copy, B: Copy, C>(a: [A; N], b: [B; N], f: impl Fn(A, B) -> C) -> [C; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Reads `N` values.
///
/// # Safety
/// `N` values are readable; no alignment is needed.
#[inline(always)]
unsafe fn read_lanes<const N: usize, T: Copy>(from: *const T) -> [T; N] {
    // SAFETY: by the caller's contract.
    unsafe { from.cast::<[T; N]>().read_unaligned() }
}

impl Isa for Portable {
    const PARTS: usize = 1;
    const LANES: usize = 16;
    const SIGNED_BYTES: bool = false;

    type Bytes = [u8; 64];
    type Ints = [i32; 16];
    type Narrow = ();
    type Floats = [f32; 16];

    #[inline(always)]
    unsafe fn load(from: *const u8) -> [u8; 64] {
        // SAFETY: by the caller's contract.
        unsafe { read_lanes(from) }
    }

    #[inline(always)]
    unsafe fn prefetch(_from: *const u8) {}

    #[inline(always)]
    unsafe fn zero() -> [u8; 64] {
        [0; 64]
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: [u8; 64]) {
        // SAFETY: by the caller's contract.
        unsafe { to.cast::<[u8; 64]>().write_unaligned(bytes) }
    }

    #[inline(always)]
    unsafe fn low(bytes: [u8; 64]) -> [u8; 64] {
        map_lanes(bytes, |byte| byte & 0x0f)
    }

    #[inline(always)]
    unsafe fn high(bytes: [u8; 64]) -> [u8; 64] {
        map_lanes(bytes, |byte| byte >> 4)
    }

    #[inline(always)]
    unsafe fn merge(base: [u8; 64], bits: [u8; 64], up: u32, down: u32, mask: u8) -> [u8; 64] {
        zip_lanes(base, bits, |base, bits| base | (bits << up >> down) & mask)
    }

    #[inline(always)]
    unsafe fn ints(from: *const i32, shift: u32) -> [i32; 16] {
        // SAFETY: by the caller's contract.
        [unsafe { from.read_unaligned() } << shift; 16]
    }

    #[inline(always)]
    unsafe fn narrow() {}

    #[inline(always)]
    unsafe fn dot(ints: &mut [i32; 16], (): &mut (), codes: [u8; 64], x: *const u8, _bits: u32) {
        // SAFETY: by the caller's contract.
        let x: [i8; 4] = unsafe { read_lanes(x.cast()) };
        for (lane, sum) in ints.iter_mut().enumerate() {
            for (i, &x) in x.iter().enumerate() {
                *sum += i32::from(codes[4 * lane + i]) * i32::from(x);
            }
        }
    }

    #[inline(always)]
    unsafe fn flush(_ints: &mut [i32; 16], (): &mut (), _bits: u32) {}

    #[inline(always)]
    unsafe fn add_ints(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        zip_lanes(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn floats(ints: [i32; 16]) -> [f32; 16] {
        map_lanes(ints, |int| int as f32)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 16] {
        [value; 16]
    }

    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> [f32; 16] {
        // SAFETY: by the caller's contract.
        unsafe { read_lanes(from) }
    }

    #[inline(always)]
    unsafe fn store_f32(to: *mut f32, value: [f32; 16]) {
        // SAFETY: by the caller's contract.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> [f32; 16] {
        // SAFETY: by the caller's contract.
        map_lanes(unsafe { read_lanes(from) }, |bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> [f32; 16] {
        // SAFETY: by the caller's contract.
        map_lanes(unsafe { read_lanes(from) }, |bits| bf16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> [f32; 16] {
        // SAFETY: by the caller's contract.
        map_lanes(unsafe { read_lanes(from) }, |byte: u8| f32::from(byte))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> [f32; 16] {
        // SAFETY: by the caller's contract.
        map_lanes(unsafe { read_lanes(from) }, |byte: u8| f32::from(byte as i8))
    }

    #[inline(always)]
    unsafe fn add(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip_lanes(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip_lanes(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn mul_add(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
}
