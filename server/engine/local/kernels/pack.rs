//! Weights as the kernels stream them: groups of 16 rows interleaved, codes and scales exactly those of the file.
//! It knows nothing of activations, layers, or where the tensors come from.
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
//! Codes are unsigned, with the file's own offset of half their range (for `Q8_0` 128 is added). All units of a group come first, then its scales
//! (see [`Scales`]). A group's size is that of the file's blocks, plus 3 % for `Q4_K` and `Q5_K`, whose 6-bit scales
//! are stored in bytes.
//!
//! Formats: `ggml-quants.c` and `ggml-common.h` of <https://github.com/ggml-org/ggml>.

use candle_core::quantized::GgmlDType;
use half::{bf16, f16};
use memmap2::MmapMut;

use crate::gguf::TensorView;
use crate::local::pool::{Chunks, Pool};

/// Rows of a group.
pub(in crate::local) const GROUP: usize = 16;
/// Columns of a unit.
pub(in crate::local) const UNIT: usize = 32;

/// How the values of a packed matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) enum Format {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    F16,
    Bf16,
    F32,
}

/// How a group's scales are stored behind its codes. Half floats are the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) enum Scales {
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

impl Scales {
    /// Bytes for eight units.
    const fn bytes(self) -> usize {
        match self {
            Self::Plain => 8 * 32,
            Self::Min => 8 * 64,
            Self::SuperMin => 64 + 8 * 32,
            Self::SuperHalves => 32 + 8 * 32,
        }
    }

    /// Where the bytes of unit `unit` alone begin.
    pub(in crate::local) const fn unit_at(self, unit: usize) -> usize {
        match self {
            Self::Plain => unit * 32,
            Self::Min => unit * 64,
            Self::SuperMin => unit / 8 * 320 + 64 + unit % 8 * 32,
            Self::SuperHalves => unit / 8 * 288 + 32 + unit % 8 * 32,
        }
    }

    /// Where the half floats that eight units share begin.
    pub(in crate::local) const fn super_at(self, unit: usize) -> usize {
        match self {
            Self::Plain | Self::Min => 0,
            Self::SuperMin => unit / 8 * 320,
            Self::SuperHalves => unit / 8 * 288,
        }
    }
}

