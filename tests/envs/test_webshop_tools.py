"""The commands: generate, prepare, nouns, parity; and what a missing or foreign noun table does."""

import json
import re
import shutil

import pytest
import webshop_world as world
from sdar_envs.base import EnvError
from sdar_envs.webshop import generate, nouns, parity, prepare
from sdar_envs.webshop.generate import generate_catalogue
from sdar_envs.webshop.session import Session
from sdar_envs.webshop.shop import Shop
from sdar_envs.webshop.words import ID_WORDS


def record(count=12):
    """Episodes of this shop in the recordings' form, with searches and goals."""
    shop = world.shop()
    book = shop.goals("synthetic", 0, 0)
    episodes = []
    for index in range(count):
        visit = Session(shop, book, book[index])
        steps, start = [], visit.observation
        plan = ["search[cotton rug]", "click[next >]", "click[< prev]", None, "click[features]", "click[< prev]", "x"]
        for action in (*plan, "click[buy now]"):
            action = action or f"click[{visit.clickables[-1]}]"
            step = {"has_search_bar": visit.has_search_bar, "clickables": visit.clickables, "action": action}
            visit.act(action)
            reward = visit.score.total if visit.score else 0
            steps.append({**step, "observation": visit.observation, "reward": reward, "done": visit.score is not None})
        episodes.append({"goal_index": index, "reset_observation": start, "steps": steps})
    searches = [
        {"query": q, "top50": [shop.product(n).asin for n in shop.search(q)]} for q in ("lamp", "zzz", "tea bag")
    ]
    goals = [
        {"index": i, "asin": g.asin, "instruction_text": g.text, "attributes": list(g.attributes),
         "price_upper": g.price_cap, "goal_options": dict(g.options)}
        for i, g in ((i, book[i]) for i in range(20))
    ]  # fmt: skip
    return episodes, searches, goals


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return str(path)


@pytest.fixture
def arguments(tmp_path):
    episodes, searches, goals = record()
    files = {"--episodes": episodes, "--searches": searches, "--goals": goals}
    named = {name: write(tmp_path / f"{name[2:]}.jsonl", rows) for name, rows in files.items()}
    base = [str(world.data_root()), "--cache-dir", str(world.cache())]
    return base, named, files


def test_parity_with_itself_is_whole(arguments, capsys):
    base, named, files = arguments
    assert parity.main([*base, *(part for pair in named.items() for part in pair)]) == 0
    out = capsys.readouterr().out
    assert out.count("(100.00%)") == len(parity.FIELDS) + 3
    assert f"{12 * 8:7d} of {12 * 8:7d} equal" in out


@pytest.mark.parametrize(
    ("field", "value"),
    [("observation", "x"), ("clickables", []), ("reward", 0.5), ("done", True), ("has_search_bar", 3)],
)
def test_parity_sees_every_difference(arguments, capsys, tmp_path, field, value):
    base, named, files = arguments
    files["--episodes"][2]["steps"][1][field] = value
    assert parity.main([*base, "--episodes", write(tmp_path / "changed.jsonl", files["--episodes"])]) == 1
    out = capsys.readouterr().out
    assert f"{field:16} {95:7d} of {96:7d} equal" in out
    assert f"{field}, episode 2 step 1 'click[next >]'" in out


