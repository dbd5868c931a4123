//! From a file and a cursor to the prompt tokens.

use std::cell::RefCell;
use std::ops::Range;

use taper_engine::{Prompt, TokenId, Tokenizer};
use taper_grammars::Language;

pub mod calibration;
pub mod chat;
pub mod template;
pub mod window;

use crate::retrieval::Snippet;
use crate::text::Rope;
use crate::text::lines::is_word_char;
use template::{PathForm, Profile, PromptLayout, ResolvedTemplate, SegmentOrder, TextFormat};
use window::PromptWindow;

/// The file that contains the cursor.
#[derive(Debug, Clone, Copy)]
pub struct PromptFile<'a> {
    /// Its text.
    pub text: &'a Rope,
    /// The cursor, in bytes.
    pub cursor: usize,
    /// Its path, as shown to the model.
    pub path: &'a str,
    /// Its language, if taper knows it.
    pub language: Option<&'static Language>,
    /// Chunks of the project's other files, the best last.
    pub snippets: &'a [Snippet],
}

/// Token budgets of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// For the text before the cursor.
    pub prefix: usize,
    /// For the text after the cursor.
    pub suffix: usize,
    /// For chunks of other files.
    pub snippets: usize,
    /// For the output: kept free in the context.
    pub output: usize,
}

/// Lower bound of the average bytes per token of code, which has 3 to 4. A low estimate keeps the window inside its
/// budget at the first attempt in nearly every file.
pub const BYTES_PER_TOKEN: usize = 3;

/// Maximum tokens of the header: a longer path is cut at the front.
const MAX_HEADER_TOKENS: usize = 48;

/// Maximum bytes of a path; its end is kept.
const MAX_PATH_BYTES: usize = 1024;

/// The anchor moves in steps of this many lines.
const ANCHOR_STEP: usize = 8;

/// Maximum bytes that token healing cuts back: a word, or the blanks before it.
const MAX_HEAL_BYTES: usize = 128;

/// Builds the prompt and returns it with its window of text.
pub fn build_prompt(
    profile: &Profile,
    tokens: &Tokenizer,
    file: PromptFile<'_>,
    budget: Budget,
) -> (Prompt, PromptWindow) {
    build_anchored_at(file.cursor, profile, tokens, file, budget, &EncodeCache::default())
}

/// Encoded texts of one state of a file, and of snippets. The candidate prompts for one cursor share most of their
/// text.
#[derive(Debug, Default)]
pub struct EncodeCache {
    file_texts: EncodedTexts<Range<usize>>,
    /// Keyed by the snippet's address: it is borrowed for as long as the cache is in use.
    snippets: EncodedTexts<*const Snippet>,
}

/// Encoded texts and their keys.
type EncodedTexts<K> = RefCell<Vec<(K, Vec<TokenId>)>>;

impl EncodeCache {
    /// The tokens of `text`, which is at the byte range `at` of the file.
    fn encode_text(&self, tokens: &Tokenizer, text: &str, at: Range<usize>) -> Vec<TokenId> {
        get_or_encode(&self.file_texts, at, || tokens.encode(text))
    }

    /// The tokens of a snippet with its path before it, without the format's file token.
    fn encode_snippet(&self, tokens: &Tokenizer, snippet: &Snippet) -> Vec<TokenId> {
        get_or_encode(&self.snippets, snippet, || {
            tokens.encode(&format_snippet(&snippet.path, &snippet.text))
        })
    }
}

fn get_or_encode<K: PartialEq>(
    known: &EncodedTexts<K>,
    key: K,
    encode: impl FnOnce() -> Vec<TokenId>,
) -> Vec<TokenId> {
    let mut known = known.borrow_mut();
    if let Some((_, ids)) = known.iter().find(|(it, _)| *it == key) {
        return ids.clone();
    }
    let ids = encode();
    known.push((key, ids.clone()));
    ids
}

