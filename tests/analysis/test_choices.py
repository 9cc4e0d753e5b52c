"""Ranks, dominance and sentences of a choice, on planted numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from poolbench.analysis.choices import Weighing, weighings
from poolbench.choice import Choice
from poolbench.core import Metric, Result

Finished = Callable[..., Result]
METRICS = (
    Metric("accuracy", "accuracy", True, 0.01, share=True),
    Metric("loss", "loss", False, 0.01),
    Metric("spread", "spread", False, 0.1, scale="log", floor=0.001),
)
POOL = Choice("pool", "Accuracy", "max", ("accuracy", "loss"))
NOISE = (-0.002, -0.001, 0.0, 0.001, 0.002)
"""Of five seeds: five reach 5.41 standard errors of .00158, .0086 in all; twice the spread in differences of none."""


def planted(finished: Finished, values: Mapping[str, tuple[float, float, float]], **fields: Any) -> list[Result]:
    """Return five seeds per pool from {pool: (accuracy, loss, ms)}; the pools' noise is not the same."""
    return [
        finished(
            pool,
            seed,
            accuracy + NOISE[(seed + index) % 5],
            metrics={"loss": loss + NOISE[(2 * seed + index) % 5], "cost_forward_ms": time + seed},
            **fields,
        )
        for index, (pool, (accuracy, loss, time)) in enumerate(values.items())
        for seed in range(5)
    ]


def weighed(results: Sequence[Result], choice: Choice = POOL) -> list[Weighing]:
    return list(weighings(choice, METRICS, results))


def test_ranks_count_who_is_ahead_by_more_than_the_noise(finished: Finished) -> None:
    # .600 and .601 cannot be told apart; .5 is behind both, .4 behind three.
    values = {"avg": (0.5, 0.3, 10.0), "max": (0.6, 0.2, 10.0), "blur": (0.601, 0.4, 10.0), "aps": (0.4, 0.1, 10.0)}
    (found,) = weighed(planted(finished, values))
    assert found.setting == ""
    assert [one.name for one in found.candidates] == ["blur", "max", "avg", "aps"]
    assert [[score.rank for score in one.scores] for one in found.candidates] == [[1, 4], [1, 2], [3, 3], [4, 1]]
    assert [one.time for one in found.candidates] == [10.0] * 4
    assert "blur and max share first place" in found.sentences[0]


def test_the_front_holds_who_is_best_in_something(finished: Finished) -> None:
    values = {
        "max": (0.6, 0.2, 10.0),
        "avg": (0.5, 0.3, 10.5),  # worse than max in both, and its time may be noise
        "blur": (0.5, 0.3, 8.0),  # the same, but faster by more than the noise
        "aps": (0.7, 0.4, 20.0),  # best accuracy
    }
    (found,) = weighed(planted(finished, values))
    assert {one.name: one.dominated_by for one in found.candidates} == {
        "max": "", "avg": "max", "blur": "", "aps": "",
    }  # fmt: skip


def test_a_tie_dominates_nobody(finished: Finished) -> None:
    (found,) = weighed(planted(finished, {"max": (0.6, 0.3, 10.0), "avg": (0.601, 0.299, 10.0)}))
    assert [one.dominated_by for one in found.candidates] == ["", ""]
    assert found.sentences[0].endswith("None is ahead by more than the noise.")


def test_sentences_carry_the_numbers(finished: Finished) -> None:
    (found,) = weighed(planted(finished, {"max": (0.6, 0.2, 10.0), "avg": (0.5, 0.3, 15.0), "blur": (0.4, 0.2, 5.0)}))
    first, avg, blur = found.sentences
    # s / sqrt 5 = .000707; five seeds reach 5.41 of it: .0038.
    assert first == (
        "Accuracy: max 0.600 ± 0.004, avg 0.500 ± 0.004 and blur 0.400 ± 0.004. "
        "max is ahead of all others by more than the noise."
    )
    assert avg.startswith("avg instead of max: accuracy -0.100 [-0.1")
    assert ", loss +0.100 [+0." in avg
    assert avg.endswith(", 50 % more time.")
    assert blur.endswith(", 50 % less time.")


def test_log_metrics_are_compared_as_ratios(finished: Finished) -> None:
    results = [
        finished(pool, seed, 0.6, metrics={"spread": spread * (1 + 0.01 * seed)})
        for pool, spread in (("max", 0.1), ("blur", 0.05))
        for seed in range(4)
    ]
    (found,) = weighed(results, Choice("pool", "Spread", "max", ("spread",)))
    assert [(one.name, one.scores[0].rank) for one in found.candidates] == [("blur", 1), ("max", 2)]
    assert found.sentences[1].startswith("blur instead of max: spread x0.5 [0.5, 0.5]")


