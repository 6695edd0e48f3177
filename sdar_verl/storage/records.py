"""The run's own files, without which an empty machine could not go on: metrics, episodes, panel, manifest, skills."""

from __future__ import annotations

from pathlib import Path

from sdar_verl.storage.transfer import Snapshot

LOGS = "ray-logs"  # of a start that failed; they are of no use elsewhere


def run_files(run_dir: Path, root: Path) -> list[Snapshot]:
    """Snapshots of all of them; raises OSError.

    Left out: checkpoints (`root`), logs of Ray, links, and names that begin with a dot (files that are being written).
    """
    found = []
    for path in sorted(run_dir.rglob("*")):
        parts = path.relative_to(run_dir).parts
        hidden = any(part.startswith(".") for part in parts)
        if hidden or parts[0] == LOGS or root == path or root in path.parents:
            continue
        if path.is_file() and not path.is_symlink():
            found.append(Snapshot(path, "/".join(parts)))
    return found
