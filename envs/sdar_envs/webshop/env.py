"""WebShop as a text environment."""

from __future__ import annotations

import math

from sdar_envs.base import EnvError, StepInfo, TaskRef, TextEnv
from sdar_envs.webshop.session import Session
from sdar_envs.webshop.shop import Shop
from sdar_envs.webshop.tasks import read_task_id

REWARDS = ("success", "score")
SEARCH_ACTION = "search[<your query>]"


class WebshopInfo(StepInfo):
    """`StepInfo` with the shop's own score of the purchase, 0 to 1; 0 before it."""

    score: float


class WebshopEnv(TextEnv):
    """A shop through `TextEnv`: the episode is terminated by a purchase and truncated after `max_steps` steps.

    It is won by a purchase that scores 1.0. An action that is none changes nothing but counts as a step.

    Args:
        shop: the opened catalogue; may be shared.
        max_steps: steps an episode may take, at least 1.
        success_reward: the largest reward.
        reward: ``success`` pays `success_reward` for a won episode and else nothing, ``score`` pays its share by score.
    """

    def __init__(
        self, shop: Shop, *, max_steps: int = 15, success_reward: float = 10.0, reward: str = "success"
    ) -> None:
        if not isinstance(max_steps, int) or max_steps < 1:
            raise EnvError(f"max_steps must be a whole number of at least 1, got {max_steps!r}")
        if not isinstance(success_reward, int | float) or not 0 < success_reward < math.inf:
            raise EnvError(f"success_reward must be a positive number, got {success_reward!r}")
        if reward not in REWARDS:
            raise EnvError(f"unknown reward {reward!r}; known: {', '.join(REWARDS)}")
        self._shop: Shop | None = shop
        self._max_steps = max_steps
        self._success_reward = float(success_reward)
        self._reward = reward
        self._task: TaskRef | None = None
        self._session: Session | None = None
        self._steps = 0
        self._over = True

    def reset(self, *, task: TaskRef, seed: int | None = None) -> tuple[str, WebshopInfo]:
        """Start `task`. Nothing is random: `seed` is accepted and changes nothing."""
        if self._shop is None:
            raise EnvError("this environment was closed; make a new one")
        kind, goal_seed, shuffle_seed, index = read_task_id(task.id)
        book = self._shop.goals(kind, goal_seed, shuffle_seed)
        self._session = Session(self._shop, book, book[index])
        self._task, self._steps, self._over = task, 0, False
        return self._session.observation, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, WebshopInfo]:
        if self._session is None or self._over:
            raise EnvError("no episode is running: call reset before step")
        self._session.act(action)
        self._steps += 1
        terminated = self._session.score is not None
        truncated = not terminated and self._steps >= self._max_steps
        self._over = terminated or truncated
        info = self._info()
        share = info["score"] if self._reward == "score" else float(info["won"])
        return self._session.observation, self._success_reward * share, terminated, truncated, info

    def close(self) -> None:
        self._shop = self._session = None
        self._over = True

    def _info(self) -> WebshopInfo:
        assert self._task is not None and self._session is not None
        session = self._session
        actions = [f"click[{target}]" for target in session.clickables]
        score = session.score.total if session.score else 0.0
        return WebshopInfo(
            task_id=self._task.id,
            task_type=self._task.task_type,
            task_description=session.goal.text.strip(),
            admissible_actions=[SEARCH_ACTION, *actions] if session.has_search_bar else actions,
            won=score == 1.0,
            step=self._steps,
            score=score,
        )
