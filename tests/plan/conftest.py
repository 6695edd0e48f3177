"""Each recipe with the same overrides is composed once in a session: the same call has the same answer."""

import copy
from functools import cache

import pytest

from sdar_verl.plan import compose as composing

_compose = composing.compose


@cache
def _once(recipe, overrides):
    return _compose(recipe, list(overrides))


@pytest.fixture(autouse=True)
def compose_once(monkeypatch):
    def compose(recipe, overrides):
        return copy.deepcopy(_once(None if recipe is None else str(recipe), tuple(overrides)))

    monkeypatch.setattr(composing, "compose", compose)
