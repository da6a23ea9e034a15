"""The long run: histories of 10,000 steps, one after another, until so many steps are done.

    python -m tests.proof.run --steps 1000000 --seed 1 --state proof.json [--jobs 2]

Every history is a database of its own and depends on nothing but `seed` and its number, so a
failure is replayed with `--seed N --history K`. Stopped at any moment, by a signal or a power cut,
the run goes on from the last whole history: call it again with the same state file.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import queue
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from dusuan.store.embedded import EmbeddedPostgres
from dusuan.store.migrate import migrate
from tests.conftest import HASTY, create_database, drop_database
from tests.proof.world import World

HISTORY_STEPS = 10_000


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """A server that need not survive a power cut, with a migrated database to copy."""
    settings = {**HASTY, "max_wal_size": "256MB", "max_connections": "300"}
    postgres = EmbeddedPostgres(folder / "postgres", settings=settings)
    url = postgres.start()
    try:
        template = create_database(url)
        migrate(template)
        yield url, str(psycopg.conninfo.conninfo_to_dict(template)["dbname"])
    finally:
        postgres.stop()


def history(url: str, template: str, seed: int, number: int, steps: int) -> Counter[str]:
    """One history; how often each operation was done. Raises on the first disagreement."""
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # connections are killed on purpose
    database = create_database(url, template)
    world = World(database, Path(tempfile.gettempdir()))
    rng = random.Random(f"{seed}/{number}")
    try:
        while world.steps < steps:
            world.step(rng)
        world.check_everything()
    except BaseException:
        print(
            f"seed {seed}, history {number}, step {world.steps}; the last steps:", file=sys.stderr
        )
        print("\n".join(list(world.log)[-12:]), file=sys.stderr)
        raise
    finally:
        world.close()
    drop_database(url, database)
    return world.counts


def _worker(url: str, template: str, seed: int, numbers: Any, done: Any) -> None:
    for number, steps in iter(numbers.get, None):
        start = time.perf_counter()
        counts = history(url, template, seed, number, steps)
        done.put((number, steps, counts, time.perf_counter() - start))


def load(state: Path, seed: int) -> dict[str, Any]:
    """What a former run left, or nothing. Raises `SystemExit` for another seed's state."""
    if not state.exists():
        return {"seed": seed, "began": str(datetime.now(UTC)), "steps": 0, "seconds": 0.0,
                "histories": [], "operations": {}}  # fmt: skip
    former: dict[str, Any] = json.loads(state.read_text())
    if former["seed"] != seed:
        raise SystemExit(f"{state} belongs to seed {former['seed']}: name that, or another file")
    return former


def note(state: Path, run: dict[str, Any], done: tuple[int, int, Counter[str], float]) -> None:
    """One more whole history, written so that a power cut leaves the old file or the new one."""
    number, steps, counts, seconds = done
    run["histories"] = sorted([*run["histories"], number])
    run["steps"] += steps
    run["operations"] = dict(Counter(run["operations"]) + counts)
    run["seconds"] = round(run["seconds"] + seconds, 1)
    run["latest"] = str(datetime.now(UTC))
    fresh = state.with_suffix(".new")
    fresh.write_text(json.dumps(run, indent=1))
    fresh.replace(state)
    print(json.dumps({k: run[k] for k in ("seed", "steps", "seconds", "latest")}), flush=True)


def missing(run: dict[str, Any], steps: int) -> list[tuple[int, int]]:
    """(number, steps) of the histories that are still to be done."""
    rest = [
        (number, min(HISTORY_STEPS, steps - number * HISTORY_STEPS))
        for number in range(-(-steps // HISTORY_STEPS))
    ]
    return [item for item in rest if item[0] not in run["histories"]]


def work(url: str, template: str, state: Path, run: dict[str, Any], steps: int, jobs: int) -> bool:
    """Do what is missing with `jobs` processes; whether none of them failed."""
    context = multiprocessing.get_context("spawn")
    numbers, done = context.Queue(), context.Queue()
    todo = missing(run, steps)
    for item in [*todo, *[None] * jobs]:
        numbers.put(item)
    arguments = (url, template, run["seed"], numbers, done)
    workers = [context.Process(target=_worker, args=arguments, daemon=True) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    left = len(todo)
    while left:
        if not done.empty() or all(w.is_alive() for w in workers):
            try:
                note(state, run, done.get(timeout=1))
                left -= 1
            except queue.Empty:
                continue
        elif any(w.exitcode not in (0, None) for w in workers):
            return False
    return True


def main() -> int:
    """Run or go on; 1 when platform and auditor disagreed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, default=Path("proof.json"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--history", type=int, help="replay just this one")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dusuan-proof-"))
    try:
        with server(folder) as (url, template):
            if options.history is not None:
                steps = min(options.steps, HISTORY_STEPS)
                print(history(url, template, options.seed, options.history, steps))
                return 0
            run = load(options.state, options.seed)
            print(f"seed {run['seed']}: {run['steps']} steps are done", flush=True)
            good = work(url, template, options.state, run, options.steps, options.jobs)
        return 0 if good else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
