//! Linear layers on the CPU: packed weights, and their products split among the pool's threads.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::local::kernels::activations::{Activations, PanelMut, TILE_ROWS, padded_width};
use crate::local::kernels::attention::{AttentionArgs, AttentionScratch};
use crate::local::kernels::gemv::{GemvArgs, ProductOutput, UnpackedTile};
use crate::local::kernels::pack::{GROUP_ROWS, PackedMatrix};
use crate::local::kernels::{GEMV_MAX_ROWS, Kernel, KernelTable, TileGemm};
use crate::local::thread_pool::{DisjointChunks, ThreadPool};

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
    /// Whether rows prepared from now on give the same bits for any number of rows.
    exact: AtomicBool,
}

impl ComputeContext {
    pub(in crate::local) fn new(kernel: Kernel, pool: ThreadPool) -> Self {
        Self { pool, kernel_table: kernel.kernel_table(), exact: AtomicBool::new(false) }
    }

    /// With a kernel outside [`Kernel::ALL`].
    #[cfg(test)]
    pub(in crate::local) fn with_table(entries: &'static KernelTable, pool: ThreadPool) -> Self {
        Self { pool, kernel_table: entries, exact: AtomicBool::new(false) }
    }

    /// Sets whether rows prepared from now on give the same bits for any number of rows.
    pub(in crate::local) fn set_exact(&self, exact: bool) {
        self.exact.store(exact, Ordering::Relaxed);
    }

    /// The tile kernel for products of `rows` rows, if there is one; it has its own format of activations.
    fn tile_gemm(&self, rows: usize) -> Option<&TileGemm> {
        self.kernel_table.tile_gemm(rows).filter(|_| !self.exact.load(Ordering::Relaxed))
    }

