"""The two files of one game, as ALFWorld writes them."""

from __future__ import annotations

import hashlib
import json
from random import Random

from sdar_envs.alfworld import pddl
from sdar_envs.alfworld.sampling import LAMP, Room


def compose(room: Room, rng: Random) -> tuple[str, str, str]:
    """``(<task folder>/<trial folder>, game file, trajectory file)``; the trial is named by the room's content."""
    kind = room.targets[0].type
    sentence = rng.choice(pddl.task_templates(room.task_type)).format(
        obj=kind.lower(), recep=room.goal.lower(), toggle=room.goal.lower()
    )
    content = hashlib.sha256((pddl.problem(room, "") + sentence).encode()).hexdigest()
    trial = f"trial_{content[:16]}"
    game = {
        "pddl_domain": pddl.domain(),
        "grammar": pddl.grammar(sentence),
        "pddl_problem": pddl.problem(room, trial),
        "solvable": True,
        "walkthrough": pddl.walkthrough(room),
    }
    lit = room.goal == LAMP
    traj = {
        "task_id": trial,
        "task_type": room.task_type,
        "pddl_params": {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": kind,
            "parent_target": "" if lit else room.goal,
            "toggle_target": LAMP if lit else "",
        },
        "scene": {"floor_plan": f"FloorPlan{room.scene.number}", "scene_num": room.scene.number},
        "turk_annotations": {"anns": [{"task_desc": sentence, "high_descs": [], "votes": []}]},
    }
    task = f"{room.task_type}-{kind}-None-{room.goal}-{room.scene.number}"
    return f"{task}/{trial}", json.dumps(game), json.dumps(traj)
