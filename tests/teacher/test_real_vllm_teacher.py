"""A real vLLM server scores as Hugging Face's model does, and is killed in the middle of it."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from vllm_process import TOKEN, VllmProcess

from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.skills import open_store
from sdar_verl.teacher.errors import TeacherRejected, TeacherUnavailable
from sdar_verl.teacher.remote import Patience, RemoteTeacher, ScoreRow, fingerprint_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random Qwen2 whose tokens differ in probability; the network itself; its tokenizer."""
    tokenizer = train_tokenizer([skill.text for skill in open_store("alfworld").all()], 600)
    network = build_model(tokenizer, hidden=64, layers=2, heads=2, kv_heads=1, ffn=128, max_positions=2048, seed=0)
    with torch.no_grad():
        network.get_input_embeddings().weight.mul_(8)
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save_pretrained(folder)
    network.save_pretrained(folder)
    return folder, network.eval(), AutoTokenizer.from_pretrained(folder)


def make_rows(count: int, vocabulary: int) -> list[ScoreRow]:
    numbers = random.Random(0)
    draw = lambda longest: tuple(numbers.randrange(vocabulary) for _ in range(numbers.randint(1, longest)))  # noqa: E731
    return [ScoreRow(draw(600), draw(60)) for _ in range(count)]


def expected(network, row: ScoreRow) -> list[float]:
    with torch.no_grad():
        found = network(torch.tensor([row.ids])).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
    return found[range(len(row.response)), list(row.response)].tolist()


def test_a_real_server(model, tmp_path):
    """One server for all of it: equal scores, refusals, and a kill while many rows are under way."""
    folder, network, tokenizer = model
    assert len(Path(folder / "tokenizer.json").read_text()) > 0
    server = VllmProcess(folder, tmp_path / "server.log", 700)
    try:
        server.ready()

        def client(**changes) -> RemoteTeacher:
            chosen = {"least": 662, "token": TOKEN, "tolerance": 1e-3, "concurrency": 4, **changes}
            return RemoteTeacher([server.url], fingerprint_of(tokenizer), patience=Patience(dark=2.0), **chosen)

        teacher, sent = client(), make_rows(40, len(tokenizer))
        teacher.check()
        probe = teacher.expected.probe
        assert teacher.expected.log_probs == pytest.approx(expected(network, probe), abs=2e-5)
        for row, scores in zip(sent, teacher.score(sent), strict=True):
            assert scores == pytest.approx(expected(network, row), abs=2e-5)

        with pytest.raises(TeacherRejected, match="it takes 700 tokens"):
            client(least=701).check()
        with pytest.raises(TeacherRejected, match="does not accept the token"):
            client(token=None).check()
        with pytest.raises(TeacherRejected, match="it serves teacher, not student"):
            client(model="student").check()
        assert TOKEN not in server.log.read_text()

        many = make_rows(3000, len(tokenizer))
        threading.Timer(1.5, server.kill).start()
        started = time.monotonic()
        with pytest.raises(TeacherUnavailable, match="of 3000 rows are not scored|failed 6 times"):
            teacher.score(many)
        assert time.monotonic() - started < 30
        assert 0 < teacher.counts.rows < 3000 and teacher.counts.lost == 1, "killed in the middle"
    finally:
        server.kill()
