//! Which kernel to trust with a model on this very machine: products are checked, and AMX races the next best.
//! It knows nothing of layers; of the model it takes one matrix.

use std::time::{Duration, Instant};

use candle_core::quantized::GgmlDType;

use crate::EngineError;
use crate::gguf::{Gguf, TensorView, half_floats};
use crate::local::kernels::Kernel;
use crate::local::kernels::activations::Activations;
use crate::local::kernels::pack::Packed;
use crate::local::linear::{Compute, Linear, Target};
use crate::local::pool::Pool;

/// The kernel `asked` for, or the fastest of those whose products are right here, and why, as a phrase for `taper
/// doctor`. A few milliseconds; with AMX some more.
///
/// # Errors
/// The kernel that was asked for is not there, or its products are wrong.
pub(super) fn choose(
    gguf: &Gguf,
    asked: Option<Kernel>,
    threads: usize,
) -> Result<(Kernel, String), EngineError> {
    let mut trial = Trial { gguf, threads, samples: Samples::new() };
    let Some(asked) = asked else {
        return Ok(decide(Kernel::available().collect(), &mut trial));
    };
    let (kernel, why) = Kernel::choose(Some(asked.name()))?;
    if trial.is_right(kernel) {
        return Ok((kernel, why));
    }
    Err(EngineError::Device {
        device: format!("kernel {:?}", kernel.name()),
        source: format!("{} gives wrong products on this machine; remove the setting", kernel.title()).into(),
    })
}

/// What a choice is made from.
trait Judge {
    /// Whether the kernel's products are those of the portable one, as far as they are meant to be.
    fn is_right(&mut self, kernel: Kernel) -> bool;
    /// Lets two kernels multiply the same.
    fn race(&mut self, kernels: [Kernel; 2]) -> Race;
}

/// The end of a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Race {
    /// The time that each took.
    Times([Duration; 2]),
    /// Their products differ.
    Differ,
    /// The model has no matrix that they would multiply.
    Nothing,
}

/// The kernel for a model, of those available (the best one last), and why.
fn decide(mut available: Vec<Kernel>, judge: &mut dyn Judge) -> (Kernel, String) {
    let mut wrong = None;
    let mut next = |judge: &mut dyn Judge, wrong: &mut Option<Kernel>| {
        while let Some(kernel) = available.pop() {
            if kernel == Kernel::Portable || judge.is_right(kernel) {
                return kernel;
            }
            refused(kernel);
            wrong.get_or_insert(kernel);
        }
        Kernel::Portable
    };
    let mut best = next(judge, &mut wrong);
    // The others are each faster than the one before wherever they exist; AMX has to show it.
    if best == Kernel::Amx {
        let other = next(judge, &mut wrong);
        match judge.race([best, other]) {
            Race::Times([tiles, others]) => {
                let ratio = others.as_secs_f64() / tiles.as_secs_f64().max(1e-9);
                return if ratio > 1.0 {
                    (best, format!("{}: {ratio:.1} x as fast as {} here", best.title(), other.title()))
                } else {
                    (other, format!("{}: {} was {ratio:.1} x as fast here", other.title(), best.title()))
                };
            }
            Race::Nothing => {
                return (other, format!("{}: {} has nothing to do here", other.title(), best.title()));
            }
            Race::Differ => {
                refused(best);
                wrong = Some(best);
                best = other;
            }
        }
    }
    let why = wrong.map_or_else(
        || "the best that this processor has".to_owned(),
        |wrong| format!("{} gives wrong products here", wrong.title()),
    );
    (best, format!("{}: {why}", best.title()))
}

fn refused(kernel: Kernel) {
    tracing::warn!(
        "{} gives wrong products on this machine and is not used; please report it with the processor's name",
        kernel.title()
    );
}

/// The judge of a real model on the real machine.
struct Trial<'a> {
    gguf: &'a Gguf,
    threads: usize,
    samples: Samples,
}

