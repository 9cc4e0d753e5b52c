"""Figures of one cell, for its run, and of all seeds, for the report.

Built on matplotlib's objects, never on pyplot: there is no figure of the process that two callers could
share, and nothing to close.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from poolbench.core import Benchmark, Result, Scalar
from poolbench.core import Figure as Drawing
from poolbench.runner.ledger import CellRecord, Ledger
from poolbench_tracking.results import Group, groups_of, metric_label, results_frame, term, varying_fields
from poolbench_tracking.statistics import t_interval

# Okabe and Ito's colours for all kinds of colour vision, without the yellow that vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D")
GREY = "#767676"
# Two hues around white: which side of 0.5 an output is on decides, so the scale shows it.
MAP_COLOURS = "RdBu_r"
WIDTH = 9.0
MOST_GROUPS = 150  # more panels and lines than anyone can read, and minutes to draw
FONTS = "'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "image.interpolation": "none",
    # Names come from users: a dollar sign is no formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "poolbench",
}
Curve = dict[float, list[float]]
Dashes = Literal["-", "--"]


def cell_figures(benchmark: Benchmark, result: Result, record: CellRecord) -> dict[str, Figure]:
    """Return the figures of one cell by name; figures that need several cells or lack their data are left out."""
    found: dict[str, Figure] = {}
    drawn: set[str] = set()
    for drawing in benchmark.figures:
        # One figure holds all learning curves of a cell.
        if drawing.kind == "intervals" or (drawing.kind == "curves" and "curves" in drawn):
            continue
        with matplotlib.rc_context(STYLE):
            try:
                figure = _CELL_FIGURES[drawing.kind](drawing, result, record)
            except (FileNotFoundError, KeyError):
                continue
        if figure is not None:
            found[drawing.name] = figure
            drawn.add(drawing.kind)
    return found


def summary_figures(benchmark: Benchmark, results: Sequence[Result], ledger: Ledger) -> dict[str, Figure]:
    """Return the figures over the finished cells of a benchmark by name; {} where there are none or too many.

    Every line, map and interval belongs to one group. Fields that vary beside those a figure names
    split its panels further, so that different configurations are told apart.
    """
    groups = groups_of(results)
    if not groups or len(groups) > MOST_GROUPS:
        return {}
    scene = _Scene(benchmark, groups, varying_fields(results_frame(results)), ledger)
    found = {}
    with matplotlib.rc_context(STYLE):
        for drawing in benchmark.figures:
            figure = _SUMMARY_FIGURES[drawing.kind](drawing, scene)
            if figure is not None:
                found[drawing.name] = figure
    return found


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """Return the figure as a PNG."""
    content = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def to_svg(figure: Figure) -> str:
    """Return the figure as an <svg> element for a page: scales with its width, equal for equal figures.

    Ids carry a prefix that depends on the content, so several elements share a page without mixing up
    their clip paths.
    """
    content = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = content.getvalue().decode()
    svg = svg[svg.index("<svg") :].strip()
    # A reader's machine may lack the font whose widths were used; the next best ones are as wide or narrower.
    svg = svg.replace("'DejaVu Sans'", FONTS)
    width = round(figure.get_figwidth() * 96)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="width: 100%; max-width: {width}px"', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)


# --- one cell ---


def _cell_curves(drawing: Drawing, result: Result, record: CellRecord) -> Figure | None:
    history = result.history
    quantities = [name for name in ("accuracy", "loss") if any(f"val_{name}" in row for row in history)]
    if not quantities:
        return None
    figure, axes = _panels(quantities, columns=2, panel_height=2.4, legend_rows=1, share_y=False)
    for quantity, panel in zip(quantities, axes, strict=True):
        for split, colour, dashes in (("train", GREY, "--"), ("val", PALETTE[0], "-")):
            rows = [row for row in history if f"{split}_{quantity}" in row]
            if rows:
                ys = [row[f"{split}_{quantity}"] for row in rows]
                panel.plot([row["epoch"] for row in rows], ys, color=colour, linestyle=dashes, **_marks(len(rows)))
        _epoch_axis(panel)
    _legend(figure, [_key("training", GREY, "--"), _key("validation", PALETTE[0])])
    return figure


def _cell_map(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    figure = Figure(figsize=(4.6, 3.7))
    axes = figure.add_axes((0.13, 0.13, 0.66, 0.80))
    image = _heatmap(axes, record.array(drawing.sources[0]))
    axes.set(xlabel="x of the centre / px", ylabel="y of the centre / px")
    _colour_bar(figure, image, (0.83, 0.13, 0.035, 0.80), drawing.label)
    return figure


def _cell_layers(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    table, column = record.table(drawing.sources[0]), drawing.sources[1]
    names = _shortened(table.drop_duplicates("depth").sort_values("depth")["layer"].astype(str).tolist())
    bottom = 0.2 + 0.062 * max(len(name) for name in names)
    width, height = max(5.0, min(WIDTH, 1.5 + 0.25 * len(names))), 2.6 + bottom
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.6 / width, bottom / height, 1 - 0.75 / width, 2.25 / height))
    keys = []
    for index, (name, rows) in enumerate(table.groupby("aggregation")):
        rows = rows.sort_values("depth")
        values = rows[column].where(np.isfinite(rows[column]))
        axes.plot(rows["depth"], values, color=PALETTE[index], marker=MARKERS[index % len(MARKERS)], markersize=3.5)
        keys.append(_key(f"{name} of each map", PALETTE[index], marker=MARKERS[index % len(MARKERS)]))
    # Beyond this many layers their names no longer fit side by side.
    step = math.ceil(len(names) / 40)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
    axes.set_ylabel(column)
    axes.set_ylim(bottom=0)
    _legend(figure, keys)
    return figure


def _shortened(names: list[str]) -> list[str]:
    """Drop the modules around all layers from the layers' dotted names."""
    while len({name.partition(".")[0] for name in names}) == 1 and all("." in name for name in names):
        names = [name.partition(".")[2] for name in names]
    return names