/// [`build_prompt`], with the window's start and the anchor computed for `earlier`, a byte offset before the cursor,
/// so that the prefix cached for that cursor is reused. The prompt is longer by the text between the two. `memo` is
/// valid for this state of the file only.
pub fn build_anchored_at(
    earlier: usize,
    profile: &Profile,
    tokens: &Tokenizer,
    file: PromptFile<'_>,
    budget: Budget,
    memo: &EncodeCache,
) -> (Prompt, PromptWindow) {
    let others =
        encode_snippets(profile, tokens, file.snippets, budget.snippets.min(profile.context / 4), memo);
    let format = match profile.format() {
        TextFormat::Chat(chat) => chat.token_count(),
        TextFormat::Prefix | TextFormat::FillIn(_) => 8,
    };
    let room = profile.context.saturating_sub(budget.output + MAX_HEADER_TOKENS + format + others.len());
    let suffix_room = budget.suffix.min(room / 3);
    let prefix_room = budget.prefix.min(room - suffix_room);
    let mut prefix_bytes = prefix_room * BYTES_PER_TOKEN;
    let mut suffix_bytes = suffix_room * BYTES_PER_TOKEN;
    let since = file.cursor.saturating_sub(earlier);
    loop {
        let window = window::window_anchored_at(earlier, file.text, file.cursor, prefix_bytes, suffix_bytes);
        let parts =
            PromptParts::new(profile, tokens, (&window, file.cursor), file.text.byte_to_line(earlier), memo);
        let all = parts.head.len() + parts.tail.len();
        // An estimate of the token count at the earlier cursor, so that the same windows are too large as then.
        let bytes = window.prefix.len().max(1);
        let then = all * bytes.saturating_sub(since) / bytes;
        // Text with more tokens per byte than expected (data, other scripts) gets a smaller window. The steps do not
        // depend on the excess, so the window does not change with every key.
        if (then > prefix_room || all > room - suffix_room) && prefix_bytes > 64 {
            prefix_bytes = (prefix_bytes * 3 / 4).max(64);
            continue;
        }
        if parts.suffix.len() > suffix_room && suffix_bytes > 64 {
            suffix_bytes = (suffix_bytes * 3 / 4).max(64);
            continue;
        }
        let header =
            if profile.form.header { encode_header(profile, tokens, &file, &window) } else { Vec::new() };
        return (parts.assemble_prompt(profile, &others, &header), window);
    }
}

/// The three parts of the text as tokens, and the bytes forced after them.
struct PromptParts {
    /// In the prefix segment.
    head: Vec<TokenId>,
    suffix: Vec<TokenId>,
    /// After the middle token.
    tail: Vec<TokenId>,
    forced: Vec<u8>,
}

impl PromptParts {
    fn new(
        profile: &Profile,
        tokens: &Tokenizer,
        (window, cursor): (&PromptWindow, usize),
        line: usize,
        memo: &EncodeCache,
    ) -> Self {
        let prefix = &window.prefix;
        // A cursor inside a character moves to the character's start.
        let start = cursor.saturating_sub(prefix.len());
        let healed = if profile.form.heal { heal_offset(prefix) } else { prefix.len() };
        let sees_suffix = !matches!(profile.format(), TextFormat::Prefix);
        let anchor = match profile.form.layout {
            PromptLayout::Anchored { lines } | PromptLayout::Chat { lines } if sees_suffix => {
                anchor_offset(window, line, lines)
            }
            _ => healed,
        };
        let anchor = anchor.min(healed);
        Self {
            head: memo.encode_text(tokens, &prefix[..anchor], start..start + anchor),
            suffix: if sees_suffix {
                memo.encode_text(tokens, &window.suffix, cursor..cursor + window.suffix.len())
            } else {
                Vec::new()
            },
            tail: memo.encode_text(tokens, &prefix[anchor..healed], start + anchor..start + healed),
            forced: prefix.as_bytes()[healed..].to_vec(),
        }
    }

