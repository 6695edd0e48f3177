"""Everything that is refused before anything starts, and what a run writes about itself first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from sdar_envs import registry
from sdar_envs.base import EnvError

from sdar_verl import gpu_machine, preflight
from sdar_verl.checkpoints import complete_steps, has_trained, prepare_resume
from sdar_verl.compat import stock
from sdar_verl.data import load_panel
from sdar_verl.errors import ConfigError
from sdar_verl.evaluation.panel import Panel, PanelError
from sdar_verl.manifest import FILE as MANIFEST
from sdar_verl.manifest import ManifestError, build_manifest, data_hash, earlier_starts, read_manifest, write_manifest
from sdar_verl.policy_model import check_policy_model
from sdar_verl.redaction import check_secrets, redact
from sdar_verl.rehearsal import rehearse
from sdar_verl.requirements import check_backbone, check_checkpoints, check_fused, check_ranks, check_teacher
from sdar_verl.room import require_room
from sdar_verl.run_skills import first_skills, pinned_skills
from sdar_verl.served_client import check_remote_teacher
from sdar_verl.settings import Settings
from sdar_verl.skills import SkillError, SkillStore
from sdar_verl.skills.coverage import require_coverage
from sdar_verl.skills.errors import SkillsUnreachable
from sdar_verl.skills.pins import keep as keep_skills
from sdar_verl.skills.retrievers import names as retriever_names
from sdar_verl.storage.restore import restore
from sdar_verl.teacher import placements
from sdar_verl.teacher.remote import FINGERPRINT_FILE
from sdar_verl.teacher_model import check_teacher_model

MEMORY_GIB, DISK_GIB, SHARED_GIB, OPEN_FILES = 4.0, 2.0, 0.5, 1024


def prepare(config: DictConfig) -> None:
    """Check settings, games, panel, skills, model and tokenizer; write ``config.yaml`` and ``panel.json``.

    Raises:
        ConfigError (or another `SdarError`): with what to do about it.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    check_secrets(plain)
    settings = Settings.from_config(plain)
    if settings.distillation is not None and "entropy" in settings.distillation.needs:
        with open_dict(config):
            config.actor_rollout_ref.actor.calculate_entropy = True
        plain = OmegaConf.to_container(config, resolve=True)
    try:
        stock.validate(config)
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"verl refuses the configuration: {error}") from error
    check_backbone(plain, settings)
    check_ranks(plain)
    check_teacher(plain, settings)
    _check_lengths(plain, settings)
    panel = _check_tasks(plain, settings)
    run_dir = Path(settings.run_dir)
    trainer = plain["trainer"]
    _check_machine(plain, settings)
    check_checkpoints(plain, settings)
    root = Path(trainer["default_local_dir"])
    identity = restore(run_dir, root, settings.checkpoints, resume_mode=trainer["resume_mode"])
    before = _earlier_start(plain, settings)
    skills = _check_skills(settings, goes_on=before is not None) if settings.uses_skills else None
    model, tokenizer = check_policy_model(plain)
    check_fused(plain, model)
    require_room(plain, model.to_dict(), DISK_GIB)
    if settings.teacher.model_path is not None:
        check_teacher_model(plain, settings, tokenizer)
    if settings.distillation is not None and settings.teacher.placement == "remote":
        length = plain["actor_rollout_ref"]["rollout"]["response_length"]
        resumed = before is not None and (run_dir / FINGERPRINT_FILE).exists()
        check_remote_teacher(settings, tokenizer, length, resumed=resumed)
    template_kwargs = plain["data"]["apply_chat_template_kwargs"] or {}
    rehearse(settings, tokenizer, template_kwargs, plain["data"]["max_prompt_length"], skills)
    run_dir.mkdir(parents=True, exist_ok=True)
    step = prepare_resume(
        root,
        had_run=(run_dir / MANIFEST).exists() and has_trained(run_dir),
        resume_mode=trainer["resume_mode"],
        keep=trainer["max_actor_ckpt_to_keep"],
    )
    if step is not None:
        print(f"[sdar] going on from the checkpoint of step {step}", flush=True)
    saved = run_dir / "panel.json"
    if saved.exists():
        try:
            Panel.load(saved).require_same(panel, f"the run in {run_dir}", "this configuration")
        except PanelError as error:
            raise ConfigError(f"{error}. Choose another sdar.run_dir") from error
    panel.save(saved)
    OmegaConf.save(redacted(config), run_dir / "config.yaml")
    if skills is not None:
        keep_skills(run_dir, skills.all())
    identity.write(run_dir)
    manifest = _manifest(plain, settings, panel, skills)
    if before is not None:
        manifest["earlier"] = earlier_starts(before, manifest, step)
        if changed := manifest["earlier"][-1]["changed"]:
            lines = (f"\n  {key}: {old} -> {new}" for key, (old, new) in changed.items())
            print(f"[sdar] what is not as it was when the run last started:{''.join(lines)}", flush=True)
    write_manifest(run_dir, manifest)


