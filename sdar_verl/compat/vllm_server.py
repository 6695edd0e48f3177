"""``python -m sdar_verl.compat.vllm_server <arguments of vllm serve>``: vLLM's OpenAI-compatible server, CPU build too.

On GPUs ``vllm serve`` is the same. The token comes from the environment variable ``VLLM_API_KEY``.
"""

from __future__ import annotations

from sdar_verl.compat import parent
from sdar_verl.compat.cpu import vllm_distribution
from sdar_verl.forks.starter import spawn_there

vllm_distribution.install()  # at import: the engine's own process imports this module as well


def main() -> None:
    parent.end_with_it()
    spawn_there()  # the engine's own process
    import sys

    from vllm.entrypoints.cli.main import main as vllm_main

    sys.argv = ["vllm", "serve", *sys.argv[1:]]
    vllm_main()


if __name__ == "__main__":
    main()