    /// Whether there is such a kernel.
    pub(in crate::local) fn uses_tile_gemm(&self, rows: usize) -> bool {
        self.tile_gemm(rows).is_some()
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

    /// See `elementwise::norm`.
    pub(in crate::local) fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        // SAFETY: the instruction set is available.
        unsafe { (self.kernel_table.norm)(x, weight, epsilon, out) }
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
mod tests {

    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::gguf::{Gguf, TensorView};
    use crate::local::kernels::amx_tests;
    use crate::local::real_model;

    const QUANTIZED_DTYPES: [GgmlDType; 8] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];
    const FLOAT_DTYPES: [GgmlDType; 3] = [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16];

    /// Every kernel of this machine, and the AMX kernel on the tile model.
    fn all_computes() -> Vec<(&'static str, ComputeContext)> {
        let kernels = Kernel::available_kernels();
        let mut computes: Vec<_> =
            kernels.map(|kernel| (kernel.name(), ComputeContext::new(kernel, ThreadPool::new(2)))).collect();
        computes.push((
            "amx on the model",
            ComputeContext::with_table(&amx_tests::TILE_MODEL_TABLE, ThreadPool::new(2)),
        ));
        computes
    }

    /// Uneven values like those of weights, with some outliers.
    fn random_values(random: &mut fastrand::Rng, len: usize) -> Vec<f32> {
        let value = |random: &mut fastrand::Rng| {
            let x = (0..4).map(|_| random.f32() - 0.5).sum::<f32>();
            if random.u32(..50) == 0 { 5.0 * x } else { x }
        };
        (0..len).map(|_| value(random)).collect()
    }

    /// A stored matrix and the values that candle reads from it.
    fn quantize_matrix(dtype: GgmlDType, values: &[f32], rows: usize, columns: usize) -> (Vec<u8>, Vec<f32>) {
        let tensor = Tensor::from_slice(values, (rows, columns), &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&tensor, dtype).unwrap();
        let bytes = tensor.data().unwrap().to_vec();
        (bytes, dequantize_tensor(&tensor))
    }

    fn dequantize_tensor(tensor: &QTensor) -> Vec<f32> {
        tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn multiply_rows(compute: &ComputeContext, linear: &LinearLayer, x: &[f32], columns: usize) -> Vec<f32> {
        let rows = x.len() / columns;
        let mut activations = Activations::default();
        compute.prepare_rows(&mut activations, rows, columns, |row, out| {
            out.copy_from_slice(&x[row * columns..(row + 1) * columns]);
        });
        let mut out = vec![f32::NAN; rows * linear.weight.rows()];
        compute.multiply_targets(&activations, &mut [ProductTarget { linear, out: &mut out, add: false }]);
        out
    }

    /// The error relative to the product of both vectors' norms: root of the summed squares of both.
    fn relative_error(ours: &[f32], weights: &[f32], x: &[f32], columns: usize) -> f64 {
        let rows = weights.len() / columns;
        let (mut wrong, mut all) = (0.0, 0.0);
        for (x, ours) in x.chunks(columns).zip(ours.chunks(rows)) {
            for (weights, &ours) in weights.chunks(columns).zip(ours) {
                let truth: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                wrong += (truth - f64::from(ours)).powi(2);
                let square = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
                all += square(weights) * square(x);
            }
        }
        (wrong / all).sqrt()
    }

    #[test]
    fn packed_rows_dequantize_to_file_values() {
        let mut random = fastrand::Rng::with_seed(1);
        let compute = ComputeContext::new(Kernel::Portable, ThreadPool::new(2));
        for dtype in QUANTIZED_DTYPES.into_iter().chain(FLOAT_DTYPES) {
            let columns = dtype.block_size().max(32) * 3;
            for rows in [1, 15, 16, 37] {
                let values = random_values(&mut random, rows * columns);
                let (data, expected) = quantize_matrix(dtype, &values, rows, columns);
                let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
                let packed = PackedMatrix::new(&view, &compute.pool).unwrap();
                let mut row_values = vec![0.0; columns];
                for row in 0..rows {
                    packed.dequantize_row(row, &mut row_values);
                    assert_eq!(
                        row_values,
                        expected[row * columns..(row + 1) * columns],
                        "{dtype:?}, row {row}"
                    );
                }
                assert!(
                    packed.byte_len() as f64
                        <= 1.04 * (rows.next_multiple_of(16) * data.len() / rows) as f64 + 64.0 * 3.0
                );
            }
        }
    }

    #[test]
    fn random_bytes_dequantize_like_candle() {
        // Every code and scale that a file can hold, not only those that a quantizer writes.
        let mut random = fastrand::Rng::with_seed(2);
        let (rows, columns) = (19, 512);
        for dtype in QUANTIZED_DTYPES {
            let size = rows * columns / dtype.block_size() * dtype.type_size();
            let mut data: Vec<u8> = (0..size).map(|_| random.u8(..)).collect();
            // Scales stay finite and of similar size: the exponents of the half floats are set.
            let halves: &[usize] = match dtype {
                GgmlDType::Q6K => &[208],
                GgmlDType::Q4_0 | GgmlDType::Q5_0 | GgmlDType::Q8_0 => &[0],
                _ => &[0, 2],
            };
            for block in data.chunks_mut(dtype.type_size()) {
                for at in halves {
                    block[at + 1] = 0x2c | block[at + 1] & 0x83;
                }
            }
            let tensor = {
                let storage =
                    candle_core::quantized::QStorage::from_data(data.clone().into(), &Device::Cpu, dtype)
                        .unwrap();
                QTensor::new(storage, (rows, columns)).unwrap()
            };
            let weights = dequantize_tensor(&tensor);
            let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
            let x = random_values(&mut random, 21 * columns);
            let mut first: Option<Vec<f32>> = None;
            for (kernel, compute) in all_computes() {
                let weight = PackedMatrix::new(&view, &compute.pool).unwrap();
                let ours = multiply_rows(&compute, &LinearLayer { weight, bias: None }, &x, columns);
                let error = relative_error(&ours, &weights, &x, columns);
                assert!(error < 1e-2, "{dtype:?} {kernel:?}: {error}");
                let equal = compute.uses_tile_gemm(21) || *first.get_or_insert_with(|| ours.clone()) == ours;
                assert!(equal, "{dtype:?} {kernel:?}");
            }
        }
    }

    #[test]
    fn products_are_close_to_f32_and_bitwise_equal() {
        let mut random = fastrand::Rng::with_seed(3);
        let computes = all_computes();
        for dtype in QUANTIZED_DTYPES.into_iter().chain(FLOAT_DTYPES) {
            for rows in [1, 16, 50, 129] {
                let columns = dtype.block_size().max(32) * random.usize(1..5);
                let values = random_values(&mut random, rows * columns);
                let (data, weights) = quantize_matrix(dtype, &values, rows, columns);
                let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
                let bias = random.bool().then(|| random_values(&mut random, rows));
                for count in [1, 2, 3, 5, 8, 9, 16, 21] {
                    let x = random_values(&mut random, count * columns);
                    let mut first: Option<Vec<f32>> = None;
                    for (kernel, compute) in &computes {
                        let weight = PackedMatrix::new(&view, &compute.pool).unwrap();
                        let linear = LinearLayer { weight, bias: bias.clone() };
                        let mut ours = multiply_rows(compute, &linear, &x, columns);
                        // Floats have only one format.
                        if !compute.uses_tile_gemm(count) || FLOAT_DTYPES.contains(&dtype) {
                            assert!(
                                *first.get_or_insert_with(|| ours.clone()) == ours,
                                "{dtype:?} {kernel:?}, {count} times {rows} x {columns}"
                            );
                            // A row's products do not depend on the number of rows.
                            let last = multiply_rows(compute, &linear, &x[(count - 1) * columns..], columns);
                            assert!(last == ours[(count - 1) * rows..], "{dtype:?} {kernel:?}, row {count}");
                        }
                        if let Some(bias) = &bias {
                            for row in ours.chunks_mut(rows) {
                                row.iter_mut().zip(bias).for_each(|(value, bias)| *value -= bias);
                            }
                        }
                        let limit = if FLOAT_DTYPES.contains(&dtype) { 1e-6 } else { 1e-2 };
                        let error = relative_error(&ours, &weights, &x, columns);
                        assert!(
                            error < limit,
                            "{dtype:?} {kernel:?}, {count} times {rows} x {columns}: {error}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn amx_products_are_closer_to_f32_than_int8() {
        let mut random = fastrand::Rng::with_seed(6);
        let portable = ComputeContext::new(Kernel::Portable, ThreadPool::new(2));
        let tiles: Vec<_> = all_computes().into_iter().filter(|(name, _)| name.starts_with("amx")).collect();
        // All widths of the last panel, one panel and an odd number of panels, whole and partial chunks of units, and
        // more groups than one piece.
        for dtype in QUANTIZED_DTYPES {
            for (count, units) in [(16, 1), (17, 33), (18, 3), (20, 40), (27, 5), (32, 8), (64, 2), (79, 16)]
            {
                let columns = (units * 32_usize).next_multiple_of(dtype.block_size());
                let rows = random.usize(1..150);
                let values = random_values(&mut random, rows * columns);
                let (data, weights) = quantize_matrix(dtype, &values, rows, columns);
                let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
                let linear =
                    LinearLayer { weight: PackedMatrix::new(&view, &portable.pool).unwrap(), bias: None };
                let x = random_values(&mut random, count * columns);
                let int8 =
                    relative_error(&multiply_rows(&portable, &linear, &x, columns), &weights, &x, columns);
                let mut first: Option<Vec<f32>> = None;
                for (name, compute) in &tiles {
                    let ours = multiply_rows(compute, &linear, &x, columns);
                    let error = relative_error(&ours, &weights, &x, columns);
                    let what = format!("{dtype:?} {name}, {count} times {rows} x {columns}");
                    assert!(error < 0.7 * int8, "{what}: {error}, int8 {int8}");
                    assert!(*first.get_or_insert_with(|| ours.clone()) == ours, "{what}");
                }
            }
        }
    }

    #[test]
    fn product_targets_share_activations_and_accumulate() {
        let mut random = fastrand::Rng::with_seed(4);
        let columns = 96;
        for (_, compute) in all_computes() {
            for count in [1, 20] {
                let x = random_values(&mut random, count * columns);
                let linear = |rows: usize, dtype, random: &mut fastrand::Rng| {
                    let (data, _) =
                        quantize_matrix(dtype, &random_values(random, rows * columns), rows, columns);
                    let view = TensorView { dtype, shape: vec![rows, columns], data: (&data).into() };
                    LinearLayer { weight: PackedMatrix::new(&view, &compute.pool).unwrap(), bias: None }
                };
                let one = linear(40, GgmlDType::Q5_0, &mut random);
                let two = linear(17, GgmlDType::F16, &mut random);
                let (alone_one, alone_two) =
                    (multiply_rows(&compute, &one, &x, columns), multiply_rows(&compute, &two, &x, columns));
                let mut activations = Activations::default();
                compute.prepare_rows(&mut activations, count, columns, |row, out| {
                    out.copy_from_slice(&x[row * columns..(row + 1) * columns]);
                });
                let mut out_one = vec![1.5; count * 40];
                let mut out_two = vec![f32::NAN; count * 17];
                compute.multiply_targets(
                    &activations,
                    &mut [
                        ProductTarget { linear: &one, out: &mut out_one, add: true },
                        ProductTarget { linear: &two, out: &mut out_two, add: false },
                    ],
                );
                assert!(out_one.iter().zip(&alone_one).all(|(sum, alone)| *sum == 1.5 + alone));
                assert_eq!(out_two, alone_two);
            }
        }
    }

    #[test]
    fn real_model_tensors_multiply_like_f32() {
        let Some(path) = real_model::path() else { return };
        let gguf = Gguf::open(&path).unwrap();
        let mut random = fastrand::Rng::with_seed(5);
        let compute = ComputeContext::new(Kernel::best_available(), ThreadPool::new(2));
        for part in ["attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_down"] {
            for block in [0, 7, 23] {
                let view = gguf.tensor(&format!("blk.{block}.{part}.weight")).unwrap();
                let (rows, columns) = (view.shape[0].min(160), view.shape[1]);
                let bytes = rows * columns / view.dtype.block_size() * view.dtype.type_size();
                let data = view.data.prefix(bytes);
                let view = TensorView { dtype: view.dtype, shape: vec![rows, columns], data };
                let storage = candle_core::quantized::QStorage::from_data(
                    view.data.read_all().unwrap().into_owned().into(),
                    &Device::Cpu,
                    view.dtype,
                )
                .unwrap();
                let weights = dequantize_tensor(&QTensor::new(storage, (rows, columns)).unwrap());
                let x = random_values(&mut random, 12 * columns);
                let linear =
                    LinearLayer { weight: PackedMatrix::new(&view, &compute.pool).unwrap(), bias: None };
                let error =
                    relative_error(&multiply_rows(&compute, &linear, &x, columns), &weights, &x, columns);
                assert!(error < 1e-2, "{part} of block {block}, {:?}: {error}", view.dtype);
            }
        }
    }
}
