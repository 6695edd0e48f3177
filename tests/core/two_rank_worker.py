"""One rank of the two-rank gradient check: FSDP2 over gloo, uneven rows, an empty micro-batch on rank 1.

Usage: two_rank_worker.py <rank> <rendezvous file> <result file>
"""

import json
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from sdar_verl.core import DistillationConfig, distillation_loss, flatten, merge

ROWS, COLUMNS, VOCABULARY = 6, 5, 7
ROWS_OF_RANK = {0: [0, 1, 2, 3], 1: [4, 5]}
CONFIG = DistillationConfig(beta=2.0)


def build():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, 8), torch.nn.Tanh(), torch.nn.Linear(8, VOCABULARY))
    inputs = torch.randint(0, VOCABULARY, (ROWS, COLUMNS))
    targets = torch.randint(0, VOCABULARY, (ROWS, COLUMNS))
    teacher = -3 * torch.rand(ROWS, COLUMNS)
    mask = torch.rand(ROWS, COLUMNS) < 0.6
    mask[2], mask[5] = False, False
    mask[0] = True
    return model, inputs, targets, teacher, mask


def backward(model, rows, num_tokens, dp_size, data):
    """Loss and statistics of the micro-batch `rows`; adds to the gradients."""
    inputs, targets, teacher, mask = (x[rows] for x in data)
    student = torch.log_softmax(model(inputs), dim=-1).gather(-1, targets[..., None])[..., 0]
    output = distillation_loss(student, teacher, mask, CONFIG, coef=0.3, num_tokens_global=num_tokens, dp_size=dp_size)
    output.loss.backward()
    return output.metrics


def main(rank, rendezvous, result):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    model, *data = build()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    mine = ROWS_OF_RANK[rank]
    num_tokens = data[-1][mine].sum()
    dist.all_reduce(num_tokens)
    micro_batches = [mine[:2], mine[2:]] if rank == 0 else [mine[:1], mine[1:]]
    stats = merge(backward(model, rows, int(num_tokens), 2, data) for rows in micro_batches)
    gradients = {name: p.grad.full_tensor().flatten().tolist() for name, p in model.named_parameters()}
    gathered = [None, None]
    dist.all_gather_object(gathered, stats)
    if rank == 0:
        with open(result, "w") as file:
            json.dump({"gradients": gradients, "stats": flatten(merge(gathered))}, file)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
