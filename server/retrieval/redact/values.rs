//! Judges values: whether a value may be a secret, or is a word, a sentence, a path or a reference to the secret's
//! location.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::words::{NameWords, WordKinds, technical_terms};

/// How strictly a value must look like a secret to be taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ValueStrictness {
    /// For a password: anything but a word about passwords, a sentence or a reference.
    Password,
    /// For a key or a token: the same, but not very short.
    Plain,
    /// In a comment, or where a word is equally likely: must contain more than letters.
    Mixed,
    /// For an ambiguous name: the value must look random.
    Random,
}

static REFERENCE_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"\$\{\{[^}]*\}\}|\$\{[^}]*\}|\{\{[^}]*\}\}|#\{[^}]*\}|\$\([^)]*\)|<%[^%]*%>|\{%[^%]*%\}|\\\([^)]*\)",
        r"|%\(\w+\)[a-z]|\{[A-Za-z_][\w.\[\]:!]*\}|\{\d*\}|%[sdvqr@]",
    ))
    .ok()
});

/// A whole value that names the secret's location.
static WHOLE_REFERENCE_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^(?:\$[A-Za-z_]\w*|\$env:\w+|\$\d|:[a-z_]\w*|\?|@\w+@|%[A-Z_]\w*%|<[^>]*>|\[[^\]]*\]|&lt;.*",
        r"|(?i:env|vault|op|ssm|arn|file|keyring|keychain|secretsmanager|secretref|ref|asset|http|https|gs|s3|projects|bao|akv)[:/].*",
        r"|(?i:__\w+__)|[A-Za-z]:\\.*|~?/[\w.@~/ -]*|\.{1,2}/.*",
        r"|[\w./@-]+\.(?:json|ya?ml|toml|pem|key|crt|cer|txt|env|ini|conf|cfg|p12|pfx|jks|py|js|ts|rb|go|rs|java|php|html?|css|md|xml|log|properties|db))$",
    ))
    .ok()
});

/// Whether a value may be a secret, at this strictness.
pub(super) fn is_secret(value: &str, need: ValueStrictness) -> bool {
    let value = value.trim();
    let rest = without_references(value);
    let is_rest = rest.len() < value.len();
    let rest = rest.trim();
    // Text next to a reference is mostly part of it.
    let need = if is_rest { ValueStrictness::Random } else { need };
    let length = rest.chars().take(5).count();
    if length < 3 || is_reference(rest) || is_filler(rest) {
        return false;
    }
    match need {
        ValueStrictness::Password => !is_descriptive(rest),
        ValueStrictness::Plain => length > 3 && !is_descriptive(rest),
        ValueStrictness::Mixed => length > 4 && is_mixed(rest) && !is_descriptive(rest),
        ValueStrictness::Random => {
            rest.split([' ', ';', ',', '\t', '\n']).any(|it| is_random(it) || is_secret_name(it))
        }
    }
}

fn without_references(value: &str) -> Cow<'_, str> {
    // Each alternative of the expression begins with one of these.
    if !value.bytes().any(|it| matches!(it, b'$' | b'{' | b'#' | b'<' | b'%' | b'\\')) {
        return Cow::Borrowed(value);
    }
    // Without the expression, no value counts as a reference.
    REFERENCE_PATTERN.as_ref().map_or(Cow::Borrowed(value), |it| it.replace_all(value, ""))
}

fn is_reference(value: &str) -> bool {
    // Each alternative of the expression contains one of these.
    let is_sign = |it| {
        matches!(
            it,
            b'$' | b':' | b'?' | b'@' | b'%' | b'<' | b'[' | b'&' | b'/' | b'_' | b'\\' | b'.' | b'~'
        )
    };
    if !value.bytes().any(is_sign) {
        return false;
    }
    let matches = WHOLE_REFERENCE_PATTERN.as_ref().is_some_and(|it| it.is_match(value));
    // A path has words; a key that begins with a slash has none.
    matches && (value.contains("://") || is_wordy(value) || !value.starts_with(['/', '~']))
}

