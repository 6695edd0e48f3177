"""Parts by name: a part is added with one decorator, and an unknown name lists the known ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """A named set of parts of one kind.

    >>> gates = Registry("gate")
    >>> @gates.register("open")
    ... def open_gate(tokens): ...
    >>> gates.names()
    ['open']
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, Part] = {}
        self._needs: dict[str, frozenset[str]] = {}

    def register(self, name: str, *, needs: Iterable[str] = ()) -> Callable[[Part], Part]:
        """Decorator that files a part under `name`; raises `ValueError` if the name is taken by another part.

        Args:
            name: what configurations call it.
            needs: optional fields of `Tokens` that it reads, such as ``entropy`` or ``old``.
        """

        def add(part: Part) -> Part:
            if self._parts.get(name, part) is not part:
                raise ValueError(f"{self.kind} {name!r} is registered already; choose another name")
            self._parts[name] = part
            self._needs[name] = frozenset(needs)
            return part

        return add

    def get(self, name: str) -> Part:
        """The part called `name`; raises `ValueError` that lists the known names."""
        if name not in self._parts:
            raise ValueError(f"unknown {self.kind} {name!r}; known: {', '.join(self.names()) or 'none'}")
        return self._parts[name]

    def needs(self, name: str) -> frozenset[str]:
        """The optional fields of `Tokens` that the part called `name` reads."""
        return self._needs.get(name, frozenset())

    def names(self) -> list[str]:
        """All known names, sorted."""
        return sorted(self._parts)
