"""The timing scripts as modules, imported by path from the checkout: the wheel does not contain them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PERF = Path(__file__).parents[2] / "benchmarks" / "perf"


@pytest.fixture(scope="session")
def perf() -> Path:
    """Return the folder of the timing scripts; skip the test without a checkout."""
    if not PERF.is_dir():
        pytest.skip(f"the timing scripts are not here: {PERF}")
    return PERF


@pytest.fixture
def load_script(perf: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that imports a timing script by name, with its folder on the path as when it is run."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(perf)
        spec = importlib.util.spec_from_file_location(f"perf_{name}", perf / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load
