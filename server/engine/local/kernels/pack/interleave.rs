//! Reorders the blocks of up to 16 rows from the file's order into that of a packed group.

use super::{GROUP_ROWS, PackedFormat, ScaleLayout, UNIT_COLUMNS};

/// Packs up to 16 rows of floats of `size` bytes: the values of a column side by side.
pub(super) fn pack_floats(source: &[u8], row_bytes: usize, size: usize, out: &mut [u8]) {
    for (lane, row) in source.chunks_exact(row_bytes).enumerate() {
        for (column, value) in row.chunks_exact(size).enumerate() {
            let at = (column * GROUP_ROWS + lane) * size;
            out[at..at + size].copy_from_slice(value);
        }
    }
}

/// The destination of a packed group.
pub(super) struct GroupBuffers<'a> {
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [u8],
    /// The second plane; empty if there is none.
    pub(super) lower: &'a mut [u8],
}

/// Packs up to 16 rows of quantized blocks.
pub(super) fn pack_group(
    format: PackedFormat,
    bits: u32,
    form: ScaleLayout,
    source: &[u8],
    row_bytes: usize,
    to: &mut GroupBuffers<'_>,
) {
    let (block, block_bytes) = format.block_size();
    let lower_bits = format.lower_bits();
    let (upper_bytes, lower_bytes) = (64 * (bits - lower_bits) as usize, 64 * lower_bits as usize);
    // The codes of a missing row; its scales are zero, so any code would do.
    let mut unit_codes = [[0_u8; UNIT_COLUMNS]; GROUP_ROWS];
    for (unit, out) in to.codes.chunks_exact_mut(upper_bytes).enumerate() {
        for (lane, row) in source.chunks_exact(row_bytes).enumerate() {
            let start = unit * UNIT_COLUMNS / block * block_bytes;
            let block = &row[start..start + block_bytes];
            read_codes(format, block, unit % 8, &mut unit_codes[lane]);
            write_scales(form, format, block, unit, lane, to.scales);
        }
        let lower = &mut to.lower[unit * lower_bytes..][..lower_bytes];
        match lower_bits {
            0 => interleave(bits, &unit_codes, out),
            _ => {
                write_nibbles(&unit_codes, lower_bits, out);
                if lower_bits == 4 {
                    write_nibbles(&unit_codes, 0, lower);
                } else {
                    write_bit_pairs(&unit_codes, 0, lower);
                }
            }
        }
    }
}

/// The codes of one unit of one row. `sub` is the unit's index in a block of 256.
fn read_codes(format: PackedFormat, block: &[u8], sub: usize, out: &mut [u8; UNIT_COLUMNS]) {
    let (low, high) = out.split_at_mut(16);
    let mut nibbles = |packed: &[u8]| {
        for i in 0..16 {
            low[i] = packed[i] & 0x0f;
            high[i] = packed[i] >> 4;
        }
    };
    match format {
        PackedFormat::Q4_0 => nibbles(&block[2..18]),
        PackedFormat::Q4_1 => nibbles(&block[4..20]),
        PackedFormat::Q5_0 | PackedFormat::Q5_1 => {
            let at = if format == PackedFormat::Q5_0 { 2 } else { 4 };
            nibbles(&block[at + 4..at + 20]);
            let fifth = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            for (i, out) in out.iter_mut().enumerate() {
                *out |= ((fifth >> i & 1) as u8) << 4;
            }
        }
        PackedFormat::Q8_0 | PackedFormat::Q8Planes => {
            for (out, &code) in out.iter_mut().zip(&block[2..34]) {
                // Adding 128 turns the signed code into an unsigned one.
                *out = code ^ 0x80;
            }
        }
        PackedFormat::Q4K => {
            let packed = &block[16 + sub / 2 * 32..][..32];
            let shift = sub % 2 * 4;
            for (out, &byte) in out.iter_mut().zip(packed) {
                *out = byte >> shift & 0x0f;
            }
        }
        PackedFormat::Q5K => {
            let packed = &block[48 + sub / 2 * 32..][..32];
            let shift = sub % 2 * 4;
            for ((out, &byte), &fifth) in out.iter_mut().zip(packed).zip(&block[16..48]) {
                *out = byte >> shift & 0x0f | (fifth >> sub & 1) << 4;
            }
        }
        PackedFormat::Q6K | PackedFormat::Q6KPlanes => {
            let part = sub % 4;
            let low = &block[sub / 4 * 64 + part % 2 * 32..][..32];
            let high = &block[128 + sub / 4 * 32..][..32];
            for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
                *out = low >> (part / 2 * 4) & 0x0f | (high >> (2 * part) & 3) << 4;
            }
        }
        PackedFormat::F16 | PackedFormat::Bf16 | PackedFormat::F32 => {}
    }
}

