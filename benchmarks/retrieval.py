"""Search engines side by side: ``python benchmarks/retrieval.py --corpus <file> --questions <file.parquet>``.

Builds each engine's index, asks it every question as it stands and looks for an accepted answer in the first
passages, then times single queries and batches. Each engine runs in a process of its own, so that its memory can be
told. ``http`` is the server with tantivy behind it, asked through the client.

``--passages N`` takes a part of the corpus for engines that would take too long on all of it: for each drawn question
up to five passages that hold an answer, chosen by lot and by no engine, and others at random up to N.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdar_envs.search_qa import bench
from sdar_envs.search_qa.corpus import SUMMARY, Passage, PassageStore, read_corpus, write_store
from sdar_envs.search_qa.questions import Question, open_file
from sdar_envs.search_qa.retrievers import get, open_retriever
from sdar_envs.search_qa.scoring import normalize

ANSWERS = 5  # passages with an answer that `part_of` keeps for a question
ENGINES = ("bm25s", "tantivy", "dense", "http")


def part_of(passages: list[Passage], questions: list[Question], count: int, seed: int) -> list[Passage]:
    """At most `count` passages (more only if the answers need more), in the corpus's order."""
    lot, kept = random.Random(seed), set()
    texts = [f" {normalize(passage.contents)} " for passage in passages]
    for question in questions:
        wanted = [f" {target} " for target in map(normalize, question.targets) if target]
        holding = [row for row, text in enumerate(texts) if any(target in text for target in wanted)]
        kept.update(lot.sample(holding, min(ANSWERS, len(holding))))
    rest = [row for row in range(len(passages)) if row not in kept]
    kept.update(lot.sample(rest, max(0, min(len(rest), count - len(kept)))))
    return [passages[row] for row in sorted(kept)]


def one(engine: str, folder: str, questions: Path, rows: list[int], timed: int, k: int) -> dict[str, Any]:
    """Build and measure one engine in this process."""
    store, numbers, server = PassageStore(folder), {"engine": engine}, None
    local = "tantivy" if engine == "http" else engine
    if not (store.folder / local / "built.json").exists():
        start = time.perf_counter()
        get(local).build(store)
        numbers["build_s"] = time.perf_counter() - start
        files = (path for path in (store.folder / local).rglob("*") if path.is_file())
        numbers["disk_mb"] = sum(path.stat().st_size for path in files) / 1e6
    try:
        if engine == "http":
            command = [sys.executable, "-m", "sdar_envs.search_qa.server.cli", "serve", "--engine", local]
            server = subprocess.Popen([*command, "--index", folder, "--port", "0"], stdout=subprocess.PIPE, text=True)
            retriever = open_retriever({"engine": "http", "url": server.stdout.readline().split()[-1]})
        else:
            retriever = open_retriever({"engine": engine, "index": folder})
        file = open_file(questions)
        asked = [file[row] for row in rows]
        numbers["quality"] = asdict(bench.quality(retriever, asked, k))
        numbers["speed"] = asdict(bench.speed(retriever, [question.text for question in asked[:timed]], k))
        numbers["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    finally:
        if server is not None:
            server.terminate()
            server.wait()
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--limit", type=int, help="draw so many questions")
    parser.add_argument("--passages", type=int, help="take a part of the corpus")
    parser.add_argument("--timed", type=int, default=500, help="queries that are timed (%(default)s)")
    parser.add_argument("-k", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep corpus and indexes here and use what is there already")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        job = json.loads(args.one)
        print(json.dumps(one(job["engine"], job["folder"], args.questions, job["rows"], args.timed, args.k)))
        return 0
    file = open_file(args.questions)
    rows = random.Random(args.seed).sample(range(len(file)), min(args.limit or len(file), len(file)))
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch) / "index"
        if (folder / SUMMARY).exists():
            store = PassageStore(folder)
        else:
            passages = list(read_corpus(args.corpus))
            if args.passages:
                passages = part_of(passages, [file[row] for row in rows], args.passages, args.seed)
            store = write_store(passages, folder)
        print(f"{len(store)} passages, {len(rows)} questions")
        for engine in args.engines:
            job = json.dumps({"engine": engine, "folder": str(store.folder), "rows": rows})
            done = subprocess.run([sys.executable, *sys.argv, "--one", job], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                return done.returncode
            results.append(found := json.loads(done.stdout.splitlines()[-1]))
            quality, speed = found["quality"], found["speed"]
            built = f"built in {found['build_s']:.1f} s, {found['disk_mb']:.1f} MB" if "build_s" in found else ""
            print(
                f"{engine:<12} recall@{args.k} {quality['recall']:.3f} (mean of sources {quality['mean']:.3f})  one "
                f"query {speed['p50_ms']:.2f} ms, p99 {speed['p99_ms']:.2f}, CPU {speed['cpu_ms']:.2f}  batches "
                f"{speed['batched_per_second']:.0f}/s  {found['rss_mb']:.0f} MB RSS  {built}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"passages": len(store), "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
