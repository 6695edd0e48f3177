"""The retriever's server as a process of its own, its client, and what they do when things go wrong."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdar_envs.search_qa.contract import BadRequest, ServerLimits, read_search
from sdar_envs.search_qa.corpus import Passage, write_store
from sdar_envs.search_qa.retrievers import get, open_retriever
from sdar_envs.search_qa.retrievers.base import Retriever, RetrieverError
from sdar_envs.search_qa.retrievers.http import HttpRetriever
from sdar_envs.search_qa.server.app import Service

SERVE = [sys.executable, "-m", "sdar_envs.search_qa.server.cli", "serve", "--engine", "tantivy", "--port", "0"]

LONG = [f"green lamp {' '.join(f'word{number}' for number in range(800))}"] * 200  # takes a server some time


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    texts = ["the lamp is green", "a green garden", "copper river", "paper engine"]
    passages = [Passage(f"p{n}", f'"Title {n}"\n{text}') for n, text in enumerate(texts)]
    store = write_store(passages, tmp_path_factory.mktemp("server") / "index")
    get("tantivy").build(store)
    return store.folder


@contextmanager
def running(index, *arguments):
    """A server process; gives it with its address."""
    process = subprocess.Popen(
        [*SERVE, "--index", str(index), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), process.stderr.read()
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def server(index):
    limits = ("--max-queries", "8", "--max-query-chars", "100", "--max-topk", "4", "--max-body-bytes", "4000")
    with running(index, *limits, "--max-body-seconds", "1") as (_, url):
        yield url


def post(url, body):
    """Status and content of one request, whatever the status."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_search_r1s_request(server):
    status, answer = post(server, {"queries": ["green garden", "unknown"], "topk": 2, "return_scores": True})
    assert status == 200
    (first, second), nothing = answer["result"]
    assert first["document"] == {"id": "p1", "contents": '"Title 1"\na green garden'}
    assert first["score"] > second["score"] > 0
    assert nothing == []


def test_sdars_request_and_defaults(server):
    status, answer = post(server, {"query": "copper"})
    assert status == 200 and answer["result"][0][0]["document"]["id"] == "p2"
    _, several = post(server, {"query": ["copper", "paper"], "topk": None})
    assert [row[0]["document"]["id"] for row in several["result"]] == ["p2", "p3"]
    _, bare = post(server, {"queries": ["copper"], "return_scores": False})
    assert bare["result"] == [[{"id": "p2", "contents": '"Title 2"\ncopper river'}]]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 2000, 400, "not JSON"),
        ([], 422, "must be a JSON object"),
        ({}, 422, "exactly one of queries"),
        ({"query": "a", "queries": ["a"]}, 422, "exactly one of queries"),
        ({"queries": "a"}, 422, "a list of texts"),
        ({"queries": [1]}, 422, "a list of texts"),
        ({"query": {"a": 1}}, 422, "a list of texts"),
        ({"query": "a", "topk": 0}, 422, "from 1 to 4, got 0"),
        ({"query": "a", "topk": 5}, 422, "from 1 to 4, got 5"),
        ({"query": "a", "topk": True}, 422, "from 1 to 4"),
        ({"query": "a", "topk": "3"}, 422, "from 1 to 4"),
        ({"query": "a", "return_scores": "yes"}, 422, "true or false"),
        ({"query": "\ud800"}, 422, "half of a character"),
        ({"queries": ["a"] * 9}, 413, "9 queries in one request; at most 8"),
        ({"query": "a" * 101}, 413, "a query of 101 characters; at most 100"),
        ({"queries": ["a" * 99] * 99}, 413, "longer than 4000 bytes"),
    ],
)
def test_bad_requests_are_refused_with_reasons(server, body, status, says):
    got, answer = post(server, body)
    assert (got, says in answer["error"]) == (status, True), answer
    assert post(server, {"query": "copper"})[0] == 200, "the server goes on"


