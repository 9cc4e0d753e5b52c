"""The figures of the rotation task: the numbers in them, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.projections.polar import PolarAxes

from poolbench.core import Figure, Result
from poolbench.plots import cell_figures, summary_figures, to_png
from poolbench.plots.angles import around
from poolbench.plots.parts import GREY, PALETTE
from poolbench.plots.units import sorted_units
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark

LAYERS = ("net.conv1", "net.relu1", "net.fc")
FIGURES = (
    Figure("bars", "bars", "Bars", ("accuracy", "spread"), colour="variant", label="accuracy"),
    Figure("depth", "depth", "Depth", ("deep:mean", "TV", "V"), colour="variant"),
    Figure("units", "units", "Units", ("units:mean", "V"), colour="", label="V"),
    Figure("classes", "classes", "Classes", ("classes:mean", "V"), colour="", label="V"),
    Figure("angles", "angles", "Angles", ("angles",), colour="variant", label="accuracy"),
    Figure("cka", "similarity", "CKA", ("cka",), colour="", label="CKA"),
)


@pytest.fixture
def turned(study: Benchmark, store: Callable[..., Result], ledger: Ledger) -> tuple[Benchmark, list[Result]]:
    """Two ways of training with three seeds each, their tables written by hand."""
    results = []
    for variant, accuracy in (("plain", 0.4), ("rotated", 0.8)):
        for seed in range(3):
            result = store("max", seed, accuracy + seed / 100, variant=variant, metrics={"spread": 0.5})
            write_tables(ledger, result, accuracy)
            results.append(result)
    return replace(study, figures=FIGURES), results


def write_tables(ledger: Ledger, result: Result, level: float) -> None:
    folder = ledger.record(result.cell.id).folder
    depths = list(enumerate(LAYERS))
    networks = (("trained", level), ("random", 0.9))
    tables = {
        "deep": [
            {"network": network, "depth": depth, "layer": layer, "aggregation": aggregation, "TV": 10.0**depth, "V": v}
            for network, v in networks
            for depth, layer in depths
            for aggregation in ("mean", "max")
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
        "cka": [
            {"network": network, "depth": depth, "layer": layer, "angle": angle, "CKA": 1 - depth / 10}
            for network, _ in networks
            for depth, layer in depths
            for angle in (0.0, 90.0, 180.0, 270.0)
        ],
    }  # fmt: skip
    for name, rows in tables.items():
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")


def drawn(axes: Axes) -> dict[tuple[str, str], list[float]]:
    return {
        (str(line.get_color()), str(line.get_linestyle())): np.asarray(line.get_ydata(), float).tolist()
        for line in axes.get_lines()
    }


def test_every_figure_is_drawn_for_a_cell_and_for_all(turned: tuple[Benchmark, list[Result]], ledger: Ledger) -> None:
    benchmark, results = turned
    assert list(summary_figures(benchmark, results, ledger)) == [figure.name for figure in FIGURES]
    figures = cell_figures(benchmark, results[0], ledger.record(results[0].cell.id))
    # Bars need several cells.
    assert list(figures) == [figure.name for figure in FIGURES[1:]]
    for figure in figures.values():
        assert to_png(figure, 50).startswith(b"\x89PNG")


def test_bars_are_means(turned: tuple[Benchmark, list[Result]], ledger: Ledger) -> None:
    benchmark, results = turned
    (axes,) = summary_figures(benchmark, results, ledger)["bars"].axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.41, 0.5, 0.81, 0.5])  # type: ignore[attr-defined]
    assert [text.get_text() for text in axes.texts] == [".410", ".500", ".810", ".500"]


def test_curves_over_depth_say_how_a_network_was_trained(
    turned: tuple[Benchmark, list[Result]], ledger: Ledger
) -> None:
    benchmark, results = turned
    tv, v = summary_figures(benchmark, results, ledger)["depth"].axes
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
    grid, names = sorted_units(table, "V")
    assert names == ["b"]
    assert grid[:, 0].tolist()[:45] == [0.1] * 15 + [0.2] * 15 + [0.3] * 15
    assert np.isnan(grid[45:, 0]).all()


def test_classes_by_layers(turned: tuple[Benchmark, list[Result]], ledger: Ledger) -> None:
    benchmark, results = turned
    axes = cell_figures(benchmark, results[0], ledger.record(results[0].cell.id))["classes"].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["conv1", "relu1", "fc"]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[0, 1, 2], [0.1, 1.1, 2.1]])


def test_angles_go_around(turned: tuple[Benchmark, list[Result]], ledger: Ledger) -> None:
    assert around({0.0: [1.0], 90.0: [2.0], 180.0: [3.0], 270.0: [4.0]}) == {
        0.0: [1.0], 90.0: [2.0], -180.0: [3.0], -90.0: [4.0], 180.0: [3.0],
    }  # fmt: skip
    benchmark, results = turned
    flat, polar = summary_figures(benchmark, results, ledger)["angles"].axes
    assert isinstance(polar, PolarAxes)
    assert drawn(flat)[PALETTE[1], "-"] == pytest.approx([0.8 * part / 3 for part in (2, 3, 0, 1, 2)])
    # A circle is closed.
    assert drawn(polar)[PALETTE[0], "--"] == pytest.approx([0.4 * part / 3 for part in (0, 1, 2, 3, 0)])


def test_similarity_has_a_line_per_layer(turned: tuple[Benchmark, list[Result]], ledger: Ledger) -> None:
    benchmark, results = turned
    panels = cell_figures(benchmark, results[0], ledger.record(results[0].cell.id))["cka"].axes[:2]
    assert [panel.get_title() for panel in panels] == ["trained", "random weights"]
    values = [np.asarray(line.get_ydata(), float).tolist() for line in panels[0].get_lines()]
    assert values == [pytest.approx([1 - depth / 10] * 5) for depth in range(3)]


def test_tables_of_an_older_version_are_left_out(
    study: Benchmark, store: Callable[..., Result], ledger: Ledger
) -> None:
    result = store("max", 0, 0.5)
    pd.DataFrame({"depth": [0], "layer": ["a"], "V": [1.0]}).to_parquet(
        ledger.record(result.cell.id).folder / "deep.parquet"
    )
    benchmark = replace(study, figures=FIGURES[1:])
    assert summary_figures(benchmark, [result], ledger) == {}
    assert cell_figures(benchmark, result, ledger.record(result.cell.id)) == {}
