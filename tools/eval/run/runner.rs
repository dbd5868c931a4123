//! Runs the tests of completions: generated code, so in a sandboxed process without network or privileges.
//!
//! The sandbox uses programs of util-linux and coreutils: `timeout` (wall clock), `unshare` (no network, no other
//! processes visible), `setpriv` (an unprivileged user, if we are root), `prlimit` (processor time, memory, file size,
//! open files). The process can still read what every user of the machine can read, and write to folders that every
//! user can write to; if that is too much, run this in a container.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::tasks::Task;

/// Wall clock of one program, its compiler included, in seconds.
const SECONDS: &str = "30";
/// Processor time, seconds.
const CPU: &str = "--cpu=15";
/// Address space of programs that do not reserve more than they use: 1 GiB.
const MEMORY: &str = "--as=1073741824";
/// The largest file that may be written: 64 MiB, a compiler's output.
const FILE: &str = "--fsize=67108864";
/// Open files.
const FILES: &str = "--nofile=64";
/// The unprivileged user.
const NOBODY: &str = "65534";
/// The search path for interpreters and compilers; nothing of our own environment is passed on.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How to run a language's program: its file, and the commands, in `sh` syntax, in its folder.
struct Runner {
    name: &'static str,
    file: &'static str,
    /// Code before the program.
    before: &'static str,
    command: &'static str,
    /// Whether to limit the address space: not for virtual machines that reserve more than they use, which have their
    /// own limit.
    limits_memory: bool,
}

static RUNNERS: &[Runner] = &[
    Runner {
        name: "python",
        file: "main.py",
        before: "",
        command: "exec python3 -I main.py",
        limits_memory: true,
    },
    Runner {
        name: "node",
        file: "main.js",
        // Node's own assert only prints.
        before: "console.assert = (ok, ...said) => { if (!ok) throw new Error(said.join(' ')); };\n",
        command: "exec node --max-old-space-size=512 main.js",
        limits_memory: false,
    },
    Runner {
        name: "cpp",
        file: "main.cpp",
        before: "",
        command: "g++ -std=c++17 -w -o main main.cpp && exec ./main",
        limits_memory: true,
    },
    Runner {
        name: "java",
        file: "Main.java",
        before: "",
        command: "javac -nowarn -J-Xmx512m Main.java && exec java -Xmx512m -ea Main",
        limits_memory: false,
    },
];

fn runner(task: &Task) -> Option<&'static Runner> {
    let name = task.tests.as_ref()?.runner.as_deref()?;
    RUNNERS.iter().find(|it| it.name == name)
}

/// Whether the task has tests, and a runner for them.
pub(super) fn can_test(task: &Task) -> bool {
    runner(task).is_some_and(available)
}

/// Whether the task's program passes with `completion` in its hole; of one-line kinds, with its first line. `None` if
/// the task has no tests or this machine no runner.
///
/// # Errors
/// The folder for the program cannot be created, or the sandbox cannot be started.
pub(super) fn passes(task: &Task, completion: &str) -> Result<Option<bool>> {
    let (Some(tests), Some(runner)) = (&task.tests, runner(task)) else { return Ok(None) };
    if !available(runner) {
        return Ok(None);
    }
    let completion = if task.one_line() { line(completion) } else { completion };
    let program = [runner.before, &task.prefix, completion, &task.suffix, &tests.after].concat();
    run(runner, &program).map(Some)
}

/// The first line that is not blank, with its indentation.
fn line(completion: &str) -> &str {
    completion.lines().find(|line| !line.trim().is_empty()).unwrap_or("")
}

fn run(runner: &Runner, program: &str) -> Result<bool> {
    let folder = tempfile::tempdir().context("cannot make a folder for a test")?;
    let path = folder.path();
    fs::write(path.join(runner.file), program)
        .and_then(|()| open_to_all(path))
        .with_context(|| format!("cannot write a test to {}", path.display()))?;
    let status = sandboxed(path, runner.command, runner.limits_memory, sandbox()?)
        .status()
        .context("cannot run `timeout`")?;
    Ok(status.success())
}

/// Allows the unprivileged user to write to the folder.
#[cfg(unix)]
fn open_to_all(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777))
}

#[cfg(not(unix))]
fn open_to_all(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The sandbox's features on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sandbox {
    /// Its own network without connections.
    no_network: bool,
    /// We are root, so privileges must be dropped.
    root: bool,
}

/// `sh -c command` inside the sandbox.
fn sandboxed(folder: &Path, command: &str, limit_memory: bool, sandbox: Sandbox) -> Command {
    let mut out = Command::new("timeout");
    out.args(["--signal=KILL", SECONDS]);
    if sandbox.no_network {
        out.args(["unshare", "--net", "--ipc", "--pid", "--fork", "--kill-child"]);
        if !sandbox.root {
            out.args(["--user", "--map-current-user"]);
        }
        out.arg("--");
    }
    if sandbox.root {
        let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
        out.args(["setpriv", &user, &group, "--clear-groups", "--no-new-privs", "--"]);
    }
    out.args(["prlimit", CPU, FILE, FILES, "--core=0"]);
    if limit_memory {
        out.arg(MEMORY);
    }
    out.args(["--", "sh", "-c", command]);
    out.current_dir(folder).env_clear().env("PATH", PATH).env("HOME", folder).env("TMPDIR", folder);
    out.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    out
}

