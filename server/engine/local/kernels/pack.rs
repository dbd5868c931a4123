//! Weights as the kernels stream them: groups of 16 rows interleaved, with exactly the file's codes and scales.
//!
//! A group holds 16 rows; its codes come in units of 32 columns. Inside a unit, four neighbouring columns of
//! the 16 rows make 64 bytes (a *step*): `row * 4 + column % 4`, so one int8 dot-product instruction adds four
//! columns to each of 16 sums. Eight steps make a unit, stored in `64 * bits` bytes:
//!
//! | bits | stored |
//! |---|---|
//! | 4 | 4 × 64 bytes: steps 0 to 3 in the low nibbles, steps 4 to 7 in the high ones |
//! | 5 | the same, then 64 bytes: bit `s` is the fifth bit of step `s` |
//! | 6 | the same as 4, then 2 × 64 bytes: bits `2s` and `2s + 1` for steps 0 to 3, and for steps 4 to 7 |
//! | 8 | 8 × 64 bytes |
//!
//! Codes are unsigned, with the file's own offset of half their range (for `Q8_0` 128 is added). All units of a group
//! come first, then its scales (see [`ScaleLayout`]). A group is as large as the file's blocks, plus 3 % for `Q4_K` and
//! `Q5_K`, whose 6-bit scales are stored in bytes.
//!
//! `Q8_0` and `Q6_K` can also be packed in two *planes*, so that a product with only the upper four bits of the codes
//! streams nothing else. The first plane has all groups with those bits, stored like 4-bit codes, and with the scales.
//! The second plane follows with all groups' lower bits, four or two per code:
//!
//! | lower bits | stored |
//! |---|---|
//! | 4 | 4 × 64 bytes: steps 0 to 3 in the low nibbles, steps 4 to 7 in the high ones |
//! | 2 | 2 × 64 bytes: bits `2s` and `2s + 1` for steps 0 to 3, and for steps 4 to 7 |
//!
//! Formats: `ggml-quants.c` and `ggml-common.h` of <https://github.com/ggml-org/ggml>.

use std::io;
use std::sync::OnceLock;

use candle_core::quantized::GgmlDType;
use half::{bf16, f16};
use memmap2::MmapMut;

use crate::gguf::{TensorView, are_finite};
use crate::local::thread_pool::{DisjointChunks, ThreadPool};
use interleave::{GroupBuffers, pack_floats, pack_group};

mod interleave;

/// Rows of a group.
pub(in crate::local) const GROUP_ROWS: usize = 16;
/// Columns of a unit.
pub(in crate::local) const UNIT_COLUMNS: usize = 32;

/// How the values of a packed matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) enum PackedFormat {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    /// `Q8_0` in two planes.
    Q8Planes,
    /// `Q6_K` in two planes.
    Q6KPlanes,
    F16,
    Bf16,
    F32,
}

/// How a group's scales are stored. Half floats are the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) enum ScaleLayout {
    /// For each unit 16 half floats `d`; a value is `d * (code - offset)`.
    Plain,
    /// For each unit 16 half floats `d` and 16 `m`; a value is `d * code + m`.
    Min,
    /// For each eight units 16 half floats `d` and 16 `-dmin`, then for each unit 16 bytes `s` and 16 bytes `m`; a
    /// value is `d * s * code + -dmin * m`.
    SuperMin,
    /// For each eight units 16 half floats `d`, then for each unit 16 signed bytes `s` for its first half and 16
    /// for its second; a value is `d * s * (code - offset)`.
    SuperHalves,
}

impl ScaleLayout {
    /// Bytes for eight units.
    const fn bytes_per_eight_units(self) -> usize {
        match self {
            Self::Plain => 8 * 32,
            Self::Min => 8 * 64,
            Self::SuperMin => 64 + 8 * 32,
            Self::SuperHalves => 32 + 8 * 32,
        }
    }

    /// Offset of the bytes of unit `unit` alone.
    pub(in crate::local) const fn unit_offset(self, unit: usize) -> usize {
        match self {
            Self::Plain => unit * 32,
            Self::Min => unit * 64,
            Self::SuperMin => unit / 8 * 320 + 64 + unit % 8 * 32,
            Self::SuperHalves => unit / 8 * 288 + 32 + unit % 8 * 32,
        }
    }

    /// Offset of the half floats that eight units share.
    pub(in crate::local) const fn super_offset(self, unit: usize) -> usize {
        match self {
            Self::Plain | Self::Min => 0,
            Self::SuperMin => unit / 8 * 320,
            Self::SuperHalves => unit / 8 * 288,
        }
    }
}

