"""The figures of the rotation task: the numbers in them, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from poolbench.core import Metric, Result
from poolbench.plots.style import GREY, PALETTE, to_png
from poolbench_tasks.rotation_variance import figures, rotation_variance
from poolbench_tasks.rotation_variance.figures.by_angle import around
from poolbench_tasks.rotation_variance.figures.by_unit import sorted_units

LAYERS = ("net.conv1", "net.relu1", "net.fc")


@pytest.fixture
def turned(made: Any) -> list[Result]:
    """Two ways of training with four seeds each."""
    return [
        made("max", seed, accuracy + seed / 100, variant=variant, tables=tables(accuracy),
             metrics={"accuracy_rotated": 0.5})
        for variant, accuracy in (("plain", 0.4), ("rotated", 0.8))
        for seed in range(4)
    ]  # fmt: skip


def tables(level: float) -> dict[str, pd.DataFrame]:
    """Return the tables of one network of 3 layers, written by hand; V by depth is ``level``."""
    depths = list(enumerate(LAYERS))
    networks = (("trained", level), ("random", 0.9))
    rows = {
        "layers": [
            {"network": network, "depth": depth, "layer": layer, "aggregation": aggregation, "TV": 10.0**depth,
             "SV": 1.0, "V": v, "V_stratified": v}
            for network, v in networks
            for depth, layer in depths
            for aggregation in ("mean", "max", "none", "none, turned back")
        ],
        "units": [
            {"depth": depth, "layer": layer, "aggregation": "mean", "unit": unit, "V": v}
            for depth, layer in depths
            for unit, v in enumerate([0.3, np.nan, 0.1, np.inf])
        ],
        "classes": [
            {"depth": depth, "layer": layer, "aggregation": "mean", "class": name, "V": depth + place / 10}
            for depth, layer in depths
            for place, name in enumerate(("cat", "dog"))
        ],
        "angles": [
            {"network": network, "merged": False, "angle": angle, "class": "all", "accuracy": level * angle / 270,
             "consistency": 1.0, "worst": 0.1}
            for network in ("trained", "c4")
            for angle in (0.0, 90.0, 180.0, 270.0)
        ],
        "lee": [
            {"network": network, "depth": depth, "layer": layer, "LEE_relative": v}
            for network, v in networks
            for depth, layer in depths
        ],
        "cka": [
            {"network": network, "depth": depth, "layer": layer, "angle": angle, "CKA": 1 - depth / 10,
             "null": -0.1}
            for network, _ in networks
            for depth, layer in depths
            for angle in (0.0, 90.0, 180.0, 270.0)
        ],
    }  # fmt: skip
    return {name: pd.DataFrame(entries) for name, entries in rows.items()}


def drawn(axes: Axes) -> dict[tuple[str, str], list[float]]:
    return {
        (str(line.get_color()), str(line.get_linestyle())): np.asarray(line.get_ydata(), float).tolist()
        for line in axes.get_lines()
    }


def summary(made: Any, results: list[Result], name: str) -> Figure:
    figure = getattr(figures, name)(made.scene(results))
    assert isinstance(figure, Figure)
    return figure


def of_cell(made: Any, result: Result, name: str) -> Figure:
    figure = getattr(figures, f"{name}_of_cell")(result, made.record(result))
    assert isinstance(figure, Figure)
    return figure


def test_every_figure_is_drawn_for_a_cell_and_for_all(made: Any, turned: list[Result]) -> None:
    scene = made.scene(turned)
    scene = replace(scene, metrics=(*scene.metrics, Metric("accuracy_rotated", "accuracy, rotated")))
    for figure in rotation_variance().figures:
        assert figure.draw_summary is not None
        assert figure.draw_summary(scene) is not None, figure.name
        if figure.name in ("accuracy", "learning_curves"):  # of several cells; MLflow draws curves of one
            assert figure.draw_cell is None
        else:
            assert figure.draw_cell is not None
            picture = figure.draw_cell(turned[0], made.record(turned[0]))
            assert picture is not None
            assert to_png(picture, 50).startswith(b"\x89PNG"), figure.name


def test_curves_over_depth_say_how_a_network_was_trained(made: Any, turned: list[Result]) -> None:
    tv, _, v, _ = summary(made, turned, "layers_of_means").axes
    lines = drawn(v)
    assert lines[PALETTE[0], "--"] == pytest.approx([0.4] * 3)
    assert lines[PALETTE[1], "-"] == pytest.approx([0.8] * 3)
    assert lines[GREY, "-"] == pytest.approx([0.9] * 3)
    assert np.asarray(v.get_lines()[0].get_xdata()).tolist() == [0, 50, 100]
    assert tv.get_yscale() == "log"
    labels = [text.get_text() for text in tv.get_yticklabels()]
    assert "10" in labels
    assert not any("$" in label for label in labels)
    tv.set_ylim(1e-5, 1)
    assert {"10⁻⁴", "0.01", "1"} <= {text.get_text() for text in tv.get_yticklabels()}


def test_units_are_sorted_with_dead_ones_on_top() -> None:
    table = pd.DataFrame({"depth": 0, "layer": ["a.b"] * 4, "V": [0.3, np.nan, 0.1, 0.2]})
    grid, names = sorted_units(table)
    assert names == ["b"]
    assert grid[:, 0].tolist()[:45] == [0.1] * 15 + [0.2] * 15 + [0.3] * 15
    assert np.isnan(grid[45:, 0]).all()


def test_classes_by_layers(made: Any, turned: list[Result]) -> None:
    axes = of_cell(made, turned[0], "classes").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["conv1", "relu1", "fc"]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[0, 1, 2], [0.1, 1.1, 2.1]])


def test_angles_go_around(made: Any, turned: list[Result]) -> None:
    assert around({0.0: [1.0], 90.0: [2.0], 180.0: [3.0], 270.0: [4.0]}) == {
        0.0: [1.0], 90.0: [2.0], -180.0: [3.0], -90.0: [4.0], 180.0: [3.0],
    }  # fmt: skip
    flat, polar = summary(made, turned, "angles").axes
    assert isinstance(polar, PolarAxes)
    assert drawn(flat)[PALETTE[1], "-"] == pytest.approx([0.8 * part / 3 for part in (2, 3, 0, 1, 2)])
    # A circle is closed.
    assert drawn(polar)[PALETTE[0], "--"] == pytest.approx([0.4 * part / 3 for part in (0, 1, 2, 3, 0)])


def test_similarity_has_a_line_per_layer(made: Any, turned: list[Result]) -> None:
    panels = of_cell(made, turned[0], "cka").axes[:2]
    assert [panel.get_title() for panel in panels] == ["trained", "random weights"]
    lines = panels[0].get_lines()
    values = [np.asarray(line.get_ydata(), float).tolist() for line in lines]
    # Other images in grey, below the layers, and within the panel.
    assert [line.get_color() for line in lines[:3]] == [GREY] * 3
    assert values == [[-0.1] * 5] * 3 + [pytest.approx([1 - depth / 10] * 5) for depth in range(3)]
    assert panels[0].get_ylim()[0] < -0.1


def test_tables_of_an_older_version_are_left_out(made: Any) -> None:
    old = pd.DataFrame({"depth": [0], "layer": ["a"], "V": [1.0]})
    result = made("max", 0, 0.5, tables={"layers": old, "units": old, "angles": old, "cka": old, "lee": old})
    for name in ("angles", "layers_of_means", "units", "classes", "lee", "cka"):
        assert getattr(figures, name)(made.scene([result])) is None
        with pytest.raises((KeyError, FileNotFoundError)):
            of_cell(made, result, name)
