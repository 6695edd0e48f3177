"""The page of `sdar inspect`, in a real browser and as data: what it shows, filters, colours and refuses."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import SKILL, TYPES, make_panel, make_run, make_tokens

from sdar_verl.cli.main import main
from sdar_verl.evaluation.jsonl import JsonlWriter
from sdar_verl.evaluation.records import EpisodeRecord, TokenTurn, TurnRecord
from sdar_verl.report.inspect_data import read_episodes, split_turns, spread
from sdar_verl.report.inspect_page import build_page
from sdar_verl.report.run import ReportError

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u2028\ud800"


def play(folder: Path, steps: int = 4, each: int = 12, seed: int = 3) -> Path:
    """Add training episodes to a run: a third is won, a quarter has an invalid action; one a step has tokens."""
    draw = random.Random(seed)
    with JsonlWriter(folder / "episodes/train.jsonl") as episodes, JsonlWriter(folder / "tokens.jsonl") as tokens:
        for step in range(1, steps + 1):
            scored = make_tokens(draw, step, session=0, won=True)
            tokens.write(scored)
            for number in range(each):
                own = scored.turns if number == 0 else scored.turns[: 2 + number % 3]
                turns = [
                    TurnRecord(f"seen {i}", "said it", "go", number % 4 != 1 or i > 0, 100, 140, len(turn.tokens))
                    for i, turn in enumerate(own)
                ]
                kind = scored.task_type if number == 0 else TYPES[number % 6]
                task = scored.task_id if number == 0 else f"{kind}-Mug-{number}"
                episodes.write(
                    EpisodeRecord(
                        step, "train", task, kind, f"u{step}", number, number % 3 == 0, float(number), None,
                        ["alfworld/heat"], 1, 0.4, 0.5, turns,
                    )
                )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("inspect") / "sdar", make_panel(2), distil=True, steps=4, every=2)
    (folder / "tokens.jsonl").unlink()
    return play(folder)


@pytest.fixture
def visit(browser):
    """Opens a file offline; at the end there must have been no error and no request beside the file."""
    said, asked, pages = [], [], []

    def open_page(path, **options):
        page = browser.new_page(viewport={"width": 1300, "height": 900}, **options)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.resolve().as_uri())
        pages.append(path.resolve().as_uri())
        return page

    yield open_page
    assert said == [] and asked == pages


def numbers(page):
    return [int(row.get_attribute("data-number")) for row in page.locator("#list .row").all()]


def test_a_run_can_be_looked_through_in_the_browser(run, tmp_path, visit):
    page = visit(build_page(run, tmp_path))
    data = read_episodes(run, 1000)
    assert data.total == len(data.index) == 4 * 12 + 3 * 12 and data.with_tokens == 4
    assert page.locator("h1").inner_text() == "Episodes of sdar"
    assert numbers(page) == list(range(84))

    def filtered(**wanted):
        return [i for i, e in enumerate(data.index) if all(e[key] == value for key, value in wanted.items())]

    page.select_option("#split", "train")
    page.select_option("#outcome", "won")
    assert numbers(page) == filtered(split="train", won=True)
    page.select_option("#outcome", "lost")
    page.select_option("#type", TYPES[1])
    assert numbers(page) == filtered(split="train", won=False, type=TYPES[1]) != []
    page.select_option("#type", "")
    page.select_option("#outcome", "")
    page.check("#invalid")
    assert numbers(page) == [i for i, e in enumerate(data.index) if e["invalid"]] != []
    page.uncheck("#invalid")
    page.uncheck("#every")
    page.locator("#step").fill("2")  # the third of the steps 0 to 4
    assert numbers(page) == filtered(split="train", step=2)
    assert "step 2, success" in page.locator("#at").inner_text()
    page.check("#every")
    page.select_option("#sort", "disagreement")
    most = max(range(84), key=lambda i: data.index[i]["disagreement"])
    assert numbers(page)[0] == most
    page.locator("#task").fill("no such task")
    assert page.locator("#count").inner_text() == "No episode passes these filters."


def test_tokens_have_colour_numbers_and_both_prompts(run, tmp_path, visit):
    page = visit(build_page(run, tmp_path))
    page.check("#scored")
    page.locator("#list .row").first.click()
    record = json.loads((run / "tokens.jsonl").read_text().splitlines()[0])
    tokens = page.locator(".tokens > i")
    assert tokens.count() == sum(len(turn["tokens"]) for turn in record["turns"])
    names = ("student_logp", "teacher_logp", "gap", "gate")
    turn = {name: [value for turn in record["turns"] for value in turn[name]] for name in names}
    places = range(len(turn["gap"]))
    high, low = max(places, key=turn["gap"].__getitem__), min(places, key=turn["gap"].__getitem__)

    def colour(i):
        return [int(part) for part in re.findall(r"\d+", tokens.nth(i).evaluate("e => e.style.background"))[:3]]

    assert colour(high)[0] > colour(high)[2] and colour(low)[0] < colour(low)[2]  # orange and blue
    by_gap = colour(high)
    page.check('input[name="colour"][value="gate"]')
    assert colour(high) != by_gap and "gate 0" in page.locator("#legend").inner_text()
    tokens.nth(high).hover()
    tip = page.locator("#tip").inner_text().replace("\u2212", "-")
    for name, value in (("student", turn["student_logp"]), ("teacher", turn["teacher_logp"])):
        assert f"{name} {round(value[high], 4):.3f}" in tip
    assert f"gate {turn['gate'][high]:.3f}" in tip
    sides = page.locator(".sides pre")
    assert SKILL.splitlines()[0].split(">")[-1] in sides.nth(1).inner_text()
    assert sides.nth(0).locator("mark").count() == 0
    assert sides.nth(1).locator("mark").count() == len(SKILL.splitlines())
    assert "teacher's prompt 140" in page.locator(".turn").first.inner_text()


def test_a_run_without_teacher_shows_answers_as_text(tmp_path, visit):
    folder = make_run(tmp_path / "grpo", make_panel(2), distil=False, steps=2, every=1)
    page = visit(build_page(folder, tmp_path / "out"))
    assert "recorded no token scores" in page.locator(".note").inner_text()
    assert page.locator(".said").first.inner_text() == "<action>look</action>"
    assert page.locator("#scored").is_disabled() and page.locator(".tokens").count() == 0


def test_nothing_of_a_run_becomes_markup(run, tmp_path, visit):
    folder = tmp_path / "<b>run"
    shutil.copytree(run, folder)
    for name, keys in (("tokens.jsonl", ("student_prompt", "teacher_prompt")), ("episodes/train.jsonl", ())):
        lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for line in lines:
            line["task_id"] = EVIL
            line.update(dict.fromkeys(keys, EVIL))
            for turn in line["turns"]:
                turn["observation"] = EVIL
                turn |= {"tokens": [EVIL] * len(turn["tokens"])} if "tokens" in turn else {"response": EVIL}
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = visit(build_page(folder, tmp_path / "out"))
    assert page.title() == "Episodes of <b>run"
    assert page.locator("img, b > b").count() == 0
    assert "onerror" in page.locator("#episode").inner_text()


def test_a_thousand_episodes_open_fast_and_are_made_as_one_scrolls(tmp_path, visit):
    from playwright.sync_api import expect  # there where `visit` is

    folder = make_run(tmp_path / "big", make_panel(2), distil=True, steps=2, every=2)
    play(folder, steps=10, each=110)
    page = visit(build_page(folder, tmp_path / "out"))
    assert "1000 of 1124 recorded episodes are shown" in page.locator(".note").inner_text()
    assert page.locator("#list .row").count() == 100
    page.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight; }")
    expect(page.locator("#list .row")).to_have_count(200)
    spent = page.evaluate(
        "() => { const t = performance.now(); const s = document.getElementById('outcome'); s.value = 'won';"
        " s.dispatchEvent(new Event('change')); document.querySelector('#list .row').click();"
        " return performance.now() - t; }"
    )
    assert spent < 1000  # milliseconds, on a busy machine; a few without load


def test_tokens_of_a_whole_episode_are_dealt_to_its_turns(tmp_path):
    folder = tmp_path / "run"
    whole = make_tokens(random.Random(0), 1, 0, True)
    names = whole.turns[0].__dict__.keys() - {"observation"}
    joined = TokenTurn("", **{name: [v for turn in whole.turns for v in getattr(turn, name)] for name in names})
    assert [t.gap for t in split_turns([joined], [12] * 6)] == [t.gap for t in whole.turns]
    assert split_turns([joined], [12] * 5) is None
    with JsonlWriter(folder / "tokens.jsonl") as writer:
        writer.write(whole)
    (alone,) = read_episodes(folder, 10).details  # its episode was never written
    assert [len(turn["tokens"]["gap"]) for turn in alone["turns"]] == [12] * 6


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 40), min_size=1), st.integers(0, 100))
def test_a_limit_is_spread_evenly(sizes, limit):
    found = spread(sizes, limit)
    assert sum(map(len, found.values())) == min(limit, sum(sizes.values()))
    for name, places in found.items():
        assert len(set(places)) == len(places) and all(0 <= place < sizes[name] for place in places)
    cut = [len(found[name]) for name in sizes if len(found[name]) < sizes[name]]
    assert not cut or max(map(len, found.values())) - min(cut) <= 1


def test_folders_that_are_no_run_are_refused(tmp_path, capsys):
    with pytest.raises(ReportError, match="there is no run folder"):
        build_page(tmp_path / "none", tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty")]) == 1
    assert "it is no run folder" in capsys.readouterr().err
    (tmp_path / "empty/episodes").mkdir()
    (tmp_path / "empty/episodes/train.jsonl").touch()
    assert main(["inspect", str(tmp_path / "empty")]) == 1
    assert "no finished episode yet" in capsys.readouterr().err
