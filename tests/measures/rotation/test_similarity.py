"""CKA against its definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from poolbench.geometry import disc_mask, rotate_all
from poolbench.measures.rotation import (
    rotated_cka,
)

Images = Callable[..., Tensor]
Outputs = Callable[[nn.Module, Tensor], dict[str, Tensor]]


def test_cka_against_its_definition(small_network: nn.Module, images: Images, outputs: Outputs) -> None:
    model, x = small_network, images(6, 12)
    found = rotated_cka(model, x, [0.0, 90.0, 40.0]).set_index(["layer", "angle"])["CKA"]
    assert found.xs(0.0, level="angle").dropna().to_numpy() == pytest.approx(1)
    mask = disc_mask((12, 12))
    for layer in ("conv1", "relu4"):
        first, second = (outputs(model, rotate_all(x, angle) * mask)[layer].flatten(1) for angle in (0.0, 40.0))
        first, second = first - first.mean(0), second - second.mean(0)
        expected = (second.T @ first).square().sum() / ((first.T @ first).norm() * (second.T @ second).norm())
        assert found[layer, 40.0] == pytest.approx(float(expected), rel=1e-9)
    # The mean over an image is invariant to rotation, so the similarity is 1.
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)).double()
    assert rotated_cka(pooled, x, [90.0])["CKA"].iloc[0] == pytest.approx(1)
