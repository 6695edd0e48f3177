"""The trainer: verl's synchronous PPO trainer with a teacher score before the update and a loss hook."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
from omegaconf import OmegaConf, open_dict
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer

from sdar_verl import plugin
from sdar_verl.compat import rows
from sdar_verl.compat.loss import COEF_KEY, GATE_MEAN_KEY, SdarLoss
from sdar_verl.compat.outcome_advantages import by_episode
from sdar_verl.compat.registration import on_cpu
from sdar_verl.compat.rollout_teacher import by_rollout
from sdar_verl.compat.run_checkpoints import RunCheckpoints
from sdar_verl.compat.run_guards import RunGuards
from sdar_verl.compat.run_metrics import RecordedTracking
from sdar_verl.compat.run_stop import RunStop, drop_later_records, panel_unplayed
from sdar_verl.compat.step_tokens import add_step_advantages, shape_advantages, step_gate_mean
from sdar_verl.compat.teacher_rows import teacher_rows
from sdar_verl.compat.teacher_scoring import Scorer, by_workers, score_teacher
from sdar_verl.compat.teacher_start import RunTeacher
from sdar_verl.compat.token_records import write_token_records
from sdar_verl.compat.workers import AVERAGE, TEACHER_PATH
from sdar_verl.core import resolve
from sdar_verl.data import load_panel
from sdar_verl.errors import SdarError
from sdar_verl.evaluation.validation import describe, validation_summary
from sdar_verl.guards import REWARD, ZERO_ADVANTAGE, zero_advantage_share
from sdar_verl.settings import Settings
from sdar_verl.skill_learning import SkillLearning
from sdar_verl.teacher.errors import TeacherNotAwaited


class SdarTrainer(PPOTrainerSync):
    """One step: sample → reward → balance → old log-probs → (reference) → **teacher** → advantage → update.

    Without distillation it is verl's synchronous trainer plus the records of a run.
    """

    def __init__(self, config: Any):
        plugin.verify()
        self.settings = Settings.from_config(OmegaConf.to_container(config, resolve=True))
        self.run_dir = Path(self.settings.run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        learns = self.settings.uses_skills and self.settings.skills.learns
        self.skill_learning = SkillLearning(self.run_dir, self.settings.skills) if learns else None
        self.served: RunTeacher | None = None
        self.guards: RunGuards | None = None
        self.checkpoints: RunCheckpoints | None = None
        self.stops = RunStop(self)
        super().__init__(config)

    @property
    def logger(self) -> RecordedTracking:
        """verl's tracking, recorded in the run folder."""
        return self._logger

    @logger.setter
    def logger(self, tracking: Any) -> None:
        self._logger = RecordedTracking(tracking, self.run_dir / "metrics.jsonl")

    # --- set-up -------------------------------------------------------------------------------------------------

    def _build_replay_buffer(self):
        self.trainer_mode = "sync"  # verl asks the mode by name; everything but the hooks below is its sync mode
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = self.settings.poll_seconds
        buffer._wait_for_next_poll = self.stops.watched(buffer._wait_for_next_poll)
        buffer.sample = self.stops.watched(buffer.sample)
        return buffer

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if on_cpu():
            from sdar_verl.compat.cpu.workers import CpuActorRolloutRefWorker as ActorWorker
            from sdar_verl.compat.cpu.workers import CpuCriticWorker

            if Role.Critic in self.role_worker_mapping:
                self.role_worker_mapping[Role.Critic] = ray.remote(CpuCriticWorker)
        else:
            from sdar_verl.compat.workers import SdarActorRolloutRefWorker as ActorWorker
        with open_dict(self.config.actor_rollout_ref.ref):
            local = self.settings.teacher.placement == "ref"
            self.config.actor_rollout_ref.ref[TEACHER_PATH] = self.settings.teacher.model_path if local else None
            self.config.actor_rollout_ref.ref[AVERAGE] = self.settings.teacher.update_rate is not None
        for role in (Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(ActorWorker)

    def _save_checkpoint(self) -> None:
        self.checkpoints.save(self.global_steps, self._step_folder(), self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        # before verl's own parts: the last of them makes a checkpoint complete
        if self.settings.teacher.update_rate is not None:
            self.ref_policy_wg.save_teacher(str((self._step_folder() / "actor").absolute()))
        if self.skill_learning is not None:
            self.skill_learning.save(self._step_folder())
        super()._save_checkpoint()

    def _step_folder(self) -> Path:
        """Of this step's checkpoint."""
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        trainer = self.config.trainer
        named = trainer.resume_from_path if trainer.resume_mode == "resume_path" else None
        folder = Path(named) if named else self._step_folder()
        if self.settings.teacher.update_rate is not None and self.global_steps > 0:
            self.ref_policy_wg.load_teacher(str((folder / "actor").absolute()))
        if self.skill_learning is not None:
            self.skill_learning.start(self.global_steps, folder)
        drop_later_records(self.run_dir, self.global_steps)
        self.guards = RunGuards(self.run_dir, self.settings.guards)
        self.checkpoints = RunCheckpoints(self.settings, self.config, self.global_steps)
        if self.global_steps > 0:
            with open_dict(self.config):
                trainer.val_before_train = panel_unplayed(self.run_dir, self.global_steps, trainer.test_freq)

    def on_init_end(self) -> None:
        term = self.settings.distillation
        if term is not None and term.place == "loss":
            actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            teacher = self.settings.teacher
            loss = SdarLoss(actor, term, frozen=teacher.placement == "ref", trust_region=teacher.trust_region)
            self.actor_rollout_wg.set_loss_fn(loss)
        if term is not None and self.settings.teacher.served:
            config = OmegaConf.to_container(self.config, resolve=True)
            self.served = RunTeacher(
                self.settings, config, self.tokenizer, self._by_workers, self.global_steps,
                export=lambda folder, dtype: self.ref_policy_wg.export_teacher(folder, dtype),
                give_up=self.stops.abandons,
            )  # fmt: skip
        self.panel = load_panel(OmegaConf.to_container(self.config.data.sdar_tasks, resolve=True))
        print(f"[sdar] {self.panel.describe()}", flush=True)
        super().on_init_end()

    # --- a step -------------------------------------------------------------------------------------------------

    def step(self, metrics: dict, timing_raw: dict):
        batch = super().step(metrics, timing_raw)
        metrics.update(self.guards.look(self.global_steps, metrics))
        metrics.update(self.checkpoints.metrics())
        self.stops.step_trained(batch, metrics)
        return batch

    def on_step_end(self) -> None:
        guarded = self.guards.stop is not None and self.checkpoints.saved_step != self.global_steps
        if guarded or self.checkpoints.is_due(self.global_steps, self.global_steps >= self.total_training_steps):
            with marked_timer("save_checkpoint", self.timing_raw, color="green"):
                self._save_checkpoint()  # before the rollout engine wakes up and takes its memory back
        self.stops.leave(awake=False)
        super().on_step_end()

    def on_validate_begin(self) -> None:
        self.stops.validating = True
        super().on_validate_begin()

    def on_validate_end(self) -> None:
        self.stops.validating = False
        super().on_validate_end()

    def on_step_begin(self) -> None:
        self.stops.step_begins()
        if self.guards.stop is not None:  # the step it was found in is recorded by now
            self._shutdown_dump_executor()
            raise self.guards.stop
        super().on_step_begin()

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int):
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        if "teacher" in timing_raw:
            timing_raw["adv"] -= timing_raw["teacher"]  # the teacher is scored inside, and shown on its own
        return batch

    def _compute_old_log_prob(self, batch, metrics: dict):
        self.stops.leave(awake=False)
        return super()._compute_old_log_prob(batch, metrics)

    def _compute_advantage(self, batch, metrics: dict):
        self.stops.leave(awake=False)
        played = self._played(batch)
        term = self.settings.distillation
        if term is not None:
            with marked_timer("teacher", self.timing_raw, color="purple"):
                self._compute_teacher_log_prob(batch, metrics)
        self._episode_metrics(played, metrics)  # counts them: the step is not abandoned any more
        with by_episode():
            batch = super()._compute_advantage(batch, metrics)
        if self.settings.step_groups.weight > 0:
            metrics.update(add_step_advantages(batch, self.settings.step_groups))
        if term is None:
            return batch
        if term.place == "advantage":
            metrics.update(shape_advantages(batch, term, term.coef_at(self.global_steps)))
        elif term.gate_baseline == "mean":
            batch.extra_info[GATE_MEAN_KEY] = step_gate_mean(batch, term)
        return batch

    def _compute_teacher_log_prob(self, batch, metrics: dict) -> None:
        with_prompts = "distribution" in self.settings.distillation.needs
        prompts = teacher_rows(batch, self.settings, self.agent_loop_manager)
        placement = self.settings.teacher.placement
        if placement == "rollout":
            scorer = by_rollout(batch)
        else:
            scorer = self.served or self._by_workers(placement)
        try:
            scored, found = score_teacher(batch, prompts, scorer, with_prompts=with_prompts)
        except TeacherNotAwaited:
            self.stops.leave(awake=False)
            raise
        metrics.update(found)
        if scored:
            tokens = self.run_dir / "tokens.jsonl"
            write_token_records(tokens, batch, prompts, self.global_steps, self.tokenizer, self.settings)

    def _by_workers(self, weights: str) -> Scorer:
        """Scores by the workers of this run, with the ``actor``'s weights or those of the ``ref``."""
        extra = {
            "calculate_entropy": False,
            "compute_loss": False,
            "temperature": self.config.actor_rollout_ref.rollout.temperature,
        }
        score = self.actor_rollout_wg.compute_log_prob
        if weights == "ref":
            if self.ref_in_actor and self.settings.teacher.update_rate is not None:
                score = self.actor_rollout_wg.compute_average_log_prob
            elif self.ref_in_actor:
                extra["no_lora_adapter"] = True
            else:
                score = self.ref_policy_wg.compute_ref_log_prob
        return by_workers(score, extra)

    def _update_actor(self, batch, metrics: dict):
        if self.settings.distillation is not None and self.settings.distillation.place == "loss":
            batch.extra_info[COEF_KEY] = self.settings.distillation.coef_at(self.global_steps)
        batch = super()._update_actor(batch, metrics)
        teacher = self.settings.teacher
        if teacher.update_rate is not None and self.global_steps % teacher.sync_steps == 0:
            self.ref_policy_wg.update_teacher(teacher.update_rate)
            if self.served is not None and self.global_steps < self.total_training_steps:
                self.served.push(self.global_steps)
        parts = {key.removeprefix("actor/"): metrics.pop(key) for key in list(metrics) if key.startswith("actor/sdar/")}
        metrics.update(resolve(parts))
        return batch

    def _played(self, batch) -> list[tuple[str, dict[str, Any]]]:
        """Each row's key and extra fields, without padding."""
        extras = rows.objects(rows.read(batch, ["extra_fields"]), "extra_fields")
        found = zip(batch.keys, batch.tags, extras, strict=True)
        played = [(key, extra) for key, tag, extra in found if not rows.is_padding(tag)]
        if not any(extra["last"] for _, extra in played):
            raise SdarError("no episode of this step has a row: all failed at once; see episodes/train.jsonl")
        return played

    def _episode_metrics(self, played: list[tuple[str, dict[str, Any]]], metrics: dict) -> None:
        real = [extra for _, extra in played]
        ends = [extra for extra in real if extra["last"]]
        metrics["episode/count"] = len(ends)
        metrics["episode/success_rate"] = sum(e["won"] for e in ends) / len(ends)
        lost = self.agent_loop_manager.lost(self.global_steps)
        metrics["episode/failed_share"] = (lost + sum(bool(e["failed"]) for e in ends)) / (lost + len(ends))
        metrics["episode/valid_action_share"] = sum(e["valid_share"] for e in ends) / len(ends)
        groups: dict[str, list[float]] = {}
        for key, extra in played:
            if extra["last"]:
                groups.setdefault(key.rsplit("_", 2)[0], []).append(extra["reward"])
        metrics[REWARD] = sum(e["reward"] for e in ends) / len(ends)
        metrics[ZERO_ADVANTAGE] = zero_advantage_share(groups)
        metrics["episode/turns"] = sum(e["turns"] for e in ends) / len(ends)
        if self.skill_learning is not None:
            metrics.update(self.skill_learning.count(self.global_steps, ends))
        if self.settings.skills.student != "none":
            metrics["sdar/student_task_skill_share"] = sum(e["task_skill"] for e in real) / len(real)
            metrics["sdar/student_shrunk_share"] = sum(e["shrunk"] for e in real) / len(real)
        for kind in sorted({e["task_type"] for e in ends}):
            own = [e["won"] for e in ends if e["task_type"] == kind]
            metrics[f"episode/success/{kind}"] = sum(own) / len(own)
        metrics.update({f"env_pool/{name}": value for name, value in self.agent_loop_manager.pool_stats().items()})

    # --- validation ---------------------------------------------------------------------------------------------

    def _validate(self) -> dict[str, float]:
        metrics = super()._validate()
        found = validation_summary(self.run_dir / "episodes" / "val.jsonl", self.global_steps, self.panel)
        print(f"[sdar] step {self.global_steps}: {describe(found, self.panel)}", flush=True)
        return {**metrics, **found.metrics()}

    def fit(self, agent_loop_manager) -> None:
        ended: BaseException | None = None
        try:
            super().fit(agent_loop_manager)
            self.checkpoints.recorded(self.checkpoints.saved_step)
            if self.guards.stop is not None:  # found in the last step
                raise self.guards.stop
        except BaseException as error:
            ended = error
            raise
        finally:
            with ExitStack() as closing:  # each, whatever happens to the one before; the last one in is the first
                closing.callback(self.checkpoints.close, ended)
                closing.callback(agent_loop_manager.close)
                if self.served is not None:
                    closing.callback(self.served.close)
