//! The operations that an instruction set must offer for the kernels to be compiled for it.

/// Vectors of an instruction set. A *group* is 16 weight rows; a vector holds [`Isa::LANES`] of them, and
/// [`Isa::PARTS`] vectors make the group.
///
/// Every operation on floats rounds as IEEE 754 specifies (`mul_add` once), so all sets give the same bits.
///
/// # Safety of the methods
/// They may be called only where the instruction set is available, and should be called only in functions that
/// have its target features, into which they are inlined. Pointers are valid for the method's reads or writes and
/// need no alignment.
pub(super) trait Isa: Copy + 'static {
    /// Vectors per group of 16 rows.
    const PARTS: usize;
    /// Weight rows per vector.
    const LANES: usize;
    /// Whether [`Isa::dot`] takes 8-bit codes as signed numbers, which removes their offset of 128.
    const SIGNED_BYTES: bool;

    /// Four codes for each lane.
    type Bytes: Copy;
    /// A 32-bit sum for each lane.
    type Ints: Copy;
    /// The intermediate sums of a set without 32-bit dot products, until [`Isa::flush`].
    type Narrow: Copy;
    /// A float for each lane.
    type Floats: Copy;

    /// `4 * LANES` bytes.
    unsafe fn load(from: *const u8) -> Self::Bytes;
    /// Prefetches the cache line at `from`, which may be any address, into the second-level cache. On Zen 4,
    /// prefetching into the first level that far ahead streams the weights more slowly.
    unsafe fn prefetch(from: *const u8);
    /// Zeros.
    unsafe fn zero() -> Self::Bytes;
    /// Writes `4 * LANES` bytes.
    unsafe fn store(to: *mut u8, bytes: Self::Bytes);
    /// The lower four bits of each byte.
    unsafe fn low(bytes: Self::Bytes) -> Self::Bytes;
    /// The upper four bits of each byte.
    unsafe fn high(bytes: Self::Bytes) -> Self::Bytes;
    /// `base | (bits << up >> down) & mask` for each byte, where the shifts may bring in the neighbour's bits,
    /// which `mask` must remove. `up` or `down` is 0; both are constants after inlining, at most 4 and 6.
    unsafe fn merge(base: Self::Bytes, bits: Self::Bytes, up: u32, down: u32, mask: u8) -> Self::Bytes;

    /// `*from << shift` in all lanes; `shift` is a constant after inlining.
    unsafe fn ints(from: *const i32, shift: u32) -> Self::Ints;
    /// Zeros.
    unsafe fn narrow() -> Self::Narrow;
    /// Adds to each lane the product of its four codes with the four signed bytes at `x`. `bits` is the codes'
    /// width, a constant after inlining.
    unsafe fn dot(
        ints: &mut Self::Ints,
        narrow: &mut Self::Narrow,
        codes: Self::Bytes,
        x: *const u8,
        bits: u32,
    );
    /// Moves the sums in `narrow` to `ints`. Must be called after at most [`flush_after`] calls of [`Isa::dot`].
    unsafe fn flush(ints: &mut Self::Ints, narrow: &mut Self::Narrow, bits: u32);
    /// Sum.
    unsafe fn add_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// The sums as floats.
    unsafe fn floats(ints: Self::Ints) -> Self::Floats;

    /// `value` in all lanes.
    unsafe fn splat(value: f32) -> Self::Floats;
    /// `LANES` floats.
    unsafe fn load_f32(from: *const f32) -> Self::Floats;
    /// Writes `LANES` floats.
    unsafe fn store_f32(to: *mut f32, value: Self::Floats);
    /// `LANES` half-precision floats.
    unsafe fn load_f16(from: *const u16) -> Self::Floats;
    /// `LANES` bfloat16 numbers.
    unsafe fn load_bf16(from: *const u16) -> Self::Floats;
    /// `LANES` unsigned bytes as floats.
    unsafe fn load_u8(from: *const u8) -> Self::Floats;
    /// `LANES` signed bytes as floats.
    unsafe fn load_i8(from: *const u8) -> Self::Floats;
    /// Sum.
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Product.
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
}

/// Calls of [`Isa::dot`] after which a 16-bit sum of two products each could overflow: codes below
/// `2^bits`, activations within ±127.
pub(super) const fn flush_after(bits: u32) -> usize {
    match bits {
        4 => 8,
        5 => 4,
        6 => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int16_sums_do_not_overflow_before_flush() {
        for bits in [4, 5, 6] {
            let largest = ((1_i64 << bits) - 1) * 127 * 2 * flush_after(bits) as i64;
            assert!(largest <= i64::from(i16::MAX), "{bits} bits: {largest}");
        }
        // Eight bits go through absolute values: at most 128 * 127 twice.
        assert!(128 * 127 * 2 <= i32::from(i16::MAX));
    }
}
