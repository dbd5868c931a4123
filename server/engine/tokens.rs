//! The vocabulary: encode, count, UTF-8-safe streaming decode, FIM ids.
//! It knows nothing of tensors or prompts.
//!
//! Built from the `tokenizer.ggml.*` metadata of a GGUF file. Two kinds: byte-level BPE (`gpt2`) and SentencePiece
//! (`llama`). Encoding is on the path of every keystroke and must never recognise a special token in a user's text,
//! and loading is part of the start: so the encoders are our own, over one pool of bytes, and the `tokenizers`
//! library is what the tests compare them with.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use crate::gguf::{FETCH_AGAIN, Gguf, bad, shown};
use crate::{EngineError, threads};

mod bpe;
mod pieces;
mod roles;
mod sentencepiece;
mod spelling;
mod split;
mod stream;
mod table;
pub(crate) mod tiny;

pub use roles::FimIds;
pub use stream::Utf8Stream;

use bpe::Merges;
use roles::Roles;
use spelling::{byte_token, push_spelled, push_with_blanks, spelled_bytes};
use split::Split;
use table::Spellings;

/// Index of a token in the vocabulary.
pub type TokenId = u32;

const NONE: TokenId = TokenId::MAX;

/// A model's vocabulary.
pub struct Tokens {
    /// The bytes of all tokens, one behind the other; of special tokens, their names.
    pool: Vec<u8>,
    /// Where each token begins in `pool`, and where the last ends.
    starts: Vec<u32>,
    kinds: Vec<Kind>,
    index: Index,
    /// The token of each single byte.
    bytes: [TokenId; 256],
    encoder: Encoder,
    bos: Option<TokenId>,
    fim: FimIds,
}

/// Ways to find tokens.
#[derive(Default)]
struct Index {
    /// Ordinary tokens in the order of their bytes.
    sorted: Vec<TokenId>,
    /// Where in `sorted` the tokens with given first two bytes begin; see [`bucket`].
    buckets: Vec<u32>,
    /// Special tokens in the order of their names.
    specials: Vec<TokenId>,
    /// Runs of blanks that the family takes whole before anything else, the longest first.
    runs: Vec<TokenId>,
    /// Length of the longest ordinary token.
    longest: usize,
}

