//! AVX-512 with the int8 dot product (VNNI): one vector per group of 16 weight rows.

use std::arch::x86_64::*;

use super::isa::Isa;
use super::{KernelTable, kernel_table};

/// Vectors of 512 bits.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

pub(super) static KERNEL_TABLE: KernelTable =
    kernel_table!(Avx512, ["avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni"], 8, 2);

// Every method: the caller guarantees the instruction set and valid pointers (see `Isa`).
impl Isa for Avx512 {
    const PARTS: usize = 1;
    const LANES: usize = 16;
    const SIGNED_BYTES: bool = false;

    type Bytes = __m512i;
    type Ints = __m512i;
    type Narrow = ();
    type Floats = __m512;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a hint, which cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: __m512i) {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_storeu_si512(to.cast(), bytes) }
    }

    #[inline(always)]
    unsafe fn low(bytes: __m512i) -> __m512i {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(0x0f)) }
    }

    #[inline(always)]
    unsafe fn high(bytes: __m512i) -> __m512i {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(0x0f)) }
    }

    #[inline(always)]
    unsafe fn merge(base: __m512i, bits: __m512i, up: u32, down: u32, mask: u8) -> __m512i {
        // SAFETY: by the caller's contract.
        unsafe {
            let shifted = match (up, down) {
                (1, _) => _mm512_slli_epi16::<1>(bits),
                (2, _) => _mm512_slli_epi16::<2>(bits),
                (3, _) => _mm512_slli_epi16::<3>(bits),
                (4, _) => _mm512_slli_epi16::<4>(bits),
                (_, 1) => _mm512_srli_epi16::<1>(bits),
                (_, 2) => _mm512_srli_epi16::<2>(bits),
                (_, 3) => _mm512_srli_epi16::<3>(bits),
                (_, 4) => _mm512_srli_epi16::<4>(bits),
                (_, 6) => _mm512_srli_epi16::<6>(bits),
                _ => bits,
            };
            // 0xf8: first | second & third.
            _mm512_ternarylogic_epi32::<0xf8>(base, shifted, _mm512_set1_epi8(mask as i8))
        }
    }

    #[inline(always)]
    unsafe fn ints(from: *const i32, shift: u32) -> __m512i {
        // SAFETY: by the caller's contract.
        unsafe {
            let value = _mm512_set1_epi32(from.read_unaligned());
            match shift {
                3 => _mm512_slli_epi32::<3>(value),
                4 => _mm512_slli_epi32::<4>(value),
                5 => _mm512_slli_epi32::<5>(value),
                7 => _mm512_slli_epi32::<7>(value),
                _ => value,
            }
        }
    }

    #[inline(always)]
    unsafe fn narrow() {}

    #[inline(always)]
    unsafe fn dot(ints: &mut __m512i, (): &mut (), codes: __m512i, x: *const u8, _bits: u32) {
        // SAFETY: by the caller's contract.
        unsafe {
            let x = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
            *ints = _mm512_dpbusd_epi32(*ints, codes, x);
        }
    }

    #[inline(always)]
    unsafe fn flush(_ints: &mut __m512i, (): &mut (), _bits: u32) {}

    #[inline(always)]
    unsafe fn add_ints(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn floats(ints: __m512i) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_f32(to: *mut f32, value: __m512) {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}
