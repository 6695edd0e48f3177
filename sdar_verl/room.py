"""Whether the disk holds the checkpoints that a run keeps: a full one would end it hours after its start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar_verl import preflight
from sdar_verl.host import GIB
from sdar_verl.plan import models
from sdar_verl.plan.host import estimate
from sdar_verl.plan.job import job_from_config
from sdar_verl.plan.units import PlanError


def require_space(plain: Mapping[str, Any], model: Mapping[str, Any], beside_gib: float) -> None:
    """Refuse when the checkpoints do not fit, by the planner's sizes; say so where it knows too little for one.

    Args:
        plain: the resolved configuration.
        model: the policy's ``config.json``.
        beside_gib: GiB that everything else takes.

    Raises:
        PreflightError: with how many there are and how large they become.
    """
    trainer = plain["trainer"]
    root = Path(trainer["default_local_dir"])
    try:
        job = job_from_config(plain, models.from_config(model, plain["actor_rollout_ref"]["model"]["path"]))
        needs = estimate(job, tokens_per_step=0)
    except PlanError as error:
        print(f"[sdar] whether its checkpoints fit on the disk is not known: {error}", flush=True)
        return
    # those of a run that starts anew are put away, not written over
    there = 0 if trainer["resume_mode"] == "disable" else _size(root)
    preflight.require_disk(
        root,
        beside_gib + max(0.0, needs.disk["checkpoints"] - there) / GIB,
        f": {needs.kept} checkpoints of {needs.checkpoint / GIB:.3g} GiB over {job.nodes} machines, by "
        f"trainer.save_freq={job.save_every} and trainer.max_actor_ckpt_to_keep={trainer['max_actor_ckpt_to_keep']}",
    )


def _size(root: Path) -> int:
    """Bytes of the checkpoints under `root`."""
    files = (path for folder in root.glob("global_step_*") for path in folder.rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file())
