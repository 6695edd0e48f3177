"""The few HTML pieces a report is made of. Every text goes through `text`; nothing else writes user content."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """A string that is HTML already; only functions of this module and of the report make one."""


def text(value: object) -> Html:
    """`value` as HTML text, also fit for a quoted attribute; characters no page may hold become U+FFFD."""
    return value if isinstance(value, Html) else Html(escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True))


def join(parts: Iterable[object], separator: str = "") -> Html:
    """All parts, escaped where they are not HTML yet."""
    return Html(separator.join(text(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """``<name attributes>content</name>``; ``class_`` writes ``class``, underscores in names become dashes."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers_from: int = 1) -> Html:
    """A table; columns from `numbers_from` on are aligned to the right."""

    def line(kind: str, cells: Sequence[object]) -> Html:
        return tag(
            "tr", *(tag(kind, cell, **({"class_": "num"} if i >= numbers_from else {})) for i, cell in enumerate(cells))
        )

    body = join((line("td", row) for row in rows), "\n")
    return tag("div", tag("table", tag("thead", line("th", head)), tag("tbody", body)), class_="scroll")


def figure(png: bytes, alternative: str, caption: object = "") -> Html:
    """A picture inside the page, with the words for those who do not see it."""
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    image = Html(f'<img src="{source}" alt="{text(alternative)}">')
    return tag("figure", image, tag("figcaption", caption) if caption else "")


def section(identifier: str, title: str, *content: object) -> Html:
    """A titled part of the page."""
    return tag("section", tag("h2", title), *content, id=identifier)


def data(identifier: str, content: object) -> Html:
    """JSON that a script of the page reads by its id; no text in it can end the element."""
    written = json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Html(f'<script type="application/json" id="{text(identifier)}">{written}</script>')


def page(title: str, *content: object, style: str = "", script: str = "") -> str:
    """The whole document. Its policy forbids every connection and any script but `script`, named by its hash.

    So it is safe to open and works offline.

    Args:
        title: of the document.
        content: what the page holds.
        style: more CSS, after that of all pages.
        script: JavaScript that runs once the content is there; none by default.
    """
    style = resources.files("sdar_verl.report").joinpath("page.css").read_text(encoding="utf-8") + style
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    code = ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'"
        code = f"<script>{script}</script>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{join(content, chr(10))}\n</main>\n{code}</body>\n</html>\n"
    )
