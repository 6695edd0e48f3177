"""One process of ``benchmarks/methods.py``: a method's own training step on given rows, timed phase by phase.

The step is `SdarTrainer`'s, the worker is the CPU's with verl's FSDP2 engine; neither Ray nor vLLM is started. What is
replaced: TransferQueue by a dictionary in this process, and verl's worker group by direct calls to the one worker.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _rows import Episode, as_method, parts
from _stand_ins import Group, Manager, Queue, column
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from transformers import AutoTokenizer
from verl.trainer.ppo.utils import need_reference_policy
from verl.utils.config import omega_conf_to_dataclass

from sdar_verl.agent.privileged import Privileged
from sdar_verl.compat.agent_loop import _output
from sdar_verl.compat.cpu.workers import CpuActorRolloutRefWorker
from sdar_verl.compat.loss import SdarLoss
from sdar_verl.compat.trainer import SdarTrainer
from sdar_verl.compat.workers import TEACHER_PATH
from sdar_verl.settings import Settings

PARTITION = "train"


class Step(SdarTrainer):
    """The trainer's phases, without its set-up (no ``super().__init__``: that starts Ray's actors)."""

    def __init__(self, config: DictConfig, settings: Settings, group: Group, privileged: Privileged, tokenizer: Any):
        self.config, self.settings, self.tokenizer = config, settings, tokenizer
        self.run_dir = Path(settings.run_dir)
        self.actor_rollout_wg = self.ref_policy_wg = group
        self.agent_loop_manager = Manager(privileged)
        self.use_reference_policy = need_reference_policy(config)
        self.use_critic, self.ref_in_actor, self.skill_learning, self.global_steps = False, False, None, 1
        self.served = None
        self.stops = SimpleNamespace(leave=lambda **when: None)  # no machine goes away under a benchmark

    def once(
        self, batch: KVBatchMeta, watch_memory: bool = False
    ) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """What each phase of one step takes (seconds, or the most memory), and the step's metrics."""
        self.watch_memory, self.costs, self.timing_raw, metrics = watch_memory, {}, {}, {}
        with self._phase("old"):
            batch = self._compute_old_log_prob(batch, metrics)
        if self.use_reference_policy:
            with self._phase("ref"):
                batch = self._compute_ref_log_prob(batch, metrics)
        with self._phase("advantage"):
            batch = self._compute_advantage(batch, metrics)
        if "teacher" in self.costs and not watch_memory:  # it is scored inside
            for clock in ("cpu", "wall"):
                self.costs["advantage"][clock] -= self.costs["teacher"][clock]
        with self._phase("update"):
            self._update_actor(batch, metrics)
        return self.costs, metrics

    def _compute_teacher_log_prob(self, batch: KVBatchMeta, metrics: dict) -> None:
        with self._phase("teacher"):
            super()._compute_teacher_log_prob(batch, metrics)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        if self.watch_memory:
            ctypes.CDLL(None).malloc_trim(0)  # or what the phase before has freed would count as this one's
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.costs[name] = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        if self.watch_memory:
            self.costs[name] = {"peak_mib": _memory("VmHWM")}


def _memory(field: str) -> float:
    """MiB that Linux notes about this process: ``VmRSS`` now, ``VmHWM`` at most since the peak was reset."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def measure(config: DictConfig, episodes: list[Episode], passes: int, threads: int) -> dict[str, Any]:
    """Costs of `passes` steps after one that warms up, then the memory of one more, by phase (advantage: and teacher).

    ``loaded_mib`` is the memory with the models, before any step.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", LOCAL_RANK="0")
    os.environ.update(WORLD_SIZE="1", LOCAL_WORLD_SIZE="1", RAY_LOCAL_WORLD_SIZE="1")
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    settings, privileged = parts(config, tokenizer)
    worker = _worker(config, settings)
    torch.set_num_threads(threads)
    loaded, queue = _memory("VmRSS"), Queue()
    step = Step(config, settings, Group(worker, queue), privileged, tokenizer)
    batch = _put(queue, [as_method(episode, settings, privileged) for episode in episodes])
    batch = step._balance_batch(batch, {})  # verl fills the last mini-batch up
    found = [step.once(KVBatchMeta(batch.keys, batch.tags, PARTITION))[0] for _ in range(passes + 1)]
    memory, metrics = step.once(KVBatchMeta(batch.keys, batch.tags, PARTITION), watch_memory=True)
    return {
        "passes": found[1:],
        "loaded_mib": loaded,
        "peak_mib": {phase: cost["peak_mib"] for phase, cost in memory.items()},
        "rows": len(batch),
        "grad_norm": float(metrics["actor/grad_norm"]),
        "student_tokens": sum(tag["seq_len"] for tag in batch.tags) / len(batch),
        "teacher_prompt_tokens": metrics.get("sdar/teacher_prompt_tokens/mean"),
        "taught_share": metrics.get("sdar/taught_share"),
    }


def _worker(config: DictConfig, settings: Settings) -> CpuActorRolloutRefWorker:
    """The run's own worker with its models and its loss, all but the rollout engine."""
    part = config.actor_rollout_ref
    if settings.teacher.model_path is not None:
        with open_dict(part.ref):
            part.ref[TEACHER_PATH] = settings.teacher.model_path
    worker = CpuActorRolloutRefWorker(part, role="actor")
    if need_reference_policy(config):
        # verl's constructor knows this pair with a rollout only; its set-up goes by the words
        worker.role = "actor_ref"
    worker.init_model()
    term, teacher = settings.distillation, settings.teacher
    if term is not None and term.place == "loss":
        actor = omega_conf_to_dataclass(part.actor)
        worker.set_loss_fn(SdarLoss(actor, term, teacher.placement == "ref", teacher.trust_region))
    return worker


def _put(queue: Queue, episodes: list[Episode]) -> KVBatchMeta:
    """The rows under verl's keys, with the fields that its agent-loop worker writes."""
    keys, fields, tags = [], [], []
    for episode in episodes:
        task, played = episode.task, episode.played
        for turn, row in enumerate(played.rows):
            field = _output(row, played, episode.who, last=row is played.rows[-1]).as_dict()
            ids = torch.cat([field["prompts"], field["responses"]])
            known = {"id": task.id, "task_type": task.task_type, "split": task.split, "path": task.path}
            field.update(uid=episode.who.uid, task=known, loss_mask=field["response_mask"], input_ids=ids)
            field.update(position_ids=torch.arange(len(ids)), multi_modal_inputs={})
            keys.append(f"{episode.who.uid}_{episode.who.session}_{turn}")
            fields.append(field)
            tags.append({"seq_len": len(ids)})
    columns = {name: column([field[name] for field in fields]) for name in fields[0]}
    return queue.kv_batch_put(keys, PARTITION, TensorDict(columns, batch_size=len(keys)), tags)
