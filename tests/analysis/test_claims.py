"""Rulings on planted effects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf, log
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from poolbench.analysis.claims import Verdict, contradicting, effect_bounds, judge, ruling_of
from poolbench.analysis.frames import results_frame
from poolbench.analysis.images import ImageValues
from poolbench.analysis.statistics import anytime_interval, crossed_estimate, seeds_estimate
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


def steps(mean: float, step: float) -> tuple[float, ...]:
    """Return five values in equal steps around a mean.

    Their standard error is sqrt(2.5 / 5) = .707 steps. The interval of five seeds reaches 5.41 standard errors to each
    side: 3.83 steps.
    """
    return tuple(mean + place * step for place in (-2, -1, 0, 1, 2))


def ruled(results: Sequence[Result], claim: Claim = BASE, preset: str = "quick") -> Verdict:
    return judge(claim, "study", METRICS, results_frame(results), preset)


@pytest.mark.parametrize(
    ("differences", "ruling"),
    [
        (steps(0.12, 0.01), "holds"),
        (steps(-0.12, 0.01), "does not hold"),
        (steps(0.12, 0.04), "undecided"),
        (steps(0.0, 0.0), "no difference that matters"),
        ((0.0, 0.0, 0.0, 0.0), "no difference that matters"),
        (steps(0.0, 0.0025), "no difference that matters"),
        (steps(0.0, 0.0027), "undecided"),
        (steps(0.0039, 0.001), "holds, too small to matter"),
        (steps(-0.0039, 0.001), "does not hold, too small to matter"),
        (steps(0.0037, 0.001), "no difference that matters"),
        (steps(0.0061, 0.001), "holds, too small to matter"),
        (steps(0.0063, 0.001), "holds"),
        ((0.10, 0.11, 0.12), "undecided"),
    ],
)
def test_planted_effects(finished: Finished, differences: tuple[float, ...], ruling: str) -> None:
    """The interval reaches 3.83 steps to each side, the margin is .01, and three seeds say nothing."""
    results = [
        finished(pool, seed, 0.5 + 0.05 * seed + (difference if pool == "max" else 0))
        for seed, difference in enumerate(differences)
        for pool in ("max", "avg")
    ]
    verdict = ruled(results)
    assert verdict.ruling == ruling
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(sum(differences) / len(differences))
    assert verdict.effect.n == len(differences)
    assert verdict.networks == 2 * len(differences)


def test_the_sign_follows_the_metric(finished: Finished) -> None:
    claim = replace(BASE, metric="loss")
    # The differences are .20, .21, .19 and .20.
    values = {"max": (0.30, 0.31, 0.33, 0.31), "avg": (0.50, 0.52, 0.52, 0.51)}
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
    results = [finished("max", seed, 0.9 + 0.001 * seed) for seed in range(5)]
    results += [finished("avg", seed, 0.8, learned=seed != 2) for seed in range(5)]
    # A third pool says nothing about this claim.
    results += [finished("blur", seed, 0.1, learned=False) for seed in range(5)]
    verdict = ruled(results)
    assert verdict.ruling == "holds"
    assert verdict.effect is not None
    assert (verdict.effect.mean, verdict.effect.n) == (pytest.approx(0.102), 4)
    assert verdict.note == "left out because not learned: 1 of 10 networks"


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
        for seed in range(4)
        for dataset in ("a", "b", "c")
    ]
    verdict = ruled(results)
    assert verdict.effect is not None
    assert verdict.effect.n == 4
    # With the twelve cells it would be a fifth of that.
    assert verdict.effect.half_width == pytest.approx(anytime_interval([0.10, 0.11, 0.12, 0.13]).half_width)


def test_only_cells_of_one_data_set_pair(finished: Finished) -> None:
    # Data set b, where all is easier, was run for one side only.
    results = [finished("max", seed, 0.5 + 0.001 * seed, dataset="a") for seed in range(5)]
    results += [finished("max", seed, 0.9, dataset="b") for seed in range(5)]
    results += [finished("avg", seed, 0.6, dataset="a") for seed in range(5)]
    verdict = ruled(results)
    assert verdict.ruling == "does not hold"
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(-0.098)


def test_settings_that_a_side_implies_need_no_partner(finished: Finished) -> None:
    # Each variant trains for its own number of epochs, and another one on each data set.
    epochs = {("a", "rotated"): 12, ("a", "plain"): 6, ("b", "rotated"): 6, ("b", "plain"): 4}
    results = [
        finished("max", seed, 0.5 + (0.1 + 0.001 * seed) * (variant == "rotated"), dataset=dataset, variant=variant,
                 train=TrainConfig(epochs=count))
        for (dataset, variant), count in epochs.items()
        for seed in range(4)
    ]  # fmt: skip
    claim = replace(BASE, better={"variant": "rotated"}, worse={"variant": "plain"})
    verdict = ruled(results, claim)
    assert verdict.ruling == "holds"
    assert verdict.effect is not None
    assert verdict.effect.n == 4


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
        for seed in range(4)
    ]
    assert ruled(results, replace(BASE, where={"variant": "plain"})).ruling == "holds"
    assert ruled(results, replace(BASE, where={"variant": "rotated"})).ruling == "does not hold"
    assert ruled(results).ruling == "depends on the setting"
    assert ruled(results, replace(BASE, where={"no_such_field": 1})).effect is None


def test_results_of_other_benchmarks_are_left_out(finished: Finished) -> None:
    results = [
        finished(pool, seed, 0.5 + (0.1 + 0.001 * seed) * (pool == better), benchmark=benchmark)
        for benchmark, better in (("study", "max"), ("other", "avg"))
        for pool in ("max", "avg")
        for seed in range(4)
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
    # Mean .02, s = .01: the reach in deviations, r(n) / sqrt n, falls below 2 from n = 6 on (5.41 / 2.236 = 2.42,
    # 4.73 / 2.449 = 1.93), 3 more than 3.
    verdict = ruled(leading(finished, (0.01, 0.02, 0.03)))
    assert (verdict.ruling, verdict.further) == ("undecided", 3)
    assert verdict.note == "3 more seeds would decide it if mean and spread stay as they are"
    assert verdict.effect is not None
    assert not verdict.effect.is_bounded
    # s = .0090 of four seeds: 2.42 deviations are .0217, more than .02, and 1.93 are less.
    verdict = ruled(leading(finished, (0.009, 0.02, 0.031, 0.02)))
    assert (verdict.ruling, verdict.further) == ("undecided", 2)
    # s = .0069: 2.42 deviations are .0167, but those of four seeds, 3.83, are .0266.
    verdict = ruled(leading(finished, (0.0115, 0.02, 0.0285, 0.02)))
    assert verdict.note == "1 more seed would decide it if mean and spread stay as they are"
    assert ruled(leading(finished, (0.3, 0.31, 0.31, 0.3))).further is None


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
    results = leading(finished, (0.10, 0.11, 0.12, 0.13))
    verdict = ruled(results, replace(BASE, reach=reach), preset)
    assert verdict.ruling == ("not a test of this claim" if why else "holds")
    assert why in verdict.note
    # The effect is shown all the same.
    assert verdict.effect == ruled(results).effect


def test_networks_out_of_reach_do_not_speak(finished: Finished) -> None:
    short = leading(finished, (-0.10, -0.11, -0.12, -0.13))
    trained = leading(finished, (0.10, 0.11, 0.12, 0.13), train=TrainConfig(epochs=12))
    verdict = ruled([*short, *trained], replace(BASE, reach=Reach(min_epochs=12)))
    assert verdict.ruling == "holds"
    assert verdict.note == "left out because out of reach of the claim: 8 of 16 networks"


def test_one_metric_above_another_in_the_same_networks(finished: Finished) -> None:
    claim = Claim("c", "V is class-conditional.", "nobody", "V_stratified", minus="V")
    results = [
        finished("max", seed, 0.9, metrics={"V": 0.3 + seed, "V_stratified": 0.5 + seed + 0.01 * seed})
        for seed in range(4)
    ]
    verdict = ruled(results, claim)
    assert verdict.ruling == "holds"
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(0.215)
    assert ruled(results, replace(claim, metric="V", minus="V_stratified")).ruling == "does not hold"
    assert ruled([finished("max", seed, 0.9) for seed in range(3)], claim).networks == 0


@pytest.mark.parametrize(("target", "ruling"), [(0.905, "holds"), (0.8, "does not hold"), (0.912, "undecided")])
def test_a_published_number_is_met_or_not(finished: Finished, target: float, ruling: str) -> None:
    results = [finished("max", seed, 0.9 + value) for seed, value in enumerate((-0.001, 0.0, 0.001, 0.0))]
    claim = Claim("c", "It is .9.", "nobody", "accuracy", target=target, target_runs=1, says="equal")
    verdict = ruled(results, claim)
    assert verdict.ruling == ruling
    # A single published run scatters as one of these does, s^2 for any number of seeds: t(1 - .05 / 3, 3) = 3.7405.
    spread = float(np.std([-0.001, 0.0, 0.001, 0.0], ddof=1))
    assert verdict.effect is not None
    assert verdict.effect.half_width == pytest.approx(spread * (7.668**2 / 4 + 3.7405**2) ** 0.5, rel=1e-3)
    exact = ruled(results, replace(claim, target_runs=0)).effect
    assert exact is not None
    assert exact.half_width == pytest.approx(7.668 * spread / 2, rel=1e-3)


def test_a_lead_that_depends_on_a_setting(finished: Finished) -> None:
    """A factorial: max leads by .1 with the flaw and by .02 without, whatever the other setting."""
    results = [
        result
        for flaw, lead in ((True, 0.10), (False, 0.02))
        for shuffle in (True, False)
        for result in leading(
            finished, [lead + 0.001 * seed * flaw for seed in range(4)], model={"flaw": flaw},
            train=TrainConfig(epochs=3, shuffle=shuffle), variant=f"{flaw}_{shuffle}",
        )
    ]  # fmt: skip
    verdict = ruled(results, replace(BASE, where={"flaw": True}, than={"flaw": False}))
    assert verdict.ruling == "holds"
    assert verdict.effect is not None
    assert (verdict.effect.mean, verdict.effect.n) == (pytest.approx(0.0815), 4)
    assert ruled(results, replace(BASE, where={"shuffle": True}, than={"shuffle": False})).ruling == (
        "no difference that matters"
    )
    # Of the flaw with shuffling and its absence without, nothing follows about the flaw.
    ends = [result for result in results if result.cell.variant in ("True_True", "False_False")]
    confounded = ruled(ends, replace(BASE, where={"flaw": True}, than={"flaw": False}))
    assert (confounded.ruling, confounded.effect, confounded.networks) == ("undecided", None, 0)
    assert confounded.note == "its two sides differ in shuffle as well"


LEADS = (0.10, 0.11, 0.12, 0.13)


def led(finished: Finished, leads: Sequence[Sequence[float]]) -> list[Result]:
    """Return results of several architectures, net1, net2, ..., in each of which max leads avg by these accuracies."""
    return [
        result
        for number, found in enumerate(leads, start=1)
        for result in leading(finished, found, architecture=f"net{number}")
    ]


def alone(leads: Sequence[float], settings: int, says: Literal["above", "equal"] = "above") -> str:
    """Return the ruling on one of several settings, each judged at its share of 5 %."""
    return ruling_of(anytime_interval(leads, 0.05 / settings), 0.01, says)


@pytest.mark.parametrize(
    ("leads", "ruling"),
    [
        (tuple(-lead for lead in LEADS), "does not hold"),
        ((-0.0049, -0.005, -0.0051, -0.005), "does not hold, too small to matter"),
        ((0.0001, -0.0001, 0.0, 0.0), "no difference that matters"),
    ],
)
def test_settings_that_contradict_each_other(finished: Finished, leads: Sequence[float], ruling: str) -> None:
    assert (alone(LEADS, 2), alone(leads, 2)) == ("holds", ruling)
    verdict = ruled(led(finished, [LEADS, leads]))
    assert verdict.ruling == "depends on the setting"
    assert verdict.note == f"holds: net1; {ruling}: net2"
    assert (verdict.further, verdict.networks) == (None, 16)
    # The effect is that of both.
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx((np.mean(LEADS) + np.mean(leads)) / 2)
    assert verdict.effect.n == 4


@pytest.mark.parametrize(
    ("leads", "ruling", "together"),
    [
        # Undecided alone; the mean of both is above 0, or undecided as well.
        ((0.06, 0.08, 0.12, 0.10), "undecided", "holds"),
        ((0.30, -0.30, 0.20, -0.10), "undecided", "undecided"),
        ((-0.30, -0.10, -0.20, -0.40), "undecided", "undecided"),
        ((0.0049, 0.005, 0.0051, 0.005), "holds, too small to matter", "holds"),
        (LEADS, "holds", "holds"),
        # Three seeds say nothing about one setting, and together there are four.
        (tuple(-lead for lead in LEADS[:3]), "undecided", "undecided"),
    ],
)
def test_settings_that_do_not_contradict_each_other(
    finished: Finished, leads: Sequence[float], ruling: str, together: str
) -> None:
    assert (alone(LEADS, 2), alone(leads, 2)) == ("holds", ruling)
    verdict = ruled(led(finished, [LEADS, leads]))
    assert verdict.ruling == together
    assert "net1" not in verdict.note


def test_a_difference_that_matters_nowhere_has_no_contradiction(finished: Finished) -> None:
    within = (0.0049, 0.005, 0.0051, 0.005)
    assert ruled(led(finished, [within, [-lead for lead in within]])).ruling == "no difference that matters"


def test_the_same_effect_in_all_settings_is_no_contradiction(finished: Finished) -> None:
    """Five seeds reach 6.95 standard errors at 2.5 %, 4.91 steps: .0011 to .0109 and -.0009 to .0089."""
    leads, within = steps(0.006, 0.001), steps(0.004, 0.001)
    assert (alone(leads, 2), alone(within, 2)) == ("holds", "no difference that matters")
    assert ruled(led(finished, [leads, within])).ruling == "holds, too small to matter"
    # These, .0051 to .0149 and -.0049 to .0049, lie apart.
    apart = ruled(led(finished, [steps(0.01, 0.001), steps(0.0, 0.001)]))
    assert (apart.ruling, apart.note) == ("depends on the setting", "holds: net1; no difference that matters: net2")


@pytest.mark.parametrize("settings", [2, 4])
def test_contradictions_without_a_difference_are_rare_whenever_one_looks(settings: int) -> None:
    """In all settings, the effect is half a deviation, which is half of the margin."""
    trials, wrong = 100, 0
    for values in np.random.default_rng(3).normal(0.5, 1, (trials, settings, 40)):
        for n in range(4, 41):
            intervals = [anytime_interval(one[:n], 0.05 / settings) for one in values]
            if contradicting([(ruling_of(interval, 1.0), interval) for interval in intervals]):
                wrong += 1
                break
    assert wrong / trials <= 0.05


def test_each_setting_is_judged_at_its_share(finished: Finished) -> None:
    """Four seeds reach 7.67 standard errors at 5 % and 15.5 at 2.5 %; the mean of ``leads`` is 10 from 0."""
    leads, against = (-0.10, -0.12, -0.14, -0.16), (0.30, 0.31, 0.30, 0.31)
    assert (alone(leads, 1), alone(leads, 2), alone(against, 2)) == ("does not hold", "undecided", "holds")
    assert ruled(led(finished, [leads])).ruling == "does not hold"
    assert ruled(led(finished, [against, leads])).ruling == "holds"


def test_places_are_named_by_all_fields_that_vary(finished: Finished) -> None:
    results = [
        result
        for architecture, lead in (("net1", 0.1), ("net2", -0.1))
        for layers in (1, 2)
        # At 5 % / 4, four seeds give no interval.
        for result in leading(finished, [lead] * 5, architecture=architecture, model={"layers": layers})
    ]
    assert ruled(results).note == ("holds: net1 layers=1, net1 layers=2; does not hold: net2 layers=1, net2 layers=2")


def test_a_claim_of_equality_depends_on_the_setting(finished: Finished) -> None:
    claim, within = replace(BASE, says="equal"), (0.0001, -0.0001, 0.0, 0.0)
    assert (alone(within, 2, "equal"), alone(LEADS, 2, "equal")) == ("holds", "does not hold")
    verdict = ruled(led(finished, [within, LEADS]), claim)
    assert (verdict.ruling, verdict.note) == ("depends on the setting", "holds: net1; does not hold: net2")
    assert ruled(led(finished, [within, within]), claim).ruling == "holds"


def test_out_of_reach_says_nothing_about_settings(finished: Finished) -> None:
    results = led(finished, [LEADS, [-lead for lead in LEADS]])
    assert ruled(results, replace(BASE, reach=Reach(min_epochs=12))).ruling == "not a test of this claim"


def stopped(effect: float, margin: float, says: Literal["above", "equal"] = "above") -> Mapping[str, float]:
    """Return the share of each ruling if one looks after every seed from 4 to 40 and stops at the first decision.

    The effects of seeds are normal with a deviation of 1.
    """
    trials, shares = 400, defaultdict[str, float](float)
    for values in np.random.default_rng(7).normal(effect, 1, (trials, 40)).tolist():
        looks = (ruling_of(seeds_estimate(values[:n]).interval(), margin, says) for n in range(4, 41))
        shares[next((ruling for ruling in looks if ruling != "undecided"), "undecided")] += 1 / trials
    return shares


@pytest.mark.parametrize(
    ("effect", "says", "margin", "ruling"),
    [
        (1.5, "above", 0.1, "holds"),
        (-1.5, "above", 0.1, "does not hold"),
        (0.0, "equal", 1.5, "holds"),
        (3.0, "equal", 1.5, "does not hold"),
    ],
)
def test_planted_truth_is_found_whenever_one_stops(
    effect: float, says: Literal["above", "equal"], margin: float, ruling: str
) -> None:
    shares = stopped(effect, margin, says)
    opposite = {"holds": "does not hold", "does not hold": "holds"}[ruling]
    assert shares[ruling] >= 0.95
    assert shares[opposite] <= 0.025


@pytest.mark.parametrize(("effect", "says", "margin"), [(0.0, "above", 0.0), (1.5, "equal", 1.5)])
def test_stopping_at_will_rules_on_nothing_in_five_percent_at_most(
    effect: float, says: Literal["above", "equal"], margin: float
) -> None:
    """No effect and no margin, or an effect just at the margin of equality: any ruling is an error."""
    assert stopped(effect, margin, says)["undecided"] >= 0.95


def test_what_is_practically_equal_is_found_whenever_one_stops() -> None:
    shares = stopped(0.0, 1.5)
    assert shares["no difference that matters"] >= 0.9
    # Rulings with a sign are errors, even where they say that it is too small to matter.
    assert 1 - shares["no difference that matters"] - shares["undecided"] <= 0.05


def test_ratios_of_metrics_that_are_positive_by_nature(finished: Finished) -> None:
    """Ratios of 2, 3, 4.5 under levels that differ tenfold: the differences say nothing, the ratios decide."""
    low, ratios = (0.01, 0.1, 1.0, 0.3, 0.03, 3.0), (2.0, 3.0, 4.5, 3.0, 2.0, 4.5)
    results = [finished("max", seed, 0.5, metrics={"spread": value}) for seed, value in enumerate(low)]
    results += [
        finished("avg", seed, 0.5, metrics={"spread": value * ratio})
        for seed, (value, ratio) in enumerate(zip(low, ratios, strict=True))
    ]
    verdict = ruled(results, replace(BASE, metric="spread"))
    assert (verdict.ruling, verdict.is_ratio) == ("holds", True)
    expected = anytime_interval([log(ratio) for ratio in ratios])
    assert verdict.effect is not None
    found = (verdict.effect.mean, verdict.effect.low, verdict.effect.high)
    assert np.log(found) == pytest.approx([expected.mean, expected.low, expected.high])
    assert anytime_interval([value * (ratio - 1) for value, ratio in zip(low, ratios, strict=True)]).low < 0
    # The geometric mean is .3, where a difference of 1 is a ratio of 13: 1.083 and .083.
    within = ruled(results, replace(BASE, metric="spread", margin=1.0))
    assert (within.ruling, within.margin) == ("holds, too small to matter", pytest.approx(log(13.03), rel=1e-3))


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
    assert verdict.effect.half_width == pytest.approx(crossed_estimate([array]).interval().half_width)
    alone = judged_with({})
    assert alone.effect is not None
    assert alone.effect.half_width < verdict.effect.half_width / 4
    assert alone.ruling != "undecided"
    assert verdict.ruling == "undecided"
    assert verdict.further is None
    assert "not even 1000 seeds" in verdict.note


@pytest.mark.parametrize(
    ("claim", "bounds"),
    [
        (replace(BASE, metric="r"), (-2.0, 2.0)),
        (replace(BASE, metric="r", where={"seed": 0}, than={"seed": 1}), (-4.0, 4.0)),
        (Claim("c", "r is above 0.", "nobody", "r", target=0.0), (-1.0, 1.0)),
        (Claim("c", "r is above 0.5.", "nobody", "r", target=0.5), (-1.5, 0.5)),
        (Claim("c", "r exceeds s.", "nobody", "r", minus="s"), (-2.0, 1.0)),
        (Claim("c", "s exceeds loss.", "nobody", "s", minus="loss"), (-inf, 1.0)),
        # A published mean of few runs is not known exactly.
        (Claim("c", "r is above 0.", "nobody", "r", target=0.0, target_runs=5), (-inf, inf)),
        (replace(BASE, metric="spread"), (-inf, inf)),
        (BASE, (-inf, inf)),
    ],
)
def test_effects_end_where_the_bounds_of_the_metrics_do(claim: Claim, bounds: tuple[float, float]) -> None:
    metrics = [
        Metric("r", "r", bounds=(-1.0, 1.0)),
        Metric("s", "s", share=True),
        Metric("loss", "loss", False, 0.01, bounds=(0.0, inf)),
        *(metric for metric in METRICS if metric.name != "loss"),
    ]
    assert effect_bounds(claim, metrics) == bounds


def test_the_interval_of_a_verdict_ends_at_the_bounds(finished: Finished) -> None:
    results = [finished("max", seed, 0.5, metrics={"r": r}) for seed, r in enumerate((-1.0, -1.0, -0.9, -1.0))]
    claim = Claim("c", "r is above 0.", "nobody", "r", target=0.0)
    verdict = judge(claim, "study", [Metric("r", "r", bounds=(-1.0, 1.0))], results_frame(results), "quick")
    assert verdict.effect is not None
    assert verdict.effect.low == -1.0
    assert verdict.ruling == "does not hold"


def test_claims_that_compare_with_nothing() -> None:
    for sides in ({}, {"better": {"pool": "max"}}):
        with pytest.raises(ValueError, match="compares with nothing"):
            Claim("c", "A.", "nobody", "accuracy", **sides)
