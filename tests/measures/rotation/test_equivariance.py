"""The local equivariance error against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench.geometry import disc_mask
from poolbench.measures.rotation import (
    local_equivariance_error,
)

Images = Callable[..., Tensor]
Outputs = Callable[[nn.Module, Tensor], dict[str, Tensor]]


def rotation_derivative(maps: Tensor) -> Tensor:
    """d/dt of maps (b, c, n, n) rotated counter-clockwise by t radians, by central differences (np.gradient)."""
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    across, down = np.gradient(padded, axis=3)[..., 1:-1, 1:-1], np.gradient(padded, axis=2)[..., 1:-1, 1:-1]
    place = torch.arange(maps.shape[-1], dtype=torch.float64) - (maps.shape[-1] - 1) / 2
    # The source of a pixel (x right, y down) moves by (-y, x).
    return torch.from_numpy(across) * -place[:, None] + torch.from_numpy(down) * place


def test_the_error_is_that_of_finite_differences(images: Images, outputs: Outputs) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(162, 3)).double()
    x = images(5)
    found = local_equivariance_error(model, x, chunk=2).set_index("layer")
    step = 1e-5
    ahead, behind = (outputs(model, x + sign * step * rotation_derivative(x)) for sign in (1, -1))
    here = outputs(model, x)
    for layer in ("0", "1", "3"):
        slope = (ahead[layer] - behind[layer]) / (2 * step)
        if slope.dim() == 4:
            slope = (slope - rotation_derivative(here[layer]))[:, :, disc_mask((9, 9))].flatten(1)
            units = here[layer][:, :, disc_mask((9, 9))].flatten(1)
        else:
            units = here[layer]
        lee = float(slope.square().mean())
        assert found.loc[layer, "LEE"] == pytest.approx(lee, rel=2e-3)
        spread = float(units.var(0, correction=0).mean())
        assert found.loc[layer, "LEE_relative"] == pytest.approx((lee / spread) ** 0.5, rel=2e-3)
    # Pointwise layers commute with rotation.
    pointwise = local_equivariance_error(nn.Sequential(nn.Conv2d(1, 2, 1)).double(), x)
    assert pointwise["LEE"].iloc[0] == pytest.approx(0, abs=1e-9)
