"""What a method asks of verl's own settings, checked before anything starts; `ConfigError` names the keys."""

from __future__ import annotations

import math
from typing import Any

from sdar_verl.errors import ConfigError
from sdar_verl.served_client import longest_request
from sdar_verl.settings import Settings

_CLIP_RATIO = 0.2  # verl's default
_PREFILL_TOKENS = 2048  # of a pass, as the run's own teacher servers have it
# Right on rows of turns: the rows of an episode share one advantage (gae: each turn ends with the episode's return).
STEP_ROWS = ("grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "gae")


def check_backbone(plain: dict[str, Any], settings: Settings) -> None:
    """Estimators that verl cannot use on rows of turns, and modes that leave a gate without its input."""
    estimator = plain["algorithm"]["adv_estimator"]
    if settings.rows == "step" and estimator not in STEP_ROWS:
        raise ConfigError(
            f"algorithm.adv_estimator={estimator} would take every turn of an episode for a sample of its own; set "
            f"sdar.rows=trajectory, or one of {', '.join(STEP_ROWS)}"
        )
    if estimator == "grpo_vectorized" and not plain["algorithm"]["norm_adv_by_std_in_grpo"]:
        raise ConfigError(
            "algorithm.adv_estimator=grpo_vectorized always divides by the standard deviation; set adv_estimator=grpo "
            "for algorithm.norm_adv_by_std_in_grpo=false"
        )
    if settings.rows == "step" and plain["algorithm"]["use_kl_in_reward"] and estimator != "gae":
        raise ConfigError(
            f"algorithm.use_kl_in_reward=true takes the KL off each turn's own reward, of which {estimator} reads the "
            "last turn's alone; set it to false and actor_rollout_ref.actor.use_kl_loss=true, or sdar.rows=trajectory"
        )
    actor = plain["actor_rollout_ref"]["actor"]
    if actor["loss_agg_mode"] == "seq-mean-token-sum-norm" and actor["loss_scale_factor"] is None:
        raise ConfigError(
            "loss_agg_mode=seq-mean-token-sum-norm divides by the width of each micro-batch, so that the gradient "
            "depends on how rows are cut into them; set actor_rollout_ref.actor.loss_scale_factor to one constant, "
            f"such as data.max_response_length={plain['data']['max_response_length']}"
        )
    _check_idle_keys(actor, plain["actor_rollout_ref"]["rollout"]["val_kwargs"])
    if (plain["algorithm"].get("rollout_correction") or {}).get("bypass_mode", False):
        _check_bypass(settings)


def _check_idle_keys(actor: dict[str, Any], validation: dict[str, Any]) -> None:
    """Keys of verl that its trainer does not read: a value that says something else would silently have no effect."""
    bounds = (actor["clip_ratio_low"], actor["clip_ratio_high"])
    if actor["clip_ratio"] not in (_CLIP_RATIO, *bounds):
        raise ConfigError(
            f"actor_rollout_ref.actor.clip_ratio={actor['clip_ratio']} has no effect: verl reads clip_ratio_low="
            f"{bounds[0]} and clip_ratio_high={bounds[1]}; set these"
        )
    if not validation["do_sample"] and validation["temperature"] != 0:
        raise ConfigError(
            "actor_rollout_ref.rollout.val_kwargs.do_sample=false has no effect: verl's agent loop reads the "
            f"temperature alone, which is {validation['temperature']}; set val_kwargs.temperature=0"
        )


def check_fused(plain: dict[str, Any], model: Any) -> None:
    """Refuse verl's fused output layer where FSDP2 has it sharded on its own; `model`: Hugging Face's configuration."""
    part, actor = plain["actor_rollout_ref"]["model"], plain["actor_rollout_ref"]["actor"]
    if part["use_fused_kernels"] and actor["strategy"] == "fsdp2" and not getattr(model, "tie_word_embeddings", False):
        raise ConfigError(
            "actor_rollout_ref.model.use_fused_kernels=true multiplies with the output embedding itself, of which this "
            "model under fsdp2 has a shard on each GPU (only a tied one is whole there); set it to false"
        )


def check_ranks(plain: dict[str, Any]) -> None:
    """Numbers of GPUs that verl refuses only after models are loaded, or after the first rollout."""
    trainer, parts, rollout = plain["trainer"], plain["actor_rollout_ref"], plain["actor_rollout_ref"]["rollout"]
    ranks = trainer["nnodes"] * trainer["n_gpus_per_node"]
    engine = [rollout.get(f"{kind}_parallel_size") or 1 for kind in ("tensor_model", "data", "pipeline_model")]
    if ranks % math.prod(engine):
        raise ConfigError(
            f"{ranks} GPUs (trainer.nnodes x n_gpus_per_node) cannot be cut into rollout engines of "
            f"{math.prod(engine)} (rollout.tensor_model_parallel_size, data_ and pipeline_); change one of them"
        )
    updated = {"actor_rollout_ref.actor": parts["actor"]}
    if plain["algorithm"]["adv_estimator"] == "gae":
        updated["critic"] = plain["critic"]
    for name, part in updated.items():
        groups = ranks // (part.get("ulysses_sequence_parallel_size") or 1)
        if groups and part["ppo_mini_batch_size"] * rollout["n"] % groups:
            raise ConfigError(
                f"{name}.ppo_mini_batch_size={part['ppo_mini_batch_size']} x rollout.n={rollout['n']} rows of an "
                f"update cannot be shared out evenly to {groups} ranks; change one of them or the number of GPUs"
            )


def _check_bypass(settings: Settings) -> None:
    """In this mode the old log-probabilities are the rollout engine's, and the actor scores nothing beforehand."""
    found = settings.distillation
    if found is None:
        return
    reasons = {
        f"sdar.distillation.gate={found.gate} needs the actor's entropy, which it never computes": (
            "entropy" in found.needs
        ),
        "sdar.distillation.place=advantage takes the gap to the old log-probabilities": found.place == "advantage",
        "sdar.distillation.gate_baseline=mean likewise": found.gate_baseline == "mean",
        "sdar.teacher.placement=rollout adds its gap to them": settings.teacher.placement == "rollout",
    }
    if wrong := [reason for reason, holds in reasons.items() if holds]:
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode=true takes the rollout engine's log-probabilities for the "
            f"actor's, and {'; '.join(wrong)}; set it to false"
        )


