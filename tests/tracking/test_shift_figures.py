"""What is drawn of shifts: parts of maps, scatter with residual, heatmaps, sensitivity; and mixed benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from poolbench.analysis.statistics import straight_line, t_interval
from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots import cell_figures, map_overview, summary_figures
from poolbench.plots.parts import GREY, PALETTE, WIDTH, panel_grid
from poolbench.runner.ledger import Ledger
from poolbench_tracking.report import KINDS

Store = Callable[..., Result]
PHASES = np.array([[1.0, 1.2], [0.9, 1.3]])


def arrays(phases: np.ndarray[Any, Any] = PHASES, size: int = 20) -> dict[str, np.ndarray[Any, Any]]:
    """Return the parts of a map (size, size) whose border part is 5 in one corner and 0 elsewhere."""
    period = len(phases)
    boundary = np.zeros((size, size))
    boundary[0, 0] = 5
    tiled = np.tile(phases - phases.mean(), (size // period, size // period))
    return {"phase": tiled, "boundary": boundary, "phases": phases}


def drawn_by(benchmark: Benchmark, *figures: Drawing) -> Benchmark:
    return replace(benchmark, figures=figures)


PARTS = Drawing("parts", "parts", "Parts", ("phase", "boundary", "phases"), panels=("pool",), label="unit")
SCATTER = Drawing("scatter", "scatter", "Scatter", ("accuracy", "spread"), panels=("dataset",))
HEATMAP = Drawing("heatmap", "heatmap", "Heatmap", ("accuracy", "spread"), panels=("variant",), columns="padding")
SENSITIVITY = Drawing("sensitivity", "sensitivity", "Sensitivity", ("sensitivity",), panels=("dataset",))


def images(figure: Figure) -> list[Axes]:
    """Return the axes that hold a heatmap, in order; colour bars hold none."""
    return [axes for axes in figure.axes if axes.images]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def array_of(axes: Axes) -> np.ndarray[Any, Any]:
    return np.asarray(axes.images[0].get_array())


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_parts_of_one_map_have_scales_of_their_own(study: Benchmark, store: Store, ledger: Ledger) -> None:
    result = store("max", 0, 0.9, arrays=arrays())
    figure = cell_figures(drawn_by(study, PARTS), result, ledger.record(result.cell.id))["parts"]
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
    assert bars == ["unit", "unit"]


def test_a_map_without_pooling_has_one_phase(study: Benchmark, store: Store, ledger: Ledger) -> None:
    result = store("none", 0, 0.9, arrays=arrays(np.array([[3.0]])))
    figure = cell_figures(drawn_by(study, PARTS), result, ledger.record(result.cell.id))["parts"]
    detail, pattern, _ = images(figure)
    assert texts(pattern) == ["3.00"]
    assert not array_of(detail).any()
    assert detail.images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("values", "shown"), [((1.0, 1.004), ["1.0000", "1.0040"]), ((5.0, 5.0 + 1e-9), ["5.0000"] * 2)]
)
def test_phases_have_the_decimals_that_tell_them_apart(values: tuple[float, float], shown: list[str]) -> None:
    parts = arrays(np.array([values, values]))
    figure = map_overview(np.zeros((20, 20)), (parts["phase"], parts["boundary"], parts["phases"]), "P")
    assert texts(images(figure)[2])[:2] == shown


def test_parts_are_drawn_of_groups_that_have_them(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [
        store("max", 0, 0.1, learned=False, arrays=arrays()),
        store("max", 1, 0.9, arrays=arrays(2 * PHASES)),
        store("avg", 0, 0.2, learned=False, arrays=arrays(3 * PHASES)),
        store("max", 0, 0.8, dataset="photos"),
    ]
    figure = summary_figures(drawn_by(study, PARTS), results, ledger)["parts"]
    # The data set does not tell apart what is drawn.
    assert written(figure) == ["max\nseed 1", "avg\nseed 0\nnot learned"]
    assert [text.get_color() for text in figure.texts] == ["#000000", GREY]
    assert len(images(figure)) == 6
    assert [array_of(images(figure)[index])[0, 0] for index in (1, 4)] == pytest.approx([-0.2, -0.3])
    assert summary_figures(drawn_by(study, PARTS), results[3:], ledger) == {}
    assert cell_figures(drawn_by(study, PARTS), results[3], ledger.record(results[3].cell.id)) == {}


def test_an_overview_is_the_map_and_its_parts() -> None:
    parts = arrays()
    probability = np.full((20, 20), 0.4)
    figure = map_overview(probability, (parts["phase"], parts["boundary"], parts["phases"]), "P(yes)")
    assert images(figure)[0].images[0].get_clim() == (0, 1)
    assert len(images(figure)) == 4
    alone = map_overview(probability, None, "P(yes)")
    assert len(images(alone)) == 1
    assert [axes.get_ylabel() for axes in alone.axes if not axes.images] == ["P(yes)"]


def points(axes: Axes, colour: str, length: int) -> list[tuple[list[float], list[float]]]:
    """Return the coordinates of what was drawn in a colour with that many points."""
    found = [
        (np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist())
        for line in axes.get_lines()
        if line.get_color() == colour
    ]
    return [pair for pair in found if len(pair[0]) == length]


def clouds(store: Store) -> list[Result]:
    """Three pools that have learned, where more accurate ones spread less, and one that has not."""
    values = {"max": (0.5, 1.6), "avg": (0.6, 1.4), "blur": (0.8, 1.1)}
    results = [
        store(pool, seed, x + 0.01 * seed, metrics={"spread": y + 0.02 * seed})
        for pool, (x, y) in values.items()
        for seed in range(3)
    ]
    return [*results, store("aps", 0, 0.1, learned=False, metrics={"spread": 9.0})]


def test_scatter_shows_what_accuracy_does_not_explain(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = clouds(store)
    figure = summary_figures(drawn_by(study, SCATTER), results, ledger)["scatter"]
    against, residuals = figure.axes
    assert (against.get_xlabel(), against.get_ylabel()) == ("accuracy\u00a0↑", "spread / logit\u00a0↓")
    assert points(against, PALETTE[0], 3) == [([0.5, 0.51, 0.52], pytest.approx([1.6, 1.62, 1.64]))]
    assert points(against, PALETTE[0], 1) == [([pytest.approx(0.51)], [pytest.approx(1.62)])]
    x, y = t_interval([0.5, 0.51, 0.52]), t_interval([1.6, 1.62, 1.64])
    across, up = points(against, PALETTE[0], 2)
    assert across == (pytest.approx([x.low, x.high]), pytest.approx([y.mean, y.mean]))
    assert up == (pytest.approx([x.mean, x.mean]), pytest.approx([y.low, y.high]))

    learned = [result for result in results if result.facts["learned"]]
    fit = np.polyfit([r.metrics["accuracy"] for r in learned], [r.metrics["spread"] for r in learned], 1)
    ends, heights = points(against, "#333333", 2)[0]
    assert ends == pytest.approx([0.5, 0.82])
    assert heights == pytest.approx(np.polyval(fit, ends).tolist())
    left_over = [value - np.polyval(fit, at) for at, value in ((0.5, 1.6), (0.51, 1.62), (0.52, 1.64))]
    assert points(residuals, PALETTE[0], 3)[0][0] == pytest.approx(left_over)
    interval = t_interval(left_over)
    assert points(residuals, PALETTE[0], 2)[0][0] == pytest.approx([interval.low, interval.high])
    assert residuals.get_xlabel() == "spread minus the line\nfitted on accuracy\u00a0↓"
    labels = [text.get_text() for text in residuals.get_yticklabels()]
    assert labels == ["max", "avg", "blur", "aps (not learned)"]


def test_what_has_not_learned_is_hollow_and_grey(study: Benchmark, store: Store, ledger: Ledger) -> None:
    against, residuals = summary_figures(drawn_by(study, SCATTER), clouds(store), ledger)["scatter"].axes
    for axes in (against, residuals):
        hollow = [line for line in axes.get_lines() if to_hex(line.get_markerfacecolor()) == "#ffffff"]
        assert {line.get_color() for line in hollow} == {GREY}
    assert residuals.get_yticklabels()[3].get_color() == GREY
    # The scale is that of what has learned: 9 is far outside and marked by an arrow.
    assert residuals.get_xlim()[1] < 1


def test_two_groups_have_no_line(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [result for result in clouds(store) if result.cell.pool != "blur"]
    figure = summary_figures(drawn_by(study, SCATTER), results, ledger)["scatter"]
    (against,) = figure.axes
    assert not points(against, "#333333", 2)
    assert "fewer than 3 groups" in written(figure)[0]


def test_markers_tell_what_else_varies(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [
        store(pool, seed, 0.5 + 0.1 * len(pool) + 0.05 * layers, metrics={"spread": 1.0}, dataset=name, model=model)
        for name in ("a", "b")
        for pool in ("max", "blur")
        for layers in (1, 2)
        for seed in (0, 1)
        for model in [{"layers": layers} if name == "a" else {"padding": "zeros" if layers == 1 else "circular"}]
    ]
    figure = summary_figures(drawn_by(study, SCATTER), results, ledger)["scatter"]
    assert [axes.get_title() for axes in figure.axes[::2]] == ["a", "b"]
    colours, markers = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert colours == ["max", "blur"]
    assert markers == ["layers=1", "layers=2", "zeros", "circular"]
    labels = [text.get_text() for text in figure.axes[3].get_yticklabels()]
    assert labels == ["max · zeros", "max · circular", "blur · zeros", "blur · circular"]
    handles = {str(handle.get_marker()) for handle in figure.legends[1].get_lines()}
    assert len(handles) == 4


def padded(store: Store, pool: str, padding: str, accuracy: float, **changes: Any) -> list[Result]:
    return [store(pool, s, accuracy + 0.02 * s, model={"width": 8, "padding": padding}, **changes) for s in (0, 1)]


def test_heatmap_has_one_panel_per_metric_and_setting(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [
        *padded(store, "max", "zeros", 0.50, variant="plain"),
        *padded(store, "max", "circular", 0.60, variant="plain"),
        *padded(store, "blur", "zeros", 0.90, variant="plain"),
        *padded(store, "max", "circular", 0.70, variant="shifted"),
        # Without the field that makes the columns.
        store("avg", 0, 0.3, variant="plain"),
    ]
    figure = summary_figures(drawn_by(study, HEATMAP), results, ledger)["heatmap"]
    # No group has the metric "spread".
    plain, shifted = images(figure)
    assert written(figure) == ["accuracy\u00a0↑", "plain", "shifted"]
    assert [text.get_text() for text in plain.get_xticklabels()] == ["zeros", "circular"]
    assert [text.get_text() for text in plain.get_yticklabels()] == ["max", "blur"]
    assert [text.get_text() for text in shifted.get_yticklabels()] == ["max"]
    half = t_interval([0.5, 0.52]).half_width
    assert texts(plain) == [f"{mean:.3f} ± {half:.3f}" for mean in (0.51, 0.61, 0.91)]
    np.testing.assert_allclose(array_of(plain), [[0.51, 0.61], [0.91, np.nan]])
    assert plain.images[0].get_clim() == shifted.images[0].get_clim()
    # Dark cells are written on in white.
    assert [text.get_color() for text in plain.texts] == ["black", "black", "white"]


def test_data_sets_have_colours_of_their_own(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [
        store(pool, 0, accuracy + better, dataset=name, variant=variant, model={"padding": "zeros"})
        for name, accuracy in (("easy", 0.9), ("hard", 0.5))
        for variant, better in (("plain", 0.0), ("shifted", 0.02))
        for pool in ("max", "blur")
    ]
    panels = images(summary_figures(drawn_by(study, HEATMAP), results, ledger)["heatmap"])
    highest = [panel.images[0].get_clim()[1] for panel in panels]
    assert highest == pytest.approx([0.92, 0.92, 0.52, 0.52])


def test_heatmap_leaves_white_what_has_not_learned(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [*padded(store, "max", "zeros", 0.9), *padded(store, "max", "circular", 0.1, learned=False)]
    (panel,) = images(summary_figures(drawn_by(study, HEATMAP), results, ledger)["heatmap"])
    assert np.isnan(array_of(panel)).tolist() == [[False, True]]
    assert texts(panel)[1].endswith("not learned")
    assert panel.texts[1].get_color() == GREY
    assert panel.images[0].get_clim()[0] > 0.1
    alone = summary_figures(drawn_by(study, HEATMAP), results[2:], ledger)["heatmap"]
    assert np.isnan(array_of(images(alone)[0])).all()


def test_heatmap_needs_the_field_of_its_columns(study: Benchmark, store: Store, ledger: Ledger) -> None:
    assert summary_figures(drawn_by(study, HEATMAP), [store("max", 0, 0.9)], ledger) == {}


def moved(l2: float) -> dict[str, pd.DataFrame]:
    """Return a table of 3 stages and 2 shifts; the l2 of stage k under shift (0, d) is l2 + k + d."""
    rows = [
        {"stage": f"net.{name}", "depth": k, "dy": 0, "dx": d, "l2": l2 + k + d, "cosine": 0.1 * k, "aligned": 0.0}
        for k, name in enumerate(("conv", "pool", "head"))
        for d in (1, 2)
    ]
    return {"sensitivity": pd.DataFrame(rows)}


def test_sensitivity_of_one_network(study: Benchmark, store: Store, ledger: Ledger) -> None:
    result = store("max", 0, 0.9, tables=moved(0.0))
    figure = cell_figures(drawn_by(study, SENSITIVITY), result, ledger.record(result.cell.id))["sensitivity"]
    l2, cosine, aligned = figure.axes
    assert [line.get_ydata().tolist() for line in l2.get_lines()] == [[1, 2, 3], [2, 3, 4]]  # type: ignore[union-attr]
    assert len(cosine.get_lines()) == len(aligned.get_lines()) == 2
    assert [text.get_text() for text in l2.get_xticklabels()] == ["conv", "pool", "head"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["(0, 1) px", "(0, 2) px"]


def test_sensitivity_of_all_seeds(study: Benchmark, store: Store, ledger: Ledger) -> None:
    results = [
        *(store("max", seed, 0.9, dataset="a", tables=moved(float(seed))) for seed in (0, 1)),
        store("blur", 0, 0.9, dataset="a", tables=moved(10.0)),
        store("max", 0, 0.9, dataset="b", tables=moved(0.0)),
        store("max", 0, 0.9, dataset="c"),
    ]
    figure = summary_figures(drawn_by(study, SENSITIVITY), results, ledger)["sensitivity"]
    assert written(figure) == ["a", "b"]
    assert len(figure.axes) == 6
    line = next(line for line in figure.axes[0].get_lines() if line.get_color() == PALETTE[0])
    assert np.asarray(line.get_xdata()).tolist() == [0, 50, 100]
    # Means over the two shifts (1.5 + depth) and over the seeds (0.5 more).
    assert np.asarray(line.get_ydata()).tolist() == [2, 3, 4]
    # One interval: of the pool with two seeds.
    assert len(figure.axes[0].collections) == 1
    # Data sets have scales of their own.
    assert figure.axes[0].get_ylim()[1] > 13 > 4 > figure.axes[3].get_ylim()[1] > 3.5


def test_sensitivity_without_tables(study: Benchmark, store: Store, ledger: Ledger) -> None:
    result = store("max", 0, 0.9)
    benchmark = drawn_by(study, SENSITIVITY)
    assert summary_figures(benchmark, [result], ledger) == {}
    assert cell_figures(benchmark, result, ledger.record(result.cell.id)) == {}


def test_titles_tell_what_differs_between_the_drawn(study: Benchmark, store: Store, ledger: Ledger) -> None:
    """Shapes have layers, photos a padding and a variant; only shapes have the array and the metric."""
    probability = {"probability": np.full((4, 4), 0.5)}
    results = [
        *(
            store(pool, 0, 0.9, model={"layers": layers}, arrays=probability, metrics={"spread": 1.0})
            for layers in (1, 2)
            for pool in ("max", "avg")
        ),
        *(
            store("max", 0, 0.9, dataset="photos", variant=variant, model={"padding": padding})
            for variant in ("plain", "shifted")
            for padding in ("zeros", "circular")
        ),
    ]
    drawings = (
        Drawing("map", "map", "Map", ("probability",), panels=("layers", "pool"), label="P"),
        Drawing("intervals", "intervals", "Intervals", ("accuracy", "spread"), panels=("layers",)),
    )
    figures = summary_figures(drawn_by(study, *drawings), results, ledger)
    titles = [axes.get_title().partition("\n")[0] for axes in images(figures["map"])]
    assert titles == ["layers=1 · max", "layers=1 · avg", "layers=2 · max", "layers=2 · avg"]
    accuracy, spread = figures["intervals"].axes
    labels = [text.get_text() for text in accuracy.get_yticklabels()]
    headings = [label for label in labels if label not in ("max", "avg")]
    assert headings == [
        "layers=1 · drawn", "layers=2 · drawn",
        "photos · plain · zeros", "photos · plain · circular",
        "photos · shifted · zeros", "photos · shifted · circular",
    ]  # fmt: skip
    # A dot and a mean for each group that has the metric.
    assert len(spread.get_lines()) == 2 * 4
    # What is alone is told by what sets it apart from the groups that are not drawn.
    single = summary_figures(drawn_by(study, drawings[0]), [results[0], *results[4:]], ledger)["map"]
    assert images(single)[0].get_title().startswith("layers=1")


def test_long_titles_are_broken_between_terms() -> None:
    long = " · ".join(["a long term", "another one", "and a third of them"])
    figure, axes = panel_grid([long, "short"], columns=3, panel_height=2, legend_rows=0)
    assert axes[0].get_title() == "a long term · another one\nand a third of them"
    assert axes[1].get_title() == "short"
    assert figure.get_figheight() > panel_grid(["short"], columns=3, panel_height=2, legend_rows=0)[0].get_figheight()
    assert figure.get_figwidth() <= WIDTH


def test_the_report_explains_every_kind() -> None:
    assert set(KINDS) == set(get_args(get_type_hints(Drawing)["kind"]))


def test_the_residuals_of_a_line_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    x = generator.uniform(0.5, 0.9, 12)
    y = 2 - x + generator.normal(0, 0.1, 12)
    line = straight_line(x.tolist(), y.tolist())
    assert (line.slope, line.intercept) == pytest.approx(tuple(np.polyfit(x, y, 1)))
    residuals = y - line.at(x)
    assert residuals.sum() == pytest.approx(0, abs=1e-12)
    assert residuals @ x == pytest.approx(0, abs=1e-12)


def test_a_line_over_one_place_is_level() -> None:
    line = straight_line([0.5, 0.5, 0.5], [1.0, 2.0, 6.0])
    assert (line.intercept, line.slope) == (3.0, 0.0)


@pytest.mark.parametrize(("x", "y"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_a_line_needs_two_points(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="2 points"):
        straight_line(x, y)