#[derive(Debug)]
enum Encoder {
    Bpe { split: Split, merges: Merges },
    SentencePiece { scores: Vec<f32> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Spells text.
    Normal,
    /// Spells text, but the encoder does not choose it by itself.
    User,
    /// Stands for one byte that no other token spells.
    Byte,
    /// Control, unknown, unused: spells nothing.
    Special,
}

/// A vocabulary as a file has it.
struct Raw<'a> {
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
    /// The ids that metadata name, by their keys.
    ids: Vec<(&'static str, TokenId)>,
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const OTHER_MODEL: &str = "choose a model that `taper models` lists";

impl Tokens {
    /// Reads the vocabulary of a model file.
    ///
    /// # Errors
    /// The metadata are missing, contradict each other, or name a kind of vocabulary that is not known; the
    /// message names the field.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        const MODEL: &str = "tokenizer.ggml.model";
        let sentencepiece = match gguf.str(MODEL) {
            Some("gpt2") => false,
            Some("llama") => true,
            Some(other) => {
                let problem =
                    format!("is {other:?}; byte-level BPE (gpt2) and SentencePiece (llama) are known");
                return Err(gguf.bad(MODEL, problem, OTHER_MODEL));
            }
            None => return Err(gguf.bad(MODEL, "is missing", OTHER_MODEL)),
        };
        let missing = |field: &'static str| move || gguf.bad(field, "is missing", FETCH_AGAIN);
        let tokens = gguf.texts(TOKENS)?.filter(|tokens| !tokens.is_empty()).ok_or_else(missing(TOKENS))?;
        let types = gguf.numbers(TYPES)?.unwrap_or_default();
        let (scores, merges) = if sentencepiece {
            (gguf.numbers(SCORES)?.ok_or_else(missing(SCORES))?, Vec::new())
        } else {
            (Vec::new(), gguf.texts(MERGES)?.ok_or_else(missing(MERGES))?)
        };
        let mut ids = Vec::new();
        for key in roles::keys() {
            let Some(id) = gguf.usize(key)? else { continue };
            if id >= tokens.len() {
                // Some converters write -1 as u32 for "none".
                if id == u32::MAX as usize {
                    continue;
                }
                let problem = format!("is {id}, but there are {} tokens", tokens.len());
                return Err(gguf.bad(key, problem, FETCH_AGAIN));
            }
            ids.push((key, id as TokenId));
        }
        let pre = gguf.str("tokenizer.ggml.pre").unwrap_or("gpt-2");
        Self::build(&Raw {
            path: gguf.path(),
            sentencepiece,
            pre,
            tokens,
            types,
            scores,
            merges,
            add_bos: gguf.bool("tokenizer.ggml.add_bos_token"),
            ids,
        })
    }

    /// A tiny byte-level vocabulary without a file: 256 bytes, a few merges, Qwen's special tokens. For tests
    /// and the scripted engine.
    pub fn bytes_only() -> Self {
        let (tokens, types, merges) = tiny::vocabulary();
        let raw = Raw {
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
        // The tests show that the table is sound; an empty vocabulary is what a mistake in it would leave.
        Self::build(&raw).unwrap_or_else(|_| Self::empty())
    }

    fn empty() -> Self {
        Self {
            pool: Vec::new(),
            starts: vec![0],
            kinds: Vec::new(),
            index: Index { buckets: vec![0; BUCKETS + 1], ..Index::default() },
            bytes: [NONE; 256],
            encoder: Encoder::SentencePiece { scores: Vec::new() },
            bos: None,
            fim: FimIds::default(),
        }
    }

    fn build(raw: &Raw<'_>) -> Result<Self, EngineError> {
        let count = raw.tokens.len();
        let error = |field: &str, problem: String| bad(raw.path, field, problem, FETCH_AGAIN);
        let bytes: usize = raw.tokens.iter().map(|token| token.len()).sum();
        if count == 0 || count >= NONE as usize || bytes >= u32::MAX as usize {
            return Err(error(TOKENS, format!("has {count} tokens of {bytes} bytes")));
        }
        for (field, len, wanted) in
            [(TYPES, raw.types.len(), !raw.types.is_empty()), (SCORES, raw.scores.len(), raw.sentencepiece)]
        {
            if wanted && len != count {
                return Err(error(field, format!("has {len} entries for {count} tokens")));
            }
        }
        let mut this = Self::empty();
        this.pool.reserve_exact(bytes);
        this.starts.reserve_exact(count);
        let roles = Roles::of(raw);
        (this.fim, this.bos) = (roles.fim, roles.bos);
        this.read_tokens(raw, &roles.special);
        // Sorting and reading the merges take most of the time, and neither needs the other.
        let (index, merges) = threads::both(|| this.index(), || this.read_merges(raw));
        this.index = index;
        this.set_bytes();
        // Every text of a program must have tokens, down to its last character.
        let lacks = (b' '..=b'~').chain([b'\n']).find(|&byte| this.bytes[usize::from(byte)] == NONE);
        if let Some(byte) = lacks {
            return Err(error(TOKENS, format!("has no token for the byte {byte:#04x}")));
        }
        if raw.sentencepiece {
            let scores = raw.scores.iter().map(|&score| score as f32).collect();
            this.encoder = Encoder::SentencePiece { scores };
            this.bos = this.bos.filter(|_| raw.add_bos.unwrap_or(true));
        } else {
            let split = Split::named(raw.pre).map_err(|problem| {
                bad(raw.path, "tokenizer.ggml.pre", format!("{:?}: {problem}", raw.pre), OTHER_MODEL)
            })?;
            if !split.known {
                tracing::warn!(
                    "{}: the pre-tokenizer {:?} is not known; GPT-2's is taken, which may cost some quality",
                    raw.path.display(),
                    shown(raw.pre)
                );
            }
            this.bos = this.bos.filter(|_| raw.add_bos.unwrap_or(split.bos));
            this.encoder = Encoder::Bpe { split, merges: merges? };
        }
        Ok(this)
    }

    /// Fills `pool`, `starts` and `kinds`; the tokens `special` are that whatever the file says.
    fn read_tokens(&mut self, raw: &Raw<'_>, special: &[TokenId]) {
        let spelled = spelled_bytes();
        for (id, &text) in raw.tokens.iter().enumerate() {
            // `llama_token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
            let mut kind = match raw.types.get(id).map_or(1, |&kind| kind as i64) {
                2 | 3 | 5 => Kind::Special,
                4 => Kind::User,
                6 => Kind::Byte,
                _ => Kind::Normal,
            };
            if special.binary_search(&(id as TokenId)).is_ok() {
                kind = Kind::Special;
            }
            if raw.sentencepiece {
                match (kind, byte_token(text)) {
                    // Old converters write all types as normal.
                    (Kind::Byte | Kind::Normal, Some(byte)) => {
                        kind = Kind::Byte;
                        self.pool.push(byte);
                    }
                    (Kind::Special, _) => self.pool.extend_from_slice(text),
                    _ => push_with_blanks(&mut self.pool, text),
                }
            } else {
                let start = self.pool.len();
                // Special and user-defined tokens are written as they are, all others in GPT-2's spelling.
                let verbatim = matches!(kind, Kind::Special | Kind::User);
                if verbatim || !push_spelled(&mut self.pool, text, &spelled) {
                    self.pool.truncate(start);
                    self.pool.extend_from_slice(text);
                    if kind != Kind::Special {
                        kind = Kind::User;
                    }
                }
            }
            self.starts.push(self.pool.len() as u32);
            // A token that spells nothing would never end.
            let empty = self.span(id as TokenId).is_empty();
            self.kinds.push(if empty { Kind::Special } else { kind });
        }
    }

    /// The ordinary tokens by their bytes, and the special ones by their names.
    fn index(&self) -> Index {
        let mut keyed: Vec<(u64, TokenId)> = Vec::with_capacity(self.len());
        let (mut specials, mut runs) = (Vec::new(), Vec::new());
        let mut longest = 0;
        for id in 0..self.len() as TokenId {
            let text = self.text(id);
            if self.kind(id) == Kind::Special {
                specials.push(id);
                continue;
            }
            if self.kind(id) == Kind::User && text.len() > 1 && text.iter().all(u8::is_ascii_whitespace) {
                runs.push(id);
            }
            // The first eight bytes decide nearly every comparison without a look at the pool.
            let mut head = [0; 8];
            let len = text.len().min(8);
            head[..len].copy_from_slice(&text[..len]);
            longest = longest.max(text.len());
            keyed.push((u64::from_be_bytes(head), id));
        }
        keyed.sort_unstable_by(|&(a, x), &(b, y)| {
            let rest = || {
                self.text(x).cmp(self.text(y)).then_with(|| self.kind(x).cmp(&self.kind(y))).then(x.cmp(&y))
            };
            a.cmp(&b).then_with(rest)
        });
        let sorted: Vec<TokenId> = keyed.into_iter().map(|(_, id)| id).collect();
        let mut buckets = vec![0_u32; BUCKETS + 1];
        for &id in &sorted {
            buckets[bucket(self.text(id)) + 1] += 1;
        }
        for i in 1..buckets.len() {
            buckets[i] += buckets[i - 1];
        }
        specials.sort_by(|&x, &y| self.text(x).cmp(self.text(y)));
        runs.sort_by_key(|&id| std::cmp::Reverse(self.text(id).len()));
        Index { sorted, buckets, specials, runs, longest }
    }

    fn set_bytes(&mut self) {
        for byte in 0..=255_u8 {
            self.bytes[usize::from(byte)] = self.spelling(&[byte]).unwrap_or(NONE);
        }
        if let Some(id) = (0..self.kinds.len() as TokenId).find(|&id| self.kinds[id as usize] == Kind::Byte) {
            // SentencePiece falls back to the byte tokens, not to letters that happen to be one byte long.
            for id in id..self.kinds.len() as TokenId {
                if self.kind(id) == Kind::Byte {
                    self.bytes[usize::from(self.text(id)[0])] = id;
                }
            }
        }
    }

    fn read_merges(&self, raw: &Raw<'_>) -> Result<Merges, EngineError> {
        let spelled = spelled_bytes();
        let mut merges = Merges::with_capacity(raw.merges.len());
        let spellings = Spellings::of(self);
        let mut whole = Vec::new();
        let mut guess = 0;
        for (rank, &text) in raw.merges.iter().enumerate() {
            let unknown = || {
                let problem = format!(
                    "{:?} names a token that is not in the vocabulary",
                    String::from_utf8_lossy(text)
                );
                bad(raw.path, MERGES, problem, FETCH_AGAIN)
            };
            // A side may be a blank itself in vocabularies that are not spelled: the first byte never separates.
            let gap = text.iter().skip(1).position(|&byte| byte == b' ').ok_or_else(unknown)? + 1;
            whole.clear();
            if !push_spelled(&mut whole, &text[..gap], &spelled) {
                return Err(unknown());
            }
            let middle = whole.len();
            if !push_spelled(&mut whole, &text[gap + 1..], &spelled) {
                return Err(unknown());
            }
            let find = |bytes: &[u8]| spellings.find(self, bytes).ok_or_else(unknown);
            let (left, right) = (find(&whole[..middle])?, find(&whole[middle..])?);
            // Most vocabularies are in the order of their merges.
            guess = match self.kinds.get(guess as usize) {
                Some(Kind::Normal) if self.text(guess) == whole => guess,
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

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The tokens of a plain text.
    ///
    /// Special tokens are never recognised: a text that contains `<|fim_middle|>` is encoded as those
    /// characters. Nothing is added, no BOS and no leading blank, so the bytes of the tokens are the text.
    /// (Exception: bytes for which a byte-level vocabulary has no token at all are left out; printable ASCII and line feeds
    /// always have one.)
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        let mut out = Vec::with_capacity(text.len() / 3 + 1);
        if self.index.runs.is_empty() {
            self.encode_segment(text, &mut out);
            return out;
        }
        let bytes = text.as_bytes();
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            let run = bytes[at].is_ascii_whitespace().then(|| {
                let here = &bytes[at..];
                self.index.runs.iter().copied().find(|&id| here.starts_with(self.text(id)))
            });
            match run.flatten() {
                Some(id) => {
                    self.encode_segment(&text[from..at], &mut out);
                    out.push(id);
                    at += self.text(id).len();
                    from = at;
                }
                None => at += 1,
            }
        }
        self.encode_segment(&text[from..], &mut out);
        out
    }

    fn encode_segment(&self, text: &str, out: &mut Vec<TokenId>) {
        match &self.encoder {
            Encoder::Bpe { split, merges } => {
                let mut symbols = Vec::new();
                split.pieces(text, &mut |piece| {
                    if split.whole_first
                        && let Some(id) = self.spelling(piece.as_bytes())
                        && self.kind(id) == Kind::Normal
                    {
                        out.push(id);
                        return;
                    }
                    symbols.clear();
                    let ids = piece.bytes().map(|byte| self.bytes[usize::from(byte)]);
                    symbols.extend(ids.filter(|&id| id != NONE));
                    merges.merge(&mut symbols, out);
                });
            }
            Encoder::SentencePiece { .. } => sentencepiece::encode(self, text, out),
        }
    }

    /// The bytes that a token spells; none for a special token, or for an id that is not in the vocabulary.
    pub fn bytes(&self, id: TokenId) -> &[u8] {
        match self.kinds.get(id as usize) {
            None | Some(Kind::Special) => &[],
            Some(_) => self.text(id),
        }
    }

    /// The special token with exactly this name, e.g. `<|fim_prefix|>`.
    pub fn id(&self, name: &str) -> Option<TokenId> {
        let at = self.index.specials.partition_point(|&id| self.text(id) < name.as_bytes());
        self.index.specials.get(at).copied().filter(|&id| self.text(id) == name.as_bytes())
    }

    /// Whether a token spells nothing: control, FIM, unknown and unused tokens. Ids that are not in the vocabulary count
    /// as such.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.kinds.get(id as usize).is_none_or(|&kind| kind == Kind::Special)
    }

    /// Whether generation stops at this token: end of text or turn, FIM, repository, file separator, pad, and
    /// every other special token, for no completion contains one.
    pub fn ends(&self, id: TokenId) -> bool {
        self.is_special(id)
    }

    /// The token that begins every prompt, if the model wants one.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The tokens of fill-in-the-middle prompts: those that the file's metadata name, else those with one of
    /// the usual names.
    pub fn fim(&self) -> FimIds {
        self.fim
    }

    /// Length of the longest ordinary token, in bytes.
    pub fn longest(&self) -> usize {
        self.index.longest
    }

    /// All ordinary tokens whose bytes begin with `bytes`, in the order of their bytes.
    pub fn starting_with<'a>(&'a self, bytes: &[u8]) -> impl ExactSizeIterator<Item = TokenId> + use<'a> {
        let range = self.near(bytes);
        let within = &self.index.sorted[range];
        let from = within.partition_point(|&id| self.text(id) < bytes);
        let len = within[from..].partition_point(|&id| self.text(id).starts_with(bytes));
        within[from..from + len].iter().copied()
    }

