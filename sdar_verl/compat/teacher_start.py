"""Sets a served teacher up for a run: its servers, where the run starts them, and their client."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdar_verl.compat.served_teacher import PREFIX, ServedTeacher
from sdar_verl.compat.teacher_pool import TeacherPool, server_arguments
from sdar_verl.compat.teacher_scoring import ScoredRow, Scorer, Scores
from sdar_verl.served_client import longest_request, teacher_token
from sdar_verl.settings import Settings

FOLDER = ".teacher"  # in the run's folder: averaged weights for the servers; hidden, so that nobody uploads it
_NAME = "teacher"  # under which the run's own servers serve
_KEPT = 2  # averages: servers may still be loading the last but one


class RunTeacher:
    """A served teacher and, with ``placement=server``, its servers. Close it at the end.

    With ``update_rate`` the average is kept where the reference model is. `push` writes it down and lets the servers
    start again from it, each average under a name of its own, so that no server can score with an older one.

    Args:
        settings: of the run.
        config: its resolved configuration.
        tokenizer: the student's.
        workers: makes a scorer of the run's own workers, with the weights ``actor`` or ``ref``.
        step: the training step that the run goes on from, 0 for a new one.
        export: ``export(folder, dtype)`` writes the reference model there.
        give_up: see `ServedTeacher`.
    """

    def __init__(
        self,
        settings: Settings,
        config: Mapping[str, Any],
        tokenizer: Any,
        workers: Callable[[str], Scorer],
        step: int,
        export: Callable[[str, str], Any],
        give_up: Callable[[], bool],
    ):
        self._settings, self._parts, self._export = settings, config["actor_rollout_ref"], export
        self._weights = lambda: workers("ref")
        self._least = longest_request(settings, self._parts["rollout"]["response_length"])
        self.pool: TeacherPool | None = None
        urls, token, name = settings.teacher.remote.endpoints, teacher_token(settings.teacher.remote), None
        if settings.teacher.placement == "server":
            path, name = settings.teacher.model_path or self._parts["model"]["path"], _NAME
            shutil.rmtree(Path(settings.run_dir) / FOLDER, ignore_errors=True)
            if self.averaged and step > 0:
                path, name = self._written(step)
            self.pool = TeacherPool(settings.teacher.server, self._arguments(path, name), Path(settings.run_dir))
            urls, token = self.pool.urls, self.pool.token
        try:
            self._scorer = ServedTeacher(
                settings,
                tokenizer,
                urls,
                token,
                least=self._least,
                initial=_initial(config, workers, step),
                step=step,
                rows=_least_rows(config),
                fallback=lambda rows: workers("ref")(rows),
                name=name,
                give_up=give_up,
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

    @property
    def averaged(self) -> bool:
        """Whether the servers' weights follow the policy's, by `push`."""
        return self._settings.teacher.placement == "server" and self._settings.teacher.update_rate is not None

    def push(self, step: int) -> None:
        """Give the servers the average as it is after `step`.

        Returns when it is written; they start again meanwhile, and the next scores wait for them.
        """
        path, name = self._written(step)
        self.pool.load(self._arguments(path, name))
        self._scorer.renew(name, self._weights())
        folders = sorted(Path(path).parent.iterdir(), key=lambda folder: int(folder.name.rpartition("-")[2]))
        for folder in folders[:-_KEPT]:
            shutil.rmtree(folder)

    def _written(self, step: int) -> tuple[str, str]:
        """The folder of the average after `step`, and the name under which it is served."""
        path, name = str((Path(self._settings.run_dir) / FOLDER / f"step-{step}").absolute()), f"{_NAME}-{step}"
        self._export(path, str(self._parts["rollout"]["dtype"]))
        return path, name

    def _arguments(self, path: str, name: str) -> list[str]:
        model = self._parts["model"]
        return server_arguments(
            path, name, self._settings.teacher.model_path or model["tokenizer_path"] or model["path"],
            self._parts["rollout"], self._settings.teacher.server, least=self._least,
            trust=bool(model["trust_remote_code"]),
        )  # fmt: skip

    def close(self) -> None:
        """Stop the servers that the run started."""
        if self.pool is not None:
            self.pool.stop()


def _least_rows(config: Mapping[str, Any]) -> int:
    """The fewest rows that the scoring workers take: one a rank, or a whole micro-batch where its size is fixed."""
    parts, trainer = config["actor_rollout_ref"], config["trainer"]
    fixed = [part for part in (parts["rollout"], parts["ref"]) if not part["log_prob_use_dynamic_bsz"]]
    sizes = [part["log_prob_micro_batch_size_per_gpu"] or 1 for part in fixed]
    return trainer["n_gpus_per_node"] * trainer["nnodes"] * math.lcm(*sizes)


def _initial(config: Mapping[str, Any], workers: Callable[[str], Scorer], step: int) -> Scorer | None:
    """A model of the run that has the policy's initial weights now, if there is one."""
    if config["actor_rollout_ref"]["actor"]["use_kl_loss"] or config["algorithm"]["use_kl_in_reward"]:
        return workers("ref")
    return workers("actor") if step == 0 else None
