"""Scores by source from a run's episode records."""

import json

import pytest
from sdar_envs.base import EnvError
from sdar_envs.search_qa.generate import write_questions
from sdar_envs.search_qa.questions import Question, open_file
from sdar_envs.search_qa.report import main, read_episodes, report


@pytest.fixture
def questions(tmp_path):
    rows = [
        Question("one?", ("Ada Lovelace",), "nq", "fact"),
        Question("two?", ("Bob",), "nq", "fact"),
        Question("three?", ("Cy", "Cyrus"), "musique", "bridge"),
    ]
    write_questions(rows, tmp_path / "test.parquet", "test")
    return tmp_path / "test.parquet"


def episode(task, *actions, step=1, failed=None, session=0):
    turns = [{"observation": f"<information>{n}</information>", "action": action} for n, action in enumerate(actions)]
    return {"step": step, "task_id": task, "session": session, "failed": failed, "turns": turns}


def write(folder, episodes):
    (folder / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in episodes))
    return folder / "val.jsonl"


def test_means_by_source_and_over_sources(tmp_path, questions):
    episodes = [
        episode("nq/000000", "<search>a</search>", "<answer>ada</answer>"),
        episode("nq/000001", "<search>a</search>", "<search>b</search>", "", "<answer>bob!</answer>"),
        episode("musique/000002", "<answer>cyrus</answer>"),
        episode("musique/000002", "<answer>cy</answer>", failed="lost", session=1),
        episode("nq/000000", "<answer>Ada Lovelace</answer>", step=0),
    ]
    found = report(read_episodes(write(tmp_path, episodes)), open_file(questions))
    nq, musique = found.sources["nq"], found.sources["musique"]
    assert (found.step, nq.episodes, nq.exact, nq.searches, nq.answered) == (1, 2, 0.5, 1.5, 1.0)
    assert nq.f1 == pytest.approx((2 / 3 + 1) / 2)
    assert (musique.episodes, musique.failed, musique.exact, musique.answered) == (2, 1, 0.5, 0.5)
    assert (found.exact, found.all.exact, found.all.episodes) == (0.5, 0.5, 4)
    assert report(episodes, open_file(questions), step=0).exact == 1.0


def test_a_resumed_runs_later_record_stands(tmp_path, questions):
    episodes = [episode("nq/000001", "<answer>x</answer>"), episode("nq/000001", "<answer>bob</answer>")]
    assert report(read_episodes(write(tmp_path, episodes)), open_file(questions)).all.exact == 1.0


@pytest.mark.parametrize(
    ("task", "says"), [("popqa/000000", "not of the questions"), ("nq/x", "not of"), ("nq/000009", "there is no row 9")]
)
def test_foreign_episodes_are_refused(tmp_path, questions, task, says):
    with pytest.raises(EnvError, match=says):
        report([episode(task, "<answer>x</answer>")], open_file(questions))


def test_command_line(tmp_path, questions, capsys):
    path = write(tmp_path, [episode("nq/000001", "<answer>bob</answer>")])
    arguments = [str(path), "--questions", str(questions)]
    assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    assert "mean of sources" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["sources"]["nq"]["exact"] == 1.0
    assert main([*arguments, "--step", "7"]) == 1 and "no episodes of step 7" in capsys.readouterr().err
    path.write_text("{\n")
    assert main(arguments) == 1 and "line 1: no episode record" in capsys.readouterr().err
