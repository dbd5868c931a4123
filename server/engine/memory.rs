//! Determines how much memory this process may still use.
//!
//! Linux reports it in files: `/proc/meminfo` (`MemAvailable`: available without swapping), the control groups of the
//! process and all their ancestors (`memory.max` and `memory.high` of version 2, `memory.limit_in_bytes` of version 1;
//! a group's cached file pages are reclaimed on demand), and `/proc/self/limits`. Other systems are queried through
//! `sysinfo`. If nothing is reported, nothing is refused.
//!
//! Sources: proc(5), <https://docs.kernel.org/admin-guide/cgroup-v2.html>, cgroups(7).

use std::fs;
use std::path::{Path, PathBuf};

/// The place if the machine's memory is the bound and not a limit.
pub(crate) const MACHINE_PLACE: &str = "in this machine";

/// The memory that may still be used, and what bounds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AvailableMemory {
    pub(crate) bytes: u64,
    /// What bounds it, for messages: `in this machine`, `in the control group /x`.
    pub(crate) place: String,
}

/// Bytes of main memory that this process may still use; `None` if the system does not report it.
pub fn available_bytes() -> Option<u64> {
    MemoryProbe::System.available_memory().map(|available| available.bytes)
}

/// Where the available memory is read.
#[derive(Debug, Clone)]
pub(crate) enum MemoryProbe {
    /// This machine.
    System,
    /// A folder that represents `/`; tests write one.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests have one"))]
    Root(PathBuf),
}

impl MemoryProbe {
    /// The smallest of all bounds on this process; `None` if nothing is known.
    pub(crate) fn available_memory(&self) -> Option<AvailableMemory> {
        match self {
            Self::System if cfg!(target_os = "linux") => read_from_root(Path::new("/")),
            Self::System => system_memory(),
            Self::Root(root) => read_from_root(root),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn system_memory() -> Option<AvailableMemory> {
    use sysinfo::{MemoryRefreshKind, RefreshKind, System};
    let asked = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(asked);
    // 0 if it is not known.
    let bytes = Some(system.available_memory()).filter(|&bytes| bytes > 0)?;
    Some(AvailableMemory { bytes: bytes.saturating_add(system.free_swap()), place: MACHINE_PLACE.to_owned() })
}

#[cfg(target_os = "linux")]
fn system_memory() -> Option<AvailableMemory> {
    None
}

fn read_from_root(root: &Path) -> Option<AvailableMemory> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let swap = parse_kilobytes(&meminfo, "SwapFree:").unwrap_or(0);
    let machine = parse_kilobytes(&meminfo, "MemAvailable:")
        .map(|bytes| AvailableMemory { bytes: bytes.saturating_add(swap), place: MACHINE_PLACE.to_owned() });
    let all = machine.into_iter().chain(cgroup_limits(root, swap)).chain(process_limits(root));
    all.min_by_key(|available| available.bytes)
}

/// A line of `/proc/meminfo` or `/proc/self/status`, in bytes.
fn parse_kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The memory left by the control groups of this process and their ancestors.
fn cgroup_limits(root: &Path, swap: u64) -> Vec<AvailableMemory> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in own.lines() {
        // `hierarchy:controllers:path`; version 2 has no controllers there.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let base = root.join("sys/fs/cgroup");
        let (base, read): (_, fn(&Path, u64) -> Option<u64>) = match controllers {
            // Next to version 1, version 2 is mounted one level down.
            "" if base.join("unified").is_dir() => (base.join("unified"), cgroup_v2_available),
            "" => (base, cgroup_v2_available),
            _ if controllers.split(',').any(|it| it == "memory") => {
                (base.join("memory"), cgroup_v1_available)
            }
            _ => continue,
        };
        // In a container that sees its own group as the root, the path is `/`. A path to folders that do not exist
        // belongs to another view, and only the root is visible.
        let mut path = PathBuf::from(path.trim_start_matches('/'));
        if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            path = PathBuf::new();
        }
        loop {
            if let Some(bytes) = read(&base.join(&path), swap) {
                let place = format!("in the control group /{}", path.display());
                found.push(AvailableMemory { bytes, place });
            }
            if !path.pop() {
                break;
            }
        }
    }
    found
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The memory left in a group of version 2.
fn cgroup_v2_available(group: &Path, swap: u64) -> Option<u64> {
    let limits = ["memory.max", "memory.high"].map(|name| read_number(&group.join(name)));
    let limit = limits.into_iter().flatten().min()?;
    let used = read_number(&group.join("memory.current")).unwrap_or(0);
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let given_back = ["active_file", "inactive_file", "slab_reclaimable"];
    let given_back: u64 = given_back.iter().filter_map(|key| stat_value(&stat, key)).sum();
    let swap = match fs::read_to_string(group.join("memory.swap.max")) {
        Ok(most) if most.trim() == "max" => swap,
        Ok(most) => {
            let most: u64 = most.trim().parse().unwrap_or(0);
            most.saturating_sub(read_number(&group.join("memory.swap.current")).unwrap_or(0)).min(swap)
        }
        Err(_) => 0,
    };
    Some(limit.saturating_sub(used.saturating_sub(given_back)).saturating_add(swap))
}

/// The memory left in a group of version 1, where groups include their descendants only if they are hierarchical, as
/// all are by now.
fn cgroup_v1_available(group: &Path, _swap: u64) -> Option<u64> {
    let limit = read_number(&group.join("memory.limit_in_bytes"))?;
    let used = read_number(&group.join("memory.usage_in_bytes")).unwrap_or(0);
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let given_back: u64 =
        ["total_active_file", "total_inactive_file"].iter().filter_map(|key| stat_value(&stat, key)).sum();
    Some(limit.saturating_sub(used.saturating_sub(given_back)))
}

/// The value of a line `key value`.
fn stat_value(stat: &str, key: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The memory left by the limits of this process's address space and data (setrlimit(2)).
fn process_limits(root: &Path) -> Vec<AvailableMemory> {
    let limits = fs::read_to_string(root.join("proc/self/limits")).unwrap_or_default();
    let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    let rows = [
        ("Max address space", "VmSize:", "within this process's limit of address space (`ulimit -v`)"),
        ("Max data size", "VmData:", "within this process's limit of data (`ulimit -d`)"),
    ];
    let left = rows.into_iter().filter_map(|(limit, used, place)| {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
        let bytes = limit.saturating_sub(parse_kilobytes(&status, used)?);
        Some(AvailableMemory { bytes, place: place.to_owned() })
    });
    left.collect()
}

#[cfg(test)]
mod tests;