KEYS = st.sampled_from(["query", "queries", "topk", "return_scores", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.dictionaries(KEYS, VALUES, max_size=4).map(json.dumps).map(str.encode) | st.binary(max_size=60))
def test_any_body_is_a_search_or_refused(body):
    try:
        search = read_search(body, ServerLimits(), 3)
    except BadRequest as error:
        assert 400 <= error.status < 500 and str(error)
    else:
        assert all(isinstance(query, str) for query in search.queries) and 1 <= search.topk <= 100


def raw(url, data, wait=5.0):
    """What comes back for raw bytes on a connection."""
    host, port = url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
                if b"\r\n\r\n" in answer:
                    break
        except TimeoutError:
            pass
        return answer


def test_a_body_without_a_declared_length_is_limited_too(server):
    chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
    head = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in raw(server, head + chunk * 5 + b"0\r\n\r\n")


def test_a_body_that_never_comes_is_given_up(server):
    start = time.monotonic()
    assert b" 408 " in raw(server, b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert time.monotonic() - start < 4


def test_garbage_on_the_wire_hurts_nobody(server):
    for data in (b"\x16\x03\x01\x02\x00" * 50, b"GET\r\n\r\n", b"POST /retrieve HTTP/9.9\r\n\r\n", os.urandom(500)):
        raw(server, data, wait=0.3)
    assert post(server, {"query": "copper"})[0] == 200


def health(url):
    with urllib.request.urlopen(url.removesuffix("/retrieve") + "/health", timeout=5) as response:
        return json.loads(response.read())


def test_a_busy_server_says_so_and_the_client_waits(index):
    with running(index, "--max-waiting", "1") as (_, url):
        client = HttpRetriever(url)
        with ThreadPoolExecutor(2) as threads:
            long = threads.submit(client.search, LONG, 1)
            while health(url)["waiting"] == 0:
                assert not long.done(), "the request was over before it was seen"
            status, answer = post(url, {"query": "green"})
            assert (status, answer["error"]) == (503, "the server is busy; try again")
            assert client.search(["copper"], 1)[0][0].id == "p2"
            assert len(long.result(30)) == 200


class Broken(Retriever):
    """Fails as the query tells it to."""

    name = "broken"

    @classmethod
    def open(cls, config):
        return cls()

    def search(self, queries, k):
        raise {"known": RetrieverError("no disk"), "unknown": ZeroDivisionError("secret path")}[queries[0]]


def test_a_failing_engine_is_said_and_counted():
    service = Service(Broken())
    app = service.app()

    async def post(body):
        sent, parts = [], [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive():
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/retrieve", "headers": [], "query_string": b""}
        await app(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])["error"]

    assert asyncio.run(post({"query": "known"})) == (500, "the engine failed: no disk")
    status, said = asyncio.run(post({"query": "unknown"}))
    assert status == 500 and "secret" not in said
    assert service.registry.get_sample_value("sdar_retriever_requests_total", {"status": "500"}) == 2
    assert service.registry.get_sample_value("sdar_retriever_waiting") == 0
    service.close()


def test_health_and_metrics(server):
    base = server.removesuffix("/retrieve")
    said = health(server)
    assert (said["status"], said["engine"], said["passages"], said["waiting"]) == ("ok", "tantivy", 4, 0)

    def metrics():
        with urllib.request.urlopen(base + "/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    before = metrics()
    post(server, {"queries": ["a", "b"]})
    post(server, {"queries": 1})
    after = metrics()
    for name, more in (
        ("sdar_retriever_queries_total", 2),
        ('sdar_retriever_requests_total{status="200"}', 1),
        ('sdar_retriever_requests_total{status="422"}', 1),
        ("sdar_retriever_engine_seconds_count", 1),
    ):
        assert after[name] - before.get(name, 0) == more, name


def test_the_client_gets_what_the_engine_finds(server, index):
    queries = ["green", "copper river", "unknown"]
    with_server = open_retriever({"engine": "http", "url": server}).search(queries, 2)
    direct = open_retriever({"engine": "tantivy", "index": str(index)}).search(queries, 2)
    assert with_server == direct


def test_many_clients_at_once(server):
    client = HttpRetriever(server)

    def ask(number):
        return client.search([("green", "copper", "paper")[number % 3]], 1)[0][0].id

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(ask, range(120)))
    assert found == [ask(number) for number in range(3)] * 40


def test_refusals_are_not_tried_again(server):
    client = HttpRetriever(server, retries=5)
    start = time.monotonic()
    with pytest.raises(RetrieverError, match="refused the search: status 413: .*at most 100"):
        client.search(["a" * 101], 1)
    assert time.monotonic() - start < 1


def test_sigterm_lets_running_requests_finish(index):
    """And takes no new ones: the process ends with status 0 once the answer is out."""
    with running(index) as (process, url):
        client, found = HttpRetriever(url, retries=0), []
        long = LONG
        worker = threading.Thread(target=lambda: found.append(client.search(long, 3)))
        worker.start()
        while health(url)["waiting"] == 0:
            assert worker.is_alive(), "the request was over before it was seen"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        worker.join(5)
        assert process.stderr.read() == ""
        assert [len(hits) for hits in found[0]] == [2] * 200
    with pytest.raises(RetrieverError, match=f"no answer from the retriever at {url} after 1 attempts"):
        HttpRetriever(url, retries=0)


def test_a_server_that_is_killed_and_comes_back(index):
    """The client waits for it, and says so clearly when it does not return."""
    with running(index) as (process, url):
        client = HttpRetriever(url, retries=30, deadline=20)
        assert client.search(["green"], 1)
        process.kill()
        process.wait()
        port = url.split(":")[2].split("/")[0]
        hasty = HttpRetriever(url, retries=2, deadline=20, probe=False)
        with pytest.raises(RetrieverError, match="after 3 attempts: .*refused"):
            hasty.search(["green"], 1)
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(client.search, ["green"], 1)
            time.sleep(0.5)
            assert not answer.done()
            with running(index, "--port", port):
                assert answer.result(20)[0][0].id in ("p0", "p1")


def test_a_second_address_takes_over(index):
    with running(index) as (first, one), running(index) as (_, two):
        client = HttpRetriever([one, two], retries=3)
        first.kill()
        first.wait()
        for _ in range(6):
            assert client.search(["copper"], 1)[0][0].id == "p2"


@contextmanager
def scripted(*scripts):
    """A server that plays one script for each connection, the last again and again; gives address and count."""
    listener, seen, stop = socket.create_server(("127.0.0.1", 0)), [], threading.Event()

    def run():
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            seen.append(time.monotonic())
            script = scripts[min(len(seen), len(scripts)) - 1]
            threading.Thread(target=play, args=(connection, script), daemon=True).start()

    def play(connection, script):
        with connection:
            try:
                connection.recv(65536)
                for part in script:
                    if isinstance(part, bytes):
                        connection.sendall(part)
                    elif stop.wait(part):
                        return
            except OSError:
                pass  # the client has gone

    threading.Thread(target=run, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/retrieve", seen
    finally:
        stop.set()
        listener.close()


def reply(content, status="200 OK", more=""):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n".encode() + body


GOOD = reply({"result": [[{"document": {"contents": "found"}, "score": 1}]]})


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ([reply(b"<html>welcome</html>")], "answered no JSON: '<html>"),
        ([reply(b"[" * 3900)], "answered no JSON"),
        ([reply({"results": []})], "does not speak Search-R1's contract"),
        ([reply({"result": []})], "for 1 queries it answered"),
        ([reply({"result": [[{"id": "1", "contents": "bare"}]]})], "without document.contents and a score"),
        ([reply({"result": [[{"document": {"contents": "x"}, "score": "high"}]]})], "without document.contents"),
        ([reply(b"x" * 5000)], "longer than max_bytes=4000"),
        ([reply(b"no", "404 Not Found")], "refused the search: status 404"),
        ([reply(b"", "307 Moved", "Location: http://127.0.0.1:9/\r\n")], "refused the search: status 307"),
    ],
)
def test_answers_that_would_not_get_better_end_the_search(script, says):
    with scripted(script) as (url, seen):
        client = HttpRetriever(url, probe=False, max_bytes=4000)
        with pytest.raises(RetrieverError, match=says):
            client.search(["q"], 3)
        assert len(seen) == 1


@pytest.mark.parametrize(
    "failure",
    [
        [b""],
        [b"\x00\xff garbage\r\n\r\n"],
        [GOOD[:-10]],
        [reply({}, "503 Busy")],
        [reply({}, "429 Slow down", "Retry-After: 0.1\r\n")],
        [reply({}, "500 Oops", "Retry-After: soon\r\n")],
        [10.0],
        [GOOD[:30], 10.0],
    ],
    ids=["closed", "garbage", "cut off", "busy", "slow down", "broken", "silent", "stalled"],
)
def test_failures_that_may_pass_are_tried_again(failure):
    with scripted(failure, failure, [GOOD]) as (url, seen):
        client = HttpRetriever(url, probe=False, timeout=1.0)
        assert client.search(["q"], 3)[0][0].contents == "found"
        assert len(seen) == 3


def test_a_server_that_drips_is_cut_off_in_time():
    head, _, body = GOOD.partition(b"\r\n\r\n")
    drip = [part for byte in body for part in (bytes([byte]), 0.1)]
    with scripted([head + b"\r\n\r\n", *drip]) as (url, _):
        client = HttpRetriever(url, probe=False, timeout=0.5, retries=1, deadline=5)
        start = time.monotonic()
        with pytest.raises(RetrieverError, match="after 2 attempts: "):
            client.search(["q"], 3)
        assert time.monotonic() - start < 2.5


def test_the_deadline_ends_all_attempts():
    with scripted([reply({}, "503 Busy", "Retry-After: 1\r\n")]) as (url, seen):
        client = HttpRetriever(url, probe=False, retries=100, deadline=2.5)
        start = time.monotonic()
        with pytest.raises(RetrieverError, match=r"status 503: .*the deadline of 2.5 s leaves no time for more"):
            client.search(["q"], 3)
        assert time.monotonic() - start < 2.6
        assert len(seen) <= 3


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"url": "ftp://x"}, "must be http"),
        ({"url": []}, "set url"),
        ({"url": ["http://a", 1]}, "must be http"),
        ({"url": "http://a", "timeout": 0}, "must be positive"),
        ({"url": "http://a", "retries": -1}, "whole number from 0"),
        ({"url": "http://a", "tries": 1}, "unknown keys of retriever http: tries"),
        ({"url": "http://[bad/x", "probe": True}, "cannot be used"),
    ],
)
def test_wrong_settings_of_the_client_are_refused(config, says):
    with pytest.raises(RetrieverError, match=says):
        open_retriever({"engine": "http", **config})


def test_command_line_errors_are_short(tmp_path):
    for arguments, says in (
        (["build", "--engine", "http", "--index", str(tmp_path)], "has no index to build"),
        (["build", "--engine", "bm25s", "--index", str(tmp_path)], "holds no corpus yet"),
        (["serve", "--engine", "tantivy", "--index", str(tmp_path / "x")], "holds no finished corpus"),
        (["serve", "--engine", "tantivy", "--index", "x", "-o", "threads"], "-o takes KEY=VALUE"),
    ):
        done = subprocess.run([*SERVE[:3], *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and says in done.stderr
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_said(index):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*SERVE[:-1], port, "--index", str(index)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "choose another --port" in done.stderr
