"""llama.vim's policy without the editor: when it asks llama-server, what it asks, and when a hint is on the screen.

It knows nothing of how keys are timed or of what is counted.

The policy as read in ggml-org/llama.vim (2026-01): one request at a time, never cancelled; a key that finds one
running tries again after 100 ms; no request when the cursor's state is in the cache, or with more than 8 characters
to the right of the cursor; 128 tokens at most; 256 lines before the cursor's line and 64 behind; the prediction may
take 250 ms (1,000 for a speculative request), which the server checks once a line is complete. Each result is kept
under its context, and under the same context without its first one, two and three lines; 250 entries, the least
recently used goes. A hint is looked up here and at up to 128 typed characters before here, the longest wins. A hint on
the screen starts a speculative request for the place behind it. Left out: chunks of other files (there is one file), and
the filters for text that repeats the lines below are those that concern the hint's first line.

In one thing it is kinder to llama.vim than the editor: a hint that was found by walking back is kept under the present
context too, so that typing through it asks nothing.
"""

import collections
import http.client
import json
import queue
import threading
import time

CACHE = 250
WALK_BACK = 128
MAX_LINE_SUFFIX = 8
RETRY = 0.1


class Policy:
    """What differs between a default and a tuned set-up."""

    def __init__(self, before, after, n_predict=128, first_ms=250, speculative_ms=1000):
        self.before, self.after, self.n_predict = before, after, n_predict
        self.first_ms, self.speculative_ms = first_ms, speculative_ms


class Editor:
    """One buffer, one cursor, one server."""

    def __init__(self, port, policy):
        self.port, self.policy = port, policy
        self.cache = collections.OrderedDict()
        self.done = queue.Queue()
        self.job = None
        self.retry_at = None
        self.retry_content = None
        self.requests = 0
        self.failures = 0
        self.text, self.cursor = "", 0
        self.hint = None

    def open(self, text, cursor):
        self.text, self.cursor = text, cursor
        self.hint, self.retry_at = None, None

    def key(self, inserted):
        """Inserts at the cursor. A hint may be on the screen at once."""
        self.text = self.text[: self.cursor] + inserted + self.text[self.cursor :]
        self.cursor += len(inserted)
        self.hint = None
        self._try_hint()
        self._ask(None)

    def wait(self, end, on_hint, on_work):
        """Lives until `end`; `on_hint(moment)` when a hint comes onto the screen, `on_work(answer)` for each answer."""
        while True:
            now = time.monotonic()
            if self.retry_at is not None and self.retry_at <= now:
                content, self.retry_at = self.retry_content, None
                self._ask(content)
                continue
            if now >= end:
                return
            until = end if self.retry_at is None else min(end, self.retry_at)
            try:
                keys, answer = self.done.get(timeout=max(0.0, until - now))
            except queue.Empty:
                continue
            self.job = None
            if answer is None:
                self.failures += 1
                continue
            on_work(answer)
            content = answer.get("content", "")
            for key in keys:
                self._keep(key, content)
            if not self.hint:
                self._try_hint()
                if self.hint:
                    on_hint(time.monotonic())

    def finish(self, patience):
        """Waits for the running request, so that the next measurement does not share the machine with it."""
        if self.job is not None:
            self.job.join(patience)

    def _keep(self, key, content):
        self.cache[key] = content
        self.cache.move_to_end(key)
        while len(self.cache) > CACHE:
            self.cache.popitem(last=False)

    def _context(self, content):
        """Prefix, middle and suffix at the cursor; with `content`, as if it had been accepted."""
        before, after = self.text[: self.cursor] + (content or ""), self.text[self.cursor :]
        lines = before.split("\n")
        behind = after.split("\n")
        middle, line_suffix = lines[-1], behind[0]
        if not (middle + line_suffix).strip():
            middle, line_suffix = "", ""
        prefix = "\n".join(lines[:-1][-self.policy.before :]) + "\n"
        suffix = line_suffix + "\n" + "\n".join(behind[1:][: self.policy.after]) + "\n"
        indent = len(lines[-1]) - len(lines[-1].lstrip())
        return prefix, middle, suffix, indent, len(behind[0])

    @staticmethod
    def _keys(prefix, middle, suffix):
        keys = [(prefix + middle, suffix)]
        for _ in range(3):
            first, found, rest = prefix.partition("\n")
            if not found:
                break
            prefix = rest
            keys.append((prefix + middle, suffix))
        return keys

    def _try_hint(self):
        prefix, middle, suffix, _, line_suffix = self._context(None)
        if line_suffix > MAX_LINE_SUFFIX:
            return
        here = prefix + middle
        content = self.cache.get((here, suffix))
        if content is None:
            best = ""
            for length in range(1, min(WALK_BACK, len(here)) + 1):
                earlier = self.cache.get((here[:-length], suffix))
                if earlier is not None and earlier.startswith(here[-length:]):
                    if len(earlier) - length > len(best):
                        best = earlier[length:]
            if not best:
                return
            content = best
            self._keep((here, suffix), content)
        else:
            self.cache.move_to_end((here, suffix))
        self.hint = self._rendered(content)
        if self.hint:
            self._ask(content.rstrip("\n"))

    def _rendered(self, content):
        """The hint as shown; None if llama.vim would discard it."""
        lines = content.split("\n")
        while lines and not lines[-1]:
            lines.pop()
        line_prefix = self.text[: self.cursor].rpartition("\n")[2]
        behind = self.text[self.cursor :].split("\n")
        if lines and not (line_prefix + behind[0]).strip():
            # On a blank line, the indentation that is there already is not shown again.
            lead = min(len(lines[0]) - len(lines[0].lstrip()), len(line_prefix))
            lines[0] = lines[0][lead:]
        if not lines or not "".join(lines).strip():
            return None
        if len(lines) == 1 and lines[0] == behind[0]:
            return None
        below = next((line for line in behind[1:] if line.strip()), None)
        if len(lines) == 1 and line_prefix + lines[0] == below:
            return None
        return "\n".join(lines)

    def _ask(self, content):
        if self.job is not None:
            self.retry_at, self.retry_content = time.monotonic() + RETRY, content
            return
        prefix, middle, suffix, indent, line_suffix = self._context(content)
        if line_suffix > MAX_LINE_SUFFIX:
            return
        keys = self._keys(prefix, middle, suffix)
        if any(key in self.cache for key in keys):
            return
        limit = self.policy.first_ms if content is None else self.policy.speculative_ms
        body = {
            "id_slot": 0,
            "input_prefix": prefix,
            "input_suffix": suffix,
            "input_extra": [],
            "prompt": middle,
            "n_predict": self.policy.n_predict,
            "n_indent": indent,
            "top_k": 40,
            "top_p": 0.90,
            "samplers": ["top_k", "top_p", "infill"],
            "stream": False,
            "cache_prompt": True,
            "t_max_prompt_ms": 500,
            "t_max_predict_ms": limit,
        }
        self.requests += 1
        self.job = threading.Thread(target=self._post, args=(keys, json.dumps(body)), daemon=True)
        self.job.start()

    def _post(self, keys, body):
        answer = None
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            connection.request("POST", "/infill", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            read = response.read()
            if response.status == 200:
                answer = json.loads(read)
            connection.close()
        except (OSError, http.client.HTTPException, ValueError):
            pass
        self.done.put((keys, answer))
