"""How groups divide into panels, and the titles that tell these apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from poolbench.plots.depth import short_names
from poolbench.plots.intervals import metric_intervals
from poolbench.plots.maps import map_panels
from poolbench.plots.panels import panel_grid
from poolbench.plots.scene import example
from poolbench.plots.style import GREY, PALETTE, WIDTH


def test_titles_tell_what_differs_between_the_drawn(made: Any) -> None:
    """Shapes have layers, photos a padding and a variant; only shapes have the array and the metric."""
    probability = {"probability": np.full((4, 4), 0.5)}
    results = [
        *(
            made(pool, 0, 0.9, model={"layers": layers}, arrays=probability, metrics={"spread": 1.0})
            for layers in (1, 2)
            for pool in ("max", "avg")
        ),
        *(
            made("max", 0, 0.9, dataset="photos", variant=variant, model={"padding": padding})
            for variant in ("plain", "shifted")
            for padding in ("zeros", "circular")
        ),
    ]
    scene = made.scene(results)
    figure = map_panels(scene, "probability", ("layers", "pool"), "P", lambda result: [])
    assert figure is not None
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes if axes.images]
    assert titles == ["layers=1 · max", "layers=1 · avg", "layers=2 · max", "layers=2 · avg"]
    figure = metric_intervals(scene, ("accuracy", "spread"), ("layers",))
    assert figure is not None
    accuracy, spread = figure.axes
    labels = [text.get_text() for text in accuracy.get_yticklabels()]
    headings = [label for label in labels if label not in ("max", "avg")]
    assert headings == [
        "layers=1 · drawn", "layers=2 · drawn",
        "photos · plain · zeros", "photos · plain · circular",
        "photos · shifted · zeros", "photos · shifted · circular",
    ]  # fmt: skip
    # A dot and a mean for each group that has the metric.
    assert len(spread.get_lines()) == 2 * 4
    # A panel without others is named by what sets it apart from the groups that are not drawn.
    single = map_panels(made.scene([results[0], *results[4:]]), "probability", ("layers", "pool"), "P", lambda _: [])
    assert single is not None
    assert single.axes[0].get_title().startswith("layers=1")


def test_an_absent_operator_is_grey_and_other_values_have_colours_and_markers(made: Any) -> None:
    scene = made.scene([made(pool, 0, 0.5) for pool in ("max", "none", *(f"p{index}" for index in range(7)))])
    styles = scene.styles("pool")
    assert styles["none"][0] == GREY
    assert styles["max"] == (PALETTE[0], "o")
    assert styles["p6"] == (PALETTE[0], "s")
    assert [entry.get_label() for entry in scene.keys("pool", scene.groups[:2])] == ["none", "max"]


def test_tables_and_arrays_that_are_missing_or_of_an_older_version(made: Any) -> None:
    table = pd.DataFrame({"layer": ["a"], "V": [1.0]})
    results = [made("max", 0, 0.5, tables={"layers": table}, arrays={"map": np.eye(2)}), made("max", 1, 0.5)]
    scene = made.scene(results)
    assert scene.table(results[0], "layers", ("layer", "V")) is table
    assert scene.table(results[0], "layers", ("depth",)) is None
    assert scene.table(results[1], "layers", ("layer",)) is None
    assert len(scene.tables(scene.groups[0], "layers", ("V",))) == 1
    assert len(scene.arrays(results[0], "map")) == 1
    assert scene.arrays(results[0], "map", "absent") is None


def test_undeclared_metrics_raise(made: Any) -> None:
    with pytest.raises(KeyError, match="absent"):
        made.scene([made("max", 0, 0.5)]).metric("absent")


def test_the_example_of_a_group_has_learned_if_any_network_has(made: Any) -> None:
    (group,) = made.scene([made("max", 0, 0.1, learned=False), made("max", 1, 0.9)]).groups
    assert example(group).cell.seed == 1
    (group,) = made.scene([made("max", seed, 0.1, learned=False) for seed in (0, 1)]).groups
    assert example(group).cell.seed == 0


def test_long_titles_are_broken_between_terms() -> None:
    long = " · ".join(["a long term", "another one", "and a third of them"])
    figure, axes = panel_grid([long, "short"], columns=3, panel_height=2, legend_rows=0)
    assert axes[0].get_title() == "a long term · another one\nand a third of them"
    assert axes[1].get_title() == "short"
    assert figure.get_figheight() > panel_grid(["short"], columns=3, panel_height=2, legend_rows=0)[0].get_figheight()
    assert figure.get_figwidth() <= WIDTH


def test_layer_names_lose_the_modules_that_all_share() -> None:
    assert short_names(["net.body.conv1", "net.body.fc"]) == ["conv1", "fc"]
    assert short_names(["net.conv1", "head"]) == ["net.conv1", "head"]
