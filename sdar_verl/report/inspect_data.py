"""What `sdar inspect` shows: episodes of a run as compact JSON values, joined with their token records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdar_verl.evaluation.jsonl import read_lines, read_records
from sdar_verl.evaluation.records import EpisodeRecord, RecordError, TokenRecord, TokenTurn, from_dict
from sdar_verl.report.episode import DECISION_GAP, compare_prompts, decisions, printable
from sdar_verl.report.run import TOKENS, TRAINING, VALIDATION, ReportError

Key = tuple[int, str, int]  # step, uid, session: one training episode
_DIGITS = 4  # of log-probs, gaps and gates in the page
_LISTS = ("tokens", "student_logp", "teacher_logp", "gap", "gate")


@dataclass
class Episodes:
    """Attributes:
    index: one short mapping per episode, for the list and its filters.
    details: turns, tokens and prompts of each, in the same order.
    total: episodes that the run recorded; more than `index` where a limit left some out.
    with_tokens: how many of `index` have token scores.
    """

    index: list[dict[str, Any]] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    with_tokens: int = 0


def read_episodes(folder: Path, limit: int) -> Episodes:
    """Read the episodes of a run folder, at most `limit`, ordered by step.

    Episodes with token scores come first; the others are spread evenly over steps and splits, and within each over
    the order in which they ended (short episodes end first, so the first ones alone would be a biased choice).

    Raises:
        ReportError: the folder is missing or holds no episodes.
        RecordError: a file is damaged elsewhere than at its end.
    """
    if not folder.is_dir():
        raise ReportError(f"there is no run folder {folder}")
    files = {split: folder / name for split, name in (("train", TRAINING), ("val", VALIDATION))}
    if not any(path.is_file() for path in (*files.values(), folder / TOKENS)):
        raise ReportError(
            f"{folder} holds neither {TRAINING} nor {VALIDATION} nor {TOKENS}: it is no run folder, or the run has not "
            "got so far; name the folder that the training wrote"
        )
    scored = _within({_key(record): record for record in _tokens(folder / TOKENS)}, limit)
    found = Episodes()
    for record, tokens in _chosen(files, scored, limit, found):
        found.index.append(_summary(record, tokens))
        found.details.append(_detail(record, tokens))
    if not found.index:
        raise ReportError(f"{folder} has no finished episode yet; try again when its first step is done")
    order = sorted(range(len(found.index)), key=lambda i: (found.index[i]["step"], found.index[i]["split"], i))
    found.index, found.details = [found.index[i] for i in order], [found.details[i] for i in order]
    found.with_tokens = sum(entry["scored"] > 0 for entry in found.index)
    return found


def spread(sizes: Mapping[Any, int], limit: int) -> dict[Any, list[int]]:
    """At most `limit` numbers in all, as even as the groups allow: group to places from 0 below its size."""
    left, shares = limit, {}
    for done, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[name] = min(size, left // (len(sizes) - done))
        left -= shares[name]
    return {name: [i * sizes[name] // share for i in range(share)] for name, share in shares.items()}


def split_turns(turns: Sequence[TokenTurn], lengths: Sequence[int]) -> list[TokenTurn] | None:
    """Token turns in the lengths of an episode's answers.

    A row of a whole episode (``sdar.rows=trajectory``) holds the tokens of all its answers in one turn.

    Returns:
        One turn per length, or None where the numbers of tokens do not add up.
    """
    if [len(turn.tokens) for turn in turns] == list(lengths):
        return list(turns)
    if sum(len(turn.tokens) for turn in turns) != sum(lengths):
        return None
    flat = {name: [value for turn in turns for value in getattr(turn, name)] for name in (*_LISTS, "response_ids")}
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return [
        TokenTurn(observation="", **{name: values[start : start + length] for name, values in flat.items()})
        for start, length in zip(starts, lengths, strict=True)
    ]


def _tokens(path: Path) -> Iterator[TokenRecord]:
    return read_records(path, TokenRecord) if path.is_file() else iter(())


def _within(scored: dict[Key, TokenRecord], limit: int) -> dict[Key, TokenRecord]:
    by_step: dict[int, list[Key]] = defaultdict(list)
    for key in scored:
        by_step[key[0]].append(key)
    places = spread({step: len(keys) for step, keys in by_step.items()}, limit)
    return {by_step[step][place]: scored[by_step[step][place]] for step in sorted(places) for place in places[step]}


def _key(record: TokenRecord | EpisodeRecord) -> Key:
    return record.step, record.uid, record.session


def _chosen(
    files: Mapping[str, Path], scored: dict[Key, TokenRecord], limit: int, found: Episodes
) -> Iterator[tuple[EpisodeRecord | None, TokenRecord | None]]:
    """Reads twice, so that of a long run only the chosen episodes are in memory."""
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    wanted: set[tuple[str, int]] = set()
    for split, path in files.items():
        for number, line in _lines(path):
            found.total += 1
            key = (line.get("step"), line.get("uid"), line.get("session"))
            if split == "train" and key in scored:
                wanted.add((split, number))
            else:
                groups[(split, line.get("step"))].append(number)
    room = max(0, limit - len(scored))
    for (split, step), places in spread({name: len(numbers) for name, numbers in groups.items()}, room).items():
        wanted |= {(split, groups[(split, step)][place]) for place in places}
    for split, path in files.items():
        for number, line in _lines(path):
            if (split, number) in wanted:
                try:
                    record = from_dict(EpisodeRecord, line)
                except RecordError as err:
                    raise RecordError(f"{path}, line {number}: {err}") from err
                yield record, scored.pop(_key(record), None) if split == "train" else None
    for record in scored.values():  # their episodes were not written
        found.total += 1
        yield None, record


def _lines(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    return enumerate(read_lines(path), start=1) if path.is_file() else ()


def _summary(record: EpisodeRecord | None, tokens: TokenRecord | None) -> dict[str, Any]:
    known = record or tokens
    gaps = [gap for turn in tokens.turns for gap in turn.gap] if tokens else []
    return {
        "step": known.step,
        "split": record.split if record else "train",
        "task": known.task_id,
        "type": known.task_type,
        "group": f"{known.uid[:8]}/{known.session}",
        "won": known.won,
        "reward": round(record.reward, _DIGITS) if record else None,
        "failed": record.failed if record else None,
        "turns": len(known.turns),
        "invalid": sum(not turn.valid for turn in record.turns) if record else None,
        "scored": len(gaps),
        "decisions": decisions(tokens) if tokens else 0,
        "disagreement": round(sum(abs(gap) for gap in gaps) / len(gaps), _DIGITS) if gaps else 0,
    }


def _detail(record: EpisodeRecord | None, tokens: TokenRecord | None) -> dict[str, Any]:
    detail: dict[str, Any] = {"skills": record.skills if record else [], "loose": []}
    if record:
        detail["seconds"] = [round(value, 2) for value in (record.seconds, record.gen_seconds, record.env_seconds)]
        detail["turns"] = [
            {
                "seen": turn.observation,
                "said": turn.response,
                "action": turn.action,
                "valid": turn.valid,
                "lengths": [turn.prompt_tokens, turn.teacher_prompt_tokens, turn.response_tokens],
            }
            for turn in record.turns
        ]
    else:
        detail["turns"] = [{"seen": turn.observation} for turn in tokens.turns]
    if tokens:
        detail["student"], detail["teacher"] = compare_prompts(tokens.student_prompt, tokens.teacher_prompt)
        lengths = [len(turn.tokens) for turn in tokens.turns]
        turns = split_turns(tokens.turns, [t.response_tokens for t in record.turns] if record else lengths)
        if turns is None:
            detail["loose"] = [_columns(turn) for turn in tokens.turns]
        else:
            for shown, turn in zip(detail["turns"], turns, strict=True):
                shown["tokens"] = _columns(turn)
    return detail


def _columns(turn: TokenTurn) -> dict[str, Any]:
    numbers = {name: [round(value, _DIGITS) for value in getattr(turn, name)] for name in _LISTS[1:]}
    return {
        "text": [printable(token) for token in turn.tokens],
        **numbers,
        "decisions": sum(abs(gap) > DECISION_GAP for gap in turn.gap),
    }
