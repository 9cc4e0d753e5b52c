"""The command line in this process, and what plugins of a test registered, removed again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from poolbench import plugins
from poolbench.cli import main
from poolbench.registry import architectures, benchmarks, datasets, heads, pools


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``cli("run", "all", VARIABLE="value")`` in an empty folder; an unexpected exception fails the test."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(main, arguments, env=environment, prog_name="poolbench", catch_exceptions=False)

    return run


@pytest.fixture
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Yield the function that forgets the plugins given so far; it is called at the end, too."""
    registries = (benchmarks, datasets, architectures, pools, heads)
    for registry in registries:
        registry.entry(registry.names()[0])
    entries = [dict(registry._entries) for registry in registries]
    given, modules = dict(plugins._given), set(sys.modules)

    def forget() -> None:
        for registry, before in zip(registries, entries, strict=True):
            registry._entries.clear()
            registry._entries.update(before)
        for module in {name for name in plugins._given if name not in given}:
            del plugins._given[module]
            if module not in modules:
                sys.modules.pop(module, None)

    yield forget
    forget()
