//! The machine, and what this process may have of it.

use std::time::{Duration, SystemTime};

use super::report::{Check, size};
use crate::backend::cpu::gemm::Tier;
use crate::cli::cgroup;
use crate::config::{BackendConfig, Config, Kernels};
use crate::model;

/// Descriptors that are no connection: files, listeners, the runtime's own.
const OWN_DESCRIPTORS: u64 = 64;
/// Threads that do not compute: HTTP, logs, grammars, the engine.
const OWN_THREADS: u64 = 16;
/// How long the machine is watched.
const LOOK: Duration = Duration::from_millis(300);
const BUSY_PERCENT: u64 = 25;
/// A clock before this (2025-01-01) was never set.
const SANE_FROM_S: u64 = 1_735_689_600;
/// 2100-01-01.
const SANE_TO_S: u64 = 4_102_444_800;

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Threads that can run at one time: by affinity and quota, too.
fn usable() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn processor(config: Option<&BackendConfig>) -> Check {
    let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let name = name.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let there = cpuinfo.lines().filter(|l| l.starts_with("processor")).count().max(1);
    let (usable, quota) = (usable(), cgroup::cpu_quota());
    let threads = config.and_then(|c| c.threads).unwrap_or(usable);
    let quota_text = quota.map_or(String::new(), |q| format!(", a container's quota of {q:.1}"));
    let text = format!(
        "{name}, {there} cores, {usable} for this process{quota_text}; {threads} threads compute"
    );
    let check = Check::new("processor", text)
        .fact("model", name)
        .fact("cores", there)
        .fact("usable", usable)
        .fact("quota", quota)
        .fact("threads", threads);
    if threads > usable {
        return check.better(format!(
            "{threads} threads on {usable} cores wait for each other: take --threads {usable}, or leave it at auto."
        ));
    }
    check
}

pub(super) fn kernels(config: &BackendConfig) -> Check {
    let there: Vec<_> =
        Tier::ALL.into_iter().filter(|t| t.is_available()).map(Tier::name).collect();
    let best = there.first().copied().unwrap_or("scalar");
    let list = there.join(", ");
    let check = |text: String| {
        Check::new("kernels", text).fact("best", best).fact("available", there.clone())
    };
    if let Err(fault) = model::check_backend(config) {
        return check(format!("{fault}; this processor has {list}")).must(
            "The options ask for what this machine has not: take --device auto --kernels auto.",
        );
    }
    let taken = match config.kernels {
        Kernels::Auto => best,
        Kernels::Avx512 => Tier::Avx512.name(),
        Kernels::AvxVnni => Tier::AvxVnni.name(),
        Kernels::Avx2 => Tier::Avx2.name(),
        Kernels::Scalar => Tier::Scalar.name(),
        Kernels::Candle => "candle",
        Kernels::Neon => "neon",
    };
    let check = check(format!("{taken} (this processor has {list})")).fact("taken", taken);
    if taken != best {
        return check.better(format!("{best} kernels would be faster: take --kernels auto."));
    }
    match (best, cfg!(target_arch = "x86_64")) {
        ("scalar", true) => check.better(
            "No AVX2 shows, which makes a server several times slower: in a virtual machine, pass the host's \
             processor through (QEMU: -cpu host).",
        ),
        _ => check,
    }
}

pub(super) fn memory() -> Check {
    let (total, available, limit) =
        (meminfo("MemTotal"), meminfo("MemAvailable"), cgroup::memory_limit());
    let limit = limit.filter(|limit| total.is_none_or(|total| *limit < total));
    let text = match (total, available) {
        (Some(total), Some(available)) => {
            format!("{}, {} of it available", size(total), size(available))
        }
        _ => "the system does not tell".to_owned(),
    };
    let limit_text =
        limit.map_or(String::new(), |l| format!("; a container's limit of {}", size(l)));
    Check::new("memory", text + &limit_text)
        .fact("total_bytes", total)
        .fact("available_bytes", available)
        .fact("limit_bytes", limit)
}

/// What is available to this process now.
pub(super) fn available_bytes() -> Option<u64> {
    let available = meminfo("MemAvailable");
    available.into_iter().chain(cgroup::memory_limit()).min()
}

