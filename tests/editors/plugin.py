"""What only the Neovim plugin does: words and lines, keys that fall through, pausing, status, a restarted server.
It sends keys and reads the buffer, the screen and the plugin's public functions."""

import json
import os
import re
import signal
import time

from terminal import Failed, wait

TASK = "def add(a, b):\n    "
REST = "rn a + b"
# Three continuations after the first four characters, best first.
SEVERAL = ("hand_on(a)", "hand_in(b)", "hand_back(a, b)")


def begin(bench, name, typed="retu", before=TASK):
    """Opens a new file and types until the suggestion is there."""
    path = bench.put(name, before + "\n")
    bench.editor.open(path, before)
    bench.editor.terminal.type(typed)
    return path


def shows(bench, text, seconds=10):
    """Waits until the ghost text is `text`."""
    editor = bench.editor
    text = editor.as_shown(text)
    if text and seconds >= 10:
        # On a busy machine the one answer can be late, and Neovim sends a new request only when the cursor moves.
        for _ in range(3):
            try:
                return wait(lambda: editor.shown() == text, 3, "")
            except Failed:
                editor.nudge()
    return wait(lambda: editor.shown() == text, seconds, lambda: f"the ghost text {text!r}; it is {editor.shown()!r}\n{editor.terminal.screen()}")


def holds(bench, text):
    """Waits until the buffer is `text`."""
    editor = bench.editor
    wait(lambda: editor.text() == text, 5, lambda: f"the buffer {text!r}; it is {editor.text()!r}")


def status(bench, text):
    """Waits until the status line has `text`."""
    line = lambda: bench.editor.lua("return vim.api.nvim_eval_statusline(require('taper').statusline(), {}).str")
    wait(lambda: line() == text, 10, lambda: f"the status {text!r}; it is {line()!r}")


def words(bench):
    """A word at a time, then a line at a time; the rest stays visible without a new request."""
    path = bench.put("words.py", "def show(n):\n    \n")
    editor = bench.editor
    editor.open(path, "def show(n):\n    ")
    editor.terminal.type("for x in")
    shows(bench, " range(n):\n        print(x)")
    editor.terminal.press("M-Right")
    shows(bench, "(n):\n        print(x)", 1)
    holds(bench, "def show(n):\n    for x in range\n")
    editor.terminal.press("M-Right")
    editor.terminal.press("M-C-Right")
    holds(bench, "def show(n):\n    for x in range(n):\n")
    editor.terminal.press("M-C-Right")
    bench.saved(path, "def show(n):\n    for x in range(n):\n        print(x)\n")


def dismiss(bench):
    """Dismissed, it stays away until the next key, and Tab is Tab."""
    begin(bench, "dismiss.py")
    editor = bench.editor
    shows(bench, REST)
    editor.terminal.press("C-]")
    shows(bench, "")
    editor.terminal.press("Tab")
    holds(bench, "def add(a, b):\n    retu    \n")
    editor.terminal.press("BSpace")
    editor.rpc.command("stopinsert")
    editor.mode("n")


def undo(bench):
    """Undo takes back the suggestion, and only that; redo brings it back."""
    begin(bench, "undo.py")
    editor = bench.editor
    shows(bench, REST)
    editor.accept()
    holds(bench, "def add(a, b):\n    return a + b\n")
    editor.normal()
    editor.terminal.type("u")
    # Neovim's own undo step is the whole insertion.
    holds(bench, "def add(a, b):\n    retu\n" if editor.plugin else TASK + "\n")
    editor.terminal.press("C-r")
    holds(bench, "def add(a, b):\n    return a + b\n")


def burst(bench):
    """Typed on, accepted and typed on again in one burst, as it comes from a slow connection: in that order."""
    path = begin(bench, "burst.py")
    editor = bench.editor
    shows(bench, REST)
    editor.rpc.input("rn<Tab>  # sum<Esc>")
    editor.mode("n")
    bench.saved(path, "def add(a, b):\n    return a + b  # sum\n")


def mended(bench):
    """After a mistake is undone with Backspace, the suggestion is back."""
    path = begin(bench, "mended.py", "retux")
    editor = bench.editor
    editor.terminal.press("BSpace")
    shows(bench, REST)
    editor.accept()
    bench.saved(path, "def add(a, b):\n    return a + b\n")


