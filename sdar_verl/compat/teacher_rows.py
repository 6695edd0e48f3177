"""The teacher's prompts of a step's rows: those that the agent loop built, or those that had to wait for the group."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sdar_envs.base import TaskRef

from sdar_verl.agent.privileged import GroupRow, TeacherRow
from sdar_verl.compat import rows
from sdar_verl.errors import SdarError
from sdar_verl.settings import Settings
from sdar_verl.teacher.contexts import Attempt, Situation


def teacher_rows(batch: Any, settings: Settings, manager: Any) -> dict[str, TeacherRow]:
    """What the teacher is given for each real row of `batch`, by key.

    Args:
        manager: the agent-loop manager, whose workers build the prompts that had to wait.

    Raises:
        SdarError: a row has neither a prompt nor what one is made from.
    """
    data = rows.read(batch, ["extra_fields", "task"])
    extras, tasks = rows.objects(data, "extra_fields"), rows.objects(data, "task")
    # without any text the policy as its own teacher is the student; only a control run is meant to learn from that
    needs_text = settings.teacher.follows_policy and settings.context.parts and settings.skills.retriever != "none"
    found, waiting = {}, {}
    groups = rows.sessions(batch)
    siblings = defaultdict(list)
    for session, numbers in groups.items():
        if (attempt := extras[numbers[-1]]["attempt"]) is not None:
            siblings[session.rpartition("_")[0]].append(Attempt.from_dict(attempt))
    for session, numbers in groups.items():
        uid, _, number = session.rpartition("_")
        others = sorted((a for a in siblings[uid] if a.session != int(number)), key=lambda a: a.session)
        own = next((a for a in siblings[uid] if a.session == int(number)), None)
        for at in numbers:
            key, extra = batch.keys[at], extras[at]
            if extra["teacher_prompt_ids"]:
                found[key] = TeacherRow(
                    extra["teacher_prompt_ids"],
                    tuple(extra["units"]),
                    extra["task_skill"],
                    extra["shrunk"],
                    taught=bool(extra["units"]) or not needs_text,
                )
            elif extra["messages"] and own is not None:
                task = TaskRef(**tasks[at])
                situation = Situation(settings.env.name, task, int(number), own, tuple(others))
                waiting[key] = GroupRow(extra["messages"], situation)
            else:
                raise SdarError(f"row {key} has no privileged prompt: the agent loop did not build one")
    if waiting:
        found.update(zip(waiting, manager.teacher_rows(list(waiting.values())), strict=True))
    return found
