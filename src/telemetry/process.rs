//! The process's own numbers, under the names that all Prometheus clients use.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{describe_gauge, gauge};

/// Sets the gauges. Where the system does not tell (no `/proc`), only the start time is there.
pub fn measure() {
    describe_gauge!("process_start_time_seconds", "Start of the process, in Unix time.");
    describe_gauge!("process_resident_memory_bytes", "Resident memory of the process.");
    describe_gauge!("process_open_fds", "Open file descriptors.");
    gauge!("process_start_time_seconds").set(start_s());
    if let Some(kib) = resident_kib() {
        gauge!("process_resident_memory_bytes").set(kib * 1024.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the folder being read.
        gauge!("process_open_fds").set(open.count().saturating_sub(1) as f64);
    }
}

/// When the process first asked; the server asks as it starts.
fn start_s() -> f64 {
    static START: OnceLock<f64> = OnceLock::new();
    *START.get_or_init(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
    })
}

fn resident_kib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
