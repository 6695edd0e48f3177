"""Models that are fetched from a hub: whether a failure to load one may pass by itself."""

from __future__ import annotations

from sdar_verl.errors import ConfigError, SdarError, Unreachable


def not_loaded(
    model: str, error: Exception, wrong: type[SdarError] = ConfigError, away: type[SdarError] = Unreachable
) -> SdarError:
    """What to raise for `model` (key and value), which transformers could not load: `away` if that may pass."""
    return (away if is_away(error) else wrong)(f"{model} cannot be loaded: {str(error).splitlines()[0]}")


def is_away(error: BaseException | None) -> bool:
    """Whether `error`, raised by transformers, comes from a hub that does not answer, is throttled or fails.

    What the hub answers otherwise (no such model, no right to it) stays as it is, and so does a model that is missing
    where the hub is not to be asked (``HF_HUB_OFFLINE``).
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    missing = False
    while error is not None:
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            return error.response.status_code == 429 or error.response.status_code >= 500
        missing = missing or isinstance(error, LocalEntryNotFoundError)
        error = error.__cause__ or error.__context__
    return missing and not constants.HF_HUB_OFFLINE
