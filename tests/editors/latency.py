"""From a key to the text that it brings, as the terminal receives it: p50 and p95 per editor.
The key goes into a pseudo-terminal, and the clock stops at the first byte of output in the suggestion's own colour.

usage: latency.py --taper BINARY --tools FOLDER --out FOLDER [--model FILE] [--rounds N] [--editor NAME…]

Prints one line of a Markdown table per editor: p50, p95 and the longest of all, how many were shown after the key, how many
were already there (a popup that opened for the keys before it, whose time is not known), and p50 and p95 of the server's
share, from its question to its answer as `between.py` hears them. Without `--model` the scripted engine
answers at once, so that the time is the editor's own and the pipe's; with it the file's model does, to beginnings of
lines that it has not seen: each is typed at once but for its last key. `latency.mjs` does the same in VS Code.
"""

import argparse
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import termios
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

# pylint: disable=wrong-import-position
import drive
from drive import ROOT, Bench
from helix import Helix
from neovim import Bare, Native, Neovim, Neovim010, Neovim011
from terminal import Failed

# No theme has these colours: what is drawn in them is a suggestion.
COLOUR, NUMBERS = "#a1b2c3", b"161;178;195"
HIGHLIGHT = f"autocmd VimEnter,ColorScheme * hi ComplHint guifg={COLOUR} | hi TaperGhost guifg={COLOUR}"

# What is typed before the key that counts, and that key: the script has an output after it, but not before it.
TYPED = "retu"


