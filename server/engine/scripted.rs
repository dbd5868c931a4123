//! A fake engine for tests and benches: it answers from a script, at a chosen speed.
//! It knows nothing of tensors.
//!
//! It keeps the whole contract of [`Engine`]: forced bytes, limits, `watch`, stop reasons, a cache that survives
//! an interrupted prompt. It can also fail or panic where a script says so, for tests of what is around it.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::gguf::bad;
use crate::local::heal::Heal;
use crate::tokens::{TokenId, Tokens, Utf8Stream};
use crate::{About, Engine, EngineError, Generation, Limits, Piece, Prompt, Rates, Stop};

/// Tokens between two calls of `watch` while the prompt is read.
const CHUNK: usize = 64;
/// `watch` is called at least this often while a delay passes.
const POLL: Duration = Duration::from_millis(5);
const FORMAT: &str = "a script has lines `when TEXT` or `otherwise`, each followed by `answer TEXT`, `fail TEXT`, or \
                      `panic`, and `prefill-ms N`, `decode-ms N`, `context N`; write `\\n` for a line end";

/// From the prompt's text to the answer.
type Answer = dyn Fn(&str) -> String + Send;

/// An engine that answers from a script.
///
/// The first rule whose text occurs in the prompt decides; the prompt is matched as text, with special tokens as their names
/// (`<|fim_middle|>`). Without a rule that fits, the function given to [`Scripted::answering`] is asked; without
/// one, the answer is empty.
pub struct Scripted {
    tokens: Tokens,
    about: About,
    rules: Vec<Rule>,
    answer: Option<Box<Answer>>,
    prefill_delay: Duration,
    decode_delay: Duration,
    probability: f32,
    cached: Vec<TokenId>,
    record: Option<Arc<Mutex<Vec<String>>>>,
}

#[derive(Debug)]
struct Rule {
    contains: String,
    action: Action,
}

#[derive(Debug, Clone)]
enum Action {
    Answer(String),
    Fail(String),
    Panic,
}

impl Default for Scripted {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripted").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Scripted {
    /// An engine that answers nothing, at once, with the vocabulary of [`Tokens::bytes_only`].
    pub fn new() -> Self {
        let about = About {
            model: "scripted".to_owned(),
            family: "scripted".to_owned(),
            device: "none: answers come from a script".to_owned(),
            kernel: "none".to_owned(),
            weight_bytes: 0,
            context: 8192,
        };
        Self {
            tokens: Tokens::bytes_only(),
            about,
            rules: Vec::new(),
            answer: None,
            prefill_delay: Duration::ZERO,
            decode_delay: Duration::ZERO,
            probability: 1.0,
            cached: Vec::new(),
            record: None,
        }
    }

    /// Reads a script file: UTF-8, one statement a line, `#` begins a comment line.
    ///
    /// ```text
    /// # milliseconds for each prompt token and each decoded token; fractions are allowed
    /// prefill-ms 0.5
    /// decode-ms 20
    /// # tokens that fit into the context
    /// context 4096
    /// # if the prompt contains this text; the first rule that fits decides
    /// when def add(
    /// answer a, b):\n    return a + b\n
    /// when fail here
    /// fail the device is gone
    /// when panic here
    /// panic
    /// otherwise
    /// answer pass
    /// ```
    ///
    /// In texts `\n`, `\r`, `\t`, `\\` and `\s` (a blank, where it would end the line) are escapes.
    ///
    /// # Errors
    /// The file cannot be read, or a line is no statement; the message names the line.
    pub fn from_file(path: &Path) -> Result<Self, EngineError> {
        let script =
            fs::read_to_string(path).map_err(|source| EngineError::Read { path: path.to_owned(), source })?;
        let mut this = Self::new();
        let mut waiting: Option<String> = None;
        for (number, line) in script.lines().enumerate() {
            let line = line.trim_start();
            let wrong = |problem: &str| bad(path, &format!("line {}", number + 1), problem, FORMAT);
            let (word, text) = line.split_once(' ').unwrap_or((line, ""));
            let text = unescape(text);
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            let action = match word {
                "when" | "otherwise" => {
                    if waiting.replace(text).is_some() {
                        return Err(wrong("the rule before it says nothing to do"));
                    }
                    continue;
                }
                "prefill-ms" => {
                    this.prefill_delay =
                        milliseconds(&text).ok_or_else(|| wrong("is no number of milliseconds"))?;
                    continue;
                }
                "decode-ms" => {
                    this.decode_delay =
                        milliseconds(&text).ok_or_else(|| wrong("is no number of milliseconds"))?;
                    continue;
                }
                "context" => {
                    this.about.context = text.trim().parse().map_err(|_| wrong("is no number of tokens"))?;
                    continue;
                }
                "answer" => Action::Answer(text),
                "fail" => Action::Fail(text),
                "panic" => Action::Panic,
                _ => return Err(wrong("is no statement")),
            };
            let contains =
                waiting.take().ok_or_else(|| wrong("no `when` or `otherwise` stands before it"))?;
            this.rules.push(Rule { contains, action });
        }
        if waiting.is_some() {
            return Err(bad(path, "the last line", "the rule says nothing to do", FORMAT));
        }
        Ok(this)
    }

