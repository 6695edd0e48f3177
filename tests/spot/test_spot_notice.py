"""How the end of a machine is heard: the metadata service, SIGTERM, and the word that is left for the trainer."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from fake_imds import ACTION, INTERRUPTION, REBALANCE, FakeImds

from sdar_verl import launch
from sdar_verl.errors import ConfigError, SdarError
from sdar_verl.spot import SpotStop, notice
from sdar_verl.spot import imds as spot_imds
from sdar_verl.spot.ending import Ending
from sdar_verl.spot.imds import VARIABLE, Metadata, MetadataError, Watcher
from sdar_verl.spot.notice import SAVE, STOP, NoticeBox
from sdar_verl.storage.settings import SpotSettings


@pytest.fixture
def imds(monkeypatch):
    service = FakeImds()
    monkeypatch.setenv(VARIABLE, service.url)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # must not be used on the way there
    yield service
    service.close()


def settings(**changes):
    base = {"imds": False, "sigterm": False, "on_notice": "finish", "on_rebalance": "save", "poll_seconds": 0.05}
    return SpotSettings(**{**base, "upload_seconds": 5, "mtbf_hours": None, **changes})


def until(done):
    limit = time.monotonic() + 10
    while not (result := done()):
        assert time.monotonic() < limit
        time.sleep(0.02)
    return result


def test_tokens_are_fetched_once_and_again_when_they_expire(imds):
    metadata = Metadata()
    assert metadata.get(ACTION) is None and metadata.get(REBALANCE) is None
    assert len(imds.tokens) == 1
    imds.answers[ACTION] = INTERRUPTION
    imds.tokens[:] = ["another"]  # ours does not hold any more
    assert metadata.get(ACTION) == INTERRUPTION and len(imds.tokens) == 2


def test_a_service_that_is_down_is_an_error_not_an_all_clear(imds):
    metadata = Metadata()
    metadata.get(ACTION)
    imds.down = True
    with pytest.raises(MetadataError, match="answered 500"):
        metadata.get(ACTION)
    imds.close()
    with pytest.raises(MetadataError, match="cannot be reached"):
        metadata.get(ACTION)


def test_a_run_that_should_watch_and_cannot_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setattr(spot_imds, "FIRST_PAUSES", (0.01, 0.01))
    with pytest.raises(ConfigError, match="sdar.spot.imds: .*cannot be reached.*sdar.spot.imds=false"):
        Watcher(print, on_rebalance="save", poll_seconds=1)


def test_a_service_that_is_slow_to_answer_is_asked_again(imds, monkeypatch):
    monkeypatch.setattr(spot_imds, "FIRST_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(spot_imds.time, "sleep", lambda seconds: setattr(imds, "down", False))
    imds.down = True
    Watcher(print, on_rebalance="save", poll_seconds=1).close()
    assert imds.calls == [ACTION]


def in_seconds(later):
    return json.dumps({"noticeTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + later))})


def test_a_recommendation_stops_one_start_and_not_the_next(imds, tmp_path):
    """It stays in the metadata service, and the run is started again on the same instance."""
    imds.answers[REBALANCE] = in_seconds(2)
    with Ending(tmp_path, settings(imds=True, on_rebalance="stop")).watched():
        assert until(NoticeBox(tmp_path).look).action == STOP
    imds.answers[REBALANCE] = in_seconds(-2)
    with Ending(tmp_path, settings(imds=True, on_rebalance="stop")).watched():
        asked = len(imds.calls)
        until(lambda: imds.calls[asked:].count(REBALANCE) > 2)
        assert NoticeBox(tmp_path).look() is None
        imds.answers[ACTION] = INTERRUPTION
        assert until(NoticeBox(tmp_path).look).action == STOP


def test_the_trainer_is_told_of_both_signals_and_a_stop_stays_one(imds, tmp_path):
    ending = Ending(tmp_path, settings(imds=True))
    with ending.watched():
        assert ending.box.look() is None
        imds.answers[REBALANCE] = in_seconds(0)
        assert until(ending.box.look).action == SAVE
        imds.answers[ACTION] = INTERRUPTION
        notice = until(lambda: (found := ending.box.look()).action == STOP and found)
        assert notice.why == "spot interruption: terminate at 2026-01-01T00:02:00Z"
        del imds.answers[ACTION]
        asked = len(imds.calls)
        until(lambda: len(imds.calls) > asked + 3)
        assert ending.box.look() == notice
    asked = len(imds.calls)
    time.sleep(0.2)
    assert len(imds.calls) == asked, "the thread goes on"
    with Ending(tmp_path, settings()).watched():
        assert NoticeBox(tmp_path).look() is None, "an earlier start's notice is still there"


@pytest.mark.parametrize(("rule", "action"), [("ignore", None), ("stop", STOP)])
def test_a_rebalance_recommendation_does_what_was_set(imds, tmp_path, rule, action):
    imds.answers[REBALANCE] = "{}"
    with Ending(tmp_path, settings(imds=True, on_rebalance=rule)).watched():
        if action is None:
            until(lambda: len(imds.calls) > 4)
            assert NoticeBox(tmp_path).look() is None and REBALANCE not in imds.calls
        else:
            assert until(NoticeBox(tmp_path).look).action == action


def test_an_outage_is_said_once_and_ends(imds, tmp_path, capsys):
    with Ending(tmp_path, settings(imds=True)).watched():
        imds.down = True
        asked = len(imds.calls)
        until(lambda: len(imds.calls) > asked + 3)
        imds.answers[ACTION], imds.down = INTERRUPTION, False
        assert until(NoticeBox(tmp_path).look).action == STOP
    assert capsys.readouterr().out.count("no news about this instance") == 1


SIGNALLED = """
import sys, time
from pathlib import Path
from sdar_verl.spot import SpotStop
from sdar_verl.spot.ending import Ending
from sdar_verl.storage.settings import SpotSettings

