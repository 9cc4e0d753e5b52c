"""The results of an evaluation: frozen data without torch, which the page, the files and MLflow read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from poolbench.analysis.statistics import Interval


@dataclass(frozen=True)
class ModelFacts:
    """The network as it was evaluated; sizes in pixels. ``digest`` is that of its structure and all its tensors."""

    spec: str
    weights: str
    digest: str
    is_untrained: bool
    outputs: int
    parameters: int
    total_stride: int
    size: int
    large: int
    preprocessing: str


@dataclass(frozen=True)
class DataFacts:
    """The images as they were read. ``enlarged``: images with a shorter side below the larger image's."""

    folder: str
    images: int
    classes: Sequence[str]
    is_labelled: bool
    enlarged: int
    digest: str


@dataclass(frozen=True)
class Changes:
    """What a set of small changes of the input does to the decisions, relative to the unchanged input.

    ``flips``: share of (image, change) pairs with another decision. ``flipped``: share of images that at least one of
    the changes flips. ``change``: mean absolute change of the probability of the class that was decided before
    (Azulay and Weiss 2019). ``accuracy``: of the unchanged images; ``worst``: share of images that are classified
    correctly before and after each of the changes. Both are None without labels.
    """

    name: str
    title: str
    changes: int
    flips: Interval
    flipped: Interval
    change: Interval
    accuracy: Interval | None
    worst: Interval | None


@dataclass(frozen=True)
class ExactConsistency:
    """Agreement of the decisions over ALL positions of the crop window, or all circular shifts of one period.

    ``consistency``: probability that two random positions agree, with replacement; ``corrected``: that two different
    ones do; ``kappa`` as in :class:`poolbench.measures.shift.Consistency`. ``worst``: share of images that are correct
    at all positions. ``flips``: share of one-pixel steps between neighbours, up, down, left and right, that change the
    decision; None for circular shifts. ``agreement``: share of images with the decision of the centre at each position.
    """

    positions: int
    consistency: Interval
    corrected: float
    kappa: float
    mean_accuracy: Interval | None
    worst: Interval | None
    flips: Interval | None
    agreement: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Published:
    """The published estimator of consistency: one pair of random positions per image (Zhang 2019).

    ``scatter``: standard deviation of the estimate over repeated draws of the pairs for the same images, computed from
    the exact measure.
    """

    agreement: Interval
    scatter: float


@dataclass(frozen=True)
class Calibration:
    """Calibration at the centre crop. ``table``: see :func:`poolbench.measures.calibration.reliability`.

    ``overconfidence``: mean confidence minus accuracy.
    """

    error: float
    overconfidence: Interval
    table: pd.DataFrame


@dataclass(frozen=True)
class SiteEffect:
    """One downsampling: what anti-aliasing it alone does, weights unchanged, and how far features change there.

    ``flips_before`` and ``flips_after``: share of (image, one-pixel step) pairs with another decision. ``removed``:
    their difference, with the interval paired by image. ``accuracy_change``: after minus before, paired; None without
    labels. Both intervals hold for all downsamplings of a network at once with 95 %. ``l2`` and ``aligned``: relative
    change of the features behind the downsampling under a diagonal step of one pixel, as they are, and after the
    features are moved back. ``refused``: why it could not be anti-aliased, else "".
    """

    path: str
    kind: str
    stride: int
    size_in: int
    size_out: int
    l2: float
    aligned: float
    flips_before: float = 0.0
    flips_after: float = 0.0
    removed: Interval | None = None
    accuracy_change: Interval | None = None
    refused: str = ""


@dataclass(frozen=True)
class Rotation:
    """Decisions on rotated images inside the inscribed disc.

    ``table``: one row per angle in degrees, with agreement (with the decision at 0 degrees), accuracy (NaN without
    labels) and the bounds of their intervals (agreement_low, ...). ``layers``: rotation variance V by layer, from
    ``layer_images`` images; None if no layer could be recorded.
    """

    table: pd.DataFrame
    layers: pd.DataFrame | None
    layer_images: int

    @property
    def upright_accuracy(self) -> float:
        """The accuracy at 0 degrees, NaN without labels."""
        return float(self.table.loc[self.table["angle"] == 0, "accuracy"].iloc[0])


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a forward pass of a batch of ``images``: quartiles over the timed passes."""

    images: int
    median_ms: float
    low_ms: float
    high_ms: float
    passes: int


@dataclass(frozen=True)
class InferenceFacts:
    """Cost of inference. ``flops`` per image; ``peak_mb`` of the larger batch beyond weights and input, 10^6 bytes."""

    device: str
    flops: int
    peak_mb: float
    timings: Sequence[Timing]


@dataclass(frozen=True)
class Look:
    """A decision on one crop: PNG, the class decided and its probability."""

    png: bytes
    decision: str
    probability: float


@dataclass(frozen=True)
class Strip:
    """An unstable image: the centre crop, and the crop one pixel further in the direction ``step``."""

    path: str
    label: str
    step: str
    flips: float
    before: Look
    after: Look


@dataclass(frozen=True)
class Evaluation:
    """All results. ``steps``: the eight one-pixel steps of the crop on all images, then the four straight ones and the
    four diagonal ones; ``compared``: kinds of small changes on the same ``compared_images`` images. ``images``: one row
    per image. ``commonest``: share of the images that get the most frequent decision.
    """

    model: ModelFacts
    data: DataFacts
    accuracy: Interval | None
    commonest: float
    steps: Sequence[Changes]
    compared: Sequence[Changes]
    compared_images: int
    published: Published
    exact: ExactConsistency
    circular: ExactConsistency | None
    sites: Sequence[SiteEffect]
    calibration: Calibration | None
    rotation: Rotation
    cost: InferenceFacts
    strips: Sequence[Strip]
    images: pd.DataFrame
    environment: Mapping[str, object]
    seconds: float

    @property
    def is_constant(self) -> bool:
        """Whether nearly all images get one decision, so that stability says nothing."""
        return self.commonest >= CONSTANT and len(self.data.classes) != 1

    @property
    def causes(self) -> list[SiteEffect]:
        """The downsamplings whose anti-aliasing removes flips with an interval above 0, the largest effect first."""
        certain = [(site.removed.mean, site) for site in self.sites if site.removed and site.removed.low > 0]
        return [site for _, site in sorted(certain, key=lambda pair: -pair[0])]


CONSTANT = 0.95
