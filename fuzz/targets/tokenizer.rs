//! Fuzzes the tokenizer: encodes an arbitrary text with an arbitrary vocabulary.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use taper_engine::Tokenizer;
use taper_engine::gguf::Gguf;

/// Bytes at the end of the input that also serve as the text.
const TEXT: usize = 300;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(Path::new("fuzzed"), bytes.to_vec()) else { return };
    let Ok(tokens) = Tokenizer::from_gguf(&gguf) else { return };
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TEXT)..]).into_owned();
    for text in ["fn x() -> é { return 1 }\n\n\t  数字 <|fim_prefix|> a's", &tail] {
        let ids = tokens.encode(text);
        for &id in &ids {
            assert!((id as usize) < tokens.len());
            assert!(!tokens.is_special(id), "{text:?} was encoded as a special token");
            assert!(!tokens.token_bytes(id).is_empty());
        }
    }
});
