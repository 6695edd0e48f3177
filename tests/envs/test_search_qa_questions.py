"""Question files of several schemas, question types, and rows that cannot be used."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sdar_envs.base import EnvError, TaskRef
from sdar_envs.search_qa.question_types import SOURCES, TASK_TYPES, question_type
from sdar_envs.search_qa.questions import find_tasks, open_file, question_of


def verl_agent(question="who?", target=("x",), source="nq", **more):
    played = {"ground_truth": {"target": list(target)}, "question": question, "data_source": source}
    return {"data_source": source, "prompt": [{"role": "user", "content": "..."}], "env_kwargs": played, **more}


def search_r1(question="who?", target=("x",), source="nq", **more):
    truth = {"ground_truth": {"target": list(target)}, "style": "rule"}
    return {"question": question, "golden_answers": ["other"], "data_source": source, "reward_model": truth, **more}


def write(folder, rows, split="test"):
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    return str(folder)


@pytest.mark.parametrize("row", [verl_agent, search_r1])
def test_both_schemas_are_read(tmp_path, row):
    root = write(tmp_path, [row("who? ", ("a", "b"), "searchR1_nq"), row("Which is older, A or B?", source="hotpotqa")])
    first, second = find_tasks(root, "test")
    assert (first.id, first.task_type, second.id, second.task_type) == (
        "nq/000000",
        "fact",
        "hotpotqa/000001",
        "comparison",
    )
    question = question_of(first)
    assert (question.text, question.targets, question.source) == ("who?", ("a", "b"), "nq")


def test_metadata_decide_where_they_tell(tmp_path):
    rows = [
        verl_agent(
            "Were A and B both there?", source="2wikimultihopqa", metadata=json.dumps({"type": "compositional"})
        ),
        verl_agent("Where is A?", source="2wikimultihopqa", metadata=json.dumps({"type": "bridge_comparison"})),
        verl_agent("Where is A?", source="my_data", metadata=json.dumps({"type": "attribute"})),
        verl_agent("Where is A?", source="hotpotqa", metadata="no JSON"),
    ]
    kinds = [task.task_type for task in find_tasks(write(tmp_path, rows), "test")]
    assert kinds == ["bridge", "comparison", "attribute", "bridge"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Which magazine was started first Arthur's Magazine or First for Women?", "comparison"),
        ("Were Scott Derrickson and Ed Wood of the same nationality?", "comparison"),
        ("Who lived longer, Theodor Haecker or Harry Vaughan Watkins?", "comparison"),
        ("Which singer is American, Mark King or Nick Hexum?", "comparison"),
        ("What do Ada and Alan have in common?", "comparison"),
        ("Who is the mother of the director of film Polish-Russian War?", "bridge"),
        ("When did Napoleon occupy the city where the mother of the woman died?", "bridge"),
        ("What type of dog or cat did she own?", "bridge"),
    ],
)
def test_multi_hop_questions_are_told_apart_by_their_words(text, kind):
    assert question_type("hotpotqa", text) == kind
    assert question_type("nq", text) == "fact"


def test_every_source_has_a_type_and_every_type_is_reached():
    kinds = {question_type(source, "Where is it?") for source in SOURCES}
    kinds.add(question_type("musique", "Which is older, this or that?"))
    assert kinds == set(TASK_TYPES)
    with pytest.raises(EnvError, match="'mine' is not known .*metadata"):
        question_type("mine", "Where?")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([verl_agent(), verl_agent(question=" ")], "row 1: the question is empty"),
        ([verl_agent(target=())], "row 0: the accepted answers"),
        ([verl_agent(target=("a", " "))], "row 0: the accepted answers"),
        ([verl_agent(source="")], "row 0: the data source is empty"),
        ([verl_agent(source="mine")], "'mine' is not known"),
        (
            [{"question": "q", "data_source": "nq"}],
            "no column for the targets; looked for env_kwargs.ground_truth.target",
        ),
        ([{"reward_model": {"ground_truth": {"target": ["x"]}}}], "no column for the question"),
    ],
)
def test_unusable_rows_are_named(tmp_path, rows, says):
    with pytest.raises(EnvError, match=says):
        find_tasks(write(tmp_path, rows), "test")


def test_unusable_files_are_named(tmp_path, monkeypatch):
    (tmp_path / "test.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(EnvError, match=r"test\.parquet cannot be read as parquet"):
        find_tasks(tmp_path, "test")
    monkeypatch.delenv("SDAR_TEST_NOWHERE", raising=False)
    with pytest.raises(EnvError, match="environment variable that is not set"):
        find_tasks("$SDAR_TEST_NOWHERE/x", "test")


def test_a_task_finds_its_own_row_or_nothing(tmp_path):
    root = write(tmp_path, [verl_agent("one"), verl_agent("two", source="popqa")])
    tasks = find_tasks(root, "test")
    assert [question_of(task).text for task in tasks] == ["one", "two"]
    moved = TaskRef("nq/000001", "fact", "test", tasks[0].path)
    for task, says in (
        (moved, "no longer holds task 'nq/000001'"),
        (TaskRef("nq/000002", "fact", "test", tasks[0].path), "there is no row 2"),
        (TaskRef("nq/x", "fact", "test", tasks[0].path), "is no Search-QA task"),
        (TaskRef("nq/000000", "fact", "test", str(tmp_path / "gone")), "cannot be read"),
    ):
        with pytest.raises(EnvError, match=says):
            question_of(task)


def test_a_changed_file_is_read_anew(tmp_path):
    root = write(tmp_path, [verl_agent("one")])
    path = tmp_path / "test.parquet"
    assert open_file(path)[0].text == "one"
    assert open_file(path) is open_file(path)
    write(tmp_path, [verl_agent("another one")])
    assert open_file(path)[0].text == "another one"
    assert len(find_tasks(root, "test")) == 1
