"""Figures of depth: accuracy by blocks, stages in numbers, replaced maps, and the maps of one network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from poolbench.analysis.groups import Group
from poolbench.core import Result
from poolbench.plots import curves
from poolbench.plots.images import heatmap, side_bar, write_on
from poolbench.plots.legends import key, legend, legend_rows
from poolbench.plots.lines import Curve, band_opacity, line
from poolbench.plots.panels import axes_at, panel_grid
from poolbench.plots.scene import Record, Scene
from poolbench.plots.style import GREY, WIDTH
from poolbench_tasks.depth_ablation.montage import maps_across

STAGE_COLUMNS = (
    "stage",
    "units",
    "noise",
    "noise_untrained",
    "noise_image",
    "probe",
    "probe_untrained",
    "dead",
    "duplicates",
    "rank",
    "separation",
)
DEPTH = ("variant", "blocks")
KINDS = {
    "with_noise": "noise",
    "with_mean": "mean",
    "with_shuffled": "positions shuffled",
    "with_map_mean": "map mean",
    "skipped": "skipped",
    "skipped_probe": "skipped, read anew",
}


def accuracy(scene: Scene) -> Figure | None:
    return curves.metric_curves(scene, "accuracy", "blocks", ("pool",), "head")


def stages(scene: Scene) -> Figure | None:
    return _by_stage(scene, {"noise": "noise of the maps", "probe": "probe accuracy", "separation": "class separation"})


def units(scene: Scene) -> Figure | None:
    return _by_stage(
        scene, {"dead": "dead units", "duplicates": "duplicate units", "rank": "effective rank, of the units"}
    )


def _deepest(scene: Scene) -> list[Group]:
    """Return the groups with the most blocks of their kind, if they have stored stages."""
    found = [group for group in scene.groups if scene.tables(group, "stages", STAGE_COLUMNS)]
    most = max((int(str(group.fields["blocks"])) for group in found), default=0)
    return [group for group in found if group.fields["blocks"] == most]


def _by_stage(scene: Scene, columns: dict[str, str]) -> Figure | None:
    """Draw columns of the table ``stages`` by stage, a row of panels per data set and pool, a line per head."""
    groups = _deepest(scene)
    if not groups:
        return None
    members_of, styles = scene.panels(groups, ("dataset", "pool"), within=("head", *DEPTH)), scene.styles("head")
    titles = [" · ".join(filter(None, (title, name))) for title in members_of for name in columns.values()]
    keys = scene.keys("head", groups)
    keys += [key("before training", GREY), key("the image at this size", GREY, "--")] if "noise" in columns else []
    figure, axes = panel_grid(titles, len(columns), 1.9, legend_rows(keys), share_y=False, left=0.5)
    places = iter(axes)
    for members in members_of.values():
        for column in columns:
            panel = next(places)
            if column == "noise":
                line(panel, _curve(scene, members, "noise_image"), GREY, "--", "", 0)
            if f"{column}_untrained" in STAGE_COLUMNS:
                line(panel, _curve(scene, members, f"{column}_untrained"), GREY, "-", "o", 0)
            for group in members:
                colour, marker = styles[group.fields.get("head")]
                line(panel, _curve(scene, [group], column), colour, "-", marker, band_opacity(len(members)))
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_xlabel("stage")
            panel.set_ylim(bottom=0)
    legend(figure, keys)
    return figure


def _curve(scene: Scene, groups: Sequence[Group], column: str) -> Curve:
    found: Curve = {}
    for group in groups:
        for table in scene.tables(group, "stages", STAGE_COLUMNS):
            for stage, value in zip(table["stage"].tolist(), table[column].tolist(), strict=True):
                if np.isfinite(value):
                    found.setdefault(float(stage), []).append(float(value))
    return found


def replaced(scene: Scene) -> Figure | None:
    """Draw a table per group of the deepest networks: kinds of replacement down, stages across."""
    groups = [group for group in _deepest(scene) if group.learned]
    if not groups:
        return None
    members_of = scene.panels(groups, ("dataset", "pool", "head"), within=DEPTH)
    columns = min(2, len(members_of))
    figure, axes = panel_grid(members_of, columns, 1.75, 0, share_y=False, left=1.45, right=0.95)
    image = None
    for index, (panel, members) in enumerate(zip(axes, members_of.values(), strict=True)):
        tables = [table[table["stage"] > 0] for table in scene.tables(members[0], "stages", (*STAGE_COLUMNS, *KINDS))]
        means = np.mean([[table[kind].to_numpy() for kind in KINDS] for table in tables], axis=0)
        whole = float(np.mean([result.metrics["accuracy"] for result in members[0].learned]))
        shown = np.vstack([np.full(means.shape[1], whole), means])
        image = heatmap(panel, shown, (0, 1), "Blues")
        panel.set_aspect("auto")
        names = ["nothing", *KINDS.values()] if index % columns == 0 else [""] * len(shown)
        panel.set_yticks(range(len(shown)), names)
        panel.set_xticks(range(means.shape[1]), [f"stage {stage}" for stage in range(1, means.shape[1] + 1)])
        panel.tick_params(length=0)
        for (row, column), value in np.ndenumerate(shown):
            write_on(panel, image, row, column, f"{value:.2f}")
    assert image is not None
    side_bar(figure, image, "accuracy")
    return figure


def maps(result: Result, record: Record) -> Figure | None:
    """Draw the stored maps of one network, a square of the most active ones per stage."""
    try:
        array, table = record.array("feature_maps"), record.table("stages")
    except (FileNotFoundError, KeyError):
        return None
    rows, side, gap = table.to_dict("records"), array.shape[0], 0.12
    size = min(1.9, (WIDTH - 0.2 - gap * (len(rows) - 1)) / len(rows))
    figure = Figure(figsize=(0.2 + len(rows) * (size + gap), size + 0.85))
    for index, row in enumerate(rows):
        axes = axes_at(figure, 0.1 + index * (size + gap), 0.3, size, size)
        axes.imshow(array[:, index * side : (index + 1) * side], cmap="magma", vmin=0, vmax=1)
        across = maps_across(int(row["units"])) if row["stage"] else 1
        for line_at in (side * k / across - 0.5 for k in range(1, across)):
            axes.axhline(line_at, color="white", linewidth=1.2)
            axes.axvline(line_at, color="white", linewidth=1.2)
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        title = f"stage {row['stage']}: {row['units']} maps" if row["stage"] else "image"
        axes.set_title(f"{title}, {row['side']} px", fontsize=8)
        axes.set_xlabel(
            f"noise {row['noise']:.2f} (image {row['noise_image']:.2f})\nprobe accuracy {row['probe']:.2f}", fontsize=8
        )
        axes.spines[:].set_visible(False)
    return figure
