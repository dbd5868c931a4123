//! The kernel on the processor's own tiles, with AVX-512 for the scaling and for products of few rows.
//! It knows nothing of how tiles are used.

use std::arch::x86_64::*;

use super::tiles::Silicon;
use super::{GROUPS, ROWS, Scaling, multiply};
use crate::local::kernels::activations::{Slot, quantize};
use crate::local::kernels::avx512::{self, Avx512};
use crate::local::kernels::product::{ForForm, Form, Tile, Wide, for_form};
use crate::local::kernels::{Entries, Many};

pub(in crate::local::kernels) static ENTRIES: Entries = Entries {
    many: Some(Many { from: ROWS, panel: ROWS, wide_groups: GROUPS, wide, quantize: quantize_whole }),
    ..avx512::ENTRIES
};

// The caller promises the instruction set and valid pointers (see `Isa`).
impl Scaling for Avx512 {
    #[inline(always)]
    unsafe fn load_ints(from: *const i32) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn less(bytes: __m512i, offset: u8) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_sub_epi8(bytes, _mm512_set1_epi8(offset as i8)) }
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
unsafe fn quantize_whole(row: &[f32], slot: &mut Slot<'_>) {
    quantize::<true>(row, slot);
}
