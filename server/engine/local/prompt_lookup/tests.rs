//! Tests of drafts after readable prompts.

use super::*;

/// The drafts of a generation after `prompt` and `forced` whose output so far is `output`.
fn draft_after(
    lookup: &mut PromptLookup,
    tokens: &Tokenizer,
    prompt: &str,
    forced: &str,
    output: &str,
) -> String {
    lookup.begin_generation(tokens, &tokens.encode(prompt), forced.as_bytes());
    for token in tokens.encode(output) {
        lookup.push_token(token, tokens.token_bytes(token));
    }
    let rest = forced.get(output.len()..).unwrap_or_default();
    lookup.build_draft(tokens, rest.as_bytes());
    spell_tokens(tokens, &lookup.draft)
}

fn spell_tokens(tokens: &Tokenizer, draft: &[TokenId]) -> String {
    let bytes: Vec<u8> = draft.iter().flat_map(|&token| tokens.token_bytes(token)).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A generation whose output is `output`.
fn remember_generation(
    lookup: &mut PromptLookup,
    tokens: &Tokenizer,
    prompt: &str,
    forced: &str,
    output: &str,
) {
    draft_after(lookup, tokens, prompt, forced, output);
    lookup.end_generation(tokens);
}

#[test]
fn longest_match_equals_naive_search() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..20_000 {
        let text: Vec<TokenId> = (0..random.usize(..40)).map(|_| random.u32(..3)).collect();
        let barred = random.u32(..6);
        let fits = |token: TokenId| token != barred;
        let expected = (1..text.len())
            .filter(|&at| fits(text[at]))
            .map(|at| {
                let same = text[..at].iter().rev().zip(text.iter().rev()).take_while(|(a, b)| a == b);
                (same.count().min(MAX_MATCH_TOKENS), at)
            })
            .filter(|&(len, _)| len > 0)
            .max();
        assert_eq!(longest_match(&text, fits), expected.map(|(len, at)| (at, len)), "{text:?}");
    }
}

#[test]
fn draft_continues_earlier_occurrence_of_last_tokens() {
    let tokens = Tokenizer::bytes_only();
    let mut lookup = PromptLookup::default();
    let code = "def bcd(self): return 1\nfor x in y: pass\ndef b";
    assert!(draft_after(&mut lookup, &tokens, code, "", "").starts_with("cd(self): return 1\nfor x"));
    assert!(draft_after(&mut lookup, &tokens, code, "", "cd(").starts_with("self): return 1\n"));
    assert_eq!(lookup.source.map(DraftSource::odds_index), Some(DraftSource::Match(5).odds_index()));
    assert!(
        draft_after(&mut lookup, &tokens, "ab ac ad a", "c", "").starts_with("c ad a"),
        "only what is forced"
    );
    assert_eq!(draft_after(&mut lookup, &tokens, "xyz", "", ""), "");
    assert!(lookup.draft_worth_verifying(1, 9).is_empty());
    // Repetition is drafted as continuing beyond its own end.
    let run = draft_after(&mut lookup, &tokens, "0, 1, 0, 1, 0", "", "");
    assert!(run.starts_with(", 1, 0, 1, 0, 1, 0, 1,") && lookup.draft.len() == MAX_DRAFT_TOKENS, "{run}");
}

#[test]
fn draft_never_contains_special_tokens() {
    let tokens = Tokenizer::bytes_only();
    let fim = tokens.fim_tokens();
    let mut prompt = tokens.encode("let a = b");
    prompt.push(fim.suffix.unwrap());
    prompt.extend(tokens.encode("let a = "));
    let mut lookup = PromptLookup::default();
    lookup.begin_generation(&tokens, &prompt, b"");
    lookup.build_draft(&tokens, b"");
    assert_eq!(spell_tokens(&tokens, &lookup.draft), "b");
    lookup.push_token(TokenId::from(b'b'), b"b");
    lookup.build_draft(&tokens, b"");
    assert!(lookup.draft.is_empty(), "{:?}", lookup.draft);
}

