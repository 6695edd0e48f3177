"""Does SDAR's gradient mean what its theory says? ``python benchmarks/gradients.py start trained=<checkpoint>``

The theory: for sampled tokens y with gap d = log p_teacher(y) - log p_student(y), the expected gradient of the gated
term, E[sigmoid(b d) grad log p(y)], is E[(sigmoid(b d) - 1/2) grad log p(y)] because E[grad log p] = 0, and for small
gaps (b/4) E[d grad log p(y)], the reverse KL's.

For each set of weights: plays generated ALFWorld games in the lab's setting, forms both gradients **exactly** (summed
over the vocabulary at each visited position, no sampling noise), and compares them. Then the gradients that sampled
tokens give, in updates of 24 rows, for each ``gate_baseline``: how much of them is noise. And how large the term is
beside GRPO's gradient. PyTorch alone plays and differentiates; no Ray, no vLLM.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from _rows import Episode, configuration, parts, play
from matplotlib import rc_context
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sdar_verl.agent.rows import Row
from sdar_verl.lab import WEIGHTS
from sdar_verl.report.style import COLOURS, STYLE, png

START = "start"
UPDATE = 24  # rows of an update in the lab
Numbers = dict[str, float | None]
BASELINES = ("none", "half", "mean")
OWN_GAMES = 30_000  # added to the seed: none of the lab's other games


@dataclass(frozen=True)
class Batch:
    """Rows of one update, the response tokens of all of them one after the other.

    Attributes:
        student, teacher: ids ``(rows, length)`` padded on the right, and where the logits of response tokens lie.
        tokens: the response tokens ``(T,)``.
        advantages: GRPO's, of each of them ``(T,)``.
    """

    student: tuple[torch.Tensor, torch.Tensor]
    teacher: tuple[torch.Tensor, torch.Tensor]
    tokens: torch.Tensor
    advantages: torch.Tensor


def load(folder: Path) -> PreTrainedModel:
    """A model's folder, or a checkpoint ``global_step_<n>`` that one rank saved."""
    if not (folder / "actor").is_dir():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    shards = sorted((folder / "actor").glob("model_world_size_*.pt"))
    if [shard.name for shard in shards] != ["model_world_size_1_rank_0.pt"]:
        raise SystemExit(f"{folder} has {len(shards)} shards; this reads one: merge them (python -m verl.model_merger)")
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    state = torch.load(shards[0], map_location="cpu", weights_only=False)
    model.load_state_dict({name: getattr(value, "_local_tensor", value) for name, value in state.items()})
    return model