impl PackedFormat {
    fn from_ggml(dtype: GgmlDType) -> Option<Self> {
        Some(match dtype {
            GgmlDType::Q4_0 => Self::Q4_0,
            GgmlDType::Q4_1 => Self::Q4_1,
            GgmlDType::Q5_0 => Self::Q5_0,
            GgmlDType::Q5_1 => Self::Q5_1,
            GgmlDType::Q8_0 => Self::Q8_0,
            GgmlDType::Q4K => Self::Q4K,
            GgmlDType::Q5K => Self::Q5K,
            GgmlDType::Q6K => Self::Q6K,
            GgmlDType::F16 => Self::F16,
            GgmlDType::BF16 => Self::Bf16,
            GgmlDType::F32 => Self::F32,
            _ => return None,
        })
    }

    /// Bits of a code and the layout of the scales; `None` for plain floats.
    pub(in crate::local) fn quantization(self) -> Option<(u32, ScaleLayout)> {
        Some(match self {
            Self::Q4_0 => (4, ScaleLayout::Plain),
            Self::Q4_1 => (4, ScaleLayout::Min),
            Self::Q5_0 => (5, ScaleLayout::Plain),
            Self::Q5_1 => (5, ScaleLayout::Min),
            Self::Q8_0 => (8, ScaleLayout::Plain),
            Self::Q4K => (4, ScaleLayout::SuperMin),
            Self::Q5K => (5, ScaleLayout::SuperMin),
            Self::Q8Planes => (8, ScaleLayout::Plain),
            Self::Q6K | Self::Q6KPlanes => (6, ScaleLayout::SuperHalves),
            Self::F16 | Self::Bf16 | Self::F32 => return None,
        })
    }

    /// The same format in two planes, if it exists.
    fn with_two_planes(self) -> Self {
        match self {
            Self::Q8_0 => Self::Q8Planes,
            Self::Q6K => Self::Q6KPlanes,
            other => other,
        }
    }

    /// Bits of a code in the second plane; 0 if there is none.
    pub(in crate::local) fn lower_bits(self) -> u32 {
        match self {
            Self::Q8Planes => 4,
            Self::Q6KPlanes => 2,
            _ => 0,
        }
    }

    /// Columns and bytes of a block in the file.
    fn block_size(self) -> (usize, usize) {
        match self {
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 | Self::Q8Planes => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K | Self::Q6KPlanes => (256, 210),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::F32 => (1, 4),
        }
    }
}

/// A matrix `[rows, columns]` of weights, packed.
#[derive(Debug)]
pub(in crate::local) struct PackedMatrix {
    format: PackedFormat,
    rows: usize,
    columns: usize,
    /// Bytes of a group, without those in the second plane.
    stride: usize,
    /// Offset of a group's codes, after its scales. Both are read from the first unit on, so prefetching past the codes
    /// of one group brings in the scales of the next.
    codes_offset: usize,
    /// Bytes of a group in the second plane; 0 if there is none.
    lower_stride: usize,
    /// The groups, then the second plane. Missing rows of the last group are zeros.
    data: MmapMut,
}

/// Why a tensor was not packed.
#[derive(Debug)]
pub(in crate::local) enum PackError {
    /// Not a matrix, or a format without kernels: a phrase with the problem.
    UnsupportedFormat(String),
    /// Not enough memory: a phrase.
    OutOfMemory(String),
    /// Its bytes could not be read.
    Read(io::Error),
    /// Some of its values are infinite or NaN.
    InvalidValues,
}

impl PackedMatrix {
    /// Packs a stored matrix in parallel, reading it piece by piece.
    ///
    /// # Errors
    /// See [`PackError`].
    pub(in crate::local) fn new(view: &TensorView<'_>, pool: &ThreadPool) -> Result<Self, PackError> {
        Self::pack_tensor(view, pool, false)
    }

    /// The same, in two planes if the format supports it.
    ///
    /// # Errors
    /// As [`PackedMatrix::new`].
    pub(in crate::local) fn new_in_planes(
        view: &TensorView<'_>,
        pool: &ThreadPool,
    ) -> Result<Self, PackError> {
        Self::pack_tensor(view, pool, true)
    }

