"""All measurements that need a GPU, in one go; the last thing it prints is one table.

python benchmarks/perf/gpu.py [--out FOLDER]

Leaves bench-train.json, bench-pools.json and the work folders of the runs in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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
    """Run a command of the suite, its words on the screen, and return its seconds; stop where it fails."""
    print("$ poolbench", *command, flush=True)
    began = time.perf_counter()
    subprocess.run([*CLI, *command], cwd=folder, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("perf-gpu"))
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    timed(["bench", "train", "--device", "cuda", "--json", "bench-train.json"], folder)
    timed(["bench", "pools", "--device", "cuda", "--json", "bench-pools.json"], folder)
    rows: list[tuple[str, str]] = []
    for number, (title, command) in enumerate(RUNS.items()):
        spent = timed([*command, "--device", "cuda", "--out", f"run-{number}"], folder)
        rows.append((title, f"{spent:.0f} s"))
    spent = timed([*RUNS["quick preset"], "--device", "cuda", "--out", "run-0"], folder)
    rows.append(("finished 'run all'", f"{spent:.2f} s"))
    train: dict[str, Any] = json.loads((folder / "bench-train.json").read_text())
    for part in train["epoch"]:
        title = f"an epoch on the CPU, {part['part']}: article / engine"
        rows.append((title, f"{part['article']:.2f} / {part['engine']:.2f} s = {part['ratio']:.2f}"))
    for row in train["replicas"]:
        title = f"{row['network']}, {row['replicas']} replicas: a replica-epoch"
        rows.append((title, f"{row['seconds']:.4f} s, {row['ratio']:.1f} times cheaper"))
    speed = train["resnet18"]
    rows.append(("resnet18, bfloat16 engine / plain float32", f"{speed['engine']:.0f} / {speed['plain']:.0f} images/s"))
    rows.append(("resnet18, bfloat16 engine, compiled", f"{speed['compiled']:.0f} images/s"))
    share = "of an unknown peak" if speed["share"] is None else f"{speed['share']:.1%} of the bfloat16 peak"
    rows.append(("resnet18, operations", f"{speed['tflops']:.1f} TFLOP/s, {share}"))
    facts = train["environment"]
    print(
        f"\n{facts['device_name']}, torch {facts['torch']}, poolbench {facts['poolbench']} {facts['git_commit'][:12]}"
    )
    width = max(len(title) for title, _ in rows)
    for title, value in rows:
        print(f"{title:<{width}}  {value}")


if __name__ == "__main__":
    main()