def test_each_setting_is_a_choice_of_its_own(finished: Finished) -> None:
    values = {"max": (0.6, 0.2, 10.0), "avg": (0.5, 0.3, 10.0)}
    results = planted(finished, values) + planted(finished, values, architecture="other")
    # A single candidate is no choice.
    results += planted(finished, {"max": (0.6, 0.2, 10.0)}, architecture="third")
    found = weighed(results)
    assert [one.setting for one in found] == ["net", "other"]
    assert found[1].sentences[0].startswith("Accuracy, other: max")
    only = Choice("pool", "Accuracy", "max", ("accuracy",), {"architecture": "other"})
    assert [one.setting for one in weighed(results, only)] == [""]


def test_three_seeds_give_no_order(finished: Finished) -> None:
    results = [finished(pool, seed, value) for pool, value in (("max", 0.9), ("avg", 0.1)) for seed in range(3)]
    (found,) = weighed(results, Choice("pool", "Accuracy", "max", ("accuracy",)))
    assert [one.scores[0].rank for one in found.candidates] == [None, None]
    assert found.sentences[0].endswith("Nothing is said about first place: that takes 4 common seeds.")
    assert [one.dominated_by for one in found.candidates] == ["", ""]


def test_candidates_that_have_not_learned_are_left_out(finished: Finished) -> None:
    results = planted(finished, {"max": (0.6, 0.2, 10.0), "avg": (0.5, 0.3, 10.0)})
    results += [finished("blur", seed, 0.1, learned=False, metrics={"loss": 9.0}) for seed in range(5)]
    (found,) = weighed(results)
    assert [one.name for one in found.candidates] == ["max", "avg"]


def test_ahead_of_all_takes_a_lead_over_each(finished: Finished) -> None:
    """max is ahead of blur, but the wide avg ties with both: it has rank 1, too."""
    values = {"max": [0.60, 0.61, 0.59, 0.60], "blur": [0.55, 0.56, 0.54, 0.55], "avg": [0.60, 0.50, 0.56, 0.52]}
    results = [finished(pool, seed, value) for pool, found in values.items() for seed, value in enumerate(found)]
    (found,) = weighed(results, Choice("pool", "Accuracy", "max", ("accuracy",)))
    assert [(one.name, one.scores[0].rank, one.scores[0].is_best) for one in found.candidates] == [
        ("max", 1, False), ("blur", 2, False), ("avg", 1, False),
    ]  # fmt: skip
    assert found.sentences[0].endswith(
        "max and avg share first place: max is not ahead of the other by more than the noise."
    )


def test_one_candidate_with_few_seeds_leaves_the_others_their_ranks(finished: Finished) -> None:
    results = planted(finished, {"max": (0.6, 0.2, 10.0), "avg": (0.5, 0.3, 10.0)})
    results += [finished("blur", seed, 0.9, metrics={"loss": 0.1}) for seed in range(3)]
    (found,) = weighed(results)
    assert [(one.name, one.scores[0].rank) for one in found.candidates] == [("blur", None), ("max", 1), ("avg", 2)]
    assert "max is ahead of all others that have 4 seeds or more by more than the noise." in found.sentences[0]
    assert "blur instead of max: accuracy not compared (fewer than 4 common seeds)" in " ".join(found.sentences)


def test_an_absent_pool_is_quoted(finished: Finished) -> None:
    (found,) = weighed(planted(finished, {"none": (0.7, 0.1, 10.0), "max": (0.6, 0.2, 10.0)}))
    assert found.sentences[0].endswith("'none' is ahead of the other by more than the noise.")


def test_options_that_vary_belong_to_the_name(finished: Finished) -> None:
    results = planted(finished, {"max": (0.6, 0.2, 10.0)})
    for power, accuracy in ((2, 0.5), (3, 0.4)):
        results += planted(finished, {"lp": (accuracy, 0.3, 10.0)}, pool_options={"p": power})
    (found,) = weighed(results)
    assert [one.name for one in found.candidates] == ["max", "lp p=2", "lp p=3"]


def test_times_of_different_devices_do_not_compare(finished: Finished) -> None:
    results = planted(finished, {"max": (0.6, 0.2, 10.0), "avg": (0.6, 0.2, 1.0)})
    (found,) = weighed(results)
    assert found.sentences[1].endswith("90 % less time.") or found.sentences[1].endswith("900 % more time.")
    results = [
        replace(result, facts={**result.facts, "environment": {"device_name": str(result.cell.pool.name)}})
        for result in results
    ]
    (found,) = weighed(results)
    assert "time" not in found.sentences[1]
    assert [one.dominated_by for one in found.candidates] == ["", ""]


def test_a_metric_that_the_benchmark_lacks(finished: Finished) -> None:
    with pytest.raises(KeyError):
        weighed([finished("max", 0, 0.5)], Choice("pool", "?", "max", ("absent",)))
