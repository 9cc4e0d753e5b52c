"""What is drawn: the numbers in the figures, what is left out, and how figures become files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from poolbench.analysis.statistics import t_interval
from poolbench.core import Cell, Result
from poolbench.plots import cell_figures, summary_figures, to_png, to_svg
from poolbench.plots.parts import GREY, PALETTE
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark

Store = Callable[..., Result]
StoreAll = Callable[[Mapping[str, Sequence[float]]], list[Result]]


def lines(axes: Axes) -> dict[tuple[str, str], list[float]]:
    """Return {(colour, dashes): y values} of the lines that were drawn."""
    return {
        (str(line.get_color()), str(line.get_linestyle())): np.asarray(line.get_ydata(), float).tolist()
        for line in axes.get_lines()
    }


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_figures_of_one_cell(study: Benchmark, store: Store, ledger: Ledger) -> None:
    result = store("max", 0, 0.6)
    figures = cell_figures(study, result, ledger.record(result.cell.id))
    # Intervals need several cells, and one figure holds all curves.
    assert list(figures) == ["curves", "map", "layers"]
    accuracy, loss = figures["curves"].axes
    assert titles(figures["curves"]) == ["accuracy", "loss"]
    assert lines(accuracy) == {(GREY, "--"): [0.6] * 3, (PALETTE[0], "-"): pytest.approx([0.2, 0.4, 0.6])}
    assert lines(loss) == {(GREY, "--"): [1.0] * 3, (PALETTE[0], "-"): pytest.approx([0.4] * 3)}
    heatmap = figures["map"].axes[0]
    assert heatmap.images[0].get_clim() == (0, 1)
    assert heatmap.images[0].get_array().shape == (6, 8)  # type: ignore[union-attr]
    assert heatmap.get_xlabel().endswith("px")
    layers = figures["layers"].axes[0]
    found = lines(layers)
    assert found[PALETTE[0], "-"] == pytest.approx([0.6, 0.7, 0.8])
    assert found[GREY, "-"] == pytest.approx([0.7, 0.8, 0.9])


def test_a_cell_without_data_has_no_figures(study: Benchmark, ledger: Ledger, cell_of: Callable[..., Cell]) -> None:
    cell = cell_of()
    record = ledger.record(cell.id)
    record.begin(cell, {})
    record.append("failed", reason="no luck", traceback="")
    assert cell_figures(study, ledger.result(cell), record) == {}


def test_nothing_to_sum_up(study: Benchmark, ledger: Ledger, cell_of: Callable[..., Cell]) -> None:
    assert summary_figures(study, [], ledger) == {}
    assert summary_figures(study, [Result(cell_of(), "failed")], ledger) == {}


def test_curves_are_means_with_t_bands(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    results = store_all({"max": [0.6, 0.7, 0.9], "avg": [0.3, 0.3, 0.3]})
    figure = summary_figures(study, results, ledger)["curves"]
    (axes,) = figure.axes
    found = lines(axes)
    mean = 2.2 / 3
    assert found[PALETTE[0], "-"] == pytest.approx([mean / 3, 2 * mean / 3, mean])
    assert found[PALETTE[0], "--"] == pytest.approx([mean] * 3)
    assert found[PALETTE[1], "-"] == pytest.approx([0.1, 0.2, 0.3])
    assert legend(figure) == ["max", "avg", "training", "validation"]
    # Bands of the validation lines only: one per pool.
    bands = [
        np.asarray(band.get_paths()[0].vertices, float) for band in axes.collections if isinstance(band, PolyCollection)
    ]
    assert len(bands) == 2
    last = bands[0][bands[0][:, 0] == 3][:, 1]
    interval = t_interval([0.6, 0.7, 0.9])
    assert (min(last), max(last)) == pytest.approx((interval.low, interval.high))
    # The axis shows the seeds, whatever the bands reach.
    assert axes.get_ylim()[1] < 1 < interval.high


def test_configurations_never_share_a_line(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [
        store(pool, 0, value, dataset=dataset, model={"width": width})
        for pool, dataset, width, value in (
            ("max", "a", 8, 0.1), ("max", "a", 16, 0.2), ("max", "b", 8, 0.3), ("avg", "b", 8, 0.4),
        )
    ]  # fmt: skip
    figure = summary_figures(study, results, ledger)["loss"]
    assert titles(figure) == ["a · width=8", "a · width=16", "b · width=8"]
    drawn = [sorted(values[0] for values in lines(axes).values()) for axes in figure.axes]
    assert drawn == [pytest.approx([0.9]), pytest.approx([0.8]), pytest.approx([0.6, 0.7])]


def test_one_seed_has_a_line_without_a_band(study: Benchmark, store: Store, ledger: Ledger) -> None:
    figure = summary_figures(study, [store("max", 0, 0.6)], ledger)["curves"]
    assert not figure.axes[0].collections
    assert lines(figure.axes[0])[PALETTE[0], "-"] == pytest.approx([0.2, 0.4, 0.6])


def test_maps_show_the_first_network_that_has_learned(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [
        store("max", 0, 0.1, learned=False, metrics={"flips": 0.9}),
        store("max", 1, 0.6, metrics={"flips": 0.125}),
        store("avg", 0, 0.2, learned=False),
    ]
    figure = summary_figures(study, results, ledger)["map"]
    assert titles(figure) == ["max\nseed 1, flips 12.5 %", "avg\nseed 0, not learned"]
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert [float(image.get_array().max()) for image in images] == pytest.approx([0.6, 0.2])  # type: ignore[union-attr]
    assert {image.get_clim() for image in images} == {(0, 1)}
    assert figure.axes[-1].get_ylabel() == "P"


def test_layers_lie_on_a_relative_depth(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [
        store("max", seed, value, variant=variant)
        for variant, values in (("plain", (0.4, 0.6)), ("rotated", (0.1, 0.1)))
        for seed, value in enumerate(values)
    ]
    figure = summary_figures(study, results, ledger)["layers"]
    (axes,) = figure.axes
    assert np.asarray(axes.get_lines()[0].get_xdata()).tolist() == [0, 50, 100]
    # Means over seeds of the aggregation "mean"; the plain networks are dashed.
    assert lines(axes)[PALETTE[0], "--"] == pytest.approx([0.5, 0.6, 0.7])
    assert lines(axes)[PALETTE[1], "-"] == pytest.approx([0.1, 0.2, 0.3])


def test_intervals_say_what_has_not_learned(
    study: Benchmark, store: Store, store_all: StoreAll, ledger: Ledger
) -> None:
    results = store_all({"max": [0.7, 0.8, 0.9]})
    results += [store("avg", 0, 0.5), store("avg", 1, 0.1, learned=False)]
    figure = summary_figures(study, results, ledger)["intervals"]
    accuracy, loss = figure.axes
    assert [text.get_text() for text in accuracy.get_yticklabels()] == ["max", "avg (1 of 2 not learned)"]
    assert accuracy.get_xlabel() == "accuracy\u00a0↑"
    assert loss.get_xlabel() == "loss\u00a0↓"
    by_length = {
        len(np.asarray(line.get_xdata())): line for line in accuracy.get_lines() if line.get_color() == PALETTE[0]
    }
    assert np.asarray(by_length[3].get_xdata()).tolist() == [0.7, 0.8, 0.9]
    interval = t_interval([0.7, 0.8, 0.9])
    assert np.asarray(by_length[2].get_xdata()).tolist() == [interval.low, interval.high]
    hollow = [line for line in accuracy.get_lines() if to_hex(line.get_markerfacecolor()) == "#ffffff"]
    assert [np.asarray(line.get_xdata()).tolist() for line in hollow] == [[pytest.approx(0.3)]]
    assert {line.get_color() for line in hollow} == {GREY}


def test_many_values_stay_apart(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [store(f"p{index:02}", 0, 0.5 + index / 100) for index in range(12)]
    figure = summary_figures(study, results, ledger)["loss"]
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 12


def test_svg_is_one_element_that_can_be_embedded(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [store("max", 0, 0.6)]
    figures = summary_figures(study, results, ledger)
    elements = {name: to_svg(figure) for name, figure in figures.items()}
    again = {name: to_svg(figure) for name, figure in summary_figures(study, results, ledger).items()}
    assert elements == again
    ids: list[str] = []
    for svg in elements.values():
        assert svg.startswith("<svg ")
        root = ElementTree.fromstring(svg)
        assert "height" not in root.attrib
        assert "viewBox" in root.attrib
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        referred = re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)
        assert set(referred) <= set(own)
        ids += own
        assert "metadata" not in svg
        assert "Verdana" in svg
    assert len(ids) == len(set(ids))
    assert "epoch</text>" in elements["curves"]
    assert "data:image/png" in elements["map"]


def test_png_is_an_image(study: Benchmark, store: Store, ledger: Ledger) -> None:
    result = store("max", 0, 0.6)
    for figure in cell_figures(study, result, ledger.record(result.cell.id)).values():
        image = Image.open(BytesIO(to_png(figure, dpi=100)))
        assert image.size == pytest.approx(tuple(100 * figure.get_size_inches()), abs=1)


def test_a_benchmark_may_draw_what_no_cell_has(study: Benchmark, store: Store, ledger: Ledger) -> None:
    absent = [replace(figure, sources=("absent", "V")) for figure in study.figures if figure.kind in ("map", "depth")]
    result = store("max", 0, 0.6)
    benchmark = replace(study, figures=absent)
    assert summary_figures(benchmark, [result], ledger) == {}
    assert cell_figures(benchmark, result, ledger.record(result.cell.id)) == {}
