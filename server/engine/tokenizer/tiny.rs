//! A built-in vocabulary of a few hundred tokens: every byte, some common merges, Qwen's special tokens. Tests and the
//! scripted engine build a [`super::Tokenizer`] from it.

use super::spelling::byte_to_char;

/// Pairs that merge, in rank order, in GPT-2's printable spelling (`Ġ` is a blank, `Ċ` a line feed).
/// Common in code, and nested, so that one word can be spelled in several ways.
const MERGE_PAIRS: [(&str, &str); 36] = [
    ("Ġ", "Ġ"),
    ("ĠĠ", "ĠĠ"),
    ("r", "e"),
    ("i", "n"),
    ("e", "r"),
    ("o", "n"),
    ("s", "e"),
    ("d", "e"),
    ("l", "e"),
    ("f", "n"),
    ("u", "r"),
    ("re", "t"),
    ("ur", "n"),
    ("ret", "urn"),
    ("Ġ", "ret"),
    ("Ġret", "urn"),
    ("se", "l"),
    ("sel", "f"),
    ("Ġ", "sel"),
    ("Ġsel", "f"),
    ("de", "f"),
    ("le", "t"),
    ("Ġ", "in"),
    ("in", "t"),
    ("p", "r"),
    ("pr", "int"),
    ("f", "or"),
    ("o", "r"),
    ("(", ")"),
    ("()", ":"),
    ("Ċ", "Ċ"),
    ("Ġ", "="),
    ("Ġ=", "="),
    ("a", "dd"),
    ("d", "d"),
    ("Ġ", "for"),
];

/// Special tokens, named as Qwen2.5-Coder names them.
pub(crate) const SPECIAL_NAMES: [&str; 11] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "[PAD1]",
    "[PAD2]",
];

/// Tokens, their types (`llama_token_type`: 1 normal, 3 control) and merges, as in `tokenizer.ggml.*`.
pub(crate) fn byte_level_vocabulary() -> (Vec<String>, Vec<i64>, Vec<String>) {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_to_char(byte).to_string()).collect();
    let mut merges = Vec::new();
    // A merge must come after those that it is made of: the table's order is kept, but premature entries are deferred.
    let mut waiting: Vec<(&str, &str)> = MERGE_PAIRS.to_vec();
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|(left, right)| {
            let known = tokens.iter().any(|t| t == left) && tokens.iter().any(|t| t == right);
            if known {
                tokens.push(format!("{left}{right}"));
                merges.push(format!("{left} {right}"));
            }
            !known
        });
        if waiting.len() == before {
            break;
        }
    }
    let mut types = vec![1; tokens.len()];
    for special in SPECIAL_NAMES {
        tokens.push(special.to_owned());
        types.push(3);
    }
    (tokens, types, merges)
}

/// A SentencePiece vocabulary in the style of CodeLlama: tokens, types (2 unknown, 3 control, 6 byte), scores.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn sentencepiece_vocabulary() -> (Vec<String>, Vec<i64>, Vec<f64>) {
    let mut tokens = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    let mut types = vec![2, 3, 3];
    let mut scores = vec![0.0; 3];
    for byte in 0..=255_u8 {
        tokens.push(format!("<0x{byte:02X}>"));
        types.push(6);
        scores.push(0.0);
    }
    let words = [
        "▁▁",
        "▁▁▁▁",
        "re",
        "in",
        "er",
        "on",
        "se",
        "de",
        "le",
        "ret",
        "ur",
        "urn",
        "return",
        "▁ret",
        "▁return",
        "sel",
        "self",
        "▁s",
        "▁self",
        "def",
        "let",
        "▁in",
        "int",
        "pr",
        "print",
        "or",
        "for",
        "()",
        "():",
        "▁=",
        "▁==",
    ];
    let letters = (b'!'..=b'~').map(|byte| char::from(byte).to_string());
    let pieces =
        words.iter().map(|&word| word.to_owned()).chain(["▁".to_owned(), "é".to_owned()]).chain(letters);
    for (rank, piece) in pieces.enumerate() {
        tokens.push(piece);
        types.push(1);
        scores.push(-(rank as f64));
    }
    for special in ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"] {
        tokens.push(special.to_owned());
        types.push(3);
        scores.push(0.0);
    }
    (tokens, types, scores)
}
