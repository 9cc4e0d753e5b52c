"""Canvas maps: one network per group, all on one scale, and the overview of a map with its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.core import Result
from poolbench.plots.images import Array
from poolbench.plots.maps import Parts, map_overview, map_panels, single_map
from poolbench.plots.style import GREY


def parts(phases: Array, size: int = 20) -> Parts:
    """Return the parts of a map (size, size) whose border part is 5 in one corner and 0 elsewhere."""
    boundary = np.zeros((size, size))
    boundary[0, 0] = 5
    period = len(phases)
    return np.tile(phases - phases.mean(), (size // period, size // period)), boundary, phases


def images(figure: Figure) -> list[Axes]:
    """Return the axes that hold an image, in order; colour bars hold none."""
    return [axes for axes in figure.axes if axes.images]


def flips(result: Result) -> list[str]:
    return [f"flips {result.metrics['flips']}"] if "flips" in result.metrics else []


def test_a_single_map_has_the_scale_of_a_probability() -> None:
    axes = single_map(np.full((6, 8), 0.6), "P").axes[0]
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.images[0].get_array().shape == (6, 8)  # type: ignore[union-attr]
    assert axes.get_xlabel().endswith("px")


def test_maps_show_the_first_network_that_has_learned(made: Any) -> None:
    def arrays(value: float) -> dict[str, Array]:
        return {"map": np.full((6, 8), value)}

    results = [
        made("max", 0, 0.1, learned=False, metrics={"flips": 0.9}, arrays=arrays(0.1)),
        made("max", 1, 0.6, metrics={"flips": 0.125}, arrays=arrays(0.6)),
        made("avg", 0, 0.2, learned=False, arrays=arrays(0.2)),
        # Another data set without a map: nothing that tells apart what is drawn.
        made("max", 0, 0.8, dataset="photos"),
    ]
    figure = map_panels(made.scene(results), "map", ("pool",), "P", flips)
    assert figure is not None
    shown = images(figure)
    assert [axes.get_title() for axes in shown] == ["max\nseed 1, flips 0.125", "avg\nseed 0, not learned"]
    assert [axes.title.get_color() for axes in shown] == ["#000000", GREY]
    assert [float(axes.images[0].get_array().max()) for axes in shown] == pytest.approx([0.6, 0.2])  # type: ignore[union-attr]
    assert {axes.images[0].get_clim() for axes in shown} == {(0, 1)}
    assert figure.axes[-1].get_ylabel() == "P"
    assert map_panels(made.scene(results), "absent", ("pool",), "P", flips) is None


@pytest.mark.parametrize(
    ("values", "shown"), [((1.0, 1.004), ["1.0000", "1.0040"]), ((5.0, 5.0 + 1e-9), ["5.0000"] * 2)]
)
def test_phases_have_the_decimals_that_tell_them_apart(values: tuple[float, float], shown: list[str]) -> None:
    figure = map_overview(np.zeros((20, 20)), parts(np.array([values, values])), "P")
    assert [text.get_text() for text in images(figure)[2].texts][:2] == shown


def test_an_overview_is_the_map_and_its_parts() -> None:
    probability = np.full((20, 20), 0.4)
    figure = map_overview(probability, parts(np.array([[1.0, 1.2], [0.9, 1.3]])), "P(yes)")
    assert images(figure)[0].images[0].get_clim() == (0, 1)
    assert len(images(figure)) == 4
    alone = map_overview(probability, None, "P(yes)")
    assert len(images(alone)) == 1
    assert [axes.get_ylabel() for axes in alone.axes if not axes.images] == ["P(yes)"]
