//! Machines, control groups and limits of all kinds, as folders of files.
//! It knows nothing of the machine that it runs on, but for one test.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

const GB: u64 = 1 << 30;

/// A folder that stands for `/`.
struct Root(tempfile::TempDir);

impl Root {
    /// A machine with 8 GB available, 2 GB of them swap.
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        root.file(
            "proc/meminfo",
            "MemTotal: 16777216 kB\nMemAvailable:    6291456 kB\nSwapFree: 2097152 kB\n",
        )
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn group(self, path: &str, files: &[(&str, &str)]) -> Self {
        files.iter().fold(self, |root, (name, text)| root.file(&format!("sys/fs/cgroup/{path}/{name}"), text))
    }

    #[track_caller]
    fn has(&self, bytes: u64, place: &str) {
        let available = Memory::In(self.0.path().to_owned()).available().unwrap();
        assert_eq!((available.bytes, available.place.as_str()), (bytes, place));
    }
}

#[test]
fn what_is_available_is_what_the_machine_says() {
    Root::new().has(8 * GB, "in this machine");
    Root::new().file("proc/self/cgroup", "0::/\n").has(8 * GB, "in this machine");
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(Memory::In(nothing.path().to_owned()).available(), None);
    let odd = Root::new()
        .file("proc/meminfo", "MemAvailable: lots kB\n\n:::\n")
        .file("proc/self/cgroup", "0:\nx\n");
    assert_eq!(Memory::In(odd.0.path().to_owned()).available(), None);
}

#[test]
fn the_narrowest_of_nested_control_groups_counts() {
    let root = || Root::new().file("proc/self/cgroup", "0::/user.slice/app.scope\n");
    let (own, parent) = ("user.slice/app.scope", "user.slice");
    root().group(own, &[("memory.max", "max\n")]).has(8 * GB, "in this machine");
    root()
        .group(own, &[("memory.max", "1073741824\n"), ("memory.current", "73741824\n")])
        .has(1_000_000_000, "in the control group /user.slice/app.scope");
    // The limit of a group above holds as well.
    root()
        .group(own, &[("memory.max", "4294967296\n"), ("memory.current", "0\n")])
        .group(parent, &[("memory.max", "2147483648\n"), ("memory.current", "1073741824\n")])
        .has(GB, "in the control group /user.slice");
    root().group("", &[("memory.max", "1000\n")]).has(1000, "in the control group /");
    // What is cached of files is given back.
    let stat = "anon 100\nfile 900\ninactive_file 500\nactive_file 300\nslab_reclaimable 50\n";
    root()
        .group(own, &[("memory.max", "2000\n"), ("memory.current", "1000\n"), ("memory.stat", stat)])
        .has(1850, "in the control group /user.slice/app.scope");
    // Above `high` a group is slowed down until it stands still.
    root()
        .group(own, &[("memory.max", "max\n"), ("memory.high", "3000\n"), ("memory.current", "1000\n")])
        .has(2000, "in the control group /user.slice/app.scope");
    // Swap that a group may use.
    let files = [("memory.max", "1000\n"), ("memory.swap.max", "max\n"), ("memory.current", "0\n")];
    root().group(own, &files).has(1000 + 2 * GB, "in the control group /user.slice/app.scope");
    let swap = [("memory.swap.max", "700\n"), ("memory.swap.current", "200\n")];
    root().group(own, &files).group(own, &swap).has(1500, "in the control group /user.slice/app.scope");
    // More is used than is allowed.
    let over = [("memory.max", "1000\n"), ("memory.current", "5000\n")];
    root().group(own, &over).has(0, "in the control group /user.slice/app.scope");
}

#[test]
fn control_groups_of_the_first_version_count_too() {
    let own =
        "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n";
    let root = || Root::new().file("proc/self/cgroup", own);
    let unlimited = [("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "5\n")];
    root().group("memory/docker/abc", &unlimited).has(8 * GB, "in this machine");
    let stat = "cache 5\ninactive_file 1\ntotal_inactive_file 30\ntotal_active_file 20\n";
    let limited =
        [("memory.limit_in_bytes", "1000\n"), ("memory.usage_in_bytes", "400\n"), ("memory.stat", stat)];
    root().group("memory/docker/abc", &limited).has(650, "in the control group /docker/abc");
    // In the container itself the group is mounted at the top, whatever its path says.
    root().group("memory", &limited).has(650, "in the control group /");
    // Both versions at once.
    let second = [("memory.max", "300\n"), ("memory.current", "100\n")];
    root()
        .group("memory/docker/abc", &limited)
        .group("unified/docker/abc", &second)
        .has(200, "in the control group /docker/abc");
}

#[test]
fn a_path_that_leads_out_of_the_groups_is_not_followed() {
    Root::new()
        .file("proc/self/cgroup", "0::/../../../etc\n")
        .file("etc/memory.max", "1\n")
        .group("", &[("memory.max", "5000\n")])
        .has(5000, "in the control group /");
}

#[test]
fn the_process_s_own_limits_count() {
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max data size             unlimited            unlimited            bytes     \n\
                  Max address space         1048576000           unlimited            bytes     \n";
    let root =
        || Root::new().file("proc/self/status", "Name:\ttaper\nVmSize:\t   24000 kB\nVmData:\t 1000 kB\n");
    root()
        .file("proc/self/limits", limits)
        .has(1_048_576_000 - 24_576_000, "within this process's limit of address space (`ulimit -v`)");
    root()
        .file("proc/self/limits", &limits.replace("unlimited            unl", "2048000              unl"))
        .has(1_024_000, "within this process's limit of data (`ulimit -d`)");
}

#[test]
fn this_machine_says_something() {
    if cfg!(target_os = "linux") {
        let available = Memory::Here.available().unwrap();
        assert!(available.bytes > 0 && available.bytes < 1 << 50, "{available:?}");
    }
}
