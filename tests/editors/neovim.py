"""Neovim in a terminal, with the shipped plugin or the bare configuration; keys go through the terminal, questions
over its RPC."""

import os
import shutil

from terminal import Failed, Terminal, wait

# The ghost text of either Neovim or the plugin.
GHOST = """
local out = {}
for name, space in pairs(vim.api.nvim_get_namespaces()) do
  if name == 'nvim.lsp.inline_completion' or name == 'taper' then
    for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })) do
      local function add(pieces) for _, piece in ipairs(pieces or {}) do out[#out + 1] = piece[1] end end
      add(mark[4].virt_text)
      for _, line in ipairs(mark[4].virt_lines or {}) do out[#out + 1] = '\\n' add(line) end
    end
  end
end
return table.concat(out)
"""

# A user's init.lua: mappings and options from before the plugin, then the plugin, then the status line.
INIT = """
vim.opt.swapfile = false
{before}
require('taper').setup({setup})
vim.opt.laststatus = 2
vim.opt.statusline = "%f%m %=%{{%v:lua.require'taper'.statusline()%}}"
"""


class Neovim:
    """A running Neovim. Subclasses choose the version and the configuration."""

    name = "neovim"
    program = "nvim"
    # The plugin; without it the bare configuration.
    plugin = True
    setup = "{}"

    def __init__(self, tools, shipped, folder, work, env, before=""):
        import pynvim  # found through PYTHONPATH, only where Neovim is driven

        env = self.configure(shipped, folder, env, before)
        number = next(Terminal.numbers)
        socket = os.path.join(folder, f"rpc{number}")
        nvim = os.path.join(tools, "bin", self.program)
        self.folder = folder
        self.terminal = Terminal(
            os.path.join(tools, "bin", "tmux"), folder, [nvim, "-n", "-i", "NONE", "--cmd", "let g:loaded_python3_provider=0", "--listen", socket], env, work
        )

        def attach():
            # The socket's file exists a moment before Neovim listens.
            try:
                return pynvim.attach("socket", path=socket)
            except OSError:
                return None

        self.rpc = wait(attach, 30, lambda: "Neovim to start; it shows\n" + self.terminal.screen())
        self.version = self.lua("return tostring(vim.version())")

    @classmethod
    def configure(cls, shipped, folder, env, before=""):
        """Lays a user's configuration; the environment that makes Neovim read it."""
        config = os.path.join(folder, "config")
        if cls.plugin:
            os.makedirs(os.path.join(config, "nvim"))
            # As `git clone` into a package would lay it.
            pack = os.path.join(folder, "data", "nvim", "site", "pack", "taper", "start", "taper")
            shutil.copytree(os.path.join(shipped, "neovim"), pack, ignore=shutil.ignore_patterns("bare", "*.svg"))
            with open(os.path.join(config, "nvim", "init.lua"), "w", encoding="utf-8") as file:
                file.write(INIT.format(before=before, setup=cls.setup))
        else:
            os.makedirs(os.path.join(config, "nvim", "plugin"))
            shutil.copy(os.path.join(shipped, "neovim", "bare", "taper.lua"), os.path.join(config, "nvim", "plugin"))
        env = {**env, "XDG_CONFIG_HOME": config}
        for kind in ("DATA", "STATE", "CACHE"):
            env[f"XDG_{kind}_HOME"] = os.path.join(folder, kind.lower())
        return env

    def lua(self, code, *arguments):
        """Runs Lua in Neovim."""
        return self.rpc.exec_lua(code, *arguments)

    def open(self, path, before, first=None):
        """Opens a file with the cursor after `before`, in insert mode, the server attached; `first` is called before that."""
        self.normal()
        self.rpc.command("edit! " + self.rpc.funcs.fnameescape(path))
        wait(self.attached, 60, lambda: "the server to start\n" + self.terminal.screen())
        if first:
            first()
        self.insert(before)

    def attached(self):
        """Whether a server is attached to this buffer."""
        return self.lua("local c = vim.lsp.get_clients({ bufnr = 0, name = 'taper' })[1] return c ~= nil and c.initialized == true")

    def insert(self, before):
        """Goes to insert mode after `before`."""
        lines = before.split("\n")
        column = len(lines[-1].encode())
        self.rpc.current.window.cursor = (len(lines), column)
        self.terminal.press("A" if column == len(self.rpc.current.line.encode()) else "i")
        self.mode("i")
        if tuple(self.rpc.current.window.cursor) != (len(lines), column):
            raise Failed(f"the cursor stands at {self.rpc.current.window.cursor}")

    def mode(self, wanted):
        """Waits for a mode."""
        wait(lambda: self.rpc.api.get_mode()["mode"] == wanted, 10, lambda: f"mode {wanted}\n{self.terminal.screen()}")

    def normal(self):
        """Goes to normal mode. Escape and the next key must not arrive together: that would be Alt and the key."""
        # A message that waits for a key takes the first one.
        if self.rpc.api.get_mode()["blocking"]:
            self.terminal.press("Enter")
        self.terminal.press("Escape")
        self.mode("n")

    def text(self):
        """The buffer, with \\n."""
        return "\n".join(self.rpc.current.buffer[:]) + "\n"

    def shown(self):
        """The ghost text; empty if there is none."""
        return self.lua(GHOST)

    def as_shown(self, text):
        """How a suggestion is shown: the plugin's own text has blanks for tabs."""
        lines = text.split("\n")
        own = self.plugin and self.lua("return not require('taper.config').native()")
        return "\n".join([lines[0]] + [line.expandtabs(8) for line in lines[1:]]) if own else text

    def nudge(self):
        """Makes Neovim send a new request, as it does only when the cursor moves."""
        self.terminal.press("Left")
        self.terminal.press("Right")

    def accept(self):
        """Takes what is shown. The bare configuration does so a moment after the key; leaving insert mode before that
        would cancel it."""
        before = self.text()
        self.terminal.press("Tab")
        wait(lambda: self.text() != before, 5, lambda: f"{self.shown()!r} to be taken")

    def command(self, line):
        """Runs a command as a user types it."""
        self.normal()
        self.terminal.type(":" + line)
        self.terminal.press("Enter")

    def messages(self):
        """All messages so far. A message that waits for a key gets one."""
        if self.rpc.api.get_mode()["blocking"]:
            self.terminal.press("Enter")
        return self.lua("return vim.api.nvim_exec2('messages', { output = true }).output")

    def save(self):
        """Writes the file."""
        self.command("w")

    def complaints(self):
        """Entries of Neovim's own LSP log about the session."""
        path = self.lua("return vim.lsp.log and vim.lsp.log.get_filename and vim.lsp.log.get_filename() or vim.lsp.get_log_path()")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return [line for line in file.read().splitlines() if line.startswith(("[ERROR]", "[WARN]"))]

    def close(self):
        """Leaves Neovim as a user would, so that the server is asked to stop."""
        self.command("qa!")
        self.terminal.ended("Neovim")
        self.terminal.close()
        self.terminal = None

    def kill(self):
        """Kills Neovim without a message to the server."""
        self.rpc.exec_lua("vim.uv.kill(vim.uv.os_getpid(), 'sigkill')", async_=True)
        self.terminal.ended("Neovim")
        self.terminal.close()


class Bare(Neovim):
    """Neovim 0.12 with the bare configuration."""

    name = "neovim-bare"
    plugin = False


class Native(Neovim):
    """Neovim 0.12 where Neovim's own inline completion sends requests and shows the text."""

    name = "neovim-native"
    setup = "{ native = true }"


class Neovim011(Neovim):
    """Neovim 0.11 with the plugin."""

    name = "neovim-0.11"
    program = "nvim-0.11"


class Neovim010(Neovim):
    """Neovim 0.10 with the plugin."""

    name = "neovim-0.10"
    program = "nvim-0.10"
