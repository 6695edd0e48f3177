"""A real vLLM server (CPU build) as a process of its own: start it, kill it, start it again at the same address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

TOKEN = "a-token-that-only-these-tests-know"
KV_CACHE = 128 * 2**20  # bytes
VARIABLES = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_API_KEY": TOKEN,
}


class VllmProcess:
    """``python -m sdar_verl.compat.vllm_server`` with `model` in float32; ``ready`` waits for it."""

    def __init__(self, model: Path, log: Path, max_model_len: int = 1024, name: str = "teacher"):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.url, self.log, self._name, self._longest = f"http://127.0.0.1:{self.port}", log, name, max_model_len
        self.launch(model)

    def launch(self, model: Path) -> None:
        command = [
            sys.executable, "-m", "sdar_verl.compat.vllm_server", str(model), "--host", "127.0.0.1",
            "--port", str(self.port), "--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(KV_CACHE),
            "--max-model-len", str(self._longest), "--served-model-name", self._name,
        ]  # fmt: skip
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **VARIABLES},
            )  # fmt: skip

    def ready(self, timeout: float = 240) -> VllmProcess:
        limit = time.monotonic() + timeout
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return self
            except OSError:
                pass
            assert self._process.poll() is None and time.monotonic() < limit, self.log.read_text()[-3000:]
            time.sleep(0.3)

    def kill(self) -> None:
        """The server and its engine, at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
