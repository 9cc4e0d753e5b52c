"""Numbers and fields as text."""

from __future__ import annotations

from collections.abc import Callable
from math import nan

import pytest

from poolbench.analysis.effects import values_interval
from poolbench.analysis.groups import groups_of
from poolbench.analysis.statistics import Interval, anytime_interval
from poolbench.analysis.text import decimals, effect_text, metric_label, number_text, rounded, term
from poolbench.core import Metric, Result

ACCURACY = Metric("accuracy", "accuracy", True, 0.01)


@pytest.mark.parametrize(
    ("tolerance", "places"), [(0.01, 3), (0.02, 3), (0.1, 2), (0.5, 2), (1.0, 1), (1e6, 0), (0.0, 3)]
)
def test_decimals_follow_the_tolerance(tolerance: float, places: int) -> None:
    assert decimals(Metric("m", "m", tolerance=tolerance)) == places


@pytest.mark.parametrize(
    ("value", "sign", "text"), [(0.12345, "", "0.123"), (0.12345, "+", "+0.123"), (-1e-9, "", "0.000")]
)
def test_rounded(value: float, sign: str, text: str) -> None:
    assert rounded(value, ACCURACY, sign) == text


def test_numbers_of_several_one_and_no_seed(finished: Callable[..., Result]) -> None:
    accuracies = (0.8, 0.9, 1.0, 0.9)
    (four,) = groups_of([finished("max", seed, value) for seed, value in enumerate(accuracies)])
    # s = .1 sqrt(2/3) = .0816; four seeds reach 7.668 standard errors: 7.668 * .0816 / 2 = .313.
    assert number_text(four, ACCURACY) == "0.900 ± 0.313"
    (three,) = groups_of([finished("max", seed, value) for seed, value in enumerate(accuracies[:3])])
    assert number_text(three, ACCURACY) == "0.900"
    (one,) = groups_of([finished("max", 0, 0.8), finished("max", 1, nan)])
    assert number_text(one, ACCURACY) == "0.800"
    assert number_text(one, Metric("absent", "absent")) == "-"


def test_effects_with_and_without_an_interval() -> None:
    effect = anytime_interval([0.3, 0.4, 0.5, 0.4])
    assert effect_text(effect, ACCURACY, False) == "+0.400 [+0.087, +0.713], n = 4"
    assert effect_text(Interval(2.0, 1.25, 3.2, 5), ACCURACY, True) == "x2 [1.25, 3.2], n = 5"
    few = "4 seeds or more give an interval"
    assert effect_text(anytime_interval([-0.3, -0.4, -0.5]), ACCURACY, False) == f"-0.400, n = 3: {few}"
    ratio = Metric("spread", "spread", False, 0.1, scale="log", floor=0.001)
    assert effect_text(values_interval([1.9], ratio), ratio, True) == f"x1.9, n = 1: {few}"


def test_labels_and_terms() -> None:
    assert metric_label(Metric("m", "range", False, unit="logit")) == "range / logit\u00a0↓"
    assert metric_label(Metric("m", "range")) == "range"
    assert [term("width", value) for value in ("wide", 8, True, None)] == ["wide", "width=8", "width=True", "-"]
