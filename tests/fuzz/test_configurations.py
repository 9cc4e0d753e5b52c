"""Configurations that somebody else wrote, and the texts of selectors: a cell as it was, or UsageError."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolbench.core import Cell, TrainConfig, UsageError
from poolbench.registry import pools
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, parse_conditions, parse_seeds, parse_train, plan
from poolbench.runner.shard import Shard

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([10**400, -(10**30), 10**9])
    | st.floats(allow_subnormal=False)  # prepare_process flushes them to zero
    | st.text(max_size=4)
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner)
)


def real() -> list[dict[str, Any]]:
    return [json.loads(json.dumps(cell.config())) for cell in plan(Selection(preset="smoke", seeds=(0,)))]


REAL = real()


def places(config: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the paths of all values inside a configuration, itself included."""
    inside = config.items() if isinstance(config, dict) else ()
    return [path, *(place for name, value in inside for place in places(value, (*path, name)))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """Return a real configuration in which one to three values are replaced, removed or added."""
    config = {"": copy.deepcopy(draw(st.sampled_from(REAL)))}
    for _ in range(draw(st.integers(1, 3))):
        path = ("", *draw(st.sampled_from(places(config[""]))))
        holder: Any = config
        for name in path[:-1]:
            holder = holder[name]
        change = draw(st.sampled_from(("replace", "remove", "add")))
        if change == "replace" or len(path) == 1:
            holder[path[-1]] = draw(anything)
        elif change == "remove":
            del holder[path[-1]]
        else:
            holder[draw(st.text(max_size=5))] = draw(anything)
    return config[""]


def test_real_configurations_survive_json() -> None:
    for config in REAL:
        assert Cell.from_config(config).config() == config


def test_the_order_of_a_strangers_options_does_not_matter() -> None:
    for config in REAL:
        turned = copy.deepcopy(config)
        for name in ("dataset", "architecture", "pool", "head"):
            turned[name]["options"] = dict(reversed(turned[name]["options"].items()))
        turned["measure"] = dict(reversed(turned["measure"].items()))
        cell, again = Cell.from_config(config), Cell.from_config(turned)
        assert (again.id, again.label, list(again.fields)) == (cell.id, cell.label, list(cell.fields))


@given(mutated())
def test_a_mutated_configuration_is_a_cell_or_a_usage_error(config: Any) -> None:
    try:
        cell = Cell.from_config(config)
    except UsageError:
        return
    # What is accepted has an id, can be written and compared, and means the same when it is read again.
    again = Cell.from_config(json.loads(json.dumps(cell.config(), allow_nan=False)))
    assert (again.id, again.label, again.fields) == (cell.id, cell.label, cell.fields)


@given(anything)
def test_whatever_json_holds_is_no_training(config: Any) -> None:
    with pytest.raises(UsageError):
        TrainConfig.from_config(config)


@given(mutated())
def test_a_mutated_configuration_costs_its_cell_and_no_other(
    ledger: Ledger, cell_of: Callable[..., Cell], config: Any
) -> None:
    good = ledger.record(cell_of().id)
    good.begin(cell_of(), {})
    try:
        name = Cell.from_config(config).id
    except UsageError:
        name = "0123456789abcdef"
    folder = ledger.folder / "cells" / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    ledger.results()
    assert any("'study'" in line for line in ledger.left_out())
    shutil.rmtree(folder)


def parsed(parse: Callable[[str], object], text: str) -> None:
    with suppress(UsageError):
        parse(text)


@pytest.mark.parametrize(
    "parse",
    [parse_seeds, Shard.parse, pools.parse, lambda text: parse_conditions([text]), lambda text: parse_train([text])],
    ids=["seeds", "shard", "pool", "where", "train"],
)
def test_texts_of_selectors(parse: Callable[[str], object], hostile: st.SearchStrategy[str]) -> None:
    @given(hostile)
    def run(text: str) -> None:
        parsed(parse, text)

    run()
