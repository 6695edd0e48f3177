"""Episodes of Search-QA: turns, ends, rewards, and the family as a trainer uses it."""

import asyncio
import random
import subprocess
import sys

import pytest
from sdar_envs import registry
from sdar_envs.base import EnvError, EpisodeView, TaskRef
from sdar_envs.pool import EnvPool, EpisodeFailed
from sdar_envs.search_qa.env import SearchQaEnv
from sdar_envs.search_qa.format import SearchQaFormat
from sdar_envs.search_qa.generate import generate
from sdar_envs.search_qa.question_types import TASK_TYPES
from sdar_envs.search_qa.questions import Question
from sdar_envs.search_qa.retrievers.base import Hit, Retriever, RetrieverError
from sdar_envs.search_qa.world.knobs import WorldKnobs

TASK = TaskRef("nq/000000", "fact", "test", "somewhere")
QUESTION = Question("who?", ("Ada Lovelace", "Ada"), "nq", "fact")


class Echo(Retriever):
    """Answers with the query itself and remembers what it was asked."""

    name = "echo"

    def __init__(self, failing=False):
        self.asked, self.failing = [], failing

    @classmethod
    def open(cls, config):
        return cls()

    def search(self, queries, k):
        if self.failing:
            raise RetrieverError("down")
        self.asked.append((list(queries), k))
        return [[Hit(str(n), f"{query} {n}", 1.0) for n in range(k)] for query in queries]


def make(**settings):
    retriever = settings.pop("retriever", None) or Echo()
    return SearchQaEnv(retriever, lambda task: QUESTION, **settings), retriever


def test_a_search_then_a_right_answer():
    env, retriever = make(success_reward=2.0)
    observation, info = env.reset(task=TASK)
    assert observation == info["task_description"] == "who?"
    assert (info["admissible_actions"], info["won"], info["step"]) == ([], False, 0)
    observation, reward, terminated, truncated, info = env.step("<search> ada  b </search>")
    assert (
        observation == '<information>{"result": "Doc 1: ada  b 0\\nDoc 2: ada  b 1\\nDoc 3: ada  b 2\\n"}</information>'
    )
    assert (reward, terminated, truncated, info["step"]) == (0.0, False, False, 1)
    assert retriever.asked == [(["ada  b"], 3)]
    assert env.step("<answer>the ada!</answer>")[:4] == ("", 2.0, True, False)
    assert (env.score.answer, env.score.exact, env.score.f1) == ("the ada!", 1.0, 1.0)
    with pytest.raises(EnvError, match="reset before step"):
        env.step("<search>x</search>")


def test_a_wrong_answer_ends_without_reward():
    env, _ = make()
    env.reset(task=TASK)
    _, reward, terminated, truncated, info = env.step("<answer>Lovelace</answer>")
    assert (reward, terminated, truncated, info["won"]) == (0.0, True, False, False)
    assert env.score.f1 == pytest.approx(2 / 3)


def test_no_search_on_the_last_turn():
    env, retriever = make(max_steps=2)
    env.reset(task=TASK)
    assert not any(env.step("<search>a</search>")[2:4])
    observation, reward, terminated, truncated, _ = env.step("<search>b</search>")
    assert (observation, reward, terminated, truncated) == ("", 0.0, False, True)
    assert len(retriever.asked) == 1
    env.reset(task=TASK)
    env.step("<search>a</search>")
    assert env.step("<answer>Ada</answer>")[1:4] == (1.0, True, False)


def test_actions_without_tags_give_an_empty_observation():
    env, retriever = make()
    env.reset(task=TASK)
    for action in ("", "hello", "<search>never closed"):
        assert env.step(action)[0] == ""
    assert retriever.asked == []


def test_the_last_answer_of_the_whole_history_is_judged():
    """Also one that came back from a search: it stands in the history like any other text."""
    env, _ = make(topk=1, max_steps=2)
    env.reset(task=TASK)
    env.step("<search>x</search>")
    env._history[-1] = "<information><answer>Ada</answer></information>"
    assert env.step("")[1:4] == (1.0, False, True)


