//! A vocabulary of any bytes, and a text of any bytes that is cut into its tokens.
//! It knows nothing of what a good vocabulary is.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use taper_engine::Tokenizer;
use taper_engine::gguf::Gguf;

/// Bytes at the end of the input that are the text as well.
const TEXT: usize = 300;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(Path::new("fuzzed"), bytes.to_vec()) else { return };
    let Ok(tokens) = Tokenizer::from_gguf(&gguf) else { return };
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TEXT)..]).into_owned();
    for text in ["fn x() -> é { return 1 }\n\n\t  数字 <|fim_prefix|> a's", &tail] {
        let ids = tokens.encode(text);
        for &id in &ids {
            assert!((id as usize) < tokens.len());
            assert!(!tokens.is_special(id), "{text:?} is no special token");
            assert!(!tokens.token_bytes(id).is_empty());
        }
    }
});
