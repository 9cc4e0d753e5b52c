"""Intervals and bars: means, seeds, and the marks of networks that have not learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from poolbench.analysis.statistics import anytime_interval
from poolbench.plots.bars import metric_bars
from poolbench.plots.intervals import metric_intervals
from poolbench.plots.style import GREY, PALETTE


def test_intervals_say_what_has_not_learned(made: Any) -> None:
    results = [made("max", seed, value) for seed, value in enumerate((0.7, 0.8, 0.9, 0.8))]
    results += [made("avg", 0, 0.5), made("avg", 1, 0.1, learned=False), made("blur", 0, 0.1, learned=False)]
    figure = metric_intervals(made.scene(results), ("accuracy", "loss"), ("variant",))
    assert figure is not None
    accuracy, loss = figure.axes
    assert [text.get_text() for text in accuracy.get_yticklabels()] == [
        "max", "avg (1 of 2 learned)", "blur (0 of 1 learned)"
    ]  # fmt: skip
    assert [text.get_color() == GREY for text in accuracy.get_yticklabels()] == [False, False, True]
    assert accuracy.get_xlabel() == "accuracy\u00a0↑"
    assert loss.get_xlabel() == "loss\u00a0↓"
    by_length = {
        len(np.asarray(line.get_xdata())): line for line in accuracy.get_lines() if line.get_color() == PALETTE[0]
    }
    assert np.asarray(by_length[4].get_xdata()).tolist() == [0.7, 0.8, 0.9, 0.8]
    interval = anytime_interval([0.7, 0.8, 0.9, 0.8])
    assert np.asarray(by_length[2].get_xdata()).tolist() == [interval.low, interval.high]
    # The mean of avg is that of the network that has learned; blur has none and nothing is drawn.
    means = [np.asarray(line.get_xdata()).tolist() for line in accuracy.get_lines() if line.get_color() == PALETTE[1]]
    assert means == [[0.5], [0.5]]
    assert not [line for line in accuracy.get_lines() if line.get_color() == PALETTE[2]]


def test_three_seeds_have_a_mean_without_an_interval(made: Any) -> None:
    figure = metric_intervals(made.scene([made("max", seed, 0.7 + 0.1 * seed) for seed in range(3)]), ("accuracy",))
    assert figure is not None
    drawn = [np.asarray(line.get_xdata(), float).tolist() for line in figure.axes[0].get_lines()]
    assert drawn == [pytest.approx([0.7, 0.8, 0.9]), pytest.approx([0.8])]


def test_bars_are_means(made: Any) -> None:
    results = [
        made("max", seed, accuracy + step, variant=variant, metrics={"spread": 0.5})
        for variant, accuracy, steps in (("plain", 0.4, (0.0, 0.02, 0.01, 0.01)), ("rotated", 0.8, (0.0, 0.01, 0.02)))
        for seed, step in enumerate(steps)
    ]
    metrics, ticks = ("accuracy", "spread"), ("first", "second")
    figure = metric_bars(made.scene(results), metrics, ticks, (), "variant", "share", legend_text="trained on {}")
    assert figure is not None
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.41, 0.5, 0.81, 0.5])  # type: ignore[attr-defined]
    # Intervals of four seeds, none of three.
    interval = anytime_interval([0.4, 0.42, 0.41, 0.41])
    drawn = [np.asarray(line.get_ydata(), float).tolist() for line in axes.get_lines()]
    assert drawn == [pytest.approx([interval.low, interval.high]), [0.5, 0.5]]
    assert [text.get_text() for text in axes.texts] == [".410", ".500", ".810", ".500"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["first", "second"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["trained on plain", "trained on rotated"]
