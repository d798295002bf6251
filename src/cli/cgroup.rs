//! What the control group of this process allows it: a container's limits, or those of a service.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Bytes of memory.
pub(crate) fn memory_limit() -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    least(&[("memory", "memory.max"), ("memory", "memory.limit_in_bytes")], number)
}

/// Processors, in fractions of one.
pub(crate) fn cpu_quota() -> Option<f64> {
    let v2 = least(&[("cpu", "cpu.max")], |text| {
        let (quota, period) = text.trim().split_once(' ')?;
        hundredths(quota.parse().ok()?, period.parse().ok()?)
    });
    let v1 = || {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let quota = least(&[("cpu", "cpu.cfs_quota_us")], number)?;
        hundredths(quota, least(&[("cpu", "cpu.cfs_period_us")], number)?)
    };
    v2.or_else(v1).map(|hundredths| hundredths as f64 / 100.0)
}

/// Processes and threads.
pub(crate) fn pids_limit() -> Option<u64> {
    least(&[("pids", "pids.max")], |text| text.trim().parse().ok())
}

fn hundredths(quota: u64, period: u64) -> Option<u64> {
    (quota * 100).checked_div(period)
}

/// The least that any of these files says, of the group itself and those above it. One that says `max` limits nothing.
fn least(files: &[(&str, &str)], read: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let value = |path: PathBuf| read(&std::fs::read_to_string(path).ok()?);
    let all = files.iter().flat_map(|(controller, file)| {
        folders(Path::new(ROOT), &own, controller).into_iter().map(move |folder| folder.join(file))
    });
    all.filter_map(value).min()
}

/// Where limits of `controller` may stand, `own` being the groups of this process: in its own folder and those above it, of
/// either version. Inside a container the root is the container's own, whatever the path says.
fn folders(root: &Path, own: &str, controller: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned(), root.join(controller)];
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let base = match controllers {
            "" => root.to_owned(),
            names if names.split(',').any(|name| name == controller) => root.join(controller),
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        // A path with `..` is outside of what this process sees.
        if own.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            found.extend(own.ancestors().map(|above| base.join(above)));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_stand_in_the_own_group_and_those_above_it() {
        let named = |own: &str| -> Vec<String> {
            let all = folders(Path::new("/r"), own, "memory");
            all.iter().map(|p| p.to_string_lossy().trim_end_matches('/').to_owned()).collect()
        };
        let v2 = named("0::/system.slice/millrace.service\n");
        assert_eq!(v2, ["/r", "/r/memory", "/r/system.slice", "/r/system.slice/millrace.service"],);
        let v1 = named("4:cpu,cpuacct:/a\n3:memory:/docker/x\n1:name=systemd:/b\n");
        assert_eq!(v1, ["/r", "/r/memory", "/r/memory/docker", "/r/memory/docker/x"]);
        assert_eq!(named("0::/../../x\nnonsense\n0:\n"), ["/r", "/r/memory"]);
    }

    #[test]
    fn a_quota_is_processors() {
        assert_eq!(hundredths(150_000, 100_000), Some(150));
        assert_eq!(hundredths(1, 0), None);
    }
}
