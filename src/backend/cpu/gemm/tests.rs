use super::super::quant::{self, GROUP};
use super::*;
use crate::backend::coded::repack;
use crate::backend::{BlockType, Change, Coded, LinearSource, Stored, TensorSource};
use std::path::Path;

/// A small generator: tests need the same numbers every time, not good ones.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn float(&mut self) -> f32 {
        self.next() as f32 / (1_u64 << 30) as f32 - 1.0
    }
}

/// Block bytes of a random `rows x cols` tensor, with scales near those of real models.
fn random_tensor(kind: BlockType, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut rng = Lcg(seed);
    let mut bytes = Vec::new();
    let half = |bytes: &mut Vec<u8>, x: f32| bytes.extend(half::f16::from_f32(x).to_le_bytes());
    for _ in 0..rows * cols / kind.block_len() {
        let at = bytes.len();
        bytes.extend((0..kind.block_bytes()).map(|_| rng.next() as u8));
        let (d, m) = (0.001 + 0.02 * rng.float().abs(), 0.1 * rng.float());
        let mut scale = |offset: usize, x: f32| {
            let mut two = Vec::new();
            half(&mut two, x);
            bytes[at + offset..at + offset + 2].copy_from_slice(&two);
        };
        match kind {
            BlockType::F32 => bytes[at..].copy_from_slice(&rng.float().to_le_bytes()),
            BlockType::F16 => scale(0, m),
            BlockType::BF16 => bytes[at..].copy_from_slice(&half::bf16::from_f32(m).to_le_bytes()),
            BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => scale(0, d),
            BlockType::Q6K => scale(208, d / 32.0),
            BlockType::Q2K => {
                scale(80, d / 8.0);
                scale(82, m.abs() / 8.0);
            }
            BlockType::Q3K => scale(108, d / 16.0),
            BlockType::Q4K | BlockType::Q5K => {
                scale(0, d / 32.0);
                scale(2, m.abs() / 32.0);
            }
            BlockType::Q4_1 | BlockType::Q5_1 => {
                scale(0, d);
                scale(2, m);
            }
        }
    }
    bytes
}

fn source(path: &Path, kind: BlockType, rows: usize, cols: usize, offset: u64) -> TensorSource {
    TensorSource {
        name: format!("{kind:?}"),
        path: path.to_owned(),
        offset,
        stored: kind.into(),
        kind,
        matrices: 1,
        rows,
        cols,
        change: Change::None,
        exponents: None,
    }
}

/// A packed random tensor, and its exact rows.
fn packed(kind: BlockType, rows: usize, cols: usize) -> (Packed, Vec<Vec<f32>>) {
    let bytes = random_tensor(kind, rows, cols, rows as u64);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [&[0; 32][..], &bytes].concat()).unwrap();
    let packed = Packed::load(&[source(file.path(), kind, rows, cols, 32)]).unwrap();
    let exact = bytes
        .chunks(bytes.len() / rows)
        .map(|row| {
            let mut out = vec![0.0; cols];
            quant::dequantize_row(kind, row, &mut out);
            out
        })
        .collect();
    (packed, exact)
}

fn activations(rows: usize, cols: usize) -> Vec<f32> {
    let mut rng = Lcg(rows as u64 + 77);
    (0..rows * cols).map(|_| rng.float() * (1.0 + 5.0 * rng.float().abs())).collect()
}

fn product(kernels: Kernels, threads: usize, w: &Packed, x: &[f32], rows: usize) -> Vec<f32> {
    let mut pool = Pool::new(threads).unwrap();
    let mut acts = Acts::with_capacity(rows, w.cols().next_multiple_of(GROUP));
    if w.reads_quantized() {
        let filling = acts.begin(rows, w.cols());
        for (r, row) in x.chunks(w.cols()).enumerate() {
            // SAFETY: one row at a time.
            kernels.quantize(row, unsafe { filling.row(r) });
        }
    }
    let stride = w.rows() + 3;
    let mut out = vec![f32::NAN; rows * stride];
    let input = Input { acts: &acts, x, x_stride: w.cols(), rows, terms: 1 };
    kernels.gemm(&mut pool, w, &input, &mut Output { out: &mut out, stride, add: false });
    for row in out.chunks(stride) {
        assert!(row[w.rows()..].iter().all(|x| x.is_nan()), "written past the last output");
    }
    out.chunks(stride).flat_map(|r| r[..w.rows()].to_vec()).collect()
}

/// The tiers that can run here, the specification last.
fn tiers() -> Vec<Kernels> {
    Tier::ALL.into_iter().filter_map(Kernels::new).collect()
}