    fn pack_tensor(view: &TensorView<'_>, pool: &ThreadPool, planes: bool) -> Result<Self, PackError> {
        let form = |problem: String| Err(PackError::UnsupportedFormat(problem));
        let view = &view.with_kernel_format();
        let &[rows, columns] = &view.shape[..] else {
            return form(format!("has the shape {:?}, expected a matrix", view.shape));
        };
        let Some(format) = PackedFormat::from_ggml(view.dtype) else {
            return form(format!("is stored as {:?}, which has no CPU kernel", view.dtype));
        };
        let (block, block_bytes) = format.block_size();
        if rows == 0
            || columns == 0
            || columns % block != 0
            || view.data.len() != rows * columns / block * block_bytes
        {
            return form(format!(
                "has the shape {:?} in {} bytes of {:?}",
                view.shape,
                view.data.len(),
                view.dtype
            ));
        }
        let format = if planes { format.with_two_planes() } else { format };
        let units = columns / UNIT_COLUMNS;
        let lower_stride = units * 64 * format.lower_bits() as usize;
        let (codes_at, stride) = match format.quantization() {
            Some((bits, scales)) => {
                let codes = units * 64 * (bits - format.lower_bits()) as usize;
                // Whole cache lines, so that all codes are aligned.
                let codes_at = (units * scales.bytes_per_eight_units()).div_ceil(8).next_multiple_of(64);
                (codes_at, codes_at + codes)
            }
            None => (0, columns * GROUP_ROWS * block_bytes),
        };
        let groups = rows.div_ceil(GROUP_ROWS);
        let mut data = MmapMut::map_anon(groups * (stride + lower_stride))
            .map_err(|error| PackError::OutOfMemory(format!("does not fit into memory: {error}")))?;
        // Large pages avoid stalls in address translation while streaming; without them it is only slower.
        #[cfg(target_os = "linux")]
        let _ = data.advise(memmap2::Advice::HugePage);

        let row_bytes = columns / block * block_bytes;
        let (upper, lower) = data.split_at_mut(groups * stride);
        let (upper, lower) = (DisjointChunks::new(upper, stride), DisjointChunks::new(lower, lower_stride));
        let failed = OnceLock::new();
        pool.run_pieces(groups, |group, _| {
            if failed.get().is_some() {
                return;
            }
            // SAFETY: each group is one piece, and each piece runs once.
            let (out, lower) = unsafe { (upper.get(group), lower.get(group)) };
            let first = group * GROUP_ROWS;
            let last = rows.min(first + GROUP_ROWS);
            let source = match view.data.read(first * row_bytes..last * row_bytes) {
                Ok(source) if are_finite(view.dtype, &source) => source,
                // The first failure is reported; others may follow at the same time.
                Ok(_) => return failed.set(PackError::InvalidValues).unwrap_or_default(),
                Err(error) => return failed.set(PackError::Read(error)).unwrap_or_default(),
            };
            let source = &source[..];
            match format.quantization() {
                Some((bits, scales)) => {
                    let (scales_bytes, codes) = out.split_at_mut(codes_at);
                    let mut to = GroupBuffers { codes, scales: scales_bytes, lower };
                    pack_group(format, bits, scales, source, row_bytes, &mut to);
                }
                None => pack_floats(source, row_bytes, block_bytes, out),
            }
        });
        if let Some(failed) = failed.into_inner() {
            return Err(failed);
        }
        Ok(Self { format, rows, columns, stride, codes_offset: codes_at, lower_stride, data })
    }

    /// How the values are stored.
    pub(in crate::local) fn format(&self) -> PackedFormat {
        self.format
    }

    /// Output values.
    pub(in crate::local) fn rows(&self) -> usize {
        self.rows
    }

    /// Input values.
    pub(in crate::local) fn columns(&self) -> usize {
        self.columns
    }

    /// Groups of 16 rows, the last one perhaps padded.
    pub(in crate::local) fn group_count(&self) -> usize {
        self.rows.div_ceil(GROUP_ROWS)
    }

    /// Bytes of a group.
    pub(in crate::local) fn group_bytes(&self) -> usize {
        self.stride + self.lower_stride
    }

    /// Bytes that a product with the first plane reads; all of them if there is only one.
    pub(in crate::local) fn upper_bytes(&self) -> usize {
        self.group_count() * self.stride
    }

    /// Bytes in memory.
    pub(in crate::local) fn byte_len(&self) -> usize {
        self.data.len()
    }

    /// A group's codes and scales, or its floats (then the second is empty).
    pub(in crate::local) fn group_data(&self, group: usize) -> (&[u8], &[u8]) {
        let group = &self.data[group * self.stride..(group + 1) * self.stride];
        match self.format.quantization() {
            Some(_) => {
                let (scales, codes) = group.split_at(self.codes_offset);
                (codes, scales)
            }
            None => (group, &[]),
        }
    }

    /// A group's codes in the second plane; empty if there is none.
    pub(in crate::local) fn lower_plane(&self, group: usize) -> &[u8] {
        &self.data[self.upper_bytes() + group * self.lower_stride..][..self.lower_stride]
    }

