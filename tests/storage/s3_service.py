"""A real S3 API over HTTP (moto's server), a proxy in front of it that does harm, and checkpoints to store there."""

from __future__ import annotations

import http.client
import re
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>"


class FaultyS3:
    """Passes requests on to `target` and does harm to those that are listed.

    Attributes:
        calls: ``METHOD path`` of what was asked for, in order.
        fail: ``(pattern of METHOD path, status, code, times)``: the next such requests are answered with an error.
        delay: seconds before a request with a body is passed on.
        cut: pattern of ``METHOD path`` whose answer's connection is broken in the middle, once each.
        before: pattern to a function that is called once before such a request is passed on.
    """

    def __init__(self, target: str):
        self.target = urlsplit(target)
        self.calls, self.fail, self.delay, self.cut, self.before = [], [], 0.0, [], {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def pass_on(self):
                body = outer.read_body(self)
                outer.answer(self, body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # a client that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def read_body(self, handler):
        if "chunked" in handler.headers.get("Transfer-Encoding", ""):
            content = b""
            while size := int(handler.rfile.readline().split(b";")[0], 16):
                content += handler.rfile.read(size)
                handler.rfile.readline()
            handler.rfile.readline()
            return content
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))

    def answer(self, handler, body):
        asked = f"{handler.command} {handler.path}"
        self.calls.append(asked)
        with self._lock:
            harm = next((rule for rule in self.fail if rule[3] > 0 and re.search(rule[0], asked)), None)
            if harm is not None:
                self.fail[self.fail.index(harm)] = (*harm[:3], harm[3] - 1)
            cut = next((pattern for pattern in self.cut if re.search(pattern, asked)), None)
            if cut is not None:
                self.cut.remove(cut)
            call = next((self.before.pop(p) for p in list(self.before) if re.search(p, asked)), None)
        if call is not None:
            call()
        if harm is not None:
            return self._send(handler, harm[1], {}, ERROR.format(code=harm[2]).encode())
        if body and self.delay:
            time.sleep(self.delay)
        headers = {k: v for k, v in handler.headers.items() if k not in ("Transfer-Encoding", "Expect", "Connection")}
        headers["Content-Length"] = str(len(body))
        upstream = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=60)
        try:
            upstream.request(handler.command, handler.path, body, headers)
            answered = upstream.getresponse()
            content, status, back = answered.read(), answered.status, dict(answered.getheaders())
        finally:
            upstream.close()
        if cut is not None:
            content, back["Content-Length"] = content[: len(content) // 2], str(len(content))
            handler.close_connection = True
        return self._send(handler, status, back, content)

    @staticmethod
    def _send(handler, status, headers, content):
        handler.send_response(status)
        length = headers.get("Content-Length", str(len(content)))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)
            handler.wfile.flush()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def save_checkpoint(root, step, size=1000):
    """A complete checkpoint as verl leaves one, of two ranks, with content that tells its step."""
    folder = root / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True, exist_ok=True)
    for rank in range(2):
        content = f"weights of step {step}, rank {rank};".encode()
        content = content * (size // len(content) + 1)
        (folder / "actor" / f"model_world_size_2_rank_{rank}.pt").write_bytes(content)
    with zipfile.ZipFile(folder / "data.pt", "w") as archive:
        archive.writestr("data.pkl", f"order after step {step}")
    return folder


def record(run_dir, step):
    """What a run writes about its steps up to `step`."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "metrics.jsonl").write_text("".join(f'{{"step":{n},"data":{{}}}}\n' for n in range(step + 1)))
    (run_dir / "episodes").mkdir(exist_ok=True)
    (run_dir / "episodes" / "train.jsonl").write_text("".join(f'{{"step":{n}}}\n' for n in range(step + 1)))
    (run_dir / "manifest.json").write_text("{}")
    (run_dir / "panel.json").write_text('{"panel": 1}')


def content_of(folder):
    """Every file of a folder but the manifest, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "checkpoint.json"
    }