    /// Answers `answer` where the prompt contains `contains`. Rules are tried in the order they were added.
    pub fn when(mut self, contains: &str, answer: &str) -> Self {
        self.rules.push(Rule { contains: contains.to_owned(), action: Action::Answer(answer.to_owned()) });
        self
    }

    /// Fails as a device does where the prompt contains `contains`.
    pub fn fail_when(mut self, contains: &str, message: &str) -> Self {
        self.rules.push(Rule { contains: contains.to_owned(), action: Action::Fail(message.to_owned()) });
        self
    }

    /// Panics where the prompt contains `contains`.
    pub fn panic_when(mut self, contains: &str) -> Self {
        self.rules.push(Rule { contains: contains.to_owned(), action: Action::Panic });
        self
    }

    /// Asks `answer` where no rule fits; it is given the prompt's text.
    pub fn answering(mut self, answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        self.answer = Some(Box::new(answer));
        self
    }

    /// Spends this time on each prompt token that is not in the cache.
    pub fn prefill_delay(mut self, each: Duration) -> Self {
        self.prefill_delay = each;
        self
    }

    /// Spends this time on each decoded token.
    pub fn decode_delay(mut self, each: Duration) -> Self {
        self.decode_delay = each;
        self
    }

    /// Gives every decoded token this probability instead of 1.
    pub fn probability(mut self, probability: f32) -> Self {
        self.probability = probability;
        self
    }

    /// Holds at most this many tokens.
    pub fn context(mut self, tokens: usize) -> Self {
        self.about.context = tokens;
        self
    }

    /// Speaks another vocabulary, e.g. a real model's.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Writes the text of every prompt into `record`, before it is answered.
    pub fn recording(mut self, record: Arc<Mutex<Vec<String>>>) -> Self {
        self.record = Some(record);
        self
    }

    fn action(&self, prompt: &str) -> Action {
        match (self.rules.iter().find(|rule| prompt.contains(&rule.contains)), &self.answer) {
            (Some(rule), _) => rule.action.clone(),
            (None, Some(answer)) => Action::Answer(answer(prompt)),
            (None, None) => Action::Answer(String::new()),
        }
    }

    /// The tokens of an answer that begins with `forced`, whose bytes may end inside a character.
    fn spell(&self, forced: &[u8], answer: &str) -> Vec<TokenId> {
        let mut bytes = answer.as_bytes().to_vec();
        if !bytes.starts_with(forced) {
            bytes = [forced, answer.as_bytes()].concat();
        }
        let mut ids = Vec::new();
        for chunk in bytes.utf8_chunks() {
            ids.extend(self.tokens.encode(chunk.valid()));
            ids.extend(chunk.invalid().iter().filter_map(|&byte| self.tokens.spelling(&[byte])));
        }
        ids
    }
}

