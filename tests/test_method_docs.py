"""The settings that the method pages name exist in the configuration, with the defaults that they state."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import sdar_verl.train  # noqa: F401 - registers the resolver that finds verl's configuration
from sdar_verl.core import DIVERGENCES, GATES, SCHEDULES, DistillationConfig

ROOT = Path(__file__).parents[1]
KEY = re.compile(r"`((?:sdar|env|actor_rollout_ref|data|trainer|algorithm)\.[a-z0-9_.]+)[`=]")
MISSING = object()


@pytest.fixture(scope="module")
def config():
    with initialize_config_dir(str(ROOT / "sdar_verl" / "config"), version_base=None):
        return compose("sdar")


def cells(name, column):
    """One column of every table of a page."""
    lines = (ROOT / "docs" / name).read_text().splitlines()
    rows = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    return [row[column] for row in rows if len(row) > column + 1]


PAGES = sorted(path.stem for path in (ROOT / "docs" / "methods").glob("*.md"))


@pytest.mark.parametrize(("page", "column"), [*((f"methods/{p}.md", 1) for p in PAGES), ("from-verl-agent.md", 2)])
def test_every_key_named_exists(config, page, column):
    keys = [key for cell in cells(page, column) for key in KEY.findall(cell)]
    assert keys or page == "methods/grpo_opsd.md"
    assert [key for key in keys if OmegaConf.select(config, key, default=MISSING) is MISSING] == []


def test_the_shipped_defaults_are_those_of_the_dataclass(config):
    shipped = OmegaConf.to_container(config.sdar.distillation)
    shipped.pop("enabled")
    assert DistillationConfig.from_mapping(shipped) == DistillationConfig()


def test_the_page_names_every_part():
    page = (ROOT / "docs" / "methods" / "sdar.md").read_text()
    for name in [*GATES.names(), *DIVERGENCES.names(), *SCHEDULES.names()]:
        assert f"`{name}`" in page, name


def test_every_method_composes_and_has_a_page():
    methods = sorted(path.stem for path in (ROOT / "sdar_verl" / "config" / "method").glob("*.yaml"))
    assert set(methods) - {"grpo"} == set(PAGES)
    for method in methods:
        with initialize_config_dir(str(ROOT / "sdar_verl" / "config"), version_base=None):
            config = compose("sdar", overrides=[f"method={method}"])
        assert config.sdar.method == method
        term = OmegaConf.to_container(config.sdar.distillation)
        assert term.pop("enabled") is (method not in {"grpo", "skill_grpo"})
        DistillationConfig.from_mapping(term)
