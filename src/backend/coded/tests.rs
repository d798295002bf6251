use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use super::*;
use crate::backend::Stored;
use crate::backend::cpu::quant;

/// What `gguf` reads of blocks of every type: made by `scripts/test-blocks.py`.
const GOLDEN: &str = include_str!("../../../tests/golden/block-types.json");

/// Random blocks of a type, and what they are by its reference.
fn golden(label: &str) -> (Vec<u8>, Vec<f32>) {
    let all: Value = serde_json::from_str(GOLDEN).unwrap();
    let bytes = |part: &str| BASE64_STANDARD.decode(all[label][part].as_str().unwrap()).unwrap();
    let values = bytes("values").as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    (bytes("blocks"), values)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Their bits, where ggml's order of operations is ours. Blocks that backends take are `d * (u - zero) + m` here, of which
/// a minimum and a zero may have another sign than in the reference.
#[test]
fn every_type_is_read_as_its_reference_reads_it() {
    for stored in Stored::all().filter(|stored| stored.block_len() > 1) {
        let (bytes, expected) = golden(stored.label());
        let mut found = vec![0.0; expected.len()];
        match stored {
            Stored::Coded(coded) => {
                dequantize_row(coded, &bytes, &mut found);
                assert!(bits(&found) == bits(&expected), "{stored:?}");
            }
            Stored::Block(kind) => {
                quant::dequantize_row(kind, &bytes, &mut found);
                assert!(found == expected, "{stored:?}");
            }
        }
    }
}

/// A row as it is kept, dequantised.
fn kept(coded: Coded, bytes: &[u8], len: usize) -> Vec<f32> {
    let mut blocks = Vec::new();
    repack(coded, 1.0, bytes, &mut blocks).unwrap();
    let kind = coded.kept_as();
    assert_eq!(blocks.len(), len / kind.block_len() * kind.block_bytes(), "{coded:?}");
    let mut values = vec![0.0; len];
    quant::dequantize_row(kind, &blocks, &mut values);
    values
}

/// Root mean square of what differs, of that of the numbers.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let lost: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (lost / expected.iter().copied().map(square).sum::<f64>()).sqrt()
}

/// The figures of `docs/block-types.md`.
#[test]
fn what_is_kept_loses_little() {
    const SCALES: f64 = 4e-4;
    for coded in Coded::ALL {
        let (bytes, expected) = golden(coded.label());
        let error = relative_error(&kept(coded, &bytes, expected.len()), &expected);
        let most = match coded {
            // A product of scales is rounded to a half.
            Coded::Iq1S | Coded::Iq2Xxs | Coded::Iq3Xxs | Coded::Iq3S | Coded::Iq4Xs => SCALES,
            Coded::Iq2Xs | Coded::Iq2S | Coded::Nvfp4 => 0.006,
            _ => 0.0,
        };
        println!("{coded:?} as {:?}: {error:.5}", coded.kept_as());
        assert!(error <= most, "{coded:?}: {error}");
    }
}

#[test]
fn what_is_not_finite_or_too_large_is_refused() {
    for coded in Coded::ALL {
        let (mut bytes, _) = golden(coded.label());
        let refusal =
            |factor: f32, bytes: &[u8]| repack(coded, factor, bytes, &mut Vec::new()).unwrap_err();
        for factor in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(refusal(factor, &bytes), "holds a number that is not finite", "{coded:?}");
        }
        let reason = refusal(1e12, &bytes);
        assert!(reason.contains("more than a half can be (6.5504e4)"), "{coded:?}: {reason}");
        // Scales of any bits: what is a number is kept, the rest refused, and nothing else happens.
        for filler in [0xff, 0x7c, 0x7e, 0xfc] {
            let end = bytes.len();
            bytes[end / 2..].fill(filler);
            let mut values = vec![0.0; bytes.len() / coded.block_bytes() * coded.block_len()];
            dequantize_row(coded, &bytes, &mut values);
            let kept = repack(coded, 1.0, &bytes, &mut Vec::new());
            assert!(kept.is_err() || values.iter().all(|x| x.is_finite()), "{coded:?} {filler}");
        }
    }
}

/// Every bit pattern of the scales, so that no code points past its table: random bytes, whole rows of them.
#[test]
fn no_bytes_make_it_panic() {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    for coded in Coded::ALL {
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..2 * coded.block_bytes()).map(|_| next()).collect();
            let mut values = vec![0.0; 2 * coded.block_len()];
            dequantize_row(coded, &bytes, &mut values);
            if repack(coded, 1.0, &bytes, &mut Vec::new()).is_ok() {
                assert!(values.iter().all(|x| x.is_finite()), "{coded:?}");
            }
        }
    }
}
