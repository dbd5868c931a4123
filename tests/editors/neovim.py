"""Neovim in a terminal, with the shipped configuration; keys go through the terminal, questions over its RPC.
It knows nothing of what should be suggested."""

import os
import shutil

from terminal import Failed, Terminal, wait

GHOST = """
local space = vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion']
if not space then return '' end
local out = {}
for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })) do
  local function add(pieces) for _, piece in ipairs(pieces or {}) do out[#out + 1] = piece[1] end end
  add(mark[4].virt_text)
  for _, line in ipairs(mark[4].virt_lines or {}) do out[#out + 1] = '\\n' add(line) end
end
return table.concat(out)
"""


class Neovim:
    """A running Neovim."""

    name = "neovim"

    def __init__(self, tools, shipped, folder, work, env):
        import pynvim  # found through PYTHONPATH, only where Neovim is driven

        config = os.path.join(folder, "config")
        os.makedirs(os.path.join(config, "nvim", "plugin"))
        shutil.copy(os.path.join(shipped, "neovim", "taper.lua"), os.path.join(config, "nvim", "plugin"))
        env = {**env, "XDG_CONFIG_HOME": config}
        for kind in ("DATA", "STATE", "CACHE"):
            env[f"XDG_{kind}_HOME"] = os.path.join(folder, kind.lower())
        socket = os.path.join(folder, "rpc")
        nvim = os.path.join(tools, "bin", "nvim")
        self.folder = folder
        self.terminal = Terminal(
            os.path.join(tools, "bin", "tmux"), folder, [nvim, "-n", "-i", "NONE", "--listen", socket], env, work
        )
        wait(lambda: os.path.exists(socket), 30, lambda: "Neovim to start; it shows\n" + self.terminal.screen())
        self.rpc = pynvim.attach("socket", path=socket)
        self.version = self.rpc.exec_lua("return tostring(vim.version())")

    def open(self, path, before):
        """Opens a file with the cursor behind `before`, in insert mode, the server attached."""
        self.terminal.press("Escape")
        wait(lambda: self.rpc.api.get_mode()["mode"] == "n", 10, "normal mode")
        self.rpc.command("edit! " + self.rpc.funcs.fnameescape(path))
        ready = "local c = vim.lsp.get_clients({ bufnr = 0, name = 'taper' })[1] return c ~= nil and c.initialized == true"
        wait(lambda: self.rpc.exec_lua(ready), 60, lambda: "the server to start\n" + self.terminal.screen())
        lines = before.split("\n")
        column = len(lines[-1].encode())
        self.rpc.current.window.cursor = (len(lines), column)
        self.terminal.press("A" if column == len(self.rpc.current.line.encode()) else "i")
        wait(lambda: self.rpc.api.get_mode()["mode"] == "i", 10, "insert mode")
        if tuple(self.rpc.current.window.cursor) != (len(lines), column):
            raise Failed(f"the cursor stands at {self.rpc.current.window.cursor}")

    def text(self):
        """The buffer, with \\n."""
        return "\n".join(self.rpc.current.buffer[:]) + "\n"

    def shown(self):
        """The ghost text; empty if there is none."""
        return self.rpc.exec_lua(GHOST)

    def nudge(self):
        """Makes Neovim ask again: it asks only when the cursor moves."""
        self.terminal.press("Left")
        self.terminal.press("Right")

    def accept(self):
        """Takes what is shown."""
        self.terminal.press("Tab")

    def save(self):
        """Writes the file."""
        self.terminal.press("Escape")
        self.terminal.type(":w")
        self.terminal.press("Enter")

    def complaints(self):
        """What Neovim's own LSP log says about the session."""
        path = self.rpc.exec_lua("return vim.lsp.log.get_filename()")
        with open(path, encoding="utf-8") as file:
            return [line for line in file.read().splitlines() if line.startswith(("[ERROR]", "[WARN]"))]

    def close(self):
        """Leaves Neovim as a user would, so that the server is told to stop."""
        self.terminal.press("Escape")
        self.terminal.type(":qa!")
        self.terminal.press("Enter")
        self.terminal.ended("Neovim")
        self.terminal.close()

    def kill(self):
        """Ends Neovim without a word to the server."""
        self.rpc.exec_lua("vim.uv.kill(vim.uv.os_getpid(), 'sigkill')", async_=True)
        self.terminal.ended("Neovim")
        self.terminal.close()
