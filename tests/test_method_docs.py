"""The settings that the method pages name exist in the configuration, with the defaults that they state."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import sdar_verl.train  # noqa: F401 - registers the resolver that finds verl's configuration
from sdar_verl.core import DIVERGENCES, GATES, SCHEDULES, DistillationConfig
from sdar_verl.core.gap import as_tokens
from sdar_verl.requirements import check_teacher
from sdar_verl.settings import Settings

ROOT = Path(__file__).parents[1]
KEY = re.compile(r"`((?:sdar|env|actor_rollout_ref|data|trainer|algorithm)\.[a-z0-9_.]+)[`=]")
MISSING = object()


@pytest.fixture(scope="module")
def config():
    with initialize_config_dir(str(ROOT / "sdar_verl" / "config"), version_base=None):
        return compose("sdar")


@pytest.fixture(scope="module")
def every_env():
    """The configuration with each environment's section; a page may name keys of any."""
    names = sorted(path.stem for path in (ROOT / "sdar_verl" / "config" / "env").glob("*.yaml"))
    with initialize_config_dir(str(ROOT / "sdar_verl" / "config"), version_base=None):
        return [compose("sdar", overrides=[f"env={name}"]) for name in names]


def cells(name, column):
    """One column of every table of a page."""
    lines = (ROOT / "docs" / name).read_text().splitlines()
    rows = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    return [row[column] for row in rows if len(row) > column + 1]


PAGES = sorted(path.stem for path in (ROOT / "docs" / "methods").glob("[a-z]*.md"))


@pytest.mark.parametrize(
    ("page", "column"),
    [
        *((f"methods/{p}.md", 2 if p == "grpo" else 1) for p in PAGES),
        ("methods/README.md", 2),
        ("from-verl-agent.md", 2),
    ],
)
def test_every_key_named_exists(every_env, page, column):
    keys = [key for cell in cells(page, column) for key in KEY.findall(cell)]
    enough = 8 if page in {"methods/sdar.md", "from-verl-agent.md"} else 1
    assert len(keys) >= enough or page == "methods/grpo_opsd.md"
    unknown = [
        key for key in keys if all(OmegaConf.select(config, key, default=MISSING) is MISSING for config in every_env)
    ]
    assert unknown == []


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
    assert methods == PAGES
    for method in methods:
        with initialize_config_dir(str(ROOT / "sdar_verl" / "config"), version_base=None):
            config = compose("sdar", overrides=[f"method={method}"])
            tiny = compose("sdar", overrides=[f"method={method}", "+lab=tiny"])
        assert tiny.sdar.distillation == config.sdar.distillation, "a preset must leave the method alone"
        assert config.sdar.method == method
        if method == "opd":
            tiny.sdar.teacher.model_path = "another"
        plain = OmegaConf.to_container(tiny, resolve=True)
        check_teacher(plain, Settings.from_config(plain))  # the tiny model's preset takes no method's reference away
        term = OmegaConf.to_container(config.sdar.distillation)
        assert term.pop("enabled") is (method not in {"gigpo", "grpo", "skill_grpo"})
        DistillationConfig.from_mapping(term)


@pytest.mark.parametrize("method", [page for page in PAGES if page not in {"sdar", "grpo", "grpo_opsd"}])
def test_a_pages_defaults_are_the_methods(method):
    """Each "Default here" names the composed value of every key in its row."""
    with initialize_config_dir(str(ROOT / "sdar_verl" / "config"), version_base=None):
        config = compose("sdar", overrides=[f"method={method}"])
    checked = 0
    for names, default in zip(cells(f"methods/{method}.md", 1), cells(f"methods/{method}.md", 2), strict=True):
        for key in KEY.findall(names):
            value = OmegaConf.select(config, key)
            if OmegaConf.is_list(value):
                said = f"[{', '.join(value)}]"
            elif value is None:
                said = "null"
            else:
                said = str(value.name if OmegaConf.is_config(value) else value) or "empty"
            assert said.lower() in default.lower(), f"{key} is {said}, the page says {default}"
            checked += 1
    assert checked >= 1


def test_the_pages_example_of_a_new_method_is_one(config):
    """The block in docs/methods/README.md, as a user would paste it."""
    page = (ROOT / "docs" / "methods" / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    merged = OmegaConf.merge(config, OmegaConf.create(block))  # the composed configuration refuses unknown keys
    term = OmegaConf.to_container(merged.sdar.distillation)
    term.pop("enabled")
    found = DistillationConfig.from_mapping(term)
    assert (found.gate, found.gate_threshold, found.schedule.name) == ("hard", 0.1, "cosine")


def test_the_pages_example_of_a_new_part_is_one():
    """The gate in docs/methods/README.md, registered and run as it stands there, against NumPy."""
    page = (ROOT / "docs" / "methods" / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    try:
        exec(block, {"GATES": GATES, "torch": torch})
        config = DistillationConfig(gate="turn", beta=2.0)
        assert "entropy" in config.needs
        rng = np.random.default_rng(0)
        student, teacher, entropy = -rng.random((3, 2, 4))
        mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0]])
        tokens = as_tokens(*map(torch.tensor, (student, teacher, mask)), entropy=torch.tensor(-entropy))
        found = GATES.get("turn")(tokens, config).numpy()
        own = mask[0] == 1
        expected = np.tanh(2.0 * np.abs(teacher - student)[0, own].mean() * -entropy[0, own].mean())
        np.testing.assert_allclose(found[0], expected, rtol=1e-6)
        assert (found[1] == 0).all()
    finally:
        GATES._parts.pop("turn", None)
