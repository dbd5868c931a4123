//! The tokenizer: encoding, counting, UTF-8-safe streaming decoding, FIM ids.
//!
//! Built from the `tokenizer.ggml.*` metadata of a GGUF file. Two kinds: byte-level BPE (`gpt2`) and SentencePiece
//! (`llama`). Encoding is on the path of every keystroke and must never recognise a special token in a user's text,
//! and loading is part of the startup time. So the encoders are our own, over one pool of bytes; the tests compare them
//! with the `tokenizers` library.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use crate::gguf::{Gguf, PULL_AGAIN_REMEDY, model_error, sanitize_word};
use crate::{EngineError, threads};

mod bpe;
mod fim_tokens;
mod piece_lookup;
mod pretokenize;
mod sentencepiece;
mod spelling;
mod spelling_table;
mod stream;
pub(crate) mod tiny;
mod vocabulary_index;

pub use fim_tokens::FimTokens;
pub use stream::Utf8Stream;

use bpe::MergeTable;
use fim_tokens::SpecialTokens;
use pretokenize::PreTokenizer;
use spelling::{char_to_byte_table, parse_byte_token, push_unspelled, push_with_blanks};
use spelling_table::SpellingTable;
use vocabulary_index::{VocabularyIndex, bucket_index};

/// Index of a token in the vocabulary.
pub type TokenId = u32;

const NO_TOKEN: TokenId = TokenId::MAX;

/// A model's vocabulary.
pub struct Tokenizer {
    /// The bytes of all tokens, concatenated; for special tokens, their names.
    pool: Vec<u8>,
    /// The start of each token in `pool`, and the end of the last.
    starts: Vec<u32>,
    kinds: Vec<TokenType>,
    index: VocabularyIndex,
    /// The token of each single byte.
    bytes: [TokenId; 256],
    encoder: TokenEncoder,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    fim: FimTokens,
    chat_template: Option<String>,
}

