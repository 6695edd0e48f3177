"""Plots of a page: drawn, kept beside it as PNG files, and put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from matplotlib.figure import Figure

from sdar_verl.report import html
from sdar_verl.report.html import Html
from sdar_verl.report.style import png

Subject = TypeVar("Subject")


class Plots(Generic[Subject]):
    """Draws what the page is about, keeps the PNG in `folder` and gives the HTML; nothing where nothing was drawn."""

    def __init__(self, folder: Path, subject: Subject):
        self.folder, self.subject = folder, subject

    def __call__(
        self, name: str, make: Callable[[Subject], Figure | None], alternative: str, caption: str = ""
    ) -> Html | str:
        drawn = make(self.subject)
        if drawn is None:
            return ""
        content = png(drawn)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.png").write_bytes(content)
        return html.figure(content, alternative, caption)
