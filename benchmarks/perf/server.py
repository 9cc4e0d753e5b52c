"""How many made-up cells per second get into an MLflow server when several work folders are synced to it at once."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sync import write

from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable

SCRIPT = Path(__file__).parents[2] / "deploy" / "serve.sh"
DATA = {"name": "made-up", "digest": "0123456789abcdef", "source": "made here"}


def command(store: str, folder: Path, port: int) -> list[str]:
    """Return the command that starts a server before a store, "sqlite" or "postgresql"."""
    if store == "postgresql":
        return ["bash", str(SCRIPT), str(folder), str(port)]
    started = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    files = ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    return [*started, "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", *files]


@contextmanager
def server(store: str, folder: Path, workers: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server with that many processes; give its address and its process, and stop it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHON": sys.executable, "WORKERS": str(workers)}
    line = command(store, folder, port) + (["--workers", str(workers)] if store == "sqlite" else [])
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            line, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        while process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"{uri}/health", timeout=60).close()
                break
            time.sleep(0.1)
        yield uri, process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def fill(folder: Path, writer: int, count: int) -> Ledger:
    """Write ``count`` finished cells of groups that no other writer has."""
    ledger, generator = Ledger(folder).create(), np.random.default_rng(writer)
    cells = plan(Selection(("shift_robustness",), "quick", seeds=tuple(range(8))))
    if count > len(cells):
        raise SystemExit(f"--cells {count}: a writer has {len(cells)} at most")
    for cell in cells[:count]:
        own = replace(cell, train=replace(cell.train, learning_rate=1e-3 * (1 + writer)))
        write(ledger, own, generator, data=DATA)
    return ledger


def sync(folder: Path, uri: str, barrier: Any, failures: Any) -> None:
    """Sync a folder when all writers are ready; count a failure of the server."""
    ledger = Ledger(folder)
    barrier.wait()
    try:
        MlflowSink(folder, uri).sync([ledger])
    except TrackingUnavailable as error:
        print(f"  failed: {error}", file=sys.stderr)
        with failures:
            failures.value += 1


def measure(writers: int, count: int, uri: str, folder: Path) -> tuple[float, int]:
    """Return the seconds from the start of all writers to the end of the last, and how many of them failed."""
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(writers + 1), context.Value("i", 0)
    folders = [folder / f"{writers}-{writer}" for writer in range(writers)]
    for number, one in enumerate(folders):
        fill(one, 100 * writers + number, count)
    processes = [context.Process(target=sync, args=(one, uri, barrier, failures)) for one in folders]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - began, int(failures.value)


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the memory of a process and all below it in MB; what they share counts once (PSS)."""
    top = psutil.Process(process.pid)
    return float(sum(one.memory_full_info().pss for one in [top, *top.children(recursive=True)])) / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    number = partial(parser.add_argument, type=int)
    number("--cells", default=32, help="per writer (default: 32)")
    number("--writers", nargs="+", default=[1, 2, 4, 8])
    number("--workers", nargs="+", default=[1, 2], help="processes of the server")
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as warm:
        # Loads all that the writers need before they are forked.
        MlflowSink(Path(warm)).sync([fill(Path(warm), 0, 1)])
    for store in given.stores:
        for workers in given.workers:
            # PostgreSQL's account must be able to enter the folder.
            folder = Path(tempfile.mkdtemp(prefix="poolbench-server-"))
            folder.chmod(0o755)
            began = time.perf_counter()
            with server(store, folder, workers) as (uri, process):
                print(f"{store}, {workers} workers: started in {time.perf_counter() - began:.1f} s", flush=True)
                for writers in given.writers:
                    seconds, failed = measure(writers, given.cells, uri, folder)
                    rate = f"{writers * given.cells / seconds:.1f} cells/s ({seconds:.1f} s)"
                    print(f"  {writers} writers: {rate}, {failed} failed, server {memory(process):.0f} MB", flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
