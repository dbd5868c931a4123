//! Drafts behind prompts that are read by people.
//! It knows nothing of decoders.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

/// The drafts of a generation behind `prompt` and `forced` that has said `said` so far.
fn guess(lookup: &mut Lookup, tokens: &Tokens, prompt: &str, forced: &str, said: &str) -> String {
    lookup.begin(tokens, &tokens.encode(prompt), forced.as_bytes());
    for token in tokens.encode(said) {
        lookup.push(token, tokens.bytes(token));
    }
    let rest = forced.get(said.len()..).unwrap_or_default();
    lookup.guess(tokens, rest.as_bytes());
    spell(tokens, &lookup.draft)
}

fn spell(tokens: &Tokens, draft: &[TokenId]) -> String {
    let bytes: Vec<u8> = draft.iter().flat_map(|&token| tokens.bytes(token)).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A generation that says `said`.
fn say(lookup: &mut Lookup, tokens: &Tokens, prompt: &str, forced: &str, said: &str) {
    guess(lookup, tokens, prompt, forced, said);
    lookup.end(tokens);
}

#[test]
fn the_longest_match_is_what_a_plain_search_finds() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..20_000 {
        let text: Vec<TokenId> = (0..random.usize(..40)).map(|_| random.u32(..3)).collect();
        let barred = random.u32(..6);
        let fits = |token: TokenId| token != barred;
        let expected = (1..text.len())
            .filter(|&at| fits(text[at]))
            .map(|at| {
                let same = text[..at].iter().rev().zip(text.iter().rev()).take_while(|(a, b)| a == b);
                (same.count().min(LONGEST), at)
            })
            .filter(|&(len, _)| len > 0)
            .max();
        assert_eq!(longest_match(&text, fits), expected.map(|(len, at)| (at, len)), "{text:?}");
    }
}

#[test]
fn what_stood_behind_the_last_tokens_before_is_drafted() {
    let tokens = Tokens::bytes_only();
    let mut lookup = Lookup::default();
    let code = "def bcd(self): return 1\nfor x in y: pass\ndef b";
    assert!(guess(&mut lookup, &tokens, code, "", "").starts_with("cd(self): return 1\nfor x"));
    assert!(guess(&mut lookup, &tokens, code, "", "cd(").starts_with("self): return 1\n"));
    assert_eq!(lookup.source.map(Source::class), Some(Source::Match(5).class()));
    assert!(guess(&mut lookup, &tokens, "ab ac ad a", "c", "").starts_with("c ad a"), "only what is forced");
    assert_eq!(guess(&mut lookup, &tokens, "xyz", "", ""), "");
    assert!(lookup.take(1, 9).is_empty());
    // What repeats itself is drafted as going on to, beyond its own end.
    let run = guess(&mut lookup, &tokens, "0, 1, 0, 1, 0", "", "");
    assert!(run.starts_with(", 1, 0, 1, 0, 1, 0, 1,") && lookup.draft.len() == DRAFT, "{run}");
}

#[test]
fn no_draft_holds_a_special_token() {
    let tokens = Tokens::bytes_only();
    let fim = tokens.fim();
    let mut prompt = tokens.encode("let a = b");
    prompt.push(fim.suffix.unwrap());
    prompt.extend(tokens.encode("let a = "));
    let mut lookup = Lookup::default();
    lookup.begin(&tokens, &prompt, b"");
    lookup.guess(&tokens, b"");
    assert_eq!(spell(&tokens, &lookup.draft), "b");
    lookup.push(TokenId::from(b'b'), b"b");
    lookup.guess(&tokens, b"");
    assert!(lookup.draft.is_empty(), "{:?}", lookup.draft);
}

