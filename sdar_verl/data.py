"""Tasks as a data set: one item is one task of the environment; its prompts are made while it is played."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import OmegaConf
from sdar_envs import registry
from torch.utils.data import Dataset

from sdar_verl.evaluation.panel import Panel


class TaskDataset(Dataset):
    """Items for verl's data loader; configured by ``data.custom_cls`` and ``data.sdar_tasks``.

    Args:
        data_files: ``train`` for the training split, ``panel`` for the fixed validation panel.
        config: verl's ``data`` section; ``sdar_tasks`` holds environment, splits and panel.
        max_samples: use the first so many tasks only; -1 for all.
    """

    def __init__(self, data_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1):
        which = data_files if isinstance(data_files, str) else list(data_files)[0]
        part = OmegaConf.to_container(config.sdar_tasks, resolve=True)
        family = registry.get(part["env"])
        if which == "panel":
            tasks = list(load_panel(part).tasks)
        else:
            tasks = family.tasks(part["config"], part["train_split"])
        self.env = part["env"]
        self.tasks = tasks[:max_samples] if max_samples and max_samples > 0 else tasks

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> dict[str, Any]:
        task = self.tasks[index]
        return {
            "raw_prompt": [{"role": "user", "content": task.id}],
            "task": {"id": task.id, "task_type": task.task_type, "split": task.split, "path": task.path},
            "data_source": self.env,
            "index": index,
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
        }


def load_panel(part: dict[str, Any]) -> Panel:
    """The validation panel of ``data.sdar_tasks``; the same configuration and games give the same panel."""
    tasks = registry.get(part["env"]).tasks(part["config"], part["valid_split"])
    return Panel.from_tasks(tasks, part["panel_size"], part["panel_seed"], env=part["env"])
