"""Accumulated moments: precision, runs, blocks, and values that are not finite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench.geometry import disc_mask, turns
from poolbench.measures.rotation import (
    activation_variance,
)
from poolbench.measures.rotation import moments as moments_module
from poolbench.measures.rotation.moments import Moments, Workspace

Images = Callable[..., Tensor]
Outputs = Callable[[nn.Module, Tensor], dict[str, Tensor]]


def test_single_precision_keeps_six_digits(monkeypatch: pytest.MonkeyPatch, images: Images, outputs: Outputs) -> None:
    # Short runs and blocks, so that they end within a class and within a layer.
    monkeypatch.setattr(moments_module, "RUN", 8)
    monkeypatch.setattr(moments_module, "BLOCK", 1)
    x = images(60, 12)
    labels = torch.arange(60) % 3
    # Activations far from zero: sums of their own squares would lose every digit.
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(300, 2))
    with torch.no_grad():
        model[0].bias.fill_(100.0)  # type: ignore[union-attr,operator]
    reference = []
    angles = [30.0 * step for step in range(12)]
    for turn in angles:
        pixels = turns(x.float(), [turn])[0] * disc_mask((12, 12))
        reference.append(outputs(model, pixels)["0"].double().flatten(1))
    values = torch.stack(reference)
    units = activation_variance(model, x.float(), angles, labels, ("none",))
    own = units[units["layer"] == "0"]
    tv, sv = values.std(0).mean(0), values.std(1).mean(0)
    moving = (tv > 0).numpy()
    # float32 keeps about 1e-5 of a deviation of .1 around 100.
    np.testing.assert_allclose(own["TV"], tv, rtol=2e-5)
    np.testing.assert_allclose(own["SV"], sv, rtol=2e-5)
    assert moving.any()


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_moments_of_several_passes_and_classes_against_torch(
    dtype: torch.dtype, digits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks, passes and classes; units that never change, that change with the angle alone, and NaN."""
    monkeypatch.setattr(moments_module, "BLOCK", 1)
    values = 100 + torch.randn(5, 9, 700, dtype=dtype, generator=torch.Generator().manual_seed(0))
    values[..., 0] = 0.1
    values[..., 1] = torch.linspace(0, 1, 5, dtype=dtype)[:, None]
    values[2, 3, 2] = torch.nan
    moments = Moments(5, Workspace())
    for chosen in (slice(0, 2), slice(2, 5)):
        moments.update(values[:, chosen])
    moments.close_class()
    moments.update(values[:, 5:])
    moments.close_class()
    found = moments.result()

    def ratio(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tv, sv = images.std(dim=0).mean(dim=0), images.std(dim=1).mean(dim=0)
        return tv, sv, tv / sv

    exact = values.double()
    tv, sv, v = ratio(exact)
    classes = torch.stack([ratio(exact[:, :5])[2], ratio(exact[:, 5:])[2]])
    expected = {"TV": tv, "SV": sv, "V": v, "classes": classes, "V_stratified": classes.mean(dim=0)}
    for name, value in expected.items():
        torch.testing.assert_close(found[name][..., 3:], value[..., 3:], rtol=digits, atol=0)
    assert found["TV"][0] == found["SV"][0] == 0
    assert found["dead"].nonzero().tolist() == [[0]]
    assert found["SV"][1] == 0
    assert found["V"][1] == torch.inf
    assert float(found["TV"][1]) == pytest.approx(float(tv[1]), rel=digits)
    assert found["V"][2].isnan()
