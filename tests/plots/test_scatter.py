"""One metric against another: points, the fitted line, its residuals, and what markers tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.analysis.statistics import anytime_interval
from poolbench.core import Result
from poolbench.plots.scatter import metric_scatter
from poolbench.plots.style import PALETTE


def scattered(made: Any, results: list[Result]) -> Figure:
    figure = metric_scatter(made.scene(results), "accuracy", "spread", ("dataset",))
    assert figure is not None
    return figure


def points(axes: Axes, colour: str, length: int) -> list[tuple[list[float], list[float]]]:
    """Return the coordinates of what was drawn in a colour with that many points."""
    found = [
        (np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist())
        for line in axes.get_lines()
        if line.get_color() == colour
    ]
    return [pair for pair in found if len(pair[0]) == length]


def clouds(made: Any) -> list[Result]:
    """Three pools that have learned, where more accurate ones spread less, and one that has not."""
    values = {"max": (0.5, 1.6), "avg": (0.6, 1.4), "blur": (0.8, 1.1)}
    results = [
        made(pool, seed, x + 0.01 * seed, metrics={"spread": y + 0.02 * seed})
        for pool, (x, y) in values.items()
        for seed in range(4)
    ]
    return [*results, made("aps", 0, 0.1, learned=False, metrics={"spread": 9.0})]


def test_scatter_shows_what_accuracy_does_not_explain(made: Any) -> None:
    results = clouds(made)
    figure = scattered(made, results)
    against, residuals = figure.axes
    assert (against.get_xlabel(), against.get_ylabel()) == ("accuracy\u00a0↑", "spread / logit\u00a0↓")
    xs, ys = [0.5, 0.51, 0.52, 0.53], [1.6, 1.62, 1.64, 1.66]
    assert points(against, PALETTE[0], 4) == [(xs, pytest.approx(ys))]
    assert points(against, PALETTE[0], 1) == [([pytest.approx(0.515)], [pytest.approx(1.63)])]
    x, y = anytime_interval(xs), anytime_interval(ys)
    across, up = points(against, PALETTE[0], 2)
    assert across == (pytest.approx([x.low, x.high]), pytest.approx([y.mean, y.mean]))
    assert up == (pytest.approx([x.mean, x.mean]), pytest.approx([y.low, y.high]))

    learned = [result for result in results if result.facts["learned"]]
    fit = np.polyfit([r.metrics["accuracy"] for r in learned], [r.metrics["spread"] for r in learned], 1)
    ends, heights = points(against, "#333333", 2)[0]
    assert ends == pytest.approx([0.5, 0.83])
    assert heights == pytest.approx(np.polyval(fit, ends).tolist())
    left_over = [value - np.polyval(fit, at) for at, value in zip(xs, ys, strict=True)]
    assert points(residuals, PALETTE[0], 4)[0][0] == pytest.approx(left_over)
    interval = anytime_interval(left_over)
    assert points(residuals, PALETTE[0], 2)[0][0] == pytest.approx([interval.low, interval.high])
    assert residuals.get_xlabel() == "spread minus the line\nfitted on accuracy\u00a0↓"
    labels = [text.get_text() for text in residuals.get_yticklabels()]
    assert labels == ["max", "avg", "blur"]


def test_what_has_not_learned_is_left_out(made: Any) -> None:
    results = [*clouds(made), made("max", 4, 0.1, learned=False, metrics={"spread": 9.0})]
    against, residuals = scattered(made, results).axes
    for axes in (against, residuals):
        assert len(points(axes, PALETTE[0], 4)) == 1
        assert not points(axes, PALETTE[0], 5)
    assert 9.0 not in points(against, PALETTE[0], 4)[0][1]
    assert points(against, PALETTE[0], 1) == [([pytest.approx(0.515)], [pytest.approx(1.63)])]
    labels = [text.get_text() for text in residuals.get_yticklabels()]
    assert labels == ["max (4 of 5 learned)", "avg", "blur"]


def test_three_seeds_have_no_intervals(made: Any) -> None:
    for axes in scattered(made, [result for result in clouds(made) if result.cell.seed < 3]).axes:
        assert points(axes, PALETTE[0], 3)
        assert not points(axes, PALETTE[0], 2)


def test_two_groups_have_no_line(made: Any) -> None:
    results = [result for result in clouds(made) if result.cell.pool.name != "blur"]
    figure = scattered(made, results)
    (against,) = figure.axes
    assert not points(against, "#333333", 2)
    assert "fewer than 3 groups" in figure.texts[0].get_text()


def test_markers_tell_what_else_varies(made: Any) -> None:
    results = [
        made(pool, seed, 0.5 + 0.1 * len(pool) + 0.05 * layers, metrics={"spread": 1.0}, dataset=name, model=model)
        for name in ("a", "b")
        for pool in ("max", "blur")
        for layers in (1, 2)
        for seed in (0, 1)
        for model in [{"layers": layers} if name == "a" else {"padding": "zeros" if layers == 1 else "circular"}]
    ]
    figure = scattered(made, results)
    assert [axes.get_title() for axes in figure.axes[::2]] == ["a", "b"]
    colours, markers = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert colours == ["max", "blur"]
    assert markers == ["layers=1", "layers=2", "zeros", "circular"]
    labels = [text.get_text() for text in figure.axes[3].get_yticklabels()]
    assert labels == ["max · zeros", "max · circular", "blur · zeros", "blur · circular"]
    handles = {str(handle.get_marker()) for handle in figure.legends[1].get_lines()}
    assert len(handles) == 4
