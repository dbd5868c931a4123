//! Linear layers on the CPU: packed weights, and their products shared out among the pool's threads.
//! It knows nothing of what the layers mean.

use std::cell::RefCell;

use crate::local::kernels::activations::{Activations, Slot, width};
use crate::local::kernels::attention::{Attend, Scratch};
use crate::local::kernels::pack::Packed;
use crate::local::kernels::product::{Out, Thin, Tile};
use crate::local::kernels::{Entries, Kernel, THIN_ROWS};
use crate::local::pool::{Chunks, Pool};

/// Weights that a thread reads before it asks for the next piece of a thin product: enough to forget the asking,
/// little enough that the last pieces end together.
const PIECE_BYTES: usize = 32 << 10;

/// `y = W x + b`.
#[derive(Debug)]
pub(in crate::local) struct Linear {
    pub(in crate::local) weight: Packed,
    pub(in crate::local) bias: Option<Vec<f32>>,
}

/// One of several products of the same activations.
#[derive(Debug)]
pub(in crate::local) struct Target<'a> {
    pub(in crate::local) linear: &'a Linear,
    /// `[rows of the activations, rows of the weights]`.
    pub(in crate::local) out: &'a mut [f32],
    /// Whether to add to what is there.
    pub(in crate::local) add: bool,
}

/// A pointer that the pieces of a job share.
struct Shared(*mut f32);
// SAFETY: the pieces write to disjoint places behind it.
unsafe impl Sync for Shared {}

/// Threads and the kernel they run.
#[derive(Debug)]
pub(in crate::local) struct Compute {
    pub(in crate::local) pool: Pool,
    entries: &'static Entries,
}

impl Compute {
    pub(in crate::local) fn new(kernel: Kernel, pool: Pool) -> Self {
        Self { pool, entries: kernel.entries() }
    }

    /// Fills the activations: `fill(row, values)` for each row, then quantizes them.
    pub(in crate::local) fn prepare(
        &self,
        x: &mut Activations,
        rows: usize,
        columns: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let panel = self.entries.panel;
        let buffers = x.shape(rows, columns, panel);
        let units = columns / 32;
        let floats = Chunks::new(buffers.floats, panel * columns);
        let codes = Chunks::new(buffers.codes, panel * units * 32);
        let scales = Chunks::new(buffers.scales, panel * units);
        let sums = Chunks::new(buffers.sums, panel * units * 3);
        let sized_sums = Chunks::new(buffers.sized_sums, panel * units);
        self.pool.run(rows.div_ceil(panel), |index, _| {
            let here = panel.min(rows - index * panel);
            let width = width(here);
            // SAFETY: each panel is one piece, which runs once.
            let (floats, mut slot) = unsafe {
                let slot = Slot {
                    width,
                    codes: &mut codes.get(index)[..width * units * 32],
                    scales: &mut scales.get(index)[..width * units],
                    sums: &mut sums.get(index)[..width * units * 3],
                    sized_sums: &mut sized_sums.get(index)[..width * units],
                };
                (floats.get(index), slot)
            };
            for (row, floats) in floats.chunks_exact_mut(columns).enumerate() {
                fill(index * panel + row, floats);
            }
            if columns % 32 == 0 {
                // SAFETY: `entries` are those of an instruction set that is there.
                unsafe { (self.entries.quantize)(floats, &mut slot) };
            }
        });
    }

    /// Computes all targets, in parallel.
    pub(in crate::local) fn multiply(&self, x: &Activations, targets: &mut [Target<'_>]) {
        let thin = x.rows() <= THIN_ROWS;
        // Per target: its pieces, groups of a piece, where it goes.
        let plan: Vec<_> = targets
            .iter_mut()
            .map(|target| {
                let weight = &target.linear.weight;
                assert_eq!(weight.columns(), x.columns(), "a product of matrices that do not fit");
                assert!(target.out.len() >= x.rows() * weight.rows(), "the output is too short");
                let quantized = weight.format().quantized().is_some();
                let per_piece = if thin || !quantized {
                    (PIECE_BYTES / weight.group_bytes()).max(1)
                } else {
                    self.entries.wide_groups
                };
                let out = Shared(target.out.as_mut_ptr());
                (weight.groups().div_ceil(per_piece), per_piece, out, &*target.linear, target.add, quantized)
            })
            .collect();
        let pieces = plan.iter().map(|plan| plan.0).sum();
        self.pool.run(pieces, |mut piece, _| {
            for (pieces, per_piece, out, linear, add, quantized) in &plan {
                if piece >= *pieces {
                    piece -= pieces;
                    continue;
                }
                let weight = &linear.weight;
                let groups = piece * per_piece..weight.groups().min((piece + 1) * per_piece);
                let out =
                    Out { start: out.0, stride: weight.rows(), bias: linear.bias.as_deref(), add: *add };
                let args = Thin { weight, groups, x, out };
                // SAFETY: the instruction set is there; the output was checked above, and each piece writes its
                // own groups' columns only.
                unsafe {
                    if !quantized {
                        (self.entries.dense)(&args);
                    } else if thin {
                        (self.entries.thin)(&args);
                    } else {
                        TILE.with_borrow_mut(|tile| (self.entries.wide)(&args, tile));
                    }
                }
                return;
            }
        });
    }

    /// Runs one attention tile.
    ///
    /// # Safety
    /// See [`Attend`].
    pub(in crate::local) unsafe fn attend(&self, args: &Attend<'_>) {
        // SAFETY: the instruction set is there; the rest is the caller's promise.
        SCRATCH.with_borrow_mut(|scratch| unsafe { (self.entries.attend)(args, scratch) });
    }

    /// See `elementwise::norm`.
    pub(in crate::local) fn norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        // SAFETY: the instruction set is there.
        unsafe { (self.entries.norm)(x, weight, epsilon, out) }
    }

    /// See `elementwise::gate`.
    pub(in crate::local) fn gate(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        // SAFETY: the instruction set is there.
        unsafe { (self.entries.gate)(gate, up, out) }
    }
}

thread_local! {
    static TILE: RefCell<Tile> = RefCell::default();
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
