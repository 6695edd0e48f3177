from __future__ import annotations

import sys
from pathlib import Path

import pytest

AWS = Path(__file__).parents[2] / "scripts" / "aws"
for folder in (AWS, AWS / "node"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@pytest.fixture(scope="session")
def moto_address():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def cloud(moto_address, monkeypatch):
    """An AWS account of its own at moto's server; the calls of this process reach nothing else."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_address)
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{moto_address}/moto-api/reset", method="POST"), timeout=20).close()
    return lambda service: boto3.client(service, region_name="us-east-1")
