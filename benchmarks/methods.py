"""What each method adds to GRPO on the same rows: ``python benchmarks/methods.py``.

Plays generated games once with the shipped model, then makes the training step of each method on those rows, in one
fresh process for each method and repeat, by turns, at learning rate 0: the project's own trainer, worker and loss with
verl's FSDP2 engine, without Ray and without a rollout engine. Prints CPU seconds of each phase (they depend little on
other work on the machine), the ratio of the steps, and the memory. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from _rows import configuration, play
from matplotlib import rc_context
from matplotlib.figure import Figure
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sdar_verl import methods
from sdar_verl.lab import WEIGHTS
from sdar_verl.report.style import COLOURS, STYLE, png
from sdar_verl.teacher_model import tokenizer_difference

BASE = "grpo"
PHASES = ("old", "ref", "teacher", "advantage", "update")
RECORDER = "sdpo"  # its rows keep what every method's prompts can be made from


def child(pipe: Connection, log: Path, *work: Any) -> None:
    """Body of a measuring process; everything that is printed goes to `log`."""
    with log.open("wb") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    from _step import measure  # imports verl, which only these processes do

    pipe.send(measure(*work))


def run(context: Any, log: Path, *work: Any) -> dict[str, Any]:
    """`_step.measure` in a process of its own; raises `RuntimeError` with its last words if it fails."""
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(send, log, *work))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        process.join()
        words = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""
        raise RuntimeError(f"the process ended with code {process.exitcode}:\n{words}") from None
    finally:
        process.join()


def measure_all(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What every process found, by method; the first is GRPO."""
    names = [BASE, *(name for name in args.methods or methods.names() if name != BASE)]
    torch.set_num_threads(args.threads)
    model = wide_model(args.vocab, folder / "model") if args.vocab else args.model.absolute()
    if difference := tokenizer_difference(*map(AutoTokenizer.from_pretrained, (WEIGHTS, model))):
        raise SystemExit(f"{model} cannot read the rows, which the shipped model plays: {difference}")
    configs = {name: configuration(name, model, folder, args.overrides) for name in names}
    episodes = play(configuration(RECORDER, WEIGHTS, folder, args.overrides), args.rows, args.seed, folder)
    print(f"{len(episodes)} episodes, {sum(len(e.played.rows) for e in episodes)} rows", flush=True)
    os.environ.update(VERL_PLATFORM="cpu", OMP_NUM_THREADS=str(args.threads), PYTHONWARNINGS="ignore")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sdar_verl.compat.trainer", "sdar_verl.compat.cpu.workers"])  # imported once
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for repeat in range(args.repeats):
        for name in names if repeat % 2 == 0 else names[::-1]:
            result = run(context, folder / f"{name}.log", configs[name], episodes, args.passes, args.threads)
            found[name].append(result)
            print(f"repeat {repeat + 1}: {name:<12}{total(result, 'cpu'):8.2f} CPU seconds a step", flush=True)
    return found


def wide_model(vocab: int, folder: Path) -> Path:
    """The shipped model's shape with random weights and a vocabulary of `vocab`."""
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    if vocab < len(tokenizer):
        raise SystemExit(f"--vocab {vocab} is less than the {len(tokenizer)} tokens of the shipped tokenizer")
    config = AutoConfig.from_pretrained(WEIGHTS, vocab_size=vocab)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def phase(result: dict[str, Any], name: str, clock: str) -> float:
    """Least over the passes of one process, in seconds: other work on the machine only ever adds."""
    return min(costs.get(name, {}).get(clock, 0.0) for costs in result["passes"])