#[derive(Debug)]
enum TokenEncoder {
    Bpe { split: PreTokenizer, merges: MergeTable },
    SentencePiece { scores: Vec<f32> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TokenType {
    /// Spells text.
    Normal,
    /// Spells text, but the encoder does not choose it by itself.
    User,
    /// Represents one byte that no other token spells.
    Byte,
    /// Control, unknown, unused: spells nothing.
    Special,
}

/// A vocabulary as stored in a file.
struct RawVocabulary<'a> {
    path: &'a Path,
    sentencepiece: bool,
    pre: &'a str,
    tokens: Vec<&'a [u8]>,
    /// `llama_token_type` of each token; empty: all normal.
    types: Vec<f64>,
    /// Empty for BPE.
    scores: Vec<f64>,
    /// Empty for SentencePiece.
    merges: Vec<&'a [u8]>,
    add_bos: Option<bool>,
    /// The ids in the metadata, by key.
    ids: Vec<(&'static str, TokenId)>,
}

const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
const MERGES_KEY: &str = "tokenizer.ggml.merges";
const TYPES_KEY: &str = "tokenizer.ggml.token_type";
const SCORES_KEY: &str = "tokenizer.ggml.scores";
const OTHER_MODEL_REMEDY: &str = "choose a model that `taper models` lists";

impl Tokenizer {
    /// Reads the vocabulary of a model file.
    ///
    /// # Errors
    /// The metadata are missing, contradict each other, or name an unsupported kind of vocabulary; the message
    /// names the field.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        const MODEL_KEY: &str = "tokenizer.ggml.model";
        let sentencepiece = match gguf.get_str(MODEL_KEY) {
            Some("gpt2") => false,
            Some("llama") => true,
            Some(other) => {
                let problem =
                    format!("is {other:?}; byte-level BPE (gpt2) and SentencePiece (llama) are supported");
                return Err(gguf.field_error(MODEL_KEY, problem, OTHER_MODEL_REMEDY));
            }
            None => return Err(gguf.field_error(MODEL_KEY, "is missing", OTHER_MODEL_REMEDY)),
        };
        let missing = |field: &'static str| move || gguf.field_error(field, "is missing", PULL_AGAIN_REMEDY);
        let tokens = gguf
            .get_strings(TOKENS_KEY)?
            .filter(|tokens| !tokens.is_empty())
            .ok_or_else(missing(TOKENS_KEY))?;
        let types = gguf.get_numbers(TYPES_KEY)?.unwrap_or_default();
        let (scores, merges) = if sentencepiece {
            (gguf.get_numbers(SCORES_KEY)?.ok_or_else(missing(SCORES_KEY))?, Vec::new())
        } else {
            (Vec::new(), gguf.get_strings(MERGES_KEY)?.ok_or_else(missing(MERGES_KEY))?)
        };
        let mut ids = Vec::new();
        for key in fim_tokens::metadata_keys() {
            let Some(id) = gguf.get_usize(key)? else { continue };
            if id >= tokens.len() {
                // Some converters write -1 as u32 for "none".
                if id == u32::MAX as usize {
                    continue;
                }
                let problem = format!("is {id}, but there are {} tokens", tokens.len());
                return Err(gguf.field_error(key, problem, PULL_AGAIN_REMEDY));
            }
            ids.push((key, id as TokenId));
        }
        let pre = gguf.get_str("tokenizer.ggml.pre").unwrap_or("gpt-2");
        let this = Self::from_raw(&RawVocabulary {
            path: gguf.path(),
            sentencepiece,
            pre,
            tokens,
            types,
            scores,
            merges,
            add_bos: gguf.get_bool("tokenizer.ggml.add_bos_token"),
            ids,
        })?;
        Ok(Self { chat_template: gguf.get_str("tokenizer.chat_template").map(str::to_owned), ..this })
    }

    /// The same vocabulary with a chat template, for tests.
    #[cfg(any(test, feature = "test-support"))]
    pub fn with_chat_template(self, template: &str) -> Self {
        Self { chat_template: Some(template.to_owned()), ..self }
    }

    /// A tiny byte-level vocabulary without a file: 256 bytes, a few merges, Qwen's special tokens. For tests
    /// and the scripted engine.
    pub fn bytes_only() -> Self {
        let (tokens, types, merges) = tiny::byte_level_vocabulary();
        let raw = RawVocabulary {
            path: Path::new("the built-in vocabulary"),
            sentencepiece: false,
            pre: "qwen2",
            tokens: tokens.iter().map(String::as_bytes).collect(),
            types: types.into_iter().map(|kind| kind as f64).collect(),
            scores: Vec::new(),
            merges: merges.iter().map(String::as_bytes).collect(),
            add_bos: Some(false),
            ids: Vec::new(),
        };
        // The tests verify that the table is valid; an error in it would result in an empty vocabulary.
        Self::from_raw(&raw).unwrap_or_else(|_| Self::empty())
    }

    fn empty() -> Self {
        Self {
            pool: Vec::new(),
            starts: vec![0],
            kinds: Vec::new(),
            index: VocabularyIndex::empty(),
            bytes: [NO_TOKEN; 256],
            encoder: TokenEncoder::SentencePiece { scores: Vec::new() },
            bos: None,
            eos: None,
            fim: FimTokens::default(),
            chat_template: None,
        }
    }

    fn from_raw(raw: &RawVocabulary<'_>) -> Result<Self, EngineError> {
        let count = raw.tokens.len();
        let error = |field: &str, problem: String| model_error(raw.path, field, problem, PULL_AGAIN_REMEDY);
        let bytes: usize = raw.tokens.iter().map(|token| token.len()).sum();
        if count == 0 || count >= NO_TOKEN as usize || bytes >= u32::MAX as usize {
            return Err(error(TOKENS_KEY, format!("has {count} tokens of {bytes} bytes")));
        }
        for (field, len, wanted) in [
            (TYPES_KEY, raw.types.len(), !raw.types.is_empty()),
            (SCORES_KEY, raw.scores.len(), raw.sentencepiece),
        ] {
            if wanted && len != count {
                return Err(error(field, format!("has {len} entries for {count} tokens")));
            }
        }
        let mut this = Self::empty();
        this.pool.reserve_exact(bytes);
        this.starts.reserve_exact(count);
        let roles = SpecialTokens::from_raw(raw);
        (this.fim, this.bos, this.eos) = (roles.fim, roles.bos, roles.eos);
        this.read_tokens(raw, &roles.special);
        // Sorting and reading the merges take most of the time and are independent.
        let (index, merges) =
            threads::run_both(|| this.build_index(raw.sentencepiece), || this.read_merges(raw));
        this.index = index;
        this.index_byte_tokens();
        // Every character of source code must have a token.
        let lacks = (b' '..=b'~').chain([b'\n']).find(|&byte| this.bytes[usize::from(byte)] == NO_TOKEN);
        if let Some(byte) = lacks {
            return Err(error(TOKENS_KEY, format!("has no token for the byte {byte:#04x}")));
        }
        if raw.sentencepiece {
            let scores = raw.scores.iter().map(|&score| score as f32).collect();
            this.encoder = TokenEncoder::SentencePiece { scores };
            this.bos = this.bos.filter(|_| raw.add_bos.unwrap_or(true));
        } else {
            let split = PreTokenizer::from_name(raw.pre).map_err(|problem| {
                model_error(
                    raw.path,
                    "tokenizer.ggml.pre",
                    format!("{:?}: {problem}", raw.pre),
                    OTHER_MODEL_REMEDY,
                )
            })?;
            if !split.is_known {
                tracing::warn!(
                    "{}: unknown pre-tokenizer {:?}; using GPT-2's, which may reduce quality",
                    raw.path.display(),
                    sanitize_word(raw.pre)
                );
            }
            this.bos = this.bos.filter(|_| raw.add_bos.unwrap_or(split.adds_bos));
            this.encoder = TokenEncoder::Bpe { split, merges: merges? };
        }
        Ok(this)
    }

    /// Fills `pool`, `starts` and `kinds`. The tokens in `special` are special regardless of their type in the file.
    fn read_tokens(&mut self, raw: &RawVocabulary<'_>, special: &[TokenId]) {
        let spelled = char_to_byte_table();
        for (id, &text) in raw.tokens.iter().enumerate() {
            // `llama_token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
            let mut kind = match raw.types.get(id).map_or(1, |&kind| kind as i64) {
                2 | 3 | 5 => TokenType::Special,
                4 => TokenType::User,
                6 => TokenType::Byte,
                _ => TokenType::Normal,
            };
            if special.binary_search(&(id as TokenId)).is_ok() {
                kind = TokenType::Special;
            }
            if raw.sentencepiece {
                match (kind, parse_byte_token(text)) {
                    // Old converters write all types as normal.
                    (TokenType::Byte | TokenType::Normal, Some(byte)) => {
                        kind = TokenType::Byte;
                        self.pool.push(byte);
                    }
                    (TokenType::Special, _) => self.pool.extend_from_slice(text),
                    _ => push_with_blanks(&mut self.pool, text),
                }
            } else {
                let start = self.pool.len();
                // Special and user-defined tokens are stored verbatim, all others in GPT-2's spelling.
                let verbatim = matches!(kind, TokenType::Special | TokenType::User);
                if verbatim || !push_unspelled(&mut self.pool, text, &spelled) {
                    self.pool.truncate(start);
                    self.pool.extend_from_slice(text);
                    if kind != TokenType::Special {
                        kind = TokenType::User;
                    }
                }
            }
            self.starts.push(self.pool.len() as u32);
            // Generating tokens that spell nothing would never end.
            let empty = self.token_range(id as TokenId).is_empty();
            self.kinds.push(if empty { TokenType::Special } else { kind });
        }
    }

    fn read_merges(&self, raw: &RawVocabulary<'_>) -> Result<MergeTable, EngineError> {
        let spelled = char_to_byte_table();
        let mut merges = MergeTable::with_capacity(raw.merges.len());
        let spellings = SpellingTable::from_tokenizer(self);
        let mut whole = Vec::new();
        let mut guess = 0;
        for (rank, &text) in raw.merges.iter().enumerate() {
            let unknown = || {
                let problem = format!(
                    "{:?} names a token that is not in the vocabulary",
                    String::from_utf8_lossy(text)
                );
                model_error(raw.path, MERGES_KEY, problem, PULL_AGAIN_REMEDY)
            };
            // In vocabularies without GPT-2's spelling a side may itself be a blank: the first byte never separates.
            let gap = text.iter().skip(1).position(|&byte| byte == b' ').ok_or_else(unknown)? + 1;
            whole.clear();
            if !push_unspelled(&mut whole, &text[..gap], &spelled) {
                return Err(unknown());
            }
            let middle = whole.len();
            if !push_unspelled(&mut whole, &text[gap + 1..], &spelled) {
                return Err(unknown());
            }
            let find = |bytes: &[u8]| spellings.find(self, bytes).ok_or_else(unknown);
            let (left, right) = (find(&whole[..middle])?, find(&whole[middle..])?);
            // Most vocabularies are in the order of their merges.
            guess = match self.kinds.get(guess as usize) {
                Some(TokenType::Normal) if self.stored_bytes(guess) == whole => guess,
                _ => find(&whole)?,
            };
            merges.insert(left, right, rank as u32, guess);
            guess += 1;
        }
        Ok(merges)
    }

    /// Number of tokens, special ones included.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether the vocabulary is empty.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Encodes plain text.
    ///
    /// Special tokens are never recognised: a text that contains `<|fim_middle|>` is encoded as those
    /// characters. Nothing is added, no BOS and no leading blank, so the bytes of the tokens are the text.
    /// (Exception: bytes for which a byte-level vocabulary has no token are omitted; printable ASCII and line feeds
    /// always have one.)
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        let mut out = Vec::with_capacity(text.len() / 3 + 1);
        let first_bytes = |byte: u8| byte.is_ascii_whitespace() || byte == b'<';
        let bytes = text.as_bytes();
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() && !self.index.verbatim.is_empty() {
            let found = first_bytes(bytes[at]).then(|| {
                let here = &bytes[at..];
                self.index.verbatim.iter().copied().find(|&id| here.starts_with(self.stored_bytes(id)))
            });
            match found.flatten() {
                Some(id) => {
                    self.encode_segment(&text[from..at], &mut out);
                    out.push(id);
                    at += self.stored_bytes(id).len();
                    from = at;
                }
                None => at += 1,
            }
        }
        self.encode_segment(&text[from..], &mut out);
        out
    }

