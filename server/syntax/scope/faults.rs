//! Counts the faults of a syntax tree, as a measure of how broken it is.

use std::ops::Range;

use tree_sitter::Tree;

/// The number of faults of a tree: nodes that tree-sitter could not fit in, and tokens that it had to invent. The cost
/// is proportional to the size of the broken parts.
#[must_use]
pub fn fault_count(tree: &Tree) -> usize {
    fault_count_in(tree, 0..usize::MAX)
}

/// Like [`fault_count`], for faults that touch a range of bytes; its ends count as touched.
#[must_use]
pub fn fault_count_in(tree: &Tree, range: Range<usize>) -> usize {
    let (mut cursor, mut count) = (tree.walk(), 0);
    // Not recursive: a few kilobytes of `(` nest deeper than a thread's stack allows.
    'nodes: loop {
        let node = cursor.node();
        let is_past = node.start_byte() > range.end;
        if !is_past && node.end_byte() >= range.start && node.has_error() {
            count += usize::from(node.is_error() || node.is_missing());
            let descended = match range.start.checked_sub(1) {
                Some(byte) => cursor.goto_first_child_for_byte(byte).is_some(),
                None => cursor.goto_first_child(),
            };
            if descended {
                continue;
            }
        }
        if !is_past && cursor.goto_next_sibling() {
            continue;
        }
        while cursor.goto_parent() {
            if cursor.goto_next_sibling() {
                continue 'nodes;
            }
        }
        return count;
    }
}