def buffer_toggled(bench):
    """Switched off in one buffer, and on again; Tab is Tab meanwhile."""
    begin(bench, "toggle.py")
    editor = bench.editor
    shows(bench, REST)
    editor.command("Taper toggle")
    status(bench, "taper off")
    editor.terminal.type("ccretu")
    editor.terminal.press("Tab")
    editor.terminal.press("BSpace")
    # The tab's blanks go one by one or together: `softtabstop` decides. What counts is that nothing was accepted.
    if "return" in editor.text() or editor.shown():
        raise Failed(f"switched off, it still suggests: {editor.shown()!r}, {editor.text()!r}")
    editor.command("Taper toggle")
    status(bench, "taper")
    editor.terminal.type("ccretu")
    shows(bench, REST)


def paused(bench):
    """Paused everywhere and resumed, from insert mode's own point of view live."""
    begin(bench, "paused.py")
    editor = bench.editor
    shows(bench, REST)
    editor.lua("require('taper').pause()")
    shows(bench, "")
    status(bench, "taper paused")
    editor.lua("require('taper').resume()")
    status(bench, "taper")
    editor.terminal.press("BSpace")
    editor.terminal.type("u")
    shows(bench, REST)


def settings(bench):
    """An option of the server is changed while it runs."""
    path = bench.put("settings.py", "def show(n):\n    \n")
    editor = bench.editor
    editor.open(path, "def show(n):\n    ")
    editor.terminal.type("for x in")
    shows(bench, " range(n):\n        print(x)")
    editor.command("Taper set max-lines 1")
    editor.terminal.type("ccfor x in")
    shows(bench, " range(n):")
    editor.command("Taper set max-lines 12")
    editor.terminal.type("ccfor x in")
    shows(bench, " range(n):\n        print(x)")
    editor.command("Taper set latency-budget-ms soon")
    wait(lambda: "latency-budget-ms" in editor.messages(), 5, lambda: f"a message that names the option; there is {editor.messages()!r}")


def killed_server(bench):
    """The server dies under the user's fingers: typing continues, the server restarts, and suggests."""
    begin(bench, "dies.py")
    editor = bench.editor
    shows(bench, REST)
    old = bench.servers()
    for number in old:
        os.kill(number, signal.SIGKILL)
    for character in "rn 1  # ok":
        editor.terminal.type(character)
    holds(bench, "def add(a, b):\n    return 1  # ok\n")
    wait(lambda: [n for n in bench.servers() if n not in old], 10, "another server")
    wait(editor.attached, 10, "the other server to be attached")
    editor.normal()
    editor.terminal.type("ccretu")
    shows(bench, REST)


def popup(bench):
    """With Neovim's own popup menu open, Tab is the menu's, or whatever it is mapped to, and the menu's item is taken."""
    path = bench.put("popup.py", "return_value = 1\n\n")
    editor = bench.editor
    editor.open(path, "return_value = 1\n")
    editor.terminal.type("retu")
    shows(bench, REST)
    editor.terminal.press("C-n")
    wait(lambda: editor.lua("return vim.fn.pumvisible()") == 1 or "return_value" in editor.text().split("\n")[1], 5, "the popup")
    editor.terminal.press("C-y")
    editor.terminal.type(" = 2")
    bench.saved(path, "return_value = 1\nreturn_value = 2\n")


# Mappings of a user from before the plugin, and what Tab then yields while nothing is shown.
BEFORE = {
    "an expression": ("vim.keymap.set('i', '<Tab>', function() return vim.fn.pumvisible() == 1 and '<C-n>' or 'expr' end, { expr = true })", "expr"),
    "a callback": ("vim.keymap.set('i', '<Tab>', function() vim.api.nvim_put({ 'call' }, 'c', false, true) end)", "call"),
    "keys": ("vim.cmd('inoremap <Tab> keys')", "keys"),
    "keys mapped on": ("vim.cmd('imap <Tab> <Plug>(mine)') vim.cmd('inoremap <Plug>(mine) on')", "on"),
    "itself and more": ("vim.cmd('imap <Tab> <Tab>more')", "    more"),
    "Vim script": ("vim.cmd([[inoremap <silent><expr> <Tab> pumvisible() ? \"\\<C-n>\" : \"\\<C-v>u2713\"]])", "✓"),
}

