"""The registries: what the source text declares is what is registered; typos and duplicates."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolbench import registry
from poolbench.core import UsageError
from poolbench.registry import Registry

ALL = [registry.benchmarks, registry.datasets, registry.pools, registry.heads, registry.architectures]


@pytest.mark.parametrize("entries", ALL, ids=lambda entries: entries.kind)
def test_declared_names_are_the_registered_ones(entries: Registry[object]) -> None:
    assert len(entries.names()) >= 3
    for name in entries.names():
        entry = entries.entry(name)
        assert entry.summary, f"{entries.kind} {name} has no docstring"
        declared = entries._declared[name]
        assert (declared.summary, dict(declared.facts)) == (entry.summary, dict(entry.facts))
    assert set(entries._entries) == set(entries._declared)


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown pool 'max_blurr3'; did you mean 'max_blur3'"):
        registry.pools.get("max_blurr3")


def test_a_name_far_from_all_lists_them() -> None:
    with pytest.raises(UsageError, match=r"unknown head 'zzzz' \(there are: attention, avg, "):
        registry.heads.get("zzzz")


def test_a_duplicate_raises() -> None:
    with pytest.raises(ValueError, match="pool 'max' is registered twice"):
        registry.pools.entry("max") and registry.pools.register("max")(object)


def test_a_new_file_is_all_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugged"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "own.py").write_text(
        "from plugged_registry import things\n\n"
        "@things.register('mine', reference='me')\ndef mine():\n    '''What it does.'''\n    return 7\n"
    )
    things: Registry[object] = Registry("thing", "plugged", "things")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plugged_registry.py").write_text("things = None\n")
    import plugged_registry

    monkeypatch.setattr(plugged_registry, "things", things)
    assert things.names() == ["mine"]
    assert things.describe("mine") == "What it does."
    made = things.get("mine")
    assert callable(made)
    assert made() == 7
    assert things.entry("mine").facts["reference"] == "me"
