//! How positions are rotated: `rope_theta` with `rope_scaling` of transformers 4, or `rope_parameters` of transformers 5.

use std::f64::consts::PI;

use super::config::Keys;
use super::values::Config;
use crate::model::load::gguf::{Value, shown};

pub(super) fn keys(config: &Config, keys: &mut Keys) -> Result<(), String> {
    let scaling = match config.part("rope_parameters")? {
        None => config.part("rope_scaling")?,
        // Gemma 3 has one for its global layers, and one for the others.
        Some(parameters) => match parameters.part("full_attention")? {
            None => Some(parameters),
            Some(global) => {
                if let Some(local) = parameters.part("sliding_attention")? {
                    put(&local, "rope_theta", keys, "rope.freq_base_swa")?;
                }
                Some(global)
            }
        },
    };
    let base = match (config.number("rope_theta")?, &scaling) {
        (None, Some(scaling)) => scaling.number("rope_theta")?,
        (base, _) => base,
    };
    let base = base.unwrap_or(10_000.0);
    keys.put(config.name("rope_theta"), "rope.freq_base", Some(Value::F64(base)));
    keys.put(config.name("rope_theta"), "rope.pairs", Some(Value::String("halves".to_owned())));
    let dims = dims(config, scaling.as_ref())?;
    keys.put(config.name("head_dim"), "rope.dimension_count", dims.map(Value::U64));
    let Some(scaling) = scaling else { return Ok(()) };
    let kind = scaling.string("rope_type")?;
    let kind = if kind.is_none() { scaling.string("type")? } else { kind }.unwrap_or("default");
    let set_kind = |keys: &mut Keys, kind: &str| {
        let kind = Value::String(kind.to_owned());
        keys.put(scaling.name("rope_type"), "rope.scaling.type", Some(kind));
    };
    match kind {
        "default" => {}
        "linear" => {
            set_kind(keys, "linear");
            needed(&scaling, "factor", keys, "rope.scaling.factor")?;
        }
        "llama3" => {
            let Some(dims) = dims else {
                return Err("config.json: head_dim is missing".to_owned());
            };
            let factors = Value::F32s(llama3(&scaling, base, dims)?);
            keys.put(scaling.name("factor"), "rope.scaling.factors", Some(factors));
        }
        "yarn" => {
            set_kind(keys, "yarn");
            yarn(&scaling, keys)?;
        }
        // The name that the first files have.
        "longrope" | "su" => {
            set_kind(keys, "longrope");
            longrope(config, &scaling, keys)?;
        }
        other => {
            let other = shown(other);
            return Err(format!("config.json: rope_type {other} is not supported"));
        }
    }
    Ok(())
}

/// Passes a number on.
fn put(from: &Config, name: &str, keys: &mut Keys, key: &str) -> Result<Option<f64>, String> {
    let number = from.number(name)?;
    keys.put(from.name(name), key, number.map(Value::F64));
    Ok(number)
}

fn needed(from: &Config, name: &str, keys: &mut Keys, key: &str) -> Result<f64, String> {
    let number = put(from, name, keys, key)?;
    number.ok_or_else(|| format!("{} is missing", from.name(name)))
}

/// The keys that converters write, and one for a ramp that is not rounded.
fn yarn(scaling: &Config, keys: &mut Keys) -> Result<(), String> {
    for key in ["mscale", "mscale_all_dim"] {
        if scaling.number(key)?.is_some() {
            return Err(format!("{} is not supported", scaling.name(key)));
        }
    }
    let factor = needed(scaling, "factor", keys, "rope.scaling.factor")?;
    let name = "original_max_position_embeddings";
    let original = scaling.integer(name)?.map(Value::U64);
    keys.put(scaling.name(name), "rope.scaling.original_context_length", original);
    put(scaling, "beta_fast", keys, "rope.scaling.yarn_beta_fast")?;
    put(scaling, "beta_slow", keys, "rope.scaling.yarn_beta_slow")?;
    if let Some(whole) = scaling.number("attention_factor")? {
        // A key has what it is multiplied by besides.
        let usual = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
        let growth = Value::F64(whole / usual);
        keys.put(scaling.name("attention_factor"), "rope.scaling.attn_factor", Some(growth));
    }
    let rounds = scaling.flag("truncate")?.map(Value::Bool);
    keys.put(scaling.name("truncate"), "rope.scaling.yarn_truncate", rounds);
    Ok(())
}

