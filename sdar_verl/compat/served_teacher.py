"""A teacher behind HTTP as a `Scorer`: how it is recognised at the start, and what happens when it goes away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sdar_verl.compat.teacher_scoring import ScoredRow, Scorer, Scores
from sdar_verl.served_client import make_client
from sdar_verl.settings import Settings
from sdar_verl.teacher.errors import TeacherRejected, TeacherUnavailable
from sdar_verl.teacher.remote import FINGERPRINT_FILE as FILE
from sdar_verl.teacher.remote import Fingerprint, ScoreRow, fingerprint_of

PREFIX = "sdar/teacher_remote"


class ServedTeacher:
    """Scores by teacher servers.

    Args:
        settings: of the run.
        tokenizer: the student's.
        urls: the servers; `token` is theirs.
        least: tokens that they must take.
        initial: scores by a model of this run that has the policy's initial weights, for the fingerprint of a teacher
            that must have the same; None where there is none.
        rows: `initial` is given so many, all the same: no rank and no micro-batch of its workers may go short.
        step: the training step that the run goes on from, 0 for a new one.
        fallback: scores where no server is left and the policy is ``fallback``.
        name: under which the servers must serve the teacher; None: as the settings say.
        give_up: whether the run must end rather than wait for a server; called in other threads.
    """

    def __init__(
        self,
        settings: Settings,
        tokenizer: Any,
        urls: Sequence[str],
        token: str | None,
        *,
        least: int,
        initial: Scorer | None,
        rows: int,
        step: int,
        fallback: Scorer,
        name: str | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ):
        self._give_up = give_up
        self.settings, self._fallback, self._path = settings.teacher.remote, fallback, Path(settings.run_dir) / FILE
        self._rows, self._own = rows, fingerprint_of(tokenizer)
        # a fresh start forgets what another one saw; an average's weights are known, whatever was seen before
        seen = step > 0 and self._path.exists() and settings.teacher.update_rate is None
        expected = self._seen() if seen else self._first(settings, initial)
        self.client = make_client(settings.teacher.remote, expected, urls, token, least=least)
        if name is not None:
            self.client.expect(name, expected)
        try:
            self.client.check()
        except TeacherUnavailable as error:
            if not seen or settings.teacher.placement != "remote":
                raise
            print(f"[sdar] going on without the teacher as long as the settings allow: {error}", flush=True)
        except TeacherRejected as error:
            if not seen:
                raise
            raise TeacherRejected(f"{error} (the run began with the teacher of {self._path})") from None
        if not seen:
            self.client.expected.save(self._path)

    def __call__(self, rows: Sequence[ScoredRow]) -> Scores:
        """Scores of the rows that are taught, zeros for the others; None by the policy ``skip``.

        Raises:
            TeacherUnavailable: no server came back in time, with the policy ``wait``.
            TeacherNotAwaited: none was there, and `give_up` said so; whatever the policy.
        """
        started = time.monotonic()
        asked = [number for number, row in enumerate(rows) if row.taught and len(row.response)]
        sent = [ScoreRow(tuple(rows[n].prompt.tolist()), tuple(rows[n].response.tolist())) for n in asked]
        log_probs: list[torch.Tensor] | None = [torch.zeros(len(row.response)) for row in rows]
        reason = None
        try:
            found = self.client.score(sent, self._give_up)
            for number, values in zip(asked, found, strict=True):
                log_probs[number] = torch.tensor(values, dtype=torch.float32)
        except TeacherUnavailable as error:
            if self.settings.on_failure == "wait":
                raise
            reason = error
            print(f"[sdar] {self.settings.on_failure} for the teacher in this step: {error}", flush=True)
            log_probs = self._fallback(rows).log_probs if self.settings.on_failure == "fallback" else None
        counts, servers = self.client.counts, self.client.endpoints
        return Scores(
            log_probs,
            {
                f"{PREFIX}/rows": len(sent) if reason is None else 0,
                f"{PREFIX}/servers": len(servers),
                f"{PREFIX}/servers_usable": sum(server.good for server in servers),
                f"{PREFIX}/servers_lost": counts.lost,
                f"{PREFIX}/failed_requests": counts.failed,
                f"{PREFIX}/rejected": counts.rejected,
                f"{PREFIX}/waited_seconds": counts.dark_seconds,
                f"{PREFIX}/fell_back": float(reason is not None and log_probs is not None),
                f"{PREFIX}/skipped": float(log_probs is None),
                f"{PREFIX}/seconds": time.monotonic() - started,
            },
        )

    def renew(self, name: str, weights: Scorer) -> None:
        """The teacher has other weights from now on, served as `name`; `weights` scores with the very same."""
        self.client.expect(name, self._scored(weights))

    def _scored(self, weights: Scorer) -> Fingerprint:
        """What a server with these weights must show."""
        prompt, response = torch.tensor(self._own.probe.prompt), torch.tensor(self._own.probe.response)
        row = ScoredRow(prompt, response, torch.ones_like(response), taught=True)
        return self._own.with_scores(weights([row] * self._rows).log_probs[0].tolist())

    def _seen(self) -> Fingerprint:
        """What the servers must show: what the run saw when it began."""
        seen = Fingerprint.load(self._path)
        if seen.cuts != self._own.cuts:
            raise TeacherRejected(f"the run in {self._path.parent} began with another tokenizer ({self._path.name})")
        return seen

    def _first(self, settings: Settings, initial: Scorer | None) -> Fingerprint:
        """What the servers must show when nothing was seen yet: the initial policy's own scores, if they are known."""
        if settings.teacher.model_path is not None:
            return self._own  # nothing here has its weights: the first server's scores count
        if initial is None:
            raise TeacherRejected(
                f"the run in {self._path.parent} goes on without its {FILE} and without a reference model, so nothing "
                "tells whether the servers hold the policy's initial weights; set "
                "actor_rollout_ref.actor.use_kl_loss=true"
            )
        return self._scored(initial)
