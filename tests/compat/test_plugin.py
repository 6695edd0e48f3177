"""How verl finds the plugin, what it says when it does not, and that verl's internals stay in one package."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdar_verl.compat import version
from sdar_verl.errors import RegistrationError

ROOT = Path(__file__).parents[2]
VERIFY = "from sdar_verl import plugin; plugin.verify(); import sys; print('verified')"


def python(code, **environment):
    """Run `code` in a fresh interpreter, because a process can choose its platform only once."""
    variables = {k: v for k, v in os.environ.items() if k not in ("VERL_PLATFORM", "VERL_USE_EXTERNAL_PLUGINS")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**variables, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_on_the_cpu_everything_is_registered():
    done = python(
        VERIFY + "\nfrom verl.plugin.platform import get_platform; print(type(get_platform()).__module__)",
        VERL_PLATFORM="cpu",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2:] == ["verified", "sdar_verl.compat.cpu.platform"]


def test_elsewhere_nothing_of_the_cpu_is_loaded():
    """Guards a GPU run: no module of the CPU platform, no other answer about vLLM's version, no extra engine."""
    done = python(
        VERIFY + "\nimport verl.workers.rollout.replica as r, verl.workers.rollout.base as b, importlib.metadata as m\n"
        "print([n for n in sys.modules if n.startswith('sdar_verl.compat.cpu')],"
        " 'vllm_cpu' in r.RolloutReplicaRegistry._registry, ('vllm_cpu', 'async') in b._ROLLOUT_REGISTRY,"
        " [type(f).__module__ for f in sys.meta_path if type(f).__module__.startswith('sdar')])"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[] False False []"


@pytest.mark.parametrize("policy", ["none", "other, another"])
def test_verl_told_to_load_no_plugin_of_ours_is_a_clear_error(policy):
    done = python(VERIFY, VERL_USE_EXTERNAL_PLUGINS=policy, VERL_PLATFORM="cpu")
    assert done.returncode == 1
    assert f"RegistrationError: VERL_USE_EXTERNAL_PLUGINS={policy} keeps verl from loading" in done.stderr


def test_a_package_that_is_not_installed_is_a_clear_error():
    hide = (
        "import importlib.metadata as m; real = m.entry_points\n"
        "m.entry_points = lambda **k: m.EntryPoints() if k.get('group') == 'verl.plugins' else real(**k)\n"
    )
    done = python(hide + VERIFY, VERL_PLATFORM="cpu")
    assert done.returncode == 1
    assert "RegistrationError: verl finds no plugin 'sdar'" in done.stderr and "pip install -e ." in done.stderr


def test_a_failure_that_verl_swallowed_comes_out_with_its_reason():
    code = (
        "import sdar_verl.compat.version as v\n"
        "v.installed_verl = lambda: '0.10.0'\n"
        "import verl\n"  # loads the plugin, which fails, which verl hides
        "try:\n    from sdar_verl import plugin\nexcept Exception as error:\n    raise SystemExit(str(error))\n"
        "plugin.verify()"
    )
    done = python(code)
    assert done.returncode == 1
    assert "verl 0.10.0 is installed but sdar_verl supports verl==0.9.1" in done.stderr


@pytest.mark.parametrize(("found", "fine"), [("0.9.1", True), ("0.9.1.post1", False), ("0.9.2", False)])
def test_only_the_supported_release_is_accepted(monkeypatch, found, fine):
    monkeypatch.setattr(version, "installed_verl", lambda: found)
    if fine:
        assert version.require_supported_verl() == found
    else:
        with pytest.raises(RegistrationError, match=f"verl {found} is installed.*pip install 'verl==0.9.1'"):
            version.require_supported_verl()


def test_importing_verl_gets_no_heavier_through_the_plugin():
    """verl imports the plugin in every process: it may bring no library that verl does not bring itself."""
    code = "import verl, sys; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    bare = python(code, VERL_USE_EXTERNAL_PLUGINS="none", VERL_PLATFORM="cuda")
    full = python(code, VERL_PLATFORM="cuda")
    assert bare.returncode == full.returncode == 0, full.stderr[-2000:]
    extra = set(ast.literal_eval(full.stdout.splitlines()[-1])) - set(ast.literal_eval(bare.stdout.splitlines()[-1]))
    assert "sdar_verl" in extra, "the plugin was not loaded: this test could not fail"
    assert extra <= {"sdar_verl", "wrapt", "packaging", "__editable___sdar_verl_0_1_0_finder", "sdar_envs"}


def imported(path):
    """Top-level names of all packages that a file imports, at whatever depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_only_the_compat_package_touches_verl():
    """``import verl`` in the plugin is the one exception: it runs what verl would run anyway."""
    files = [p for p in (ROOT / "sdar_verl").rglob("*.py") if "compat" not in p.relative_to(ROOT).parts]
    assert len(files) > 50
    users = sorted(str(p.relative_to(ROOT)) for p in files if "verl" in imported(p))
    assert users == ["sdar_verl/plugin.py"]
    inside = [p for p in (ROOT / "sdar_verl" / "compat").rglob("*.py") if "verl" in imported(p)]
    assert len(inside) > 5, "the search finds nothing: this test could not fail"


def test_the_environments_need_neither_torch_nor_verl():
    files = list((ROOT / "envs" / "sdar_envs").rglob("*.py"))
    assert len(files) > 10
    unwanted = {"torch", "verl", "sdar_verl", "ray"}
    users = {str(p.relative_to(ROOT)): found for p in files if (found := imported(p) & unwanted)}
    # the one engine whose encoder needs it (an extra of its own), and only when it is used
    assert users == {"envs/sdar_envs/search_qa/retrievers/dense.py": {"torch"}}
    code = "import sys, sdar_envs.search_qa.retrievers.dense; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
