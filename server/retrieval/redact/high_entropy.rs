//! Detects long random strings, whatever their name is: keys that no rule covers. It looks only at a string's own line
//! and the adjacent ones.
//!
//! Ordinary code has such strings too, and they stay: hexadecimal hashes, base64 data that decodes to text or a file
//! header or continues over lines, and alphabets.

use std::ops::Range;

use super::values::{decode_base64, is_sequential, is_wordy, shannon_entropy};
use super::{line_end, line_start};

/// Lengths of a possible key.
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 20..=128;

/// Words before a string that mark it as public.
const PUBLIC_MARKERS: &[&str] = &[
    "hash",
    "sha",
    "md5",
    "integrity",
    "digest",
    "checksum",
    "commit",
    "rev",
    "etag",
    "fingerprint",
    "uuid",
    "guid",
    "alphabet",
    "charset",
    "chars",
    "digits",
    "data:",
    "base64,",
    "public",
    "pub_key",
    "pubkey",
    "nonce",
    "crc",
    "version",
    "ssh-",
];

/// Magic numbers of files that are often encoded in base64.
const FILE_MAGIC: &[&[u8]] = &[
    b"\x89PNG",
    b"GIF8",
    b"\xff\xd8\xff",
    b"%PDF",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\0asm",
    b"wOF",
    b"\0\x01\0\0",
    b"OTTO",
    b"RIFF",
    b"\x7fELF",
    b"BM",
    b"\0\0\x01\0",
    b"ID3",
    b"OggS",
    b"\x28\xb5\x2f\xfd",
    b"\x30\x82",
    b"\x00\x00\x00",
];

/// Adds the ranges of high-entropy strings.
pub(super) fn find_high_entropy(text: &str, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    for quote_at in memchr::memchr3_iter(b'"', b'\'', b'`', bytes) {
        let (quote, start) = (bytes[quote_at], quote_at + 1);
        let is_key = |it: &&u8| IS_KEY_BYTE[usize::from(**it)];
        let len = bytes[start..].iter().take(KEY_LENGTHS.end() + 1).take_while(is_key).count();
        if !KEY_LENGTHS.contains(&len) {
            continue;
        }
        let end = start + len;
        let closed = bytes.get(end) == Some(&quote)
            || bytes.get(end) == Some(&b'\\') && bytes.get(end + 1) == Some(&quote);
        if closed && is_high_entropy(&text[start..end]) && !is_public_value(text, start, end) {
            found.push(start..end);
        }
    }
}

static IS_KEY_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        table[at] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'_' | b'=' | b'-' | b'.' | b'~');
        at += 1;
    }
    table
};

fn is_high_entropy(value: &str) -> bool {
    let body = value.trim_end_matches('=');
    let count = |kind: fn(&u8) -> bool| body.bytes().filter(kind).count();
    let (uppers, lowers, digits) =
        (count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase), count(u8::is_ascii_digit));
    let hexadecimal = body.bytes().all(|it| it.is_ascii_hexdigit() || it == b'-');
    let several_kinds = uppers > 1 && lowers > 1 && digits > 1;
    let one_case = body.len() >= 32 && digits > 4 && (uppers == 0 || lowers == 0);
    if hexadecimal || !(several_kinds || one_case) {
        return false;
    }
    // Two dots separate the three parts of a signed token; otherwise it is a name or an address.
    let dots = count(|&it| it == b'.');
    if dots > 0 && (dots != 2 || body.len() < 40) || body.starts_with('/') || body.contains("//") {
        return false;
    }
    let kind = |byte: u8| match byte {
        b'A'..=b'Z' => 0,
        b'a'..=b'z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let changes = body.as_bytes().windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    let least = if several_kinds { 40 } else { 25 };
    changes * 100 >= (body.len() - 1) * least
        && shannon_entropy(body) > if body.len() >= 32 { 3.9 } else { 3.6 }
        && !is_sequential(body)
        && body.split(['-', '_', '/', '+', '.']).any(|it| it.len() >= 16 && !is_wordy(it))
        && !is_encoded_data(value)
}

/// Whether it is base64 of text, or of the beginning of a file.
fn is_encoded_data(value: &str) -> bool {
    let Some(bytes) = decode_base64(value) else { return false };
    let text = bytes.iter().filter(|it| matches!(it, b' '..=b'~' | b'\n' | b'\r' | b'\t')).count();
    text * 100 >= bytes.len() * 90 || FILE_MAGIC.iter().any(|magic| bytes.starts_with(magic))
}

/// Whether the string's name marks it as public, or it is one line of many.
fn is_public_value(text: &str, start: usize, end: usize) -> bool {
    let bytes = text.as_bytes();
    let line = line_start(bytes, start);
    let before = &bytes[line.max(start.saturating_sub(80))..start];
    let before = String::from_utf8_lossy(before).to_ascii_lowercase();
    if PUBLIC_MARKERS.iter().any(|word| before.contains(word)) {
        return true;
    }
    let after = line_end(bytes, end);
    let next = line_end(bytes, after);
    let previous = line_start(bytes, line.saturating_sub(1));
    // A line of data has no name of its own.
    let is_like_it = |line: &[u8]| {
        let longest = line.split(|&it| !IS_KEY_BYTE[usize::from(it)]).map(<[u8]>::len).max().unwrap_or(0);
        end - start >= 40 && longest >= 40 && longest * 5 >= line.trim_ascii().len() * 4
    };
    is_like_it(&bytes[after..next]) || line > 0 && is_like_it(&bytes[previous..line - 1])
}
