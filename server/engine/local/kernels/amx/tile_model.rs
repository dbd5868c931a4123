//! The tile registers in plain Rust, for testing the kernel on machines without them. It panics where a processor would
//! raise an exception.

use super::tiles::{TILE_COUNT, TILE_ROW_BYTES, TileRegisters, TileShapes};

/// Maximum number of rows of a tile.
const MAX_TILE_ROWS: usize = 16;

/// All tiles of a thread, and their shapes once configured.
#[derive(Debug)]
pub(super) struct TileModel {
    shapes: Option<TileShapes>,
    tiles: [[[u8; TILE_ROW_BYTES]; MAX_TILE_ROWS]; TILE_COUNT],
}

impl TileModel {
    pub(super) fn new() -> Self {
        Self { shapes: None, tiles: [[[0; TILE_ROW_BYTES]; MAX_TILE_ROWS]; TILE_COUNT] }
    }

    /// `LDTILECFG`: the checks that raise #GP, then all tiles are zeroed.
    pub(super) fn configure(&mut self, shapes: TileShapes) {
        let bytes = shapes.0;
        let reserved = bytes[2..16].iter().chain(&bytes[32..48]).chain(&bytes[56..64]);
        assert!(bytes[0] == 1 && bytes[1] == 0 && reserved.into_iter().all(|&byte| byte == 0), "{shapes:?}");
        for tile in 0..TILE_COUNT {
            let (rows, row_bytes) = shapes.tile_shape(tile);
            assert!(rows <= MAX_TILE_ROWS && row_bytes <= TILE_ROW_BYTES, "{shapes:?}");
            // Both are zero or neither.
            assert_eq!(rows == 0, row_bytes == 0, "{shapes:?}");
        }
        *self = Self { shapes: Some(shapes), ..Self::new() };
    }

    /// A tile's rows and bytes per row; the tile must be usable.
    fn tile_shape(&self, tile: usize) -> (usize, usize) {
        let Some(shapes) = self.shapes else { panic!("tiles are used before they are configured") };
        let (rows, row_bytes) = shapes.tile_shape(tile);
        assert!(rows > 0 && row_bytes > 0, "tile {tile} has no shape");
        (rows, row_bytes)
    }

    /// `TILEZERO`.
    pub(super) fn zero(&mut self, tile: usize) {
        self.tile_shape(tile);
        self.tiles[tile] = [[0; TILE_ROW_BYTES]; MAX_TILE_ROWS];
    }

    /// `TILELOADD`: everything outside the shape becomes zero.
    ///
    /// # Safety
    /// The rows are readable.
    pub(super) unsafe fn load(&mut self, tile: usize, from: *const u8, stride: usize) {
        let (rows, row_bytes) = self.tile_shape(tile);
        self.zero(tile);
        for (row, bytes) in self.tiles[tile].iter_mut().enumerate().take(rows) {
            // SAFETY: by the caller's contract.
            let from = unsafe { std::slice::from_raw_parts(from.wrapping_add(row * stride), row_bytes) };
            bytes[..row_bytes].copy_from_slice(from);
        }
    }

    /// `TILESTORED`.
    ///
    /// # Safety
    /// The rows are writable.
    pub(super) unsafe fn store(&self, tile: usize, to: *mut u8, stride: usize) {
        let (rows, row_bytes) = self.tile_shape(tile);
        for (row, bytes) in self.tiles[tile].iter().enumerate().take(rows) {
            // SAFETY: by the caller's contract.
            let to = unsafe { std::slice::from_raw_parts_mut(to.wrapping_add(row * stride), row_bytes) };
            to.copy_from_slice(&bytes[..row_bytes]);
        }
    }

    /// `TDPBF16PS c, a, b`, with the checks that raise #UD.
    pub(super) fn dot(&mut self, c: usize, a: usize, b: usize) {
        assert!(c != a && c != b && a != b, "tiles {c}, {a}, {b} are not three");
        let ((rows, row_bytes), (a_rows, a_bytes), (b_rows, b_bytes)) =
            (self.tile_shape(c), self.tile_shape(a), self.tile_shape(b));
        assert!(row_bytes % 4 == 0 && a_bytes % 4 == 0 && b_bytes % 4 == 0);
        assert!(a_rows == rows && b_bytes == row_bytes && a_bytes / 4 == b_rows, "tiles {c}, {a}, {b}");
        // Denormal numbers count as zero, in inputs and results.
        let flushed = |x: f32| if x.is_subnormal() { x.signum() * 0.0 } else { x };
        let half = |bytes: [u8; 2]| flushed(f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16));
        for m in 0..rows {
            for n in 0..row_bytes / 4 {
                let mut sums = [0.0_f32; 2];
                for k in 0..a_bytes / 4 {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let (left, right) = (4 * k + 2 * i, 4 * n + 2 * i);
                        let a = half([self.tiles[a][m][left], self.tiles[a][m][left + 1]]);
                        let b = half([self.tiles[b][k][right], self.tiles[b][k][right + 1]]);
                        *sum = flushed(a.mul_add(b, *sum));
                    }
                }
                let to: &mut [u8] = &mut self.tiles[c][m][4 * n..][..4];
                let before = flushed(f32::from_le_bytes([to[0], to[1], to[2], to[3]]));
                let sum = flushed(before + flushed(sums[0] + sums[1]));
                to.copy_from_slice(&sum.to_le_bytes());
            }
        }
        // Everything outside the shape becomes zero.
        for (row, bytes) in self.tiles[c].iter_mut().enumerate() {
            bytes[if row < rows { row_bytes } else { 0 }..].fill(0);
        }
    }

    /// `TILERELEASE`.
    pub(super) fn release(&mut self) {
        *self = Self::new();
    }
}

impl TileRegisters for TileModel {
    unsafe fn configure(&mut self, shapes: &TileShapes) {
        self.configure(*shapes);
    }

    unsafe fn zero<const T: u8>(&mut self) {
        self.zero(T.into());
    }

    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: by the caller's contract.
        unsafe { self.load(T.into(), from, stride) }
    }

    unsafe fn dot<const C: u8, const A: u8, const B: u8>(&mut self) {
        self.dot(C.into(), A.into(), B.into());
    }

    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: by the caller's contract.
        unsafe { Self::store(self, T.into(), to, stride) }
    }

    unsafe fn release(&mut self) {
        self.release();
    }
}