class Pty:
    """In place of the terminal of `terminal.py`: the same program, and its bytes."""

    numbers = drive.Terminal.numbers

    def __init__(self, _tmux, _folder, argv, env, cwd, columns=88, rows=24):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = {**env, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd, start_new_session=True)
        os.close(slave)
        self.seen = b""

    def write(self, text):
        """Keys, as a terminal sends them."""
        os.write(self.master, text.encode())

    def read(self, seconds):
        """What comes within this many seconds; empty if nothing does."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        return os.read(self.master, 1 << 16) if ready else b""

    def drain(self, quiet):
        """Reads until nothing came for this many seconds; returns the output."""
        came = b""
        while piece := self.read(quiet):
            came += piece
        self.seen += came
        return came

    def until(self, what, seconds):
        """Milliseconds until `what` comes out; None if it does not."""
        start, tail = time.monotonic(), b""
        while (left := start + seconds - time.monotonic()) > 0:
            piece = self.read(left)
            tail = tail[-64:] + piece
            if what in tail:
                return (time.monotonic() - start) * 1000
        return None

    def screen(self):
        """Everything that came, for messages."""
        return self.seen.decode(errors="replace")

    def close(self):
        """Ends the program."""
        self.process.kill()
        self.process.wait()


def started(editor, tools, shipped, folder, work, env, path, line, column):
    """Starts an editor as its test does, but in a Pty, with a colour of its own for suggestions."""
    config = os.path.join(folder, "config")
    if editor is Helix:
        os.makedirs(os.path.join(config, "helix", "themes"))
        for name in ("languages.toml", "config.toml"):
            with open(os.path.join(shipped, "helix", name), encoding="utf-8") as source:
                text = source.read()
            if name == "config.toml":
                text = 'theme = "seen"\n' + (text if env.get("TAPER_ADVICE") else "")
            with open(os.path.join(config, "helix", name), "w", encoding="utf-8") as file:
                file.write(text)
        with open(os.path.join(config, "helix", "themes", "seen.toml"), "w", encoding="utf-8") as file:
            file.write(f'inherits = "default"\n"ui.menu" = {{ fg = "{COLOUR}", bg = "#102030" }}\n')
        env = {**env, "XDG_CONFIG_HOME": config, "XDG_CACHE_HOME": os.path.join(folder, "cache")}
        return Pty(None, folder, [os.path.join(tools, "bin", "hx"), f"{path}:{line}:{column}"], env, work)
    env = editor.configure(shipped, folder, env)
    argv = [os.path.join(tools, "bin", editor.program), "-n", "-i", "NONE", "--cmd", "let g:loaded_python3_provider=0"]
    argv += ["--cmd", HIGHLIGHT, "--cmd", "set termguicolors", f"+call cursor({line},{column})", path]
    return Pty(None, folder, argv, env, work)


class Nothing:
    """An editor that is not started: the bench is only for the folder and the server."""

    terminal = None

    def __init__(self, *_, **__):
        pass


def lines_to_type(options):
    """What is typed in each round."""
    if not options.model:
        return [TYPED] * options.rounds
    with open(os.path.join(HERE, "beginnings.txt"), encoding="utf-8") as file:
        return (file.read().splitlines() * options.rounds)[: options.rounds]


def share(path):
    """Milliseconds from request to response, of responses with text, as measured at the pipe."""
    with open(path, encoding="utf-8") as file:
        answers = [one for one in map(json.loads, file) if "asked" in one and one["result"]]
    return [1000 * (one["at"] - one["since"]) for one in answers if json.dumps(one["result"]).find("nsertText") > 0]


def measure(editor, options, advice=False):
    """Milliseconds of each round in which the suggestion came, in how many it was there before and in how many it was not,
    and the server's share of each answer."""
    nothing = type("Nothing", (Nothing,), {"name": editor.name})
    goals = None if options.model else ["return a + b"]
    bench = Bench(nothing, os.path.join(ROOT, "editors"), options, goals, between=True)
    if os.path.exists(bench.said):
        os.remove(bench.said)
    if goals:
        # Only after the last key, so that nothing is drawn before.
        with open(os.path.join(bench.folder, "script"), "w", encoding="utf-8") as file:
            file.write(f"when {TYPED}<|fim_suffix|>\nanswer rn a + b\n")
    path = bench.put("keys.py", "# Notes.\n\n\n")
    env = {**bench.env, **({"TAPER_ADVICE": "1"} if advice else {})}
    terminal = started(editor, options.tools, bench.shipped, bench.folder, bench.work, env, path, 3, 1)
    times, already, missed = [], 0, 0
    try:
        terminal.drain(1.5)
        terminal.write("A")
        terminal.drain(0.3)
        warm = 0
        for typed in lines_to_type(options):
            while True:
                terminal.write(typed[:-1])
                # With a model, the last key comes while it is at work, as it does while one types. Without, after a
                # pause: what these keys brought has been drawn, and the editor has no request left to send.
                early = NUMBERS in terminal.drain(0.05 if options.model else 0.35)
                terminal.write(typed[-1])
                # A popup that is open is redrawn only where it changes.
                taken = terminal.until(NUMBERS, 0.3 if early else 1.5)
                terminal.drain(0.1)
                # Takes the line back: closes a popup, if there is one (else it would type a letter), and goes back key by key.
                terminal.write("\x03" if editor is Helix and (early or taken is not None) else "")
                terminal.write("\x7f" * len(typed))
                # What comes late is not the next round's.
                terminal.drain(0.6 if options.model else 0.25)
                if taken is not None or early or times or warm == 40:
                    break
                warm += 1  # the model is still being read
            if early:
                already += 1
            elif taken is None:
                missed += 1
            else:
                times.append(taken)
    finally:
        terminal.close()
        bench.close()
    if not times:
        raise Failed(f"{editor.name} never showed a suggestion; it wrote\n{terminal.screen()[-2000:]}")
    return times, already, missed, share(bench.said)


def percentiles(times):
    """p50 and p95."""
    times = sorted(times) or [0]
    return statistics.median(times), times[min(len(times) - 1, round(0.95 * len(times)) - 1)]


def main():
    """Measures each editor and prints its line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for part in ("taper", "tools", "out"):
        parser.add_argument("--" + part, required=True)
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--editor", nargs="+")
    options = parser.parse_args()
    for part in ("taper", "tools", "out"):
        setattr(options, part, os.path.abspath(getattr(options, part)))
    os.makedirs(options.out, exist_ok=True)
    kinds = [(editor, False) for editor in (Neovim, Native, Bare, Neovim011, Neovim010, Helix)] + [(Helix, True)]
    for editor, advice in kinds:
        label = editor.name + (" with config.toml" if advice else "")
        if options.editor and editor.name not in options.editor:
            continue
        times, already, missed, shares = measure(editor, options, advice)
        cells = [f"{time:.0f}" for time in (*percentiles(times), max(times))]
        cells += [f"{len(times)} of {len(times) + already + missed}", str(already)]
        cells += [f"{time:.0f}" for time in percentiles(shares)]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
