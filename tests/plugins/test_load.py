"""Plugins given by a file or a module: what is imported, what is known of it, and what cannot be."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolbench import plugins
from poolbench.core import UsageError
from poolbench.plugins import import_code, load_plugins, plugin_of
from poolbench.registry import benchmarks, origins, pools
from poolbench.runner.plan import Selection, plan

POOL = '''
from poolbench.pooling.local import MaxPool
from poolbench.registry import pools

@pools.register("planted", reference="here", shift_equivariant=False, learnable=False, random=False)
class Planted(MaxPool):
    """What it does."""
'''


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test registered, imported and named."""
    pools.entry("max")
    monkeypatch.setattr(pools, "_entries", dict(pools._entries))
    monkeypatch.setattr(plugins, "_given", dict(plugins._given))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("planted", "json_")):
            del sys.modules[name]


def test_a_file_registers_its_pools_and_its_cells_name_it(tmp_path: Path) -> None:
    file = tmp_path / "planted.py"
    file.write_text(POOL)
    load_plugins([str(file)])
    assert "planted" in pools.names()
    assert pools.describe("planted") == "What it does."
    assert plugin_of(pools.get("planted").__module__) == str(file)
    cells = plan(Selection(("shift_robustness",), "smoke", pools=("planted", "max"), seeds=(0,)))
    named = {cell.pool.name: origins(cell) for cell in cells}
    assert named["planted"] == [str(file)]
    assert named["max"] == []


def test_a_file_is_imported_once_however_it_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("planted.py").write_text(POOL)
    load_plugins(["planted.py", "./planted.py", str(tmp_path / "planted.py")])
    assert pools.names().count("planted") == 1


def test_a_module_is_imported_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planted_package").mkdir()
    (tmp_path / "planted_package" / "__init__.py").write_text("")
    (tmp_path / "planted_package" / "pool.py").write_text(POOL)
    load_plugins(["planted_package.pool"])
    assert plugin_of(pools.get("planted").__module__) == "planted_package.pool"


def test_a_file_does_not_replace_a_module_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("loads = None\n")
    found = import_code(str(tmp_path / "json.py"))
    assert found.loads is None
    assert importlib.import_module("json") is json
    assert json.loads("1") == 1


def test_the_package_is_no_plugin() -> None:
    assert plugin_of("poolbench.pooling.local") is None
    assert plugin_of("") is None
    assert all(
        benchmarks.module(name) == "" or plugin_of(benchmarks.module(name)) is None for name in benchmarks.names()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py", "there is no file 'nowhere.py'; give package.module or a .py file"),
        ("no_such_module", "'no_such_module' cannot be imported: ModuleNotFoundError: "),
        ("torn.py", "'torn.py' cannot be imported: SyntaxError: "),
        ("raising.py", "'raising.py' cannot be imported: ZeroDivisionError: "),
        ("leaving.py", "'leaving.py' cannot be imported: SystemExit: 5"),
        ("taken.py", "'taken.py' cannot be imported: ValueError: pool 'avg' is registered twice"),
        ("optionless.py", "'optionless.py' cannot be imported: TypeError: option 'power' of "),
        ("", "'' cannot be imported: "),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("torn.py").write_text("def\n")
    Path("raising.py").write_text("1 / 0\n")
    Path("leaving.py").write_text("raise SystemExit(5)\n")
    Path("taken.py").write_text(POOL.replace('"planted"', '"avg"'))
    Path("optionless.py").write_text(POOL + "\n    def __init__(self, channels, power): ...\n")
    with pytest.raises(UsageError) as error:
        load_plugins([name])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    # A second attempt is refused in the same way: no half-imported module stays.
    with pytest.raises(UsageError):
        load_plugins([name])