#[test]
fn behind_a_middle_token_the_prefix_goes_on() {
    let tokens = Tokens::bytes_only();
    let fim = tokens.fim();
    let (pre, suf, mid) = (fim.prefix.unwrap(), fim.suffix.unwrap(), fim.middle.unwrap());
    let (before, after) = (tokens.encode("let number = 1;\nlet n"), tokens.encode(";\nprint(n)"));
    let join = |parts: &[&[TokenId]]| parts.concat();
    let psm = join(&[&[pre], &before, &[suf], &after, &[mid]]);
    assert_eq!(seam(fim, &psm), 1 + before.len());
    let spm = join(&[&[suf], &after, &[pre], &before, &[mid]]);
    assert_eq!(seam(fim, &spm), spm.len() - 1);
    let anchored = join(&[&[suf], &after, &[mid], &before]);
    assert_eq!(seam(fim, &anchored), anchored.len());
    assert_eq!((seam(fim, &[]), seam(fim, &[mid])), (0, 0));
    for prompt in [psm, spm, anchored] {
        let mut lookup = Lookup::default();
        lookup.begin(&tokens, &prompt, b"");
        lookup.guess(&tokens, b"");
        let draft = spell(&tokens, &lookup.draft);
        assert!(draft.starts_with("umber = 1;\nlet n"), "{draft}");
        assert_eq!(lookup.before, b"let number = 1;\nlet n");
    }
}

#[test]
fn a_suggestion_that_is_typed_through_is_drafted_to_its_end() {
    let tokens = Tokens::bytes_only();
    let code = "class Ledger:\n    def balance(self):\n        ";
    let said = "return self.total() + 1";
    for cut in 0..said.len() {
        for back in 0..=cut.min(3) {
            let mut lookup = Lookup::default();
            say(&mut lookup, &tokens, code, "", said);
            let (typed, forced) = said[..cut].split_at(cut - back);
            let prompt = format!("{code}{typed}");
            // The model repeats itself; at a token's begin the rest of what it said is the draft.
            let mut so_far = String::new();
            let first = guess(&mut lookup, &tokens, &prompt, forced, "");
            let mut whole = first.clone();
            for token in tokens.encode(&said[typed.len()..]) {
                if lookup.source == Some(Source::Generation) {
                    break;
                }
                so_far += &spell(&tokens, &[token]);
                whole = so_far.clone() + &guess(&mut lookup, &tokens, &prompt, forced, &so_far);
            }
            if lookup.source == Some(Source::Generation) {
                assert_eq!(whole, said[typed.len()..], "{cut} {back}");
            } else {
                assert!(said.len() - cut < 4, "{cut} {back}: no draft");
            }
        }
    }
    let mut lookup = Lookup::default();
    say(&mut lookup, &tokens, code, "", said);
    guess(&mut lookup, &tokens, code, "x", "");
    assert_ne!(lookup.source, Some(Source::Generation), "something else is typed");
    guess(&mut lookup, &tokens, "fn main() {\n    let x = ", "", "");
    assert_ne!(lookup.source, Some(Source::Generation), "another place");
    lookup.clear();
    assert_ne!(guess(&mut lookup, &tokens, code, "", ""), said);
}

#[test]
fn the_last_generations_are_remembered_each_once() {
    let tokens = Tokens::bytes_only();
    let mut lookup = Lookup::default();
    let code = "x = some_function(1, 2)\ny = ";
    // Cancelled, asked again, cancelled later; then a short one again.
    for said in ["ot", "other(", "other(3, 4)", "oth"] {
        say(&mut lookup, &tokens, code, "", said);
        assert_eq!(lookup.generations.len(), 1);
    }
    assert_eq!(guess(&mut lookup, &tokens, code, "", "o"), "ther(3, 4)");
    say(&mut lookup, &tokens, code, "", "different");
    assert_eq!(lookup.generations.len(), 2);
    assert_eq!(guess(&mut lookup, &tokens, code, "", ""), "different", "the latest first");
    assert_eq!(guess(&mut lookup, &tokens, code, "ot", ""), "other(3, 4)");
    for i in 0..20 {
        say(&mut lookup, &tokens, &format!("number {i} is written as "), "", "so");
    }
    assert_eq!(lookup.generations.len(), GENERATIONS);
    say(&mut lookup, &tokens, code, "", "");
    assert_eq!(lookup.generations.len(), GENERATIONS);
}

