//! Pre-tokenization: splits text into the pieces that byte-pair merges never cross, as each family was trained.
//!
//! The patterns are those of the families' own `tokenizer.json`, under the names that converters write into
//! `tokenizer.ggml.pre`. All of them end in `\s+(?!\S)|\s+`: a run of blanks leaves its last one to the next word.
//! The lookahead is implemented by hand, which keeps the expressions regular and the time linear.

use regex::Regex;

/// How text is split for a vocabulary: each stage splits the pieces of the previous one.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    stages: Vec<SplitStage>,
    /// A piece that is itself a token is taken without merging.
    pub(crate) prefer_whole_tokens: bool,
    /// Whether texts begin with the BOS token if the file does not specify it.
    pub(crate) adds_bos: bool,
    /// Whether the name is known.
    pub(crate) is_known: bool,
}

#[derive(Debug)]
struct SplitStage {
    regex: Regex,
    blanks: BlankRule,
}

/// The treatment of a match that is only blanks and is followed by text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlankRule {
    /// It stays whole.
    Whole,
    /// `\s+(?!\S)`: it leaves its last blank.
    LeaveLast,
    /// The same, unless it ends a line: then `\s*[\r\n]+` matched it.
    LeaveLastInLine,
}

/// A stage before its expression is compiled.
struct StagePattern {
    pattern: String,
    blanks: BlankRule,
}

/// Names of Llama 3's pre-tokenizer in models that also have its other rules.
const LLAMA3_NAMES: [&str; 8] =
    ["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0"];

const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const CONTRACTIONS: &str = r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])";
const CJK_PATTERN: &str = r"[\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
const ONE_DIGIT: &str = r"\p{N}";
const THREE_DIGITS: &str = r"\p{N}{1,3}";
const SYMBOLS: &str = r"[^\s\p{L}\p{N}]+[\r\n]*";
const BLOOM_PATTERN: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const DEEPSEEK_V3_WORDS: &str =
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+";

/// Llama 3's expression and those derived from it: they differ in what letters, numbers and symbols are.
fn llama3_pattern(letters: &str, numbers: &str, symbols: &str) -> String {
    format!("{CONTRACTIONS}|{}", word_pattern(letters, numbers, symbols))
}

/// The same without the contractions of English.
fn word_pattern(letters: &str, numbers: &str, symbols: &str) -> String {
    format!(r"[^\r\n\p{{L}}\p{{N}}]?{letters}+|{numbers}| ?{symbols}|\s*[\r\n]+|\s+")
}

/// GPT-4o's expression and Tekken's, which end a word before an upper-case letter.
fn cased_pattern(numbers: &str, word_end: &str) -> String {
    // Letters without case, and marks, belong to both.
    let (upper, lower) = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]");
    let lead = r"[^\r\n\p{L}\p{N}]?";
    format!(
        r"{lead}{upper}*{lower}+{word_end}|{lead}{upper}+{lower}*{word_end}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+"
    )
}

/// The stages of the pre-tokenizer of this name; `None` if the name is unknown.
fn stage_patterns(name: &str) -> Option<Vec<StagePattern>> {
    let stage = |pattern: &str, blanks| StagePattern { pattern: pattern.to_owned(), blanks };
    let whole = |pattern: &str| stage(pattern, BlankRule::Whole);
    let words = |pattern: String| vec![stage(&pattern, BlankRule::LeaveLastInLine)];
    let llama3 = |numbers| words(llama3_pattern(r"\p{L}", numbers, SYMBOLS));
    let stages = match name {
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "stablelm2" | "hunyuan" | "megrez"
        | "solar-open" | "grok-2" => llama3(ONE_DIGIT),
        "dbrx" | "smaug-bpe" | "glm4" | "glm5" | "chatglm-bpe" => llama3(THREE_DIGITS),
        name if LLAMA3_NAMES.contains(&name) => llama3(THREE_DIGITS),
        "minicpm5" => [vec![whole(THREE_DIGITS)], llama3(r"\p{N}+")].into_iter().flatten().collect(),
        "ufakzeka" => words(word_pattern(r"\p{L}", ONE_DIGIT, SYMBOLS)),
        "qwen35" => words(llama3_pattern(r"[\p{L}\p{M}]", ONE_DIGIT, r"[^\s\p{L}\p{M}\p{N}]+[\r\n]*")),
        "seed-coder" => words(llama3_pattern(r"\p{L}", ONE_DIGIT, r"[^\s\p{L}\p{N}\r\n]+")),
        "tekken" => words(cased_pattern(ONE_DIGIT, "")),
        "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => {
            words(cased_pattern(THREE_DIGITS, &format!("(?:{CONTRACTIONS})?")))
        }
        "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b"
        | "mellum2" => {
            vec![whole(ONE_DIGIT), gpt2_stage()]
        }
        "deepseek-coder" => [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_PATTERN, ONE_DIGIT].map(whole).into(),
        "deepseek-llm" => {
            let symbols = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
            [r"[\r\n]", r"\s?\p{LC}+", symbols, r"\s+$", CJK_PATTERN, r"\p{N}+"].map(whole).into()
        }
        "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => vec![
            whole(THREE_DIGITS),
            whole(r"[一-龥\x{3040}-\x{30FF}]+"),
            stage(DEEPSEEK_V3_WORDS, BlankRule::LeaveLastInLine),
        ],
        "falcon" => vec![whole(r"[\p{P}$+<=>^`|~]+"), gpt2_stage(), whole(r"[0-9][0-9][0-9]")],
        "default" => {
            vec![whole(r"[\p{P}$+<=>^~|]+"), gpt2_stage(), whole(r"\p{N}+"), whole(r"[0-9][0-9][0-9]")]
        }
        "bloom" | "poro-chat" | "gpt3-finnish" => vec![whole(BLOOM_PATTERN)],
        "viking" => vec![whole(BLOOM_PATTERN), whole(ONE_DIGIT)],
        "gpt-2" | "gpt2" | "phi-2" | "mellum" | "mpt" | "olmo" | "jais" | "trillion" | "gigachat"
        | "a.x-4.0" | "exaone4" | "granite-docling" => vec![gpt2_stage()],
        _ => return None,
    };
    Some(stages)
}

