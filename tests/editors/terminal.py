"""A terminal without a window: starts a program in tmux, sends keys, reads the screen, draws it as SVG."""

import html
import itertools
import os
import re
import signal
import subprocess
import time


class Failed(Exception):
    """A check did not find what it waited for; the message names it."""


def wait(question, seconds, what):
    """Polls until the value is true and returns it; fails with `what` when the time is up."""
    end = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(0.01)


class Terminal:
    """One program in one pane of a tmux server of its own."""

    # A server that is just ending must not be met by the next one.
    numbers = itertools.count()
    # Those that run.
    running = []

    def __init__(self, tmux, folder, argv, env, cwd, columns=88, rows=16):
        self.columns, self.rows = columns, rows
        conf = os.path.join(folder, "tmux.conf")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(
                "set -g default-terminal tmux-256color\nset -ga terminal-features ',*:RGB'\n"
                "set -s escape-time 0\nset -g status off\nset -g remain-on-exit on\n"
            )
        self.tmux = [tmux, "-u", "-S", os.path.join(folder, f"tmux{next(self.numbers)}"), "-f", conf]
        self.env = {**env, "LC_ALL": "C.UTF-8", "COLORTERM": "truecolor"}
        self.env.pop("TMUX", None)
        self.last = ""
        self.running.append(self)
        self._run("new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", cwd, "--", *argv)

    def _run(self, *arguments):
        done = subprocess.run(self.tmux + list(arguments), env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"tmux {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def type(self, text):
        """Types the characters, all at once."""
        # A trailing semicolon would end the tmux command.
        self._run("send-keys", "-l", "--", re.sub(r";$", r"\\;", text))
        self.last = text[-1]

    def press(self, *keys):
        """Presses keys by tmux's names: Tab, Enter, Escape, BSpace, C-x."""
        self._run("send-keys", *keys)

    def screen(self):
        """What is on the screen, as text."""
        return self._run("capture-pane", "-p")

    def frame(self):
        """What is on the screen, with its colours as escape sequences."""
        return self._run("capture-pane", "-p", "-e", "-N")

    def cursor(self):
        """Column and row of the cursor; None while it is hidden."""
        x, y, visible = self._run("display-message", "-p", "#{cursor_x} #{cursor_y} #{cursor_flag}").split()
        return (int(x), int(y)) if visible == "1" else None

    def ended(self, name):
        """Waits until the program has ended."""
        dead = ["display-message", "-p", "#{pane_dead}"]
        wait(lambda: self._run(*dead).strip() == "1", 10, lambda: f"{name} to end; it shows\n{self.screen()}")

    def kill(self):
        """Kills the program, which gets no chance to shut down."""
        os.kill(int(self._run("display-message", "-p", "#{pane_pid}")), signal.SIGKILL)

    def close(self):
        """Ends the tmux, and the program with it if it still runs."""
        if self in self.running:
            self.running.remove(self)
        subprocess.run(self.tmux + ["kill-server"], env=self.env, capture_output=True, check=False)


    @classmethod
    def close_all(cls):
        """Ends every one that runs."""
        for terminal in list(cls.running):
            terminal.close()


# The colours 0 to 15 of a terminal; the rest are a cube and a grey ramp, by convention.
BASIC = (
    "#1d1f21 #cc6666 #b5bd68 #f0c674 #81a2be #b294bb #8abeb7 #c5c8c6 "
    "#666a6e #d54e53 #b9ca4a #e7c547 #7aa6da #c397d8 #70c0b1 #eaeaea"
).split()
FOREGROUND, BACKGROUND = "#c5c8c6", "#14161b"


def _indexed(number):
    if number < 16:
        return BASIC[number]
    if number >= 232:
        return "#" + f"{8 + 10 * (number - 232):02x}" * 3
    levels = [0, 95, 135, 175, 215, 255]
    number -= 16
    return "#" + "".join(f"{levels[n]:02x}" for n in (number // 36, number // 6 % 6, number % 6))


def _colour(codes):
    """Reads what follows 38 or 48: `5;N` or `2;R;G;B`."""
    if codes and codes[0] == 5:
        return _indexed(codes[1]), codes[2:]
    return "#" + "".join(f"{c:02x}" for c in codes[1:4]), codes[4:]


def _styled(line, style):
    """Cuts a line with escape sequences into (text, style) pieces; `style` continues from line to line."""
    for piece in re.split(r"(\x1b\[[0-9;:]*m|\x1b[()][A-Z0-9]|\x0e|\x0f)", line):
        found = re.fullmatch(r"\x1b\[([0-9;:]*)m", piece)
        if not found:
            if piece and not piece.startswith(("\x1b", "\x0e", "\x0f")):
                yield piece, dict(style)
            continue
        # `4:3` is an underline of a kind, not two codes.
        codes = [int(c.split(":")[0] or 0) for c in found[1].split(";")]
        while codes:
            code, codes = codes[0], codes[1:]
            if code == 0:
                style.clear()
            elif code in (1, 3, 4, 7):
                style[{1: "bold", 3: "italic", 4: "underline", 7: "reverse"}[code]] = True
            elif code in (22, 23, 24, 27):
                style.pop({22: "bold", 23: "italic", 24: "underline", 27: "reverse"}[code], None)
            elif code in (38, 48, 58):
                value, codes = _colour(codes)
                style[{38: "fg", 48: "bg", 58: "line"}[code]] = value
            elif code in (39, 49):
                style.pop("fg" if code == 39 else "bg", None)
            elif 30 <= code <= 37 or 90 <= code <= 97:
                style["fg"] = BASIC[code - 30 if code < 40 else code - 82]
            elif 40 <= code <= 47 or 100 <= code <= 107:
                style["bg"] = BASIC[code - 40 if code < 50 else code - 92]


WIDTH, HEIGHT, PAD = 8.4, 18, 10
FAMILY = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"


def _rows(frame):
    """The rows of a frame as lists of SVG elements, and the colour of the page."""
    lines = frame.rstrip("\n").split("\n")
    # A program that colours its whole screen leaves no gap to the margin.
    page = next((now.get("bg", BACKGROUND) for _, now in _styled(lines[0], {})), BACKGROUND)
    rows, style = [], {}
    for row, line in enumerate(lines):
        column, out = 0, []
        for text, now in _styled(line, style):
            fg, bg = now.get("fg", FOREGROUND), now.get("bg", page)
            if now.get("reverse"):
                fg, bg = bg, fg
            x, y, long = PAD + column * WIDTH, PAD + row * HEIGHT, len(text) * WIDTH
            if bg != page:
                out.append(f'<rect x="{x:.1f}" y="{y}" width="{long:.1f}" height="{HEIGHT}" fill="{bg}"/>')
            words = text.rstrip(" ")
            if words.strip():
                extra = ' font-weight="bold"' * bool(now.get("bold")) + ' font-style="italic"' * bool(now.get("italic"))
                out.append(
                    f'<text x="{x:.1f}" y="{y + 13.5}" fill="{fg}"{extra} xml:space="preserve" '
                    f'textLength="{len(words) * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs">{html.escape(words)}</text>'
                )
            column += len(text)
        rows.append("".join(out))
    return rows, page


def _bar(cursor):
    x, y = PAD + cursor[0] * WIDTH, PAD + cursor[1] * HEIGHT
    return f'<rect x="{x - 0.5:.1f}" y="{y + 1}" width="2" height="{HEIGHT - 2}" fill="{FOREGROUND}"/>'


def _page(columns, rows, page, body):
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * WIDTH + 2 * PAD:.0f} {rows * HEIGHT + 2 * PAD}" '
            f'font-family="{FAMILY}" font-size="14">',
            f'<rect width="100%" height="100%" rx="6" fill="{page}"/>',
            *body,
            "</svg>\n",
        ]
    )