# Completion plugins map Tab at the first InsertEnter, over ours, and call what was there where they have no use for it. Neovim's
# own mapping is taken away, as on a key that has none: so nothing is between the plugin's key and itself.
LATER = """
pcall(vim.keymap.del, 'i', '<Tab>')
local function menu(otherwise)
  return function(...)
    if vim.g.menu then vim.api.nvim_put({{ 'menu' }}, 'c', false, true) else otherwise(...) end
  end
end
vim.api.nvim_create_autocmd('InsertEnter', {{ once = true, callback = function()
  local mine = vim.fn.maparg('<Tab>', 'i', false, true)
  {how}
end }})
"""
# How they do so, rewritten after `keymap.fallback` and `keymap.solve` in nvim-cmp's lua/cmp/utils/keymap.lua (f2df31c), and
# after `fallback.run_non_blink_keymap` in blink.cmp's lua/blink/cmp/keymap/fallback.lua (5a0a362): the first maps a name of its
# own to what our function yields, the second types what it yields. Both leave it to be mapped again, as ours is.
COMPLETION = {
    "nvim-cmp's way": "vim.keymap.set('i', '<Tab>', menu(function()"
    " vim.keymap.set('i', '<Plug>(handed-on)', mine.callback, { expr = true, remap = mine.noremap == 0, replace_keycodes = mine.replace_keycodes == 1 })"
    " vim.api.nvim_feedkeys(vim.keycode('<Plug>(handed-on)'), 'im', true) end))",
    "blink.cmp's way": "vim.keymap.set('i', '<Tab>', menu(function()"
    " local keys = mine.callback() vim.api.nvim_feedkeys(mine.replace_keycodes == 1 and vim.keycode(keys) or keys,"
    " mine.noremap == 1 and 'n' or 'm', false) end), { buffer = 0 })",
}
# With key names left as they are, as an older nvim-cmp does.
COMPLETION["an old nvim-cmp's way"] = COMPLETION["nvim-cmp's way"].replace("mine.replace_keycodes == 1", "false")


def completion_plugins():
    """Each way to hand Tab on, and what a configuration has for it before our plugin."""
    for what, how in COMPLETION.items():
        yield what, LATER.format(how=how)


# These plugins themselves, where a variable names the folder of a checkout, with Tab set up as in their READMEs; the word comes
# from the buffer, or from a source that has one. Then the Lua that checks whether the menu is open.
MENUS = {
    "TAPER_NVIM_CMP": (
        "nvim-cmp",
        """
local cmp = require('cmp')
cmp.register_source('one', { complete = function(_, _, callback) callback({ { label = 'return_value' } }) end })
cmp.setup({
  sources = { { name = 'one' } },
  snippet = { expand = function(it) vim.snippet.expand(it.body) end },
  mapping = {
    ['<Tab>'] = cmp.mapping(function(fallback) if cmp.visible() then cmp.select_next_item() else fallback() end end, { 'i' }),
    ['<C-e>'] = cmp.mapping.abort(),
  },
})
""",
        "return require('cmp').visible() == true",
    ),
    "TAPER_BLINK_CMP": (
        "blink.cmp",
        """
require('blink.cmp').setup({
  keymap = { preset = 'super-tab' },
  sources = { default = { 'buffer' } },
  fuzzy = { implementation = 'lua' },
  cmdline = { enabled = false },
})
""",
        "return require('blink.cmp').is_menu_visible() == true",
    ),
}


def menus():
    """Each plugin, what a configuration has for it before ours, None for one that is not installed, and the check whether its
    menu is open."""
    for variable, (what, setup, opened) in MENUS.items():
        folder = os.environ.get(variable)
        yield what, folder and f"vim.opt.runtimepath:append([[{folder}]])\n" + setup, opened


def beside_menu(bench, what, opened):
    """With the menu open the suggestion is shown too, and Tab is the menu's; with it closed Tab accepts; else it is a tab."""
    path = bench.put("menu.py", "return_value = 1\n\n\n\n")
    editor = bench.editor
    editor.rpc.command("set expandtab shiftwidth=4 softtabstop=4")
    is_open = lambda: editor.lua(opened)
    editor.open(path, "return_value = 1\n")
    editor.terminal.press("Tab")
    editor.terminal.type("1")
    holds(bench, "return_value = 1\n    1\n\n\n")

    def typed():
        editor.normal()
        editor.terminal.type("jAretu")
        wait(is_open, 10, lambda: "the menu to open; the screen is\n" + editor.terminal.screen())
        shows(bench, REST)

    typed()
    bench.picture(f"{editor.name}-menu-of-{what}")
    editor.terminal.press("Tab")
    holds(bench, "return_value = 1\n    1\nreturn_value\n\n")
    typed()

    opened_at = time.monotonic()

    def closed():
        # It opens once more where keys are still held back: nvim-cmp does so for 60 ms.
        nonlocal opened_at
        if is_open():
            opened_at = time.monotonic()
            editor.terminal.press("C-e")
        return time.monotonic() - opened_at > 0.3

    wait(closed, 10, lambda: "the menu to close; the screen is\n" + editor.terminal.screen())
    shows(bench, REST)
    editor.accept()
    bench.saved(path, "return_value = 1\n    1\nreturn_value\nreturn a + b\n")


