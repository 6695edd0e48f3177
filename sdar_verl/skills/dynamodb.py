"""Skills in one DynamoDB table: immutable versions, and releases that name which versions make up a set.

Items of a set share the partition key ``pk`` (the set's name). Two kinds, told apart by the sort key ``sk``:

* ``skill#<id>#<version>``: one version of one skill with its content hash; written once, never changed.
* ``release#<number>``: a list of (id, version, hash); release N + 1 is written on condition that it does not exist.

A push writes new versions first and the release last, so readers see a whole set or the one before it, and of two
writers that began from one release only one gets the next.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any
from uuid import uuid4

from sdar_verl.skills.aws import Address, connect, is_failed_condition, reporting
from sdar_verl.skills.errors import SkillConflictError, SkillError, SkillsUnreachable
from sdar_verl.skills.items import (
    Release,
    now,
    read_release,
    read_skill,
    release_item,
    release_key,
    skill_item,
    skill_key,
)
from sdar_verl.skills.pins import Pin, pins_of, require_pins
from sdar_verl.skills.skill import Skill
from sdar_verl.skills.store import MemoryStore

BATCH = 100  # most keys of one BatchGetItem
ROUNDS = 8  # tries of one batch before the store counts as overloaded
MAX_BYTES = 390_000  # DynamoDB takes items up to 400 KB, attribute names included


class DynamoStore(MemoryStore):
    """One release of a set, read once and checked against its hashes.

    Args:
        address: where; its `release` None takes the newest.
        env, task_types: as for `MemoryStore`.
        pins: exactly these versions instead of a release.

    Raises:
        MissingSkillError: a version that the release or the pins name is gone.
        SkillError: no such table, set or release; damaged content. `SkillsUnreachable` where the service does not
            answer or is throttled, or the machine's role has given no credentials.
    """

    def __init__(
        self,
        address: Address,
        *,
        env: str | None = None,
        task_types: Collection[str] | None = None,
        pins: Sequence[Pin] | None = None,
    ):
        self.address = address
        table = SkillTable(address)
        self.release = table.release(address.release) if pins is None else None
        super().__init__(
            table.skills(self.release.pins if self.release else pins or ()), env=env, task_types=task_types
        )


class SkillTable:
    """Reads and writes one set of a table.

    Args:
        address: the table and the set.
        sleep: waits between tries of a partial batch; seconds.
    """

    def __init__(self, address: Address, sleep: Callable[[float], None] = time.sleep):
        self.address, self._sleep = address, sleep
        self._client = connect(address)

    def create(self) -> bool:
        """Create the table (on-demand capacity) and wait for it; False if it is there already."""
        with reporting(self.address):
            try:
                self._client.create_table(
                    TableName=self.address.table,
                    KeySchema=[
                        {"AttributeName": "pk", "KeyType": "HASH"},
                        {"AttributeName": "sk", "KeyType": "RANGE"},
                    ],
                    AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
                    BillingMode="PAY_PER_REQUEST",
                )
            except self._client.exceptions.ResourceInUseException:
                return False
            self._client.get_waiter("table_exists").wait(TableName=self.address.table)
        return True

    # --- reading ------------------------------------------------------------------------------------------------

    def releases(self) -> list[Release]:
        """All releases of the set, oldest first."""
        found: list[Release] = []
        with reporting(self.address):
            for page in self._client.get_paginator("query").paginate(**self._release_query()):
                found += map(read_release, page["Items"])
        return found

    def newest(self) -> Release | None:
        """The newest release; None before the first."""
        with reporting(self.address):
            items = self._client.query(**self._release_query(), ScanIndexForward=False, Limit=1)["Items"]
        return read_release(items[0]) if items else None

    def release(self, number: int | None) -> Release:
        """Release `number`, or the newest; raises `SkillError` where there is none."""
        if number is None:
            if (newest := self.newest()) is None:
                raise SkillError(f"{self.address} holds no release; fill it: sdar skills push FOLDER {self.address}")
            return newest
        with reporting(self.address):
            item = self._get(release_key(number))
        if item is None:
            raise SkillError(f"{self.address} has no release {number}; see: sdar skills list {self.address} --releases")
        return read_release(item)

    def skills(self, pins: Iterable[Pin]) -> list[Skill]:
        """The skills at exactly these versions, in the order of `pins`, hashes checked."""
        pins = list(pins)
        keys = [skill_key(pin.id, pin.version) for pin in pins]
        items: dict[str, Any] = {}
        with reporting(self.address):
            for start in range(0, len(keys), BATCH):
                items |= self._batch(keys[start : start + BATCH])
        found = [read_skill(items[key]) for key in keys if key in items]
        require_pins(found, pins, str(self.address))
        return found

    def _batch(self, keys: list[str]) -> dict[str, Any]:
        """Items by sort key; DynamoDB may leave keys out of an answer (size, capacity), and they are asked again."""
        table, found = self.address.table, {}
        wanted = {table: {"Keys": [self._key(key) for key in keys], "ConsistentRead": True}}
        for tried in range(ROUNDS):
            if tried:
                self._sleep(random.uniform(0.5, 1.0) * min(0.05 * 2**tried, 5.0))
            answer = self._client.batch_get_item(RequestItems=wanted)
            found |= {item["sk"]["S"]: item for item in answer["Responses"].get(table, [])}
            wanted = answer.get("UnprocessedKeys") or {}
            if not wanted:
                return found
        left = len(wanted[table]["Keys"])
        raise SkillsUnreachable(
            f"{self.address}: {left} of {len(keys)} skills were still held back after {ROUNDS} tries; the table has "
            "too little read capacity. Raise it, or use on-demand capacity"
        )

    # --- writing ------------------------------------------------------------------------------------------------

    def push(self, skills: Iterable[Skill], *, expected: int | None = None) -> Release:
        """Publish `skills` as the next release; the newest one where nothing would change.

        Args:
            skills: the whole set; what is not among them is not in the release (older releases keep it).
            expected: the newest release must have this number (0: none); None takes whichever is there.

        Raises:
            SkillConflictError: another writer was first, or a version exists with another content.
        """
        skills = MemoryStore(skills).all()
        newest = self.newest()
        number = newest.number if newest else 0
        if expected is not None and expected != number:
            raise SkillConflictError(f"{self.address} is at release {number}, not {expected}; look at its diff first")
        pins = pins_of(skills)
        there = {skill.id: skill for skill in self.skills(newest.pins)} if newest else {}
        for skill in skills:
            if there.get(skill.id) != skill:
                self._create_version(skill)
        if newest and newest.pins == pins:
            return newest
        return self._create_release(number + 1, pins)

    def _stored(self, skill: Skill) -> Skill | None:
        with reporting(self.address):
            item = self._get(skill_key(skill.id, skill.version))
        return None if item is None else read_skill(item)

    def _create_version(self, skill: Skill) -> None:
        if not self._create(skill_key(skill.id, skill.version), skill_item(skill), f"skill {skill.id!r}"):
            if self._stored(skill) != skill:  # equal: an earlier push that did not come to its end, or our own retry
                raise SkillConflictError(
                    f"{self.address} holds {skill.id!r} version {skill.version} with another content, and versions "
                    "never change; raise the version in its front matter"
                )

    def _create_release(self, number: int, pins: tuple[Pin, ...]) -> Release:
        ticket = uuid4().hex
        release = Release(number, pins, now())
        item = release_item(release) | {"ticket": {"S": ticket}}
        if not self._create(release_key(number), item, f"release {number}"):
            with reporting(self.address):
                there = self._get(release_key(number))
            if there is None or there["ticket"]["S"] != ticket:  # ours: the answer was lost and botocore tried again
                raise SkillConflictError(
                    f"another writer published release {number} of {self.address} meanwhile; look at it "
                    f"(sdar skills diff) and push again"
                )
        return release

    def _create(self, key: str, item: dict[str, Any], what: str) -> bool:
        """Write an item that must not exist; False if it does."""
        size = len(repr(item).encode())
        if size > MAX_BYTES:
            raise SkillError(f"{what} takes about {size} bytes, DynamoDB at most {MAX_BYTES}; shorten it")
        with reporting(self.address):
            try:
                self._client.put_item(
                    TableName=self.address.table,
                    Item=self._key(key) | item,
                    ConditionExpression="attribute_not_exists(sk)",
                )
            except self._client.exceptions.ClientError as error:
                if is_failed_condition(error):
                    return False
                raise
        return True

    # --- keys ---------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> dict[str, Any] | None:
        return self._client.get_item(TableName=self.address.table, Key=self._key(key), ConsistentRead=True).get("Item")

    def _key(self, sort: str) -> dict[str, Any]:
        return {"pk": {"S": self.address.set}, "sk": {"S": sort}}

    def _release_query(self) -> dict[str, Any]:
        return {
            "TableName": self.address.table,
            "KeyConditionExpression": "pk = :set AND begins_with(sk, :release)",
            "ExpressionAttributeValues": {":set": {"S": self.address.set}, ":release": {"S": "release#"}},
            "ConsistentRead": True,
        }
