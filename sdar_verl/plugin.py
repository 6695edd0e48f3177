"""Entry point of group ``verl.plugins``: verl imports this module inside ``import verl``.

It must stay light (verl imports it in every process) and verl swallows its errors at DEBUG level. So it only
registers the CPU platform and leaves notes for later: each real registration runs right after verl imports the module
that holds the registry. `verify` turns a failure that verl swallowed into a clear error; the driver, the task runner
and every agent-loop worker call it.
"""

from __future__ import annotations

from sdar_verl.errors import RegistrationError

_failure: str | None = None

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
    from sdar_verl.compat import registration

    if not registration.installed():
        raise RegistrationError(
            "verl did not load the plugin `sdar`. Install the package (`pip install -e .` makes the entry point) and "
            "unset VERL_USE_EXTERNAL_PLUGINS if it excludes `sdar`."
        )
    registration.verify()


_load()
