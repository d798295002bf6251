//! What is said of tensors that take more memory than they do in the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Maker;
use super::plan::gib;
use crate::backend::{Coded, Stored, TensorSource};

/// One line about the tensors of types that no backend computes with; nothing if there are none.
pub(super) fn kept_as_others(
    tensors: &BTreeMap<String, TensorSource>,
    maker: Maker,
) -> Option<String> {
    let mut line = String::new();
    let (mut memory, mut file) = (0, 0);
    for coded in Coded::ALL {
        let stored = Stored::Coded(coded);
        let of_it = tensors.values().filter(|tensor| tensor.stored == stored);
        let Some(one) = of_it.clone().next() else { continue };
        let count = of_it.clone().count();
        memory += of_it.clone().map(|tensor| maker.bytes_of(tensor)).sum::<u64>();
        file += of_it.map(|tensor| tensor.file_len() as u64).sum::<u64>();
        let (comma, plural) =
            (if line.is_empty() { "" } else { ", " }, if count == 1 { "" } else { "s" });
        let kept = maker.kept_as(one);
        let _ = write!(line, "{comma}{} ({count} tensor{plural}) as {kept}", stored.label());
    }
    (!line.is_empty()).then(|| {
        let (memory, file) = (gib(memory), gib(file));
        format!("weights are kept in other types than the file's: {line}; they take {memory} of memory, {file} of the file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::candle::Place;
    use crate::backend::{BlockType, Change};
    use crate::config::Kernels;

    fn tensor(stored: impl Into<Stored>) -> TensorSource {
        let stored = stored.into();
        TensorSource {
            name: "t".to_owned(),
            path: "t.gguf".into(),
            offset: 0,
            stored,
            kind: stored.kept_as(),
            matrices: 2,
            rows: 1 << 15,
            cols: 1 << 14,
            change: Change::None,
            exponents: None,
        }
    }

    const OURS: Maker = Maker::Cpu(Kernels::Auto, None);
    /// On the CPU, too.
    const CANDLE: Maker = Maker::Candle(Place::Cpu);

    fn line(stored: &[Stored], maker: Maker) -> Option<String> {
        let all = stored.iter().enumerate().map(|(i, &stored)| (i.to_string(), tensor(stored)));
        kept_as_others(&all.collect(), maker)
    }

    #[test]
    fn the_line_counts_types_and_bytes() {
        let plain = Stored::Block(BlockType::Q3K);
        assert_eq!(line(&[plain], OURS), None);
        let [four_bits, ternary] = [Coded::Mxfp4, Coded::Tq2_0].map(Stored::Coded);
        let some = [four_bits, plain, ternary, four_bits];
        // A GiB of numbers each: 4.5 bits, and twice 4.5 or 8.5; of 2.0625, and twice 4.25.
        let expected = |kept: &str, memory: &str| {
            Some(format!(
                "weights are kept in other types than the file's: TQ2_0 (1 tensor) as Q4_0, \
                MXFP4 (2 tensors) as {kept}; they take {memory} GiB of memory, 1.32 GiB of the file"
            ))
        };
        assert_eq!(line(&some, OURS), expected("codes of 4 bits", "1.69"));
        assert_eq!(line(&some, CANDLE), expected("Q8_0", "2.69"));
        // Panels have whole bytes where blocks have six bits.
        let odd = line(&[Coded::Iq1M.into()], OURS).unwrap();
        assert!(odd.contains("1.12 GiB of memory"), "{odd}");
        let odd = line(&[Coded::Iq1M.into()], CANDLE).unwrap();
        assert!(odd.contains("0.82 GiB of memory"), "{odd}");
    }
}
