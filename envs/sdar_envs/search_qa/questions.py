"""Questions from parquet files in Search-R1's and verl-agent's schemas."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdar_envs.base import EnvError, TaskRef
from sdar_envs.paths import expanded
from sdar_envs.search_qa.question_types import TASK_TYPES, mapping, question_type

_PREFIX = "searchR1_"  # verl's own preparation script puts it before the source
# Where a row may hold its question, answers and source, the first that is there counts.
_FIELDS = {
    "question": (("env_kwargs", "question"), ("question",), ("extra_info", "question")),
    "targets": (
        ("env_kwargs", "ground_truth", "target"),
        ("reward_model", "ground_truth", "target"),
        ("golden_answers",),
    ),
    "source": (("env_kwargs", "data_source"), ("data_source",)),
}


@dataclass(frozen=True)
class Question:
    """Attributes:
    text: as asked.
    targets: every accepted answer, at least one.
    source: the data set it comes from (``nq``).
    task_type: one of `TASK_TYPES`.
    steps: searches that lead to the answer, in order, where the data name them; else empty.
    """

    text: str
    targets: tuple[str, ...]
    source: str
    task_type: str
    steps: tuple[str, ...] = ()


class QuestionFile:
    """One parquet file, kept as an Arrow table (170,000 questions: some 30 MB); rows are read when asked for.

    Raises:
        EnvError: it cannot be read, or has none of the columns that hold questions, answers or sources.
    """

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.compute as pc
            import pyarrow.parquet as pq
        except ImportError as error:
            raise EnvError("Search-QA reads parquet files with pyarrow: pip install 'sdar-envs[search-qa]'") from error
        import pyarrow as pa

        self.path = path
        try:
            names = set(pq.read_schema(path).names)
            wanted = {places[0] for options in _FIELDS.values() for places in options} | {"metadata"}
            table = pq.read_table(path, columns=sorted(wanted & names))
        except (OSError, pa.ArrowException) as error:
            raise EnvError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error
        self._columns = {}
        for field, options in _FIELDS.items():
            for column, *inner in options:
                if column in names and _has(table.schema.field(column).type, inner):
                    self._columns[field] = pc.struct_field(table[column], inner) if inner else table[column]
                    break
            else:
                tried = ", ".join(".".join(option) for option in options)
                raise EnvError(f"{path} has no column for the {field}; looked for {tried}")
        self._metadata = table["metadata"] if "metadata" in names else None

    def __len__(self) -> int:
        return len(self._columns["question"])

    def __getitem__(self, row: int) -> Question:
        """The question of one row; raises `EnvError` if the row is not there or not usable."""
        if not 0 <= row < len(self):
            raise EnvError(f"{self.path} has {len(self)} questions, there is no row {row}")
        values = {field: column[row].as_py() for field, column in self._columns.items()}
        return _question(f"{self.path}, row {row}", values, self._metadata_of(row))

    def __iter__(self) -> Iterator[Question]:
        columns = [column.to_pylist() for column in self._columns.values()]
        metadata = self._metadata.to_pylist() if self._metadata is not None else [None] * len(self)
        for row, values in enumerate(zip(*columns, strict=True)):
            yield _question(
                f"{self.path}, row {row}", dict(zip(self._columns, values, strict=True)), mapping(metadata[row])
            )

    def _metadata_of(self, row: int) -> Mapping[str, Any]:
        return {} if self._metadata is None else mapping(self._metadata[row].as_py())


@lru_cache(maxsize=4)
def _open(path: Path, size: int, changed: int) -> QuestionFile:
    return QuestionFile(path)


def open_file(path: str | os.PathLike[str]) -> QuestionFile:
    """The questions of one file, kept for the next caller until the file changes."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise EnvError(f"{os.fspath(path)} cannot be read ({error.strerror})") from error
    return _open(Path(path), state.st_size, state.st_mtime_ns)


def find_tasks(
    data_root: str | os.PathLike[str],
    split: str,
    task_types: Collection[str] | None = None,
    sources: Collection[str] | None = None,
) -> list[TaskRef]:
    """The questions of ``<data_root>/<split>.parquet`` in the file's order; ids are ``<source>/<row>``.

    Raises:
        EnvError: there is no such file, a row cannot be used, or no question is left.
    """
    for name, given, known in (("task_types", task_types, TASK_TYPES), ("sources", sources, None)):
        wrong = isinstance(given, str) or (given is not None and (not given or (known and set(given) - set(known))))
        if wrong:
            raise EnvError(f"{name} must be a list{' out of ' + ', '.join(known) if known else ''}; got {given!r}")
    path = expanded(data_root, "env.search_qa.data_root").absolute() / f"{split}.parquet"
    if not path.is_file():
        raise EnvError(
            f"no Search-QA split {split!r}: {path} is no file. Point env.search_qa.data_root at the folder of the "
            "prepared parquet files, or generate a world there: python -m sdar_envs.search_qa.generate"
        )
    tasks = [
        TaskRef(id=f"{question.source}/{row:06d}", task_type=question.task_type, split=split, path=str(path))
        for row, question in enumerate(open_file(path))
        if (task_types is None or question.task_type in task_types) and (sources is None or question.source in sources)
    ]
    if not tasks:
        raise EnvError(f"{path} has no question of the task types {task_types} and sources {sources}")
    return tasks


def question_of(task: TaskRef) -> Question:
    """The question behind a task that `find_tasks` gave; raises `EnvError` if its file is another one now."""
    source, _, row = task.id.rpartition("/")
    if not row.isdigit():
        raise EnvError(f"{task.id!r} is no Search-QA task; ids are <source>/<row>")
    question = open_file(task.path)[int(row)]
    if (question.source, question.task_type) != (source, task.task_type):
        raise EnvError(f"{task.path} no longer holds task {task.id!r} of type {task.task_type} in that row")
    return question


def _question(where: str, values: Mapping[str, Any], metadata: Mapping[str, Any]) -> Question:
    text, source = values["question"], values["source"]
    if not isinstance(text, str) or not text.strip():
        raise EnvError(f"{where}: the question is empty")
    if not isinstance(source, str) or not source:
        raise EnvError(f"{where}: the data source is empty")
    targets = [values["targets"]] if isinstance(values["targets"], str) else list(values["targets"] or ())
    if not targets or not all(isinstance(target, str) and target.strip() for target in targets):
        raise EnvError(f"{where}: the accepted answers must be non-empty texts, got {targets!r}")
    source, text = source.removeprefix(_PREFIX), text.strip()
    steps = metadata.get("searches") or ()
    return Question(text, tuple(targets), source, question_type(source, text, metadata), tuple(steps))


def _has(kind: Any, inner: list[str]) -> bool:
    """Whether an Arrow type is a struct with the path `inner` of fields."""
    import pyarrow as pa

    for name in inner:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return False
        kind = kind.field(name).type
    return True
