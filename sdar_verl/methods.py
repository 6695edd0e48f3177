"""The methods that ship, read from their configurations: what each is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdar_verl.errors import ConfigError

CONFIG = Path(__file__).parent / "config"


@dataclass(frozen=True)
class MethodParts:
    """Attributes:
    name: as in ``method=<name>``.
    about: the comment at the head of its file.
    student: what the student is shown beside the task.
    teacher: what the teacher is shown.
    weights: whose weights it has.
    compared: how teacher and student are compared.
    weighed: by what each token is weighed.
    enters: where the result goes.
    """

    name: str
    about: str
    student: str
    teacher: str
    weights: str
    compared: str
    weighed: str
    enters: str


def names() -> list[str]:
    """All methods, in the order of the alphabet."""
    return sorted(path.stem for path in (CONFIG / "method").glob("*.yaml"))


def source(name: str) -> str:
    """The method's file; raises `ConfigError` naming the known ones."""
    if name not in names():
        raise ConfigError(f"there is no method {name!r}; known: {', '.join(names())}")
    return (CONFIG / "method" / f"{name}.yaml").read_text(encoding="utf-8")


def compose(name: str) -> DictConfig:
    """The whole configuration of ``sdar train method=<name>``, unresolved."""
    return composed([f"method={name}"])


def composed(overrides: Sequence[str]) -> DictConfig:
    """The whole configuration of ``sdar train OVERRIDES``, unresolved; raises Hydra's own errors."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    import sdar_verl.train  # noqa: F401 - registers the resolver that finds verl's configuration

    with initialize_config_dir(str(CONFIG), version_base=None):
        return hydra_compose("sdar", overrides=list(overrides))


def parts(name: str) -> MethodParts:
    """What ``method=<name>`` is made of, in words."""
    about = [line[2:] for line in source(name).splitlines() if line.startswith("# ") and "@package" not in line]
    config = compose(name)
    sdar = OmegaConf.to_container(config.sdar, resolve=False)
    term = sdar["distillation"]
    seen = {"none": "–", "train": "skills in training", "always": "skills"}[sdar["skills"]["student"]]
    if not term["enabled"]:
        enters = (
            f"step-level advantages, weight {sdar['step_groups']['weight']:g}" if sdar["step_groups"]["weight"] else "–"
        )
        return MethodParts(name, " ".join(about), seen, "–", "–", "–", "–", enters)
    return MethodParts(
        name=name,
        about=" ".join(about),
        student=seen,
        teacher=_context(sdar),
        weights=_weights(sdar["teacher"]),
        compared=_compared(term),
        weighed=_weighed(term),
        enters=_enters(term),
    )


def _context(sdar: dict[str, Any]) -> str:
    shown = [
        f"skills ({sdar['skills']['retriever']})" if part == "skills" else part for part in sdar["context"]["parts"]
    ]
    rule = sdar["context"]["environment_feedback_only_without_solution"]
    return (", else " if rule and "feedback" in shown else ", ").join(shown) or "–"


def _weights(teacher: dict[str, Any]) -> str:
    if teacher["placement"] in ("actor", "rollout"):
        return "policy"
    if teacher["update_rate"] is not None:
        return f"moving average, rate {teacher['update_rate']:g}"
    if teacher["trust_region"] is not None:
        return f"initial, {teacher['trust_region']:g} of the policy's logits"
    return "initial" if teacher["model_path"] is None else "another model"


def _compared(term: dict[str, Any]) -> str:
    if term["place"] == "advantage":
        return "sampled token"
    kind = {"sampled_token": "sampled token", "k3": "k3", "full": "whole distribution", "topk": f"top {term['topk']}"}
    if term["divergence"] not in ("full", "topk"):
        return kind[term["divergence"]]
    direction = {0.0: "forward KL", 1.0: "reverse KL"}.get(float(term["alpha"]), f"Jensen-Shannon {term['alpha']:g}")
    return f"{kind[term['divergence']]}, {direction}"


def _weighed(term: dict[str, Any]) -> str:
    by = [] if term["gate"] == "none" else [f"{term['gate']} gate"]
    by += [] if term["importance_ratio"] == "none" else ["importance ratio"]
    return ", ".join(by) or "–"


def _enters(term: dict[str, Any]) -> str:
    alone = "" if term["rl"] else " alone"
    where = "loss" if term["place"] == "loss" else f"advantage ({term['advantage']})"
    fade = "" if term["schedule"]["name"] == "constant" else f", {term['schedule']['name']}"
    return f"{where}{alone}, λ {term['coef']:g}{fade}"
