"""Parts by name, and a core that needs nothing but torch."""

import subprocess
import sys

import pytest

from sdar_verl.core import DIVERGENCES, GATES
from sdar_verl.core.registry import Registry


def test_unknown_name_lists_known_names():
    registry = Registry("thing")
    with pytest.raises(ValueError, match="unknown thing 'a'; known: none"):
        registry.get("a")
    registry.register("b")(int)
    registry.register("a")(str)
    assert registry.names() == ["a", "b"]
    with pytest.raises(ValueError, match="unknown thing 'c'; known: a, b"):
        registry.get("c")


def test_a_taken_name_is_refused_but_the_same_part_may_come_twice():
    registry = Registry("thing")
    registry.register("a")(int)
    registry.register("a")(int)
    with pytest.raises(ValueError, match="thing 'a' is registered already"):
        registry.register("a")(str)
    assert registry.get("a") is int


def test_the_foundations_parts_are_there():
    assert set(GATES.names()) >= {"gap", "none"}
    assert set(DIVERGENCES.names()) >= {"sampled_token"}


def test_importing_the_core_loads_neither_verl_nor_ray_nor_transformers():
    code = "import sdar_verl.core, sys; print([m for m in ('verl', 'ray', 'transformers', 'vllm') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
