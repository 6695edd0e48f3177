"""Two real FSDP2 ranks over gloo give the gradient and the metrics of one process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sdar_verl.core import resolve

WORKER = Path(__file__).with_name("two_rank_worker.py")


def load_worker():
    spec = importlib.util.spec_from_file_location("two_rank_worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_two_ranks(folder):
    result = folder / "result.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = [str(folder / "rendezvous"), str(result)]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), *arguments], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=120)
            assert rank.returncode == 0, errors
    finally:
        for rank in ranks:
            rank.kill()
    return json.loads(result.read_text())


def test_two_ranks_equal_one_process(tmp_path):
    two = run_two_ranks(tmp_path)
    worker = load_worker()
    model, *data = worker.build()
    stats = worker.backward(model, list(range(worker.ROWS)), int(data[-1].sum()), 1, data)
    for name, parameter in model.named_parameters():
        expected = parameter.grad.flatten().numpy()
        assert np.abs(expected).max() > 1e-4, f"{name} would agree by being zero"
        np.testing.assert_allclose(two["gradients"][name], expected, rtol=1e-5, atol=1e-8, err_msg=name)
    expected = resolve(worker.flatten(stats))
    found = resolve(two["stats"])
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
