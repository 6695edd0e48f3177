"""Reading a step's rows, which verl keeps in TransferQueue under ``{uid}_{session}_{turn}``."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import transfer_queue as tq


def read(batch: Any, fields: list[str]) -> Any:
    """The named columns of `batch`, in its order."""
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)


def objects(data: Any, field: str) -> list[Any]:
    """A column of Python objects, without the wrapper that it may travel in."""
    return [getattr(value, "data", value) for value in data[field]]


def is_padding(tag: dict[str, Any]) -> bool:
    """Rows that only fill the batch up; their mask is 0."""
    return bool(tag.get("is_padding", False))


def sessions(batch: Any) -> dict[str, list[int]]:
    """Numbers of the real rows of each episode ``{uid}_{session}``, in the order of its turns."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, (key, tag) in enumerate(zip(batch.keys, batch.tags, strict=True)):
        if not is_padding(tag):
            session, _, turn = key.rpartition("_")
            found[session].append((int(turn), number))
    return {session: [number for _, number in sorted(turns)] for session, turns in found.items()}