def test_parity_sees_other_orders_and_goals(arguments, capsys, tmp_path):
    base, named, files = arguments
    files["--searches"][0]["top50"].reverse()
    files["--goals"][0]["price_upper"] += 10
    changed = [
        "--searches",
        write(tmp_path / "s", files["--searches"]),
        "--goals",
        write(tmp_path / "g", files["--goals"]),
    ]
    assert parity.main([*base, *changed]) == 1
    out = capsys.readouterr().out
    assert "search order           2 of       3" in out and "goals                 19 of      20" in out


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("{}", "lacks 'goal_index'"), (None, "cannot be read")]
)
def test_parity_refuses_broken_recordings(arguments, capsys, tmp_path, text, message):
    base, named, files = arguments
    path = tmp_path / "broken.jsonl"
    if text is not None:
        path.write_text(text)
    assert parity.main([*base, "--episodes", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert parity.main(base) == 2
    assert "nothing to check" in capsys.readouterr().err


def test_generated_catalogues_are_the_same_everywhere_and_kept(tmp_path):
    first = generate_catalogue(tmp_path / "a", 40, seed=3)
    again = generate_catalogue(tmp_path / "b", 40, seed=3)
    other = generate_catalogue(tmp_path / "c", 40, seed=4)
    names = sorted(path.name for path in first.iterdir())
    assert [(first / name).read_bytes() for name in names] == [(again / name).read_bytes() for name in names]
    assert (first / "items_shuffle_1000.json").read_bytes() != (other / "items_shuffle_1000.json").read_bytes()
    before = (first / "nouns.json").stat().st_mtime_ns
    assert generate_catalogue(tmp_path / "a", 40, seed=3) == first
    assert (first / "nouns.json").stat().st_mtime_ns == before
    with pytest.raises(EnvError, match="--overwrite"):
        generate_catalogue(tmp_path / "a", 41, seed=3)
    generate_catalogue(tmp_path / "a", 41, seed=3, overwrite=True)


def test_knobs_change_the_catalogue(tmp_path, capsys):
    command = ["-n", "60", "--categories", "grocery", "--kinds", "1", "--axes", "2", "2", "--values", "1", "2"]
    assert generate.main([str(tmp_path / "easy"), *command, "--twins", "0"]) == 0
    assert "60 products" in capsys.readouterr().out
    shop = Shop(tmp_path / "easy", tmp_path / "cache")
    products = [shop.product(number) for number in range(60)]
    assert {one.category for one in products} == {"grocery"} and {one.query for one in products} == {"granola & muesli"}
    assert {len(one.options) for one in products} == {2}
    assert {len(values) for one in products for values in one.options.values()} == {1, 2}


def test_product_ids_of_few_words(tmp_path):
    folder = generate_catalogue(tmp_path / "data", 30, knobs=generate.Knobs(id_words=3))
    ids = [item["asin"] for item in json.loads((folder / "items_shuffle_1000.json").read_text())]
    assert len(set(ids)) == 30 and {one[2:9] for one in ids} == set(ID_WORDS[:3])
    assert all(re.fullmatch("B0[A-Z]{7}[0-9]", one) for one in ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--categories", "toys"], "unknown or no category"),
        (["--axes", "3", "1"], "axes is"),
        (["--twins", "1"], "twins is"),
        (["--kinds", "0"], "kinds and filler"),
        (["-n", "0"], "is none"),
        (["--id-words", "1000"], "id_words is 1000; it takes 0 to"),
        (["--id-words", "3", "-n", "31"], "gives 30 ids, too few for 31"),
    ],
)
def test_bad_knobs(tmp_path, capsys, arguments, message):
    assert generate.main([str(tmp_path / "x"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_without_a_noun_table_nothing_opens(tmp_path):
    root = tmp_path / "data"
    shutil.copytree(generate_catalogue(tmp_path / "made", 20), root)
    (root / "nouns.json").unlink()
    with pytest.raises(EnvError, match="python -m sdar_envs.webshop.nouns"):
        Shop(root, tmp_path / "cache")
    shutil.copy(world.data_root() / "nouns.json", root)
    with pytest.raises(EnvError, match="belongs to catalogue"):
        Shop(root, tmp_path / "cache")
    (root / "nouns.json").write_text("[]")
    with pytest.raises(EnvError, match="is not a noun table"):
        Shop(root, tmp_path / "cache")


def test_the_noun_command_says_what_is_missing(tmp_path, capsys):
    root = generate_catalogue(tmp_path / "data", 5)
    assert nouns.main([str(root), "--model", "no_such_model", "--cache-dir", str(tmp_path / "cache")]) == 2
    assert "spaCy or its model no_such_model is missing" in capsys.readouterr().err


def test_a_blank_spacy_model_writes_a_table(tmp_path):
    """Through real spaCy where it is installed; a blank model knows no nouns."""
    spacy = pytest.importorskip("spacy")
    spacy.blank("en").to_disk(tmp_path / "model")
    root = generate_catalogue(tmp_path / "data", 5)
    command = [str(root), "--model", str(tmp_path / "model"), "--cache-dir", str(tmp_path / "cache")]
    assert nouns.main([*command, "--out", str(tmp_path / "table.json")]) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["names_hash"] == json.loads((root / "nouns.json").read_text())["names_hash"]
    assert set(table["nouns"].values() and map(tuple, table["nouns"].values())) == {()}


def test_prepared_folders(tmp_path, capsys, monkeypatch):
    root = generate_catalogue(tmp_path / "data", 30)
    out = tmp_path / "prepared"
    assert prepare.main([str(root), str(out), "--products", "10"]) == 0
    assert "10 products" in capsys.readouterr().out
    assert prepare.main([str(root), str(out)]) == 2, "never over another folder"
    assert len(prepare.open_prepared(out).products) == 10
    shutil.rmtree(out)
    assert prepare.main([str(root), str(out)]) == 0
    shutil.copy(root / "nouns.json", out)
    shop = Shop(out, tmp_path / "cache")
    assert shop.prepared.folder == out and len(shop.goals("synthetic", 0, 233)) > 0
    monkeypatch.setattr(prepare, "AUTOMATIC", 10)
    with pytest.raises(EnvError, match="prepare it once"):
        prepare.ensure_prepared(root, tmp_path / "cache2")
    (out / "prepared.json").write_text('{"version": 0, "names_hash": "", "content": ""}')
    with pytest.raises(EnvError, match="prepared by version 0"):
        prepare.open_prepared(out)


def test_odd_products_are_sold_but_goals_need_a_known_category(tmp_path):
    root = generate_catalogue(tmp_path / "data", 8)
    items = json.loads((root / "items_shuffle_1000.json").read_text())
    wishes = json.loads((root / "items_ins_v2_1000.json").read_text())
    bare = {**items[0], "asin": "B0ODD", "category": "toys", "small_description": [], "name": "Oddment"}
    (root / "items_shuffle_1000.json").write_text(json.dumps([*items, bare]))
    prepared = prepare.open_prepared(prepare.ensure_prepared(root, tmp_path / "cache"))
    assert [prepared.products[number]["name"] for number in prepared.index.search("oddment", 5)] == ["Oddment"]
    wishes["B0ODD"] = {"attributes": ["x"], "instruction": "Find me toys", "instruction_attributes": ["x"]}
    (root / "items_ins_v2_1000.json").write_text(json.dumps(wishes))
    with pytest.raises(EnvError, match="goals in the unknown category 'toys'"):
        prepare.ensure_prepared(root, tmp_path / "cache")
    wishes["B0ODD"]["instruction_attributes"] = []
    (root / "items_ins_v2_1000.json").write_text(json.dumps(wishes))
    with pytest.raises(EnvError, match="instruction without attributes"):
        prepare.ensure_prepared(root, tmp_path / "cache")


def test_a_cache_that_cannot_be_written(tmp_path):
    root = generate_catalogue(tmp_path / "data", 5)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(EnvError, match="set env.webshop.cache_dir"):
        Shop(root, blocked / "cache")
    assert not list(tmp_path.glob(".*partial*"))
