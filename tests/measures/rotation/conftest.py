"""Images, a small network, and its recorded outputs, shared by the tests of the rotation measures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.geometry import disc_mask
from poolbench.measures.rotation.layers import recorded_outputs


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """Return a function (count, size=9) -> random float64 images (count, 1, size, size), black outside the disc."""

    def make(count: int, size: int = 9) -> Tensor:
        x = torch.rand(count, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return x * disc_mask((size, size))

    return make


@pytest.fixture
def small_network() -> nn.Module:
    """Return a float64 simple_conv for images of 12x12 with 4 classes."""
    torch.manual_seed(0)
    return create_model("simple_conv", (1, 12, 12), 4, "max", "flatten", width=2, hidden=3).double().eval()


@pytest.fixture
def outputs() -> Callable[[nn.Module, Tensor], dict[str, Tensor]]:
    """Return a function (model, x) -> copies of the outputs of all recorded layers."""

    def record(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        copies: dict[str, Tensor] = {}
        with torch.no_grad(), recorded_outputs(model, lambda layer, output: copies.update({layer: output.clone()})):
            model(x)
        return copies

    return record
