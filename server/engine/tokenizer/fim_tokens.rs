//! Finds the special tokens of a vocabulary: those of fill-in-the-middle prompts, begin and end tokens.

use super::spelling::is_html_tag;
use super::{RawVocabulary, TokenId};

/// The tokens of fill-in-the-middle prompts; `None` where the vocabulary has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FimTokens {
    /// Opens the text before the cursor.
    pub prefix: Option<TokenId>,
    /// Opens the text after the cursor.
    pub suffix: Option<TokenId>,
    /// Opens the text that the model generates.
    pub middle: Option<TokenId>,
    /// Pads batches in training; ends a middle.
    pub pad: Option<TokenId>,
    /// Precedes a repository's name.
    pub repository: Option<TokenId>,
    /// Separates files, or precedes a file's name.
    pub file: Option<TokenId>,
}

/// Metadata keys and usual names of the tokens of [`FimTokens`]; the keys take precedence. Sources: the
/// `tokenizer.json` of Qwen2.5-Coder, StarCoder 1 and 2, SmolLM, SantaCoder, Granite, CodeLlama, DeepSeek-Coder,
/// CodeGemma, Codestral, Mellum, CodeGeeX, Seed-Coder.
const PREFIX_ROLE: TokenRole = TokenRole {
    keys: &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
    names: &[
        "<|fim_prefix|>",
        "<fim_prefix>",
        "<fim-prefix>",
        "<｜fim▁begin｜>",
        "▁<PRE>",
        "<PRE>",
        "[PREFIX]",
        "<|code_prefix|>",
        "<[fim-prefix]>",
    ],
};
const SUFFIX_ROLE: TokenRole = TokenRole {
    keys: &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
    names: &[
        "<|fim_suffix|>",
        "<fim_suffix>",
        "<fim-suffix>",
        "<｜fim▁hole｜>",
        "▁<SUF>",
        "<SUF>",
        "[SUFFIX]",
        "<|code_suffix|>",
        "<[fim-suffix]>",
    ],
};
const MIDDLE_ROLE: TokenRole = TokenRole {
    keys: &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
    names: &[
        "<|fim_middle|>",
        "<fim_middle>",
        "<fim-middle>",
        "<｜fim▁end｜>",
        "▁<MID>",
        "<MID>",
        "[MIDDLE]",
        "<|code_middle|>",
        "<[fim-middle]>",
    ],
};
const PAD_ROLE: TokenRole = TokenRole {
    keys: &["tokenizer.ggml.fim_pad_token_id"],
    names: &["<|fim_pad|>", "<fim_pad>", "<fim-pad>"],
};
const REPOSITORY_ROLE: TokenRole = TokenRole {
    keys: &["tokenizer.ggml.fim_rep_token_id"],
    names: &["<|repo_name|>", "<|fim_repo|>", "<repo_name>", "<reponame>", "<fim_repo>"],
};
const FILE_ROLE: TokenRole = TokenRole {
    keys: &["tokenizer.ggml.fim_sep_token_id"],
    names: &["<|file_sep|>", "<|file_separator|>", "<file_sep>", "<|fim_sep|>", "<filename>"],
};
/// Tokens after which nothing belongs to the completion.
const END_ROLE: TokenRole = TokenRole {
    keys: &[EOS_KEY, "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id", BOS_KEY, PADDING_KEY],
    names: &[
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "</s>",
        "<eos>",
        "<|EOT|>",
        "<EOT>",
        "▁<EOT>",
        "<|end|>",
        "<|eot_id|>",
        "<|end_of_text|>",
        "<end_of_turn>",
        "<｜end▁of▁sentence｜>",
        "<filename>",
        "<gh_stars>",
        "<issue_start>",
        "<commit_before>",
        "<jupyter_start>",
    ],
};

const ROLES: [&TokenRole; 7] =
    [&PREFIX_ROLE, &SUFFIX_ROLE, &MIDDLE_ROLE, &PAD_ROLE, &REPOSITORY_ROLE, &FILE_ROLE, &END_ROLE];

const EOS_KEY: &str = "tokenizer.ggml.eos_token_id";
const BOS_KEY: &str = "tokenizer.ggml.bos_token_id";
const PADDING_KEY: &str = "tokenizer.ggml.padding_token_id";

/// The metadata keys of such tokens.
pub(super) fn metadata_keys() -> impl Iterator<Item = &'static str> {
    ROLES.iter().flat_map(|role| role.keys).copied()
}

/// A role of special tokens: their metadata keys and their usual names.
struct TokenRole {
    keys: &'static [&'static str],
    names: &'static [&'static str],
}

/// The special tokens of a vocabulary.
pub(super) struct SpecialTokens {
    pub(super) fim: FimTokens,
    pub(super) bos: Option<TokenId>,
    pub(super) eos: Option<TokenId>,
    /// Tokens that spell nothing, regardless of their type in the file; sorted.
    pub(super) special: Vec<TokenId>,
}

impl SpecialTokens {
    pub(super) fn from_raw(raw: &RawVocabulary<'_>) -> Self {
        let mut names: Vec<&[u8]> =
            ROLES.iter().flat_map(|role| role.names).map(|name| name.as_bytes()).collect();
        names.sort_unstable();
        // A normal token with such a name is text, e.g. `</s>` where the end token has another name. But old files lack
        // types, and CodeLlama's special tokens are typed as normal.
        let text_too = raw.types.is_empty() || raw.sentencepiece;
        // Gemma's `</s>` is a tag of HTML.
        let is_tag = |kind: i64, text: &[u8]| raw.sentencepiece && kind == 4 && is_html_tag(text);
        let is_named = |&(id, text): &(usize, &&[u8])| {
            let kind = raw.types.get(id).map(|&kind| kind as i64);
            matches!(text.first(), Some(b'<' | b'[' | 0xe2))
                && names.binary_search(text).is_ok()
                && (text_too || kind.is_some_and(|kind| kind != 1))
                && !kind.is_some_and(|kind| is_tag(kind, text))
        };
        let named: Vec<(&[u8], TokenId)> =
            raw.tokens.iter().enumerate().filter(is_named).map(|(id, &text)| (text, id as TokenId)).collect();
        let by_key = |key: &str| raw.ids.iter().find(|(other, _)| *other == key).map(|&(_, id)| id);
        let by_name =
            |name: &&str| named.iter().find(|(text, _)| *text == name.as_bytes()).map(|&(_, id)| id);
        let find = |role: &TokenRole| {
            role.keys.iter().find_map(|key| by_key(key)).or_else(|| role.names.iter().find_map(by_name))
        };
        // Files without a BOS or padding token set these keys to an arbitrary token.
        let keyed =
            raw.ids.iter().filter(|(key, _)| *key != BOS_KEY && *key != PADDING_KEY).map(|&(_, id)| id);
        let mut special: Vec<TokenId> = keyed.chain(named.iter().map(|&(_, id)| id)).collect();
        special.sort_unstable();
        Self {
            fim: FimTokens {
                prefix: find(&PREFIX_ROLE),
                suffix: find(&SUFFIX_ROLE),
                middle: find(&MIDDLE_ROLE),
                pad: find(&PAD_ROLE),
                repository: find(&REPOSITORY_ROLE),
                file: find(&FILE_ROLE),
            },
            bos: by_key(BOS_KEY),
            eos: by_key(EOS_KEY),
            special,
        }
    }
}
