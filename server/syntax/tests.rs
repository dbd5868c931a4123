//! Hostile texts against every grammar, in a process of their own: none may end it, take long or take much memory.
//!
//! `TAPER_SOUP=SECONDS cargo test --release -p taper --lib syntax::tests` tries new texts in each grammar for that
//! long.

use std::io::{Write, stderr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use taper_grammars::{LANGUAGES, Language};

use super::{RegionSize, Scope, Syntax, scope};
use crate::text::{Edit, Rope, lines};
use repetition::expanded;

#[path = "../../tests/repetition.rs"]
mod repetition;

/// The task of a child process: `soup python 7`.
const TASK_VARIABLE: &str = "TAPER_SOUP_TASK";
/// Seconds for each grammar.
const SECONDS_VARIABLE: &str = "TAPER_SOUP";
/// Number of texts per grammar without that.
const ROUNDS_PER_GRAMMAR: u64 = 6;
/// Without that, one out of this many fragments is tried alone.
const SINGLE_FRAGMENT_STRIDE: usize = 6;
/// Maximum memory that a text may add.
const MAX_MEMORY_BYTES: u64 = 300 << 20;
/// Maximum processor time of one parse.
const MAX_PROCESSOR_TIME: Duration = Duration::from_secs(3);
/// The time limit of a parse, as in the session.
const PARSE_LIMIT: Duration = Duration::from_millis(100);
const REPARSE_LIMIT: Duration = Duration::from_millis(20);

/// Fragments of syntax of all languages. Alone, doubled and repeated they open what is never closed.
const SYNTAX_FRAGMENTS: &str = "A< ( [ { < a?b: a? if( f( -> x=> (x)=> <a␣ <a> ! * & - + ~ \" ' ` \"${ `${ ${ $( (A) (A)( A. \
    a.b( a, a= a: @ @a( # #if↵ new␣A< fn( |x| a::< a:: ↵ if␣a:↵ a[ a{ {a: {a:[ case␣a: for( while( do␣ else␣ return␣ \
    << <<a↵ <<\" <<~' <<-` /* // ; 1 1. -a typeof␣ await␣ async␣ yield␣ lambda: lambda␣a: not␣ f'{ f\"{ f'''{ {{ }} %( \
    %w( %i[ def␣a↵ class␣A{ class␣A( class␣A: a␣do␣ a| a|| a&& A<A> A<A, A[] A[ (A<A>) func( func(a␣ chan␣ *( &( \
    sizeof( template< template<class␣A, decltype( [=] [](  a<b>( function( function␣a( a=>{ async( ({a: [a, ({ ([ ([{ :a␣ \
    a! a␣?? in␣ of␣ keyof␣ a␣extends␣ infer␣A␣ A| A& {[a␣in␣ &lt; a:hover␣ :not( a> @media␣ url( calc( select( \
    switch( a␣switch{ a␣is␣ a␣as␣ a␣with{ match␣a{ match(a){ unsafe␣ &'a␣ dyn␣A+ impl␣A< where␣A: r#\" br###\" b' <?php␣ \
    ?> $a $$ ${a} $a[ fn()=> <<<A↵ <<<'A'↵ a-> \\ [[ [[␣ (( $(( ((␣ `a` case␣a␣in␣a) a) <( >a => local␣a= [=[ --[[ then␣ end␣ \
    begin␣ unless␣ ->{ ->( &. &:a __attribute__(( #define␣A\\↵ a(b)c( int(* int␣a( void(* R\"( R\"abc( $\" @\" $@\" $$\"\"\" \
    \"\"\" ''' <script> <style> </a> <p> <!-- --> {␣a␣} a;↵ a␣b ⏎ \u{0} \u{b} \u{85} \u{a0} \u{2028} \u{feff} é ß İ ｅ 字 \u{f02a2} \u{1f600} \u{10ffff}";

/// The fragments, with blanks and line ends put in.
fn parse_fragments() -> Vec<String> {
    let plain = |piece: &str| piece.replace('␣', " ").replace('↵', "\n").replace('⏎', "\r\n");
    SYNTAX_FRAGMENTS.split_ascii_whitespace().map(plain).collect()
}

/// The languages, one for each grammar.
fn grammar_languages() -> Vec<&'static Language> {
    let mut found: Vec<&Language> = Vec::new();
    for language in LANGUAGES {
        let Some(grammar) = language.grammar else { continue };
        if !found.iter().any(|other| other.grammar.unwrap()() == grammar()) {
            found.push(language);
        }
    }
    assert!(found.len() > 10);
    found
}

fn random_character(random: &mut fastrand::Rng) -> char {
    match random.u8(..8) {
        0..=3 => char::from(random.u8(b' '..=b'~')),
        4 => random.char('\u{0}'..='\u{ff}'),
        5 => random.char('\u{100}'..='\u{ffff}'),
        6 => random.char('\u{e000}'..='\u{f8ff}'),
        _ => random.char('\u{10000}'..='\u{10ffff}'),
    }
}

