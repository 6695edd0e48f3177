"""A private copy of the planner library for each engine, without a file in the temp folder.

The library keeps its state in global variables, so every engine needs its own copy. The package copies the whole
32 MB file through the temp folder; most of it is debugging data that is never loaded. Here the loadable part (about
1 MB) goes into an anonymous memory file, which vanishes with the process however that ends.
"""

from __future__ import annotations

import ctypes
import os
import struct

from sdar_envs.base import EnvError

_LOADABLE = 1  # PT_LOAD
_OPEN_FILES: list[int] = []  # never closed: the loader knows a library by the name of its descriptor


def private_library() -> ctypes.CDLL:
    """A fresh copy of the library with the signatures of the calls that the engine makes."""
    import fast_downward
    from fast_downward.interface import DOWNWARD_LIB_PATH

    if not hasattr(os, "memfd_create"):
        return fast_downward.load_lib()
    with open(DOWNWARD_LIB_PATH, "rb") as source:
        image = source.read(loadable_size(DOWNWARD_LIB_PATH))
    descriptor = os.memfd_create("libdownward")
    with os.fdopen(os.dup(descriptor), "wb") as target:
        target.write(image)
    try:
        library = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        os.close(descriptor)
        raise EnvError(f"the planner library could not be loaded from memory ({error}); use engine: stock") from error
    _OPEN_FILES.append(descriptor)
    atoms, operators = ctypes.POINTER(fast_downward.Atom), ctypes.POINTER(fast_downward.Operator)
    for name, arguments, result in (
        ("load_sas", [ctypes.c_char_p], None),
        ("get_applicable_operators_count", [], ctypes.c_int),
        ("get_applicable_operators", [operators], None),
        ("get_state_size", [], ctypes.c_int),
        ("get_state", [atoms], None),
        ("apply_operator", [ctypes.c_int, atoms], ctypes.c_int),
        ("check_goal", [], ctypes.c_bool),
    ):
        call = getattr(library, name)
        call.argtypes, call.restype = arguments, result
    return library


def loadable_size(path: str) -> int:
    """Bytes from the start of a 64-bit ELF file that the loader maps; the whole file for anything else."""
    whole = os.path.getsize(path)
    with open(path, "rb") as source:
        header = source.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            return whole
        (table,) = struct.unpack_from("<Q", header, 32)
        entry_size, entries = struct.unpack_from("<HH", header, 54)
        end = table + entry_size * entries
        if entry_size < 56 or end > whole:
            return whole
        source.seek(table)
        programs = source.read(entry_size * entries)
    for index in range(entries):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", programs, index * entry_size)
        if kind == _LOADABLE:
            end = max(end, offset + size)
    return min(end, whole)
