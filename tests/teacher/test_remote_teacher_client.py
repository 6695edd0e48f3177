"""The client of teacher servers against a real HTTP server that misbehaves: right scores, or none."""

from __future__ import annotations

import copy
import json
import math
import random
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_stand_in import TOKEN, Cutter, StandIn, made_up

from sdar_verl.teacher.errors import TeacherNotAwaited, TeacherRejected, TeacherUnavailable
from sdar_verl.teacher.remote import Fingerprint, Patience, RemoteTeacher, ScoreRow, fingerprint_of
from sdar_verl.teacher.remote.protocol import read_scores

# Nothing waits this long but on a machine that is busy with something else.
PATIENT = Patience(connect=60.0, request=60.0, dark=60.0, retries=3, recheck=0.0)
QUICK = replace(PATIENT, request=2.0, dark=4.0)  # where a server is silent, or gone for good


def rows(count, seed=0):
    numbers = random.Random(seed)
    return [
        ScoreRow(
            tuple(numbers.randrange(500) for _ in range(numbers.randrange(1, 30))),
            tuple(numbers.randrange(500) for _ in range(numbers.randrange(20))),
        )
        for _ in range(count)
    ]


def right(row, seed=0):
    return made_up(row.ids, seed)[len(row.prompt) - 1 :]


def client(*servers, token=TOKEN, patience=PATIENT, cutter=None, **kwargs):
    expected = fingerprint_of(cutter or Cutter())
    return RemoteTeacher([s.url for s in servers], expected, least=100, token=token, patience=patience, **kwargs)


@pytest.fixture
def servers():
    """``servers(n)``: as many stand-ins, stopped at the end."""
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(StandIn()) for _ in range(count)]


def test_scores_are_right_and_the_work_is_shared(servers):
    one, two = servers(2)
    one.pause = two.pause = 0.02
    one.held = two.held = lambda body: is_row(body) and not (one.scored and two.scored)
    teacher, sent = client(one, two, concurrency=4), rows(120)
    assert teacher.score(sent) == [right(row) for row in sent]
    assert teacher.counts.rows == 120 and teacher.counts.failed == teacher.counts.rejected == 0
    assert min(one.scored, two.scored) > 20, "both had work"
    assert 1 < one.most_at_once <= 4 and teacher.score([]) == []


def test_the_slower_server_gets_less(servers):
    slow, quick = servers(2)
    slow.pause, quick.pause = 0.5, 0.002
    client(slow, quick, concurrency=2).score(rows(80))
    assert slow.scored < quick.scored / 3


@pytest.mark.parametrize("token", [None, "another-token-altogether"])
def test_a_wrong_token_is_refused_and_never_shown(servers, token):
    with pytest.raises(TeacherRejected, match="does not accept the token") as error:
        client(*servers(1), token=token).check()
    assert token is None or token not in str(error.value)


@pytest.mark.parametrize("change, why", [
    (dict(name="x"), None),
    (dict(longest=99), "takes 99 tokens"),
    (dict(cutter=Cutter(1)), "tokenizer is another one"),
])  # fmt: skip
def test_what_a_server_must_be(change, why):
    with StandIn(**change) as server:
        if why is None:
            client(server).check()
            with pytest.raises(TeacherRejected, match="it serves x, not y"):
                client(server, model="y").check()
            return
        with pytest.raises(TeacherRejected, match=why):
            client(server).check()


def test_two_servers_with_different_weights_are_not_one_teacher(servers):
    one, two = servers(2)
    two.seed = 1
    with pytest.raises(TeacherRejected, match="its weights are others"):
        client(one, two).check()
    one.pause = two.pause = 0.05
    before = one.scored, two.scored
    one.held = two.held = lambda body: is_row(body) and (one.scored == before[0] or two.scored == before[1])
    teacher, sent = client(one, two), rows(30)
    scores = teacher.score(sent)
    assert scores in ([right(row) for row in sent], [right(row, 1) for row in sent]), "of one of them, never of both"
    assert teacher.counts.rejected > 0 and sum(e.good for e in teacher.endpoints) == 1


def test_weights_that_must_be_the_runs_own(servers):
    (server,) = servers(1)
    own = fingerprint_of(Cutter())
    own = own.with_scores([value + 0.02 for value in right(own.probe)])
    for tolerance, good in ((0.03, True), (0.01, False)):
        teacher = RemoteTeacher([server.url], own, least=9, token=TOKEN, patience=PATIENT, tolerance=tolerance)
        if good:
            teacher.check()
        else:
            with pytest.raises(TeacherRejected, match="differ by 0.02 nats"):
                teacher.check()


# --- answers that are not the teacher's -------------------------------------------------------------------------------


