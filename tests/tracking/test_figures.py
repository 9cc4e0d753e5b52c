"""The driver: which figures of a benchmark are drawn, what is left out, and how figures become files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from poolbench import registry
from poolbench.core import Cell, Result
from poolbench.plots.style import to_png, to_svg
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark, Figure, deferred
from poolbench_tracking.figures import MOST_GROUPS, cell_figures, summary_figures
from poolbench_tracking.report import write_report

Store = Callable[..., Result]
StoreAll = Callable[[Mapping[str, Sequence[float]]], list[Result]]


def test_figures_of_one_cell(study: Benchmark, store: Store, ledger: Ledger) -> None:
    result = store("max", 0, 0.6)
    figures = cell_figures(study, result, ledger.record(result.cell.id), 9)
    # Intervals and curves of all seeds need several cells.
    assert list(figures) == ["map", "layers"]
    assert figures["map"].axes[0].images[0].get_array().shape == (6, 8)  # type: ignore[union-attr]
    (line,) = figures["layers"].axes[0].get_lines()
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.6, 0.7, 0.8])


def test_figures_of_all_cells(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    figures = summary_figures(study, store_all({"max": [0.6, 0.7], "avg": [0.3, 0.4]}), ledger.record)
    assert list(figures) == ["curves", "loss", "map", "layers", "intervals"]
    # The style applies while drawing.
    assert not figures["map"].axes[0].spines["top"].get_visible()


def test_a_cell_without_data_has_no_figures(study: Benchmark, ledger: Ledger, cell_of: Callable[..., Cell]) -> None:
    cell = cell_of()
    record = ledger.record(cell.id)
    record.begin(cell, {})
    record.append("failed", reason="no luck", traceback="")
    assert cell_figures(study, ledger.result(cell), record, 9) == {}


def test_nothing_to_sum_up(study: Benchmark, ledger: Ledger, cell_of: Callable[..., Cell]) -> None:
    assert summary_figures(study, [], ledger.record) == {}
    assert summary_figures(study, [Result(cell_of(), "failed")], ledger.record) == {}


def test_too_many_groups_are_not_drawn(
    study: Benchmark, store_all: StoreAll, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = store_all({"max": [0.6], "avg": [0.3]})
    assert MOST_GROUPS > 100
    monkeypatch.setattr("poolbench_tracking.figures.MOST_GROUPS", 2)
    assert summary_figures(study, results, ledger.record)
    monkeypatch.setattr("poolbench_tracking.figures.MOST_GROUPS", 1)
    assert summary_figures(study, results, ledger.record) == {}


@pytest.mark.parametrize("error", [FileNotFoundError, KeyError])
def test_a_figure_of_a_cell_without_its_data_is_left_out(
    study: Benchmark, store: Store, ledger: Ledger, error: type[Exception]
) -> None:
    def raising(*arguments: object) -> None:
        raise error("absent")

    result = store("max", 0, 0.6)
    benchmark = replace(study, figures=(Figure("absent", "Absent", "", None, raising), *study.figures))
    assert list(cell_figures(benchmark, result, ledger.record(result.cell.id), 9)) == ["map", "layers"]


def test_a_drawing_function_that_does_not_exist_raises(study: Benchmark, store: Store, ledger: Ledger) -> None:
    draw = deferred("poolbench.plots.curves")
    benchmark = replace(study, figures=(Figure("typo", "Typo", "", draw.lerning_curves, draw.lerning_curves),))
    result = store("max", 0, 0.6)
    with pytest.raises(AttributeError, match=r"poolbench\.plots\.curves.* 'lerning_curves'"):
        summary_figures(benchmark, [result], ledger.record)
    with pytest.raises(AttributeError, match="lerning_curves"):
        cell_figures(benchmark, result, ledger.record(result.cell.id), 9)


def test_a_figure_that_fails_costs_itself_and_not_the_report(
    study: Benchmark, store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(scene: object) -> None:
        raise KeyError("<new>")

    def blank(scene: object) -> str:
        return "no figure"

    curves = study.figures[0]
    broken = (Figure("a", "Raising", "First.", raising), curves, Figure("b", "Blank", "Last.", blank))  # type: ignore[arg-type]
    benchmark = replace(study, figures=broken)
    monkeypatch.setitem(registry.benchmarks._entries, "study", registry.Entry("study", lambda: benchmark))
    store("max", 0, 0.6)
    page = write_report(ledger, ledger.folder / "report").read_text()
    assert page.count("<svg") == 1
    assert "This figure could not be drawn: KeyError: &#39;&lt;new&gt;&#39;" in page
    assert "This figure could not be drawn: AttributeError" in page


@pytest.mark.parametrize(("most", "said"), [(1, True), (2, False)])
def test_the_report_says_that_figures_are_missing_only_for_too_many_groups(
    study: Benchmark, store_all: StoreAll, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, most: int, said: bool
) -> None:
    benchmark = replace(study, figures=())
    monkeypatch.setitem(registry.benchmarks._entries, "study", registry.Entry("study", lambda: benchmark))
    monkeypatch.setattr("poolbench_tracking.figures.MOST_GROUPS", most)
    store_all({"max": [0.6], "avg": [0.3]})
    page = write_report(ledger, ledger.folder / "report").read_text()
    assert ("Not drawn: too many configurations" in page) == said


TASK = '''"""A task whose figure draws a column that nobody else knows."""

from poolbench.task import Figure, deferred

FIGURES = (
    Figure("odd", "Odd", "Its *caption*.", deferred("odd_task.figures").odd, deferred("odd_task.figures").odd_of_cell),
)
'''
FIGURES = '''"""Its drawing functions."""

from matplotlib.figure import Figure


def odd(scene):
    figure = Figure()
    for group in scene.groups:
        for table in scene.tables(group, "odd", ("oddity",)):
            figure.add_subplot().plot(table["oddity"])
    return figure


def odd_of_cell(result, record):
    figure = Figure()
    figure.add_subplot().plot(record.table("odd")["oddity"])
    return figure
'''


def test_a_task_with_its_own_figure_needs_one_folder_only(
    study: Benchmark, store: Store, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    folder = tmp_path / "odd_task"
    folder.mkdir()
    (folder / "__init__.py").write_text(TASK)
    (folder / "figures.py").write_text(FIGURES)
    monkeypatch.syspath_prepend(tmp_path)
    import odd_task  # type: ignore[import-not-found]

    # Declaring figures imports none of the modules that draw them.
    assert "odd_task.figures" not in sys.modules
    benchmark = replace(study, figures=odd_task.FIGURES)
    monkeypatch.setitem(registry.benchmarks._entries, "study", registry.Entry("study", lambda: benchmark))
    result = store("max", 0, 0.6, tables={"odd": pd.DataFrame({"oddity": [1.0, 3.0, 2.0]})})
    for figures in (
        summary_figures(benchmark, [result], ledger.record),
        cell_figures(benchmark, result, ledger.record(result.cell.id), 9),
    ):
        (line,) = figures["odd"].axes[0].get_lines()
        assert np.asarray(line.get_ydata()).tolist() == [1, 3, 2]
    page = write_report(ledger, ledger.folder / "report").read_text()
    assert "<b>Odd.</b> Its *caption*." in page
    assert page.count("<svg") == 1


def test_titles_and_captions_are_those_of_the_figures(study: Benchmark, store: Store, ledger: Ledger) -> None:
    store("max", 0, 0.6)
    page = write_report(ledger, ledger.folder / "report").read_text()
    assert "<b>Accuracy.</b> Mean over &lt;b&gt;seeds&lt;/b&gt;." in page
    assert "<b>Intervals.</b> Large: means." in page


def test_svg_is_one_element_that_can_be_embedded(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [store("max", 0, 0.6)]
    figures = summary_figures(study, results, ledger.record)
    elements = {name: to_svg(figure) for name, figure in figures.items()}
    again = {name: to_svg(figure) for name, figure in summary_figures(study, results, ledger.record).items()}
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
    for figure in cell_figures(study, result, ledger.record(result.cell.id), 9).values():
        image = Image.open(BytesIO(to_png(figure, dpi=100)))
        assert image.size == pytest.approx(tuple(100 * figure.get_size_inches()), abs=1)
