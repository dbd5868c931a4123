//! Causal attention over a half-precision KV cache: scores, softmax and weighted sum in one pass over the keys.
//!
//! The softmax is computed online over tiles of [`PAGE_KEYS`] keys that begin at multiples of it
//! (<https://arxiv.org/abs/1805.02867>, the scheme of FlashAttention). A row sees keys up to its own position only:
//! later keys, and keys before its window, weigh exactly zero, so a row's result does not depend on its neighbours.

#![expect(clippy::needless_range_loop, reason = "several arrays are indexed by row at once")]

use super::elementwise::{self, exp};
use super::isa::Isa;

/// Keys that are scored before the running maximum is updated: a page of the cache.
pub(in crate::local) const PAGE_KEYS: usize = 64;
/// Keys that lie interleaved in the cache.
pub(in crate::local) const BLOCK_KEYS: usize = 16;
/// Maximum number of query rows that share a pass over the keys.
pub(in crate::local) const MAX_QUERY_ROWS: usize = 8;
/// The width of a head in the cache is a multiple of this.
pub(in crate::local) const HEAD_ALIGNMENT: usize = 16;

/// Query rows of one key head. Row `i` is query head `kv_head * group + i % group` of token `i / group`.
///
/// # Safety of its use
/// `out` is valid for the same range as `queries`, and nothing else accesses the rows' values.
#[derive(Debug)]
pub(in crate::local) struct AttentionArgs<'a> {
    /// `[tokens, heads * head_dim]`, rotated.
    pub(in crate::local) queries: &'a [f32],
    /// The same shape.
    pub(in crate::local) out: *mut f32,
    /// `heads * head_dim`.
    pub(in crate::local) stride: usize,
    /// Values of a head.
    pub(in crate::local) head_dim: usize,
    /// Query heads for each key head.
    pub(in crate::local) group: usize,
    /// The key head.
    pub(in crate::local) kv_head: usize,
    /// First row.
    pub(in crate::local) first: usize,
    /// Rows, at most [`MAX_QUERY_ROWS`].
    pub(in crate::local) rows: usize,
    /// Keys that the first token sees, itself included; the next token sees one more.
    pub(in crate::local) visible: usize,
    /// Number of last keys that a token sees, its own included.
    pub(in crate::local) window: usize,
    /// The factor of the products of queries and keys.
    pub(in crate::local) scale: f32,
    /// The limit of these products, see [`elementwise::soft_cap`].
    pub(in crate::local) softcap: Option<f32>,
    /// The cache: half floats of [`PAGE_KEYS`] positions per page.
    pub(in crate::local) pages: &'a [&'a [u16]],
    /// Offset of the head's keys in a page: `[PAGE_KEYS / BLOCK_KEYS, padded head_dim, BLOCK_KEYS]`.
    pub(in crate::local) keys: usize,
    /// Offset of the head's values in a page: `[PAGE_KEYS, padded head_dim]`.
    pub(in crate::local) values: usize,
}

/// Scratch memory of one thread.
#[derive(Debug, Default)]
pub(in crate::local) struct AttentionScratch {
    /// `[padded head_dim, rows]`.
    queries: Vec<f32>,
    /// `[rows, padded head_dim]`.
    sums: Vec<f32>,
}

/// Computes attention for the rows.
///
/// # Safety
/// The instruction set is available, and see [`AttentionArgs`].
#[inline(always)]
pub(super) unsafe fn attend<I: Isa>(args: &AttentionArgs<'_>, scratch: &mut AttentionScratch) {
    // SAFETY: by the caller's contract.
    unsafe {
        match args.rows {
            0 => {}
            1 => attend_rows::<I, 1>(args, scratch),
            2 => attend_rows::<I, 2>(args, scratch),
            3..=4 => attend_rows::<I, 4>(args, scratch),
            _ => attend_rows::<I, MAX_QUERY_ROWS>(args, scratch),
        }
    }
}

