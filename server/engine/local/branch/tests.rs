//! Branches beside what a fresh engine says behind the same beginning, with random models and a real one.
//! It knows nothing of prompts that mean something.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use super::*;
use crate::gguf::testing::{Dims, random_llama, random_qwen2};
use crate::local::real_model;
use crate::local::tests::{ordinary, pair};
use crate::{Engine, Limits};

const FREE: Branching = Branching { most: 2, within: usize::MAX, max_tokens: 12 };

fn generate(engine: &mut Local, tokens: &[TokenId], forced: &[u8], max_tokens: usize) -> Generation {
    let prompt = Prompt { tokens: tokens.to_vec(), forced: forced.to_vec(), ..Prompt::default() };
    let limits = Limits { max_tokens, ..Limits::default() };
    engine.generate(&prompt, &limits, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// All branches at their ends, in the order of their numbers.
fn branches(engine: &mut Local, limits: &Branching) -> Vec<Generation> {
    let mut ended = Vec::new();
    engine
        .branch(limits, &mut |branch| {
            if branch.ended {
                // Times are nobody's business.
                let generation = Generation { decode: Duration::ZERO, ..branch.generation.clone() };
                ended.push((branch.number, generation));
            }
            Growth::On
        })
        .unwrap();
    ended.sort_by_key(|it| it.0);
    ended.into_iter().map(|it| it.1).collect()
}

/// What must be the same bits: probabilities of the tokens behind the fork.
fn probabilities(pieces: &[Piece]) -> Vec<f32> {
    pieces.iter().map(|piece| piece.probability).collect()
}

#[test]
fn a_branch_goes_on_as_a_fresh_engine_does_behind_its_beginning() {
    let mut random = fastrand::Rng::with_seed(21);
    let (mut seen, mut two, mut healed) = (0, 0, 0);
    for writer in [random_qwen2(31, &Dims::default()), random_llama(32, &Dims::default())] {
        let writer = writer.unwrap();
        let (mut fresh, others) = pair(&writer, 512);
        for mut engine in [pair(&writer, 512).0].into_iter().chain(others) {
            let exact = engine.sequences.forks() && fresh.sequences.forks();
            for _ in 0..40 {
                let len = random.usize(1..120);
                let tokens = ordinary(&engine, &mut random, len);
                let forced = ["", "re", "    se"][random.usize(..3)].as_bytes();
                let first = generate(&mut engine, &tokens, forced, 12);
                let (held, bytes) = (engine.sequences.tokens().to_vec(), engine.decoder.held_bytes());
                let forks = engine.last.as_ref().unwrap().forks(&engine.tokens, &FREE);
                let said: Vec<TokenId> =
                    engine.last.as_ref().unwrap().choices.iter().map(|it| it.token).collect();
                let grown = branches(&mut engine, &FREE);
                assert_eq!(engine.decoder.len(), engine.sequences.tokens().len());
                if engine.sequences.forks() {
                    assert_eq!(grown.len(), forks.len());
                    // Nothing of the branches is left, and nothing of the rest is gone.
                    assert_eq!((engine.sequences.tokens(), engine.decoder.held_bytes()), (&held[..], bytes));
                } else {
                    assert!(held.starts_with(engine.sequences.tokens()));
                    assert!(engine.sequences.tokens().len() >= tokens.len());
                }
                seen += grown.len();
                two += usize::from(grown.len() == 2);
                for (fork, branch) in forks.iter().zip(&grown) {
                    if !exact {
                        continue;
                    }
                    let mut heal = Heal::new(forced);
                    let mut beginning = tokens.clone();
                    for &token in said[..fork.at].iter().chain([&fork.token]) {
                        assert!(heal.allows(&engine.tokens, token));
                        heal.advance(engine.tokens.bytes(token));
                        beginning.push(token);
                    }
                    healed += usize::from(!heal.is_done() || fork.at == 0 && !forced.is_empty());
                    fresh.clear();
                    let left = 12 - fork.at - 1;
                    let expected = generate(&mut fresh, &beginning, heal.rest(), left);
                    let own = &branch.pieces[fork.at + 1..];
                    // Without a token to choose the fresh one only reads.
                    if left > 0 {
                        assert_eq!(probabilities(own), probabilities(&expected.pieces));
                        assert_eq!(branch.stop, expected.stop);
                    }
                    assert_eq!(
                        probabilities(&branch.pieces[..fork.at]),
                        probabilities(&first.pieces[..fork.at])
                    );
                    assert_eq!(branch.pieces[fork.at].probability, fork.probability);
                }
                // As if nothing had been.
                assert_eq!(generate(&mut engine, &tokens, forced, 12).text, first.text);
            }
        }
    }
    assert!(seen > 40 && two > 10 && healed > 5, "{seen} {two} {healed}");
}

#[test]
fn whoever_watches_ends_one_or_all() {
    let mut random = fastrand::Rng::with_seed(22);
    let mut engine = pair(&random_qwen2(31, &Dims::default()).unwrap(), 512).0;
    let mut tried = 0;
    while tried < 5 {
        let tokens = ordinary(&engine, &mut random, 50);
        let first = generate(&mut engine, &tokens, b"", 12);
        let whole = branches(&mut engine, &FREE);
        let [one, two] = &whole[..] else { continue };
        tried += 1;
        // The first is enough at its third step; the second is as it would be anyway.
        let mut told = Vec::new();
        engine
            .branch(&FREE, &mut |branch| {
                if branch.ended {
                    told.push((branch.number, branch.generation.text.clone()));
                }
                let enough = branch.number == 0 && branch.generation.pieces.len() > 2;
                if enough { Growth::Enough } else { Growth::On }
            })
            .unwrap();
        assert!(told.contains(&(1, two.text.clone())), "{told:?}");
        assert!(told.iter().all(|it| it.0 == 1) || one.pieces.len() <= 2, "{told:?}");
        // Stopped at any moment, nothing is left behind.
        for at in 1.. {
            let mut calls = 0;
            engine
                .branch(&FREE, &mut |_| {
                    calls += 1;
                    if calls == at { Growth::Stop } else { Growth::On }
                })
                .unwrap();
            assert_eq!(engine.decoder.len(), engine.sequences.tokens().len());
            if calls < at {
                break;
            }
        }
        assert_eq!(branches(&mut engine, &FREE), whole);
        assert_eq!(generate(&mut engine, &tokens, b"", 12).text, first.text);
    }
}

#[test]
fn without_a_generation_in_the_cache_there_are_no_branches() {
    let mut random = fastrand::Rng::with_seed(23);
    let mut engine = pair(&random_qwen2(31, &Dims::default()).unwrap(), 512).0;
    assert_eq!(branches(&mut engine, &FREE), []);
    let tokens = ordinary(&engine, &mut random, 50);
    generate(&mut engine, &tokens, b"", 12);
    assert_eq!(branches(&mut engine, &Branching { most: 0, ..FREE }), []);
    engine.clear();
    assert_eq!(branches(&mut engine, &FREE), []);
}

#[test]
fn the_real_models_branches_say_something_else() {
    let Some(path) = real_model::path() else { return };
    let options = crate::local::Options { device: crate::local::DeviceChoice::Cpu, ..Default::default() };
    let mut engine = Local::open(&path, &options).unwrap();
    let tokens = engine.tokens.encode(&format!("{}\n    ledger.", real_model::CODE.trim_end()));
    let first = generate(&mut engine, &tokens, b"", 24);
    let limits = Branching { most: 2, within: first.text.len(), max_tokens: 24 };
    let grown = branches(&mut engine, &limits);
    assert!(!grown.is_empty(), "sure of {:?}", first.text);
    for branch in &grown {
        assert!(!first.text.starts_with(&branch.text), "{:?} {:?}", first.text, branch.text);
        assert!(branch.pieces.len() <= 24);
    }
}
