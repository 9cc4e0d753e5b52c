"""What each fault changes, on inputs that are small enough for a test: a number before, and the check of it during."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench import data, engine
from poolbench.architectures import blocks
from poolbench.core import Component, TrainConfig
from poolbench.data import Dataset, Split
from poolbench.data.shapes import ShapeStream
from poolbench.engine import loop, networks
from poolbench.measures import rotation, shift
from poolbench.pooling import create_head, create_pool, lowpass
from poolbench.runner.plan import Selection, plan
from poolbench_tasks.rotation_variance import measure as rotation_measure

Check = Callable[[Any, Any], bool]
"""Whether a value before and a value during a fault are what the fault says."""

RAMP = torch.arange(64.0).view(1, 1, 8, 8)
LATER = RAMP[..., 1:, 1:]  # the map from offset 1 on
LABELS = torch.arange(2000) % 10


def pools(training: bool) -> list[Tensor]:
    """Return the output of the pools that have a phase, for a ramp."""
    convolution = create_pool("strided_conv", 1)
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.fill_(1.0)
        every = [create_pool("max", 1), create_pool("decimate", 1), convolution]
        return [pool.train(training)(RAMP) for pool in every]


def later(before: list[Tensor], during: list[Tensor]) -> bool:
    """Return whether the pools begin at offset 1: the maximum of rows 1 and 2, row 1, nine values around (1, 1)."""
    corners = [float(out[0, 0, 0, 0]) for out in during]
    return corners == [float(RAMP[0, 0, 2, 2]), float(RAMP[0, 0, 1, 1]), 9 * float(RAMP[0, 0, 1, 1]) + 1] and all(
        new.shape == old.shape for new, old in zip(during, before, strict=True)
    )


def padded_corner() -> Tensor:
    """Return the corner of a constant map after a circular 3x3 convolution with weights of 1."""
    convolution = blocks.Resolution((1, 4, 4), Component("max"), "circular").conv3x3(1, 1, bias=False)
    nn.init.ones_(convolution.weight)
    return convolution(torch.ones(1, 1, 4, 4))[0, 0, 0, 0].detach()


def rates(config: TrainConfig) -> list[float]:
    """Return the learning rates of a training of eight steps."""
    return [loop.learning_rate(config, step, 8) for step in range(8)]


def gradient_is_dropped() -> bool:
    """Return whether an optimiser drops the gradient of its parameter."""
    weight = torch.ones(1, requires_grad=True)
    optimizer = loop.build_optimizer(TrainConfig(epochs=1), [weight])
    weight.grad = torch.ones(1)
    optimizer.zero_grad()
    return weight.grad is None


def split(images: int = 20) -> Split:
    """Return small random images of ten classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 1, 6, 6), generator=generator).to(torch.uint8)
    return Split(pixels, LABELS[:images])


def dataset() -> Dataset:
    """Return a data set of small images, padded by one pixel."""
    return data.images_dataset("tiny", tuple("0123456789"), split(20), split(10), "made here", pad=1)


def generator() -> torch.Generator:
    """Return a new stream of random numbers, always the same."""
    return torch.Generator().manual_seed(0)


def two_draws(kind: str) -> list[Tensor]:
    """Return the augmentations that two epochs draw."""
    stream = generator()
    return [loop.draw_augmentations((kind,), 50, stream)[kind] for _ in range(2)]


def normalised() -> list[Tensor]:
    """Return a ramp after the normalisation in training and in evaluation."""
    layer = engine.Normalize((0.5,), (0.25,))
    return [layer.train(training)(RAMP) for training in (True, False)]


def largest_of_ones() -> list[float]:
    """Return the maximum that a head finds in a map of ones in training and in evaluation."""
    head = blocks.create_head("max", 1)
    return [float(head.train(training)(torch.ones(1, 1, 20, 20))) for training in (True, False)]


def batch_norms() -> list[nn.Module]:
    """Return the batch normalisations of a network in its second epoch."""
    cell = next(cell for cell in plan(Selection(("training_budget",), "smoke")))
    model = engine.build_model(cell, load_garments(), "cpu")
    # The first evaluation ends the first epoch.
    model.train().eval()
    model.train()
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


def load_garments() -> Dataset:
    """Return a data set of the size that a network with four halvings takes."""
    images = torch.zeros(20, 1, 32, 32, dtype=torch.uint8)
    images[::2] = 200
    part = Split(images, LABELS[:20])
    return data.images_dataset("garments", tuple("0123456789"), part, part, "made here")


