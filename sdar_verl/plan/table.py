"""A plan as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from textwrap import wrap

from sdar_verl.plan.memory import PARTS
from sdar_verl.plan.planning import Option, Plan
from sdar_verl.plan.timing import PREFILL_SHARE
from sdar_verl.plan.units import GB, GIB

WIDTH = 108
_BAR = 44
_PLAIN = str.maketrans({"×": "x", "–": "-", "·": "."})
PHASE_NAMES = {
    "generate": "episodes: generation",
    "environment": "episodes: environments",
    "old": "old log-probabilities",
    "ref": "reference log-probs",
    "values": "critic's values",
    "teacher": "teacher log-probs",
    "critic": "critic update",
    "update": "actor update",
    "sync": "weights to rollout",
    "other": "other",
}


def render(plan: Plan, unicode: bool = True, only: str | None = None) -> str:
    """The whole plan or one of `SECTIONS`; with `unicode=False` in ASCII alone."""
    names = [only] if only else list(SECTIONS)
    parts = [SECTIONS[name](plan, unicode) for name in names]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text if unicode else text.translate(_PLAIN)


def memory_table(plan: Plan, unicode: bool = True) -> str:
    """Memory of one GPU: a row for each part, a column for each phase, a bar for each phase."""
    phases = list(plan.memory.phases)
    used = [part for part in PARTS if any(part in parts for parts in plan.memory.phases.values())]
    rows = [["GiB on one GPU", *phases]]
    for part in used:
        rows.append([part, *(_gib(plan.memory.phases[phase].get(part)) for phase in phases)])
    host = ["·" if phase == "server" else "host" for phase in phases]
    one_model = plan.job.teacher == "ref" and plan.job.teacher_model is not None
    if plan.job.reference:
        rows.append(["teacher, as reference" if one_model else "reference", *host])
    if plan.job.teacher in ("actor", "ref") and "teacher" not in used and not one_model:
        rows.append(["teacher", *("no copy" for _ in phases)])
    rows.append(["sum", *(_gib(plan.memory.total(phase)) for phase in phases)])
    size, width = plan.instance.gpu_bytes, max(10, *map(len, phases))
    bars = [
        f"{phase:<{width}} {bar(plan.memory.total(phase) / size, unicode)} {plan.memory.total(phase) / GIB:6.1f} of "
        f"{size / GIB:.1f} GiB, {100 * plan.memory.total(phase) / size:3.0f} %"
        for phase in phases
    ]
    return "\n".join([*columns(rows), "", *(f"  {line}" for line in bars)])


def bar(share: float, unicode: bool = True) -> str:
    """A share of something as a bar; what is above the whole is marked."""
    full, empty, over = ("█", "░", "▓") if unicode else ("#", ".", "!")
    filled = round(min(share, 1.0) * _BAR)
    text = full * filled + empty * (_BAR - filled)
    return text if share <= 1 else text[:-3] + over * 3


def columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Rows as aligned text, a blank before each; the columns in `left` are aligned to the left, others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _head(plan: Plan) -> str:
    job, place = plan.job, plan.instance
    trained = f"LoRA rank {job.lora_rank}: {job.trainable / 1e6:.1f} M trained" if job.lora_rank else "all trained"
    machines = f"{plan.machines} × " if plan.machines > 1 else ""
    teacher = job.teacher or "none"
    if job.teacher_model is not None:
        teacher += f" ({job.scorer.name}, {job.scorer.params / 1e9:.3f} B)"
    if job.servers:
        teacher += f" on {job.server_gpus} GPU{'s' * (job.server_gpus > 1)} more"
    critic = "" if job.critic is None else f", critic {job.critic.model.params / 1e9:.3f} B"
    return "\n".join([
        f"{plan.title} on {machines}{place.name}: {job.gpus} × {place.gpu} of {place.gpu_bytes / GIB:.1f} GiB",
        f"  {job.model.name}: {job.model.params / 1e9:.3f} B parameters, {trained}; method {job.method}, teacher "
        f"{teacher}, reference {'yes' if job.kl else 'no'}{critic}",
        f"  {job.tasks} tasks × {job.group} episodes, {job.steps} steps; rows of {job.prompt} + {job.response} tokens, "
        + (f"teacher's of {job.teacher_prompt} + {job.response}; " if job.teacher else "")
        + f"micro-batches of {job.update_tokens} tokens",
    ])  # fmt: skip


def _fit(plan: Plan) -> str:
    fit, lines = plan.fit, []
    word = {"fits": "It fits.", "tight": "It fits, tightly.", "no": "It does not fit."}[fit.word]
    lines.append(f"{word} Fullest: {plan.memory.peak_phase}, {plan.memory.peak / GIB:.1f} GiB.")
    lines += [f"  problem: {text}" for text in fit.problems]
    lines += [f"  note: {text}" for text in fit.warnings]
    if plan.changes:
        lines.append("What to change (each alone; the peak with it):")
        for change in plan.changes:
            mark = "fits" if change.fits else "not enough"
            lines.append(f"  {' '.join(change.overrides)}")
            lines.append(f"      {mark}, {change.memory.peak / GIB:.1f} GiB; {change.price}")
        solved = plan.solution
        lines.append(
            f"Chosen: {' '.join(solved)}" if solved else "No set of these changes makes it fit: another instance."
        )
    elif plan.spare is not None:
        lines.append(f"Room is left: {' '.join(plan.spare.overrides)} ({plan.spare.price}; "
                     f"{plan.spare.memory.peak / GIB:.1f} GiB)")  # fmt: skip
    memory = plan.memory
    lines.append(
        f"Keys and values: room for {max(0.0, memory.kv_room) / GIB:.1f} GiB a GPU; {memory.sequences} full episodes "
        f"an engine take {memory.kv_need / GIB:.1f}."
    )
    return "\n".join(lines)


def _machine(plan: Plan) -> str:
    host, place = plan.host, plan.instance
    rows = [[name, f"{size / GIB:.1f}"] for name, size in host.memory.items()]
    rows.append(["at its fullest (loading the weights, or training)", f"{host.memory_peak / GIB:.1f}"])
    disk = ", ".join(f"{name} {size / GB:.0f}" for name, size in host.disk.items())
    return "\n".join([
        f"Main memory of a machine, GiB of {place.memory_gib:.0f}; {host.processes} busy processes on {place.vcpus} "
        "vCPUs",
        *columns(rows),
        f"Environments: {plan.job.env_processes} processes, {host.slots} episodes at once for {plan.job.episodes}.",
        f"Disk, GB: {disk} (local NVMe {place.local_nvme_gb:.0f}).",
        f"  A checkpoint has {host.checkpoint / GIB:.1f} GiB, the exported model {host.export / GIB:.1f}; saved in "
        f"{plan.times.save:.0f} s, uploaded in {plan.upload:.0f} s;",
        f"  {plan.cost.storage_per_month:.2f} USD a month in S3 for the {plan.job.stored} kept, "
        f"{plan.cost.storage_replaced:.2f} in all for those before them.",
    ])  # fmt: skip


def _time(plan: Plan, unicode: bool) -> str:
    times = plan.times
    longest = max(times.phases.values())
    rows = []
    for name, seconds in times.phases.items():
        share = seconds / longest
        rows.append([PHASE_NAMES[name], f"{seconds:.0f} s", bar(share, unicode)[: max(1, round(share * _BAR))]])
    rows.append(["step", f"{times.step:.0f} s", ""])
    measured = "measured" if plan.rates.measured else "NOT measured on your run; 2 to 3 times less or more is possible"
    return "\n".join([
        f"Time ({measured})",
        *columns(rows, left=(0, 2)),
        f"  {times.steps} steps, {times.evaluations} validations of {times.validation:.0f} s, {times.saves} "
        f"checkpoints: {times.hours:.1f} hours",
    ])  # fmt: skip


def _cost(plan: Plan) -> str:
    lines = ["Cost of the run"]
    for market in ("on_demand", "spot", "capacity_block"):
        price, total = plan.instance.prices.get(market), getattr(plan.cost, market)
        if price is None or total is None:
            lines.append(f"  {market.replace('_', ' '):<15} no price")
            continue
        spread = f" ({price.low:g} to {price.high:g})" if price.low is not None and price.low != price.high else ""
        hours = {"on_demand": f"{plan.times.hours:.1f} h", "spot": f"{plan.spot.hours:.1f} h expected",
                 "capacity_block": "whole days"}[market]  # fmt: skip
        lines.append(f"  {market.replace('_', ' '):<15} {total:>9,.0f} USD  {hours}, {price.usd:g}{spread} USD/h in "
                     f"{price.region}, as of {price.as_of}")  # fmt: skip
    spot = plan.spot
    if math.isinf(spot.hours):
        return "\n".join([*lines, f"  on spot, with an interruption every {spot.mtbf_hours:g} h it would not end"])
    lines.append(
        f"  on spot, one interruption in {spot.mtbf_hours:g} h assumed: {spot.interruptions:.1f} expected, "
        f"{spot.lost_hours:.1f} h lost to saves, repeated work and restarts"
    )
    lines.append(
        f"  advice: trainer.save_freq={spot.save_steps} ({spot.interval / 60:.0f} minutes between saves are best)"
    )
    return "\n".join(lines)


def _options(plan: Plan) -> str:
    if not plan.options:
        return ""
    rows = [["instance", "GPUs", "GiB each", "peak", "fit", "hours", "on demand", "spot", "block", "needs"]]
    rows += [_option(option) for option in plan.options]
    return "\n".join(["The same run elsewhere (USD a run)", *columns(rows, left=(0, 4, 9))])


def _option(option: Option) -> list[str]:
    place, cost = option.instance, option.cost
    needs = "" if not option.overrides else " ".join(_short(override) for override in option.overrides)
    first = [place.name, f"{place.gpus}", f"{place.gpu_bytes / GIB:.1f}", f"{option.peak / GIB:.1f}"]
    if cost is None or option.times is None:
        return [*first, "no", "–", "–", "–", "–", "more GPUs or memory"]
    fit = option.fit.word if not option.overrides else "changed"
    money = [_usd(value) for value in (cost.on_demand, cost.spot, cost.capacity_block)]
    return [*first, fit, f"{option.times.hours:.0f}", *money, needs]


def _short(override: str) -> str:
    """The key's last part; what is not the policy's own says whose it is."""
    key, _, value = override.partition("=")
    owner = next((who for who in ("critic.", "server.") if who in key), "")
    return f"{owner}{key.rpartition('.')[2]}={value}"


def _methods(plan: Plan) -> str:
    rows = [["method", "step", "hours", "USD", "hours, all three", "USD, all three"]]
    for row in plan.methods:
        rows.append([row.method, f"{row.step:.0f} s", f"{row.hours:.0f}", _usd(row.usd), f"{row.hours_all:.0f}",
                     _usd(row.usd_all)])  # fmt: skip
    own = f"on demand; {plan.job.env} alone, and ALFWorld, WebShop and Search-QA with their published settings"
    return "\n".join([f"Methods on {plan.instance.name} ({own})", *columns(rows)])


def _teachers(plan: Plan) -> str:
    if not plan.teachers:
        return ""
    rows = [["placement", "where", "step", "hours", "USD", ""]]
    rows += [
        [row.placement, row.where, f"{row.step:.0f} s", f"{row.hours:.0f}", _usd(row.usd), row.note]
        for row in plan.teachers
    ]
    return "\n".join([
        "Where the teacher's scores are computed (training on demand)",
        *columns(rows, left=(0, 1, 5)),
        f"  Engines are assumed to read prompts at {100 * PREFILL_SHARE:.0f} % of peak, the trainer scores at "
        f"{100 * plan.rates.scoring['teacher']:.0f} %: at equal rates they differ less.",
        "  Scores of another engine than the trainer's can be compared at temperature 1 alone. A remote teacher's",
        "  weights never change: it is another method than SDAR with the current policy.",
    ])  # fmt: skip


def _notes(plan: Plan) -> str:
    notes = [
        f"rates: {plan.rates.source}",
        f"episodes: {plan.work.turns:g} turns, prompts of {plan.work.prompt:.0f}, answers of {plan.work.answer:.0f}, "
        f"skills of {plan.work.skills:.0f} tokens ({plan.work.source})",
        *plan.remarks,
        *(f"WARNING: {text}" for text in plan.warnings),
    ]
    lines = []
    for note in notes:
        lines += wrap(note, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([f"Sources and warnings ({plan.today})", *lines])


def _gib(value: float | None) -> str:
    return "·" if not value else f"{value / GIB:.1f}"


def _usd(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


SECTIONS: dict[str, Callable[[Plan, bool], str]] = {
    "run": lambda plan, _: _head(plan),
    "memory": memory_table,
    "fit": lambda plan, _: _fit(plan),
    "machine": lambda plan, _: _machine(plan),
    "time": _time,
    "cost": lambda plan, _: _cost(plan),
    "elsewhere": lambda plan, _: _options(plan),
    "methods": lambda plan, _: _methods(plan),
    "teachers": lambda plan, _: _teachers(plan),
    "sources": lambda plan, _: _notes(plan),
}
