//! AVX2, and AVX2 with the 256-bit int8 dot product: two vectors per group of 16 weight rows.

use std::arch::x86_64::*;

use super::isa::Isa;
use super::{KernelTable, kernel_table};

/// Vectors of 256 bits; products of bytes are summed up in 16 bits first.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

/// Vectors of 256 bits with `vpdpbusd`.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni;

pub(super) static AVX2_TABLE: KernelTable = kernel_table!(Avx2, ["avx2,fma,f16c"], 4, 1);
pub(super) static AVX_VNNI_TABLE: KernelTable = kernel_table!(AvxVnni, ["avx2,fma,f16c,avxvnni"], 4, 2);

/// The shared methods; the argument holds the differing ones.
macro_rules! vectors_of_256_bits {
    ($($different:tt)*) => {
        const PARTS: usize = 2;
        const LANES: usize = 8;

        type Bytes = __m256i;
        type Ints = __m256i;
        type Floats = __m256;

        #[inline(always)]
        unsafe fn load(from: *const u8) -> __m256i {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        #[inline(always)]
        unsafe fn prefetch(from: *const u8) {
            // SAFETY: a hint, which cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }

        #[inline(always)]
        unsafe fn zero() -> __m256i {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        unsafe fn store(to: *mut u8, bytes: __m256i) {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_storeu_si256(to.cast(), bytes) }
        }

        #[inline(always)]
        unsafe fn low(bytes: __m256i) -> __m256i {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_and_si256(bytes, _mm256_set1_epi8(0x0f)) }
        }

        #[inline(always)]
        unsafe fn high(bytes: __m256i) -> __m256i {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(0x0f)) }
        }

        #[inline(always)]
        unsafe fn merge(base: __m256i, bits: __m256i, up: u32, down: u32, mask: u8) -> __m256i {
            // SAFETY: by the caller's contract.
            unsafe {
                let shifted = match (up, down) {
                    (1, _) => _mm256_slli_epi16::<1>(bits),
                    (2, _) => _mm256_slli_epi16::<2>(bits),
                    (3, _) => _mm256_slli_epi16::<3>(bits),
                    (4, _) => _mm256_slli_epi16::<4>(bits),
                    (_, 1) => _mm256_srli_epi16::<1>(bits),
                    (_, 2) => _mm256_srli_epi16::<2>(bits),
                    (_, 3) => _mm256_srli_epi16::<3>(bits),
                    (_, 4) => _mm256_srli_epi16::<4>(bits),
                    (_, 6) => _mm256_srli_epi16::<6>(bits),
                    _ => bits,
                };
                _mm256_or_si256(base, _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8)))
            }
        }

        #[inline(always)]
        unsafe fn ints(from: *const i32, shift: u32) -> __m256i {
            // SAFETY: by the caller's contract.
            unsafe {
                let value = _mm256_set1_epi32(from.read_unaligned());
                match shift {
                    3 => _mm256_slli_epi32::<3>(value),
                    4 => _mm256_slli_epi32::<4>(value),
                    5 => _mm256_slli_epi32::<5>(value),
                    7 => _mm256_slli_epi32::<7>(value),
                    _ => value,
                }
            }
        }

        #[inline(always)]
        unsafe fn add_ints(a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_add_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn floats(ints: __m256i) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_cvtepi32_ps(ints) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load_f32(from: *const f32) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store_f32(to: *mut f32, value: __m256) {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_storeu_ps(to, value) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            }
        }

        #[inline(always)]
        unsafe fn load_u8(from: *const u8) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const u8) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        $($different)*
    };
}

impl Isa for Avx2 {
    vectors_of_256_bits! {
        const SIGNED_BYTES: bool = true;
        type Narrow = __m256i;

        #[inline(always)]
        unsafe fn narrow() -> __m256i {
            // SAFETY: by the caller's contract.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        unsafe fn dot(ints: &mut __m256i, narrow: &mut __m256i, codes: __m256i, x: *const u8, bits: u32) {
            // SAFETY: by the caller's contract.
            unsafe {
                let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                if bits == 8 {
                    // `maddubs` needs one unsigned operand and would overflow with codes up to 255. So the codes are
                    // made signed, and their signs are moved to the activations.
                    let signed = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed));
                    *ints = _mm256_add_epi32(*ints, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                } else {
                    *narrow = _mm256_add_epi16(*narrow, _mm256_maddubs_epi16(codes, x));
                }
            }
        }

        #[inline(always)]
        unsafe fn flush(ints: &mut __m256i, narrow: &mut __m256i, bits: u32) {
            // SAFETY: by the caller's contract.
            unsafe {
                if bits != 8 {
                    *ints = _mm256_add_epi32(*ints, _mm256_madd_epi16(*narrow, _mm256_set1_epi16(1)));
                    *narrow = _mm256_setzero_si256();
                }
            }
        }
    }
}

impl Isa for AvxVnni {
    vectors_of_256_bits! {
        const SIGNED_BYTES: bool = false;
        type Narrow = ();

        #[inline(always)]
        unsafe fn narrow() {}

        #[inline(always)]
        unsafe fn dot(ints: &mut __m256i, (): &mut (), codes: __m256i, x: *const u8, _bits: u32) {
            // SAFETY: by the caller's contract.
            unsafe {
                let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                *ints = _mm256_dpbusd_avx_epi32(*ints, codes, x);
            }
        }

        #[inline(always)]
        unsafe fn flush(_ints: &mut __m256i, (): &mut (), _bits: u32) {}
    }
}