def check_checkpoints(plain: dict[str, Any], settings: Settings) -> None:
    """What an upload to S3 asks of verl's own way to save, and one rule at a time for when to save."""
    trainer, checkpoint = plain["trainer"], plain["actor_rollout_ref"]["actor"]["checkpoint"]
    if settings.spot.mtbf_hours is not None and trainer["save_freq"] > 0:
        raise ConfigError(
            f"sdar.spot.mtbf_hours and trainer.save_freq={trainer['save_freq']} each say when to save; set one of them "
            "to null or -1"
        )
    if settings.checkpoints.s3 is None:
        return
    _require(
        "sdar.checkpoints.s3",
        {
            "actor_rollout_ref.actor.checkpoint.async_save=false": bool(checkpoint.get("async_save")),
            "trainer.del_local_ckpt_after_load=false": bool(trainer["del_local_ckpt_after_load"]),
            "a run folder that all nodes share, and sdar.checkpoints.shared_folder=true (each node writes its own "
            "ranks)": trainer["nnodes"] > 1 and not settings.checkpoints.shared_folder,
        },
    )


def check_teacher(plain: dict[str, Any], settings: Settings) -> None:
    """What the teacher's weights and its divergence ask of actor and reference model."""
    if settings.distillation is None:
        return
    if "demonstration" in settings.context.parts and plain["actor_rollout_ref"]["rollout"]["n"] < 2:
        raise ConfigError(
            "sdar.context.parts holds demonstration, which is another episode of the same task; set "
            "actor_rollout_ref.rollout.n to 2 or more"
        )
    model, actor, ref = (plain["actor_rollout_ref"][part] for part in ("model", "actor", "ref"))
    reference = actor["use_kl_loss"] or plain["algorithm"]["use_kl_in_reward"]
    if settings.teacher.placement == "ref" and not reference:
        raise ConfigError(
            "sdar.teacher.placement=ref scores with the reference policy, but the run has none; set "
            "actor_rollout_ref.actor.use_kl_loss=true (its coefficient may be 0) or placement=actor"
        )
    pushed = settings.teacher.placement == "server" and settings.teacher.update_rate is not None
    if pushed and not reference:
        raise ConfigError(
            "sdar.teacher.update_rate keeps its average in the reference model, but the run has none; set "
            "actor_rollout_ref.actor.use_kl_loss=true with kl_loss_coef=0"
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
    no_kl = {
        "actor_rollout_ref.actor.kl_loss_coef=0 (the KL term would be to the teacher)": (
            actor["use_kl_loss"] and actor["kl_loss_coef"] != 0
        ),
        "algorithm.use_kl_in_reward=false (likewise)": plain["algorithm"]["use_kl_in_reward"],
    }
    if settings.teacher.update_rate is not None:
        precise = ref["fsdp_config"]["model_dtype"] in ("fp32", "float32")
        small = {"actor_rollout_ref.ref.fsdp_config.model_dtype=fp32 (a small step is lost in bfloat16)": not precise}
        alone = {**no_adapters, **small, **no_kl} if pushed or not adapters else {}
        _require("sdar.teacher.update_rate", {**fsdp2, **alone})
    if settings.teacher.trust_region is not None:
        _require("sdar.teacher.trust_region", {**fsdp2, **no_adapters})
    if settings.teacher.model_path is not None and settings.teacher.placement == "ref":
        _require("sdar.teacher.model_path", {**no_adapters, **no_kl})
    if settings.teacher.placement not in ("actor", "ref"):
        _check_engine(plain, settings, reference)


def _check_engine(plain: dict[str, Any], settings: Settings, reference: bool) -> None:
    """What scores of a vLLM engine ask of the rollout's settings: they are at temperature 1, and nothing changes it."""
    rollout, placement = plain["actor_rollout_ref"]["rollout"], settings.teacher.placement
    problems = {
        "actor_rollout_ref.rollout.temperature=1 (vLLM gives a prompt's log-probabilities at temperature 1 alone, and "
        f"the student's are at {rollout['temperature']})": rollout["temperature"] != 1,
    }
    if placement == "rollout":
        longest = longest_request(settings, rollout["response_length"])
        problems |= {
            "actor_rollout_ref.rollout.name=vllm": rollout["name"] not in ("vllm", "vllm_cpu"),
            "actor_rollout_ref.rollout.calculate_log_probs=true": not rollout["calculate_log_probs"],
            "actor_rollout_ref.rollout.top_p=1 and top_k=-1 (others change the samples' log-probabilities)": (
                rollout["top_p"] != 1 or rollout["top_k"] not in (-1, 0)
            ),
            "actor_rollout_ref.rollout.repetition_penalty=1": rollout.get("repetition_penalty", 1) != 1,
            f"actor_rollout_ref.rollout.max_model_len={longest} or more (privileged prompt, response and one token)": (
                rollout["max_model_len"] is not None and rollout["max_model_len"] < longest
            ),
        }
        if plain["trainer"]["device"] != "cpu" and (rollout["max_num_batched_tokens"] or 0) > _PREFILL_TOKENS:
            print(
                "[sdar] WARNING: sdar.teacher.placement=rollout forms the logits of whole prompts beside the model; "
                "vLLM reserves no memory for them; set actor_rollout_ref.rollout.max_num_batched_tokens="
                f"{_PREFILL_TOKENS}",
                flush=True,
            )
    elif settings.teacher.remote.on_failure == "fallback":
        problems[
            "actor_rollout_ref.actor.use_kl_loss=true (its coefficient may be 0) for on_failure=fallback"
        ] = not reference
    _require(f"sdar.teacher.placement={placement}", problems)


def _require(who: str, problems: dict[str, bool]) -> None:
    wrong = [what for what, found in problems.items() if found]
    if wrong:
        raise ConfigError(f"{who} needs {'; '.join(wrong)}")