def test_an_answer_inside_a_search_ends_the_episode():
    env, retriever = make()
    env.reset(task=TASK)
    assert env.step("<search><answer>ada</answer></search>")[1:3] == (1.0, True)
    assert retriever.asked == []


def test_a_failing_search_is_no_observation():
    env, _ = make(retriever=Echo(failing=True))
    env.reset(task=TASK)
    with pytest.raises(RetrieverError, match="down"):
        env.step("<search>x</search>")


def test_settings_are_checked():
    for wrong in ({"topk": 0}, {"max_steps": True}, {"success_reward": float("nan")}):
        with pytest.raises(EnvError, match=next(iter(wrong))):
            make(**wrong)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "small"
    generate(folder, {"train": 16, "test": 8}, seed=3, knobs=WorldKnobs(people=40))
    return folder


@pytest.fixture
def config(world):
    return {"data_root": str(world), "retriever": {"engine": "bm25s", "index": str(world / "index"), "url": None}}


def test_the_family_plays_generated_questions(config):
    family = registry.get("search_qa")
    tasks = family.tasks(config, "train")
    assert {task.task_type for task in tasks} == set(TASK_TYPES) == set(family.task_types)
    env = family.make_env(config)
    observation, info = env.reset(task=tasks[0])
    assert observation in family.make_format(config).render(EpisodeView(info["task_description"], observation, []))
    assert info["task_type"] == tasks[0].task_type
    for task in tasks:
        *searches, answer = family.reference(config, task)
        env.reset(task=task)
        for search in searches:
            assert "Doc 1: " in env.step(search)[0]
        assert env.step(answer)[1] == 1.0


def test_the_family_chooses_by_type_and_source(config):
    family = registry.get("search_qa")
    facts = family.tasks({**config, "task_types": ["fact"]}, "train")
    assert {task.task_type for task in facts} == {"fact"}
    (source,) = {task.id.partition("/")[0] for task in facts}
    assert family.tasks({**config, "sources": [source]}, "train") == facts
    with pytest.raises(EnvError, match="no question of"):
        family.tasks({**config, "sources": ["nq"]}, "train")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"topp": 1}, "unknown keys under env.search_qa: topp; known: data_root"),
        ({"retriever": None}, "env.search_qa.retriever is not set"),
        (
            {"retriever": {"engine": "bing"}},
            "unknown retriever 'bing'; known: bedrock, bm25s, dense, http, kendra, tantivy",
        ),
        ({"retriever": {"index": "x"}}, "set engine to one of bedrock, bm25s"),
        ({"retriever": {"engine": "bm25s"}}, "needs its folder: set index"),
        ({"retriever": {"engine": "bm25s", "index": "/nowhere"}}, "/nowhere holds no finished corpus"),
        ({"retriever": {"engine": "bm25s", "index": "x", "indx": 1}}, "unknown keys of retriever bm25s: indx"),
        ({"retriever": {"engine": "http"}}, "set url"),
    ],
)
def test_wrong_settings_are_refused_when_an_environment_is_made(config, change, says):
    with pytest.raises(EnvError, match=says):
        registry.get("search_qa").make_env({**config, **change})


@pytest.mark.parametrize(
    ("change", "split", "says"),
    [
        ({"data_root": None}, "train", "data_root is not set"),
        ({}, "dev", r"no Search-QA split 'dev': .*dev\.parquet"),
        ({"task_types": ["facts"]}, "train", "must be a list out of fact"),
        ({"task_types": "fact"}, "train", "must be a list"),
    ],
)
def test_wrong_settings_are_refused_when_tasks_are_listed(config, change, split, says):
    with pytest.raises(EnvError, match=says):
        registry.get("search_qa").tasks({**config, **change}, split)


def test_episodes_through_the_worker_pool(config):
    tasks = registry.get("search_qa").tasks(config, "train")

    async def episode(pool, task):
        async with pool.session() as session:
            _, info = await session.reset(task)
            observation, *_ = await session.step(f"<search>{info['task_description']}</search>")
            *_, terminated, _, info = await session.step("<answer>nobody</answer>")
            return observation, terminated

    async def play():
        async with EnvPool("search_qa", config, workers=1, envs_per_worker=4) as pool:
            return await asyncio.gather(*(episode(pool, task) for task in tasks[:6]))

    for observation, terminated in asyncio.run(play()):
        assert observation.startswith('<information>{"result": "Doc 1: ') and terminated


