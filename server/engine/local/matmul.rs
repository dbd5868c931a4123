//! Linear layers on the CPU: packed weights, and their products split among the pool's threads.

use std::cell::RefCell;
use std::ops::ControlFlow;

use crate::local::kernels::activations::{Activations, PanelMut, TILE_ROWS, padded_width};
use crate::local::kernels::attention::{AttentionArgs, AttentionScratch};
use crate::local::kernels::gemv::{GemvArgs, ProductOutput, UnpackedTile};
use crate::local::kernels::pack::{GROUP_ROWS, PackedMatrix};
use crate::local::kernels::{GEMV_MAX_ROWS, Kernel, KernelTable, TileGemm};
use crate::local::thread_pool::{DisjointChunks, PrioritizedPool, ThreadPool};
use crate::priority::Priority;

/// Bytes of weights that a thread reads before it claims the next piece of a gemv: enough to hide the cost of
/// claiming, few enough that all threads finish together.
const PIECE_BYTES: usize = 32 << 10;

/// Minimum number of pieces per thread of a product of many rows, if there are as many.
const MIN_PIECES_PER_THREAD: usize = 3;

/// `y = W x + b`.
#[derive(Debug)]
pub(in crate::local) struct LinearLayer {
    pub(in crate::local) weight: PackedMatrix,
    pub(in crate::local) bias: Option<Vec<f32>>,
}

/// The weights of a norm: an RMS norm, or, with a bias, a layer norm.
#[derive(Debug)]
pub(in crate::local) struct NormWeights {
    pub(in crate::local) weight: Vec<f32>,
    pub(in crate::local) bias: Option<Vec<f32>>,
}

/// One of several products with the same activations.
#[derive(Debug)]
pub(in crate::local) struct ProductTarget<'a> {
    pub(in crate::local) linear: &'a LinearLayer,
    /// `[rows of the activations, rows of the weights]`.
    pub(in crate::local) out: &'a mut [f32],
    /// Whether to add to the present contents.
    pub(in crate::local) add: bool,
}

/// A pointer that the pieces of a job share.
struct ProductOutPtr(*mut f32);
// SAFETY: the pieces write to disjoint ranges of it.
unsafe impl Sync for ProductOutPtr {}

/// Threads and the kernel they run.
#[derive(Debug)]
pub(in crate::local) struct ComputeContext {
    pub(in crate::local) pool: ThreadPool,
    kernel_table: &'static KernelTable,
}

impl ComputeContext {
    pub(in crate::local) fn new(kernel: Kernel, pool: ThreadPool) -> Self {
        Self { pool, kernel_table: kernel.kernel_table() }
    }

    /// With a kernel outside [`Kernel::ALL`].
    #[cfg(test)]
    pub(in crate::local) fn with_table(entries: &'static KernelTable, pool: ThreadPool) -> Self {
        Self { pool, kernel_table: entries }
    }

    /// The products of one batch. `exact`: a row's products have the same bits for any number of rows.
    pub(in crate::local) fn for_batch(&self, exact: bool, priority: Priority) -> BatchCompute<'_> {
        BatchCompute { pool: self.pool.with_priority(priority), kernel_table: self.kernel_table, exact }
    }

    /// Whether products of `rows` rows use tiles if they need not be exact.
    pub(in crate::local) fn has_tile_gemm(&self, rows: usize) -> bool {
        self.kernel_table.tile_gemm(rows).is_some()
    }
}

/// Computes the products of one batch.
#[derive(Debug, Clone, Copy)]
pub(in crate::local) struct BatchCompute<'a> {
    pub(in crate::local) pool: PrioritizedPool<'a>,
    kernel_table: &'static KernelTable,
    exact: bool,
}

