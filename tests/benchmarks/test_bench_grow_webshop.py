"""A grown catalogue opens, is as large as asked for, and holds texts of the small one only."""

import json
import subprocess
import sys
from pathlib import Path

from sdar_envs.webshop.catalogue import find_files, read_products
from sdar_envs.webshop.generate import generate_catalogue
from sdar_envs.webshop.shop import Shop

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "grow_webshop.py"


def test_a_grown_catalogue_is_a_shop(tmp_path):
    small, out = generate_catalogue(tmp_path / "small", 20), tmp_path / "large"
    for _ in range(2):  # the second call replaces the first one's files
        done = subprocess.run([sys.executable, SCRIPT, small, out, "-n", "300"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    of_small = list(read_products(find_files(small)))
    shop = Shop(out, tmp_path / "cache")
    found = [shop.product(number) for number in range(300)]
    assert len({product.asin for product in found}) == 300
    assert {product.name for product in found} <= {product.name for product in of_small}
    assert {product.description for product in found} <= {product.description for product in of_small}
    mixed = {(product.name, product.description) for product in found}
    assert len(mixed) > 100 > len({(product.name, product.description) for product in of_small})
    assert len(json.loads((out / "nouns.json").read_text())["nouns"]) == 300