impl Judge for Trial<'_> {
    fn is_right(&mut self, kernel: Kernel) -> bool {
        kernel == Kernel::Portable || self.samples.fit(&Compute::new(kernel, Pool::new(1)))
    }

    fn race(&mut self, kernels: [Kernel; 2]) -> Race {
        let Some(matrix) = matrix(self.gguf) else { return Race::Nothing };
        race(kernels.map(|kernel| Compute::new(kernel, Pool::new(self.threads))), &matrix)
    }
}

/// Rows of activations of the race.
const RACE_ROWS: usize = 64;
/// Multiplications of a race's product at most: a millisecond or two.
const RACE_PRODUCTS: usize = 1 << 28;
/// Each kernel's products, the first of which is not timed: it wakes the threads, and has the system make room for
/// their tiles.
const RACE_ROUNDS: usize = 4;

/// The largest matrix of the model's first block, or some rows of it; none if it is not stored in whole numbers.
fn matrix(gguf: &Gguf) -> Option<Linear> {
    let views = gguf.tensor_names().filter(|name| name.starts_with("blk.0."));
    let views = views.filter_map(|name| gguf.tensor(name)).filter(|view| view.shape.len() == 2);
    let TensorView { dtype, shape, data } = views.max_by_key(|view| view.shape.iter().product::<usize>())?;
    let &[rows, columns] = &shape[..] else { return None };
    let most = (RACE_PRODUCTS / RACE_ROWS / columns.max(1)).max(16);
    let rows = rows.min(most);
    let data = data.first(rows * columns / dtype.block_size() * dtype.type_size());
    let weight = Packed::new(&TensorView { dtype, shape: vec![rows, columns], data }, &Pool::new(1)).ok()?;
    weight.format().quantized()?;
    Some(Linear { weight, bias: None })
}

/// The best time of each, in turns.
fn race(computes: [Compute; 2], linear: &Linear) -> Race {
    let columns = linear.weight.columns();
    let x = Numbers(1).floats(RACE_ROWS * columns);
    let mut times = [Duration::MAX; 2];
    let mut outs = [(); 2].map(|()| vec![0.0; RACE_ROWS * linear.weight.rows()]);
    let mut activations = [Activations::default(), Activations::default()];
    for round in 0..RACE_ROUNDS {
        for (index, compute) in computes.iter().enumerate() {
            let started = Instant::now();
            multiply(compute, linear, &x, &mut activations[index], &mut outs[index]);
            if round > 0 {
                times[index] = times[index].min(started.elapsed());
            }
        }
    }
    let [ours, theirs] = &outs;
    match () {
        // Where the matrix itself is none to multiply with, no kernel is to blame: the file is looked at elsewhere.
        () if !theirs.iter().all(|value| value.is_finite()) => Race::Nothing,
        () if close(ours, theirs) => Race::Times(times),
        () => Race::Differ,
    }
}

fn multiply(compute: &Compute, linear: &Linear, x: &[f32], activations: &mut Activations, out: &mut [f32]) {
    let columns = linear.weight.columns();
    compute.prepare(activations, x.len() / columns, columns, |row, to| {
        to.copy_from_slice(&x[row * columns..(row + 1) * columns]);
    });
    compute.multiply(activations, &mut [Target { linear, out, add: false }]);
}

fn same(left: &[f32], right: &[f32]) -> bool {
    left.iter().zip(right).all(|(left, right)| left.to_bits() == right.to_bits())
}

/// Whether the values differ by no more than rounding to bfloat16 on one side and to int8 on the other allows: by a
/// 32nd, as roots of summed squares. It is less than a hundredth; a single wrong value of a thousand is as much.
fn close(left: &[f32], right: &[f32]) -> bool {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let differences: f64 = left.iter().zip(right).map(|(left, right)| square(left - right)).sum();
    differences * 1024.0 <= right.iter().map(|&x| square(x)).sum()
}

/// Small matrices in every form, with the portable kernel's products of one row and of many.
struct Samples(Vec<Sample>);

struct Sample {
    linear: Linear,
    x: Vec<f32>,
    out: Vec<f32>,
}