# --- all cells of a benchmark ---


@dataclass(frozen=True)
class _Scene:
    """What the figures over all cells of a benchmark draw from."""

    benchmark: Benchmark
    groups: Sequence[Group]
    varying: Sequence[str]
    ledger: Ledger

    def panels(self, drawing: Drawing, groups: Sequence[Group]) -> dict[str, list[Group]]:
        """Return {title: groups}; the fields that tell panels apart are in the title."""
        colour = () if drawing.kind == "map" else (drawing.colour,)
        names = [*drawing.panels, *(name for name in self.varying if name not in (*drawing.panels, *colour))]
        told = [name for name in names if len({group.fields.get(name) for group in self.groups}) > 1]
        found: dict[str, list[Group]] = {}
        for group in groups:
            present = [term(name, group.fields[name]) for name in told if name in group.fields]
            found.setdefault(" · ".join(present), []).append(group)
        return found

    def looks(self, drawing: Drawing) -> dict[Scalar | None, tuple[str, str]]:
        """Return {value of the colour field: (colour, marker)}; an absent operator ("none") is grey."""
        values = dict.fromkeys(group.fields.get(drawing.colour) for group in self.groups)
        real = [value for value in values if value != "none"]
        looks: dict[Scalar | None, tuple[str, str]] = {"none": (GREY, MARKERS[0])} if "none" in values else {}
        for index, value in enumerate(real):
            turn, place = divmod(index, len(PALETTE))
            looks[value] = (PALETTE[place], MARKERS[turn % len(MARKERS)])
        return looks

    def keys(self, drawing: Drawing, groups: Iterable[Group], dashed: Sequence[str] = ()) -> list[Line2D]:
        """Return legend entries for the values of the colour field that occur."""
        looks, present = self.looks(drawing), {group.fields.get(drawing.colour) for group in groups}
        return [
            _key(term(drawing.colour, value), colour, "--" if value in dashed else "-", marker)
            for value, (colour, marker) in looks.items()
            if value in present
        ]