impl Engine for Scripted {
    fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    fn about(&self) -> &About {
        &self.about
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        limits: &Limits,
        watch: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let context = self.about.context;
        if prompt.tokens.len() > context {
            self.cached.clear();
            return Err(EngineError::PromptTooLong { tokens: prompt.tokens.len(), context });
        }
        let text = self.tokens.render(&prompt.tokens);
        if let Some(record) = &self.record {
            record.lock().unwrap_or_else(PoisonError::into_inner).push(text.clone());
        }

        let start = Instant::now();
        let same = self.cached.iter().zip(&prompt.tokens).take_while(|(a, b)| a == b).count();
        // As in a real engine, the last token is evaluated where something is to follow: its logits are needed.
        let reused = match limits.max_tokens {
            0 => same,
            _ => same.min(prompt.tokens.len().saturating_sub(1)),
        };
        if reused < prompt.tokens.len() {
            self.cached.truncate(reused);
        }
        let mut generation = Generation {
            text: String::new(),
            stop: Stop::Watch,
            pieces: Vec::new(),
            reused,
            evaluated: 0,
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
        };
        for chunk in prompt.tokens[reused..].chunks(CHUNK) {
            let delay = self.prefill_delay.saturating_mul(chunk.len() as u32);
            let mut flow = wait(delay, "", watch);
            if flow.is_continue() {
                self.cached.extend_from_slice(chunk);
                generation.evaluated += chunk.len();
                flow = watch("");
            }
            if flow.is_break() {
                generation.prefill = start.elapsed();
                return Ok(generation);
            }
        }
        generation.prefill = start.elapsed();
        if limits.max_tokens == 0 {
            generation.stop = Stop::Limit;
            return Ok(generation);
        }

        let answer = match self.action(&text) {
            Action::Answer(answer) => answer,
            Action::Fail(message) => {
                self.cached.clear();
                return Err(EngineError::Device { device: "the script".to_owned(), source: message.into() });
            }
            Action::Panic => {
                std::panic::panic_any(format!("the script panics on this prompt of {} bytes", text.len()))
            }
        };

        let start = Instant::now();
        let mut heal = Heal::new(&prompt.forced);
        let mut stream = Utf8Stream::new();
        let mut answer = self.spell(&prompt.forced, &answer).into_iter();
        generation.stop = loop {
            if generation.pieces.len() == limits.max_tokens || self.cached.len() >= context {
                break Stop::Limit;
            }
            if wait(self.decode_delay, &generation.text, watch).is_break() {
                break Stop::Watch;
            }
            let Some(id) = answer.next() else { break Stop::EndOfText };
            self.cached.push(id);
            stream.push(heal.advance(self.tokens.bytes(id)), &mut generation.text);
            generation.pieces.push(Piece { end: generation.text.len(), probability: self.probability });
            if watch(&generation.text).is_break() {
                break Stop::Watch;
            }
        };
        generation.decode = start.elapsed();
        Ok(generation)
    }

    fn clear(&mut self) {
        self.cached.clear();
    }

    fn unread(&self, prompt: &Prompt, _limits: &Limits) -> usize {
        let same = self.cached.iter().zip(&prompt.tokens).take_while(|(a, b)| a == b).count();
        prompt.tokens.len() - same
    }

    /// What the script says, known before anything was measured: without delays, without bounds.
    fn rates(&self) -> Rates {
        let rate = |delay: Duration| 1.0 / delay.as_secs_f32();
        Rates { prefill: rate(self.prefill_delay), decode: rate(self.decode_delay) }
    }
}

