//! Converts blocks of formats without kernels into a format that has them, when they are read.
//!
//! The target is the smallest format that can hold the values. `Q8_0` holds those of `IQ4_NL` and `MXFP4` exactly: a
//! scale and signed bytes. It holds those of `IQ4_XS` up to the rounding of a scale to a half float. `Q6_K` holds those
//! of `Q3_K` exactly: the same scales, and codes with fewer bits. `Q2_K` has a minimum for every 16 values, which no
//! format with kernels has; `Q6_K` has a scale for every 16 values, and its rounding is small beside the steps of a
//! two-bit code.
//!
//! Infinite and NaN scales stay what they are, so that the check for damage finds them.
//!
//! Formats: `ggml-quants.c` and `ggml-common.h` of <https://github.com/ggml-org/ggml>.

use candle_core::quantized::GgmlDType;
use half::f16;

/// The conversion of blocks into blocks of another format with the same values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conversion {
    /// The format that results.
    pub(super) target: GgmlDType,
    /// Bytes of a stored block.
    pub(super) stored_bytes: usize,
    /// Bytes that result from a stored block: one or more blocks of the target.
    pub(super) converted_bytes: usize,
    /// Converts one block.
    convert: fn(&[u8], &mut [u8]),
}

impl Conversion {
    /// Converts complete blocks. `out` has room for exactly their result.
    pub(super) fn convert_blocks(&self, stored: &[u8], out: &mut [u8]) {
        let blocks = stored.chunks_exact(self.stored_bytes);
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.converted_bytes)) {
            (self.convert)(block, out);
        }
    }
}

const Q8_0_BYTES: usize = 34;
const Q6K_BYTES: usize = 210;

pub(super) const IQ4_NL_TO_Q8_0: Conversion = Conversion {
    target: GgmlDType::Q8_0,
    stored_bytes: 18,
    converted_bytes: Q8_0_BYTES,
    convert: |block, out| write_q8_0([block[0], block[1]], &block[2..], &IQ4_NL_VALUES, out),
};
pub(super) const IQ4_XS_TO_Q8_0: Conversion = Conversion {
    target: GgmlDType::Q8_0,
    stored_bytes: 136,
    converted_bytes: 8 * Q8_0_BYTES,
    convert: convert_iq4_xs,
};
pub(super) const MXFP4_TO_Q8_0: Conversion = Conversion {
    target: GgmlDType::Q8_0,
    stored_bytes: 17,
    converted_bytes: Q8_0_BYTES,
    convert: convert_mxfp4,
};
pub(super) const Q2K_TO_Q6K: Conversion =
    Conversion { target: GgmlDType::Q6K, stored_bytes: 84, converted_bytes: Q6K_BYTES, convert: convert_q2k };
pub(super) const Q3K_TO_Q6K: Conversion = Conversion {
    target: GgmlDType::Q6K,
    stored_bytes: 110,
    converted_bytes: Q6K_BYTES,
    convert: convert_q3k,
};

/// `kvalues_iq4nl`.
const IQ4_NL_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// `kvalues_mxfp4`: twice the values of a four-bit float.
const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Writes one block of `Q8_0` from 32 nibbles, which are indices into `values`.
fn write_q8_0(scale: [u8; 2], nibbles: &[u8], values: &[i8; 16], out: &mut [u8]) {
    let (out_scale, codes) = out.split_at_mut(2);
    out_scale.copy_from_slice(&scale);
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(nibbles) {
        *low = values[usize::from(byte & 0x0f)] as u8;
        *high = values[usize::from(byte >> 4)] as u8;
    }
}

fn convert_iq4_xs(block: &[u8], out: &mut [u8]) {
    let scale = read_f16(block, 0);
    let high_bits = u16::from_le_bytes([block[2], block[3]]);
    let (low_bits, codes) = block[4..].split_at(4);
    for (unit, out) in out.chunks_exact_mut(Q8_0_BYTES).enumerate() {
        let low = low_bits[unit / 2] >> (unit % 2 * 4) & 0x0f;
        let high = (high_bits >> (2 * unit) & 3) as u8;
        let scale = scale * f32::from((high << 4 | low) as i8 - 32);
        write_q8_0(f16::from_f32(scale).to_le_bytes(), &codes[16 * unit..][..16], &IQ4_NL_VALUES, out);
    }
}

fn convert_mxfp4(block: &[u8], out: &mut [u8]) {
    // A power of two without a sign or fraction, halved because the table has doubled values. Half floats begin at
    // 2^-24, far below any scale that matters; one beyond their range becomes infinite and is reported as damage.
    let scale = f32::powi(2.0, i32::from(block[0]) - 128);
    write_q8_0(f16::from_f32(scale).to_le_bytes(), &block[1..], &MXFP4_VALUES, out);
}