def _summary_curves(drawing: Drawing, scene: _Scene) -> Figure | None:
    def curves(group: Group) -> dict[str, Curve]:
        found: dict[str, Curve] = {}
        for source in drawing.sources:
            curve: Curve = {}
            for row in (row for result in group.results for row in result.history):
                if source in row and math.isfinite(row[source]):
                    curve.setdefault(row["epoch"], []).append(row[source])
            found[source] = curve
        return found

    known = {group.id: curves(group) for group in scene.groups}
    groups = [group for group in scene.groups if any(known[group.id].values())]
    if not groups:
        return None
    split = len({source.partition("_")[0] for source in drawing.sources}) > 1
    panels = scene.panels(drawing, groups)
    keys = scene.keys(drawing, groups)
    if split:
        keys += [_key("training", "#333333", "--"), _key("validation", "#333333")]
    figure, axes = _panels(panels, columns=min(3, len(panels)), panel_height=2.1, legend_rows=_legend_rows(keys))
    looks = scene.looks(drawing)
    for panel, members in zip(axes, panels.values(), strict=True):
        for group in members:
            colour, marker = looks[group.fields.get(drawing.colour)]
            for source, curve in known[group.id].items():
                training = split and source.startswith("train_")
                band = 0 if training else _band(len(members))
                _line(panel, curve, colour, "--" if training else "-", marker, band)
        _epoch_axis(panel)
    _finish_axes(axes, drawing.label, [c for found in known.values() for c in found.values()])
    _legend(figure, keys)
    return figure


def _summary_layers(drawing: Drawing, scene: _Scene) -> Figure | None:
    name, column = drawing.sources

    def curve(group: Group) -> Curve:
        found: Curve = {}
        for result in group.results:
            try:
                table = scene.ledger.record(result.cell.id).table(name)
            except FileNotFoundError:
                continue
            rows = table[table["aggregation"] == "mean"]
            depth = 100 * rows["depth"] / max(1, rows["depth"].max())
            for x, y in zip(depth, rows[column], strict=True):
                if math.isfinite(y):
                    found.setdefault(float(x), []).append(float(y))
        return found

    known = {group.id: curve(group) for group in scene.groups}
    groups = [group for group in scene.groups if known[group.id]]
    if not groups:
        return None
    # The untreated networks are the reference, and the eye takes a dashed line for one.
    dashed = ("plain",) if drawing.colour == "variant" else ()
    panels, looks, keys = scene.panels(drawing, groups), scene.looks(drawing), scene.keys(drawing, groups, dashed)
    figure, axes = _panels(panels, columns=min(3, len(panels)), panel_height=2.1, legend_rows=_legend_rows(keys))
    for panel, members in zip(axes, panels.values(), strict=True):
        for group in members:
            value = group.fields.get(drawing.colour)
            colour, marker = looks[value]
            _line(panel, known[group.id], colour, "--" if value in dashed else "-", marker, _band(len(members)))
        panel.set_xlim(-2, 102)
        panel.set_xlabel("depth / %")
    _finish_axes(axes, drawing.label or column, known.values(), bottom=0)
    _legend(figure, keys)
    return figure


def _summary_map(drawing: Drawing, scene: _Scene) -> Figure | None:
    chosen: dict[str, tuple[Group, Result, np.ndarray[Any, Any]]] = {}
    titles = {group.id: title for title, members in scene.panels(drawing, scene.groups).items() for group in members}
    for group in scene.groups:
        # One network, not a mean of several: the pattern belongs to a network, and a mean would wash it out.
        result = next((result for result in group.results if result.facts["learned"]), group.results[0])
        try:
            array = scene.ledger.record(result.cell.id).array(drawing.sources[0])
        except (FileNotFoundError, KeyError):
            continue
        chosen[group.id] = group, result, array
    if not chosen:
        return None
    figure, axes = _panels([""] * len(chosen), columns=4, panel_height=1.75, legend_rows=0, right=0.95, gap_y=0.85)
    image = None
    for index, (panel, (group, result, array)) in enumerate(zip(axes, chosen.values(), strict=True)):
        image = _heatmap(panel, array)
        facts = [f"seed {result.cell.seed}"]
        if "flips" in result.metrics:
            facts.append(f"flips {100 * result.metrics['flips']:.1f} %")
        if not result.facts["learned"]:
            facts.append("not learned")
        title = "\n".join(filter(None, [titles[group.id], ", ".join(facts)]))
        panel.set_title(title, fontsize=8, color="#000000" if result.facts["learned"] else GREY)
        if index % 4 == 0:
            panel.set_ylabel("y / px")
        if index + 4 >= len(chosen):
            panel.set_xlabel("x / px")
    assert image is not None
    height = figure.get_figheight()
    span = min(3.0, height - 1.2)
    _colour_bar(
        figure, image, (1 - 0.75 / WIDTH, 1 - (0.5 + span) / height, 0.16 / WIDTH, span / height), drawing.label
    )
    return figure