    fn assemble_prompt(self, profile: &Profile, others: &[TokenId], header: &[TokenId]) -> Prompt {
        let mut out: Vec<TokenId> = Vec::new();
        let mut segment = 0..0;
        out.extend(profile.bos);
        out.extend(others);
        match profile.format() {
            TextFormat::Prefix => {
                out.extend(header);
                out.extend(self.head);
                out.extend(self.tail);
            }
            TextFormat::Chat(chat) => {
                out.extend(&chat.opening);
                out.extend(header);
                out.extend(self.head);
                out.extend(&chat.between);
                out.extend(self.suffix);
                out.extend(&chat.closing);
                out.extend(self.tail);
            }
            TextFormat::FillIn(it @ ResolvedTemplate { template, .. }) => {
                let in_prefix = matches!(template.path, PathForm::InPrefix(_) | PathForm::Comment);
                let (before, inside) = if in_prefix { (&[][..], header) } else { (header, &[][..]) };
                out.extend(before);
                let prefix = [it.prefix].into_iter().chain(inside.iter().copied()).chain(self.head);
                let len = self.suffix.len();
                let suffix = [it.suffix].into_iter().chain(self.suffix);
                match template.order {
                    SegmentOrder::PrefixFirst => {
                        out.extend(prefix.chain(suffix));
                        segment = out.len() - len..out.len();
                    }
                    SegmentOrder::SuffixFirst => out.extend(suffix.chain(prefix)),
                }
                out.extend(it.middle);
                out.extend(self.tail);
            }
        }
        Prompt { tokens: out, healing_bytes: self.forced, suffix: segment }
    }
}

/// The last snippets that fit into `budget` tokens, each after the format's file token. A format without a file token
/// gets none.
fn encode_snippets(
    profile: &Profile,
    tokens: &Tokenizer,
    snippets: &[Snippet],
    budget: usize,
    memo: &EncodeCache,
) -> Vec<TokenId> {
    let Some(token) = profile.file_token().filter(|_| budget > 0) else { return Vec::new() };
    let mut left = budget;
    let mut fitting = Vec::new();
    for snippet in snippets.iter().rev() {
        let mut ids = memo.encode_snippet(tokens, snippet);
        // The best snippet is included even if only a part of it fits.
        let mut bytes = left * BYTES_PER_TOKEN;
        while fitting.is_empty() && ids.len() >= left && bytes > 64 {
            let text = first_lines(&snippet.text, bytes);
            if text.is_empty() {
                break;
            }
            ids = tokens.encode(&format_snippet(&snippet.path, text));
            bytes = bytes * 3 / 4;
        }
        if ids.len() < left {
            left -= ids.len() + 1;
            fitting.push(ids);
        }
    }
    fitting.into_iter().rev().flat_map(|ids| [token].into_iter().chain(ids)).collect()
}

/// A snippet as it follows the format's file token.
fn format_snippet(path: &str, text: &str) -> String {
    format!("{}\n{}\n", sanitized_path(path), text.trim_end())
}

