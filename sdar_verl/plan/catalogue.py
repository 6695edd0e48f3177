"""Instances and their prices: dated facts, each with its source, that a file of one's own overrides."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from sdar_verl.plan.units import MIB, PlanError, shipped

OLD_DAYS = 90
MARKETS = ("on_demand", "spot", "capacity_block")
_SHORT = {"p4d": "p4d.24xlarge", "p4de": "p4de.24xlarge", "p5": "p5.48xlarge", "p5e": "p5e.48xlarge",
          "p5en": "p5en.48xlarge", "p6-b200": "p6-b200.48xlarge", "p6-b300": "p6-b300.48xlarge"}  # fmt: skip


@dataclass(frozen=True)
class Price:
    """USD an hour for the whole instance; `low` and `high` where zones differed."""

    usd: float
    region: str
    as_of: date
    source: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Instance:
    """One type; `prices` by market (`MARKETS`), of which some may be missing."""

    name: str
    gpu: str
    gpus: int
    gpu_bytes: float
    bf16_flops: float
    memory_rate: float
    vcpus: int
    memory_gib: float
    network_gbps: float
    local_nvme_gb: float
    gpu_link: str
    prices: Mapping[str, Price] = field(default_factory=dict)

    def usd(self, market: str) -> float | None:
        """Price of a market, if one is known."""
        price = self.prices.get(market)
        return None if price is None else price.usd


@dataclass(frozen=True)
class Catalogue:
    """Attributes:
    instances: name to instance.
    s3_usd_per_gb_month: price of storage.
    """

    instances: Mapping[str, Instance]
    s3_usd_per_gb_month: float

    def get(self, name: str) -> Instance:
        """By name, or by family for the largest of p4d to p6; raises `PlanError` that lists the known ones."""
        found = self.instances.get(_SHORT.get(name, name))
        if found is None:
            raise PlanError(f"the instance {name!r} is unknown; known: {', '.join(self.instances)}")
        return found

    def warnings(self, names: list[str], today: date) -> list[str]:
        """What is old or missing among the prices of some instances."""
        old: dict[str, list[str]] = {}
        for name in names:
            for market, price in self.instances[name].prices.items():
                if (today - price.as_of).days > OLD_DAYS:
                    old.setdefault(market.replace("_", " "), []).append(f"{name} ({price.as_of})")
        return [
            f"{market} prices older than {OLD_DAYS} days: {', '.join(found)}; give --prices FILE or --refresh"
            for market, found in old.items()
        ]

    def with_prices(self, prices: Mapping[str, Mapping[str, Price]]) -> Catalogue:
        """A copy in which these prices (instance, market) replace or join the known ones."""
        instances = dict(self.instances)
        for name, found in prices.items():
            instances[name] = replace(self.get(name), prices={**self.get(name).prices, **found})
        return replace(self, instances=instances)


def load_catalogue(prices_file: Path | None = None) -> Catalogue:
    """The shipped catalogue, with the prices of a file over it.

    The file is JSON: ``{"p4d.24xlarge": {"on_demand": {"usd": 21.96, "region": "us-east-1", "as_of": "2026-11-01",
    "source": "..."}}}``.

    Raises:
        PlanError: the file is unreadable, or names an unknown instance or market, or a price lacks its date or source.
    """
    data = shipped("instances")
    instances = {}
    for row in data["instances"]:
        gpu = data["gpus"][row["gpu"]]
        instances[row["name"]] = Instance(
            name=row["name"],
            gpu=row["gpu"],
            gpus=row["gpus"],
            gpu_bytes=gpu["memory_mib"] * MIB,
            bf16_flops=gpu["bf16_tflops"] * 1e12,
            memory_rate=gpu["memory_gbps"] * 1e9,
            vcpus=row["vcpus"],
            memory_gib=row["memory_gib"],
            network_gbps=row["network_gbps"],
            local_nvme_gb=row["local_nvme_gb"],
            gpu_link=row["gpu_link"],
            prices=_prices(row["prices"], row["name"]),
        )
    catalogue = Catalogue(instances, data["storage"]["s3_usd_per_gb_month"])
    return catalogue if prices_file is None else catalogue.with_prices(read_prices(prices_file))


def read_prices(path: Path) -> dict[str, dict[str, Price]]:
    """A prices file; see `load_catalogue`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"cannot read the prices in {path}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content.values()):
        raise PlanError(f"{path} must hold an object of instances, each an object of markets; see docs/planner.md")
    return {name: _prices(row, name) for name, row in content.items()}


def _prices(row: Mapping[str, Any], name: str) -> dict[str, Price]:
    return {market: _price(values, name, market) for market, values in row.items()}


def _price(values: Any, name: str, market: str) -> Price:
    if market not in MARKETS:
        raise PlanError(f"{name} has a price for the market {market!r}; known: {', '.join(MARKETS)}")
    try:
        price = Price(**{**values, "as_of": date.fromisoformat(values["as_of"])})
        numbers = [value for value in (price.usd, price.low, price.high) if value is not None]
        positive = all(0 < value < math.inf for value in numbers)
    except (TypeError, ValueError, KeyError) as error:
        raise PlanError(f"{name} {market}: a price needs usd, region, as_of (YYYY-MM-DD) and source: {error}") from None
    if not positive:
        raise PlanError(f"{name} {market}: prices must be above 0, got {numbers}")
    return price