def _summary_intervals(drawing: Drawing, scene: _Scene) -> Figure | None:
    metrics = [scene.benchmark.metric(name) for name in drawing.sources]
    metrics = [metric for metric in metrics if any(group.values(metric.name) for group in scene.groups)]
    if not metrics:
        return None
    panels = scene.panels(drawing, scene.groups)
    rows: list[Group | str] = []
    for title, members in panels.items():
        rows += [title, *members] if title else members
    labels = [row if isinstance(row, str) else _row_label(drawing, row) for row in rows]
    # Text is about 0.075 in wide per character at this size; headings may run into the first axes' margin.
    left = 0.3 + 0.075 * max(len(label) for label in labels)
    height = 0.25 + 0.21 * len(rows) + 0.5
    width = min(WIDTH, left + 0.2 + 3.4 * len(metrics))
    figure = Figure(figsize=(width, height))
    margins = {"left": left / width, "right": 1 - 0.15 / width, "bottom": 0.5 / height, "top": 1 - 0.1 / height}
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False, gridspec_kw={**margins, "wspace": 0.1})[0]
    looks = scene.looks(drawing)
    for metric, panel in zip(metrics, axes, strict=True):
        for y, row in enumerate(rows):
            if isinstance(row, Group):
                _dots(panel, y, list(row.values(metric.name).values()), *looks[row.fields.get(drawing.colour)], row)
        panel.set_xlabel(metric_label(metric))
        _clip(panel, [value for group in scene.groups for value in group.values(metric.name).values()])
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), labels)
    for text, row in zip(axes[0].get_yticklabels(), rows, strict=True):
        if isinstance(row, str):
            text.set_fontweight("bold")
        elif row.unlearned:
            text.set_color(GREY)
    return figure


def _row_label(drawing: Drawing, group: Group) -> str:
    name = term(drawing.colour, group.fields.get(drawing.colour))
    return f"{name} ({group.unlearned} of {len(group.results)} not learned)" if group.unlearned else name


def _dots(axes: Axes, y: float, values: list[float], colour: str, marker: str, group: Group) -> None:
    """Draw seeds as faint dots and their mean with its interval; grey and hollow where a network has not learned."""
    if not values:
        return
    if group.unlearned:
        colour = GREY
    below = [y + 0.3] * len(values)
    axes.plot(values, below, linestyle="", marker="o", markersize=3.2, color=colour, alpha=0.55, markeredgewidth=0)
    interval = t_interval(values)
    if interval.n > 1:
        axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    fill = "white" if group.unlearned else colour
    axes.plot([interval.mean], [y], marker=marker, markersize=5.5, color=colour, markerfacecolor=fill, linestyle="")


def _clip(axes: Axes, values: Sequence[float]) -> None:
    """Scale the x axis to the seeds and mark intervals that leave it, as those of few noisy seeds do."""
    margin = 0.06 * (max(values) - min(values)) or 0.05
    low, high = min(values) - margin, max(values) + margin
    for line in axes.get_lines():
        xs, ys = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        for edge, marker, cut in ((low, 4, xs.min() < low), (high, 5, xs.max() > high)):
            if cut:
                axes.plot([edge], [ys[0]], marker=marker, color=line.get_color(), markersize=5, clip_on=False)
    axes.set_xlim(low, high)