def redacted(config: DictConfig) -> DictConfig:
    """A copy without secrets, for files."""
    return OmegaConf.create(redact(OmegaConf.to_container(config, resolve=False)))


def _earlier_start(plain: dict[str, Any], settings: Settings) -> dict[str, Any] | None:
    """The manifest of the started run that is resumed, so that what it was made of is settled; None for a new one."""
    trainer, run_dir = plain["trainer"], Path(settings.run_dir)
    if trainer["resume_mode"] == "disable" or not (run_dir / MANIFEST).exists():
        return None
    if trainer["resume_mode"] == "auto" and not complete_steps(Path(trainer["default_local_dir"])):
        return None
    return read_manifest(run_dir)


def _manifest(plain: dict[str, Any], settings: Settings, panel: Panel, skills: SkillStore | None) -> dict[str, Any]:
    env = settings.env
    family = registry.get(env.name)
    actor = plain["actor_rollout_ref"]["actor"]
    manifest = build_manifest(
        plain,
        panel=panel,
        data={env.train_split: data_hash(family.tasks(env.config, env.train_split)), "panel": data_hash(panel.tasks)},
        skills=() if skills is None else skills.all(),
        seeds={
            "panel": settings.panel_seed,
            "data": plain["data"]["seed"] or 0,
            "rollout": plain["actor_rollout_ref"]["rollout"]["seed"],
            "updates": actor["data_loader_seed"],
            "skills": settings.skills.seed,
        },
    )
    return manifest | {"method": settings.method}


def _check_machine(plain: dict[str, Any], settings: Settings) -> None:
    """What the run needs of the machine it starts on; a joined cluster's other nodes are not looked at."""
    trainer, rollout, init = plain["trainer"], plain["actor_rollout_ref"]["rollout"], plain["ray_kwargs"]["ray_init"]
    if trainer["nnodes"] < 1 or trainer["n_gpus_per_node"] < 1:
        raise ConfigError("trainer.nnodes and trainer.n_gpus_per_node must be at least 1")
    preflight.require_memory(MEMORY_GIB)
    preflight.require_disk(trainer["default_local_dir"], DISK_GIB)
    preflight.require_shared_memory(SHARED_GIB)
    preflight.require_open_files(OPEN_FILES)
    if init["address"] != "local":
        return
    served = settings.distillation is not None and settings.teacher.placement == "server"
    servers = settings.teacher.server if served else None
    if trainer["device"] == "cuda":
        extra = 0 if servers is None else servers.replicas * servers.tensor_parallel_size
        gpu_machine.require_gpus(
            trainer["nnodes"] * trainer["n_gpus_per_node"] + extra,
            "trainer.nnodes x n_gpus_per_node" + (" and sdar.teacher.server's" if extra else ""),
        )
    # one logical CPU for each small actor; verl waits for ever for a placement that cannot be
    needed = plain["transfer_queue"]["backend"]["SimpleStorage"]["num_data_storage_units"]
    if init["num_cpus"] is not None:
        needed += 8 + 4 * trainer["n_gpus_per_node"] + rollout["agent"]["num_workers"]
    else:  # the machine's own: what is held all the time, and one to place the others with
        needed += 3 + 3 * trainer["n_gpus_per_node"]
    if servers is not None:
        needed += servers.replicas
    preflight.require_resources({"CPU": needed}, {"CPU": init["num_cpus"] or os.cpu_count() or 1})


