//! Grammars: what is compiled is followed, and what is not says why.

use std::sync::LazyLock;

use serde_json::Value;

use super::{FAKE, assert_is_line};
use crate::engine::constraint::{OutOfBounds, Stage};
use crate::text::grammar::{Grammar, GrammarError, Grammars, Source};

/// Tokens of an answer that does not end.
const ANSWER_TOKENS_MAX: usize = 48;

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| Grammars::new(&FAKE));

/// First which kind of grammar, then its source.
pub fn grammar(data: &[u8]) {
    let [kind, rest @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let source = match kind {
        b's' => match serde_json::from_str(text) {
            Ok(schema) => Source::JsonSchema(schema),
            Err(_) => return,
        },
        b'r' => Source::Regex(text.to_owned()),
        b'l' => Source::Lark(text.to_owned()),
        b'c' => Source::Choice(text.split('|').map(str::to_owned).collect()),
        _ => return,
    };
    let grammar = match GRAMMARS.compile(&source) {
        Ok(grammar) => grammar,
        Err(GrammarError::Internal) => unreachable!("the compiler panicked at {source:?}"),
        Err(refusal) => return assert_is_line(&refusal.to_string()),
    };
    for seed in 0..3 {
        if let Ok(Some(answer)) = wander(&grammar, seed) {
            assert_fits(&answer, &source);
        }
    }
}

fn assert_fits(answer: &str, source: &Source) {
    match source {
        Source::Choice(choices) => {
            assert!(choices.iter().any(|choice| choice == answer), "{answer:?} of {choices:?}");
        }
        Source::JsonSchema(schema) => {
            let value: Value = match serde_json::from_str(answer) {
                Ok(value) => value,
                // JSON knows no bound of numbers, serde_json that of f64.
                Err(e) if e.to_string().starts_with("number out of range") => return,
                Err(e) => unreachable!("{answer:?} is no JSON, of {schema}: {e}"),
            };
            let Ok(validator) = jsonschema::validator_for(schema) else { return };
            assert!(validator.is_valid(&value), "{answer:?} does not fit {schema}");
        }
        _ => {}
    }
}

/// An answer of any tokens that are allowed; `None` if it does not end.
fn wander(grammar: &Grammar, seed: usize) -> Result<Option<String>, OutOfBounds> {
    let mut constraint = grammar.constraint();
    let mut ids = Vec::new();
    let mut dice = seed as u64;
    while ids.len() < ANSWER_TOKENS_MAX {
        let forced = constraint.forced()?;
        let allowed: Vec<_> = constraint.allowed()?.iter().collect();
        assert!(!allowed.is_empty(), "nothing is allowed");
        if let Some(token) = forced.first() {
            assert!(allowed.contains(token), "{token} is forced and not allowed");
        }
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let may_end = allowed.iter().any(|id| FAKE.end_tokens().contains(id));
        if may_end && (dice >> 60 < 4 || allowed.len() == 1) {
            break;
        }
        let others: Vec<_> =
            allowed.iter().filter(|id| !FAKE.end_tokens().contains(id)).copied().collect();
        let token = others[(dice >> 33) as usize % others.len()];
        assert!(!FAKE.is_special(token), "{token} is no text");
        ids.push(token);
        if constraint.accept(token)? == Stage::Complete {
            break;
        }
        if ids.len() == ANSWER_TOKENS_MAX {
            return Ok(None);
        }
    }
    Ok(Some(FAKE.decode(&ids, false)))
}
