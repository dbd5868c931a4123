//! Questions about a place in the tree: in a string, a comment, an empty block; how broken is it.
//! It knows nothing of suggestions.
