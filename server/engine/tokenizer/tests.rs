//! Compares the tokenizer with the library that the models were made with, and tests edge cases.
use std::collections::HashMap;

mod reference_data;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split as SplitBy, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use super::*;
use crate::gguf::MetadataValue;
use crate::gguf::testing::{GgufWriter, ModelDims, random_llama, random_qwen2};

fn write_and_open(writer: &GgufWriter) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    writer.write(&path).unwrap();
    // The open file outlives the folder.
    Gguf::open(&path).unwrap()
}

fn load_tokenizer(writer: &GgufWriter) -> Result<Tokenizer, EngineError> {
    Tokenizer::from_gguf(&write_and_open(writer))
}

fn concat_token_bytes(tokens: &Tokenizer, ids: &[TokenId]) -> Vec<u8> {
    ids.iter().flat_map(|&id| tokens.token_bytes(id)).copied().collect()
}

/// The real model, if there is one.
fn open_real_model() -> Option<Gguf> {
    let path = crate::testing::real_model()?;
    Some(Gguf::open(&path).unwrap())
}

const SAMPLE_SOURCES: [&str; 4] = [
    include_str!("../tokenizer.rs"),
    include_str!("../gguf.rs"),
    include_str!("../lib.rs"),
    include_str!("../Cargo.toml"),
];

const HARD_TEXTS: [&str; 14] = [
    "",
    " ",
    "\n",
    "\r\n",
    "\t\tif (x) {\r\n\t\t\treturn 1;\r\n\t\t}\r\n",
    "a  \n   b\n\n\n\t c   ",
    "日本語のコメント // 数字 123",
    "emoji 🙂🇩🇪👩‍👩‍👧 end",
    "e\u{301}a\u{308} nai\u{308}ve हिन्दी १२३ Ⅷ ½ ²",
    "it's they'RE I'll 'tis x's1",
    "<|fim_middle|><|endoftext|></s><fim_prefix>[SUFFIX]▁<PRE>",
    "\u{feff}\u{200b}\u{a0}\u{2003}\u{85}x\u{3000} y",
    "____init____(self, *args, **kwargs):",
    "0x1F 1_000_000 3.14e-10 a1b2",
];

/// Text of the kind that breaks tokenizers: random blanks, line ends, scripts, quotes and digits.
fn random_text(random: &mut fastrand::Rng) -> String {
    let parts = [
        " ", " ", "\n", "\r\n", "\t", "a", "Z", "ret", "urn", "return", "self", "def ", "1", "23", "'s",
        "'LL", "(", "):", "=", "é", "ß", "数", "🙂", "\u{301}", "\u{a0}", "\u{3000}", "_", "x", "/", "<",
        "ǅ", "१", "'", "Ab", "aB",
    ];
    (0..random.usize(0..40)).map(|_| parts[random.usize(..parts.len())]).collect()
}

