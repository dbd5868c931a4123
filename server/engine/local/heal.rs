//! Token healing: decoding is constrained until the bytes that were cut back from the prompt stand there again.
//! It knows nothing of logits or of how a token is chosen.
//!
//! A text cut inside a token is a prompt that the model never saw in training. So the partial token is taken
//! off the prompt, and the first tokens decoded must spell it: each is a piece of what is left, or spells all
//! that is left and goes on. (The idea is that of "token healing" in Microsoft's guidance.)

use crate::tokens::{TokenId, Tokens};

/// The forced bytes that are still to be spelled. Bytes, not characters: a token may end inside one.
#[derive(Debug, Clone, Default)]
pub struct Heal {
    forced: Vec<u8>,
    done: usize,
}

impl Heal {
    /// Forces these bytes; none: nothing is constrained.
    pub fn new(forced: &[u8]) -> Self {
        Self { forced: forced.to_vec(), done: 0 }
    }

    /// Whether all is spelled and every token is allowed.
    pub fn is_done(&self) -> bool {
        self.done == self.forced.len()
    }

    /// What is still to be spelled.
    pub fn rest(&self) -> &[u8] {
        &self.forced[self.done..]
    }

    /// The tokens that may come next: those that spell a beginning of the rest, the shortest first, then
    /// those that begin with all of it. Each comes once; none are special.
    ///
    /// Meaningful only while not [`Heal::is_done`]: then it is every ordinary token. It is empty only if the
    /// vocabulary has no token at all for the next byte.
    pub fn allowed<'a>(&self, tokens: &'a Tokens) -> impl Iterator<Item = TokenId> + use<'a> {
        let rest = self.rest();
        let pieces: Vec<TokenId> = (1..rest.len().min(tokens.longest() + 1))
            .filter_map(|len| tokens.spelling(&rest[..len]))
            .collect();
        pieces.into_iter().chain(tokens.starting_with(rest))
    }

    /// Whether one token may come next.
    pub fn allows(&self, tokens: &Tokens, id: TokenId) -> bool {
        let (rest, bytes) = (self.rest(), tokens.bytes(id));
        rest.is_empty() || !bytes.is_empty() && (rest.starts_with(bytes) || bytes.starts_with(rest))
    }

    /// Takes the bytes of an allowed token and returns those that reach beyond the forced text: the first
    /// bytes of the completion.
    pub fn advance<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let within = bytes.len().min(self.forced.len() - self.done);
        debug_assert_eq!(self.rest()[..within], bytes[..within], "the token was not allowed");
        self.done += within;
        &bytes[within..]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::gguf::Gguf;
    use crate::gguf::testing::Writer;

    fn vocabularies() -> [Tokens; 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        Writer::new().sentencepiece_tokenizer().write(&path).unwrap();
        [Tokens::bytes_only(), Tokens::from_gguf(&Gguf::open(&path).unwrap()).unwrap()]
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
    fn allowed_is_what_a_search_over_the_vocabulary_allows() {
        let mut random = fastrand::Rng::with_seed(1);
        for tokens in vocabularies() {
            for _ in 0..300 {
                let heal = Heal::new(&random_bytes(&mut random));
                let mut listed: Vec<TokenId> = heal.allowed(&tokens).collect();
                let count = listed.len();
                listed.sort_unstable();
                listed.dedup();
                assert_eq!(listed.len(), count, "a token comes twice");
                assert!(!listed.is_empty());
                for id in 0..tokens.len() as TokenId {
                    let is_listed = listed.binary_search(&id).is_ok();
                    // Of several tokens with the same bytes, one is enough.
                    let twin = tokens.spelling(tokens.bytes(id)).is_some_and(|twin| listed.contains(&twin));
                    assert_eq!(is_listed || twin, heal.allows(&tokens, id), "{id} after {:?}", heal.rest());
                }
            }
        }
    }

    #[test]
    fn whatever_is_chosen_the_output_begins_with_the_forced_bytes() {
        let mut random = fastrand::Rng::with_seed(2);
        for tokens in vocabularies() {
            for _ in 0..5_000 {
                let forced = random_bytes(&mut random);
                let mut heal = Heal::new(&forced);
                let (mut all, mut beyond) = (Vec::new(), Vec::new());
                while !heal.is_done() {
                    assert!(beyond.is_empty());
                    let allowed: Vec<TokenId> = heal.allowed(&tokens).collect();
                    let bytes = tokens.bytes(allowed[random.usize(..allowed.len())]);
                    all.extend_from_slice(bytes);
                    beyond.extend_from_slice(heal.advance(bytes));
                }
                assert!(all.starts_with(&forced), "{forced:x?} {all:x?}");
                assert_eq!(all[forced.len()..], beyond);
            }
        }
    }

    /// Every way to cut a text into prompt and forced bytes, and every path through the allowed tokens.
    #[test]
    fn all_paths_spell_the_forced_bytes() {
        fn walk(tokens: &Tokens, heal: &Heal, forced: &[u8], so_far: &mut Vec<u8>, paths: &mut usize) {
            if heal.is_done() {
                assert!(so_far.starts_with(forced));
                *paths += 1;
                return;
            }
            for id in heal.allowed(tokens) {
                let (mut next, len) = (heal.clone(), so_far.len());
                next.advance(tokens.bytes(id));
                so_far.extend_from_slice(tokens.bytes(id));
                walk(tokens, &next, forced, so_far, paths);
                so_far.truncate(len);
            }
        }
        for tokens in vocabularies() {
            let text = "é return".as_bytes();
            for cut in 0..text.len() {
                let mut paths = 0;
                let forced = &text[cut..];
                walk(&tokens, &Heal::new(forced), forced, &mut Vec::new(), &mut paths);
                assert!(paths > 0);
            }
        }
    }

    #[test]
    fn the_token_that_completes_may_reach_beyond() {
        let tokens = Tokens::bytes_only();
        let mut heal = Heal::new(b" ret");
        let whole = tokens.spelling(b" return").unwrap();
        assert!(heal.allowed(&tokens).any(|id| id == whole));
        assert_eq!(heal.advance(tokens.bytes(whole)), b"urn");
        assert!(heal.is_done() && heal.rest().is_empty());
        assert!(heal.allows(&tokens, tokens.id("<|endoftext|>").unwrap()), "then everything is allowed");
    }
}