def _check_lengths(plain: dict[str, Any], settings: Settings) -> None:
    rollout = plain["actor_rollout_ref"]["rollout"]
    actor = plain["actor_rollout_ref"]["actor"]
    if settings.distillation is None:
        return
    longest = settings.teacher.max_prompt_length + rollout["response_length"]
    if settings.teacher.max_prompt_length < rollout["prompt_length"]:
        raise ConfigError(
            f"sdar.teacher.max_prompt_length={settings.teacher.max_prompt_length} is below data.max_prompt_length="
            f"{rollout['prompt_length']}; a privileged prompt is never shorter than the student's"
        )
    teacher, ref = settings.teacher, plain["actor_rollout_ref"]["ref"]
    scorers = {"rollout": (rollout, actor)} if teacher.placement == "actor" else {}
    if teacher.placement == "ref" or (teacher.served and teacher.remote.on_failure == "fallback"):
        scorers["ref"] = (ref, ref)
    for name, (limits, engine) in scorers.items():
        allowed = limits["log_prob_max_token_len_per_gpu"] * (engine.get("ulysses_sequence_parallel_size") or 1)
        if limits["log_prob_use_dynamic_bsz"] and allowed < longest:
            raise ConfigError(
                f"a privileged row may have {longest} tokens, more than {name}.log_prob_max_token_len_per_gpu allows: "
                f"{allowed}; raise it (actor.ppo_max_token_len_per_gpu) or lower sdar.teacher.max_prompt_length"
            )
    if settings.teacher.prompt_placement not in placements.names():
        raise ConfigError(
            f"sdar.teacher.prompt_placement={settings.teacher.prompt_placement!r} is unknown; known: "
            + ", ".join(placements.names())
        )


def _check_tasks(plain: dict[str, Any], settings: Settings) -> Panel:
    try:
        family = registry.get(settings.env.name)
        tasks = family.tasks(settings.env.config, settings.env.train_split)
        panel = load_panel(plain["data"]["sdar_tasks"])
    except (EnvError, PanelError) as error:
        raise ConfigError(f"env {settings.env.name}: {error}") from error
    if settings.env.train_split == settings.env.valid_split:
        raise ConfigError("env.train_split and env.valid_split are the same; validate on other tasks")
    wanted = plain["data"]["train_batch_size"]
    if len(tasks) < wanted:
        raise ConfigError(
            f"data.train_batch_size={wanted} but the split {settings.env.train_split!r} has {len(tasks)} tasks; "
            "lower it or provide more games"
        )
    return panel


def _check_skills(settings: Settings, *, goes_on: bool) -> SkillStore:
    """The run's skills, after checking that no task goes without."""
    if settings.skills.retriever not in retriever_names():
        raise ConfigError(
            f"sdar.skills.retriever={settings.skills.retriever!r} is unknown; known: {', '.join(retriever_names())} "
            "(a task's own solution is sdar.context.parts=[reference])"
        )
    family = registry.get(settings.env.name)
    types = settings.env.config.get("task_types") or family.task_types
    try:
        store = pinned_skills(settings) if goes_on else first_skills(settings)
        require_coverage(store, settings.env.name, types, allow_missing=settings.skills.allow_missing)
    except SkillsUnreachable:
        raise
    except (SkillError, ManifestError) as error:
        raise ConfigError(f"sdar.skills: {error}") from error
    return store
