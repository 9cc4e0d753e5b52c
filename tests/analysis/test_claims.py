"""Rulings on planted effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poolbench.analysis.claims import Verdict, judge
from poolbench.analysis.frames import results_frame
from poolbench.analysis.images import ImageValues
from poolbench.analysis.statistics import crossed_interval, t_interval
from poolbench.claim import Claim, Reach
from poolbench.core import Metric, Result, TrainConfig

BASE = Claim("c", "A beats B.", "nobody", "accuracy", better={"pool": "max"}, worse={"pool": "avg"})


METRICS = (
    Metric("accuracy", "accuracy", True, 0.01),
    Metric("loss", "loss", False, 0.01),
    Metric("V", "V", False, 0.05),
    Metric("V_stratified", "V, stratified", False, 0.05),
    Metric("spread", "spread", False, 0.05, scale="log", floor=0.001),
    Metric("consistency", "consistency", True, 0.01, per_image="decisions.consistency"),
)

Finished = Callable[..., Result]


def ruled(results: Sequence[Result], claim: Claim = BASE, preset: str = "quick") -> Verdict:
    return judge(claim, "study", METRICS, results_frame(results), preset)


@pytest.mark.parametrize(
    ("differences", "ruling"),
    [
        ((0.10, 0.11, 0.12), "holds"),
        ((-0.10, -0.11, -0.12), "does not hold"),
        ((0.10, -0.11, 0.12), "undecided"),
        ((0.0, 0.0, 0.0), "no difference that matters"),
        ((0.001, -0.001, 0.0), "no difference that matters"),
        ((0.004, 0.005, 0.006), "holds, too small to matter"),
        ((-0.004, -0.005, -0.006), "does not hold, too small to matter"),
        ((0.009, 0.010, 0.012), "holds"),
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
    assert verdict.networks == 6


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
    assert ruled(results).ruling == "no difference that matters"
    assert ruled(results, replace(BASE, where={"no_such_field": 1})).effect is None


def test_results_of_other_benchmarks_are_left_out(finished: Finished) -> None:
    results = [
        finished(pool, seed, 0.5 + (0.1 + 0.001 * seed) * (pool == better), benchmark=benchmark)
        for benchmark, better in (("study", "max"), ("other", "avg"))
        for pool in ("max", "avg")
        for seed in range(3)
    ]
    assert ruled(results).ruling == "holds"


def leading(finished: Finished, leads: Sequence[float], **fields: Any) -> list[Result]:
    """Return results in which max leads avg by these accuracies, seed by seed."""
    return [
        finished(pool, seed, 0.5 + lead * (pool == "max"), **fields)
        for seed, lead in enumerate(leads)
        for pool in ("max", "avg")
    ]


def test_undecided_claims_say_how_many_seeds_are_missing(finished: Finished) -> None:
    # Mean .02, s = .02: t(n - 1) / sqrt n falls below 1 from n = 7 on (2.447 / 2.646), 4 more than 3.
    verdict = ruled(leading(finished, (0.0, 0.02, 0.04)))
    assert (verdict.ruling, verdict.further) == ("undecided", 4)
    assert verdict.note == "4 more seeds would decide it if mean and spread stay as they are"
    assert ruled(leading(finished, (0.3, 0.31))).further is None


@pytest.mark.parametrize(
    ("reach", "preset", "why"),
    [
        (Reach(), "quick", ""),
        (Reach(presets=("paper",)), "paper", ""),
        (Reach(presets=("paper",)), "quick", "the preset paper"),
        (Reach(min_epochs=12), "quick", "12 epochs or more, these networks had 3"),
        (Reach(min_epochs=3), "quick", ""),
        (Reach(presets=("paper",), min_epochs=12), "paper", ""),
        (Reach(presets=("paper",), min_epochs=3), "quick", ""),
        (Reach(presets=("paper",), min_epochs=12), "quick", "the preset paper or 12 epochs or more"),
        (Reach(datasets=("drawn",)), "quick", ""),
        (Reach(datasets=("photos",), note="of real scenes"), "quick", "it is about photos (of real scenes)"),
        (Reach(min_accuracy=0.5), "quick", ""),
        (Reach(min_accuracy=0.9), "quick", "an accuracy of 0.9 or more, not 0.56"),
    ],
)
def test_a_claim_is_judged_within_its_reach(finished: Finished, reach: Reach, preset: str, why: str) -> None:
    results = leading(finished, (0.10, 0.11, 0.12))
    verdict = ruled(results, replace(BASE, reach=reach), preset)
    assert verdict.ruling == ("not a test of this claim" if why else "holds")
    assert why in verdict.note
    # The effect is shown all the same.
    assert verdict.effect == ruled(results).effect


def test_networks_out_of_reach_do_not_speak(finished: Finished) -> None:
    short = leading(finished, (-0.10, -0.11, -0.12))
    trained = leading(finished, (0.10, 0.11, 0.12), train=TrainConfig(epochs=12))
    verdict = ruled([*short, *trained], replace(BASE, reach=Reach(min_epochs=12)))
    assert verdict.ruling == "holds"
    assert verdict.note == "left out because out of reach of the claim: 6 of 12 networks"


def test_one_metric_above_another_in_the_same_networks(finished: Finished) -> None:
    claim = Claim("c", "V is class-conditional.", "nobody", "V_stratified", minus="V")
    results = [
        finished("max", seed, 0.9, metrics={"V": 0.3 + seed, "V_stratified": 0.5 + seed + 0.01 * seed})
        for seed in range(3)
    ]
    verdict = ruled(results, claim)
    assert verdict.ruling == "holds"
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(0.21)
    assert ruled(results, replace(claim, metric="V", minus="V_stratified")).ruling == "does not hold"
    assert ruled([finished("max", seed, 0.9) for seed in range(3)], claim).networks == 0


@pytest.mark.parametrize(("target", "ruling"), [(0.905, "holds"), (0.8, "does not hold"), (0.912, "undecided")])
def test_a_published_number_is_met_or_not(finished: Finished, target: float, ruling: str) -> None:
    results = [finished("max", seed, 0.9 + value) for seed, value in enumerate((-0.001, 0.0, 0.001, 0.0))]
    claim = Claim("c", "It is .9.", "nobody", "accuracy", target=target, target_runs=1, says="equal")
    verdict = ruled(results, claim)
    assert verdict.ruling == ruling
    # A single published run scatters as one of these does: s^2 (1 / n + 1).
    spread = float(np.std([-0.001, 0.0, 0.001, 0.0], ddof=1))
    assert verdict.effect is not None
    assert verdict.effect.half_width == pytest.approx(3.18245 * spread * (1 / 4 + 1) ** 0.5, rel=1e-4)
    exact = ruled(results, replace(claim, target_runs=0)).effect
    assert exact is not None
    assert exact.half_width == pytest.approx(3.18245 * spread / 2, rel=1e-4)


def test_a_lead_that_depends_on_a_setting(finished: Finished) -> None:
    """A factorial: max leads by .1 with the flaw and by .02 without, whatever the other setting."""
    results = [
        result
        for flaw, lead in ((True, 0.10), (False, 0.02))
        for shuffle in (True, False)
        for result in leading(
            finished, [lead + 0.001 * seed * flaw for seed in range(3)], model={"flaw": flaw},
            train=TrainConfig(epochs=3, shuffle=shuffle), variant=f"{flaw}_{shuffle}",
        )
    ]  # fmt: skip
    verdict = ruled(results, replace(BASE, where={"flaw": True}, than={"flaw": False}))
    assert verdict.ruling == "holds"
    assert verdict.effect is not None
    assert (verdict.effect.mean, verdict.effect.n) == (pytest.approx(0.081), 3)
    assert ruled(results, replace(BASE, where={"shuffle": True}, than={"shuffle": False})).ruling == (
        "no difference that matters"
    )
    # Of the flaw with shuffling and its absence without, nothing follows about the flaw.
    ends = [result for result in results if result.cell.variant in ("True_True", "False_False")]
    confounded = ruled(ends, replace(BASE, where={"flaw": True}, than={"flaw": False}))
    assert (confounded.ruling, confounded.effect, confounded.networks) == ("undecided", None, 0)
    assert confounded.note == "its two sides differ in shuffle as well"


def test_ratios_of_metrics_that_are_positive_by_nature(finished: Finished) -> None:
    """Ratios of 2, 3, 4.5 under levels that differ tenfold: the differences say nothing, the ratios decide."""
    low, ratios = (0.01, 0.1, 1.0, 0.3), (2.0, 3.0, 4.5, 3.0)
    results = [finished("max", seed, 0.5, metrics={"spread": value}) for seed, value in enumerate(low)]
    results += [
        finished("avg", seed, 0.5, metrics={"spread": value * ratio})
        for seed, (value, ratio) in enumerate(zip(low, ratios, strict=True))
    ]
    verdict = ruled(results, replace(BASE, metric="spread"))
    assert (verdict.ruling, verdict.is_ratio) == ("holds", True)
    expected = t_interval([log(ratio) for ratio in ratios])
    assert verdict.effect is not None
    found = (verdict.effect.mean, verdict.effect.low, verdict.effect.high)
    assert np.log(found) == pytest.approx([expected.mean, expected.low, expected.high])
    assert t_interval([value * (ratio - 1) for value, ratio in zip(low, ratios, strict=True)]).low < 0
    # Around a geometric mean of .3, a difference of 1 is a ratio of 11.
    assert ruled(results, replace(BASE, metric="spread", margin=1.0)).ruling == "holds, too small to matter"


def test_intervals_of_claims_cover_images(finished: Finished) -> None:
    """Seeds agree closely on 30 images; what other images would say is another matter."""
    generator = np.random.default_rng(0)
    lead, tables = generator.normal(0.05, 0.3, 30), {}
    results = []
    for seed in range(4):
        for pool in ("max", "avg"):
            column = np.full(30, 0.5) + lead * (pool == "max") + generator.normal(0, 0.01, 30)
            result = finished(pool, seed, 0.5, metrics={"consistency": float(column.mean())})
            tables[result.cell.id] = pd.DataFrame({"consistency": column})
            results.append(result)

    def judged_with(known: Mapping[str, pd.DataFrame]) -> Verdict:
        def table(cell: str, name: str) -> pd.DataFrame:
            if name != "decisions" or cell not in known:
                raise FileNotFoundError(cell)
            return known[cell]

        claim = replace(BASE, metric="consistency")
        return judge(claim, "study", METRICS, results_frame(results), images=ImageValues(table))

    cells = {(result.cell.pool.name, result.cell.seed): tables[result.cell.id]["consistency"] for result in results}
    array = np.array([cells["max", seed] - cells["avg", seed] for seed in range(4)])
    verdict = judged_with(tables)
    assert verdict.effect is not None
    assert verdict.effect.half_width == pytest.approx(crossed_interval(array).half_width)
    alone = judged_with({})
    assert alone.effect is not None
    assert alone.effect.half_width < verdict.effect.half_width / 4
    assert alone.ruling != "undecided"
    assert verdict.ruling == "undecided"
    assert verdict.further is None
    assert "not even 1000 seeds" in verdict.note


def test_claims_that_compare_with_nothing() -> None:
    for sides in ({}, {"better": {"pool": "max"}}):
        with pytest.raises(ValueError, match="compares with nothing"):
            Claim("c", "A.", "nobody", "accuracy", **sides)