trains = sys.argv[2] == "trains"
spot = Ending(Path(sys.argv[1]), SpotSettings(False, True, "finish", "save", 1, 5, None))
try:
    with spot.watched():
        if trains:
            spot.take_signals()
        print("ready", flush=True)
        for _ in range(200):
            time.sleep(0.05)
except SpotStop:
    sys.exit(75)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("state", "signals", "code"), [("starts", 1, 75), ("trains", 2, 130)])
def test_sigterm_is_a_notice_and_the_second_one_stops_at_once(tmp_path, state, signals, code):
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED, str(tmp_path), state], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    for number in range(signals):
        os.kill(process.pid, signal.SIGTERM)
        if number + 1 < signals:
            assert until(NoticeBox(tmp_path).look).why == "SIGTERM"
            assert process.poll() is None
    assert process.wait(20) == code


def test_a_wish_to_save_never_takes_the_place_of_a_stop_that_came_meanwhile(tmp_path, monkeypatch):
    box, write = NoticeBox(tmp_path), notice.write_atomic

    def interrupted(path, text):  # SIGTERM between the look and the write
        monkeypatch.setattr(notice, "write_atomic", write)
        assert box.put(STOP, "SIGTERM")
        write(path, text)

    monkeypatch.setattr(notice, "write_atomic", interrupted)
    box.put(SAVE, "rebalance")
    assert box.look().action == STOP
    box.clear()
    assert box.look() is None


def test_neither_a_cut_answer_nor_a_full_disk_ends_the_watching(imds):
    heard, said, harm = [], [], [OSError(28, "No space left"), None]

    def notify(action, why):
        if (error := harm.pop(0) if harm else None) is not None:
            raise error
        heard.append(action)

    metadata = Metadata()
    watcher = Watcher(notify, on_rebalance="save", poll_seconds=0.02, metadata=metadata, say=said.append)
    whole = metadata._open

    class Cut:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self):
            raise http.client.IncompleteRead(b"{", 10)

    metadata._open = lambda *args, **kwargs: Cut()
    until(lambda: said)
    metadata._open = whole
    imds.answers[ACTION] = INTERRUPTION
    assert until(lambda: heard)[0] == STOP
    watcher.close()
    assert "IncompleteRead" in said[0] or "cannot be reached" in said[0]


@pytest.mark.parametrize(("error", "kept"), [(SpotStop("gone"), False), (SdarError("crash"), True)])
def test_rays_logs_are_kept_of_a_crash_and_not_of_a_stop(tmp_path, monkeypatch, error, kept):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(type(error)), launch._scratch(tmp_path / "run") as folder:
        (folder / "ray" / "session_latest" / "logs").mkdir(parents=True)
        (folder / "ray" / "session_latest" / "logs" / "worker.log").write_text("x")
        raise error
    assert (tmp_path / "run" / "ray-logs").exists() == kept


def test_logs_that_cannot_be_copied_do_not_hide_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "run").write_text("a file where the run's folder should be")
    with pytest.raises(SdarError, match="crash"), launch._scratch(tmp_path / "run") as folder:
        (folder / "ray" / "session_latest" / "logs").mkdir(parents=True)
        raise SdarError("crash")