    /// Encodes text in which special and user-defined tokens are meant by their names: what a chat template renders,
    /// never a user's text. Of several names at one place the longest counts.
    pub fn encode_with_specials(&self, text: &str) -> Vec<TokenId> {
        let named = |id: &TokenId| {
            let name = self.stored_bytes(*id);
            matches!(self.token_type(*id), TokenType::Special | TokenType::User)
                && !name.trim_ascii().is_empty()
                && std::str::from_utf8(name).is_ok_and(|name| text.contains(name))
        };
        let mut names: Vec<TokenId> = (0..self.len() as TokenId).filter(named).collect();
        names.sort_by_key(|&id| std::cmp::Reverse(self.stored_bytes(id).len()));
        let mut out = Vec::new();
        let mut from = 0;
        for (at, _) in text.char_indices() {
            let rest = &text.as_bytes()[at..];
            if at >= from
                && let Some(&id) = names.iter().find(|&&id| rest.starts_with(self.stored_bytes(id)))
            {
                out.extend(self.encode(&text[from..at]));
                out.push(id);
                from = at + self.stored_bytes(id).len();
            }
        }
        out.extend(self.encode(&text[from..]));
        out
    }

    fn encode_segment(&self, text: &str, out: &mut Vec<TokenId>) {
        match &self.encoder {
            TokenEncoder::Bpe { split, merges } => {
                let mut symbols = Vec::new();
                split.split_text(text, &mut |piece| {
                    if split.prefer_whole_tokens
                        && let Some(id) = self.spelling(piece.as_bytes())
                        && self.token_type(id) == TokenType::Normal
                    {
                        out.push(id);
                        return;
                    }
                    symbols.clear();
                    let ids = piece.bytes().map(|byte| self.bytes[usize::from(byte)]);
                    symbols.extend(ids.filter(|&id| id != NO_TOKEN));
                    merges.merge_symbols(&mut symbols, out);
                });
            }
            TokenEncoder::SentencePiece { .. } => sentencepiece::encode_text(self, text, out),
        }
    }

