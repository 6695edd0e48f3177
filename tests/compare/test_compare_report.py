"""Run folders as arms, the numbers behind the page, and what it refuses or warns of."""

import csv
import json
import shutil
from statistics import fmean

import pytest
from compare_runs import edit_manifest, make_comparison, make_panel, make_run

from sdar_verl.cli.main import main
from sdar_verl.compare.arms import load
from sdar_verl.compare.numbers import equal_steps, equal_time, milestone_values, training_seconds
from sdar_verl.compare.page import build_comparison
from sdar_verl.compare.state import FILE
from sdar_verl.compare.table import Cell, Table
from sdar_verl.evaluation.panel import PanelError
from sdar_verl.guards import FILE as GUARDS
from sdar_verl.report.run import ReportError

ENDS = {"grpo": 0.4, "sdar": 0.7}


@pytest.fixture(scope="module")
def panel():
    return make_panel(per_type=5)


@pytest.fixture(scope="module")
def out(tmp_path_factory, panel):
    return make_comparison(tmp_path_factory.mktemp("compare") / "out", panel, ends=ENDS, seeds=3, steps=12, every=3)


@pytest.fixture
def changed(out, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(out, tmp_path / "out")
    return tmp_path / "out"


def won(run, step):
    """Task to its outcome, straight from the file."""
    lines = [json.loads(line) for line in (run / "episodes/val.jsonl").read_text().splitlines()]
    return {line["task_id"]: line["won"] for line in lines if line["step"] == step}


def test_differences_at_equal_steps_are_those_of_the_files(out):
    (found,) = equal_steps(load([str(out)]), k=2)
    expected = []
    for seed in range(3):
        a, b = ({s: won(out / f"runs/{arm}/seed-{seed}", s) for s in (9, 12)} for arm in ENDS)
        expected.append(fmean(b[s][t] - a[s][t] for s in (9, 12) for t in a[9]))
    assert found.arm == "sdar" and found.baseline == "grpo" and found.seeds == (0, 1, 2) and found.steps == (12, 12)
    assert found.mean_last.by_seed == pytest.approx(expected) and found.mean_last.tasks == 30
    assert found.mean_last.mean == pytest.approx(fmean(expected)) and found.minutes is None


def test_at_equal_time_the_slower_arm_stands_at_an_earlier_step(out):
    comparison = load([str(out)])
    (found,) = equal_time(comparison, k=1)
    grpo, sdar = comparison.arms
    clocks = [training_seconds(run) for arm in (grpo, sdar) for run in arm.runs.values()]
    assert found.minutes == pytest.approx(min(max(clock.values()) for clock in clocks) / 60)
    expected = []
    for seed in range(3):
        clock = training_seconds(sdar.runs[seed])
        step = max(s for s, spent in clock.items() if spent <= found.minutes * 60)
        assert 0 < step < 12
        first = max(s for s, spent in training_seconds(grpo.runs[seed]).items() if spent <= found.minutes * 60)
        a, b = won(out / f"runs/grpo/seed-{seed}", first), won(out / f"runs/sdar/seed-{seed}", step)
        expected.append(fmean(b[task] - a[task] for task in a))
    assert found.last.by_seed == pytest.approx(expected)


def test_at_equal_time_all_runs_count_with_as_many_evaluations(changed):
    """One run is so slow that only its first evaluation lies within the time; the others have four."""
    file = changed / "runs/sdar/seed-1/metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if line["step"]:
            line["data"]["timing_s/step"] = 85.0
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    comparison = load([str(changed)])
    (found,) = equal_time(comparison, k=3)
    steps = {
        (arm.name, seed): [step for step, spent in training_seconds(run).items() if 0 < spent <= found.minutes * 60]
        for arm in comparison.arms
        for seed, run in arm.runs.items()
    }
    assert len(steps["sdar", 1]) == found.averaged == 1 and len(steps["grpo", 1]) >= 3
    expected = []
    for seed in range(3):
        a, b = (won(changed / f"runs/{arm}/seed-{seed}", steps[arm, seed][-1]) for arm in ENDS)
        expected.append(fmean(b[task] - a[task] for task in a))
    assert found.mean_last.by_seed == pytest.approx(expected)
    assert equal_steps(comparison, k=3)[0].averaged == 3
    build_comparison([str(changed)], changed / "page")
    before, _, after = (changed / "page/compare.md").read_text().partition("## Differences at equal training time")
    assert "only 1 evaluation" in after and "only 1 evaluation" not in before


def test_last_best_and_mean_are_kept_apart(out):
    grpo = load([str(out)]).arms[0]
    values = milestone_values(grpo, k=2)
    for seed in range(3):
        rates = {step: fmean(won(out / f"runs/grpo/seed-{seed}", step).values()) for step in (0, 3, 6, 9, 12)}
        assert values["before training"][seed] == pytest.approx(rates[0])
        assert values["last"][seed] == pytest.approx(rates[12])
        assert values["best"][seed] == pytest.approx(max(rates[s] for s in (3, 6, 9, 12)))
        assert values["mean of last"][seed] == pytest.approx((rates[9] + rates[12]) / 2)


def test_three_files_are_written_and_agree(out, tmp_path):
    page = build_comparison([str(out)], tmp_path, price=2.0, title="A <title>")
    text, words = page.read_text(encoding="utf-8"), (tmp_path / "compare.md").read_text(encoding="utf-8")
    (found,) = equal_steps(load([str(out)]), k=3)
    number = f"{100 * found.mean_last.mean:+.1f} points"
    assert number in text and number in words and "Does the teacher help?" in words
    assert "A &lt;title&gt;" in text and "A \\<title\\>" in words
    assert "cost of a run at 2 an hour" in words and "whole run with its start, min" in words
    with (tmp_path / "evaluations.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 3 * 5
    line = next(own for own in lines if (own["arm"], own["seed"], own["step"]) == ("sdar", "1", "6"))
    assert float(line["success"]) == pytest.approx(fmean(won(out / "runs/sdar/seed-1", 6).values()), abs=1e-6)
    assert {p.stem for p in (tmp_path / "plots").iterdir()} == {
        "curves",
        "differences",
        "time_curves",
        "signals",
        "time",
    }


def test_one_seed_says_that_intervals_cover_tasks_only(panel, tmp_path):
    out = make_comparison(tmp_path / "out", panel, ends=ENDS, seeds=1, steps=4, every=2)
    text = build_comparison([str(out)], tmp_path / "page").read_text(encoding="utf-8")
    assert "the intervals cover the choice of tasks only" in text and "needs two seeds" in text
    (found,) = equal_steps(load([str(out)]), k=2)
    assert found.mean_last.p is None


def test_different_panels_are_refused_by_name(changed, tmp_path):
    other = make_run(tmp_path / "other", make_panel(per_type=4), distil=False, steps=2, every=1)
    with pytest.raises(PanelError, match="cannot be compared.*Runs of each panel: .*seed-0.*; .*: .*other"):
        build_comparison([str(changed), str(other)], tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_differences_beside_the_arms_are_warned_of(changed):
    for run in (changed / "runs").glob("*/seed-*"):  # what every run has of its own
        env = "config.ray_kwargs.ray_init.runtime_env"
        own = f"/tmp/sdar-{run.parent.name}-{run.name}"
        edit_manifest(run, **{f"{env}.py_executable": f"{own}/python", f"{env}.env_vars.TMPDIR": own,
                              f"{env}.env_vars.SDAR_FORK_COMMAND": f"{own}/python"})  # fmt: skip
    assert load([str(changed)]).warnings == []
    sdar = changed / "runs/sdar"
    edit_manifest(sdar / "seed-0", **{"config.data.train_batch_size": 9})
    edit_manifest(sdar / "seed-1", data={"train": "other", "valid_seen": "e" * 64})
    edit_manifest(sdar / "seed-2", packages={"verl": "0.9.0"}, git={"commit": "f" * 40, "changed": True})
    said = "\n".join(load([str(changed)]).warnings)
    for part in (
        "data differ between the runs: train is",
        "package versions differ between the runs",
        "verl is 0.9.1 in",
        "commits differ",
        "no commit holds",
        "the runs of sdar differ in more than their seed: data.train_batch_size",
        "sdar and grpo differ in settings that neither of them is about: data.train_batch_size",
    ):
        assert part in said


@pytest.mark.parametrize("key", ["actor_rollout_ref.model.path", "sdar.teacher.model_path"])
def test_runs_with_different_models_are_not_one_arm(panel, tmp_path, key):
    for seed, model in enumerate(("small", "small", "large")):
        run = make_run(tmp_path / f"run{seed}", panel, distil=True, steps=2, every=1, seed=seed)
        own = {f"config.{key}": f"/models/{model}", "config.data.seed": seed, "config.sdar.run_dir": str(run)}
        edit_manifest(run, seeds={"data": seed}, method="sdar", **own)
    names = [str(tmp_path / f"run{seed}") for seed in range(3)]
    assert [list(arm.runs) for arm in load(names).arms] == [[0, 1], [2]]
    (line,) = [line for line in load([f"a={name}" for name in names]).warnings if "more than their seed" in line]
    assert line == f"the runs of a differ in more than their seed: {key}"


def test_a_comparison_that_is_still_going_is_shown_as_far_as_it_is(changed, tmp_path):
    saved = json.loads((changed / FILE).read_text())
    shutil.rmtree(changed / "runs/sdar/seed-2")
    saved["runs"]["runs/sdar/seed-2"]["status"] = "planned"
    (changed / FILE).write_text(json.dumps(saved))
    for name in ("metrics.jsonl", "episodes/val.jsonl"):  # seed 1 is at step 3
        file = changed / "runs/sdar/seed-1" / name
        lines = [line for line in file.read_text().splitlines() if json.loads(line)["step"] <= 3]
        file.write_text("".join(line + "\n" for line in lines))
    found = load([str(changed)])
    assert [(own.arm, own.seed) for own in found.pending] == [("sdar", 2)]
    (against,) = equal_steps(found, k=3)
    assert against.seeds == (0,) and against.steps == (12, 12)
    text = build_comparison([str(changed)], tmp_path / "page").read_text(encoding="utf-8")
    assert "sdar, seed 2: nothing measured yet" in text and "leaves out seed 1, 2" in text
    assert "step 3 of 12 was reached" in text and "the arms have different seeds" in text


@pytest.mark.parametrize(("status", "reason"), [("failed", "no memory"), ("stopped", "a guard stopped it")])
def test_a_run_that_failed_after_it_measured_something_is_called_so(changed, tmp_path, status, reason):
    saved = json.loads((changed / FILE).read_text())
    saved["runs"]["runs/sdar/seed-2"] |= {"status": status, "reason": reason, "seconds": 3.0}
    (changed / FILE).write_text(json.dumps(saved))
    found = load([str(changed)])
    grpo, sdar = found.arms
    assert set(grpo.seconds) == {0, 1, 2} and set(sdar.seconds) == {0, 1}
    assert found.warnings == [f"sdar, seed 2, {status}: {reason}; what it measured until then is shown"]
    assert load([str(changed)], only=["grpo"]).warnings == []


def test_versions_that_differ_late_are_seen(changed):
    """Two of them begin with the same twelve letters."""
    edit_manifest(changed / "runs/sdar/seed-0", packages={"verl": "0.9.1.dev20260101"})
    edit_manifest(changed / "runs/sdar/seed-1", packages={"verl": "0.9.1.dev20260102"})
    said = "\n".join(load([str(changed)]).warnings)
    assert "0.9.1.dev20260101 in" in said and "0.9.1.dev20260102 in" in said


def test_a_folder_without_any_measured_run_says_why(changed):
    for run in changed.glob("runs/*/*"):
        shutil.rmtree(run)
    saved = json.loads((changed / FILE).read_text())
    for own in saved["runs"].values():
        own |= {"status": "failed", "reason": "no memory"}
    (changed / FILE).write_text(json.dumps(saved))
    with pytest.raises(ReportError, match="none of the 6 runs .*failed: no memory"):
        load([str(changed)])


def test_runs_without_labels_are_arms_by_their_settings(panel, tmp_path):
    for seed in range(2):
        for name, distil in (("grpo", False), ("sdar", True)):
            run = make_run(tmp_path / f"{name}{seed}", panel, distil=distil, steps=4, every=2, seed=seed)
            edit_manifest(run, seeds={"data": seed}, method=name, **{"config.data.seed": seed})
    sharp = shutil.copytree(tmp_path / "sdar0", tmp_path / "sharp")
    edit_manifest(sharp, **{"config.method.beta": 9.0})
    names = [str(tmp_path / name) for name in ("grpo0", "grpo1", "sdar0", "sdar1", "sharp")]
    found = load(names)
    assert {arm.name: list(arm.runs) for arm in found.arms} == {"grpo": [0, 1], "sdar": [0, 1], "sharp": [0]}
    found = load([*names[:4], f"nine={sharp}"], baseline="sdar")
    assert [arm.name for arm in found.arms] == ["sdar", "grpo", "nine"]
    with pytest.raises(ReportError, match="both of arm sdar with seed 0"):
        load([*names, f"sdar={shutil.copytree(sharp, tmp_path / 'again')}"])
    with pytest.raises(ReportError, match="no arm 'none'"):
        load(names, baseline="none")


def test_a_subset_of_the_arms_can_be_shown(out, tmp_path):
    assert [arm.name for arm in load([str(out)], only=["sdar"]).arms] == ["sdar"]
    with pytest.raises(ReportError, match="no arm 'other'; arms: "):
        load([str(out)], only=["other", "sdar"], baseline="sdar")
    text = build_comparison([str(out)], tmp_path, only=["sdar"], baseline="sdar").read_text(encoding="utf-8")
    assert "1 arms, 3 runs" not in text and "1 arm, 3 runs" in text


def test_steps_after_the_last_wanted_one_are_as_if_never_made(out, changed, tmp_path):
    for file in [*changed.glob("runs/*/*/metrics.jsonl"), *changed.glob("runs/*/*/episodes/val.jsonl")]:
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if json.loads(line)["step"] <= 6))
    whole = build_comparison([str(out)], tmp_path / "until", until=6)
    cut = build_comparison([str(changed)], tmp_path / "cut")
    assert (tmp_path / "until/evaluations.csv").read_text() == (tmp_path / "cut/evaluations.csv").read_text()
    tables = [(page.parent / "compare.md").read_text().partition("## Success")[2] for page in (whole, cut)]
    assert "whole run with its start" not in tables[0]
    assert tables[0].partition("## Time")[0] == tables[1].partition("## Time")[0]
    assert "Steps after 6 are left out." in whole.read_text(encoding="utf-8")
    assert "left out" not in cut.read_text(encoding="utf-8")
    assert all(not arm.seconds for arm in load([str(out)], until=6).arms)
    assert all(arm.seconds for arm in load([str(out)], until=12).arms)


def test_what_was_wrong_later_is_forgotten_with_the_steps(changed, tmp_path):
    saved = json.loads((changed / FILE).read_text())
    saved["runs"]["runs/sdar/seed-1"] |= {"status": "failed", "reason": "no memory"}
    (changed / FILE).write_text(json.dumps(saved))
    run = changed / "runs/sdar/seed-1"
    line = {"guard": "kl_blowup", "action": "warn", "value": 2.0, "limit": 1.0, "message": "far"}
    (run / GUARDS).write_text(json.dumps(line | {"step": 9}) + "\n")
    earlier = [
        {"started": "a", "until_step": 3, "changed": {"lr": ["1", "2"]}},
        {"started": "b", "until_step": 6, "changed": {"lr": ["2", "3"]}},
    ]
    edit_manifest(run, earlier=earlier, **{"config.trainer.total_training_steps": 20})
    for until, wrong in ((6, 0), (12, 1)):
        page = build_comparison([str(changed)], tmp_path / str(until), until=until, price=4)
        text = page.with_suffix(".md").read_text()
        assert text.count("no memory") == text.count("guard kl") == wrong, text
        assert text.count("lr 2 -\\> 3") == text.count("whole run with its start") == wrong, text
        assert "of 20 was reached" not in text and text.count("from step 3 on it is not what it was before: lr 1") == 1
    whole = build_comparison([str(changed)], tmp_path / "whole").with_suffix(".md").read_text()
    assert "step 12 of 20 was reached" in whole


def test_arms_that_time_leaves_out_are_named(changed, tmp_path):
    for seed in range(3):  # a first evaluation after all the time that the other arm took
        file = changed / f"runs/grpo/seed-{seed}/metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            line["data"]["timing_s/step"] = 1e6
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = build_comparison([str(changed)], tmp_path).with_suffix(".md").read_text()
    assert "not compared with grpo at equal training time: sdar; one of the runs has no evaluation within" in text


def test_guards_are_counted_by_run(changed, tmp_path):
    line = {"step": 3, "guard": "kl_blowup", "action": "warn", "value": 2.0, "limit": 1.0, "message": "far"}
    for seed in (0, 2):
        (changed / f"runs/sdar/seed-{seed}" / GUARDS).write_text(json.dumps(line) + "\n" + json.dumps(line) + "\n")
    build_comparison([str(changed)], tmp_path / "page")
    assert "| guard kl\\_blowup | 0 of 3 runs | 2 of 3 runs |" in (tmp_path / "page/compare.md").read_text()


def test_texts_cannot_break_a_table():
    table = Table("t", ["a|b", "c"], [[Cell("<x>|y\nz", ("*n*",)), "`d`"]])
    head, ruler, row = table.markdown.splitlines()[2:]
    assert head == "| a\\|b | c |" and ruler == "| --- | ---: |" and row == "| \\<x\\>\\|y z (\\*n\\*) | \\`d\\` |"
    assert "&lt;x&gt;" in table.html and "<x>" not in table.html


def test_the_command_shows_what_a_file_asks(out, tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text("about: Is it better?\nuntil: 9\nbaseline: sdar\narms: {grpo: [method=grpo], sdar: [method=sdar]}")
    assert main(["compare", "report", str(out), "--out", str(tmp_path), "--file", str(file)]) == 0
    text = (tmp_path / "compare.md").read_text()
    assert "Is it better?" in text and "Steps after 9 are left out." in text and "grpo − sdar" in text
    again = ["compare", "report", str(out), "--out", str(tmp_path / "only"), "--file", str(file), "--only", "grpo"]
    assert main(again) == 0  # the file's own baseline is not among those asked for


def test_the_command_knows_the_last_step(out, tmp_path):
    assert main(["compare", "report", str(out), "--out", str(tmp_path), "--until", "9"]) == 0
    assert {line.split(",")[2] for line in (tmp_path / "evaluations.csv").read_text().splitlines()[1:]} == {*"0369"}


def test_the_command_writes_the_page_or_says_why_not(out, tmp_path, capsys):
    assert main(["compare", "report", str(out), "--out", str(tmp_path), "--only", "sdar", "--baseline", "grpo"]) == 1
    assert "no arm 'grpo' to compare with" in capsys.readouterr().err
    assert main(["compare", "report", str(out), "--out", str(tmp_path), "--last-k", "2"]) == 0
    assert str(tmp_path / "compare.html") in capsys.readouterr().out
    assert main(["compare", "report", str(out), str(tmp_path)]) == 1
    assert "--out DIR" in capsys.readouterr().err
    assert main(["compare", "report", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert "there is no run folder" in capsys.readouterr().err
    assert main(["compare", "report", str(out), "--out", str(tmp_path), "--price", "nan"]) == 1
    assert main(["compare", "run", "--methods", "grpo,sdar", "--out", str(tmp_path / "x")]) == 1
    assert "arm grpo: set trainer.total_training_steps" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_home_folder_behind_an_equal_sign_is_found(out, tmp_path, capsys, monkeypatch):
    """The shell leaves the ~ of --out=~/x as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "report", str(out), "--out=~/page"]) == 0
    assert (tmp_path / "page" / "compare.html").is_file()
    length = ["trainer.total_training_steps=4", "trainer.test_freq=4"]
    assert main(["compare", "run", "method=grpo", *length, "--seeds", "1", "--out=~/x", "--dry-run"]) == 0
    assert f"sdar.run_dir='{tmp_path}/x/runs" in capsys.readouterr().out.replace("\\", "").replace("'\"'\"'", "'")
    assert not (tmp_path / "~").exists()