def svg(frame, columns, cursor):
    """Draws a frame as SVG: one rectangle per background, one text element per piece, a bar for the cursor."""
    rows, page = _rows(frame)
    return _page(columns, len(rows), page, [row for row in rows if row] + ([_bar(cursor)] if cursor else []))


def film(frames, columns):
    """Draws frames, each (duration in seconds, frame, cursor), as an SVG that loops. An unchanged
    row is drawn once."""
    total = sum(seconds for seconds, _, _ in frames)
    starts, at = [], 0.0
    for seconds, _, _ in frames:
        starts.append(at)
        at += seconds
    shown, page, count = {}, BACKGROUND, 0
    for number, (_, frame, cursor) in enumerate(frames):
        rows, page = _rows(frame)
        count = max(count, len(rows))
        for element in {row for row in rows if row} | ({_bar(cursor)} if cursor else set()):
            shown.setdefault(element, []).append(number)
    body = []
    for element, numbers in shown.items():
        if len(numbers) == len(frames):
            body.append(element)
            continue
        times, values = [0.0], ["visible" if 0 in numbers else "hidden"]
        for number in range(1, len(frames)):
            value = "visible" if number in numbers else "hidden"
            if value != values[-1]:
                times.append(starts[number] / total)
                values.append(value)
        body.append(
            f'<g visibility="{values[0]}">{element}<animate attributeName="visibility" calcMode="discrete" dur="{total:.2f}s" '
            f'repeatCount="indefinite" keyTimes="{";".join(f"{time:.4f}".rstrip("0").rstrip(".") for time in times)}" '
            f'values="{";".join(values)}"/></g>'
        )
    return _page(columns, count, page, body)
