//! Every family against the logits that `transformers` computes: see `fixtures/families/make.py`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::*;
use crate::gguf::testing::GgufWriter;
use crate::gguf::{Gguf, MetadataValue};
use crate::local::candle_decoder::CandleDecoder;
use crate::local::config::ModelConfig;
use crate::local::cpu::CpuDecoder;
use crate::local::kernels::Kernel;
use crate::local::{Batch, Decoder, LogitsRequest, SuffixShift};
use crate::{EngineError, TokenId};

/// A model with random weights, and what it computes.
struct Fixture {
    name: String,
    gguf: Gguf,
    prompts: Vec<ExpectedLogits>,
}

struct ExpectedLogits {
    tokens: Vec<TokenId>,
    /// `[tokens, vocabulary]`
    logits: Vec<f32>,
}

fn fixture_paths() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/families");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "gguf")).collect();
    paths.sort();
    paths
}

fn fixtures() -> Vec<Fixture> {
    let fixtures = fixture_paths().into_iter().map(|path| {
        let gguf = Gguf::open(&path).unwrap();
        let numbers = |kind: &str, index: usize| gguf.get_numbers(&format!("test.{kind}.{index}")).unwrap();
        let prompts = (0..).map_while(|index| {
            let tokens = numbers("tokens", index)?.into_iter().map(|token| token as TokenId).collect();
            let logits = numbers("logits", index)?.into_iter().map(|logit| logit as f32).collect();
            Some(ExpectedLogits { tokens, logits })
        });
        let prompts = prompts.collect();
        Fixture { name: path.file_stem().unwrap().to_string_lossy().into_owned(), gguf, prompts }
    });
    fixtures.collect()
}

/// Each decoder that can run here, with its name.
fn decoders(gguf: &Gguf, config: &ModelConfig) -> Vec<(String, Box<dyn Decoder>)> {
    let device = candle_core::Device::Cpu;
    let candle = CandleDecoder::load(gguf, config, config.context_capacity(256), &device).unwrap();
    let mut all: Vec<(String, Box<dyn Decoder>)> = vec![("candle".to_owned(), Box::new(candle))];
    for kernel in Kernel::available_kernels() {
        let decoder = CpuDecoder::new(gguf, config, 256, kernel, 2).unwrap();
        all.push((kernel.name().to_owned(), Box::new(decoder)));
    }
    all
}

/// The logits of all tokens, appended to sequence 0.
fn all_logits(decoder: &mut dyn Decoder, tokens: &[TokenId]) -> Vec<f32> {
    let logits = vec![LogitsRequest::All; tokens.len()];
    run_batch(decoder, &Batch { tokens, logits: &logits, exact: true, ..Batch::default() })
}

fn run_batch(decoder: &mut dyn Decoder, batch: &Batch<'_>) -> Vec<f32> {
    match decoder.forward_batch(batch, &mut || ControlFlow::Continue(())).unwrap() {
        ControlFlow::Continue(logits) => logits.to_vec(),
        ControlFlow::Break(()) => unreachable!("nothing interrupts it"),
    }
}

fn greatest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, it| if it > most || it.is_nan() { it } else { most })
}

/// The difference from exact logits that a decoder may have: our kernels keep keys and values in half precision.
fn tolerance(decoder: &str, logits: &[f32]) -> f32 {
    if decoder == "candle" { 1e-4 } else { 2e-3 * logits.iter().fold(0.0_f32, |most, it| most.max(it.abs())) }
}

fn random_tokens(count: usize, vocabulary: usize) -> Vec<TokenId> {
    let mut random = fastrand::Rng::with_seed(count as u64);
    (0..count).map(|_| random.u32(..vocabulary as u32)).collect()
}

#[test]
fn every_family_has_a_fixture() {
    let fixtures = fixtures();
    for family in FAMILIES {
        assert!(
            fixtures.iter().any(|fixture| fixture.gguf.get_str("general.architecture") == Some(family.name)),
            "no fixture of {}: add one to make.py",
            family.name
        );
    }
}

