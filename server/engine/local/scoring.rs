//! Computes the probability of each token of a text after a prompt.

use std::ops::ControlFlow;

use super::sampling::TokenDistribution;
use super::{Batch, Local, LogitsRequest};
use crate::{EngineError, GenerationLimits, Prompt, TokenId};

impl Local {
    /// See [`crate::Engine::score`].
    pub(super) fn score_tokens(
        &mut self,
        prompt: &Prompt,
        answer: &[TokenId],
        on_row: &mut dyn FnMut(&TokenDistribution<'_>),
    ) -> Result<(), EngineError> {
        let Some(held) = prompt.tokens.len().checked_sub(1) else { return Ok(()) };
        let (needed, context) = (prompt.tokens.len() + answer.len(), self.decoder.capacity());
        if needed > context {
            return Err(EngineError::PromptTooLong { tokens: needed, context });
        }
        self.run_prompt(prompt, &GenerationLimits::default(), &mut |_| ControlFlow::Continue(()))?;
        // Requires the logits after the prompt's last token, so that one is evaluated together with these.
        self.truncate_sequence(held);
        let tokens = [&prompt.tokens[held..], answer].concat();
        let sequence = self.sequences.current_index();
        let requests = vec![LogitsRequest::All; tokens.len()];
        let batch = Batch { sequence, tokens: &tokens, logits: &requests, exact: true, ..Batch::default() };
        let ControlFlow::Continue(logits) =
            self.decoder.forward_batch(&batch, &mut || ControlFlow::Continue(()))?
        else {
            return Ok(());
        };
        let mut whole = true;
        for row in logits.chunks_exact((logits.len() / tokens.len()).max(1)) {
            match TokenDistribution::from_logits(row) {
                Some(row) => on_row(&row),
                None => whole = false,
            }
        }
        self.decoder.truncate_sequence(sequence, held);
        if whole { Ok(()) } else { Err(self.invalid_logits_error()) }
    }
}

#[cfg(test)]
mod tests {
    use crate::gguf::testing::{ModelDims, random_llama};
    use crate::local::tests::{generate_text, open_engine, ordinary_tokens, tiny_engine, write_and_open};
    use crate::local::{Local, real_model};
    use crate::{Engine, EngineError, Generation, Prompt, TokenDistribution, TokenId};

    /// For each position, the most probable token and its probability.
    fn score_positions(engine: &mut Local, prompt: &[TokenId], answer: &[TokenId]) -> Vec<(TokenId, f32)> {
        let prompt = Prompt { tokens: prompt.to_vec(), ..Prompt::default() };
        let mut rows = Vec::new();
        engine.score(&prompt, answer, &mut |row| rows.push(most_likely(row))).unwrap();
        rows
    }

    fn most_likely(row: &TokenDistribution<'_>) -> (TokenId, f32) {
        (row.most_likely(), row.probability(row.most_likely()))
    }

    /// Generation estimated all logits far below the greatest.
    fn assert_agrees(generation: &Generation, answer: &[TokenId], rows: &[(TokenId, f32)]) {
        assert_eq!(rows.len(), answer.len() + 1);
        assert!(answer.iter().zip(rows).all(|(&token, row)| token == row.0));
        for (piece, &(_, probability)) in generation.tokens.iter().zip(rows) {
            assert!((piece.probability - probability).abs() < 0.02, "{piece:?} {probability}");
        }
    }

    #[test]
    fn scores_match_probabilities_of_the_generation() {
        let mut random = fastrand::Rng::with_seed(11);
        let llama = random_llama(4, &ModelDims::default()).unwrap();
        for mut engine in [tiny_engine(7), write_and_open(&llama, 512)] {
            for len in [1, 2, 33, 90] {
                let tokens = ordinary_tokens(&engine, &mut random, len);
                let generation = generate_text(&mut engine, &tokens, b"", 9);
                let answer = engine.cached_tokens()[len..].to_vec();
                for cached in [true, false] {
                    if !cached {
                        engine.clear();
                    }
                    let rows = score_positions(&mut engine, &tokens, &answer);
                    assert_agrees(&generation, &answer, &rows);
                    assert_eq!(engine.cached_tokens(), &tokens[..len - 1]);
                }
                // The cache it leaves is an ordinary one.
                assert_eq!(generate_text(&mut engine, &tokens, b"", 9).text, generation.text);
            }
            engine.score(&Prompt::default(), &[1], &mut |_| panic!("there is nothing to read")).unwrap();
            let long = Prompt { tokens: ordinary_tokens(&engine, &mut random, 510), ..Prompt::default() };
            let problem = engine.score(&long, &long.tokens[..3], &mut |_| {}).unwrap_err();
            assert!(
                matches!(problem, EngineError::PromptTooLong { tokens: 513, context: 512 }),
                "{problem:?}"
            );
        }
    }

    #[test]
    fn real_model_scores_own_text_as_likely() {
        let Some(model) = real_model::path() else { return };
        let mut engine = open_engine(&model, 512).unwrap();
        let begin = real_model::SAMPLE_CODE.find("return sum").unwrap() + "return sum".len();
        let prompt = engine.tokens.encode(&real_model::SAMPLE_CODE[..begin]);
        let generation = generate_text(&mut engine, &prompt, b"", 12);
        let answer = engine.cached_tokens()[prompt.len()..].to_vec();
        let rows = score_positions(&mut engine, &prompt, &answer);
        assert_agrees(&generation, &answer, &rows);
        assert!(rows.iter().any(|row| row.1 > 0.5), "{rows:?}");
        let other = engine.tokens.encode("#!/usr/bin/env");
        let prompt = Prompt { tokens: prompt, ..Prompt::default() };
        let mut probabilities = Vec::new();
        let mut on_row = |row: &TokenDistribution<'_>| {
            probabilities.extend(other.get(probabilities.len()).map(|&token| row.probability(token)));
        };
        engine.score(&prompt, &other, &mut on_row).unwrap();
        assert!(probabilities[0] < 0.01, "{probabilities:?}");
        assert!(
            probabilities[probabilities.len() - 1] > 0.5,
            "`env` is what follows `#!/usr/bin/`: {probabilities:?}"
        );
    }
}
