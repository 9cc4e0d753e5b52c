"""Training: images are not augmented, whatever the cell says.

Imitates a transform that is built but not applied, or training images that go through the transform of the test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

import poolbench.data.augment
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.data.augment, "augment")
def as_they_are(original: Callable[..., Tensor], images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """Return the images as they are."""
    return images
