"""The documentation, followed to the letter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
PACKAGES = ("poolbench", "poolbench_tasks", "poolbench_tracking")


def test_adding_a_pool_is_one_file(tmp_path: Path) -> None:
    """A copy of the packages, the file as the page gives it, and the commands below it."""
    page = (DOCS / "adding-a-pool.md").read_text()
    place = re.search(r"Save this as `(poolbench/pooling/\w+\.py)`", page)
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    commands = re.search(r"```bash\n(.*?)```", page, re.DOTALL)
    assert place
    assert code
    assert commands
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        shutil.copytree(spec.submodule_search_locations[0], tmp_path / package)
    (tmp_path / place[1]).write_text(code[1])

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "poolbench.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    listing, running = (line.split()[1:] for line in commands[1].strip().splitlines())
    assert "midrange" in run(*listing)
    assert "midrange" not in [path.stem for path in Path(__file__).parent.parent.rglob("pooling/*.py")]
    out = run(*running, "--preset", "smoke", "--seeds", "0", "--device", "cpu", "--no-mlflow")
    assert "pool=midrange" in out
    assert "5 finished" in out
