"""An installed plugin: a wheel with a pool, a data set and a task with its own figure, listed, run and reported."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Poolbench = Callable[..., Any]

PLUGIN = Path(__file__).parent / "checkers"
SMOKE = ("--preset", "smoke", "--device", "cpu")


def build_wheel(project: Path, folder: Path) -> Path:
    """Write the wheel of a project with one package; a wheel is a zip file, so no build backend is needed."""
    facts = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    stem = f"{facts['name'].replace('-', '_')}-{facts['version']}"
    contents = {str(path.relative_to(project)): path.read_text() for path in sorted(project.rglob("*.py"))} | {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {facts['name']}\nVersion: {facts['version']}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
            for group, entries in facts["entry-points"].items()
        ),
    }
    record = f"{stem}.dist-info/RECORD"
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (contents | {record: "".join(f"{name},,\n" for name in (*contents, record))}).items():
            archive.writestr(name, text)
    return wheel


def install(wheel: Path, folder: Path) -> str:
    """Install a wheel into a folder, without a network; return the PYTHONPATH that has it."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True)
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.mark.slow
@pytest.mark.end_to_end
def test_an_installed_plugin_runs_and_is_left_out_where_it_is_missing(tmp_path: Path, poolbench: Poolbench) -> None:
    path = install(build_wheel(PLUGIN, tmp_path), tmp_path / "site")
    out = tmp_path / "poolbench-out"

    listed = poolbench("list", PYTHONPATH=path)
    assert listed.returncode == 0, listed.stderr
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert ["checkers", "Which", "classes"] in [line[:3] for line in lines]
    assert ["boards", "Noisy", "boards"] in [line[:3] for line in lines]
    assert ["spread", "Largest", "value"] in [line[:3] for line in lines]

    ran = poolbench("run", "checkers", *SMOKE, PYTHONPATH=path)
    assert ran.returncode == 0, ran.stderr
    assert "2 finished" in ran.stderr
    report = (out / "report" / "report.html").read_text()
    assert "Decisions by class, one panel per pool." in report
    assert "confusion of spread" in report  # the title of a panel, in the drawing
    # One figure in the MLflow run of each group; the one over both lies beside the report.
    assert len(list((out / "mlartifacts").rglob("confusion.png"))) == 2
    assert len(list((out / "report" / "figures").glob("*confusion.png"))) == 1

    # The plugin is imported although its pool is the first name that is looked up.
    planned = poolbench("plan", "shift_robustness", *SMOKE[:2], "--pool", "spread", PYTHONPATH=path)
    assert planned.returncode == 0, planned.stderr
    assert "spread" in planned.stdout

    # A pool of the plugin in a task of the package.
    mixed = ("shift_robustness", *SMOKE, "--seeds", "0", "--pool", "max,spread", "--where", "num_pooling=1")
    ran = poolbench("run", *mixed, "--no-mlflow", PYTHONPATH=path)
    assert ran.returncode == 0, ran.stderr
    assert "2 finished" in ran.stderr

    assert poolbench("run", "checkers", *SMOKE).returncode == 2
    status = poolbench("status")
    assert [line.split()[:2] for line in status.stdout.splitlines()[1:] if "left out" not in line] == [
        ["shift_robustness", "1"]
    ]
    assert "left out" in status.stdout + status.stderr
    assert "poolbench_checkers" in status.stdout + status.stderr
    written = poolbench("report", "--no-mlflow")
    assert written.returncode == 0, written.stderr
    for name in ("report.html", "report.md"):
        text = (out / "report" / name).read_text()
        assert "Confusion of boards" not in text
        assert "left out" in text
        assert "poolbench" in text
        assert "checkers" in text
    results = (out / "report" / "results.csv").read_text()
    assert "shift_robustness" in results
    assert "checkers" not in results
    assert "spread" not in results

    again = poolbench("run", "checkers", *SMOKE, PYTHONPATH=path)
    assert "2 done before, 0 to run" in again.stderr
    assert "3 finished" not in poolbench("status", PYTHONPATH=path).stdout


def test_a_plugin_that_cannot_be_imported_is_one_line(tmp_path: Path, poolbench: Poolbench) -> None:
    project = tmp_path / "project"
    (project / "broken").mkdir(parents=True)
    (project / "broken" / "__init__.py").write_text("import a_module_that_is_not_there\n")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "broken"\nversion = "1"\n[project.entry-points.poolbench]\nb = "broken"\n'
    )
    path = install(build_wheel(project, tmp_path), tmp_path / "site")
    done = poolbench("list", PYTHONPATH=path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "installed plugin 'broken' cannot be imported: ModuleNotFoundError: " in done.stderr
    assert done.stderr.strip().endswith("update or uninstall it")
    assert poolbench("--help", PYTHONPATH=path).returncode == 0
