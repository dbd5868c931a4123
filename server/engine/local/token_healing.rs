//! Token healing: decoding is constrained until it has reproduced the bytes that were cut from the prompt.
//!
//! A text cut inside a token is a prompt that the model never saw in training. So the partial token is removed from the
//! prompt, and the first decoded tokens must spell it: each spells a part of the rest, or all of it and more. (The idea
//! is that of "token healing" in Microsoft's guidance.)

use crate::tokenizer::{TokenId, Tokenizer};

/// The forced bytes that remain to be spelled. Bytes, not characters: a token may end inside one.
#[derive(Debug, Clone, Default)]
pub struct TokenHealing {
    healing_bytes: Vec<u8>,
    consumed: usize,
}

impl TokenHealing {
    /// Forces these bytes; if empty, nothing is constrained.
    pub fn new(forced: &[u8]) -> Self {
        Self { healing_bytes: forced.to_vec(), consumed: 0 }
    }

    /// Whether everything is spelled and every token is allowed.
    pub fn is_done(&self) -> bool {
        self.consumed == self.healing_bytes.len()
    }

    /// The bytes that remain to be spelled.
    pub fn remaining_bytes(&self) -> &[u8] {
        &self.healing_bytes[self.consumed..]
    }

    /// The tokens that may come next: those that spell a prefix of the rest, the shortest first, then
    /// those that begin with all of it. Each occurs once; none are special.
    ///
    /// Meaningful only until [`TokenHealing::is_done`]: then every ordinary token is allowed. Empty only if the
    /// vocabulary has no token for the next byte.
    pub fn allowed_tokens<'a>(&self, tokens: &'a Tokenizer) -> impl Iterator<Item = TokenId> + use<'a> {
        let rest = self.remaining_bytes();
        let pieces: Vec<TokenId> = (1..rest.len().min(tokens.longest_token_len() + 1))
            .filter_map(|len| tokens.spelling(&rest[..len]))
            .collect();
        pieces.into_iter().chain(tokens.tokens_with_prefix(rest))
    }

    /// Whether one token may come next.
    pub fn allows_token(&self, tokens: &Tokenizer, id: TokenId) -> bool {
        let (rest, bytes) = (self.remaining_bytes(), tokens.token_bytes(id));
        rest.is_empty() || !bytes.is_empty() && (rest.starts_with(bytes) || bytes.starts_with(rest))
    }

    /// Takes the bytes of an allowed token and returns those after the forced text: the first bytes of the
    /// completion.
    pub fn consume_token<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let within = bytes.len().min(self.healing_bytes.len() - self.consumed);
        debug_assert_eq!(self.remaining_bytes()[..within], bytes[..within], "the token was not allowed");
        self.consumed += within;
        &bytes[within..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::gguf::testing::GgufWriter;

    fn test_vocabularies() -> [Tokenizer; 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        GgufWriter::new().with_sentencepiece_tokenizer().write(&path).unwrap();
        [Tokenizer::bytes_only(), Tokenizer::from_gguf(&Gguf::open(&path).unwrap()).unwrap()]
    }

    fn random_bytes(random: &mut fastrand::Rng) -> Vec<u8> {
        let parts = [
            "ret", "urn", "return", " ", "    ", "self", "(", "):", "é", "数", "🙂", "\r\n", "\t", "x", "de",
            "fo",
        ];
        let text: String = (0..random.usize(1..6)).map(|_| parts[random.usize(..parts.len())]).collect();
        // Cut anywhere, also inside a character.
        text.as_bytes()[..random.usize(1..=text.len())].to_vec()
    }

    #[test]
    fn allowed_tokens_match_vocabulary_scan() {
        let mut random = fastrand::Rng::with_seed(1);
        for tokens in test_vocabularies() {
            for _ in 0..300 {
                let heal = TokenHealing::new(&random_bytes(&mut random));
                let mut listed: Vec<TokenId> = heal.allowed_tokens(&tokens).collect();
                let count = listed.len();
                listed.sort_unstable();
                listed.dedup();
                assert_eq!(listed.len(), count, "a token comes twice");
                assert!(!listed.is_empty());
                for id in 0..tokens.len() as TokenId {
                    let is_listed = listed.binary_search(&id).is_ok();
                    // Of several tokens with the same bytes, one is enough.
                    let twin =
                        tokens.spelling(tokens.token_bytes(id)).is_some_and(|twin| listed.contains(&twin));
                    assert_eq!(
                        is_listed || twin,
                        heal.allows_token(&tokens, id),
                        "{id} after {:?}",
                        heal.remaining_bytes()
                    );
                }
            }
        }
    }

    #[test]
    fn healed_random_output_starts_with_forced_bytes() {
        let mut random = fastrand::Rng::with_seed(2);
        for tokens in test_vocabularies() {
            for _ in 0..5_000 {
                let forced = random_bytes(&mut random);
                let mut heal = TokenHealing::new(&forced);
                let (mut all, mut beyond) = (Vec::new(), Vec::new());
                while !heal.is_done() {
                    assert!(beyond.is_empty());
                    let allowed: Vec<TokenId> = heal.allowed_tokens(&tokens).collect();
                    let bytes = tokens.token_bytes(allowed[random.usize(..allowed.len())]);
                    all.extend_from_slice(bytes);
                    beyond.extend_from_slice(heal.consume_token(bytes));
                }
                assert!(all.starts_with(&forced), "{forced:x?} {all:x?}");
                assert_eq!(all[forced.len()..], beyond);
            }
        }
    }

    /// Every way to split a text into prompt and forced bytes, and every path through the allowed tokens.
    #[test]
    fn every_allowed_path_spells_forced_bytes() {
        fn walk_paths(
            tokens: &Tokenizer,
            heal: &TokenHealing,
            forced: &[u8],
            so_far: &mut Vec<u8>,
            paths: &mut usize,
        ) {
            if heal.is_done() {
                assert!(so_far.starts_with(forced));
                *paths += 1;
                return;
            }
            for id in heal.allowed_tokens(tokens) {
                let (mut next, len) = (heal.clone(), so_far.len());
                next.consume_token(tokens.token_bytes(id));
                so_far.extend_from_slice(tokens.token_bytes(id));
                walk_paths(tokens, &next, forced, so_far, paths);
                so_far.truncate(len);
            }
        }
        for tokens in test_vocabularies() {
            let text = "é return".as_bytes();
            for cut in 0..text.len() {
                let mut paths = 0;
                let forced = &text[cut..];
                walk_paths(&tokens, &TokenHealing::new(forced), forced, &mut Vec::new(), &mut paths);
                assert!(paths > 0);
            }
        }
    }

    #[test]
    fn last_healing_token_may_exceed_forced_bytes() {
        let tokens = Tokenizer::bytes_only();
        let mut heal = TokenHealing::new(b" ret");
        let whole = tokens.spelling(b" return").unwrap();
        assert!(heal.allowed_tokens(&tokens).any(|id| id == whole));
        assert_eq!(heal.consume_token(tokens.token_bytes(whole)), b"urn");
        assert!(heal.is_done() && heal.remaining_bytes().is_empty());
        assert!(
            heal.allows_token(&tokens, tokens.special_id("<|endoftext|>").unwrap()),
            "then everything is allowed"
        );
    }
}
