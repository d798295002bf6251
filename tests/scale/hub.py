"""A hub on loopback that has one model under every name: what commands of the documents name is not ours to ship."""
import hashlib, http.server, json, pathlib, re, threading, urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files):
        """`files`: contents by name."""
        self.files = {name: pathlib.Path(path).read_bytes() for name, path in files.items()}
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/revision/.+", path):
            siblings = [{"rfilename": n, "size": len(c), "lfs": {"sha256": digest(c), "size": len(c)}} for n, c in self.server.files.items()]
            return self.answer(json.dumps({"sha": COMMIT, "siblings": siblings, "cardData": {"license": "apache-2.0"}}).encode())
        asked = re.fullmatch(rf"/[^/]+/[^/]+/resolve/{COMMIT}/(.+)", path)
        content = self.server.files.get(asked and asked[1])
        if content is None:
            return self.answer(b"{}", 404)
        self.answer(content, 200, {"ETag": f'"{digest(content)}"', "X-Linked-Etag": f'"{digest(content)}"',
                                   "X-Linked-Size": str(len(content)), "X-Repo-Commit": COMMIT})

    def answer(self, content, status=200, headers={}):
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if status == 200 else None
        first, last = (int(span[1]), min(int(span[2] or len(content)), len(content) - 1)) if span else (0, len(content) - 1)
        self.send_response(206 if span else status)
        if span:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[first:last + 1])

    def log_message(self, *_):
        pass


def digest(content):
    return hashlib.sha256(content).hexdigest()
