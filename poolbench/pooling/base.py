"""Base classes of all pools and heads. Class attributes state what an operator promises; the tests check each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from poolbench.core import Options
from poolbench.search import Search

Tunable = Mapping[str, Search]
"""Option -> where tuning looks for good values of it."""


class Pool(nn.Module):
    """Local pool, (b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride)).

    Subclasses are built as ``(channels, stride=2, padding_mode="zeros", **options)`` and registered with
    ``poolbench.registry.pools``. Set the attributes that differ from the defaults here.
    """

    keeps_size: ClassVar[bool] = False  # no subsampling: networks dilate later convolutions instead
    keeps_constants: ClassVar[bool] = True  # a constant map stays the same constant
    signed: ClassVar[bool] = True  # False: uses the magnitude or the positive part of its input only
    needs_divisible_size: ClassVar[bool] = False  # h and w must be multiples of the stride, else UsageError
    needs_power_of_two_stride: ClassVar[bool] = False  # other strides raise UsageError
    trainable_in_eval: ClassVar[bool] = True  # parameters receive gradients in eval mode, too
    sampling: ClassVar[str | None] = None  # a maximum, then the pool of this name, which takes the same options
    tunable: ClassVar[Tunable] = {}

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def searched(cls, options: Options) -> Tunable:
        """Return where tuning looks when the operator has these options: all of ``tunable`` unless overridden."""
        return cls.tunable


class Head(nn.Module):
    """Global pool, (b, c, h, w) -> (b, c * feature_multiplier).

    Subclasses are built as ``(channels, size=None, **options)`` with the size (h, w) of the map, and registered
    with ``poolbench.registry.heads``. Set the attributes that differ from the defaults here.
    """

    feature_multiplier: int = 1  # output features per channel; may be set per instance
    keeps_constants: ClassVar[bool] = True  # a constant map gives the same constant
    needs_size: ClassVar[bool] = False  # raises UsageError without a size
    tunable: ClassVar[Tunable] = {}

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def searched(cls, options: Options) -> Tunable:
        """Return where tuning looks when the operator has these options: all of ``tunable`` unless overridden."""
        return cls.tunable
