"""Shared memory of dead processes goes; what a live process holds, or what others made, stays."""

import multiprocessing
import subprocess
import sys
import time
import uuid

import pytest

from sdar_verl import leftovers

pytestmark = pytest.mark.skipif(not leftovers.SHARED_MEMORY.is_dir(), reason="this machine has no /dev/shm")

HOLD = """
import mmap, os, sys
handle = os.open(sys.argv[1], os.O_RDWR)
if sys.argv[2] == "maps":
    mapped = mmap.mmap(handle, 4096)
    os.close(handle)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def segment():
    """Makes files of the given name pattern in shared memory; those still there at the end are removed."""
    made = []

    def make(pattern="psm_{}"):
        path = leftovers.SHARED_MEMORY / pattern.format(uuid.uuid4().hex[:12])
        path.write_bytes(bytes(4096))
        made.append(path)
        return path

    yield make
    for path in made:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("pattern", ["psm_{}", "sem.mp-{}", "verl_weights_{}"])
def test_a_segment_without_an_owner_goes(segment, pattern):
    path = segment(pattern)
    assert path.name in leftovers.segments()
    assert path.name in leftovers.sweep(time.time() - 60)
    assert not path.exists()


@pytest.mark.parametrize("how", ["maps", "holds open"])
def test_a_segment_in_use_stays_until_its_process_is_killed(segment, how):
    path = segment()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "ready\n"
        assert path.name not in leftovers.sweep(time.time() - 60) and path.exists()
    finally:
        holder.kill()
        holder.communicate()
    assert path.name in leftovers.sweep(time.time() - 60)


def test_a_semaphore_that_nobody_opened_yet_belongs_to_its_maker():
    """Its maker maps it under another name; a run that starts beside this one has such for seconds."""
    made = multiprocessing.get_context("spawn").Lock()
    name = f"sem.{made._semlock.name.removeprefix('/')}"
    assert name in leftovers.segments()
    assert name not in leftovers.sweep(time.time() - 60)
    assert name in leftovers.segments()


def test_older_segments_and_other_names_stay(segment):
    foreign = segment("somebodys_{}")
    assert foreign.name not in leftovers.sweep(time.time() - 60) and foreign.exists()
    old = segment()
    assert old.name not in leftovers.sweep(time.time() + 60) and old.exists()


def test_a_machine_without_shared_memory_has_nothing_to_sweep(monkeypatch, tmp_path):
    monkeypatch.setattr(leftovers, "SHARED_MEMORY", tmp_path / "none")
    assert leftovers.segments() == set() and leftovers.sweep(0) == []
