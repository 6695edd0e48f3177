"""WebShop played over the service is WebShop played in process."""

import asyncio

import pytest
import webshop_world as world
from sdar_envs.base import EnvError
from sdar_envs.service.client import RemoteEnvPool
from sdar_envs.webshop import FAMILY
from service_process import ServiceProcess


def arguments(**changes):
    return [part for key, value in world.config(**changes).items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def service():
    with ServiceProcess(*arguments(), "--workers", "1", env="webshop") as process:
        yield process


def test_the_same_episodes(service):
    tasks = FAMILY.tasks(world.config(), "train")

    async def over_the_wire():
        async with RemoteEnvPool("webshop", world.config(), [service.url]) as pool:
            await pool.check_tasks("train", tasks)
            seen = []
            for task in tasks[:4]:
                async with pool.session() as session:
                    seen.append(await session.reset(task))
                    for action in FAMILY.reference(world.config(), task):
                        seen.append(await session.step(action))
            return [list(one) for one in seen]

    here, env = [], FAMILY.make_env(world.config())
    for task in tasks[:4]:
        here.append(list(env.reset(task=task)))
        here += [list(env.step(action)) for action in FAMILY.reference(world.config(), task)]
    assert asyncio.run(over_the_wire()) == here


def test_other_rules_are_refused(service):
    async def connect():
        async with RemoteEnvPool("webshop", world.config(max_steps=9), [service.url]):
            pass

    with pytest.raises(EnvError, match="max_steps"):
        asyncio.run(connect())
