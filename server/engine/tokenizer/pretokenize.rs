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

const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const CONTRACTIONS: &str = r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])";
const CJK_PATTERN: &str = r"[\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+";

impl PreTokenizer {
    /// The pre-tokenizer of this name; GPT-2's if the name is unknown or there is none.
    ///
    /// # Errors
    /// An expression does not compile, which the tests rule out.
    pub(crate) fn from_name(name: &str) -> Result<Self, regex::Error> {
        use BlankRule::{LeaveLast, LeaveLastInLine, Whole};
        let llama3 = |digits: &str| {
            format!(
                r"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+"
            )
        };
        // `upper` and `lower` share the letters without case, as in the original's lookaheads.
        let cased = |digits: &str, tail: &str| {
            let (upper, lower) = (r"[\p{L}--[a-z]]", r"[\p{L}--[A-Z]]");
            let lead = r"[^\r\n\p{L}\p{N}]?";
            format!(
                r"{lead}{upper}*{lower}+{tail}|{lead}{upper}+{lower}*{tail}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+"
            )
        };
        let mut whole_first = false;
        let mut bos = false;
        let mut known = true;
        let stages: Vec<(String, BlankRule)> = match name {
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "stablelm2" | "hunyuan" | "megrez" => {
                vec![(llama3(r"\p{N}"), LeaveLastInLine)]
            }
            "qwen35" => {
                let main = format!(
                    r"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+"
                );
                vec![(main, LeaveLastInLine)]
            }
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "lfm2" => {
                (whole_first, bos) = (true, true);
                vec![(llama3(r"\p{N}{1,3}"), LeaveLastInLine)]
            }
            "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => {
                vec![(llama3(r"\p{N}{1,3}"), LeaveLastInLine)]
            }
            "seed-coder" => {
                let main = format!(
                    r"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+"
                );
                vec![(main, LeaveLastInLine)]
            }
            "tekken" => {
                (whole_first, bos) = (true, true);
                vec![(cased(r"\p{N}", ""), LeaveLastInLine)]
            }
            "gpt-4o" | "llama4" => {
                vec![(cased(r"\p{N}{1,3}", &format!("(?:{CONTRACTIONS})?")), LeaveLastInLine)]
            }
            "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b" => {
                vec![(r"\p{N}".to_owned(), Whole), (GPT2_PATTERN.to_owned(), LeaveLast)]
            }
            "deepseek-coder" => vec![
                (r"[\r\n]".to_owned(), Whole),
                (r"\s?\p{L}+".to_owned(), Whole),
                (r"\s?\p{P}+".to_owned(), Whole),
                (CJK_PATTERN.to_owned(), Whole),
                (r"\p{N}".to_owned(), Whole),
            ],
            "deepseek-llm" => vec![
                (r"[\r\n]".to_owned(), Whole),
                (r"\s?\p{LC}+".to_owned(), Whole),
                (r"\s?[!-/:-~！-／：-～‘-‟　-。]+".to_owned(), Whole),
                (r"\s+$".to_owned(), Whole),
                (CJK_PATTERN.to_owned(), Whole),
                (r"\p{N}+".to_owned(), Whole),
            ],
            "deepseek-v3" | "hunyuan-dense" => vec![
                (r"\p{N}{1,3}".to_owned(), Whole),
                (r"[一-龥\x{3040}-\x{30FF}]+".to_owned(), Whole),
                (
                    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"
                        .to_owned(),
                    LeaveLastInLine,
                ),
            ],
            "default" => vec![
                (r"[\p{P}$+<=>^~|]+".to_owned(), Whole),
                (GPT2_PATTERN.to_owned(), LeaveLast),
                (r"\p{N}+".to_owned(), Whole),
                (r"[0-9][0-9][0-9]".to_owned(), Whole),
            ],
            _ => {
                known = matches!(
                    name,
                    "gpt-2" | "gpt2" | "phi-2" | "mellum" | "mpt" | "olmo" | "jais" | "trillion" | "gigachat"
                );
                vec![(GPT2_PATTERN.to_owned(), LeaveLast)]
            }
        };
        let stages = stages
            .into_iter()
            .map(|(pattern, blanks)| Ok(SplitStage { regex: Regex::new(&pattern)?, blanks }))
            .collect::<Result<_, regex::Error>>()?;
        Ok(Self { stages, prefer_whole_tokens: whole_first, adds_bos: bos, is_known: known })
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
