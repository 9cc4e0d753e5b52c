"""How many cells per second several `poolbench sync` write to one MLflow server, before SQLite and before PostgreSQL.

    python benchmarks/perf/writers.py FOLDER [--cells 40] [--workers 4]

FOLDER must be one that the account postgres may enter. Needs deploy/serve.sh and what that needs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from sync import write

from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan

SCRIPT = Path(__file__).parents[2] / "deploy" / "serve.sh"
WRITERS = (1, 2, 4, 8)
PORT = 5710


def fill(folder: Path, cells: int, number: int) -> Ledger:
    """Write made-up cells of one task that no other number has, four seeds per group."""
    ledger, generator = Ledger(folder).create(), np.random.default_rng(number)
    selection = Selection(("global_pooling",), "quick", heads=("avg", "max"), seeds=(0, 1, 2, 3))
    made = 0
    while made < cells:
        for cell in plan(selection)[: cells - made]:
            rate = 1e-6 * (1 + 10_000 * number + made)
            write(ledger, replace(cell, train=replace(cell.train, learning_rate=rate)), generator)
            made += 1
    return ledger


def wait_for(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise SystemExit(f"the server ended with {process.returncode}")


@contextmanager
def server(kind: str, folder: Path, workers: int) -> Iterator[psutil.Process]:
    """Run a server; it has answered when the context begins."""
    environment = {**os.environ, "PYTHON": sys.executable, "WORKERS": str(workers)}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = ["bash", str(SCRIPT), str(folder / "postgres"), str(PORT)]
    if kind == "sqlite":
        (folder / "sqlite").mkdir()
        own = [
            "--port",
            str(PORT),
            "--workers",
            str(workers),
            "--artifacts-destination",
            str(folder / "sqlite" / "files"),
        ]
        store = ["--backend-store-uri", f"sqlite:///{folder}/sqlite/mlflow.db"]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", *own, *store]
    began = time.perf_counter()
    with open(folder / f"{kind}.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=kind == "sqlite")
    try:
        wait_for(process)
        print(f"{kind}: answers after {time.perf_counter() - began:.0f} s", flush=True)
        yield psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM) if kind == "sqlite" else process.terminate()
        process.wait()


def measure(folder: Path, kind: str, cells: int, first: int) -> None:
    for writers in WRITERS:
        ledgers = [
            fill(folder / f"{kind}-{writers}-{one}", cells, first + 10 * writers + one) for one in range(writers)
        ]
        command = [sys.executable, "-m", "poolbench.cli", "sync", "--tracking-uri", f"http://127.0.0.1:{PORT}", "--out"]
        began = time.perf_counter()
        syncs = [subprocess.Popen([*command, str(one.folder)], stderr=subprocess.DEVNULL) for one in ledgers]
        codes = [sync.wait() for sync in syncs]
        seconds = time.perf_counter() - began
        rate = writers * cells / seconds
        print(
            f"{kind}, {writers} writers: {writers * cells} cells in {seconds:.1f} s, {rate:.2f}/s, exit {codes}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=40, help="of each writer")
    parser.add_argument("--workers", type=int, default=4, help="processes of MLflow")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True)
    for position, kind in enumerate(("sqlite", "postgres")):
        with server(kind, given.folder.resolve(), given.workers) as process:
            measure(given.folder, kind, given.cells, 1000 * (1 + position))
            memory = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
            print(f"{kind}: {memory / 1e6:.0f} MB in all processes of the server", flush=True)


if __name__ == "__main__":
    main()
