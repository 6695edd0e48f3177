"""How `sdar train` ends, by code and words: with an error raised here, or wrapped by Ray in another process."""

import pickle

import pytest
from omegaconf import OmegaConf

from sdar_verl import guards, train
from sdar_verl.errors import ConfigError
from sdar_verl.forks.starter import COMMAND
from sdar_verl.guards import GuardStop
from sdar_verl.spot import SpotStop
from sdar_verl.storage.errors import StorageError, StorageUnreachable
from sdar_verl.teacher.errors import TeacherUnavailable

ENDS = [
    (GuardStop("step 2: kl_blowup: too far"), guards.EXIT_CODE, "stopped by a guard: step 2: kl_blowup: too far"),
    (SpotStop("SIGTERM; goes on"), 75, "stopped for its machine's sake: SIGTERM; goes on"),
    (StorageUnreachable("S3 away"), 69, "cannot go on now, start it again later: S3 away"),
    (TeacherUnavailable("nobody"), 69, "cannot go on now, start it again later: nobody"),
]


def ended(error, monkeypatch, capsys):
    """Exit code and last words of a run that ends with `error`."""

    def run(config):
        raise error

    monkeypatch.setattr(train, "run", run)
    with pytest.raises(SystemExit) as end:
        train._main.__wrapped__({})
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("wrapped", [False, True], ids=["here", "through Ray"])
@pytest.mark.parametrize(("error", "code", "words"), ENDS, ids=lambda value: type(value).__name__)
def test_each_end_has_its_code_and_its_words(error, code, words, wrapped, monkeypatch, capsys):
    if wrapped:
        ray_exceptions = pytest.importorskip("ray.exceptions")
        travelled = pickle.loads(pickle.dumps(error))
        error = ray_exceptions.RayTaskError("run", "a long traceback", travelled).as_instanceof_cause()
    assert ended(error, monkeypatch, capsys) == (code, f"sdar: {words}\n")


def test_any_other_error_of_ours_is_2(monkeypatch, capsys):
    assert ended(StorageError("no bucket"), monkeypatch, capsys) == (2, "sdar: StorageError: no bucket\n")


def test_forks_are_for_cpus_and_for_a_ray_of_the_runs_own(monkeypatch):
    def config(device, address, forked=True):
        parts = {"trainer": {"device": device}, "ray_kwargs": {"ray_init": {"address": address}}}
        return OmegaConf.create(parts | {"sdar": {"forked_workers": forked}})

    with pytest.raises(ConfigError, match="needs platform=cpu, but trainer.device is cuda"):
        train._forks(config("cuda", "local"))
    assert not train._forks(config("cuda", "local", forked=False))
    assert not train._forks(config("cpu", "auto"))
    monkeypatch.setenv(COMMAND, "/there/already")
    assert not train._forks(config("cpu", "local"))