def training_labels() -> list[Tensor]:
    """Return the labels of stored and of drawn images, each rendered twice."""
    stored = Split(torch.zeros(2000, 1, 1, 1, dtype=torch.uint8), LABELS)
    drawn = ShapeStream(canvas=32, samples=8000)
    rows = [source.draw(generator(), True) for source in (stored, drawn)]
    rendered = [source.render(chosen)[1] for source, chosen in zip((stored, drawn), rows, strict=True)]
    return rendered + [source.render(chosen)[1] for source, chosen in zip((stored, drawn), rows, strict=True)]


def wrong_share(share: float) -> Check:
    """Return the check that this share of the labels is wrong, the same ones every time."""

    def holds(before: list[Tensor], during: list[Tensor]) -> bool:
        wrong = [float((old != new).double().mean()) for old, new in zip(before, during, strict=True)]
        again = all(torch.equal(during[index], during[index + 2]) for index in range(2))
        return again and all(abs(found - share) < 0.008 for found in wrong)

    return holds


def moved_test(change: Callable[[Tensor], Tensor]) -> Check:
    """Return the check that only the test images changed, inside their padding."""

    def holds(before: Dataset, during: Dataset) -> bool:
        inside = before.test.images[..., 1:-1, 1:-1]
        return (
            torch.equal(during.test.images[..., 1:-1, 1:-1], change(inside))
            and torch.equal(during.train.images, before.train.images)
            and during.digest == before.digest
        )

    return holds


def framed(images: Tensor) -> Tensor:
    """Return images with a black frame."""
    kept = torch.zeros_like(images)
    kept[..., 1:-1, 1:-1] = images[..., 1:-1, 1:-1]
    return kept


def shifted(images: Tensor) -> Tensor:
    """Return images one pixel further down and right."""
    moved = torch.zeros_like(images)
    moved[..., 1:, 1:] = images[..., :-1, :-1]
    return moved


class BrightLeft(nn.Module):
    """Classify images by whether their left column is bright."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, 0, :, 0].mean(dim=1)
        return torch.stack((1 - bright, bright), dim=1)


def half_right() -> tuple[float, float]:
    """Evaluate 500 images that are classified correctly, and then 100 that are not."""
    labels = (torch.arange(600) >= 500).long()
    return engine.evaluate(BrightLeft(), Split(torch.zeros(600, 1, 2, 2, dtype=torch.uint8), labels))


def variances() -> Tensor:
    """Return V of the units of a small network, from ten images at four angles."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    units = rotation.activation_variance(model, split(10).images.float() / 255, [0, 90, 180, 270], None, ("mean",))
    return torch.tensor(units["V"].to_numpy())


def agreements() -> Tensor:
    """Return the agreement of two random shifts of each image."""
    return shift.sampled_agreement(BrightLeft(), split(20).images.float() / 255, 3, generator())


def rotated_consistency() -> float:
    """Return the consistency of decisions at four angles."""
    rows = [("trained", angle, share) for angle, share in ((0, 1.0), (90, 0.5), (180, 0.25), (270, 0.75))]
    found = pd.DataFrame(rows, columns=["network", "angle", "consistency"])
    found = pd.concat([found, found.assign(network="c4")])
    found = found.assign(**{"class": "all", "merged": False, "accuracy": 1.0, "worst": 1.0})
    return float(rotation_measure._decision_metrics(found)["consistency"])


