import itertools

import pytest
from moto_service import FaultyDynamo

from sdar_verl.skills.aws import Address
from sdar_verl.skills.dynamodb import SkillTable

_tables = itertools.count()


@pytest.fixture(scope="session")
def moto_url():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def dynamo(moto_url, monkeypatch):
    """A faulty DynamoDB service that does no harm yet; credentials for it are set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    service = FaultyDynamo(moto_url)
    yield service
    service.close()


@pytest.fixture
def address(dynamo):
    """A set of an empty table of its own."""
    place = Address(f"skills-{next(_tables)}", "alfworld", region="eu-west-1", endpoint=dynamo.url)
    assert SkillTable(place).create()
    dynamo.calls.clear()
    return place
