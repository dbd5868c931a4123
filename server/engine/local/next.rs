//! From logits to the next token, as far as the forced text allows a choice.
//! It knows nothing of devices or KV caches.

use super::heal::Heal;
use super::sample::{self, Choice};
use super::{Ask, TokenId, Tokens};

/// What follows the evaluated tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// This token.
    Token(Choice),
    /// The end of the text.
    Nothing,
    /// The logits are no numbers.
    Broken,
}

impl Next {
    pub(super) fn token(&self) -> Option<TokenId> {
        if let Self::Token(choice) = self { Some(choice.token) } else { None }
    }
}

/// What is asked for behind the evaluated tokens and behind each token of the draft, as `heal` allows.
pub(super) fn asks(tokens: &Tokens, heal: &Heal, draft: &[TokenId]) -> Vec<Ask> {
    let mut heal = heal.clone();
    let mut asks = Vec::with_capacity(1 + draft.len());
    let mut draft = draft.iter();
    loop {
        asks.push(if heal.is_done() { Ask::Greatest } else { Ask::Among(heal.allowed(tokens).collect()) });
        match draft.next() {
            Some(&token) if heal.allows(tokens, token) => {
                heal.advance(tokens.bytes(token));
            }
            // It will not be chosen, so nothing behind it counts.
            Some(_) => {
                asks.extend(draft.map(|_| Ask::Among(Vec::new())));
                asks.push(Ask::Among(Vec::new()));
                return asks;
            }
            None => return asks,
        }
    }
}

/// The likeliest token among those that are asked for.
pub(super) fn choose(tokens: &Tokens, logits: &[f32], ask: &Ask) -> Next {
    let choice = match ask {
        Ask::All | Ask::Greatest => sample::greedy(logits),
        // A vocabulary without a token for the next byte: nothing can be said behind it.
        Ask::Among(allowed) if allowed.is_empty() => return Next::Nothing,
        Ask::Among(allowed) => sample::greedy_among(logits, allowed),
    };
    match choice {
        None => Next::Broken,
        Some(choice) if tokens.ends(choice.token) => Next::Nothing,
        Some(choice) => Next::Token(choice),
    }
}
