//! The AMX kernel on hardware tiles, with AVX-512 for unpacking and for products of few rows.

use std::arch::x86_64::*;

use super::tiles::HardwareTiles;
use super::{Bf16Unpack, MAX_GROUPS, ROWS, multiply_piece};
use crate::local::kernels::activations::{PanelMut, panel_to_bf16};
use crate::local::kernels::avx512::{self, Avx512};
use crate::local::kernels::gemv::{GemmArgs, UnpackedTile};
use crate::local::kernels::quant_format::{FormatJob, QuantFormat, run_for_format};
use crate::local::kernels::{KernelTable, TileGemm};

pub(in crate::local::kernels) static KERNEL_TABLE: KernelTable = KernelTable {
    tile_gemm: Some(TileGemm {
        min_rows: ROWS,
        gemm_groups: MAX_GROUPS,
        gemm: gemm_on_tiles,
        to_bf16: rows_to_bf16,
    }),
    ..avx512::KERNEL_TABLE
};

// The caller guarantees the instruction set and valid pointers (see `Isa`).
impl Bf16Unpack for Avx512 {
    #[inline(always)]
    unsafe fn unpack_bf16(to: *mut u16, codes: __m512i, scale: __m512, offset: __m512) {
        // SAFETY: by the caller's contract.
        unsafe {
            let byte = _mm512_set1_epi32(0xff);
            // The value is rounded in the upper half; the lower half must be cut off.
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

/// A piece whose format is still to be dispatched.
struct AmxPiece<'a, 'b> {
    args: &'a GemmArgs<'b>,
    tile: &'a mut UnpackedTile,
}

impl FormatJob for AmxPiece<'_, '_> {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn run<F: QuantFormat>(self) {
        // SAFETY: by the caller's contract.
        unsafe { multiply_piece::<Avx512, F, HardwareTiles>(self.args, self.tile, HardwareTiles) }
    }
}

unsafe fn gemm_on_tiles(args: &GemmArgs<'_>, tile: &mut UnpackedTile) {
    // SAFETY: by the caller's contract.
    unsafe { run_for_format(args.weight.format(), AmxPiece { args, tile }) }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows_to_bf16(rows: &[f32], slot: &mut PanelMut<'_>) {
    panel_to_bf16(rows, slot);
}
