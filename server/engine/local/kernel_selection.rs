//! Selects the kernel for a model on this machine: checks products, and benchmarks AMX against the next best kernel.

use std::time::{Duration, Instant};

use candle_core::quantized::GgmlDType;

use crate::EngineError;
use crate::gguf::{Gguf, TensorView, half_float_offsets};
use crate::local::kernels::Kernel;
use crate::local::kernels::activations::Activations;
use crate::local::kernels::pack::PackedMatrix;
use crate::local::matmul::{ComputeContext, LinearLayer, ProductTarget};
use crate::local::thread_pool::ThreadPool;
use crate::priority::Priority;

/// The kernel `asked` for, or the fastest one with correct products on this machine, and the reason, as a phrase for
/// `taper doctor`. Takes a few milliseconds; with AMX some more.
///
/// # Errors
/// The requested kernel is not available, or its products are wrong.
pub(super) fn choose_kernel(
    gguf: &Gguf,
    asked: Option<Kernel>,
    threads: usize,
) -> Result<(Kernel, String), EngineError> {
    let mut trial = MachineProbe { gguf, threads, samples: ProductSamples::new() };
    let Some(asked) = asked else {
        return Ok(select_kernel(Kernel::available_kernels().collect(), &mut trial));
    };
    let (kernel, why) = Kernel::choose_by_name(Some(asked.name()))?;
    if trial.is_correct(kernel) {
        return Ok((kernel, why));
    }
    Err(EngineError::Device {
        device: format!("kernel {:?}", kernel.name()),
        source: format!("{} gives wrong products on this machine; remove the setting", kernel.display_name())
            .into(),
    })
}

/// The checks that a selection is based on.
trait KernelProbe {
    /// Whether the kernel's products match those of the portable one, as far as they should.
    fn is_correct(&mut self, kernel: Kernel) -> bool;
    /// Benchmarks two kernels on the same product.
    fn benchmark_pair(&mut self, kernels: [Kernel; 2]) -> Benchmark;
}

/// The result of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Benchmark {
    /// The time of each.
    Times([Duration; 2]),
    /// Their products differ.
    Mismatch,
    /// The model has no suitable matrix.
    NoMatrix,
}

/// The kernel for a model, from the available ones (the best one last), and the reason.
fn select_kernel(mut available: Vec<Kernel>, judge: &mut dyn KernelProbe) -> (Kernel, String) {
    let mut wrong = None;
    let mut next = |judge: &mut dyn KernelProbe, wrong: &mut Option<Kernel>| {
        while let Some(kernel) = available.pop() {
            if kernel == Kernel::Portable || judge.is_correct(kernel) {
                return kernel;
            }
            warn_wrong_products(kernel);
            wrong.get_or_insert(kernel);
        }
        Kernel::Portable
    };
    let mut best = next(judge, &mut wrong);
    // Each of the others is faster than the one before on every machine that has it; AMX must prove it.
    if best == Kernel::Amx {
        let other = next(judge, &mut wrong);
        match judge.benchmark_pair([best, other]) {
            Benchmark::Times([tiles, others]) => {
                let ratio = others.as_secs_f64() / tiles.as_secs_f64().max(1e-9);
                return if ratio > 1.0 {
                    (
                        best,
                        format!(
                            "{}: {ratio:.1} x as fast as {} here",
                            best.display_name(),
                            other.display_name()
                        ),
                    )
                } else {
                    (
                        other,
                        format!(
                            "{}: {} was {ratio:.1} x as fast here",
                            other.display_name(),
                            best.display_name()
                        ),
                    )
                };
            }
            Benchmark::NoMatrix => {
                return (
                    other,
                    format!("{}: {} has nothing to do here", other.display_name(), best.display_name()),
                );
            }
            Benchmark::Mismatch => {
                warn_wrong_products(best);
                wrong = Some(best);
                best = other;
            }
        }
    }
    let why = wrong.map_or_else(
        || "the best that this processor has".to_owned(),
        |wrong| format!("{} gives wrong products here", wrong.display_name()),
    );
    (best, format!("{}: {why}", best.display_name()))
}

fn warn_wrong_products(kernel: Kernel) {
    tracing::warn!(
        "{} gives wrong products on this machine and is not used; please report it with the processor's name",
        kernel.display_name()
    );
}

/// Checks a real model on the real machine.
struct MachineProbe<'a> {
    gguf: &'a Gguf,
    threads: usize,
    samples: ProductSamples,
}

