"""Conversation in, prompt text or ids out: the one call of the chat template that student and teacher share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from sdar_verl.teacher.errors import TeacherContextError

Messages = Sequence[Mapping[str, Any]]

_OURS = ("add_generation_prompt", "tokenize", "return_dict", "return_tensors", "truncation", "max_length", "padding")


def check_template_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `kwargs` for the chat template; refuses those that would change what is returned or truncate it."""
    taken = [key for key in kwargs if key in _OURS]
    if taken:
        raise TeacherContextError(f"chat_template_kwargs must not set {', '.join(taken)}; remove it")
    return dict(kwargs)


def prompt_text(tokenizer: Any, messages: Messages, kwargs: Mapping[str, Any]) -> str:
    """The templated conversation, up to the place where the model goes on."""
    try:
        return tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False, **kwargs)
    except TemplateError as error:
        raise TeacherContextError(f"the chat template refused the conversation: {error}") from error


def prompt_ids(tokenizer: Any, messages: Messages, kwargs: Mapping[str, Any]) -> list[int]:
    """Token ids of `prompt_text`; this is how a student's prompt is made.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: ``[{"role": ..., "content": ...}, ...]``; several turns are fine.
        kwargs: handed to the chat template, for example ``{"enable_thinking": False}``.
    """
    try:
        ids = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=True, return_dict=False, **kwargs
        )
    except TemplateError as error:
        raise TeacherContextError(f"the chat template refused the conversation: {error}") from error
    return [int(i) for i in ids]
