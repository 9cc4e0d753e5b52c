"""Forward passes in batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CPU_ELEMENTS, GPU_ELEMENTS = 2**17, 2**26


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Return the outputs (n, outputs) of images (n, c, h, w), in eval mode and without gradients."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in images.split(batch_size(images))])


def batch_size(images: Tensor) -> int:
    """Return how many images (n, c, h, w) pass at once: no more than a CPU's cache holds, many on a GPU."""
    return max(1, (GPU_ELEMENTS if images.is_cuda else CPU_ELEMENTS) // images[0].numel())
