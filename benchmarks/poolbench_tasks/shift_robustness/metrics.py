"""What is measured of a network whose input moves."""

from __future__ import annotations

from math import inf

from poolbench.core import FROM_0_TO_1, NOT_NEGATIVE, Metric

FLOOR = 0.001
"""Deviations of the logit: less than that is rounding noise to a reader, and to logarithms."""

METRICS = (
    Metric("accuracy", "accuracy", True, 0.02, per_image="answers.correct", gated=True, share=True),
    Metric(
        "subset_accuracy",
        "accuracy, same images",
        higher_is_better=True,
        tolerance=0.02,
        per_image="decisions.correct",
        share=True,
    ),
    Metric(
        "worst_accuracy",
        "worst-case accuracy",
        higher_is_better=True,
        tolerance=0.03,
        per_image="decisions.worst",
        share=True,
    ),
    Metric(
        "exact_consistency",
        "exact consistency",
        higher_is_better=True,
        tolerance=0.01,
        per_image="decisions.consistency",
        gated=True,
        share=True,
    ),
    Metric(
        "morph_consistency",
        "exact consistency, between square and circle",
        higher_is_better=True,
        tolerance=0.01,
        per_image="decisions.morph_consistency",
        share=True,
    ),
    Metric("grid_consistency", "consistency, grid", True, 0.01, per_image="decisions.grid_consistency", share=True),
    Metric(
        "crop_sampled",
        "consistency, crops",
        higher_is_better=True,
        tolerance=0.03,
        per_image="decisions.crop_sampled",
        gated=True,
        share=True,
    ),
    Metric("flip_rate", "flips per 1-px step", higher_is_better=False, tolerance=0.01, bounds=FROM_0_TO_1),
    Metric("mean_absolute_change", "change per 1-px step", False, 0.01, "probability", bounds=FROM_0_TO_1),
    Metric(
        "aliasing",
        "aliasing",
        False,
        0.05,
        "logit deviations",
        scale="log",
        floor=FLOOR,
        per_image="decisions.aliasing",
        gated=True,
    ),
    Metric(
        "square_boundary",
        "border effect, square",
        False,
        0.1,
        "logit deviations",
        scale="log",
        floor=FLOOR,
        gated=True,
    ),
    Metric("square_flips", "decision flips, square", False, 0.02, "share of positions", bounds=FROM_0_TO_1),
    Metric(
        "averaged_consistency",
        "consistency, phases averaged",
        higher_is_better=True,
        tolerance=0.01,
        per_image="decisions.averaged_consistency",
        share=True,
    ),
    Metric(
        "consistency",
        "consistency, exact or grid",
        True,
        0.01,
        headline=False,
        per_image="decisions.consistency",
        share=True,
    ),
    Metric(
        "grid_worst_accuracy",
        "worst-case accuracy, grid",
        True,
        0.03,
        headline=False,
        per_image="decisions.grid_worst",
        share=True,
    ),
    Metric("averaged_accuracy", "accuracy, phases averaged", True, 0.02, headline=False, bounds=FROM_0_TO_1),
    Metric(
        "bfloat16_consistency", "consistency in bfloat16, few images", True, 0.01, headline=False, bounds=FROM_0_TO_1
    ),
    Metric(
        "subpixel_consistency",
        "consistency, half-pixel shifts, few images",
        True,
        0.01,
        headline=False,
        bounds=FROM_0_TO_1,
    ),
    Metric("consistency_corrected", "consistency of different shifts", True, 0.02, headline=False, bounds=FROM_0_TO_1),
    Metric("kappa", "consistency beyond chance", True, 0.05, headline=False, bounds=(-inf, 1.0)),
    Metric(
        "mean_shifted_accuracy",
        "accuracy, mean over shifts",
        True,
        0.02,
        headline=False,
        per_image="decisions.mean_correct",
        share=True,
    ),
    Metric(
        "circular_sampled",
        "sampled consistency, circular shifts",
        True,
        0.02,
        headline=False,
        per_image="decisions.circular_sampled",
        share=True,
    ),
    Metric("circular_sampled_se", "its standard error", tolerance=0.01, headline=False, bounds=NOT_NEGATIVE),
    Metric(
        "crop_sampled_se",
        "standard error of the consistency of crops",
        tolerance=0.01,
        headline=False,
        bounds=NOT_NEGATIVE,
    ),
    Metric(
        "circular_legacy", "consistency as published, one pair a batch", True, 0.05, headline=False, bounds=FROM_0_TO_1
    ),
    Metric(
        "square_aliasing",
        "aliasing, square",
        False,
        0.05,
        "logit deviations",
        headline=False,
        scale="log",
        floor=FLOOR,
    ),
    Metric("square_interior_range", "interior range, square", False, 0.1, "logit", headline=False, bounds=NOT_NEGATIVE),
    Metric(
        "square_noise", "rounding noise, square", False, 0.001, "logit deviations", headline=False, bounds=NOT_NEGATIVE
    ),
    Metric("square_range", "range of the map, square", False, 0.05, "probability", headline=False, bounds=FROM_0_TO_1),
    Metric(
        "square_deviation",
        "deviation of the map, square",
        False,
        0.02,
        "probability",
        headline=False,
        bounds=NOT_NEGATIVE,
    ),
    Metric("loss", "loss", higher_is_better=False, tolerance=0.05, headline=False, bounds=NOT_NEGATIVE),
)
