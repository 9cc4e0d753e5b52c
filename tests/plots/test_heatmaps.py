"""Metrics as coloured tables: what stands in them, and which tables share colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.analysis.statistics import anytime_interval
from poolbench.core import Result
from poolbench.plots.heatmaps import metric_tables
from poolbench.plots.style import GREY


def heatmaps(made: Any, results: list[Result]) -> Figure:
    figure = metric_tables(made.scene(results), ("accuracy", "spread"), columns="padding", panels=("variant",))
    assert figure is not None
    return figure


def images(figure: Figure) -> list[Axes]:
    """Return the axes that hold a heatmap, in order; colour bars hold none."""
    return [axes for axes in figure.axes if axes.images]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def array_of(axes: Axes) -> np.ndarray[Any, Any]:
    return np.asarray(axes.images[0].get_array())


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def padded(made: Any, pool: str, padding: str, accuracy: float, **changes: Any) -> list[Result]:
    model = {"width": 8, "padding": padding}
    return [made(pool, seed, accuracy + 0.02 * (seed % 2), model=model, **changes) for seed in range(4)]


def test_heatmap_has_one_panel_per_metric_and_setting(made: Any) -> None:
    results = [
        *padded(made, "max", "zeros", 0.50, variant="plain"),
        *padded(made, "max", "circular", 0.60, variant="plain"),
        *padded(made, "blur", "zeros", 0.90, variant="plain"),
        *padded(made, "max", "circular", 0.70, variant="shifted"),
        # Without the field that makes the columns.
        made("avg", 0, 0.3, variant="plain"),
    ]
    figure = heatmaps(made, results)
    # No group has the metric "spread".
    plain, shifted = images(figure)
    assert written(figure) == ["accuracy\u00a0↑", "plain", "shifted"]
    assert [text.get_text() for text in plain.get_xticklabels()] == ["zeros", "circular"]
    assert [text.get_text() for text in plain.get_yticklabels()] == ["max", "blur"]
    assert [text.get_text() for text in shifted.get_yticklabels()] == ["max"]
    half = anytime_interval([0.5, 0.52, 0.5, 0.52]).half_width
    assert texts(plain) == [f"{mean:.3f} ± {half:.3f}" for mean in (0.51, 0.61, 0.91)]
    np.testing.assert_allclose(array_of(plain), [[0.51, 0.61], [0.91, np.nan]])
    assert plain.images[0].get_clim() == shifted.images[0].get_clim()
    # Dark cells are written on in white.
    assert [text.get_color() for text in plain.texts] == ["black", "black", "white"]


def test_data_sets_have_colours_of_their_own(made: Any) -> None:
    results = [
        made(pool, 0, accuracy + better, dataset=name, variant=variant, model={"padding": "zeros"})
        for name, accuracy in (("easy", 0.9), ("hard", 0.5))
        for variant, better in (("plain", 0.0), ("shifted", 0.02))
        for pool in ("max", "blur")
    ]
    panels = images(heatmaps(made, results))
    highest = [panel.images[0].get_clim()[1] for panel in panels]
    assert highest == pytest.approx([0.92, 0.92, 0.52, 0.52])


def test_heatmap_leaves_white_what_has_not_learned(made: Any) -> None:
    results = [*padded(made, "max", "zeros", 0.9), *padded(made, "max", "circular", 0.1, learned=False)]
    (panel,) = images(heatmaps(made, results))
    assert np.isnan(array_of(panel)).tolist() == [[False, True]]
    assert texts(panel)[1].endswith("not learned")
    assert panel.texts[1].get_color() == GREY
    assert panel.images[0].get_clim()[0] > 0.1
    alone = heatmaps(made, results[4:])
    assert np.isnan(array_of(images(alone)[0])).all()


def test_heatmap_needs_the_field_of_its_columns(made: Any) -> None:
    assert metric_tables(made.scene([made("max", 0, 0.9)]), ("accuracy",), columns="padding") is None