/// The whole lines at the start of `text` that fit into `bytes`.
fn first_lines(text: &str, bytes: usize) -> &str {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if end + line.len() > bytes {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

/// A path as shown to the model: a control character in a file name must not start a new line of the prompt.
fn sanitized_path(path: &str) -> String {
    let start = path.len().saturating_sub(MAX_PATH_BYTES);
    let end = path.char_indices().filter(|(at, _)| *at >= start).map(|(_, c)| c);
    end.filter(|c| !c.is_control()).collect()
}

/// The path, with the language if the extension does not imply it: after the format's own token, or as a comment
/// line. A script's `#!` line stays first.
fn encode_header(
    profile: &Profile,
    tokens: &Tokenizer,
    file: &PromptFile<'_>,
    window: &PromptWindow,
) -> Vec<TokenId> {
    let mut path = sanitized_path(file.path);
    // The text is the code of the cells, not the JSON of the notebook file.
    if let Some(name) = path.strip_suffix(".ipynb")
        && let Some(extension) = file.language.and_then(|it| it.extensions.first())
    {
        path = format!("{name}.{extension}");
    }
    let language = file.language.filter(|it| {
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
        !it.extensions.contains(&extension)
    });
    if let Some(language) = language {
        if !path.is_empty() {
            path.push(' ');
        }
        path.push_str(&format!("({})", language.name));
    }
    let comment = file.language.map_or("", |it| it.line_comment);
    let token = match profile.format() {
        TextFormat::FillIn(it) => it.path,
        TextFormat::Prefix | TextFormat::Chat(_) => None,
    };
    if path.is_empty() || (token.is_none() && (comment.is_empty() || window.prefix.starts_with("#!"))) {
        return Vec::new();
    }
    let text = if token.is_some() { format!("{path}\n") } else { format!("{comment} {path}\n") };
    let mut ids = tokens.encode(&text);
    let excess = ids.len().saturating_sub(MAX_HEADER_TOKENS);
    ids.drain(..excess);
    token.into_iter().chain(ids).collect()
}

/// The byte offset to which token healing cuts the prefix: before the partial word and the blanks before it.
fn heal_offset(prefix: &str) -> usize {
    let word = prefix.trim_end_matches(is_word_char);
    let at = word.trim_end_matches([' ', '\t']).len();
    // A very long word is data, not a name: its tokens stay.
    if prefix.len() - at <= MAX_HEAL_BYTES { at } else { prefix.len() }
}

/// The byte offset at which the prefix is split for a cursor in `line`.
fn anchor_offset(window: &PromptWindow, line: usize, lines: usize) -> usize {
    let Some(line) = anchor_line(line, lines) else { return 0 };
    let starts = || [0].into_iter().chain(window.prefix.match_indices('\n').map(|(at, _)| at + 1));
    line.checked_sub(window.first_line).and_then(|at| starts().nth(at)).unwrap_or(0)
}

/// The line before which a prompt for a cursor in `line` is split: at least `lines` above it, and a multiple of the
/// anchor step, so that it is stable while the text grows.
fn anchor_line(line: usize, lines: usize) -> Option<usize> {
    Some(line.checked_sub(lines)? / ANCHOR_STEP * ANCHOR_STEP)
}

#[cfg(test)]
mod tests {
    use taper_engine::{Engine, scripted::ScriptedEngine};

    use super::*;
    use crate::prompt::template::PromptForm;

    const TEST_FORM: PromptForm =
        PromptForm { layout: PromptLayout::Plain, heal: false, header: true, suffix: 128, snippets: 0 };

    #[test]
    fn prompt_built_at_earlier_anchor_extends_earlier_prompt() {
        // The vocabulary is bytes, so the windows shrink.
        let engine: Box<dyn Engine> = Box::new(ScriptedEngine::new());
        let mut profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        profile.form = PromptForm {
            layout: PromptLayout::Anchored { lines: 10 },
            heal: false,
            header: true,
            ..TEST_FORM
        };
        let budget = Budget { prefix: 600, suffix: 100, snippets: 0, output: 10 };
        let before: String = (0..120).map(|n| format!("line {n:03}\n")).collect();
        let mut moved = 0;
        for line in 20..100 {
            let build = |lines: usize, earlier: usize| {
                let text = Rope::from(format!("{}\nafter\n", &before[..lines * 9]));
                let file =
                    PromptFile { text: &text, cursor: lines * 9, path: "a", language: None, snippets: &[] };
                build_anchored_at(
                    earlier * 9,
                    &profile,
                    engine.tokenizer(),
                    file,
                    budget,
                    &EncodeCache::default(),
                )
                .0
                .tokens
            };
            let then = build(line, line);
            let shared =
                |now: &[TokenId]| now.iter().zip(&then).take_while(|(a, b)| a == b).count() + 2 >= then.len();
            // Except for the last tokens, which the typed text may have joined.
            assert!(shared(&build(line + 7, line)), "line {line}");
            moved += usize::from(!shared(&build(line + 7, line + 7)));
        }
        assert!(moved > 40, "{moved}");
    }

    /// The profile of a format with a file token.
    fn qwen_profile() -> (Box<dyn Engine>, Profile) {
        let engine: Box<dyn Engine> = Box::new(ScriptedEngine::new());
        let mut profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        profile.form = TEST_FORM;
        (engine, profile)
    }

    #[test]
    fn snippets_precede_the_file_best_last_and_truncated() {
        let (engine, profile) = qwen_profile();
        let snippet = |path: &str, lines: usize| Snippet {
            path: path.to_owned(),
            text: (0..lines).map(|n| format!("{path} {n}\n")).collect(),
        };
        let text = Rope::from("x = 1\ny\n");
        let rendered = |snippets: &[Snippet], budget: usize| {
            let file = PromptFile { text: &text, cursor: 7, path: "own", language: None, snippets };
            let budget = Budget { prefix: 600, suffix: 100, snippets: budget, output: 10 };
            engine.tokenizer().render(&build_prompt(&profile, engine.tokenizer(), file, budget).0.tokens)
        };
        let both = [snippet("good\n", 2), snippet("best", 2)];
        assert!(
            rendered(&both, 100).starts_with(
                "<|file_sep|>good\ngood\n 0\ngood\n 1\n<|file_sep|>best\nbest 0\nbest 1\n<|file_sep|>own"
            ),
            "{}",
            rendered(&both, 100)
        );
        // One token per byte.
        let best = "<|file_sep|>best\nbest 0\nbest 1\n<|file_sep|>own";
        assert!(rendered(&both, 25).starts_with(best), "{}", rendered(&both, 25));
        assert!(rendered(&both, 0).starts_with("<|file_sep|>own"));
        assert!(rendered(&[], 100).starts_with("<|file_sep|>own"));
        let long = [snippet("long", 90)];
        let part = rendered(&long, 300);
        assert!(
            part.starts_with("<|file_sep|>long\nlong 0\n") && part.contains("\n<|file_sep|>own"),
            "{part}"
        );
        assert!(part.split("<|file_sep|>own").next().unwrap_or("").len() < 330, "{part}");
    }

    #[test]
    fn texts_are_joined_by_the_layout() {
        let (engine, mut profile) = qwen_profile();
        let tokens = engine.tokenizer();
        let chat = Tokenizer::bytes_only()
            .with_chat_template("<|im_start|>{{ messages[0].content }}<|im_end|>\n<|im_start|>");
        profile.chat = chat::ChatFormat::from_vocabulary(&chat);
        let before: String = (0..30).map(|n| format!("{n}\n")).collect();
        let text = Rope::from(format!("{before}x = \ny\n"));
        let rendered = |profile: &Profile| {
            let snippets = [Snippet { path: "other".to_owned(), text: "z\n".to_owned() }];
            let cursor = before.len() + 4;
            let file = PromptFile { text: &text, cursor, path: "a", language: None, snippets: &snippets };
            let budget = Budget { prefix: 600, suffix: 100, snippets: 50, output: 10 };
            let prompt = build_prompt(profile, tokens, file, budget).0;
            // Whatever the order, the segment is the text after the cursor.
            assert!([Vec::new(), tokens.encode("\ny\n")].contains(&prompt.tokens[prompt.suffix].to_vec()));
            tokens.render(&prompt.tokens)
        };
        let (head, tail) = before.split_at(before.find("16\n").unwrap());
        let mut with_layout = |layout| {
            profile.form.layout = layout;
            rendered(&profile)
        };
        let own = "<|file_sep|>other\nz\n<|file_sep|>a\n";
        assert_eq!(
            with_layout(PromptLayout::Plain),
            format!("{own}<|fim_prefix|>{before}x = <|fim_suffix|>\ny\n<|fim_middle|>")
        );
        assert_eq!(
            with_layout(PromptLayout::Anchored { lines: 10 }),
            format!("{own}<|fim_prefix|>{head}<|fim_suffix|>\ny\n<|fim_middle|>{tail}x = ")
        );
        assert_eq!(with_layout(PromptLayout::PrefixOnly), format!("{before}x = "));
        let asked = with_layout(PromptLayout::Chat { lines: 10 });
        let (request, answer) = asked.split_once("<|im_end|>").unwrap();
        assert!(request.starts_with("<|im_start|>Below") && request.contains(&format!("```\n{head}\n```")));
        assert!(request.ends_with("End:\n```\n\ny\n\n```"), "{request}");
        assert_eq!(answer, format!("\n<|im_start|>{tail}x = "));

        let suffix_first = template::Template { order: SegmentOrder::SuffixFirst, ..template::TEMPLATES[0] };
        profile.template.as_mut().unwrap().template = Box::leak(Box::new(suffix_first));
        profile.form.layout = PromptLayout::Anchored { lines: 10 };
        assert_eq!(
            rendered(&profile),
            format!("{own}<|fim_suffix|>\ny\n<|fim_prefix|>{head}<|fim_middle|>{tail}x = ")
        );
    }

    #[test]
    fn token_healing_cuts_word_and_blanks_before_it() {
        for (text, kept) in [
            ("let x = fo", "let x ="),
            ("    ret", ""),
            ("a\n    ret", "a\n"),
            ("a\n\t\t", "a\n"),
            ("foo(", "foo("),
            ("foo.ba", "foo."),
            ("größe = grö", "größe ="),
            ("", ""),
        ] {
            assert_eq!(&text[..heal_offset(text)], kept, "{text:?}");
        }
        let long = "x".repeat(500);
        assert_eq!(heal_offset(&long), 500);
    }

    #[test]
    fn anchor_is_stable_while_lines_are_added() {
        let mut text = String::new();
        let mut anchors = Vec::new();
        for n in 0..64 {
            text.push_str(&format!("line {n}\n"));
            let window = PromptWindow { prefix: text.clone(), suffix: String::new(), first_line: 0 };
            let at = anchor_offset(&window, n + 1, 10);
            let lines_after = text[at..].matches('\n').count();
            assert!(
                n < 10 || (10..10 + ANCHOR_STEP).contains(&lines_after),
                "line {n}: {lines_after} lines after the anchor"
            );
            anchors.push(at);
        }
        anchors.dedup();
        assert_eq!(anchors.len(), 64 / ANCHOR_STEP - 1);
    }

    #[test]
    fn encode_cache_serves_the_next_prompt() {
        let engine: Box<dyn Engine> = Box::new(ScriptedEngine::new());
        let mut profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        let text: String = (0..200).map(|n| format!("größe_{n} = {}\n", n * n)).collect();
        let text = Rope::from(text);
        for layout in [PromptLayout::Plain, PromptLayout::Anchored { lines: 10 }] {
            for heal in [false, true] {
                profile.form = PromptForm { layout, heal, ..TEST_FORM };
                let file = PromptFile {
                    text: &text,
                    cursor: text.line_to_byte(150) + 4,
                    path: "a",
                    language: None,
                    snippets: &[],
                };
                let memo = EncodeCache::default();
                for (prefix, suffix) in [(900, 300), (450, 150), (160, 40)] {
                    let budget = Budget { prefix, suffix, snippets: 0, output: 10 };
                    for line in [150, 149, 146, 134, 100] {
                        let earlier = text.line_to_byte(line);
                        let build = |memo| {
                            build_anchored_at(earlier, &profile, engine.tokenizer(), file, budget, memo).0
                        };
                        assert_eq!(
                            build(&memo),
                            build(&EncodeCache::default()),
                            "{layout:?} {budget:?} {line}"
                        );
                    }
                }
                let (kept, requests) = (memo.file_texts.borrow().len(), 3 * 5 * 3);
                assert!(kept < requests, "{kept} texts for {requests} requests");
            }
        }
    }
}
