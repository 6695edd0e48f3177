"""Generated worlds: what is told can be read back, questions have one answer, and searching is needed to find it."""

import filecmp
import json
from collections import Counter, defaultdict

import pytest
from sdar_envs import registry
from sdar_envs.base import EnvError, EpisodeView
from sdar_envs.search_qa import bench
from sdar_envs.search_qa.expert import Expert
from sdar_envs.search_qa.generate import generate, main
from sdar_envs.search_qa.question_types import TASK_TYPES
from sdar_envs.search_qa.questions import open_file
from sdar_envs.search_qa.retrievers import open_retriever
from sdar_envs.search_qa.world.ask import ask
from sdar_envs.search_qa.world.facts import make_world, tell
from sdar_envs.search_qa.world.knobs import WorldKnobs
from sdar_envs.search_qa.world.language import RELATIONS
from sdar_envs.search_qa.world.names import least_words, lexicon
from sdar_envs.search_qa.world.read import read_question, take_notes

KNOBS = WorldKnobs()
FEW = WorldKnobs(people=120, namesakes=5, words=24, alias_questions=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds") / "one"
    generate(folder, {"train": 200, "test": 100}, seed=5)
    return folder


@pytest.fixture(scope="module")
def config(folder):
    return {"data_root": str(folder), "retriever": {"engine": "bm25s", "index": str(folder / "index")}}


def play(config, expert, split="train", **more):
    """Wins by source, in the real environment."""
    family = registry.get("search_qa")
    config = {**config, **more}
    env, wins = family.make_env(config), defaultdict(list)
    for task in family.tasks(config, split):
        observation, info = env.reset(task=task)
        view, over = EpisodeView(info["task_description"], observation, []), False
        while not over:
            parsed = family.make_format(config).parse(expert.act(view))
            assert parsed.valid
            observation, _, terminated, truncated, info = env.step(parsed.action)
            view.history.append((view.observation, parsed.action))
            view.observation, over = observation, terminated or truncated
        assert terminated, "the expert always answers"
        wins[task.id.partition("/")[0]].append(info["won"])
    return wins


def rate(wins):
    every = [won for found in wins.values() for won in found]
    return sum(every) / len(every)


def test_the_same_seed_gives_the_same_files(folder, tmp_path):
    generate(tmp_path / "again", {"train": 200, "test": 100}, seed=5)
    names = ["train.parquet", "test.parquet", "corpus.jsonl", "world.json"]
    assert filecmp.cmpfiles(folder, tmp_path / "again", names, shallow=False)[0] == names
    generate(tmp_path / "other", {"train": 200}, seed=6, engine=None)
    assert (tmp_path / "other" / "corpus.jsonl").read_text() != (folder / "corpus.jsonl").read_text()
    assert not (tmp_path / "other" / "index").exists()
    with pytest.raises(EnvError, match="is not empty"):
        generate(folder, {"train": 1})


@pytest.mark.parametrize("knobs", [KNOBS, WorldKnobs(people=30, facts_per_passage=5, mentions=3, backlinks=1.0), FEW])
def test_what_is_told_is_read_back_exactly(knobs):
    world = make_world(1, knobs)
    notes = take_notes(passage.contents for passage in tell(world, 1, knobs))
    assert notes.objects == world.objects
    known = {entity.alias: entity.name for group in world.entities.values() for entity in group if entity.alias}
    assert notes.names == known


@pytest.mark.parametrize("knobs", [WorldKnobs(people=600, namesakes=8), FEW])
def test_no_two_things_share_a_name(knobs):
    world = make_world(2, knobs)
    names = [
        name.lower() for group in world.entities.values() for entity in group for name in (entity.name, entity.alias)
    ]
    assert max(Counter(name for name in names if name).values()) == 1
    for relation in RELATIONS:
        assert all((entity.name, relation.name) in world.objects for entity in world.entities[relation.subject])


def solve(world, question):
    """The answer straight from the world's table, by the plan that the question's words give."""
    plan = read_question(question.text)
    real = {entity.alias: entity.name for group in world.entities.values() for entity in group if entity.alias}
    ends = []
    for chain in plan.chains:
        here = real.get(chain.start, chain.start)
        for relation in chain.relations:
            if chain.inverse:
                (here,) = world.subjects(relation, here)
            else:
                here = world.object(here, relation)
        ends.append(here)
    if plan.compare == "same":
        return "yes" if ends[0] == ends[1] else "no"
    return ends[0] if not plan.compare else min(zip(map(int, ends), plan.chains, strict=True))[1].start


def test_questions_mean_what_they_say():
    world = make_world(3, KNOBS)
    questions = ask(world, "train", 400, 3, KNOBS)
    assert len({question.text for question in questions}) == 400
    assert Counter(question.task_type for question in questions) == dict.fromkeys(TASK_TYPES, 100)
    assert {question.source for question in questions} == {
        "world_inverse", "world_1hop", "world_2hop", "world_3hop", "world_compare"
    }  # fmt: skip
    for question in questions:
        assert solve(world, question) in question.targets, question
        assert not any(target in question.text for target in question.targets) or question.task_type == "comparison"


def test_splits_share_no_question_and_no_start():
    world = make_world(4, KNOBS)
    starts = {}
    for split in ("train", "test"):
        plans = [read_question(question.text) for question in ask(world, split, 150, 4, KNOBS)]
        real = {entity.alias: entity.name for group in world.entities.values() for entity in group if entity.alias}
        starts[split] = {real.get(chain.start, chain.start) for plan in plans for chain in plan.chains}
    assert not starts["train"] & starts["test"]


def test_one_search_is_not_enough(config):
    """The question itself finds single facts and hardly ever the end of a chain."""
    retriever = open_retriever(config["retriever"])
    found = bench.quality(retriever, list(open_file(f"{config['data_root']}/train.parquet"))).by_source
    assert found["world_1hop"] > 0.8
    assert found["world_2hop"] < 0.25 and found["world_3hop"] < 0.25


def test_the_expert_is_far_better_than_players_without_a_skill(config):
    best = play(config, Expert())
    assert rate(best) > 0.75
    assert rate({"2hop": best["world_2hop"]}) > 0.85
    hasty = play(config, Expert(early_answer=1.0))
    stubborn = play(config, Expert(whole_question=1.0))
    blind = play(config, Expert(max_steps=1))
    assert rate(hasty) < 0.6 and rate(stubborn) < 0.7
    for worse in (hasty, stubborn):
        assert not any(worse["world_3hop"])
    assert rate({k: v for k, v in blind.items() if k != "world_compare"}) == 0, "nothing can be known without searching"
    assert 0.2 < rate({"compare": blind["world_compare"]}) < 0.8, "a comparison can be guessed"


def test_more_turns_and_passages_help_the_expert(config):
    usual, more = (
        rate(play(config, Expert(), "test")),
        rate(play(config, Expert(max_steps=9), "test", max_steps=9, topk=9)),
    )
    assert more > usual and more > 0.95


def test_the_expert_depends_on_the_view_alone():
    view = EpisodeView("Who wrote the novel The Pale Door?", "Who wrote the novel The Pale Door?", [])
    assert Expert().act(view) == Expert().act(view) == "<search>The Pale Door was written by</search>"
    with pytest.raises(EnvError, match="no question of a generated world"):
        Expert().act(EpisodeView("who wrote it?", "", []))
    with pytest.raises(EnvError, match="early_answer is 2"):
        Expert(early_answer=2)


def test_worlds_of_few_words_have_the_words_in_common_and_nothing_else():
    one, other = (make_world(seed, FEW) for seed in (1, 2))
    names = [{entity.name for group in world.entities.values() for entity in group} for world in (one, other)]
    words = [{word for name in own for word in name.split()} for own in names]
    assert len(words[0] & words[1]) > 0.7 * len(words[0] | words[1])
    assert len(names[0] & names[1]) < 0.5 * len(names[0])
    assert not one.objects.items() >= other.objects.items()
    assert not any(entity.alias for group in one.entities.values() for entity in group)
    assert {word for _, word in named_people(one)} <= set(lexicon(24)["family"])


def named_people(world):
    return [entity.name.split() for entity in world.entities["person"]]


def test_the_smallest_lexicon_is_enough_for_the_largest_world():
    knobs = WorldKnobs(people=2000, namesakes=50, words=least_words(2000, 50), alias_questions=0.0)
    assert len(make_world(0, knobs).entities["person"]) == 2000


def test_lexicons_hold_different_words():
    words = [word for own in lexicon(30).values() for word in own]
    assert len(set(words)) == len(words) == 30 * len(lexicon(30))


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"words": 5, "alias_questions": 0.0}, "words is 5; 160 people need at least 40"),
        ({"words": 40}, "set alias_questions to 0"),
        ({"people": 3}, "people is 3"),
        ({"backlinks": 1.5}, "backlinks is 1.5"),
        ({"max_hops": 1}, "bridge questions need max_hops"),
        ({"task_types": ("riddle",)}, "known: fact, attribute"),
    ],
)
def test_knobs_are_checked(knobs, says):
    with pytest.raises(EnvError, match=says):
        WorldKnobs(**knobs)


def test_a_small_world_runs_out_of_questions(tmp_path):
    with pytest.raises(EnvError, match="no more fact questions after .* raise people"):
        generate(tmp_path / "w", {"train": 500}, knobs=WorldKnobs(people=24, task_types=("fact",)))
    assert not (tmp_path / "w").exists()


def test_command_line(tmp_path, capsys):
    arguments = [str(tmp_path / "w"), "--split", "train=12", "--split", "dev=8", "--people", "40", "--max-hops", "2"]
    assert main([*arguments, "--task-types", "bridge", "fact", "--engine", "tantivy"]) == 0
    assert "12 questions in" in capsys.readouterr().out
    written = json.loads((tmp_path / "w" / "world.json").read_text())
    assert (written["knobs"]["people"], written["splits"]) == (40, {"train": 12, "dev": 8})
    assert {q.source for q in open_file(tmp_path / "w" / "dev.parquet")} == {"world_2hop", "world_inverse"}
    assert len(open_retriever({"engine": "tantivy", "index": str(tmp_path / "w" / "index")}).store) > 50
    assert main(arguments) == 1 and "is not empty" in capsys.readouterr().err
    assert main([str(tmp_path / "v"), "--split", "train"]) == 1
