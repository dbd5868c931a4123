//! What the system reports of a process: its memory, its children, whether it runs. Only Linux does.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "most tests that use it are Linux's"))]

use std::fs;
use std::process::Command;
use std::time::Instant;

use taper_engine::testing::print_skipped;

use crate::client::PATIENCE;

/// Resident memory of a process, in megabytes; `None`, with a notice, where the system does not report it.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    megabytes(pid, "VmRSS:")
}

/// Peak resident memory, in megabytes, as [`resident`].
pub(crate) fn peak(pid: u32) -> Option<u64> {
    megabytes(pid, "VmHWM:")
}

fn megabytes(pid: u32, name: &str) -> Option<u64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    Some(line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() * 1024 / 1_000_000)
}

/// Processor time that a process has taken, in clock ticks, as [`resident`].
pub(crate) fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = read(pid, "stat")?;
    // proc(5): fields 14 and 15, user and system; the name in brackets is field 2.
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    Some(fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum())
}

fn read(pid: u32, file: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    if text.is_none() {
        print_skipped("this system does not report the memory and the time that a process takes");
    }
    text
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
