//! The rotations of a model, from the keys `rope.*` and the tables in the file.

use candle_core::quantized::GgmlDType;

use super::{CHOOSE_ANOTHER_MODEL, ConfigReader, MAX_CONTEXT, RopeConfig};
use crate::EngineError;
use crate::gguf::PULL_AGAIN_REMEDY;
use crate::local::families::WindowRule;

/// How positions beyond those of the training are scaled (`rope.scaling.type`).
#[derive(Debug, Clone, Copy, PartialEq)]
enum PositionScaling {
    /// Positions are divided by the factor; 1: they are not scaled.
    Linear(f32),
    /// Slow rotations are scaled like this, fast ones are not (<https://arxiv.org/abs/2309.00071>).
    Yarn(YarnScaling),
    /// Each frequency is divided by its own factor (<https://arxiv.org/abs/2402.13753>).
    LongRope,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct YarnScaling {
    factor: f32,
    /// The share of the unscaled frequencies in fast rotations; usually 1.
    extrapolation: f32,
    /// Rotations within the original context above which a frequency is not scaled.
    beta_fast: f32,
    /// Rotations within the original context below which a frequency is scaled by the whole factor.
    beta_slow: f32,
    /// Positions of the original training.
    original_context: f32,
}

/// The rotation of the layers that see all positions, and that of the layers with a window if it is another one.
/// Empty: no layer has positions.
pub(super) fn read_ropes(
    reader: &ConfigReader<'_>,
    head_dim: usize,
    context: usize,
) -> Result<Vec<RopeConfig>, EngineError> {
    // This key marks Granite models without positions.
    if reader.family.has_scale_keys
        && reader.gguf.get_bool(&reader.key("rope.scaling.finetuned")) == Some(false)
    {
        return Ok(Vec::new());
    }
    let dim_name = "rope.dimension_count";
    let dim = reader.optional(dim_name, head_dim)?.unwrap_or(head_dim);
    if dim % 2 != 0 {
        let problem = format!("is {dim}, but an odd number has no pairs to rotate");
        return Err(reader.error(dim_name, problem, PULL_AGAIN_REMEDY));
    }
    // The specification's default.
    let base = read_base(reader, "rope.freq_base")?.unwrap_or(10_000.0);
    let scaling = read_scaling(reader, context)?;
    let factors = match scaling {
        PositionScaling::LongRope => {
            // Prompts are shorter than the original context, which is what these factors are for.
            read_factors(reader, "rope_factors_short.weight", dim / 2)?
        }
        _ => read_factors(reader, "rope_freqs.weight", dim / 2)?,
    };
    let style = reader.family.rope_style;
    let plain = |base: f32| -> Vec<f32> {
        (0..dim / 2).map(|i| 1.0 / base.powf((2 * i) as f32 / dim as f32)).collect()
    };
    let mut frequencies = plain(base);
    for (frequency, factor) in frequencies.iter_mut().zip(factors.iter().flatten()) {
        *frequency /= factor;
    }
    match scaling {
        PositionScaling::Linear(factor) => frequencies.iter_mut().for_each(|frequency| *frequency /= factor),
        PositionScaling::Yarn(yarn) => yarn.scale_frequencies(&mut frequencies, base),
        PositionScaling::LongRope => {}
    }
    let amplitude = read_amplitude(reader, scaling)?;
    let mut ropes = vec![RopeConfig { style, dim, frequencies, amplitude }];
    if let WindowRule::Layers { rope_base, scales_full_layers_only, .. } = reader.family.windows {
        let own_base = read_base(reader, "rope.freq_base_swa")?.or(rope_base);
        if own_base.is_some() || scales_full_layers_only {
            let frequencies = plain(own_base.unwrap_or(base));
            ropes.push(RopeConfig { style, dim, frequencies, amplitude: 1.0 });
        }
    }
    Ok(ropes)
}

/// The number of positions beyond which the model needs what no decoder does: other factors of the frequencies, or
/// queries that grow with their position.
pub(super) fn context_limit(reader: &ConfigReader<'_>) -> Result<Option<usize>, EngineError> {
    let is_long_rope = reader.gguf.get_str(&reader.key("rope.scaling.type")) == Some("longrope");
    let has_temperature = reader.positive_float("attention.temperature_scale")?.is_some();
    if is_long_rope || has_temperature {
        return reader.optional("rope.scaling.original_context_length", MAX_CONTEXT);
    }
    Ok(None)
}

fn read_base(reader: &ConfigReader<'_>, name: &str) -> Result<Option<f32>, EngineError> {
    match reader.gguf.get_float(&reader.key(name))? {
        Some(base) if !(1.0..1e15).contains(&base) => {
            Err(reader.error(name, format!("is {base}, not between 1 and 10^15"), PULL_AGAIN_REMEDY))
        }
        base => Ok(base.map(|base| base as f32)),
    }
}

fn read_scaling(reader: &ConfigReader<'_>, context: usize) -> Result<PositionScaling, EngineError> {
    let type_name = "rope.scaling.type";
    match reader.gguf.get_str(&reader.key(type_name)) {
        Some("none") => Ok(PositionScaling::Linear(1.0)),
        None | Some("linear") => Ok(PositionScaling::Linear(read_factor(reader)?)),
        Some("longrope") => Ok(PositionScaling::LongRope),
        Some("yarn") => {
            let read = |name: &str, default: f32| {
                Ok::<_, EngineError>(reader.positive_float(name)?.unwrap_or(default))
            };
            let original = reader.optional("rope.scaling.original_context_length", MAX_CONTEXT)?;
            Ok(PositionScaling::Yarn(YarnScaling {
                factor: read_factor(reader)?,
                extrapolation: read("rope.scaling.yarn_ext_factor", 1.0)?,
                beta_fast: read("rope.scaling.yarn_beta_fast", 32.0)?,
                beta_slow: read("rope.scaling.yarn_beta_slow", 1.0)?,
                original_context: original.unwrap_or(context) as f32,
            }))
        }
        Some(other) => {
            let problem =
                format!("unsupported position scaling {other:?} (supported: none, linear, yarn, longrope)");
            Err(reader.error(type_name, problem, CHOOSE_ANOTHER_MODEL))
        }
    }
}

/// The factor by which positions are scaled down (1: not at all).
fn read_factor(reader: &ConfigReader<'_>) -> Result<f32, EngineError> {
    // Converters wrote the second key before the specification had `rope.scaling.*`.
    for name in ["rope.scaling.factor", "rope.scale_linear"] {
        match reader.gguf.get_float(&reader.key(name))? {
            None => {}
            // Old converters write 0 for "none".
            Some(0.0) => return Ok(1.0),
            Some(factor) if (1e-3..1e6).contains(&factor) => return Ok(factor as f32),
            Some(factor) => {
                let problem = format!("is {factor}, not between 0.001 and 1000000");
                return Err(reader.error(name, problem, PULL_AGAIN_REMEDY));
            }
        }
    }
    Ok(1.0)
}

/// The factor of the rotated values, as in `llama-context.cpp` of llama.cpp.
fn read_amplitude(reader: &ConfigReader<'_>, scaling: PositionScaling) -> Result<f32, EngineError> {
    let own = reader.positive_float("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let PositionScaling::Yarn(yarn) = scaling else { return Ok(own) };
    let growth = |multiplier: f32| 1.0 + 0.1 * multiplier * yarn.factor.max(1.0).ln();
    let multiplier = reader.positive_float("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
    Ok(own * growth(1.0) / growth(multiplier))
}

/// A table of divisors, one of each frequency.
fn read_factors(
    reader: &ConfigReader<'_>,
    name: &str,
    pairs: usize,
) -> Result<Option<Vec<f32>>, EngineError> {
    let gguf = reader.gguf;
    if gguf.tensor(name).is_none() {
        return Ok(None);
    }
    let view = gguf.require_tensor(name, &[pairs])?;
    if view.dtype != GgmlDType::F32 {
        let problem = format!("is stored as {:?}, not as F32", view.dtype);
        return Err(gguf.field_error(name, problem, PULL_AGAIN_REMEDY));
    }
    let bytes = view.data.read_all().map_err(|error| gguf.tensor_read_error(name, error))?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if values.iter().any(|factor| !(1e-6..1e6).contains(factor)) {
        let problem = "has a factor that is not between 0.000001 and 1000000";
        return Err(gguf.field_error(name, problem, PULL_AGAIN_REMEDY));
    }
    Ok(Some(values))
}

impl YarnScaling {
    /// Scales the frequencies `base^(-2i / dim)` by a ramp between those that rotate often and those that rotate rarely
    /// within the original context.
    fn scale_frequencies(&self, frequencies: &mut [f32], base: f32) {
        let dim = 2.0 * frequencies.len() as f32;
        // The pair that rotates this often.
        let pair = |rotations: f32| {
            let turns = self.original_context / (rotations * 2.0 * std::f32::consts::PI);
            dim * turns.ln() / (2.0 * base.ln())
        };
        let low = pair(self.beta_fast).floor().max(0.0);
        let high = pair(self.beta_slow).ceil().min(dim - 1.0);
        for (index, frequency) in frequencies.iter_mut().enumerate() {
            let ramp = (index as f32 - low) / (high - low).max(0.001);
            let unscaled = (1.0 - ramp.clamp(0.0, 1.0)) * self.extrapolation;
            *frequency *= (1.0 - unscaled) / self.factor + unscaled;
        }
    }
}
