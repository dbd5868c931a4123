//! A fake engine for tests and benches: it answers from a script, at a chosen speed.
//! It knows nothing of tensors.
