"""Streams that cannot be written: a reader that has gone, a full disk below a log, closed ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from poolbench.cli import options

Cli = Callable[..., Result]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def run(*arguments: str, **streams: int) -> tuple[int, str]:
    """Run a command with these streams; return its exit code and what it said on stderr, if that is a pipe."""
    command = [sys.executable, "-m", "poolbench", *arguments]
    done = subprocess.run(command, check=False, text=True, **streams)  # type: ignore[call-overload]
    return done.returncode, done.stderr or ""


@needs_full
@pytest.mark.parametrize("argument", ["list", "--help"])
def test_data_that_cannot_be_written_is_one_line_and_no_answer(argument: str) -> None:
    with FULL.open("w") as full:
        code, said = run(argument, stdout=full.fileno(), stderr=subprocess.PIPE)
    assert (code, said.count("\n")) == (2, 1)
    assert "cannot write the output: No space left on device" in said


@pytest.mark.parametrize("argument", ["list", "--help"])
def test_a_reader_that_has_gone_is_silence_and_a_code_of_its_own(argument: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert run(argument, stdout=writer, stderr=subprocess.PIPE) == (141, "")
    os.close(writer)


@needs_full
@pytest.mark.parametrize(("arguments", "code"), [(("list",), 0), (("status", "--out", "nowhere"), 2)])
def test_a_log_that_cannot_be_written_changes_no_exit_code(arguments: tuple[str, ...], code: int) -> None:
    with FULL.open("w") as full:
        assert run(*arguments, stdout=subprocess.DEVNULL, stderr=full.fileno())[0] == code


@pytest.mark.usefixtures("tiny")
def test_a_run_whose_log_is_gone_goes_on_to_its_end(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``run 2>&1 | tee`` after the end of tee."""
    real, lost = options.click.echo, []

    def echo(text: str = "", *more: object, err: bool = False, **extra: object) -> None:
        if err:
            lost.append(text)
            raise BrokenPipeError
        real(text, *more, **extra)  # type: ignore[arg-type]

    monkeypatch.setattr(options.click, "echo", echo)
    done = cli("run", "tiny", "--preset", "smoke", "--jobs", "1", "--no-mlflow")
    assert done.exit_code == 0, done.exception
    assert done.stdout.endswith("report.html\n")
    assert any("finished accuracy" in line for line in lost)


def test_without_a_stderr_progress_is_not_taken_for_data(tmp_path: Path) -> None:
    command = ["-m", "poolbench", "run", "global_pooling", "--preset", "smoke", "--seeds", "0", "--head", "avg"]
    command += ["--where", "variant=corrected", "--jobs", "1", "--no-mlflow"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, *command],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "poolbench-out/report/report.html\n")