impl Format {
    fn of(dtype: GgmlDType) -> Option<Self> {
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

    /// Bits of a code and the form of the scales; none if the values are plain floats.
    pub(in crate::local) fn quantized(self) -> Option<(u32, Scales)> {
        Some(match self {
            Self::Q4_0 => (4, Scales::Plain),
            Self::Q4_1 => (4, Scales::Min),
            Self::Q5_0 => (5, Scales::Plain),
            Self::Q5_1 => (5, Scales::Min),
            Self::Q8_0 => (8, Scales::Plain),
            Self::Q4K => (4, Scales::SuperMin),
            Self::Q5K => (5, Scales::SuperMin),
            Self::Q6K => (6, Scales::SuperHalves),
            Self::F16 | Self::Bf16 | Self::F32 => return None,
        })
    }

    /// Columns and bytes of a block in the file.
    fn block(self) -> (usize, usize) {
        match self {
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::F32 => (1, 4),
        }
    }
}

/// A matrix `[rows, columns]` of weights, packed.
#[derive(Debug)]
pub(in crate::local) struct Packed {
    format: Format,
    rows: usize,
    columns: usize,
    /// Bytes of a group.
    stride: usize,
    /// Where a group's scales begin.
    scales_at: usize,
    /// The groups; the rows that are missing in the last one are zeros.
    data: MmapMut,
}

impl Packed {
    /// Packs a stored matrix, in parallel.
    ///
    /// # Errors
    /// A phrase that says what is wrong with the tensor: no matrix, a format without kernels, or no memory.
    pub(in crate::local) fn new(view: &TensorView<'_>, pool: &Pool) -> Result<Self, String> {
        let &[rows, columns] = &view.shape[..] else {
            return Err(format!("has the shape {:?}, a matrix is needed", view.shape));
        };
        let Some(format) = Format::of(view.dtype) else {
            return Err(format!("is stored as {:?}, for which there is no CPU kernel", view.dtype));
        };
        let (block, block_bytes) = format.block();
        if rows == 0
            || columns == 0
            || columns % block != 0
            || view.data.len() != rows * columns / block * block_bytes
        {
            return Err(format!(
                "has the shape {:?} in {} bytes of {:?}",
                view.shape,
                view.data.len(),
                view.dtype
            ));
        }
        let (scales_at, stride) = match format.quantized() {
            Some((bits, scales)) => {
                let units = columns / UNIT;
                let codes = units * 64 * bits as usize;
                // Whole cache lines, so that all codes are aligned.
                (codes, (codes + (units * scales.bytes()).div_ceil(8)).next_multiple_of(64))
            }
            None => (0, columns * GROUP * block_bytes),
        };
        let groups = rows.div_ceil(GROUP);
        let mut data = MmapMut::map_anon(groups * stride)
            .map_err(|error| format!("finds no room in memory: {error}"))?;
        // Large pages spare the address translation, which streaming would wait for; without them it is slower only.
        #[cfg(target_os = "linux")]
        let _ = data.advise(memmap2::Advice::HugePage);

        let row_bytes = columns / block * block_bytes;
        let chunks = Chunks::new(&mut data, stride);
        pool.run(groups, |group, _| {
            // SAFETY: each group is one piece, and each piece runs once.
            let out = unsafe { chunks.get(group) };
            let first = group * GROUP;
            let last = rows.min(first + GROUP);
            let source = &view.data[first * row_bytes..last * row_bytes];
            match format.quantized() {
                Some((bits, scales)) => pack_group(format, bits, scales, source, row_bytes, scales_at, out),
                None => pack_floats(source, row_bytes, block_bytes, out),
            }
        });
        Ok(Self { format, rows, columns, stride, scales_at, data })
    }

    /// How the values are stored.
    pub(in crate::local) fn format(&self) -> Format {
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
    pub(in crate::local) fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }

    /// Bytes of a group.
    pub(in crate::local) fn group_bytes(&self) -> usize {
        self.stride
    }

    /// Bytes in memory.
    pub(in crate::local) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// A group's codes and scales, or its floats (then the second is empty).
    pub(in crate::local) fn group(&self, group: usize) -> (&[u8], &[u8]) {
        let group = &self.data[group * self.stride..(group + 1) * self.stride];
        match self.format.quantized() {
            Some(_) => group.split_at(self.scales_at),
            None => (group, &[]),
        }
    }