impl Samples {
    fn new() -> Self {
        // Two groups of weight rows, the second not whole; panels, one of them not whole.
        const ROWS: usize = 20;
        const COLUMNS: usize = 512;
        const COUNTS: [usize; 2] = [1, 21];
        const FORMS: [GgmlDType; 8] = [
            GgmlDType::Q4_0,
            GgmlDType::Q4_1,
            GgmlDType::Q5_0,
            GgmlDType::Q5_1,
            GgmlDType::Q8_0,
            GgmlDType::Q4K,
            GgmlDType::Q5K,
            GgmlDType::Q6K,
        ];
        let portable = Compute::new(Kernel::Portable, Pool::new(1));
        let mut numbers = Numbers(2);
        let mut samples = Vec::new();
        for dtype in FORMS {
            for count in COUNTS {
                let size = ROWS * COLUMNS / dtype.block_size() * dtype.type_size();
                let mut data: Vec<u8> = (0..size).map(|_| numbers.next() as u8).collect();
                for block in data.chunks_mut(dtype.type_size()) {
                    for at in half_floats(dtype) {
                        // Any sign and fraction, an exponent of a sixteenth or less.
                        block[at + 1] = 0x2c | block[at + 1] & 0x83;
                    }
                }
                let view = TensorView { dtype, shape: vec![ROWS, COLUMNS], data: (&data).into() };
                let Ok(weight) = Packed::new(&view, &portable.pool) else { continue };
                let linear = Linear { weight, bias: None };
                let x = numbers.floats(count * COLUMNS);
                let mut out = vec![0.0; count * ROWS];
                multiply(&portable, &linear, &x, &mut Activations::default(), &mut out);
                samples.push(Sample { linear, x, out });
            }
        }
        Self(samples)
    }

    /// Whether these products are the same bits, or close where the kernel has another form for as many rows.
    fn fit(&self, compute: &Compute) -> bool {
        self.0.iter().all(|Sample { linear, x, out }| {
            let mut ours = vec![f32::NAN; out.len()];
            multiply(compute, linear, x, &mut Activations::default(), &mut ours);
            let other_form = compute.has_many(x.len() / linear.weight.columns());
            if other_form { close(&ours, out) } else { same(&ours, out) }
        })
    }
}

