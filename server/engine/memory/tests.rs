//! Tests of machines, control groups and limits of all kinds, built as folders of files.

use super::*;

const GB: u64 = 1 << 30;

/// A folder that represents `/`.
struct FakeRoot(tempfile::TempDir);

impl FakeRoot {
    /// A machine with 8 GB available, 2 GB of them swap.
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        root.with_file(
            "proc/meminfo",
            "MemTotal: 16777216 kB\nMemAvailable:    6291456 kB\nSwapFree: 2097152 kB\n",
        )
    }

    fn with_file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn with_group(self, path: &str, files: &[(&str, &str)]) -> Self {
        files
            .iter()
            .fold(self, |root, (name, text)| root.with_file(&format!("sys/fs/cgroup/{path}/{name}"), text))
    }

    #[track_caller]
    fn assert_available(&self, bytes: u64, place: &str) {
        let available = MemoryProbe::Root(self.0.path().to_owned()).available_memory().unwrap();
        assert_eq!((available.bytes, available.place.as_str()), (bytes, place));
    }
}

#[test]
fn available_memory_comes_from_meminfo() {
    FakeRoot::new().assert_available(8 * GB, "in this machine");
    FakeRoot::new().with_file("proc/self/cgroup", "0::/\n").assert_available(8 * GB, "in this machine");
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(MemoryProbe::Root(nothing.path().to_owned()).available_memory(), None);
    let odd = FakeRoot::new()
        .with_file("proc/meminfo", "MemAvailable: lots kB\n\n:::\n")
        .with_file("proc/self/cgroup", "0:\nx\n");
    assert_eq!(MemoryProbe::Root(odd.0.path().to_owned()).available_memory(), None);
}

#[test]
fn smallest_limit_of_nested_cgroups_counts() {
    let root = || FakeRoot::new().with_file("proc/self/cgroup", "0::/user.slice/app.scope\n");
    let (own, parent) = ("user.slice/app.scope", "user.slice");
    root().with_group(own, &[("memory.max", "max\n")]).assert_available(8 * GB, "in this machine");
    root()
        .with_group(own, &[("memory.max", "1073741824\n"), ("memory.current", "73741824\n")])
        .assert_available(1_000_000_000, "in the control group /user.slice/app.scope");
    // The limit of an ancestor applies as well.
    root()
        .with_group(own, &[("memory.max", "4294967296\n"), ("memory.current", "0\n")])
        .with_group(parent, &[("memory.max", "2147483648\n"), ("memory.current", "1073741824\n")])
        .assert_available(GB, "in the control group /user.slice");
    root().with_group("", &[("memory.max", "1000\n")]).assert_available(1000, "in the control group /");
    // Cached file pages are reclaimed.
    let stat = "anon 100\nfile 900\ninactive_file 500\nactive_file 300\nslab_reclaimable 50\n";
    root()
        .with_group(own, &[("memory.max", "2000\n"), ("memory.current", "1000\n"), ("memory.stat", stat)])
        .assert_available(1850, "in the control group /user.slice/app.scope");
    // Above `high` a group is throttled to a standstill.
    root()
        .with_group(own, &[("memory.max", "max\n"), ("memory.high", "3000\n"), ("memory.current", "1000\n")])
        .assert_available(2000, "in the control group /user.slice/app.scope");
    // Swap that a group may use.
    let files = [("memory.max", "1000\n"), ("memory.swap.max", "max\n"), ("memory.current", "0\n")];
    root()
        .with_group(own, &files)
        .assert_available(1000 + 2 * GB, "in the control group /user.slice/app.scope");
    let swap = [("memory.swap.max", "700\n"), ("memory.swap.current", "200\n")];
    root()
        .with_group(own, &files)
        .with_group(own, &swap)
        .assert_available(1500, "in the control group /user.slice/app.scope");
    // More memory is used than allowed.
    let over = [("memory.max", "1000\n"), ("memory.current", "5000\n")];
    root().with_group(own, &over).assert_available(0, "in the control group /user.slice/app.scope");
}

#[test]
fn cgroup_v1_limits_count() {
    let own =
        "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n";
    let root = || FakeRoot::new().with_file("proc/self/cgroup", own);
    let unlimited = [("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "5\n")];
    root().with_group("memory/docker/abc", &unlimited).assert_available(8 * GB, "in this machine");
    let stat = "cache 5\ninactive_file 1\ntotal_inactive_file 30\ntotal_active_file 20\n";
    let limited =
        [("memory.limit_in_bytes", "1000\n"), ("memory.usage_in_bytes", "400\n"), ("memory.stat", stat)];
    root()
        .with_group("memory/docker/abc", &limited)
        .assert_available(650, "in the control group /docker/abc");
    // In the container itself the group is mounted at the root, regardless of its path.
    root().with_group("memory", &limited).assert_available(650, "in the control group /");
    // Both versions at once.
    let second = [("memory.max", "300\n"), ("memory.current", "100\n")];
    root()
        .with_group("memory/docker/abc", &limited)
        .with_group("unified/docker/abc", &second)
        .assert_available(200, "in the control group /docker/abc");
}

#[test]
fn cgroup_path_outside_root_is_ignored() {
    FakeRoot::new()
        .with_file("proc/self/cgroup", "0::/../../../etc\n")
        .with_file("etc/memory.max", "1\n")
        .with_group("", &[("memory.max", "5000\n")])
        .assert_available(5000, "in the control group /");
}

#[test]
fn process_rlimits_count() {
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max data size             unlimited            unlimited            bytes     \n\
                  Max address space         1048576000           unlimited            bytes     \n";
    let root = || {
        FakeRoot::new()
            .with_file("proc/self/status", "Name:\ttaper\nVmSize:\t   24000 kB\nVmData:\t 1000 kB\n")
    };
    root().with_file("proc/self/limits", limits).assert_available(
        1_048_576_000 - 24_576_000,
        "within this process's limit of address space (`ulimit -v`)",
    );
    root()
        .with_file(
            "proc/self/limits",
            &limits.replace("unlimited            unl", "2048000              unl"),
        )
        .assert_available(1_024_000, "within this process's limit of data (`ulimit -d`)");
}

#[test]
fn available_memory_of_this_machine_is_plausible() {
    if cfg!(target_os = "linux") {
        let available = MemoryProbe::System.available_memory().unwrap();
        assert!(available.bytes > 0 && available.bytes < 1 << 50, "{available:?}");
    }
}
