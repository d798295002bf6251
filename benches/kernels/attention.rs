//! Attention alone, through the backend's own interface: from one row far into a sequence to chunks of a prompt.

use std::io::Write;

use millrace::backend::cpu::CpuBackend;
use millrace::backend::cpu::gemm::Tier;
use millrace::backend::{
    Attention, BLOCK_TOKENS, Backend, Batch, BlockId, BlockType, Change, KvDtype, LinearSource,
    LogitRows, Norm, Pre, Reserve, Rope, RopePairs, Shape, Slice, TensorSource,
};
use millrace::config;
use serde_json::{Value, json};

use crate::timing::Timing;
use crate::{Bench, Result};

/// Query heads, kv heads and their width.
const MODELS: [(&str, usize, usize, usize); 3] =
    [("SmolLM2 135M", 9, 3, 64), ("Qwen2.5 0.5B", 14, 2, 64), ("Gemma 3 270M", 4, 1, 256)];

/// Sequences, rows of each, and tokens before them.
const LOADS: [(usize, usize, usize); 7] = [
    (1, 1, 8000),
    (1, 4, 8000),
    (1, 16, 8000),
    (1, 250, 750),
    (16, 1, 100),
    (64, 1, 100),
    (16, 1, 1000),
];
const CONTEXT: usize = 8192;
const BLOCKS: usize = 2 * CONTEXT / BLOCK_TOKENS;
/// Enough that no layer's keys and values are still in a near cache when it is its turn again.
const LAYERS: usize = 8;
const HIDDEN: usize = 32;
const CHUNK: usize = 256;

/// A backend whose cache is full of keys and values.
struct Stage {
    backend: CpuBackend,
    blocks: Vec<BlockId>,
    shape: Shape,
}

impl Stage {
    fn new(threads: usize, tier: Tier, shape: Shape) -> Result<Self> {
        let kernels = match tier {
            Tier::Scalar => config::Kernels::Scalar,
            Tier::Avx2 => config::Kernels::Avx2,
            Tier::AvxVnni => config::Kernels::AvxVnni,
            Tier::Avx512 => config::Kernels::Avx512,
        };
        let mut backend = CpuBackend::new(Some(threads), kernels)?;
        backend.reserve(&Reserve {
            shape,
            max_rows: CHUNK,
            max_logit_rows: 1,
            blocks: BLOCKS,
            kv_dtype: KvDtype::F16,
            max_context: CONTEXT,
        })?;
        let mut stage = Self { backend, blocks: (0..BLOCKS as BlockId).collect(), shape };
        stage.fill()?;
        Ok(stage)
    }

    /// Writes every block: q, k and v are a bias, turned by the position.
    fn fill(&mut self) -> Result<()> {
        let s = self.shape;
        let width = (s.heads + 2 * s.kv_heads) * s.head_dim;
        let mut file = tempfile::NamedTempFile::new()?;
        let source = TensorSource {
            name: "nothing".to_owned(),
            path: file.path().to_owned(),
            offset: 0,
            stored: BlockType::Q8_0.into(),
            kind: BlockType::Q8_0,
            matrices: 1,
            rows: width,
            cols: HIDDEN,
            change: Change::None,
            exponents: None,
        };
        let bias = TensorSource {
            offset: source.byte_len() as u64,
            stored: BlockType::F32.into(),
            kind: BlockType::F32,
            rows: 1,
            cols: width,
            ..source.clone()
        };
        file.write_all(&vec![0; source.byte_len()])?;
        for i in 0..width {
            file.write_all(&(i as f32 * 0.7).sin().to_le_bytes())?;
        }
        let nothing = LinearSource { weights: vec![source], bias: vec![bias] };
        let nothing = self.backend.load_linear(&nothing)?;
        let weight = vec![1.0; HIDDEN];
        let norm = Norm { weight: &weight, eps: 1e-5 };
        let inv_freq = (0..s.head_dim / 2).map(|i| 1e-4_f32.powf(i as f32 / 32.0)).collect();
        let pairs = RopePairs::Halves;
        let rope = Rope { pairs, dims: s.head_dim, inv_freq, magnitude: 1.0 };
        for blocks in self.blocks.chunks(CONTEXT / BLOCK_TOKENS) {
            for start in (0..CONTEXT).step_by(CHUNK) {
                let logits = LogitRows::None;
                let slice = Slice { tokens: &[0; CHUNK], start, blocks, logits };
                self.backend.begin(&Batch { slices: &[slice] })?;
                self.backend.norm_qkv(Pre::Rms(norm), &nothing)?;
                for layer in 0..LAYERS {
                    self.backend.rope_write_kv(layer, None, &rope)?;
                }
            }
        }
        Ok(())
    }

    /// Times all layers.
    fn time(
        &mut self,
        short: bool,
        (sequences, rows, before): (usize, usize, usize),
    ) -> Result<Timing> {
        let tokens = vec![0; rows];
        let held = (before + rows).div_ceil(BLOCK_TOKENS);
        let slice = |blocks| {
            let logits = LogitRows::None;
            Slice { tokens: &tokens, start: before, blocks, logits }
        };
        // More sequences than blocks for them: some share theirs.
        let slices: Vec<Slice<'_>> =
            self.blocks.chunks_exact(held).cycle().take(sequences).map(slice).collect();
        self.backend.begin(&Batch { slices: &slices })?;
        let scale = 1.0 / (self.shape.head_dim as f32).sqrt();
        let mut outcome = Ok(());
        let timing = Timing::of(short, || {
            for layer in 0..LAYERS {
                let attention = Attention { layer, scale, window: None, softcap: None };
                let done = self.backend.attention(attention, None);
                outcome = std::mem::replace(&mut outcome, Ok(())).and(done);
            }
        });
        outcome?;
        Ok(timing)
    }
}

/// Prints a line for each tier and model; returns the figures.
pub(crate) fn measure(bench: &mut Bench) -> Result<Value> {
    println!(
        "\nattention over halves, GMAC/s (share of the peak): sequences x rows, after so many tokens"
    );
    print!("{:8}{:14}", "", "");
    println!(
        "{}",
        LOADS.map(|(n, rows, t)| format!("{:>16}", format!("{n}x{rows}, {t}"))).concat()
    );
    let mut figures = Vec::new();
    for (name, heads, kv_heads, head_dim) in MODELS {
        let shape = Shape {
            layers: LAYERS,
            hidden: HIDDEN,
            heads,
            kv_heads,
            head_dim,
            mlp: 32,
            vocab: 32,
            experts: 0,
            experts_used: 0,
        };
        for kernels in bench.tiers.clone() {
            let tier = kernels.tier();
            let Some(peak) = bench.limits.peak(tier, None) else { continue };
            let mut stage = Stage::new(bench.options.threads, tier, shape)?;
            print!("{:8}{name:14}", tier.name());
            for load in LOADS {
                let (sequences, rows, before) = load;
                let timing = stage.time(bench.options.short, load)?;
                // What the causal mask hides is no work.
                let seen = rows * before + rows * (rows + 1) / 2;
                let macs = 2 * LAYERS * sequences * seen * heads * head_dim;
                let share = timing.giga(macs) / peak;
                print!("{:>16}", format!("{:.1} {:3.0}%", timing.giga(macs), 100.0 * share));
                std::io::stdout().flush()?;
                figures.push(json!({
                    "tier": tier.name(), "model": name, "sequences": sequences, "rows": rows,
                    "before": before, "gmac_per_s": timing.json(macs), "share_of_peak": share,
                }));
            }
            println!();
        }
    }
    Ok(figures.into())
}