impl KernelProbe for MachineProbe<'_> {
    fn is_correct(&mut self, kernel: Kernel) -> bool {
        kernel == Kernel::Portable
            || self.samples.match_kernel(&ComputeContext::new(kernel, ThreadPool::new(1)))
    }

    fn benchmark_pair(&mut self, kernels: [Kernel; 2]) -> Benchmark {
        let Some(matrix) = benchmark_matrix(self.gguf) else { return Benchmark::NoMatrix };
        run_benchmark(
            kernels.map(|kernel| ComputeContext::new(kernel, ThreadPool::new(self.threads))),
            &matrix,
        )
    }
}

/// Rows of activations in the benchmark.
const BENCHMARK_ROWS: usize = 64;
/// Maximum multiplications of a benchmark's product: a millisecond or two.
const BENCHMARK_PRODUCTS: usize = 1 << 28;
/// Products per kernel. The first is not timed: it wakes the threads, and makes the system allocate memory for their
/// tiles.
const BENCHMARK_ROUNDS: usize = 4;

/// The largest matrix of the model's first block, or some rows of it; `None` if it is not quantized.
fn benchmark_matrix(gguf: &Gguf) -> Option<LinearLayer> {
    let views = gguf.tensor_names().filter(|name| name.starts_with("blk.0."));
    let views = views.filter_map(|name| gguf.tensor(name)).filter(|view| view.shape.len() == 2);
    let TensorView { dtype, shape, data } = views.max_by_key(|view| view.shape.iter().product::<usize>())?;
    let &[rows, columns] = &shape[..] else { return None };
    let most = (BENCHMARK_PRODUCTS / BENCHMARK_ROWS / columns.max(1)).max(16);
    let rows = rows.min(most);
    let data = data.prefix(rows * columns / dtype.block_size() * dtype.type_size());
    let weight =
        PackedMatrix::new(&TensorView { dtype, shape: vec![rows, columns], data }, &ThreadPool::new(1))
            .ok()?;
    weight.format().quantization()?;
    Some(LinearLayer { weight, bias: None })
}

/// The best time of each, taking turns.
fn run_benchmark(computes: [ComputeContext; 2], linear: &LinearLayer) -> Benchmark {
    let columns = linear.weight.columns();
    let x = RandomNumbers(1).random_floats(BENCHMARK_ROWS * columns);
    let mut times = [Duration::MAX; 2];
    let mut outs = [(); 2].map(|()| vec![0.0; BENCHMARK_ROWS * linear.weight.rows()]);
    let mut activations = [Activations::default(), Activations::default()];
    for round in 0..BENCHMARK_ROUNDS {
        for (index, compute) in computes.iter().enumerate() {
            let started = Instant::now();
            multiply_rows(compute, linear, &x, &mut activations[index], &mut outs[index]);
            if round > 0 {
                times[index] = times[index].min(started.elapsed());
            }
        }
    }
    let [ours, theirs] = &outs;
    match () {
        // If the matrix itself yields infinities or NaN, no kernel is to blame: the file is checked elsewhere.
        () if !theirs.iter().all(|value| value.is_finite()) => Benchmark::NoMatrix,
        () if is_close(ours, theirs) => Benchmark::Times(times),
        () => Benchmark::Mismatch,
    }
}

fn multiply_rows(
    compute: &ComputeContext,
    linear: &LinearLayer,
    x: &[f32],
    activations: &mut Activations,
    out: &mut [f32],
) {
    let columns = linear.weight.columns();
    let compute = compute.for_batch(false, Priority::Interactive);
    compute.prepare_rows(activations, x.len() / columns, columns, |row, to| {
        to.copy_from_slice(&x[row * columns..(row + 1) * columns]);
    });
    compute.multiply_targets(activations, &mut [ProductTarget { linear, out, add: false }]);
}

fn same_bits(left: &[f32], right: &[f32]) -> bool {
    left.iter().zip(right).all(|(left, right)| left.to_bits() == right.to_bits())
}

/// Whether the values differ by no more than rounding to bfloat16 on one side and to int8 on the other allows. The
/// limit is a relative 32nd, as roots of summed squares; typical errors are below a hundredth, and a single wrong value
/// in a thousand reaches the limit.
fn is_close(left: &[f32], right: &[f32]) -> bool {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let differences: f64 = left.iter().zip(right).map(|(left, right)| square(left - right)).sum();
    differences * 1024.0 <= right.iter().map(|&x| square(x)).sum()
}

/// Small matrices in every format, with the portable kernel's products of one row and of many.
struct ProductSamples(Vec<ProductSample>);

