//! The spellings of token bytes in model files.

/// GPT-2's printable spelling of a byte (`bytes_to_unicode` of its `encoder.py`): printable Latin-1 represents
/// itself, the 68 others are moved to U+0100 and up.
pub(super) fn byte_to_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let moved = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + moved).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The inverse of [`byte_to_char`], indexed by code point.
pub(super) fn char_to_byte_table() -> [Option<u8>; 0x144] {
    let mut bytes = [None; 0x144];
    for byte in 0..=255 {
        bytes[byte_to_char(byte) as usize] = Some(byte);
    }
    bytes
}

/// Appends the bytes of a token in GPT-2's spelling; returns false if it is not in that spelling.
pub(super) fn push_unspelled(out: &mut Vec<u8>, text: &[u8], spelled: &[Option<u8>; 0x144]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    for char in text.chars() {
        let Some(&Some(byte)) = spelled.get(char as usize) else { return false };
        out.push(byte);
    }
    true
}

/// Appends a SentencePiece token: `▁` is a blank.
pub(super) fn push_with_blanks(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix("▁".as_bytes()) {
            out.push(b' ');
            rest = tail;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
}

/// The byte of a token like `<0x0A>`.
pub(super) fn parse_byte_token(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// Whether this is a tag like `<td>` or `</h1>`. Other user-defined tokens of SentencePiece vocabularies are markers,
/// which a user's text must not spell.
pub(super) fn is_html_tag(text: &[u8]) -> bool {
    let inside = text.strip_prefix(b"<").and_then(|text| text.strip_suffix(b">"));
    let name = inside.map(|inside| inside.strip_prefix(b"/").unwrap_or(inside));
    name.is_some_and(|name| {
        name.first().is_some_and(u8::is_ascii_lowercase) && name.iter().all(u8::is_ascii_alphanumeric)
    })
}
