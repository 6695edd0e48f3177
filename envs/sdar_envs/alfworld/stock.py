"""The engine as the packages ship it; the reference that the fast one is compared with."""

from __future__ import annotations

from typing import Any

from sdar_envs.alfworld.engine import Engine, EngineState
from sdar_envs.alfworld.packages import import_alfworld, kept_arguments


class StockEngine(Engine):
    """ALFWorld's own chain of wrappers around TextWorld's PDDL environment, nothing changed."""

    def __init__(self) -> None:
        alfworld_env = import_alfworld("alfworld.agents.environment.alfred_tw_env")
        import textworld
        from textworld.envs import PddlEnv

        infos = textworld.EnvInfos(won=True, admissible_commands=True, extras=["gamefile"])
        self._env = alfworld_env.AlfredInfos(alfworld_env.AlfredDemangler(PddlEnv(infos)))

    def load(self, path: str) -> None:
        with kept_arguments():
            self._env.load(path)

    def reset(self) -> EngineState:
        with kept_arguments():
            return _state(self._env.reset())

    def step(self, command: str) -> EngineState:
        return _state(self._env.step(command)[0])


def _state(state: Any) -> EngineState:
    return EngineState(state["feedback"], tuple(state["admissible_commands"]), bool(state["won"]))
