"""Which verl this plugin was built against and refuses to run without."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from sdar_verl.errors import RegistrationError

SUPPORTED_VERL = SpecifierSet("==0.9.1")


def installed_verl() -> str:
    """The installed verl's version; raises `RegistrationError` if there is none."""
    try:
        return version("verl")
    except PackageNotFoundError:
        raise RegistrationError(
            f"verl is not installed; run `pip install verl{SUPPORTED_VERL}` (or scripts/setup.sh)"
        ) from None


def require_supported_verl() -> str:
    """Returns the installed version; raises `RegistrationError` outside the supported range."""
    found = installed_verl()
    if not SUPPORTED_VERL.contains(found, prereleases=True):
        raise RegistrationError(
            f"verl {found} is installed but sdar_verl supports verl{SUPPORTED_VERL}: it subclasses verl's trainer, "
            f"whose internals change between releases. Run `pip install 'verl{SUPPORTED_VERL}'`."
        )
    return found
