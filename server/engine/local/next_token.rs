//! From logits to the next token, as far as the forced text allows a choice.
//! It knows nothing of devices or KV caches.

use super::sampling::{self, TokenChoice};
use super::token_healing::TokenHealing;
use super::{LogitsRequest, TokenId, Tokenizer};

/// What follows the evaluated tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum NextToken {
    /// This token.
    Token(TokenChoice),
    /// The end of the text.
    EndOfText,
    /// The logits are no numbers.
    InvalidLogits,
}

impl NextToken {
    pub(super) fn token_id(&self) -> Option<TokenId> {
        if let Self::Token(choice) = self { Some(choice.token) } else { None }
    }
}

/// What is asked for behind the evaluated tokens and behind each token of the draft, as `heal` allows.
pub(super) fn logits_requests(
    tokens: &Tokenizer,
    heal: &TokenHealing,
    draft: &[TokenId],
) -> Vec<LogitsRequest> {
    let mut heal = heal.clone();
    let mut asks = Vec::with_capacity(1 + draft.len());
    let mut draft = draft.iter();
    loop {
        asks.push(if heal.is_done() {
            LogitsRequest::Argmax
        } else {
            LogitsRequest::Subset(heal.allowed_tokens(tokens).collect())
        });
        match draft.next() {
            Some(&token) if heal.allows_token(tokens, token) => {
                heal.consume_token(tokens.token_bytes(token));
            }
            // It will not be chosen, so nothing behind it counts.
            Some(_) => {
                asks.extend(draft.map(|_| LogitsRequest::Subset(Vec::new())));
                asks.push(LogitsRequest::Subset(Vec::new()));
                return asks;
            }
            None => return asks,
        }
    }
}

/// The likeliest token among those that are asked for.
pub(super) fn pick_token(tokens: &Tokenizer, logits: &[f32], ask: &LogitsRequest) -> NextToken {
    let choice = match ask {
        LogitsRequest::All | LogitsRequest::Argmax => sampling::greedy_choice(logits),
        // A vocabulary without a token for the next byte: nothing can be said behind it.
        LogitsRequest::Subset(allowed) if allowed.is_empty() => return NextToken::EndOfText,
        LogitsRequest::Subset(allowed) => sampling::greedy_among(logits, allowed),
    };
    match choice {
        None => NextToken::InvalidLogits,
        Some(choice) if tokens.is_stop_token(choice.token) => NextToken::EndOfText,
        Some(choice) => NextToken::Token(choice),
    }
}
