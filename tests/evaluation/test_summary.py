import pytest

from sdar_verl.evaluation.intervals import wilson
from sdar_verl.evaluation.records import EpisodeRecord
from sdar_verl.evaluation.summary import curve, milestones, summarize


def played(
    task, won, *, step=5, kind="heat", session=0, split="val", uid="u", failed=None, score=None
) -> EpisodeRecord:
    return EpisodeRecord(step, split, task, kind, uid, session, won, 0.0, failed, [], 1.0, 0.5, 0.5, [], score)


def test_rates_per_type_and_overall():
    episodes = [played(f"h{i}", i < 3) for i in range(4)] + [played(f"c{i}", i < 1, kind="cool") for i in range(6)]
    found = summarize(episodes)
    assert found.overall == wilson(4, 10)
    assert found.by_type == {"cool": wilson(1, 6), "heat": wilson(3, 4)} and list(found.by_type) == ["cool", "heat"]
    assert found.metrics() == {
        "val/success_rate": 0.4,
        "val/n": 10.0,
        "val/success/cool": pytest.approx(1 / 6),
        "val/success/heat": 0.75,
        "val/failed": 0.0,
    }


def test_repeated_tasks_count_once_in_the_interval():
    episodes = [played(f"t{i}", s < i, session=s) for i in range(3) for s in range(2)]
    found = summarize(episodes)
    assert found.episodes == 6 and found.overall.n == 3 and found.overall.rate == pytest.approx((0 + 0.5 + 1) / 3)
    single = summarize([played(f"t{i}", i % 2 == 0) for i in range(10)])
    repeated = summarize([played(f"t{i}", i % 2 == 0, session=s) for i in range(10) for s in range(8)])
    assert repeated.overall == single.overall


def test_failed_episodes_are_not_won_and_not_dropped():
    found = summarize([played("a", True), played("b", False, failed="worker died")])
    assert found.overall == wilson(1, 2) and found.failed == 1 and found.metrics()["val/failed"] == 1


def test_an_environments_own_score_is_the_mean_over_tasks():
    episodes = [
        played("a", True, score=1.0),
        played("a", False, score=0.5, session=1),
        played("b", False, failed="lost"),
    ]
    assert summarize(episodes).metrics()["val/score"] == pytest.approx((0.75 + 0.0) / 2)
    assert summarize([played("a", True)]).score is None


def test_nothing_and_contradictions_are_refused():
    with pytest.raises(ValueError, match="no episodes"):
        summarize([])
    with pytest.raises(ValueError, match="types heat and cool"):
        summarize([played("a", True), played("a", True, kind="cool", session=1)])


def test_curve_takes_the_later_of_two_validations_of_one_step():
    first = [played("a", False, step=5, uid="x"), played("b", False, step=5, uid="y")]
    again = [played("a", True, step=5, uid="z"), played("b", True, step=5, uid="w")]
    found = curve([*first, played("a", True, step=0), *again])
    assert list(found) == [0, 5] and found[5].overall == wilson(2, 2)
    training = [played("a", i == 0, split="train", uid=f"u{i}") for i in range(2)]
    assert curve(training)[5].episodes == 2


def test_last_best_and_mean_are_three_numbers():
    rates = {step: wilson(won, 20) for step, won in {0: 4, 5: 18, 10: 8, 15: 10, 20: 12}.items()}
    found = milestones(rates, k=3)
    assert (found.last_step, found.last.rate) == (20, 0.6)
    assert (found.best_step, found.best.rate) == (5, 0.9)
    assert found.k == 3 and found.mean_last == wilson(10, 20)
    assert milestones({1: wilson(1, 4), 2: wilson(1, 4)}).best_step == 1
    assert milestones({1: wilson(4, 4)}, k=3).k == 1


def test_milestones_refuse_what_is_no_one_panel():
    with pytest.raises(ValueError, match="no evaluation"):
        milestones({})
    with pytest.raises(ValueError, match="k must be"):
        milestones({1: wilson(1, 4)}, k=0)
    with pytest.raises(ValueError, match="not of one panel"):
        milestones({1: wilson(1, 4), 2: wilson(1, 5)})
