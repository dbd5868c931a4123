//! The tile registers of AMX: their shapes, and the few instructions on them that the product needs.
//!
//! The semantics are those of Intel's Software Developer's Manual, volume 2: `LDTILECFG`, `TILEZERO`, `TILELOADD`,
//! `TDPBF16PS`, `TILESTORED`, `TILERELEASE`. Tests run the same kernel on a model of them, on any machine.

use std::fmt;

/// Maximum bytes of a tile's row.
pub(super) const TILE_ROW_BYTES: usize = 64;
/// Tile registers.
pub(super) const TILE_COUNT: usize = 8;

/// The shapes of the eight tiles, in the memory layout that `ldtilecfg` reads.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct TileShapes(pub(super) [u8; 64]);

impl TileShapes {
    /// Palette 1 with these rows (at most 16) and bytes per row (at most 64, a multiple of four) for each tile.
    pub(super) fn new(shapes: [(usize, usize); TILE_COUNT]) -> Self {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for (tile, (rows, row_bytes)) in shapes.into_iter().enumerate() {
            debug_assert!(rows <= 16 && row_bytes <= TILE_ROW_BYTES && row_bytes % 4 == 0);
            // Bytes 16 to 47: bytes per row, 16 bits each; bytes 48 to 63: rows.
            bytes[16 + 2 * tile] = row_bytes as u8;
            bytes[48 + tile] = rows as u8;
        }
        Self(bytes)
    }

    /// Rows of a tile, and bytes of each.
    #[cfg(test)]
    pub(super) fn tile_shape(&self, tile: usize) -> (usize, usize) {
        let row_bytes = u16::from_le_bytes([self.0[16 + 2 * tile], self.0[17 + 2 * tile]]);
        (usize::from(self.0[48 + tile]), usize::from(row_bytes))
    }
}

impl fmt::Debug for TileShapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shapes").field(&&self.0[..]).finish()
    }
}

/// Eight tile registers.
///
/// # Safety of the methods
/// The implementation can run here ([`HardwareTiles`] where [`super::support`] lacks nothing), tiles are used in the
/// shapes last configured, and pointers are valid for the reads or writes of these shapes; no alignment is needed.
pub(super) trait TileRegisters {
    /// Gives all tiles their shapes and zeros them.
    unsafe fn configure(&mut self, shapes: &TileShapes);
    /// Zeros tile `T`.
    unsafe fn zero<const T: u8>(&mut self);
    /// Loads tile `T`: row `r` from `from + r * stride`.
    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize);
    /// Adds the products of tiles `A` and `B` to tile `C`: `C[m][n] += A[m][2k + i] * B[k][2n + i]` over all `k` and
    /// `i` below 2, where `A` and `B` hold bfloat16 and `C` 32-bit floats. The sums of each `i` are rounded separately,
    /// starting from zero, and then added; denormal numbers count as zero.
    unsafe fn dot<const C: u8, const A: u8, const B: u8>(&mut self);
    /// Stores tile `T`: row `r` to `to + r * stride`.
    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize);
    /// Releases the tiles: the processor and the system no longer need to save them.
    unsafe fn release(&mut self);
}

/// The processor's own tiles, those of the current thread.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub(super) struct HardwareTiles;

// No block declares `nomem`, `readonly` or `pure`: as far as the compiler knows, each may touch memory. So everything
// written before (the shapes above all) is in memory when it runs, its stores are read afterwards, and blocks stay in
// their order, which is the only thing that ties the tiles' contents together. Every address is that of a pointer
// operand, hence exposed. The compiler itself never uses tiles.
#[cfg(target_arch = "x86_64")]
impl TileRegisters for HardwareTiles {
    #[inline(always)]
    unsafe fn configure(&mut self, shapes: &TileShapes) {
        // SAFETY: reads 64 bytes, which are a valid configuration; the caller guarantees the instruction.
        unsafe {
            std::arch::asm!("ldtilecfg [{}]", in(reg) shapes, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn zero<const T: u8>(&mut self) {
        // SAFETY: by the caller's contract.
        unsafe { std::arch::asm!("tilezero tmm{}", const T, options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: by the caller's contract. The index register is the stride, so its scale is written out.
        unsafe {
            std::arch::asm!(
                "tileloadd tmm{}, [{} + 1*{}]",
                const T, in(reg) from, in(reg) stride,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn dot<const C: u8, const A: u8, const B: u8>(&mut self) {
        // SAFETY: by the caller's contract.
        unsafe {
            std::arch::asm!(
                "tdpbf16ps tmm{}, tmm{}, tmm{}",
                const C, const A, const B,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: by the caller's contract.
        unsafe {
            std::arch::asm!(
                "tilestored [{} + 1*{}], tmm{}",
                in(reg) to, in(reg) stride, const T,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn release(&mut self) {
        // SAFETY: the caller guarantees the instruction.
        unsafe { std::arch::asm!("tilerelease", options(nostack, preserves_flags)) }
    }
}
