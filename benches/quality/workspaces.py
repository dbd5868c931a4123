#!/usr/bin/env python3
"""Lays out the packages that completion tasks were cut from, one workspace each.

The `real_*` tasks know one file only. To measure completion with text from the
other files of the project, this fetches each task's package through its ordinary
client (pip, npm, cargo; no code of a package is run) and puts its source files at
OUT/<first folder of the task's path>/, so that OUT/<path of the task> is the file
the task was cut from. Other files that would give the answer away are left out:
build output, and every file with a copy of the code around the cursor. The task's
own file stays, with the answer in it: the program under test must not read it.
Packages whose folders have the same name share that folder.

    python3 workspaces.py OUT TASKS.jsonl...

OUT must be new, empty, or from an earlier run: what was fetched (OUT/.archives) is
not fetched again, and the folders are brought up to date. Give all the task files
in one call: only their leaks are looked for. Exits 2 on a wrong call, else 0.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

SOURCE = {".py", ".pyi", ".rs", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".mts", ".cts"}
LARGEST = 512 * 1024
BUILT = {"dist", "build", "cjs", "esm", "lib-es5", "umd", "node_modules"}
SCRIPT = re.compile(r"(\.d)?\.[cm]?[jt]sx?$")
KEY_LENGTH = 60  # of the code around a cursor, without white space
LINE_LENGTH = 30  # from here on a line is told when it also stands elsewhere


class Missing(Exception):
    """The package could not be had; the text says why."""


@dataclass
class Package:
    """One package of the tasks: its folder in OUT, its tasks, its files."""

    language: str
    name: str
    version: str
    folder: str
    tasks: list[dict] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    dropped: Counter = field(default_factory=Counter)
    why_missing: str = ""

    def __str__(self) -> str:
        return f"{self.language} {self.name} {self.version}"


def read_tasks(paths: list[str]) -> tuple[list[dict], list[Package]]:
    """The tasks of all files and the packages they name, each with its tasks."""
    tasks, packages = [], {}
    for path in paths:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            task = json.loads(line)
            meta, parts = task["meta"], PurePosixPath(task["path"]).parts
            folder = task["path"].removesuffix("/" + meta["file"])
            if folder == task["path"] or ".." in parts or task["path"].startswith(("/", ".")):
                raise ValueError(f"{path}: odd path {task['path']!r}")
            key = (task["language"], meta["package"], meta["version"], folder)
            packages.setdefault(key, Package(*key)).tasks.append(task)
            tasks.append(task)
    return tasks, list(packages.values())


def run(command: list[str], where: Path, **env: str) -> None:
    """Runs a package client; raises Missing with the end of what it said if it fails."""
    try:
        done = subprocess.run(command, cwd=where, env=os.environ | env,
                              capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise Missing(next((line for line in said if "rror" in line), said[-1]).strip())


def fetch(package: Package, archives: Path) -> Path:
    """The package's archive (wheel, npm tarball or crate), fetched if it is not there."""
    home = archives / f"{package.language}-{package.name}@{package.version}".replace("/", "+")
    if home.is_dir():
        return next(home.iterdir())
    with tempfile.TemporaryDirectory(dir=archives, prefix=".new-") as scratch:
        where = Path(scratch)
        if package.language == "python":
            run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                 "--dest", ".", f"{package.name}=={package.version}"], where)
            pattern = "*.whl"
        elif package.language == "rust":
            # `cargo info` fetches this one package, where `fetch` and `vendor` fetch all it depends on.
            run(["cargo", "info", "--quiet", f"{package.name}@{package.version}"], where,
                CARGO_HOME=str(where), CARGO_TARGET_DIR=str(where / "target"))
            pattern = f"registry/cache/*/{package.name}-{package.version}.crate"
        else:
            run(["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"], where)
            pattern = "*.tgz"
        found = list(where.glob(pattern))
        if len(found) != 1:
            raise Missing("its client fetched no archive")
        (where / "out").mkdir()
        found[0].rename(where / "out" / found[0].name)
        (where / "out").rename(home)
    return next(home.iterdir())


