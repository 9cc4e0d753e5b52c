"""Learning curves: the numbers in the lines and bands, and which groups share a panel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from poolbench.analysis.statistics import anytime_interval
from poolbench.core import TrainConfig
from poolbench.plots.curves import lead_curves, learning_curves, metric_curves
from poolbench.plots.style import PALETTE

BOTH = ("train_accuracy", "val_accuracy")


def lines(axes: Axes) -> dict[tuple[str, str], list[float]]:
    """Return {(colour, dashes): y values} of the lines that were drawn."""
    return {
        (str(line.get_color()), str(line.get_linestyle())): np.asarray(line.get_ydata(), float).tolist()
        for line in axes.get_lines()
    }


def test_curves_are_means_with_bands(made: Any) -> None:
    accuracies = {"max": [0.6, 0.7, 0.9, 0.8], "avg": [0.3, 0.3, 0.3, 0.3]}
    results = [made(pool, seed, value) for pool, values in accuracies.items() for seed, value in enumerate(values)]
    figure = learning_curves(made.scene(results), BOTH, label="accuracy")
    assert figure is not None
    (axes,) = figure.axes
    found = lines(axes)
    mean = 0.75
    assert found[PALETTE[0], "-"] == pytest.approx([mean / 3, 2 * mean / 3, mean])
    assert found[PALETTE[0], "--"] == pytest.approx([mean] * 3)
    assert found[PALETTE[1], "-"] == pytest.approx([0.1, 0.2, 0.3])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["max", "avg", "training", "validation"]
    # Bands of the validation lines only: one per pool.
    bands = [
        np.asarray(band.get_paths()[0].vertices, float) for band in axes.collections if isinstance(band, PolyCollection)
    ]
    assert len(bands) == 2
    last = bands[0][bands[0][:, 0] == 3][:, 1]
    interval = anytime_interval([0.6, 0.7, 0.9, 0.8])
    assert (min(last), max(last)) == pytest.approx((interval.low, interval.high))
    # The axis spans the seeds, whatever the bands reach.
    assert axes.get_ylim()[1] < 1 < interval.high
    assert axes.get_ylabel() == "accuracy"


def test_configurations_never_share_a_line(made: Any) -> None:
    results = [
        made(pool, 0, value, dataset=dataset, model={"width": width})
        for pool, dataset, width, value in (
            ("max", "a", 8, 0.1), ("max", "a", 16, 0.2), ("max", "b", 8, 0.3), ("avg", "b", 8, 0.4),
        )
    ]  # fmt: skip
    figure = learning_curves(made.scene(results), ("val_loss",))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["a · width=8", "a · width=16", "b · width=8"]
    found = [sorted(values[0] for values in lines(axes).values()) for axes in figure.axes]
    assert found == [pytest.approx([0.9]), pytest.approx([0.8]), pytest.approx([0.6, 0.7])]


@pytest.mark.parametrize("seeds", [1, 3])
def test_few_seeds_have_a_line_without_a_band(made: Any, seeds: int) -> None:
    figure = learning_curves(made.scene([made("max", seed, 0.6) for seed in range(seeds)]), BOTH)
    assert figure is not None
    assert not figure.axes[0].collections
    assert lines(figure.axes[0])[PALETTE[0], "-"] == pytest.approx([0.2, 0.4, 0.6])


def test_many_values_stay_apart(made: Any) -> None:
    scene = made.scene([made(f"p{index:02}", 0, 0.5 + index / 100) for index in range(12)])
    figure = learning_curves(scene, ("val_loss",))
    assert figure is not None
    assert len({(line.get_color(), line.get_marker()) for line in figure.axes[0].get_lines()}) == 12


def test_a_column_that_no_history_has_is_not_drawn(made: Any) -> None:
    assert learning_curves(made.scene([made("max", 0, 0.6)]), ("val_absent",)) is None


def test_metrics_against_a_field_are_those_of_the_tables(made: Any) -> None:
    """One line per pool, one panel per number of images, points at the epochs."""
    values = {1: [0.3, 0.5, 0.4, 0.4], 4: [0.6, 0.7, 0.65, 0.65], 16: [0.8, 0.82, 0.81, 0.81]}
    results = [
        made(pool, seed, value + shift, train=TrainConfig(epochs=epochs, train_images=images))
        for pool, shift in (("max", 0.0), ("avg", 0.1))
        for images in (100, 200)
        for epochs, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    scene = made.scene(results)
    figure = metric_curves(scene, "accuracy", "epochs", ("train_images",))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["train_images=100", "train_images=200"]
    for axes in figure.axes:
        assert axes.get_xlabel() == "epochs"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4", "16"]
        found = lines(axes)
        assert found[PALETTE[0], "-"] == pytest.approx([0.4, 0.65, 0.81])
        assert found[PALETTE[1], "-"] == pytest.approx([0.5, 0.75, 0.91])
    band = next(band for band in figure.axes[0].collections if isinstance(band, PolyCollection))
    edge = np.asarray(band.get_paths()[0].vertices, float)
    interval = anytime_interval(values[4])
    at_four = edge[edge[:, 0] == 4][:, 1]
    assert (at_four.min(), at_four.max()) == pytest.approx((interval.low, interval.high))


def test_the_band_leaves_out_points_of_few_seeds(made: Any) -> None:
    """Three seeds after 4 epochs, four before and after: the line goes on, the band does not."""
    counts = {1: 4, 2: 4, 4: 3, 8: 4, 16: 4}
    results = [
        made("max", seed, 0.5 + 0.01 * seed, train=TrainConfig(epochs=epochs))
        for epochs, count in counts.items()
        for seed in range(count)
    ]
    figure = metric_curves(made.scene(results), "accuracy", "epochs")
    assert figure is not None
    (axes,) = figure.axes
    assert lines(axes)[PALETTE[0], "-"] == pytest.approx([0.515, 0.515, 0.51, 0.515, 0.515])
    (band,) = axes.collections
    edges = [set(np.asarray(path.vertices, float)[:, 0]) for path in band.get_paths()]
    assert edges == [{1, 2}, {8, 16}]


def test_a_single_point_shows_its_interval_as_a_bar(made: Any) -> None:
    """One number of epochs for 100 images, two for 200."""
    results = [
        made("max", seed, value, train=TrainConfig(epochs=epochs, train_images=images))
        for images, epochs in ((100, 4), (200, 4), (200, 8))
        for seed, value in enumerate([0.5, 0.7, 0.6, 0.6])
    ]
    figure = metric_curves(made.scene(results), "accuracy", "epochs", ("train_images",))
    assert figure is not None
    (bar,) = figure.axes[0].collections
    (segment,) = bar.get_segments()  # type: ignore[attr-defined]
    interval = anytime_interval([0.5, 0.7, 0.6, 0.6])
    assert segment[:, 0].tolist() == [4, 4]
    assert segment[:, 1].tolist() == pytest.approx([interval.low, interval.high])
    assert isinstance(figure.axes[1].collections[0], PolyCollection)


def test_leads_are_paired_by_seed(made: Any) -> None:
    leads = [0.1, 0.12, 0.11, 0.11]
    results = [
        made(pool, seed, 0.2 * seed + 0.1 + leads[seed] * (pool == "avg"), train=TrainConfig(epochs=epochs))
        for pool in ("max", "avg", "blur")
        for epochs in (2, 8)
        for seed in range(4)
        # Seed 0 of blur is missing, so its lead is that of the other seeds.
        if (pool, seed) != ("blur", 0)
    ]
    figure = lead_curves(made.scene(results), "accuracy", "epochs", "max")
    assert figure is not None
    found = lines(figure.axes[0])
    assert found[PALETTE[1], "-"] == pytest.approx([0.11, 0.11])
    assert found[PALETTE[2], "-"] == pytest.approx([0, 0])
    assert PALETTE[0] not in {colour for colour, _ in found}
    band = next(band for band in figure.axes[0].collections if isinstance(band, PolyCollection))
    edge = np.asarray(band.get_paths()[0].vertices, float)[:, 1]
    interval = anytime_interval(leads)
    assert (edge.min(), edge.max()) == pytest.approx((interval.low, interval.high))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["avg", "blur"]


def test_options_of_a_pool_do_not_cost_it_its_counterpart(made: Any) -> None:
    results = [
        made(pool, seed, 0.5 + 0.1 * (pool == "gem"), pool_options=options, train=TrainConfig(epochs=epochs))
        for pool, options in (("max", {}), ("gem", {"p": 2.0}), ("gem", {"p": 4.0}))
        for epochs in (2, 8)
        for seed in range(4)
    ]
    figure = lead_curves(made.scene(results), "accuracy", "epochs", "max")
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["pool.p=2.0", "pool.p=4.0"]
    assert lines(figure.axes[0])[PALETTE[1], "-"] == pytest.approx([0.1, 0.1])


def test_a_field_with_one_value_has_no_curve(made: Any) -> None:
    scene = made.scene([made(pool, seed, 0.5) for pool in ("max", "avg") for seed in range(2)])
    assert metric_curves(scene, "accuracy", "epochs") is None
    assert lead_curves(scene, "accuracy", "epochs", "max") is None
