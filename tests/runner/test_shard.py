"""Shards of a plan: a partition for any number, whole groups, balanced, whatever the order of the cells."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from poolbench.core import Cell, UsageError
from poolbench.runner.plan import Selection, plan
from poolbench.runner.shard import Shard


def planned(seeds: int = 5, *names: str) -> list[Cell]:
    return plan(Selection(names or ("all",), "smoke", seeds=tuple(range(seeds))))


def shards(cells: list[Cell], count: int) -> list[list[Cell]]:
    return [Shard(index, count).of(cells) for index in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 28, 29, 100, 500])
def test_every_cell_is_in_exactly_one_shard(count: int) -> None:
    cells = planned()
    parts = shards(cells, count)
    assert Counter(cell for part in parts for cell in part) == Counter(cells)
    order = {cell: index for index, cell in enumerate(cells)}
    for part in parts:
        assert [order[cell] for cell in part] == sorted(order[cell] for cell in part)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_groups_stay_whole_and_shards_are_even(count: int) -> None:
    # Groups of 5 and of 2 seeds.
    cells = [*planned(5, "shift_robustness"), *planned(2, "global_pooling")]
    homes: dict[str, set[int]] = {}
    parts = shards(cells, count)
    for index, part in enumerate(parts):
        for cell in part:
            homes.setdefault(cell.group, set()).add(index)
    assert len(homes) >= count
    assert {len(found) for found in homes.values()} == {1}
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 5


def test_with_fewer_groups_than_shards_few_groups_are_cut() -> None:
    cells = planned(30, "training_budget")
    groups = {cell.group for cell in cells}
    count = len(groups) + 3
    parts = shards(cells, count)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    # Each of the count - 1 cuts adds at most one piece.
    pieces = sum(len({cell.group for cell in part}) for part in parts)
    assert pieces <= len(groups) + count - 1


def test_more_shards_than_cells_leave_some_empty() -> None:
    cells = planned(1, "global_pooling")
    sizes = Counter(len(part) for part in shards(cells, 2 * len(cells)))
    assert sizes == {0: len(cells), 1: len(cells)}


@pytest.mark.parametrize("count", [3, 40])
def test_the_order_of_the_plan_does_not_matter(count: int) -> None:
    cells = planned()
    shuffled = random.Random(0).sample(cells, len(cells))
    for index in range(1, count + 1):
        assert set(Shard(index, count).of(cells)) == set(Shard(index, count).of(shuffled))


def test_tasks_are_mixed() -> None:
    # Tasks differ in their costs: no shard of a few has one task only.
    for part in shards(planned(2), 3):
        assert len({cell.benchmark for cell in part}) > 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "1/3/5", "a/b", "", "1.5/3", "٣/٤"])
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"a shard is I/N with I from 1 to N, like 3/10, got '"):
        Shard.parse(text)


def test_a_text_is_read() -> None:
    assert Shard.parse("3/10") == Shard(3, 10)
    assert Shard.parse(" 1/1 ") == Shard(1, 1)
