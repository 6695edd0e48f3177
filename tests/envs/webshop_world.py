"""A small generated WebShop catalogue for tests, opened once per test process."""

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from sdar_envs.webshop.generate import generate_catalogue
from sdar_envs.webshop.shop import Shop

PRODUCTS = 150


@lru_cache
def folder() -> Path:
    root = Path(tempfile.mkdtemp(prefix="webshop-test-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@lru_cache
def data_root() -> Path:
    return generate_catalogue(folder() / "data", PRODUCTS, seed=7)


def cache() -> Path:
    return folder() / "cache"


@lru_cache
def shop() -> Shop:
    return Shop(data_root(), cache())


def config(**changes):
    base = {"data_root": str(data_root()), "cache_dir": str(cache()), "test_size": 40, "eval_size": 40}
    return {**base, **changes}
