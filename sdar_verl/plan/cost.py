"""What a run costs in each market, and how often it should save when it may be interrupted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdar_verl.plan.catalogue import Instance
from sdar_verl.plan.timing import Times
from sdar_verl.plan.units import GB, HOUR, PlanError

HOPELESS = 100  # times as long as without interruptions: such a run never ends
DAY_HOURS = 24  # capacity blocks are sold in whole days
# days that S3 keeps a checkpoint after it was replaced: one, from the next midnight (scripts/aws/store.yaml)
REPLACED_DAYS, MONTH_DAYS = 1.5, 365 / 12


@dataclass(frozen=True)
class Spot:
    """A run that is interrupted now and then.

    Attributes:
        mtbf_hours: mean time between interruptions that was assumed.
        interval: seconds between checkpoints that cost least (Daly's estimate).
        save_steps: that in training steps, at least one: the advice for `trainer.save_freq`.
        hours: expected time of the run with saves at `save_steps`, lost work and restarts; infinite if it never ends.
        interruptions: expected number.
        lost_hours: what saves, lost work and restarts add to the bare run.
    """

    mtbf_hours: float
    interval: float
    save_steps: int
    hours: float
    interruptions: float
    lost_hours: float


@dataclass(frozen=True)
class Cost:
    """USD of a whole run; None where the instance has no price in a market or the run would not end.

    Attributes:
        storage_per_month: of the checkpoints that stay in S3.
        storage_replaced: of the others, which lie there for some days as old versions.
    """

    on_demand: float | None
    spot: float | None
    capacity_block: float | None
    storage_per_month: float
    storage_replaced: float


def best_interval(save: float, mtbf: float) -> float:
    """Seconds of work between checkpoints with least expected loss (Daly 2006, higher order).

    For saves that are short against the time between interruptions it is Young's √(2·save·mtbf) less the save itself.
    """
    if not (save > 0 and mtbf > 0):
        raise PlanError("the time of a checkpoint and the time between interruptions must be above 0")
    if save >= 2 * mtbf:
        return mtbf
    ratio = save / (2 * mtbf)
    return math.sqrt(2 * save * mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save


def expected_seconds(work: float, interval: float, save: float, restart: float, mtbf: float) -> float:
    """Expected wall time of `work` seconds with a checkpoint after every `interval` and exponential interruptions.

    Daly's complete model: each segment of work and save is repeated, after a restart, until one passes without an
    interruption.
    """
    segments = work / interval
    try:
        return mtbf * math.exp(restart / mtbf) * math.expm1((interval + save) / mtbf) * segments
    except OverflowError:
        return math.inf


def on_spot(times: Times, mtbf_hours: float, restart: float, upload: float) -> Spot:
    """Expected course of a run on spot instances, where the next one has nothing but what was uploaded.

    Args:
        restart: seconds from an interruption to the next step, waiting for capacity not included.
        upload: seconds after a save until it counts. The run goes on meanwhile, so an interruption repeats that much
            more; it does not change which interval is best.
    """
    mtbf, work = mtbf_hours * HOUR, times.hours_without_saves * HOUR
    interval = best_interval(times.save, mtbf)
    steps = max(1, min(times.steps, round(interval / times.step)))
    hours = expected_seconds(work, steps * times.step, times.save, restart + upload, mtbf) / HOUR
    if hours > HOPELESS * work / HOUR:
        hours = math.inf
    return Spot(
        mtbf_hours=mtbf_hours,
        interval=interval,
        save_steps=steps,
        hours=hours,
        interruptions=hours / mtbf_hours,
        lost_hours=hours - work / HOUR,
    )


def price(
    instance: Instance,
    machines: int,
    times: Times,
    spot: Spot,
    stored: float,
    replaced: float,
    s3_usd_per_gb_month: float,
) -> Cost:
    """USD of a run on so many machines; `stored` bytes lie in S3 afterwards, `replaced` were sent there besides."""

    def usd(market: str, hours: float) -> float | None:
        rate = instance.usd(market)
        return None if rate is None or math.isinf(hours) else rate * machines * hours

    return Cost(
        on_demand=usd("on_demand", times.hours),
        spot=usd("spot", spot.hours),
        capacity_block=usd("capacity_block", DAY_HOURS * math.ceil(times.hours / DAY_HOURS)),
        storage_per_month=stored / GB * s3_usd_per_gb_month,
        storage_replaced=replaced / GB * s3_usd_per_gb_month * REPLACED_DAYS / MONTH_DAYS,
    )
