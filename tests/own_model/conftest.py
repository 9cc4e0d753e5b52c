"""Random images, as tensors and as files, and forward passes over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from poolbench.own_model.passes import Counter, Passes


def random_pixels(count: int, side: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """Make random pixels (count, 3, side, side), uint8: ``noise(count, side, seed)``."""
    return random_pixels


@pytest.fixture
def passes_of() -> Callable[..., Passes]:
    """Make the passes of a network over larger images: ``passes_of(network, larger, size)``."""

    def make(network: nn.Module, larger: Tensor, size: int) -> Passes:
        return Passes(network.eval(), larger, size, "cpu", 5, Counter(lambda done, total: None))

    return make


@pytest.fixture
def drawn() -> Callable[..., Path]:
    """Write random PNGs into class folders, or into the folder itself: ``drawn(folder, per_class, classes, side)``."""

    def draw(folder: Path, per_class: int = 4, classes: Sequence[str] = ("a", "b", "c"), side: int = 12) -> Path:
        for index, name in enumerate(classes or [""]):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for number, pixels in enumerate(random_pixels(per_class, side, index)):
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name / f"{number}.png")
        return folder

    return draw