/// Numbers without a pattern: G. Marsaglia, "Xorshift RNGs", 2003. The seed is not 0.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// From -1 to 1.
    fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() & 0xffff) as f32 / 32_768.0 - 1.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::testing::{Dims, random_qwen2};
    use crate::local::kernels::{Entries, Many, activations, amx_tests, product};

    /// Knows all answers, and notes the questions.
    struct Told {
        wrong: Vec<Kernel>,
        race: Race,
        raced: Option<[Kernel; 2]>,
    }

    impl Judge for Told {
        fn is_right(&mut self, kernel: Kernel) -> bool {
            assert_ne!(kernel, Kernel::Portable, "the reference is not on trial");
            !self.wrong.contains(&kernel)
        }

        fn race(&mut self, kernels: [Kernel; 2]) -> Race {
            self.raced = Some(kernels);
            self.race
        }
    }

    fn decided(available: &[Kernel], wrong: &[Kernel], race: Race) -> (Kernel, String, Option<[Kernel; 2]>) {
        let mut told = Told { wrong: wrong.to_vec(), race, raced: None };
        let (kernel, why) = decide(available.to_vec(), &mut told);
        (kernel, why, told.raced)
    }

    #[test]
    fn amx_runs_where_it_wins() {
        use Kernel::{Amx, Avx2, Avx512Vnni, Portable};
        let all = [Portable, Avx2, Avx512Vnni, Amx];
        let times =
            |tiles, others| Race::Times([Duration::from_micros(tiles), Duration::from_micros(others)]);
        let pair = Some([Amx, Avx512Vnni]);
        for (race, kernel, why) in [
            (times(1000, 3210), Amx, "AMX: 3.2 x as fast as AVX-512 VNNI here"),
            (times(1000, 800), Avx512Vnni, "AVX-512 VNNI: AMX was 0.8 x as fast here"),
            (times(1000, 1000), Avx512Vnni, "AVX-512 VNNI: AMX was 1.0 x as fast here"),
            (Race::Differ, Avx512Vnni, "AVX-512 VNNI: AMX gives wrong products here"),
            (Race::Nothing, Avx512Vnni, "AVX-512 VNNI: AMX has nothing to do here"),
        ] {
            assert_eq!(decided(&all, &[], race), (kernel, why.to_owned(), pair));
        }
    }

    #[test]
    fn wrong_kernels_are_passed_over_and_named() {
        use Kernel::{Amx, Avx2, Avx512Vnni, Portable};
        let all = [Portable, Avx2, Avx512Vnni, Amx];
        let fast = Race::Times([Duration::from_micros(1), Duration::from_micros(2)]);
        assert_eq!(
            decided(&all, &[Amx], fast),
            (Avx512Vnni, "AVX-512 VNNI: AMX gives wrong products here".into(), None)
        );
        assert_eq!(
            decided(&all, &[Avx512Vnni], fast),
            (Amx, "AMX: 2.0 x as fast as AVX2 here".into(), Some([Amx, Avx2]))
        );
        let none_right = (Portable, "portable: AMX gives wrong products here".into(), None);
        assert_eq!(decided(&all, &[Amx, Avx512Vnni, Avx2], fast), none_right);
        assert_eq!(
            decided(&[Portable, Avx2], &[], fast),
            (Avx2, "AVX2: the best that this processor has".into(), None)
        );
    }

    #[test]
    fn right_products_pass_and_wrong_ones_do_not() {
        unsafe fn no_wide(_: &product::Wide<'_>, _: &mut product::Tile) {}
        unsafe fn no_thin(_: &product::Thin<'_>) {}
        unsafe fn no_halve(_: &[f32], _: &mut activations::Slot<'_>) {}
        /// Wrong in tiles alone: what checks few rows only would not see.
        static NO_TILES: Entries = Entries {
            many: Some(Many { from: 16, wide_groups: 4, wide: no_wide, halve: no_halve }),
            ..amx_tests::ON_PORTABLE
        };
        static NO_THIN: Entries = Entries { thin: no_thin, ..amx_tests::ON_PORTABLE };

        let samples = Samples::new();
        assert_eq!(samples.0.len(), 16);
        assert!(samples.0.iter().all(|sample| sample.out.iter().all(|out| out.is_finite() && *out != 0.0)));
        for kernel in Kernel::available() {
            assert!(samples.fit(&Compute::new(kernel, Pool::new(2))), "{kernel:?}");
        }
        let with = |entries| samples.fit(&Compute::with(entries, Pool::new(2)));
        assert!(with(&amx_tests::ON_MODEL));
        assert!(!with(&NO_TILES) && !with(&NO_THIN));
    }

    #[test]
    fn a_race_is_run_on_the_models_matrix() {
        #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
        let dims = Dims::default();
        let bytes = random_qwen2(1, &dims).unwrap().bytes();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let mut trial = Trial { gguf: &gguf, threads: 2, samples: Samples(Vec::new()) };
        match matrix(&gguf) {
            Some(linear) => {
                let Race::Times(times) = trial.race([Kernel::best(), Kernel::Portable]) else {
                    panic!("no times");
                };
                assert!(times.iter().all(|time| *time < Duration::MAX));
                // Whoever computes something else is found out even here.
                let with = |entries| Compute::with(entries, Pool::new(1));
                let pair = [with(&amx_tests::ON_MODEL), with(&amx_tests::ON_PORTABLE)];
                assert!(matches!(race(pair, &linear), Race::Times(_)));
            }
            None => assert_eq!(trial.race([Kernel::best(), Kernel::Portable]), Race::Nothing),
        }
        let (kernel, why) = choose(&gguf, Some(Kernel::Portable), 2).unwrap();
        assert_eq!((kernel, why.as_str()), (Kernel::Portable, "portable: asked for by name"));
    }
}