def shares_tab(bench):
    """Tab is the menu's while it is open, accepts what is shown while it is not, and else is a tab, once."""
    path = bench.put("shares.py", "\n\n\n")
    editor = bench.editor
    editor.rpc.command("set expandtab shiftwidth=4 softtabstop=4")
    editor.open(path, "")
    # Handed on to itself, it would loop forever, and Neovim would hang.
    editor.terminal.press("Tab")
    editor.terminal.type(";")
    wait(lambda: "    ;" in editor.terminal.screen(), 5, lambda: "a tab and a semicolon on the screen, which is\n" + editor.terminal.screen())
    holds(bench, "    ;\n\n\n")
    editor.normal()
    editor.terminal.type("jAretu")
    shows(bench, REST)
    editor.rpc.vars["menu"] = True
    editor.terminal.press("Tab")
    holds(bench, "    ;\nretumenu\n\n")
    editor.rpc.vars["menu"] = False
    editor.normal()
    editor.terminal.type("jAretu")
    shows(bench, REST)
    editor.accept()
    bench.saved(path, "    ;\nretumenu\nreturn a + b\n")


def falls_through(bench, text):
    """Tab accepts what is shown, and is what it was before where nothing is."""
    path = bench.put("through.py", "\n\n")
    editor = bench.editor
    editor.rpc.command("set expandtab shiftwidth=4 softtabstop=4")
    editor.open(path, "")
    editor.terminal.press("Tab")
    editor.terminal.type(";")
    holds(bench, text + ";\n\n")
    editor.normal()
    editor.terminal.type("jA")
    editor.terminal.type("retu")
    shows(bench, REST)
    editor.accept()
    holds(bench, text + ";\nreturn a + b\n")


def two_editors(bench, other):
    """Two editors, each with its server, on one file: what one saves the other reads, and both suggest."""
    path = begin(bench, "shared.py")
    editor = bench.editor
    shows(bench, REST)
    editor.accept()
    bench.saved(path, "def add(a, b):\n    return a + b\n")
    other.open(path, TASK)
    if other.text() != "def add(a, b):\n    return a + b\n":
        raise Failed(f"the other editor has {other.text()!r}")
    other.normal()
    other.terminal.type("oq = ad")
    try:
        wait(lambda: other.shown() == "d(1, 2)", 3, "")
    except Failed:
        other.nudge()
        wait(lambda: other.shown() == "d(1, 2)", 10, lambda: f"the other's ghost text; it is {other.shown()!r}")
    other.accept()
    other.save()
    whole = "def add(a, b):\n    return a + b\nq = add(1, 2)\n"

    def saved():
        with open(path, encoding="utf-8") as file:
            return file.read() == whole

    wait(saved, 5, lambda: f"{whole!r} in the file")
    other.close()
    editor.rpc.command("edit!")
    holds(bench, whole)
    editor.insert("def add(a, b):\n    return a + b\nq = add(1, 2)")
    editor.terminal.press("Enter")
    editor.terminal.type("r = ad")
    shows(bench, "d(1, 2)")


def health(bench):
    """`:checkhealth taper` finds nothing wrong, and lists the setup."""
    editor = bench.editor
    editor.command("checkhealth taper")
    wait(lambda: "taper: keys" in editor.text(), 20, lambda: f"the report; there is {editor.text()!r}")
    report = editor.text()
    editor.rpc.command("bwipeout!")
    if "ERROR" in report or "WARNING" in report.replace("WARNING no model", ""):
        raise Failed("checkhealth says\n" + report)
    for part in ("Neovim 0.1", "/taper", "inline_completion" if editor.name == "neovim-native" else "itself", "<Tab>"):
        if part not in report:
            raise Failed(f"checkhealth does not say {part!r}:\n{report}")