#[test]
fn draft_after_middle_token_continues_the_prefix() {
    let tokens = Tokenizer::bytes_only();
    let fim = tokens.fim_tokens();
    let (pre, suf, mid) = (fim.prefix.unwrap(), fim.suffix.unwrap(), fim.middle.unwrap());
    let (before, after) = (tokens.encode("let number = 1;\nlet n"), tokens.encode(";\nprint(n)"));
    let join = |parts: &[&[TokenId]]| parts.concat();
    let psm = join(&[&[pre], &before, &[suf], &after, &[mid]]);
    assert_eq!(cursor_boundary(fim, &psm), 1 + before.len());
    let spm = join(&[&[suf], &after, &[pre], &before, &[mid]]);
    assert_eq!(cursor_boundary(fim, &spm), spm.len() - 1);
    let anchored = join(&[&[suf], &after, &[mid], &before]);
    assert_eq!(cursor_boundary(fim, &anchored), anchored.len());
    assert_eq!((cursor_boundary(fim, &[]), cursor_boundary(fim, &[mid])), (0, 0));
    for prompt in [psm, spm, anchored] {
        let mut lookup = PromptLookup::default();
        lookup.begin_generation(&tokens, &prompt, b"");
        lookup.build_draft(&tokens, b"");
        let draft = spell_tokens(&tokens, &lookup.draft);
        assert!(draft.starts_with("umber = 1;\nlet n"), "{draft}");
        assert_eq!(lookup.context_before, b"let number = 1;\nlet n");
    }
}

#[test]
fn typed_through_suggestion_is_drafted_to_its_end() {
    let tokens = Tokenizer::bytes_only();
    let code = "class Ledger:\n    def balance(self):\n        ";
    let output = "return self.total() + 1";
    for cut in 0..output.len() {
        for back in 0..=cut.min(3) {
            let mut lookup = PromptLookup::default();
            remember_generation(&mut lookup, &tokens, code, "", output);
            let (typed, forced) = output[..cut].split_at(cut - back);
            let prompt = format!("{code}{typed}");
            // The model repeats itself; at the start of a token the rest of its output is the draft.
            let mut so_far = String::new();
            let first = draft_after(&mut lookup, &tokens, &prompt, forced, "");
            let mut whole = first.clone();
            for token in tokens.encode(&output[typed.len()..]) {
                if lookup.source == Some(DraftSource::Generation) {
                    break;
                }
                so_far += &spell_tokens(&tokens, &[token]);
                whole = so_far.clone() + &draft_after(&mut lookup, &tokens, &prompt, forced, &so_far);
            }
            if lookup.source == Some(DraftSource::Generation) {
                assert_eq!(whole, output[typed.len()..], "{cut} {back}");
            } else {
                assert!(output.len() - cut < 4, "{cut} {back}: no draft");
            }
        }
    }
    let mut lookup = PromptLookup::default();
    remember_generation(&mut lookup, &tokens, code, "", output);
    draft_after(&mut lookup, &tokens, code, "x", "");
    assert_ne!(lookup.source, Some(DraftSource::Generation), "something else is typed");
    draft_after(&mut lookup, &tokens, "fn main() {\n    let x = ", "", "");
    assert_ne!(lookup.source, Some(DraftSource::Generation), "another place");
    lookup.clear();
    assert_ne!(draft_after(&mut lookup, &tokens, code, "", ""), output);
}

#[test]
fn past_generations_are_stored_once_each() {
    let tokens = Tokenizer::bytes_only();
    let mut lookup = PromptLookup::default();
    let code = "x = some_function(1, 2)\ny = ";
    // Cancelled, requested again, cancelled later; then a short one again.
    for output in ["ot", "other(", "other(3, 4)", "oth"] {
        remember_generation(&mut lookup, &tokens, code, "", output);
        assert_eq!(lookup.generations.len(), 1);
    }
    assert_eq!(draft_after(&mut lookup, &tokens, code, "", "o"), "ther(3, 4)");
    remember_generation(&mut lookup, &tokens, code, "", "different");
    assert_eq!(lookup.generations.len(), 2);
    assert_eq!(draft_after(&mut lookup, &tokens, code, "", ""), "different", "the latest first");
    assert_eq!(draft_after(&mut lookup, &tokens, code, "ot", ""), "other(3, 4)");
    for i in 0..20 {
        remember_generation(&mut lookup, &tokens, &format!("number {i} is written as "), "", "so");
    }
    assert_eq!(lookup.generations.len(), MAX_GENERATIONS);
    remember_generation(&mut lookup, &tokens, code, "", "");
    assert_eq!(lookup.generations.len(), MAX_GENERATIONS);
}

