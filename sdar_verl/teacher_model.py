"""Another model as teacher: the same tokenizer token by token, or its log-probabilities mean other texts."""

from __future__ import annotations

from typing import Any

from sdar_verl import hub
from sdar_verl.errors import ConfigError
from sdar_verl.settings import Settings
from sdar_verl.teacher.probes import PROBES


def check_teacher_model(plain: dict[str, Any], settings: Settings, tokenizer: Any) -> None:
    """Refuse ``sdar.teacher.model_path`` where the teacher cannot score the student's token ids.

    Args:
        plain: the resolved configuration.
        tokenizer: the student's.

    Raises:
        Unreachable: its hub does not answer.
        ConfigError: it cannot be loaded, its tokenizer differs (the first difference is named), its vocabulary is too
            small, or whole distributions are compared and the two vocabularies differ in size (as Qwen2.5's do, which
            are padded to 151,936 and 152,064).
    """
    from transformers import AutoConfig, AutoTokenizer

    path, trust = settings.teacher.model_path, plain["actor_rollout_ref"]["model"]["trust_remote_code"]
    try:
        teacher = AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
        theirs = AutoConfig.from_pretrained(path, trust_remote_code=trust).vocab_size
    except (OSError, ValueError) as error:
        raise hub.not_loaded(f"sdar.teacher.model_path={path!r}", error) from error
    if difference := tokenizer_difference(tokenizer, teacher):
        raise ConfigError(
            f"sdar.teacher.model_path={path!r} has another tokenizer than the student: {difference}. A teacher scores "
            "the student's token ids, so it must have the very same tokenizer"
        )
    if theirs < len(tokenizer):
        raise ConfigError(
            f"sdar.teacher.model_path={path!r} has a vocabulary of {theirs}, fewer than the {len(tokenizer)} of its "
            "tokenizer"
        )
    model = plain["actor_rollout_ref"]["model"]["path"]
    ours = AutoConfig.from_pretrained(model, trust_remote_code=trust).vocab_size
    if ours != theirs and "distribution" in settings.distillation.needs:
        raise ConfigError(
            f"the student's vocabulary has {ours} entries and the teacher's {theirs}: sdar.distillation.divergence="
            f"{settings.distillation.divergence} compares them entry by entry; choose divergence=sampled_token or k3"
        )


def tokenizer_difference(student: Any, teacher: Any) -> str:
    """What distinguishes two tokenizers, or nothing: ids of all tokens, special tokens, and how `PROBES` are cut."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    for token, number in ours.items():
        if theirs.get(token) != number:
            return f"token {token!r} has id {number} here and {theirs.get(token)} there"
    if extra := sorted(set(theirs) - set(ours)):
        return f"it has {len(extra)} more tokens, such as {extra[0]!r}"
    if (student.eos_token_id, student.pad_token_id) != (teacher.eos_token_id, teacher.pad_token_id):
        return (
            f"end and padding tokens are {student.eos_token_id} and {student.pad_token_id} here, "
            f"{teacher.eos_token_id} and {teacher.pad_token_id} there"
        )
    for text in PROBES:
        if student.encode(text, add_special_tokens=False) != teacher.encode(text, add_special_tokens=False):
            return f"{text!r} is cut differently"
    return ""
