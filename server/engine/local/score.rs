//! Reads a text along behind a prompt, and tells how likely each of its tokens was.
//! It knows nothing of how a token is chosen, or of what was forced.

use std::ops::ControlFlow;

use super::Local;
use super::sample::Distribution;
use crate::{EngineError, Limits, Prompt, TokenId};

impl Local {
    /// See [`crate::Engine::score`].
    pub(super) fn read_along(
        &mut self,
        prompt: &Prompt,
        answer: &[TokenId],
        told: &mut dyn FnMut(&Distribution<'_>),
    ) -> Result<(), EngineError> {
        let Some(held) = prompt.tokens.len().checked_sub(1) else { return Ok(()) };
        let (tokens, context) = (prompt.tokens.len() + answer.len(), self.decoder.capacity());
        if tokens > context {
            return Err(EngineError::PromptTooLong { tokens, context });
        }
        self.run(prompt, &Limits::default(), &mut |_| ControlFlow::Continue(()))?;
        // The token behind which the answer's first one stands is asked for logits only together with these.
        self.cut(held);
        let batch = [&prompt.tokens[held..], answer].concat();
        let logits = self.decoder.forward(&batch, batch.len())?;
        let mut whole = true;
        for row in logits.chunks_exact((logits.len() / batch.len()).max(1)) {
            match Distribution::of(row) {
                Some(row) => told(&row),
                None => whole = false,
            }
        }
        self.decoder.truncate(held);
        if whole { Ok(()) } else { Err(self.broken()) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use crate::gguf::testing::{Dims, random_llama};
    use crate::local::tests::{go, local, open, ordinary, tiny};
    use crate::local::{Local, real_model};
    use crate::{Distribution, Engine, EngineError, Generation, Prompt, TokenId};

    /// What comes out for each position: the likeliest token and its probability.
    fn along(engine: &mut Local, prompt: &[TokenId], answer: &[TokenId]) -> Vec<(TokenId, f32)> {
        let prompt = Prompt { tokens: prompt.to_vec(), ..Prompt::default() };
        let mut rows = Vec::new();
        engine.score(&prompt, answer, &mut |row| rows.push(likeliest(row))).unwrap();
        rows
    }

    fn likeliest(row: &Distribution<'_>) -> (TokenId, f32) {
        (row.greatest(), row.probability(row.greatest()))
    }

    /// What was said was chosen by estimates of all that is far below the greatest logit.
    fn agree(said: &Generation, answer: &[TokenId], rows: &[(TokenId, f32)]) {
        assert_eq!(rows.len(), answer.len() + 1);
        assert!(answer.iter().zip(rows).all(|(&said, row)| said == row.0));
        for (piece, &(_, probability)) in said.pieces.iter().zip(rows) {
            assert!((piece.probability - probability).abs() < 0.02, "{piece:?} {probability}");
        }
    }

    #[test]
    fn read_along_what_was_said_is_as_likely_as_when_it_was_said() {
        let mut random = fastrand::Rng::with_seed(11);
        let llama = random_llama(4, &Dims::default()).unwrap();
        for mut engine in [tiny(7), local(&llama, 512)] {
            for len in [1, 2, 33, 90] {
                let tokens = ordinary(&engine, &mut random, len);
                let said = go(&mut engine, &tokens, b"", 9);
                let answer = engine.sequences.tokens()[len..].to_vec();
                for cached in [true, false] {
                    if !cached {
                        engine.clear();
                    }
                    let rows = along(&mut engine, &tokens, &answer);
                    agree(&said, &answer, &rows);
                    assert_eq!(
                        (engine.sequences.tokens(), engine.decoder.len()),
                        (&tokens[..len - 1], len - 1)
                    );
                }
                // What it left is a cache like any other.
                assert_eq!(go(&mut engine, &tokens, b"", 9).text, said.text);
            }
            engine.score(&Prompt::default(), &[1], &mut |_| panic!("there is nothing to read")).unwrap();
            let long = Prompt { tokens: ordinary(&engine, &mut random, 510), ..Prompt::default() };
            let problem = engine.score(&long, &long.tokens[..3], &mut |_| {}).unwrap_err();
            assert!(
                matches!(problem, EngineError::PromptTooLong { tokens: 513, context: 512 }),
                "{problem:?}"
            );
        }
    }

    #[test]
    fn the_real_model_finds_likely_what_it_says_and_unlikely_what_it_would_not() {
        let Some(model) = real_model::path() else { return };
        let mut engine = open(&model, 512).unwrap();
        let begin = real_model::CODE.find("return sum").unwrap() + "return sum".len();
        let prompt = engine.tokens.encode(&real_model::CODE[..begin]);
        let said = go(&mut engine, &prompt, b"", 12);
        let answer = engine.sequences.tokens()[prompt.len()..].to_vec();
        let rows = along(&mut engine, &prompt, &answer);
        agree(&said, &answer, &rows);
        assert!(rows.iter().any(|row| row.1 > 0.5), "{rows:?}");
        let other = engine.tokens.encode("#!/usr/bin/env");
        let prompt = Prompt { tokens: prompt, ..Prompt::default() };
        let mut probabilities = Vec::new();
        let mut told = |row: &Distribution<'_>| {
            probabilities.extend(other.get(probabilities.len()).map(|&token| row.probability(token)));
        };
        engine.score(&prompt, &other, &mut told).unwrap();
        assert!(probabilities[0] < 0.01, "{probabilities:?}");
        assert!(
            probabilities[probabilities.len() - 1] > 0.5,
            "`env` is what follows `#!/usr/bin/`: {probabilities:?}"
        );
    }
}
