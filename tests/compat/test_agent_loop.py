"""What verl only logs ends the run: an episode whose rows are lost, a group whose status cannot be written."""

import asyncio
from types import SimpleNamespace

import pytest

from sdar_verl.compat import agent_loop


@pytest.mark.parametrize("method", ["_run_agent_loop", "_run_prompt"])
def test_the_first_loss_is_kept_for_the_trainer(monkeypatch, method):
    async def fails(self, number):
        raise OSError(f"storage unit {number} is gone")

    worker = object.__new__(agent_loop.SdarAgentLoopWorker)
    worker.runtime = SimpleNamespace(error=None)
    monkeypatch.setattr(agent_loop.SdarAgentLoopWorker.__mro__[1], method, fails)

    async def play():
        for number in (1, 2):
            with pytest.raises(OSError, match=f"unit {number}"):
                await getattr(worker, method)(number)
        with pytest.raises(OSError, match="unit 1"):
            await worker.check()

    asyncio.run(play())
