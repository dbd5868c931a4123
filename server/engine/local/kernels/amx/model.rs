//! The tile registers in plain Rust: what the tests run the kernel on where there are none.
//! It knows nothing of the kernel; it panics where a processor would raise an exception.

use super::tiles::{ROW_BYTES, Shapes, TILES, Tiles};

/// Rows of a tile at most.
const MAX_ROWS: usize = 16;

/// All tiles of a thread, and their shapes once they have any.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) shapes: Option<Shapes>,
    tiles: [[[u8; ROW_BYTES]; MAX_ROWS]; TILES],
}

impl Model {
    pub(super) const fn new() -> Self {
        Self { shapes: None, tiles: [[[0; ROW_BYTES]; MAX_ROWS]; TILES] }
    }

    /// `LDTILECFG`: the checks that raise #GP, then all tiles are zeroed.
    pub(super) fn configure(&mut self, shapes: Shapes) {
        let bytes = shapes.0;
        let reserved = bytes[2..16].iter().chain(&bytes[32..48]).chain(&bytes[56..64]);
        assert!(bytes[0] == 1 && bytes[1] == 0 && reserved.into_iter().all(|&byte| byte == 0), "{shapes:?}");
        for tile in 0..TILES {
            let (rows, row_bytes) = shapes.of(tile);
            assert!(rows <= MAX_ROWS && row_bytes <= ROW_BYTES, "{shapes:?}");
            // Either both are zero or none.
            assert_eq!(rows == 0, row_bytes == 0, "{shapes:?}");
        }
        *self = Self { shapes: Some(shapes), ..Self::new() };
    }

    /// A tile's rows and bytes a row; the tile must be one that can be used.
    fn shape(&self, tile: usize) -> (usize, usize) {
        let Some(shapes) = self.shapes else { panic!("tiles are used before they are configured") };
        let (rows, row_bytes) = shapes.of(tile);
        assert!(rows > 0 && row_bytes > 0, "tile {tile} has no shape");
        (rows, row_bytes)
    }

    /// `TILEZERO`.
    pub(super) fn zero(&mut self, tile: usize) {
        self.shape(tile);
        self.tiles[tile] = [[0; ROW_BYTES]; MAX_ROWS];
    }

    /// `TILELOADD`: what is outside the shape becomes zero.
    ///
    /// # Safety
    /// The rows can be read.
    pub(super) unsafe fn load(&mut self, tile: usize, from: *const u8, stride: usize) {
        let (rows, row_bytes) = self.shape(tile);
        self.zero(tile);
        for (row, bytes) in self.tiles[tile].iter_mut().enumerate().take(rows) {
            // SAFETY: the caller's promise.
            let from = unsafe { std::slice::from_raw_parts(from.wrapping_add(row * stride), row_bytes) };
            bytes[..row_bytes].copy_from_slice(from);
        }
    }

    /// `TILESTORED`.
    ///
    /// # Safety
    /// The rows can be written.
    pub(super) unsafe fn store(&self, tile: usize, to: *mut u8, stride: usize) {
        let (rows, row_bytes) = self.shape(tile);
        for (row, bytes) in self.tiles[tile].iter().enumerate().take(rows) {
            // SAFETY: the caller's promise.
            let to = unsafe { std::slice::from_raw_parts_mut(to.wrapping_add(row * stride), row_bytes) };
            to.copy_from_slice(&bytes[..row_bytes]);
        }
    }

    /// `TDPBSSD c, a, b`, with the checks that raise #UD.
    pub(super) fn dot(&mut self, c: usize, a: usize, b: usize) {
        assert!(c != a && c != b && a != b, "tiles {c}, {a}, {b} are not three");
        let ((rows, row_bytes), (a_rows, a_bytes), (b_rows, b_bytes)) =
            (self.shape(c), self.shape(a), self.shape(b));
        assert!(row_bytes % 4 == 0 && a_bytes % 4 == 0 && b_bytes % 4 == 0);
        assert!(a_rows == rows && b_bytes == row_bytes && a_bytes / 4 == b_rows, "tiles {c}, {a}, {b}");
        for m in 0..rows {
            for n in 0..row_bytes / 4 {
                let at = [4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 3];
                let mut sum = i32::from_le_bytes(at.map(|at| self.tiles[c][m][at]));
                for k in 0..a_bytes / 4 {
                    for i in 0..4 {
                        let (a, b) = (self.tiles[a][m][4 * k + i] as i8, self.tiles[b][k][4 * n + i] as i8);
                        // Wraps, as the processor's does; nothing saturates.
                        sum = sum.wrapping_add(i32::from(a) * i32::from(b));
                    }
                }
                self.tiles[c][m][4 * n..][..4].copy_from_slice(&sum.to_le_bytes());
            }
        }
        // What is outside the shape becomes zero.
        for (row, bytes) in self.tiles[c].iter_mut().enumerate() {
            bytes[if row < rows { row_bytes } else { 0 }..].fill(0);
        }
    }

    /// `TILERELEASE`.
    pub(super) fn release(&mut self) {
        *self = Self::new();
    }
}

impl Tiles for Model {
    unsafe fn configure(&mut self, shapes: &Shapes) {
        self.configure(*shapes);
    }

    unsafe fn zero<const T: u8>(&mut self) {
        self.zero(T.into());
    }

    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.load(T.into(), from, stride) }
    }

    unsafe fn dot<const C: u8, const A: u8, const B: u8>(&mut self) {
        self.dot(C.into(), A.into(), B.into());
    }

    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { Self::store(self, T.into(), to, stride) }
    }

    unsafe fn release(&mut self) {
        self.release();
    }
}