/// Determines the sandbox's features, once.
fn sandbox() -> Result<Sandbox> {
    static SANDBOX: OnceLock<Option<Sandbox>> = OnceLock::new();
    let tried = SANDBOX.get_or_init(|| {
        let id = Command::new("id").arg("-u").output().ok()?;
        let root = id.stdout.trim_ascii() == b"0";
        let folder = std::env::temp_dir();
        let works = |sandbox: &Sandbox| {
            sandboxed(&folder, "true", true, *sandbox).status().is_ok_and(|status| status.success())
        };
        [true, false].map(|no_network| Sandbox { no_network, root }).into_iter().find(works)
    });
    match tried {
        Some(sandbox) => Ok(*sandbox),
        None => bail!(
            "cannot sandbox generated code: install timeout (coreutils), setpriv and prlimit (util-linux), \
             or run without --run-tests"
        ),
    }
}

/// Whether a runner's programs are installed, determined once.
fn available(runner: &Runner) -> bool {
    static AVAILABLE: OnceLock<Vec<&'static str>> = OnceLock::new();
    let names = AVAILABLE.get_or_init(|| {
        let trivial = |name: &str| match name {
            "cpp" => "int main() { return 0; }",
            "java" => "public class Main { public static void main(String[] a) {} }",
            _ => "",
        };
        let works = |it: &&Runner| run(it, trivial(it.name)).unwrap_or(false);
        RUNNERS.iter().filter(works).map(|it| it.name).collect()
    });
    names.contains(&runner.name)
}

/// Checks that tests can be run, and prints how.
///
/// # Errors
/// They cannot be run.
pub(super) fn ready() -> Result<()> {
    let Sandbox { no_network, root } = sandbox()?;
    let here: Vec<&str> = RUNNERS.iter().filter(|it| available(it)).map(|it| it.name).collect();
    let network = if no_network { "no network" } else { "WITH NETWORK, since `unshare --net` fails" };
    let user = if root { "as an unprivileged user" } else { "as this user" };
    super::print_progress(&format!(
        "tests run {user}, {network}, {SECONDS} s; for {} (other languages have no pass@1)",
        here.join(", ")
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use taper_engine::testing::print_skipped;

    use super::*;
    use crate::tasks::Tests;

    fn task(runner: &str, kind: &str, marked: &str, after: &str) -> Task {
        let (prefix, suffix) = marked.split_once('▮').unwrap();
        Task {
            kind: kind.into(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            tests: Some(Tests { runner: Some(runner.into()), after: after.into() }),
            ..Task::default()
        }
    }

    /// `None`, with a notice, if the machine has no sandbox or no interpreter: then nothing runs.
    fn verdict(task: &Task, completion: &str) -> Option<bool> {
        let verdict = sandbox().is_ok().then(|| passes(task, completion).unwrap()).flatten();
        if verdict.is_none() {
            print_skipped("this machine has no sandbox for generated code, or no interpreter for it");
        }
        verdict
    }

    #[test]
    fn right_completion_passes_and_wrong_fails() {
        let python = task("python", "line", "def f(x):\n    ▮\n", "assert f(2) == 4\n");
        assert_ne!(verdict(&python, "return x * 2\nnot looked at"), Some(false));
        assert_ne!(verdict(&python, "return x"), Some(true));
        let node = task("node", "block", "const f = x => ▮;\n", "console.assert(f(2) === 4)\n");
        assert_ne!(verdict(&node, "x * 2"), Some(false));
        assert_ne!(verdict(&node, "x"), Some(true));
    }

    #[test]
    fn tasks_without_runner_are_not_tested() {
        assert_eq!(passes(&task("cobol", "line", "▮", ""), "x").unwrap(), None);
        assert_eq!(passes(&Task::default(), "x").unwrap(), None);
    }

    #[test]
    fn sandbox_limits_are_enforced() {
        let Ok(sandbox) = sandbox() else {
            return print_skipped("this machine has no sandbox for generated code");
        };
        let program = |body: &str| task("python", "block", "▮", body);
        let fails = |body: &str| assert_ne!(verdict(&program(body), ""), Some(true), "{body}");
        fails("x = bytearray(2 << 30)\n");
        fails("open('big', 'wb').write(b'x' * (100 << 20))\n");
        fails("import os; open('/etc/taper-eval-test', 'w')\n");
        if sandbox.root {
            fails("import os; assert os.getuid() == 0\n");
        }
        if sandbox.no_network {
            // Without a network even the loopback device is down.
            let dial = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                        s.connect(('127.0.0.1', 9))\ns.send(b'x')\n";
            fails(dial);
        }
    }
}
