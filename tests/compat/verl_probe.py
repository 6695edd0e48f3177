"""Holds `sdar_verl.compat` against the installed verl; run in a process of its own with ``VERL_PLATFORM=cpu``.

Prints one JSON object: name of the check -> list of problems.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from typing import Any

import transfer_queue as tq
import verl.trainer.main_ppo as main_ppo
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import agent_loop as loops
from verl.plugin.platform.platform_base import PlatformBase
from verl.trainer.ppo.v1 import agent_loop_tq, replay_buffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine.utils import prepare_micro_batches
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding, response_from_nested

from sdar_verl.compat import agent_loop
from sdar_verl.compat.cpu.platform import CpuPlatform
from sdar_verl.compat.cpu.rollout import CpuHttpServer, CpuReplica, CpuServerAdapter
from sdar_verl.compat.cpu.short_rows import ShortRows
from sdar_verl.compat.cpu.worker_extension import CpuWorkerExtension
from sdar_verl.compat.cpu.workers import CpuActorRolloutRefWorker, CpuCriticWorker
from sdar_verl.compat.trainer import SdarTrainer
from sdar_verl.compat.workers import SdarActorRolloutRefWorker, SdarTrainingWorker

Worker = agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class
OWN_STEPS = {"logger", "_step_folder", "_write_checkpoint", "_compute_teacher_log_prob", "_played", "_episode_metrics"}
OWN_STEPS |= {"_by_workers"}
OWN_CALLS = {
    "update_teacher",
    "export_teacher",
    "save_teacher",
    "load_teacher",
    "compute_average_log_prob",
    "_teacher",
    "_teacher_file",
}
# our class, verl's class, the names that are ours alone; every other name must be verl's, or a hook is never called
PAIRS = [
    (SdarTrainer, PPOTrainerSync, OWN_STEPS),
    (agent_loop.EnvAgentLoop, loops.AgentLoopBase, set()),
    (agent_loop.SdarAgentLoopWorker, Worker, {"check", "teacher_rows", "lost", "pool_stats", "close", "_noticed"}),
    (
        agent_loop.SdarAgentLoopManager,
        agent_loop_tq.AgentLoopManagerTQ,
        {"check_alive", "teacher_rows", "lost", "pool_stats", "close"},
    ),
    (CpuHttpServer, vLLMHttpServer, set()),
    (CpuReplica, vLLMReplica, set()),
    (CpuServerAdapter, ServerAdapter, set()),
    (CpuWorkerExtension, vLLMColocateWorkerExtension, set()),
    (SdarTrainingWorker, TrainingWorker, set()),
    (SdarActorRolloutRefWorker, ActorRolloutRefWorker, OWN_CALLS),
    (CpuActorRolloutRefWorker, ActorRolloutRefWorker, set()),
    (CpuCriticWorker, TrainingWorker, set()),
    (ShortRows, FSDPEngineWithLMHead, {"_plain"}),
]
# what is called, and the arguments it must take by name
CALLED = {
    "ppo_loss": (ppo_loss, {"config", "model_output", "data", "dp_group"}),
    "no_padding_2_padding": (no_padding_2_padding, {"tensor", "data"}),
    "response_from_nested": (response_from_nested, {"tensor", "response_mask"}),
    "get_non_tensor_data": (tu.get_non_tensor_data, {"data", "key", "default"}),
    "list_of_dict_to_tensordict": (tu.list_of_dict_to_tensordict, set()),
    "Metric": (Metric, {"value", "aggregation"}),
    "index_select_tensor_dict": (tu.index_select_tensor_dict, {"batch", "indices"}),
    "prepare_micro_batches": (prepare_micro_batches, {"data", "dp_group", "same_micro_num_in_dp"}),
    "kv_batch_get": (tq.kv_batch_get, {"keys", "partition_id", "select_fields"}),
    "kv_batch_put": (tq.kv_batch_put, {"keys", "partition_id", "fields", "tags"}),
    "kv_clear": (tq.kv_clear, {"keys", "partition_id"}),
    "KVBatchMeta": (KVBatchMeta, {"partition_id", "keys", "tags", "extra_info"}),
    "run_ppo": (main_ppo.run_ppo, {"config", "task_runner_class"}),
    "set_loss_fn": (ActorRolloutRefWorker.set_loss_fn, {"loss_fn"}),
    "compute_log_prob": (ActorRolloutRefWorker.compute_log_prob, {"data"}),
    "compute_ref_log_prob": (ActorRolloutRefWorker.compute_ref_log_prob, {"data"}),
    "AgentLoopOutput": (
        loops.AgentLoopOutput,
        {"prompt_ids", "response_ids", "response_mask", "response_logprobs", "reward_score", "num_turns", "metrics"}
        | {"extra_fields"},
    ),
    "AgentLoopMetrics": (loops.AgentLoopMetrics, {"generate_sequences", "tool_calls"}),
    "BucketedWeightReceiver": (
        bucketed_weight_transfer.BucketedWeightReceiver,
        {"zmq_handle", "device", "use_shm"},
    ),
}
# attributes that ours reads or replaces, and the class whose code must set them
ATTRIBUTES = [
    (PPOTrainer, {"trainer_mode", "role_worker_mapping", "actor_rollout_wg", "ref_policy_wg", "ref_in_actor"}),
    (PPOTrainer, {"timing_raw", "global_steps", "use_reference_policy", "agent_loop_manager", "tokenizer", "logger"}),
    (PPOTrainer, {"checkpoint_manager", "train_dataloader", "train_dataloader_it", "steps_per_epoch"}),
    (PPOTrainer, {"_compute_metrics", "_shutdown_dump_executor"}),
    (replay_buffer.ReplayBuffer, {"poll_interval"}),
    (loops.AgentLoopManager, {"agent_loop_workers"}),
    (agent_loop_tq.AgentLoopManagerTQ, {"agent_loop_workers_class"}),
    (loops.AgentLoopBase, {"server_manager", "continuous_token_builder"}),
    (loops.AgentLoopWorker, {"tokenizer"}),
    (ServerAdapter, {"zmq_handle", "replica_rank", "rollout_rank"}),
    (vLLMReplica, {"server_class"}),
]
# a step's phases; the teacher is scored at the beginning of `_compute_advantage`, before the update
PHASES = ["_balance_batch", "_compute_old_log_prob", "_compute_ref_log_prob", "_compute_advantage", "_update_actor"]


def overrides() -> list[str]:
    found = []
    for ours, stock, own in PAIRS:
        for name, member in vars(ours).items():
            if name in own or (name.startswith("__") and name not in ("__init__", "__new__")):
                continue
            if not callable(member) and not isinstance(member, property | classmethod):
                continue
            there = getattr(stock, name, None)
            if there is None:
                found.append(f"{stock.__name__} has no {name} for {ours.__name__} to override")
            elif callable(member) and name not in ("__init__", "__new__"):
                found += _differences(f"{ours.__name__}.{name}", member, there)
    return found


def _differences(where: str, ours: Any, stock: Any) -> list[str]:
    mine, theirs = (list(inspect.signature(f).parameters.values()) for f in (ours, stock))
    if any(p.kind is p.VAR_POSITIONAL for p in mine):
        return []
    plain = [[p.name for p in side if p.kind is not p.VAR_KEYWORD] for side in (mine, theirs)]
    catches_all = any(p.kind is p.VAR_KEYWORD for p in mine)
    fits = plain[0] == plain[1] or (catches_all and set(plain[0]) <= set(plain[1]))
    return [] if fits else [f"{where} takes {plain[0]}, verl's takes {plain[1]}"]


def called() -> list[str]:
    found = []
    for name, (function, wanted) in CALLED.items():
        parameters = inspect.signature(function).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and (lost := wanted - parameters.keys()):
            found.append(f"{name} takes no {sorted(lost)}")
    if not hasattr(AggregationType, "SUM"):
        found.append("AggregationType has no SUM")
    return found


def attributes() -> list[str]:
    found = []
    for cls, names in ATTRIBUTES:
        code = "".join(inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith("verl"))
        tree = ast.parse(textwrap.dedent(code))
        known = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | set(dir(cls))
        found += [f"{cls.__name__} has no attribute {name}" for name in sorted(names - known)]
    for name in ("_wait_for_next_poll", "sample"):
        if not callable(getattr(replay_buffer.ReplayBuffer, name, None)):
            found.append(f"ReplayBuffer has no {name}: a dead agent-loop worker would never be noticed")
    return found


def order() -> list[str]:
    code = textwrap.dedent(inspect.getsource(PPOTrainer._step_once))
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    lines = {n.func.attr: n.lineno for n in calls if isinstance(n.func, ast.Attribute)}
    missing = [name for name in PHASES if name not in lines]
    if missing:
        return [f"_step_once does not call {name}" for name in missing]
    found = sorted(PHASES, key=lines.__getitem__)
    return [] if found == PHASES else [f"a step goes {found}, not {PHASES}"]


def platform() -> list[str]:
    missing = sorted(PlatformBase.__abstractmethods__ & getattr(CpuPlatform, "__abstractmethods__", frozenset()))
    return [f"CpuPlatform lacks {name}" for name in missing]


def dispatch() -> list[str]:
    """verl finds how a worker's method is called on all ranks by an attribute of the function."""
    stock, ours = vars(ActorRolloutRefWorker.init_model), vars(CpuActorRolloutRefWorker.init_model)
    return [f"init_model lost {name}" for name in stock if name not in ours] + ([] if stock else ["no dispatch marks"])


if __name__ == "__main__":
    checks = (overrides, called, attributes, order, platform, dispatch)
    print(json.dumps({check.__name__: check() for check in checks}))