/// Lets `delay` pass, asking `watch` all the while.
fn wait(delay: Duration, text: &str, watch: &mut dyn FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    let start = Instant::now();
    loop {
        let left = delay.saturating_sub(start.elapsed());
        if left.is_zero() {
            return ControlFlow::Continue(());
        }
        std::thread::sleep(left.min(POLL));
        watch(text)?;
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    let number: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(number / 1000.0).ok()
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('s') => out.push(' '),
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const MANY: Limits = Limits { max_tokens: 1000, stale: 0, background: false };

    fn prompt(engine: &Scripted, text: &str, forced: &[u8]) -> Prompt {
        let mut tokens = engine.tokens.encode(text);
        tokens.push(engine.tokens.id("<|fim_middle|>").unwrap());
        Prompt { tokens, forced: forced.to_vec(), ..Prompt::default() }
    }

    fn run(engine: &mut Scripted, prompt: &Prompt, limits: &Limits) -> Generation {
        engine.generate(prompt, limits, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_answers() {
        let mut engine = Scripted::new()
            .when("add<|fim_middle|>", "(a, b)")
            .when("def", "ault")
            .answering(|prompt| prompt.len().to_string());
        for (text, answer) in [("def add", "(a, b)"), ("def x", "ault"), ("x", "15")] {
            let prompt = prompt(&engine, text, b"");
            let out = run(&mut engine, &prompt, &MANY);
            assert_eq!((out.text.as_str(), out.stop), (answer, Stop::EndOfText));
            assert_eq!(out.pieces.last().unwrap().end, answer.len());
        }
    }

    #[test]
    fn forced_bytes_are_spelled_and_left_out() {
        let mut engine = Scripted::new().when("", "return é");
        for (forced, text) in
            [("ret", "urn é"), ("return é", ""), ("xy", "return é"), ("数", "return é"), ("", "return é")]
        {
            let prompt = prompt(&engine, "a", forced.as_bytes());
            assert_eq!(run(&mut engine, &prompt, &MANY).text, text);
        }
    }

    #[test]
    fn limits_and_watch_end_it() {
        let mut engine = Scripted::new().when("", "abcdefgh");
        let prompt = prompt(&engine, "x", b"");
        let out = run(&mut engine, &prompt, &Limits { max_tokens: 3, ..Limits::default() });
        assert_eq!((out.text.as_str(), out.stop, out.pieces.len()), ("abc", Stop::Limit, 3));
        let out = run(&mut engine, &prompt, &Limits { max_tokens: 0, ..Limits::default() });
        assert_eq!((out.text.as_str(), out.stop), ("", Stop::Limit));
        let mut seen = Vec::new();
        let out = engine
            .generate(&prompt, &MANY, &mut |text| {
                seen.push(text.to_owned());
                if text == "ab" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!((out.text.as_str(), out.stop), ("ab", Stop::Watch));
        assert_eq!(seen, ["", "a", "ab"]);
        let mut small = Scripted::new().when("", "abcdefgh").context(4);
        assert_eq!(run(&mut small, &prompt, &MANY).text, "ab");
        let long = Prompt { tokens: vec![0; 5], forced: Vec::new(), ..Prompt::default() };
        assert!(small.generate(&long, &MANY, &mut |_| ControlFlow::Continue(())).is_err());
    }

    #[test]
    fn the_cache_survives_what_watch_broke_off() {
        let mut engine = Scripted::new().when("", "xyz");
        let prompt = prompt(&engine, &"q".repeat(3 * CHUNK), b"");
        let mut chunks = 0;
        let out = engine
            .generate(&prompt, &MANY, &mut |_| {
                chunks += 1;
                if chunks == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!((out.stop, out.reused, out.evaluated), (Stop::Watch, 0, 2 * CHUNK));
        let out = run(&mut engine, &prompt, &MANY);
        assert_eq!((out.reused, out.evaluated), (2 * CHUNK, CHUNK + 1));
        let out = run(&mut engine, &prompt, &MANY);
        assert_eq!((out.reused, out.evaluated), (3 * CHUNK, 1));
        engine.clear();
        assert_eq!(run(&mut engine, &prompt, &MANY).reused, 0);
    }

    #[test]
    fn a_delay_asks_watch_all_the_while() {
        // A minute for each token: only `watch` can end it.
        let minute = Duration::from_secs(60);
        for engine in
            [Scripted::new().prefill_delay(minute), Scripted::new().when("", "x").decode_delay(minute)]
        {
            let mut engine = engine;
            let prompt = prompt(&engine, "x", b"");
            let mut calls = 0;
            let out = engine
                .generate(&prompt, &MANY, &mut |_| {
                    calls += 1;
                    if calls == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
                .unwrap();
            assert_eq!((out.stop, out.text.as_str()), (Stop::Watch, ""));
        }
    }

    #[test]
    fn it_fails_and_panics_when_told_and_goes_on() {
        let record = Arc::new(Mutex::new(Vec::new()));
        let mut engine = Scripted::new()
            .fail_when("broken", "no device")
            .panic_when("dropped")
            .when("", "ok")
            .recording(Arc::clone(&record));
        let broken = prompt(&engine, "broken", b"");
        let error = engine.generate(&broken, &MANY, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(error.to_string().contains("no device"));
        let dropped = prompt(&engine, "dropped", b"");
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = engine.generate(&dropped, &MANY, &mut |_| ControlFlow::Continue(()));
        }));
        assert!(caught.is_err());
        engine.clear();
        let fine = prompt(&engine, "fine", b"");
        assert_eq!(run(&mut engine, &fine, &MANY).text, "ok");
        assert_eq!(record.lock().unwrap()[0], "broken<|fim_middle|>");
    }

    #[test]
    fn a_script_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        let script = "# a comment\n\nprefill-ms 0\ndecode-ms 0.001\ncontext 100\nwhen def\\n\nanswer \\tpass\\\\\\n\\s\n  when x\nfail gone\notherwise\nanswer\n";
        fs::write(&path, script).unwrap();
        let mut engine = Scripted::from_file(&path).unwrap();
        assert_eq!(engine.about().context, 100);
        assert_eq!(engine.decode_delay, Duration::from_micros(1));
        let def = prompt(&engine, "def\n", b"");
        assert_eq!(run(&mut engine, &def, &MANY).text, "\tpass\\\n ");
        let other = prompt(&engine, "other", b"");
        assert_eq!(run(&mut engine, &other, &MANY).text, "");
        let x = prompt(&engine, "x", b"");
        assert!(engine.generate(&x, &MANY, &mut |_| ControlFlow::Continue(())).is_err());

        for (script, line) in [
            ("answer x", "line 1"),
            ("when a\nwhen b\nanswer x", "line 2"),
            ("otherwise", "last line"),
            ("\nsay x", "line 2"),
            ("decode-ms soon", "line 1"),
            ("decode-ms -1", "line 1"),
        ] {
            fs::write(&path, script).unwrap();
            let message = Scripted::from_file(&path).unwrap_err().to_string();
            assert!(message.contains(line) && message.contains("answer TEXT"), "{message}");
        }
        assert!(Scripted::from_file(&folder.path().join("none")).is_err());
    }
}