/// Factors for contexts below and above the original one; what is rotated grows with the ratio of the two
/// (transformers' `_compute_longrope_parameters`).
fn longrope(config: &Config, scaling: &Config, keys: &mut Keys) -> Result<(), String> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let inner = scaling.integer(ORIGINAL)?;
    let original = config.integer(ORIGINAL)?.or(inner).filter(|&original| original > 1);
    let original = original.ok_or_else(|| format!("config.json: {ORIGINAL} is missing"))?;
    let longest = config.integer("max_position_embeddings")?.unwrap_or(original);
    let original_key = "rope.scaling.original_context_length";
    keys.put(config.name(ORIGINAL), original_key, Some(Value::U64(original)));
    for (name, key) in [("long_factor", "factors_long"), ("short_factor", "factors_short")] {
        let factors = scaling.floats(name)?;
        let factors = factors.ok_or_else(|| format!("{} is missing", scaling.name(name)))?;
        keys.put(scaling.name(name), &format!("rope.scaling.{key}"), Some(Value::F32s(factors)));
    }
    let ratio = longest as f64 / original as f64;
    let usual = if ratio > 1.0 { (1.0 + ratio.ln() / (original as f64).ln()).sqrt() } else { 1.0 };
    let growth = scaling.number("attention_factor")?.unwrap_or(usual);
    let origin = scaling.name("attention_factor");
    keys.put(origin, "rope.scaling.attn_factor", Some(Value::F64(growth)));
    Ok(())
}

/// Rotated elements of a head.
fn dims(config: &Config, scaling: Option<&Config>) -> Result<Option<u64>, String> {
    let head_dim = if let Some(head_dim) = config.integer("head_dim")? {
        Some(head_dim)
    } else {
        let hidden = config.integer("hidden_size")?;
        let heads = config.integer("num_attention_heads")?;
        hidden.zip(heads).and_then(|(hidden, heads)| hidden.checked_div(heads))
    };
    let own = config.number("partial_rotary_factor")?;
    let part = match (own, scaling) {
        (None, Some(scaling)) => scaling.number("partial_rotary_factor")?,
        _ => own,
    };
    if part.is_some_and(|part| !(part > 0.0 && part <= 1.0)) {
        return Err("config.json: partial_rotary_factor is not in 0 to 1".to_owned());
    }
    // Transformers cuts off what is no whole number.
    Ok(head_dim.map(|dims| (dims as f64 * part.unwrap_or(1.0)) as u64))
}

/// Divisors of the frequencies of Llama 3.1 and later: long waves are stretched, short ones are not, and those between go over
/// smoothly (transformers' `_compute_llama3_parameters`).
fn llama3(scaling: &Config, base: f64, dims: u64) -> Result<Vec<f32>, String> {
    let needed = |key: &str| match scaling.number(key)? {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(format!("{} is not a positive number", scaling.name(key))),
    };
    let factor = needed("factor")?;
    let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
    let context = needed("original_max_position_embeddings")?;
    if high <= low {
        let key = scaling.name("high_freq_factor");
        return Err(format!("{key} is not above low_freq_factor"));
    }
    // Bounded as every head is; a larger one is refused by its own name later.
    let pairs = dims.min(1 << 10) / 2;
    let divisor = |i: u64| {
        let wave = 2.0 * PI * base.powf(2.0 * i as f64 / dims as f64);
        if wave < context / high {
            1.0
        } else if wave > context / low {
            factor
        } else {
            let smooth = (context / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok((0..pairs).map(|i| divisor(i) as f32).collect())
}