ONE_CYCLE = TrainConfig(epochs=2, schedule="one_cycle")
IMAGENET = ((0.485,), (0.229,))
FIFTHS = torch.tensor([1.0, 2.0, 2.0]) / 5
CASES: dict[str, tuple[Callable[[], Any], Check]] = {
    "blur_tap": (lambda: create_pool("blur3", 1).kernel[0, 0], lambda _, k: close(k, torch.outer(FIFTHS, FIFTHS))),
    "blur_border": (
        lambda: lowpass.Blur3(1, stride=1)(torch.ones(1, 1, 4, 4))[0, 0, 0, 0],
        lambda a, b: (float(a), float(b)) == (1.0, 9 / 16),
    ),
    "phase_offset": (lambda: pools(True), later),
    "phase_in_evaluation": (
        lambda: (pools(True), pools(False)),
        lambda a, b: all(map(torch.equal, a[0], b[0])) and later(a[1], b[1]),
    ),
    "circular_zeros": (padded_corner, lambda a, b: (float(a), float(b)) == (9.0, 4.0)),
    "first_phase": (
        lambda: create_pool("aps", 1)(RAMP),
        lambda a, b: torch.equal(a, LATER[..., ::2, ::2]) and torch.equal(b, RAMP[..., ::2, ::2]),
    ),
    "head_area": (lambda: create_head("avg", 1)(RAMP), lambda a, b: close(b, a * 64 / 63)),
    "head_border": (lambda: create_head("avg", 1)(RAMP)[0, 0], lambda _, b: close(b, RAMP[..., :-1, :-1].mean())),
    "learning_rate_halved": (lambda: rates(ONE_CYCLE), lambda a, b: b == [rate / 2 for rate in a]),
    "last_epoch_skipped": (lambda: rates(ONE_CYCLE), lambda a, b: b == [*a[:4], 0, 0, 0, 0]),
    "schedule_per_epoch": (lambda: rates(ONE_CYCLE), lambda a, b: b == [a[0]] * 4 + [a[1]] * 4),
    "gradients_accumulate": (gradient_is_dropped, lambda a, b: a and not b),
    "double_softmax": (
        lambda: float(networks.loss_of(torch.tensor([[50.0, 0.0]]), torch.tensor([0]))),
        lambda a, b: a == 0 and math.isclose(b, math.log(1 + math.exp(-1)), rel_tol=1e-6),
    ),
    "unshuffled": (
        lambda: split().draw(generator(), True)[:, 0],
        lambda a, b: torch.equal(b, torch.arange(20)) and not torch.equal(a, b),
    ),
    "no_augmentation": (
        lambda: loop.augment(RAMP, {"flip": torch.tensor([True])}),
        lambda a, b: torch.equal(a, RAMP.flip(-1)) and torch.equal(b, RAMP),
    ),
    "augmentation_repeats": (
        lambda: two_draws("shift"),
        lambda a, b: not torch.equal(*a) and torch.equal(*b) and torch.equal(a[0], b[0]),
    ),
    "rotation_in_radians": (lambda: two_draws("rotation")[1], lambda a, b: close(b, torch.deg2rad(a))),
    "moments_of_imagenet": (lambda: (dataset().mean, dataset().std), lambda a, b: b == IMAGENET != a),
    "moments_unscaled": (
        lambda: (*dataset().mean, *dataset().std),
        lambda a, b: b == tuple(255 * value for value in a),
    ),
    "moments_in_evaluation": (
        normalised,
        lambda a, b: torch.equal(a[0], b[0]) and torch.equal(a[1], a[0]) and torch.equal(b[1], RAMP),
    ),
    "dropout_in_evaluation": (largest_of_ones, lambda a, b: a == [1, 1] and close(torch.tensor(b), [1, 1 / 0.9])),
    "batch_norm_frozen": (
        lambda: {module.training for module in batch_norms()},
        lambda a, b: (a, b) == ({True}, {False}),
    ),
    "batch_norm_momentum": (
        lambda: {module.momentum for module in batch_norms()},
        lambda a, b: (a, b) == ({0.1}, {0.99}),
    ),
    "labels_2_percent": (training_labels, wrong_share(0.02)),
    "labels_5_percent": (training_labels, wrong_share(0.05)),
    "frame_blackened": (dataset, moved_test(framed)),
    "images_moved": (dataset, moved_test(shifted)),
    "leaked_images": (
        dataset,
        lambda a, b: (
            torch.equal(b.train.images, torch.cat((a.train.images, a.test.images)))
            and torch.equal(b.train.labels, torch.cat((a.train.labels, a.test.labels)))
        ),
    ),
    "last_batch_only": (lambda: half_right()[1], lambda a, b: math.isclose(a, 5 / 6) and b == 0),
    "v_divisor": (variances, lambda a, b: close(b, a * math.sqrt(3 / 4) / math.sqrt(9 / 10))),
    "shift_counted_twice": (
        lambda: float(shift.per_image(torch.tensor([[0], [0], [1], [1]]), torch.tensor([0])).consistency),
        lambda a, b: a == 0.5 and math.isclose(b, 0.52),
    ),
    "self_pairs": (agreements, lambda a, b: float(a.mean()) < 1 and close(b, (a + 2) / 3)),
    "angle_zero": (rotated_consistency, lambda a, b: (a, b) == (0.5, 0.625)),
}


def close(found: Any, expected: Any) -> bool:
    """Return whether two tensors are equal up to rounding."""
    return torch.allclose(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-5)
