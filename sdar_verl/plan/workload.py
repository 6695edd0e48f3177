"""How long episodes, prompts and answers are on average: assumptions with their source, or a finished run's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdar_verl.plan.job import Job
from sdar_verl.plan.units import PlanError, shipped

CHARACTERS_PER_TOKEN = 4.0
REFERENCE_TOKENS = 150.0  # a task's own solution in place of skills
_NOTHING_KNOWN = {
    "feedback": 0.0,
    "skills": 0.0,
    "step_seconds": 0.01,
    "source": "nothing is known of this environment",
}


@dataclass(frozen=True)
class Workload:
    """Attributes (means over a run, tokens unless said):
    turns: of an episode.
    prompt: of a turn; `answer`: sampled tokens of a turn.
    feedback: what the environment says after a turn, where a row is a whole episode.
    skills: what the teacher's prompt has more than the student's.
    step_seconds: one step of the environment.
    source: where the numbers come from.
    """

    turns: float
    prompt: float
    answer: float
    feedback: float
    skills: float
    step_seconds: float
    source: str

    def __post_init__(self) -> None:
        numbers = (self.turns, self.prompt, self.answer, self.skills, self.feedback, self.step_seconds)
        if not all(map(math.isfinite, numbers)) or min(numbers[:3]) <= 0 or min(numbers[3:]) < 0:
            raise PlanError("turns, prompt and answer tokens must be above 0; skills, feedback and step time not below")

    def rows(self, job: Job) -> float:
        """Training rows of a step."""
        return job.episodes * (1 if job.rows == "trajectory" else self.turns)

    def row_tokens(self, job: Job) -> float:
        """Mean tokens of a row."""
        if job.rows == "trajectory":
            return min(job.row, self.prompt + self.turns * (self.answer + self.feedback))
        return self.prompt + self.answer

    def tokens(self, job: Job) -> float:
        """Tokens of a step's rows."""
        return self.rows(job) * self.row_tokens(job)

    def teacher_tokens(self, job: Job) -> float:
        """Tokens that the teacher reads in a step."""
        return self.rows(job) * (self.row_tokens(job) + self.skills) if job.teacher else 0.0


def assumed(job: Job, **given: float | None) -> Workload:
    """The shipped numbers of an environment, within the run's own limits; numbers that are `given` win.

    Raises:
        PlanError: nothing is known about the environment and not all numbers are given.
    """
    data = shipped("workloads")
    if job.env in data["published"]:
        values: dict[str, Any] = dict(data[job.env])
        if job.teacher and (texts := skill_tokens(job)) is not None:
            values["skills"] = texts
            values["source"] += f". Skills here: the run's own ({job.skills_store}), 4 characters a token"
    else:
        if missing := [name for name in ("turns", "prompt", "answer") if given.get(name) is None]:
            raise PlanError(
                f"nothing is known about episodes of {job.env!r}; give " + ", ".join(f"--{name} N" for name in missing)
            )
        values = {**_NOTHING_KNOWN, **{name: given[name] for name in ("turns", "prompt", "answer")}}
    return override(within(Workload(**values), job), job, given)


def within(work: Workload, job: Job) -> Workload:
    """No longer than the run allows."""
    return replace(
        work,
        turns=min(work.turns, job.max_turns),
        prompt=min(work.prompt, job.prompt),
        answer=min(work.answer, job.response),
        skills=min(work.skills, max(0.0, job.teacher_prompt - min(work.prompt, job.prompt))),
    )


def skill_tokens(job: Job) -> float | None:
    """Tokens of the skills that a teacher is shown, by the run's own texts; None if they are not here."""
    from sdar_verl.skills import SkillError, open_store

    if job.skills_retriever == "none":
        return 0.0
    if job.skills_retriever == "reference":
        return REFERENCE_TOKENS
    try:
        skills = open_store(job.skills_store).all()
    except SkillError:
        return None  # another store, or the folder lies on another machine
    general = sum(len(skill.text) for skill in skills if skill.is_general)
    own = [len(skill.text) for skill in skills if not skill.is_general]
    if job.skills_retriever == "full":
        return (general + sum(own)) / CHARACTERS_PER_TOKEN
    return (general + (sum(own) / len(own) if own else 0)) / CHARACTERS_PER_TOKEN


def override(work: Workload, job: Job, given: Mapping[str, float | None]) -> Workload:
    """`work` with the numbers that are given in place of its own."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if not chosen:
        return work
    source = f"given: {', '.join(sorted(chosen))}; else {work.source}"
    return within(replace(work, **chosen, source=source), job)
