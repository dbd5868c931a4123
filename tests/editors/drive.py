"""Drives real editors with the shipped configurations and the built server: types, accepts, saves, compares.
It uses the screen and the files as a user does.

usage: drive.py --taper BINARY --tools FOLDER --out FOLDER [--model FILE] [--only PATTERN-OF-NAMES] [--editor NAME…]

Needs the folder that get_editors.sh fills. `--model` adds the checks with a real model, which is the default one of
0.5 B, as a file; without it only the scripted engine answers. One line per check, then `N passed, N failed`; the exit status is 0 if all passed.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

# pylint: disable=wrong-import-position
import contract
import helix
import plugin
from helix import Helix
from hub import Hub
from neovim import Bare, Native, Neovim, Neovim010, Neovim011
from terminal import Failed, Terminal, svg, wait

CURSOR = "▮"


# No script, and no model either. (No goals at all: the real model.)
NO_MODEL = ()
DEFAULT = "qwen2.5-coder-0.5b"


def split(fixture):
    """Cuts a fixture at its cursor."""
    before, found, after = fixture.partition(CURSOR)
    if not found:
        raise ValueError("a fixture without a cursor")
    return before, after


def read(path):
    """A file's bytes. Helix saves by moving files, so the file is missing for a moment."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


class Bench:
    """Where checks run: one editor, one server, one folder of files, one place for pictures."""

    def __init__(self, editor, shipped, options, goals, between=False, **more):
        self.options, self.kind, self.shipped = options, editor, shipped
        self.folder = tempfile.mkdtemp(prefix=f"taper-{editor.name}-")
        self.work = os.path.join(self.folder, "work")
        os.makedirs(os.path.join(self.work, ".git"))
        self.log = os.path.join(options.out, f"{editor.name}-{'script' if goals else 'model'}.log")
        self.said = os.path.join(options.out, f"{editor.name}-said.log")
        self.env = {**os.environ, "PATH": self._server(goals, between) + os.pathsep + os.environ["PATH"], "HOME": self.folder}
        self.others = []
        self.editor = editor(options.tools, shipped, self.folder, self.work, self.env, **more)

    def _server(self, goals, between):
        """A `taper` on the PATH, so that the shipped configuration runs unchanged: the built binary with an
        engine or a model named, models where the test says, no user configuration, its log kept; `between` the two
        is the proxy that records their messages."""
        extra, models = ["--model", self.options.model or "auto"], os.environ.get("TAPER_HOME", "")
        if goals:
            script = os.path.join(self.folder, "script")
            with open(script, "w", encoding="utf-8") as file:
                file.write(write_script(goals, 40 if between else 0))
            extra = ["--engine", "scripted:" + script]
        elif goals == NO_MODEL:
            extra, models = ["--model", DEFAULT, "--offline"], os.path.join(self.folder, "models")
        folder = os.path.join(self.folder, "bin")
        os.makedirs(folder)
        shim = os.path.join(folder, "taper")
        quoted = " ".join("'" + part.replace("'", "'\\''") + "'" for part in extra)
        listener = f"'{sys.executable}' '{HERE}/between.py' '{self.said}' " if between else ""
        with open(shim, "w", encoding="utf-8") as file:
            file.write(
                "#!/bin/sh\n"
                f"export HOME='{os.environ.get('HOME', '')}' XDG_CONFIG_HOME='{self.folder}/none'\n"
                + (f"export TAPER_HOME='{models}'\n" if models else "")
                + (f"export HF_HOME='{models}/hub'\n" if goals == NO_MODEL else "")
                + f"[ \"$1\" = serve ] || exec '{self.options.taper}' \"$@\"\n"
                f"echo $$ >> '{self.folder}/servers'\n"
                f"exec {listener}'{self.options.taper}' \"$@\" {quoted} 2>>'{self.log}'\n"
            )
        os.chmod(shim, 0o755)
        return folder

    def another(self):
        """The same editor once more, on the same files."""
        folder = os.path.join(self.folder, f"other{len(self.others)}")
        os.makedirs(folder)
        self.others.append(self.kind(self.options.tools, self.shipped, folder, self.work, self.env))
        return self.others[-1]

    def put(self, name, text, crlf=False):
        """Writes a file to edit; returns its path."""
        path = os.path.join(self.work, name)
        with open(path, "wb") as file:
            file.write(text.replace("\n", "\r\n" if crlf else "\n").encode())
        return path

    def saved(self, path, text, crlf=False):
        """Saves, and compares the file byte by byte with what it should be."""
        wanted = text.replace("\n", "\r\n" if crlf else "\n").encode()
        self.editor.save()

        wait(lambda: read(path) == wanted, 5, lambda: f"the saved file to be\n{wanted!r}\nbut it is\n{read(path)!r}")

    def picture(self, name):
        """Keeps what is on the screen: as text, and drawn."""
        terminal = self.editor.terminal
        base = os.path.join(self.options.out, name)
        with open(base + ".txt", "w", encoding="utf-8") as file:
            file.write(terminal.screen())
        with open(base + ".svg", "w", encoding="utf-8") as file:
            file.write(svg(terminal.frame(), terminal.columns, terminal.cursor()))

    def servers(self):
        """The servers that this bench started and that still run."""
        path = os.path.join(self.folder, "servers")
        numbers = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                numbers = [int(line) for line in file]
        return [number for number in numbers if alive(number)]

    def ended(self, how):
        """Ends the editor with `how` and waits until no server is left."""
        wait(self.servers, 5, "a server to run")
        how()
        wait(lambda: not self.servers(), 5, lambda: f"the server to end with the editor: {self.servers()} still run")

    def close(self):
        """Clears up, whatever happened."""
        for editor in (self.editor, *self.others):
            if editor.terminal:
                editor.terminal.close()
        for number in self.servers():
            os.kill(number, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def alive(number):
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{number}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def write_script(goals, decode_ms=0):
    """The scripted engine's file: after every beginning of a goal, the rest of it is the output. Of a goal with several texts,
    the later ones are alternatives where they begin alike."""

    def written(text):
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
        return text[:-1] + "\\s" if text.endswith(" ") else text

    lines = ["# Suggests " + ", ".join(repr(goal) for goal in goals), f"decode-ms {decode_ms}"]
    for goal in goals:
        goal, *others = (goal,) if isinstance(goal, str) else goal
        for length in range(len(goal.split("\n")[0]) - 1, 1, -1):
            lines += [f"when {written(goal[:length])}<|fim_suffix|>", f"answer {written(goal[length:])}"]
            lines += [f"or {written(other[length:])}" for other in others if other.startswith(goal[:length])]
    return "\n".join(lines) + "\n"


class Report:
    """Runs checks and counts."""

    def __init__(self, only):
        self.only, self.passed, self.failed = only, 0, 0

    def run(self, name, check):
        """Runs one check: it returns its own milliseconds, or None for the time that it took."""
        if self.only and not re.search(self.only, name):
            return
        start = time.monotonic()
        # A check that hangs on an editor that waits for a key ends with its terminal.
        watchdog = threading.Timer(90, Terminal.close_all)
        watchdog.start()
        try:
            taken = check()
        except Exception as error:  # pylint: disable=broad-except
            self.failed += 1
            print(f"FAILED {name}: {error}", flush=True)
            if not isinstance(error, (Failed, OSError)):
                traceback.print_exc()
            return
        finally:
            watchdog.cancel()
        self.passed += 1
        taken = (time.monotonic() - start) * 1000 if taken is None else taken
        print(f"ok {name} ({taken:.0f} ms)", flush=True)


def well_formed(path):
    """Fails unless the file parses as what its name says."""
    if path.endswith(".py"):
        with open(path, "rb") as file:
            source = file.read()
        try:
            compile(source, path, "exec")
        except SyntaxError as error:
            raise Failed(f"the saved file does not parse: {error}\n{source.decode()}") from error
        return
    if path.endswith(".go"):
        # No Go is needed for this: the text was compared already.
        return
    checker = {".js": ["node", "--check"], ".rs": ["rustfmt", "--emit", "stdout", "--edition", "2024"]}[os.path.splitext(path)[1]]
    done = subprocess.run(checker + [path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"the saved file does not parse: {done.stderr}")


# name, file, fixture, what is typed, what the script suggests, whether the file has \r\n
SCRIPTED = [
    ("end of line", "sum.py", "def add(a, b):\n    ▮\n\n\nprint(add(1, 2))\n", "retu", "rn a + b", False),
    ("several lines", "loop.py", "def show(n):\n    ▮\n", "for x in", " range(n):\n        print(x)", False),
    ("mid-line", "call.py", "def add(a, b):\n    return a + b\n\n\nprint(▮)\n", "ad", "d(1, 2)", False),
    ("not ASCII", "size.py", 'größe = "naïve 😀 日本語"; ▮\n', "pri", "nt(größe)", False),
    ("CRLF", "dos.py", "def show(n):\n    ▮\n\n\nshow(3)\n", "for x in", " range(n):\n        print(x)", True),
    ("tabs", "sum.go", "package sum\n\nfunc sum(xs []int) (s int) {\n\t▮\n}\n", "for _, y", " := range xs {\n\t\ts += y\n\t}", False),
]
GOALS = sorted({typed + rest for _, _, _, typed, rest, _ in SCRIPTED}) + [plugin.SEVERAL]

# file, fixture, what is typed, which is the beginning of a word (Helix requests nothing else): the model generates the rest
MODEL = [
    (
        "account.py",
        'class Account:\n    """Money of one owner."""\n\n    def __init__(self, owner, balance=0):\n        self.owner = owner\n'
        "        self.balance = balance\n\n    def deposit(self, amount):\n        self.balance += amount\n\n"
        "    def withdraw(self, amount):\n        ▮\n\n\nAccount('Ada').withdraw(1)\n",
        "self.bal",
    ),
    (
        "shape.rs",
        "struct Rectangle {\n    width: f64,\n    height: f64,\n}\n\nimpl Rectangle {\n    fn area(&self) -> f64 {\n        ▮\n    }\n}\n\n"
        "fn main() {\n    let shape = Rectangle { width: 1.0, height: 2.0 };\n    println!(\"{}\", shape.area());\n}\n",
        "self.wid",
    ),
    (
        "list.js",
        "function sum(numbers) {\n  let total = 0;\n  for (const number of numbers) {\n    ▮\n  }\n  return total;\n}\n\n"
        "console.log(sum([1, 2, 3]));\n",
        "total += num",
    ),
]


def scripted_suggestion(bench, case):
    """Types, waits for the very text, accepts it, compares the saved file."""
    _, name, fixture, typed, rest, crlf = case
    before, after = split(fixture)
    path = bench.put(name, before + after, crlf)
    editor = bench.editor
    editor.open(path, before)
    editor.terminal.type(typed)
    start = time.monotonic()
    if editor.name == "helix":
        label = rest.split("\n")[0].strip()
        # Helix does not report when the server is ready, and earlier requests are lost: retry.
        for last in (False, False, False, True):
            try:
                wait(lambda: label in editor.shown(), 3, lambda: f"{label!r} in the popup; Helix shows\n{editor.terminal.screen()}")
                break
            except Failed:
                if last:
                    raise
                editor.nudge()
                start = time.monotonic()
    else:
        shown = editor.as_shown(rest)
        wait(lambda: editor.shown() == shown, 10, lambda: f"the ghost text {shown!r}; it is {editor.shown()!r}")
    taken = (time.monotonic() - start) * 1000
    bench.picture(f"{editor.name} {case[0]}".replace(" ", "-"))
    editor.accept()
    bench.saved(path, before + typed + rest + after, crlf)
    well_formed(path)
    return taken


def grown(editor):
    """The suggestion once it has not changed for a while: a refresh may extend it."""
    shown, since = editor.shown(), time.monotonic()
    while editor.name != "helix" and time.monotonic() - since < 0.7:
        time.sleep(0.05)
        if (now := editor.shown()) != shown:
            shown, since = now, time.monotonic()
    return shown


def model_suggestion(bench, name, fixture, typed):
    """Types, waits for the model's suggestion, accepts it; nothing else in the file may have changed."""
    before, after = split(fixture)
    path = bench.put(name, before + after)
    editor = bench.editor
    editor.open(path, before)
    editor.terminal.type(typed)
    asked, start = 1, time.monotonic()
    while True:
        # A server that is still loading its model, or whose budget ran out, suggests nothing: retry.
        try:
            wait(editor.shown, 1, "")
            break
        except Failed:
            if asked == 90:
                raise Failed(f"no suggestion, asked {asked} times; the screen:\n{editor.terminal.screen()}") from None
            editor.nudge()
            asked, start = asked + 1, time.monotonic()
    taken = (time.monotonic() - start) * 1000
    shown = grown(editor)
    bench.picture(f"{editor.name}-model-{os.path.splitext(name)[1][1:]}")
    editor.accept()
    if editor.name != "helix":
        wait(lambda: editor.text() == before + typed + shown + after, 5, lambda: f"{shown!r} in the buffer, which is\n{editor.text()}")
    editor.save()

    def suggested():
        text = read(path).decode()
        fits = text.startswith(before + typed) and text.endswith(after) and len(text) > len(before + typed + after)
        return text[len(before + typed) : len(text) - len(after)] if fits else None

    text = wait(suggested, 5, lambda: f"{before + typed!r} + a suggestion + {after!r} to be saved; the file is\n{read(path).decode()}")
    if editor.name != "helix" and text != shown:
        raise Failed(f"shown was {shown!r}, saved is {text!r}")
    if editor.name == "helix" and text.strip().split("\n")[0][:20].strip() not in shown:
        raise Failed(f"the popup had {shown!r}, saved is {text!r}")
    well_formed(path)
    print(f"   {typed!r} + {text!r}" + f", asked {asked} times" * (asked > 1))
    return taken


def type_on(bench):
    """Shown, typed through and accepted at once, before the editor's next request: nothing is doubled."""
    path = bench.put("on.py", "def add(a, b):\n    \n")
    editor = bench.editor
    editor.open(path, "def add(a, b):\n    ")
    editor.terminal.type("retu")
    try:
        wait(editor.shown, 3, "a suggestion")
    except Failed:
        editor.nudge()
        wait(editor.shown, 10, "a suggestion")
    # Helix closes its popup at a blank, so it must be a word there.
    editor.terminal.type("rn" if editor.name == "helix" else "rn a")
    editor.accept()
    bench.saved(path, "def add(a, b):\n    return a + b\n")


def type_all(bench):
    """Shown, then typed out to its end, character by character: every character arrives, once."""
    path = bench.put("all.py", "def add(a, b):\n    \n")
    editor = bench.editor
    editor.open(path, "def add(a, b):\n    ")
    for character in "return a + b  # the sum":
        editor.terminal.type(character)
    bench.saved(path, "def add(a, b):\n    return a + b  # the sum\n")


def type_away(bench):
    """Shown, then something else typed and Tab pressed at once: the old suggestion must not appear."""
    path = bench.put("away.py", "def add(a, b):\n    \n")
    editor = bench.editor
    editor.open(path, "def add(a, b):\n    ")
    editor.terminal.type("retu")
    wait(editor.shown, 10, "a suggestion")
    editor.terminal.type("x")
    editor.terminal.press("Tab")
    editor.terminal.type("y")
    bench.saved(path, "def add(a, b):\n    retux   y\n")


def tab_is_tab(bench):
    """Nothing shown: Tab indents."""
    path = bench.put("tab.py", "\n")
    editor = bench.editor
    editor.open(path, "")
    editor.terminal.press("Tab")
    editor.terminal.type("q = 1")
    bench.saved(path, "    q = 1\n")


def quiet(bench):
    """The editor found nothing to complain about."""
    found = bench.editor.complaints()
    if found:
        raise Failed("the editor's log has\n" + "\n".join(found[:5]))


def killed(bench):
    """The editor dies while the server works: the server ends."""
    path = bench.put("killed.py", "def add(a, b):\n    \n")
    bench.editor.open(path, "def add(a, b):\n    ")
    bench.editor.terminal.type("retu")
    bench.ended(bench.editor.kill)


def no_model(bench):
    """No model: the editor shows a message with the remedy, and typing continues. After `taper pull`, suggestions appear."""
    editor, options = bench.editor, bench.options
    before, after = split(MODEL[0][1])
    path = bench.put("account.py", before + after)

    def told():
        # Helix shows a message until the next key.
        wait(lambda: "cannot suggest" in editor.messages(), 10, lambda: f"a message; there is {editor.messages()!r}")
        # A cut message keeps the remedy.
        if f"taper pull {DEFAULT}" not in editor.messages():
            raise Failed(f"the remedy is missing in {editor.messages()!r}")
        bench.picture(f"{editor.name}-no-model")

    editor.open(path, before, told)
    editor.terminal.type("self.bal")
    hub = Hub(options.model)
    try:
        models = os.path.join(bench.folder, "models")
        env = {**bench.env, "HF_ENDPOINT": hub.endpoint, "HF_HOME": models + "/hub", "TAPER_HOME": models}
        env.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run([options.taper, "pull", DEFAULT], env=env, capture_output=True, text=True, timeout=120, check=False)
    finally:
        hub.close()
    if done.returncode:
        raise Failed(f"taper pull: {done.stderr}")
    for _ in range(60):
        # The next request after three seconds looks for the model again.
        editor.nudge()
        try:
            wait(editor.shown, 1, "")
            break
        except Failed:
            pass
    if not editor.shown():
        raise Failed(f"the model is here, and nothing is suggested:\n{editor.terminal.screen()}")
    editor.accept()
    editor.save()
    wait(lambda: read(path) not in (b"", (before + after).encode()), 5, "the accepted suggestion to be saved")
    well_formed(path)


def with_bench(editor, options, goals, checks, **more):
    """Runs checks on one bench, which is cleared up whatever happens."""
    bench = Bench(editor, os.path.join(ROOT, "editors"), options, goals, **more)
    try:
        checks(bench)
    finally:
        bench.close()


def drive(editor, options, report):
    """All checks of one editor."""
    name = editor.name
    vim = issubclass(editor, Neovim)

    def scripted(bench):
        for case in SCRIPTED:
            report.run(f"{name} {case[0]}", lambda case=case: scripted_suggestion(bench, case))
        report.run(f"{name} typed on", lambda: type_on(bench))
        report.run(f"{name} typed to the end", lambda: type_all(bench))
        if vim:
            report.run(f"{name} typed away", lambda: type_away(bench))
            report.run(f"{name} tab is tab", lambda: tab_is_tab(bench))
            report.run(f"{name} undo", lambda: plugin.undo(bench))
        if vim and editor.plugin:
            for check in plugin.CHECKS:
                report.run(f"{name} {check.__name__.replace('_', ' ')}", lambda check=check: check(bench))
            report.run(f"{name} health", lambda: plugin.health(bench))
            report.run(f"{name} commands and help", lambda: plugin.commands(bench, os.path.join(ROOT, "docs", "configuration.md")))
        if vim and not editor.plugin:
            for check in (plugin.renamed, plugin.retyped):
                report.run(f"{name} {check.__name__.replace('_', ' ')}", lambda check=check: check(bench))
        if not vim:
            for check in helix.CHECKS:
                report.run(f"{name} {check.__name__.replace('_', ' ')}", lambda check=check: check(bench))
        if vim:
            report.run(f"{name} two editors", lambda: plugin.two_editors(bench, bench.another()))
        report.run(f"{name} quiet log", lambda: quiet(bench))
        if not vim:
            report.run(f"{name} killed server", lambda: helix.killed_server(bench))
        report.run(f"{name} ends its server", lambda: bench.ended(bench.editor.close))

    def model(bench):
        for name_, fixture, typed in MODEL if name in ("neovim", "helix") else MODEL[:1]:
            report.run(f"{name} model {name_}", lambda n=name_, f=fixture, t=typed: model_suggestion(bench, n, f, t))
        report.run(f"{name} model quiet log", lambda: quiet(bench))
        report.run(f"{name} killed", lambda: killed(bench))

    def talk(bench):
        # The last two are long, and the same in every Neovim that has the oldest's functions.
        for check in contract.CHECKS if editor in (Neovim, Neovim010) else contract.CHECKS[:3]:
            report.run(f"{name} {check.__name__.replace('_', ' ')}", lambda check=check: check(bench))
        report.run(f"{name} quiet log after the talk", lambda: quiet(bench))

    with_bench(editor, options, GOALS, scripted)
    if vim and editor.plugin:
        with_bench(editor, options, contract.GOALS, talk, between=True)
    if editor in (Neovim, Neovim010):
        for what, (before, text) in plugin.BEFORE.items():
            def through(bench, what=what, text=text):
                report.run(f"{name} Tab was {what}", lambda: plugin.falls_through(bench, text))
            with_bench(editor, options, GOALS, through, before=before)
        for what, before in plugin.completion_plugins():
            def shared(bench, what=what):
                report.run(f"{name} Tab shared, {what}", lambda: plugin.shares_tab(bench))
            with_bench(editor, options, GOALS, shared, before=before)
    if vim and editor.plugin:
        for what, before, opened in plugin.menus():
            if before is None:
                print(f"skipped {name} beside the menu of {what}: it is not here; {' or '.join(plugin.MENUS)} names its folder", flush=True)
                continue
            def beside(bench, what=what, opened=opened):
                report.run(f"{name} beside the menu of {what}", lambda: plugin.beside_menu(bench, what, opened))
            with_bench(editor, options, GOALS, beside, before=before)
    if options.model and editor is not Native:
        with_bench(editor, options, None, model)
    if options.model and editor in (Neovim, Helix):
        with_bench(editor, options, NO_MODEL, lambda bench: report.run(f"{name} no model", lambda: no_model(bench)))


EDITORS = (Neovim, Native, Bare, Neovim011, Neovim010, Helix)


def main():
    """Parses the arguments and drives the editors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--taper", help="the built server")
    parser.add_argument("--tools", help="the folder that get_editors.sh filled")
    parser.add_argument("--out", help="where screens and logs go")
    parser.add_argument("--model", help="a GGUF file, for the checks with a real model")
    parser.add_argument("--only", help="only checks whose name has this pattern")
    parser.add_argument("--editor", nargs="+", choices=[editor.name for editor in EDITORS], help="only these editors")
    options = parser.parse_args()
    for part in ("taper", "tools", "out"):
        if not getattr(options, part):
            parser.error(f"--{part} is missing")
        setattr(options, part, os.path.abspath(getattr(options, part)))
    os.makedirs(options.out, exist_ok=True)
    report = Report(options.only)
    for editor in EDITORS:
        if options.editor and editor.name not in options.editor:
            continue
        # If the setup of one editor fails, the other one still runs.
        try:
            drive(editor, options, report)
        except Exception as error:  # pylint: disable=broad-except
            report.failed += 1
            print(f"FAILED {editor.name}: {error}", flush=True)
            if not isinstance(error, Failed):
                traceback.print_exc()
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
