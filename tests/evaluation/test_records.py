import dataclasses
import json
import multiprocessing
import os
import signal
import string
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar_verl.evaluation.jsonl import JsonlWriter, drop_after_step, read_lines, read_records
from sdar_verl.evaluation.records import (
    EpisodeRecord,
    RecordError,
    TokenRecord,
    TokenTurn,
    TurnRecord,
    from_dict,
    to_dict,
)

text = st.text(max_size=20)
count = st.integers(0, 10**6)
seconds = st.floats(0, 1e6)


@st.composite
def episodes(draw) -> EpisodeRecord:
    turn = st.builds(TurnRecord, text, text, text, st.booleans(), count, st.none() | count, count)
    won = draw(st.booleans())
    failed = None if won else draw(st.none() | text)
    plain = draw(st.tuples(seconds, seconds, seconds))
    split = draw(st.sampled_from(["train", "val"]))
    names = draw(st.tuples(text, text, text))
    turns = draw(st.lists(turn, max_size=3))
    return EpisodeRecord(
        1,
        split,
        *names,
        0,
        won,
        10.0 * won,
        failed,
        draw(st.lists(text, max_size=2)),
        *plain,
        turns,
        draw(st.none() | seconds),
    )


def episode(**changes) -> EpisodeRecord:
    turn = TurnRecord("You see a door.", "<action>look</action>", "look", True, 10, None, 3)
    base = EpisodeRecord(3, "val", "t/1", "t", "u", 0, True, 10.0, None, ["s"], 1.0, 0.5, 0.4, [turn])
    return dataclasses.replace(base, **changes)


def test_a_record_from_before_there_were_scores_is_read():
    content = to_dict(episode())
    del content["score"]
    assert from_dict(EpisodeRecord, content) == episode()


@given(episodes())
def test_every_record_survives_the_file(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("r") / "e.jsonl"
    with JsonlWriter(path) as writer:
        writer.write(record)
        writer.write(record)
    assert list(read_records(path, EpisodeRecord)) == [record, record]
    assert path.read_bytes().count(b"\n") == 2


def test_token_lists_must_match():
    turn = TokenTurn("o", ["a", "b"], [1, 2], [-1.0, -2.0], [-1.0, -1.0], [0.0, 1.0], [0.5, 0.9])
    record = TokenRecord(1, "t/1", "t", "u", 0, True, [turn], "student", "teacher")
    assert from_dict(TokenRecord, json.loads(json.dumps(to_dict(record)))) == record
    with pytest.raises(RecordError, match="'gate': 1"):
        dataclasses.replace(turn, gate=[0.5])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"step": True}, "step must be int, got bool"),
        ({"step": 1.0}, "step must be int"),
        ({"won": 1}, "won must be bool"),
        ({"split": "test"}, "one of train, val"),
        ({"reward": float("nan")}, "reward must be finite"),
        ({"seconds": float("inf")}, "seconds must be finite"),
        ({"skills": "s"}, "skills must be a list"),
        ({"skills": [1]}, r"skills\[0\] must be str"),
        ({"failed": 3, "won": False}, "failed must be str"),
    ],
)
def test_wrong_values_are_named_and_never_written(tmp_path, change, message):
    with JsonlWriter(tmp_path / "e.jsonl") as writer, pytest.raises(RecordError, match=message):
        writer.write(episode(**change))
    assert (tmp_path / "e.jsonl").read_bytes() == b""


def test_contradictions_missing_and_unknown_fields_are_refused():
    with pytest.raises(RecordError, match="both won and failed"):
        episode(failed="worker died")
    content = to_dict(episode())
    with pytest.raises(RecordError, match="misses uid"):
        from_dict(EpisodeRecord, {k: v for k, v in content.items() if k != "uid"})
    with pytest.raises(RecordError, match="unknown fields colour"):
        from_dict(EpisodeRecord, content | {"colour": 1})
    with pytest.raises(RecordError, match=r"turns\[0\] misses action"):
        turn = {k: v for k, v in content["turns"][0].items() if k != "action"}
        from_dict(EpisodeRecord, content | {"turns": [turn]})
    with pytest.raises(RecordError, match="must be an object"):
        from_dict(EpisodeRecord, [])