_CELL_FIGURES: Mapping[str, Callable[[Drawing, Result, CellRecord], Figure | None]] = {
    "curves": _cell_curves,
    "map": _cell_map,
    "layers": _cell_layers,
}
_SUMMARY_FIGURES: Mapping[str, Callable[[Drawing, _Scene], Figure | None]] = {
    "curves": _summary_curves,
    "map": _summary_map,
    "layers": _summary_layers,
    "intervals": _summary_intervals,
}


# --- parts ---


def _panels(
    titles: Iterable[str],
    columns: int,
    panel_height: float,
    legend_rows: int,
    share_y: bool = True,
    right: float = 0.15,
    gap_y: float = 0.72,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and one axes per title, row by row; sizes in inches, room for the legend on top.

    The margins are computed because a layout engine takes longer than all the drawing.
    """
    titles = list(titles)
    rows = math.ceil(len(titles) / columns)
    left, bottom, top, gap_x = 0.62, 0.45, 0.3 + 0.22 * legend_rows + (gap_y - 0.72), 0.3
    width = min(WIDTH, left + right + 4.6 * columns)
    panel_width = (width - left - right - gap_x * (columns - 1)) / columns
    height = top + bottom + rows * panel_height + (rows - 1) * gap_y
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(
        rows, columns, squeeze=False, sharey=share_y,
        gridspec_kw={
            "left": left / width, "right": 1 - right / width, "bottom": bottom / height, "top": 1 - top / height,
            "wspace": gap_x / panel_width, "hspace": gap_y / panel_height,
        },
    )  # fmt: skip
    axes = list(grid.flat)
    for unused in axes[len(titles) :]:
        unused.remove()
    for panel, title in zip(axes, titles, strict=False):
        panel.set_title(title)
    return figure, axes[: len(titles)]


def _line(axes: Axes, curve: Curve, colour: str, dashes: str, marker: str, band: float) -> None:
    """Draw the mean over seeds with its 95 % t band in the given opacity."""
    xs = sorted(curve)
    intervals = [t_interval(curve[x]) for x in xs]
    means = [interval.mean for interval in intervals]
    axes.plot(xs, means, color=colour, linestyle=dashes, linewidth=1.4, **_marks(len(xs), marker))
    if band and any(interval.n > 1 for interval in intervals):
        lows, highs = [interval.low for interval in intervals], [interval.high for interval in intervals]
        axes.fill_between(xs, lows, highs, color=colour, alpha=band, linewidth=0)


def _band(lines: int) -> float:
    """Opacity of bands of which this many may overlap."""
    return 0.14 if lines <= 2 else 0.06


def _marks(points: int, marker: str = "o") -> dict[str, Any]:
    """Markers where there are few points, so that a single epoch is seen."""
    return {"marker": marker, "markersize": 3} if points <= 20 else {}


def _finish_axes(axes: Sequence[Axes], label: str, curves: Iterable[Curve], bottom: float | None = None) -> None:
    """Scale the shared y axis to the observed values: bands of few seeds reach far beyond them."""
    values = [value for curve in curves for members in curve.values() for value in members]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05
    axes[0].set_ylim(low - margin if bottom is None else bottom, high + margin)
    for panel in axes:
        spec = panel.get_subplotspec()
        if spec is not None and spec.is_first_col():
            panel.set_ylabel(label)


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _heatmap(axes: Axes, array: np.ndarray[Any, Any]) -> AxesImage:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    return axes.imshow(array, cmap=MAP_COLOURS, vmin=0, vmax=1)


def _colour_bar(figure: Figure, image: AxesImage, place: tuple[float, float, float, float], label: str) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes(place))
    bar.outline.set_visible(False)
    # As vectors the bar is 256 paths.
    assert bar.solids is not None
    bar.solids.set_rasterized(True)
    bar.set_label(label)


def _key(label: str, colour: str, dashes: Dashes = "-", marker: str = "") -> Line2D:
    return Line2D([], [], color=colour, linestyle=dashes, marker=marker, markersize=3.5, label=label)


def _legend_rows(keys: Sequence[Line2D]) -> int:
    return math.ceil(len(keys) / 7)


def _legend(figure: Figure, keys: Sequence[Line2D]) -> None:
    figure.legend(handles=list(keys), loc="upper center", ncols=min(len(keys), 7), borderaxespad=0.2, handlelength=2.6)
