"""Stands between an editor and the server, and writes down what they say: for checks of what no screen shows.
It knows nothing of what is suggested.

usage: between.py LOG SERVER [ARGUMENT…]

The log has a line of JSON a message: from ("editor" or "server"), at (seconds), method, and params or, for answers to
questions about completion, asked, since (when it was), result. A server that does not announce `experimental.taper` is helped: that it asks for refreshes and
cursors is announced for it, `taper/cursor` is kept from it, a question that came with a key is followed by a
`taper/refresh` a while later, until the answer stays the same, and a person who asks gets two more suggestions.
"""

import json
import subprocess
import sys
import threading
import time

# When a helped server says that it knows more.
LATER = 0.6


class Between:
    """Both directions, each on a thread of its own."""

    def __init__(self, log, argv):
        self.log = open(log, "a", encoding="utf-8", buffering=1)
        self.server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lock = threading.Lock()
        self.asked, self.versions, self.refreshed = {}, {}, set()
        self.helped = False

    def run(self):
        """Until the server ends; its status."""
        threading.Thread(target=self._from_editor, daemon=True).start()
        self._from_server()
        return self.server.wait()

    def _from_editor(self):
        while (message := receive(sys.stdin.buffer)) is not None:
            method, params = message.get("method"), message.get("params")
            if method:
                self._note("editor", method=method, params=params)
            if method in ("initialize", "textDocument/inlineCompletion", "textDocument/completion"):
                self.asked[message["id"]] = (method, params, time.monotonic())
            if method in ("textDocument/didOpen", "textDocument/didChange"):
                self.versions[params["textDocument"]["uri"]] = params["textDocument"]["version"]
            if not (self.helped and method == "taper/cursor"):
                send(self.server.stdin, message)
        self.server.stdin.close()

    def _from_server(self):
        while (message := receive(self.server.stdout)) is not None:
            if "method" in message:
                self._note("server", method=message["method"], params=message.get("params"))
            elif message.get("id") in self.asked:
                self._answer(*self.asked.pop(message["id"]), message)
            self._to_editor(message)

    def _answer(self, method, params, start, message):
        result = message.get("result")
        if method == "initialize":
            experimental = result["capabilities"].setdefault("experimental", {})
            self.helped = "taper" not in experimental
            experimental.setdefault("taper", {"refresh": True, "cursor": True})
        elif self.helped and result and method == "textDocument/inlineCompletion":
            kind = params["context"]["triggerKind"]
            items = result if isinstance(result, list) else result["items"]
            if kind == 1 and len(items) == 1:
                first = items[0]["insertText"].split(" ")[0]
                items += [{**items[0], "insertText": first + more} for more in (" 2", " 3")]
            if kind == 2:
                self._more_later(params, [item["insertText"] for item in items])
        if method != "initialize":
            self._note("server", asked=params, since=start, result=result)

    def _more_later(self, params, texts):
        uri, position = params["textDocument"]["uri"], params["position"]
        about = {"textDocument": {"uri": uri}, "position": position, "version": self.versions.get(uri)}
        if (key := json.dumps([about, texts])) in self.refreshed:
            return
        self.refreshed.add(key)

        def later():
            message = {"jsonrpc": "2.0", "method": "taper/refresh", "params": about}
            self._note("server", method="taper/refresh", params=about)
            self._to_editor(message)

        timer = threading.Timer(LATER, later)
        timer.daemon = True
        timer.start()

    def _to_editor(self, message):
        with self.lock:
            send(sys.stdout.buffer, message)

    def _note(self, whose, **what):
        self.log.write(json.dumps({"from": whose, "at": time.monotonic(), **what}) + "\n")


def receive(stream):
    """The next message; None at the end."""
    length = 0
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(stream.read(length)) if length else None


def send(stream, message):
    """One message."""
    body = json.dumps(message).encode()
    try:
        stream.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        stream.flush()
    except (BrokenPipeError, ValueError):
        pass  # the other side has ended


if __name__ == "__main__":
    sys.exit(Between(sys.argv[1], sys.argv[2:]).run())
