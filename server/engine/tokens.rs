//! The vocabulary: encode, count, UTF-8-safe streaming decode, FIM ids.
//! It knows nothing of tensors or prompts.

/// Index of a token in the vocabulary.
pub type TokenId = u32;

/// A model's vocabulary.
#[derive(Debug)]
pub struct Tokens {}
