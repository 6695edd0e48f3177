"""The on-disk form of a skill: Markdown with a flat YAML front matter.

    ---
    id: alfworld/heat
    env: alfworld
    task_type: pick_heat_then_place_in_recep
    version: 1
    provenance: written by hand for this project
    ---
    The text that the teacher reads.

Every value is read as text (so ``env: on`` is the word, not a truth value) except ``version``, a whole number, and
a plain ``null`` as ``task_type``, which marks a general skill.
"""

from __future__ import annotations

import re

import yaml

from sdar_verl.skills.errors import SkillError
from sdar_verl.skills.skill import Skill

KEYS = ("id", "env", "task_type", "version", "provenance")
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<yaml>.*?)^---[ \t]*(?:\n|\Z)(?P<text>.*)", re.DOTALL | re.MULTILINE)


def parse_skill(source: str) -> Skill:
    """Read one skill file's content; raises `SkillError` with what to do for anything that is not one."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    match = _FRONT_MATTER.match(source)
    if not match:
        raise SkillError("no front matter: begin the file with a line '---', the fields, and a second line '---'")
    values = _flat_yaml(match["yaml"])
    missing = [key for key in KEYS if key not in values]
    unknown = [key for key in values if key not in KEYS]
    if missing or unknown:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(map(repr, unknown))}"] if unknown else []
        raise SkillError(f"front matter must hold exactly {', '.join(KEYS)} ({'; '.join(parts)})")
    return Skill(
        id=values["id"][0],
        text=match["text"],
        env=values["env"][0],
        task_type=_task_type(*values["task_type"]),
        version=_version(values["version"][0]),
        provenance=values["provenance"][0],
    )


def format_skill(skill: Skill) -> str:
    """The file content from which `parse_skill` reads `skill` back."""
    fields = {"id": skill.id, "env": skill.env, "task_type": skill.task_type}
    fields |= {"version": skill.version, "provenance": skill.provenance}
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{front}---\n{skill.text}\n"


def _flat_yaml(text: str) -> dict[str, tuple[str, bool]]:
    """``{key: (value, is_plain)}`` of a mapping of scalars."""
    try:
        scalars = _scalars(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (front matter line {mark.line + 1})" if mark else ""
        raise SkillError(f"front matter is not valid YAML: {error.problem or error}{where}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: impossible \U escapes
        raise SkillError(f"front matter is not valid YAML: {error}") from error
    values: dict[str, tuple[str, bool]] = {}
    for key, value in zip(scalars[::2], scalars[1::2], strict=True):
        if key.value in values:
            raise SkillError(f"front matter holds {key.value!r} twice; keep one")
        values[key.value] = (value.value, value.style is None)
    return values


def _scalars(text: str) -> list[yaml.ScalarEvent]:
    """Keys and values in turn. Works on YAML events and stops at the first nested one, so depth cannot hurt."""
    shape = (yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.MappingStartEvent)
    end = (yaml.MappingEndEvent, yaml.DocumentEndEvent, yaml.StreamEndEvent)
    scalars: list[yaml.ScalarEvent] = []
    ended = 0
    for place, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if place < len(shape):
            fits = isinstance(event, shape[place])
        elif isinstance(event, yaml.ScalarEvent) and not ended:
            fits = event.tag is None and event.anchor is None
            scalars.append(event)
        else:
            fits = ended < len(end) and isinstance(event, end[ended])
            ended += 1
        if not fits:
            raise SkillError(f"front matter must be plain 'key: value' lines for {', '.join(KEYS)}")
    return scalars


def _task_type(value: str, is_plain: bool) -> str | None:
    if is_plain and value in ("null", "~"):
        return None
    if not value:
        raise SkillError("task_type is empty; write the task type, or null for a general skill")
    return value


def _version(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise SkillError(f"version must be a whole number from 1, got {value!r}")
    return int(value)
