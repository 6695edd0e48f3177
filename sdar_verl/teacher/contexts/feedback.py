"""`feedback`: what the environment answered to the row's own episode, if it did not succeed."""

from __future__ import annotations

from sdar_verl.skills.skill import Skill
from sdar_verl.teacher.contexts.base import Context, Situation, Success, Transcript

HEADING = "An earlier attempt at this task did not succeed. What the environment answered to it, in order:"


class FeedbackContext(Context):
    """The environment's words on a failed attempt (SDPO's), turn by turn.

    The attempt is the very episode that the teacher scores: what it shows is hindsight, which the student lacked. Its
    actions are left out, or the teacher would copy what it is to judge.
    """

    name = "feedback"
    needs_group = True

    def __init__(self, success: Success, transcript: Transcript):
        self.success, self.transcript = success, transcript

    def units(self, situation: Situation) -> list[Skill]:
        own = situation.own
        if own is None or not own.turns or self.success(own):
            return []
        answers = [*(turn.observation for turn in own.turns[1:]), own.last_observation]
        return self.transcript.units(self.name, situation, HEADING, answers)
