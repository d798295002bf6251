//! What files have numbers in: the block types that backends take, and others that become one of them while they are read.

use super::BlockType;

/// How a file has the numbers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stored {
    /// As backends take them, too.
    Block(BlockType),
    /// In a code that no backend computes with.
    Coded(Coded),
}

/// GGUF block types whose numbers are looked up in a table, or have one or two bits: kept as another type ([`Coded::kept_as`]).
///
/// Of each, a block is a few scales and small integers that they multiply (`coded/mod.rs`), so that most have a block type that
/// holds them exactly, but for the rounding of scales to halves. `docs/block-types.md` has the price of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coded {
    Iq1S,
    Iq1M,
    Iq2Xxs,
    Iq2Xs,
    Iq2S,
    Iq3Xxs,
    Iq3S,
    Iq4Nl,
    Iq4Xs,
    Tq1_0,
    Tq2_0,
    /// Four-bit floats that share a power of two (OCP microscaling), as gpt-oss has them.
    Mxfp4,
    /// Four-bit floats of which 16 share a float of eight bits.
    Nvfp4,
    Q1_0,
    Q2_0,
}

impl From<BlockType> for Stored {
    fn from(kind: BlockType) -> Self {
        Self::Block(kind)
    }
}

impl From<Coded> for Stored {
    fn from(coded: Coded) -> Self {
        Self::Coded(coded)
    }
}

impl Stored {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let blocks = BlockType::ALL.into_iter().map(Self::Block);
        blocks.chain(Coded::ALL.into_iter().map(Self::Coded))
    }

    /// The name that ggml gives it, such as `IQ4_XS`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Block(kind) => kind.label(),
            Self::Coded(coded) => coded.label(),
        }
    }

    /// Values in a block. Rows are whole blocks.
    pub fn block_len(self) -> usize {
        match self {
            Self::Block(kind) => kind.block_len(),
            Self::Coded(coded) => coded.block_len(),
        }
    }

    /// Bytes of a block in the file (ggml-common.h).
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Block(kind) => kind.block_bytes(),
            Self::Coded(coded) => coded.block_bytes(),
        }
    }

    /// What backends are given, unless something else is asked for.
    pub fn kept_as(self) -> BlockType {
        match self {
            Self::Block(kind) => kind,
            Self::Coded(coded) => coded.kept_as(),
        }
    }
}

impl Coded {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Iq1S,
        Self::Iq1M,
        Self::Iq2Xxs,
        Self::Iq2Xs,
        Self::Iq2S,
        Self::Iq3Xxs,
        Self::Iq3S,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Tq1_0,
        Self::Tq2_0,
        Self::Mxfp4,
        Self::Nvfp4,
        Self::Q1_0,
        Self::Q2_0,
    ];

    /// What takes the least memory of those that have room for the integers, so that only scales are rounded, to halves; where no
    /// type has, eight bits, which lose about half a hundredth of the numbers' root mean square.
    pub fn kept_as(self) -> BlockType {
        match self {
            Self::Tq1_0 | Self::Tq2_0 | Self::Q1_0 | Self::Q2_0 => BlockType::Q4_0,
            Self::Iq1S => BlockType::Q4_1,
            Self::Iq3S => BlockType::Q5_0,
            Self::Iq1M => BlockType::Q6K,
            Self::Iq2Xxs | Self::Iq3Xxs | Self::Iq4Nl | Self::Iq4Xs | Self::Mxfp4 => {
                BlockType::Q8_0
            }
            // With two scales where `Q8_0` has one.
            Self::Iq2Xs | Self::Iq2S | Self::Nvfp4 => BlockType::Q8_0,
        }
    }

    pub(super) fn label(self) -> &'static str {
        self.about().0
    }

    pub(super) fn block_len(self) -> usize {
        self.about().1
    }

    pub(super) fn block_bytes(self) -> usize {
        self.about().2
    }

    /// Name, values in a block and its bytes.
    fn about(self) -> (&'static str, usize, usize) {
        match self {
            Self::Iq1S => ("IQ1_S", 256, 50),
            Self::Iq1M => ("IQ1_M", 256, 56),
            Self::Iq2Xxs => ("IQ2_XXS", 256, 66),
            Self::Iq2Xs => ("IQ2_XS", 256, 74),
            Self::Iq2S => ("IQ2_S", 256, 82),
            Self::Iq3Xxs => ("IQ3_XXS", 256, 98),
            Self::Iq3S => ("IQ3_S", 256, 110),
            Self::Iq4Nl => ("IQ4_NL", 32, 18),
            Self::Iq4Xs => ("IQ4_XS", 256, 136),
            Self::Tq1_0 => ("TQ1_0", 256, 54),
            Self::Tq2_0 => ("TQ2_0", 256, 66),
            Self::Mxfp4 => ("MXFP4", 32, 17),
            Self::Nvfp4 => ("NVFP4", 64, 36),
            Self::Q1_0 => ("Q1_0", 128, 18),
            Self::Q2_0 => ("Q2_0", 64, 18),
        }
    }
}
