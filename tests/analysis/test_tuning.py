"""What tuning does to an order: against differences computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poolbench.analysis.groups import Group
from poolbench.analysis.tuning import Rival, fate_of, survival
from poolbench.core import Cell, Metric, Result

METRIC = Metric("accuracy", "accuracy", True, 0.01)
LOSS = Metric("accuracy", "loss", False, 0.01)
NOISE = (0.001, -0.002, 0.0015, -0.0005, 0.0, 0.0005)


@pytest.fixture
def group(cells: list[Cell]):  # type: ignore[no-untyped-def]
    def make(name: str, level: float) -> Group:
        results = [
            Result(replace(cells[0], seed=seed), "finished", metrics={"accuracy": level + 0.02 * seed + NOISE[seed]})
            for seed in range(6)
        ]
        return Group(name, {}, results)

    return make


def test_fates() -> None:
    assert [fate_of(1, 1), fate_of(-1, -1), fate_of(1, -1), fate_of(1, 0), fate_of(0, -1), fate_of(0, 0)] == [
        "kept", "kept", "reversed", "lost", "found", "open",
    ]  # fmt: skip


def test_gains_and_pairs_are_differences_by_seed(group) -> None:  # type: ignore[no-untyped-def]
    one = Rival("a", group("a", 0.70), group("a tuned", 0.80))
    # NOISE is common, so each difference by seed is exact; a's lead turns from +0.05 to -0.05.
    other = Rival("b", group("b", 0.65), group("b tuned", 0.85))
    kept = Rival("c", group("c", 0.50), group("c", 0.50))
    found = survival([one, other, kept], METRIC)
    assert [gain.interval and round(gain.interval.mean, 6) for gain in found.gains] == [0.1, 0.2, None]
    assert found.gains[2].change == "0 (the default is kept)"
    assert [(pair.first, pair.second, pair.fate) for pair in found.pairs] == [
        ("a", "b", "reversed"), ("a", "c", "kept"), ("b", "c", "kept"),
    ]  # fmt: skip
    assert found.pairs[0].before.startswith("+0.050 [")
    assert found.pairs[0].after.startswith("-0.050 [")
    assert found.sentences[1] == (
        "With default hyperparameters 3 of 3 pairs have a clear order. Tuning keeps 2 and reverses 1 of these."
    )
    assert found.sentences[2].startswith("Reversed: a against b, +0.050 [")


def test_lower_is_better_turns_the_order_but_not_the_fate(group) -> None:  # type: ignore[no-untyped-def]
    one = Rival("a", group("a", 0.70), group("a tuned", 0.80))
    other = Rival("b", group("b", 0.65), group("b tuned", 0.85))
    assert [pair.fate for pair in survival([one, other], LOSS).pairs] == ["reversed"]


def test_few_seeds_decide_nothing(group) -> None:  # type: ignore[no-untyped-def]
    short = [
        Rival(name, *(replace(one, results=one.results[:3]) for one in (group(name, level), group(name + "t", level))))
        for name, level in (("a", 0.2), ("b", 0.9))
    ]
    assert [pair.fate for pair in survival(short, METRIC).pairs] == ["open"]


def test_one_rival_is_refused(group) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="at least two rivals"):
        survival([Rival("a", group("a", 0.1), group("b", 0.2))], METRIC)
