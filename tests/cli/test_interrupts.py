"""Ctrl-C before, in and after a command: one line, exit code 130, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AT_IMPORT = """
import builtins, os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["poolbench", "plan", "all", "--preset", "smoke", "--out", "here"]
from poolbench.__main__ import command
command()
"""

AT_THE_END = """
import signal, sys
from poolbench.__main__ import command
sys.argv = ["poolbench", "list", "pools"]
try:
    command()
except SystemExit as ended:
    print(ended.code, signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["click", "poolbench.cli.options", "poolbench.registry", "poolbench_tasks"])
def test_ctrl_c_during_an_import(module: str, tmp_path: Path) -> None:
    done = python(AT_IMPORT.format(module=module), tmp_path)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("interrupted")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_ctrl_c_after_the_end_does_not_change_the_exit_code(tmp_path: Path) -> None:
    assert python(AT_THE_END, tmp_path).stdout.splitlines()[-1] == "0 True"
