"""What the tests of surgery share: networks whose layers all matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

Build = Callable[[str], nn.Module]
Spread = Callable[..., float]
ROLLS = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (3, 29), (16, 31), (32, 7), (45, 62))


@pytest.fixture
def build() -> Build:
    """Return a function that builds timm's network of a name, or torchvision's after "torchvision:", in eval mode.

    Fresh networks scale some branches with 0, and in eval mode their signals grow or fade from layer to layer. Here
    normalisation has drawn weights and the statistics of noise.
    """
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")

    def build(name: str) -> nn.Module:
        torch.manual_seed(0)
        source, _, rest = name.rpartition(":")
        model: nn.Module = (
            torchvision.models.get_model(rest, num_classes=10) if source else timm.create_model(rest, num_classes=10)
        )
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
                module.momentum = None
        if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            with torch.no_grad():
                model.train()(torch.randn(8, 3, 64, 64))
        return model.eval()

    return build


@pytest.fixture
def spread() -> Spread:
    """Return a function: the largest change of a logit over rolls of noise images, relative to the largest logit.

    In float64: the statistics of a few images amplify the rounding of float32 in deep networks.
    """

    def spread(model: nn.Module, size: int = 64, rolls: Sequence[tuple[int, int]] = ROLLS, images: int = 1) -> float:
        x = torch.randn(images, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        model.double()
        with torch.no_grad():
            logits: Tensor = model(torch.cat([torch.roll(x, by, (-2, -1)) for by in rolls])).unflatten(0, (-1, images))
        return float((logits - logits[:1]).abs().max() / logits.abs().max())

    return spread
