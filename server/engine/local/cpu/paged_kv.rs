//! KV caches of several sequences, in pages that sequences share until one of them writes.
//!
//! A page holds the keys and values of all layers for as many positions as attention takes at once. A sequence is
//! a list of pages: its memory grows with its length, a fork copies nothing, and dropping it frees its memory.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::layer::round_to_f16;
use crate::TokenId;
use crate::local::config::{ModelConfig, RopeConfig, RopeStyle};
use crate::local::kernels::attention::{BLOCK_KEYS, HEAD_ALIGNMENT, PAGE_KEYS};
use crate::local::thread_pool::PrioritizedPool;
use crate::local::{SequenceTokens, SuffixShift};

/// Half floats, see [`PageLayout`]. Always finite: values after a sequence's end are multiplied by zero.
type KvPage = Arc<Vec<u16>>;

/// Offsets in a page: for each layer and key head the keys, `[PAGE_KEYS / BLOCK_KEYS, padded head_dim, BLOCK_KEYS]`,
/// then the values, `[PAGE_KEYS, padded head_dim]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageLayout {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    /// The padded width of a head.
    dim: usize,
}

impl PageLayout {
    fn new(config: &ModelConfig) -> Self {
        let ModelConfig { blocks, kv_heads, head_dim, .. } = *config;
        Self { layers: blocks, kv_heads, head_dim, dim: head_dim.next_multiple_of(HEAD_ALIGNMENT) }
    }

    /// Values in a page.
    fn page_len(&self) -> usize {
        self.layers * self.kv_heads * 2 * PAGE_KEYS * self.dim
    }

    /// Offset of a head's keys.
    pub(super) fn keys_offset(&self, layer: usize, kv_head: usize) -> usize {
        (layer * self.kv_heads + kv_head) * 2 * PAGE_KEYS * self.dim
    }

    /// Offset of a head's values.
    pub(super) fn values_offset(&self, layer: usize, kv_head: usize) -> usize {
        self.keys_offset(layer, kv_head) + PAGE_KEYS * self.dim
    }
}

/// The positions of `tokens` are valid. A fork without its beginning has empty pages there.
#[derive(Debug, Clone, Default)]
struct SequencePages {
    pages: Vec<KvPage>,
    tokens: SequenceTokens,
}

/// All sequences of a decoder.
pub(super) struct PagedKv {
    layout: PageLayout,
    sequences: Vec<SequencePages>,
}

impl fmt::Debug for PagedKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lens: Vec<usize> = self.sequences.iter().map(|it| it.tokens.len()).collect();
        f.debug_struct("Pages").field("layout", &self.layout).field("lens", &lens).finish()
    }
}

impl PagedKv {
    /// One empty sequence.
    pub(super) fn new(config: &ModelConfig) -> Self {
        Self { layout: PageLayout::new(config), sequences: vec![SequencePages::default()] }
    }

    /// Offsets in a page.
    pub(super) fn layout(&self) -> PageLayout {
        self.layout
    }

    /// Sets the number of sequences; new ones are empty.
    pub(super) fn resize_sequences(&mut self, sequences: usize) {
        self.sequences.resize(sequences, SequencePages::default());
    }

    /// The number of sequences.
    pub(super) fn sequence_count(&self) -> usize {
        self.sequences.len()
    }

    /// Valid positions of a sequence.
    pub(super) fn sequence_len(&self, sequence: usize) -> usize {
        self.sequences[sequence].tokens.len()
    }

    /// The tokens at the valid positions of a sequence.
    pub(super) fn sequence_tokens(&self, sequence: usize) -> &SequenceTokens {
        &self.sequences[sequence].tokens
    }

    /// Makes the positions after a sequence's end valid, after they were written: those of `tokens`, and those of
    /// `shift` between them.
    pub(super) fn append_tokens(&mut self, sequence: usize, tokens: &[TokenId], shift: Option<&SuffixShift>) {
        let (before, after) = tokens.split_at(shift.map_or(tokens.len(), |shift| shift.insert_after));
        self.sequences[sequence].tokens.append_tokens(before);
        if let Some(SuffixShift { source, rows, changed, .. }) = shift {
            let shifted = self.sequences[*source].tokens.as_slice()[rows.clone()].to_vec();
            self.sequences[sequence].tokens.append_shifted(&shifted, *changed);
            self.sequences[sequence].tokens.append_tokens(after);
        }
        self.trim_pages(sequence, 0);
    }

    /// Drops pages that neither the valid positions nor the first `end` need.
    pub(super) fn trim_pages(&mut self, sequence: usize, end: usize) {
        let SequencePages { pages, tokens } = &mut self.sequences[sequence];
        pages.truncate(end.max(tokens.len()).div_ceil(PAGE_KEYS));
    }

    /// Keeps the first `len` positions and their pages.
    pub(super) fn truncate_sequence(&mut self, sequence: usize, len: usize) {
        self.sequences[sequence].tokens.truncate(len);
        self.trim_pages(sequence, 0);
    }

