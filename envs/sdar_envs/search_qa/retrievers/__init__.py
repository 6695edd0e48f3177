"""Search engines by name. One is added with one `register` call; its module holds the class as `RETRIEVER`.

Engines are imported when they are opened: each needs packages of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sdar_envs.search_qa.retrievers.base import Hit, Retriever, RetrieverError

__all__ = ["Hit", "Retriever", "RetrieverError", "get", "names", "open_retriever", "register"]

_MODULES = {name: f"{__name__}.{name}" for name in ("bm25s", "tantivy", "dense", "http", "bedrock", "kendra")}


def register(name: str, module: str) -> None:
    """Make the `RETRIEVER` of an importable module known as `name`; raises if the name means another one."""
    if _MODULES.setdefault(name, module) != module:
        raise RetrieverError(f"retriever {name!r} is already registered as {_MODULES[name]}, it cannot become {module}")


def names() -> list[str]:
    return sorted(_MODULES)


def get(name: str) -> type[Retriever]:
    """The retriever class called `name`; raises `RetrieverError` naming the known ones."""
    if name not in _MODULES:
        raise RetrieverError(f"unknown retriever {name!r}; known: {', '.join(names())}")
    return import_module(_MODULES[name]).RETRIEVER


def open_retriever(config: Mapping[str, Any]) -> Retriever:
    """Open the engine that ``config["engine"]`` names with the other keys of `config`."""
    rest = dict(config)
    engine = rest.pop("engine", None)
    if not isinstance(engine, str):
        raise RetrieverError(f"the retriever has no engine; set engine to one of {', '.join(names())}")
    return get(engine).open(rest)