def unpack(archive: Path) -> dict[str, bytes]:
    """The archive's files of source code by path; a tarball's first folder is stripped."""
    files: dict[str, bytes] = {}

    def wanted(name: str, size: int) -> bool:
        path = PurePosixPath(name)
        return path.suffix in SOURCE and size <= LARGEST and not path.is_absolute() and ".." not in path.parts

    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if wanted(entry.filename, entry.file_size):
                    files[entry.filename] = packed.read(entry)
    else:
        with tarfile.open(archive) as packed:
            for entry in packed:
                name = entry.name.removeprefix("./").partition("/")[2]
                if entry.isfile() and name and wanted(name, entry.size):
                    files[name] = packed.extractfile(entry).read()
    return files


def tails(name: str) -> set[str]:
    """A script's path without its ending, and the same without its first folder."""
    stem = SCRIPT.sub("", name)
    return {stem, stem.partition("/")[2] or stem}


def drop_built(package: Package) -> None:
    """Leaves out build output, except what a task was cut from."""
    own = {task["meta"]["file"] for task in package.tasks}
    typed = set().union(*(tails(name) for name in package.files
                          if re.search(r"\.[cm]?tsx?$", name) and not re.search(r"\.d\.[cm]?ts$", name)))

    def reason(name: str, data: bytes) -> str:
        folders = name.split("/")[:-1]
        for depth, folder in enumerate(folders, 1):
            inside = "/".join(folders[:depth]) + "/"
            if folder in BUILT and not any(file.startswith(inside) for file in own):
                return "in build folders"
        if name in own or not SCRIPT.search(name):
            return ""
        if ".min." in name or len(data) > 300 * (data.count(b"\n") + 1):
            return "minified"
        made = re.search(r"(\.[cm]?jsx?|\.d\.[cm]?ts)$", name)
        return "compiled from a .ts here" if made and tails(name) & typed else ""

    for name, data in list(package.files.items()):
        if why := reason(name, data):
            package.dropped[why] += 1
            del package.files[name]


