"""One rank of the two-rank check of the reference as a teacher: verl's own worker with FSDP2 over gloo, no Ray.

Usage: teacher_rank.py <rank> <port> <policy's folder> <another model's folder> <folder for results>
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from omegaconf import open_dict
from tensordict import TensorDict
from torch.distributed.tensor import distribute_tensor
from verl.utils import tensordict_utils as tu

from sdar_verl import methods

ROWS_OF_RANK = {0: [0, 1, 2], 1: [3]}  # uneven: the ranks must still make as many forward passes
RATE = 0.25


def rows() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Prompt and response ids of different lengths."""
    chance = torch.Generator().manual_seed(1)
    lengths = [(9, 4), (30, 1), (17, 12), (5, 7)]
    return [tuple(torch.randint(3, 60, (size,), generator=chance) for size in pair) for pair in lengths]


def change(name: str, shape: torch.Size) -> torch.Tensor:
    """What training is taken to have added to the weight `name`."""
    chance = torch.Generator().manual_seed(sum(map(ord, name)))
    return 0.05 * torch.randn(shape, generator=chance)


def build(policy: str, average: bool, model: str | None, *more: str):
    """The run's own worker with its actor and its reference model."""
    from sdar_verl.compat.cpu.workers import CpuActorRolloutRefWorker
    from sdar_verl.compat.workers import AVERAGE, TEACHER_PATH

    lines = ["method=sdar", "platform=cpu", "trainer.n_gpus_per_node=2", f"actor_rollout_ref.model.path='{policy}'"]
    lines += ["env.alfworld.data_root=unused", "sdar.run_dir=unused", "sdar.teacher.placement=ref"]
    lines += ["actor_rollout_ref.actor.optim.total_training_steps=10"]
    part = methods.composed([*lines, *more]).actor_rollout_ref
    with open_dict(part.ref):
        part.ref[AVERAGE], part.ref[TEACHER_PATH] = average, model
    worker = CpuActorRolloutRefWorker(part, role="actor")
    worker.role = "actor_ref"  # verl's constructor knows this pair with a rollout only; its set-up goes by the words
    worker.init_model()
    return worker


def data(mine: list[int]) -> TensorDict:
    """Rows as verl's bridge hands them to a worker."""
    chosen = [rows()[number] for number in mine]
    masks = [torch.ones(len(response), dtype=torch.int64) for _, response in chosen]
    ids = [torch.cat(pair) for pair in chosen]
    columns = {
        "prompts": [prompt for prompt, _ in chosen],
        "responses": [response for _, response in chosen],
        "response_mask": masks,
        "loss_mask": masks,
        "input_ids": ids,
        "position_ids": [torch.arange(len(row)) for row in ids],
    }
    packed = {name: torch.nested.as_nested_tensor(column, layout=torch.jagged) for name, column in columns.items()}
    batch = TensorDict(packed, batch_size=len(mine))
    for name, value in {"calculate_entropy": False, "compute_loss": False, "temperature": 1.0}.items():
        tu.assign_non_tensor_data(tensor_dict=batch, key=name, val=value)
    return batch


def whole(worker) -> dict[str, torch.Tensor]:
    """The reference's weights, gathered from all ranks."""
    return {name: value.full_tensor().clone() for name, value in worker.ref.engine.module.named_parameters()}


def scores(worker, rank: int) -> list[torch.Tensor]:
    """The reference's log-probabilities of this rank's responses."""
    from verl.workers.utils.padding import response_from_nested

    mine = data(ROWS_OF_RANK[rank])
    found = worker.compute_ref_log_prob(mine)
    return [row.clone() for row in response_from_nested(found["log_probs"], mine["response_mask"]).unbind()]


def main(rank: int, port: str, policy: str, another: str, folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", RAY_LOCAL_WORLD_SIZE="2", VERL_PLATFORM="cpu")
    worker = build(policy, average=True, model=None)
    found = {"first": scores(worker, rank)}
    for name, value in worker.actor.engine.module.named_parameters():
        added = distribute_tensor(change(name, value.shape), value.device_mesh, value.placements)
        value.data.to_local().add_(added.to_local())
    worker.update_teacher(RATE)
    found["averaged"], found["weights"] = scores(worker, rank), whole(worker)
    worker.export_teacher(str(folder / "exported"), "float32")
    worker.save_teacher(str(folder / "checkpoint"))
    worker.update_teacher(1.0)
    found["policy"] = whole(worker)
    worker.load_teacher(str(folder / "checkpoint"))
    found["loaded"] = whole(worker)
    found["another"] = scores(build(policy, average=False, model=another), rank)
    half = build(policy, False, None, "actor_rollout_ref.ref.fsdp_config.model_dtype=bf16")
    for name, part in (("actor", half.actor), ("reference", half.ref)):
        module = part.engine.module
        found[f"rope of the {name}"] = {own: value for own, value in module.named_buffers() if "inv_freq" in own}
    found["type of the reference"] = next(half.ref.engine.module.parameters()).dtype
    torch.save(found, folder / f"rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:5], Path(sys.argv[5]))
