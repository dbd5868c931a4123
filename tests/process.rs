//! What the system reports of a process: its memory, its children, whether it runs.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::client::PATIENCE;

/// Resident memory of a process, in megabytes.
pub(crate) fn resident(pid: u32) -> u64 {
    megabytes(pid, "VmRSS:")
}

/// Peak resident memory, in megabytes.
pub(crate) fn peak(pid: u32) -> u64 {
    megabytes(pid, "VmHWM:")
}

fn megabytes(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() * 1024 / 1_000_000
}

/// Running children of this process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map_while(Result::ok);
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<u32> = lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
        .collect();
    all.into_iter().filter(|&pid| is_running(pid)).collect()
}

/// Waits for the only child of this process.
#[track_caller]
pub(crate) fn only_child(pid: u32) -> u32 {
    let end = Instant::now() + PATIENCE;
    loop {
        match children(pid)[..] {
            [child] => return child,
            ref other => assert!(Instant::now() < end, "{other:?}"),
        }
        std::thread::yield_now();
    }
}

/// Whether a process runs. One whose threads have all ended but that was not waited for does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads > 1 || stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends a process a signal.
pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Kills a process and waits until it has ended.
#[track_caller]
pub(crate) fn kill(pid: u32) {
    signal(pid, "KILL");
    wait_ended(pid);
}

/// Waits until a process has ended.
#[track_caller]
pub(crate) fn wait_ended(pid: u32) {
    let end = Instant::now() + PATIENCE;
    while is_running(pid) {
        assert!(Instant::now() < end, "it still runs");
        std::thread::yield_now();
    }
}
