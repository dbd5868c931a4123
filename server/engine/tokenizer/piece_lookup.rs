//! The vocabulary's lookups for SentencePiece's encoder.

use super::sentencepiece::PieceLookup;
use super::{NO_TOKEN, TokenEncoder, TokenId, TokenType, Tokenizer};

impl PieceLookup for Tokenizer {
    fn find_piece(&self, bytes: &[u8]) -> Option<(TokenId, f32)> {
        #[cfg(test)]
        super::bpe::LOOKUP_COUNT.set(super::bpe::LOOKUP_COUNT.get() + 1);
        let TokenEncoder::SentencePiece { scores, .. } = &self.encoder else { return None };
        // Gemma's line feed is a user-defined token; such a token of other text is a name, not a spelling.
        let chosen = |&id: &TokenId| match self.token_type(id) {
            TokenType::Normal => true,
            TokenType::User => bytes.iter().all(u8::is_ascii_whitespace),
            TokenType::Byte | TokenType::Special => false,
        };
        let id = self.spelling(bytes).filter(chosen)?;
        Some((id, scores.get(id as usize).copied()?))
    }

    fn fallback_byte_token(&self, byte: u8) -> Option<TokenId> {
        Some(self.bytes[usize::from(byte)]).filter(|&id| id != NO_TOKEN)
    }
}
