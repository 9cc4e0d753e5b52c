"""The protocol of 2019, computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from poolbench.geometry import turns
from poolbench.measures.rotation import (
    quiroga2019_variance,
)

Images = Callable[..., Tensor]
Outputs = Callable[[nn.Module, Tensor], dict[str, Tensor]]


ANGLES = [0.0, 50.0, 90.0, 200.0]


def test_the_protocol_has_its_published_faults(small_network: nn.Module, images: Images, outputs: Outputs) -> None:
    """Windows in place of batches, separate jitters for TV and SV, and normalisation of each group."""
    model, x = small_network, images(130, 12)
    labels = torch.arange(130) % 2
    mean, std = torch.tensor([0.3]), torch.tensor([0.25])
    found = quiroga2019_variance(model, x, ANGLES, labels, mean, std, torch.Generator().manual_seed(0), ("mean",))
    assert found["layer"].iloc[-1] == "log_softmax"
    draws = torch.Generator().manual_seed(0)
    expected = []
    for members in (torch.arange(130), torch.arange(0, 130, 2), torch.arange(1, 130, 2)):
        own = x[members]
        first, second = (torch.rand(2, 4, generator=draws) * 2 - 1).tolist()
        shown = (own - own.mean()) / own.std(correction=0) * 0.25 + 0.3
        black = (0 - own.mean()) / own.std(correction=0) * 0.25 + 0.3

        def conv2(jitter: list[float], shown: Tensor = shown, black: Tensor = black) -> Tensor:
            rotated = [turns(shown - black, [a + j])[0] + black for a, j in zip(ANGLES, jitter, strict=True)]
            return torch.stack([outputs(model, x)["conv2"].mean((2, 3)) for x in rotated])

        windows = [image for start in range(max(1, len(own) // 64)) for image in range(start, start + 64)]
        tv, sv = conv2(first).std(0)[windows].mean(0), conv2(second).std(1).mean(0)
        expected.append((tv, sv, tv / sv))
    rows = found[found["layer"] == "conv2"]
    np.testing.assert_allclose(rows["TV"], expected[0][0], rtol=1e-6)
    np.testing.assert_allclose(rows["SV"], expected[0][1], rtol=1e-6)
    np.testing.assert_allclose(rows["V"], expected[0][2], rtol=1e-6)
    np.testing.assert_allclose(rows["V_stratified"], (expected[1][2] + expected[2][2]) / 2, rtol=1e-6)
    still = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()).double()
    nn.init.zeros_(still[0].weight)  # type: ignore[arg-type]
    dead = quiroga2019_variance(still, x, ANGLES, labels, mean, std, torch.Generator().manual_seed(0), ("mean",))
    assert dead[dead["layer"] == "0"][["V", "V_stratified"]].to_numpy().tolist() == [[1.0, 1.0]]
