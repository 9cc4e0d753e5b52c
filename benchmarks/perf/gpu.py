"""Run all timings that need a GPU and print one table at the end.

python benchmarks/perf/gpu.py [--out FOLDER]

FOLDER keeps train.json, pools.json and the work folders of the runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from timing import environment_line

PERF = Path(__file__).parent.resolve()
CLI = [sys.executable, "-m", "poolbench.cli"]
RUNS = {
    "quick preset": ["run", "all"],
    "global_pooling of the quick preset, 16 seeds": ["run", "global_pooling", "--seeds", "0-15"],
    "the same, replicas one after another": ["run", "global_pooling", "--seeds", "0-15", "--replicas", "1"],
    "the same, one after another in 4 workers": [
        "run", "global_pooling", "--seeds", "0-15", "--replicas", "1", "--slots-per-gpu", "4",
    ],
}  # fmt: skip


def timed(command: list[str], folder: Path) -> float:
    """Run a command in the folder with its output on the screen and return its seconds; raise if it fails."""
    print("$", *command[1:], flush=True)
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True)
    return time.perf_counter() - began


def run_rows(folder: Path) -> list[tuple[str, str]]:
    """Time the runs of the suite and a second 'run all' with nothing left to do; return (title, time)."""
    rows = []
    for number, (title, command) in enumerate(RUNS.items()):
        spent = timed([*CLI, *command, "--device", "cuda", "--out", f"run-{number}"], folder)
        rows.append((title, f"{spent:.0f} s"))
    spent = timed([*CLI, *RUNS["quick preset"], "--device", "cuda", "--out", "run-0"], folder)
    return [*rows, ("finished 'run all'", f"{spent:.2f} s")]


def train_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (title, figures) for the rows of train.py."""
    rows = []
    for part in figures["epoch"]:
        title = f"an epoch on the CPU, {part['part']}: article / engine"
        rows.append((title, f"{part['article']:.2f} / {part['engine']:.2f} s = {part['ratio']:.2f}"))
    for row in figures["replicas"]:
        title = f"{row['network']}, {row['replicas']} replicas: a replica-epoch"
        rows.append((title, f"{row['seconds']:.4f} s, {row['ratio']:.1f} times cheaper"))
    speed = figures["resnet18"]
    rows.append(("resnet18, bfloat16 engine / plain float32", f"{speed['engine']:.0f} / {speed['plain']:.0f} images/s"))
    rows.append(("resnet18, bfloat16 engine, compiled", f"{speed['compiled']:.0f} images/s"))
    share = "of an unknown peak" if speed["share"] is None else f"{speed['share']:.1%} of the bfloat16 peak"
    return [*rows, ("resnet18, operations", f"{speed['tflops']:.1f} TFLOP/s, {share}")]


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("perf-gpu"))
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "pools"):
        script = str(PERF / f"{name}.py")
        timed([sys.executable, script, "--device", "cuda", "--json", f"{name}.json"], folder)
    rows = run_rows(folder)
    figures: dict[str, Any] = json.loads((folder / "train.json").read_text())
    rows += train_rows(figures)
    facts = figures["environment"]
    print(f"\n{environment_line(facts)}, poolbench {facts['poolbench']} {facts['git_commit'][:12]}")
    width = max(len(title) for title, _ in rows)
    for title, value in rows:
        print(f"{title:<{width}}  {value}")


if __name__ == "__main__":
    main()