/// Past the test runner, which keeps what is printed to itself.
#[test]
fn tiers_are_named_as_run_or_not_run() {
    use std::io::Write as _;
    for tier in Tier::ALL {
        let run = if tier.is_available() { "run" } else { "NOT RUN: this processor lacks them" };
        let _ = writeln!(std::io::stderr(), "kernels of {}: {run}", tier.name());
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn packed_rows_are_the_file_s_rows() {
    for kind in BlockType::ALL {
        let (packed, exact) = packed(kind, 37, 512);
        let mut row = vec![0.0; 512];
        for (r, exact) in exact.iter().enumerate() {
            packed.dequant_row(r, &mut row);
            let largest = exact.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            // Products of K-quants' scales are rounded to f16; everything else is exact.
            let tolerance = if kind.block_len() == 256 { largest / 1024.0 } else { 0.0 };
            for (k, (a, b)) in row.iter().zip(exact).enumerate() {
                assert!((a - b).abs() <= tolerance, "{kind:?} row {r}, {k}: {a} for {b}");
            }
        }
    }
}

#[test]
fn products_are_near_the_exact_ones() {
    for kind in BlockType::ALL {
        let (rows, cols) = (5, 512);
        let (packed, exact) = packed(kind, 40, cols);
        let x = activations(rows, cols);
        let out = product(Kernels::new(Tier::Scalar).unwrap(), 1, &packed, &x, rows);
        for (r, x) in x.chunks(cols).enumerate() {
            for (n, w) in exact.iter().enumerate() {
                let expected: f64 =
                    x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let norm: f64 =
                    x.iter().zip(w).map(|(a, b)| f64::from(a * b).powi(2)).sum::<f64>().sqrt();
                let found = f64::from(out[r * 40 + n]);
                // Rounding to 8 bits is an independent error of at most a 254th of the largest value in each term.
                assert!(
                    (found - expected).abs() < 0.1 * norm + 1e-4,
                    "{kind:?} {r},{n}: {found} for {expected}"
                );
            }
        }
    }
}

#[test]
fn every_tier_has_the_bits_of_the_specification() {
    for kind in BlockType::ALL {
        for (outputs, cols) in [(16, 256), (50, 512), (33, 1280)] {
            let (packed, _) = packed(kind, outputs, cols);
            let x = activations(17, cols);
            let specification = Kernels::new(Tier::Scalar).unwrap();
            let specification = bits(&product(specification, 1, &packed, &x, 17));
            let tiers = tiers().into_iter().map(|kernels| (kernels.tier().name(), kernels));
            for (name, kernels) in tiers.chain(twins::all()) {
                let out = bits(&product(kernels, 1, &packed, &x, 17));
                assert!(out == specification, "{name} differs for {kind:?}, {outputs} x {cols}");
            }
        }
    }
}

/// Looked up, the integers are those of `Q8_0`, in about half the memory.
#[test]
fn codes_have_the_bits_of_what_they_stand_for() {
    use Coded::{Iq2Xxs, Iq3Xxs, Iq4Nl, Iq4Xs, Mxfp4};
    for coded in [Iq2Xxs, Iq3Xxs, Iq4Nl, Iq4Xs, Mxfp4] {
        let (outputs, cols) = (50, 512);
        let (codes, eights) = codes_and_eights(coded, outputs, cols);
        assert_eq!(codes.bytes() * 17, eights.bytes() * 9, "{coded:?}");
        let mut rows = [vec![0.0; cols], vec![1.0; cols]];
        for row in 0..outputs {
            codes.dequant_row(row, &mut rows[0]);
            eights.dequant_row(row, &mut rows[1]);
            assert_eq!(rows[0], rows[1], "{coded:?} row {row}");
        }
        let x = activations(17, cols);
        let scalar = Kernels::new(Tier::Scalar).unwrap();
        let expected = bits(&product(scalar, 1, &eights, &x, 17));
        let tiers = tiers().into_iter().map(|kernels| (kernels.tier().name(), kernels));
        for (name, kernels) in tiers.chain(twins::all()) {
            assert!(bits(&product(kernels, 2, &codes, &x, 17)) == expected, "{name}, {coded:?}");
        }
    }
}

/// Random rows of a type, packed from its blocks and from the `Q8_0` blocks that they become.
fn codes_and_eights(coded: Coded, rows: usize, cols: usize) -> (Packed, Packed) {
    let mut rng = Lcg(7);
    let width = Stored::from(coded).block_bytes();
    let mut bytes: Vec<u8> = (0..rows * cols / Stored::from(coded).block_len() * width)
        .map(|_| rng.next() as u8)
        .collect();
    for block in bytes.chunks_mut(width) {
        let d = half::f16::from_f32(0.01 * rng.float());
        // An exponent of MXFP4 is a byte.
        let scale = if coded == Coded::Mxfp4 { &[120][..] } else { &d.to_le_bytes()[..] };
        block[..scale.len()].copy_from_slice(scale);
    }
    let mut eights = Vec::new();
    repack(coded, 1.0, &bytes, &mut eights).unwrap();
    let packed = |bytes: &[u8], stored: Stored| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let plain = source(file.path(), BlockType::Q8_0, rows, cols, 0);
        Packed::load(&[TensorSource { stored, ..plain }]).unwrap()
    };
    (packed(&bytes, coded.into()), packed(&eights, BlockType::Q8_0.into()))
}

#[test]
fn a_row_has_the_same_bits_among_any_others_and_on_any_number_of_threads() {
    for kernels in tiers() {
        for kind in
            [BlockType::Q2K, BlockType::Q4_1, BlockType::Q5_0, BlockType::Q8_0, BlockType::F16]
        {
            let (packed, _) = packed(kind, 200, 512);
            let x = activations(33, 512);
            let alone: Vec<u32> =
                x.chunks(512).flat_map(|row| bits(&product(kernels, 1, &packed, row, 1))).collect();
            for rows in 1..=33 {
                let together = product(kernels, 1 + rows % 3, &packed, &x[..rows * 512], rows);
                assert!(bits(&together) == alone[..rows * 200], "{kernels:?} {kind:?} {rows}");
            }
        }
    }
}

#[test]
fn tensors_of_different_types_stack() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (a, b) =
        (random_tensor(BlockType::Q4K, 32, 256, 1), random_tensor(BlockType::Q6K, 20, 256, 2));
    std::fs::write(file.path(), [&a[..], &b[..]].concat()).unwrap();
    let parts = [
        source(file.path(), BlockType::Q4K, 32, 256, 0),
        source(file.path(), BlockType::Q6K, 20, 256, a.len() as u64),
    ];
    let stacked = Packed::load(&parts).unwrap();
    let x = activations(3, 256);
    for kernels in tiers() {
        let both = product(kernels, 2, &stacked, &x, 3);
        let first = product(kernels, 1, &Packed::load(&parts[..1]).unwrap(), &x, 3);
        let second = product(kernels, 1, &Packed::load(&parts[1..]).unwrap(), &x, 3);
        for r in 0..3 {
            assert_eq!(both[r * 52..r * 52 + 32], first[r * 32..r * 32 + 32]);
            assert_eq!(both[r * 52 + 32..r * 52 + 52], second[r * 20..r * 20 + 20]);
        }
    }
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_tensor() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0; 100]).unwrap();
    let missing = Path::new("/nonexistent/model.gguf");
    for source in [
        source(file.path(), BlockType::Q8_0, 16, 64, 0),
        source(file.path(), BlockType::Q4K, 16, 100, 0),
        source(file.path(), BlockType::Q4K, 16, 0, 0),
        source(file.path(), BlockType::Q4K, 0, 256, 0),
        source(missing, BlockType::F32, 16, 64, 0),
    ] {
        let error = Packed::load(std::slice::from_ref(&source)).unwrap_err();
        assert!(error.to_string().contains(&source.name), "{error}");
    }
    assert!(Packed::load(&[]).is_ok_and(|p| p.rows() == 0));
}

