"""Whether 'poolbench run' survives kill -9 at random times: an hour of it, then every cell is compared bit by bit.

python benchmarks/perf/kills.py [--minutes 60] [--mean 60] [--seeds 6] [--seed 0] [--folder FOLDER]

The same command runs in new folders, round after round, until the time is over: first undisturbed, as the reference,
then under kills. One of {all its processes, a worker, the launcher alone} is killed after a random time, exponential
with the given mean in seconds, and the same command is started again until it succeeds. After each round

- every cell is finished, and no attempt began after its result was written;
- metrics and learning curves are those of the reference to the last bit, measured times aside;
- 'sync' finds nothing to write, and MLflow has the reference's number of finished groups and seeds, one run per cell;
- no process of the round is left.

The exit code is 1 otherwise. Every kill is a line of FOLDER/kills.csv. A FOLDER is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

TARGETS = ("all", "worker", "launcher")
TIMES = ("cost_forward_ms", "cost_train_ms")  # measured anew in each run
END_SECONDS = 30.0  # until the workers of a killed launcher must have ended


def command(folder: Path, seeds: int) -> list[str]:
    """Return the command of every round: cells of 1 to 40 s in 12 groups, the long ones with checkpoints in between."""
    work = ["--seeds", f"0-{seeds - 1}", "--epochs", "4", "--jobs", "2", "--device", "cpu", "--retry-failed"]
    return [sys.executable, "-m", "poolbench.cli", "run", "all", "--preset", "smoke", *work, "--out", str(folder)]


class Round:
    """One folder in which the command is started again until it succeeds."""

    def __init__(self, folder: Path, seeds: int) -> None:
        self.folder, self.seeds = folder, seeds
        self.seen: set[psutil.Process] = set()
        self.starts = 0

    @contextmanager
    def launched(self) -> Iterator[subprocess.Popen[bytes]]:
        """Yield the started command, with its output at the end of the round's log."""
        self.starts += 1
        # In a session of its own, as on a terminal of its own.
        with (
            open(self.folder.with_suffix(".log"), "ab") as log,
            subprocess.Popen(command(self.folder, self.seeds), stdout=log, stderr=log, start_new_session=True) as run,
        ):
            try:
                yield run
            finally:
                if run.poll() is None:
                    os.killpg(run.pid, signal.SIGKILL)

    def workers(self, run: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Return the workers of a launcher, and remember them."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(run.pid).children():
                with suppress(psutil.NoSuchProcess):
                    if "spawn_main" in " ".join(child.cmdline()):
                        found.append(child)
        self.seen.update(found)
        return found

    def finished(self) -> int:
        return len(list(self.folder.glob("cells/*/result.json")))

    def kill(self, run: subprocess.Popen[bytes], target: str, chance: random.Random) -> str:
        """Kill a target and return what was killed: without workers, the launcher."""
        workers = self.workers(run)
        if target == "worker" and workers:
            chance.choice(workers).kill()
            return target
        if target == "all":
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            return target
        run.kill()
        return "launcher"

    def left_over(self) -> list[psutil.Process]:
        """Return the processes of the round that are alive after some time to end."""
        return psutil.wait_procs(list(self.seen), timeout=END_SECONDS)[1]


class Killer:
    """Kills at random times until the time is over, and keeps a line on each kill."""

    def __init__(self, seconds: float, mean: float, seed: int, log: Path) -> None:
        self.end = time.monotonic() + seconds
        self.mean, self.chance, self.log = mean, random.Random(seed), log
        self.began, self.counts = time.monotonic(), Counter[str]()

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    def disturb(self, one: Round) -> None:
        """Start the command of a round until it succeeds."""
        due = self._next()
        while True:
            with one.launched() as run:
                while run.poll() is None:
                    one.workers(run)
                    if time.monotonic() >= due and not self.is_over:
                        self._kill(one, run)
                        due = self._next()
                    time.sleep(0.05)
            if run.returncode == 0:
                return
            if run.returncode != -signal.SIGKILL:
                # A cell whose worker was killed twice has failed, which the next start tries again.
                self._write(one, f"exit {run.returncode}")

    def _next(self) -> float:
        return time.monotonic() + self.chance.expovariate(1 / self.mean)

    def _kill(self, one: Round, run: subprocess.Popen[bytes]) -> None:
        killed = one.kill(run, self.chance.choice(TARGETS), self.chance)
        self.counts[killed] += 1
        self._write(one, killed)

    def _write(self, one: Round, what: str) -> None:
        with open(self.log, "a", newline="") as file:
            seconds = round(time.monotonic() - self.began, 2)
            csv.writer(file).writerow((one.folder.name, seconds, what, one.finished()))


def events(cell: Path) -> list[dict[str, Any]]:
    """Return the events of a cell that are whole lines."""
    found = []
    for line in (cell / "events.jsonl").read_text().splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def outcome(cell: Path) -> dict[str, Any]:
    """Return what must not depend on kills: the metrics, and each epoch's numbers from the attempt that counts."""
    stored = json.loads((cell / "result.json").read_text())
    curve: dict[int, dict[str, float]] = {}
    for event in events(cell):
        kind, epoch = event.pop("event"), event.get("epoch", 0)
        if kind in ("started", "resumed"):
            curve = {number: row for number, row in curve.items() if number <= epoch}
        elif kind == "epoch":
            curve[epoch] = {name: value for name, value in event.items() if name != "time"}
    return {"metrics": {k: v for k, v in stored["metrics"].items() if k not in TIMES}, "curve": curve}


def runs(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the number of finished runs of groups and of seeds in MLflow, and of different groups and cells."""
    query = """
        select kind.value, count(*), count(distinct own.value) from runs
        join tags kind on kind.run_uuid = runs.run_uuid and kind.key = 'poolbench.kind'
        join tags own on own.run_uuid = runs.run_uuid
            and own.key = case kind.value when 'seed' then 'poolbench.cell' else 'poolbench.group' end
        where runs.status = 'FINISHED' and runs.lifecycle_stage = 'active' and kind.value in ('seed', 'group')
        group by kind.value
    """
    with sqlite3.connect(folder / "mlflow.db") as database:
        return {kind: (count, different) for kind, count, different in database.execute(query)}


def wrong(one: Round, reference: Round) -> list[str]:
    """Return what is wrong with a round after its command has succeeded; [] if it is as the reference."""
    names = {path.name for path in (reference.folder / "cells").iterdir()}
    found = [path.name for path in (one.folder / "cells").iterdir()]
    problems = [f"cell {name} is in one round only" for name in names.symmetric_difference(found)]
    for name in sorted(names.intersection(found)):
        cell, other = one.folder / "cells" / name, reference.folder / "cells" / name
        if not (cell / "result.json").exists():
            problems.append(f"cell {name} has no result")
            continue
        ended = json.loads((cell / "result.json").read_text())["ended"]
        problems += [f"cell {name} was executed after its end" for event in events(cell) if event["time"] > ended]
        mine, theirs = outcome(cell), outcome(other)
        problems += [f"cell {name}: other {part}" for part in mine if mine[part] != theirs[part]]
    synced = subprocess.run(
        [sys.executable, "-m", "poolbench.cli", "sync", "--out", str(one.folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "0 runs of seeds are new" not in synced.stderr:
        problems.append(f"sync: {synced.stderr}")
    if (counts := runs(one.folder)) != (expected := runs(reference.folder)):
        problems.append(f"MLflow has {counts}, not {expected}")
    return problems + [f"process {process.pid} is left" for process in one.left_over()]


def attempts(one: Round) -> Mapping[str, int]:
    """Return how often cells of a round were started and resumed, and how often they failed."""
    return Counter(event["event"] for cell in (one.folder / "cells").iterdir() for event in events(cell))


def report(one: Round, problems: Sequence[str]) -> None:
    """Print one line on a round, and a line on each problem."""
    count = attempts(one)
    print(
        f"{one.folder.name}: {one.finished()} cells, {one.starts} starts of the command, {count['started']} starts and "
        f"{count['resumed']} resumptions of cells, {count['failed']} failures, {len(problems)} problems",
        flush=True,
    )
    for problem in problems:
        print(f"  {problem}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="no round is begun after this time under kills")
    parser.add_argument("--mean", type=float, default=60.0, help="mean seconds between two kills")
    parser.add_argument("--seeds", type=int, default=6, help="seeds of each group")
    parser.add_argument("--seed", type=int, default=0, help="of the random times and targets")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        reference = Round(folder / "reference", given.seeds)
        with reference.launched() as run:
            if run.wait():
                raise SystemExit(f"the undisturbed run ended with {run.returncode}: see {folder}/reference.log")
        report(reference, wrong(reference, reference))
        killer = Killer(60 * given.minutes, given.mean, given.seed, folder / "kills.csv")
        failed = number = 0
        while not killer.is_over:
            number += 1
            one = Round(folder / f"round{number}", given.seeds)
            killer.disturb(one)
            problems = wrong(one, reference)
            report(one, problems)
            failed += len(problems)
        print(f"{sum(killer.counts.values())} kills in {number} rounds: {dict(killer.counts)}, {failed} problems")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
