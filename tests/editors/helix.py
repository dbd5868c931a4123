"""Helix in a terminal, with the shipped configuration; all it says is read off the screen.
It knows nothing of what should be suggested."""

import os
import re
import shutil

from terminal import Terminal, wait


class Helix:
    """Helix has no RPC and opens one file: one program a check."""

    name = "helix"

    def __init__(self, tools, shipped, folder, work, env):
        config = os.path.join(folder, "config")
        os.makedirs(os.path.join(config, "helix"))
        shutil.copy(os.path.join(shipped, "helix", "languages.toml"), os.path.join(config, "helix"))
        self.env = {**env, "XDG_CONFIG_HOME": config, "XDG_CACHE_HOME": os.path.join(folder, "cache")}
        self.tools, self.folder, self.work = tools, folder, work
        self.path, self.terminal = None, None

    def open(self, path, before):
        """Opens a file with the cursor behind `before`, in insert mode."""
        self.close()
        lines = before.split("\n")
        here = f"{path}:{len(lines)}:{len(lines[-1]) + 1}"
        hx, tmux = (os.path.join(self.tools, "bin", name) for name in ("hx", "tmux"))
        self.path = path
        self.terminal = Terminal(tmux, self.folder, [hx, here], self.env, self.work)
        self.on_screen("NOR", "Helix to start")
        with open(path, encoding="utf-8", newline="") as file:
            rest = file.read().replace("\r\n", "\n")[len(before):]
        self.terminal.press("A" if rest.startswith("\n") else "i")
        self.on_screen("INS", "insert mode")

    def on_screen(self, text, what, seconds=20):
        """Waits until the screen has `text`."""
        wait(lambda: text in self.terminal.screen(), seconds, lambda: f"{what}; Helix shows\n{self.terminal.screen()}")

    def shown(self):
        """The labels in the popup: its rows end in the kind of the item, here `text`."""
        found = (re.search(r"(?:^~?|  )\s*(\S.*?)\s+text\b", line) for line in self.terminal.screen().splitlines())
        return "\n".join(match[1] for match in found if match)

    def nudge(self):
        """Makes Helix ask again: it asks when a character is typed."""
        last = self.terminal.last
        self.terminal.press("BSpace")
        self.terminal.type(last)

    def accept(self):
        """Takes the first item: Tab puts it into the text, Enter closes the popup."""
        self.terminal.press("Tab")
        self.terminal.press("Enter")

    def save(self):
        """Writes the file."""
        self.terminal.press("Escape")
        self.on_screen("NOR", "normal mode")
        self.terminal.type(":w")
        self.terminal.press("Enter")

    def complaints(self):
        """What Helix's own log says about the server."""
        path = os.path.join(self.folder, "cache", "helix", "helix.log")
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        # Helix reports the end of every server as `StreamClosed`, also when it asked for it.
        mine = (line for line in lines if "taper" in line and "StreamClosed" not in line)
        return [line for line in mine if "[ERROR]" in line or "[WARN]" in line]

    def close(self):
        """Leaves Helix as a user would, so that the server is told to stop."""
        if not self.terminal:
            return
        self.terminal.press("Escape")
        self.terminal.type(":q!")
        self.terminal.press("Enter")
        self.terminal.ended("Helix")
        self.terminal.close()
        self.terminal = None

    def kill(self):
        """Ends Helix without a word to the server."""
        self.terminal.kill()
        self.terminal.ended("Helix")
        self.terminal.close()
        self.terminal = None