#[test]
fn logits_equal_those_of_transformers_on_every_decoder() {
    let mut faults = Vec::new();
    for fixture in fixtures() {
        let config = ModelConfig::from_gguf(&fixture.gguf).unwrap();
        assert!(fixture.prompts.len() > 2, "{}: too few prompts", fixture.name);
        for (decoder_name, mut decoder) in decoders(&fixture.gguf, &config) {
            for ExpectedLogits { tokens, logits } in &fixture.prompts {
                decoder.truncate_sequence(0, 0);
                let difference = greatest_difference(&all_logits(&mut *decoder, tokens), logits);
                if difference.is_nan() || difference > tolerance(&decoder_name, logits) {
                    let (name, count) = (&fixture.name, tokens.len());
                    faults.push(format!("{name} on {decoder_name}, {count} tokens: {difference}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn long_texts_agree_between_decoders_and_however_they_are_split() {
    for fixture in fixtures() {
        let config = ModelConfig::from_gguf(&fixture.gguf).unwrap();
        let tokens = random_tokens(config.context_capacity(200), config.vocabulary);
        let mut decoders = decoders(&fixture.gguf, &config).into_iter();
        let (_, mut reference) = decoders.next().unwrap();
        let expected = all_logits(&mut *reference, &tokens);
        let mut exact: Option<Vec<f32>> = None;
        for (name, mut decoder) in decoders {
            let whole = all_logits(&mut *decoder, &tokens);
            let difference = greatest_difference(&whole, &expected);
            let allowed = 2.0 * tolerance(&name, &expected);
            assert!(
                difference < allowed,
                "{} on {name} and candle: {difference}, not {allowed}",
                fixture.name
            );
            let exact = exact.get_or_insert_with(|| whole.clone());
            assert!(whole == *exact, "{}: {name} differs in bits from the portable kernel", fixture.name);
            decoder.truncate_sequence(0, 0);
            let mut random = fastrand::Rng::with_seed(5);
            let (mut parts, mut rest) = (Vec::new(), &tokens[..]);
            while !rest.is_empty() {
                let (part, later) = rest.split_at(random.usize(1..=rest.len().min(70)));
                parts.extend(all_logits(&mut *decoder, part));
                rest = later;
            }
            assert!(parts == whole, "{} on {name}: split into parts it differs", fixture.name);
        }
    }
}

#[test]
fn interrupted_and_forked_work_ends_with_the_same_bits() {
    for fixture in fixtures() {
        let config = ModelConfig::from_gguf(&fixture.gguf).unwrap();
        let tokens = random_tokens(config.context_capacity(120), config.vocabulary);
        let mut decoder = CpuDecoder::new(&fixture.gguf, &config, 256, Kernel::best_exact(), 2).unwrap();
        assert_eq!(decoder.resize_sequences(2), 2);
        let whole = all_logits(&mut decoder, &tokens);
        let logits = vec![LogitsRequest::All; tokens.len()];
        let batch = Batch { tokens: &tokens, logits: &logits, exact: true, ..Batch::default() };
        let mut random = fastrand::Rng::with_seed(9);
        decoder.truncate_sequence(0, 0);
        let resumed = loop {
            let mut looks = random.usize(0..6);
            let mut look = || match looks.checked_sub(1) {
                Some(fewer) => {
                    looks = fewer;
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Break(()),
            };
            if let ControlFlow::Continue(logits) = decoder.forward_batch(&batch, &mut look).unwrap() {
                break logits.to_vec();
            }
        };
        assert!(resumed == whole, "{}: interrupted, it differs", fixture.name);
        let shared = tokens.len() / 2;
        decoder.fork_sequence(0, 1, 0..shared);
        let rest = Batch {
            sequence: 1,
            tokens: &tokens[shared..],
            logits: &logits[shared..],
            exact: true,
            ..Batch::default()
        };
        let forked = run_batch(&mut decoder, &rest);
        assert!(forked == whole[shared * config.vocabulary..], "{}: forked, it differs", fixture.name);
    }
}

#[test]
fn suffix_is_moved_as_if_it_was_read_where_it_belongs() {
    for fixture in fixtures() {
        let config = ModelConfig::from_gguf(&fixture.gguf).unwrap();
        let tokens = random_tokens(60, config.vocabulary);
        let mut decoder = CpuDecoder::new(&fixture.gguf, &config, 256, Kernel::best_exact(), 2).unwrap();
        assert_eq!(decoder.resize_sequences(2), 2);
        let whole = all_logits(&mut decoder, &tokens);
        // The same text, of which the last part but one token is taken from the first sequence without being moved.
        let logits = [LogitsRequest::All];
        let inserted = SuffixShift { insert_after: 20, source: 0, rows: 20..59, changed: 0 };
        let kept: Vec<TokenId> = tokens[..20].iter().chain(&tokens[59..]).copied().collect();
        let batch = Batch {
            sequence: 1,
            tokens: &kept,
            logits: &logits,
            suffix_shift: Some(inserted),
            exact: true,
            ..Batch::default()
        };
        let last = run_batch(&mut decoder, &batch);
        assert!(last == whole[59 * config.vocabulary..], "{}: a suffix that stays in place", fixture.name);
        // Moved by two positions and back, its keys are rounded twice.
        decoder.truncate_sequence(1, 0);
        let shift = |insert_after, source, rows| Some(SuffixShift { insert_after, source, rows, changed: 0 });
        let moved = Batch {
            sequence: 1,
            tokens: &tokens[..22],
            suffix_shift: shift(22, 0, 20..59),
            ..Batch::default()
        };
        run_batch(&mut decoder, &moved);
        decoder.truncate_sequence(0, 20);
        let back = Batch {
            sequence: 0,
            tokens: &tokens[59..],
            logits: &logits,
            suffix_shift: shift(0, 1, 22..61),
            exact: true,
            ..Batch::default()
        };
        let last = run_batch(&mut decoder, &back);
        let difference = greatest_difference(&last, &whole[59 * config.vocabulary..]);
        assert!(difference < 0.05, "{}: moved there and back, it differs by {difference}", fixture.name);
    }
}

/// A change of one rule.
type Mutation = (&'static str, fn(&mut FamilyRules));

const MUTATIONS: [Mutation; 11] = [
    ("norm", |rules| rules.norm = if rules.norm == NormKind::Rms { NormKind::Layer } else { NormKind::Rms }),
    ("post_norms", |rules| rules.post_norms ^= true),
    ("parallel_residual", |rules| rules.parallel_residual ^= true),
    ("activation", |rules| {
        rules.activation = match rules.activation {
            Activation::SwiGlu => Activation::GeGlu,
            _ => Activation::SwiGlu,
        }
    }),
    ("rope_style", |rules| {
        rules.rope_style = match rules.rope_style {
            RopeStyle::Halves => RopeStyle::Interleaved,
            RopeStyle::Interleaved => RopeStyle::Halves,
        }
    }),
    ("unrotated_every", |rules| rules.unrotated_every = if rules.unrotated_every == 0 { 2 } else { 0 }),
    ("qk_norm", |rules| rules.qk_norm ^= true),
    ("windows", |rules| {
        rules.windows = match rules.windows {
            WindowRule::LimitsContext => {
                WindowRule::Layers { period: 2, rope_base: Some(50.0), scales_full_layers_only: false }
            }
            WindowRule::Layers { .. } => WindowRule::LimitsContext,
        }
    }),
    ("scaled_embedding", |rules| rules.scaled_embedding ^= true),
    ("has_scale_keys", |rules| rules.has_scale_keys ^= true),
    ("has_experts", |rules| rules.has_experts ^= true),
];

/// Rules that a family's fixture cannot show to be read, and why.
fn is_exempt(fixture: &Fixture, rule: &str) -> bool {
    let family = fixture.gguf.get_str("general.architecture").unwrap();
    match rule {
        // Without a key in the file, the rule has no effect.
        "windows" => !fixture.gguf.has_key(&format!("{family}.attention.sliding_window")),
        "has_scale_keys" => family != "granite",
        // It has a key of its own.
        "scaled_embedding" => family == "granite",
        _ => false,
    }
}

/// The logits by other rules than the family's own, of both decoders.
fn run_with_rules(
    gguf: &Gguf,
    rules: &'static FamilyRules,
    tokens: &[TokenId],
) -> Result<[Vec<f32>; 2], EngineError> {
    let config = ModelConfig::with_family(gguf, rules)?;
    if config.context < tokens.len() {
        return Err(EngineError::PromptTooLong { tokens: tokens.len(), context: config.context });
    }
    let mut candle = CandleDecoder::load(gguf, &config, tokens.len(), &candle_core::Device::Cpu)?;
    let mut cpu = CpuDecoder::new(gguf, &config, tokens.len(), Kernel::best_exact(), 1)?;
    Ok([all_logits(&mut candle, tokens), all_logits(&mut cpu, tokens)])
}

#[test]
fn every_rule_of_a_family_changes_what_is_computed() {
    let mut unread = Vec::new();
    for fixture in fixtures() {
        let family = FamilyRules::by_name(fixture.gguf.get_str("general.architecture").unwrap()).unwrap();
        for (rule, mutate) in MUTATIONS {
            let mut rules = *family;
            mutate(&mut rules);
            assert_ne!(rules, *family);
            let rules: &'static FamilyRules = Box::leak(Box::new(rules));
            let ExpectedLogits { tokens, logits } = fixture.prompts.last().unwrap();
            // A file that lacks what the changed rules need is refused.
            let differs = match run_with_rules(&fixture.gguf, rules, tokens) {
                Err(_) => true,
                Ok([candle, cpu]) => {
                    let difference = greatest_difference(&cpu, &candle);
                    let allowed = 2.0 * tolerance("cpu", &candle);
                    let name = &fixture.name;
                    assert!(difference < allowed, "{name}: the decoders differ by {difference} about {rule}");
                    greatest_difference(&candle, logits) > 1e-3
                }
            };
            if !differs && !is_exempt(&fixture, rule) {
                unread.push(format!("{}: {rule}", fixture.name));
            }
        }
    }
    assert!(unread.is_empty(), "rules that nothing reads:\n{}", unread.join("\n"));
}

/// The fixture of a family, changed.
fn changed_config(fixture: &str, key: &str, value: MetadataValue) -> Result<ModelConfig, EngineError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/families/{fixture}.gguf"));
    let writer = GgufWriter::from_gguf(&Gguf::open(&path).unwrap()).unwrap().with_metadata(key, value);
    ModelConfig::from_gguf(&Gguf::from_bytes(Path::new("model.gguf"), writer.to_bytes()).unwrap())
}

#[test]
fn impossible_numbers_of_a_family_are_refused_by_name() {
    use MetadataValue::{Array, Bool, Float, Unsigned};
    let text = |text: &str| MetadataValue::String(text.to_owned());
    for (fixture, key, value, problem) in [
        ("qwen3moe", "qwen3moe.expert_count", Unsigned(1 << 20), "not between 1 and 1024"),
        ("qwen3moe", "qwen3moe.expert_count", Unsigned(0), "not between"),
        ("qwen3moe", "qwen3moe.expert_used_count", Unsigned(7), "not between 1 and 6"),
        ("qwen3moe", "qwen3moe.expert_feed_forward_length", Unsigned(0), "not between"),
        (
            "qwen3moe",
            "qwen3moe.expert_feed_forward_length",
            Array(vec![Unsigned(16), Unsigned(32), Unsigned(16)]),
            "differs between layers",
        ),
        (
            "llama",
            "llama.expert_count",
            Unsigned(8),
            "experts are not supported in models of the family llama",
        ),
        ("gemma3", "gemma3.attention.sliding_window_pattern", Unsigned(0), "not between"),
        (
            "gemma3",
            "gemma3.attention.sliding_window_pattern",
            Array(vec![Bool(true); 3]),
            "3 entries for 7 layers",
        ),
        ("gemma2", "gemma2.attn_logit_softcapping", Float(-1.0), "not between"),
        ("gemma2", "gemma2.final_logit_softcapping", Float(f64::INFINITY), "finite"),
        ("granite", "granite.logit_scale", Float(1e9), "not between"),
        ("granite", "granite.residual_scale", text("much"), "finite"),
        ("qwen2-yarn", "qwen2.rope.scaling.factor", Float(-4.0), "not between"),
        ("qwen2-yarn", "qwen2.rope.scaling.type", text("su"), "unsupported position scaling \"su\""),
        ("qwen2-yarn", "qwen2.rope.scaling.original_context_length", Unsigned(0), "not between"),
        ("phi2", "phi2.attention.layer_norm_epsilon", Float(2.0), "between 0 and 1"),
        ("gemma3", "gemma3.rope.freq_base_swa", Float(0.5), "between 1 and 10^15"),
    ] {
        let error = changed_config(fixture, key, value).unwrap_err().to_string();
        let has_remedy = error.contains("taper ") || error.contains("get it again");
        assert!(error.contains(key) && error.contains(problem) && has_remedy, "{error}");
    }
    // A window of any size is one: the model sees what there is.
    let wide = changed_config("gemma3", "gemma3.attention.sliding_window", Unsigned(u64::MAX / 2)).unwrap();
    assert_eq!(wide.layers[0].window, Some(usize::MAX / 2));
    let none = changed_config("gemma3", "gemma3.attention.sliding_window", Unsigned(0)).unwrap();
    assert!(none.layers.iter().all(|layer| layer.window.is_none()));
}
