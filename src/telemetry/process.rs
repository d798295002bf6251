//! The process's own numbers, under the names that all Prometheus clients use.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{counter, describe_counter, describe_gauge, gauge};

/// Of the clock in `/proc/self/stat`: 100 on every Linux, whatever the kernel's own is.
const TICKS_PER_SECOND: u64 = 100;

/// Sets them. Where the system does not tell (no `/proc`), only the start time is there.
pub fn measure() {
    describe_gauge!("process_start_time_seconds", "Start of the process, in Unix time.");
    describe_gauge!("process_resident_memory_bytes", "Resident memory of the process.");
    describe_gauge!("process_open_fds", "Open file descriptors.");
    describe_gauge!("process_max_fds", "File descriptors that may be open.");
    describe_counter!("process_cpu_seconds_total", "Processor time used, in whole seconds.");
    gauge!("process_start_time_seconds").set(start_s());
    if let Some(kib) = resident_kib() {
        gauge!("process_resident_memory_bytes").set(kib * 1024.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the folder being read.
        gauge!("process_open_fds").set(open.count().saturating_sub(1) as f64);
    }
    if let Some(most) = max_fds() {
        gauge!("process_max_fds").set(most);
    }
    if let Some(ticks) = cpu_ticks() {
        counter!("process_cpu_seconds_total").absolute(ticks / TICKS_PER_SECOND);
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

/// `Max open files            1024                 524288               files`: the first is in force.
fn max_fds() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15, user and system time. The second field is a name in brackets, which may hold blanks.
fn cpu_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}
