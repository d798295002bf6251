use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

fn slice<'a>(tokens: &'a [u32], start: usize, blocks: &'a [BlockId]) -> Slice<'a> {
    Slice { tokens, start, blocks, logits: LogitRows::Last }
}

fn last_row(model: &mut FakeModel, slices: &[Slice<'_>]) -> Vec<f32> {
    let logits = model.forward(&Batch { slices }).unwrap();
    logits.row(0).to_vec()
}

#[test]
fn the_same_history_gives_the_same_row_however_it_was_written() {
    let prompt: Vec<u32> = (1..80).collect();
    let mut model = open("fake:vocab=100").unwrap();
    let whole = last_row(&mut model, &[slice(&prompt, 0, &[7, 3, 9])]);
    let mut model = open("fake:vocab=100").unwrap();
    let blocks = [4, 0, 2];
    for (start, part) in [(0, &prompt[..33]), (33, &prompt[33..40])] {
        last_row(&mut model, &[slice(part, start, &blocks)]);
    }
    let other = slice(&[5, 6], 0, &[1]);
    let parts = last_row(&mut model, &[slice(&prompt[40..], 40, &blocks), other]);
    assert_eq!(whole, parts);
}

#[test]
fn a_chunk_is_there_when_its_last_layer_is_done() {
    let prompt: Vec<u32> = (1..50).collect();
    let mut model = open("fake:vocab=100,layers=3").unwrap();
    let whole = last_row(&mut model, &[slice(&prompt, 0, &[0, 1])]);
    let chunk = Slice { logits: LogitRows::None, ..slice(&prompt[..48], 0, &[2, 3]) };
    let last = slice(&prompt[48..], 48, &[2, 3]);
    let advance = |model: &mut FakeModel, layers| model.advance(&Part { slice: chunk, layers });
    advance(&mut model, 0..2).unwrap();
    assert_ne!(whole, last_row(&mut model, &[last]), "a layer is missing");
    advance(&mut model, 2..3).unwrap();
    assert_eq!(whole, last_row(&mut model, &[last]));
    assert!(advance(&mut model, 2..3).is_err(), "nothing is under way");
}

#[test]
fn every_mistake_with_blocks_shows() {
    let prompt: Vec<u32> = (1..60).collect();
    let run = |second: &[BlockId], start: usize, forget: bool| {
        let mut model = open("fake:vocab=100").unwrap();
        last_row(&mut model, &[slice(&prompt[..40], 0, &[0, 1])]);
        if forget {
            model.release(0);
        }
        last_row(&mut model, &[slice(&prompt[40..], start, second)])
    };
    let right = run(&[0, 1], 40, false);
    assert_ne!(right, run(&[1, 0], 40, false), "blocks in the wrong order");
    assert_ne!(right, run(&[2, 1], 40, false), "a lost block");
    assert_ne!(right, run(&[0, 1], 41, false), "a wrong position");
    assert_ne!(right, run(&[0, 1], 40, true), "a block that was given back");
    let mut model = open("fake:vocab=100").unwrap();
    last_row(&mut model, &[slice(&prompt[..32], 0, &[0])]);
    last_row(&mut model, &[slice(&[&[99], &prompt[1..40]].concat(), 0, &[2, 1])]);
    assert_ne!(right, last_row(&mut model, &[slice(&prompt[40..], 40, &[0, 1])]), "another prefix");
    let mut model = open("fake:").unwrap();
    let outside = model.forward(&Batch { slices: &[slice(&prompt, 0, &[0])] });
    assert!(outside.is_err(), "no block for the last tokens");
}

#[test]
fn faults_come_at_their_steps() {
    let mut model = open("fake:fault=nan@2,fault=panic@3").unwrap();
    let mut step = || {
        let token = [1];
        let slices = [slice(&token, 0, &[0])];
        catch_unwind(AssertUnwindSafe(|| last_row(&mut model, &slices))).ok()
    };
    assert!(step().unwrap().iter().all(|x| x.is_finite()));
    assert!(step().unwrap().iter().all(|x| x.is_nan()));
    assert!(step().is_none());
    assert!(step().unwrap().iter().all(|x| x.is_finite()));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (spec, names) in [
        ("fake:vocap=3", "vocap"),
        ("fake:vocab=many", "vocab"),
        ("fake:vocab", "vocab"),
        ("fake:hash_bits=0", "hash_bits"),
        ("fake:fault=panic@0", "panic@0"),
        ("fake:fault=oops@1", "oops@1"),
        ("other", "other"),
    ] {
        let error = Options::parse(spec).unwrap_err();
        assert!(error.contains(names), "{spec}: {error}");
    }
    let options = Options::parse("fake:vocab=40,step_ms=2,fault=slow@7,fault=hang@9").unwrap();
    assert_eq!((options.vocab, options.step_ms, options.faults.len()), (40, 2, 2));
    assert_eq!(Options::parse("fake:").unwrap(), Options::default());
}

#[test]
fn answers_end_at_lengths_that_vary() {
    let mut model = open("fake:vocab=64,end_every=16").unwrap();
    let mut lengths = Vec::new();
    for first in 1..30 {
        let blocks: Vec<BlockId> = (0..100).collect();
        let (mut token, mut at) = (first, 0);
        while token != END_TOKEN && at < 3000 {
            let tokens = [token];
            let row = last_row(&mut model, &[slice(&tokens, at, &blocks)]);
            token = (0..64).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32;
            at += 1;
        }
        lengths.push(at);
    }
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    assert!((8.0..32.0).contains(&mean), "{lengths:?}");
}
