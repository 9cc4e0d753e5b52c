"""Rulings on planted effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from poolbench.analysis.claims import Verdict, judge
from poolbench.analysis.frames import results_frame
from poolbench.core import Claim, Metric, Result, TrainConfig

BASE = Claim("c", "A beats B.", "nobody", "accuracy", better={"pool": "max"}, worse={"pool": "avg"})


METRICS = {"accuracy": Metric("accuracy", "accuracy", True, 0.01), "loss": Metric("loss", "loss", False, 0.01)}

Finished = Callable[..., Result]


def ruled(results: Sequence[Result], claim: Claim = BASE) -> Verdict:
    return judge(claim, "study", METRICS[claim.metric], results_frame(results))


@pytest.mark.parametrize(
    ("differences", "ruling"),
    [
        ((0.10, 0.11, 0.12), "holds"),
        ((-0.10, -0.11, -0.12), "does not hold"),
        ((0.10, -0.11, 0.12), "undecided"),
        ((0.0, 0.0, 0.0), "undecided"),
    ],
)
def test_planted_effects(finished: Finished, differences: tuple[float, ...], ruling: str) -> None:
    results = [
        finished(pool, seed, 0.5 + 0.1 * seed + (difference if pool == "max" else 0))
        for seed, difference in enumerate(differences)
        for pool in ("max", "avg")
    ]
    verdict = ruled(results)
    assert verdict.ruling == ruling
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(sum(differences) / 3)
    assert verdict.effect.n == 3
    assert verdict.note == ""


def test_the_sign_follows_the_metric(finished: Finished) -> None:
    claim = replace(BASE, metric="loss")
    values = {"max": (0.30, 0.31, 0.33), "avg": (0.50, 0.52, 0.52)}
    results = [finished(p, s, 1 - v) for p, own in values.items() for s, v in enumerate(own)]
    verdict = ruled(results, claim)
    assert verdict.ruling == "holds"
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(0.2)


def test_seeds_pair_whatever_their_order(finished: Finished) -> None:
    # Between seeds accuracies differ by far more than the effect; only pairing finds it.
    results = [finished("max", seed, 0.2 * seed + 0.01 + 0.001 * seed) for seed in range(4)]
    results += [finished("avg", seed, 0.2 * seed) for seed in reversed(range(4))]
    assert ruled(results).ruling == "holds"


def test_what_has_not_learned_is_left_out(finished: Finished) -> None:
    results = [finished("max", seed, 0.9 + 0.001 * seed) for seed in range(3)]
    results += [finished("avg", seed, 0.8, learned=seed != 2) for seed in range(3)]
    # A third pool says nothing about this claim.
    results += [finished("blur", seed, 0.1, learned=False) for seed in range(3)]
    verdict = ruled(results)
    assert verdict.effect is not None
    assert verdict.effect.n == 2
    assert verdict.note == "left out because not learned: 1 of 6 networks"


@pytest.mark.parametrize("seeds", [(), (0,)])
def test_too_few_pairs(finished: Finished, seeds: Sequence[int]) -> None:
    results = [finished(pool, seed, 0.5) for pool in ("max", "avg") for seed in seeds]
    verdict = ruled(results)
    assert (verdict.ruling, verdict.effect) == ("undecided", None)
    assert "fewer than two pairs" in verdict.note


def test_seeds_count_and_not_cells(finished: Finished) -> None:
    results = [
        finished(pool, seed, 0.5 + (0.1 + 0.01 * seed) * (pool == "max"), dataset=dataset)
        for pool in ("max", "avg")
        for seed in range(2)
        for dataset in ("a", "b", "c")
    ]
    verdict = ruled(results)
    assert verdict.effect is not None
    assert verdict.effect.n == 2


def test_only_cells_of_one_data_set_pair(finished: Finished) -> None:
    # Data set b, where all is easier, was run for one side only.
    results = [finished("max", seed, 0.5 + 0.001 * seed, dataset="a") for seed in range(3)]
    results += [finished("max", seed, 0.9, dataset="b") for seed in range(3)]
    results += [finished("avg", seed, 0.6, dataset="a") for seed in range(3)]
    verdict = ruled(results)
    assert verdict.ruling == "does not hold"
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(-0.099)


def test_settings_that_a_side_implies_need_no_partner(finished: Finished) -> None:
    # Each variant trains for its own number of epochs, and another one on each data set.
    epochs = {("a", "rotated"): 12, ("a", "plain"): 6, ("b", "rotated"): 6, ("b", "plain"): 4}
    results = [
        finished("max", seed, 0.5 + (0.1 + 0.001 * seed) * (variant == "rotated"), dataset=dataset, variant=variant,
                 train=TrainConfig(epochs=count))
        for (dataset, variant), count in epochs.items()
        for seed in range(3)
    ]  # fmt: skip
    claim = replace(BASE, better={"variant": "rotated"}, worse={"variant": "plain"})
    verdict = ruled(results, claim)
    assert verdict.ruling == "holds"
    assert verdict.effect is not None
    assert verdict.effect.n == 3


def test_a_field_that_only_one_side_has_does_not_pair(finished: Finished) -> None:
    results = [finished("none", seed, 0.9 + 0.001 * seed, model={"num_pooling": 0}) for seed in range(3)]
    results += [
        finished(pool, seed, value, model={"num_pooling": 2})
        for pool, value in (("max", 0.8), ("avg", 0.6))
        for seed in range(3)
    ]
    claim = replace(BASE, better={"num_pooling": 0}, worse={"num_pooling": 2})
    verdict = ruled(results, claim)
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(0.901 - 0.7)
    only_max = ruled(results, replace(claim, worse={"num_pooling": 2, "pool": "max"}))
    assert only_max.effect is not None
    assert only_max.effect.mean == pytest.approx(0.901 - 0.8)


def test_where_restricts_both_sides(finished: Finished) -> None:
    results = [
        finished(pool, seed, 0.5 + (0.1 + 0.001 * seed) * (pool == better), variant=variant)
        for variant, better in (("plain", "max"), ("rotated", "avg"))
        for pool in ("max", "avg")
        for seed in range(3)
    ]
    assert ruled(results, replace(BASE, where={"variant": "plain"})).ruling == "holds"
    assert ruled(results, replace(BASE, where={"variant": "rotated"})).ruling == "does not hold"
    assert ruled(results).ruling == "undecided"
    assert ruled(results, replace(BASE, where={"no_such_field": 1})).effect is None


def test_results_of_other_benchmarks_are_left_out(finished: Finished) -> None:
    results = [
        finished(pool, seed, 0.5 + (0.1 + 0.001 * seed) * (pool == better), benchmark=benchmark)
        for benchmark, better in (("study", "max"), ("other", "avg"))
        for pool in ("max", "avg")
        for seed in range(3)
    ]
    assert ruled(results).ruling == "holds"