/// The next typed text.
fn random_input(random: &mut fastrand::Rng, pieces: &[String]) -> String {
    let piece = |random: &mut fastrand::Rng| pieces[random.usize(..pieces.len())].clone();
    match random.u8(..16) {
        0..=7 => piece(random),
        8 | 9 => random_character(random).to_string(),
        10 => (0..random.usize(..40)).map(|_| random_character(random)).collect(),
        11 => piece(random).repeat(random.usize(..60)),
        12 => random_character(random).to_string().repeat(random.usize(..1200)),
        13 => format!("\n{}", " ".repeat(random.usize(..40))),
        14 => (0..random.usize(..600)).map(|n| format!("{}if a:\n", " ".repeat(n % 700))).collect(),
        _ => format!("{}\n", "word".repeat(random.usize(..300))),
    }
}

fn deadline_after(budget: Duration) -> impl FnMut() -> bool {
    let end = Instant::now() + budget;
    move || Instant::now() >= end
}

/// A document with its tree, as the session keeps it.
struct TypedDocument {
    language: &'static Language,
    text: Rope,
    syntax: Option<Syntax>,
    reach: RegionSize,
    started: u64,
}

impl TypedDocument {
    fn new(language: &'static Language, text: &str, reach: RegionSize) -> Self {
        let mut typing = Self {
            language,
            text: Rope::from_str(text),
            syntax: None,
            reach,
            started: process_memory("VmRSS"),
        };
        typing.run_measured(|typing| typing.syntax = typing.parse_around(0));
        typing
    }

    fn parse_around(&self, place: usize) -> Option<Syntax> {
        Syntax::parse_around(&self.text, self.language, place, self.reach, &mut deadline_after(PARSE_LIMIT))
    }

    fn apply_edit(&mut self, start: usize, end: usize, text: &str) {
        let edit = Edit { range: start..end, text: text.into() };
        let place = edit.new_end();
        edit.apply(&mut self.text).unwrap();
        self.run_measured(|typing| {
            if let Some(syntax) = &mut typing.syntax {
                syntax.apply_edit(&edit);
            }
            match &mut typing.syntax {
                Some(syntax) if syntax.covers(&typing.text, place, typing.reach) => {
                    syntax.reparse(&typing.text, &mut deadline_after(REPARSE_LIMIT));
                }
                _ => typing.syntax = typing.parse_around(place),
            }
            // The queries that a request makes.
            let scope = Scope::new(&typing.text, typing.language, typing.syntax.as_ref(), place);
            let _ = (scope.is_in_string(), scope.is_in_comment(), scope.is_in_empty_block());
            if let Some(syntax) = &typing.syntax {
                let _ = scope::fault_count(&syntax.tree);
            }
        });
    }

    /// Runs an operation on the tree and checks its cost.
    fn run_measured(&mut self, work: impl FnOnce(&mut Self)) {
        let before = processor_time();
        work(self);
        if let (Some(before), Some(after)) = (before, processor_time()) {
            assert!(
                after - before < MAX_PROCESSOR_TIME,
                "{:?} for {} bytes",
                after - before,
                self.text.len_bytes()
            );
        }
        let taken = process_memory("VmHWM").saturating_sub(self.started);
        assert!(taken < MAX_MEMORY_BYTES, "{} MB for {} bytes", taken >> 20, self.text.len_bytes());
    }
}

/// Bytes of this process as Linux counts them; 0 elsewhere.
fn process_memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).map_or(0, |kb: u64| kb << 10)
}

/// This thread's processor time, if Linux reports it.
fn processor_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(stat.split(' ').next()?.parse().ok()?))
}

/// Types at random, deletes, jumps, and undoes some of it.
fn type_random_text(language: &'static Language, seed: u64, pieces: &[String]) {
    let random = &mut fastrand::Rng::with_seed(seed);
    let reach = if random.bool() { RegionSize::DEFAULT } else { RegionSize { whole_limit: 600 } };
    let begin = if random.bool() { language.opening_tag.to_owned() } else { String::new() };
    let mut typing = TypedDocument::new(language, &begin, reach);
    let (mut place, mut undo) = (typing.text.len_bytes(), Vec::new());
    for _ in 0..60 {
        let len = typing.text.len_bytes();
        match random.u8(..10) {
            0 => place = lines::floor_char_boundary(&typing.text, random.usize(..=len)),
            1 => place = len,
            2 => {
                let end = lines::floor_char_boundary(&typing.text, (place + random.usize(..300)).min(len))
                    .max(place);
                undo.push((place, place, lines::slice(&typing.text, place..end)));
                typing.apply_edit(place, end, "");
            }
            3 if !undo.is_empty() => {
                let (start, end, text): (usize, usize, String) = undo.pop().unwrap();
                typing.apply_edit(start, end, &text);
                place = start + text.len();
            }
            _ => {
                let text = random_input(random, pieces);
                let start = place;
                // Mostly key by key.
                let keys =
                    if text.len() < 60 { text.chars().map(String::from).collect() } else { vec![text] };
                for key in keys {
                    typing.apply_edit(place, place, &key);
                    place += key.len();
                }
                undo.push((start, place, String::new()));
            }
        }
        // An edit elsewhere would shift them.
        if random.u8(..6) == 0 {
            undo.clear();
        }
        undo.retain(|(start, end, _)| {
            let text = &typing.text;
            *end <= text.len_bytes()
                && lines::floor_char_boundary(text, *start) == *start
                && lines::floor_char_boundary(text, *end) == *end
        });
        if typing.text.len_bytes() > 40 << 10 {
            return;
        }
    }
}

