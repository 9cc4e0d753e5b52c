"""The figures of the shift task: maps in parts, sensitivity by stage, and what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.plots.style import GREY, PALETTE
from poolbench_tasks.shift_robustness import figures

PHASES = np.array([[1.0, 1.2], [0.9, 1.3]])


def arrays(phases: np.ndarray[Any, Any] = PHASES, size: int = 20) -> dict[str, np.ndarray[Any, Any]]:
    """Return the parts of a map (size, size) whose border part is 5 in one corner and 0 elsewhere."""
    period = len(phases)
    boundary = np.zeros((size, size))
    boundary[0, 0] = 5
    tiled = np.tile(phases - phases.mean(), (size // period, size // period))
    return {"map_phase": tiled, "map_boundary": boundary, "map_phases": phases}


def images(figure: Figure) -> list[Axes]:
    """Return the axes that hold an image, in order; colour bars hold none."""
    return [axes for axes in figure.axes if axes.images]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def array_of(axes: Axes) -> np.ndarray[Any, Any]:
    return np.asarray(axes.images[0].get_array())


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_maps_are_titled_with_their_flips(made: Any) -> None:
    results = [
        made("max", 0, 0.9, metrics={"square_flips": 0.125}, arrays={"map": np.full((6, 8), 0.6)}),
        made("avg", 0, 0.2, learned=False, arrays={"map": np.full((6, 8), 0.2)}),
    ]
    figure = figures.shift_map(made.scene(results))
    assert figure is not None
    titles = [axes.get_title() for axes in images(figure)]
    assert titles == ["max\nseed 0, flips 12.5 %", "avg\nseed 0, not learned"]
    assert figure.axes[-1].get_ylabel() == "P(circle)"


def test_parts_of_one_map_have_scales_of_their_own(made: Any) -> None:
    result = made("max", 0, 0.9, arrays=arrays())
    figure = figures.map_parts_of_cell(result, made.record(result))
    detail, pattern, whole = images(figure)
    assert array_of(detail).shape == (16, 16)
    assert "16 x 16 px" in detail.get_title()
    # The middle of 20 px starts at px 2, which is phase 0 again.
    np.testing.assert_allclose(array_of(detail)[:2, :2], PHASES - 1.1)
    assert detail.images[0].get_extent() == [1.5, 17.5, 17.5, 1.5]
    assert texts(pattern) == ["1.00", "1.20", "0.90", "1.30"]
    for axes, reach in ((detail, 0.2), (pattern, 0.2), (whole, 5)):
        assert axes.images[0].get_clim() == pytest.approx((-reach, reach))
    assert array_of(whole).shape == (20, 20)
    bars = [axes.get_ylabel() for axes in figure.axes if not axes.images]
    assert bars == ["logit deviations"] * 2


def test_a_map_without_pooling_has_one_phase(made: Any) -> None:
    result = made("none", 0, 0.9, arrays=arrays(np.array([[3.0]])))
    detail, pattern, _ = images(figures.map_parts_of_cell(result, made.record(result)))
    assert texts(pattern) == ["3.00"]
    assert not array_of(detail).any()
    assert detail.images[0].get_clim() == (-1, 1)


def test_parts_are_drawn_of_groups_that_have_them(made: Any) -> None:
    results = [
        made("max", 0, 0.1, learned=False, arrays=arrays()),
        made("max", 1, 0.9, arrays=arrays(2 * PHASES)),
        made("avg", 0, 0.2, learned=False, arrays=arrays(3 * PHASES)),
        made("max", 0, 0.8, dataset="photos"),
    ]
    figure = figures.map_parts(made.scene(results))
    assert figure is not None
    # The data set does not tell apart what is drawn.
    assert written(figure) == ["max\nseed 1", "avg\nseed 0\nnot learned"]
    assert [text.get_color() for text in figure.texts] == ["#000000", GREY]
    assert len(images(figure)) == 6
    assert [array_of(images(figure)[index])[0, 0] for index in (1, 4)] == pytest.approx([-0.2, -0.3])
    assert figures.map_parts(made.scene(results[3:])) is None
    with pytest.raises(KeyError):
        figures.map_parts_of_cell(results[3], made.record(results[3]))


def moved(l2: float) -> dict[str, pd.DataFrame]:
    """Return a table of 3 stages and 2 shifts; the l2 of stage k under shift (0, d) is l2 + k + d."""
    rows = [
        {"stage": f"net.{name}", "depth": k, "dy": 0, "dx": d, "l2": l2 + k + d, "cosine": 0.1 * k, "aligned": 0.0}
        for k, name in enumerate(("conv", "pool", "head"))
        for d in (1, 2)
    ]
    return {"sensitivity": pd.DataFrame(rows)}


def test_sensitivity_of_one_network(made: Any) -> None:
    result = made("max", 0, 0.9, tables=moved(0.0))
    figure = figures.sensitivity_of_cell(result, made.record(result))
    l2, cosine, aligned = figure.axes
    assert [line.get_ydata().tolist() for line in l2.get_lines()] == [[1, 2, 3], [2, 3, 4]]  # type: ignore[union-attr]
    assert len(cosine.get_lines()) == len(aligned.get_lines()) == 2
    assert [text.get_text() for text in l2.get_xticklabels()] == ["conv", "pool", "head"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["(0, 1) px", "(0, 2) px"]


def test_sensitivity_of_all_seeds(made: Any) -> None:
    results = [
        *(made("max", seed, 0.9, dataset="a", tables=moved(float(seed % 2))) for seed in range(4)),
        made("blur", 0, 0.9, dataset="a", tables=moved(10.0)),
        made("max", 0, 0.9, dataset="b", tables=moved(0.0)),
        made("max", 0, 0.9, dataset="c"),
    ]
    figure = figures.sensitivity(made.scene(results))
    assert figure is not None
    assert written(figure) == ["a", "b"]
    assert len(figure.axes) == 6
    line = next(line for line in figure.axes[0].get_lines() if line.get_color() == PALETTE[0])
    assert np.asarray(line.get_xdata()).tolist() == [0, 50, 100]
    # Means over the two shifts (1.5 + depth) and over the seeds (0.5 more).
    assert np.asarray(line.get_ydata()).tolist() == [2, 3, 4]
    # One interval: of the pool with four seeds.
    assert len(figure.axes[0].collections) == 1
    # Every data set has its own scale.
    assert figure.axes[0].get_ylim()[1] > 13 > 4 > figure.axes[3].get_ylim()[1] > 3.5


def test_sensitivity_without_tables(made: Any) -> None:
    result = made("max", 0, 0.9)
    assert figures.sensitivity(made.scene([result])) is None
    with pytest.raises(FileNotFoundError):
        figures.sensitivity_of_cell(result, made.record(result))
