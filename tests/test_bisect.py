"""bisect: the search for every position of the first bad commit, and what it makes of results, without running any."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import pytest

from poolbench.analysis.frames import results_frame
from poolbench.bisect.answer import Answer, Moved, bisect, narrowed
from poolbench.bisect.checkout import Commit
from poolbench.bisect.runs import Unusable
from poolbench.bisect.search import Verdict, first_bad
from poolbench.core import Cell, Result, UsageError
from poolbench.runner.plan import Selection

CellOf = Callable[..., Cell]


@pytest.mark.parametrize("length", range(1, 21))
def test_every_position_is_found_with_few_tests(length: int) -> None:
    for bad in range(length):
        tested: list[int] = []

        def test(item: int, bad: int = bad, tested: list[int] = tested) -> Verdict:
            tested.append(item)
            return Verdict.BAD if item >= bad else Verdict.GOOD

        found = first_bad(range(length), test)
        assert list(found.candidates) == [bad]
        assert found.tested == len(tested) == len(set(tested)) <= math.ceil(math.log2(length))


@pytest.mark.parametrize("length", range(1, 21))
def test_unusable_items_widen_the_answer_no_more_than_they_must(length: int) -> None:
    for bad in range(length):
        for draw in range(20):
            rng = random.Random(f"{length} {bad} {draw}")
            # The last item is known to be bad and never tested.
            unusable = {item for item in range(length - 1) if rng.random() < rng.choice((0.2, 0.5, 0.9))}
            met: list[int] = []

            def test(item: int, bad: int = bad, unusable: set[int] = unusable, met: list[int] = met) -> Verdict:
                met.append(item)
                if item in unusable:
                    return Verdict.UNUSABLE
                return Verdict.BAD if item >= bad else Verdict.GOOD

            found = first_bad(range(length), test)
            last = next(item for item in range(bad, length) if item not in unusable)
            first = next((item + 1 for item in range(bad - 1, -1, -1) if item not in unusable), 0)
            assert list(found.candidates) == list(range(first, last + 1))
            assert found.tested == len(met) == len(set(met))
            assert found.tested <= math.ceil(math.log2(length)) + len(unusable & set(met))


def commit(number: int) -> Commit:
    return Commit(f"{number:040}", "2026-11-26", "Ann", f"change {number}")


def judge(before: pd.DataFrame, after: pd.DataFrame) -> list[Moved]:
    """Every accuracy whose mean differs moved."""
    means = [
        frame[frame["metric"] == "accuracy"].groupby(["benchmark", "group", "pool"])["value"].mean()
        for frame in (before, after)
    ]
    both = pd.concat(means, axis=1, keys=["before", "after"]).dropna().reset_index()
    return [
        Moved(row.benchmark, row.group, f"pool={row.pool}", "accuracy", row.before, row.after)
        for row in both.itertuples()
        if row.before != row.after
    ]


@dataclass
class Versions:
    """Results of a commit by its number; what was asked for, and what was said."""

    cell_of: CellOf
    accuracies: Callable[[int], dict[str, float]]
    asked: list[tuple[int, Selection]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def results(self, commit: Commit, selection: Selection) -> pd.DataFrame:
        number = int(commit.hash)
        self.asked.append((number, selection))
        # Every version has a field of its own, so that no ids agree.
        return results_frame(
            [
                Result(self.cell_of(pool, seed, model={"width": 8, f"new{number}": 1}), "finished", metrics=metrics)
                for pool, accuracy in self.accuracies(number).items()
                for seed in range(2)
                for metrics in [{"accuracy": accuracy + seed / 100}]
            ]
        )

    def bisect(self, last: int) -> Answer:
        path = [commit(number) for number in range(1, last + 1)]
        return bisect(commit(0), path, Selection(), self.results, judge, self.said.append)


def numbers(commits: Sequence[Commit]) -> list[int]:
    return [int(commit.hash) for commit in commits]


def test_the_first_of_two_moves_is_found_and_the_other_is_told(cell_of: CellOf) -> None:
    versions = Versions(cell_of, lambda n: {"max": 0.5 if n < 4 else 0.4, "avg": 0.5 if n < 7 else 0.3, "aps": 0.5})
    answer = versions.bisect(9)
    assert numbers(answer.candidates) == [4]
    assert [(move.label, move.metric) for move in answer.moved] == [("pool=max", "accuracy")]
    assert (answer.moved[0].before, answer.moved[0].after) == pytest.approx((0.505, 0.405))
    assert [move.label for move in answer.later] == ["pool=avg"]
    assert (answer.groups, answer.tested) == (3, len(versions.asked))


def test_equal_ends_are_not_searched(cell_of: CellOf) -> None:
    versions = Versions(cell_of, lambda n: {"max": 0.5 if n in (0, 9) else 0.4})
    answer = versions.bisect(9)
    assert (answer.candidates, answer.moved, answer.groups, answer.tested) == ((), (), 1, 2)


def test_a_move_that_the_ends_do_not_show_is_not_taken_for_it(cell_of: CellOf) -> None:
    versions = Versions(cell_of, lambda n: {"max": 0.5 if n < 6 else 0.4, "avg": 0.2 if n in (3, 4) else 0.5})
    assert numbers(versions.bisect(9).candidates) == [6]


def test_a_move_in_the_other_direction_is_another_change(cell_of: CellOf) -> None:
    accuracies = {0: 0.8, 1: 0.9, 2: 0.9, 3: 0.6}
    versions = Versions(cell_of, lambda number: {"max": accuracies[number]})
    assert numbers(versions.bisect(3).candidates) == [3]


def test_commits_without_the_group_are_passed_over(cell_of: CellOf) -> None:
    versions = Versions(cell_of, lambda n: {"aps": 0.5} | ({} if n in (3, 4, 5) else {"max": 0.5 if n < 4 else 0.4}))
    answer = versions.bisect(9)
    assert numbers(answer.candidates) == [3, 4, 5, 6]
    assert "0000000000 is passed over: it lacks 1 of the 1 numbers that moved" in versions.said


def test_commits_that_cannot_run_are_passed_over_but_the_ends_must_run(cell_of: CellOf) -> None:
    def accuracies(n: int) -> dict[str, float]:
        if n in broken:
            raise Unusable("ImportError: broken")
        return {"max": 0.5 if n < 2 else 0.4}

    broken = {1, 2}
    assert numbers(Versions(cell_of, accuracies).bisect(3).candidates) == [1, 2, 3]
    broken = {0}
    with pytest.raises(UsageError, match="GOOD 0000000000 gives no results: ImportError: broken"):
        Versions(cell_of, accuracies).bisect(3)


def test_groups_of_one_end_only_are_told_and_need_a_common_one(cell_of: CellOf) -> None:
    versions = Versions(cell_of, lambda n: {"max": 0.5} | ({"avg": 0.5} if n == 0 else {}))
    assert versions.bisect(2).groups == 1
    assert "left out: 1 groups that BAD does not have" in versions.said
    with pytest.raises(UsageError, match="have no group in common"):
        Versions(cell_of, lambda n: {"avg" if n else "max": 0.5}).bisect(2)


def test_only_the_benchmark_and_the_fields_of_what_moved_are_run_again(cell_of: CellOf) -> None:
    cells = {
        (name, pool, width): cell_of(pool, 0, benchmark=name, model={"width": width})
        for name in ("study", "other")
        for pool in ("max", "avg")
        for width in (8, 16)
    }
    before = results_frame([Result(cell, "finished", metrics={"m": 1.0}) for cell in cells.values()])
    asked = Selection(preset="smoke", where={"variant": "default"})

    def moves(*keys: tuple[str, str, int]) -> list[Moved]:
        return [Moved(key[0], cells[key].group, "", "m", 1.0, 0.5) for key in keys]

    one = narrowed(asked, before, before, moves(("study", "max", 8)))
    assert one == replace(asked, names=("study",), where={"variant": "default", "pool": "max", "width": "8"})
    two = narrowed(asked, before, before, moves(("study", "max", 8), ("other", "max", 16)))
    assert two == replace(asked, names=("study", "other"), where={"variant": "default", "pool": "max"})
    renamed = before.rename(columns={"width": "breadth"})
    assert "width" not in narrowed(asked, before, renamed, moves(("study", "max", 8))).where