/// The same weights as those of [`packed`].
fn with_bias(kind: BlockType, rows: usize, cols: usize, bias: &[f32]) -> Packed {
    let weights = random_tensor(kind, rows, cols, rows as u64);
    let bytes = bias.iter().flat_map(|x| x.to_le_bytes());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), weights.iter().copied().chain(bytes).collect::<Vec<_>>()).unwrap();
    let at = weights.len() as u64;
    let weights = vec![source(file.path(), kind, rows, cols, 0)];
    let long = LinearSource {
        weights: weights.clone(),
        bias: vec![source(file.path(), BlockType::F32, 1, bias.len() - 1, at)],
    };
    assert!(Packed::load_with_bias(&long).unwrap_err().to_string().contains("of 40 outputs"));
    let bias = vec![source(file.path(), BlockType::F32, 1, bias.len(), at)];
    Packed::load_with_bias(&LinearSource { weights, bias }).unwrap()
}

#[test]
fn terms_biases_and_what_was_there_are_added() {
    for kernels in tiers() {
        for (kind, rows) in [(BlockType::Q4_1, 1), (BlockType::Q6K, 5), (BlockType::Q8_0, 11)] {
            let (plain, _) = packed(kind, 40, 256);
            let x = activations(rows, 256);
            let one = product(kernels, 1, &plain, &x, rows);
            let bias: Vec<f32> = (0..40).map(|n| n as f32 * 0.37).collect();
            let w = with_bias(kind, 40, 256, &bias);
            let mut acts = Acts::with_capacity(2 * rows, 256);
            let filling = acts.begin(2 * rows, 256);
            for (r, row) in x.chunks(256).enumerate() {
                for term in 0..2 {
                    // SAFETY: one row at a time.
                    kernels.quantize(row, unsafe { filling.row(term * rows + r) });
                }
            }
            let mut out = vec![1.0; rows * 40];
            let input = Input { acts: &acts, x: &[], x_stride: 0, rows, terms: 2 };
            let mut pool = Pool::new(2).unwrap();
            kernels.gemm(
                &mut pool,
                &w,
                &input,
                &mut Output { out: &mut out, stride: 40, add: true },
            );
            let sum = |(i, y): (usize, &f32)| 1.0 + (bias[i % 40] + y) + y;
            let expected: Vec<f32> = one.iter().enumerate().map(sum).collect();
            assert_eq!(bits(&out), bits(&expected), "{kind:?}");
        }
    }
}
