//! LSP in and out: the only place with LSP types and JSON.
//! It keeps no state and knows nothing of what the documents contain.
