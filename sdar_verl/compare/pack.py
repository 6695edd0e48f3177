"""A comparison as one small file: all that its page is made of, without transcripts, logs and checkpoints."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sdar_verl.compare import state
from sdar_verl.compare.arms import split_target
from sdar_verl.errors import ConfigError
from sdar_verl.evaluation.files import write_atomic
from sdar_verl.evaluation.jsonl import read_lines
from sdar_verl.guards import FILE as GUARDS
from sdar_verl.report.run import MANIFEST, METRICS, PANEL, VALIDATION, ReportError

SUFFIX = ".tar.gz"
_INSTALLED = re.compile(r"""(/[^\s"'=,\[\]]+)/sdar_verl/""")  # where a run's package lay
_AS_IT_IS = (state.ARM_FILE, MANIFEST, PANEL, METRICS, GUARDS)


def pack(folder: Path, archive: Path) -> int:
    """Write what `sdar compare report` reads of a comparison's folder into one archive; returns its size in bytes.

    Of every evaluated episode its outcome is kept and its turns are not. Paths of the folder, and of the packages that
    its runs ran, are made relative, so that the file says nothing of where it came from. The same runs give the same
    bytes.

    Raises:
        ConfigError: the folder is no comparison, or the archive's name does not end in ``.tar.gz``.
    """
    folder = folder.expanduser().absolute()
    if not archive.name.endswith(SUFFIX):
        raise ConfigError(f"the archive's name must end in {SUFFIX}, got {archive.name}")
    if not (folder / state.FILE).is_file():
        raise ConfigError(f"{folder} has no {state.FILE}: it is no folder of `sdar compare run`")
    files = {state.FILE: (folder / state.FILE).read_text(encoding="utf-8")}
    for place in sorted(state.read(folder).runs):
        run = folder / place
        files |= {f"{place}/{name}": (run / name).read_text("utf-8") for name in _AS_IT_IS if (run / name).is_file()}
        if (run / VALIDATION).is_file():
            files[f"{place}/{VALIDATION}"] = _outcomes(run / VALIDATION)
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        places = {str(folder), *(found for text in files.values() for found in _INSTALLED.findall(text))}
        for name, text in files.items():
            content = _without(places, text).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    write_atomic(archive, raw.getvalue())
    return len(raw.getvalue())


@contextmanager
def unpacked(targets: Sequence[str]) -> Iterator[list[str]]:
    """The targets of `sdar compare report`, every archive among them unpacked for as long as the context lasts.

    Raises:
        ReportError: an archive cannot be read, or holds files that would lie elsewhere.
    """
    with ExitStack() as stack:
        yield [_open(stack, target) for target in targets]


def _open(stack: ExitStack, target: str) -> str:
    path, name = split_target(target)
    if not path.is_file():
        return target
    place = stack.enter_context(TemporaryDirectory(prefix="sdar-compare-"))
    try:
        with tarfile.open(path, "r:gz") as tar:
            tar.extractall(place, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ReportError(f"{path} is no archive of `sdar compare pack`: {error}") from error
    return place if name is None else f"{name}={place}"


def _outcomes(path: Path) -> str:
    return "".join(json.dumps(line | {"turns": []}, separators=(",", ":")) + "\n" for line in read_lines(path))


def _without(places: Collection[str], text: str) -> str:
    for place in sorted(places, key=len, reverse=True):  # one may lie in the other
        text = text.replace(place, ".")
    return text