    /// Bytes of all pages, shared ones counted once.
    pub(super) fn total_bytes(&self) -> usize {
        let mut pages: Vec<*const u16> = self
            .sequences
            .iter()
            .flat_map(|it| &it.pages)
            .filter(|it| !it.is_empty())
            .map(|it| it.as_ptr())
            .collect();
        pages.sort_unstable();
        pages.dedup();
        pages.len() * self.page_bytes()
    }

    /// Bytes of a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.layout.page_len() * size_of::<u16>()
    }

    /// Makes sequence `to` a copy of the positions `rows` of sequence `from`. They share the pages.
    pub(super) fn fork_sequence(&mut self, from: usize, to: usize, rows: Range<usize>) {
        let source = &self.sequences[from];
        let rows = rows.start.min(source.tokens.len())..rows.end.min(source.tokens.len());
        let absent = KvPage::default();
        let pages = source.pages[..rows.end.div_ceil(PAGE_KEYS)].iter().enumerate();
        let pages =
            pages.map(|(i, page)| if i < rows.start / PAGE_KEYS { &absent } else { page }).cloned().collect();
        let tokens = source.tokens.copy_prefix(rows.end);
        self.sequences[to] = SequencePages { pages, tokens };
    }

    /// Gives the sequence exclusive pages for the positions from its end to `end`.
    pub(super) fn reserve_pages(&mut self, sequence: usize, end: usize) {
        let SequencePages { pages, tokens } = &mut self.sequences[sequence];
        let len = tokens.len();
        let count = end.div_ceil(PAGE_KEYS);
        let fresh = || KvPage::new(vec![0; self.layout.page_len()]);
        pages.resize_with(count.max(pages.len()), fresh);
        for (i, page) in pages.iter_mut().enumerate().take(count).skip(len / PAGE_KEYS) {
            if Arc::get_mut(page).is_some_and(|page| !page.is_empty()) {
                continue;
            }
            // A page that begins at or after the end holds nothing valid.
            *page =
                if i * PAGE_KEYS >= len || page.is_empty() { fresh() } else { KvPage::new(page.to_vec()) };
        }
    }

    /// The pages of a sequence, for attention.
    pub(super) fn page_slices(&self, sequence: usize) -> Vec<&[u16]> {
        self.sequences[sequence].pages.iter().map(|page| page.as_slice()).collect()
    }

    /// The pages of a sequence from its end on, for writing by several threads.
    pub(super) fn page_writer(&mut self, sequence: usize) -> PageWriter<'_> {
        let SequencePages { pages, tokens } = &mut self.sequences[sequence];
        let first = tokens.len() / PAGE_KEYS;
        let start = |(i, page): (usize, &mut KvPage)| {
            // Shared pages stay as they are.
            let own = if i < first { None } else { Arc::get_mut(page) };
            own.map_or(ptr::null_mut(), Vec::as_mut_ptr)
        };
        let pages = pages.iter_mut().enumerate().map(start).collect();
        PageWriter { pages, layout: self.layout, borrow: PhantomData }
    }

    /// Copies the positions `rows` of sequence `from` to sequence `to` from `at` on, after its end, where pages are
    /// reserved. Values are copied unchanged; keys are rotated from their old to their new positions.
    pub(super) fn shift_suffix(
        &mut self,
        from: usize,
        rows: Range<usize>,
        to: usize,
        at: usize,
        config: &ModelConfig,
        pool: PrioritizedPool<'_>,
    ) {
        let layout = self.layout;
        // Clones the list, not the pages.
        let source = self.sequences[from].pages.clone();
        let target = self.page_writer(to);
        let distance = at as f32 - rows.start as f32;
        let turn = |rope: &RopeConfig| -> Vec<(f32, f32)> {
            rope.frequencies.iter().map(|frequency| (distance * frequency).sin_cos()).collect()
        };
        let turns: Vec<_> = config.ropes.iter().map(turn).collect();
        let stays = at == rows.start;
        let len = rows.len();
        pool.run_pieces(layout.layers * layout.kv_heads, |piece, _| {
            let (layer, kv_head) = (piece / layout.kv_heads, piece % layout.kv_heads);
            let place = HeadSlot { layout, layer, kv_head };
            let rotation = config.layers[layer].rope.filter(|_| !stays);
            let rotation = rotation.map(|rope| (config.ropes[rope].style, &turns[rope][..]));
            let (style, turn) = rotation.unwrap_or((RopeStyle::Halves, &[]));
            let pairs = turn.len();
            let mut halves = [vec![f16::ZERO; len], vec![f16::ZERO; len]];
            let mut floats = [vec![0.0_f32; len], vec![0.0_f32; len]];
            for (pair, (sine, cosine)) in turn.iter().enumerate() {
                let dims = match style {
                    RopeStyle::Halves => [pair, pair + pairs],
                    RopeStyle::Interleaved => [2 * pair, 2 * pair + 1],
                };
                for ((dim, halves), floats) in dims.iter().zip(&mut halves).zip(&mut floats) {
                    place.gather_keys(&source, rows.start, *dim, halves);
                    halves.convert_to_f32_slice(floats);
                }
                let [low, high] = &mut floats;
                for (low, high) in low.iter_mut().zip(high) {
                    (*low, *high) = (*low * cosine - *high * sine, *low * sine + *high * cosine);
                }
                for ((dim, halves), floats) in dims.iter().zip(&mut halves).zip(&mut floats) {
                    round_to_f16(floats, halves);
                    // SAFETY: only this piece writes to this layer and head.
                    unsafe { place.scatter_keys(&target, at, *dim, halves) };
                }
            }
            for dim in 2 * pairs..layout.head_dim {
                place.gather_keys(&source, rows.start, dim, &mut halves[0]);
                // SAFETY: as above.
                unsafe { place.scatter_keys(&target, at, dim, &halves[0]) };
            }
            for row in 0..len {
                let (old, new) = (rows.start + row, at + row);
                let start = layout.values_offset(layer, kv_head) + old % PAGE_KEYS * layout.dim;
                let value = &source[old / PAGE_KEYS][start..start + layout.dim];
                // SAFETY: as above.
                let values = unsafe { target.block_values(layer, kv_head, new / BLOCK_KEYS) };
                values[new % BLOCK_KEYS * layout.dim..][..layout.dim].copy_from_slice(value);
            }
        });
    }
}

