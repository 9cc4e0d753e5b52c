"""Rotation variance: standard deviations divide by n in place of n - 1, over angles and over images.

Imitates the default of numpy against that of torch. There are far fewer angles than images, so V falls: by 6 % for
8 angles.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from poolbench.measures.rotation.moments import Moments, Spread
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(Spread, "deviation")
def over_images(original: Callable[..., Tensor], self: Spread) -> Tensor:
    """Return the standard deviation with the divisor n."""
    return original(self) * ((self.count - 1) / self.count) ** 0.5


@patching.in_place_of(Moments, "_carry_over")
def over_angles(original: Callable[..., None], self: Moments) -> None:
    """Scale the deviations over angles to the divisor n before they are added up."""
    if self.run:
        # The roots of the sums of squares over the angles, and those sums.
        share = (self.angles - 1) / self.angles
        self.deviations[0] *= share**0.5
        self.deviations[1] *= share
    original(self)
