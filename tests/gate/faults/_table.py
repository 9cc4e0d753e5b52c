"""What each fault of this folder is expected to do to the results of the quick preset.

``FAULTS`` lists them by the name of their file. An effect names the groups of cells that it concerns by fields of the
cells (``Cell.fields``), each with the values that qualify.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from poolbench.core import Cell

Where = Mapping[str, Sequence[str]]
Direction = Literal["down", "up", "either", "missing", "fails"]


@dataclass(frozen=True)
class Effect:
    """A metric that a fault moves in the groups ``where``, all groups of the benchmark without it.

    ``direction``: "down", "up", "either" (the size is certain, the sign is not), "missing" (the cells end without
    the metric) or "fails" (the cells fail, with no metric).
    """

    benchmark: str
    metric: str
    direction: Direction
    where: Where = field(default_factory=dict)

    def concerns(self, cell: Cell) -> bool:
        """Return whether the cell is in one of the groups."""
        fields = cell.fields
        return cell.benchmark == self.benchmark and all(
            str(fields.get(name)) in allowed for name, allowed in self.where.items()
        )


@dataclass(frozen=True)
class Fault:
    """A fault: the name of its file, and its effects, the clearest first.

    ``subtle`` marks a fault whose effect may well be smaller than the tolerance of every metric: nobody would act
    on it, so a gate need not report it.
    """

    name: str
    effects: tuple[Effect, ...]
    subtle: bool = False

    @property
    def path(self) -> Path:
        """The file for ``--plugin``."""
        return Path(__file__).with_name(f"{self.name}.py")


GLOBAL, ROTATION, SHIFT, BUDGET = "global_pooling", "rotation_variance", "shift_robustness", "training_budget"
BLURRED = ("blur3", "max_blur3")
SHAPES: Where = {"dataset": ("shapes",)}
TWO_POOLS: Where = {"dataset": ("shapes",), "num_pooling": ("2",)}
IMAGES: Where = {"dataset": ("fashion_mnist_sample",)}
CIRCULAR: Where = {"padding_mode": ("circular",)}
POLYPHASE: Where = {"pool": ("max_aps",), "padding_mode": ("circular",)}
NORMALISED: Where = {"architecture": ("vgg_like", "all_convolutional", "resnet18")}
GARMENTS: Where = {"variant": ("corrected", "features")}
ROTATED: Where = {"variant": ("rotated",)}
SHIFTED: Where = {"variant": ("shifted",)}
AVERAGED: Where = {"head": ("avg",)}

FAULTS = (
    # Pooling
    Fault(
        "blur_tap",
        (
            Effect(SHIFT, "aliasing", "up", {**TWO_POOLS, "pool": BLURRED}),
            Effect(SHIFT, "exact_consistency", "down", {**IMAGES, **CIRCULAR, "pool": ("max_blur3",)}),
            Effect(BUDGET, "exact_consistency", "down", {"pool": ("max_blur3",)}),
        ),
    ),
    Fault(
        "blur_border",
        (
            Effect(SHIFT, "square_boundary", "either", {**SHAPES, "pool": BLURRED}),
            Effect(SHIFT, "accuracy", "either", {**IMAGES, "pool": ("max_blur3",), "padding_mode": ("zeros",)}),
        ),
        subtle=True,
    ),
    Fault(
        "phase_offset",
        (
            Effect(ROTATION, "accuracy", "either", {"pool": ("max", "decimate")}),
            Effect(GLOBAL, "accuracy", "either"),
            Effect(SHIFT, "square_boundary", "either", {**SHAPES, "pool": ("max", "strided_conv")}),
        ),
        subtle=True,
    ),
    Fault(
        "phase_in_evaluation",
        (
            Effect(ROTATION, "accuracy", "down", {"pool": ("max",), "head": ("flatten",)}),
            Effect(GLOBAL, "accuracy", "down", {"head": ("flatten",)}),
            Effect(ROTATION, "V_none", "either", {"pool": ("max", "decimate")}),
        ),
    ),
    Fault(
        "circular_zeros",
        (
            Effect(BUDGET, "accuracy", "fails"),
            Effect(SHIFT, "exact_consistency", "missing", {**IMAGES, **CIRCULAR}),
            Effect(SHIFT, "circular_sampled", "down", POLYPHASE),
        ),
    ),
    Fault(
        "first_phase",
        (
            Effect(BUDGET, "accuracy", "fails", POLYPHASE),
            Effect(SHIFT, "exact_consistency", "missing", POLYPHASE),
            Effect(SHIFT, "circular_sampled", "down", POLYPHASE),
        ),
    ),
    Fault("head_area", (Effect(GLOBAL, "loss", "either", AVERAGED),), subtle=True),
    Fault(
        "head_border",
        (
            Effect(BUDGET, "accuracy", "fails"),
            Effect(SHIFT, "exact_consistency", "missing", {**IMAGES, **CIRCULAR}),
            Effect(GLOBAL, "accuracy", "down", AVERAGED),
            Effect(SHIFT, "accuracy", "down", {**IMAGES, "padding_mode": ("zeros",)}),
        ),
    ),
    # Training
    Fault(
        "learning_rate_halved",
        (
            Effect(SHIFT, "accuracy", "down", SHAPES),
            Effect(GLOBAL, "accuracy", "down", GARMENTS),
            Effect(ROTATION, "accuracy", "either"),
        ),
    ),
    Fault(
        "last_epoch_skipped",
        (
            Effect(SHIFT, "accuracy", "down", IMAGES),
            Effect(BUDGET, "accuracy", "down", {"epochs": ("2",)}),
            Effect(ROTATION, "accuracy", "down", {"epochs": ("2", "3", "4")}),
            Effect(GLOBAL, "accuracy", "down", GARMENTS),
        ),
    ),
    Fault(
        "schedule_per_epoch",
        (
            Effect(ROTATION, "accuracy", "down"),
            Effect(SHIFT, "accuracy", "down", IMAGES),
            Effect(BUDGET, "accuracy", "down"),
        ),
    ),
    Fault(
        "gradients_accumulate",
        (
            Effect(GLOBAL, "accuracy", "down"),
            Effect(SHIFT, "accuracy", "down", SHAPES),
            Effect(ROTATION, "accuracy", "down"),
            Effect(BUDGET, "accuracy", "down"),
        ),
    ),
    Fault(
        "double_softmax",
        (
            Effect(GLOBAL, "loss", "up", GARMENTS),
            Effect(ROTATION, "loss", "up"),
            Effect(SHIFT, "loss", "up"),
            Effect(BUDGET, "loss", "up"),
        ),
    ),
    Fault(
        "unshuffled",
        (
            Effect(GLOBAL, "accuracy", "down", GARMENTS),
            Effect(ROTATION, "accuracy", "either"),
            Effect(BUDGET, "accuracy", "either"),
        ),
        subtle=True,
    ),
    Fault(
        "no_augmentation",
        (
            Effect(ROTATION, "accuracy_rotated", "down", ROTATED),
            Effect(SHIFT, "worst_accuracy", "either", SHIFTED),
        ),
    ),
    Fault(
        "augmentation_repeats",
        (
            Effect(ROTATION, "accuracy_rotated", "either", ROTATED),
            Effect(SHIFT, "accuracy", "either", SHIFTED),
        ),
        subtle=True,
    ),
    Fault("rotation_in_radians", (Effect(ROTATION, "accuracy_rotated", "down", ROTATED),)),
    # Data
    Fault(
        "moments_of_imagenet",
        (
            Effect(GLOBAL, "accuracy", "either", GARMENTS),
            Effect(ROTATION, "accuracy", "either", {"architecture": ("simple_conv",)}),
        ),
        subtle=True,
    ),
    Fault(
        "moments_unscaled",
        (
            Effect(GLOBAL, "accuracy", "down", GARMENTS),
            Effect(ROTATION, "accuracy", "down", {"architecture": ("simple_conv",)}),
        ),
    ),
    Fault(
        "moments_in_evaluation",
        (
            Effect(SHIFT, "accuracy", "down"),
            Effect(ROTATION, "accuracy", "down"),
            Effect(BUDGET, "accuracy", "down"),
            Effect(GLOBAL, "accuracy", "down", GARMENTS),
        ),
    ),
    Fault("labels_2_percent", (Effect(GLOBAL, "train_accuracy", "down", GARMENTS),), subtle=True),
    Fault("labels_5_percent", (Effect(GLOBAL, "train_accuracy", "down", GARMENTS),)),
    Fault("frame_blackened", (Effect(GLOBAL, "accuracy", "either"), Effect(BUDGET, "accuracy", "either")), subtle=True),
    Fault(
        "images_moved",
        (
            Effect(GLOBAL, "accuracy", "down"),
            Effect(ROTATION, "accuracy", "either", {"head": ("flatten",)}),
        ),
        subtle=True,
    ),
    Fault("leaked_images", (Effect(GLOBAL, "accuracy", "up"), Effect(SHIFT, "accuracy", "up", IMAGES))),
    # Evaluation
    Fault(
        "dropout_in_evaluation",
        (
            Effect(BUDGET, "accuracy", "fails"),
            Effect(SHIFT, "exact_consistency", "missing", {**IMAGES, **CIRCULAR}),
            Effect(GLOBAL, "accuracy", "down"),
        ),
    ),
    Fault(
        "batch_norm_frozen",
        (
            Effect(BUDGET, "accuracy", "down"),
            Effect(ROTATION, "accuracy", "down", NORMALISED),
            Effect(SHIFT, "accuracy", "down", IMAGES),
        ),
    ),
    Fault(
        "batch_norm_momentum",
        (
            # Trainings of few steps gain: the statistics follow at once.
            Effect(BUDGET, "accuracy", "either"),
            Effect(ROTATION, "accuracy", "either", NORMALISED),
            Effect(SHIFT, "accuracy", "either", IMAGES),
        ),
    ),
    Fault("last_batch_only", (Effect(GLOBAL, "accuracy", "either"), Effect(SHIFT, "accuracy", "either"))),
    # Measures
    Fault(
        "v_divisor",
        (
            # By 6 %: above the tolerance of 0.05 only where V is above 0.8.
            Effect(ROTATION, "V_none", "down"),
            Effect(ROTATION, "V_max", "down"),
            Effect(ROTATION, "V_mean", "down"),
        ),
    ),
    Fault("shift_counted_twice", (Effect(SHIFT, "grid_consistency", "up", IMAGES),), subtle=True),
    Fault("self_pairs", (Effect(SHIFT, "circular_sampled", "up", IMAGES), Effect(SHIFT, "crop_sampled", "up", IMAGES))),
    Fault("angle_zero", (Effect(ROTATION, "consistency", "up"), Effect(ROTATION, "consistency_c4", "up"))),
)
