"""A client of the run's teacher servers, and the check of remote ones before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdar_envs.base import EnvError
from sdar_envs.service.auth import read_token

from sdar_verl.errors import ConfigError
from sdar_verl.settings import Settings
from sdar_verl.teacher.errors import TeacherRejected, TeacherUnavailable
from sdar_verl.teacher.remote import Fingerprint, Patience, RemoteTeacher, fingerprint_of
from sdar_verl.teacher_parts import RemoteSettings


def make_client(
    settings: RemoteSettings, expected: Fingerprint, urls: Sequence[str], token: str | None, *, least: int
) -> RemoteTeacher:
    """A client with the run's settings for the servers at `urls`, which must take `least` tokens."""
    return RemoteTeacher(
        urls,
        expected,
        least=least,
        token=token,
        model=settings.model,
        tolerance=settings.probe_tolerance,
        concurrency=settings.concurrency,
        patience=Patience(
            connect=settings.connect_timeout,
            request=settings.request_timeout,
            dark=settings.dark_seconds,
            retries=settings.retries,
            recheck=settings.check_seconds,
        ),
    )


def teacher_token(settings: RemoteSettings) -> str | None:
    """The servers' token; raises `ConfigError` where its file cannot be used."""
    if settings.token_file is None:
        return None
    try:
        return read_token(settings.token_file)
    except EnvError as error:
        raise ConfigError(f"sdar.teacher.remote.token_file: {error}") from error


def longest_request(settings: Settings, response_length: int) -> int:
    """Tokens that a server must take: a privileged prompt, a response, and the one token that it must generate."""
    return settings.teacher.max_prompt_length + response_length + 1


def check_remote_teacher(settings: Settings, tokenizer: Any, response_length: int, *, resumed: bool = False) -> None:
    """Before a run: every server that answers must be a teacher with the student's tokenizer, and one must answer.

    A run that has seen its teacher goes on without: its absence is then treated as in the middle of the run.

    Raises:
        ConfigError: with the address and the reason.
        TeacherUnavailable: none answers a new run.
    """
    remote = settings.teacher.remote
    least = longest_request(settings, response_length)
    client = make_client(remote, fingerprint_of(tokenizer), remote.endpoints, teacher_token(remote), least=least)
    try:
        client.check()
    except TeacherRejected as error:
        raise ConfigError(f"sdar.teacher.placement=remote: {error}") from error
    except TeacherUnavailable as error:
        if not resumed:
            raise TeacherUnavailable(f"sdar.teacher.placement=remote: {error}") from error
        print(f"[sdar] sdar.teacher.placement=remote: {error}; starting all the same", flush=True)