def total(result: dict[str, Any], clock: str) -> float:
    return min(sum(cost[clock] for cost in costs.values()) for costs in result["passes"])


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Medians over the repeats; each repeat's ratio is to GRPO of the same repeat."""
    numbers: dict[str, dict[str, Any]] = {}
    peaks = {name: statistics.median(max(r["peak_mib"].values()) for r in results) for name, results in found.items()}
    updates = {name: statistics.median(r["peak_mib"]["update"] for r in results) for name, results in found.items()}
    for name, results in found.items():
        entry: dict[str, Any] = {key: statistics.median(phase(r, key, "cpu") for r in results) for key in PHASES}
        for clock in ("cpu", "wall"):
            ratios = [total(r, clock) / total(b, clock) for r, b in zip(results, found[BASE], strict=True)]
            entry[f"{clock}_ratio"] = statistics.median(ratios)
            entry[f"{clock}_ratio_range"] = [min(ratios), max(ratios)]
        entry["total"] = statistics.median(total(r, "cpu") for r in results)
        entry["peak_mib_above"], entry["update_mib_above"] = peaks[name] - peaks[BASE], updates[name] - updates[BASE]
        for key in ("rows", "student_tokens", "teacher_prompt_tokens", "taught_share"):
            entry[key] = results[0][key]
        numbers[name] = entry
    return numbers


def show(numbers: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'CPU seconds a step':<19}" + "".join(f"{name:>10}" for name in PHASES) + f"{'total':>8}", end="")
    print(f"{'ratio':>7}{'from–to':>13}{'wall':>6}{'MiB above':>11}{'in update':>11}{'prompt':>8}{'taught':>8}")
    for name, entry in numbers.items():
        seconds = "".join(f"{entry[key]:>10.2f}" if entry[key] else f"{'–':>10}" for key in PHASES)
        low, high = entry["cpu_ratio_range"]
        print(
            f"{name:<19}{seconds}{entry['total']:>8.2f}{entry['cpu_ratio']:>7.2f}{f'{low:.2f}–{high:.2f}':>13}", end=""
        )
        print(f"{entry['wall_ratio']:>6.2f}{entry['peak_mib_above']:>11.0f}{entry['update_mib_above']:>11.0f}", end="")
        prompt, taught = entry["teacher_prompt_tokens"], entry["taught_share"]
        print(f"{prompt:>8.0f}{taught:>8.0%}" if prompt else f"{'–':>8}{'–':>8}")


def bars(numbers: dict[str, dict[str, Any]]) -> Figure:
    """Stacked bars of the phases, and the memory beside them."""
    names = sorted(numbers, key=lambda name: numbers[name]["cpu_ratio"], reverse=True)
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 1.6 + 0.36 * len(names)), layout="constrained")
        time, memory = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        left = [0.0] * len(names)
        for key, colour in zip(PHASES, COLOURS, strict=False):
            width = [numbers[name][key] for name in names]
            time.barh(names, width, left=left, color=colour, label=key, height=0.7)
            left = [a + b for a, b in zip(left, width, strict=True)]
        for at, name in enumerate(names):
            time.text(left[at], at, f" {numbers[name]['cpu_ratio']:.2f}×", va="center")
        time.set_xlim(0, max(left) * 1.12)
        time.set_title("CPU seconds of a training step without rollout, and its ratio to GRPO's")
        figure.legend(*time.get_legend_handles_labels(), loc="outside lower left", ncols=len(PHASES))
        above = [numbers[name]["update_mib_above"] for name in names]
        memory.barh(names, above, color=COLOURS[-1], height=0.7)
        memory.axvline(0, color="#3b4654", linewidth=1)
        memory.set_title("MiB above GRPO in the update")
        for panel in (time, memory):
            panel.grid(axis="y", visible=False)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=methods.names(), help=f"beside {BASE}; all unless given")
    parser.add_argument("--rows", type=int, default=96, help="at least so many rows; whole groups are played")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each method, by turns")
    parser.add_argument("--passes", type=int, default=3, help="timed steps of each process, after one that warms up")
    parser.add_argument("--threads", type=int, default=1, help="of torch; with one, CPU time holds no waiting")
    parser.add_argument("--model", type=Path, default=WEIGHTS, help="folder of the measured model, with its tokenizer")
    parser.add_argument("--vocab", type=int, help="measure random weights with so large a vocabulary instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--plot", type=Path, help="also draw them into this PNG file")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for all methods, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sdar-bench-") as folder:
        found = measure_all(args, Path(folder))
    numbers = summary(found)
    show(numbers)
    if args.json:
        args.json.write_text(json.dumps({"summary": numbers, "processes": found}, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        args.plot.write_bytes(png(bars(numbers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
