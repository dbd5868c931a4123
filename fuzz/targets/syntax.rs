//! Fuzzes the server's parse path with arbitrary text in every grammar, followed by edits.
//!
//! An input is one byte for the language, one for the region size, and parts separated by the byte 0xFE. The first part
//! is the text. Each other part is an edit: two bytes give its start and the deleted length, the rest is inserted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper::syntax::{RegionSize, Scope, Syntax, scope};
use taper::text::{Edit, Rope, lines};
use taper_grammars::{LANGUAGES, Language};

/// A parse is abandoned after this many clock checks; it checks the clock every hundred steps.
const LOOKS: usize = 2_000;

fn looks() -> impl FnMut() -> bool {
    let mut left = LOOKS;
    move || {
        left = left.saturating_sub(1);
        left == 0
    }
}

fn run(language: &'static Language, reach: RegionSize, parts: &mut dyn Iterator<Item = &[u8]>) {
    let first = parts.next().unwrap_or_default();
    let mut text = Rope::from_str(&String::from_utf8_lossy(first));
    let parsed = |text: &Rope, place| Syntax::parse_around(text, language, place, reach, &mut looks());
    let mut syntax = parsed(&text, 0);
    for part in parts.take(64) {
        let [place, deleted, typed @ ..] = part else { continue };
        let len = text.len_bytes();
        let start = lines::floor_char_boundary(&text, usize::from(*place) * len / 255);
        let end = lines::floor_char_boundary(&text, (start + usize::from(*deleted)).min(len)).max(start);
        let edit = Edit { range: start..end, text: String::from_utf8_lossy(typed).into_owned() };
        let place = edit.new_end();
        if let Some(syntax) = &mut syntax {
            syntax.apply_edit(&edit);
        }
        edit.apply(&mut text).expect("the edit is within the text");
        match &mut syntax {
            Some(syntax) if syntax.covers(&text, place, reach) => {
                syntax.reparse(&text, &mut looks());
            }
            _ => syntax = parsed(&text, place),
        }
        let here = Scope::new(&text, language, syntax.as_ref(), place);
        let _ = (here.is_in_string(), here.is_in_comment(), here.is_in_empty_block());
        if let Some(syntax) = &syntax {
            let _ = scope::fault_count(&syntax.tree);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [language, reach, rest @ ..] = data else { return };
    let mut with_grammar = LANGUAGES.iter().filter(|language| language.grammar.is_some());
    let count = with_grammar.clone().count();
    let Some(language) = with_grammar.nth(usize::from(*language) % count) else { return };
    let reach = if reach % 2 == 0 { RegionSize::DEFAULT } else { RegionSize { whole_limit: 256 } };
    run(language, reach, &mut rest.split(|byte| *byte == 0xFE));
});
