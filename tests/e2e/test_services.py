"""Real training whose episodes are played at a service. ALFWorld's is in test_methods.py."""

from __future__ import annotations

import json
import math

import pytest
from omegaconf import OmegaConf
from service_process import TOKEN, ServiceProcess

from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.records import EpisodeRecord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("name", "data"), [("webshop", "catalogue"), ("search_qa", "world")])
def test_a_step_of_sdar_at_a_service(train, name, data, reader, service_token, tmp_path, request):
    overrides = request.getfixturevalue(data)
    own = [f"{key.removeprefix(f'env.{name}.')}={value}" for key, value in overrides.items() if f"env.{name}." in key]
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(OmegaConf.to_container(OmegaConf.from_dotlist(own))))
    with ServiceProcess("--workers", "1", "--config", str(settings), env=name, token=TOKEN) as service:
        run = train(name, {
            **overrides,
            **reader,
            "env.service.endpoints": f"[{service.url}]",
            "env.service.token_file": service_token,
            "trainer.total_training_steps": 1,
            "trainer.test_freq": -1,
            "trainer.save_freq": -1,
            "trainer.val_before_train": "false",
        })  # fmt: skip
        assert run.wait() == 0, run.tail()
        assert run.left() == []
        assert service.metric('sdar_env_call_seconds_count{op="reset"}', TOKEN) >= 8
    (line,) = run.lines("metrics.jsonl")
    assert math.isfinite(line["data"]["actor/grad_norm"]) and line["data"]["sdar/loss"] != 0.0
    assert line["data"]["env_pool/workers"] == 1, "one endpoint, and no worker process of the run's own"
    assert line["data"]["episode/failed_share"] == 0.0
    episodes = list(read_records(run.run_dir / "episodes/train.jsonl", EpisodeRecord))
    assert len(episodes) == 8 and all(episode.turns for episode in episodes)
