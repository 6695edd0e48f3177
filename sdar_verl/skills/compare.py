"""What differs between two sets of skills, for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from sdar_verl.skills.markdown import format_skill
from sdar_verl.skills.skill import Skill


def differences(old: Iterable[Skill], new: Iterable[Skill], names: tuple[str, str]) -> Iterator[str]:
    """Lines of a unified diff over the skills' files, one part for each skill that differs, by id; none if equal."""
    before, after = ({skill.id: skill for skill in skills} for skills in (old, new))
    for skill_id in sorted(before | after):
        a, b = before.get(skill_id), after.get(skill_id)
        if a != b:
            labels = [f"{name}: {_label(skill_id, skill)}" for name, skill in zip(names, (a, b), strict=True)]
            yield from difflib.unified_diff(_lines(a), _lines(b), *labels, lineterm="")


def summary(old: Iterable[Skill], new: Iterable[Skill]) -> str:
    """For example ``1 new, 2 changed, 0 removed``."""
    before, after = ({skill.id: skill for skill in skills} for skills in (old, new))
    changed = sum(before[skill_id] != after[skill_id] for skill_id in before.keys() & after.keys())
    return f"{len(after.keys() - before)} new, {changed} changed, {len(before.keys() - after)} removed"


def _label(skill_id: str, skill: Skill | None) -> str:
    return f"{skill_id} v{skill.version}" if skill else f"no {skill_id}"


def _lines(skill: Skill | None) -> list[str]:
    return format_skill(skill).splitlines() if skill else []