/// Whether a value only repeats its name, as in tables of names.
pub(super) fn repeats_name(name: &str, value: &str) -> bool {
    if value.len() < 8 || !contains_start(name, value) || !is_wordy(value) {
        return false;
    }
    let plain = |it: &str| {
        it.replace("\\0", "")
            .chars()
            .filter(|it| it.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect::<String>()
    };
    let plain_value = plain(value);
    plain_value.len() > 7 && plain(name).contains(&plain_value)
}

/// Whether the name contains the value's first two letters or digits, so that it may contain the value.
fn contains_start(name: &str, value: &str) -> bool {
    if !value.is_ascii() || value.contains('\\') {
        return true;
    }
    let mut start = value.bytes().filter(u8::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase());
    let (Some(first), Some(second)) = (start.next(), start.next()) else { return true };
    let mut before = 0;
    name.bytes().filter(u8::is_ascii_alphanumeric).any(|byte| {
        let byte = byte.to_ascii_lowercase();
        std::mem::replace(&mut before, byte) == first && byte == second
    })
}

/// `xxxx`, `****`, `....`, `0000`: one character repeated, whatever the separators.
fn is_filler(value: &str) -> bool {
    let mut characters = value.chars().filter(|it| !matches!(it, '-' | '_' | ' ' | '.'));
    match characters.next() {
        None => true,
        Some(first) => characters.all(|it| it.eq_ignore_ascii_case(&first)),
    }
}

/// Whether a value is a word about secrets, a sentence, or a placeholder.
fn is_descriptive(value: &str) -> bool {
    if value.contains(char::is_whitespace) {
        return is_sentence(value);
    }
    // Words of a script that is written without spaces.
    if value.chars().all(|it| !it.is_ascii() && (it.is_alphabetic() || it == 'ー')) {
        return true;
    }
    let (mut only_about_secrets, mut has_noun, mut has_placeholder) = (true, false, false);
    let mut words = NameWords::new(value);
    while let Some(word) = words.next_word() {
        let kinds = WordKinds::of(word);
        let is_number = word.len() <= 3 && word.bytes().all(|it| it.is_ascii_digit());
        only_about_secrets &= is_number || kinds.is_any(WordKinds::SECRET_NOUN.or(WordKinds::NAME_MODIFIER));
        has_noun |= kinds.is_any(WordKinds::SECRET_NOUN);
        has_placeholder |= kinds.is_any(WordKinds::PLACEHOLDER);
    }
    // `password1` is a password, `min:8` is not.
    let has_symbol = || {
        value
            .bytes()
            .any(|it| matches!(it, b'!' | b'@' | b'#' | b'$' | b'%' | b'^' | b'&' | b'*' | b'~' | b'+'))
    };
    only_about_secrets && has_noun && !has_symbol() || has_placeholder && is_wordy(value)
}

fn is_sentence(value: &str) -> bool {
    let words: Vec<&str> = value.split_whitespace().collect();
    let plain = |word: &&str| is_wordy(word) || !word.is_ascii();
    if !words.iter().all(plain) {
        // `Must be 8-20 characters`, not `x8!kq Tr0ub4dor`.
        let marks = |word: &&&str| WordKinds::of(&word.to_lowercase()).is_any(WordKinds::SENTENCE);
        return words.iter().filter(marks).count() >= 2;
    }
    let marks = WordKinds::SENTENCE.or(WordKinds::SECRET_NOUN).or(WordKinds::PLACEHOLDER);
    value.starts_with(|it: char| it.is_uppercase() || !it.is_alphabetic())
        || value.ends_with(['.', '?', '!', ':', '…', '*', ')'])
            && !value.bytes().any(|it| it.is_ascii_digit())
        || NameWords::new(value).any(|word| WordKinds::of(word).is_any(marks))
        || !value.is_ascii()
}

fn is_mixed(value: &str) -> bool {
    let has = |kind: fn(&char) -> bool| value.chars().any(|it| kind(&it));
    let symbols =
        |it: &char| matches!(it, '!' | '@' | '#' | '$' | '%' | '^' | '&' | '*' | '~' | '+' | '=' | '?');
    !value.contains(char::is_whitespace)
        && has(|it| it.is_alphabetic())
        && (has(char::is_ascii_digit) || value.chars().any(|it| symbols(&it)))
}

/// `my-secret-token`: only ever the name of a secret.
fn is_secret_name(value: &str) -> bool {
    let is_one_name = value.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'));
    is_one_name
        && NameWords::new(value).any(|word| word == "secret")
        && NameWords::new(value).count() > 2
        && !is_descriptive(value)
}

/// Whether it looks random: no words, or digits and letters in no order.
pub(super) fn is_random(value: &str) -> bool {
    let value = value.trim_end_matches('=');
    if value.len() < 8 || value.contains("://") {
        return false;
    }
    if value.len() >= 16 && value.bytes().all(|it| it.is_ascii_hexdigit()) {
        return shannon_entropy(value) > 2.0;
    }
    !is_wordy(value) && !is_sequential(value)
}

/// Whether the characters are sequential: an alphabet, the digits of a keyboard row.
pub(super) fn is_sequential(value: &str) -> bool {
    let bytes = value.as_bytes();
    let next = bytes.windows(2).filter(|pair| pair[1] == pair[0].wrapping_add(1)).count();
    next * 4 > bytes.len() * 3
}

/// Whether it consists of words only: letters, optionally followed by a number.
pub(super) fn is_wordy(value: &str) -> bool {
    value.split(|it: char| !it.is_alphanumeric()).filter(|it| !it.is_empty()).all(is_plain_word)
}

fn is_plain_word(word: &str) -> bool {
    if !word.is_ascii() {
        return true;
    }
    let letters = word.trim_end_matches(|it: char| it.is_ascii_digit());
    let digits = word.len() - letters.len();
    if letters.is_empty() {
        return digits <= 8;
    }
    if letters.len() < word.len() || word.bytes().any(|it| it.is_ascii_digit()) {
        let mut lower = [0; 16];
        if let Some(lower) = lower.get_mut(..word.len()) {
            lower.copy_from_slice(word.as_bytes());
            lower.make_ascii_lowercase();
            if std::str::from_utf8(lower).is_ok_and(|it| WordKinds::of(it).is_any(WordKinds::TECHNICAL)) {
                return true;
            }
        }
    }
    // `v2`, `3d`.
    let letters = letters.trim_start_matches(|it: char| it.is_ascii_digit());
    let before = word.len() - digits - letters.len();
    // `135M`, `1024px`.
    if digits == 0 && before <= 4 && letters.len() <= 3 {
        return true;
    }
    if digits > 3 || before > 2 || letters.len() > 28 {
        return false;
    }
    if letters.bytes().any(|it| it.is_ascii_digit()) {
        // `str2int`, `p2p`.
        let around = letters.split(['2', '4']);
        if digits == 0
            && before == 0
            && around.clone().count() == 2
            && around.clone().all(|it| it.bytes().all(|it| it.is_ascii_alphabetic()) && is_plain_word(it))
        {
            return true;
        }
        // `sha256WithRSA`, `base64url`.
        let ends = |text: &str| {
            (text.as_bytes()[0].to_ascii_lowercase(), text.as_bytes()[text.len() - 1].to_ascii_lowercase())
        };
        let (first, last) = ends(letters);
        let around = |term: &str| {
            // Most terms differ in the first byte already.
            let (term_first, term_last) = ends(term);
            if term_first != first && term_last != last {
                return None;
            }
            let at_start = letters.get(..term.len()).is_some_and(|it| it.eq_ignore_ascii_case(term));
            let end = letters.len().saturating_sub(term.len());
            let at_end = letters[end..].eq_ignore_ascii_case(term);
            match (at_start, at_end) {
                (true, _) => Some(&letters[term.len()..]),
                (_, true) => Some(&letters[..end]),
                _ => None,
            }
        };
        return technical_terms()
            .filter_map(around)
            .any(|rest| rest.bytes().all(|it| it.is_ascii_alphabetic()));
    }
    let uppers = letters.bytes().filter(u8::is_ascii_uppercase).count();
    if uppers == letters.len() || uppers == 0 {
        // Longer words do not occur.
        return letters.len() <= 20;
    }
    // If there are several words, each has some letters.
    letters.len() >= NameWords::new(letters).count() * 3
}

/// Shannon entropy, in bits per byte.
pub(super) fn shannon_entropy(value: &str) -> f32 {
    let mut counts = [0u32; 256];
    for byte in value.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let all = value.len() as f32;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = count as f32 / all;
            -share * share.log2()
        })
        .sum()
}

/// Whether it is `user:password` in base64.
pub(super) fn is_basic_auth(value: &str) -> bool {
    decode_base64(value).is_some_and(|bytes| {
        bytes.contains(&b':') && bytes.iter().all(|it| (b' '..0x7f).contains(it) || *it >= 0x80)
    })
}

/// The decoded base64, with or without padding, also in the URL-safe alphabet.
pub(super) fn decode_base64(value: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for byte in value.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Some(out)
}