struct ProductSample {
    linear: LinearLayer,
    x: Vec<f32>,
    out: Vec<f32>,
}

impl ProductSamples {
    fn new() -> Self {
        // Two groups of weight rows, the second incomplete; panels, one of them incomplete.
        const ROWS: usize = 20;
        const COLUMNS: usize = 512;
        const ROW_COUNTS: [usize; 2] = [1, 21];
        const FORMATS: [GgmlDType; 8] = [
            GgmlDType::Q4_0,
            GgmlDType::Q4_1,
            GgmlDType::Q5_0,
            GgmlDType::Q5_1,
            GgmlDType::Q8_0,
            GgmlDType::Q4K,
            GgmlDType::Q5K,
            GgmlDType::Q6K,
        ];
        let portable = ComputeContext::new(Kernel::Portable, ThreadPool::new(1));
        let mut numbers = RandomNumbers(2);
        let mut samples = Vec::new();
        for dtype in FORMATS {
            for count in ROW_COUNTS {
                let size = ROWS * COLUMNS / dtype.block_size() * dtype.type_size();
                let mut data: Vec<u8> = (0..size).map(|_| numbers.next() as u8).collect();
                for block in data.chunks_mut(dtype.type_size()) {
                    for at in half_float_offsets(dtype) {
                        // Any sign and fraction, with an exponent of at most a sixteenth.
                        block[at + 1] = 0x2c | block[at + 1] & 0x83;
                    }
                }
                let view = TensorView { dtype, shape: vec![ROWS, COLUMNS], data: (&data).into() };
                let Ok(weight) = PackedMatrix::new(&view, &portable.pool) else { continue };
                let linear = LinearLayer { weight, bias: None };
                let x = numbers.random_floats(count * COLUMNS);
                let mut out = vec![0.0; count * ROWS];
                multiply_rows(&portable, &linear, &x, &mut Activations::default(), &mut out);
                samples.push(ProductSample { linear, x, out });
            }
        }
        Self(samples)
    }

    /// Whether these products have the same bits, or are close if the kernel has another format for that many rows.
    fn match_kernel(&self, compute: &ComputeContext) -> bool {
        self.0.iter().all(|ProductSample { linear, x, out }| {
            let mut ours = vec![f32::NAN; out.len()];
            multiply_rows(compute, linear, x, &mut Activations::default(), &mut ours);
            let other_form = compute.has_tile_gemm(x.len() / linear.weight.columns());
            if other_form { is_close(&ours, out) } else { same_bits(&ours, out) }
        })
    }
}

/// A pseudorandom generator: G. Marsaglia, "Xorshift RNGs", 2003. The seed is not 0.
struct RandomNumbers(u64);

