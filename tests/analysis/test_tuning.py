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
    assert fate_of(1, -1, changed=True) == "reversed"
    assert {fate_of(*sides, changed=True) for sides in ((1, 1), (1, 0), (0, -1), (0, 0))} == {"changed"}
    # A lead that is clear only once may be the noise of either time.
    assert {fate_of(before, after, changed=False) for before in (-1, 0, 1) for after in (-1, 0, 1)} == {"same"}


def test_gains_and_pairs_are_differences_by_seed(group) -> None:  # type: ignore[no-untyped-def]
    one = Rival("a", group("a", 0.70), group("a tuned", 0.80))
    # NOISE is common, so each difference by seed is exact; a's lead turns from +0.05 to -0.05.
    other = Rival("b", group("b", 0.65), group("b tuned", 0.85))
    kept = Rival("c", group("c", 0.50), group("c", 0.50))
    found = survival([one, other, kept], METRIC)
    assert [gain.interval and round(gain.interval.mean, 6) for gain in found.gains] == [0.1, 0.2, None]
    assert found.gains[2].change == "0 (the default is kept)"
    assert [(pair.first, pair.second, pair.fate) for pair in found.pairs] == [
        ("a", "b", "reversed"), ("a", "c", "changed"), ("b", "c", "changed"),
    ]  # fmt: skip
    assert found.pairs[0].before.startswith("+0.050 [")
    assert found.pairs[0].after.startswith("-0.050 [")
    assert found.pairs[0].change.startswith("-0.100 [")
    assert found.pairs[1].change.startswith("+0.100 [")
    assert found.sentences[1] == (
        "One of two is ahead by more than the noise in 3 of 3 pairs with default hyperparameters, in 3 with tuned ones."
    )
    assert found.sentences[2].startswith("Tuning changes the lead of a over b by -0.100 [")
    assert found.sentences[3] == "Reversed: a over b."


def test_lower_is_better_turns_the_order_but_not_the_fate(group) -> None:  # type: ignore[no-untyped-def]
    one = Rival("a", group("a", 0.70), group("a tuned", 0.80))
    other = Rival("b", group("b", 0.65), group("b tuned", 0.85))
    assert [pair.fate for pair in survival([one, other], LOSS).pairs] == ["reversed"]


def test_few_seeds_decide_nothing(group) -> None:  # type: ignore[no-untyped-def]
    short = [
        Rival(name, *(replace(one, results=one.results[:3]) for one in (group(name, level), group(name + "t", level))))
        for name, level in (("a", 0.2), ("b", 0.9))
    ]
    assert [pair.fate for pair in survival(short, METRIC).pairs] == ["same"]


def test_one_rival_is_refused(group) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="at least two rivals"):
        survival([Rival("a", group("a", 0.1), group("b", 0.2))], METRIC)


def test_noise_that_is_not_shared_is_no_change(cells: list[Cell]) -> None:
    """With an equal true lead before and after, a change is said in about 5 % of cases, not in half of them."""
    import numpy as np

    generator, said = np.random.default_rng(1), 0
    for _ in range(300):
        values = generator.normal(size=(4, 10)) + np.array([[0.75 * 2**0.5], [0.0], [0.75 * 2**0.5], [0.0]])
        groups = [
            Group(
                str(number),
                {},
                [
                    Result(replace(cells[0], seed=seed), "finished", metrics={"accuracy": v})
                    for seed, v in enumerate(row)
                ],
            )
            for number, row in enumerate(values)
        ]
        rivals = [Rival("a", groups[0], groups[2]), Rival("b", groups[1], groups[3])]
        said += survival(rivals, METRIC).pairs[0].fate != "same"
    assert said <= 0.08 * 300
