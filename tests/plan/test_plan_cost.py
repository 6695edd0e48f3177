"""Checkpoint intervals and expected times against simulation; prices are dated facts."""

import json
import math
import random
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import recipe_job

from sdar_verl.plan import cost, host, planning
from sdar_verl.plan.catalogue import MARKETS, load_catalogue
from sdar_verl.plan.timing import Times
from sdar_verl.plan.units import PlanError, shipped

HOUR = 3600.0


def simulate(work, interval, save, restart, mtbf, rng):
    """One run with exponential interruptions; restarts can be interrupted too."""
    clock = done = 0.0
    until = rng.expovariate(1 / mtbf)

    def spend(seconds):
        nonlocal clock, until
        if until >= seconds:
            clock, until = clock + seconds, until - seconds
            return True
        clock, until = clock + until, rng.expovariate(1 / mtbf)
        return False

    while done < work:
        if spend(interval + save):
            done += interval
        else:
            while not spend(restart):
                pass
    return clock


@pytest.mark.parametrize(
    ("interval", "save", "mtbf"), [(1800, 90, 4 * HOUR), (600, 30, 2 * HOUR), (5400, 300, 6 * HOUR)]
)
def test_expected_time_is_that_of_simulated_runs(interval, save, mtbf):
    rng, work, restart = random.Random(0), 60 * interval, 900.0
    runs = [simulate(work, interval, save, restart, mtbf, rng) for _ in range(600)]
    mean, error = sum(runs) / len(runs), (sum(r * r for r in runs) / len(runs) - (sum(runs) / len(runs)) ** 2) ** 0.5
    assert abs(cost.expected_seconds(work, interval, save, restart, mtbf) - mean) < 4 * error / math.sqrt(len(runs))


def simulate_uploads(work, interval, upload, restart, mtbf, rng):
    """One run that goes on while a checkpoint is sent; the next one has the newest that arrived, and nothing else."""
    clock = done = safe = 0.0
    sent = []  # (when it arrives, the work in it)
    until = rng.expovariate(1 / mtbf)
    while done < work:
        seconds = min(interval, until)
        clock, until, done = clock + seconds, until - seconds, done + seconds
        if until <= 0:
            safe = max([safe, *(content for at, content in sent if at <= clock)])
            done, sent, until = safe, [], rng.expovariate(1 / mtbf)
            clock += restart
        else:
            sent.append((clock + upload, done))
    return clock


@pytest.mark.parametrize("upload", [60.0, 300.0])
def test_what_was_not_uploaded_is_lost(upload):
    rng, interval, restart, mtbf_hours = random.Random(1), 1800.0, 900.0, 12.0
    times = Times({"update": interval}, 0.0, 1e-6, 0.0, 0, 0, 300)
    runs = [simulate_uploads(300 * interval, interval, upload, restart, mtbf_hours * HOUR, rng) for _ in range(400)]
    mean = sum(runs) / len(runs)
    error = (sum((r - mean) ** 2 for r in runs)) ** 0.5 / len(runs)
    steps = cost.on_spot(times, mtbf_hours, restart, upload).save_steps
    assert steps == 1
    assert abs(cost.on_spot(times, mtbf_hours, restart, upload).hours * HOUR - mean) < 4 * error + 0.005 * mean
    fast, slow = (cost.on_spot(times, mtbf_hours, restart, seconds) for seconds in (0.0, upload))
    assert slow.save_steps == fast.save_steps
    assert (slow.hours - fast.hours) * HOUR == pytest.approx(slow.interruptions * upload, rel=0.1)


@settings(max_examples=80)
@given(st.floats(1, 600), st.floats(HOUR, 200 * HOUR), st.floats(0.2, 5))
def test_no_other_interval_is_much_better(save, mtbf, factor):
    best = cost.best_interval(save, mtbf)
    found = cost.expected_seconds(100 * HOUR, best, save, 600, mtbf)
    other = cost.expected_seconds(100 * HOUR, best * factor, save, 600, mtbf)
    assert found <= other * 1.002


@given(st.floats(1, 60), st.floats(100 * HOUR, 1000 * HOUR))
def test_it_is_youngs_interval_where_saves_are_short(save, mtbf):
    assert cost.best_interval(save, mtbf) == pytest.approx(math.sqrt(2 * save * mtbf), rel=0.02)


@given(st.floats(1, 500), st.floats(1, 100), st.floats(1.05, 10), st.floats(0, 3000))
def test_spot_takes_longer_the_more_often_it_is_interrupted(step, mtbf_hours, rarer, restart):
    times = Times({"update": step}, 10.0, 60.0, 600.0, 3, 10, 200)
    often, seldom = (cost.on_spot(times, hours, restart, 60.0).hours for hours in (mtbf_hours, mtbf_hours * rarer))
    assert often >= seldom * (1 - 0.02) > times.hours_without_saves * 0.98


def test_the_advice_is_in_whole_steps():
    times = Times({"update": 1700.0}, 0.0, 90.0, 600.0, 0, 0, 150)
    spot = cost.on_spot(times, 24.0, 900.0, 90.0)
    assert spot.save_steps == round(spot.interval / 1700.0) == 2
    assert cost.on_spot(times, 0.2, 900.0, 90.0).save_steps == 1
    assert spot.lost_hours == pytest.approx(spot.hours - times.hours_without_saves)
    with pytest.raises(PlanError, match="above 0"):
        cost.best_interval(0, 1)


