"""Means of groups and differences between them, over seeds and, where values per image are known, over images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import asinh, exp, inf

import numpy as np

from poolbench.analysis.groups import Group
from poolbench.analysis.images import NO_IMAGES, Array, ImageValues, image_contributions, scaled
from poolbench.analysis.statistics import (
    Estimate,
    Interval,
    anytime_interval,
    crossed_estimate,
    folds_estimate,
    seeds_estimate,
)
from poolbench.core import Cell, Metric

Key = tuple[int, tuple[object, ...]]
"""A seed and the values of the other fields by which cells are paired."""


@dataclass(frozen=True)
class Point:
    """One value on its metric's scale, with what each image contributes to it (mean: the value).

    ``images`` is None if that is unknown. Points with equal ``source`` were measured on the same images. ``range`` is
    that of what an image may contribute: 1 for a share, the sum of both in a difference, 0 if unknown. ``folds`` is
    that of the metric.
    """

    value: float
    images: Array | None
    source: object
    range: float = 0.0
    folds: int = 0

    def minus(self, other: Point) -> Point:
        """Return the difference; it has values per image if both sides were measured on the same images."""
        images = _combined([self, other], (1.0, -1.0))
        return Point(self.value - other.value, images, self.source, self.range + other.range, self.folds)

    def times(self, factor: float) -> Point:
        return replace(self, value=factor * self.value, images=None if self.images is None else factor * self.images)


def mean_point(points: Sequence[Point]) -> Point:
    """Return the mean of points; it has values per image if all were measured on the same images."""
    weights = [1 / len(points)] * len(points)
    value = float(np.mean([point.value for point in points]))
    return Point(value, _combined(points, weights), points[0].source, points[0].range, points[0].folds)


def _combined(points: Sequence[Point], weights: Sequence[float]) -> Array | None:
    known = [point.images for point in points if point.images is not None]
    if len(known) < len(points) or len({(point.source, len(i)) for point, i in zip(points, known, strict=True)}) > 1:
        return None
    total: Array = sum(weight * images for weight, images in zip(weights, known, strict=True))  # type: ignore[assignment]
    return total


def point(value: float, metric: Metric, cell: str, source: object, images: ImageValues) -> Point:
    """Return a cell's value of a metric as a point."""
    contributions = image_contributions(value, metric, cell, images)
    return Point(scaled(value, metric), contributions, source, float(metric.share), metric.folds)


def estimate(points: Mapping[Key, Point]) -> Estimate:
    """Return the mean over seeds of the mean over the other fields, from one or more points.

    Seeds count, not points. The variance covers seeds and images if every point has values per image and every
    combination of the other fields has every seed, otherwise seeds alone. Seeds that are folds are not independent:
    see ``statistics.folds_estimate``.
    """
    seeds = sorted({seed for seed, _ in points})
    strata = list(dict.fromkeys(stratum for _, stratum in points))
    if len(points) == len(seeds) * len(strata) and all(point.images is not None for point in points.values()):
        blocks, weights = _blocks(points, seeds, strata)
        found = crossed_estimate(blocks, weights)
        most = max(point.range for point in points.values())
        return _of_shares(found, blocks, most) if most else found
    by_seed = [[point.value for (seed, _), point in points.items() if seed == wanted] for wanted in seeds]
    values = [float(np.mean(found)) for found in by_seed]
    folds = max(point.folds for point in points.values())
    return folds_estimate(values, folds) if folds else seeds_estimate(values)


def _of_shares(found: Estimate, blocks: Sequence[Array], most: float) -> Estimate:
    """Return the estimate of a mean of shares: its number of images, and how far one of them lies from the mean.

    If all are equal, nothing says how far another image may lie from the mean. It is 1 at most for a share and for the
    difference of two (a range of 2), 2 for a difference of differences (a range of 4).
    """
    largest = max(float(np.abs(block.mean(axis=0) - block.mean()).max()) for block in blocks)
    return replace(found, images=min(block.shape[1] for block in blocks), largest=largest or max(1.0, most / 2))