/// The same vocabulary in the `tokenizers` library, with the published patterns, including lookaheads.
fn reference_tokenizer(gguf: &Gguf) -> tokenizers::Tokenizer {
    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let pre = gguf.get_str("tokenizer.ggml.pre").unwrap();
    let patterns: &[&str] = match pre {
        "qwen2" => &[QWEN2],
        "llama-bpe" => &[LLAMA3],
        "tekken" => &[TEKKEN],
        "smollm" => &[r"\p{N}", GPT2],
        "deepseek-coder" => &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-\x{D7FF}]+", r"\p{N}"],
        _ => &[GPT2],
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let tokens = gguf.get_strings(TOKENS_KEY).unwrap().unwrap();
    let vocabulary: HashMap<String, u32> =
        tokens.iter().enumerate().map(|(id, token)| (text(token), id as u32)).collect();
    let merges = gguf.get_strings(MERGES_KEY).unwrap().unwrap();
    let pair = |&merge: &&[u8]| {
        let merge = text(merge);
        let (left, right) = merge.split_once(' ').unwrap();
        (left.to_owned(), right.to_owned())
    };
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<Vocab>(), merges.iter().map(pair).collect())
        .ignore_merges(matches!(pre, "llama-bpe" | "tekken"))
        .build()
        .unwrap();
    let mut steps: Vec<tokenizers::PreTokenizerWrapper> = Vec::new();
    for &pattern in patterns {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        steps.push(SplitBy::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap().into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    tokenizer
}

fn assert_agrees(tokens: &Tokenizer, reference: &tokenizers::Tokenizer, text: &str) {
    let expected = reference.encode_fast(text, false).unwrap();
    assert_eq!(tokens.encode(text), expected.get_ids(), "{text:?}");
}

#[test]
fn byte_level_agrees_with_tokenizers_library() {
    let mut random = fastrand::Rng::with_seed(7);
    for pre in ["qwen2", "llama-bpe", "tekken", "smollm", "deepseek-coder", "gpt-2"] {
        let name = MetadataValue::String(pre.into());
        let gguf = write_and_open(
            &GgufWriter::new().with_byte_level_tokenizer().with_metadata("tokenizer.ggml.pre", name),
        );
        let (tokens, reference) = (Tokenizer::from_gguf(&gguf).unwrap(), reference_tokenizer(&gguf));
        for text in HARD_TEXTS {
            assert_agrees(&tokens, &reference, text);
        }
        for _ in 0..2_000 {
            assert_agrees(&tokens, &reference, &random_text(&mut random));
        }
    }
}

#[test]
fn real_vocabulary_agrees_with_tokenizers_library() {
    let Some(gguf) = open_real_model() else { return };
    let tokens = Tokenizer::from_gguf(&gguf).unwrap();
    let reference = reference_tokenizer(&gguf);
    let mut random = fastrand::Rng::with_seed(8);
    for text in SAMPLE_SOURCES.into_iter().chain(HARD_TEXTS) {
        assert_agrees(&tokens, &reference, text);
        let ids = tokens.encode(text);
        assert_eq!(concat_token_bytes(&tokens, &ids), text.as_bytes());
        assert!(ids.iter().all(|&id| !tokens.is_special(id)));
        let (mut stream, mut out) = (Utf8Stream::new(), String::new());
        for &id in &ids {
            stream.push(tokens.token_bytes(id), &mut out);
        }
        assert_eq!(out, text);
    }
    for _ in 0..2_000 {
        assert_agrees(&tokens, &reference, &random_text(&mut random));
    }
}

#[test]
fn vocabulary_index_agrees_with_linear_search() {
    let sentencepiece = load_tokenizer(&GgufWriter::new().with_sentencepiece_tokenizer()).unwrap();
    let mut random = fastrand::Rng::with_seed(9);
    for tokens in [Tokenizer::bytes_only(), sentencepiece] {
        let all: Vec<TokenId> = (0..tokens.len() as TokenId).collect();
        let mut prefixes = vec![Vec::new(), vec![0], vec![255], vec![255, 255], b"return x".to_vec()];
        for _ in 0..500 {
            let bytes = tokens.token_bytes(random.u32(..tokens.len() as u32));
            prefixes.push(bytes[..random.usize(..=bytes.len())].to_vec());
        }
        for prefix in prefixes {
            let mut found: Vec<TokenId> = tokens.tokens_with_prefix(&prefix).collect();
            found.sort_unstable();
            let begins =
                |id: &TokenId| !tokens.is_special(*id) && tokens.token_bytes(*id).starts_with(&prefix);
            let expected: Vec<TokenId> = all.iter().copied().filter(begins).collect();
            assert_eq!(found, expected, "{prefix:x?}");
            let exact = all.iter().any(|&id| !prefix.is_empty() && tokens.token_bytes(id) == prefix);
            assert_eq!(tokens.spelling(&prefix).is_some(), exact);
        }
    }
}

#[test]
fn special_tokens_are_never_encoded_from_text() {
    let tokens = Tokenizer::bytes_only();
    assert_eq!(tokens.len(), tiny::byte_level_vocabulary().0.len());
    let middle = tokens.special_id("<|fim_middle|>").unwrap();
    let ids = tokens.encode("a<|fim_middle|>b");
    assert!(!ids.contains(&middle));
    assert_eq!(concat_token_bytes(&tokens, &ids), b"a<|fim_middle|>b");
    // What a chat template renders names them on purpose.
    let named = tokens.encode_with_specials("a<|fim_middle|>b");
    assert_eq!((named.len(), named[1]), (3, middle));
    assert!(
        tokens.is_special(middle) && tokens.is_stop_token(middle) && tokens.token_bytes(middle).is_empty()
    );
    assert_eq!(tokens.special_id("return"), None);
    let fim = tokens.fim_tokens();
    assert_eq!(fim.middle, Some(middle));
    assert_eq!(
        (fim.prefix, fim.suffix),
        (tokens.special_id("<|fim_prefix|>"), tokens.special_id("<|fim_suffix|>"))
    );
    assert_eq!(
        (fim.repository, fim.file),
        (tokens.special_id("<|repo_name|>"), tokens.special_id("<|file_sep|>"))
    );
    assert!(fim.prefix.is_some() && fim.pad.is_some() && fim.repository.is_some() && fim.file.is_some());
    assert_eq!(tokens.render(&[middle, ids[0]]), "<|fim_middle|>a");
    assert_eq!(tokens.bos(), None);
    assert!(tokens.is_special(TokenId::MAX) && tokens.token_bytes(TokenId::MAX).is_empty());
}

#[test]
fn normal_token_with_special_name_stays_text() {
    let (mut tokens, mut types, mut merges) = tiny::byte_level_vocabulary();
    tokens.extend(["</".to_owned(), "s>".to_owned(), "</s>".to_owned()]);
    types.extend([1, 1, 1]);
    merges.extend(["< /".to_owned(), "s >".to_owned(), "</ s>".to_owned()]);
    let tokens = load_tokenizer(&with_vocabulary(tokens, types, merges)).unwrap();
    let id = tokens.len() as TokenId - 1;
    assert_eq!((tokens.token_bytes(id), tokens.is_special(id)), (b"</s>".as_slice(), false));
}

#[test]
fn fim_metadata_keys_override_token_names() {
    let writer = GgufWriter::new().with_byte_level_tokenizer();
    let pad = Tokenizer::bytes_only().special_id("[PAD1]").unwrap();
    let tokens = load_tokenizer(
        &writer.with_metadata("tokenizer.ggml.fim_mid_token_id", MetadataValue::Unsigned(u64::from(pad))),
    )
    .unwrap();
    assert_eq!(tokens.fim_tokens().middle, Some(pad));
    assert_eq!(tokens.fim_tokens().prefix, tokens.special_id("<|fim_prefix|>"));
}

fn with_vocabulary(tokens: Vec<String>, types: Vec<i64>, merges: Vec<String>) -> GgufWriter {
    let strings =
        |list: Vec<String>| MetadataValue::Array(list.into_iter().map(MetadataValue::String).collect());
    GgufWriter::new()
        .with_byte_level_tokenizer()
        .with_metadata(TOKENS_KEY, strings(tokens))
        .with_metadata(
            TYPES_KEY,
            MetadataValue::Array(types.into_iter().map(MetadataValue::Signed).collect()),
        )
        .with_metadata(MERGES_KEY, strings(merges))
}

#[test]
fn sentencepiece_round_trips_and_merges_by_score() {
    let tokens = load_tokenizer(&GgufWriter::new().with_sentencepiece_tokenizer()).unwrap();
    assert!(tokens.bos().is_some());
    assert_eq!(tokens.bos(), tokens.special_id("<s>"));
    let fim = tokens.fim_tokens();
    assert_eq!(fim.prefix, tokens.special_id("▁<PRE>"));
    assert!(fim.prefix.is_some() && fim.suffix.is_some() && fim.middle.is_some());
    assert!(
        tokens.is_stop_token(tokens.special_id("▁<EOT>").unwrap())
            && tokens.is_stop_token(tokens.special_id("</s>").unwrap())
    );
    let mut random = fastrand::Rng::with_seed(10);
    let texts = (0..500).map(|_| random_text(&mut random));
    for text in texts.chain(HARD_TEXTS.map(str::to_owned)).chain(["literal ▁ stays".to_owned()]) {
        let ids = tokens.encode(&text);
        assert_eq!(String::from_utf8(concat_token_bytes(&tokens, &ids)).unwrap(), text);
        assert!(ids.iter().all(|&id| !tokens.is_special(id)));
    }
    let pieces = |text: &str| -> Vec<String> {
        let ids = tokens.encode(text);
        ids.iter().map(|&id| String::from_utf8_lossy(tokens.token_bytes(id)).into_owned()).collect()
    };
    assert_eq!(pieces("self return"), ["self", " return"]);
    assert_eq!(pieces("    int"), ["    ", "int"]);
}

#[test]
fn user_defined_blank_runs_are_encoded_first() {
    let (mut tokens, mut types, merges) = tiny::byte_level_vocabulary();
    tokens.push("        ".to_owned());
    types.push(4);
    let tokens = load_tokenizer(&with_vocabulary(tokens, types, merges)).unwrap();
    let run = tokens.len() as TokenId - 1;
    assert_eq!(tokens.token_bytes(run), b"        ");
    let ids = tokens.encode("x          y");
    assert_eq!(ids[1], run);
    assert_eq!(concat_token_bytes(&tokens, &ids), b"x          y");
}

#[test]
fn metadata_errors_name_their_field() {
    let good = GgufWriter::new().with_byte_level_tokenizer();
    let list = |values: &[&str]| {
        MetadataValue::Array(values.iter().map(|&v| MetadataValue::String(v.into())).collect())
    };
    let id = MetadataValue::Unsigned;
    let (model, eos) = ("tokenizer.ggml.model", "tokenizer.ggml.eos_token_id");
    let with = |field: &str, value: MetadataValue| good.clone().with_metadata(field, value);
    let cases = [
        (good.clone().without_metadata(model), model),
        (with(model, MetadataValue::String("bert".into())), model),
        (good.clone().without_metadata(TOKENS_KEY), TOKENS_KEY),
        (with(TOKENS_KEY, list(&[])), TOKENS_KEY),
        (with(TOKENS_KEY, id(3)), TOKENS_KEY),
        (with(TOKENS_KEY, MetadataValue::Array(vec![id(3)])), TOKENS_KEY),
        (good.clone().without_metadata(MERGES_KEY), MERGES_KEY),
        (with(MERGES_KEY, list(&["a nothing"])), MERGES_KEY),
        (with(MERGES_KEY, list(&["ab"])), MERGES_KEY),
        (with(MERGES_KEY, list(&["q q"])), MERGES_KEY),
        (with(TYPES_KEY, MetadataValue::Array(vec![MetadataValue::Signed(1)])), TYPES_KEY),
        (with(TYPES_KEY, list(&["1"])), TYPES_KEY),
        (with(eos, id(1_000_000)), eos),
        (with(eos, MetadataValue::Signed(-5)), eos),
        (GgufWriter::new().with_sentencepiece_tokenizer().without_metadata(SCORES_KEY), SCORES_KEY),
        (
            GgufWriter::new()
                .with_sentencepiece_tokenizer()
                .with_metadata(SCORES_KEY, MetadataValue::Array(vec![])),
            SCORES_KEY,
        ),
    ];
    assert!(load_tokenizer(&good).is_ok());
    for (writer, field) in cases {
        let message = load_tokenizer(&writer).unwrap_err().to_string();
        let has_remedy = message.contains("get it again") || message.contains("taper models");
        assert!(message.contains(field) && has_remedy, "{message}");
    }
}

#[test]
fn no_corruption_of_a_file_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let dims =
        ModelDims { layers: 1, hidden: 32, heads: 2, kv_heads: 1, intermediate: 32, ..ModelDims::default() };
    let mut random = fastrand::Rng::with_seed(11);
    let (mut refused, mut read) = (0, 0);
    for writer in [random_qwen2(1, &dims).unwrap(), random_llama(1, &dims).unwrap()] {
        let good = writer.to_bytes();
        // Only the header can be invalid; the weights after it are arbitrary bytes.
        let gguf = write_and_open(&writer);
        let weights = gguf.tensor_bytes() as usize;
        let head = good.len() - weights;
        for _ in 0..5_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..head);
                match random.u8(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes[at] ^= 1 << random.u8(..8),
                    2 => bytes[at] = [0, 1, 4, 8, 9, 0x7f, 0x80, 0xff][random.usize(..8)],
                    _ => {
                        let end = (at + 8).min(bytes.len());
                        bytes[at..end].fill(0xff);
                    }
                }
            }
            if random.u8(..) < 40 {
                bytes.truncate(random.usize(..bytes.len()));
            }
            std::fs::write(&path, &bytes).unwrap();
            match Gguf::open(&path).and_then(|gguf| Tokenizer::from_gguf(&gguf)) {
                Ok(tokens) => {
                    read += 1;
                    tokens.encode("fn x() -> é { return 1 }\n");
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    assert!(refused > 500 && read > 500, "{refused} refused, {read} read");
}

/// Work is proportional to the text's length, even for texts on which the plain algorithms are quadratic.
#[test]
fn encoding_long_lines_is_linear() {
    let sentencepiece = load_tokenizer(&GgufWriter::new().with_sentencepiece_tokenizer()).unwrap();
    for tokens in [Tokenizer::bytes_only(), sentencepiece] {
        for part in ["a", " ", "\n", "return", "x=1;", "(", "数", "a1 "] {
            let text = part.repeat(400_000 / part.len());
            let before = bpe::LOOKUP_COUNT.get();
            let ids = tokens.encode(&text);
            let lookups = bpe::LOOKUP_COUNT.get() - before;
            assert_eq!(concat_token_bytes(&tokens, &ids), text.as_bytes());
            assert!(lookups < 12 * text.len(), "{part:?}: {lookups} lookups for {} bytes", text.len());
        }
        assert!(bpe::LOOKUP_COUNT.get() > 1000);
    }
}
