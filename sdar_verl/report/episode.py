"""One episode, token by token: colour is the gap, hovering tells what student and teacher thought."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import SequenceMatcher

from sdar_verl.evaluation.records import TokenRecord, TokenTurn
from sdar_verl.report.html import Html, join, tag, text

DECISION_GAP = 0.1  # nats; the same bound as in the metrics `sdar/decision_*`
_LOW, _MIDDLE, _HIGH = (91, 141, 201), (255, 255, 255), (238, 140, 66)
_SHARPNESS = 5.0  # per nat: the colour scale is SDAR's gate at its default beta, whatever gate the run has
_LONG = 40  # turns shown before the rest is folded away


def choose(records: Sequence[TokenRecord]) -> TokenRecord | None:
    """The episode to show: of the last recorded step, a won one if there is one, with the most decision tokens."""
    if not records:
        return None
    last = max(record.step for record in records)
    return max((r for r in records if r.step == last), key=lambda r: (r.won, decisions(r), r.task_id, r.session))


def decisions(record: TokenRecord) -> int:
    """Number of tokens on which teacher and student differ by more than `DECISION_GAP`."""
    return sum(abs(gap) > DECISION_GAP for turn in record.turns for gap in turn.gap)


def render(record: TokenRecord, observations: Sequence[str]) -> Html:
    """Heading, legend and all turns of one episode; `observations` has one text per turn."""
    tokens = sum(len(turn.tokens) for turn in record.turns)
    outcome = "won" if record.won else "not won"
    heading = tag(
        "p",
        tag("code", record.task_id),
        f", step {record.step}, {outcome}, {len(record.turns)} turns, {tokens} tokens, ",
        f"{decisions(record)} of them decision tokens (|gap| > {DECISION_GAP:g} nats).",
    )
    turns = [
        _turn(number, turn, seen) for number, (turn, seen) in enumerate(zip(record.turns, observations, strict=True), 1)
    ]
    more = turns[_LONG:]
    folded = tag("details", tag("summary", f"{len(more)} more turns"), *more) if more else ""
    return join([heading, _legend(), *turns[:_LONG], folded])


def prompts(record: TokenRecord) -> Html:
    """The first prompt as student and as teacher, side by side; what only one of them has is marked."""
    student, teacher = compare_prompts(record.student_prompt, record.teacher_prompt)
    return tag(
        "div",
        tag("div", tag("h4", "The student saw"), tag("pre", _marked(student))),
        tag("div", tag("h4", "The teacher saw"), tag("pre", _marked(teacher))),
        class_="sides",
    )


def compare_prompts(student: str, teacher: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """The lines of both prompts, each with whether the other one has it in the same place."""
    lines_a, lines_b = student.splitlines(), teacher.splitlines()
    blocks = SequenceMatcher(a=lines_a, b=lines_b, autojunk=False).get_matching_blocks()
    shared_a = {block.a + i for block in blocks for i in range(block.size)}
    shared_b = {block.b + i for block in blocks for i in range(block.size)}
    return (
        [(line, number in shared_a) for number, line in enumerate(lines_a)],
        [(line, number in shared_b) for number, line in enumerate(lines_b)],
    )


def shade(gap: float) -> float:
    """Place of a gap (nats) on the colour scale: σ(5·gap), in [0, 1]."""
    return 0.5 * (1 + math.tanh(_SHARPNESS * gap / 2))


def colour(place: float) -> str:
    """CSS colour of a place in [0, 1]: blue below one half, white at it, orange above."""
    end, share = (_HIGH, place * 2 - 1) if place >= 0.5 else (_LOW, 1 - place * 2)
    share = min(1.0, max(0.0, share)) * 0.85
    return "#" + "".join(f"{round(m + (e - m) * share):02x}" for m, e in zip(_MIDDLE, end, strict=True))


def _turn(number: int, turn: TokenTurn, observation: str) -> Html:
    spans = [
        tag("i", printable(token), style=f"background:{colour(shade(gap))}", data_tip=_tip(student, teacher, gap, gate))
        for token, student, teacher, gap, gate in zip(
            turn.tokens, turn.student_logp, turn.teacher_logp, turn.gap, turn.gate, strict=True
        )
    ]
    seen = tag("p", tag("b", f"Turn {number} "), observation, class_="seen")
    return tag("div", seen, tag("div", *spans, class_="tokens"), class_="turn")


def _tip(student: float, teacher: float, gap: float, gate: float) -> str:
    return (
        f"student {student:.3f} ({_probability(student)})\nteacher {teacher:.3f} ({_probability(teacher)})\n"
        f"gap {gap:+.3f} nats, gate {gate:.3f}"
    ).replace("-", "\u2212")


def _probability(logp: float) -> str:
    share = math.exp(min(logp, 0.0))
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{share:.0e}"


def printable(token: str) -> str:
    """Byte-level BPE's stand-ins as the white space they mean; a line break is shown as a sign and made."""
    plain = token.replace("\u0120", " ").replace("\u010a", "\n")
    return plain.replace("\n", "\u23ce\n") or "\u2205"


def _marked(lines: Sequence[tuple[str, bool]]) -> Html:
    return join((text(line) if shared else tag("mark", line) for line, shared in lines), "\n")


def _legend() -> Html:
    ramp = ", ".join(f"{colour(i / 10)} {10 * i}%" for i in range(11))
    return tag(
        "div",
        "0: teacher finds it less likely",
        tag("span", class_="ramp", style=f"background:linear-gradient(90deg, {ramp})"),
        "1: teacher finds it more likely. Colour is σ(5·gap), SDAR's gate; hover over a token for its numbers.",
        class_="legend",
    )
