import itertools

import pytest
from runs import Run
from s3_service import FaultyS3

from sdar_verl.storage.place import Place

_places = itertools.count()


@pytest.fixture(scope="session")
def moto_s3_url():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(moto_s3_url, monkeypatch):
    """A faulty S3 service that does no harm yet; credentials for it are set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    service = FaultyS3(moto_s3_url)
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
