"""Sets a served teacher up for a run: its servers, where the run starts them, and their client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdar_verl.compat.served_teacher import PREFIX, ServedTeacher
from sdar_verl.compat.teacher_pool import TeacherPool, server_arguments
from sdar_verl.compat.teacher_scoring import ScoredRow, Scorer, Scores
from sdar_verl.served_client import longest_request, teacher_token
from sdar_verl.settings import Settings


class RunTeacher:
    """A served teacher and, with ``placement=server``, its servers. Close it at the end.

    Args:
        settings: of the run.
        config: its resolved configuration.
        tokenizer: the student's.
        workers: makes a scorer of the run's own workers, with the weights ``actor`` or ``ref``.
        step: the training step that the run goes on from, 0 for a new one.
    """

    def __init__(
        self,
        settings: Settings,
        config: Mapping[str, Any],
        tokenizer: Any,
        workers: Callable[[str], Scorer],
        step: int,
    ):
        model, rollout = config["actor_rollout_ref"]["model"], config["actor_rollout_ref"]["rollout"]
        least = longest_request(settings, rollout["response_length"])
        self.pool: TeacherPool | None = None
        urls, token = settings.teacher.remote.endpoints, teacher_token(settings.teacher.remote)
        if settings.teacher.placement == "server":
            path, own = settings.teacher.model_path or model["path"], settings.teacher.server
            trust = bool(model["trust_remote_code"])
            arguments = server_arguments(path, rollout, own, least=least, trust=trust)
            self.pool = TeacherPool(own, arguments, Path(settings.run_dir))
            urls, token = self.pool.urls, self.pool.token
        try:
            self._scorer = ServedTeacher(
                settings,
                tokenizer,
                urls,
                token,
                least=least,
                initial=_initial(config, workers, step),
                step=step,
                ranks=config["trainer"]["n_gpus_per_node"] * config["trainer"]["nnodes"],
                fallback=lambda rows: workers("ref")(rows),
            )
        except BaseException:
            self.close()
            raise

    def __call__(self, rows: Sequence[ScoredRow]) -> Scores:
        """See `ServedTeacher`."""
        found = self._scorer(rows)
        if self.pool is None:
            return found
        return replace(found, metrics={**found.metrics, f"{PREFIX}/restarts": float(self.pool.restarts())})

    def close(self) -> None:
        """Stop the servers that the run started."""
        if self.pool is not None:
            self.pool.stop()


def _initial(config: Mapping[str, Any], workers: Callable[[str], Scorer], step: int) -> Scorer | None:
    """A model of the run that has the policy's initial weights now, if there is one."""
    if config["actor_rollout_ref"]["actor"]["use_kl_loss"] or config["algorithm"]["use_kl_in_reward"]:
        return workers("ref")
    return workers("actor") if step == 0 else None
