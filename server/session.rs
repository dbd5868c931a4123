//! The session: one thread owns the documents, one owns the engine, a mailbox of one slot between them.
//! It knows nothing of LSP, JSON or tensors.
