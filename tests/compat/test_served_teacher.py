"""A served teacher in a run: whose weights it must show, what becomes of a step without it, and what is counted."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sdar_verl.agent.rows import Row
from sdar_verl.compat.rollout_teacher import engine_gaps
from sdar_verl.compat.served_teacher import FILE, ServedTeacher
from sdar_verl.compat.teacher_pool import _answers
from sdar_verl.compat.teacher_scoring import ScoredRow, Scores
from sdar_verl.errors import SdarError
from sdar_verl.served_client import check_remote_teacher
from sdar_verl.settings import Settings
from sdar_verl.teacher.errors import TeacherNotAwaited, TeacherRejected, TeacherUnavailable
from sdar_verl.teacher.remote import fingerprint_of

sys.path += [str(Path(__file__).parents[1] / "teacher"), str(Path(__file__).parents[1])]

from teacher_stand_in import TOKEN, Cutter, StandIn, made_up  # noqa: E402
from test_settings import CONFIG  # noqa: E402


def settings_of(run_dir, servers, **remote):
    sdar = CONFIG["sdar"]
    quick = {"connect_timeout": 3, "request_timeout": 5, "patience": 4, "retries": 2}
    asked = {**sdar["teacher"]["remote"], "endpoints": [s.url for s in servers], **quick, **remote}
    path = asked.pop("model_path", None)
    teacher = {**sdar["teacher"], "placement": "remote", "remote": asked, "model_path": path}
    return Settings.from_config({**CONFIG, "sdar": {**sdar, "run_dir": str(run_dir), "teacher": teacher}})


def engine(seed=0):
    """A scorer with the stand-in's own scores."""

    def scorer(rows):
        found = []
        for row in rows:
            ids = [*row.prompt.tolist(), *row.response.tolist()]
            found.append(torch.tensor(made_up(ids, seed)[len(row.prompt) - 1 :]))
        return Scores(found, {})

    return scorer


def never(rows):
    raise AssertionError("not to be asked")


def start(settings, initial=None, fallback=never, step=0, name=None, give_up=lambda: False):
    urls = settings.teacher.remote.endpoints
    return ServedTeacher(
        settings, Cutter(), urls, TOKEN, least=20, initial=initial, rows=2, step=step, fallback=fallback, name=name,
        give_up=give_up,
    )  # fmt: skip


def scored_rows():
    lengths = [(4, 3), (2, 5), (6, 0), (3, 2)]
    return [
        ScoredRow(torch.arange(1, a + 1), torch.arange(50, 50 + b), torch.ones(b, dtype=torch.int64), taught=n != 1)
        for n, (a, b) in enumerate(lengths)
    ]


@pytest.fixture
def server():
    with StandIn() as found:
        yield found


def test_scores_and_what_is_counted(tmp_path, server):
    teacher, rows = start(settings_of(tmp_path, [server]), engine()), scored_rows()
    found, right = teacher(rows), engine()(rows).log_probs
    assert [len(scores) for scores in found.log_probs] == [3, 5, 0, 2]
    for number in (0, 3):
        assert torch.allclose(found.log_probs[number], right[number].float())
    assert not found.log_probs[1].any(), "nothing is asked for rows that nobody is taught"
    counted = {name.rpartition("/")[2]: value for name, value in found.metrics.items()}
    assert counted.pop("seconds") > 0 and counted.pop("waited_seconds") == 0
    assert counted == {
        "rows": 2, "servers": 1, "servers_usable": 1, "servers_lost": 0, "failed_requests": 0, "rejected": 0,
        "fell_back": 0, "skipped": 0,
    }  # fmt: skip


def test_a_teacher_with_other_weights_than_the_policys_first_ones_is_refused(tmp_path, server):
    with pytest.raises(TeacherRejected, match="its weights are others"):
        start(settings_of(tmp_path, [server]), engine(seed=1))
    assert not (tmp_path / FILE).exists()
    start(settings_of(tmp_path, [server]), engine())
    assert TOKEN not in (tmp_path / FILE).read_text()


def test_a_run_that_goes_on_asks_for_the_teacher_it_began_with(tmp_path, server):
    external = settings_of(tmp_path, [server], model_path="another/model")
    start(external, never)
    server.seed = 4
    with pytest.raises(TeacherRejected, match="weights are others.*began with the teacher of .*_fingerprint"):
        start(external, never, step=3)
    start(external, never)  # from step 0 nothing was learned from the other one
    start(external, never, step=3)
    server.seed = 0
    start(external, never)
    (tmp_path / FILE).unlink()
    with pytest.raises(TeacherRejected, match="goes on without its teacher_fingerprint.json"):
        start(settings_of(tmp_path, [server]), None, step=3)
    fingerprint_of(Cutter(3)).with_scores([-1.0] * 47).save(tmp_path / FILE)
    with pytest.raises(TeacherRejected, match="began with another tokenizer"):
        start(external, never, step=3)


def test_a_run_that_goes_on_may_start_while_its_teacher_is_away(tmp_path, server, capsys):
    settings = settings_of(tmp_path, [server], on_failure="skip")
    start(settings, engine())
    written = (tmp_path / FILE).stat().st_mtime_ns
    server.stop()
    with pytest.raises(TeacherUnavailable, match="no teacher server can be used"):
        start(settings, engine())
    with pytest.raises(TeacherUnavailable, match="placement=remote"):
        check_remote_teacher(settings, Cutter(), 5)
    check_remote_teacher(settings, Cutter(), 5, resumed=True)
    teacher = start(settings, step=3)
    assert "going on without the teacher as long as" in capsys.readouterr().out
    assert teacher(scored_rows()).metrics["sdar/teacher_remote/skipped"] == 1
    server.start()
    assert teacher(scored_rows()).metrics["sdar/teacher_remote/skipped"] == 0
    assert (tmp_path / FILE).stat().st_mtime_ns == written, "written again"


