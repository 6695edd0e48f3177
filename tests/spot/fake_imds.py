"""A metadata service as EC2 instances have it (IMDSv2), on a port of this machine."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
INTERRUPTION = '{"action": "terminate", "time": "2026-01-01T00:02:00Z"}'


class FakeImds:
    """Attributes:
    answers: path to text; what is not in it is answered with 404, as EC2 does while there is no notice.
    tokens: those that were given out and still hold.
    down: answer nothing but 500.
    """

    def __init__(self):
        self.answers, self.tokens, self.calls, self.down = {}, [], [], False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
                if self.path != "/latest/api/token" or not seconds.isdigit() or outer.down:
                    return self._send(400, "")
                outer.tokens.append(f"token-{len(outer.tokens)}")
                self._send(200, outer.tokens[-1])

            def do_GET(self):
                outer.calls.append(self.path)
                if outer.down:
                    return self._send(500, "")
                if self.headers.get("X-aws-ec2-metadata-token") not in outer.tokens:
                    return self._send(401, "")
                found = outer.answers.get(self.path)
                self._send(404 if found is None else 200, found or "")

            def _send(self, status, text):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
