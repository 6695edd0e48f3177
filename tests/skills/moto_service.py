"""A real DynamoDB API over HTTP (moto's server), and a proxy in front of it that throttles and answers in part."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

THROTTLED = {
    "__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "message": "slow down",
}


class FaultyDynamo:
    """Passes requests on to `target` and does harm to those that are listed.

    Attributes:
        calls: the operations asked for, in order.
        throttle: operation to how many of its next calls are throttled.
        most: keys of one BatchGetItem that are answered; the rest come back as unprocessed.
        lose: operations whose next answer is lost after the work was done (a 500, which botocore tries again).
        before: operation to a function called once before the next such call is passed on.
    """

    def __init__(self, target: str):
        self.target = target
        self.calls, self.throttle, self.most, self.lose, self.before = [], {}, None, [], {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = outer.answer(dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, headers, body):
        operation = headers["X-Amz-Target"].rpartition(".")[2]
        self.calls.append(operation)
        if self.throttle.get(operation, 0) > 0:
            self.throttle[operation] -= 1
            return 400, json.dumps(THROTTLED).encode()
        if operation in self.before:
            self.before.pop(operation)()
        held = {}
        if operation == "BatchGetItem" and self.most is not None:
            request = json.loads(body)
            for table, wanted in request["RequestItems"].items():
                if wanted["Keys"][self.most :]:
                    held[table] = {**wanted, "Keys": wanted["Keys"][self.most :]}
                wanted["Keys"] = wanted["Keys"][: self.most]
                if not wanted["Keys"]:
                    return 200, json.dumps({"Responses": {table: []}, "UnprocessedKeys": held}).encode()
            body = json.dumps(request).encode()
        passed = {k: v for k, v in headers.items() if k not in ("Host", "Content-Length", "Accept-Encoding")}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.target, body, passed), timeout=20) as answered:
                status, content = answered.status, answered.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        if operation in self.lose:
            self.lose.remove(operation)
            return 500, b'{"__type": "InternalServerError", "message": "lost"}'
        if held and status == 200:
            content = json.dumps({**json.loads(content), "UnprocessedKeys": held}).encode()
        return status, content

    def close(self):
        self._server.shutdown()
        self._server.server_close()
