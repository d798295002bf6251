//! Micro-benchmarks: each kernel of each tier, beside what this processor can do with the same threads.
//!
//! ```text
//! cargo bench --bench kernels -- [--short] [--threads N] [--only WORD] [--json FILE]
//! ```
//!
//! `--short` looks whether everything runs, in seconds. A file a family of kernels; each prints a table and adds its figures to the
//! JSON. Ends with a failure when a kernel's result is no number.

// A program for the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod attention;
mod gemm;
mod limits;
mod options;
mod timing;

use std::process::ExitCode;

use millrace::backend::cpu::gemm::{Kernels, Tier};
use millrace::backend::cpu::pool::Pool;
use serde_json::{Map, json};

use crate::limits::Limits;
use crate::options::Options;

/// What every family of kernels is measured with.
struct Bench {
    options: Options,
    pool: Pool,
    limits: Limits,
    /// Tiers that this processor has, best first.
    tiers: Vec<Kernels>,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn run() -> Result<()> {
    let options = Options::parse()?;
    let mut pool = Pool::new(options.threads)?;
    for tier in Tier::ALL.into_iter().filter(|t| !t.is_available()) {
        println!("{}: not run: this processor lacks what it needs", tier.name());
    }
    let tiers = Tier::ALL.into_iter().filter_map(Kernels::new).collect();
    let limits = Limits::measure(&mut pool, &options);
    let mut bench = Bench { options, pool, limits, tiers };

    let mut report = Map::new();
    report.insert("processor".into(), options::processor().into());
    report.insert("threads".into(), bench.options.threads.into());
    report.insert("limits".into(), bench.limits.json());
    report.insert("not_run".into(), not_run());
    if bench.options.wants("gemm") {
        report.insert("gemm".into(), gemm::measure(&mut bench)?);
    }
    if bench.options.wants("attention") {
        report.insert("attention".into(), attention::measure(&mut bench)?);
    }
    if let Some(path) = &bench.options.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

fn not_run() -> serde_json::Value {
    Tier::ALL.into_iter().filter(|t| !t.is_available()).map(|t| json!(t.name())).collect()
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
