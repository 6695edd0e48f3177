"""The first prompts of a run, built before it starts: environment, template, skills and limits must go together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sdar_envs import registry
from sdar_envs.base import EnvError, EnvUnreachable, EpisodeView, NoPlace, TaskRef

from sdar_verl.agent.pools import Pool, check_pool, make_pool
from sdar_verl.agent.privileged import privileged_parts
from sdar_verl.errors import ConfigError, Unreachable
from sdar_verl.settings import Settings
from sdar_verl.skills import SkillError, SkillStore
from sdar_verl.skills.errors import SkillsUnreachable
from sdar_verl.teacher.contexts import Situation
from sdar_verl.teacher.errors import TeacherContextError
from sdar_verl.teacher.templating import prompt_ids


def rehearse(
    settings: Settings,
    tokenizer: Any,
    template_kwargs: Mapping[str, Any],
    prompt_limit: int,
    skills: SkillStore | None = None,
) -> None:
    """Begin one training task of each type where the run's episodes will be played, and build its prompts.

    Args:
        settings: of the run.
        tokenizer: the student's.
        template_kwargs: for the chat template.
        prompt_limit: most tokens of the student's prompt.
        skills: of the run; None opens the configured store.

    Raises:
        ConfigError: a task cannot be played, or its first prompt can never fit; with the lengths.
        Unreachable: a service or a search engine does not answer now.
    """
    env = settings.env
    first: dict[str, TaskRef] = {}
    for task in registry.get(env.name).tasks(env.config, env.train_split):
        first.setdefault(task.task_type, task)
    try:
        asyncio.run(_rehearse(list(first.values()), settings, tokenizer, template_kwargs, prompt_limit, skills))
    except (EnvUnreachable, NoPlace) as error:
        raise Unreachable(f"env {env.name}: no episode can begin: {error}") from error
    except EnvError as error:
        raise ConfigError(f"env {env.name}: no episode can begin: {error}") from error
    except SkillsUnreachable:
        raise
    except (SkillError, TeacherContextError) as error:
        raise ConfigError(f"no privileged prompt can be built: {error}") from error


async def _rehearse(
    tasks: list[TaskRef],
    settings: Settings,
    tokenizer: Any,
    template_kwargs: Mapping[str, Any],
    prompt_limit: int,
    skills: SkillStore | None,
) -> None:
    env = settings.env
    pool = make_pool(env, workers=1, envs_per_worker=1)
    try:
        await check_pool(pool, env)
        await _begin_all(pool, tasks, settings, tokenizer, template_kwargs, prompt_limit, skills)
    finally:
        await pool.close()


async def _begin_all(
    pool: Pool,
    tasks: list[TaskRef],
    settings: Settings,
    tokenizer: Any,
    template_kwargs: Mapping[str, Any],
    prompt_limit: int,
    skills: SkillStore | None,
) -> None:
    env = settings.env
    prompt_format = registry.get(env.name).make_format(env.config)
    privileged = privileged_parts(settings, tokenizer, template_kwargs, prompt_limit, skills)
    async with pool.session() as session:
        for task in tasks:
            observation, info = await session.reset(task)
            view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
            messages = [{"role": "user", "content": prompt_format.render(view)}]
            length = len(prompt_ids(tokenizer, messages, template_kwargs))
            if length > prompt_limit:
                raise ConfigError(
                    f"the first prompt of task {task.id} has {length} tokens and can never fit into "
                    f"data.max_prompt_length={prompt_limit}; raise it"
                )
            if privileged.context is not None:
                situation = Situation(env.name, task, seed=0, step=1, text=info["task_description"])
                units = privileged.context.units(situation)
                for builder in (privileged.teacher, privileged.student):
                    if builder is not None:
                        builder.build(messages, units, task_type=task.task_type)
