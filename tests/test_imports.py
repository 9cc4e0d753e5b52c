"""Who imports whom, and what the fast commands must not import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _graph(package: str) -> dict[str, set[str]]:
    folder = _folder(package)
    return {str(path.relative_to(folder)): _imports(path) for path in folder.rglob("*.py")}


def _offenders(package: str, forbidden: tuple[str, ...], but: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{package}/{file} imports {module}"
        for file, modules in _graph(package).items()
        for module in modules
        if file not in but and (module in forbidden or module.startswith(tuple(f"{name}." for name in forbidden)))
    ]


def test_the_library_knows_no_tasks_no_tracking_and_no_mlflow() -> None:
    assert not _offenders("poolbench", ("poolbench_tasks", "poolbench_tracking", "mlflow"), but=("cli.py",))


def test_nobody_imports_the_command_line() -> None:
    for package in ("poolbench", "poolbench_tasks", "poolbench_tracking"):
        assert not _offenders(package, ("poolbench.cli",))


def test_tasks_and_tracking_do_not_see_each_other() -> None:
    assert not _offenders("poolbench_tasks", ("poolbench_tracking", "mlflow"))
    assert not _offenders("poolbench_tracking", ("poolbench_tasks", "torch"))


def test_core_imports_nothing_of_poolbench_at_run_time() -> None:
    script = "import sys, poolbench.core; print([m for m in sys.modules if m.startswith(('poolbench.', 'torch'))])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['poolbench.core']"


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["plan", "all"], ["run", "--help"]])
def test_fast_commands_import_no_heavy_library(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom poolbench.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'scipy', 'numpy', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)


@pytest.mark.skipif("POOLBENCH_INSTALLED" not in os.environ, reason="only where the wheel is installed, as tox does")
def test_the_installed_wheel_is_tested_and_not_the_checkout() -> None:
    for package in ("poolbench", "poolbench_tasks", "poolbench_tracking"):
        assert "site-packages" in _folder(package).parts
        assert (_folder(package) / "py.typed").exists()