def shorter(body, found):
    found["choices"][0]["prompt_logprobs"].pop()
    return found


def other_ids(body, found):
    found["choices"][0]["prompt_token_ids"] = [*body["prompt"][:-1], body["prompt"][-1] + 1]
    return found


def other_keys(body, found):
    last = found["choices"][0]["prompt_logprobs"]
    last[-1] = {"77777": {"logprob": -1.0}}
    return found


def other_model(body, found):
    return {**found, "model": "mock"}


def logits(body, found):
    found["choices"][0]["prompt_logprobs"][-1] = {str(body["prompt"][-1]): {"logprob": 3.5}}
    return found


def not_a_number(body, found):
    found["choices"][0]["prompt_logprobs"][-1] = {str(body["prompt"][-1]): {"logprob": None}}
    return found


WRONG = [shorter, other_ids, other_keys, other_model, logits, not_a_number]
BROKEN = [lambda *_: 500, lambda *_: 429, lambda *_: None, lambda *_: "hang", lambda *_: "{", lambda *_: "[" * 99999]


def is_row(body):
    return len(body["prompt"]) != 48  # the probe has as many tokens


def only_rows(change):
    return lambda body, found: change(body, found) if is_row(body) else found


SENT = [row for row in rows(40, seed=3) if row.response and len(row) != 48]


@pytest.mark.parametrize("change", WRONG + BROKEN)
def test_one_bad_server_beside_a_good_one_changes_nothing(servers, change):
    bad, good = servers(2)
    asked = []

    def answer(body, found):
        asked.append(body)
        return change(body, found)

    bad.answer = only_rows(answer)
    good.held = lambda body: is_row(body) and not asked  # else the good one may have finished first
    teacher = client(bad, good, concurrency=2, patience=replace(PATIENT, request=2.0, retries=30))
    assert teacher.score(SENT) == [right(row) for row in SENT]
    kind = "rejected" if change in WRONG else "failed"
    assert getattr(teacher.counts, kind) > 0 and teacher.counts.lost > 0


@pytest.mark.parametrize("change", [*WRONG, BROKEN[0], BROKEN[3]])
def test_bad_servers_alone_give_no_scores_and_end_in_time(servers, change):
    (bad,) = servers(1)
    bad.answer = only_rows(change)
    started = time.monotonic()
    with pytest.raises(TeacherUnavailable, match="a row failed 4 times|no teacher server was usable"):
        client(bad, concurrency=2, patience=QUICK).score(SENT)
    assert time.monotonic() - started < 60
    bad.answer = None
    assert client(bad).score(SENT) == [right(row) for row in SENT]


def test_minus_infinity_is_told_and_not_clamped(servers):
    (server,) = servers(1)

    def clamped(body, found):
        found["choices"][0]["prompt_logprobs"][-1] = {str(body["prompt"][-1]): {"logprob": -9999.0}}
        return found

    server.answer = only_rows(clamped)
    ((*_, last),) = client(server).score(SENT[:1])
    assert last == -math.inf


# --- servers that come and go -----------------------------------------------------------------------------------------


def after_answers(server, count, call):
    """`call`, in a thread of its own, once `server` has scored `count` more rows."""
    left = [count]

    def answer(body, found):
        left[0] -= 1
        if left[0] == 0:
            threading.Thread(target=call, daemon=True).start()
        return found

    server.answer = answer


def test_a_server_that_goes_away_in_the_middle_costs_nothing_but_time(servers):
    one, two = servers(2)
    one.pause = two.pause = 0.02
    teacher, sent = client(one, two, concurrency=2), rows(150)
    after_answers(one, 20, one.stop)
    assert teacher.score(sent) == [right(row) for row in sent]
    assert teacher.counts.lost == 1 and [e.good for e in teacher.endpoints] == [False, True]
    one.start()
    assert teacher.score(sent) == [right(row) for row in sent]
    limit = time.monotonic() + 20
    while not all(e.good for e in teacher.endpoints):  # it is asked again, once in each round
        assert time.monotonic() < limit
        teacher.score(sent)


def test_waiting_for_a_server_that_comes_back(servers):
    (server,) = servers(1)
    server.pause = 0.02
    teacher, sent = client(server, concurrency=2), rows(60)

    def away():
        server.stop()
        time.sleep(1.5)
        server.start()

    after_answers(server, 10, away)
    assert teacher.score(sent) == [right(row) for row in sent]
    assert teacher.counts.dark_seconds > 0.3 and teacher.counts.lost >= 1