impl RandomNumbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// From -1 to 1.
    fn random_floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() & 0xffff) as f32 / 32_768.0 - 1.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::testing::{ModelDims, random_qwen2};
    use crate::local::kernels::{KernelTable, TileGemm, activations, amx_tests, gemv};

    /// Returns predetermined results and records the benchmarked kernels.
    struct FakeProbe {
        wrong: Vec<Kernel>,
        benchmark: Benchmark,
        benchmarked: Option<[Kernel; 2]>,
    }

    impl KernelProbe for FakeProbe {
        fn is_correct(&mut self, kernel: Kernel) -> bool {
            assert_ne!(kernel, Kernel::Portable, "the reference is not on trial");
            !self.wrong.contains(&kernel)
        }

        fn benchmark_pair(&mut self, kernels: [Kernel; 2]) -> Benchmark {
            self.benchmarked = Some(kernels);
            self.benchmark
        }
    }

    fn select_with_fake(
        available: &[Kernel],
        wrong: &[Kernel],
        race: Benchmark,
    ) -> (Kernel, String, Option<[Kernel; 2]>) {
        let mut probe = FakeProbe { wrong: wrong.to_vec(), benchmark: race, benchmarked: None };
        let (kernel, why) = select_kernel(available.to_vec(), &mut probe);
        (kernel, why, probe.benchmarked)
    }

    #[test]
    fn amx_is_selected_where_it_is_faster() {
        use Kernel::{Amx, Avx2, Avx512Vnni, Portable};
        let all = [Portable, Avx2, Avx512Vnni, Amx];
        let times =
            |tiles, others| Benchmark::Times([Duration::from_micros(tiles), Duration::from_micros(others)]);
        let pair = Some([Amx, Avx512Vnni]);
        for (race, kernel, why) in [
            (times(1000, 3210), Amx, "AMX: 3.2 x as fast as AVX-512 VNNI here"),
            (times(1000, 800), Avx512Vnni, "AVX-512 VNNI: AMX was 0.8 x as fast here"),
            (times(1000, 1000), Avx512Vnni, "AVX-512 VNNI: AMX was 1.0 x as fast here"),
            (Benchmark::Mismatch, Avx512Vnni, "AVX-512 VNNI: AMX gives wrong products here"),
            (Benchmark::NoMatrix, Avx512Vnni, "AVX-512 VNNI: AMX has nothing to do here"),
        ] {
            assert_eq!(select_with_fake(&all, &[], race), (kernel, why.to_owned(), pair));
        }
    }

    #[test]
    fn kernels_with_wrong_products_are_rejected() {
        use Kernel::{Amx, Avx2, Avx512Vnni, Portable};
        let all = [Portable, Avx2, Avx512Vnni, Amx];
        let fast = Benchmark::Times([Duration::from_micros(1), Duration::from_micros(2)]);
        assert_eq!(
            select_with_fake(&all, &[Amx], fast),
            (Avx512Vnni, "AVX-512 VNNI: AMX gives wrong products here".into(), None)
        );
        assert_eq!(
            select_with_fake(&all, &[Avx512Vnni], fast),
            (Amx, "AMX: 2.0 x as fast as AVX2 here".into(), Some([Amx, Avx2]))
        );
        let none_right = (Portable, "portable: AMX gives wrong products here".into(), None);
        assert_eq!(select_with_fake(&all, &[Amx, Avx512Vnni, Avx2], fast), none_right);
        assert_eq!(
            select_with_fake(&[Portable, Avx2], &[], fast),
            (Avx2, "AVX2: the best that this processor has".into(), None)
        );
    }

    #[test]
    fn product_check_rejects_wrong_kernels() {
        unsafe fn no_gemm(_: &gemv::GemmArgs<'_>, _: &mut gemv::UnpackedTile) {}
        unsafe fn no_gemv(_: &gemv::GemvArgs<'_>) {}
        unsafe fn no_bf16(_: &[f32], _: &mut activations::PanelMut<'_>) {}
        /// Wrong only in tiles, which checks of few rows would not notice.
        static NO_TILES: KernelTable = KernelTable {
            tile_gemm: Some(TileGemm { min_rows: 16, gemm_groups: 4, gemm: no_gemm, to_bf16: no_bf16 }),
            ..amx_tests::PORTABLE_TABLE
        };
        static NO_GEMV: KernelTable = KernelTable { gemv: no_gemv, ..amx_tests::PORTABLE_TABLE };

        let samples = ProductSamples::new();
        assert_eq!(samples.0.len(), 16);
        assert!(samples.0.iter().all(|sample| sample.out.iter().all(|out| out.is_finite() && *out != 0.0)));
        for kernel in Kernel::available_kernels() {
            assert!(samples.match_kernel(&ComputeContext::new(kernel, ThreadPool::new(2))), "{kernel:?}");
        }
        let with = |entries| samples.match_kernel(&ComputeContext::with_table(entries, ThreadPool::new(2)));
        assert!(with(&amx_tests::TILE_MODEL_TABLE));
        assert!(!with(&NO_TILES) && !with(&NO_GEMV));
    }

    #[test]
    fn benchmark_runs_on_the_model_matrix() {
        let dims = ModelDims::default();
        let bytes = random_qwen2(1, &dims).unwrap().to_bytes();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let mut trial = MachineProbe { gguf: &gguf, threads: 2, samples: ProductSamples(Vec::new()) };
        match benchmark_matrix(&gguf) {
            Some(linear) => {
                let Benchmark::Times(times) =
                    trial.benchmark_pair([Kernel::best_available(), Kernel::Portable])
                else {
                    panic!("no times");
                };
                assert!(times.iter().all(|time| *time < Duration::MAX));
                // A kernel that computes something else is detected here, too.
                let with = |entries| ComputeContext::with_table(entries, ThreadPool::new(1));
                let pair = [with(&amx_tests::TILE_MODEL_TABLE), with(&amx_tests::PORTABLE_TABLE)];
                assert!(matches!(run_benchmark(pair, &linear), Benchmark::Times(_)));
            }
            None => assert_eq!(
                trial.benchmark_pair([Kernel::best_available(), Kernel::Portable]),
                Benchmark::NoMatrix
            ),
        }
        let (kernel, why) = choose_kernel(&gguf, Some(Kernel::Portable), 2).unwrap();
        assert_eq!((kernel, why.as_str()), (Kernel::Portable, "portable: selected by name"));
    }
}
