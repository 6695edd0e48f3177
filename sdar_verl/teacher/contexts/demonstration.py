"""`demonstration`: the first other episode of the group that succeeded."""

from __future__ import annotations

from sdar_verl.skills.skill import Skill
from sdar_verl.teacher.contexts.base import Context, Situation, Success, Transcript

HEADING = "An earlier attempt at this very task, which succeeded:"


class DemonstrationContext(Context):
    """A successful sibling as privileged context (SDPO's), with what it observed.

    Never the row's own episode: copying itself would teach the student nothing but to be surer.

    Args:
        remove_thinking: show the actions alone; else the whole answers.
    """

    name = "demonstration"
    needs_group = True
    is_solution = True

    def __init__(self, success: Success, transcript: Transcript, *, remove_thinking: bool):
        self.success, self.transcript, self.remove_thinking = success, transcript, remove_thinking

    def units(self, situation: Situation) -> list[Skill]:
        for attempt in situation.siblings:
            if not self.success(attempt):
                continue
            lines = [
                f"Observation: {turn.observation}\n"
                + (f"Action: {turn.action}" if self.remove_thinking else f"Answer: {turn.response}")
                for turn in attempt.turns
            ]
            if units := self.transcript.units(self.name, situation, HEADING, lines):
                return units
        return []
