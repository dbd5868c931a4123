"""A model hub on this machine with one file, for `taper pull`: it responds as the real one does."""

import hashlib
import http.server
import os
import re
import shutil
import threading


class Hub:
    """Serves one file under every repository. Ends with `close`."""

    def __init__(self, path):
        name, size = os.path.basename(path), os.path.getsize(path)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, headers, length=0):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("content-length", str(length))
                self.end_headers()

            def do_HEAD(self):
                self.do_GET(body=False)

            def do_GET(self, body=True):
                if not self.path.startswith("/blob/"):
                    about = {"x-linked-etag": f'"{digest}"', "x-linked-size": str(size), "x-repo-commit": "0" * 40}
                    return self.answer(302, {**about, "location": "/blob/" + name})
                found = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
                first = int(found[1]) if found else 0
                last = min(int(found[2]), size - 1) if found and found[2] else size - 1
                headers = {"accept-ranges": "bytes", "content-range": f"bytes {first}-{last}/{size}"}
                self.answer(206 if found else 200, headers, last - first + 1)
                if body:
                    with open(path, "rb") as source:
                        source.seek(first)
                        if last == size - 1:
                            shutil.copyfileobj(source, self.wfile, 1 << 20)
                        else:
                            self.wfile.write(source.read(last - first + 1))
                return None

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()
