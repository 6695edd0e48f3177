"""Teachers in the reference's place on two FSDP2 ranks: their weights and scores are those of one whole model."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from teacher_rank import RATE, ROWS_OF_RANK, change, rows
from transformers import AutoModelForCausalLM

from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The policy, and another model of the same tokenizer."""
    tokenizer = train_tokenizer(["go to the desk 1 and take the mug 2 from it"] * 40, 280)
    folders = []
    for name, hidden, layers in (("policy", 64, 1), ("another", 128, 2)):
        shape = {"hidden": hidden, "heads": 2, "kv_heads": 1, "layers": layers, "ffn": 96, "max_positions": 512}
        model = build_model(tokenizer, **shape, seed=layers)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(8)  # so that tokens differ in probability
        folders.append(tmp_path_factory.mktemp(name))
        tokenizer.save_pretrained(folders[-1])
        model.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def found(models, tmp_path_factory):
    """What each of the two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).with_name("teacher_rank.py"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "VERL_PLATFORM": "cpu"}
    ranks = []
    for rank in (0, 1):
        with (folder / f"rank{rank}.log").open("wb") as log:
            arguments = [str(rank), str(port), *map(str, models), str(folder)]
            ranks.append(subprocess.Popen([*command, *arguments], stdout=log, stderr=log, env=environment))
    try:
        for number, rank in enumerate(ranks):
            log = folder / f"rank{number}.log"
            assert rank.wait(timeout=300) == 0, "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    finally:
        for rank in ranks:
            rank.kill()
    return folder, [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def hugging_face(folder, moved=0.0):
    """The model, moved by a share of what the training added."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.add_(moved * change(name, value.shape))
    return model


@torch.no_grad()
def expected(model, rank):
    scored = []
    for number in ROWS_OF_RANK[rank]:
        prompt, response = rows()[number]
        logits = model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        scored.append(logits.log_softmax(-1).gather(-1, response[:, None])[:, 0])
    return scored


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("part, model, moved", [("first", 0, 0.0), ("averaged", 0, RATE), ("another", 1, 0.0)])
def test_scores_are_those_of_the_whole_model(found, models, rank, part, model, moved):
    """`first`: the policy as it was loaded; `averaged`: one step of the moving average; `another`: another model."""
    torch.testing.assert_close(
        found[1][rank][part], expected(hugging_face(models[model], moved), rank), atol=1e-4, rtol=0
    )


def test_the_average_moved_the_scores(found):
    first, averaged = (torch.cat(found[1][0][part]) for part in ("first", "averaged"))
    assert (first - averaged).abs().max() > 0.05


@pytest.mark.parametrize("part, moved", [("weights", RATE), ("policy", 1.0), ("loaded", RATE)])
def test_weights_are_averaged_shard_by_shard(found, models, part, moved):
    """After one step, after a step of rate 1 (the policy itself), and read back from the checkpoint."""
    wanted = dict(hugging_face(models[0], moved).named_parameters())
    for rank in (0, 1):
        weights = found[1][rank][part]
        assert set(weights) == set(wanted)
        for name, value in weights.items():
            torch.testing.assert_close(value, wanted[name].data, atol=1e-6, rtol=1e-5)


def test_the_average_is_written_whole_for_servers(found, models):
    """In a folder that Hugging Face's classes read; the policy's own tokenizer is not part of it."""
    written = AutoModelForCausalLM.from_pretrained(found[0] / "exported", dtype=torch.float32)
    for (name, value), wanted in zip(
        written.named_parameters(), hugging_face(models[0], RATE).parameters(), strict=True
    ):
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=1e-5, msg=name)
    assert not (found[0] / "exported.part").exists()


def test_each_rank_saves_its_own_shards(found):
    files = sorted(path.name for path in (found[0] / "checkpoint").iterdir())
    assert files == [f"teacher_world_size_2_rank_{rank}.pt" for rank in (0, 1)]


def test_a_reference_in_half_precision_has_the_policys_frequencies(found):
    for rank in found[1]:
        own, other = rank["rope of the actor"], rank["rope of the reference"]
        assert rank["type of the reference"] == torch.bfloat16 and own.keys() == other.keys() and own
        assert all(torch.equal(own[name], other[name]) for name in own)
