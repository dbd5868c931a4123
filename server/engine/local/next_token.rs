//! Chooses the next token from logits, within the constraint of the healing bytes.

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
    /// The logits are NaN.
    InvalidLogits,
}

impl NextToken {
    pub(super) fn token_id(&self) -> Option<TokenId> {
        if let Self::Token(choice) = self { Some(choice.token) } else { None }
    }
}

/// The logits to request after the evaluated tokens and after each token of the draft, as `heal` allows.
pub(super) fn logits_requests(
    tokens: &Tokenizer,
    heal: &TokenHealing,
    draft: &[TokenId],
) -> Vec<LogitsRequest> {
    let mut heal = heal.clone();
    let mut requests = Vec::with_capacity(1 + draft.len());
    let mut draft = draft.iter();
    loop {
        requests.push(if heal.is_done() {
            LogitsRequest::Argmax
        } else {
            LogitsRequest::Subset(heal.allowed_tokens(tokens).collect())
        });
        match draft.next() {
            Some(&token) if heal.allows_token(tokens, token) => {
                heal.consume_token(tokens.token_bytes(token));
            }
            // It will not be chosen, so nothing after it counts.
            Some(_) => {
                requests.extend(draft.map(|_| LogitsRequest::Subset(Vec::new())));
                requests.push(LogitsRequest::Subset(Vec::new()));
                return requests;
            }
            None => return requests,
        }
    }
}

/// The most probable of the requested tokens.
pub(super) fn pick_token(tokens: &Tokenizer, logits: &[f32], request: &LogitsRequest) -> NextToken {
    let choice = match request {
        LogitsRequest::All | LogitsRequest::Argmax => sampling::greedy_choice(logits),
        // The vocabulary has no token for the next byte, so nothing can follow.
        LogitsRequest::Subset(allowed) if allowed.is_empty() => return NextToken::EndOfText,
        LogitsRequest::Subset(allowed) => sampling::greedy_among(logits, allowed),
    };
    match choice {
        None => NextToken::InvalidLogits,
        Some(choice) if tokens.is_stop_token(choice.token) => NextToken::EndOfText,
        Some(choice) => NextToken::Token(choice),
    }
}
