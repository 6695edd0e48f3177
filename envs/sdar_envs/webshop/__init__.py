"""WebShop: buy the product that an instruction describes, in a shop shown as text.

A re-implementation of the original's rules, search engine and scores without its web server, Java and PyTorch.
Importing this package is light; catalogue and search engine are opened when the first task is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdar_envs.base import EnvError, PromptFormat, TaskRef, TextEnv
from sdar_envs.registry import EnvFamily

if TYPE_CHECKING:
    from sdar_envs.webshop.shop import Shop

TASK_TYPES = ("beauty", "electronics", "fashion", "garden", "grocery")

_DEFAULTS: dict[str, Any] = {
    "data_root": None,
    "cache_dir": None,
    "goals": "synthetic",
    "split": "canonical",
    "seed": 0,
    "test_size": 500,
    "eval_size": 1000,
    "train_size": None,
    "train_workers": 16,
    "eval_workers": 128,
    "max_steps": 15,
    "history_length": 2,
    "thinking": True,
    "require_admissible": False,
    "instructions": True,
    "history_pages": True,
    "success_reward": 10.0,
    "reward": "success",
    "task_types": None,
}


def _shop(settings: Mapping[str, Any]) -> Shop:
    if settings["data_root"] is None:
        raise EnvError("env.webshop.data_root is not set: name the folder that holds the catalogue's files")
    try:
        from sdar_envs.webshop.shop import open_shop
    except ModuleNotFoundError as error:
        raise EnvError(f"WebShop needs the package {error.name}: pip install 'sdar-envs[webshop]'") from error
    return open_shop(str(settings["data_root"]), settings["cache_dir"])


class WebshopFamily(EnvFamily):
    """WebShop by configuration; the keys are those of ``sdar_verl/config/env/webshop.yaml``, unknown ones are refused.

    The task type is the category of the product that is asked for.
    """

    name = "webshop"
    task_types = TASK_TYPES
    defaults = _DEFAULTS
    own_keys = (
        "data_root",
        "cache_dir",
        "task_types",
        "history_length",
        "thinking",
        "require_admissible",
        "instructions",
        "history_pages",
    )

    def tasks(self, config: Mapping[str, Any], split: str) -> list[TaskRef]:
        from sdar_envs.webshop.tasks import find_tasks

        settings = self.settings(config)
        return find_tasks(
            _shop(settings),
            split,
            scheme=settings["split"],
            kind=settings["goals"],
            seed=settings["seed"],
            sizes=(settings["test_size"], settings["eval_size"]),
            most=settings["train_size"],
            workers=(settings["train_workers"], settings["eval_workers"]),
            task_types=settings["task_types"],
        )

    def make_env(self, config: Mapping[str, Any]) -> TextEnv:
        from sdar_envs.webshop.env import WebshopEnv

        settings = self.settings(config)
        return WebshopEnv(
            _shop(settings),
            max_steps=settings["max_steps"],
            success_reward=settings["success_reward"],
            reward=settings["reward"],
        )

    def make_format(self, config: Mapping[str, Any]) -> PromptFormat:
        from sdar_envs.webshop.format import WebshopFormat

        settings = self.settings(config)
        return WebshopFormat(
            thinking=settings["thinking"],
            history_length=settings["history_length"],
            require_admissible=settings["require_admissible"],
            instructions=settings["instructions"],
            history_pages=settings["history_pages"],
        )

    def reference(self, config: Mapping[str, Any], task: TaskRef) -> list[str]:
        from sdar_envs.webshop.expert import reference_actions

        return reference_actions(_shop(self.settings(config)), task)


FAMILY = WebshopFamily()
