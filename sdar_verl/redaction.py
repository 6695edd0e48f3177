"""Takes secrets out of what is written down: by the name they are kept under, and by their own look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sdar_verl.errors import ConfigError

HIDDEN = "<redacted>"
_SECRET_NAME = re.compile(r"key|token|secret|passw(or)?d|credential|authorization|signature", re.IGNORECASE)
_HARMLESS_NAME = re.compile(r"tokeniz|keyword", re.IGNORECASE)  # cut out before looking for the above
_SECRET_LOOK = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|A(KIA|SIA)[A-Z0-9]{16})\b"
    r"|(?<=://)[^/\s@]+(?=@)"
)
_ASSIGNMENT = re.compile(r"(?P<name>[^=\s]+)=(?P<value>\S+)")
_QUERY = re.compile(r"(?<=[?&])(?P<name>[^=\s?&]+)=(?P<value>[^\s&]+)")  # of an address, presigned ones for example
_HOLDS_A_SECRET = re.compile(  # and not pad_token, eos_token
    r"(^|[.])token$|((hf|api|auth|access|bearer|session|security)_?token|(api|access|secret)_?key|secret|passw(or)?d)$",
    re.IGNORECASE,
)
# Where another setting is, with nothing but a count beside it: ``${oc.select:a.max_token_len,8192}``.
_REFERENCE = re.compile(r"\$\{(oc\.select:)?[A-Za-z_.][\w.]*(,\s*\d+)?\}")
_NEVER_A_COUNT = re.compile(r"secret|passw|credential", re.IGNORECASE)


def redact(value: Any, name: str = "") -> Any:
    """A copy of `value` (mappings, sequences, plain values) without secrets.

    Hidden are texts anywhere under a name that speaks of a key, token, secret, password or credential (numbers, which
    are counts such as ``max_token_len``, references to other settings and truth values stay, the first two not under a
    password's name), the right side of ``name=value`` texts with such a name, texts after a ``--flag`` with such a
    name, and whatever looks like a credential itself. Names such as ``tokenizer`` are harmless. Unknown kinds of values
    are shown as text.
    """
    if isinstance(value, Mapping):
        above = f"{name}." if _is_secret(name) else ""
        return {str(key): redact(item, f"{above}{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [redact(item, name) for item in value]
        for i, item in enumerate(value[:-1]):
            if isinstance(item, str) and item.startswith("--") and "=" not in item and _is_secret(item):
                items[i + 1] = HIDDEN
        return items
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return HIDDEN if _NEVER_A_COUNT.search(name) else value
    text = str(value)
    if text and _is_secret(name):
        return text if _REFERENCE.fullmatch(text) and not _NEVER_A_COUNT.search(name) else HIDDEN
    text = _QUERY.sub(_hide_assigned, _ASSIGNMENT.sub(_hide_assigned, text))
    return _SECRET_LOOK.sub(HIDDEN, text)


def find_secrets(value: Any, name: str = "") -> list[str]:
    """Dotted names of texts in `value` that hold a secret: by its look, or under a name such as ``api_key``.

    Names of files that hold one (``token_file``) are none. Narrower than `redact`, which hides what might be one.
    """
    if isinstance(value, Mapping):
        return [
            found for key, item in value.items() for found in find_secrets(item, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, list | tuple):
        return [found for i, item in enumerate(value) for found in find_secrets(item, f"{name}[{i}]")]
    if not isinstance(value, str) or not value:
        return []
    presigned = any(_is_secret(match["name"]) for match in _QUERY.finditer(value))
    return [name] if presigned or _SECRET_LOOK.search(value) or _HOLDS_A_SECRET.search(name) else []


def check_secrets(settings: Mapping[str, Any]) -> None:
    """Raises `ConfigError` if there is a secret in settings, which verl prints and Ray shows on its pages."""
    if found := find_secrets(settings):
        raise ConfigError(
            f"{', '.join(found)}: a secret does not belong into the settings, which are printed; give it as an "
            "environment variable or in a file (env.service.token_file, AWS's own settings, HF_TOKEN)"
        )


def _hide_assigned(match: re.Match[str]) -> str:
    name = match["name"]
    if not _is_secret(name) or (_is_plain(match["value"]) and not _NEVER_A_COUNT.search(name)):
        return match[0]
    return f"{name}={HIDDEN}"


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(_HARMLESS_NAME.sub("", name)))


def _is_plain(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?[0-9.]+|true|false|null|none", text, re.IGNORECASE))