impl BatchCompute<'_> {
    /// The tile kernel for products of `rows` rows, if there is one; it has its own format of activations.
    fn tile_gemm(&self, rows: usize) -> Option<&'static TileGemm> {
        self.kernel_table.tile_gemm(rows).filter(|_| !self.exact)
    }

    /// Fills the activations: `fill(row, values)` for each row, then quantizes them.
    pub(in crate::local) fn prepare_rows(
        &self,
        x: &mut Activations,
        rows: usize,
        columns: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let tile_gemm = self.tile_gemm(rows);
        let panel = if tile_gemm.is_some() { TILE_ROWS } else { self.kernel_table.panel };
        let quantize = tile_gemm.map_or(self.kernel_table.quantize, |tile_gemm| tile_gemm.to_bf16);
        let buffers = x.reshape_for(rows, columns, panel, tile_gemm.is_some());
        let units = columns / 32;
        let floats = DisjointChunks::new(buffers.floats, panel * columns);
        let halves = DisjointChunks::new(buffers.bf16, panel * units);
        let codes = DisjointChunks::new(buffers.codes, panel * units * 32);
        let scales = DisjointChunks::new(buffers.scales, panel * units);
        let sums = DisjointChunks::new(buffers.sums, panel * units * 3);
        let sized_sums = DisjointChunks::new(buffers.scaled_sums, panel * units);
        self.pool.run_pieces(rows.div_ceil(panel), |index, _| {
            let here = panel.min(rows - index * panel);
            let width = padded_width(here);
            // SAFETY: each panel is one piece, and each piece runs once.
            let (floats, mut slot) = unsafe {
                let slot = if tile_gemm.is_some() {
                    PanelMut { width: panel, bf16: halves.get(index), ..PanelMut::default() }
                } else {
                    PanelMut {
                        width,
                        bf16: &mut [],
                        codes: &mut codes.get(index)[..width * units * 32],
                        scales: &mut scales.get(index)[..width * units],
                        sums: &mut sums.get(index)[..width * units * 3],
                        scaled_sums: &mut sized_sums.get(index)[..width * units],
                    }
                };
                (floats.get(index), slot)
            };
            for (row, floats) in floats.chunks_exact_mut(columns).enumerate() {
                fill(index * panel + row, floats);
            }
            if columns.is_multiple_of(32) {
                // SAFETY: `quantize` belongs to an available instruction set.
                unsafe { quantize(floats, &mut slot) };
            }
        });
    }

    /// Computes all targets, in parallel.
    pub(in crate::local) fn multiply_targets(&self, x: &Activations, targets: &mut [ProductTarget<'_>]) {
        let _ = self.multiply_while(x, targets, &mut || ControlFlow::Continue(()));
    }

    /// Computes all targets in parallel until `look`, which is called every few milliseconds, breaks; after a break
    /// their contents are unspecified.
    pub(in crate::local) fn multiply_while(
        &self,
        x: &Activations,
        targets: &mut [ProductTarget<'_>],
        look: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let is_gemv = x.rows() <= GEMV_MAX_ROWS;
        let tile_gemm = self.kernel_table.tile_gemm.as_ref().filter(|_| x.has_bf16_rows());
        let gemm_groups = tile_gemm.map_or(self.kernel_table.gemm_groups, |tile_gemm| tile_gemm.gemm_groups);
        let gemm = tile_gemm.map_or(self.kernel_table.gemm, |tile_gemm| tile_gemm.gemm);
        // Per target: its pieces, the groups of a piece, and its destination.
        let plan: Vec<_> = targets
            .iter_mut()
            .map(|target| {
                let weight = &target.linear.weight;
                assert_eq!(weight.columns(), x.columns(), "a product of matrices that do not fit");
                assert!(target.out.len() >= x.rows() * weight.rows(), "the output is too short");
                let quantized = weight.format().quantization().is_some();
                let per_piece = if is_gemv || !quantized {
                    (PIECE_BYTES / weight.group_bytes()).max(1)
                } else {
                    // Even, because groups are multiplied two at a time; enough pieces for all threads to finish
                    // together.
                    let shared_out =
                        weight.group_count() / (MIN_PIECES_PER_THREAD * self.pool.thread_count()) / 2 * 2;
                    shared_out.clamp(gemm_groups.min(2), gemm_groups)
                };
                let out = ProductOutPtr(target.out.as_mut_ptr());
                (
                    weight.group_count().div_ceil(per_piece),
                    per_piece,
                    out,
                    target.linear,
                    target.add,
                    quantized,
                )
            })
            .collect();
        let pieces = plan.iter().map(|plan| plan.0).sum();
        self.pool.run_in_order(pieces, look, |mut piece, _| {
            for (pieces, per_piece, out, linear, add, quantized) in &plan {
                if piece >= *pieces {
                    piece -= pieces;
                    continue;
                }
                let weight = &linear.weight;
                let groups = piece * per_piece..weight.group_count().min((piece + 1) * per_piece);
                let out = ProductOutput {
                    start: out.0,
                    stride: weight.rows(),
                    bias: linear.bias.as_deref(),
                    add: *add,
                };
                let args = GemvArgs { weight, groups, x, out };
                // SAFETY: the instruction set is available; the output was checked above, and each piece writes only
                // its own groups' columns.
                unsafe {
                    if !quantized {
                        (self.kernel_table.dense)(&args);
                    } else if is_gemv {
                        (self.kernel_table.gemv)(&args);
                    } else {
                        TILE.with_borrow_mut(|tile| gemm(&args, tile));
                    }
                }
                return;
            }
        })
    }

    /// The screen product of weights in two planes with all rows of `x`: `out` is `[rows of x, rows of the weights]`.
    /// `greatest` is `[groups of the weights, rows of x]`: the greatest of the 16 values of a group, ignoring NaN;
    /// minus infinity if all are NaN.
    pub(in crate::local) fn screen_rows(
        &self,
        x: &Activations,
        weight: &PackedMatrix,
        out: &mut [f32],
        greatest: &mut [f32],
    ) {
        let (rows, width) = (x.rows(), weight.rows());
        assert!(out.len() >= rows * width && greatest.len() >= rows * weight.group_count(), "too short");
        assert!(weight.format().lower_bits() > 0, "the weights lie in one plane");
        let per_piece = (PIECE_BYTES * weight.group_count() / weight.upper_bytes()).max(1);
        let out = &ProductOutPtr(out.as_mut_ptr());
        let greatest = DisjointChunks::new(greatest, per_piece * rows);
        let wanted = &mut || ControlFlow::Continue(());
        let _ = self.pool.run_in_order(weight.group_count().div_ceil(per_piece), wanted, |piece, _| {
            let groups = piece * per_piece..weight.group_count().min((piece + 1) * per_piece);
            let to = ProductOutput { start: out.0, stride: width, bias: None, add: false };
            let args = GemvArgs { weight, groups: groups.clone(), x, out: to };
            // SAFETY: the instruction set is available; `out` was checked above, and each piece accesses only its own
            // groups' columns and its own part of `greatest`, once.
            unsafe {
                (self.kernel_table.screen)(&args);
                for (group, greatest) in groups.zip(greatest.get(piece).chunks_exact_mut(rows)) {
                    let first = group * GROUP_ROWS;
                    for (row, greatest) in greatest.iter_mut().enumerate() {
                        let lanes = GROUP_ROWS.min(width - first);
                        let values = std::slice::from_raw_parts(out.0.add(row * width + first), lanes);
                        *greatest = values.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
                    }
                }
            }
        });
    }

    /// Exact products of some groups of weight rows, in ascending order. Writes them to `out`,
    /// `[rows of x, rows of the weights]`, for each row of `x` with `wanted(index of the group in the list, row)`;
    /// other values stay.
    pub(in crate::local) fn multiply_groups(
        &self,
        x: &Activations,
        linear: &LinearLayer,
        groups: &[usize],
        wanted: impl Fn(usize, usize) -> bool + Sync,
        out: &mut [f32],
    ) {
        let weight = &linear.weight;
        let (rows, width) = (x.rows(), weight.rows());
        assert!(out.len() >= rows * width, "the output is too short");
        assert!(
            groups.is_sorted_by(|a, b| a < b)
                && groups.last().is_none_or(|&last| last < weight.group_count())
        );
        let quantized = weight.format().quantization().is_some();
        let per_piece = (PIECE_BYTES / weight.group_bytes()).max(1);
        let out = &ProductOutPtr(out.as_mut_ptr());
        self.pool.run_pieces(groups.len().div_ceil(per_piece), |piece, _| {
            let mut kept = Vec::new();
            for index in piece * per_piece..groups.len().min((piece + 1) * per_piece) {
                let group = groups[index];
                let to =
                    ProductOutput { start: out.0, stride: width, bias: linear.bias.as_deref(), add: false };
                let args = GemvArgs { weight, groups: group..group + 1, x, out: to };
                let first = group * GROUP_ROWS;
                let lanes = GROUP_ROWS.min(width - first);
                // SAFETY: the instruction set is available; `out` was checked above; each group occurs once, and only
                // this piece accesses its columns.
                unsafe {
                    let place =
                        |row: usize| std::slice::from_raw_parts_mut(out.0.add(row * width + first), lanes);
                    kept.clear();
                    for row in (0..rows).filter(|&row| !wanted(index, row)) {
                        kept.extend_from_slice(place(row));
                    }
                    if quantized {
                        (self.kernel_table.gemv)(&args);
                    } else {
                        (self.kernel_table.dense)(&args);
                    }
                    let unwanted = (0..rows).filter(|&row| !wanted(index, row));
                    for (row, kept) in unwanted.zip(kept.chunks_exact(lanes)) {
                        place(row).copy_from_slice(kept);
                    }
                }
            }
        });
    }

    /// Runs one attention tile.
    ///
    /// # Safety
    /// See [`AttentionArgs`].
    pub(in crate::local) unsafe fn attend_tile(&self, args: &AttentionArgs<'_>) {
        // SAFETY: the instruction set is available; the rest is the caller's contract.
        SCRATCH.with_borrow_mut(|scratch| unsafe { (self.kernel_table.attend)(args, scratch) });
    }

    /// See `elementwise::norm` and `elementwise::layer_norm`.
    pub(in crate::local) fn normalize(&self, x: &[f32], norm: &NormWeights, epsilon: f32, out: &mut [f32]) {
        // SAFETY: the instruction set is available.
        unsafe {
            match &norm.bias {
                None => (self.kernel_table.norm)(x, &norm.weight, epsilon, out),
                Some(bias) => (self.kernel_table.layer_norm)(x, &norm.weight, bias, epsilon, out),
            }
        }
    }

    /// See `elementwise::geglu`.
    pub(in crate::local) fn apply_geglu(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        // SAFETY: the instruction set is available.
        unsafe { (self.kernel_table.geglu)(gate, up, out) }
    }

    /// See `elementwise::gelu`.
    pub(in crate::local) fn apply_gelu(&self, x: &[f32], out: &mut [f32]) {
        // SAFETY: the instruction set is available.
        unsafe { (self.kernel_table.gelu)(x, out) }
    }

    /// See `elementwise::soft_cap`; split among the threads.
    pub(in crate::local) fn apply_soft_cap(&self, x: &mut [f32], limit: f32) {
        const PIECE: usize = 1 << 13;
        let pieces = x.len().div_ceil(PIECE);
        let (whole, rest) = x.split_at_mut(x.len() / PIECE * PIECE);
        let chunks = DisjointChunks::new(whole, PIECE);
        // SAFETY: the instruction set is available; each chunk is one piece, and each piece runs once.
        self.pool.run_pieces(pieces - usize::from(!rest.is_empty()), |piece, _| unsafe {
            (self.kernel_table.soft_cap)(chunks.get(piece), limit);
        });
        // SAFETY: the instruction set is available.
        unsafe { (self.kernel_table.soft_cap)(rest, limit) }
    }

    /// See `elementwise::gate`.
    pub(in crate::local) fn apply_swiglu(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        // SAFETY: the instruction set is available.
        unsafe { (self.kernel_table.gate)(gate, up, out) }
    }
}

thread_local! {
    static TILE: RefCell<UnpackedTile> = RefCell::default();
    static SCRATCH: RefCell<AttentionScratch> = RefCell::default();
}

#[cfg(test)]
mod tests;
