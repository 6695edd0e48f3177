"""Hypothesis' profile, and how the tests are shared out when several processes run them (scripts/test.sh: two)."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("sdar", deadline=None)  # a busy machine is no failure
settings.load_profile("sdar")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, each real run by itself; the tests of any other file stay together, as do its fixtures.

    Started last, one long test would keep one process busy while the others have nothing left to do.
    """
    for item in items:
        name = item.nodeid if _is_real_run(item) else item.path.name
        item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: (not _is_real_run(item), item.get_closest_marker("slow") is None))


def _is_real_run(item: pytest.Item) -> bool:
    return "e2e" in item.path.parts
