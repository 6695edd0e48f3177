import itertools

import pytest
from moto_service import FaultyDynamo

from sdar_verl.skills.aws import Address
from sdar_verl.skills.dynamodb import SkillTable

_tables = itertools.count()


@pytest.fixture
def dynamo(moto_url, aws_account):
    """A faulty DynamoDB service that does no harm yet; credentials for it are set."""
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