#[test]
fn drafts_are_as_long_as_they_pay() {
    let mut costs = Costs::default();
    for (rows, time) in [(1, 13.0), (2, 14.0), (4, 17.0), (8, 21.0), (12, 40.0), (16, 50.0), (32, 90.0)] {
        costs.note(rows, time);
    }
    assert_eq!(best_length(0.95, &costs, 1, DRAFT), 7);
    assert_eq!(best_length(0.95, &costs, 1, 5), 5);
    assert!((1..=3).contains(&best_length(0.3, &costs, 1, DRAFT)));
    assert_eq!(best_length(0.02, &costs, 1, DRAFT), 0);
    assert_eq!(best_length(0.95, &costs, 1, 0), 0);
    // Behind the last three tokens of a prompt, the batch has room for five.
    assert_eq!(best_length(0.9, &costs, 3, DRAFT), 5);
    assert_eq!(best_length(0.01, &costs, 3, DRAFT), 0);
    assert!(best_length(0.9, &costs, 400, DRAFT) > 3);
    let mut slow = Costs::default();
    for rows in SIZES {
        slow.note(rows, 10.0 * rows as f32);
    }
    assert_eq!(best_length(0.99, &slow, 1, DRAFT), 0, "nothing to gain where each row costs the same");
    assert_eq!(best_length(0.6, &Costs::default(), 1, DRAFT).min(1), 1, "tried before it is measured");
}

#[test]
fn odds_and_costs_follow_what_happens() {
    let mut costs = Costs::default();
    costs.note(1, 10.0);
    assert!(costs.of(8) < 15.0 && costs.of(9) > costs.of(8));
    costs.note(8, 100.0);
    assert!((costs.of(7) - 100.0).abs() < 1e-3);
    assert_eq!(best_length(0.9, &costs, 1, 7), 5, "what lies between is not dear for that");
    for _ in 0..200 {
        costs.note(1, 10.0);
    }
    assert!(costs.of(8) < 20.0, "{costs:?}");
    costs.note(1, 1000.0);
    assert!(costs.of(1) < 12.0, "a pause is no speed: {costs:?}");
    costs.note(100, 1.0);
    for _ in 0..200 {
        costs.note(1, 20.0);
    }
    assert!((costs.of(1) - 20.0).abs() < 0.1);

    let mut odds = Odds::default();
    let source = Source::Match(2);
    for _ in 0..200 {
        odds.note(source, 0, true);
    }
    assert!(odds.of(source) < 0.01);
    assert!((odds.of(Source::Generation) - ODDS[0]).abs() < 1e-6);
    for _ in 0..400 {
        odds.note(source, 3, true);
    }
    assert!((0.65..0.85).contains(&odds.of(source)), "three of four: {odds:?}");
}

#[test]
fn what_was_not_verified_is_judged_by_the_token_that_came() {
    let tokens = Tokens::bytes_only();
    let mut lookup = Lookup::default();
    guess(&mut lookup, &tokens, "abcdXabcd", "", "");
    let source = lookup.source.unwrap();
    let draft = lookup.draft.clone();
    let mut before = lookup.odds.of(source);
    for (drafted, chosen, ended, better) in [
        (0, 1, false, Some(true)),
        (0, 0, true, Some(false)),
        (3, 4, false, Some(true)),
        (draft.len(), draft.len(), true, Some(true)),
    ] {
        lookup.judge(drafted, draft[..chosen].iter().copied(), ended);
        let after = lookup.odds.of(source);
        assert_eq!(Some(after > before), better);
        before = after;
    }
    lookup.judge(2, [draft[0], draft[1] + 1].into_iter(), false);
    let done = lookup.done();
    assert_eq!(done.steps, 5);
    assert_eq!(done.drafted as usize, 3 + draft.len() + 2);
    assert_eq!(done.accepted as usize, 3 + draft.len() + 1);
    assert_eq!(done.tokens as usize, 1 + 4 + draft.len() + 2);
}
