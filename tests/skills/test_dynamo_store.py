"""The DynamoDB store against a real server over HTTP: immutable, conditional, in parts, throttled, damaged."""

from __future__ import annotations

import threading
from dataclasses import replace

import boto3
import pytest

from sdar_verl.skills import MissingSkillError, Skill, SkillError, SkillStore, open_store
from sdar_verl.skills.aws import Address, connect
from sdar_verl.skills.dynamodb import ROUNDS, SkillTable
from sdar_verl.skills.errors import SkillConflictError, SkillsUnreachable
from sdar_verl.skills.pins import Pin, pins_of


def skill(id, task_type=None, text="do it", version=1, provenance="test"):
    return Skill(id, text, "alfworld", task_type, version, provenance)


SET = [skill("g"), skill("heat", "heat", "warm it: {x} ünïcode\nline"), skill("look", "look")]


def raw(address):
    return boto3.client("dynamodb", region_name=address.region, endpoint_url=address.endpoint)


def key(address, sort):
    return {"TableName": address.table, "Key": {"pk": {"S": address.set}, "sk": {"S": sort}}}


def test_what_is_pushed_opens_like_a_folder(address):
    release = SkillTable(address).push(SET)
    assert release.number == 1
    store = open_store(str(address), env="alfworld", task_types=["heat", "look"])
    assert isinstance(store, SkillStore)
    assert list(store.all()) == SET
    assert store.get("heat") == SET[1]
    with pytest.raises(SkillError, match="unknown task type"):
        open_store(str(address), env="alfworld", task_types=["look"])


def test_a_shipped_set_keeps_its_hash(address):
    shipped = open_store("alfworld")
    SkillTable(address).push(shipped.all())
    assert open_store(str(address)).content_hash == shipped.content_hash


def test_sets_of_one_table_do_not_meet(address):
    other = replace(address, set="webshop")
    SkillTable(address).push(SET)
    SkillTable(other).push([skill("g", text="other words")])
    assert open_store(str(address)).get("g").text == "do it"
    assert [s.text for s in open_store(str(other)).all()] == ["other words"]


def test_releases_stay_readable_and_pushing_the_same_makes_none(address):
    table = SkillTable(address)
    table.push(SET)
    assert table.push(SET).number == 1
    newer = [SET[0], skill("heat", "heat", "hotter", version=2)]
    assert table.push(newer).number == 2
    assert list(open_store(str(replace(address, release=1))).all()) == SET
    assert list(open_store(str(address)).all()) == newer
    assert table.push(SET).number == 3  # back to the old versions, which are still there
    assert [r.number for r in table.releases()] == [1, 2, 3]
    with pytest.raises(SkillError, match="no release 7"):
        open_store(str(replace(address, release=7)))


@pytest.mark.parametrize("change", [{"text": "other"}, {"provenance": "someone"}, {"task_type": None}])
def test_a_version_never_changes(address, change):
    table = SkillTable(address)
    table.push(SET)
    with pytest.raises(SkillConflictError, match="'heat' version 1 with another content.*raise the version"):
        table.push([SET[0], replace(SET[1], **change)])
    assert list(open_store(str(address)).all()) == SET


def test_a_writer_that_comes_between_wins_and_the_other_is_told(address, dynamo):
    """The second writer publishes after the first has read the newest release and before it writes the next."""
    table, other = SkillTable(address), SkillTable(address)
    table.push(SET)
    mine, theirs = [*SET, skill("mine", "cool")], [*SET, skill("theirs", "cool")]
    dynamo.before["PutItem"] = lambda: other.push(theirs)
    with pytest.raises(SkillConflictError, match="another writer published release 2"):
        table.push(mine)
    assert {s.id for s in open_store(str(address)).all()} == {"g", "heat", "look", "theirs"}
    assert table.push(mine).number == 3