def advantages(episodes: list[Episode]) -> dict[int, float]:
    """GRPO's for each episode, by its number: (reward - mean) / (deviation + 1e-6) in its group."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, episode in enumerate(episodes):
        groups[episode.who.uid].append(number)
    found = {}
    for members in groups.values():
        rewards = torch.tensor([episodes[number].played.record.reward for number in members])
        scaled = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        found.update(zip(members, scaled.tolist(), strict=True))
    return found


def batches(episodes: list[Episode], seed: int) -> list[Batch]:
    """All rows in a random order, in updates of 24; what is left over is not used."""
    scaled = advantages(episodes)
    rows = [(row, scaled[number]) for number, episode in enumerate(episodes) for row in episode.played.rows]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    whole = range(0, len(rows) - UPDATE + 1, UPDATE)
    return [pack([rows[number] for number in order[at : at + UPDATE]]) for at in whole]


def pack(rows: list[tuple[Row, float]]) -> Batch:
    def inputs(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = [torch.tensor(prompt + row.response_ids) for prompt, (row, _) in zip(prompts, rows, strict=True)]
        where = [torch.zeros(len(line), dtype=torch.bool) for line in ids]
        for line, prompt in zip(where, prompts, strict=True):
            line[len(prompt) - 1 : -1] = True  # a token's logits are those at the position before it
        pad = torch.nn.utils.rnn.pad_sequence
        return pad(ids, batch_first=True), pad(where, batch_first=True)

    lengths = torch.tensor([len(row.response_ids) for row, _ in rows])
    return Batch(
        inputs([row.prompt_ids for row, _ in rows]),
        inputs([row.teacher_prompt_ids for row, _ in rows]),
        torch.tensor([token for row, _ in rows for token in row.response_ids]),
        torch.tensor([scaled for _, scaled in rows]).repeat_interleave(lengths),
    )


def log_probs(model: PreTrainedModel, inputs: tuple[torch.Tensor, torch.Tensor], temperature: float) -> torch.Tensor:
    """Log-probabilities (nats) of all words at each response token, ``(T, V)``."""
    ids, where = inputs
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    return (model.lm_head(hidden[where]) / temperature).log_softmax(-1)


def measure(model: PreTrainedModel, work: list[Batch], temperature: float, beta: float, coef: float) -> Numbers:
    """What one set of weights gives; see the columns of `show`."""
    weights = [value for value in model.parameters() if value.requires_grad]

    def gradient(value: torch.Tensor) -> torch.Tensor:
        parts = torch.autograd.grad(value, weights, retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    sums: dict[str, torch.Tensor] = {}
    updates: dict[str, list[torch.Tensor]] = defaultdict(list)
    gaps = []
    for batch in work:
        with torch.no_grad():
            teacher = log_probs(model, batch.teacher, temperature)
        student = log_probs(model, batch.student, temperature)
        with torch.no_grad():
            every = teacher - student
            gap = every.gather(-1, batch.tokens[:, None])[:, 0]
            gate = torch.sigmoid(beta * gap)
            exact = {"gate": torch.sigmoid(beta * every) - 0.5, "linear": beta / 4 * every}
            sampled = {"none": gate, "half": gate - 0.5, "ones": torch.ones_like(gate), "grpo": batch.advantages}
        gaps.append(gap)
        own = student.gather(-1, batch.tokens[:, None])[:, 0]
        for name, weight in exact.items():
            found = gradient((student.detach().exp() * weight * student).sum(-1).mean())
            sums[name] = sums.get(name, 0) + found / len(work)
        for name, weight in sampled.items():
            updates[name].append(gradient((weight * own).mean()))
    gap = torch.cat(gaps)
    level = float(torch.sigmoid(beta * gap).mean())
    updates["mean"] = [one - level * other for one, other in zip(updates["none"], updates.pop("ones"), strict=True)]
    signal = sums["gate"].norm()
    grpo = torch.stack(updates["grpo"]).mean(0)
    result = {
        "tokens": len(gap),
        "gap_mean": float(gap.mean()),
        "gap_abs": float(gap.abs().mean()),
        "gap_below_0": float((gap < 0).float().mean()),
        "gate_mean": level,
        "cosine": cosine(sums["gate"], sums["linear"]),
        "ratio": float(signal / sums["linear"].norm()),
        # no numbers where all episodes of each group ended alike
        "term_to_grpo": float(coef * torch.stack(updates["none"]).mean(0).norm() / grpo.norm()) if grpo.any() else None,
        "cosine_to_grpo": cosine(sums["gate"], grpo) if grpo.any() else None,
    }
    for name in BASELINES:
        found = torch.stack(updates[name])
        result[f"noise_{name}"] = float((found - found.mean(0)).square().sum(-1).sum() / (len(found) - 1) / signal**2)
    return result


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def show(found: dict[str, Numbers]) -> None:
    columns = {
        "gap_mean": "gap", "gap_abs": "|gap|", "gap_below_0": "below 0", "gate_mean": "gate", "cosine": "cosine",
        "ratio": "ratio", "noise_none": "noise none", "noise_half": "half", "noise_mean": "mean",
        "term_to_grpo": "term/GRPO", "cosine_to_grpo": "cosine",
    }  # fmt: skip
    print(f"{'':<14}{'tokens':>8}" + "".join(f"{name:>11}" for name in columns.values()))
    for name, numbers in found.items():
        print(f"{name:<14}{numbers['tokens']:>8}" + "".join(cell(numbers[key]) for key in columns))


def cell(value: float | None) -> str:
    return f"{'–':>11}" if value is None else f"{value:>11.4g}"


def draw(found: dict[str, Numbers]) -> Figure:
    """Three panels over the sets of weights: theory against measurement, noise by baseline, gaps."""
    names = list(found)
    panels = {
        "exact gradient: gated term and reverse KL": {"cosine": "cosine", "ratio": "ratio of norms (theory: 1)"},
        "noise of an update / signal": {f"noise_{name}": f"gate_baseline={name}" for name in BASELINES},
        "the gap (nats)": {"gap_mean": "mean", "gap_abs": "mean of its size"},
    }
    with rc_context(STYLE):
        figure = Figure(figsize=(13, 3.6), layout="constrained")
        for axes, (title, lines) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            for colour, (key, label) in zip(COLOURS, lines.items(), strict=False):
                axes.plot(names, [found[name][key] for name in names], "o-", color=colour, label=label)
            axes.set_title(title)
            axes.tick_params(axis="x", rotation=45 if len(names) > 5 else 0)
            axes.legend()
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help=f"NAME=FOLDER of a model or checkpoint; {START}: the shipped model")
    parser.add_argument("--rows", type=int, default=600, help="at least so many turns; whole groups are played")
    parser.add_argument("--seed", type=int, default=0, help="of the games and of the sampling")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--plot", type=Path, help="also draw them into this PNG file")
    args = parser.parse_args()
    found = {}
    for given in args.weights:
        name, _, folder = given.partition("=") if given != START else (START, "", str(WEIGHTS))
        if not Path(folder).is_dir() or not folder:
            parser.error(f"{given}: name a set of weights as NAME=FOLDER, or {START}")
        model = load(Path(folder)).eval()
        with tempfile.TemporaryDirectory(prefix="sdar-bench-") as scratch:
            config = configuration("sdar", WEIGHTS, Path(scratch), [])
            settings, _ = parts(config, AutoTokenizer.from_pretrained(WEIGHTS))
            episodes = play(config, args.rows, OWN_GAMES + args.seed, Path(scratch), model)
        term, temperature = settings.distillation, config.actor_rollout_ref.rollout.temperature
        print(f"{name}: {len(episodes)} episodes, {sum(e.played.record.won for e in episodes)} won", flush=True)
        found[name] = measure(model, batches(episodes, args.seed), temperature, term.beta, term.coef)
    show(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        args.plot.write_bytes(png(draw(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
