from __future__ import annotations

import sys
from pathlib import Path

import pytest

AWS = Path(__file__).parents[2] / "scripts" / "aws"
for folder in (AWS, AWS / "node"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@pytest.fixture
def cloud(moto_url, aws_account, monkeypatch):
    """An AWS account of its own at moto's server; the calls of this process reach nothing else."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{moto_url}/moto-api/reset", method="POST"), timeout=20).close()
    return lambda service: boto3.client(service, region_name="us-east-1")
