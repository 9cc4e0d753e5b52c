"""Rotation variance against tmeasures, where it is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench.geometry import disc_mask, turns
from poolbench.measures.rotation import (
    activation_variance,
    recorded_layers,
)

Images = Callable[..., Tensor]
Outputs = Callable[[nn.Module, Tensor], dict[str, Tensor]]


ANGLES = [0.0, 50.0, 90.0, 200.0]


def test_tmeasures_agrees(small_network: nn.Module, images: Images, outputs: Outputs) -> None:
    """Quiroga's own later library, on the same turned images (its rotation takes degrees for radians)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tmeasures", reason="needs tmeasures and statsmodels, no dependencies")
        import tmeasures.pytorch as library

        model, x = small_network, images(20, 12)
        # Its sums are not shifted: deviations that are small beside their mean, as of default weights, lose digits.
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5 if parameter.dim() > 1 else 0)
        turned = torch.stack([turns(x, [angle])[0] * disc_mask((12, 12)) for angle in ANGLES])

        class Turned(torch.utils.data.Dataset[Tensor]):
            def __len__(self) -> int:
                return len(x)

            def __getitem__(self, place: int) -> Tensor:
                return torch.full((1,), place)

        class Turn:
            def __init__(self, place: int) -> None:
                self.place = place

            def __call__(self, image: Tensor) -> Tensor:
                return turned[self.place, int(image)]

        class Activations(library.ActivationsModule):  # type: ignore[misc,name-defined]
            def activation_names(self) -> list[str]:
                return list(recorded_layers(model))

            def forward_activations(self, pixels: Tensor) -> list[Tensor]:
                return list(outputs(model, pixels).values())

        options = library.PyTorchMeasureOptions(batch_size=5, verbose=False)
        measure = library.NormalizedVarianceInvariance()
        result = measure.eval(Turned(), [Turn(place) for place in range(4)], Activations(), options)
    units = activation_variance(model, x, ANGLES, None, ("none",))
    worst, compared = 0.0, 0
    for layer, theirs, sv in zip(result.layer_names, result.layers, result.y_result.layers, strict=True):
        own = units[units["layer"] == layer]
        # Where its SV rounds to the root of a negative number it gives TV in place of V.
        alive = np.isfinite(own["V"].to_numpy()) & np.isfinite(sv.flatten().numpy())
        if alive.any():
            worst = max(worst, float(np.max(np.abs(own["V"][alive] / theirs.flatten().numpy()[alive] - 1))))
        compared += int(alive.sum())
    print(f"largest relative difference from tmeasures over {compared} of {len(units)} units: {worst:.1e}")
    assert compared > 0.5 * len(units)
    assert worst < 1e-6
