"""Whether a long run stays flat: memory, open files and threads of 'poolbench run' over thousands of tiny cells.

python benchmarks/perf/endurance.py [--cells 2000] [--jobs 1] [--every 3] [--folder FOLDER] [--csv FILE] [--figure FILE]
python benchmarks/perf/endurance.py --csv FILE --read [--figure FILE]

The launcher and each of its workers are sampled every few seconds; with one job the launcher trains itself. MLflow is
on. Each measure is judged by its slope over the cells after the first tenth: samples are averaged in blocks of equal
numbers of cells, because neighbours resemble each other, and the 95 % interval is that of a straight line through the
blocks. The exit code is 1 if a slope may be more than allowed. A FOLDER is kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import psutil
from scipy import stats

from poolbench.plots.panels import panel_grid
from poolbench.plots.style import PALETTE, STYLE, to_png

SELECTION = ("global_pooling", "--preset", "smoke", "--head", "avg", "--where", "variant=corrected")
SIZE = ("--train", "train_images=20")
WARM_UP = 0.1  # of the cells
BLOCKS = 20
# What 10,000 cells may cost: 200 MB, and fewer than one handle or thread per 1,000 cells.
ALLOWED = {"rss_mb": 20.0, "handles": 1.0, "threads": 1.0}
TITLES = {"rss_mb": "resident memory (MB)", "handles": "open files", "threads": "threads"}


@dataclass(frozen=True)
class Slope:
    """Change of a measure per 1,000 cells with its 95 % interval."""

    per_1000: float
    low: float
    high: float


def command(folder: Path, cells: int, jobs: int) -> list[str]:
    """Return the command that runs the tiny cells."""
    size = ["--seeds", f"0-{cells - 1}", "--jobs", str(jobs), "--device", "cpu", "--out", str(folder)]
    return [sys.executable, "-m", "poolbench.cli", "run", *SELECTION, *SIZE, *size]


def processes(launcher: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the launcher and its workers with their names."""
    yield "launcher", launcher
    for child in sorted(launcher.children(), key=lambda child: child.pid):
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                yield f"worker {child.pid}", child


def sample(launcher: psutil.Process) -> Iterator[dict[str, object]]:
    """Yield memory, open files and threads of each process that is there."""
    for name, process in processes(launcher):
        with suppress(psutil.NoSuchProcess):
            with process.oneshot():
                memory, handles, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
            yield {"process": name, "rss_mb": memory / 1e6, "handles": handles, "threads": threads}


def watch(folder: Path, cells: int, jobs: int, every: float) -> pd.DataFrame:
    """Run the cells; return the samples with the seconds since the start and the number of cells started."""
    rows: list[dict[str, object]] = []
    began = time.monotonic()
    with open(folder.with_suffix(".log"), "wb") as said:
        run = subprocess.Popen(command(folder, cells, jobs), stdout=subprocess.DEVNULL, stderr=said)
        launcher = psutil.Process(run.pid)
        while run.poll() is None:
            started = len(os.listdir(folder / "cells")) if (folder / "cells").exists() else 0
            seconds = time.monotonic() - began
            with suppress(psutil.NoSuchProcess):
                rows += [{"seconds": seconds, "cells": started, **row} for row in sample(launcher)]
            with suppress(subprocess.TimeoutExpired):
                run.wait(every)
    if run.returncode:
        raise SystemExit(f"the run ended with {run.returncode}: see {folder.with_suffix('.log')}")
    return pd.DataFrame(rows)


def blocks(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the mean samples of each block of cells after the warm-up, while cells ran."""
    total = samples["cells"].max()
    first = WARM_UP * total
    steady = samples[(samples["cells"] >= first) & (samples["cells"] < total)]
    number = ((steady["cells"] - first) * BLOCKS / (total - first)).astype(int)
    return steady[["cells", "seconds", *ALLOWED]].groupby(number).mean()


def slope(cells: Sequence[float], values: Sequence[float]) -> Slope:
    """Return the slope of a straight line through the means of blocks, per 1,000 cells."""
    x = np.asarray(cells, dtype=float) / 1000
    line = stats.linregress(x, np.asarray(values, dtype=float))
    # The standard error of a constant is 0 / 0.
    half = float(stats.t.ppf(0.975, len(x) - 2) * np.nan_to_num(line.stderr))
    return Slope(float(line.slope), float(line.slope) - half, float(line.slope) + half)


def judge(samples: pd.DataFrame) -> bool:
    """Print the slope of every measure of every process; return whether all are as flat as allowed."""
    flat = True
    columns = f"{'first':>9}{'last':>9}{'slope per 1,000 cells, 95 % interval':>40}{'allowed':>9}"
    print(f"{'process':<16}{'measure':<10}{columns}")
    for name, own in samples.groupby("process"):
        found = blocks(own)
        for measure, allowed in ALLOWED.items():
            one = slope(found["cells"].tolist(), found[measure].tolist())
            ends = f"{found[measure].iloc[0]:>9.1f}{found[measure].iloc[-1]:>9.1f}"
            interval = f"{one.per_1000:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
            is_flat = one.high <= allowed
            flat &= is_flat
            print(f"{name:<16}{measure:<10}{ends}{interval:>40}{allowed:>9.0f}{'' if is_flat else '  not flat'}")
        pace = np.diff(found["seconds"]) / np.diff(found["cells"])
        print(f"{name:<16}seconds per cell: {pace[:3].mean():.2f} at first, {pace[-3:].mean():.2f} at last")
    return flat


def picture(samples: pd.DataFrame) -> bytes:
    """Return the samples of all processes over the cells started, a panel per measure, as a PNG."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panel_grid(TITLES.values(), len(TITLES), 1.9, legend_rows=1, share_y=False)
        warm_up = WARM_UP * samples["cells"].max()
        for panel, measure in zip(axes, TITLES, strict=True):
            for colour, (name, own) in zip(PALETTE, samples.groupby("process"), strict=False):
                panel.plot(own["cells"], own[measure], color=colour, linewidth=0.9, label=str(name).split()[0])
            panel.axvspan(0, warm_up, color="#eeeeee")
            panel.set_ylim(0, 1.15 * samples[measure].max())
            panel.set_xlabel("cells started")
        keys, names = axes[0].get_legend_handles_labels()
        figure.legend(keys, names, loc="upper center", ncols=len(keys), borderaxespad=0.2)
        return to_png(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two samples")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--csv", type=Path, default=Path("endurance.csv"), help="the samples")
    parser.add_argument("--read", action="store_true", help="run nothing: judge the samples of --csv")
    parser.add_argument("--figure", type=Path, help="draw the samples as a PNG")
    given = parser.parse_args(arguments)
    if not given.read:
        with tempfile.TemporaryDirectory() as temporary:
            folder = given.folder or Path(temporary) / "out"
            watch(folder, given.cells, given.jobs, given.every).to_csv(given.csv, index=False)
    samples = pd.read_csv(given.csv)
    if given.figure:
        given.figure.write_bytes(picture(samples))
    sys.exit(0 if judge(samples) else 1)


if __name__ == "__main__":
    main()