def test_of_writers_at_once_one_gets_a_version_and_one_a_release(address):
    start, said = threading.Barrier(6), []

    def write(number):
        table = SkillTable(address)
        start.wait()
        try:
            said.append(table.push([skill("one", text=f"text {number}")]).number)
        except SkillConflictError:
            said.append(None)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said, key=str) == [1, *[None] * 5]
    assert len(open_store(str(address))) == 1


def test_an_expected_release_that_is_not_there_stops_a_push(address):
    table = SkillTable(address)
    table.push(SET, expected=0)
    with pytest.raises(SkillConflictError, match="at release 1, not 0"):
        table.push(SET[:1], expected=0)


def test_a_lost_answer_is_no_conflict(address, dynamo):
    dynamo.lose += ["PutItem"] * 2
    table = SkillTable(address)
    assert table.push(SET).number == 1
    dynamo.lose += ["PutItem"]  # the release's own this time: its only write
    assert table.push(SET[:2]).number == 2
    assert [r.number for r in table.releases()] == [1, 2]


def test_an_interrupted_push_leaves_no_trace_and_is_repeated(address, dynamo, monkeypatch):
    SkillTable(address).push(SET[:1])
    monkeypatch.setattr("sdar_verl.skills.aws.ATTEMPTS", 2)
    dynamo.before["PutItem"] = lambda: dynamo.throttle.update(PutItem=99)  # the first version is written, no other
    with pytest.raises(SkillError, match="ProvisionedThroughputExceeded.*tried 2 times; raise the table's capacity"):
        SkillTable(address).push(SET)
    assert dynamo.calls.count("PutItem") == 2 + 1 + 2  # the first push, then one that worked and one tried twice
    assert list(open_store(str(address)).all()) == SET[:1]
    dynamo.throttle.clear()
    assert SkillTable(address).push(SET).number == 2


def test_throttled_reads_are_repeated(address, dynamo):
    SkillTable(address).push(SET)
    dynamo.throttle = {"Query": 2, "BatchGetItem": 2}
    dynamo.calls.clear()
    assert len(open_store(str(address))) == 3
    assert dynamo.calls.count("Query") == 3 and dynamo.calls.count("BatchGetItem") == 3


def test_more_skills_than_one_batch_holds_in_small_parts(address, dynamo):
    many = [skill(f"s{n:03d}", "look", f"text {n}") for n in range(130)]
    SkillTable(address).push(many)
    dynamo.calls.clear()
    assert list(open_store(str(address)).all()) == many
    assert dynamo.calls == ["Query", "BatchGetItem", "BatchGetItem"]  # 100 keys and 30
    dynamo.most, waits = 40, []
    dynamo.calls.clear()
    found = SkillTable(address, sleep=waits.append).skills(pins_of(many))
    assert found == many
    assert dynamo.calls.count("BatchGetItem") == 4 and len(waits) == 2  # 40 + 40 + 20, then 30 at once
    assert 0.05 <= waits[0] <= 0.1 <= waits[1] <= 0.2


def test_a_batch_that_never_ends_gives_up(address, dynamo):
    SkillTable(address).push(SET)
    dynamo.most, waits = 0, []
    dynamo.calls.clear()
    with pytest.raises(SkillError, match="3 of 3 skills were still held back after 8 tries; .*capacity"):
        SkillTable(address, sleep=waits.append).skills(pins_of(SET))
    assert dynamo.calls.count("BatchGetItem") == ROUNDS and len(waits) == ROUNDS - 1 and max(waits) <= 5


def test_a_missing_version_is_named(address):
    SkillTable(address).push(SET)
    raw(address).delete_item(**key(address, "skill#heat#000000001"))
    with pytest.raises(MissingSkillError, match="no longer holds heat version 1; restore it"):
        open_store(str(address))


