"""Skills and releases as items of a DynamoDB table, in the notation of its low-level interface."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sdar_verl.skills.errors import SkillError
from sdar_verl.skills.pins import Pin
from sdar_verl.skills.skill import Skill

Item = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """One published state of a set.

    Attributes:
        number: 1, 2, ...
        pins: the versions that make it up, by id.
        created: when, ISO 8601 in UTC.
    """

    number: int
    pins: tuple[Pin, ...]
    created: str


def skill_key(skill_id: str, version: int) -> str:
    return f"skill#{skill_id}#{version:09d}"


def release_key(number: int) -> str:
    return f"release#{number:09d}"


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def skill_item(skill: Skill) -> Item:
    """The columns of one version, without its keys."""
    content = {"id": skill.id, "env": skill.env, "text": skill.text, "provenance": skill.provenance}
    content |= {"hash": skill.content_hash, "created": now()}
    item: Item = {name: {"S": value} for name, value in content.items()} | {"version": {"N": str(skill.version)}}
    return item if skill.task_type is None else item | {"task_type": {"S": skill.task_type}}


def read_skill(item: Item) -> Skill:
    """The skill of an item; raises `SkillError` where it is none, or not the one that was written."""
    try:
        skill = Skill(
            id=item["id"]["S"],
            text=item["text"]["S"],
            env=item["env"]["S"],
            task_type=item["task_type"]["S"] if "task_type" in item else None,
            version=int(item["version"]["N"]),
            provenance=item["provenance"]["S"],
        )
        stored = item["hash"]["S"]
    except (KeyError, ValueError) as error:
        raise SkillError(f"the item {item['sk']['S']!r} is no skill ({error!r}); was it written by hand?") from error
    if skill_key(skill.id, skill.version) != item["sk"]["S"] or stored != skill.content_hash:
        raise SkillError(f"the item {item['sk']['S']!r} does not have the content it was written with; restore it")
    return skill


def release_item(release: Release) -> Item:
    """The columns of a release, without its keys."""
    members = [
        {"M": {"id": {"S": pin.id}, "version": {"N": str(pin.version)}, "hash": {"S": pin.hash}}}
        for pin in release.pins
    ]
    return {"members": {"L": members}, "number": {"N": str(release.number)}, "created": {"S": release.created}}


def read_release(item: Item) -> Release:
    """The release of an item; raises `SkillError` where it is none."""
    try:
        members = [member["M"] for member in item["members"]["L"]]
        pins = tuple(Pin(m["id"]["S"], int(m["version"]["N"]), m["hash"]["S"]) for m in members)
        return Release(int(item["number"]["N"]), pins, item["created"]["S"])
    except (KeyError, ValueError) as error:
        raise SkillError(f"the item {item['sk']['S']!r} is no release ({error!r}); was it written by hand?") from error