/// # Safety
/// As [`attend`]; `args.rows` is at most `R`.
#[inline(always)]
unsafe fn attend_rows<I: Isa, const R: usize>(args: &AttentionArgs<'_>, scratch: &mut AttentionScratch) {
    let dim = args.head_dim.next_multiple_of(HEAD_ALIGNMENT);
    let token = |row: usize| (args.first + row) / args.group;
    let start = |row: usize| {
        token(row) * args.stride
            + (args.kv_head * args.group + (args.first + row) % args.group) * args.head_dim
    };
    // Padding rows see as much as the last one and are not written.
    let visible: [usize; R] = std::array::from_fn(|row| args.visible + token(row.min(args.rows - 1)));
    let longest = visible[R - 1];
    let tiles = longest.div_ceil(PAGE_KEYS);
    let pages = &args.pages[..tiles];
    let page_end = args.keys.max(args.values) + PAGE_KEYS * dim;
    assert!(args.rows <= R && pages.iter().all(|page| page.len() >= page_end));

    scratch.queries.clear();
    scratch.queries.resize(dim * R, 0.0);
    scratch.sums.clear();
    scratch.sums.resize(dim * R, 0.0);
    for row in 0..args.rows {
        let query = &args.queries[start(row)..start(row) + args.head_dim];
        for (i, &value) in query.iter().enumerate() {
            scratch.queries[i * R + row] = value * args.scale;
        }
    }
    let queries = scratch.queries.as_ptr();
    let sums = scratch.sums.as_mut_ptr();
    let mut maximum = [f32::NEG_INFINITY; R];
    let mut total = [0.0_f32; R];
    let mut weights = [[0.0_f32; PAGE_KEYS]; R];
    // The first row sees the earliest keys.
    let first_tile = visible[0].saturating_sub(args.window) / PAGE_KEYS;

    for (tile, page) in pages.iter().enumerate().skip(first_tile) {
        let first = tile * PAGE_KEYS;
        let here = PAGE_KEYS.min(longest - first);
        // SAFETY: keys and values are inside the page, as asserted; queries and sums have `dim * R` values.
        unsafe {
            for block in 0..here.div_ceil(BLOCK_KEYS) {
                let keys = page.as_ptr().add(args.keys + block * BLOCK_KEYS * dim);
                for part in 0..I::PARTS {
                    let keys = keys.add(part * I::LANES);
                    let mut scores = [I::splat(0.0); R];
                    for i in 0..args.head_dim {
                        let key = I::load_f16(keys.add(i * BLOCK_KEYS));
                        for (row, score) in scores.iter_mut().enumerate() {
                            *score = I::mul_add(key, I::splat(*queries.add(i * R + row)), *score);
                        }
                    }
                    for (weights, score) in weights.iter_mut().zip(scores) {
                        I::store_f32(weights.as_mut_ptr().add(block * BLOCK_KEYS + part * I::LANES), score);
                    }
                }
            }
        }
        for row in 0..R {
            let weights = &mut weights[row];
            let seen = visible[row].saturating_sub(first).min(PAGE_KEYS);
            let hidden = visible[row].saturating_sub(args.window).saturating_sub(first);
            if hidden >= seen {
                weights.fill(0.0);
                continue;
            }
            if let Some(limit) = args.softcap {
                elementwise::soft_cap(weights, limit);
            }
            weights[..hidden].fill(f32::NEG_INFINITY);
            weights[seen..].fill(f32::NEG_INFINITY);
            let mut largest = [f32::NEG_INFINITY; BLOCK_KEYS];
            let (parts, _) = weights.as_chunks_mut::<BLOCK_KEYS>();
            for part in parts.iter() {
                for (largest, &weight) in largest.iter_mut().zip(part) {
                    *largest = if weight > *largest { weight } else { *largest };
                }
            }
            let largest = elementwise::largest_lane(&largest).max(maximum[row]);
            let mut sum = [0.0_f32; BLOCK_KEYS];
            for part in parts.iter_mut() {
                for (sum, weight) in sum.iter_mut().zip(part) {
                    *weight = exp(*weight - largest);
                    *sum += *weight;
                }
            }
            let shrink = exp(maximum[row] - largest);
            total[row] = total[row] * shrink + elementwise::sum_lanes(&sum);
            maximum[row] = largest;
            if shrink != 1.0 {
                for value in &mut scratch.sums[row * dim..(row + 1) * dim] {
                    *value *= shrink;
                }
            }
        }
        // SAFETY: as above.
        unsafe {
            for part in (0..dim).step_by(I::LANES) {
                let values = page.as_ptr().add(args.values + part);
                let mut acc = [I::splat(0.0); R];
                for (row, acc) in acc.iter_mut().enumerate() {
                    *acc = I::load_f32(sums.add(row * dim + part));
                }
                for key in 0..here {
                    let value = I::load_f16(values.add(key * dim));
                    for (acc, weights) in acc.iter_mut().zip(&weights) {
                        *acc = I::mul_add(value, I::splat(weights[key]), *acc);
                    }
                }
                for (row, acc) in acc.into_iter().enumerate() {
                    I::store_f32(sums.add(row * dim + part), acc);
                }
            }
        }
    }
    for row in 0..args.rows {
        // SAFETY: by the caller's contract, this row's values are valid and exclusively ours.
        let out = unsafe { std::slice::from_raw_parts_mut(args.out.add(start(row)), args.head_dim) };
        let inverse = 1.0 / total[row];
        for (out, sum) in out.iter_mut().zip(&scratch.sums[row * dim..]) {
            *out = sum * inverse;
        }
    }
}
