"""A moving average of LoRA adapters: put in place for the teacher's score, taken out again, saved and read back."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import Qwen2Config, Qwen2ForCausalLM

from sdar_verl.compat import workers
from sdar_verl.compat.workers import SdarActorRolloutRefWorker
from sdar_verl.errors import SdarError


@pytest.fixture(scope="module", autouse=True)
def one_rank(tmp_path_factory):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def worker():
    """A worker around a sharded model with adapters; scoring it gives the adapters' sum."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32,
    )  # fmt: skip
    module = get_peft_model(Qwen2ForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
    actor = SimpleNamespace(engine=SimpleNamespace(module=module))
    made = object.__new__(SdarActorRolloutRefWorker)
    made.actor, made.ref = actor, None
    made._rank, made._world_size = 0, 1
    made._average = {name: shard.float().clone() for name, shard in workers._adapters(actor).items()}
    actor.infer_batch = lambda data: torch.stack([shard.sum() for shard in workers._adapters(actor).values()])
    return made


def adapters(worker):
    return {name: shard.clone() for name, shard in workers._adapters(worker.actor).items()}


def train(worker, seed):
    generator = torch.Generator().manual_seed(seed)
    for shard in workers._adapters(worker.actor).values():
        shard.add_(torch.randn(shard.shape, generator=generator))


def test_the_score_is_the_averages_and_the_actor_is_left_as_it_was(worker):
    first = adapters(worker)
    assert any("lora_A" in name for name in first) and not any("lora_" not in name for name in first)
    train(worker, 1)
    trained = adapters(worker)
    worker.update_teacher(0.25)
    found = worker.compute_average_log_prob(None)
    expected = torch.stack([(0.75 * first[name] + 0.25 * trained[name]).sum() for name in first])
    torch.testing.assert_close(found, expected)
    assert all(torch.equal(shard, trained[name]) for name, shard in adapters(worker).items())


def test_a_score_that_fails_leaves_the_actor_as_it_was(worker):
    train(worker, 1)
    trained = adapters(worker)

    def broken(data):
        raise RuntimeError("out of memory")

    worker.actor.infer_batch = broken
    with pytest.raises(RuntimeError, match="out of memory"):
        worker.compute_average_log_prob(None)
    assert all(torch.equal(shard, trained[name]) for name, shard in adapters(worker).items())


def test_rate_one_is_the_policy(worker):
    train(worker, 2)
    worker.update_teacher(1.0)
    torch.testing.assert_close(worker.compute_average_log_prob(None), worker.actor.infer_batch(None))


def test_the_average_of_the_factors_is_not_that_of_their_product(worker):
    """Guards the sentence in the documentation that says so."""
    a, b = (next(name for name in worker._average if part in name) for part in ("lora_A", "lora_B"))
    train(worker, 3)
    before, after = (worker._average[b] @ worker._average[a], adapters(worker)[b] @ adapters(worker)[a])
    worker.update_teacher(0.5)
    assert not torch.allclose(worker._average[b] @ worker._average[a], 0.5 * before + 0.5 * after, atol=1e-3)


def test_it_is_saved_with_the_checkpoint(worker, tmp_path):
    train(worker, 4)
    worker.update_teacher(0.5)
    saved = {name: shard.clone() for name, shard in worker._average.items()}
    worker.save_teacher(str(tmp_path / "actor"))
    train(worker, 5)
    worker.update_teacher(1.0)
    worker.load_teacher(str(tmp_path / "actor"))
    assert all(torch.equal(shard, saved[name]) for name, shard in worker._average.items())
    with pytest.raises(SdarError, match="without sdar.teacher.update_rate"):
        worker.load_teacher(str(tmp_path))
