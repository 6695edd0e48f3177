"""verl's agent loop, its worker and its manager, playing episodes of `sdar_verl.agent`."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

import ray
from omegaconf import OmegaConf
from sdar_envs.base import TaskRef
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from sdar_verl import plugin
from sdar_verl.agent.episode import EpisodeId, Limits
from sdar_verl.agent.privileged import GroupRow, TeacherRow, group_rows
from sdar_verl.agent.rows import Generation, PlayedEpisode, Row
from sdar_verl.agent.runtime import EpisodeRuntime
from sdar_verl.compat.rollout_teacher import GAP, SECONDS, engine_gaps
from sdar_verl.run_skills import pinned_skills
from sdar_verl.settings import Settings

_runtime: EpisodeRuntime | None = None  # one for each agent-loop process; verl builds a loop object for each episode


class EnvAgentLoop(AgentLoopBase):
    """Plays one episode; ``rows`` says whether it becomes one row a turn or one row in all."""

    def __init__(self, *args: Any, rows: str, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rows = rows

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:
        if _runtime is None:
            raise RuntimeError("no episode runtime in this process: set rollout.agent.agent_loop_manager_class")
        request_id = uuid4().hex

        async def generate(prompt_ids: list[int], max_tokens: int) -> Generation:
            output = await self.server_manager.generate(
                request_id, prompt_ids=prompt_ids, sampling_params={**sampling_params, "max_tokens": max_tokens}
            )
            if not output.token_ids:
                raise RuntimeError(f"the rollout engine returned no tokens (stop reason {output.stop_reason!r})")
            return Generation(list(output.token_ids), output.log_probs, output.extra_fields.get("global_steps"))

        async def prefill(ids: list[int], sampling: dict[str, Any]) -> Any:
            return await self.server_manager.generate(request_id, prompt_ids=ids, sampling_params=sampling)

        def extend(before: list[dict], after: list[dict], ids: list[int]) -> list[int]:
            merged = self.continuous_token_builder.merge_context_tokens(before, after, ids)
            if merged.token_ids[: len(ids)] != ids:
                raise RuntimeError("the chat template changes tokens already sampled; use sdar.rows=step")
            return merged.token_ids

        who = EpisodeId(
            step=int(kwargs["global_steps"]),
            split="val" if kwargs["task"]["split"] == _runtime.settings.env.valid_split else "train",
            uid=kwargs["uid"],
            session=int(kwargs["session_id"]),
        )
        played = await _runtime.play(TaskRef(**kwargs["task"]), who, generate, extend)
        outputs = [_output(row, played, who, last=row is played.rows[-1]) for row in played.rows]
        if who.split == "train" and _runtime.scores_in_rollout:
            gaps, seconds = await engine_gaps(played.rows, prefill, who.step - 1)
            for output, gap in zip(outputs, gaps, strict=True):
                output.extra_fields.update({GAP: gap, SECONDS: seconds})
        return outputs


def _output(row: Row, played: PlayedEpisode, who: EpisodeId, last: bool) -> AgentLoopOutput:
    record = played.record
    weights = row.weights_steps or [who.step - 1]
    extra: dict[str, Any] = {
        "min_global_steps": min(weights),
        "max_global_steps": max(weights),
        "reward_extra_info": {"acc": float(record.won)},
        "teacher_prompt_ids": row.teacher_prompt_ids,
        "units": row.skills,
        "retrieved": record.skills,
        "task_skill": row.task_skill,
        "shrunk": row.shrunk,
        "messages": row.messages,
        "attempt": played.attempt.to_dict() if last and row.messages is not None else None,
        "task_type": record.task_type,
        "won": record.won,
        "reward": record.reward,
        "failed": record.failed or "",
        "valid_share": sum(turn.valid for turn in record.turns) / max(1, len(record.turns)),
        "turns": len(record.turns),
        "last": last,
        "state": row.state,
        "gained": row.gained,
        "penalty": row.penalty,
    }
    return AgentLoopOutput(
        prompt_ids=row.prompt_ids,
        response_ids=row.response_ids,
        response_mask=row.response_mask,
        response_logprobs=row.log_probs,
        reward_score=record.reward,
        num_turns=len(record.turns),
        metrics=AgentLoopMetrics(generate_sequences=record.gen_seconds, tool_calls=record.env_seconds),
        extra_fields=extra,
    )


class SdarAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's worker, holding one `EpisodeRuntime` (environments, skills, teacher prompts) for its episodes."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        global _runtime
        plugin.verify()
        super().__init__(config, *args, **kwargs)
        settings = Settings.from_config(OmegaConf.to_container(config, resolve=True))
        rollout = config.actor_rollout_ref.rollout
        self.runtime = _runtime = EpisodeRuntime(
            settings,
            self.tokenizer,
            OmegaConf.to_container(config.data.apply_chat_template_kwargs, resolve=True),
            Limits(prompt=rollout.prompt_length, response=rollout.response_length, turn=settings.max_turn_tokens),
            pinned_skills(settings) if settings.uses_skills else None,
        )

    async def _run_prompt(self, *args: Any, **kwargs: Any) -> None:
        """verl leaves a group pending for ever whose status could not be written."""
        await self._noticed(super()._run_prompt(*args, **kwargs))

    async def _run_agent_loop(self, *args: Any, **kwargs: Any) -> Any:
        """verl logs what ends an episode, or keeps its rows from being stored, and would train on without it."""
        return await self._noticed(super()._run_agent_loop(*args, **kwargs))

    async def _noticed(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await work
        except Exception as error:
            self.runtime.error = self.runtime.error or error
            raise

    async def check(self) -> int:
        """Process id, which shows that the worker lives; raises what ended an episode beside its environment."""
        if self.runtime.error is not None:
            raise self.runtime.error
        return os.getpid()

    async def teacher_rows(self, rows: list[GroupRow]) -> list[TeacherRow]:
        """The teacher's prompts of finished groups."""
        return group_rows(self.runtime.privileged, rows)

    async def lost(self, step: int) -> int:
        """Training episodes of `step` whose environment failed."""
        return self.runtime.lost.pop(step, 0)

    async def pool_stats(self) -> dict[str, float]:
        """Restarts and failures of the environment workers."""
        return dict(self.runtime.pool.stats())

    async def close(self) -> None:
        """Stop the environments; verl's worker has no end of its own."""
        await self.runtime.close()


class SdarAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager with `SdarAgentLoopWorker`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SdarAgentLoopWorker)

    def check_alive(self, timeout: float = 60.0) -> None:
        """Raise `ray.exceptions.RayActorError` if a worker died: its episodes would never end.

        Also raises the first error of an episode that is no failure of its environment (a prompt that can never fit, a
        missing skill, a broken rollout engine, rows that cannot be stored).
        """
        ray.get([worker.check.remote() for worker in self.agent_loop_workers], timeout=timeout)

    def teacher_rows(self, rows: list[GroupRow]) -> list[TeacherRow]:
        """The teacher's prompts of finished groups, built by all workers side by side; in order."""
        share = -(-len(rows) // len(self.agent_loop_workers))
        parts = [rows[start : start + share] for start in range(0, len(rows), share)]
        asked = [worker.teacher_rows.remote(part) for worker, part in zip(self.agent_loop_workers, parts, strict=False)]
        return [row for part in ray.get(asked) for row in part]

    def lost(self, step: int) -> int:
        """Training episodes of `step` that have no rows because their environment failed; to be asked once."""
        return sum(ray.get([worker.lost.remote(step) for worker in self.agent_loop_workers]))

    def pool_stats(self) -> dict[str, float]:
        """Sums over all workers."""
        total: dict[str, float] = {}
        for stats in ray.get([worker.pool_stats.remote() for worker in self.agent_loop_workers]):
            for name, value in stats.items():
                total[name] = total.get(name, 0) + value
        return total

    def close(self) -> None:
        ray.get([worker.close.remote() for worker in self.agent_loop_workers], timeout=30)
