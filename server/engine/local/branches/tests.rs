//! Tests that compare branches with the output of a fresh engine after the same prefix, with random models and a real
//! one.

use std::time::Duration;

use super::*;
use crate::gguf::testing::{ModelDims, random_llama, random_qwen2};
use crate::local::real_model;
use crate::local::tests::{ordinary_tokens, plain_and_speculating};
use crate::{Engine, GenerationLimits};

const UNLIMITED_BRANCHING: BranchLimits =
    BranchLimits { max_branches: 2, within_bytes: usize::MAX, max_tokens: 12 };

fn generate_text(engine: &mut Local, tokens: &[TokenId], forced: &[u8], max_tokens: usize) -> Generation {
    let prompt = Prompt { tokens: tokens.to_vec(), healing_bytes: forced.to_vec(), ..Prompt::default() };
    let limits = GenerationLimits { max_tokens, ..GenerationLimits::default() };
    engine.generate(&prompt, &limits, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// All finished branches, in the order of their numbers.
fn finished_branches(engine: &mut Local, limits: &BranchLimits) -> Vec<Generation> {
    let mut ended = Vec::new();
    engine
        .branch(limits, &mut |branch| {
            if branch.finished {
                // Times are not compared.
                let generation = Generation { decode: Duration::ZERO, ..branch.generation.clone() };
                ended.push((branch.number, generation));
            }
            BranchControl::Continue
        })
        .unwrap();
    ended.sort_by_key(|it| it.0);
    ended.into_iter().map(|it| it.1).collect()
}

/// Compared bit for bit: probabilities of the tokens after the fork.
fn token_probabilities(pieces: &[ScoredToken]) -> Vec<f32> {
    pieces.iter().map(|piece| piece.probability).collect()
}

#[test]
fn branch_matches_fresh_engine_after_same_prefix() {
    let mut random = fastrand::Rng::with_seed(21);
    let (mut seen, mut two, mut healed) = (0, 0, 0);
    for writer in [random_qwen2(31, &ModelDims::default()), random_llama(32, &ModelDims::default())] {
        let writer = writer.unwrap();
        let (mut fresh, others) = plain_and_speculating(&writer, 512);
        for mut engine in [plain_and_speculating(&writer, 512).0].into_iter().chain(others) {
            let exact = engine.sequences.can_branch() && fresh.sequences.can_branch();
            for _ in 0..40 {
                let len = random.usize(1..120);
                let tokens = ordinary_tokens(&engine, &mut random, len);
                let forced = ["", "re", "    se"][random.usize(..3)].as_bytes();
                let first = generate_text(&mut engine, &tokens, forced, 12);
                let (held, bytes) = (engine.cached_tokens().to_vec(), engine.decoder.kv_bytes());
                let forks = engine
                    .last_generation
                    .as_ref()
                    .unwrap()
                    .fork_points(&engine.tokens, &UNLIMITED_BRANCHING);
                let generated: Vec<TokenId> =
                    engine.last_generation.as_ref().unwrap().choices.iter().map(|it| it.token).collect();
                let grown = finished_branches(&mut engine, &UNLIMITED_BRANCHING);
                if engine.sequences.can_branch() {
                    assert_eq!(grown.len(), forks.len());
                    // Nothing of the branches is left, and nothing else is lost.
                    assert_eq!((engine.cached_tokens(), engine.decoder.kv_bytes()), (&held[..], bytes));
                } else {
                    assert!(engine.cached_tokens().starts_with(&tokens));
                }
                seen += grown.len();
                two += usize::from(grown.len() == 2);
                for (fork, branch) in forks.iter().zip(&grown) {
                    if !exact {
                        continue;
                    }
                    let mut heal = TokenHealing::new(forced);
                    let mut beginning = tokens.clone();
                    for &token in generated[..fork.choice_index].iter().chain([&fork.token]) {
                        assert!(heal.allows_token(&engine.tokens, token));
                        heal.consume_token(engine.tokens.token_bytes(token));
                        beginning.push(token);
                    }
                    healed += usize::from(!heal.is_done() || fork.choice_index == 0 && !forced.is_empty());
                    fresh.clear();
                    let left = 12 - fork.choice_index - 1;
                    let expected = generate_text(&mut fresh, &beginning, heal.remaining_bytes(), left);
                    let own = &branch.tokens[fork.choice_index + 1..];
                    // Without a token to choose, the fresh engine only evaluates.
                    if left > 0 {
                        assert_eq!(token_probabilities(own), token_probabilities(&expected.tokens));
                        assert_eq!(branch.stop, expected.stop);
                    }
                    assert_eq!(
                        token_probabilities(&branch.tokens[..fork.choice_index]),
                        token_probabilities(&first.tokens[..fork.choice_index])
                    );
                    assert_eq!(branch.tokens[fork.choice_index].probability, fork.probability);
                }
                // As if no branches had been decoded.
                assert_eq!(generate_text(&mut engine, &tokens, forced, 12).text, first.text);
            }
        }
    }
    assert!(seen > 40 && two > 10 && healed > 5, "{seen} {two} {healed}");
}

#[test]
fn branch_control_ends_one_or_all_branches() {
    let mut random = fastrand::Rng::with_seed(22);
    let mut engine = plain_and_speculating(&random_qwen2(31, &ModelDims::default()).unwrap(), 512).0;
    let mut tried = 0;
    while tried < 5 {
        let tokens = ordinary_tokens(&engine, &mut random, 50);
        let first = generate_text(&mut engine, &tokens, b"", 12);
        let whole = finished_branches(&mut engine, &UNLIMITED_BRANCHING);
        let [one, two] = &whole[..] else { continue };
        tried += 1;
        // The first is finished at its third step; the second is unaffected.
        let mut finished = Vec::new();
        engine
            .branch(&UNLIMITED_BRANCHING, &mut |branch| {
                if branch.finished {
                    finished.push((branch.number, branch.generation.text.clone()));
                }
                let enough = branch.number == 0 && branch.generation.tokens.len() > 2;
                if enough { BranchControl::Finish } else { BranchControl::Continue }
            })
            .unwrap();
        assert!(finished.contains(&(1, two.text.clone())), "{finished:?}");
        assert!(finished.iter().all(|it| it.0 == 1) || one.tokens.len() <= 2, "{finished:?}");
        // Aborting at any moment leaves nothing in the cache.
        for at in 1.. {
            let mut calls = 0;
            engine
                .branch(&UNLIMITED_BRANCHING, &mut |_| {
                    calls += 1;
                    if calls == at { BranchControl::Abort } else { BranchControl::Continue }
                })
                .unwrap();
            if calls < at {
                break;
            }
        }
        assert_eq!(finished_branches(&mut engine, &UNLIMITED_BRANCHING), whole);
        assert_eq!(generate_text(&mut engine, &tokens, b"", 12).text, first.text);
    }
}

#[test]
fn no_branches_without_a_cached_generation() {
    let mut random = fastrand::Rng::with_seed(23);
    let mut engine = plain_and_speculating(&random_qwen2(31, &ModelDims::default()).unwrap(), 512).0;
    assert_eq!(finished_branches(&mut engine, &UNLIMITED_BRANCHING), []);
    let tokens = ordinary_tokens(&engine, &mut random, 50);
    generate_text(&mut engine, &tokens, b"", 12);
    assert_eq!(finished_branches(&mut engine, &BranchLimits { max_branches: 0, ..UNLIMITED_BRANCHING }), []);
    engine.clear();
    assert_eq!(finished_branches(&mut engine, &UNLIMITED_BRANCHING), []);
}

#[test]
fn real_model_branches_differ_from_first_text() {
    let Some(path) = real_model::path() else { return };
    let options = crate::local::Options { device: crate::local::DeviceChoice::Cpu, ..Default::default() };
    let mut engine = Local::open(&path, &options).unwrap();
    let tokens = engine.tokens.encode(&format!("{}\n    ledger.", real_model::SAMPLE_CODE.trim_end()));
    let first = generate_text(&mut engine, &tokens, b"", 24);
    let limits = BranchLimits { max_branches: 2, within_bytes: first.text.len(), max_tokens: 24 };
    let grown = finished_branches(&mut engine, &limits);
    assert!(!grown.is_empty(), "sure of {:?}", first.text);
    for branch in &grown {
        assert!(!first.text.starts_with(&branch.text), "{:?} {:?}", first.text, branch.text);
        assert!(branch.tokens.len() <= 24);
    }
}
