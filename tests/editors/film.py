"""Films an editor: types real code with the real model, accepts, and draws the terminal as an animated SVG.
Every frame was on the screen, for the same time.

usage: film.py --taper BINARY --tools FOLDER --out FOLDER --model FILE [--editor neovim|helix]

Writes EDITOR-typing.svg, and EDITOR-still.svg with the frame that had the longest suggestion.
"""

import argparse
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

# pylint: disable=wrong-import-position
from drive import ROOT, Bench
from helix import Helix
from neovim import Neovim
from terminal import film, svg

FILE = "account.py"
BEFORE = '''class Account:
    """Money of one owner."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        self.balance += amount

    '''
# What is typed; \t accepts the suggestion once one is shown, \n is Enter.
SCRIPTS = {
    "neovim": ("", ["def with", "\t", "\n", "self.bal", "\t"]),
    "helix": ("def withdraw(self, amount):\n        ", ["self.bal", "\t"]),
}


def main():
    """Films one editor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for part in ("taper", "tools", "out", "model"):
        parser.add_argument("--" + part, required=True)
    parser.add_argument("--editor", choices=("neovim", "helix"), default="neovim")
    options = parser.parse_args()
    for part in ("taper", "tools", "out"):
        setattr(options, part, os.path.abspath(getattr(options, part)))
    os.makedirs(options.out, exist_ok=True)
    kind = {"neovim": Neovim, "helix": Helix}[options.editor]
    bench = Bench(kind, os.path.join(ROOT, "editors"), options, None)
    frames, best = [], (0, None)
    more, script = SCRIPTS[kind.name]
    before = BEFORE + more
    try:
        editor = bench.editor
        editor.open(bench.put(FILE, before + "\n"), before)

        def shot():
            nonlocal best
            now = (editor.terminal.frame(), editor.terminal.cursor())
            if not frames or frames[-1][1:] != now:
                frames.append((time.monotonic(), *now))
                shown = editor.shown()
                if len(shown) > best[0]:
                    best = (len(shown), now)

        def watch(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                shot()

        # The model is loaded before filming.
        for _ in range(90):
            editor.terminal.type("d")
            watch(0.7)
            editor.terminal.press("BSpace")
            if editor.shown():
                break
        watch(0.7)
        frames.clear()
        watch(0.6)
        for piece in script:
            if piece == "\t":
                for _ in range(8):
                    end = time.monotonic() + 0.8
                    while not editor.shown() and time.monotonic() < end:
                        shot()
                    if editor.shown():
                        break
                    # A busy machine answers late, and an editor sends a new request only on an event.
                    editor.nudge()
                watch(1.1)
                if editor.shown():
                    editor.accept() if kind is Helix else editor.terminal.press("Tab")
                watch(0.8)
            elif piece == "\n":
                editor.terminal.press("Enter")
                watch(0.5)
            else:
                for character in piece:
                    editor.terminal.type(character)
                    watch(0.13)
        watch(1.5)
        ends = [frame[0] for frame in frames[1:]] + [time.monotonic()]
        reel = [(end - start, frame, cursor) for end, (start, frame, cursor) in zip(ends, frames)]
        columns = editor.terminal.columns
        with open(os.path.join(options.out, options.editor + "-typing.svg"), "w", encoding="utf-8") as file:
            file.write(film(reel, columns))
        if best[1]:
            with open(os.path.join(options.out, options.editor + "-still.svg"), "w", encoding="utf-8") as file:
                file.write(svg(best[1][0], columns, best[1][1]))
        print(f"{len(reel)} frames, {sum(seconds for seconds, _, _ in reel):.1f} s\n{editor.terminal.screen()}")
    finally:
        bench.close()


if __name__ == "__main__":
    main()
