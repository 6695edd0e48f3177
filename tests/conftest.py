"""Hypothesis' profile, fixtures of several folders, and how processes share the tests (scripts/test.sh: two)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from aws_account import use_made_up_account
from hypothesis import HealthCheck, settings

settings.register_profile(  # a busy machine is no failure
    "sdar", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sdar")

_LONGEST = ("test_methods.py", "test_spot.py", "test_quickstart_run.py", "test_faults.py")  # many starts each


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: started last, one would keep one process busy while the others have nothing to do."""
    items.sort(key=lambda item: (_rank(item), item.get_closest_marker("slow") is None))


@pytest.fixture(scope="session")
def moto_url():
    """Address of AWS's interfaces as moto serves them."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws_account(monkeypatch):
    """Made-up credentials."""
    use_made_up_account(monkeypatch)


@pytest.fixture(scope="module")  # no longer: while it lives, this thread's event loop is its own
def browser():
    """A real headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    found = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
    with sync_api.sync_playwright() as started:
        if found is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("no Chromium here; playwright install chromium")
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def _rank(item: pytest.Item) -> int:
    if item.path.name in _LONGEST:
        return _LONGEST.index(item.path.name)
    return len(_LONGEST) + ("e2e" not in item.path.parts)
