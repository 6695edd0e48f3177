"""`sdar plan`: what a run needs and costs, before anything is rented."""

from __future__ import annotations

import argparse
import json
import math
import sys
from datetime import date
from pathlib import Path

_DESCRIPTION = """\
Memory of each GPU by part and phase, main memory, disk, time and cost of a run, from the configuration that it would
have. Examples:
  sdar plan recipes/alfworld/qwen2.5_7b.sh
  sdar plan recipes/alfworld/qwen2.5_7b.sh method=grpo --instance p4d
  sdar plan --model Qwen/Qwen3-4B --gpus 4 --instance g7e.24xlarge trainer.total_training_steps=100
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `plan`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser(
        "plan", help="memory, time and cost of a run", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("what", nargs="*", metavar="RECIPE|KEY=VALUE", help="a recipe script, then Hydra overrides")
    where = parser.add_argument_group("the run")
    where.add_argument("--config", type=Path, metavar="FILE", help="a run's config.yaml instead of a recipe")
    where.add_argument("--model", metavar="NAME", help="short for actor_rollout_ref.model.path=NAME")
    where.add_argument("--model-config", type=Path, metavar="FILE", help="config.json of a model that is not shipped")
    where.add_argument("--teacher-config", type=Path, metavar="FILE", help="likewise of sdar.teacher.model_path")
    where.add_argument("--critic-config", type=Path, metavar="FILE", help="likewise of critic.model.path")
    where.add_argument("--gpus", type=_positive, metavar="N", help="short for trainer.n_gpus_per_node=N")
    place = parser.add_argument_group("the machine")
    place.add_argument("--instance", metavar="NAME", help="instance type, or p4d, p4de, p5 ...; default: the cheapest")
    place.add_argument("--prices", type=Path, metavar="FILE", help="JSON with prices over the shipped ones")
    place.add_argument("--refresh", nargs="?", const="all", choices=("on_demand", "spot", "all"), help="ask AWS for "
                       "today's prices; needs boto3 and credentials")  # fmt: skip
    place.add_argument("--region", default="us-east-1", help="of --refresh (%(default)s)")
    place.add_argument("--save-prices", type=Path, metavar="FILE", help="write what --refresh found, for --prices")
    time = parser.add_argument_group("time")
    time.add_argument("--calibrate", type=Path, metavar="RUN", help="folder of a finished run to take rates from")
    time.add_argument("--calibrate-instance", metavar="NAME", help="where that run was made; a CPU run needs none")
    time.add_argument("--calibrate-model-config", type=Path, metavar="FILE", help="config.json of that run's model")
    for name, text in (("turns", "turns of an episode"), ("prompt", "tokens of a prompt"),
                       ("answer", "tokens of an answer"), ("skills", "tokens of the teacher's skills")):  # fmt: skip
        time.add_argument(f"--{name}", type=float, metavar="N", help=f"mean {text}")
    time.add_argument("--spot-mtbf", type=float, default=24.0, metavar="HOURS", help="assumed mean time between "
                      "interruptions (%(default)s)")  # fmt: skip
    time.add_argument("--restart", type=float, default=15.0, metavar="MINUTES", help="from an interruption to the next "
                      "step, without the wait for capacity and without compiling flash-attn (%(default)s)")  # fmt: skip
    out = parser.add_argument_group("output")
    out.add_argument("--only", metavar="SECTION", help="one of: run, memory, fit, machine, time, cost, elsewhere, "
                     "methods, teachers, sources")  # fmt: skip
    out.add_argument("--json", action="store_true", help="machine-readable output")
    out.add_argument("--chart", type=Path, metavar="FILE", help="also write a PNG")
    out.add_argument("--ascii", action="store_true", help="plain characters")
    parser.set_defaults(func=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Print the plan; 0 if the run fits, 3 if it does not, 1 with the reason on stderr if there is no plan."""
    from sdar_verl.errors import SdarError
    from sdar_verl.plan.table import render

    try:
        plan = _plan(args)
        if args.chart is not None:
            from sdar_verl.plan.chart import write_chart

            write_chart(plan, args.chart)
    except SdarError as error:
        print(f"sdar plan: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(plan.as_json(), indent=1, allow_nan=False))
    else:
        plain = args.ascii or "utf" not in (sys.stdout.encoding or "").lower()
        print(render(plan, unicode=not plain, only=args.only), end="")
    return 0 if plan.fit.ok else 3


def _plan(args: argparse.Namespace):
    from sdar_verl.plan import calibration, models, workload
    from sdar_verl.plan.catalogue import load_catalogue
    from sdar_verl.plan.job import job_from_config
    from sdar_verl.plan.planning import make_plan
    from sdar_verl.plan.table import SECTIONS
    from sdar_verl.plan.units import PlanError

    if args.only is not None and args.only not in SECTIONS:
        raise PlanError(f"there is no section {args.only!r}; known: {', '.join(SECTIONS)}")
    if not 0 < args.spot_mtbf < math.inf or not 0 <= args.restart < math.inf:
        raise PlanError("--spot-mtbf must be above 0 and --restart not below")
    catalogue = load_catalogue(args.prices)
    for name in (args.instance, args.calibrate_instance):
        if name is not None:
            catalogue.get(name)  # a wrong name is told before anything is composed
    config, title = _configuration(args)
    path = config["actor_rollout_ref"]["model"]["path"]
    job = job_from_config(config, models.load(path, args.model_config), teacher=args.teacher_config,
                          critic=args.critic_config)  # fmt: skip
    if job.device == "cpu":
        raise PlanError("this is a configuration for the CPU, which needs no plan; leave platform=cpu out")
    catalogue = _prices(args, catalogue)
    given = {name: getattr(args, name) for name in ("turns", "prompt", "answer", "skills")}
    work = workload.assumed(job, **given)
    rates, remarks = calibration.published_rates(job, work, catalogue), []
    if args.calibrate is not None:
        work, rates, remarks = calibration.from_run(
            args.calibrate, job, work, rates,
            instance=None if args.calibrate_instance is None else catalogue.get(args.calibrate_instance),
            model_config=args.calibrate_model_config, teacher_config=args.teacher_config,
            critic_config=args.critic_config,
        )  # fmt: skip
        work = workload.override(work, job, given)
    return make_plan(
        job, title=title, catalogue=catalogue, instance=args.instance, work=work, rates=rates,
        mtbf_hours=args.spot_mtbf, restart_seconds=60 * args.restart, today=date.today(), remarks=remarks,
    )  # fmt: skip


def _configuration(args: argparse.Namespace):
    from sdar_verl.plan.compose import compose, read_config
    from sdar_verl.plan.units import PlanError

    overrides = [text for text in args.what if "=" in text or text.startswith("~")]
    recipes = [text for text in args.what if text not in overrides]
    if len(recipes) > 1:
        raise PlanError(f"one recipe at a time, got {', '.join(recipes)}")
    if args.model is not None:
        overrides.append(f"actor_rollout_ref.model.path={args.model}")
    if args.gpus is not None:
        overrides.append(f"trainer.n_gpus_per_node={args.gpus}")
    if args.config is not None:
        if recipes or overrides:
            raise PlanError("--config takes a finished configuration: neither a recipe nor overrides beside it")
        return read_config(args.config), str(args.config)
    if not recipes and args.model is None and not any("model.path=" in text for text in overrides):
        raise PlanError("name a recipe, such as recipes/alfworld/qwen2.5_7b.sh, or a model with --model")
    recipe = recipes[0] if recipes else None
    return compose(recipe, overrides), " ".join([recipe or "sdar train", *overrides])


def _prices(args: argparse.Namespace, catalogue):
    from sdar_verl.plan.units import PlanError

    if args.refresh is None:
        if args.save_prices is not None:
            raise PlanError("--save-prices writes what --refresh finds; give both")
        return catalogue
    from sdar_verl.plan.refresh import KINDS, fetch, save

    kinds = KINDS if args.refresh == "all" else (args.refresh,)
    found = fetch(catalogue, kinds=kinds, region=args.region, today=date.today())
    if args.save_prices is not None:
        save(found, args.save_prices)
    return catalogue.with_prices(found)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 is needed, got {text!r}")
    return int(text)