def commands(bench, readme):
    """:Taper completes what there is, and knows the server's options; the help has its tags."""
    editor = bench.editor
    complete = lambda line: editor.lua("return vim.fn.getcompletion(..., 'cmdline')", line)
    if complete("Taper pau") != ["pause"] or "restart" not in complete("Taper "):
        raise Failed(f"completion yields {complete('Taper ')}")
    if complete("Taper set suggest ") != ["auto", "block", "line"]:
        raise Failed(f"completion yields {complete('Taper set suggest ')}")
    with open(readme, encoding="utf-8") as file:
        listed = sorted(re.findall(r"^\| `([a-z-]+)` \|", file.read(), re.M))
    known = sorted(editor.lua("return vim.tbl_keys(require('taper.command').options)"))
    if listed != known:
        raise Failed(f"the documentation's options are {listed}; the plugin's are {known}")
    editor.command("Taper nonsense")
    wait(lambda: "nonsense" in editor.messages(), 5, "a message that names the mistake")
    editor.rpc.command("helptags ALL")
    for tag in ("taper-keys", ":Taper", "taper-statusline", "hl-TaperGhost"):
        if tag not in editor.rpc.funcs.getcompletion(tag, "help"):
            raise Failed(f"`:help {tag}` finds nothing")


def status_of_server(bench):
    """`taper/status` decides the status line once it came, and LSP progress does for a server that never sends it."""
    editor = bench.editor
    begin(bench, "status.py")
    shows(bench, REST)
    send = "local c = vim.lsp.get_clients({ name = 'taper' })[1] "
    progress = lambda value: editor.lua(send + "vim.lsp.handlers['$/progress'](nil, { token = 'taper/model/1', value = vim.json.decode(...) }, { client_id = c.id })", json.dumps(value))
    loading = {"kind": "begin", "title": "taper", "message": "downloading", "percentage": 7}
    # The real server has sent one.
    progress(loading)
    status(bench, "taper")
    editor.lua(send + "local s = require('taper.status') s.set(c.id, nil) s.started(c)")
    progress(loading)
    status(bench, "taper 7%")
    progress({"kind": "end"})
    status(bench, "taper")
    told = lambda value: editor.lua(send + "c.handlers['taper/status'](nil, vim.json.decode(...), { client_id = c.id, method = 'taper/status' })", json.dumps(value))
    told({"state": "loading", "percent": 43, "message": "reading"})
    status(bench, "taper 43%")
    told({"state": "ready", "model": "q", "device": "cpu", "percent": None})
    status(bench, "taper")
    told({"state": "error", "message": "no model"})
    status(bench, "taper !")
    told({"state": "ready"})
    status(bench, "taper")


def several_candidates(bench):
    """The server's three alternatives one after another, each as it is in the server's script, round and back; the second is
    accepted, and only that is in the file."""
    typed, rests = SEVERAL[0][:4], [text[4:] for text in SEVERAL]
    path = begin(bench, "several.py", typed)
    editor = bench.editor
    shows(bench, rests[0])
    counted = lambda at: f"{rests[at]} ({at + 1}/{len(rests)})"
    for key, at in (("M-]", 1), ("M-]", 2), ("M-]", 0), ("M-[", 2), ("M-[", 1)):
        editor.terminal.press(key)
        shows(bench, counted(at), 5)
        if at == 2:
            bench.picture(f"{editor.name}-several")
    holds(bench, TASK + typed + "\n")
    editor.accept()
    holds(bench, TASK + SEVERAL[1] + "\n")
    bench.saved(path, TASK + SEVERAL[1] + "\n")


def explained(bench):
    """The server's explanation of the last suggestion."""
    return bench.editor.lua(
        "local c = vim.lsp.get_clients({ name = 'taper' })[1]"
        " local ask = { 'workspace/executeCommand', { command = 'taper.explainLast' }, 5000, 0 }"
        " if vim.fn.has('nvim-0.11') == 1 then return c:request_sync(unpack(ask)).result.suggestion end"
        " return c.request_sync(unpack(ask)).result.suggestion"
    )


def suggests(bench, path, language="python"):
    """After everything was deleted, a suggestion for the right document appears."""
    editor = bench.editor
    editor.normal()
    editor.terminal.type("ggcGretu")
    shows(bench, REST)
    found = explained(bench)
    if (found["path"], found["language"]) != (path, language):
        raise Failed(f"the suggestion is for {found['path']!r} in {found['language']!r}, not {path!r} in {language!r}")
    editor.accept()
    editor.normal()


