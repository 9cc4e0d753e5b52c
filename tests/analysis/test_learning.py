"""Which networks count as learned, on planted accuracies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan
from typing import Any

import pytest

from poolbench.analysis.frames import results_frame
from poolbench.analysis.groups import groups_of
from poolbench.analysis.learning import best_accuracies, judged
from poolbench.core import Result

Finished = Callable[..., Result]


def with_facts(result: Result, chance: float = 0.5, **facts: Any) -> Result:
    """Return a result as the ledger gives it: not judged."""
    return replace(result, facts={"chance": chance, **facts})


def learned(results: Sequence[Result], **options: Any) -> list[bool]:
    return [result.facts["learned"] for result in judged(results, **options)]


def test_a_constant_predictor_has_not_learned(finished: Finished) -> None:
    """56.1 % of the test images have one class: far above 3 standard errors from one half for 4,000 of them."""
    constant = with_facts(finished("max", 0, 0.561), commonest=1.0)
    assert learned([constant]) == [False]
    assert learned([constant, with_facts(finished("avg", 0, 0.6), commonest=0.9)]) == [False, True]
    # Its decisions vary a little, but another network shows what there is to learn.
    nearly = with_facts(finished("max", 0, 0.561), commonest=0.99)
    assert learned([nearly, with_facts(finished("avg", 0, 0.98), commonest=0.5)]) == [False, True]


def test_half_of_the_way_from_chance_to_the_best(finished: Finished) -> None:
    results = [with_facts(finished("max", seed, value), 0.1) for seed, value in enumerate((0.9, 0.51, 0.49))]
    assert learned(results) == [True, True, False]
    # Where the task is harder, the same accuracy is good; other data sets, variants and benchmarks do not matter.
    for changes in ({"dataset": "hard"}, {"variant": "hard"}, {"benchmark": "other"}):
        other = with_facts(finished("max", 0, 0.49, **changes), 0.1)
        assert learned([*results, other])[-1]


def test_the_best_of_a_baseline_replaces_that_of_the_results(finished: Finished) -> None:
    baseline = results_frame([finished("max", 0, 0.9), finished("avg", 0, 0.95), finished("max", 0, 0.2, variant="b")])
    reference = best_accuracies(baseline)
    assert reference == {("study", "drawn", "default"): 0.95, ("study", "drawn", "b"): 0.2}
    night = [with_facts(finished(pool, 0, 0.4), 0.1) for pool in ("max", "avg")]
    assert learned(night) == [True, True]
    assert learned(night, reference=reference) == [False, False]


def test_a_table_at_chance_has_nobody_that_learned(finished: Finished) -> None:
    assert learned([with_facts(finished("max", seed, 0.5 + 0.01 * seed)) for seed in range(4)]) == [False] * 4


def test_results_of_older_versions_and_without_accuracy(finished: Finished) -> None:
    old = replace(finished("max", 0, 0.9), facts={"learned": False})
    assert learned([old]) == [True]
    undefined = with_facts(finished("max", 1, nan))
    assert learned([old, undefined]) == [True, False]
    failed = replace(old, status="failed", facts={})
    assert judged([failed]) == [failed]


def test_groups_count_who_has_learned_and_average_the_others(finished: Finished) -> None:
    results = [with_facts(finished("max", seed, value), 0.1) for seed, value in enumerate((0.9, 0.8, 0.1))]
    (group,) = groups_of(judged(results))
    assert (group.unlearned, [result.cell.seed for result in group.learned]) == (1, [0, 1])
    assert group.values("accuracy") == {0: 0.9, 1: 0.8}
    assert group.unlearned_values("accuracy") == {2: pytest.approx(0.1)}
    frame = results_frame(judged(results))
    assert frame.groupby("seed")["learned"].first().tolist() == [True, True, False]
