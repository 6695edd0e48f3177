"""Everything that is refused before anything starts, and what a run writes about itself first."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from sdar_envs import registry
from sdar_envs.base import EnvError

from sdar_verl import preflight
from sdar_verl.checkpoints import prepare_resume
from sdar_verl.compat import stock
from sdar_verl.data import load_panel
from sdar_verl.errors import ConfigError
from sdar_verl.evaluation.panel import Panel, PanelError
from sdar_verl.manifest import build_manifest, data_hash, write_manifest
from sdar_verl.redaction import redact
from sdar_verl.rehearsal import rehearse
from sdar_verl.settings import Settings
from sdar_verl.skills import SkillError, open_store
from sdar_verl.skills.coverage import require_coverage
from sdar_verl.skills.retrievers import names as retriever_names
from sdar_verl.skills.retrievers.reference import ReferenceRetriever
from sdar_verl.teacher import placements

MEMORY_GIB, DISK_GIB, SHARED_GIB, OPEN_FILES = 4.0, 2.0, 0.5, 1024


def prepare(config: DictConfig) -> None:
    """Check settings, games, panel, skills, model and tokenizer; write ``config.yaml`` and ``panel.json``.

    Raises:
        ConfigError (or another `SdarError`): with what to do about it.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    settings = Settings.from_config(plain)
    if settings.distillation is not None and "entropy" in settings.distillation.needs:
        with open_dict(config):
            config.actor_rollout_ref.actor.calculate_entropy = True
        plain = OmegaConf.to_container(config, resolve=True)
    stock.validate(config)
    _check_backbone(plain, settings)
    _check_teacher(plain, settings)
    _check_lengths(plain, settings)
    panel = _check_tasks(plain, settings)
    if settings.uses_skills:
        _check_skills(settings)
    tokenizer = _check_model(plain)
    _check_machine(plain)
    rehearse(settings, tokenizer, plain["data"]["apply_chat_template_kwargs"] or {}, plain["data"]["max_prompt_length"])
    run_dir = Path(settings.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    trainer = plain["trainer"]
    step = prepare_resume(
        Path(trainer["default_local_dir"]),
        had_run=(run_dir / "manifest.json").exists(),
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
    _write_manifest(plain, settings, panel, run_dir)


def redacted(config: DictConfig) -> DictConfig:
    """A copy without secrets, for files."""
    return OmegaConf.create(redact(OmegaConf.to_container(config, resolve=False)))


def _write_manifest(plain: dict[str, Any], settings: Settings, panel: Panel, run_dir: Path) -> None:
    env = settings.env
    family = registry.get(env.name)
    skills = []
    if settings.uses_skills and settings.skills.retriever != ReferenceRetriever.name:
        skills = open_store(settings.skills.store, env=env.name, task_types=family.task_types).all()
    actor = plain["actor_rollout_ref"]["actor"]
    manifest = build_manifest(
        plain,
        panel=panel,
        data={env.train_split: data_hash(family.tasks(env.config, env.train_split)), "panel": data_hash(panel.tasks)},
        skills=skills,
        seeds={
            "panel": settings.panel_seed,
            "data": plain["data"]["seed"] or 0,
            "rollout": plain["actor_rollout_ref"]["rollout"]["seed"],
            "updates": actor["data_loader_seed"],
            "skills": settings.skills.seed,
        },
    )
    manifest["method"] = settings.method
    write_manifest(run_dir, manifest)


def _check_machine(plain: dict[str, Any]) -> None:
    """What the run needs of the machine it starts on; a joined cluster's other nodes are not looked at."""
    trainer, rollout, init = plain["trainer"], plain["actor_rollout_ref"]["rollout"], plain["ray_kwargs"]["ray_init"]
    if trainer["nnodes"] < 1 or trainer["n_gpus_per_node"] < 1:
        raise ConfigError("trainer.nnodes and trainer.n_gpus_per_node must be at least 1")
    preflight.require_memory(MEMORY_GIB)
    preflight.require_disk(trainer["default_local_dir"], DISK_GIB)
    preflight.require_shared_memory(SHARED_GIB)
    preflight.require_open_files(OPEN_FILES)
    if init["address"] == "local" and init["num_cpus"] is not None:
        storage = plain["transfer_queue"]["backend"]["SimpleStorage"]["num_data_storage_units"]
        # one logical CPU for each small actor; verl waits for ever for a placement that cannot be
        needed = 8 + 4 * trainer["n_gpus_per_node"] + rollout["agent"]["num_workers"] + storage
        preflight.require_resources({"CPU": needed}, {"CPU": init["num_cpus"]})


def _check_backbone(plain: dict[str, Any], settings: Settings) -> None:
    estimator = plain["algorithm"]["adv_estimator"]
    if settings.rows == "step" and estimator != "grpo":
        raise ConfigError(
            f"algorithm.adv_estimator={estimator} takes every turn of an episode for a sample of its own: verl groups "
            "the rows of an episode for grpo alone; set sdar.rows=trajectory or adv_estimator=grpo"
        )
    bypass = (plain["algorithm"].get("rollout_correction") or {}).get("bypass_mode", False)
    if bypass and settings.distillation is not None and "entropy" in settings.distillation.needs:
        raise ConfigError(
            f"sdar.distillation.gate={settings.distillation.gate} needs the actor's entropy, which "
            "algorithm.rollout_correction.bypass_mode=true never computes; set it to false or choose another gate"
        )


def _check_teacher(plain: dict[str, Any], settings: Settings) -> None:
    """What the teacher's weights and its divergence ask of actor and reference model."""
    if settings.distillation is None:
        return
    model, actor, ref = (plain["actor_rollout_ref"][part] for part in ("model", "actor", "ref"))
    reference = actor["use_kl_loss"] or plain["algorithm"]["use_kl_in_reward"]
    if settings.teacher.placement == "ref" and not reference:
        raise ConfigError(
            "sdar.teacher.placement=ref scores with the reference policy, but the run has none; set "
            "actor_rollout_ref.actor.use_kl_loss=true (its coefficient may be 0) or placement=actor"
        )
    adapters = bool(model.get("lora_rank") or model.get("lora_adapter_path") or (model.get("lora") or {}).get("rank"))
    fsdp2 = {"actor_rollout_ref.actor.strategy=fsdp2": actor["strategy"] != "fsdp2"}
    no_adapters = {"actor_rollout_ref.model.lora_rank=0 (with adapters there is no reference model)": adapters}
    if "distribution" in settings.distillation.needs:
        parts = [actor, actor["fsdp_config"], ref, ref["fsdp_config"]]
        _require(
            f"sdar.distillation.divergence={settings.distillation.divergence}",
            {
                **fsdp2,
                **(no_adapters if settings.teacher.placement == "ref" else {}),
                "actor_rollout_ref.model.use_fused_kernels=false (they never form the logits)": (
                    model["use_fused_kernels"]
                ),
                "ulysses_sequence_parallel_size=1 for actor and ref": any(
                    part.get("ulysses_sequence_parallel_size", 1) not in (1, None) for part in parts
                ),
                "pad_to_length=false for actor and ref": any(part.get("pad_to_length") for part in parts),
            },
        )
    if settings.teacher.update_rate is not None:
        _require(
            "sdar.teacher.update_rate",
            {
                **fsdp2,
                **no_adapters,
                "actor_rollout_ref.ref.fsdp_config.model_dtype=fp32 (a small step is lost in bfloat16)": (
                    ref["fsdp_config"]["model_dtype"] not in ("fp32", "float32")
                ),
                "actor_rollout_ref.actor.kl_loss_coef=0 (the KL term would be to the moving average)": (
                    actor["use_kl_loss"] and actor["kl_loss_coef"] != 0
                ),
                "algorithm.use_kl_in_reward=false (likewise)": plain["algorithm"]["use_kl_in_reward"],
            },
        )


def _require(who: str, problems: dict[str, bool]) -> None:
    wrong = [what for what, found in problems.items() if found]
    if wrong:
        raise ConfigError(f"{who} needs {'; '.join(wrong)}")


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
    if actor["use_dynamic_bsz"] and rollout["log_prob_max_token_len_per_gpu"] < longest:
        raise ConfigError(
            f"a privileged row may have {longest} tokens, more than rollout.log_prob_max_token_len_per_gpu="
            f"{rollout['log_prob_max_token_len_per_gpu']}; raise it (actor.ppo_max_token_len_per_gpu) or lower "
            "sdar.teacher.max_prompt_length"
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


def _check_skills(settings: Settings) -> None:
    if settings.skills.retriever not in retriever_names():
        raise ConfigError(
            f"sdar.skills.retriever={settings.skills.retriever!r} is unknown; known: {', '.join(retriever_names())}"
        )
    family = registry.get(settings.env.name)
    types = settings.env.config.get("task_types") or family.task_types
    try:
        store = open_store(settings.skills.store, env=settings.env.name, task_types=family.task_types)
        if settings.skills.retriever != ReferenceRetriever.name:  # that one does not read the store
            require_coverage(store, settings.env.name, types, allow_missing=settings.skills.allow_missing)
    except SkillError as error:
        raise ConfigError(f"sdar.skills: {error}") from error


def _check_model(plain: dict[str, Any]) -> Any:
    """The tokenizer, after checking that it and the model belong together."""
    from transformers import AutoConfig, AutoTokenizer

    model = plain["actor_rollout_ref"]["model"]
    path = model["path"]
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=model["trust_remote_code"])
        tokenizer = AutoTokenizer.from_pretrained(
            model["tokenizer_path"] or path, trust_remote_code=model["trust_remote_code"]
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"actor_rollout_ref.model.path={path!r} cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    if len(tokenizer) > config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens but the model's vocabulary only {config.vocab_size}; "
            "they do not belong together"
        )
    if plain["trainer"]["device"] == "cpu" and len(tokenizer) != config.vocab_size:
        raise ConfigError(
            f"the model's vocabulary has {config.vocab_size} entries and the tokenizer {len(tokenizer)}: vLLM masks "
            "the rest and the trainer does not, so their log-probabilities would differ. Use a model whose "
            "vocab_size equals len(tokenizer)"
        )
    bucket = plain["actor_rollout_ref"]["rollout"]["checkpoint_engine"]["update_weights_bucket_megabytes"]
    dtype = plain["actor_rollout_ref"]["actor"]["fsdp_config"]["model_dtype"]
    largest = config.vocab_size * getattr(config, "hidden_size", 0) * (4 if dtype in ("fp32", "float32") else 2) / 2**20
    if plain["trainer"]["device"] == "cpu" and largest > bucket:  # GPUs hand a large tensor over by itself
        raise ConfigError(
            f"the model's embedding has {largest:.0f} MiB, more than the {bucket} MiB in which weights are handed to "
            "the rollout; set actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes="
            f"{math.ceil(largest)} or more"
        )
    if not tokenizer.chat_template:
        raise ConfigError(f"the tokenizer of {path!r} has no chat template; use an instruct model")
    return tokenizer