/// The two lower bits of the 256 codes of `Q2_K` and `Q3_K`.
fn read_bit_pairs(packed: &[u8], codes: &mut [u8; 256]) {
    for (unit, codes) in codes.chunks_exact_mut(32).enumerate() {
        for (code, &byte) in codes.iter_mut().zip(&packed[unit / 4 * 32..][..32]) {
            *code = byte >> (2 * (unit % 4)) & 3;
        }
    }
}

/// Writes a block of `Q6_K`; a value is `scale * scales[i / 16] * (codes[i] - 32)`.
fn write_q6k(scale: [u8; 2], scales: [i8; 16], codes: &[u8; 256], out: &mut [u8]) {
    let (low, rest) = out.split_at_mut(128);
    let (high, rest) = rest.split_at_mut(64);
    for half in 0..2 {
        for i in 0..32 {
            let code = |part: usize| codes[128 * half + 32 * part + i];
            low[64 * half + i] = code(0) & 0x0f | (code(2) & 0x0f) << 4;
            low[64 * half + 32 + i] = code(1) & 0x0f | (code(3) & 0x0f) << 4;
            high[32 * half + i] = code(0) >> 4 | code(1) >> 4 << 2 | code(2) >> 4 << 4 | code(3) >> 4 << 6;
        }
    }
    for (out, scale) in rest.iter_mut().zip(scales) {
        *out = scale as u8;
    }
    rest[16..].copy_from_slice(&scale);
}

fn convert_q3k(block: &[u8], out: &mut [u8]) {
    let (high_bits, rest) = block.split_at(32);
    let (low_bits, rest) = rest.split_at(64);
    let (packed_scales, scale) = rest.split_at(12);
    let mut codes = [0; 256];
    read_bit_pairs(low_bits, &mut codes);
    for (i, code) in codes.iter_mut().enumerate() {
        // From an offset of 4 to one of 32.
        *code = (*code | (high_bits[i % 32] >> (i / 32) & 1) << 2) + 28;
    }
    let scales = std::array::from_fn(|i| {
        let low = packed_scales[i % 8] >> (i / 8 * 4) & 0x0f;
        let high = packed_scales[8 + i % 4] >> (i / 4 * 2) & 3;
        (high << 4 | low) as i8 - 32
    });
    write_q6k([scale[0], scale[1]], scales, &codes, out);
}

/// The greatest magnitude of a code of `Q6_K` with either sign.
const Q6K_MAX_CODE: f32 = 31.0;
/// The greatest scale of 16 values in a block of `Q6_K`.
const Q6K_MAX_SCALE: f32 = 127.0;

fn convert_q2k(block: &[u8], out: &mut [u8]) {
    let (packed_scales, rest) = block.split_at(16);
    let (scale, min) = (read_f16(block, 80), read_f16(block, 82));
    let mut codes = [0; 256];
    read_bit_pairs(rest, &mut codes);
    // Four codes have four values, so each 16 values are converted through a table.
    let tables: [[f32; 4]; 16] = std::array::from_fn(|i| {
        let (scale, min) =
            (scale * f32::from(packed_scales[i] & 0x0f), min * f32::from(packed_scales[i] >> 4));
        std::array::from_fn(|code| scale * code as f32 - min)
    });
    let greatest =
        |values: &[f32; 4]| values.iter().fold(0.0_f32, |greatest, value| value.abs().max(greatest));
    let needed = tables.each_ref().map(|values| greatest(values) / Q6K_MAX_CODE);
    let most = needed.iter().fold(0.0_f32, |most, &needed| needed.max(most));
    // Zero times a number is not finite exactly if the number is not.
    let not_finite = 0.0 * scale + 0.0 * min;
    let unit = f16::from_f32(most / Q6K_MAX_SCALE + not_finite);
    let unit_value = unit.to_f32();
    let mut scales = [0; 16];
    for (i, codes) in codes.chunks_exact_mut(16).enumerate() {
        // Rounded up, so that the greatest value has a code.
        let multiple =
            if unit_value > 0.0 { (needed[i] / unit_value).ceil().clamp(1.0, Q6K_MAX_SCALE) } else { 0.0 };
        scales[i] = multiple as i8;
        let step = multiple * unit_value;
        let table = tables[i].map(|value| {
            let code = if step > 0.0 { (value / step).round().clamp(-32.0, Q6K_MAX_CODE) } else { 0.0 };
            (code as i8 + 32) as u8
        });
        codes.iter_mut().for_each(|code| *code = table[usize::from(*code)]);
    }
    write_q6k(unit.to_le_bytes(), scales, &codes, out);
}

fn read_f16(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests;
