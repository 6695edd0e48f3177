"""Checks before anything starts. Each raises `PreflightError` with what is missing and what to do, or returns None."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdar_verl import host
from sdar_verl.errors import SdarError


class PreflightError(SdarError):
    """The machine, the cluster or the run folder cannot carry the run; the text is ``<problem>; <advice>``."""

    def __init__(self, problem: str, advice: str):
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem}; {self.advice}"


def require_memory(needed_gib: float) -> None:
    """Refuse when less than `needed_gib` GiB of memory can be had (control-group limits included)."""
    have = host.available_memory() / host.GIB
    if have < needed_gib:
        raise PreflightError(
            f"{needed_gib:g} GiB of memory are needed, {have:.1f} GiB are free",
            "close other programs, use a smaller model or fewer environment workers",
        )


def require_disk(path: Path | str, needed_gib: float, why: str = "") -> None:
    """Refuse when the disk under `path` has less than `needed_gib` GiB left; `path` need not exist yet.

    `why` follows in the message what is free.
    """
    have = host.free_disk(path) / host.GIB
    if have < needed_gib:
        raise PreflightError(
            f"{needed_gib:.4g} GiB of disk are needed under {path}, {have:.1f} GiB are free{why}",
            "make room, choose another folder or keep fewer checkpoints",
        )


def require_shared_memory(needed_gib: float) -> None:
    """Refuse when /dev/shm has less than `needed_gib` GiB left; Ray's object store and weight sync live there."""
    free = host.free_shared_memory()
    if free is None:
        raise PreflightError("there is no /dev/shm", "run on Linux: Ray and the weight sync need it")
    if free / host.GIB < needed_gib:
        raise PreflightError(
            f"{needed_gib:g} GiB of shared memory are needed, /dev/shm has {free / host.GIB:.2f} GiB free",
            "in a container start it with a larger one (docker run --shm-size), else remount /dev/shm larger",
        )


def require_open_files(needed: int) -> None:
    """Refuse when this process may open fewer than `needed` files."""
    soft, hard = host.open_files_limit()
    if soft < needed:
        advice = f"run `ulimit -n {needed}` first" if hard >= needed else "raise the hard limit of open files (nofile)"
        raise PreflightError(f"{needed} open files are needed, the limit is {soft}", advice)


def require_free_port(port: int, address: str = "127.0.0.1") -> None:
    """Refuse when `port` is taken, so that two runs do not talk to each other's services."""
    if not 1 <= port <= 65535:
        raise PreflightError(f"{port} is no port", "give a number from 1 to 65535")
    if not host.port_is_free(port, address):
        raise PreflightError(f"port {port} on {address} is in use", "stop the program that holds it or choose another")


def require_reachable(address: str) -> None:
    """Refuse when nothing answers at `address`, written ``host:port``."""
    name, separator, port = address.rpartition(":")
    if not separator or not name or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise PreflightError(f"{address!r} is no address", "write it as host:port")
    if problem := host.answers(name.strip("[]"), int(port)):
        raise PreflightError(f"nothing answers at {address} ({problem})", "start it there or correct the address")


def require_resources(needed: Mapping[str, float], available: Mapping[str, float]) -> None:
    """Refuse at once when a Ray cluster can never place the run, instead of waiting for ever.

    Args:
        needed: resource name to amount, for example ``{"CPU": 12, "GPU": 8}``.
        available: what the cluster has, as ``ray.cluster_resources()`` tells it.
    """
    short = {name: amount for name, amount in needed.items() if available.get(name, 0) < amount}
    if short:
        listing = ", ".join(f"{n} {amount:g} needed, {available.get(n, 0):g} there" for n, amount in short.items())
        raise PreflightError(
            f"the Ray cluster is too small: {listing}",
            "add nodes, join another cluster, "
            "or lower trainer.n_gpus_per_node, trainer.nnodes, actor_rollout_ref.rollout.agent.num_workers or "
            "transfer_queue.backend.SimpleStorage.num_data_storage_units",
        )
