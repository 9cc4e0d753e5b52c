"""The picture of a choice: its front, who is hollow, and names that do not lie on each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from poolbench.analysis.choices import weighings
from poolbench.choice import Choice
from poolbench.core import Metric
from poolbench.plots.pareto import pareto

METRICS = (Metric("accuracy", "accuracy", True, 0.01), Metric("loss", "loss", False, 0.01))
NOISE = (-0.001, 0.0, 0.001, 0.0)


def drawn(
    made: Any, values: Mapping[str, tuple[float, float]], names: tuple[str, ...] = ("accuracy", "loss")
) -> Figure:
    results = [
        made(pool, seed, accuracy + NOISE[seed], metrics={"loss": loss, "cost_forward_ms": 5.0})
        for pool, (accuracy, loss) in values.items()
        for seed in range(4)
    ]
    (weighing,) = weighings(Choice("pool", "Accuracy", "max", names), METRICS, results)
    return pareto(weighing)


def test_the_front_is_a_staircase_of_means_that_none_exceeds(made: Any) -> None:
    # Accuracy up, loss down: max and avg are each best in one, blur is in between on the wrong side.
    figure = drawn(made, {"max": (0.9, 0.5), "avg": (0.6, 0.1), "blur": (0.5, 0.6)})
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("loss\u00a0↓", "accuracy\u00a0↑")
    (front,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    np.testing.assert_allclose(front.get_xdata(), [0.1, 0.5, 0.5], atol=1e-9)
    np.testing.assert_allclose(front.get_ydata(), [0.6, 0.6, 0.9], atol=1e-9)
    hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == "white" and line.get_marker() == "o"]
    assert [float(np.asarray(line.get_xdata())[0]) for line in hollow] == [0.6]


def test_one_metric_is_drawn_against_time_on_an_axis_wider_than_its_noise(made: Any) -> None:
    figure = drawn(made, {"max": (0.9, 0.5), "avg": (0.6, 0.1)}, ("accuracy",))
    (axes,) = figure.axes
    assert axes.get_xlabel().startswith("forward pass")
    assert axes.get_xlim() == (4.5, 5.5)


def test_names_of_close_points_lie_above_each_other(made: Any) -> None:
    figure = drawn(made, {"max": (0.9, 0.5), "avg": (0.9001, 0.5), "blur": (0.1, 0.4)})
    heights = {text.get_text(): text.xy[1] for text in figure.axes[0].texts}  # type: ignore[attr-defined]
    step = 0.17 / 2.48 * np.ptp(figure.axes[0].get_ylim())
    assert abs(heights["avg"] - heights["max"]) >= step * 0.99
