"""One episode of one agent in one environment, token-exact."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sdar_envs.base import EnvError, EpisodeView, PromptFormat, StepInfo, TaskRef

from sdar_verl.agent.conversation import Conversation
from sdar_verl.agent.privileged import own_skills
from sdar_verl.agent.rows import Generation, PlayedEpisode, Row
from sdar_verl.errors import ConfigError
from sdar_verl.evaluation.records import EpisodeRecord, TurnRecord
from sdar_verl.skills import Skill
from sdar_verl.skills.coverage import has_task_skill
from sdar_verl.teacher import TeacherPrompt, TeacherPromptBuilder
from sdar_verl.teacher.contexts import Attempt, AttemptTurn


class EnvSession(Protocol):
    """An environment held for one episode; `EnvError` from any call ends the episode as failed."""

    async def reset(self, task: TaskRef, seed: int | None = None) -> tuple[str, StepInfo]: ...

    async def step(self, action: str) -> tuple[str, float, bool, bool, StepInfo]: ...


Generate = Callable[[list[int], int], Awaitable[Generation]]  # (prompt ids, most new tokens) -> answer
Retrieve = Callable[[str], list[Skill]]  # the task in the environment's words -> what is shown


@dataclass(frozen=True)
class Limits:
    """Token limits of one run."""

    prompt: int
    response: int
    turn: int | None = None


@dataclass(frozen=True)
class Actor:
    """Everything that stays the same from episode to episode.

    Attributes:
        tokenizer: the student's.
        conversation: makes a `Conversation` for ``step`` or ``trajectory`` rows.
        teacher: builds privileged prompts; None trains without a teacher, or builds them later.
        waits: the teacher's prompts wait for the group, so that rows keep what they are made from.
        invalid_action_penalty: taken from the reward for each invalid action.
    """

    tokenizer: Any
    format: PromptFormat
    conversation: Callable[[], Conversation]
    teacher: TeacherPromptBuilder | None
    limits: Limits
    invalid_action_penalty: float
    waits: bool = False


@dataclass(frozen=True)
class EpisodeId:
    """Where an episode belongs; see `EpisodeRecord`."""

    step: int
    split: str
    uid: str
    session: int


async def play_episode(
    actor: Actor, env: EnvSession, task: TaskRef, skills: list[Skill] | Retrieve, who: EpisodeId, generate: Generate
) -> PlayedEpisode:
    """Play `task` to its end; `skills` are shown, or those that are retrieved once the environment has said the task.

    An environment that fails, or a conversation that outgrows its token limits, ends the episode: it counts as lost,
    `record.failed` says why, and the rows up to there are kept.

    Raises:
        ConfigError: not even the first prompt fits, so no episode of this task ever could.
        TeacherContextError: a privileged prompt cannot be built.
    """
    started, env_seconds, gen_seconds = time.perf_counter(), 0.0, 0.0
    rows: list[Row] = []
    turns: list[TurnRecord] = []
    reward, won, failed, score, last_observation, broken = 0.0, False, None, None, "", False
    conversation = actor.conversation()
    shown = [] if callable(skills) else skills
    try:
        clock = time.perf_counter()
        observation, info = await env.reset(task)
        env_seconds += time.perf_counter() - clock
        view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
        if callable(skills):
            shown = skills(info["task_description"])
        done, score = info["won"], info.get("score")
        while not done:
            request = conversation.next_request(view, actor.limits)
            if request.too_long:
                if not turns:
                    raise ConfigError(f"task {task.id}: {request.too_long}")
                failed = request.too_long
                break
            clock = time.perf_counter()
            answer = await generate(request.context_ids, request.max_tokens)
            gen_seconds += time.perf_counter() - clock
            text = actor.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
            parsed = actor.format.parse(text, view.admissible_actions)
            row = conversation.add_answer(answer, text)
            if row is not None:
                row.state = hashlib.blake2b(view.observation.encode(), digest_size=16).hexdigest()
                row.messages = conversation.prompt_messages() if actor.waits else None
                _note_skills(row, conversation.shown, task)
                rows.append(row)
            teacher_tokens = _add_teacher(actor, conversation, rows[-1], shown, task)
            turns.append(
                TurnRecord(
                    observation=view.observation,
                    response=text,
                    action=parsed.action,
                    valid=parsed.valid,
                    prompt_tokens=len(request.context_ids),
                    teacher_prompt_tokens=teacher_tokens,
                    response_tokens=len(answer.token_ids),
                )
            )
            penalty = 0.0 if parsed.valid else actor.invalid_action_penalty
            reward -= penalty
            rows[-1].penalty += penalty
            last_observation = ""  # none yet to this action
            clock = time.perf_counter()
            observation, gained, terminated, truncated, info = await env.step(parsed.action)
            env_seconds += time.perf_counter() - clock
            reward += gained
            rows[-1].gained += gained
            won, score = bool(info["won"]), info.get("score")
            view.history.append((view.observation, parsed.action))
            view.observation, view.admissible_actions = observation, info["admissible_actions"]
            last_observation = observation
            done = terminated or truncated
    except EnvError as error:
        failed, won, broken = str(error), False, True
    record = EpisodeRecord(
        step=who.step,
        split=who.split,
        task_id=task.id,
        task_type=task.task_type,
        uid=who.uid,
        session=who.session,
        won=won,
        reward=float(reward),
        failed=failed,
        skills=[skill.id for skill in shown],
        seconds=time.perf_counter() - started,
        env_seconds=env_seconds,
        gen_seconds=gen_seconds,
        turns=turns,
        score=None if score is None else float(score),
    )
    said = tuple(AttemptTurn(turn.observation, turn.response, turn.action) for turn in turns)
    attempt = Attempt(who.session, won, record.reward, said, last_observation, failed or "")
    return PlayedEpisode(rows, record, attempt, broken)


def _add_teacher(actor: Actor, conversation: Conversation, row: Row, skills: list[Skill], task: TaskRef) -> int | None:
    """Give `row` its privileged prompt unless it has one already; returns its length in tokens."""
    if actor.teacher is None:
        return None
    if row.teacher_prompt_ids is None:
        prompt = actor.teacher.build(conversation.prompt_messages(), skills, task_type=task.task_type)
        row.teacher_prompt_ids = prompt.ids
        _note_skills(row, prompt, task)
    return len(row.teacher_prompt_ids)


def _note_skills(row: Row, prompt: TeacherPrompt, task: TaskRef) -> None:
    row.skills = [skill.id for skill in prompt.kept]
    row.task_skill = has_task_skill(own_skills(prompt), task.task_type)
    row.shrunk = bool(prompt.dropped)
