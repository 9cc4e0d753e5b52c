"""Every script of benchmarks/perf can be started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = ("endurance", "gpu", "kills", "overhead", "pools", "rotation", "scale", "server", "shift", "sync", "train")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_describes_itself(
    name: str,
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load_script(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name}.py")


def test_a_script_starts_from_the_command_line(perf: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(perf / "shift.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("usage: shift.py")


def test_every_script_is_listed_here(perf: Path) -> None:
    scripts = [path.stem for path in sorted(perf.glob("*.py")) if "__main__" in path.read_text()]
    assert scripts == list(SCRIPTS)
