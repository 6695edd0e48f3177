"""Where a run's episodes are played: in worker processes of its own, or at environment services."""

from __future__ import annotations

from typing import Protocol

from sdar_envs import registry
from sdar_envs.base import EnvError
from sdar_envs.pool import EnvPool

from sdar_verl.agent.episode import EnvSession
from sdar_verl.settings_parts import EnvSettings


class OpenSession(EnvSession, Protocol):
    """A session that is left at the end of its ``async with``."""

    async def __aenter__(self) -> OpenSession: ...

    async def __aexit__(self, *_: object) -> None: ...


class Pool(Protocol):
    """What `EnvPool` and `RemoteEnvPool` have in common; used from one event loop."""

    async def start(self) -> None: ...

    def session(self) -> OpenSession: ...

    def stats(self) -> dict[str, int]: ...

    async def close(self) -> None: ...


def make_pool(env: EnvSettings, workers: int | None = None, envs_per_worker: int | None = None) -> Pool:
    """The pool that `env` asks for, not started yet.

    Args:
        env: of the run; its ``pool`` is not read when its ``service`` has endpoints.
        workers: instead of the settings' own.
        envs_per_worker: instead of the settings' own.

    Raises:
        EnvError: the endpoints or their token cannot be used.
    """
    pool, service = env.pool, env.service
    if not service.endpoints:
        return EnvPool(
            env.name,
            env.config,
            workers=workers or pool.workers,
            envs_per_worker=envs_per_worker or pool.envs_per_worker,
            step_timeout=pool.step_timeout,
            reset_timeout=pool.reset_timeout,
            episode_timeout=pool.episode_timeout,
        )
    try:
        from sdar_envs.service.auth import read_token
        from sdar_envs.service.client import Patience, RemoteEnvPool
    except ModuleNotFoundError as error:
        raise EnvError(f"{error.name} is missing: pip install 'sdar-envs[client]'") from error
    patience = Patience(service.connect_timeout, service.reconnect_timeout, service.ping_timeout)
    return RemoteEnvPool(env.name, env.config, service.endpoints, read_token(service.token_file), patience)


async def check_pool(pool: Pool, env: EnvSettings) -> None:
    """Before a run: start `pool`; services must also have the run's tasks. Raises `EnvError`."""
    await pool.start()
    if not isinstance(pool, EnvPool):
        for split in (env.train_split, env.valid_split):
            await pool.check_tasks(split, registry.get(env.name).tasks(env.config, split))