fn gpt2_stage() -> StagePattern {
    StagePattern { pattern: GPT2_PATTERN.to_owned(), blanks: BlankRule::LeaveLast }
}

impl PreTokenizer {
    /// The pre-tokenizer of this name; GPT-2's if the name is unknown or there is none.
    ///
    /// # Errors
    /// An expression does not compile, which the tests rule out.
    pub(crate) fn from_name(name: &str) -> Result<Self, regex::Error> {
        let compile = |StagePattern { pattern, blanks }| {
            Ok::<_, regex::Error>(SplitStage { regex: Regex::new(&pattern)?, blanks })
        };
        let patterns = stage_patterns(name);
        let is_known = patterns.is_some();
        let patterns = patterns.unwrap_or_else(|| vec![gpt2_stage()]);
        let stages = patterns.into_iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        let like_llama3 = name == "tekken" || LLAMA3_NAMES.contains(&name);
        let prefer_whole_tokens = like_llama3 || matches!(name, "glm4" | "glm5" | "minicpm5");
        Ok(Self { stages, prefer_whole_tokens, adds_bos: like_llama3, is_known })
    }

    /// Calls `each` with the pieces of `text`, in order; concatenated, they are the text.
    pub(crate) fn split_text<'t>(&self, text: &'t str, each: &mut dyn FnMut(&'t str)) {
        split_by_stages(&self.stages, text, each);
    }
}

fn split_by_stages<'t>(stages: &[SplitStage], text: &'t str, each: &mut dyn FnMut(&'t str)) {
    let Some((stage, rest)) = stages.split_first() else {
        if !text.is_empty() {
            each(text);
        }
        return;
    };
    let mut at = 0;
    while at < text.len() {
        let Some(found) = stage.regex.find_at(text, at) else { break };
        let (start, mut end) = (found.start(), found.end());
        if stage.blanks != BlankRule::Whole && end < text.len() {
            end -= trailing_blank_len(found.as_str(), stage.blanks);
        }
        // An empty match would never advance.
        if end == start {
            break;
        }
        split_by_stages(rest, &text[at..start], each);
        split_by_stages(rest, &text[start..end], each);
        at = end;
    }
    split_by_stages(rest, &text[at..], each);
}

/// Length in bytes of the last blank of a match of two or more blanks; 0 if the match keeps it.
fn trailing_blank_len(piece: &str, blanks: BlankRule) -> usize {
    let mut chars = piece.chars();
    let Some(last) = chars.next_back().filter(|c| c.is_whitespace()) else { return 0 };
    if blanks == BlankRule::LeaveLastInLine && matches!(last, '\r' | '\n') {
        return 0;
    }
    // Only a match of blanks alone ends in a blank other than a line end.
    if chars.as_str().is_empty() { 0 } else { last.len_utf8() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_pieces(name: &str, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        PreTokenizer::from_name(name).unwrap().split_text(text, &mut |piece| out.push(piece.to_owned()));
        out
    }

    const PRE_TOKENIZER_NAMES: [&str; 24] = [
        "qwen2",
        "qwen35",
        "llama-bpe",
        "dbrx",
        "seed-coder",
        "tekken",
        "gpt-4o",
        "starcoder",
        "refact",
        "command-r",
        "smollm",
        "deepseek-coder",
        "deepseek-llm",
        "deepseek-v3",
        "default",
        "gpt-2",
        "mellum",
        "llama3",
        "codeshell",
        "glm4",
        "olmo",
        "smaug-bpe",
        "stablelm2",
        "nobody knows this one",
    ];

    #[test]
    fn every_name_compiles_and_loses_nothing() {
        let text = "fn main() {\r\n\t\tlet naïve = \"数字 १२३ 🙂\";   // it's 12345\n\n\n    x  \n  }   ";
        for name in PRE_TOKENIZER_NAMES {
            assert_eq!(split_pieces(name, text).concat(), text, "{name}");
            assert_eq!(PreTokenizer::from_name(name).unwrap().is_known, !name.contains("nobody"));
        }
    }

    #[test]
    fn last_blank_of_run_joins_next_word() {
        for name in ["qwen2", "gpt-2", "llama-bpe"] {
            assert_eq!(split_pieces(name, "a   b"), ["a", "  ", " b"], "{name}");
            assert_eq!(split_pieces(name, "a   "), ["a", "   "], "{name}");
        }
        assert_eq!(split_pieces("qwen2", "a;\n\n    b"), ["a", ";\n\n", "   ", " b"]);
        assert_eq!(split_pieces("qwen2", "a \n b"), ["a", " \n", " b"]);
        assert_eq!(split_pieces("gpt-2", "a \n b"), ["a", " \n", " b"]);
        assert_eq!(split_pieces("gpt-2", "a\n\nb"), ["a", "\n", "\n", "b"]);
    }

    #[test]
    fn digits_are_grouped_as_trained() {
        assert_eq!(split_pieces("qwen2", "1234"), ["1", "2", "3", "4"]);
        assert_eq!(split_pieces("llama-bpe", "1234"), ["123", "4"]);
        assert_eq!(split_pieces("smollm", "x  12"), ["x", "  ", "1", "2"]);
        assert_eq!(split_pieces("gpt-2", "x 12"), ["x", " 12"]);
    }
}
