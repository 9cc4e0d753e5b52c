"""SIGINT and SIGTERM in the middle of each command: no traceback, the promised exit code, the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from poolbench.engine.loop import Training
from poolbench.plugins import import_code
from poolbench.task import Benchmark

disturbed = import_code(str(Path(__file__).with_name("_disturbed.py")))

RUN = ("run", "tiny", "--preset", "smoke", "--jobs", "1", "--no-mlflow", "--out", "OUT")
TUNE = ("tune", "tiny", "--preset", "smoke", "--pool", "avg", "--trials", "2", "--trial-seeds", "2", "--no-mlflow",
        "--out", "OUT")  # fmt: skip
DECIDE = ("decide", "tiny", "--preset", "smoke", "--budget", "5s", "--jobs", "1", "--no-mlflow", "--out", "OUT")


class Moment(NamedTuple):
    """A function of a class or module whose n-th call sends the signal, and whether the command catches SIGTERM."""

    arguments: tuple[str, ...]
    place: Callable[[], tuple[Any, str]]
    call: int = 1
    catches: bool = True


def mlflow_call(name: str) -> Callable[[], tuple[Any, str]]:
    def place() -> tuple[Any, str]:
        import mlflow

        return mlflow.MlflowClient, name

    return place


def module(name: str, function: str) -> Callable[[], tuple[Any, str]]:
    def place() -> tuple[Any, str]:
        __import__(name)
        return sys.modules[name], function

    return place


MOMENTS = {
    "training": Moment(RUN, lambda: (Training, "run_epoch")),
    "measuring": Moment(RUN, module("poolbench.runner.cell", "_measure")),
    "writing": Moment(RUN, lambda: (os, "fsync"), 7),
    "report-of-run": Moment(RUN, module("poolbench_tracking.report", "_with_drawings"), catches=False),
    "report": Moment(("report", "--out", "OUT"), module("poolbench_tracking.report", "_with_drawings"), catches=False),
    "sync": Moment(("sync", "--out", "OUT"), mlflow_call("log_batch"), 3, catches=False),
    "tune-training": Moment(TUNE, lambda: (Training, "run_epoch"), 6),
    "tune-storage": Moment(TUNE, lambda: (os, "fsync"), 5),
    "merge": Moment(("merge", "OUT", "--out", "MERGED"), lambda: (os, "fsync"), 9, catches=False),
    "doctor": Moment(("doctor", "--fix", "--out", "OUT"), lambda: (os, "rename"), catches=False),
}


def as_process(work: Any, arguments: tuple[str, ...], prepared: AbstractContextManager[Any]) -> tuple[int, str]:
    """Run the command line in a forked process, as ``python -m poolbench`` does; return exit code and stderr.

    The code is negative for a process that ended by a signal.
    """
    from poolbench.__main__ import command

    with tempfile.TemporaryFile() as output:

        def act() -> int:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            places = {"OUT": work.out, "MERGED": work.folder / "merged"}
            sys.argv = ["poolbench", *(str(places.get(one, one)) for one in arguments)]
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                with prepared:
                    command()
            except SystemExit as ended:
                code = ended.code or 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
            return int(code)

        code = disturbed.forked(act)
        output.seek(0)
        return code, output.read().decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("name", MOMENTS)
def test_a_signal(
    work: Any, tiny: Benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    moment = MOMENTS[name]
    if name == "sync":
        shutil.rmtree(work.out / "tuning")
        disturbed.empty_store(work.out)
    if name == "doctor":
        (work.out / "cells" / work.finished[0].id / "layers.parquet").write_bytes(b"damaged")

    def send(count: int) -> None:
        if count == moment.call:
            os.kill(os.getpid(), number)

    code, output = as_process(work, moment.arguments, disturbed.disturbed([moment.place()], send))
    if number == signal.SIGINT or moment.catches:
        assert code == 130, output
        assert "interrupted" in output
    else:
        assert code == -signal.SIGTERM, output
    assert "Traceback" not in output
    assert "KeyboardInterrupt" not in output
    code, output = as_process(work, moment.arguments, nullcontext())
    assert code == 0, output
    assert "Traceback" not in output
