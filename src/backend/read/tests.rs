use super::*;
use crate::backend::Coded;
use std::io::Write;

/// A file of 3 other bytes and these numbers, as bf16.
fn written(values: &[f32]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"abc").unwrap();
    for &v in values {
        file.write_all(&half::bf16::from_f32(v).to_le_bytes()).unwrap();
    }
    file
}

fn source(file: &tempfile::NamedTempFile, rows: usize, cols: usize) -> TensorSource {
    TensorSource {
        name: "t".to_owned(),
        path: file.path().to_owned(),
        offset: 3,
        stored: BlockType::BF16.into(),
        kind: BlockType::F32,
        matrices: 1,
        rows,
        cols,
        change: Change::None,
        exponents: None,
    }
}

fn floats(source: &TensorSource) -> Vec<f32> {
    let mut bytes = vec![0; source.byte_len()];
    read_all(source, &mut bytes).unwrap();
    bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

#[test]
fn rows_are_widened_moved_up_and_turned() {
    let values: Vec<f32> = (0..6).map(|i| i as f32 / 4.0).collect();
    let file = written(&values);
    let plain = source(&file, 2, 3);
    assert_eq!(floats(&plain), values);
    let up: Vec<f32> = values.iter().map(|v| v + 1.0).collect();
    assert_eq!(floats(&TensorSource { change: Change::PlusOne, ..plain.clone() }), up);
    // The file has 2 x 3, the tensor is 3 x 2.
    let turned = TensorSource { rows: 3, cols: 2, change: Change::Transposed, ..plain };
    assert_eq!(floats(&turned), [0.0, 0.75, 0.25, 1.0, 0.5, 1.25]);
}

#[test]
fn a_scale_beside_it_multiplies_each_matrix() {
    // Two matrices of two rows, and the scale of each behind them.
    let mut file = written(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    for scale in [0.5_f32, f32::NAN] {
        file.write_all(&scale.to_le_bytes()).unwrap();
    }
    let change = Change::Scaled { path: file.path().to_owned(), offset: 3 + 16 };
    let both = TensorSource { matrices: 2, change, ..source(&file, 2, 2) };
    assert_eq!(floats(&both.matrix(0)), [0.5, 1.0, 1.5, 2.0]);
    let error = RowReader::open(&both.matrix(1)).unwrap().next_row().unwrap_err().to_string();
    assert_eq!(error, "tensor t[1]: holds a number that is not finite");
    let gone = Change::Scaled { path: file.path().to_owned(), offset: 3 + 24 };
    assert!(RowReader::open(&TensorSource { change: gone, ..both }).is_err());
}

#[test]
fn two_in_turn_come_one_after_the_other() {
    let values: Vec<f32> = (0..8).map(|i| i as f32).collect();
    let file = written(&values);
    let four = TensorSource { change: Change::Separated, ..source(&file, 4, 2) };
    assert_eq!(floats(&four), [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
    let vector = TensorSource { rows: 1, cols: 8, ..four.clone() };
    assert_eq!(floats(&vector), [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
    // The file has 2 x 4.
    let turned = TensorSource { change: Change::TransposedSeparated, ..four.clone() };
    assert_eq!(floats(&turned), [0.0, 4.0, 2.0, 6.0, 1.0, 5.0, 3.0, 7.0]);
    let odd = TensorSource { rows: 3, ..four };
    assert!(RowReader::open(&odd).is_err());
}

#[test]
fn exponents_that_lie_apart_join_their_blocks() {
    // Two matrices of two rows of one block each: number k of block b is k + b, of four bits.
    let numbers = |b: u8| (0..16).map(move |j| (2 * j + b) & 15 | ((2 * j + 1 + b) & 15) << 4);
    let bytes: Vec<u8> = (0..4).flat_map(numbers).chain([120, 121, 122, 123]).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let path = file.path().to_owned();
    let all = TensorSource {
        offset: 0,
        stored: Coded::Mxfp4.into(),
        kind: BlockType::Q8_0,
        matrices: 2,
        change: Change::Separated,
        exponents: Some(Exponents { path, offset: 64 }),
        ..source(&file, 2, 32)
    };
    assert_eq!(all.stored_len(), 64);
    assert_eq!(all.row_bytes(), 34);
    // The same as a GGUF has it, rows as they come out.
    let mut together = tempfile::NamedTempFile::new().unwrap();
    for b in [0, 1, 2, 3_u8] {
        let number = |k: u8| (k + b) & 15;
        together.write_all(&[120 + b]).unwrap();
        let block: Vec<u8> = (0..16).map(|j| number(j) | number(16 + j) << 4).collect();
        together.write_all(&block).unwrap();
    }
    let same = TensorSource {
        path: together.path().to_owned(),
        change: Change::None,
        exponents: None,
        ..all.clone()
    };
    for kind in [BlockType::Q8_0, BlockType::F32] {
        for matrix in [0, 1] {
            let read = |source: &TensorSource| {
                let source = TensorSource { kind, ..source.matrix(matrix) };
                let mut bytes = vec![0; source.byte_len()];
                read_all(&source, &mut bytes).unwrap();
                bytes
            };
            assert!(read(&all) == read(&same), "{kind:?} {matrix}");
        }
    }
    // Four rows, of which every second comes first.
    let four = TensorSource { matrices: 1, rows: 4, ..all };
    let mut rows = vec![0; 4 * 34];
    read_all(&four, &mut rows).unwrap();
    for (row, from) in rows.chunks(34).zip([0, 2, 1, 3]) {
        let mut expected = vec![0; 34];
        let one = TensorSource { rows: 1, change: Change::None, offset: 17 * from, ..same.clone() };
        read_all(&one.matrix(0), &mut expected).unwrap();
        assert!(row == expected, "{from}");
    }
}

#[test]
fn many_rows_come_through_the_buffer_in_order() {
    let (rows, cols) = (3_000, 250);
    let values: Vec<f32> = (0..rows * cols).map(|i| (i % 251) as f32).collect();
    let file = written(&values);
    assert!(floats(&source(&file, rows, cols)) == values);
    let turned = floats(&TensorSource {
        rows: cols,
        cols: rows,
        change: Change::Transposed,
        ..source(&file, rows, cols)
    });
    assert!((0..rows * cols).all(|i| turned[i] == values[i % rows * cols + i / rows]));
    let apart = |change, rows, cols| {
        floats(&TensorSource { rows, cols, change, ..source(&file, rows, cols) })
    };
    let before = |row: usize, of: usize| row % (of / 2) * 2 + row / (of / 2);
    let got = apart(Change::Separated, rows, cols);
    assert!((0..rows * cols).all(|i| got[i] == values[before(i / cols, rows) * cols + i % cols]));
    let got = apart(Change::TransposedSeparated, cols, rows);
    assert!((0..rows * cols).all(|i| got[i] == values[i % rows * cols + before(i / rows, cols)]));
}

#[test]
fn what_is_not_finite_is_no_weight() {
    let mut values = vec![1.0; 64];
    values[40] = f32::INFINITY;
    let file = written(&values);
    // Converted, turned, widened, and as they are.
    for (kind, change) in [
        (BlockType::Q8_0, Change::None),
        (BlockType::F32, Change::Transposed),
        (BlockType::F32, Change::PlusOne),
        (BlockType::BF16, Change::None),
    ] {
        let source = TensorSource { kind, change, ..source(&file, 2, 32) };
        let mut bytes = vec![0; source.byte_len()];
        let error = read_all(&source, &mut bytes).unwrap_err().to_string();
        assert_eq!(error, "tensor t: holds a number that is not finite");
    }
}

#[test]
fn what_no_scale_holds_is_not_made_infinite() {
    for (kind, label) in
        [(BlockType::Q8_0, "Q8_0"), (BlockType::Q6K, "Q6_K"), (BlockType::Q4K, "Q4_K")]
    {
        for large in [9e6, 1e10, 3e38, -1e10] {
            let mut values = vec![1.0; 512];
            values[300] = large;
            let file = written(&values);
            let source = TensorSource { kind, ..source(&file, 2, 256) };
            let mut bytes = vec![0; source.byte_len()];
            let error = read_all(&source, &mut bytes).unwrap_err().to_string();
            let expected = format!("tensor t: holds a number that is too large for {label}");
            assert_eq!(error, expected, "{large}");
        }
        // What is only large is kept.
        let file = written(&[65_000.0; 512]);
        let source = TensorSource { kind, ..source(&file, 2, 256) };
        read_all(&source, &mut vec![0; source.byte_len()]).unwrap();
    }
}

#[test]
fn blocks_come_close() {
    let values: Vec<f32> = (0..512).map(|i| ((i * 37) % 101) as f32 / 64.0 - 0.8).collect();
    let file = written(&values);
    for (kind, within) in [(BlockType::Q8_0, 0.004), (BlockType::Q6K, 0.02), (BlockType::Q4K, 0.06)]
    {
        let source = TensorSource { kind, ..source(&file, 2, 256) };
        let mut bytes = vec![0; source.byte_len()];
        read_all(&source, &mut bytes).unwrap();
        let mut got = vec![0.0; 512];
        crate::backend::cpu::quant::dequantize_row(kind, &bytes, &mut got);
        for (got, want) in got.iter().zip(&values) {
            assert!((got - want).abs() < within, "{kind:?}: {got} for {want}");
        }
    }
}
