"""What server and plugin agree on beside the protocol: refreshes, alternatives, an idle cursor.
between.py records the messages; the screen shows the rest."""

import json
import os
import time

from plugin import TASK, begin, holds, shows, status
from terminal import Failed, wait

# The engine is too slow for the long one within the budget.
LONG = "return alpha + beta + gamma + delta + epsilon + zeta + eta + theta"
SHORT = "hand_on(a)"
GOALS = [LONG, SHORT]

# Records every frame: the cursor's line and the ghost text.
FILM = """
local ghost = assert(loadstring(...))
_G.film = {}
vim.api.nvim_set_decoration_provider(vim.api.nvim_create_namespace('film'), {
  on_end = function() table.insert(_G.film, { vim.api.nvim_get_current_line(), ghost() }) end,
})
"""

# A `taper/refresh` for a position; column and version can be made wrong.
REFRESH = """
local column, version = ...
local client = vim.lsp.get_clients({ name = 'taper' })[1]
local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
params.position.character = params.position.character + column
params.version = vim.lsp.util.buf_versions[vim.api.nvim_get_current_buf()] + version
client.handlers['taper/refresh'](nil, params, { client_id = client.id, method = 'taper/refresh' })
"""


def said(bench):
    """The messages so far. The last line may be incomplete."""
    if not os.path.exists(bench.said):
        return []
    with open(bench.said, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def questions(bench, kind):
    """The positions of inline completion requests: explicit (1) or automatic (2)."""
    asked = [one["params"] for one in said(bench) if one.get("method") == "textDocument/inlineCompletion"]
    return [one["position"] for one in asked if one["context"]["triggerKind"] == kind]


def cursors(bench):
    """The reported positions of the idle cursor."""
    return [one["params"]["position"] for one in said(bench) if one.get("method") == "taper/cursor"]


def settled(bench):
    """Waits until no message came for longer than any response or delay takes here."""
    start = time.time()

    def quiet():
        last = os.path.getmtime(bench.said) if os.path.exists(bench.said) else start
        return time.time() - max(start, last) > 0.8

    wait(quiet, 20, "the talk to end")


def grows(bench):
    """A part or nothing is shown in time; then the rest appears after it without flicker."""
    from neovim import GHOST

    editor = bench.editor
    editor.lua(FILM, GHOST)
    begin(bench, "grows.py")
    wait(lambda: editor.shown() == LONG[4:], 10, lambda: f"the whole suggestion; it is {editor.shown()!r}")
    frames = [ghost for line, ghost in editor.lua("return _G.film") if line == "    retu"]
    while frames and not frames[0]:
        frames.pop(0)
    for before, after in zip(frames, frames[1:]):
        if not after.startswith(before):
            raise Failed(f"the suggestion did not grow in place: {frames}")
    place = {"line": 1, "character": 8}
    if frames[0] == LONG[4:] and questions(bench, 2).count(place) < 2:
        raise Failed("the whole was there at once: this checked nothing")
    told = [one["params"] for one in said(bench) if one.get("method") == "taper/refresh"]
    if not told or told[-1]["position"] != place:
        raise Failed(f"the server told of more at {told}")
    settled(bench)
    if editor.shown() != LONG[4:]:
        raise Failed(f"the suggestion went: {editor.shown()!r}")
    editor.accept()
    bench.saved(os.path.join(bench.work, "grows.py"), TASK + LONG + "\n")


def grows_only_where_it_was_asked(bench):
    """Elsewhere, in another text, dismissed, paused or in normal mode there is no new request."""
    editor = bench.editor
    begin(bench, "where.py", SHORT[:4])
    shows(bench, SHORT[4:])
    settled(bench)

    def more(*offsets):
        before = len(questions(bench, 2))
        for column, version in offsets or [(0, 0)]:
            editor.lua(REFRESH, column, version)
        settled(bench)
        return len(questions(bench, 2)) - before

    if more() != 1:
        raise Failed("it does not ask again")
    shows(bench, SHORT[4:])
    if more((1, 0), (-1, 0), (0, 1), (0, -1)):
        raise Failed("it asked again in another place, or another text")
    editor.terminal.press("C-]")
    shows(bench, "")
    if more() or editor.shown():
        raise Failed("dismissed, it came back")
    editor.lua("require('taper').pause()")
    if more():
        raise Failed("paused, it asked")
    editor.lua("require('taper').resume()")
    status(bench, "taper")
    editor.normal()
    if more():
        raise Failed("in normal mode, it asked")


def candidates(bench):
    """Next and previous alternative: requested once, cycled, kept while typed through, accepted. A single one shows
    no count."""
    editor = bench.editor
    begin(bench, "candidates.py", SHORT[:4])
    shows(bench, SHORT[4:])
    settled(bench)
    before = editor.messages()
    asked = len(questions(bench, 1))
    editor.terminal.press("M-]")
    wait(lambda: len(questions(bench, 1)) == asked + 1, 5, "a person's question")

    def answer():
        # The last response to such a request: one item or more, or the popup's list of them.
        answers = [one for one in said(bench) if one.get("asked", {}).get("context", {}).get("triggerKind") == 1]
        return answers[-1]["result"] if len(answers) > asked else None

    wait(lambda: answer() is not None, 5, "an answer")
    result = answer()
    texts = [item["insertText"] for item in (result if isinstance(result, list) else result["items"])]
    shown = lambda at: texts[at % len(texts)] + (f" ({at % len(texts) + 1}/{len(texts)})" if len(texts) > 1 else "")
    if texts[0] != SHORT[4:]:
        raise Failed(f"the candidates are {texts}; the first was shown")
    shows(bench, shown(1), 5)
    bench.picture(f"{editor.name}-candidates")
    for at in list(range(2, len(texts) + 2)) + [0]:
        editor.terminal.press("M-[" if at == 0 else "M-]")
        shows(bench, shown(at), 5)
    editor.terminal.press("M-]")
    shows(bench, shown(1), 5)
    if len(questions(bench, 1)) != asked + 1:
        raise Failed("it was asked for again and again")
    if editor.messages() != before:
        raise Failed(f"something was said: {editor.messages()!r}")
    text = texts[1 % len(texts)]
    editor.terminal.type(text[0])
    # Also once the request of the key is answered.
    settled(bench)
    wait(lambda: editor.shown().startswith(text[1:]), 5, lambda: f"{text[1:]!r} to stay; shown is {editor.shown()!r}")
    editor.accept()
    bench.saved(os.path.join(bench.work, "candidates.py"), TASK + SHORT[:4] + text + "\n")


def cursor_rests(bench):
    """After opening and jumping, the idle cursor is reported once; after typing, editing, selecting or pausing it is not.
    On a line's last character, the position after it is reported: there text would be appended."""
    editor = bench.editor
    text = "".join(f"x{number} = {number}\n" for number in range(40))
    path = bench.put("rests.py", text)
    editor.normal()
    settled(bench)
    heard = len(cursors(bench))

    def places():
        return [(place["line"], place["character"]) for place in cursors(bench)[heard:]]

    def expect(what, wanted):
        settled(bench)
        if places() != wanted:
            raise Failed(f"{what}, the server heard of {places()}, not {wanted}")

    editor.rpc.command("edit! " + editor.rpc.funcs.fnameescape(path))
    wait(editor.attached, 10, "the server")
    expect("opened", [(0, 0)])
    editor.terminal.type("20G$")
    expect("jumped", [(0, 0), (19, 8)])
    editor.terminal.type("jjjjj")
    expect("walked", [(0, 0), (19, 8), (24, 8)])
    editor.terminal.type("dd")
    editor.terminal.type("Oy = ")
    editor.normal()
    expect("typed", [(0, 0), (19, 8), (24, 8)])
    editor.terminal.type("vjj")
    expect("selected", [(0, 0), (19, 8), (24, 8)])
    editor.normal()
    settled(bench)
    heard += len(places())
    editor.lua("require('taper').pause()")
    editor.terminal.type("3G")
    expect("paused", [])
    editor.lua("require('taper').resume()")
    editor.terminal.type("4G0")
    expect("resumed", [(3, 0)])
    editor.rpc.command("new")
    editor.rpc.command("bwipeout!")
    editor.rpc.command("edit!")
    holds(bench, text)


def asked_with_a_key(bench):
    """An explicit request shows the beginning early, then the rest, and requests the alternatives."""
    from neovim import GHOST

    editor = bench.editor
    # Neovim's own completion sends requests by itself, so there is nothing that it has not requested already.
    if editor.name == "neovim-native":
        return
    editor.lua("require('taper.config').used.delay = 60000")
    editor.lua(FILM, GHOST)
    begin(bench, "asked.py")
    settled(bench)
    if editor.shown():
        raise Failed("it asked by itself: this checks nothing")
    before = len(questions(bench, 1))
    editor.terminal.press("M-\\")
    wait(lambda: editor.shown() == LONG[4:], 10, lambda: f"the whole suggestion; it is {editor.shown()!r}")
    frames = [ghost for line, ghost in editor.lua("return _G.film") if line == "    retu" and ghost]
    if frames[0] == LONG[4:]:
        raise Failed("the whole was there at once: this checked nothing")
    for earlier, later in zip(frames, frames[1:]):
        if not later.startswith(earlier):
            raise Failed(f"the suggestion did not grow in place: {frames}")
    settled(bench)
    if editor.shown() != LONG[4:]:
        raise Failed(f"the suggestion went: {editor.shown()!r}")
    asked = len(questions(bench, 1)) - before
    if asked != 2:
        raise Failed(f"a person's question was asked {asked} times, not once for the first and once for all")
    editor.lua("require('taper.config').used.delay = 0")
    editor.accept()
    bench.saved(os.path.join(bench.work, "asked.py"), TASK + LONG + "\n")


CHECKS = [grows, asked_with_a_key, candidates, grows_only_where_it_was_asked, cursor_rests]
