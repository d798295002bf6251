//! The program's arguments, and what it says of the machine.

use std::path::PathBuf;

use crate::Result;

pub(crate) struct Options {
    pub(crate) short: bool,
    pub(crate) threads: usize,
    only: Option<String>,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse() -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Self { short: false, threads, only: None, json: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--short" => options.short = true,
                "--threads" => options.threads = value()?.parse::<usize>()?.max(1),
                "--only" => options.only = Some(value()?),
                "--json" => options.json = Some(value()?.into()),
                // What cargo gives every benchmark.
                "--bench" => {}
                other => return Err(format!("{other}: no such option").into()),
            }
        }
        Ok(options)
    }

    /// Whether a family of kernels, named `family`, is to be measured.
    pub(crate) fn wants(&self, family: &str) -> bool {
        self.only.as_ref().is_none_or(|word| family.contains(word.as_str()))
    }
}

fn line_of(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The processor's name as Linux has it.
pub(crate) fn processor() -> String {
    line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned())
}

/// Bytes of the last cache, as far as Linux says.
pub(crate) fn last_cache() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size").ok()?;
    text.trim().strip_suffix('K')?.parse::<usize>().ok().map(|k| k << 10)
}

/// Bytes of memory that are free to use, as far as Linux says.
pub(crate) fn free_memory() -> Option<usize> {
    let text = line_of("/proc/meminfo", "MemAvailable")?;
    text.strip_suffix("kB")?.trim().parse::<usize>().ok().map(|k| k << 10)
}