/// Copies the scales of one unit of one row to their places.
fn write_scales(
    form: ScaleLayout,
    format: PackedFormat,
    block: &[u8],
    unit: usize,
    lane: usize,
    scales: &mut [u8],
) {
    let at = form.unit_offset(unit);
    let shared = form.super_offset(unit);
    let sub = unit % 8;
    match form {
        ScaleLayout::Plain => scales[at + 2 * lane..][..2].copy_from_slice(&block[..2]),
        ScaleLayout::Min => {
            scales[at + 2 * lane..][..2].copy_from_slice(&block[..2]);
            scales[at + 32 + 2 * lane..][..2].copy_from_slice(&block[2..4]);
        }
        ScaleLayout::SuperMin => {
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
                // The sign bit flipped: minimums are subtracted in the file's format, added here.
                scales[shared + 32 + 2 * lane..][..2].copy_from_slice(&[block[2], block[3] ^ 0x80]);
            }
        }
        ScaleLayout::SuperHalves => {
            debug_assert!(matches!(format, PackedFormat::Q6K | PackedFormat::Q6KPlanes));
            scales[at + lane] = block[192 + 2 * sub];
            scales[at + 16 + lane] = block[192 + 2 * sub + 1];
            if sub == 0 {
                scales[shared + 2 * lane..][..2].copy_from_slice(&block[208..210]);
            }
        }
    }
}

/// The four codes of one step of one row, as a word.
fn step_word(codes: &[u8; UNIT_COLUMNS], step: usize) -> u32 {
    let codes = &codes[4 * step..4 * step + 4];
    u32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]])
}

/// Writes a word of step `at`.
fn write_word(steps: &mut [[u8; 64]], at: usize, lane: usize, word: u32) {
    steps[at][4 * lane..4 * lane + 4].copy_from_slice(&word.to_le_bytes());
}

/// Four bits of each code, those from bit `from` on: steps 0 to 3 in the low nibbles, 4 to 7 in the high ones.
fn write_nibbles(codes: &[[u8; UNIT_COLUMNS]; GROUP_ROWS], from: u32, out: &mut [u8]) {
    let (steps, _) = out.as_chunks_mut::<64>();
    for (lane, codes) in codes.iter().enumerate() {
        for step in 0..4 {
            let (low, high) = (step_word(codes, step) >> from, step_word(codes, step + 4) >> from);
            write_word(steps, step, lane, low & 0x0f0f_0f0f | (high & 0x0f0f_0f0f) << 4);
        }
    }
}

/// Two bits of each code, those from bit `from` on: four steps to a byte.
fn write_bit_pairs(codes: &[[u8; UNIT_COLUMNS]; GROUP_ROWS], from: u32, out: &mut [u8]) {
    let (steps, _) = out.as_chunks_mut::<64>();
    for (lane, codes) in codes.iter().enumerate() {
        for half in 0..2 {
            let bits =
                (0..4).map(|step| (step_word(codes, 4 * half + step) >> from & 0x0303_0303) << (2 * step));
            write_word(steps, half, lane, bits.fold(0, |all, bits| all | bits));
        }
    }
}

/// Writes a unit's codes in the order of the first table of [`pack`](super).
fn interleave(bits: u32, codes: &[[u8; UNIT_COLUMNS]; GROUP_ROWS], out: &mut [u8]) {
    if bits != 8 {
        write_nibbles(codes, 0, out);
    }
    match bits {
        5 => {
            let (steps, _) = out.as_chunks_mut::<64>();
            for (lane, codes) in codes.iter().enumerate() {
                let bits = (0..8).map(|step| (step_word(codes, step) >> 4 & 0x0101_0101) << step);
                write_word(steps, 4, lane, bits.fold(0, |all, bits| all | bits));
            }
        }
        6 => write_bit_pairs(codes, 4, &mut out[256..]),
        8 => {
            let (steps, _) = out.as_chunks_mut::<64>();
            for (lane, codes) in codes.iter().enumerate() {
                for step in 0..8 {
                    write_word(steps, step, lane, step_word(codes, step));
                }
            }
        }
        _ => {}
    }
}
