//! The vocabulary as SentencePiece's encoder looks into it.
//! It knows nothing of how its pieces are merged.

use super::sentencepiece::Pieces;
use super::{Encoder, Kind, NONE, TokenId, Tokens};

impl Pieces for Tokens {
    fn piece(&self, bytes: &[u8]) -> Option<(TokenId, f32)> {
        #[cfg(test)]
        super::bpe::ASKED.set(super::bpe::ASKED.get() + 1);
        let Encoder::SentencePiece { scores, .. } = &self.encoder else { return None };
        // Gemma's line feed is a user-defined token; such a token of other text is a name, not a spelling.
        let chosen = |&id: &TokenId| match self.kind(id) {
            Kind::Normal => true,
            Kind::User => bytes.iter().all(u8::is_ascii_whitespace),
            Kind::Byte | Kind::Special => false,
        };
        let id = self.spelling(bytes).filter(chosen)?;
        Some((id, scores.get(id as usize).copied()?))
    }

    fn byte(&self, byte: u8) -> Option<TokenId> {
        Some(self.bytes[usize::from(byte)]).filter(|&id| id != NONE)
    }
}