    /// The values of one row, exactly as the file's format defines them.
    pub(in crate::local) fn row(&self, row: usize, out: &mut [f32]) {
        let (codes, scales) = self.group(row / GROUP);
        let lane = row % GROUP;
        let Some((bits, form)) = self.format.quantized() else {
            for (column, out) in out.iter_mut().enumerate() {
                let at = column * GROUP + lane;
                *out = match self.format {
                    Format::F16 => half(codes, 2 * at),
                    Format::Bf16 => bf16::from_le_bytes([codes[2 * at], codes[2 * at + 1]]).to_f32(),
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
        for (unit, out) in out.chunks_exact_mut(UNIT).enumerate() {
            let at = form.unit_at(unit);
            let shared = form.super_at(unit);
            // Scale of each half, and what is added to code times scale.
            let (scale, add) = match form {
                Scales::Plain => ([half(scales, at + 2 * lane); 2], None),
                Scales::Min => ([half(scales, at + 2 * lane); 2], Some(half(scales, at + 32 + 2 * lane))),
                Scales::SuperMin => {
                    let scale = half(scales, shared + 2 * lane) * f32::from(scales[at + lane]);
                    let min = half(scales, shared + 32 + 2 * lane) * f32::from(scales[at + 16 + lane]);
                    ([scale; 2], Some(min))
                }
                Scales::SuperHalves => {
                    let d = half(scales, shared + 2 * lane);
                    let scale = |i: usize| d * f32::from(scales[at + 16 * i + lane] as i8);
                    ([scale(0), scale(1)], None)
                }
            };
            let codes = &codes[unit * 64 * bits as usize..(unit + 1) * 64 * bits as usize];
            for (column, out) in out.iter_mut().enumerate() {
                let code = f32::from(code(codes, bits, column / 4, 4 * lane + column % 4));
                let scale = scale[column / 16];
                *out = match add {
                    Some(add) => scale * code + add,
                    None => scale * (code - offset),
                };
            }
        }
    }
}

/// The code at byte `at` of step `step`.
fn code(unit: &[u8], bits: u32, step: usize, at: usize) -> u8 {
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

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn pack_floats(source: &[u8], row_bytes: usize, size: usize, out: &mut [u8]) {
    for (lane, row) in source.chunks_exact(row_bytes).enumerate() {
        for (column, value) in row.chunks_exact(size).enumerate() {
            let at = (column * GROUP + lane) * size;
            out[at..at + size].copy_from_slice(value);
        }
    }
}

/// Packs up to 16 rows of quantized blocks.
fn pack_group(
    format: Format,
    bits: u32,
    form: Scales,
    source: &[u8],
    row_bytes: usize,
    scales_at: usize,
    out: &mut [u8],
) {
    let (block, block_bytes) = format.block();
    let (codes, scales) = out.split_at_mut(scales_at);
    let unit_bytes = 64 * bits as usize;
    // Codes that a missing row has; its scales are zero, so any code would do.
    let mut unit_codes = [[0_u8; UNIT]; GROUP];
    for (unit, out) in codes.chunks_exact_mut(unit_bytes).enumerate() {
        for (lane, row) in source.chunks_exact(row_bytes).enumerate() {
            let start = unit * UNIT / block * block_bytes;
            let block = &row[start..start + block_bytes];
            read_codes(format, block, unit % 8, &mut unit_codes[lane]);
            write_scales(form, format, block, unit, lane, scales);
        }
        interleave(bits, &unit_codes, out);
    }
}

/// The codes of one unit of one row. `sub` is the unit's place in a block of 256.
fn read_codes(format: Format, block: &[u8], sub: usize, out: &mut [u8; UNIT]) {
    let (low, high) = out.split_at_mut(16);
    let mut nibbles = |packed: &[u8]| {
        for i in 0..16 {
            low[i] = packed[i] & 0x0f;
            high[i] = packed[i] >> 4;
        }
    };
    match format {
        Format::Q4_0 => nibbles(&block[2..18]),
        Format::Q4_1 => nibbles(&block[4..20]),
        Format::Q5_0 | Format::Q5_1 => {
            let at = if format == Format::Q5_0 { 2 } else { 4 };
            nibbles(&block[at + 4..at + 20]);
            let fifth = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            for (i, out) in out.iter_mut().enumerate() {
                *out |= ((fifth >> i & 1) as u8) << 4;
            }
        }
        Format::Q8_0 => {
            for (out, &code) in out.iter_mut().zip(&block[2..34]) {
                // Adding 128 turns the signed code into an unsigned one.
                *out = code ^ 0x80;
            }
        }
        Format::Q4K => {
            let packed = &block[16 + sub / 2 * 32..][..32];
            let shift = sub % 2 * 4;
            for (out, &byte) in out.iter_mut().zip(packed) {
                *out = byte >> shift & 0x0f;
            }
        }
        Format::Q5K => {
            let packed = &block[48 + sub / 2 * 32..][..32];
            let shift = sub % 2 * 4;
            for ((out, &byte), &fifth) in out.iter_mut().zip(packed).zip(&block[16..48]) {
                *out = byte >> shift & 0x0f | (fifth >> sub & 1) << 4;
            }
        }
        Format::Q6K => {
            let part = sub % 4;
            let low = &block[sub / 4 * 64 + part % 2 * 32..][..32];
            let high = &block[128 + sub / 4 * 32..][..32];
            for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
                *out = low >> (part / 2 * 4) & 0x0f | (high >> (2 * part) & 3) << 4;
            }
        }
        Format::F16 | Format::Bf16 | Format::F32 => {}
    }
}

/// Copies the scales of one unit of one row to their places.
fn write_scales(form: Scales, format: Format, block: &[u8], unit: usize, lane: usize, scales: &mut [u8]) {
    let at = form.unit_at(unit);
    let shared = form.super_at(unit);
    let sub = unit % 8;
    match form {
        Scales::Plain => scales[at + 2 * lane..][..2].copy_from_slice(&block[..2]),
        Scales::Min => {
            scales[at + 2 * lane..][..2].copy_from_slice(&block[..2]);
            scales[at + 32 + 2 * lane..][..2].copy_from_slice(&block[2..4]);
        }
        Scales::SuperMin => {
            // `get_scale_min_k4`: eight scales and eight minimums of six bits in twelve bytes.
            let packed = &block[4..16];
            let (scale, min) = if sub < 4 {
                (packed[sub] & 63, packed[sub + 4] & 63)
            } else {
                (
                    packed[sub + 4] & 0x0f | packed[sub - 4] >> 6 << 4,
                    packed[sub + 4] >> 4 | packed[sub] >> 6 << 4,
                )
            };
            scales[at + lane] = scale;
            scales[at + 16 + lane] = min;
            if sub == 0 {
                scales[shared + 2 * lane..][..2].copy_from_slice(&block[..2]);
                // The sign bit turned: minimums are subtracted in the file's format, added here.
                scales[shared + 32 + 2 * lane..][..2].copy_from_slice(&[block[2], block[3] ^ 0x80]);
            }
        }
        Scales::SuperHalves => {
            debug_assert_eq!(format, Format::Q6K);
            scales[at + lane] = block[192 + 2 * sub];
            scales[at + 16 + lane] = block[192 + 2 * sub + 1];
            if sub == 0 {
                scales[shared + 2 * lane..][..2].copy_from_slice(&block[208..210]);
            }
        }
    }
}

/// Writes a unit's codes in the order of the table above.
fn interleave(bits: u32, codes: &[[u8; UNIT]; GROUP], out: &mut [u8]) {
    // The four codes of one step and row, as a word.
    let word = |lane: usize, step: usize| {
        let codes = &codes[lane][4 * step..4 * step + 4];
        u32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]])
    };
    let (steps, _) = out.as_chunks_mut::<64>();
    let mut put = |at: usize, lane: usize, word: u32| {
        steps[at][4 * lane..4 * lane + 4].copy_from_slice(&word.to_le_bytes());
    };
    for lane in 0..GROUP {
        if bits == 8 {
            for step in 0..8 {
                put(step, lane, word(lane, step));
            }
            continue;
        }
        for step in 0..4 {
            let (low, high) = (word(lane, step), word(lane, step + 4));
            put(step, lane, low & 0x0f0f_0f0f | (high & 0x0f0f_0f0f) << 4);
        }
        match bits {
            5 => {
                let bits = (0..8).map(|step| (word(lane, step) >> 4 & 0x0101_0101) << step);
                put(4, lane, bits.fold(0, |all, bits| all | bits));
            }
            6 => {
                for half in 0..2 {
                    let bits =
                        (0..4).map(|step| (word(lane, 4 * half + step) >> 4 & 0x0303_0303) << (2 * step));
                    put(4 + half, lane, bits.fold(0, |all, bits| all | bits));
                }
            }
            _ => {}
        }
    }
}
