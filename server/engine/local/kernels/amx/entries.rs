//! The kernel on the processor's own tiles, with AVX-512 for unpacking and for products of few rows.
//! It knows nothing of how tiles are used.

use std::arch::x86_64::*;

use super::tiles::Silicon;
use super::{GROUPS, ROWS, Unpack, multiply};
use crate::local::kernels::activations::{Slot, halve};
use crate::local::kernels::avx512::{self, Avx512};
use crate::local::kernels::form::{ForForm, Form, for_form};
use crate::local::kernels::product::{Tile, Wide};
use crate::local::kernels::{Entries, Many};

pub(in crate::local::kernels) static ENTRIES: Entries = Entries {
    many: Some(Many { from: ROWS, wide_groups: GROUPS, wide, halve: halve_rows }),
    ..avx512::ENTRIES
};

// The caller promises the instruction set and valid pointers (see `Isa`).
impl Unpack for Avx512 {
    #[inline(always)]
    unsafe fn unpack(to: *mut u16, codes: __m512i, scale: __m512, offset: __m512) {
        // SAFETY: the caller's promise.
        unsafe {
            let byte = _mm512_set1_epi32(0xff);
            // In the upper half, rounded; the lower half is to be cut off.
            let value = |code: __m512i| {
                let value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(code), scale, offset);
                _mm512_add_epi32(_mm512_castps_si512(value), _mm512_set1_epi32(0x8000))
            };
            let pair = |left: __m512i, right: __m512i| {
                let left = _mm512_srli_epi32::<16>(value(left));
                // 0xf8: first | second & third.
                _mm512_ternarylogic_epi32::<0xf8>(left, value(right), _mm512_set1_epi32(!0xffff))
            };
            let codes = [
                _mm512_and_si512(codes, byte),
                _mm512_and_si512(_mm512_srli_epi32::<8>(codes), byte),
                _mm512_and_si512(_mm512_srli_epi32::<16>(codes), byte),
                _mm512_srli_epi32::<24>(codes),
            ];
            _mm512_storeu_si512(to.cast(), pair(codes[0], codes[1]));
            _mm512_storeu_si512(to.add(32).cast(), pair(codes[2], codes[3]));
        }
    }
}

/// A piece whose form is still to be told.
struct Piece<'a, 'b> {
    args: &'a Wide<'b>,
    tile: &'a mut Tile,
}

impl ForForm for Piece<'_, '_> {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn run<F: Form>(self) {
        // SAFETY: the caller's promise.
        unsafe { multiply::<Avx512, F, Silicon>(self.args, self.tile, Silicon) }
    }
}

unsafe fn wide(args: &Wide<'_>, tile: &mut Tile) {
    // SAFETY: the caller's promise.
    unsafe { for_form(args.weight.format(), Piece { args, tile }) }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn halve_rows(rows: &[f32], slot: &mut Slot<'_>) {
    halve(rows, slot);
}