def test_numpy_numbers_are_refused_not_rounded():
    import numpy as np

    with pytest.raises(RecordError, match="reward must be float"):
        to_dict(episode(reward=np.float32(1.0)))


@given(st.integers(0, 400))
def test_a_file_cut_anywhere_gives_its_whole_lines(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("r") / "m.jsonl"
    with JsonlWriter(path) as writer:
        for step in range(5):
            writer.write({"step": step, "data": {"text": "caf\u00e9 \u2014 " * 3}})
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    assert [line["step"] for line in read_lines(path)] == list(range(lines))
    with JsonlWriter(path) as writer:  # a resumed run goes on behind the last whole line
        writer.write({"step": 99})
    assert [line["step"] for line in read_lines(path)] == [*range(lines), 99]


@pytest.mark.parametrize("damage", [b'{"step": 1', b"\xff\xfe", b"[1]", b"", b"NaN"])
def test_damage_before_the_end_is_an_error_that_names_the_line(tmp_path, damage):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 0}\n' + damage + b'\n{"step": 2}\n')
    with pytest.raises(RecordError, match="line 2"):
        list(read_lines(path))


def test_a_wrong_record_in_a_file_is_named_by_line(tmp_path):
    path = tmp_path / "e.jsonl"
    with JsonlWriter(path) as writer:
        writer.write(episode())
        writer.write({"step": 1})
    with pytest.raises(RecordError, match="line 2: EpisodeRecord misses"):
        list(read_records(path, EpisodeRecord))


def test_unwritable_mappings_and_closed_writers_are_refused(tmp_path):
    writer = JsonlWriter(tmp_path / "m.jsonl")
    for bad in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises(RecordError, match="cannot write"):
            writer.write(bad)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write({"x": 1})


def _append(path, name, lines):
    with JsonlWriter(path) as writer:
        for number in range(lines):
            writer.write({"writer": name, "number": number, "fill": name * 3000})


def test_lines_of_several_processes_and_threads_never_mix(tmp_path):
    path = tmp_path / "m.jsonl"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_append, args=(path, name, 150)) for name in "ab"]
    writer = JsonlWriter(path)
    workers += [
        threading.Thread(target=lambda n=name: [writer.write({"writer": n, "number": i}) for i in range(150)])
        for name in "cd"
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seen: dict[str, list[int]] = {}
    for line in read_lines(path):
        seen.setdefault(line["writer"], []).append(line["number"])
    assert seen == {name: list(range(150)) for name in "abcd"}


def test_kill_9_of_a_writer_loses_at_most_the_line_it_was_writing(tmp_path):
    path = tmp_path / "m.jsonl"
    code = (
        "import sys, itertools\nfrom sdar_verl.evaluation.jsonl import JsonlWriter\n"
        "w = JsonlWriter(sys.argv[1])\n"
        "for i in itertools.count():\n    w.write({'number': i, 'fill': 'x' * 20000})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size > 400_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    numbers = [line["number"] for line in read_lines(path)]
    assert numbers == list(range(len(numbers))) and len(numbers) >= 20


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """A file size limit makes the kernel take only part of a line, as a full disk does."""
    path = tmp_path / "m.jsonl"
    code = (
        "import resource, signal, sys\nfrom sdar_verl.evaluation.jsonl import JsonlWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "w = JsonlWriter(sys.argv[1])\nresource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n    for i in range(100):\n        w.write({'number': i, 'fill': 'x' * 700})\n"
        "except OSError:\n    print('refused at', i)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "refused at" in done.stdout
    assert path.read_bytes().endswith(b"\n")
    assert [line["number"] for line in read_lines(path)] == list(range(int(done.stdout.split()[-1])))


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "m.jsonl"
    assert drop_after_step(path, 3) == 0 and not path.exists()
    with JsonlWriter(path) as writer:
        for step in range(6):
            writer.write({"step": step, "name": string.ascii_letters})
    before = path.read_bytes().splitlines()
    with path.open("ab") as file:
        file.write(b'{"step": 6, "na')
    assert drop_after_step(path, 3) == 2
    assert path.read_bytes().splitlines() == before[:4]
    path.write_text('{"data": {}}\n')
    with pytest.raises(RecordError, match="without an integer step"):
        drop_after_step(path, 3)
