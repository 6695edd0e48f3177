"""What an episode becomes for training."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdar_verl.evaluation.records import EpisodeRecord
from sdar_verl.teacher.contexts import Attempt
from sdar_verl.teacher.templating import Messages


@dataclass
class Generation:
    """One answer of the model, as sampled.

    Attributes:
        token_ids: sampled ids, the end-of-turn token included; never re-tokenised.
        log_probs: their log-probabilities in the rollout engine (nats), or None.
        weights_step: training step of the weights that sampled it.
    """

    token_ids: list[int]
    log_probs: list[float] | None
    weights_step: int | None


@dataclass
class Row:
    """One training row; ids are token ids.

    Attributes:
        prompt_ids: the student's prompt.
        response_ids: sampled tokens and, in whole-trajectory rows, the observations between them.
        response_mask: 1 where the student sampled, 0 on observations.
        log_probs: rollout log-probabilities aligned with `response_ids` (0.0 on observations), or None.
        teacher_prompt_ids: the privileged prompt before the same `response_ids`; None without a teacher, or while the
            teacher waits for the group.
        messages: then, what its prompt will be made from; else None.
        skills: ids of the skills in the privileged prompt, or in the student's where it is shown them; `task_skill`
            tells if one is of the row's own type, `shrunk` if some were left out.
        state: digest of the observation that the row's first answer answers.
        gained: the environment's reward for the row's actions; `penalty` is what invalid ones cost.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    log_probs: list[float] | None
    teacher_prompt_ids: list[int] | None = None
    messages: Messages | None = None
    skills: list[str] = field(default_factory=list)
    task_skill: bool = False
    shrunk: bool = False
    weights_steps: list[int] = field(default_factory=list)
    state: str = ""
    gained: float = 0.0
    penalty: float = 0.0


@dataclass
class PlayedEpisode:
    """The rows of one episode, its reward, what is written down about it and what its group may be shown of it.

    `broken`: its environment failed, which is no word on what the student did.
    """

    rows: list[Row]
    record: EpisodeRecord
    attempt: Attempt
    broken: bool
