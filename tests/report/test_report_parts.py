"""The calculations behind the page."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import make_panel, make_run

from sdar_verl.evaluation.jsonl import JsonlWriter
from sdar_verl.evaluation.records import EpisodeRecord, TokenRecord, TokenTurn, TurnRecord
from sdar_verl.report import compare, episode, figures, html, style, teacher_figures, timing, words
from sdar_verl.report.run import Run, load_runs


@given(st.text())
def test_escaped_text_reads_back_as_itself_without_unprintables(value):
    from html import unescape

    escaped = html.text(value)
    assert not set("<>\"'") & set(escaped)
    assert unescape(escaped) == html._UNPRINTABLE.sub("\ufffd", value)
    assert html.text(html.tag("b", value)) == f"<b>{escaped}</b>"
    escaped.encode("utf-8")


def test_time_is_split_without_counting_anything_twice():
    run = Run(None, "run")
    run.metrics = {
        1: {"timing_s/step": 10.0, "timing_s/gen": 6.0, "timing_s/update_actor": 3.0, "timing_s/gen/max": 5.0},
        2: {"timing_s/step": 20.0, "timing_s/gen": 12.0, "timing_s/update_actor": 6.0, "timing_s/testing": 30.0},
    }
    assert timing.mean_phases(run) == {"gen": 9.0, "update_actor": 4.5, "other": 1.5}
    minutes = timing.total_minutes(run)
    assert minutes == {"gen": 0.3, "update_actor": 0.15, "testing": 0.5, "other": 0.05}
    assert sum(minutes.values()) * 60 == pytest.approx(10 + 20 + 30)
    assert timing.median_step(run) == 15.0 and timing.median_step(Run(None, "none")) is None


def test_gate_colours_run_from_blue_over_white_to_orange():
    def parts(gate):
        code = episode.colour(gate)
        return [int(code[i : i + 2], 16) for i in (1, 3, 5)]

    assert episode.colour(0.5) == "#ffffff"
    for low, high in ((0.0, 0.25), (0.25, 0.5)):
        assert parts(low)[0] < parts(high)[0]  # less red, more blue below one half
    for low, high in ((0.5, 0.75), (0.75, 1.0)):
        assert parts(low)[2] > parts(high)[2]


def token_record(step, won, gaps, session=0):
    n = len(gaps)
    turn = TokenTurn("o", ["x"] * n, [0] * n, [-1.0] * n, [g - 1 for g in gaps], gaps, [0.5] * n)
    return TokenRecord(step, f"t{step}", "t", "u", session, won, [turn], "s", "t")


def test_the_shown_episode_is_the_latest_won_one_with_most_decisions():
    early = token_record(1, True, [1.0] * 9)
    lost = token_record(5, False, [1.0] * 8)
    dull, rich = token_record(5, True, [0.0, 0.05, 0.2], 1), token_record(5, True, [0.5, 0.2, -0.3], 2)
    assert episode.decisions(rich) == 3 and episode.decisions(dull) == 1
    assert episode.choose([early, lost, rich, dull]) is rich
    assert episode.choose([early, lost]) is lost
    assert episode.choose([]) is None


def test_observations_come_from_the_record_or_from_its_episode(tmp_path):
    said = token_record(5, True, [0.5])
    silent = dataclasses.replace(said, turns=[dataclasses.replace(said.turns[0], observation="")], session=2)
    run = Run(tmp_path, "run")
    assert run.observations(said) == ["o"] and run.observations(silent) == [""]
    with JsonlWriter(tmp_path / "episodes/train.jsonl") as writer:
        for session in range(4):
            turn = TurnRecord(f"room {session}", "r", "a", True, 1, None, 1)
            writer.write(EpisodeRecord(5, "train", "t5", "t", "u", session, True, 1, None, [], 1, 1, 1, [turn]))
    assert run.observations(said) == ["o"] and run.observations(silent) == ["room 2"]
    assert run.observations(dataclasses.replace(silent, uid="other")) == [""]


def test_runs_are_compared_at_steps_that_both_reached(tmp_path):
    panel = make_panel(per_type=4)
    long = make_run(tmp_path / "long", panel, distil=False, steps=40, seed=1)
    short = make_run(tmp_path / "short", panel, distil=False, steps=20, seed=2)
    a, b = load_runs([long, short])
    found = compare.compare(a, b, k=3)
    assert found.steps == (10, 15, 20)
    last = b.validation[20].overall.rate - a.validation[20].overall.rate
    assert found.last.mean == pytest.approx(last)
    means = [sum(run.validation[s].overall.rate for s in found.steps) / 3 for run in (a, b)]
    assert found.mean_last.mean == pytest.approx(means[1] - means[0])
    b.validation = {0: b.validation[0]}
    assert compare.compare(a, b, k=3) is None


def test_words_claim_a_lead_only_when_the_interval_excludes_zero():
    def found(low, mean, high):
        difference = compare.Difference(mean, low, high, 50)
        return words.verdict(compare.Comparison("grpo", "sdar", (5, 10), difference, difference))

    assert "sdar is ahead of grpo" in found(0.01, 0.1, 0.2)
    assert "grpo is ahead of sdar" in found(-0.2, -0.1, -0.01)
    assert "cannot be told apart" in found(-0.05, 0.1, 0.2)
    assert "one seed" in words.caveat([Run(None, "a")])


def test_signed_points_have_no_negative_zero():
    assert [compare.signed(x) for x in (0.1234, -0.05, -0.0001, 0.0)] == ["+12.3", "\u22125.0", "0.0", "0.0"]


def test_bins_are_read_from_the_names_that_the_metrics_carry():
    from sdar_verl.core.metrics import GAP_BINS, GATE_BINS

    for bins in (GAP_BINS, GATE_BINS):
        bounds = [teacher_figures._bounds(f"sdar/x_hist/{name}") for name in bins]
        assert bounds == sorted(bounds)
        assert all(high == following[0] for (_, high), following in zip(bounds, bounds[1:], strict=False))
    assert teacher_figures._bin_label("sdar/gap_hist/-inf..-8") == "\u2264 \u22128"


def test_plots_leave_out_what_was_not_logged():
    assert teacher_figures.gate_and_gap([Run(None, "grpo")]) is None
    assert len(style.colours_of(range(9))) == 9


def test_a_single_step_is_a_point_that_can_be_seen():
    run = Run(None, "one")
    run.metrics = {1: {"episode/success_rate": 0.5, "sdar/gap_mean": -0.1, "sdar/gate_mean": 0.4}}
    longer = Run(None, "two")
    longer.metrics = {step: run.metrics[1] for step in (1, 2)}
    for found, expected in ((run, "o"), (longer, "None")):
        (axes,) = figures.training([found]).axes
        assert axes.lines[-1].get_marker() == expected
        gap = teacher_figures.gate_and_gap([found]).axes[1].lines[0]
        assert gap.get_marker() == expected


def test_a_method_without_gate_still_shows_its_gap():
    run = Run(None, "rlsd")
    run.metrics = {1: {"sdar/gap_mean": -0.1, "sdar/gap_hist/-inf..0": 0.5, "sdar/gap_hist/0..inf": 0.5}}
    assert run.distils
    gate, gap, _ = teacher_figures.gate_and_gap([run]).axes
    assert len(gap.lines) == 2 and len(gate.lines) == 1  # each has its line at no difference
    assert teacher_figures.histograms([run]) is not None