/// Up to 24 KB of the same few fragments repeated, parsed whole; then a key at the end and one in the middle.
fn type_repeated_text(language: &'static Language, seed: u64, pieces: &[String]) {
    let random = &mut fastrand::Rng::with_seed(seed);
    let piece: String = match pieces.get(usize::try_from(seed).unwrap()) {
        // First each alone.
        Some(piece) => piece.clone(),
        None => (0..random.usize(2..5)).map(|_| pieces[random.usize(..pieces.len())].clone()).collect(),
    };
    let text = format!("{}{}", language.opening_tag, piece.repeat((24 << 10) / piece.len()));
    let mut typing = TypedDocument::new(language, &text, RegionSize::DEFAULT);
    typing.apply_edit(text.len(), text.len(), ";");
    let middle = lines::floor_char_boundary(&typing.text, text.len() / 2);
    typing.apply_edit(middle, middle, "}");
}

fn hostile_texts() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, expanded(&fs::read_to_string(&path).unwrap()))
        })
        .collect();
    found.sort();
    assert!(found.len() >= 10);
    found
}

/// Types a text key by key (only the last keys of a long one), deletes them, and parses it whole once more.
fn type_hostile_text(language: &'static Language, text: &str) {
    let keys = match text.len() {
        0..500 => text.len(),
        500..2_000 => 100,
        _ => 4,
    };
    let start = lines::floor_char_boundary(&Rope::from_str(text), text.len() - keys);
    let mut typing = TypedDocument::new(language, &text[..start], RegionSize::DEFAULT);
    for (at, key) in text[start..].char_indices() {
        typing.apply_edit(start + at, start + at, key.encode_utf8(&mut [0; 4]));
    }
    for (at, key) in text[start..].char_indices().rev() {
        typing.apply_edit(start + at, start + at + key.len_utf8(), "");
    }
    // As the files of a project are.
    typing.run_measured(|typing| {
        let _ = Syntax::parse(&Rope::from_str(text), typing.language, &mut deadline_after(PARSE_LIMIT));
    });
}

/// Runs a task for each grammar in a process of its own, so that one that dies is named.
fn run_in_child_processes(task: &str) {
    for language in grammar_languages() {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "syntax::tests::child", "--ignored", "--nocapture"])
            .env(TASK_VARIABLE, format!("{task} {}", language.name))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = stderr.lines().rev().take(12).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        assert!(output.status.success(), "{task}, {}: {}\n{}", language.name, output.status, last.join("\n"));
        // It completed its task.
        assert!(stderr.contains("all done"), "{stderr}");
    }
}

#[test]
fn random_typing_does_not_crash_parsers() {
    run_in_child_processes("soup");
}

#[test]
fn repeated_fragments_stay_within_time_and_memory_limits() {
    run_in_child_processes("repeated");
}

#[test]
fn hostile_texts_do_not_crash_parsers() {
    run_in_child_processes("hostile");
}

#[test]
fn repetitions_in_hostile_texts_are_expanded() {
    assert_eq!(expanded("a⟦3×bc⟧d⟦2^e\n⟧"), "abcbcbcde\n e\n");
}

#[test]
#[ignore = "run by the tests above, in a process of its own"]
fn child() {
    let task = env::var(TASK_VARIABLE).unwrap();
    let mut words = task.split(' ');
    let (kind, language) = (words.next().unwrap(), taper_grammars::by_id(words.next().unwrap()).unwrap());
    let report = |what: &str| writeln!(stderr(), "{what}").unwrap();
    if kind == "hostile" {
        for (name, text) in hostile_texts() {
            report(&name);
            type_hostile_text(language, &text);
        }
        return report("all done");
    }
    let pieces = parse_fragments();
    let seconds = env::var(SECONDS_VARIABLE).ok().map(|it| Duration::from_secs(it.parse().unwrap()));
    let begun = Instant::now();
    let new = fastrand::u64(1 << 20..1 << 40);
    let seeds: Vec<u64> = match (kind, seconds) {
        ("soup", None) => (0..ROUNDS_PER_GRAMMAR).collect(),
        ("soup", Some(_)) => (new..new + 1_000_000).collect(),
        // Other fragments for each grammar.
        (_, None) => (language.name.len() % SINGLE_FRAGMENT_STRIDE..pieces.len())
            .step_by(SINGLE_FRAGMENT_STRIDE)
            .map(|n| n as u64)
            .collect(),
        (_, Some(_)) => (0..pieces.len() as u64).chain(new..new + 1_000_000).collect(),
    };
    for seed in seeds {
        if seconds.is_some_and(|most| begun.elapsed() > most) {
            break;
        }
        report(&format!("seed {seed}"));
        match kind {
            "soup" => type_random_text(language, seed, &pieces),
            _ => type_repeated_text(language, seed, &pieces),
        }
    }
    report("all done");
}