def test_a_silent_request_does_not_keep_its_server_from_coming_back(servers):
    (server,) = servers(1)
    first = ["hang", None]  # the one waits for a machine that is gone, the other finds that nothing listens there
    server.answer = only_rows(lambda body, found: first.pop(0) if first else found)
    server.held = lambda body: is_row(body) and first and server.at_once < 2  # both are under way
    teacher = client(server, concurrency=2, patience=replace(PATIENT, dark=20.0))
    assert teacher.score(SENT) == [right(row) for row in SENT]
    assert not first and teacher.counts.failed == teacher.counts.lost == 1 and teacher.counts.dark_seconds < 10


def test_waiting_ends_where_it_is_told_to(servers):
    one, two = servers(2)
    told: list[float] = []

    def give_up():
        told.append(time.monotonic())
        return len(told) > 1

    teacher, sent = client(one, two), rows(10)
    assert teacher.score(sent, give_up) == [right(row) for row in sent] and not told, "asked only while none is there"
    one.stop()
    two.stop()
    started = time.monotonic()
    with pytest.raises(TeacherNotAwaited, match="the run ends while no teacher is usable: .*Cannot connect"):
        teacher.score(sent, give_up)
    assert len(told) == 2 and 0.9 < told[1] - told[0] < 10 and time.monotonic() - started < 20


def test_a_server_that_comes_back_as_another_model_is_never_used(servers):
    one, two = servers(2)
    teacher, sent = client(one, two, patience=replace(PATIENT, dark=4.0)), rows(40)
    teacher.check()
    one.stop()
    before = one.scored
    two.held = lambda body: is_row(body) and one.scored == before
    two.pause = 0.05
    one.seed = 9
    one.start()
    assert teacher.score(sent) == [right(row) for row in sent]
    assert teacher.counts.rejected > 0 and "weights are others" in teacher.reasons()
    two.stop()
    with pytest.raises(TeacherUnavailable, match="its weights are others.*rows|usable for 4 s"):
        teacher.score(sent)


def test_nothing_there_is_told_with_the_reason():
    gone = StandIn()
    with pytest.raises(TeacherUnavailable, match="no teacher server can be used: .*Cannot connect"):
        client(gone).check()
    started = time.monotonic()
    with pytest.raises(TeacherUnavailable, match="3 of 3 rows are not scored"):
        client(gone, patience=Patience(dark=1.0)).score(rows(3))
    assert 0.9 < time.monotonic() - started < 20


# --- reading an answer ------------------------------------------------------------------------------------------------

ROW = ScoreRow((5, 6), (7, 8, 8))
GOOD = {
    "model": "m",
    "choices": [{
        "prompt_token_ids": ROW.ids,
        "prompt_logprobs": [None, *({str(i): {"logprob": -0.5 * at, "rank": 1}} for at, i in enumerate(ROW.ids[1:]))],
    }],
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.sampled_from(["5", "7", "8", "m", ""]),
    lambda part: st.lists(part, max_size=5) | st.dictionaries(st.sampled_from([*GOOD, "7", "8", "logprob"]), part),
    max_leaves=12,
)


def test_a_good_answer():
    assert read_scores(GOOD, "m", ROW) == [-0.5, -1.0, -1.5]


@settings(max_examples=300)
@given(st.data())
def test_any_change_to_what_counts_is_refused(data):
    """Whatever replaces a part of a good answer: the same scores, or an error; never a crash or another row's."""
    answer = copy.deepcopy(GOOD)
    place: list = [(answer, key) for key in answer] + [(answer["choices"], 0)]
    place += [(answer["choices"][0], key) for key in answer["choices"][0]]
    place += [(answer["choices"][0]["prompt_token_ids"], at) for at in range(5)]
    place += [(answer["choices"][0]["prompt_logprobs"], at) for at in range(2, 5)]
    part, key = data.draw(st.sampled_from(place))
    part[key] = data.draw(JSON)
    try:
        found = read_scores(answer, "m", ROW)
    except TeacherRejected:
        return
    assert len(found) == 3 and all(value <= 0 for value in found)
    assert answer["model"] == "m" and answer["choices"][0]["prompt_token_ids"] == ROW.ids


@given(st.lists(st.lists(st.integers(0, 999), max_size=30), min_size=4, max_size=4), st.lists(st.floats(-50, 0)))
def test_a_fingerprint_survives_its_file(tmp_path_factory, cuts, scores):
    path = tmp_path_factory.mktemp("fingerprint") / "f.json"
    one = Fingerprint(tuple(map(tuple, cuts)), tuple(scores))
    one.save(path)
    assert Fingerprint.load(path) == one and Fingerprint.load(path).tokenizer == one.tokenizer
    path.write_text(json.dumps({"cuts": 3}))
    with pytest.raises(TeacherRejected, match="cannot be read"):
        Fingerprint.load(path)
