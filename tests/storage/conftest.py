import itertools

import pytest
from runs import Run
from s3_service import FaultyS3

from sdar_verl.storage.place import Place

_places = itertools.count()


@pytest.fixture
def s3(moto_url, aws_account):
    """A faulty S3 service that does no harm yet; credentials for it are set."""
    service = FaultyS3(moto_url)
    yield service
    service.close()


@pytest.fixture
def place(s3):
    """An empty place of its own."""
    found = Place(f"runs-{next(_places)}", "alfworld/run-1", region="us-east-1", endpoint=s3.url)
    found.connect().create_bucket(Bucket=found.bucket)
    s3.calls.clear()
    return found


@pytest.fixture
def start(place, tmp_path):
    """``start("machine")`` starts the run in that folder."""
    runs = []

    def begin(name, **changes):
        runs.append(Run(tmp_path / name, changes.pop("place", place), **changes))
        return runs[-1]

    yield begin
    for run in runs:
        run.keeper.close(timeout=5)
