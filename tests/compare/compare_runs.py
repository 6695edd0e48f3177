"""Makes the folder of a comparison as `sdar compare run` leaves it, from generated runs."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from sdar_verl.compare.state import RunState, SweepState, write_arm
from sdar_verl.compare.sweep import Arm
from sdar_verl.evaluation.panel import Panel

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from synthetic_runs import make_panel, make_run  # noqa: E402

__all__ = ["edit_manifest", "make_comparison", "make_panel", "make_run"]
ENDS = {"grpo": 0.45, "grpo_opsd": 0.5, "sdar": 0.65}


def make_comparison(
    out: Path,
    panel: Panel,
    *,
    ends: dict[str, float] | None = None,
    seeds: int = 3,
    steps: int = 20,
    every: int = 4,
) -> Path:
    """Arms (name to their success at the end) times seeds; the teacher's arms take longer for a step."""
    found = SweepState({}, "Does the teacher help?", next(iter(ends or ENDS)))
    for number, (name, end) in enumerate((ends or ENDS).items()):
        distil = name != "grpo"
        for seed in range(seeds):
            place = f"runs/{name}/seed-{seed}"
            draw = random.Random(1000 * number + seed)
            run = make_run(
                out / place,
                panel,
                distil=distil,
                steps=steps,
                every=every,
                end=end + draw.gauss(0, 0.03),
                seed=100 * number + seed,
                step_seconds=31.0 if distil else 25.0,
            )
            edit_manifest(
                run, seeds={"data": seed}, method=name, **{"config.sdar.method": name, "config.data.seed": seed}
            )
            _watch_signals(run, draw)
            write_arm(run, Arm(name, (f"method={name}",)), seed, ["sdar.method", "method.coef"])
            found.runs[place] = RunState(name, seed, "finished", 700.0 + 20 * seed)
    found.save(out)
    return out


def edit_manifest(run: Path, **values: object) -> None:
    """Set keys of the manifest; dots go into its parts."""
    manifest = json.loads((run / "manifest.json").read_text())
    for key, value in values.items():
        part = manifest
        *path, last = key.split(".")
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    (run / "manifest.json").write_text(json.dumps(manifest))


def _watch_signals(run: Path, draw: random.Random) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["step"]:
            line["data"] |= {
                "actor/entropy": 0.12 - 0.002 * line["step"] + draw.gauss(0, 0.004),
                "actor/grad_norm": 1 + draw.random(),
                "episode/valid_action_share": 0.95 + 0.02 * draw.random(),
                "response_length/mean": 12 + draw.random(),
                "episode/zero_advantage_share": 0.2 + 0.1 * draw.random(),
            }
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
