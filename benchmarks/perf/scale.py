"""What a large ledger costs: made-up cells are planned, written and read by each command, in a process of its own.

python benchmarks/perf/scale.py [--cells 10000] [--folder FOLDER] [--steps NAME,NAME]

The cells are those of the quick preset with all pools and as many heads as it takes, 8 seeds each, 10 epochs, with a
table of 1,000 images. A FOLDER is kept, and written only if it is new.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from poolbench.registry import heads
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan

# This process imports neither torch nor mlflow: Linux counts the memory of a parent as its children's.
SEEDS = 8


def selection(count: int) -> Selection:
    """Return a selection of at least ``count`` cells, of all there are if they are fewer."""
    every = heads.names()
    for number in range(1, len(every) + 1):
        chosen = Selection(("all",), pools=("all",), heads=every[:number], seeds=tuple(range(SEEDS)))
        if len(plan(chosen)) >= count:
            break
    return chosen


def commands(chosen: Selection, folder: Path, count: int) -> dict[str, Sequence[str]]:
    """Return the arguments of Python for each step, in order."""
    selectors = ["all", "--pool", "all", "--head", ",".join(chosen.heads or ())]
    planned = [*selectors, "--seeds", f"0-{SEEDS - 1}"]
    cli = ["-m", "poolbench.cli"]
    verbs = {
        "plan": ["plan", *planned],
        "status": ["status"],
        "sync": ["sync"],
        "sync again": ["sync"],
        "report": ["report"],
        "claims": ["claims", *selectors],
        "run again": ["run", *planned, "--device", "cpu"],
    }
    steps = {name: [*cli, *verb, "--out", str(folder)] for name, verb in verbs.items()}
    merged = [*cli, "merge", str(folder), "--out", f"{folder}-merged"]
    return {"ledger": [__file__, "--fill", str(folder), "--cells", str(count)], **steps, "merge": merged}


def measured(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Run Python with these arguments; return seconds, seconds of CPU time and the peak memory in MB."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(f"{' '.join(arguments)} failed:\n{said.read().decode()}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def print_sizes(folder: Path) -> None:
    """Print how many files and bytes a cell and the other parts of a work folder take on disk."""
    cells = list((folder / "cells").iterdir())
    files = [path.stat() for cell in cells for path in cell.iterdir()]
    length, blocks = (sum(sizes) for sizes in ([f.st_size for f in files], [f.st_blocks * 512 for f in files]))
    print(
        f"{len(files) / len(cells):.1f} files per cell, {length / len(cells) / 1e3:.1f} kB long, "
        f"{blocks / len(cells) / 1e3:.1f} kB on disk"
    )
    for name in ("mlflow.db", "report/report.html", "report/results.csv"):
        if (folder / name).exists():
            print(f"{name}: {(folder / name).stat().st_size / 1e6:.0f} MB")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", help="some of the steps of the table (default: all)")
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    chosen = selection(given.cells)
    if given.fill:
        from sync import fill

        fill(Ledger(given.fill).create(), plan(chosen))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "out"
        steps = commands(chosen, folder, given.cells)
        if folder.exists():
            del steps["ledger"]
        cells = plan(chosen)
        print(f"{len(cells)} cells of {len({cell.group for cell in cells})} groups")
        print(f"{'step':<16}{'seconds':>9}{'CPU s':>9}{'peak MB':>9}", flush=True)
        for name in given.steps.split(",") if given.steps else steps:
            seconds, cpu, peak = measured(steps[name])
            print(f"{name:<16}{seconds:>9.1f}{cpu:>9.1f}{peak:>9.0f}", flush=True)
        print_sizes(folder)


if __name__ == "__main__":
    main()
