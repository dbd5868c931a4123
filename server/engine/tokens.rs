//! The vocabulary: encode, count, UTF-8-safe streaming decode, FIM ids.
//! It knows nothing of tensors or prompts.

pub(crate) mod tiny;

/// Index of a token in the vocabulary.
pub type TokenId = u32;

/// A model's vocabulary.
#[derive(Debug)]
pub struct Tokens {}

/// GPT-2's printable spelling of a byte (`bytes_to_unicode` of its `encoder.py`): printable Latin-1 stands
/// for itself, the 68 others are moved to U+0100 and up.
pub(crate) fn byte_to_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let moved = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + moved).unwrap_or(char::REPLACEMENT_CHARACTER)
}
