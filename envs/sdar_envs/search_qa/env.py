"""One question as a text environment: search turns, then an answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence

from sdar_envs.base import EnvError, StepInfo, TaskRef, TextEnv
from sdar_envs.search_qa.questions import Question
from sdar_envs.search_qa.retrievers.base import Hit, Retriever
from sdar_envs.search_qa.scoring import Score, score

_QUERY = re.compile(r"<search>(.*?)</search>", re.DOTALL)


class SearchQaEnv(TextEnv):
    """A question through `TextEnv`: `success_reward` times the score on the last step, 0 before.

    The episode is terminated by an answer and truncated on turn `max_steps` without one; no search is made on that
    turn. The first observation is the question, later ones are `information` blocks, or empty after an action without
    tags. A retriever that fails raises `EnvError`: the episode is lost and nothing is learned from an error message.

    Args:
        retriever: answers the searches.
        question: looks a task's question up.
        topk: passages a search returns.
        max_steps: turns of an episode.
        success_reward: reward of a right answer.

    Attributes:
        score: of the episode that ended last; None while one is running.
    """

    def __init__(
        self,
        retriever: Retriever,
        question: Callable[[TaskRef], Question],
        *,
        topk: int = 3,
        max_steps: int = 4,
        success_reward: float = 1.0,
    ) -> None:
        for name, value in (("topk", topk), ("max_steps", max_steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise EnvError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not isinstance(success_reward, int | float) or not 0 < success_reward < math.inf:
            raise EnvError(f"success_reward must be a positive number, got {success_reward!r}")
        self._retriever, self._find, self._topk = retriever, question, topk
        self._max_steps, self._success_reward = max_steps, float(success_reward)
        self._task: TaskRef | None = None
        self._question: Question | None = None
        self._history: list[str] = []
        self._steps = 0
        self._over = True
        self.score: Score | None = None

    def reset(self, *, task: TaskRef, seed: int | None = None) -> tuple[str, StepInfo]:
        """Start `task`. Nothing is drawn: `seed` is accepted and changes nothing."""
        self._over = True
        self._question = self._find(task)
        self._task, self._history, self._steps, self._over, self.score = task, [], 0, False, None
        return self._question.text, self._info(False)

    def step(self, action: str) -> tuple[str, float, bool, bool, StepInfo]:
        if self._over or self._question is None:
            raise EnvError("no episode is running: call reset before step")
        answered = "<answer>" in action and "</answer>" in action
        if answered or self._steps + 1 >= self._max_steps:
            self._steps += 1
            self._history.append(action)
            return self._end(answered)
        observation = self._search(action)  # may raise: the step then has not happened
        self._steps += 1
        self._history += [action, observation]
        return observation, 0.0, False, False, self._info(False)

    def _end(self, answered: bool) -> tuple[str, float, bool, bool, StepInfo]:
        assert self._question is not None
        self._over = True
        self.score = score("".join(self._history), self._question.targets)
        reward = self._success_reward * self.score.reward
        return "", reward, answered, not answered, self._info(self.score.reward == 1.0)

    def _search(self, action: str) -> str:
        found = _QUERY.search(action)
        if found is None:
            return ""
        (hits,) = self._retriever.search([found[1].strip()], self._topk)
        return information(hits)

    def _info(self, won: bool) -> StepInfo:
        assert self._task is not None and self._question is not None
        return StepInfo(
            task_id=self._task.id,
            task_type=self._task.task_type,
            task_description=self._question.text,
            admissible_actions=[],
            won=won,
            step=self._steps,
        )


def information(hits: Sequence[Hit]) -> str:
    """The observation of a search: passages numbered from 1 in a JSON string, escapes included, as agents know it."""
    text = "".join(f"Doc {number}: {hit.contents.strip()}\n" for number, hit in enumerate(hits, 1))
    return f"<information>{json.dumps({'result': text})}</information>"


def passages(observation: str) -> list[str]:
    """The passages of an `information` block again, without their numbers; none for any other text."""
    found = re.fullmatch(r"<information>(.*)</information>", observation.strip(), re.DOTALL)
    try:
        text = json.loads(found[1])["result"] if found else ""
    except (ValueError, TypeError, KeyError):
        return []
    return [part.strip() for part in re.split(r"(?:^|\n)Doc \d+: ", text) if part.strip()]
