"""The quickstart from beginning to end; a second call goes on where the first was stopped."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

from sdar_verl import preflight
from sdar_verl.lab import envs
from sdar_verl.quickstart import models
from sdar_verl.quickstart.plan import Plan, command, load_plan
from sdar_verl.quickstart.state import State, open_state
from sdar_verl.report.quickstart import build_report
from sdar_verl.runs import lab
from sdar_verl.runs.lab import make_games
from sdar_verl.runs.watch import Progress, Say, TooSlow, watch

_MEMORY_GIB, _DISK_GIB, _SHARED_GIB = 6, 2, 0.5


def quickstart(
    out: Path,
    *,
    model: str = "tiny",
    env: str = "alfworld",
    minutes: float | None = None,
    seed: int = 0,
    say: Say = print,
) -> Path:
    """Generate games, train every method of the plan from one start, and write the report.

    Args:
        out: folder of games, runs and report.
        model: ``tiny`` (GRPO and SDAR) or ``smollm2`` (one step of SDAR).
        env: the environment; it needs a fitted model that ships with the package.
        minutes: time budget; None is the plan's own.
        seed: of games, panel, data order and sampling; the same in all runs.
        say: receives progress lines.

    Returns:
        Path of the report.

    Raises:
        SdarError: something is missing or a run failed; the message says what to do.
        KeyboardInterrupt: stopped by the user, after the run was ended.
    """
    began = time.monotonic()
    out = out.expanduser().absolute()
    start = models.tiny(env) if model == "tiny" else None
    plan = load_plan(model, env)
    plan = plan.within(plan.minutes if minutes is None else minutes)
    state = open_state(out, _inputs(plan, model, env, seed), plan.steps)
    preflight.require_memory(_MEMORY_GIB)
    preflight.require_disk(out, _DISK_GIB)
    preflight.require_shared_memory(_SHARED_GIB)
    state.save(out)
    plan = replace(plan, steps=state.steps)
    methods = " and ".join(plan.methods)
    say(f"plan: {methods}, {_steps(plan.steps)} each, a budget of {plan.minutes:g} min; folder {out}")
    say(make_games(env, out / "games", plan.train_games, max(plan.panel, 1), seed))
    start = start or _make_smollm2(out / "model", say)
    for method in plan.methods:
        if method in state.finished:
            say(f"{method}: finished before, kept")
            continue
        plan = _train(method, plan, state, out=out, env=env, model=model, start=start, seed=seed, began=began, say=say)
    page = build_report([out / method for method in plan.methods], out, title=f"SDAR quickstart ({model}, {env})")
    say(f"report: {page} ({(time.monotonic() - began) / 60:.1f} min in all)")
    return page


def _train(
    method: str,
    plan: Plan,
    state: State,
    *,
    out: Path,
    env: str,
    model: str,
    start: Path,
    seed: int,
    began: float,
    say: Say,
) -> Plan:
    """One method's run; returns the plan, with fewer steps if the first run showed that not all of them fit."""

    def tell(line: str) -> None:
        say(f"{method}: {line}")

    def review(progress: Progress, waited: float) -> int:
        steps, evaluations = progress.seconds("step"), progress.seconds("testing") or [0.0]
        return plan.affordable(time.monotonic() - began, waited, len(steps), steps[-1], evaluations[-1])

    run_dir = out / method
    first = not state.finished and plan.steps > plan.every and len(plan.methods) > 1
    while True:
        shutil.rmtree(run_dir, ignore_errors=True)  # what an interrupted call left
        where = {"model": start, "games": out / "games", "run_dir": run_dir}
        arguments = command(plan, method, preset=lab.preset(model, env), **where, seed=seed, env=env)
        tell(f"{_steps(plan.steps)}, log in {run_dir / 'log.txt'}")
        try:
            watch(arguments, run_dir, plan.steps, tell, review=review if first else None)
            break
        except TooSlow as slow:
            first = False
            plan = replace(plan, steps=slow.steps)
            state.steps = slow.steps
            state.save(out)
            tell(f"this machine is slower than the plan: {slow.steps} steps fit into the budget; starting again")
    state.finished.append(method)
    state.save(out)
    return plan


def _make_smollm2(folder: Path, say: Say) -> Path:
    say("model: SmolLM2-135M-Instruct (the first time takes half a minute)")
    return models.smollm2(folder)


def _inputs(plan: Plan, model: str, env: str, seed: int) -> dict:
    """What must not change between two calls on one folder: games, settings, start model."""
    weights = models.tiny(env) / "model.safetensors" if model == "tiny" else None
    return {
        "model": model,
        "env": env,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights else None,
        "seed": seed,
        "plan": asdict(plan),
        "preset": lab.preset_hash(lab.preset(model, env)),
        "games": asdict(envs.get(env).play.knobs),
    }


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"