    /// The bytes that a token spells; empty for a special token, or for an id that is not in the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        match self.kinds.get(id as usize) {
            None | Some(TokenType::Special) => &[],
            Some(_) => self.stored_bytes(id),
        }
    }

    /// The special token with exactly this name, e.g. `<|fim_prefix|>`.
    pub fn special_id(&self, name: &str) -> Option<TokenId> {
        let at = self.index.specials.partition_point(|&id| self.stored_bytes(id) < name.as_bytes());
        self.index.specials.get(at).copied().filter(|&id| self.stored_bytes(id) == name.as_bytes())
    }

    /// Whether a token spells nothing: control, FIM, unknown and unused tokens, and ids that are not in the vocabulary.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.kinds.get(id as usize).is_none_or(|&kind| kind == TokenType::Special)
    }

    /// Whether generation stops at this token: end of text or turn, FIM, repository, file separator, pad, and
    /// every other special token, because completions never contain one.
    pub fn is_stop_token(&self, id: TokenId) -> bool {
        self.is_special(id)
    }

    /// The token that begins every prompt, if the model requires one.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The token that ends a text, if the file names it.
    pub fn eos(&self) -> Option<TokenId> {
        self.eos
    }

    /// The chat template in the model's file, a program in Jinja2's language.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The tokens of fill-in-the-middle prompts: those given in the file's metadata, else those with one of the
    /// usual names.
    pub fn fim_tokens(&self) -> FimTokens {
        self.fim
    }

    /// Length of the longest ordinary token, in bytes.
    pub fn longest_token_len(&self) -> usize {
        self.index.longest
    }

    /// All ordinary tokens whose bytes begin with `bytes`, sorted by their bytes.
    pub fn tokens_with_prefix<'a>(
        &'a self,
        bytes: &[u8],
    ) -> impl ExactSizeIterator<Item = TokenId> + use<'a> {
        let range = self.bucket_range(bytes);
        let within = &self.index.sorted[range];
        let from = within.partition_point(|&id| self.stored_bytes(id) < bytes);
        let len = within[from..].partition_point(|&id| self.stored_bytes(id).starts_with(bytes));
        within[from..from + len].iter().copied()
    }

    /// The ordinary token with exactly these bytes; among several, one that the encoder produces.
    pub fn spelling(&self, bytes: &[u8]) -> Option<TokenId> {
        if bytes.is_empty() {
            return None;
        }
        let at = bucket_index(bytes);
        let within = &self.index.sorted[self.index.buckets[at] as usize..self.index.buckets[at + 1] as usize];
        let at = within.partition_point(|&id| self.stored_bytes(id) < bytes);
        within.get(at).copied().filter(|&id| self.stored_bytes(id) == bytes)
    }

    /// The text of tokens for display and scripts: special tokens by name, invalid UTF-8 replaced.
    pub fn render(&self, ids: &[TokenId]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if (id as usize) < self.len() {
                bytes.extend_from_slice(self.stored_bytes(id));
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn token_range(&self, id: TokenId) -> Range<usize> {
        self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize
    }

    /// The bytes of an ordinary token, or the name of a special one.
    fn stored_bytes(&self, id: TokenId) -> &[u8] {
        &self.pool[self.token_range(id)]
    }

    fn token_type(&self, id: TokenId) -> TokenType {
        self.kinds[id as usize]
    }
}

impl fmt::Debug for Tokenizer {
    /// Sizes and roles, not the vocabulary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("len", &self.len())
            .field("bos", &self.bos)
            .field("fim", &self.fim)
            .finish()
    }
}

#[cfg(test)]
mod tests;
