"""Whether a run fits, by the planner's sizes: what is not found out here ends it minutes or hours after its start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar_verl import preflight
from sdar_verl.host import GIB
from sdar_verl.plan import host, memory, models
from sdar_verl.plan.job import Job, job_from_config
from sdar_verl.plan.units import PlanError


def require_room(plain: Mapping[str, Any], model: Mapping[str, Any], beside_gib: float) -> None:
    """Refuse when the checkpoints do not fit on the disk; warn when a GPU seems too small.

    Where the planner knows too little of a model, that is said. Its GPU memory is an upper estimate, and no run on a
    GPU stands behind it, so that refuses nothing.

    Args:
        plain: the resolved configuration.
        model: the policy's ``config.json``.
        beside_gib: GiB of disk that everything else takes.

    Raises:
        PreflightError: with how many checkpoints there are and how large they become.
    """
    try:
        job = job_from_config(plain, models.from_config(model, plain["actor_rollout_ref"]["model"]["path"]))
        needs = host.estimate(job, tokens_per_step=0)
    except PlanError as error:
        print(f"[sdar] whether its checkpoints and memory fit is not known: {error}", flush=True)
        return
    _require_disk(plain["trainer"], job, needs, beside_gib)
    if job.device == "cuda" and plain["ray_kwargs"]["ray_init"]["address"] == "local":
        warn_of_memory(job, _gpu_bytes())


def warn_of_memory(job: Job, gpu_bytes: float) -> None:
    """Print what the planner expects if the fullest phase of a GPU of `gpu_bytes` exceeds it."""
    found = memory.estimate(job, gpu_bytes)
    if found.peak > gpu_bytes:
        parts = sorted(found.phases[found.peak_phase].items(), key=lambda part: -part[1])[:3]
        largest = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
        print(
            f"[sdar] this may run out of GPU memory: in its phase {found.peak_phase!r} the planner expects up to "
            f"{found.peak / GIB:.1f} GiB of {gpu_bytes / GIB:.1f} ({largest}); `sdar plan` with the same recipe and "
            "overrides says what helps",
            flush=True,
        )


def _require_disk(trainer: Mapping[str, Any], job: Job, needs: host.Host, beside_gib: float) -> None:
    root = Path(trainer["default_local_dir"])
    # those of a run that starts anew are put away, not written over
    there = 0 if trainer["resume_mode"] == "disable" else _size(root)
    preflight.require_disk(
        root,
        beside_gib + max(0.0, needs.disk["checkpoints"] - there) / GIB,
        f": {needs.kept} checkpoints of {needs.checkpoint / GIB:.3g} GiB over {job.nodes} machines, by "
        f"trainer.save_freq={job.save_every} and trainer.max_actor_ckpt_to_keep={trainer['max_actor_ckpt_to_keep']}",
    )


def _gpu_bytes() -> float:
    import torch

    return min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def _size(root: Path) -> int:
    """Bytes of the checkpoints under `root`."""
    files = (path for folder in root.glob("global_step_*") for path in folder.rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file())