def test_new_weights_are_asked_for_by_their_name(tmp_path, server):
    """A server that still has the old weights gives no score, even where nobody could tell them from the new ones."""
    settings = settings_of(tmp_path, [server], on_failure="skip", check_seconds=1000, probe_tolerance=100)
    teacher = start(settings, engine(), name="teacher")
    assert teacher(scored_rows()).metrics["sdar/teacher_remote/skipped"] == 0
    teacher.renew("teacher-1", engine(seed=1))
    found = teacher(scored_rows()).metrics
    assert found["sdar/teacher_remote/skipped"] == 1 and found["sdar/teacher_remote/rejected"] > 0
    server.name, server.seed = "teacher-1", 1
    found = teacher(scored_rows())
    assert found.metrics["sdar/teacher_remote/skipped"] == 0
    torch.testing.assert_close(found.log_probs[0], engine(seed=1)(scored_rows()).log_probs[0].float())


def test_new_weights_are_recognised_by_their_scores(tmp_path, server):
    teacher = start(settings_of(tmp_path, [server], on_failure="skip", check_seconds=1000), engine(), name="teacher")
    teacher.renew("teacher", engine(seed=1))
    assert teacher(scored_rows()).metrics["sdar/teacher_remote/skipped"] == 1
    server.seed = 1
    assert teacher(scored_rows()).metrics["sdar/teacher_remote/skipped"] == 0


@pytest.mark.parametrize("policy", ["skip", "fallback", "wait"])
def test_a_step_without_servers(tmp_path, server, policy, capsys):
    fallback = engine(seed=7)
    teacher = start(settings_of(tmp_path, [server], on_failure=policy), engine(), fallback)
    rows = scored_rows()
    server.stop()
    if policy == "wait":
        with pytest.raises(TeacherUnavailable, match="usable for 4 s, 2 of 2 rows"):
            teacher(rows)
        return
    found = teacher(rows)
    assert f"{policy} for the teacher in this step: no teacher server was usable" in capsys.readouterr().out
    parts = (found.metrics["sdar/teacher_remote/skipped"], found.metrics["sdar/teacher_remote/fell_back"])
    if policy == "skip":
        assert found.log_probs is None and parts == (1, 0)
    else:
        assert torch.equal(found.log_probs[3], fallback(rows).log_probs[3]) and parts == (0, 1)
    assert found.metrics["sdar/teacher_remote/rows"] == 0
    server.start()
    again = teacher(rows)
    assert again.metrics["sdar/teacher_remote/skipped"] == again.metrics["sdar/teacher_remote/fell_back"] == 0
    assert torch.allclose(again.log_probs[3], engine()(rows).log_probs[3])


@pytest.mark.parametrize("policy", ["skip", "fallback", "wait"])
def test_a_run_that_must_end_waits_for_no_server_whatever_the_policy(tmp_path, server, policy):
    settings = settings_of(tmp_path, [server], on_failure=policy)
    teacher = start(settings, engine(), engine(seed=7), give_up=lambda: True)
    server.stop()
    with pytest.raises(TeacherNotAwaited):
        teacher(scored_rows())


# --- the rollout engine -----------------------------------------------------------------------------------------------

ROW = Row(
    prompt_ids=[1, 2], response_ids=[7, 8, 9], response_mask=[1, 0, 1], log_probs=[-1.0, 0.0, -2.0],
    teacher_prompt_ids=[1, 3, 4], weights_steps=[5, 5],
)  # fmt: skip


def prefill_of(**changes):
    """verl's output for a scored prompt, with each token's negative place as its log-probability."""

    async def prefill(ids, sampling):
        assert sampling == {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0, "logprobs": False}
        extra = {
            "prompt_ids": [[token] for token in ids[1:]] + [[0]],
            "prompt_logprobs": [[-float(at)] for at in range(1, len(ids))] + [[0.0]],
            "global_steps": 5,
        }
        return SimpleNamespace(token_ids=[1], stop_reason="completed", extra_fields={**extra, **changes})

    return prefill


def test_gaps_are_of_the_sampled_tokens_alone():
    (gap,), seconds = asyncio.run(engine_gaps([ROW], prefill_of(), 5))
    assert gap == [-3.0 + 1.0, 0.0, -5.0 + 2.0] and seconds >= 0


@pytest.mark.parametrize("row, changes, why", [
    (ROW, {"global_steps": 6}, "weights of several steps"),
    (replace(ROW, weights_steps=[4, 5]), {}, "weights of several steps"),
    (ROW, {"prompt_ids": [[1]] * 6}, "other tokens than it was sent"),
    (ROW, {"prompt_logprobs": [[0.0]] * 4}, "other tokens than it was sent"),
    (replace(ROW, log_probs=None), {}, "calculate_log_probs=true"),
])  # fmt: skip
def test_a_rollout_score_that_cannot_be_right_ends_the_run(row, changes, why):
    with pytest.raises(SdarError, match=why):
        asyncio.run(engine_gaps([row], prefill_of(**changes), 5))


def test_the_fingerprint_file_is_plain(tmp_path, server):
    start(settings_of(tmp_path, [server]), engine())
    assert set(json.loads((tmp_path / FILE).read_text())) == {"cuts", "log_probs"}


def test_a_server_of_the_runs_own_is_asked_without_proxies(monkeypatch):
    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{service.server_port}/health"
        assert _answers(url)
        service.shutdown()
    assert not _answers(url)
