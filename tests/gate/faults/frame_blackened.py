"""Test images: their outermost pixels are black.

Imitates a crop that is one pixel too small on every side. Garments touch the border; digits do not, and networks of
the rotation study mask it anyway.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from poolbench.plugins import import_code

test_images = import_code(str(Path(__file__).with_name("_test_images.py")))


def without_frame(images: Tensor) -> Tensor:
    """Return images (n, c, h, w) whose first and last rows and columns are black."""
    return F.pad(images[..., 1:-1, 1:-1], (1, 1, 1, 1))


test_images.change_test_images(without_frame)