def test_a_dead_retriever_shows_before_the_first_episode(config):
    async def play():
        dead = {"engine": "http", "url": "http://127.0.0.1:9/retrieve", "timeout": 2}
        async with EnvPool("search_qa", {**config, "retriever": dead}, workers=1):
            raise AssertionError("the pool must not start")

    with pytest.raises(EnvError, match=r"cannot start: .*no answer from the retriever at http://127.0.0.1:9/retrieve"):
        asyncio.run(play())


def test_random_answers_never_break_an_episode():
    """20,000 turns of tag soup: every episode ends in time, rewards stay 0 or 1, and only searches are searched."""
    rng, env, form = random.Random(0), make()[0], SearchQaFormat()
    retriever = env._retriever
    pieces = [
        "<search>",
        "</search>",
        "<answer>",
        "</answer>",
        "Ada",
        "Lovelace ",
        "\n",
        "<SEARCH>",
        "\x00",
        "é",
        "{",
        '"',
    ]
    turns = wins = 0
    while turns < 20_000:
        observation, _ = env.reset(task=TASK)
        view, over, steps = EpisodeView("who?", observation, []), False, 0
        while not over:
            action = form.parse("".join(rng.choices(pieces, k=rng.randint(0, 9)))).action
            before = len(retriever.asked)
            view.history.append((view.observation, action))
            view.observation, reward, terminated, truncated, info = env.step(action)
            assert (len(retriever.asked) > before) == (view.observation != "")
            assert reward in (0.0, 1.0) and reward == info["won"] and not (terminated and truncated)
            assert form.render(view)
            over, steps, turns = terminated or truncated, steps + 1, turns + 1
            wins += info["won"]
        assert steps <= 4
    assert wins > 20


def test_a_server_that_dies_costs_only_the_episodes_in_flight(world, config):
    """No worker is lost, and episodes begun after its return are played."""
    serve = [sys.executable, "-m", "sdar_envs.search_qa.server.cli", "serve", "--engine", "bm25s"]

    def start(port):
        command = [*serve, "--index", str(world / "index"), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return process, process.stdout.readline().split()[-1]

    def stop(process):
        process.kill()
        process.wait()
        process.stdout.close()

    async def play(server, url):
        here = {**config, "retriever": {"engine": "http", "url": url, "retries": 2, "deadline": 5}}
        tasks = registry.get("search_qa").tasks(here, "train")
        async with EnvPool("search_qa", here, workers=1, envs_per_worker=2) as pool:
            async with pool.session() as session:
                await session.reset(tasks[0])
                assert "Doc 1: " in (await session.step("<search>novel</search>"))[0]
                stop(server)
                with pytest.raises(EpisodeFailed, match="no answer from the retriever at .* after 3 attempts"):
                    await session.step("<search>city</search>")
                server, _ = start(url.split(":")[2].split("/")[0])
                await session.reset(tasks[1])
                assert "Doc 1: " in (await session.step("<search>novel</search>"))[0]
            assert (pool.stats()["failures"], pool.stats()["restarts"]) == (1, 0)
        return server

    server, url = start(0)
    try:
        server = asyncio.run(play(server, url))
    finally:
        stop(server)


def test_the_environment_imports_no_trainer():
    code = (
        "import sys; from sdar_envs import registry; registry.get('search_qa').make_format({}); "
        "import sdar_envs.search_qa.env, sdar_envs.search_qa.expert, sdar_envs.search_qa.retrievers.bm25s, "
        "sdar_envs.search_qa.retrievers.tantivy, sdar_envs.search_qa.retrievers.dense, sdar_envs.search_qa.server.cli; "
        "print([name for name in ('torch', 'verl', 'sdar_verl', 'transformers', 'alfworld') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
