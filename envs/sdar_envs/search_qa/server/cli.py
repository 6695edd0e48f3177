"""The console command ``sdar-retriever``: build an index, serve it, measure it."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sdar_envs.base import EnvError
from sdar_envs.search_qa import bench
from sdar_envs.search_qa.contract import ServerLimits
from sdar_envs.search_qa.corpus import SUMMARY, PassageStore, read_corpus, write_store
from sdar_envs.search_qa.questions import open_file
from sdar_envs.search_qa.retrievers import Retriever, RetrieverError, get, open_retriever
from sdar_envs.search_qa.retrievers.local import LocalRetriever

_LOCAL = ("bm25s", "tantivy", "dense")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns 1 with a message for whatever the user can correct."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except EnvError as error:
        print(f"sdar-retriever: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdar-retriever", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--engine", required=True, help=f"{', '.join(_LOCAL)}, or another registered one")
    shared.add_argument("--index", type=Path, help="folder of the index")
    shared.add_argument(
        "-o", "--option", action="append", default=[], metavar="KEY=VALUE", help="of the engine; VALUE is read as JSON"
    )

    build = commands.add_parser("build", parents=[shared], help="read a corpus and build an index")
    build.add_argument("--corpus", nargs="+", default=[], help="files (.jsonl, .jsonl.gz, .parquet); leave out to add")
    build.set_defaults(run=_build)

    serve = commands.add_parser("serve", parents=[shared], help="answer Search-R1's /retrieve over HTTP")
    serve.add_argument("--host", default="127.0.0.1", help="%(default)s; 0.0.0.0 lets other machines in")
    serve.add_argument("--port", type=int, default=8000, help="%(default)s; 0 chooses a free one")
    serve.add_argument("--topk", type=int, default=3, help="for requests that do not say (%(default)s)")
    serve.add_argument("--grace", type=float, default=20.0, help="seconds for running requests after SIGTERM")
    for field in fields(ServerLimits):
        name = "--max-" + field.name.replace("_", "-")
        kind = float if isinstance(field.default, float) else int
        serve.add_argument(name, type=kind, default=field.default, dest=field.name, help="limit (%(default)s)")
    serve.set_defaults(run=_serve)

    measure = commands.add_parser("bench", parents=[shared], help="recall and speed on a file of questions")
    measure.add_argument("--questions", type=Path, required=True, help="a parquet file of questions")
    measure.add_argument("-k", type=int, default=3, help="passages looked at (%(default)s)")
    measure.add_argument("--limit", type=int, default=None, help="draw so many questions (seed 0)")
    measure.add_argument("--timed", type=int, default=500, help="queries that are timed (%(default)s)")
    measure.add_argument("--json", type=Path, default=None, help="also write the numbers to this file")
    measure.set_defaults(run=_bench)
    return parser


def _build(args: argparse.Namespace) -> int:
    engine = get(args.engine)
    if not issubclass(engine, LocalRetriever):
        raise RetrieverError(f"retriever {args.engine} has no index to build; choose one of {', '.join(_LOCAL)}")
    if args.index is None:
        raise RetrieverError("set --index to the folder to build in")
    start = time.monotonic()
    if args.corpus:
        store = write_store(read_corpus(args.corpus), args.index)
    elif (args.index / SUMMARY).exists():
        store = PassageStore(args.index)
    else:
        raise RetrieverError(f"{args.index} holds no corpus yet; give its files with --corpus")
    print(f"{len(store)} passages, corpus {store.sha256[:12]}, {time.monotonic() - start:.1f} s", flush=True)
    start = time.monotonic()
    engine.build(store, _options(args.option))
    size = sum(path.stat().st_size for path in (args.index / engine.name).rglob("*") if path.is_file())
    print(
        f"{engine.name}: built in {time.monotonic() - start:.1f} s, {size / 1e6:.1f} MB in {args.index / engine.name}"
    )
    return 0


def _serve(args: argparse.Namespace) -> int:
    try:
        from sdar_envs.search_qa.server.serve import serve
    except ImportError as error:
        raise RetrieverError(f"{error.name} is not installed: pip install 'sdar-envs[retriever]'") from error
    limits = ServerLimits(**{field.name: getattr(args, field.name) for field in fields(ServerLimits)})
    serve(_open(args), host=args.host, port=args.port, topk=args.topk, limits=limits, grace=args.grace)
    return 0


def _bench(args: argparse.Namespace) -> int:
    questions = list(open_file(args.questions))
    if args.limit is not None:
        questions = random.Random(0).sample(questions, min(args.limit, len(questions)))
    retriever = _open(args)
    found = bench.quality(retriever, questions, args.k)
    timed = random.Random(1).sample([question.text for question in questions], min(args.timed, len(questions)))
    took = bench.speed(retriever, timed, args.k)
    for source, recall in found.by_source.items():
        print(f"{source:<20} recall@{found.k} {recall:.3f}")
    print(f"{'mean of sources':<20} recall@{found.k} {found.mean:.3f}   all {found.n} questions {found.recall:.3f}")
    print(f"one query {took.p50_ms:.2f} ms (p99 {took.p99_ms:.2f}, CPU {took.cpu_ms:.2f}), in batches of {took.batch} "
          f"{took.batched_per_second:.0f} queries/s")  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps({"quality": asdict(found), "speed": asdict(took)}, indent=1) + "\n")
    return 0


def _open(args: argparse.Namespace) -> Retriever:
    index = {} if args.index is None else {"index": str(args.index)}
    return open_retriever({"engine": args.engine, **index, **_options(args.option)})


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    options = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise RetrieverError(f"-o takes KEY=VALUE, got {pair!r}")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value  # a plain word
    return options


if __name__ == "__main__":
    sys.exit(main())