    /// The ordinary token with exactly these bytes; among several, one that encoding chooses.
    pub fn spelling(&self, bytes: &[u8]) -> Option<TokenId> {
        if bytes.is_empty() {
            return None;
        }
        let at = bucket(bytes);
        let within = &self.index.sorted[self.index.buckets[at] as usize..self.index.buckets[at + 1] as usize];
        let at = within.partition_point(|&id| self.text(id) < bytes);
        within.get(at).copied().filter(|&id| self.text(id) == bytes)
    }

    /// The text of tokens for people and scripts: special tokens as their names, bytes that are no UTF-8 replaced.
    pub fn render(&self, ids: &[TokenId]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if (id as usize) < self.len() {
                bytes.extend_from_slice(self.text(id));
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn span(&self, id: TokenId) -> Range<usize> {
        self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize
    }

    /// Bytes of an ordinary token, name of a special one.
    fn text(&self, id: TokenId) -> &[u8] {
        &self.pool[self.span(id)]
    }

    fn kind(&self, id: TokenId) -> Kind {
        self.kinds[id as usize]
    }

    /// The part of `sorted` that holds every token that begins with `bytes`.
    fn near(&self, bytes: &[u8]) -> Range<usize> {
        let (first, last) = match bytes {
            [] => return 0..self.index.sorted.len(),
            [first] => (bucket(&[*first]), bucket(&[*first, 255])),
            more => (bucket(more), bucket(more)),
        };
        self.index.buckets[first] as usize..self.index.buckets[last + 1] as usize
    }
}

impl fmt::Debug for Tokens {
    /// Sizes and roles, not the vocabulary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("len", &self.len())
            .field("bos", &self.bos)
            .field("fim", &self.fim)
            .finish()
    }
}

/// Buckets of [`bucket`].
const BUCKETS: usize = 256 * 257;

/// A number for the first two bytes of a spelling that grows with it; one byte alone comes before all pairs.
fn bucket(bytes: &[u8]) -> usize {
    let first = bytes.first().map_or(0, |&byte| usize::from(byte));
    let second = bytes.get(1).map_or(0, |&byte| usize::from(byte) + 1);
    first * 257 + second
}

#[cfg(test)]
mod tests;
