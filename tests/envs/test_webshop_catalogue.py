"""The official file formats, and what is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdar_envs.base import EnvError
from sdar_envs.webshop import catalogue
from sdar_envs.webshop.catalogue import find_files, parse_price, read_products

ENTRY = {
    "name": "Lamp",
    "full_description": "A lamp.",
    "small_description": ["Bright", "Small"],
    "category": "garden",
    "query": " Table Lamps ",
    "product_category": "Home › Lamps",
    "customization_options": {"Color": [{"value": " Red/Blue "}, {"value": "GREY", "image": None}], "none": None},
    "asin": "B000000001",
    "pricing": "$20.50",
}


def write(folder, entries, synthetic=None, human=None):
    folder.mkdir(exist_ok=True)
    (folder / "items_shuffle_1000.json").write_text(json.dumps(entries))
    (folder / "items_ins_v2_1000.json").write_text(json.dumps(synthetic or {}))
    if human is not None:
        (folder / "items_human_ins.json").write_text(json.dumps(human))
    return find_files(folder)


def test_reads_a_product_as_the_shop_shows_it(tmp_path):
    synthetic = {"B000000001": {"attributes": ["easy"], "instruction": "Find me", "instruction_attributes": ["easy"]}}
    human = {
        "B000000001": [{"instruction": "a lamp.", "instruction_attributes": ["x"], "instruction_options": ["red"]}]
    }
    (product,) = read_products(write(tmp_path, [ENTRY], synthetic, human))
    assert product.options == {"color": ("red | blue", "grey")}
    assert product.query == "table lamps"
    assert (product.prices, product.price_tag) == ((20.5,), "$20.5")
    assert product.attributes == product.instruction_attributes == ("easy",)
    assert product.human == (("a lamp.", ("x",), ("red",)),)
    assert product.search_text() == "lamp a lamp. bright color: red | blue, grey"
    assert product.levels == {"Home", "Lamps"}


def test_products_without_attributes_options_or_bullet_list(tmp_path):
    entry = ENTRY | {"small_description": "One", "customization_options": "", "pricing": ""}
    (product,) = read_products(write(tmp_path, [entry]))
    assert (product.bullets, product.options, product.attributes) == (("One",), {}, ("DUMMY_ATTR",))
    assert (product.prices, product.price_tag) == ((100.0,), "$100.0")
    assert product.instruction is None


@pytest.mark.parametrize(
    ("text", "prices", "tag"),
    [
        ("$1,299.00", (1299.0,), "$1299.0"),
        ("$5 to $7.25", (5.0, 7.25), "$5.0 to $7.25"),
        ("$1 to $2 to $3", (1.0, 2.0), "$1.0 to $2.0"),
        (None, (100.0,), "$100.0"),
    ],
)
def test_prices(text, prices, tag):
    assert parse_price(text) == (prices, tag)


def test_skips_what_the_original_skips(tmp_path):
    entries = [ENTRY | {"asin": asin} for asin in ("nan", "B0000000011", "B1", "B1", "B2")]
    files = write(tmp_path, entries)
    assert [product.asin for product in read_products(files)] == ["B1", "B2"]
    assert [product.asin for product in read_products(files, limit=3)] == ["B1"]


@settings(max_examples=40)
@given(
    st.lists(st.text(min_size=0, max_size=30), min_size=1, max_size=6), st.integers(1, 60), st.sampled_from([None, 1])
)
def test_the_array_is_read_whole_whatever_the_chunks(tmp_path_factory, names, chunk, indent):
    folder = tmp_path_factory.mktemp("chunks")
    entries = [ENTRY | {"asin": f"B{number}", "name": name} for number, name in enumerate(names)]
    files = write(folder, entries)
    files.items.write_text(json.dumps(entries, indent=indent, ensure_ascii=bool(indent)), encoding="utf-8")
    before, catalogue._CHUNK = catalogue._CHUNK, chunk
    try:
        assert [product.name for product in read_products(files)] == names
    finally:
        catalogue._CHUNK = before


@pytest.mark.parametrize(
    "change", [{"name": None}, {"pricing": "free"}, {"pricing": "$"}, {"small_description": None}, {"query": 3}]
)
def test_a_broken_product_is_named(tmp_path, change):
    files = write(tmp_path, [ENTRY, ENTRY | {"asin": "B2"} | change])
    with pytest.raises(EnvError, match="entry 1 is not a WebShop product"):
        list(read_products(files))


@pytest.mark.parametrize("text", ["{}", "", "[{", '[{"asin": 1}', "[1, 2"])
def test_a_broken_file_is_refused(tmp_path, text):
    files = write(tmp_path, [])
    files.items.write_text(text)
    with pytest.raises(EnvError, match="items_shuffle_1000.json"):
        list(read_products(files))


def test_missing_and_doubled_files(tmp_path):
    with pytest.raises(EnvError, match="neither of items_shuffle_1000.json and items_shuffle.json"):
        find_files(tmp_path)
    write(tmp_path, [ENTRY])
    (tmp_path / "items_shuffle.json").write_text("[]")
    with pytest.raises(EnvError, match="holds both"):
        find_files(tmp_path)
