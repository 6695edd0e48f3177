"""What privileged prompts cost: ``python benchmarks/teacher_prompts.py``.

Builds the prompts of the student and of the teacher for the same rows, one after the other in one process, and prints
the time of each and their ratio; for every placement, and for a skill set that must be shrunk to fit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdar_envs import registry
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.base import EpisodeView, TaskRef
from transformers import AutoTokenizer

from sdar_verl.quickstart import models
from sdar_verl.skills import SkillQuery, open_store
from sdar_verl.skills.retrievers import make as make_retriever
from sdar_verl.teacher import TeacherPromptBuilder
from sdar_verl.teacher.templating import prompt_ids

PLACEMENTS = ("system", "user_prefix", "before_template")
Row = tuple[TaskRef, list[dict[str, str]]]


def make_rows(games: list[TaskRef]) -> list[Row]:
    """Each game's first prompt."""
    family = registry.get("alfworld")
    env, prompt_format = family.make_env({}), family.make_format({})
    rows = []
    for task in games:
        observation, info = env.reset(task=task)
        view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
        rows.append((task, [{"role": "user", "content": prompt_format.render(view)}]))
    env.close()
    return rows


def per_row(build: Callable[[TaskRef, list[dict[str, str]]], Any], rows: list[Row], repeats: int) -> float:
    """Median over repeats of the milliseconds of one row."""
    build(*rows[0])
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for task, messages in rows:
            build(task, messages)
        times.append((time.perf_counter() - start) / len(rows) * 1e3)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder with a tokenizer; the tiny model's by default")
    parser.add_argument("--games", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", help="also write the numbers to this file")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model or models.tiny())
    with tempfile.TemporaryDirectory() as folder:
        rows = make_rows(generate_games(folder, "train", args.games, 0))
    store = open_store("alfworld")
    rules, full = make_retriever("rules", store), make_retriever("full", store)

    def teacher(placement: str, retriever: Any, longest: int) -> Callable[[TaskRef, list[dict[str, str]]], Any]:
        builder = TeacherPromptBuilder(tokenizer, placement, longest)

        def build(task: TaskRef, messages: list[dict[str, str]]) -> Any:
            query = SkillQuery("alfworld", task.task_type, task.id, seed=0)
            return builder.build(messages, retriever.retrieve(query), task_type=task.task_type)

        return build

    def student(task: TaskRef, messages: list[dict[str, str]]) -> list[int]:
        return prompt_ids(tokenizer, messages, {})

    own = max(len(student(*row)) for row in rows)
    whole = max(len(teacher("system", full, 100_000)(*row).ids) for row in rows)
    numbers = {"student": per_row(student, rows, args.repeats)}
    for placement in PLACEMENTS:
        numbers[f"teacher, {placement}"] = per_row(teacher(placement, rules, 100_000), rows, args.repeats)
    numbers["teacher, all skills"] = per_row(teacher("system", full, 100_000), rows, args.repeats)
    numbers["teacher, all skills, shrunk"] = per_row(teacher("system", full, (own + whole) // 2), rows, args.repeats)
    print(f"{len(rows)} rows; longest prompts: student {own} tokens, teacher with all skills {whole}")
    print(f"{'ms per row':<30}{'median':>9}{'ratio':>8}")
    for name, value in numbers.items():
        print(f"{name:<30}{value:>9.3f}{value / numbers['student']:>8.2f}")
    if args.json:
        Path(args.json).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
