//! Byte-pair encoding of one piece of text: the pair of lowest rank merges first, the leftmost among equals.
//!
//! Sennrich, Haddow, Birch 2016, over bytes as in GPT-2. Checked against the `tokenizers` library in the tests.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::TokenId;

/// Pieces longer than this are merged with a heap: the plain scan is quadratic.
const MAX_SCAN_LEN: usize = 96;
const NO_RANK: u32 = u32::MAX;

// Number of merge lookups on this thread: a measure of work that does not depend on the machine's speed.
#[cfg(test)]
thread_local! { pub(super) static LOOKUP_COUNT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) } }

/// The merge rules: which token each pair merges into.
#[derive(Debug, Default)]
pub(crate) struct MergeTable {
    pairs: HashMap<u64, (u32, TokenId), BuildHasherDefault<PairHasher>>,
}

impl MergeTable {
    pub(crate) fn with_capacity(pairs: usize) -> Self {
        Self { pairs: HashMap::with_capacity_and_hasher(pairs, BuildHasherDefault::default()) }
    }

    /// Adds the pair of the next rank; a duplicate of an earlier pair is ignored.
    pub(crate) fn insert(&mut self, left: TokenId, right: TokenId, rank: u32, whole: TokenId) {
        self.pairs.entry(pair_key(left, right)).or_insert((rank, whole));
    }

    fn lookup_pair(&self, left: TokenId, right: TokenId) -> (u32, TokenId) {
        #[cfg(test)]
        LOOKUP_COUNT.set(LOOKUP_COUNT.get() + 1);
        self.pairs.get(&pair_key(left, right)).copied().unwrap_or((NO_RANK, 0))
    }

    /// Merges `symbols`, the tokens of a piece's single bytes, and appends the result to `out`.
    pub(crate) fn merge_symbols(&self, symbols: &mut Vec<TokenId>, out: &mut Vec<TokenId>) {
        if symbols.len() <= MAX_SCAN_LEN {
            self.merge_by_scan(symbols);
            out.extend_from_slice(symbols);
        } else {
            self.merge_by_heap(symbols, out);
        }
    }

    fn merge_by_scan(&self, symbols: &mut Vec<TokenId>) {
        // The rank of each symbol with its successor.
        let mut ranks = [(NO_RANK, 0); MAX_SCAN_LEN];
        for i in 1..symbols.len() {
            ranks[i - 1] = self.lookup_pair(symbols[i - 1], symbols[i]);
        }
        while symbols.len() > 1 {
            let pairs = symbols.len() - 1;
            let mut best = 0;
            for i in 1..pairs {
                if ranks[i].0 < ranks[best].0 {
                    best = i;
                }
            }
            let (rank, whole) = ranks[best];
            if rank == NO_RANK {
                return;
            }
            symbols[best] = whole;
            symbols.remove(best + 1);
            ranks.copy_within(best + 1..pairs, best);
            if best > 0 {
                ranks[best - 1] = self.lookup_pair(symbols[best - 1], whole);
            }
            if best + 1 < symbols.len() {
                ranks[best] = self.lookup_pair(whole, symbols[best + 1]);
            }
        }
    }

    fn merge_by_heap(&self, symbols: &mut [TokenId], out: &mut Vec<TokenId>) {
        // A linked list over the symbols; a symbol that was merged into its left neighbour is MERGED.
        const MERGED: u32 = u32::MAX;
        let len = symbols.len();
        let mut next: Vec<u32> = (1..=len as u32).collect();
        let mut previous: Vec<u32> = (0..len as u32).map(|i| i.wrapping_sub(1)).collect();
        let mut heap = BinaryHeap::new();
        let push = |heap: &mut BinaryHeap<_>, symbols: &[TokenId], left: usize, right: usize| {
            let (rank, whole) = self.lookup_pair(symbols[left], symbols[right]);
            if rank != NO_RANK {
                heap.push(Reverse((rank, left as u32, right as u32, whole)));
            }
        };
        for i in 1..len {
            push(&mut heap, symbols, i - 1, i);
        }
        while let Some(Reverse((rank, left, right, whole))) = heap.pop() {
            let (l, r) = (left as usize, right as usize);
            // Stale where either side has changed since.
            if symbols[l] == MERGED || symbols[r] == MERGED || next[l] != right {
                continue;
            }
            if self.lookup_pair(symbols[l], symbols[r]) != (rank, whole) {
                continue;
            }
            symbols[l] = whole;
            symbols[r] = MERGED;
            let after = next[r];
            next[l] = after;
            if (after as usize) < len {
                previous[after as usize] = left;
                push(&mut heap, symbols, l, after as usize);
            }
            if previous[l] != MERGED {
                push(&mut heap, symbols, previous[l] as usize, l);
            }
        }
        out.extend(symbols.iter().filter(|&&symbol| symbol != MERGED));
    }
}

fn pair_key(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// One multiplication: the keys are pairs of small numbers, and the default hash is several times slower.
#[derive(Debug, Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let product = u128::from(self.0 ^ n) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_and_scan_agree() {
        // Random merges over four symbols, nested.
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut merges = MergeTable::default();
            for rank in 0..random.u32(1..60) {
                let tokens = 4 + rank;
                merges.insert(random.u32(..tokens), random.u32(..tokens), rank, tokens);
            }
            for _ in 0..20 {
                let symbols: Vec<u32> =
                    (0..random.usize(0..=MAX_SCAN_LEN)).map(|_| random.u32(..4)).collect();
                let mut scanned = symbols.clone();
                merges.merge_by_scan(&mut scanned);
                let mut heaped = Vec::new();
                merges.merge_by_heap(&mut symbols.clone(), &mut heaped);
                assert_eq!(scanned, heaped, "{symbols:?}");
            }
        }
    }
}