/// One layer and key head.
struct HeadSlot {
    layout: PageLayout,
    layer: usize,
    kv_head: usize,
}

impl HeadSlot {
    /// Reads one dimension of the keys at the positions from `first` on.
    fn gather_keys(&self, source: &[KvPage], first: usize, dim: usize, halves: &mut [f16]) {
        let keys = self.layout.keys_offset(self.layer, self.kv_head);
        let mut position = first;
        let mut rest = halves;
        while !rest.is_empty() {
            let lane = position % BLOCK_KEYS;
            let (now, later) = rest.split_at_mut(rest.len().min(BLOCK_KEYS - lane));
            let block = position % PAGE_KEYS / BLOCK_KEYS * BLOCK_KEYS * self.layout.dim;
            let start = keys + block + dim * BLOCK_KEYS + lane;
            for (half, &bits) in now.iter_mut().zip(&source[position / PAGE_KEYS][start..]) {
                *half = f16::from_bits(bits);
            }
            position += now.len();
            rest = later;
        }
    }

    /// Writes one dimension of the keys at the positions from `first` on.
    ///
    /// # Safety
    /// Nothing else accesses this layer's and head's keys of the target.
    unsafe fn scatter_keys(&self, target: &PageWriter<'_>, first: usize, dim: usize, halves: &[f16]) {
        let mut position = first;
        let mut rest = halves;
        while !rest.is_empty() {
            let lane = position % BLOCK_KEYS;
            let (now, later) = rest.split_at(rest.len().min(BLOCK_KEYS - lane));
            // SAFETY: by the caller's contract.
            let keys = unsafe { target.block_keys(self.layer, self.kv_head, position / BLOCK_KEYS) };
            for (bits, half) in keys[dim * BLOCK_KEYS + lane..].iter_mut().zip(now) {
                *bits = half.to_bits();
            }
            position += now.len();
            rest = later;
        }
    }
}

/// The pages of one sequence, for several threads that each write to different slots.
pub(super) struct PageWriter<'a> {
    /// Null where writing is not allowed.
    pages: Vec<*mut u16>,
    layout: PageLayout,
    borrow: PhantomData<&'a mut [u16]>,
}

// SAFETY: hands out disjoint parts, each to one thread at a time (the contract of its methods).
unsafe impl Sync for PageWriter<'_> {}

impl PageWriter<'_> {
    /// A head's keys of a block of [`BLOCK_KEYS`] positions, counted from the sequence's beginning:
    /// `[padded head_dim, BLOCK_KEYS]`.
    ///
    /// # Safety
    /// While they are in use, they are not requested again.
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint, see Safety")]
    pub(super) unsafe fn block_keys(&self, layer: usize, kv_head: usize, block: usize) -> &mut [u16] {
        // SAFETY: by the caller's contract.
        unsafe { self.block_slice(self.layout.keys_offset(layer, kv_head), block) }
    }

    /// A head's values of a block: `[BLOCK_KEYS, padded head_dim]`.
    ///
    /// # Safety
    /// While they are in use, they are not requested again.
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint, see Safety")]
    pub(super) unsafe fn block_values(&self, layer: usize, kv_head: usize, block: usize) -> &mut [u16] {
        // SAFETY: by the caller's contract.
        unsafe { self.block_slice(self.layout.values_offset(layer, kv_head), block) }
    }

    /// # Safety
    /// While the slice is in use, it is not requested again.
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint, see Safety")]
    unsafe fn block_slice(&self, head: usize, block: usize) -> &mut [u16] {
        let len = BLOCK_KEYS * self.layout.dim;
        let start = head + block % (PAGE_KEYS / BLOCK_KEYS) * len;
        let page = self.pages[block / (PAGE_KEYS / BLOCK_KEYS)];
        assert!(!page.is_null() && start + len <= self.layout.page_len(), "a page that is not to be written");
        // SAFETY: inside the page, which is borrowed mutably and belongs to this sequence only; the slice has one user.
        unsafe { slice::from_raw_parts_mut(page.add(start), len) }
    }
}
