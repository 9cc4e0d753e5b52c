"""Test images: they lie one pixel lower and further right than they should.

Imitates a centre crop that rounds the other way in evaluation.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from poolbench.plugins import import_code

test_images = import_code(str(Path(__file__).with_name("_test_images.py")))


def one_pixel_down_right(images: Tensor) -> Tensor:
    """Return images (n, c, h, w) moved by one pixel; black enters."""
    return F.pad(images[..., :-1, :-1], (1, 0, 1, 0))


test_images.change_test_images(one_pixel_down_right)
