"""Bedrock's and Kendra's retrievers against botocore's Stubber, which checks requests by the service's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st
from sdar_envs.search_qa.retrievers import aws_service, open_retriever
from sdar_envs.search_qa.retrievers.aws_service import _cut, titled
from sdar_envs.search_qa.retrievers.base import RetrieverError

BASE, INDEX = "ABCDE12345", "01234567-89ab-cdef-0123-456789abcdef"
ENGINES = {"bedrock": {"knowledge_base": BASE}, "kendra": {"index": INDEX}}


@pytest.fixture(autouse=True)
def account(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def pauses(monkeypatch):
    taken: list[float] = []
    monkeypatch.setattr(aws_service.time, "sleep", taken.append)
    return taken


@pytest.fixture
def opened():
    """Opens an engine without a probe, and what its client answers."""
    stubs = []

    def make(engine: str, **more):
        retriever = open_retriever({"engine": engine, "region": "us-east-1", "probe": False, **ENGINES[engine], **more})
        stub = Stubber(retriever._client)
        stub.activate()
        stubs.append(stub)
        return retriever, stub

    yield make
    for stub in stubs:
        stub.assert_no_pending_responses()


def kendra_answer(*items) -> dict:
    return {"QueryId": "q", "ResultItems": list(items)}


def asked(engine: str, query: str, k: int) -> dict:
    if engine == "kendra":
        return {"IndexId": INDEX, "QueryText": query, "PageSize": k}
    return {
        "knowledgeBaseId": BASE,
        "retrievalQuery": {"text": query},
        "retrievalConfiguration": {"vectorSearchConfiguration": {"numberOfResults": k}},
    }


def answer(engine: str, *texts: str, **more) -> dict:
    if engine == "kendra":
        return kendra_answer(*({"Id": f"id-{n}", "Content": text} for n, text in enumerate(texts)))
    items = [{"content": {"type": "TEXT", "text": text}, "score": 1.0 - n / 10} for n, text in enumerate(texts)]
    return {"retrievalResults": items, **more}


# --- request and answer -----------------------------------------------------------------------------------------------


def test_bedrock_speaks_its_contract(opened):
    retriever, stub = opened("bedrock", search_type="HYBRID")
    request = asked("bedrock", "who wrote it", 3)
    request["retrievalConfiguration"]["vectorSearchConfiguration"]["overrideSearchType"] = "HYBRID"
    place = {"type": "S3", "s3Location": {"uri": "s3://docs/books/The%20Pale%20Door.txt"}}
    web = {"type": "WEB", "webLocation": {"url": "https://host/wiki/Klell_Belmor?x=1"}}
    first = {"content": {"text": "It is a novel."}, "location": place, "score": 0.75}
    second = {"content": {"type": "TEXT", "text": '"Orsa"\nShe wrote.'}, "location": web, "score": 0.5}
    third = {"content": {"text": "A house."}, "metadata": {"title": 'The "House"', "x-amz-bedrock-kb-chunk-id": "c9"}}
    stub.add_response("retrieve", {"retrievalResults": [first, second, third]}, request)
    ((one, two, three),) = retriever.search(["who wrote it"], 3)
    assert (one.id, one.contents, one.score) == (place["s3Location"]["uri"], '"The Pale Door"\nIt is a novel.', 0.75)
    assert (two.id, two.contents) == (web["webLocation"]["url"], '"Orsa"\nShe wrote.')
    assert (three.id, three.contents, three.score) == ("c9", "\"The 'House'\"\nA house.", 0.0)


def test_kendra_speaks_its_contract(opened):
    retriever, stub = opened("kendra")
    item = {
        "Id": "7",
        "DocumentId": "d",
        "DocumentTitle": "The Pale Door",
        "Content": "It is a novel.",
        "ScoreAttributes": {"ScoreConfidence": "VERY_HIGH"},
    }
    stub.add_response("retrieve", kendra_answer(item, {"Id": "8", "Content": "x"}), asked("kendra", "who wrote it", 3))
    ((one, two),) = retriever.search(["who wrote it"], 3)
    assert (one.id, one.contents, one.score) == ("7", '"The Pale Door"\nIt is a novel.', 1.0)
    assert (two.id, two.contents, two.score) == ("8", "x", 0.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_found_is_an_answer(engine, opened):
    retriever, stub = opened(engine)
    stub.add_response("retrieve", answer(engine), asked(engine, "nobody", 2))
    assert retriever.search(["nobody"], 2) == [[]]


@pytest.mark.parametrize("engine", ENGINES)
def test_several_queries_are_asked_one_by_one_in_order(engine, opened):
    retriever, stub = opened(engine)
    for query in ("a", "b"):
        stub.add_response("retrieve", answer(engine, f"about {query}"), asked(engine, query, 1))
    assert [hits[0].contents for hits in retriever.search(["a", "", "b"], 1) if hits] == ["about a", "about b"]


def test_further_pages_are_asked_for_until_there_are_enough(opened):
    retriever, stub = opened("bedrock")
    picture = {"content": {"type": "IMAGE", "byteContent": "data"}}
    stub.add_response("retrieve", {**answer("bedrock", "a"), "nextToken": "2"}, asked("bedrock", "q", 3))
    stub.add_response(
        "retrieve", {"retrievalResults": [picture], "nextToken": "3"}, {**asked("bedrock", "q", 3), "nextToken": "2"}
    )
    last = {**answer("bedrock", "b", "c", "d"), "nextToken": "4"}
    stub.add_response("retrieve", last, {**asked("bedrock", "q", 3), "nextToken": "3"})
    assert [hit.contents for hit in retriever.search(["q"], 3)[0]] == ["a", "b", "c"]


def test_pages_without_end_are_an_error(opened):
    retriever, stub = opened("bedrock")
    for token in (None, "2"):
        request = asked("bedrock", "q", 2) | ({} if token is None else {"nextToken": token})
        stub.add_response("retrieve", {"retrievalResults": [], "nextToken": "2"}, request)
    with pytest.raises(RetrieverError, match="ever more pages"):
        retriever.search(["q"], 2)


def test_a_passage_without_its_text_is_an_error(opened):
    retriever, stub = opened("bedrock")
    stub.add_response("retrieve", {"retrievalResults": [{"content": {"type": "TEXT"}}]})
    with pytest.raises(RetrieverError, match="without text"):
        retriever.search(["q"], 2)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine, limit", [("bedrock", 20_000), ("kendra", 1_000)])
def test_a_query_is_cut_to_what_the_service_takes(engine, limit, opened):
    retriever, stub = opened(engine)
    sent = "w" * 9 + " w" * ((limit - 10) // 2)
    stub.add_response("retrieve", answer(engine, "x"), asked(engine, sent, 1))
    assert len(retriever.search([sent + " " + "v" * 50], 1)[0]) == 1


@given(st.text(), st.integers(1, 30))
def test_cutting(query, limit):
    short = _cut(query, limit)
    assert len(short) <= limit and query.strip().startswith(short)
    assert not query.strip() or short, "something is left to ask for"
    if len(query.strip()) <= limit:
        assert short == query.strip()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [0, 101])
def test_the_number_of_passages_has_limits(engine, k, opened):
    retriever, _ = opened(engine)
    with pytest.raises(RetrieverError, match="1 to 100"):
        retriever.search(["q"], k)


@given(st.text(max_size=40), st.text(max_size=60))
def test_a_title_stands_in_the_first_line_once(title, text):
    once = titled(title, text)
    assert titled(title, once) == once or "\n" in title or "\r" in title or not text.strip()
    assert once.endswith(text)


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_comes_from_either_of_awss_names(name, monkeypatch):
    monkeypatch.setenv(name, "eu-west-1")
    retriever = open_retriever({"engine": "kendra", "index": INDEX, "probe": False})
    assert retriever._client.meta.region_name == "eu-west-1"


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "code, status", [("ThrottlingException", 429), ("ServiceQuotaExceededException", 402), ("X", 503)]
)
def test_what_may_pass_is_tried_again(engine, code, status, opened, pauses):
    retriever, stub = opened(engine)
    for _ in range(3):
        stub.add_client_error("retrieve", code, "slow down", http_status_code=status)
    stub.add_response("retrieve", answer(engine, "x"), asked(engine, "q", 1))
    assert retriever.search(["q"], 1)[0][0].contents == "x"
    assert len(pauses) == 3 and pauses[0] < pauses[2], "longer each time"


@pytest.mark.parametrize("engine", ENGINES)
def test_throttled_for_good_says_how_often_it_was_tried(engine, opened, pauses):
    retriever, stub = opened(engine, retries=2)
    for _ in range(3):
        stub.add_client_error("retrieve", "ThrottlingException", "slow down")
    with pytest.raises(RetrieverError, match="after 3 attempts: ThrottlingException: slow down"):
        retriever.search(["q"], 1)


def test_the_deadline_ends_it_before_the_attempts_do(opened, pauses):
    retriever, stub = opened("kendra", deadline=0.05)
    stub.add_client_error("retrieve", "ThrottlingException", "slow down")
    with pytest.raises(RetrieverError, match="after 1 attempts: .*deadline of 0.05 s"):
        retriever.search(["q"], 1)


@pytest.mark.parametrize("engine, right", [("bedrock", "bedrock:Retrieve"), ("kendra", "kendra:Retrieve")])
def test_a_missing_right_is_named(engine, right, opened, pauses):
    retriever, stub = opened(engine)
    stub.add_client_error("retrieve", "AccessDeniedException", "you may not", http_status_code=403)
    with pytest.raises(RetrieverError, match=f"you may not. The role needs {right} on it"):
        retriever.search(["q"], 1)
    assert pauses == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_that_is_not_there_names_the_region(engine, opened, pauses):
    retriever, stub = opened(engine)
    stub.add_client_error("retrieve", "ResourceNotFoundException", "no such thing", http_status_code=404)
    with pytest.raises(RetrieverError, match="no such thing.*us-east-1"):
        retriever.search(["q"], 1)
    assert pauses == []


@pytest.mark.parametrize(
    "config, says",
    [
        ({"engine": "bedrock"}, "needs knowledge_base"),
        ({"engine": "kendra"}, "needs index"),
        ({"engine": "bedrock", "knowledge_base": BASE, "search_type": "BEST"}, "known: HYBRID, SEMANTIC"),
        ({"engine": "kendra", "index": INDEX, "url": "x"}, "unknown keys of retriever kendra: url"),
        ({"engine": "kendra", "index": INDEX, "retries": -1}, "whole number from 0"),
        ({"engine": "kendra", "index": INDEX, "deadline": True}, "must be a positive number"),
        ({"engine": "kendra", "index": INDEX, "endpoint": "nowhere", "region": "us-east-1"}, "nowhere"),
        ({"engine": "kendra", "index": INDEX}, "no AWS region: set region"),
        ({"engine": "kendra", "index": "short", "region": "us-east-1"}, "Invalid length for parameter IndexId"),
    ],
)
def test_settings_that_cannot_be(config, says):
    with pytest.raises(RetrieverError, match=says):
        open_retriever(config)


def test_without_credentials_it_says_so(monkeypatch, tmp_path):
    known = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    for name in (*known, *(name for name in os.environ if name.startswith("AWS_CONTAINER_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(RetrieverError, match="no AWS credentials .*give the machine a role"):
        open_retriever({"engine": "kendra", "index": INDEX, "region": "us-east-1"})


# --- over the wire ----------------------------------------------------------------------------------------------------


def test_over_http_it_probes_and_goes_on_after_a_failure(pauses):
    """A server of the test in the place of AWS: signed requests, a 500 that passes, and the probe at the start."""
    seen, statuses = [], [200, 500, 200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((body, self.headers["Authorization"]))
            status = statuses.pop(0)
            said = json.dumps(
                kendra_answer({"Id": "1", "Content": "x"}) if status == 200 else {"message": "oh"}
            ).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        retriever = open_retriever({"engine": "kendra", "index": INDEX, "region": "us-east-1", "endpoint": url})
        assert retriever.search(["who"], 2)[0][0].contents == "x"
        retriever.close()
    finally:
        server.shutdown()
        server.server_close()
    assert [body["QueryText"] for body, _ in seen] == ["probe", "who", "who"] and len(pauses) == 1
    assert all(signed.startswith("AWS4-HMAC-SHA256") for _, signed in seen)


def test_a_place_where_nobody_answers_stops_a_run_at_its_start(pauses):
    config = {"engine": "kendra", "index": INDEX, "region": "us-east-1", "endpoint": "http://127.0.0.1:9"}
    with pytest.raises(RetrieverError, match="after 3 attempts: it cannot be reached"):
        open_retriever(config)


def test_boto3_is_imported_by_these_engines_alone():
    program = (
        "import sys, sdar_envs.search_qa.retrievers.http, sdar_envs.search_qa.env; assert 'boto3' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
