"""Write a made-up world as the environment's official files are: ``python -m sdar_envs.search_qa.generate <folder>``.

``<folder>/<split>.parquet`` hold the questions in verl-agent's schema, ``<folder>/corpus.jsonl`` the passages in
wiki-18's, ``<folder>/index`` an index of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdar_envs.base import EnvError
from sdar_envs.search_qa.corpus import write_json, write_store
from sdar_envs.search_qa.question_types import TASK_TYPES
from sdar_envs.search_qa.questions import Question
from sdar_envs.search_qa.retrievers import get
from sdar_envs.search_qa.world.ask import ask
from sdar_envs.search_qa.world.facts import make_world, tell
from sdar_envs.search_qa.world.knobs import WorldKnobs


def generate(
    folder: str | Path,
    splits: Mapping[str, int],
    seed: int = 0,
    knobs: WorldKnobs | None = None,
    engine: str | None = "bm25s",
) -> None:
    """Make a world; the same arguments give the same files.

    Args:
        splits: questions of each split, for example ``{"train": 400, "test": 100}``.
        engine: builds an index of the corpus; None builds none.

    Raises:
        EnvError: the folder is not empty, or the world is too small for so many questions.
    """
    folder, knobs = Path(folder), knobs or WorldKnobs()
    if folder.exists() and any(folder.iterdir()):
        raise EnvError(f"{folder} is not empty; choose another folder")
    if not splits or min(splits.values()) < 1:
        raise EnvError("name at least one split with at least one question")
    world = make_world(seed, knobs)
    asked = {split: ask(world, split, count, seed, knobs) for split, count in splits.items()}
    folder.mkdir(parents=True, exist_ok=True)
    passages = list(tell(world, seed, knobs))
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as out:
        out.writelines(json.dumps(asdict(passage)) + "\n" for passage in passages)
    if engine is not None:
        get(engine).build(write_store(passages, folder / "index"))
    for split, questions in asked.items():
        write_questions(questions, folder / f"{split}.parquet", split)
    write_json(folder / "world.json", {"seed": seed, "knobs": asdict(knobs), "splits": dict(splits)})


def write_questions(questions: Sequence[Question], path: Path, split: str) -> None:
    """Write questions in verl-agent's schema; ``metadata`` holds their type and the searches that answer them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([_row(q, index, split) for index, q in enumerate(questions)]), path)


def _row(question: Question, index: int, split: str) -> dict[str, Any]:
    truth = {"target": list(question.targets)}
    played = {"ground_truth": truth, "question": question.text, "data_source": question.source}
    return {
        "data_source": question.source,
        "prompt": [{"role": "user", "content": question.text}],
        "ability": "fact-reasoning",
        "reward_model": {"ground_truth": truth, "style": "rule"},
        "extra_info": {"index": index, "split": split, "question": question.text},
        "metadata": {"type": question.task_type, "searches": list(question.steps)},
        "env_kwargs": played,
    }


def main(argv: Sequence[str] | None = None) -> int:
    standard = WorldKnobs()
    parser = argparse.ArgumentParser(prog="python -m sdar_envs.search_qa.generate", description=__doc__)
    parser.add_argument("out", type=Path, help="an empty or new folder")
    parser.add_argument(
        "--split", action="append", metavar="NAME=QUESTIONS", help="may be repeated (train=400 and test=100)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="bm25s", help="of the index; none builds none (%(default)s)")
    parser.add_argument("--task-types", nargs="+", default=standard.task_types, help=", ".join(TASK_TYPES))
    for name, value in asdict(standard).items():
        if name != "task_types":
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help="(%(default)s)")
    args = vars(parser.parse_args(argv))
    try:
        splits = dict(_split(text) for text in args.pop("split") or ["train=400", "test=100"])
        out, seed, engine = args.pop("out"), args.pop("seed"), args.pop("engine")
        knobs = WorldKnobs(**{**args, "task_types": tuple(args["task_types"])})
        generate(out, splits, seed, knobs, None if engine == "none" else engine)
    except EnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{', '.join(f'{count} questions in {out}/{split}.parquet' for split, count in splits.items())}")
    return 0


def _split(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if not name.isidentifier() or not count.isdigit():
        raise EnvError(f"--split takes NAME=QUESTIONS, got {text!r}")
    return name, int(count)


if __name__ == "__main__":
    sys.exit(main())