@pytest.mark.parametrize("column, value", [("text", {"S": "evil"}), ("task_type", {"S": "cool"}), ("id", {"S": "x"})])
def test_damaged_content_is_refused(address, column, value):
    SkillTable(address).push(SET)
    raw(address).update_item(
        **key(address, "skill#heat#000000001"),
        UpdateExpression="SET #c = :v",
        ExpressionAttributeNames={"#c": column},
        ExpressionAttributeValues={":v": value},
    )
    with pytest.raises(SkillError, match="does not have the content it was written with"):
        open_store(str(address))


def test_a_version_rewritten_with_its_hash_is_caught_by_the_release(address):
    SkillTable(address).push(SET)
    evil = replace(SET[1], text="evil")
    raw(address).delete_item(**key(address, "skill#heat#000000001"))
    SkillTable(address)._create_version(evil)
    with pytest.raises(SkillError, match="the content of heat version 1 is not what was pinned"):
        open_store(str(address))


def test_items_written_by_hand_are_refused(address):
    SkillTable(address).push(SET)
    raw(address).put_item(
        TableName=address.table, Item={"pk": {"S": "alfworld"}, "sk": {"S": "release#000000002"}, "number": {"N": "2"}}
    )
    with pytest.raises(SkillError, match="is no release .*by hand"):
        open_store(str(address))


def test_pins_give_those_versions_whatever_was_released_since(address):
    table = SkillTable(address)
    table.push(SET)
    table.push([skill("g", text="new words", version=2)])
    assert list(open_store(str(address), pins=pins_of(SET)).all()) == SET
    wrong = [Pin("g", 1, "0" * 64)]
    with pytest.raises(SkillError, match="not what was pinned"):
        open_store(str(address), pins=wrong)


def test_what_stands_in_the_way_is_said(address, dynamo, monkeypatch):
    with pytest.raises(SkillError, match="holds no release; fill it: sdar skills push"):
        open_store(str(address))
    with pytest.raises(SkillError, match="ResourceNotFound.*--create-table"):
        open_store(str(replace(address, table="nowhere")))
    with pytest.raises(SkillError, match="no skills were given"):
        SkillTable(address).push([])
    with pytest.raises(SkillError, match="at most 390000"):
        SkillTable(address).push([skill("long", text="x" * 400_000)])
    monkeypatch.setattr("sdar_verl.skills.aws.ATTEMPTS", 1)
    with pytest.raises(SkillsUnreachable, match="cannot be reached"):
        open_store(str(replace(address, endpoint="http://127.0.0.1:9")))
    with pytest.raises(SkillError, match="give the endpoint as http://HOST:PORT"):
        open_store(str(replace(address, endpoint="nonsense")))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SkillsUnreachable, match="no AWS credentials"):  # a role may be slow to give them
        open_store(str(address))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SkillError, match="no AWS region; add"):
        open_store(str(replace(address, region=None)))


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_comes_from_either_of_awss_names(address, monkeypatch, name):
    for other in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "eu-west-1")
    assert connect(replace(address, region=None)).meta.region_name == "eu-west-1"
    assert connect(replace(address, region="us-east-2")).meta.region_name == "us-east-2", "the address comes first"


@pytest.mark.parametrize(
    "text, said",
    [
        ("dynamodb://table", "names no set"),
        ("dynamodb://t/set", "names no table"),
        ("dynamodb:///set", "names no table"),
        ("dynamodb://table/a/b", "names no set"),
        ("dynamodb://table/set?speed=3", "speed is unknown"),
        ("dynamodb://table/set?region=a&region=b", "twice"),
        ("dynamodb://table/set?region", "the form is"),
        ("dynamodb://table/set?release=0", "whole number from 1"),
    ],
)
def test_malformed_addresses_are_refused(text, said):
    with pytest.raises(SkillError, match=said):
        open_store(text)


def test_addresses_read_back():
    for place in (
        Address("table", "set"),
        Address("my-table", "a.b", region="eu-west-1", endpoint="http://localhost:4566", release=12),
    ):
        assert Address.parse(str(place)) == place
