"""A table that is written as HTML and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdar_verl.report import html
from sdar_verl.report.html import Html, join, tag


@dataclass(frozen=True)
class Cell:
    """A number or word, and smaller notes below it."""

    text: str
    notes: tuple[str, ...] = ()

    @property
    def html(self) -> Html:
        return join([tag("b", self.text), *(tag("small", note) for note in self.notes)])

    @property
    def markdown(self) -> str:
        return plain(self.text) + (f" ({plain(', '.join(self.notes))})" if self.notes else "")


@dataclass(frozen=True)
class Table:
    """Attributes:
    title: of the Markdown's heading.
    head: one word per column.
    rows: a first column of names, then cells or plain text.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]

    @property
    def html(self) -> Html:
        shown = [[part.html if isinstance(part, Cell) else part for part in row] for row in self.rows]
        return html.table(self.head, shown) if shown else tag("p", "Nothing was measured yet.")

    @property
    def markdown(self) -> str:
        lines = [[part.markdown if isinstance(part, Cell) else plain(part) for part in row] for row in self.rows]
        ruler = ["---", *(["---:"] * (len(self.head) - 1))]
        body = "\n".join(f"| {' | '.join(line)} |" for line in ([plain(part) for part in self.head], ruler, *lines))
        return f"## {self.title}\n\n{body if lines else 'Nothing was measured yet.'}\n"


def plain(text: str) -> str:
    """Text as Markdown, also fit for a cell: no line breaks, and what Markdown or HTML would read is escaped."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(str(text).split()))