def test_money_is_hours_times_the_price_and_blocks_are_whole_days():
    place = load_catalogue().get("p4d")
    times = Times({"update": 720.0}, 0.0, 60.0, 0.0, 0, 0, 150)
    spot = cost.on_spot(times, 1e6, 0.0, 0.0)
    found = cost.price(place, 2, times, spot, 1e12, 10e12, 0.023)
    assert found.on_demand == pytest.approx(2 * 30 * 21.957642)
    assert found.capacity_block == pytest.approx(2 * 48 * 14.75)
    assert found.storage_per_month == pytest.approx(23.0)
    assert found.storage_replaced == pytest.approx(230.0 * cost.REPLACED_DAYS / (365 / 12))
    assert cost.price(load_catalogue().get("p5e"), 1, times, spot, 0, 0, 0.023).on_demand is None


def test_what_lies_in_s3_follows_its_own_setting():
    job = recipe_job("sdar.checkpoints.keep=5", "trainer.max_actor_ckpt_to_keep=1", "trainer.save_freq=10")
    needs = host.estimate(job, 1e6)
    assert planning._in_s3(job, needs) == (5 * needs.checkpoint, (job.steps / 10 - 5) * needs.checkpoint)
    job = recipe_job("sdar.checkpoints.keep=5", "trainer.save_freq=10", "trainer.total_training_steps=20")
    assert planning._in_s3(job, needs) == (2 * needs.checkpoint, 0)


# --- catalogue --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gpus", "gib", "usd"),
    [
        ("p4d.24xlarge", 8, 40.0, 21.957642), ("p4de.24xlarge", 8, 80.0, 27.44705), ("p5.48xlarge", 8, 80.0, 55.04),
        ("p5en.48xlarge", 8, 141.0, 63.296), ("p6-b200.48xlarge", 8, 179.06, 113.9328), ("g6e.xlarge", 1, 44.7, 1.861),
        ("g7e.24xlarge", 4, 96.0, 16.57216), ("p5.4xlarge", 1, 80.0, 6.88),
    ],
)  # fmt: skip
def test_facts_of_the_reference(name, gpus, gib, usd):
    place = load_catalogue().get(name)
    assert (place.gpus, place.usd("on_demand")) == (gpus, usd)
    assert place.gpu_bytes / (1 << 30) == pytest.approx(gib, abs=0.05)


def test_every_row_and_price_has_a_source_and_a_date():
    rows = shipped("instances")["instances"]
    assert len(rows) == 25 and all(row["source"] for row in rows)
    for place in load_catalogue().instances.values():
        assert place.prices, place.name
        for market, price in place.prices.items():
            assert market in MARKETS and price.source and date(2025, 1, 1) <= price.as_of <= date(2026, 11, 21)
            assert price.low is None or price.low <= price.usd <= price.high


def test_p4d_has_40_gb_and_p4de_80():
    catalogue = load_catalogue()
    assert catalogue.get("p4d").gpu_bytes * 2 == catalogue.get("p4de").gpu_bytes


def test_old_prices_are_warned_of():
    catalogue = load_catalogue()
    assert catalogue.warnings(["g5.xlarge"], date(2026, 12, 23)) == []
    (warning,) = catalogue.warnings(["g5.xlarge"], date(2026, 12, 24))
    assert "on demand" in warning and "g5.xlarge (2026-09-24)" in warning and "--refresh" in warning


def test_a_prices_file_wins(tmp_path):
    file = tmp_path / "prices.json"
    row = {"usd": 20.5, "region": "eu-west-1", "as_of": "2026-11-20", "source": "an invoice"}
    file.write_text(json.dumps({"p4d.24xlarge": {"on_demand": row}}))
    place = load_catalogue(file).get("p4d")
    assert place.usd("on_demand") == 20.5 and place.prices["on_demand"].source == "an invoice"
    assert place.usd("spot") == load_catalogue().get("p4d").usd("spot")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read the prices"),
        ("[]", "must hold an object"),
        ('{"x9.large": {}}', "'x9.large' is unknown; known: p4d.24xlarge"),
        ('{"p4d.24xlarge": {"reserved": {}}}', "market 'reserved'; known: on_demand"),
        ('{"p4d.24xlarge": {"spot": {"usd": 1}}}', "needs usd, region, as_of"),
        ('{"p4d.24xlarge": {"spot": {"usd": -1, "region": "r", "as_of": "2026-01-01", "source": "s"}}}', "above 0"),
        ('{"p4d.24xlarge": {"spot": {"usd": "1", "region": "r", "as_of": "2026-01-01", "source": "s"}}}', "needs usd"),
        ('{"p4d.24xlarge": {"spot": {"usd": 1, "region": "r", "as_of": "soon", "source": "s"}}}', "needs usd"),
    ],
)
def test_bad_prices_are_refused(tmp_path, content, message):
    file = tmp_path / "prices.json"
    file.write_text(content)
    with pytest.raises(PlanError, match=message):
        load_catalogue(file)
