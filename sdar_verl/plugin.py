"""Entry point of group ``verl.plugins``: verl imports this module inside ``import verl``.

It must stay light (verl imports it in every process) and verl swallows its errors at DEBUG level. So it only
registers the CPU platform and leaves notes for later: each real registration runs right after verl imports the module
that holds the registry. `verify` turns a failure that verl swallowed into a clear error; the driver, the task runner
and every agent-loop worker call it.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points

from sdar_verl.errors import RegistrationError

_failure: str | None = None

ENTRY_POINT = "sdar"
TRAINER_MODE = "sdar"
AGENT_LOOPS = ("sdar_step", "sdar_trajectory")
CPU_ROLLOUT = "vllm_cpu"


def _load() -> None:
    global _failure
    try:
        from sdar_verl.compat import registration
        from sdar_verl.compat.version import require_supported_verl

        require_supported_verl()
        registration.install()
    except Exception as error:  # verl would swallow it: keep the reason for `verify`
        _failure = f"{type(error).__name__}: {error}"
        raise


def verify() -> None:
    """Import verl's registries and check that ours are in them; raises `RegistrationError` with the reason."""
    import verl  # noqa: F401 - runs the plugin if nothing did

    if _failure is not None:
        raise RegistrationError(f"the sdar_verl plugin failed to load: {_failure}")
    _require_discovery()
    from sdar_verl.compat import registration

    registration.verify()


def _require_discovery() -> None:
    """Whoever imports this module has the registrations; verl's other processes have them only if verl finds it."""
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and ENTRY_POINT not in [name.strip() for name in policy.split(",")]:
        raise RegistrationError(
            f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps verl from loading the plugin {ENTRY_POINT!r}; unset it or add "
            f"{ENTRY_POINT} to its list"
        )
    if not any(found.name == ENTRY_POINT for found in entry_points(group="verl.plugins")):
        raise RegistrationError(
            f"verl finds no plugin {ENTRY_POINT!r}: the package is on the path but not installed; run "
            "`pip install -e .` (or scripts/setup.sh)"
        )


_load()
