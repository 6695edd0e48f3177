"""A run on skills in DynamoDB: what it began with is what it goes on with, or it does not go on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import boto3
import pytest

from sdar_verl.errors import Unreachable
from sdar_verl.manifest import write_manifest
from sdar_verl.prepare import _check_skills
from sdar_verl.run_skills import first_skills, pinned_skills
from sdar_verl.skills import SkillError, open_store
from sdar_verl.skills.dynamodb import SkillTable
from sdar_verl.skills.pins import FOLDER, keep


@pytest.fixture
def run(address, tmp_path):
    """A run that began with release 1, after which release 2 changed every skill and left some out."""
    table = SkillTable(address)
    table.push(open_store("alfworld_tiny").all())
    settings = SimpleNamespace(
        run_dir=str(tmp_path), env=SimpleNamespace(name="alfworld"), skills=SimpleNamespace(store=str(address))
    )
    skills = first_skills(settings).all()
    keep(tmp_path, skills)
    pins = [{"id": s.id, "version": s.version, "hash": s.content_hash} for s in skills]
    write_manifest(tmp_path, {"skills": pins, "config": {"sdar": {"skills": {"store": str(address)}}}})
    table.push([replace(s, version=2, text=f"{s.text} And hurry.") for s in skills[:3]])
    return settings


def test_a_run_needs_no_network_for_what_it_has(run, dynamo):
    dynamo.calls.clear()
    assert pinned_skills(run).all() == open_store("alfworld_tiny").all()
    assert dynamo.calls == []


def test_on_another_machine_the_pinned_versions_are_fetched(run, dynamo):
    shutil.rmtree(f"{run.run_dir}/{FOLDER}")
    dynamo.calls.clear()
    assert pinned_skills(run).all() == open_store("alfworld_tiny").all()
    assert dynamo.calls == ["BatchGetItem"]
    assert len(first_skills(run).all()) == 3  # a run of today would begin with others


def test_a_pinned_version_that_is_gone_stops_the_run(run, address):
    shutil.rmtree(f"{run.run_dir}/{FOLDER}")
    heat = next(s for s in open_store("alfworld_tiny").all() if s.task_type == "pick_heat_then_place_in_recep")
    client = boto3.client("dynamodb", region_name=address.region, endpoint_url=address.endpoint)
    sort = f"skill#{heat.id}#000000001"
    client.delete_item(TableName=address.table, Key={"pk": {"S": address.set}, "sk": {"S": sort}})
    with pytest.raises(SkillError, match=f"cannot go on .*no longer holds {heat.id} version 1"):
        pinned_skills(run)


def test_a_store_that_is_throttled_is_no_wrong_setting(run, dynamo, monkeypatch):
    """On a new node: started again later (status 69), where a wrong setting (2) would end the run."""
    monkeypatch.setattr("sdar_verl.skills.aws.ATTEMPTS", 1)
    shutil.rmtree(f"{run.run_dir}/{FOLDER}")
    run.skills.retriever, run.skills.allow_missing, run.env.config = "rules", True, {}
    dynamo.throttle = {"BatchGetItem": 1}
    with pytest.raises(Unreachable, match="ProvisionedThroughputExceededException"):
        _check_skills(run, goes_on=True)
    _check_skills(run, goes_on=True)
