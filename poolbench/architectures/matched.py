"""Controls of equal size: the width at which a network has as many parameters as one with a learned pool."""

from __future__ import annotations

import torch

from poolbench.architectures import create_model
from poolbench.core import Component, Scalar, UsageError

WIDEST = 4096


def parameter_count(
    architecture: str,
    in_shape: tuple[int, int, int],
    classes: int,
    pool: str | Component = "max",
    head: str | Component = "avg",
    width: int | None = None,
    **options: Scalar,
) -> int:
    """Return the number of parameters of the network that ``create_model`` builds from these arguments."""
    with torch.device("meta"):
        model = create_model(architecture, in_shape, classes, pool, head, "zeros", width, **options)
    return sum(parameter.numel() for parameter in model.parameters())


def matched_width(
    architecture: str,
    in_shape: tuple[int, int, int],
    classes: int,
    pool: str | Component,
    parameters: int,
    head: str | Component = "avg",
    **options: Scalar,
) -> int:
    """Return the width at which the network with that pool has the number of parameters closest to ``parameters``.

    Of two equally close widths the larger one is returned, so that the control is not the smaller network. Raises
    UsageError for fewer than one parameter and where widths up to 4096 do not reach the number.
    """
    if parameters < 1:
        raise UsageError(f"a network has at least one parameter, got {parameters}")

    def size(width: int) -> int:
        return parameter_count(architecture, in_shape, classes, pool, head, width, **options)

    low, high = 1, 1
    while size(high) < parameters:
        if high >= WIDEST:
            raise UsageError(f"{architecture} has fewer than {parameters:,} parameters up to a width of {WIDEST}")
        low, high = high, 2 * high
    # The number grows with the width: size(low) < parameters <= size(high), or both are 1.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < parameters else (low, middle)
    return low if parameters - size(low) < size(high) - parameters and size(low) <= parameters else high