def _blocks(
    points: Mapping[Key, Point], seeds: Sequence[int], strata: Sequence[tuple[object, ...]]
) -> tuple[list[Array], list[float]]:
    """Return an array (seeds, images) and its weight for each set of images."""
    members: dict[object, list[tuple[object, ...]]] = {}
    for stratum in strata:
        first = points[seeds[0], stratum]
        count = 0 if first.images is None else len(first.images)
        members.setdefault((first.source, count), []).append(stratum)
    blocks = [
        np.stack([np.mean(np.array([points[seed, stratum].images for stratum in found]), axis=0) for seed in seeds])
        for found in members.values()
    ]
    return blocks, [len(found) / len(strata) for found in members.values()]


def group_points(group: Group, metric: Metric, images: ImageValues = NO_IMAGES) -> dict[Key, Point]:
    """Return the points of the networks of a group that have learned."""
    values, cells = group.values(metric.name), {result.cell.seed: result.cell for result in group.results}
    return {
        (seed, ()): point(value, metric, cells[seed].id, source_of(cells[seed]), images)
        for seed, value in values.items()
    }


def source_of(cell: Cell) -> object:
    """Return what decides on which images a cell is measured."""
    return cell.dataset.name, tuple(sorted(cell.dataset.options.items())), cell.split


def group_estimate(group: Group, metric: Metric, images: ImageValues = NO_IMAGES) -> Estimate | None:
    """Return the mean of a group on the metric's scale; None if no network that has learned has a value."""
    points = group_points(group, metric, images)
    return estimate(points) if points else None


def group_interval(group: Group, metric: Metric, images: ImageValues = NO_IMAGES) -> Interval | None:
    """Return the 95 % interval of a group's mean in the metric's unit, geometric mean for logarithmic metrics.

    It ends at the metric's bounds.
    """
    found = group_estimate(group, metric, images)
    return unscaled(found.interval(), metric).within(*metric.bounds) if found else None


def unscaled(interval: Interval, metric: Metric) -> Interval:
    """Return an interval on the metric's scale in the metric's unit; differences of logarithms become ratios."""
    if metric.scale == "linear":
        return interval
    mean, low, high = (_exponential(x) for x in (interval.mean, interval.low, interval.high))
    return Interval(mean, low, high, interval.n)


def _exponential(x: float) -> float:
    # Intervals of few seeds can be too wide for a float.
    return exp(x) if x < 700 else inf


def values_interval(values: Iterable[float], metric: Metric) -> Interval:
    """Return the 95 % interval over seeds of the mean of values in the metric's unit, within the metric's bounds."""
    return unscaled(anytime_interval([scaled(value, metric) for value in values]), metric).within(*metric.bounds)


def paired(a: Mapping[Key, Point], b: Mapping[Key, Point]) -> dict[Key, Point]:
    """Return a - b for the keys that both have."""
    return {key: a[key].minus(b[key]) for key in a if key in b}


def lead_interval(group: Group, reference: Group, metric: Metric, images: ImageValues = NO_IMAGES) -> Interval | None:
    """Return the 95 % interval of a group's mean minus that of another, paired by seed; None without common seeds.

    For logarithmic metrics it is the ratio.
    """
    points = paired(group_points(group, metric, images), group_points(reference, metric, images))
    return unscaled_difference(estimate(points).interval(), metric) if points else None


def unscaled_difference(interval: Interval, metric: Metric, order: int = 1) -> Interval:
    """Return the interval of a difference as :func:`unscaled` does, without what the metric's bounds rule out.

    ``order`` 2 is for a difference of two differences.
    """
    found = unscaled(interval, metric)
    width = order * (metric.bounds[1] - metric.bounds[0])
    return found if metric.scale == "log" else found.within(-width, width)


def scaled_margin(margin: float, level: float, metric: Metric) -> float:
    """Return a margin in the metric's unit as one on its scale, around a mean ``level`` on that scale.

    Two values with the geometric mean g differ by margin if their log ratio is 2 asinh(margin / 2g).
    """
    return 2 * asinh(margin / (2 * exp(level))) if metric.scale == "log" else margin
