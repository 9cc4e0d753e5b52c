"""The figures of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from poolbench.analysis.statistics import Interval
from poolbench.own_model.results import Evaluation
from poolbench.plots.images import heatmap, side_bar
from poolbench.plots.legends import key, legend
from poolbench.plots.style import GREY, PALETTE

WIDTH = 6.4  # inches: text stays legible where the page is as narrow as a phone
MOST_SITES = 40  # bars beyond these are thinner than their labels


@dataclass(frozen=True)
class Drawing:
    """A figure with its name, title and caption."""

    name: str
    title: str
    caption: str
    draw: Callable[[Evaluation], Figure | None]


def attribution(found: Evaluation) -> Figure | None:
    """Draw the flips that anti-aliasing each downsampling alone removes, and its change of accuracy, as bars."""
    sites = [site for site in found.sites if site.removed is not None][:MOST_SITES]
    if not sites:
        return None
    has_accuracy = sites[0].accuracy_change is not None
    rows = range(len(sites))
    figure = Figure(figsize=(WIDTH, 0.95 + 0.26 * len(sites)), layout="constrained")
    axes = figure.subplots(1, 1 + has_accuracy, sharey=True, squeeze=False)[0]
    _bars(axes[0], [site.removed for site in sites], PALETTE[0], "flips removed / points")
    if has_accuracy:
        _bars(axes[1], [site.accuracy_change for site in sites], PALETTE[1], "change of accuracy / points")
    axes[0].set_yticks(rows, [f"{site.path}  ({site.size_in}→{site.size_out})" for site in sites])
    axes[0].set_ylim(len(sites) - 0.4, -0.6)
    return figure


def _bars(axes: Axes, intervals: list[Interval | None], colour: str, label: str) -> None:
    """Draw differences of shares with their intervals as horizontal bars, in percentage points."""
    for row, interval in enumerate(intervals):
        if interval is not None:
            axes.barh(row, 100 * interval.mean, 0.62, color=colour, alpha=0.85)
            axes.plot([100 * interval.low, 100 * interval.high], [row, row], color="#222222", linewidth=1.2)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)


def sensitivity(found: Evaluation) -> Figure | None:
    """Draw the relative change of the features behind each downsampling under a one-pixel step, as bars."""
    sites = found.sites[:MOST_SITES]
    if not sites:
        return None
    figure = Figure(figsize=(WIDTH, 1.1 + 0.26 * len(sites)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(sites))
    axes.barh(rows - 0.18, [site.l2 for site in sites], 0.34, color=PALETTE[5], label="as they are")
    axes.barh(rows + 0.18, [site.aligned for site in sites], 0.34, color=PALETTE[0], label="moved back by the step")
    axes.set_yticks(rows, [site.path for site in sites])
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("relative change of the features")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def agreement_map(found: Evaluation) -> Figure:
    """Draw the share of images that keep the decision of the centre, at every position of the crop window."""
    agreement = np.asarray(found.exact.agreement)
    figure = Figure(figsize=(4.6, 3.6))
    axes = figure.add_axes((0.13, 0.14, 0.62, 0.8))
    centre = -((len(agreement) - 1) // 2)
    image = heatmap(axes, agreement, (float(agreement.min()), 1.0), "viridis", (centre, centre))
    axes.set(xlabel="window moved to the right / px", ylabel="window moved down / px")
    side_bar(figure, image, "share of images")
    return figure


def rotation_curve(found: Evaluation) -> Figure:
    """Draw agreement with the upright decision, and accuracy, by angle with 95 % bands."""
    table = found.rotation.table
    figure = Figure(figsize=(WIDTH, 2.9))
    axes = figure.add_axes((0.11, 0.16, 0.86, 0.7))
    names = {"agreement": "same decision as upright", "accuracy": "accuracy"}
    shown = [name for name in names if table[name].notna().all()]
    for name, colour in zip(shown, PALETTE, strict=False):
        axes.plot(table["angle"], table[name], color=colour, marker="o", markersize=3, linewidth=1.4)
        axes.fill_between(
            table["angle"], table[f"{name}_low"], table[f"{name}_high"], color=colour, alpha=0.15, linewidth=0
        )
    axes.set(xlabel="angle / degrees", xlim=(-140, 185), ylim=(0, 1.02), xticks=range(-135, 181, 45))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend(figure, [key(names[name], colour, marker="o") for name, colour in zip(shown, PALETTE, strict=False)])
    return figure


def layer_variance(found: Evaluation) -> Figure | None:
    """Draw the rotation variance V of the layers by depth, with two standard errors."""
    layers = found.rotation.layers
    if layers is None or layers.empty:
        return None
    figure = Figure(figsize=(WIDTH, 2.8))
    axes = figure.add_axes((0.11, 0.17, 0.86, 0.69))
    kinds = list(dict.fromkeys(layers["kind"]))
    axes.plot(layers["depth"], layers["V"], color="#bbbbbb", linewidth=0.8)
    for kind, colour in zip(kinds, PALETTE, strict=False):
        part = layers[layers["kind"] == kind]
        axes.errorbar(
            part["depth"],
            part["V"],
            2 * part["V_se"],
            color=colour,
            marker="o",
            markersize=3,
            linestyle="",
            linewidth=1,
        )
    axes.set(xlabel="layer, in order of execution", ylabel="V")
    axes.set_ylim(bottom=0)
    legend(figure, [key(kind, colour, "", "o") for kind, colour in zip(kinds, PALETTE, strict=False)])
    return figure


def reliability_curve(found: Evaluation) -> Figure | None:
    """Draw accuracy against confidence by bin; the area of a dot is the number of its images."""
    if found.calibration is None:
        return None
    table = found.calibration.table
    figure = Figure(figsize=(3.9, 3.5))
    axes = figure.add_axes((0.16, 0.14, 0.8, 0.82))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    axes.plot(table["confidence"], table["accuracy"], color=PALETTE[0], linewidth=1)
    axes.scatter(table["confidence"], table["accuracy"], 12 + 300 * table["n"] / table["n"].sum(), color=PALETTE[0])
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    return figure


DRAWINGS = (
    Drawing(
        "attribution",
        "What anti-aliasing each downsampling alone changes",
        "Left: flips removed, in percentage points of (image, one-pixel step) pairs; right: the change of accuracy. "
        "Lines: intervals, paired by image, that hold for all downsamplings at once with 95 %. The weights are those "
        "of the original network; what training with the new layer would give is not measured here.",
        attribution,
    ),
    Drawing(
        "sensitivity",
        "How far a one-pixel step moves the features behind each downsampling",
        "|f(moved) - f| / |f| for a diagonal step of the crop window, mean over images; dark: after the features were "
        "moved back by the same distance, interpolated. What remains then is aliasing and the border.",
        sensitivity,
    ),
    Drawing(
        "agreement_map",
        "All positions of the crop window",
        "Share of the images that keep the decision of the centre, at every position in the larger image.",
        agreement_map,
    ),
    Drawing(
        "rotation",
        "Rotation",
        "Images inside the inscribed disc, black outside. Bands: 95 % intervals over images.",
        rotation_curve,
    ),
    Drawing(
        "layer_variance",
        "Rotation variance of the layers",
        "V = deviation over angles / deviation over images, of the mean of each channel (Quiroga et al. 2019): 0 is "
        "invariant; near 1, turning an image changes a unit as much as replacing it. Bars: two standard errors.",
        layer_variance,
    ),
    Drawing(
        "reliability",
        "Reliability",
        "Accuracy against confidence in 15 bins (Guo et al. 2017); the area of a dot is the number of its images. "
        "Dots below the dashed line: overconfident.",
        reliability_curve,
    ),
)
"""All figures of the page, in order."""