#[test]
fn draft_length_maximizes_tokens_per_second() {
    let mut costs = BatchCosts::default();
    for (rows, time) in [(1, 13.0), (2, 14.0), (4, 17.0), (8, 21.0), (12, 40.0), (16, 50.0), (32, 90.0)] {
        costs.record_time(rows, time);
    }
    assert_eq!(best_length(0.95, &costs, 1, MAX_DRAFT_TOKENS), 7);
    assert_eq!(best_length(0.95, &costs, 1, 5), 5);
    assert!((1..=3).contains(&best_length(0.3, &costs, 1, MAX_DRAFT_TOKENS)));
    assert_eq!(best_length(0.02, &costs, 1, MAX_DRAFT_TOKENS), 0);
    assert_eq!(best_length(0.95, &costs, 1, 0), 0);
    // After the last three tokens of a prompt, the batch has room for five.
    assert_eq!(best_length(0.9, &costs, 3, MAX_DRAFT_TOKENS), 5);
    assert_eq!(best_length(0.01, &costs, 3, MAX_DRAFT_TOKENS), 0);
    assert!(best_length(0.9, &costs, 400, MAX_DRAFT_TOKENS) > 3);
    let mut slow = BatchCosts::default();
    for rows in BATCH_SIZES {
        slow.record_time(rows, 10.0 * rows as f32);
    }
    assert_eq!(
        best_length(0.99, &slow, 1, MAX_DRAFT_TOKENS),
        0,
        "nothing to gain where each row costs the same"
    );
    assert_eq!(
        best_length(0.6, &BatchCosts::default(), 1, MAX_DRAFT_TOKENS).min(1),
        1,
        "tried before it is measured"
    );
}

#[test]
fn acceptance_odds_and_costs_follow_measurements() {
    let mut costs = BatchCosts::default();
    costs.record_time(1, 10.0);
    assert!(costs.batch_cost(8) < 15.0 && costs.batch_cost(9) > costs.batch_cost(8));
    costs.record_time(8, 100.0);
    assert!((costs.batch_cost(7) - 100.0).abs() < 1e-3);
    assert_eq!(best_length(0.9, &costs, 1, 7), 5, "what lies between is not dear for that");
    for _ in 0..200 {
        costs.record_time(1, 10.0);
    }
    assert!(costs.batch_cost(8) < 20.0, "{costs:?}");
    costs.record_time(1, 1000.0);
    assert!(costs.batch_cost(1) < 12.0, "a pause is no speed: {costs:?}");
    costs.record_time(100, 1.0);
    for _ in 0..200 {
        costs.record_time(1, 20.0);
    }
    assert!((costs.batch_cost(1) - 20.0).abs() < 0.1);

    let mut odds = AcceptanceOdds::default();
    let source = DraftSource::Match(2);
    for _ in 0..200 {
        odds.record_draft(source, 0, true);
    }
    assert!(odds.acceptance_rate(source) < 0.01);
    assert!((odds.acceptance_rate(DraftSource::Generation) - INITIAL_ODDS[0]).abs() < 1e-6);
    for _ in 0..400 {
        odds.record_draft(source, 3, true);
    }
    assert!((0.65..0.85).contains(&odds.acceptance_rate(source)), "three of four: {odds:?}");
}

#[test]
fn unverified_draft_is_scored_by_chosen_token() {
    let tokens = Tokenizer::bytes_only();
    let mut lookup = PromptLookup::default();
    draft_after(&mut lookup, &tokens, "abcdXabcd", "", "");
    let source = lookup.source.unwrap();
    let draft = lookup.draft.clone();
    let mut before = lookup.odds.acceptance_rate(source);
    for (drafted, chosen, ended, better) in [
        (0, 1, false, Some(true)),
        (0, 0, true, Some(false)),
        (3, 4, false, Some(true)),
        (draft.len(), draft.len(), true, Some(true)),
    ] {
        lookup.record_outcome(drafted, draft[..chosen].iter().copied(), ended);
        let after = lookup.odds.acceptance_rate(source);
        assert_eq!(Some(after > before), better);
        before = after;
    }
    lookup.record_outcome(2, [draft[0], draft[1] + 1].into_iter(), false);
    let done = lookup.stats();
    assert_eq!(done.steps, 5);
    assert_eq!(done.drafted as usize, 3 + draft.len() + 2);
    assert_eq!(done.accepted as usize, 3 + draft.len() + 1);
    assert_eq!(done.tokens as usize, 1 + 4 + draft.len() + 2);
}