def in_step(bench):
    """One server, which gets `didOpen` of every document before a change in it."""
    editor = bench.editor
    count = editor.lua("return #vim.lsp.get_clients({ name = 'taper' })")
    if count != 1:
        raise Failed(f"{count} servers")
    log = editor.lua("return require('taper.server').log()") if editor.plugin else bench.log
    if os.path.exists(log):
        with open(log, encoding="utf-8") as file:
            wrong = [line for line in file if "not open" in line or "out of sync" in line]
        if wrong:
            raise Failed("the server's log has\n" + "".join(wrong))


def unnamed(bench):
    """Buffers without a name get suggestions, each its own, and still do after they get one."""
    editor = bench.editor
    if editor.name == "neovim-native":
        # Neovim itself reports them, all under one URI.
        return
    editor.normal()
    editor.rpc.command("enew!")
    editor.rpc.command("set filetype=python")
    wait(lambda: editor.lua("return require('taper').status(0) ~= nil"), 10, "taper to be there without a name")
    suggests(bench, "Untitled-%d" % editor.rpc.current.buffer.number)
    first = editor.rpc.current.buffer.number
    editor.rpc.command("set hidden")
    editor.rpc.command("enew")
    editor.rpc.command("set filetype=javascript")
    suggests(bench, "Untitled-%d" % editor.rpc.current.buffer.number, "javascript")
    editor.rpc.command(f"buffer {first}")
    suggests(bench, f"Untitled-{first}")
    holds(bench, "return a + b\n")
    editor.command("w " + os.path.join(bench.work, "named.py"))
    wait(lambda: os.path.exists(os.path.join(bench.work, "named.py")), 5, "the file")
    suggests(bench, "named.py")
    editor.rpc.command("set filetype=")
    wait(lambda: editor.lua("return #vim.lsp.get_clients({ name = 'taper', bufnr = 0 })") <= 1, 5, "")
    editor.rpc.command("bwipeout!")
    editor.rpc.command("silent! %bwipeout!")
    in_step(bench)


def renamed(bench):
    """`:file`, `:saveas` and another spelling of a name: the suggestion is for the file as it is called now."""
    editor = bench.editor
    path = bench.put("before.py", "def add(a, b):\n")
    editor.open(path, "")
    suggests(bench, "before.py")
    editor.command("file " + os.path.join(bench.work, "after.py"))
    suggests(bench, "after.py")
    editor.command("w!")
    suggests(bench, "after.py")
    editor.command("saveas! " + os.path.join(bench.work, "saved as.py").replace(" ", "\\ "))
    suggests(bench, "saved as.py")
    # A name that is taken: it keeps its own.
    taken = os.path.join(bench.work, "taken.py")
    editor.rpc.funcs.bufload(editor.rpc.funcs.bufadd(taken))
    editor.command("silent! file " + taken)
    suggests(bench, "saved as.py")
    editor.command("w!")
    os.makedirs(os.path.join(bench.work, "sub"), exist_ok=True)
    editor.command("e! " + os.path.join(bench.work, "sub", "..", ".", "before.py"))
    wait(editor.attached, 10, "the server")
    suggests(bench, "before.py")
    editor.rpc.command("w!")
    link = os.path.join(bench.folder, "link.py")
    os.symlink(path, link)
    editor.command("e! " + link)
    wait(editor.attached, 10, "the server")
    suggests(bench, "before.py")
    editor.rpc.command("w!")
    in_step(bench)


def retyped(bench):
    """Another file type is another language, at once."""
    editor = bench.editor
    path = bench.put("types.py", "def add(a, b):\n")
    editor.open(path, "")
    suggests(bench, "types.py")
    for kind in ("javascript", "python", "javascript"):
        editor.command("set filetype=" + kind)
        wait(editor.attached, 10, "the server")
        suggests(bench, "types.py", kind)
    editor.rpc.command("w!")
    in_step(bench)


def second_project(bench):
    """A file of another project: the same server, which knows that project's folder."""
    editor = bench.editor
    editor.open(bench.put("first.py", "def add(a, b):\n"), "")
    suggests(bench, "first.py")
    editor.rpc.command("w!")
    second = os.path.join(bench.folder, "second")
    os.makedirs(os.path.join(second, ".git"), exist_ok=True)
    os.makedirs(os.path.join(second, "src"), exist_ok=True)
    path = os.path.join(second, "src", "other.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write("def add(a, b):\n")
    editor.open(path, "")
    suggests(bench, "src/other.py")
    editor.rpc.command("w!")
    in_step(bench)


NAMES = [renamed, retyped, unnamed, second_project]
CHECKS = [words, several_candidates, dismiss, burst, mended, buffer_toggled, paused, settings, popup, status_of_server, killed_server, *NAMES]
