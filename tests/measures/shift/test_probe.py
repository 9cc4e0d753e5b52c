"""Total stride and receptive field against what the kernels imply."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poolbench.architectures import create_model
from poolbench.measures import shift


@pytest.mark.parametrize(
    ("architecture", "shape", "expected"),
    [("resnet20", (3, 32, 32), 4), ("vgg_like", (3, 32, 32), 16), ("all_convolutional", (1, 28, 28), 4)],
)
def test_the_total_stride_is_read_off_the_maps(architecture: str, shape: tuple[int, int, int], expected: int) -> None:
    model = create_model(architecture, shape, 10, "max", "avg", width=4)
    assert shift.total_stride(model, torch.zeros(shape)) == expected


def test_the_receptive_reach_is_that_of_the_kernels() -> None:
    canvas = torch.zeros(1, 64, 64)
    convs = nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1))
    assert shift.receptive_reach(convs, canvas) == 3
    dead = nn.Sequential(nn.Conv2d(1, 1, 7, padding=3))
    nn.init.zeros_(dead[0].weight)  # type: ignore[arg-type]
    assert shift.receptive_reach(dead, canvas) == 3
    assert shift.receptive_reach(nn.Sequential(nn.Conv2d(1, 1, 63, padding=31)), canvas) is None