    /// The greatest absolute scale of a group: the most that a code's last bit is worth.
    pub(in crate::local) fn greatest_scale(&self, group: usize) -> f32 {
        let Some((_, form)) = self.format.quantization() else { return 0.0 };
        let (_, scales) = self.group_data(group);
        let units = self.columns / UNIT_COLUMNS;
        if form == ScaleLayout::Plain {
            // Without their sign, half floats are ordered like their bits.
            let (halves, _) = scales[..form.unit_offset(units)].as_chunks::<2>();
            let greatest = halves.iter().map(|&half| u16::from_le_bytes(half) & 0x7fff).max();
            return f16::from_bits(greatest.unwrap_or(0)).to_f32();
        }
        let lanes = (0..units).flat_map(|unit| (0..GROUP_ROWS).map(move |lane| (unit, lane)));
        let each = lanes.flat_map(|(unit, lane)| unit_scales(scales, form, unit, lane).0);
        each.fold(0.0, |greatest, scale| scale.abs().max(greatest))
    }

    /// The values of one row, exactly as the file's format defines them.
    pub(in crate::local) fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        let (codes, scales) = self.group_data(row / GROUP_ROWS);
        let lane = row % GROUP_ROWS;
        let Some((bits, form)) = self.format.quantization() else {
            for (column, out) in out.iter_mut().enumerate() {
                let at = column * GROUP_ROWS + lane;
                *out = match self.format {
                    PackedFormat::F16 => read_f16(codes, 2 * at),
                    PackedFormat::Bf16 => bf16::from_le_bytes([codes[2 * at], codes[2 * at + 1]]).to_f32(),
                    _ => f32::from_le_bytes([
                        codes[4 * at],
                        codes[4 * at + 1],
                        codes[4 * at + 2],
                        codes[4 * at + 3],
                    ]),
                };
            }
            return;
        };
        let offset = f32::from(1_u8 << (bits - 1));
        let lower = self.lower_plane(row / GROUP_ROWS);
        let lower_bits = self.format.lower_bits();
        for (unit, out) in out.chunks_exact_mut(UNIT_COLUMNS).enumerate() {
            let (scale, add) = unit_scales(scales, form, unit, lane);
            let upper_bits = bits - lower_bits;
            let codes = &codes[unit * 64 * upper_bits as usize..][..64 * upper_bits as usize];
            let lower = &lower[unit * 64 * lower_bits as usize..][..64 * lower_bits as usize];
            for (column, out) in out.iter_mut().enumerate() {
                let (step, at) = (column / 4, 4 * lane + column % 4);
                let code = f32::from(
                    unpack_code(codes, upper_bits, step, at) << lower_bits
                        | unpack_lower_bits(lower, lower_bits, step, at),
                );
                let scale = scale[column / 16];
                *out = match add {
                    Some(add) => scale * code + add,
                    None => scale * (code - offset),
                };
            }
        }
    }
}

/// The scales of the two halves of a unit of one row, and the addend to code times scale if the codes have no offset.
fn unit_scales(scales: &[u8], form: ScaleLayout, unit: usize, lane: usize) -> ([f32; 2], Option<f32>) {
    let at = form.unit_offset(unit);
    let shared = form.super_offset(unit);
    match form {
        ScaleLayout::Plain => ([read_f16(scales, at + 2 * lane); 2], None),
        ScaleLayout::Min => {
            ([read_f16(scales, at + 2 * lane); 2], Some(read_f16(scales, at + 32 + 2 * lane)))
        }
        ScaleLayout::SuperMin => {
            let scale = read_f16(scales, shared + 2 * lane) * f32::from(scales[at + lane]);
            let min = read_f16(scales, shared + 32 + 2 * lane) * f32::from(scales[at + 16 + lane]);
            ([scale; 2], Some(min))
        }
        ScaleLayout::SuperHalves => {
            let d = read_f16(scales, shared + 2 * lane);
            let scale = |i: usize| d * f32::from(scales[at + 16 * i + lane] as i8);
            ([scale(0), scale(1)], None)
        }
    }
}

/// The code at byte `at` of step `step`.
fn unpack_code(unit: &[u8], bits: u32, step: usize, at: usize) -> u8 {
    if bits == 8 {
        return unit[64 * step + at];
    }
    let low = unit[64 * (step % 4) + at] >> (step / 4 * 4) & 0x0f;
    match bits {
        5 => low | (unit[256 + at] >> step & 1) << 4,
        6 => low | (unit[256 + 64 * (step / 4) + at] >> (2 * (step % 4)) & 3) << 4,
        _ => low,
    }
}

/// The lower bits of the code at byte `at` of step `step`, from the second plane; 0 if there is none.
fn unpack_lower_bits(unit: &[u8], bits: u32, step: usize, at: usize) -> u8 {
    match bits {
        4 => unit[64 * (step % 4) + at] >> (step / 4 * 4) & 0x0f,
        2 => unit[64 * (step / 4) + at] >> (2 * (step % 4)) & 3,
        _ => 0,
    }
}

fn read_f16(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