fn meminfo(key: &str) -> Option<u64> {
    let all = read("/proc/meminfo")?;
    let line = all.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The KV cache asks for huge pages; `None` where there are none to ask for.
pub(super) fn huge_pages() -> Option<Check> {
    let modes = read("/sys/kernel/mm/transparent_hugepage/enabled")?;
    let mode = modes.split_once('[')?.1.split_once(']')?.0;
    let check = Check::new("huge pages", mode.to_owned()).fact("mode", mode);
    Some(match mode {
        "never" => check.better(
            "The KV cache is read faster from huge pages: echo madvise | sudo tee \
             /sys/kernel/mm/transparent_hugepage/enabled.",
        ),
        _ => check,
    })
}

pub(super) fn open_files(config: &Config) -> Option<Check> {
    let (soft, hard) = limit_of("Max open files")?;
    let wanted = config.http.max_connections as u64;
    let text = format!("{} may be open, for up to {wanted} connections", shown(soft));
    let check = Check::new("open files", text).fact("limit", soft).fact("hard_limit", hard);
    let Some(soft) = soft.filter(|&soft| soft < wanted + OWN_DESCRIPTORS) else {
        return Some(check);
    };
    let fits = soft.saturating_sub(OWN_DESCRIPTORS).max(1);
    let (needed, by_container) =
        (wanted + OWN_DESCRIPTORS, "LimitNOFILE= of a unit, --ulimit nofile= of a container");
    Some(check.better(match hard {
        Some(hard) if hard < needed => format!(
            "{soft} open files are too few for {wanted} connections, and this user may not raise them beyond {hard}: \
             take --max-connections {fits}, or raise the limit ({by_container})."
        ),
        _ => format!(
            "{soft} open files are too few for {wanted} connections: ulimit -n {needed} before serve \
             ({by_container}), or --max-connections {fits}."
        ),
    }))
}

/// Processes and threads that may still be started, where a container counts them.
pub(super) fn processes(config: &BackendConfig) -> Option<Check> {
    let limit = cgroup::pids_limit()?;
    let needed = config.threads.unwrap_or_else(usable) as u64 + OWN_THREADS;
    let check =
        Check::new("processes", format!("a container's limit of {limit}")).fact("limit", limit);
    Some(if limit < needed {
        check.must(format!(
            "{limit} threads are too few, {needed} are needed: raise the container's limit (--pids-limit {needed})."
        ))
    } else {
        check
    })
}

/// Expiry of keys and certificates goes by it.
pub(super) fn clock() -> Check {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs());
    let check = Check::new("clock", crate::keys::Moment::now().to_string()).fact("unix_s", now);
    if (SANE_FROM_S..SANE_TO_S).contains(&now) {
        return check;
    }
    check.better(
        "The clock is wrong, and keys and certificates expire by it: timedatectl set-ntp true.",
    )
}

/// Somebody else computes here, too: seen by looking for a moment, in which this process does nothing.
pub(super) fn load() -> Option<Check> {
    let before = ticks()?;
    std::thread::sleep(LOOK);
    let (busy, all) = ticks()?;
    let (busy, all) = (busy.saturating_sub(before.0), all.saturating_sub(before.1));
    let percent = (busy * 100).checked_div(all)?;
    let check =
        Check::new("load", format!("{percent}% of the machine is busy without this server"))
            .fact("busy_percent", percent);
    Some(if percent > BUSY_PERCENT {
        check.better(
            "Others compute on this machine, and steps wait for the slowest thread: stop them (top shows them), or \
             take a lower --threads.",
        )
    } else {
        check
    })
}

/// Of all processors since the start: those in which something ran, and all.
fn ticks() -> Option<(u64, u64)> {
    let stat = read("/proc/stat")?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    // user nice system idle iowait irq softirq steal; guests are counted in the first two.
    let ticks: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
    let all = ticks.iter().sum::<u64>();
    Some((all.saturating_sub(ticks.get(3)? + ticks.get(4)?), all))
}

/// The limit in force, and what it may be raised to; `None` inside: no limit.
fn limit_of(name: &str) -> Option<(Option<u64>, Option<u64>)> {
    let limits = read("/proc/self/limits")?;
    let mut fields = limits.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace();
    let mut next = || fields.next().map(|field| field.parse().ok());
    Some((next()?, next()?))
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "any number".to_owned(), |limit| limit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_is_described() {
        assert!(meminfo("MemTotal").unwrap() > 1 << 20);
        assert!(available_bytes().unwrap() <= meminfo("MemTotal").unwrap());
        assert!(limit_of("Max open files").is_some());
        let (busy, all) = ticks().unwrap();
        assert!(busy <= all && all > 0);
        assert!(!processor(None).text.is_empty() && memory().change.is_empty());
    }
}
