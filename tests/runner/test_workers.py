"""Worker processes: how they end with the command, and how many there are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from poolbench.core import UsageError
from poolbench.runner.workers import slots, usable_cores

SELECTION = ["shift_robustness", "--preset", "smoke", "--pool", "max", "--arch", "shape_net", "--device", "cpu"]


class Launcher:
    """``poolbench run`` with two workers in a session of its own, as on a terminal of its own."""

    def __init__(self, folder: Path, epochs: int) -> None:
        command = ["run", *SELECTION, "--no-mlflow", "--jobs", "2", "--epochs", str(epochs)]
        self.out = folder / "poolbench-out"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "poolbench.cli", *command],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def epochs(self) -> list[int]:
        return [path.read_text().count('"epoch"') // 2 for path in self.out.glob("cells/*/events.jsonl")]

    def workers(self) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # others that come and go
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
        return found


def all_gone(processes: list[psutil.Process], seconds: float) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_ctrl_c_ends_the_workers_and_says_so_in_one_line(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, epochs=1000)
    launcher.wait_until(lambda: sum(count > 0 for count in launcher.epochs()) == 2)
    workers = launcher.workers()
    assert len(workers) == 2
    os.killpg(launcher.process.pid, signal.SIGINT)
    _, errors = launcher.process.communicate(timeout=60)
    assert launcher.process.returncode == 130, errors
    assert "interrupted; finished cells are kept" in errors
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors
    assert all_gone(workers, 0)
    outcome = [json.loads(path.read_text())["outcome"] for path in launcher.out.glob("invocations/*.json")]
    assert outcome == ["interrupted"]


def test_ctrl_c_while_the_workers_start_makes_no_noise(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, epochs=1000)
    launcher.wait_until(lambda: len(launcher.workers()) == 2)
    os.killpg(launcher.process.pid, signal.SIGINT)
    _, errors = launcher.process.communicate(timeout=60)
    assert launcher.process.returncode == 130, errors
    assert "Traceback" not in errors


def test_a_killed_launcher_leaves_no_worker_behind(tmp_path: Path, poolbench: Callable[..., Any]) -> None:
    launcher = Launcher(tmp_path, epochs=1000)
    launcher.wait_until(lambda: sum(count > 0 for count in launcher.epochs()) == 2)
    workers = launcher.workers()
    launcher.process.kill()
    launcher.process.communicate()
    assert all_gone(workers, 10)
    assert poolbench("status").stdout.splitlines()[1].split() == ["shift_robustness", "0", "0", "0", "0", "0", "2"]


@pytest.mark.slow
def test_two_launchers_share_the_work(tmp_path: Path) -> None:
    launchers = [Launcher(tmp_path, epochs=3) for _ in range(2)]
    errors = [launcher.process.communicate(timeout=240)[1] for launcher in launchers]
    assert [launcher.process.returncode for launcher in launchers] == [0, 0], errors
    logs = list((tmp_path / "poolbench-out").glob("cells/*/events.jsonl"))
    assert [path.read_text().count('"started"') for path in logs] == [1] * 4
    assert all((path.parent / "result.json").exists() for path in logs)


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots("cpu", 3, 1) == ["cpu"] * 3
    assert slots("cpu", None, 1) == ["cpu"] * usable_cores()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert slots("cuda", None, 1) == ["cuda:0", "cuda:1"]
    assert slots("cuda", 3, 2) == ["cuda:0", "cuda:1", "cuda:0"]
    assert slots("cuda:1", None, 2) == ["cuda:1", "cuda:1"]
    with pytest.raises(UsageError, match="--jobs 3 does not fit 2 GPUs with 1 slots each; raise --slots-per-gpu"):
        slots("cuda", 3, 1)
