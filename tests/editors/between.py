"""A proxy between an editor and the server that records their messages, for checks of what no screen shows.

usage: between.py LOG SERVER [ARGUMENT…]

The log has one line of JSON per message: from ("editor" or "server"), at (seconds), method, and params or, for responses to
completion requests, asked, since (when it was), result.
"""

import json
import subprocess
import sys
import threading
import time


class Between:
    """Both directions, each on a thread of its own."""

    def __init__(self, log, argv):
        self.log = open(log, "a", encoding="utf-8", buffering=1)
        self.server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.asked = {}

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
            if method in ("textDocument/inlineCompletion", "textDocument/completion"):
                self.asked[message["id"]] = (params, time.monotonic())
            send(self.server.stdin, message)
        self.server.stdin.close()

    def _from_server(self):
        while (message := receive(self.server.stdout)) is not None:
            if "method" in message:
                self._note("server", method=message["method"], params=message.get("params"))
            elif message.get("id") in self.asked:
                asked, since = self.asked.pop(message["id"])
                self._note("server", asked=asked, since=since, result=message.get("result"))
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
