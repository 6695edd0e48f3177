"""The guards of one run: asked after every step, written to ``guards.jsonl``, printed when something is new."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar_verl.compat.run_metrics import number_of
from sdar_verl.evaluation.jsonl import JsonlWriter, read_lines
from sdar_verl.guards import FILE, GUARDS, GuardSettings, GuardStop, blind, evaluate, to_line


class RunGuards:
    """Attributes:
    stop: the error that ends the run, once a guard told to stop has found something; None before.
    """

    def __init__(self, run_dir: Path, settings: Mapping[str, GuardSettings]):
        """Takes up what an interrupted run wrote: call it after later steps were dropped from its files."""
        self.path, self.settings = run_dir / FILE, settings
        self.stop: GuardStop | None = None
        self._history: dict[int, dict[str, float]] = {}
        self._said: set[str] = set()
        self._told_blind = False
        metrics = run_dir / "metrics.jsonl"
        for line in read_lines(metrics) if metrics.is_file() else ():
            if line["step"] > 0:
                self._remember(line["step"], line["data"])

    def look(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Ask all guards about a finished update.

        Returns:
            ``guard/<name>``: 1.0 where the guard found something in this step, else 0.0.
        """
        self._remember(step, metrics)
        findings = evaluate(self._history, self.settings)
        if findings:
            with JsonlWriter(self.path) as writer:
                for finding in findings:
                    writer.write(to_line(finding))
        for finding in findings:
            if finding.guard not in self._said:
                print(f"[sdar] step {step}: guard {finding.guard}: {finding.message}", flush=True)
        self._said = {finding.guard for finding in findings}
        self._tell_blind(step)
        stopping = [finding for finding in findings if finding.action == "stop"]
        if stopping:
            reasons = "; ".join(f"{finding.guard}: {finding.message}" for finding in stopping)
            self.stop = GuardStop(
                f"step {step}: {reasons}. Its checkpoint is saved; the same command goes on from there with "
                f"sdar.guards.{stopping[0].guard}.action=warn or another limit"
            )
        return {f"guard/{name}": float(name in self._said) for name in self.settings}

    def _remember(self, step: int, metrics: Mapping[str, Any]) -> None:
        wanted = {name for guard in GUARDS.values() for name in guard.metrics}
        numbers = {name: number_of(metrics[name]) for name in wanted & metrics.keys()}
        self._history.setdefault(step, {}).update({k: v for k, v in numbers.items() if v is not None})

    def _tell_blind(self, step: int) -> None:
        if self._told_blind:
            return
        self._told_blind = True
        for name, missing in blind(self._history, self.settings).items():
            print(
                f"[sdar] step {step}: guard {name} cannot see: {', '.join(missing)} is not measured in this run",
                flush=True,
            )
