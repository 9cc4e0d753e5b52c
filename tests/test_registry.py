"""The registries: source text and imported objects say the same; options have types; typos get the nearest name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from poolbench import registry
from poolbench.core import NO_COMPONENT, Cell, Component, Scalar, UsageError
from poolbench.data import Split, images_dataset
from poolbench.engine import build_model
from poolbench.pooling.heads import GlobalGem
from poolbench.pooling.means import GemPool
from poolbench.registry import Registry, split_component
from poolbench.runner.plan import Selection, plan

ALL = [registry.benchmarks, registry.datasets, registry.pools, registry.heads, registry.architectures]

MODULE = '''
from typing import Literal

from things import things

@things.register("NAME", reference="me", useful=True)
def make(
    size: int, count: int = 2, rate: float = 1, kind: Literal["soft", "hard"] = "soft", cap: int | None = None,
    mode: Literal["a", "b"] | None = None, flag: bool = False, text: str = "", offset: float = -0.5,
):
    """What it does.

    More about it.
    """
    return size, count
'''
DEFAULTS: dict[str, Scalar] = {
    "count": 2, "rate": 1.0, "kind": "soft", "cap": None, "mode": None, "flag": False, "text": "", "offset": -0.5,
}  # fmt: skip


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Any]]:
    """A registry over a package of two modules: entry "mine", and "later" under postponed annotations."""
    package = tmp_path / "plugged"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "own.py").write_text(MODULE.replace("NAME", "mine"))
    (package / "postponed.py").write_text("from __future__ import annotations\n" + MODULE.replace("NAME", "later"))
    made: Registry[Any] = Registry("thing", "plugged", "things", ("size",))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "things", SimpleNamespace(things=made))  # type: ignore[arg-type]
    yield made
    for name in ("plugged", "plugged.own", "plugged.postponed"):
        sys.modules.pop(name, None)


def assert_both_views_agree(entries: Registry[Any]) -> None:
    for name in entries.names():
        declared, entry = entries._declared[name], entries.entry(name)
        assert (declared.summary, dict(declared.facts)) == (entry.summary, dict(entry.facts))
        # Equal options have equal names, annotations and defaults; 1 == 1.0, so types are compared, too.
        assert list(declared.options.items()) == list(entry.options.items())
        for option in entry.options.values():
            assert type(declared.options[option.name].default) is type(option.default)
    assert set(entries._entries) == set(entries._declared)


@pytest.mark.parametrize("entries", ALL, ids=lambda entries: entries.kind)
def test_the_source_text_says_what_is_registered(entries: Registry[Any]) -> None:
    assert len(entries.names()) >= 3
    assert_both_views_agree(entries)
    for name in entries.names():
        assert entries.describe(name), f"{entries.kind} {name} has no docstring"
        defaults = {option.name: option.default for option in entries.options(name).values()}
        assert entries.resolve(name) == entries.resolve(name, defaults) == entries.parse(name)
        assert entries.resolve(name).options == defaults


def test_a_new_file_is_all_it_takes(things: Registry[Any]) -> None:
    assert things.names() == ["later", "mine"]
    assert things.describe("mine") == "What it does."
    assert things.facts("mine") == {"reference": "me", "useful": True}
    assert "plugged.own" not in sys.modules
    assert things.get("mine")(3) == (3, 2)
    assert_both_views_agree(things)
    for name in things.names():
        assert things.resolve(name).options == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", 3, 3),
        ("rate", 2, 2.0),
        ("rate", 0.25, 0.25),
        ("kind", "hard", "hard"),
        ("cap", None, None),
        ("cap", 4, 4),
        ("mode", "b", "b"),
        ("mode", None, None),
        ("flag", True, True),
        ("text", "3", "3"),
    ],
)
def test_a_value_of_the_declared_type_is_taken(
    things: Registry[Any], name: str, value: Scalar, expected: Scalar
) -> None:
    for entry in things.names():
        found = things.resolve(entry, {name: value}).options
        assert found == {**DEFAULTS, name: expected}
        assert type(found[name]) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", True, "is of type int (default 2), got True"),
        ("count", 2.5, "is of type int (default 2), got 2.5"),
        ("count", "3", "is of type int (default 2), got '3'"),
        ("count", None, "is of type int (default 2), got None"),
        ("rate", True, "is of type float (default 1.0), got True"),
        ("rate", float("nan"), "is of type float (default 1.0), got nan"),
        ("rate", float("inf"), "is of type float (default 1.0), got inf"),
        ("rate", None, "is of type float (default 1.0), got None"),
        ("kind", "softer", "is one of soft, hard (default 'soft'), got 'softer'"),
        ("kind", None, "is one of soft, hard (default 'soft'), got None"),
        ("mode", "c", "is one of a, b, none (default None), got 'c'"),
        ("cap", 1.5, "is of type int | None (default None), got 1.5"),
        ("cap", False, "is of type int | None (default None), got False"),
        ("flag", 1, "is of type bool (default False), got 1"),
        ("text", 3, "is of type str (default ''), got 3"),
    ],
)
def test_a_value_of_another_type_is_refused(things: Registry[Any], name: str, value: Scalar, message: str) -> None:
    with pytest.raises(UsageError) as error:
        things.resolve("mine", {name: value})
    assert str(error.value) == f"option '{name}' of thing 'mine' {message}"


def test_options_are_parsed_as_their_type(things: Registry[Any]) -> None:
    parsed = things.parse("mine:count=3,rate=1e-3,kind=hard,cap=none,mode=a,flag=True,text=3,offset=2")
    expected = {"count": 3, "rate": 1e-3, "kind": "hard", "cap": None, "mode": "a", "flag": True, "text": "3"}
    assert parsed == Component("mine", {**expected, "offset": 2.0})
    # The text takes precedence over the options given with it.
    assert things.parse("mine:count=3", {"count": 4, "cap": 5}).options == {**DEFAULTS, "count": 3, "cap": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine:count=three", "option 'count' of thing 'mine' is of type int .*, got 'three'"),
        ("mine:count=3.5", "option 'count' of thing 'mine' is of type int .*, got '3.5'"),
        ("mine:rate=nan", "option 'rate' of thing 'mine' is of type float .*, got 'nan'"),
        ("mine:flag=1", "option 'flag' of thing 'mine' is of type bool .*, got '1'"),
        ("mine:kind=Soft", "option 'kind' of thing 'mine' is one of soft, hard .*, got 'Soft'"),
        ("mine:cuont=3", "unknown mine option 'cuont'; did you mean 'count'"),
        ("mine:size=3", r"unknown mine option 'size' \(there are: cap, count, "),
        ("mine:count=3,", "options are NAME:KEY=VALUE,KEY=VALUE"),
        ("mine:count=", "options are NAME:KEY=VALUE,KEY=VALUE"),
        ("mime:count=3", "unknown thing 'mime'; did you mean 'mine'"),
        ("mine:count", "unknown thing 'mine:count'; did you mean 'mine'"),
    ],
)
def test_a_bad_text_is_one_line(things: Registry[Any], text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        things.parse(text)


def test_an_unknown_option_is_answered_with_the_nearest_name(things: Registry[Any]) -> None:
    with pytest.raises(UsageError, match=r"unknown mine option 'rats'; did you mean 'rate'\? \(there are: cap, "):
        things.resolve("mine", {"rats": 1.0})
    with pytest.raises(UsageError, match=r"unknown max option 'p' \(there are none\)"):
        registry.pools.resolve("max", {"p": 1})


def test_names_may_hold_a_colon() -> None:
    assert split_component("timm:resnet18") == ("timm:resnet18", {})
    assert split_component("timm:resnet18:pretrained=true") == ("timm:resnet18", {"pretrained": "true"})


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown pool 'max_blurr3'; did you mean 'max_blur3'"):
        registry.pools.get("max_blurr3")


def test_a_name_far_from_all_lists_them() -> None:
    with pytest.raises(UsageError, match=r"unknown head 'zzzz' \(there are: attention, avg, "):
        registry.heads.get("zzzz")


def test_a_duplicate_raises(things: Registry[Any]) -> None:
    with pytest.raises(ValueError, match="thing 'mine' is registered twice"):
        things.register("mine")(lambda: None)  # of a module that is not imported yet
    assert "plugged.own" not in sys.modules
    things.get("mine")
    with pytest.raises(ValueError, match="thing 'mine' is registered twice"):
        things.register("mine")(lambda: None)
    assert things.get("mine")(3) == (3, 2)


def without_default(size: int, count: int) -> None: ...
def without_type(size: int, count=3) -> None: ...  # type: ignore[no-untyped-def]
def of_a_list(size: int, counts: list[int] = []) -> None: ...  # noqa: B006
def of_another_default(size: int, count: int = 0.5) -> None: ...  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (without_default, "option 'count' of without_default needs an annotation and a default"),
        (without_type, "option 'count' of without_type needs an annotation and a default"),
        (of_a_list, r"option 'counts: list\[int\] = \[\]' of of_a_list: the type is int, "),
        (of_another_default, "option 'count: int = 0.5' of of_another_default: the type is int, "),
    ],
)
def test_a_parameter_that_is_no_option_is_refused_at_registration(
    things: Registry[Any], target: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        things.register("other")(target)
    assert "other" not in things.names()


@pytest.fixture
def cells() -> dict[str, list[Cell]]:
    """Cells of one seed by the text that names their pool."""
    texts = ("gem_local", "gem_local:p=3", "gem_local:p=4")
    selections = {text: Selection(("shift_robustness",), "smoke", pools=(text,), seeds=(0,)) for text in texts}
    planned = {text: plan(selection) for text, selection in selections.items()}
    return {text: [cell for cell in found if cell.pool != NO_COMPONENT] for text, found in planned.items()}


def test_options_of_a_pool_are_part_of_the_id(cells: dict[str, list[Cell]]) -> None:
    default, written, other = cells.values()
    assert [cell.id for cell in default] == [cell.id for cell in written]
    assert not {cell.id for cell in default} & {cell.id for cell in other}
    assert {cell.fields["pool.p"] for cell in default} == {3.0}
    assert {cell.fields["pool.p"] for cell in other} == {4.0}
    assert all("pool.p=4.0" in cell.label for cell in other)


def test_options_of_pool_and_head_reach_the_network(cells: dict[str, list[Cell]]) -> None:
    images = Split(torch.zeros(4, 1, 32, 32, dtype=torch.uint8), torch.arange(4) % 2)
    data = images_dataset("black", ("a", "b"), images, images, "made here", normalize="unit")
    for power, cell in ((3.0, cells["gem_local"][0]), (4.0, cells["gem_local:p=4"][0])):
        cell = replace(cell, head=registry.heads.parse(f"gem:p={power + 1}"))
        network = build_model(cell, data, "cpu")
        pools = [module.p.item() for module in network.modules() if isinstance(module, GemPool)]
        heads = [module.p.item() for module in network.modules() if isinstance(module, GlobalGem)]
        assert pools
        assert set(pools) == {power}
        assert heads == [power + 1]


def test_minus_zero_is_zero() -> None:
    components = [registry.pools.parse(f"mixed:a={text}") for text in ("0", "0.0", "-0.0", "-0")]
    assert {str(component.options["a"]) for component in components} == {"0.0"}


def test_an_architecture_may_not_name_an_option_like_a_field_of_a_cell() -> None:
    def net(in_shape: object, num_classes: int, pool: object, head: object, padding_mode: str, mask: str = "") -> None:
        """Never registered."""

    with pytest.raises(TypeError, match="architecture 'clash': rename the option mask"):
        registry.architectures.register("clash")(net)
    assert "clash" not in registry.architectures.names()


def test_an_option_is_given_once() -> None:
    with pytest.raises(UsageError, match="option 'p' is given twice in 'gem_local:p=4,p=5'"):
        registry.pools.parse("gem_local:p=4,p=5")
