"""Curves: metrics of the history against the epoch, and metrics of groups against a numeric field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from poolbench.analysis.groups import Group
from poolbench.analysis.statistics import Interval
from poolbench.analysis.text import metric_label
from poolbench.core import Scalar
from poolbench.plots.legends import key, legend, legend_rows
from poolbench.plots.lines import Curve, band_opacity, interval_line, line, scale_to_values
from poolbench.plots.panels import label_first_column, panel_grid
from poolbench.plots.scene import Scene
from poolbench.plots.style import GREY


def learning_curves(
    scene: Scene, sources: Sequence[str], panels: Sequence[str] = (), colour: str = "pool", label: str = ""
) -> Figure | None:
    """Draw columns of the history (``sources``, such as "val_accuracy") by epoch: means over seeds, one line per group.

    ``panels`` and ``colour`` name fields; ``label`` is that of the y axis. Training is dashed if ``sources`` hold
    both splits.
    """
    curves = {group.id: _curves(group, sources) for group in scene.groups}
    groups = [group for group in scene.groups if any(curves[group.id].values())]
    if not groups:
        return None
    has_both = len({source.partition("_")[0] for source in sources}) > 1
    members_of = scene.panels(groups, panels, within=(colour,))
    keys = scene.keys(colour, groups)
    if has_both:
        keys += [key("training", "#333333", "--"), key("validation", "#333333")]
    figure, axes = panel_grid(members_of, min(3, len(members_of)), 2.1, legend_rows(keys))
    styles = scene.styles(colour)
    for panel, members in zip(axes, members_of.values(), strict=True):
        for group in members:
            shade, marker = styles[group.fields.get(colour)]
            for source, curve in curves[group.id].items():
                is_training = has_both and source.startswith("train_")
                band = 0 if is_training else band_opacity(len(members))
                line(panel, curve, shade, "--" if is_training else "-", marker, band)
        _epoch_axis(panel)
    scale_to_values(axes, [curve for by_source in curves.values() for curve in by_source.values()])
    label_first_column(axes, label)
    legend(figure, keys)
    return figure


def metric_curves(
    scene: Scene, metric: str, along: str, panels: Sequence[str] = (), colour: str = "pool"
) -> Figure | None:
    """Draw a metric's mean and 95 % interval against the numeric field ``along``, one line per value of ``colour``.

    ``panels`` names the fields whose values get panels of their own. None if all groups have the same ``along``.
    """
    known = scene.metric(metric)
    intervals = {group.id: scene.interval(group, known) for group in scene.groups}
    return _field_curves(scene, intervals, along, panels, colour, metric_label(known))


def lead_curves(
    scene: Scene, metric: str, along: str, reference: str, panels: Sequence[str] = (), colour: str = "pool"
) -> Figure | None:
    """Draw the lead over the groups whose ``colour`` is ``reference`` as :func:`metric_curves` draws the metric.

    Leads are paired by seed and have the sign of the metric; groups without a counterpart are left out.
    """
    known = scene.metric(metric)
    # Options of the coloured component (pool.p) have no counterpart.
    others = [name for name in scene.others(colour) if not name.startswith(f"{colour}.")]
    counterparts = {_values(group, others): group for group in scene.groups if group.fields.get(colour) == reference}
    intervals = {}
    for group in scene.groups:
        counterpart = counterparts.get(_values(group, others))
        if counterpart is not None and counterpart is not group:
            intervals[group.id] = scene.lead(group, counterpart, known)
    figure = _field_curves(scene, intervals, along, panels, colour, f"{metric_label(known)}, lead")
    if figure is not None:
        for axes in figure.axes:
            axes.axhline(1 if known.scale == "log" else 0, color=GREY, linewidth=0.8, linestyle="--")
    return figure


def _values(group: Group, fields: Sequence[str]) -> tuple[object, ...]:
    return tuple(group.fields.get(name) for name in fields)


def _field_curves(
    scene: Scene,
    intervals: Mapping[str, Interval | None],
    along: str,
    panels: Sequence[str],
    colour: str,
    label: str,
) -> Figure | None:
    """Draw the intervals of groups, by id, against the field ``along`` on a logarithmic axis."""
    groups = [group for group in scene.groups if intervals.get(group.id) is not None]
    if len({group.fields.get(along) for group in groups}) < 2:
        return None
    members_of = scene.panels(groups, panels, within=(colour, along, *scene.following(along)))
    keys, styles = scene.keys(colour, groups), scene.styles(colour)
    # Negative ticks need room beside the label.
    figure, axes = panel_grid(members_of, min(3, len(members_of)), 2.1, legend_rows(keys), left=0.75)
    for panel, members in zip(axes, members_of.values(), strict=True):
        found: dict[Scalar | None, dict[float, Interval]] = {}
        for group in members:
            x, interval = group.fields.get(along), intervals[group.id]
            if isinstance(x, int | float) and interval is not None:
                found.setdefault(group.fields.get(colour), {})[x] = interval
        for value, by_x in found.items():
            interval_line(panel, by_x, styles[value][0], "-", styles[value][1], band_opacity(2))
        xs = sorted({x for by_x in found.values() for x in by_x})
        panel.set_xscale("log")
        panel.set_xticks(xs, [f"{x:g}" for x in xs])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel(along)
    label_first_column(axes, label)
    legend(figure, keys)
    return figure


def _curves(group: Group, sources: Sequence[str]) -> dict[str, Curve]:
    """Return {source: {epoch: finite values of the networks that have learned}}."""
    found: dict[str, Curve] = {}
    for source in sources:
        curve: Curve = {}
        for row in (row for result in group.learned for row in result.history):
            if source in row and math.isfinite(row[source]):
                curve.setdefault(row["epoch"], []).append(row[source])
        found[source] = curve
    return found


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