def squeeze(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


def around(task: dict) -> tuple[str, str]:
    """The cursor's whole line with the lines before it, and the line alone, squeezed."""
    *before, start = task["prefix"].split("\n")
    line = squeeze(start + task["expected"].split("\n")[0])
    key, lines = line, 0
    for text in map(squeeze, reversed(before)):
        if lines >= 2 and len(key) >= KEY_LENGTH:
            break
        if text:
            key, lines = text + key, lines + 1
    return key, line


def drop_leaks(packages: list[Package], tree: dict[str, str]) -> dict[str, list[str]]:
    """Takes the files with a copy of the code around a cursor out of the folder's `tree`.

    A file that another task was cut from stays; such files come back by task.
    """
    tasks = [task for package in packages for task in package.tasks]
    own = {task["meta"]["file"] for task in tasks}
    squeezed = {name: squeeze(text) for name, text in tree.items()}
    kept = defaultdict(list)
    for task in tasks:
        key, line = around(task)
        task["elsewhere"] = []
        for name, text in squeezed.items():
            if name == task["meta"]["file"] or name not in tree:
                continue
            if key in text:
                if name in own:
                    kept[task["id"]].append(name)
                else:
                    del tree[name]
                    print(f"  leak: {packages[0].folder}/{name} (of {task['id']})")
            elif len(line) >= LINE_LENGTH and line in text:
                task["elsewhere"].append(name)
    for task in tasks:
        task["elsewhere"] = [name for name in task["elsewhere"] if name in tree]
    return kept


def write(root: Path, files: dict[str, bytes]) -> None:
    """Makes the folder hold just these files; what is the same already is not written."""
    for path in sorted(root.rglob("*"), reverse=True) if root.is_dir() else []:
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(root).as_posix() not in files:
            path.unlink()
    for name, data in files.items():
        path = root / name
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def lay(out: Path, folder: str, packages: list[Package]) -> dict[str, list[str]]:
    """Fills one folder of OUT with its packages' files; the leaks that had to stay, by task."""
    files: dict[str, bytes] = {}
    owners: dict[str, Package] = {}
    own = {(id(package), task["meta"]["file"]) for package in packages for task in package.tasks}
    for package in packages:
        try:
            package.files = unpack(fetch(package, out / ".archives"))
        except (Missing, tarfile.TarError, zipfile.BadZipFile) as error:
            package.why_missing = str(error)
            continue
        drop_built(package)
        for name, data in package.files.items():
            if name in files and files[name] != data:
                taken = owners[name] if (id(package), name) in own else package
                taken.dropped["behind another package's"] += 1
                if taken is package:
                    continue
            files[name], owners[name] = data, package
    tree = {name: data.decode("utf-8", "replace").replace("\r\n", "\n") for name, data in files.items()}
    kept = drop_leaks(packages, tree)
    for name in files.keys() - tree.keys():
        owners[name].dropped["leaks"] += 1
    files = {name: data for name, data in files.items() if name in tree}
    write(out / folder, files)
    for package in packages:
        package.files = {name: data for name, data in files.items() if owners[name] is package}
    return kept


def match(out: Path, task: dict) -> str:
    """How the task's file in OUT fits the task: exact, near, differs or absent."""
    path = out / task["path"]
    if not path.is_file():
        return "absent"
    text = path.read_text(encoding="utf-8", errors="replace")  # also makes every newline "\n"
    if task["prefix"] + task["expected"] + task["suffix"] in text:
        return "exact"
    return "near" if task["prefix"][-200:] + task["expected"] in text else "differs"


def main(arguments: list[str]) -> int:
    """Lays out the workspaces and prints what is there; the exit code."""
    if len(arguments) < 2 or arguments[0].startswith("-"):
        print("usage: workspaces.py OUT TASKS.jsonl...", file=sys.stderr)
        return 2
    out = Path(arguments[0]).resolve()
    try:
        tasks, packages = read_tasks(arguments[1:])
    except (OSError, ValueError, KeyError) as error:
        print(f"workspaces.py: cannot use the tasks: {error!r}", file=sys.stderr)
        return 2
    archives = out / ".archives"
    if out.exists() and not archives.is_dir() and (not out.is_dir() or any(out.iterdir())):
        print("workspaces.py: OUT is neither new, empty, nor from an earlier run", file=sys.stderr)
        return 2
    archives.mkdir(parents=True, exist_ok=True)
    for stale in archives.glob(".new-*"):
        shutil.rmtree(stale)
    folders: dict[str, list[Package]] = defaultdict(list)
    for package in packages:
        folders[package.folder].append(package)

    kept: dict[str, list[str]] = {}
    for folder, inside in folders.items():
        kept |= lay(out, folder, inside)
        for package in inside:
            for task in package.tasks:
                task["match"] = match(out, task)
            counts = Counter(task["match"] for task in package.tasks)
            size = sum(map(len, package.files.values())) // 1024
            print(f"{package}: {package.why_missing or f'{len(package.files)} files, {size} KB'}; "
                  f"tasks {dict(counts)}; left out {dict(package.dropped)}", flush=True)

    print("\nleaks that stay, since another task was cut from the file:" if kept else "\nno leak had to stay")
    for name, files in kept.items():
        print(f"  {name}: {', '.join(files)}")
    for task in tasks:
        if task["match"] != "exact":
            print(f"{task['match']}: {task['id']}")
    for folder, inside in folders.items():
        if len(inside) > 1:
            print(f"share {folder}/: {', '.join(map(str, inside))} ({sum(len(p.tasks) for p in inside)} tasks)")
    print("\nset: tasks, exact, near, differs, absent; leak stays; the whole line elsewhere; context files there")
    for name in dict.fromkeys(task["set"] for task in tasks):
        of = [task for task in tasks if task["set"] == name]
        counts = Counter(task["match"] for task in of)
        context = [(out / file["path"]).is_file() for task in of for file in task.get("context") or []]
        print(f"{name}: {len(of)}, {', '.join(str(counts[k]) for k in ('exact', 'near', 'differs', 'absent'))}; "
              f"{sum(task['id'] in kept for task in of)}; {sum(bool(task['elsewhere']) for task in of)}; "
              f"{sum(context)} of {len(context)}")
    dropped = sum((package.dropped for package in packages), Counter())
    size = sum(len(data) for package in packages for data in package.files.values())
    print(f"{len(packages)} packages, {sum(len(p.files) for p in packages)} files, {size // 1024} KB; "
          f"left out {dict(dropped)}")
    for package in packages:
        if package.why_missing:
            print(f"missing: {package}: {package.why_missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
