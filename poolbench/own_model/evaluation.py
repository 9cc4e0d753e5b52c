"""The evaluation of the user's network on the user's images: everything measured, in one frozen result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from statistics import quantiles
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from poolbench.analysis.bootstrap import bootstrap_interval
from poolbench.measures import shift
from poolbench.measures.calibration import expected_calibration_error, reliability
from poolbench.measures.classification import commonest_share
from poolbench.measures.cost import InferenceCost, measure_inference
from poolbench.own_model.attribution import attribute, attribution_passes
from poolbench.own_model.images import Images, balanced_subset, larger_side
from poolbench.own_model.model import OwnModel, network_digest
from poolbench.own_model.passes import Answers, Counter, Passes, default_batch
from poolbench.own_model.results import (
    Calibration,
    DataFacts,
    Evaluation,
    ExactConsistency,
    InferenceFacts,
    ModelFacts,
    Timing,
)
from poolbench.own_model.rotations import rotated, rotation, rotation_passes
from poolbench.own_model.shifts import (
    KIND_TITLES,
    STEP_NAMES,
    STEPS,
    Labels,
    compared,
    compared_passes,
    exact_circular,
    exact_window,
    published,
    random_pairs,
    step_summaries,
    summary,
    windows,
)
from poolbench.own_model.sites import downsamplings
from poolbench.own_model.strips import strips
from poolbench.runner.environment import environment
from poolbench.surgery import Site

Strata = np.ndarray[Any, Any] | None
EXACT = "images of the exact measures"
EXACT_IMAGES, EXACT_PASSES = 250, 20_000
"""Images of the exact measures unless told otherwise, and the passes that they may take then."""


@dataclass(frozen=True)
class Options:
    """How much is measured. ``exact``: images of the exact measures; ``batch``: images per forward pass; None: default.

    By default the exact measures take 250 images, fewer if 20,000 forward passes do not suffice.
    """

    exact: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class _Work:
    """The passes over all images, over the compared ones and over the exact ones, with their labels and indices."""

    whole: Passes
    labels: Labels
    few: Passes
    few_index: Tensor
    exact: Passes
    exact_index: Tensor

    def labels_of(self, index: Tensor) -> Labels:
        return None if self.labels is None else self.labels[index]


def evaluate(
    model: OwnModel, images: Images, device: str, options: Options, show: Callable[[int, int], None]
) -> Evaluation:
    """Return what one-pixel steps, scale and rotation do to the network's decisions on the images.

    ``show(done, total)`` is called with the forward passes so far and in all, in images.
    """
    began = time.perf_counter()
    size, labels = model.preprocessing.size, images.listing.labels
    work = _work(model, images, device, options, Counter(show))
    sites = downsamplings(model.network, (3, size, size))
    _expect(work, sites, bool(images.rescaled))

    answers = work.whole.answers(windows(size))
    agreement = random_pairs(work.whole)
    few = {"window": answers.of_images(work.few_index)}
    few |= compared(work.few, list(images.rescaled.values()))
    few_labels = work.labels_of(work.few_index)
    exact, exact_agreement = exact_window(work.exact, work.labels_of(work.exact_index))
    effects = attribute(work.few, sites, few["window"], few_labels)
    turned = rotated(work.few)
    total_stride = stride_of(work.exact)
    names = _Names(images, model.outputs)
    correct = None if work.labels is None else (answers.decisions[0] == work.labels).double()
    return Evaluation(
        model=model_facts(model, total_stride),
        data=data_facts(images),
        accuracy=None if correct is None else bootstrap_interval(correct.numpy(), labels),
        commonest=commonest_share(answers.decisions[0].numpy()),
        steps=step_summaries(answers, work.labels),
        compared=[summary(name, KIND_TITLES[name], found, few_labels) for name, found in few.items()],
        compared_images=len(work.few),
        published=published(agreement, exact_agreement, work.labels),
        exact=exact,
        circular=_circular(work, total_stride),
        sites=effects,
        calibration=None if correct is None else _calibration(answers.probability[0], correct, labels),
        rotation=rotation(work.few, turned, few_labels),
        cost=_cost(work.whole),
        strips=strips(images, size, answers, names),
        images=_table(images, answers, names, work, few, exact_agreement),
        environment=environment(device),
        seconds=time.perf_counter() - began,
    )


def _work(model: OwnModel, images: Images, device: str, options: Options, counter: Counter) -> _Work:
    size = model.preprocessing.size
    batch = options.batch or default_batch(size, device)
    whole = Passes(model.network, images.larger, size, device, batch, counter)
    labels = None if images.listing.labels is None else torch.from_numpy(images.listing.labels)
    positions = (larger_side(size) - size + 1) ** 2
    exact = options.exact or max(1, min(EXACT_IMAGES, EXACT_PASSES // positions))
    few_index = torch.from_numpy(images.compared)
    exact_index = torch.from_numpy(balanced_subset(images.listing.labels, exact, len(images), EXACT))
    few, few_exact = (whole.on(images.larger[index]) for index in (few_index, exact_index))
    return _Work(whole, labels, few, few_index, few_exact, exact_index)


def _expect(work: _Work, sites: Sequence[Site], has_rescaled: bool) -> None:
    """Tell the counter the passes of all measures but exact circular consistency, which few networks have."""
    whole, few = len(work.whole), len(work.few)
    positions = (work.whole.larger.shape[-1] - work.whole.size + 1) ** 2
    work.whole.counter.expect(
        whole * (1 + len(STEPS) + 2)
        + compared_passes(few, has_rescaled)
        + len(work.exact) * positions
        + attribution_passes(few, len(sites))
        + rotation_passes(few)
    )


class _Names:
    """The name of a class by its index: that of its folder, or "class 7" where the folders are no classes."""

    def __init__(self, images: Images, outputs: int) -> None:
        known = images.listing.classes if images.listing.labels is not None else ()
        self.names = known or [f"class {index}" for index in range(max(2, outputs))]

    def __call__(self, index: int) -> str:
        return self.names[index]


def stride_of(passes: Passes) -> int:
    """Return the total stride of a network, in px."""
    _, larger = next(passes.batches())
    return shift.total_stride(passes.network, larger[0, :, : passes.size, : passes.size])


def _circular(work: _Work, total_stride: int) -> ExactConsistency | None:
    """Return the exact circular consistency, on as many images as the passes allow.

    None without a period below the size, which any network has. The probe does not see maps of a single position, so
    the stride may be twice what it finds.
    """
    size = work.whole.size
    for period in (total_stride, 2 * total_stride):
        if period < size and size % period == 0:
            count = max(1, min(len(work.exact), EXACT_PASSES // period**2))
            labels = None if work.labels is None else work.labels.numpy()
            index = torch.from_numpy(balanced_subset(labels, count, len(work.whole), EXACT))
            found = exact_circular(work.whole.on(work.whole.larger[index]), period, work.labels_of(index))
            if found is not None:
                return found
    return None


def _calibration(confidence: Tensor, correct: Tensor, strata: Strata) -> Calibration:
    table = reliability(confidence, correct)
    gap = bootstrap_interval((confidence - correct).numpy(), strata, share=False)
    return Calibration(expected_calibration_error(table), gap, table)


def _cost(passes: Passes) -> InferenceFacts:
    """Return the cost of a pass of one image and of a whole batch."""
    _, larger = next(passes.batches())
    images = larger[..., : passes.size, : passes.size].contiguous()
    found = [measure_inference(passes.network, images[:count]) for count in sorted({1, len(images)})]
    return InferenceFacts(passes.device, found[0].flops, found[-1].peak_mb, [_timing(cost) for cost in found])


def _timing(cost: InferenceCost) -> Timing:
    low, middle, high = quantiles(cost.times_ms, n=4)
    return Timing(cost.images, middle, low, high, len(cost.times_ms))


def model_facts(model: OwnModel, total_stride: int) -> ModelFacts:
    used = model.preprocessing
    return ModelFacts(
        spec=model.spec,
        weights=model.weights,
        digest=network_digest(model.network),
        is_untrained=model.is_untrained,
        outputs=model.outputs,
        parameters=sum(parameter.numel() for parameter in model.network.parameters()),
        total_stride=total_stride,
        size=used.size,
        large=larger_side(used.size),
        preprocessing=model.description,
    )


def data_facts(images: Images) -> DataFacts:
    listing = images.listing
    return DataFacts(
        str(listing.folder), len(images), listing.classes, listing.labels is not None, images.enlarged, images.digest
    )


def _table(
    images: Images, answers: Answers, names: _Names, work: _Work, few: dict[str, Answers], exact: Tensor
) -> pd.DataFrame:
    """Return one row per image: decisions at the centre and after each step, shares of flips; NaN: not measured."""
    listing = images.listing
    columns: dict[str, list[Any]] = {}
    columns["path"] = [path.relative_to(listing.folder).as_posix() for path in listing.files]
    if listing.labels is not None:
        columns["label"] = [names(int(label)) for label in listing.labels]
    columns["decision"] = [names(decision) for decision in answers.decisions[0].tolist()]
    columns["probability"] = answers.probability[0].tolist()
    if work.labels is not None:
        columns["correct"] = (answers.decisions[0] == work.labels).tolist()
    columns["flips"] = answers.flipped.double().mean(dim=0).tolist()
    columns["change"] = answers.change.mean(dim=0).tolist()
    for step, decisions in zip(STEPS, answers.decisions[1:].tolist(), strict=True):
        columns[f"decision {STEP_NAMES[step]}"] = [names(decision) for decision in decisions]
    for name, found in few.items():
        if name != "window":
            shares = found.flipped.double().mean(dim=0)
            columns[f"flips {name}"] = _spread(shares, work.few_index, len(images))
    columns["exact consistency"] = _spread(exact, work.exact_index, len(images))
    return pd.DataFrame(columns)


def _spread(values: Tensor, index: Tensor, count: int) -> list[float]:
    whole = torch.full((count,), nan, dtype=torch.float64)
    whole[index] = values.double()
    found: list[float] = whole.tolist()
    return found
