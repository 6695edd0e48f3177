"""A model's hub that is away now, against a model that is not there: the one is tried again, the other refused."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from sdar_verl.errors import ConfigError, Unreachable
from sdar_verl.policy_model import check_policy_model


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Answers every question with the status in `answers`; its clients do not pause."""
    answers = {"status": 503, "code": ""}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(answers["status"])
            self.send_header("X-Error-Code", answers["code"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    yield answers
    server.shutdown()
    server.server_close()


def place_at(url, monkeypatch):
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)


def load(path="someone/a-model"):
    model = {"path": path, "tokenizer_path": None, "trust_remote_code": False}
    return check_policy_model({"actor_rollout_ref": {"model": model}})


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_fails_may_answer_later(hub, status):
    hub["status"] = status
    with pytest.raises(Unreachable, match="actor_rollout_ref.model.path='someone/a-model' cannot be loaded"):
        load()


def test_a_hub_that_cannot_be_reached_may_be_there_later(hub, monkeypatch):
    place_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(Unreachable, match="cannot be loaded"):
        load()


@pytest.mark.parametrize(("status", "code"), [(404, "RepoNotFound"), (403, "GatedRepo"), (403, "")])
def test_what_the_hub_refuses_is_refused(hub, status, code):
    hub.update(status=status, code=code)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load()


def test_a_folder_that_is_not_there_is_refused(hub, tmp_path):
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load(str(tmp_path / "nowhere"))


def test_what_is_missing_offline_will_not_come(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load()
