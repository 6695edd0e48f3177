import pickle
import resource
import socket

import psutil
import pytest

from sdar_verl import host, preflight
from sdar_verl.preflight import PreflightError


def test_available_memory_is_within_the_machines():
    free = host.available_memory()
    assert 0 < free <= psutil.virtual_memory().total


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_groups_limit_counts(tmp_path, monkeypatch, version):
    """A container with 3 GiB of limit of which 1 GiB is used, half of that as page cache."""
    folder = tmp_path / ("memory/box" if version == 1 else "box")
    folder.mkdir(parents=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    for name, value in zip(names, (3 * host.GIB, host.GIB), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {host.GIB // 2}\n")
    (folder.parent / names[0]).write_text("max\n")
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    groups = [(path, names) for path in (folder, folder.parent)]
    monkeypatch.setattr(host, "_memory_groups", lambda: groups)
    assert host.available_memory() == min(2.5 * host.GIB, psutil.virtual_memory().available)


def test_control_groups_of_this_process_are_found():
    for folder, names in host._memory_groups():
        assert str(folder).startswith("/sys/fs/cgroup") and len(names) == 2


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    assert host.free_disk(tmp_path / "a" / "b") == pytest.approx(host.free_disk(tmp_path), rel=0.05)
    preflight.require_disk(tmp_path / "a", 0)
    with pytest.raises(PreflightError, match="GiB of disk are needed under .*make room"):
        preflight.require_disk(tmp_path, 1e9)


def test_memory_and_shared_memory(monkeypatch):
    preflight.require_memory(0)
    preflight.require_shared_memory(0)
    with pytest.raises(PreflightError, match="GiB of memory are needed"):
        preflight.require_memory(1e9)
    with pytest.raises(PreflightError, match="--shm-size"):
        preflight.require_shared_memory(1e9)
    monkeypatch.setattr(host, "free_shared_memory", lambda: None)
    with pytest.raises(PreflightError, match="no /dev/shm"):
        preflight.require_shared_memory(0)


def test_open_files_follow_the_processes_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        preflight.require_open_files(256)
        with pytest.raises(PreflightError, match="the limit is 256; run `ulimit -n 257`"):
            preflight.require_open_files(257)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_taken_port_is_refused_and_free_again_later():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PreflightError, match=f"port {port} on 127.0.0.1 is in use"):
            preflight.require_free_port(port)
        preflight.require_reachable(f"127.0.0.1:{port}")
    preflight.require_free_port(port)
    with pytest.raises(PreflightError, match="nothing answers"):
        preflight.require_reachable(f"127.0.0.1:{port}")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_impossible_ports(port):
    with pytest.raises(PreflightError, match="is no port"):
        preflight.require_free_port(port)


@pytest.mark.parametrize("address", ["", "host", ":80", "host:", "host:http", "host:0", "host:70000"])
def test_malformed_addresses(address):
    with pytest.raises(PreflightError, match="write it as host:port"):
        preflight.require_reachable(address)


def test_a_cluster_that_can_never_place_the_run():
    preflight.require_resources({"CPU": 4, "GPU": 2}, {"CPU": 4, "GPU": 8, "memory": 1})
    with pytest.raises(PreflightError) as caught:
        preflight.require_resources({"CPU": 12, "GPU": 8}, {"CPU": 16})
    assert "GPU 8 needed, 0 there" in str(caught.value) and "CPU" not in caught.value.problem


def test_errors_survive_the_way_out_of_a_worker():
    error = PreflightError("a problem", "an advice")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "a problem; an advice" and (copy.problem, copy.advice) == (error.problem, error.advice)
