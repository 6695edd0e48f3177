"""The tiny models that play: how they are made (`fit`), how well they play with and without skills (`evaluate`)."""

from pathlib import Path

from sdar_verl.errors import ConfigError

WEIGHTS = Path(__file__).parent / "weights"  # ALFWorld's fitted model; those of others lie in folders of their names


def shipped_weights(env: str) -> Path:
    """The fitted model that ships with the package for an environment; raises `ConfigError` if none does."""
    folder = WEIGHTS if env == "alfworld" else WEIGHTS / env
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"no fitted model ships for {env} (there is none in {folder}); make one with: "
            f"sdar lab fit <folder> --env {env}"
        )
    return folder
